//! Where submissions are kept until they have ended: in the journal on disk, or in memory alone.
//!
//! It says whether something is kept, and nothing about what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::submission::Payload;
use crate::config::{Config, JournalMode, JournalSync};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{
    self, Disk, Fate, FoundKind, Journal, JournalError, Key, Owner, Reason, Record,
    SubmissionOutcome, SyncPolicy,
};

/// The keeper of submissions.
pub struct Store {
    journal: Option<Journal>,
    next: AtomicU64,
    /// Names this store on servers: what an earlier process with the same journal has left behind
    /// there is told by it.
    pub id: Uuid,
}

/// What belongs to one submission: its records.
pub struct Keep(Option<Owner>, u64);

/// Why a submission can never succeed.
#[derive(Clone, Default)]
pub struct Death {
    pub at_unix_ms: u64,
    /// From 0.
    pub statement: u32,
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
}

/// A submission that had not ended when the journal was opened.
pub struct Unended {
    pub keep: Keep,
    pub payload: Payload,
    pub death: Option<Death>,
}

impl Store {
    /// Opens what the configuration names, and says what is in it.
    pub fn open(config: &Config) -> Result<(Self, Vec<Unended>)> {
        if config.journal.mode == JournalMode::Memory {
            let store = Self { journal: None, next: AtomicU64::new(1), id: Uuid::new_v4() };
            return Ok((store, Vec::new()));
        }
        let dir = config.journal.dir.as_deref().unwrap_or_else(|| std::path::Path::new("."));
        let disk = Arc::new(Disk::open(dir).map_err(cannot_open)?);
        let sync = match config.journal.sync {
            JournalSync::None => SyncPolicy::None,
            JournalSync::Batch => SyncPolicy::Batch,
            JournalSync::Always => SyncPolicy::Always,
        };
        let bytes_max = u64::try_from(config.limits.journal_bytes_max).unwrap_or(u64::MAX);
        let mut options = journal::Options::new(sync, bytes_max, Uuid::new_v4());
        options.key = key(config)?;
        let (journal, recovered) = Journal::open(disk, options).map_err(cannot_open)?;
        for finding in &recovered.report().findings {
            tracing::warn!(%finding, "the journal");
        }
        let mut unended = Vec::new();
        let mut transactions = 0_usize;
        for found in recovered.in_flight() {
            if !matches!(found.what, FoundKind::Submission { .. }) {
                transactions += usize::from(!matches!(found.what, FoundKind::Session { .. }));
                continue;
            }
            let mut payload = None;
            let mut death = None;
            let read = recovered.records(found, |record| match record {
                Record::Submission(it) => payload = Some(Payload::from_record(it)),
                Record::DeadLetter(it) => {
                    death = Some(Death {
                        at_unix_ms: it.at_unix_ms,
                        statement: it.statement,
                        sqlstate: it.sqlstate.to_owned(),
                        message: it.message.to_owned(),
                        detail: it.detail.to_owned(),
                    });
                }
                // A dead letter that is to be run again.
                Record::SubmissionOutcome(it) if it.fate == Fate::NotCommitted => death = None,
                _ => {}
            });
            read.map_err(cannot_open)?;
            let Some(payload) = payload else {
                tracing::error!(owner = found.owner, "a submission in the journal cannot be read");
                continue;
            };
            if found.doubtful && death.is_none() {
                death = Some(Death {
                    at_unix_ms: unix_ms(),
                    sqlstate: "XX001".to_owned(),
                    message:
                        "the journal was found damaged, and records of this submission may be \
                              missing; it may be committed: retry it (it is never executed twice) \
                              or purge it"
                            .to_owned(),
                    ..Death::default()
                });
            }
            unended.push(Unended {
                keep: Keep(Some(journal.adopt(found)), found.owner),
                payload,
                death,
            });
        }
        if transactions > 0 {
            tracing::warn!(
                transactions,
                "an earlier process had transactions in flight: recover() them"
            );
        }
        let id = journal.id();
        drop(recovered);
        Ok((Self { journal: Some(journal), next: AtomicU64::new(1), id }, unended))
    }

