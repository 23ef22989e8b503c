//! The journal on disk: what is in flight outlives the client.
//!
//! `docs/journal.md` has the format byte by byte and each crash case. From the bottom up:
//!
//! * pure, bytes <-> values: `field` (numbers and texts), `record` (what a record says), `request` (the
//!   parameters in one), `header` and `frame` (what stands around records), `crypt` (keys and sealing);
//! * `storage`: the little that is wanted of a file system; `disk`: the real one, locked and 0700;
//! * reading: `segment` (one file), `found` (what was in flight; pure), `recovery` (a directory),
//!   `report` (what is wrong with it);
//! * writing: `live` (what is alive where; pure), `writer` (batches into segments), `reclaim` (room),
//!   `group` (many sessions, one sync).
//!
//! It knows nothing of sessions or sockets, and decides nothing about outcomes: it keeps what it is
//! given, says whether it is kept, and gives it back.

mod crypt;
mod disk;
mod error;
mod field;
mod found;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod header;
mod letter;
mod live;
mod options;
mod reclaim;
mod record;
mod recovery;
mod report;
mod request;
mod segment;
mod storage;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use crypt::{Cipher, Key};
pub use disk::Disk;
pub use error::{JournalError, Reason, Result};
pub use found::{Found, FoundKind, State};
pub use group::{Journal, Owner};
pub use letter::{DeadLetter, Origin};
pub use options::{BYTES_MIN, Options, SyncPolicy};
pub use record::{
    Checkpoint, Expect, Fate, Form, Kind, OutcomeKnown, Param, Record, Seal, Seen, SessionOpened,
    Statement, Submission, SubmissionOutcome, Submitted, TransactionBegan,
};
pub use recovery::{Records, Recovered, read};
pub use report::{Finding, Report, What};
pub use storage::{Directory, Stored};
pub use writer::Counts;
