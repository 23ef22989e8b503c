//! Puts what a session has in flight into the client's journal on disk, and says what is kept.
//!
//! Invariant: a transaction goes on without the journal only once the journal says nothing of it. One
//! that stands there, and whose commit cannot be recorded, would be taken for one that was never sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::journal::{FileJournal, unix_ms};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::journal::{
    Fate, Form, JournalError, OutcomeKnown, Owner, Reason, Record, Seal, SessionOpened, Statement,
    TransactionBegan,
};
use crate::mutation::{self, Mutation};
use crate::session::Filing;

/// The records of one session.
pub struct Keeper {
    config: Arc<Config>,
    file: Arc<FileJournal>,
    /// Names the session for as long as it lives.
    id: Uuid,
    opened_unix_ms: u64,
    pub system_identifier: u64,
    /// The newest that the session has been on.
    timeline: u32,
    /// The journal could not be told of it.
    timeline_is_missing: bool,
    session: Option<Owner>,
    /// In the order in which they began.
    entries: VecDeque<Entry>,
    failed: Vec<(u64, JournalError)>,
}

struct Entry {
    number: u64,
    owner: Owner,
    /// Its commit waits until what was handed in is kept.
    promised: bool,
}

/// An entry that is not kept.
pub struct NotKept {
    pub entry: u64,
    /// What the session's status says of it.
    pub reason: String,
    /// It must not be committed.
    pub refused: Option<Error>,
}

impl Keeper {
    pub fn new(file: Arc<FileJournal>, config: Arc<Config>) -> Self {
        Self {
            file,
            config,
            id: Uuid::new_v4(),
            opened_unix_ms: unix_ms(),
            system_identifier: 0,
            timeline: 0,
            timeline_is_missing: false,
            session: None,
            entries: VecDeque::new(),
            failed: Vec::new(),
        }
    }

    /// Whether [`commit`](Self::commit) waits for the disk.
    pub fn waits(&self) -> bool {
        self.file.waits
    }

    /// Takes a record over; that does no I/O unless each record is to be synced by itself.
    pub fn take(&mut self, number: u64, filing: &Filing<'_>) {
        let taken = match filing {
            Filing::Began { .. } => self.began(number, filing),
            Filing::Ended => {
                self.end(number);
                Ok(())
            }
            _ => self.append(number, filing),
        };
        if let Err(error) = taken {
            fail(&mut self.failed, number, error);
        }
        if !matches!(filing, Filing::Commit { .. } | Filing::Unsealed) {
            self.file.flush_soon();
        }
    }

    fn began(&mut self, number: u64, filing: &Filing<'_>) -> Result<(), JournalError> {
        let Filing::Began { autocommit, read_only, begin, ledger_row, number: last } = *filing
        else {
            return Ok(());
        };
        let session = self.session(ledger_row, last)?;
        let mut owner = self.file.journal.begin();
        let record = Record::TransactionBegan(TransactionBegan {
            session,
            began_unix_ms: unix_ms(),
            autocommit,
            read_only,
            begin,
        });
        let appended = owner.append(&self.file.journal, &record);
        self.entries.push_back(Entry { number, owner, promised: false });
        appended
    }

    /// The session's own record goes ahead of that of its first transaction.
    fn session(&mut self, ledger_row: Uuid, number: u64) -> Result<u64, JournalError> {
        if let Some(owner) = self.session.as_mut().filter(|_| !self.timeline_is_missing) {
            if owner.check().is_ok() {
                return Ok(owner.number());
            }
        }
        let mut owner = self.file.journal.begin();
        let config = &self.config;
        let record = Record::SessionOpened(SessionOpened {
            session: self.id,
            ledger_row,
            number,
            system_identifier: self.system_identifier,
            opened_unix_ms: self.opened_unix_ms,
            database: &config.database,
            user: &config.user,
        });
        owner.append(&self.file.journal, &record)?;
        owner.append(&self.file.journal, &Record::Timeline(self.timeline))?;
        self.timeline_is_missing = false;
        let number = owner.number();
        let before = self.session.replace(owner).filter(|_| self.entries.is_empty());
        if let Some(Err(error)) = before.map(|owner| owner.end(&self.file.journal)) {
            tracing::debug!(%error, "the end of a session is not in the journal");
        }
        Ok(number)
    }

    /// The session is about to go on upon a server of this timeline. Returns once that is kept: a later
    /// process that asked a server of an older one would be told that nothing was committed. If it
    /// cannot be kept, nothing that is in flight is.
    pub fn handle_timeline(&mut self, timeline: u32, deadline: Instant) {
        if timeline <= self.timeline {
            return;
        }
        self.timeline = timeline;
        // With the first transaction it is written in any case.
        let Some(owner) = &mut self.session else { return };
        let journal = &self.file.journal;
        let kept = owner.append(journal, &Record::Timeline(timeline));
        if let Err(error) = kept.and_then(|()| owner.commit(journal, Some(deadline))) {
            self.timeline_is_missing = true;
            for entry in &self.entries {
                fail(&mut self.failed, entry.number, error.clone());
            }
        }
    }

