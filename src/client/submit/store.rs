//! Where submissions are kept until they have ended: in the journal on disk, or in memory alone.
//!
//! It says whether something is kept, and nothing about what becomes of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::losses::AGE_MS;
use super::submission::Payload;
pub use crate::client::journal::unix_ms;
use crate::client::journal::{FileJournal, cannot_open};
use crate::error::{Error, ErrorKind, Outcome, Result, ServerError};
use crate::journal::{
    self, Fate, FoundKind, Journal, JournalError, Origin, Owner, Reason, Record, Recovered,
    SubmissionOutcome,
};
use crate::mutation::{self, Mutation};
use crate::wire::error_fields;

/// The keeper of submissions.
pub struct Store {
    file: Option<Arc<FileJournal>>,
    next: AtomicU64,
    /// Names this store on servers: what an earlier process with the same journal has left behind
    /// there is told by it.
    pub id: Uuid,
}

/// What belongs to one submission: its records.
pub struct Keep(Option<Owner>, u64);

/// Why a submission can never succeed.
#[derive(Clone)]
pub struct Death {
    pub at_unix_ms: u64,
    /// From 0.
    pub statement: u32,
    /// What its ticket tells.
    pub error: Error,
}

/// A submission that had not ended when the journal was opened.
pub struct Unended {
    pub keep: Keep,
    pub payload: Payload,
    pub death: Option<Death>,
    /// It was told to be committed; whether the backup has it was not known.
    pub told: bool,
}

impl Store {
    /// In the client's journal, if it has one on disk.
    pub fn new(file: Option<Arc<FileJournal>>) -> Self {
        let id = file.as_ref().map_or_else(Uuid::new_v4, |file| file.journal.id());
        Self { file, next: AtomicU64::new(1), id }
    }

    /// Hands all that had not ended to `take`, one after the other, in its order.
    pub fn unended(&self, recovered: &Recovered, mut take: impl FnMut(Unended)) -> Result<()> {
        let Some(journal) = self.journal() else { return Ok(()) };
        for found in recovered.in_flight() {
            if !matches!(found.what, FoundKind::Submission { .. }) {
                continue;
            }
            let mut payload = None;
            let mut death = None;
            let mut told_at = None;
            let read = recovered.records(found, |record| match record {
                Record::Submission(it) => payload = Some(Payload::from_record(it)),
                Record::DeadLetter(it) => {
                    let (at_unix_ms, statement) = (it.at_unix_ms, it.statement);
                    death = Some(Death { at_unix_ms, statement, error: error_of(it) });
                    told_at = None;
                }
                Record::SubmissionOutcome(it) => {
                    // A dead letter that is to be run again, or it was told.
                    death = None;
                    told_at = (it.fate == Fate::Committed).then_some(it.at_unix_ms);
                }
                _ => {}
            });
            read.map_err(cannot_open)?;
            let Some(mut payload) = payload else {
                tracing::error!(owner = found.owner, "a submission in the journal cannot be read");
                continue;
            };
            if mutation::on(Mutation::IdForgottenInRecovery) {
                payload.id = Uuid::new_v4();
            }
            if found.doubtful && death.is_none() {
                death = Some(Death { at_unix_ms: unix_ms(), statement: 0, error: damaged() });
            }
            let keep = Keep(Some(journal.adopt(found)), found.owner);
            let told = told_at.is_some();
            if told_at.is_some_and(|at| unix_ms().saturating_sub(at) > AGE_MS) {
                // Its claim may have been purged: run again, it would be done twice.
                tracing::warn!(
                    id = %payload.id,
                    "a submission was told to be committed long ago; whether a backup ever had it is \
                     not known, and it is not run again"
                );
                self.end(keep);
                continue;
            }
            take(Unended { keep, payload, death, told });
        }
        Ok(())
    }

    /// What the journal has of submissions, by their numbers. What cannot be read whole is left out.
    pub fn load(&self, numbers: &[u64]) -> Result<HashMap<u64, Arc<Payload>>, JournalError> {
        let mut found = HashMap::with_capacity(numbers.len());
        let Some(journal) = self.journal() else { return Ok(found) };
        journal.first_records(numbers, |number, record| {
            if let Record::Submission(it) = record {
                found.insert(number, Arc::new(Payload::from_record(it)));
            }
        })?;
        Ok(found)
    }

    fn journal(&self) -> Option<&Journal> {
        self.file.as_ref().map(|file| &file.journal)
    }