    /// A number and a place for something new; grows with every call.
    pub fn begin(&self) -> Keep {
        match &self.journal {
            Some(journal) => {
                let owner = journal.begin();
                let number = owner.number();
                Keep(Some(owner), number)
            }
            None => Keep(None, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Returns once it is kept, as `journal_sync` understands that.
    pub fn keep(&self, keep: &mut Keep, payload: &Payload) -> Result<(), JournalError> {
        self.write(keep, &payload.record())
    }

    /// It can never succeed.
    pub fn bury(&self, keep: &mut Keep, death: &Death) -> Result<(), JournalError> {
        self.write(
            keep,
            &Record::DeadLetter(journal::DeadLetter {
                at_unix_ms: death.at_unix_ms,
                statement: death.statement,
                sqlstate: &death.sqlstate,
                message: &death.message,
                detail: &death.detail,
            }),
        )
    }

    /// A dead letter is to be run again.
    pub fn revive(&self, keep: &mut Keep) -> Result<(), JournalError> {
        let outcome = SubmissionOutcome {
            fate: Fate::NotCommitted,
            at_unix_ms: unix_ms(),
            affected: Vec::new().into(),
            sqlstate: "",
            message: "",
        };
        self.write(keep, &Record::SubmissionOutcome(outcome))
    }

    fn write(&self, keep: &mut Keep, record: &Record<'_>) -> Result<(), JournalError> {
        let (Some(journal), Some(owner)) = (&self.journal, &mut keep.0) else { return Ok(()) };
        owner.append(journal, record)?;
        owner.commit(journal, None)
    }

    /// Nothing of it is needed any more. Should that not reach the disk, it is found once more, and
    /// the server says that it is done.
    pub fn end(&self, keep: Keep) {
        if let (Some(journal), Some(owner)) = (&self.journal, keep.0) {
            if let Err(error) = owner.end(journal) {
                tracing::warn!(%error, "the end of a submission is not in the journal");
            }
        }
    }

    /// Writes what nobody has waited for.
    pub fn flush(&self) {
        if let Some(Err(error)) = self.journal.as_ref().map(|journal| journal.flush(None)) {
            tracing::warn!(%error, "the journal could not be written");
        }
    }

    pub fn close(&self) {
        if let Some(Err(error)) = self.journal.as_ref().map(Journal::close) {
            tracing::warn!(%error, "the journal could not be closed in an orderly way");
        }
    }

    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    pub fn is_durable(&self) -> bool {
        self.journal.is_some()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::disk_bytes)
    }
}

impl Keep {
    pub fn number(&self) -> u64 {
        self.1
    }
}

pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the application is told of a submission that could not be kept.
pub fn refused(error: JournalError) -> Error {
    let (kind, advice) = match error.reason() {
        Reason::Full => (ErrorKind::Limit, "nothing was handed over"),
        Reason::TooLarge => (ErrorKind::Limit, "nothing was handed over"),
        Reason::Closed => (ErrorKind::Closed, "nothing was handed over"),
        _ => (
            ErrorKind::ProtectionLost,
            "the submission was not accepted; if the process dies now it may yet be found and run, so \
             hand it over again under the same key",
        ),
    };
    Error::new(kind, format!("{} ({}): {advice}", error, error.reason().name())).with_source(error)
}

fn cannot_open(error: JournalError) -> Error {
    Error::new(ErrorKind::Config, format!("{error} ({})", error.reason().name())).with_source(error)
}

fn key(config: &Config) -> Result<Option<Key>> {
    if let Some(key) = &config.journal.key {
        // Its form was checked with the configuration.
        let key = Key::from_hex(key.reveal());
        let none = || Error::new(ErrorKind::Config, "journal_key is no key (it is not shown)");
        return key.map(Some).ok_or_else(none);
    }
    let Some(path) = &config.journal.key_file else { return Ok(None) };
    Key::from_file(path).map(Some).map_err(cannot_open)
}