    fn append(&mut self, number: u64, filing: &Filing<'_>) -> Result<(), JournalError> {
        let Some(entry) = self.entries.iter_mut().rev().find(|entry| entry.number == number) else {
            return Ok(());
        };
        let record = match filing {
            Filing::Statement { statement, simple, request } => {
                let described = statement.description();
                // What was declared leaves the choice to the server; it has chosen.
                let chosen = described.as_deref().map(|described| &*described.param_oids);
                let declared = &*statement.param_oids;
                let whole = declared.len() >= chosen.map_or(0, <[u32]>::len);
                let all = whole && !declared.contains(&0);
                let oids = if all { declared } else { chosen.unwrap_or(declared) };
                let record = Record::Statement(Statement {
                    form: if *simple { Form::Simple } else { Form::Extended },
                    sql: &statement.sql,
                    param_oids: oids.into(),
                    request,
                });
                return entry.owner.append(&self.file.journal, &record);
            }
            Filing::Data(data) => Record::StatementData(data),
            Filing::Commit { ledger_row, number, guarded } => {
                entry.promised = true;
                let (row, number, guarded) = (*ledger_row, *number, *guarded);
                Record::CommitSent(Seal { row, number, guarded })
            }
            Filing::Unsealed => {
                entry.promised = true;
                let (fate, at_unix_ms) = (Fate::Unknown, unix_ms());
                Record::OutcomeKnown(OutcomeKnown { fate, at_unix_ms, sqlstate: "" })
            }
            Filing::TooLarge => return Err(too_large()),
            Filing::Began { .. } | Filing::Ended => return Ok(()),
        };
        entry.owner.append(&self.file.journal, &record)
    }

    fn end(&mut self, number: u64) {
        let Some(at) = self.entries.iter().position(|entry| entry.number == number) else { return };
        let Some(entry) = self.entries.remove(at) else { return };
        // It is found once more after a crash, and the ledger is asked once more.
        if let Err(error) = entry.owner.end(&self.file.journal) {
            tracing::debug!(%error, "the end of a transaction is not in the journal");
        }
    }

    /// Returns once all commits that were announced are kept.
    pub fn commit(&mut self, deadline: Instant) {
        let Self { entries, file, failed, .. } = self;
        for entry in entries.iter_mut().filter(|entry| entry.promised) {
            entry.promised = false;
            if let Err(error) = entry.owner.commit(&file.journal, Some(deadline)) {
                fail(failed, entry.number, error);
            }
        }
    }

    /// What turned out not to be kept, and what is to become of it.
    pub fn failures(&mut self, deadline: Instant) -> Vec<NotKept> {
        let failed = std::mem::take(&mut self.failed);
        failed
            .into_iter()
            .map(|(entry, error)| {
                let reason = error.reason().name();
                let gone = self.forget(entry, deadline);
                let refused = match gone {
                    true if !self.config.journal.required => None,
                    true => Some(required(&error)),
                    false => Some(stuck(&error)),
                };
                let what = if refused.is_some() { "is refused" } else { "goes on without them" };
                let reason = format!(
                    "{reason}: the journal's files do not keep a transaction, which {what}"
                );
                NotKept { entry, reason, refused }
            })
            .collect()
    }

