//! What can go wrong with the journal, each with a name of its own.
//!
//! Messages name the directory, what became of what was to be kept, and what to do. Never a statement,
//! a parameter or a key.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// The name of what went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// `journal_bytes_max` is used up by what is in flight.
    Full,
    /// The file system has no room (or the quota is used up).
    NoSpace,
    /// The directory or its file system cannot be written to.
    ReadOnly,
    /// Reading or writing failed.
    Io,
    /// The disk did not confirm what was written; it may be there or not.
    SyncFailed,
    /// The journal has failed several times in a row, and is left alone until it is opened again.
    Failed,
    /// It did not become durable before the deadline; it may yet.
    Timeout,
    /// Another process owns the directory.
    Locked,
    /// Others could read it, or it belongs to somebody else.
    Permissions,
    /// The key is not the one that the journal was written with.
    WrongKey,
    /// The journal is encrypted and no key was given.
    KeyNeeded,
    /// A key was given and the journal is in the clear.
    NotEncrypted,
    /// It was written by a version of Segue that this one does not know.
    Version,
    /// What was given as a key is none, or cannot be read.
    BadKey,
    /// A record is too large for the journal.
    TooLarge,
    /// It was closed.
    Closed,
}

impl Reason {
    /// The word for logs and statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "journal_full",
            Self::NoSpace => "journal_no_space",
            Self::ReadOnly => "journal_read_only",
            Self::Io => "journal_io_error",
            Self::SyncFailed => "journal_sync_failed",
            Self::Failed => "journal_failed",
            Self::Timeout => "journal_timeout",
            Self::Locked => "journal_locked",
            Self::Permissions => "journal_permissions",
            Self::WrongKey => "journal_wrong_key",
            Self::KeyNeeded => "journal_key_needed",
            Self::NotEncrypted => "journal_not_encrypted",
            Self::Version => "journal_version",
            Self::BadKey => "journal_bad_key",
            Self::TooLarge => "journal_record_too_large",
            Self::Closed => "journal_closed",
        }
    }
}

/// An error of the journal. Cloning is cheap: one failed batch answers many sessions.
#[derive(Debug, Clone)]
pub struct JournalError {
    reason: Reason,
    message: Arc<str>,
    source: Option<Arc<io::Error>>,
}

pub type Result<T> = std::result::Result<T, JournalError>;

impl JournalError {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into().into(), source: None }
    }

    /// What was to be kept is larger than may be.
    pub fn too_large(message: &str) -> Self {
        Self::new(Reason::TooLarge, message)
    }

    /// An error of the operating system, while doing `what`.
    pub(super) fn io(directory: &str, what: &str, error: io::Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Reason::NoSpace,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Reason::ReadOnly,
            _ => Reason::Io,
        };
        let advice = match reason {
            Reason::NoSpace => "make room there, or give journal_dir another place",
            Reason::ReadOnly => "make it writable for this user, or give journal_dir another place",
            _ => "look at the disk and its log",
        };
        Self {
            reason,
            message: format!("the journal in {directory} failed while {what}: {advice}").into(),
            source: Some(Arc::new(error)),
        }
    }

    /// A failed fsync: whatever the operating system calls it, the disk has not confirmed.
    pub(super) fn sync(directory: &str, error: io::Error) -> Self {
        Self {
            reason: Reason::SyncFailed,
            message: format!(
                "the disk under the journal in {directory} did not confirm what was written: what was \
                 acknowledged before is kept, this is not; look at the disk and its log"
            )
            .into(),
            source: Some(Arc::new(error)),
        }
    }

    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}
