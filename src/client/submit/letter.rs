//! What the application is told of the queue as a whole: dead letters, and numbers.
//!
//! Debug of a dead letter shows neither its statements nor what the server says of values.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::store::Death;
use super::submission::Payload;
use super::ticket::Ticket;
use crate::error::Error;

/// A submission that can never succeed as things are.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    pub id: Uuid,
    pub key: Option<String>,
    pub lane: Option<String>,
    /// Whether its lane stands still because of it.
    pub stops_lane: bool,
    pub died_at: SystemTime,
    /// The statement that failed, from 0, and all texts.
    pub statement: usize,
    pub statements: Vec<String>,
    /// What its ticket tells: the server's error, unchanged, with all its fields; or Segue's own, for an
    /// expectation that was not met.
    pub error: Error,
    /// Of the error.
    pub sqlstate: String,
    pub message: String,
    /// May hold values of the application's.
    pub detail: Option<String>,
}

/// What becomes of submissions, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmissionStatus {
    /// Handed over and not sent yet, or to be sent again.
    pub waiting: usize,
    /// Sent and not answered.
    pub in_flight: usize,
    pub dead_letters: usize,
    /// Lanes with anything in them, and those of them that a dead letter has stopped.
    pub lanes: usize,
    pub lanes_stopped: usize,
    /// Memory that they take up, about.
    pub bytes: usize,
    /// The journal's files, if submissions are kept in files.
    pub journal_bytes: Option<u64>,
    /// Since the client was opened: handed over, of these found in the journal; committed, of these
    /// found to be so already; attempts that were made once more; dead letters.
    pub submitted: u64,
    pub recovered: u64,
    pub committed: u64,
    pub found_done: u64,
    pub resubmitted: u64,
    pub died: u64,
    /// Told to be committed and lost by a promotion: not run again, or not with success; run again.
    pub lost: u64,
    pub reapplied: u64,
    /// Why nothing can be run at present, if that is so.
    pub problem: Option<String>,
}

/// The server's message, or Segue's own.
pub(super) fn message(error: &Error) -> String {
    error.server_error().map_or_else(|| error.to_string(), |server| server.message.clone())
}

/// `payload` is missing if the journal cannot be read.
pub(super) fn letter(ticket: &Ticket, payload: Option<&Payload>, death: &Death) -> DeadLetter {
    let statements = payload.map(|payload| payload.statements.as_slice()).unwrap_or_default();
    let server = death.error.server_error();
    DeadLetter {
        id: ticket.id(),
        key: ticket.key().map(str::to_owned),
        lane: payload.and_then(|payload| payload.lane.as_deref()).map(str::to_owned),
        stops_lane: payload.is_some_and(|payload| payload.stop_on_failure),
        died_at: UNIX_EPOCH + Duration::from_millis(death.at_unix_ms),
        statement: usize::try_from(death.statement).unwrap_or(usize::MAX),
        statements: statements.iter().map(|it| it.sql.to_string()).collect(),
        error: death.error.clone(),
        sqlstate: death.error.sqlstate().to_owned(),
        message: message(&death.error),
        detail: server.and_then(|it| it.detail.clone()),
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither texts nor what the server says of values.
        f.debug_struct("DeadLetter")
            .field("id", &self.id)
            .field("lane", &self.lane)
            .field("statement", &self.statement)
            .field("sqlstate", &self.sqlstate)
            .finish_non_exhaustive()
    }
}