    pub fn has_failures(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Makes the journal say nothing of an entry. Whether it has come to that for certain.
    fn forget(&mut self, number: u64, deadline: Instant) -> bool {
        let Some(at) = self.entries.iter().position(|entry| entry.number == number) else {
            return true;
        };
        let Some(mut entry) = self.entries.remove(at) else { return true };
        if !entry.owner.may_be_found() || mutation::on(Mutation::HalfKeptGoesOn) {
            return true;
        }
        let ended = entry.owner.end(&self.file.journal);
        ended.and_then(|()| self.file.journal.flush(Some(deadline))).is_ok()
    }

    /// The session is closed. What has not ended by now stays, for whoever opens the journal next.
    pub fn close(&mut self) {
        if !self.entries.is_empty() {
            return;
        }
        if let Some(Err(error)) = self.session.take().map(|owner| owner.end(&self.file.journal)) {
            tracing::debug!(%error, "the end of a session is not in the journal");
        }
        self.file.flush_soon();
    }
}

/// The first error of each entry is told.
fn fail(failed: &mut Vec<(u64, JournalError)>, entry: u64, error: JournalError) {
    if !failed.iter().any(|(known, _)| *known == entry) {
        failed.push((entry, error));
    }
}

fn too_large() -> JournalError {
    JournalError::too_large("the transaction is larger than journal_bytes_max")
}

fn error(kind: &JournalError, advice: &str) -> Error {
    let reason = kind.reason();
    let of = match reason {
        Reason::Full | Reason::TooLarge => ErrorKind::Limit,
        _ => ErrorKind::ProtectionLost,
    };
    Error::new(of, format!("{kind} ({}): {advice}", reason.name())).with_source(kind.clone())
}

fn required(kind: &JournalError) -> Error {
    error(
        kind,
        "journal_required=on, so the transaction is refused; nothing of it is committed: run it again \
         once the journal can be written",
    )
}

/// What the journal has of it, or may have, cannot be completed, nor taken back.
fn stuck(kind: &JournalError) -> Error {
    error(
        kind,
        "the journal's files may have a part of the transaction, and its commit cannot be recorded there; \
         it is rolled back, nothing of it is committed: run it again",
    )
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::*;
    use crate::journal::tests::faulty::{Faulty, Plan, View};
    use crate::journal::{Found, FoundKind, Options, SyncPolicy};

    fn keeper(dir: &Faulty, more: &str) -> Keeper {
        let options = Options::new(SyncPolicy::Batch, 1 << 20, Uuid::from_u128(1));
        let (file, _) = FileJournal::take_over(Arc::new(dir.clone()), options).unwrap();
        let config = format!(
            "host=a sslmode=disable user=b dbname=c journal=file journal_dir=/nowhere {more}"
        );
        Keeper::new(Arc::new(file), Arc::new(Config::parse(&config).unwrap()))
    }

    fn begin(keeper: &mut Keeper, number: u64) {
        let (ledger_row, autocommit, read_only) = (Uuid::from_u128(2), false, false);
        let began = Filing::Began { autocommit, read_only, begin: "", ledger_row, number };
        keeper.take(number, &began);
        let commit = Filing::Commit { ledger_row, number, guarded: false };
        keeper.take(number, &commit);
    }

    /// It was a warning, and the transaction went on: had the process died and a deposed primary been all that
    /// the next one could reach, that one would have said that it was not committed.
    #[test]
    fn what_is_in_flight_is_not_kept_where_the_new_timeline_is_not() {
        let later = Instant::now() + Duration::from_secs(600);
        for required in [false, true] {
            let dir = Faulty::default();
            let more = if required { "journal_required=on" } else { "" };
            let mut keeper = keeper(&dir, more);
            keeper.handle_timeline(1, later);
            begin(&mut keeper, 1);
            keeper.commit(later);
            assert!(!keeper.has_failures());
            // Twice: a batch is tried again in another segment.
            dir.plan(Plan { fail_sync: Some((dir.syncs(), 3)), ..Plan::default() });
            keeper.handle_timeline(2, later);
            assert!(keeper.has_failures());
            dir.plan(Plan::default());
            let failures = keeper.failures(later);
            assert_eq!(failures.iter().map(|it| it.entry).collect::<Vec<_>>(), [1]);
            assert_eq!(failures[0].refused.is_some(), required);
            // What begins then has the new one.
            begin(&mut keeper, 2);
            keeper.commit(later);
            assert!(!keeper.has_failures());
            drop(keeper);
            let found = crate::journal::read(Arc::new(dir), None).unwrap();
            let mut timelines = Vec::new();
            for it in found.in_flight() {
                let note = |record: &Record<'_>| match record {
                    Record::Timeline(timeline) => timelines.push(*timeline),
                    Record::CommitSent(seal) => assert_eq!(seal.number, 2),
                    _ => {}
                };
                found.records(it, note).unwrap();
            }
            assert_eq!(timelines, [2]);
        }
    }

    /// A full disk took half of a batch. The transaction went on, and what had been cut off was there again when the
    /// machine had died: a transaction without its commit, told as never sent (simulation, seed 1106617).
    #[test]
    fn what_the_disk_took_half_of_goes_on_only_once_it_cannot_be_found() {
        let later = Instant::now() + Duration::from_secs(600);
        for cannot_cut in [false, true] {
            let dir = Faulty::default();
            let mut keeper = keeper(&dir, "");
            begin(&mut keeper, 1);
            keeper.commit(later);
            let fail_write = Some((dir.writes(), usize::MAX >> 1, ErrorKind::StorageFull));
            dir.plan(Plan { fail_write, cannot_cut, ..Plan::default() });
            begin(&mut keeper, 2);
            keeper.commit(later);
            let failures = keeper.failures(later);
            assert_eq!(failures.iter().map(|it| it.entry).collect::<Vec<_>>(), [2]);
            assert_eq!(failures[0].refused.is_some(), cannot_cut);
            for number in (0..20).filter(|_| !cannot_cut) {
                let left = Arc::new(Faulty::of(&dir.after(View::Cut(number))));
                let found = crate::journal::read(left, None).unwrap();
                let is_one = |it: &&Found| matches!(it.what, FoundKind::Transaction { .. });
                assert_eq!(found.in_flight().filter(is_one).count(), 1);
            }
        }
    }
}