    /// A number and a place for something new; grows with every call.
    pub fn begin(&self) -> Keep {
        match self.journal() {
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
        if mutation::on(Mutation::DeadLetterNotKept) {
            return Ok(());
        }
        let (origin, said) = said(&death.error);
        let fields = error_fields::list(&said);
        let letter = journal::DeadLetter {
            at_unix_ms: death.at_unix_ms,
            statement: death.statement,
            origin,
            fields: fields.iter().map(|(tag, text)| (*tag, text.as_str())).collect(),
        };
        self.write(keep, &Record::DeadLetter(letter))
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
        let (Some(journal), Some(owner)) = (self.journal(), &mut keep.0) else { return Ok(()) };
        let begins = matches!(record, Record::Submission(_));
        if !begins {
            // The submission stands in the journal, and its last record says what became of it: a disk that
            // was full for a moment must not refuse it for ever.
            owner.overlook_refusal();
        }
        owner.append(journal, record)?;
        if begins && mutation::on(Mutation::SubmissionNotAwaited) {
            return Ok(());
        }
        owner.commit(journal, None)
    }

    /// It is told to be committed, and kept until the backup has it. Nobody waits for this to be written:
    /// found without it, it is run again all the same.
    pub fn told(&self, keep: &mut Keep) {
        let (Some(file), Some(owner)) = (&self.file, &mut keep.0) else { return };
        let outcome = SubmissionOutcome {
            fate: Fate::Committed,
            at_unix_ms: unix_ms(),
            affected: Vec::new().into(),
            sqlstate: "",
            message: "",
        };
        owner.overlook_refusal();
        match owner.append(&file.journal, &Record::SubmissionOutcome(outcome)) {
            Ok(()) => file.flush_soon(),
            Err(error) => tracing::warn!(%error, "that a submission is done is not in the journal"),
        }
    }

    /// Nothing of it is needed any more. Should that not reach the disk, it is found once more, and
    /// the server says that it is done.
    pub fn end(&self, keep: Keep) {
        if let (Some(file), Some(owner)) = (&self.file, keep.0) {
            match owner.end(&file.journal) {
                Ok(()) => file.flush_soon(),
                Err(error) => {
                    tracing::warn!(%error, "the end of a submission is not in the journal");
                }
            }
        }
    }

    /// Writes what nobody has waited for.
    pub fn flush(&self) {
        if let Some(Err(error)) = self.journal().map(|journal| journal.flush(None)) {
            tracing::warn!(%error, "the journal could not be written");
        }
    }

    pub fn is_durable(&self) -> bool {
        self.file.is_some()
    }

    pub fn disk_bytes(&self) -> u64 {
        self.journal().map_or(0, Journal::disk_bytes)
    }
}

impl Keep {
    pub fn number(&self) -> u64 {
        self.1
    }

    /// The record that was refused last may be found by a later process all the same.
    pub fn refusal_may_be_found(&self) -> bool {
        self.0.as_ref().is_some_and(Owner::refusal_may_be_found)
    }
}

/// What the journal keeps of an error: whose it is, and its fields.
fn said(error: &Error) -> (Origin, ServerError) {
    let origin = match error.kind() {
        ErrorKind::TransactionFailed => Origin::Unmet,
        ErrorKind::ServerCrash => Origin::Crash,
        _ => Origin::Server,
    };
    let own = || ServerError {
        severity: "ERROR".to_owned(),
        code: error.sqlstate().to_owned(),
        message: error.to_string(),
        ..ServerError::default()
    };
    (origin, error.server_error().cloned().unwrap_or_else(own))
}

/// The error of which the journal keeps this.
fn error_of(letter: &journal::DeadLetter<'_>) -> Error {
    let mut said = ServerError::default();
    for (tag, text) in &letter.fields {
        error_fields::set(&mut said, *tag, text);
    }
    match letter.origin {
        Origin::Unmet => Error::new(ErrorKind::TransactionFailed, said.message),
        Origin::Crash => Error::new(ErrorKind::ServerCrash, said.message),
        _ => Error::server(said, Outcome::NotCommitted),
    }
}

fn damaged() -> Error {
    let error = ServerError {
        severity: "ERROR".to_owned(),
        code: "XX001".to_owned(),
        message:
            "the journal was found damaged, and records of this submission may be missing; it may \
                  be committed: retry it (it is never executed twice) or purge it"
                .to_owned(),
        ..ServerError::default()
    };
    Error::server(error, Outcome::NotCommitted)
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
