//! What reading a journal found to be wrong with it.

use std::fmt;

/// All that was found, in the order of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Files that belong to the journal.
    pub files: usize,
    /// Records that were whole, copies included.
    pub records: u64,
    pub bytes: u64,
}

impl Report {
    /// Whether anything that had been acknowledged as durable may be missing.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.what.is_damage())
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    pub file: String,
    pub position: u64,
    /// So many bytes were passed over.
    pub bytes: u64,
    pub what: What,
}

/// What is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The last write before a crash did not arrive in full, and nothing in it had been acknowledged
    /// as durable. So many whole records behind the tear were cut off with it.
    TornTail { records: u64 },
    /// Bytes were changed, or are missing, that had been on the disk. The owner is known if the
    /// record's header survived.
    Damaged { owner: Option<u64> },
    /// A record is whole and does not open with the right key: somebody has changed it.
    Forged { owner: u64 },
    /// A record is whole and cannot be understood: a newer version has written it.
    NotUnderstood { owner: u64, kind: u8 },
    /// One of the two copies of the file's header is damaged; the other one serves.
    HeaderCopy,
    /// The file was being made when the process or the machine stopped; it never held a record.
    Unfinished,
    /// Both copies of the file's header are damaged: nothing in it can be read.
    HeaderLost,
    /// The file belongs to another journal, or has another one's name.
    Foreign,
    /// A file is gone that a later one knows of.
    Missing,
}

impl What {
    /// Whether it means that what had been acknowledged may be missing.
    pub fn is_damage(self) -> bool {
        match self {
            Self::TornTail { .. } | Self::Unfinished | Self::HeaderCopy => false,
            Self::Damaged { .. }
            | Self::Forged { .. }
            | Self::NotUnderstood { .. }
            | Self::HeaderLost
            | Self::Foreign
            | Self::Missing => true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, position, bytes, what } = self;
        match what {
            What::TornTail { records } => write!(
                f,
                "{file}: cut at {position}: the last write did not arrive in full ({bytes} bytes, with \
                 {records} whole records, dropped; none had been acknowledged as durable)"
            ),
            What::Damaged { owner: Some(owner) } => write!(
                f,
                "{file}: damaged at {position}: {bytes} bytes of transaction {owner} passed over"
            ),
            What::Damaged { owner: None } => write!(
                f,
                "{file}: damaged at {position}: {bytes} bytes passed over; records of any transaction \
                 that was in flight there may be missing"
            ),
            What::Forged { owner } => write!(
                f,
                "{file}: the record at {position} (transaction {owner}) was changed on purpose: it has \
                 the right checksum and does not open with the right key"
            ),
            What::NotUnderstood { owner, kind } => write!(
                f,
                "{file}: the record at {position} (transaction {owner}, kind {kind}) was written by \
                 another version of Segue and is passed over"
            ),
            What::HeaderCopy => {
                write!(
                    f,
                    "{file}: the copy of the header at {position} is damaged; the other serves"
                )
            }
            What::Unfinished => write!(f, "{file}: was being made; it holds nothing"),
            What::HeaderLost => {
                write!(
                    f,
                    "{file}: both copies of its header are damaged: {bytes} bytes cannot be read"
                )
            }
            What::Foreign => write!(f, "{file}: belongs to another journal, and is passed over"),
            What::Missing => write!(f, "{file}: is missing; a later file knows of it"),
        }
    }
}
