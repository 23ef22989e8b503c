//! The end of a unit: what it has done is decided, noted and told.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;

use super::classify::{Classified, Discard, Effect, StatementKind, split};
use super::replay::Finish;
use super::request::{CONTROLS, OUTSIDE};
use super::transaction::{Open, Transaction};
use super::unit::{Purpose, Seal, Steps, Unit};
use super::{BeginOptions, Event, Phase, Session, internals};
use crate::error::{Error, ErrorKind, Outcome, Result, ServerError};
use crate::mutation::{self, Mutation};
use crate::wire::frame::Status;

/// What follows once the backup has the commit of the unit in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaiting {
    /// Its reply, which ended with this status, is handed over in full.
    Answered(Status),
    /// It was found in the ledger, and is told.
    Found,
}

impl Session {
    /// ReadyForQuery, or what stands for it where a Sync is shared: the unit in front has ended, and with
    /// it what it did is decided.
    pub(super) fn end_unit(&mut self, status: Status) {
        self.status = status;
        let error = self.unit_error.take();
        if let Some(error) = self.units[self.front].diverged.take() {
            self.settings.roll_back();
            // It has ended on the server as it ends, and what it has set is in force there: the session goes on
            // where it is not.
            let class = self.units[self.front].statement.as_ref().map(|it| &it.class);
            let leaves = |class: &Classified| class.sets_anything() || class.unrestorable.is_some();
            self.give_up_link |= class.is_some_and(leaves);
            self.reset_reply();
            self.emit(Event::Error(error));
            self.tell_ready(status);
            return;
        }
        let unit = &self.units[self.front];
        if !unit.has_caught_up() {
            self.diverge();
            if self.units.get(self.front).is_some_and(|unit| unit.diverged.is_some()) {
                self.end_unit(status);
                return;
            }
            if matches!(self.phase, Phase::Discarding(_)) {
                self.passed_over(status);
            }
            return;
        }
        if matches!(self.phase, Phase::Replaying) && unit.answered {
            self.units[self.front].replayed = None;
            self.front += 1;
            self.go_live_if_caught_up();
            return;
        }
        if let Some(error) = &error {
            if self.is_read_only_by_surprise(error) {
                self.give_up_link = true;
                return;
            }
            if let Some(finish) = self.second_chance(error) {
                let synced = self.units[self.front].steps.has_sync();
                self.begin_discarding(finish);
                if synced {
                    self.passed_over(status);
                }
                return;
            }
        }
        // What is run again after it was lost is kept until the backup has it, and nobody waits for it.
        let waits = self.options.backup_acknowledges
            && !self.reapply.is_running()
            && !mutation::on(Mutation::BackupNotAwaited);
        if error.is_none() && self.sealed && waits {
            if let Some(seal) = self.units[self.front].seal {
                self.awaiting = Some(Awaiting::Answered(status));
                self.emit(Event::AwaitBackup { ledger_row: seal.row, number: seal.number });
                return;
            }
        }
        self.settle_unit(status, error);
    }

    /// The answer to [`Event::AwaitBackup`]: whether the backup has the commit. An error tells why
    /// that is not known; the commit stands all the same. What has arrived behind it can be handed
    /// over now.
    pub fn handle_backup(&mut self, confirmed: Result<()>) {
        let Some(awaiting) = self.awaiting.take() else { return };
        let unconfirmed = confirmed.err().map(|error| error.with_outcome(Outcome::Committed));
        match awaiting {
            Awaiting::Answered(status) => {
                unconfirmed.into_iter().for_each(|error| self.emit(Event::Error(error)));
                self.settle_unit(status, None);
            }
            Awaiting::Found => self.found_is_settled(unconfirmed),
        }
    }

    fn settle_unit(&mut self, status: Status, error: Option<Box<ServerError>>) {
        match self.units[self.front].purpose {
            Purpose::User | Purpose::Simple => self.end_users(status, error),
            Purpose::Commit => self.end_commit(status, error),
            Purpose::Rollback => self.end_rollback(error),
            Purpose::OpenRow => {
                match error {
                    None => self.seals.opened(),
                    Some(error) => self.refuse_ledger(&error),
                }
                self.drop_front();
                if !self.seals.enabled {
                    self.unseal_what_waits();
                }
                self.go_live_if_caught_up();
            }
            Purpose::Internals => {
                self.internals_ready &= error.is_none();
                self.drop_front();
                self.go_live_if_caught_up();
            }
        }
        self.sealed = false;
    }

    fn end_users(&mut self, status: Status, error: Option<Box<ServerError>>) {
        let failed = error.is_some();
        let unit = &mut self.units[self.front];
        let autocommit = unit.autocommit;
        let seal = unit.seal;
        match &error {
            None => self.note_success(),
            Some(error) => self.note_failure(&error.code),
        }
        if autocommit {
            if failed {
                self.settings.roll_back();
            } else {
                self.settings.commit();
                if let Some(seal) = seal {
                    self.acknowledge(seal);
                    if std::mem::take(&mut self.sealed) {
                        self.keep_autocommit(seal);
                    }
                }
            }
        }
        let mut status = status;
        if let Some(error) = error {
            let unit = &self.units[self.front];
            let fenced = unit.passed_over && !mutation::on(Mutation::FenceTold);
            let error = if fenced && self.is_fence(&error) {
                failed_before()
            } else {
                // Of what does not run inside one transaction, a part may stand.
                let whole = !matches!(unit.unprotected, Some(OUTSIDE | CONTROLS));
                let outcome = if whole { Outcome::NotCommitted } else { Outcome::Unknown };
                Error::server(*error, outcome)
            };
            if !autocommit && status == Status::Idle {
                if let Transaction::Open(_) = self.transaction {
                    // The string that BEGIN went out with did not parse: the transaction never began.
                    self.settings.roll_back();
                    self.transaction = Transaction::Doomed(error.clone());
                    status = Status::Failed;
                }
            }
            self.emit(Event::Error(error));
        }
        self.tell_ready(status);
    }

    fn tell_ready(&mut self, status: Status) {
        self.seal_missing = false;
        let unit = &mut self.units[self.front];
        unit.answered = true;
        unit.replayed = None;
        self.emit(Event::Ready(status));
        self.front += 1;
        if self.front == self.units.len() {
            self.reconcile(status);
        } else if self.units[self.front].verdict.is_some() || !self.units[self.front].sent {
            self.go_live_if_caught_up();
        }
        self.compact();
    }

    /// What only the text could not tell: a function or a string of several statements may have
    /// begun or ended a transaction.
    fn reconcile(&mut self, status: Status) {
        match (&self.transaction, status) {
            (Transaction::None, Status::Open | Status::Failed) => {
                let mut open = Open::new(BeginOptions::default());
                open.unprotected = Some("it was begun inside a string of several statements");
                open.effect = Effect::MayWrite;
                self.transaction = Transaction::Open(open);
                self.emit(Event::ProtectionLost(
                    "the transaction was begun inside a string of several statements".into(),
                ));
            }
            (Transaction::Open(open), Status::Idle) => {
                let unrestorable = open.unrestorable;
                self.settings.commit();
                self.end_transaction();
                if let Some(reason) = unrestorable {
                    self.become_unrestorable(reason);
                }
            }
            _ => {}
        }
    }

    /// The user's statement has succeeded: what does it change in the session?
    pub(super) fn note_success(&mut self) {
        let unit = &self.units[self.front];
        let noted = unit.statement.as_ref().filter(|statement| statement.class.changes_session());
        let Some(statement) = noted.cloned() else { return };
        if unit.all_steps & Steps::USER == 0 {
            return;
        }
        let class = &statement.class;
        if let StatementKind::Several(parts) = &class.kind {
            self.note_several(&statement.sql, parts);
            return;
        }
        let at = |position: usize| position - self.journal_base;
        let bytes = &self.journal[at(unit.start) + unit.begin_len..at(unit.end)];
        self.settings.note(class, bytes);
        self.note_one(class);
    }

    /// Each statement of a string is restored by itself.
    fn note_several(&mut self, sql: &str, parts: &[Classified]) {
        for (part, text) in parts.iter().zip(split(sql)) {
            let mut bytes = BytesMut::new();
            // The text was sent already, so it holds no NUL byte.
            if frontend::parse("", text, [], &mut bytes).is_ok() {
                internals::write_call("", &mut bytes);
                self.settings.note(part, &bytes);
            }
            self.note_one(part);
        }
    }

    fn note_one(&mut self, class: &Classified) {
        match &class.kind {
            StatementKind::Savepoint(name) => {
                let mark = self.settings.mark();
                if let Transaction::Open(open) = &mut self.transaction {
                    open.savepoints.push((name.clone(), mark));
                }
            }
            StatementKind::Release(name) => {
                if let Transaction::Open(open) = &mut self.transaction {
                    if let Some(position) = open.savepoints.iter().rposition(|(n, _)| n == name) {
                        open.savepoints.truncate(position);
                    }
                }
            }
            StatementKind::RollbackTo(name) => {
                if let Transaction::Open(open) = &mut self.transaction {
                    if let Some(position) = open.savepoints.iter().rposition(|(n, _)| n == name) {
                        if !mutation::on(Mutation::SettingsOutliveSavepoint) {
                            self.settings.roll_back_to(open.savepoints[position].1);
                        }
                        open.savepoints.truncate(position + 1);
                    }
                }
            }
            StatementKind::Discard(Discard::All) => self.unrestorable = None,
            _ => {}
        }
        self.note_unrestorable(class, class.outlives_rollback());
    }

    fn note_unrestorable(&mut self, class: &Classified, lasting: bool) {
        let Some(reason) = class.unrestorable else { return };
        match &mut self.transaction {
            Transaction::Open(open) => {
                open.unrestorable.get_or_insert(reason);
                if lasting {
                    open.lasting.get_or_insert(reason);
                }
            }
            _ => self.become_unrestorable(reason),
        }
    }

    /// The user's statement has failed, with everything that it did but for what functions have done
    /// to the session by then.
    fn note_failure(&mut self, code: &str) {
        // In a transaction that had failed before nothing is executed.
        if code == "25P02" {
            return;
        }
        let Some(statement) = self.units[self.front].statement.clone() else { return };
        let class = &statement.class;
        let parts = match &class.kind {
            StatementKind::Several(parts) => parts,
            _ => std::slice::from_ref(class),
        };
        for part in parts.iter().filter(|part| part.outlives_failure()) {
            self.note_unrestorable(part, true);
        }
    }

    fn become_unrestorable(&mut self, reason: &'static str) {
        if self.unrestorable.is_none() {
            self.unrestorable = Some(reason);
            self.emit(Event::ProtectionLost(reason.to_owned()));
        }
    }

    fn end_commit(&mut self, status: Status, error: Option<Box<ServerError>>) {
        let unit = &self.units[self.front];
        if self.reapply.is_running()
            && (self.rolled_back || (error.is_some() && status == Status::Idle))
        {
            self.reset_reply();
            self.abandon_reapplying();
            return;
        }
        match error {
            Some(error) if status != Status::Idle => {
                // The seal or COMMIT has failed inside the transaction, which must still be ended.
                let outcome = Outcome::NotCommitted;
                self.begin_discarding(Finish::Fail(Error::server(*error, outcome)));
                self.passed_over(status);
            }
            Some(error) => {
                self.settings.roll_back();
                self.counters.transactions_rolled_back.add(1);
                self.end_transaction();
                self.emit(Event::Error(Error::server(*error, Outcome::NotCommitted)));
                self.emit(Event::Ready(Status::Idle));
            }
            None if self.reapply.is_running() => self.reapplied(),
            None => {
                let rolled_back = std::mem::take(&mut self.rolled_back);
                let seal = unit.seal;
                if rolled_back {
                    self.settings.roll_back();
                } else {
                    self.settings.commit();
                    if let Some(seal) = seal {
                        self.acknowledge(seal);
                        if std::mem::take(&mut self.sealed) {
                            self.keep_transaction(seal);
                        }
                    }
                }
                self.finish_transaction(!rolled_back);
            }
        }
    }

    /// The transaction has ended as the application wished, or has failed earlier.
    pub(super) fn finish_transaction(&mut self, committed: bool) {
        if committed {
            self.counters.transactions_committed.add(1);
        } else {
            self.counters.transactions_rolled_back.add(1);
        }
        let (chain, begin, unrestorable) = match &mut self.transaction {
            Transaction::Open(open) => {
                (open.chain, std::mem::take(&mut open.begin), open.unrestorable)
            }
            _ => (false, BeginOptions::default(), None),
        };
        self.end_transaction();
        if let (true, Some(reason)) = (committed, unrestorable) {
            self.become_unrestorable(reason);
        }
        if chain {
            self.transaction = Transaction::Pending(begin);
        }
        let tag: &'static [u8] = if committed { b"COMMIT\0" } else { b"ROLLBACK\0" };
        self.emit(Event::Complete(Bytes::from_static(tag)));
        self.emit(Event::Ready(if chain { Status::Open } else { Status::Idle }));
    }

    fn end_rollback(&mut self, error: Option<Box<ServerError>>) {
        self.settings.roll_back();
        match error {
            None => self.finish_transaction(false),
            Some(error) => {
                self.counters.transactions_rolled_back.add(1);
                self.end_transaction();
                self.emit(Event::Error(Error::server(*error, Outcome::NotCommitted)));
                self.emit(Event::Ready(Status::Idle));
            }
        }
    }

    pub(super) fn acknowledge(&mut self, seal: Seal) {
        if std::mem::take(&mut self.seal_missing) {
            self.seals.unconfirm(true);
            self.seals.forget_acknowledged();
            self.emit(Event::ProtectionLost(
                "the session's row was missing from the ledger: the last commit stands, unsealed"
                    .into(),
            ));
        } else if self.sealed {
            // A guarded seal leaves no trace of a transaction that has written nothing.
            self.seals.acknowledge(seal);
        }
    }

    /// The server has refused what the ledger needs. Where that passes, it is asked again by the next
    /// transaction that writes; a row that is in use serves until then.
    pub(super) fn refuse_ledger(&mut self, error: &ServerError) {
        self.seals.unconfirm(false);
        let passes = passes(error);
        if passes && self.seals.is_confirmed() {
            return;
        }
        self.seals.enabled = false;
        self.seals.suspended = passes;
        self.ledger_refusal = Some(error.clone());
        self.emit(Event::ProtectionLost(format!("the ledger cannot be used: {error}")));
    }

    /// Forgets the transaction and all that was kept for it.
    pub(super) fn end_transaction(&mut self) {
        let transaction = std::mem::replace(&mut self.transaction, Transaction::None);
        if let Transaction::Open(Open { lasting: Some(reason), .. }) = transaction {
            self.become_unrestorable(reason);
        }
        self.replay_attempts = 0;
        self.conflict_retries = 0;
        // Nothing is requested behind a COMMIT or ROLLBACK before it is answered.
        self.units.clear();
        self.front = 0;
        self.disturbed = false;
        self.clear_journal();
    }

    fn drop_front(&mut self) {
        debug_assert_eq!(self.units[self.front].start, self.units[self.front].end);
        self.units.remove(self.front);
    }

    /// The ledger was refused, and what waited for it cannot be sealed.
    fn unseal_what_waits(&mut self) {
        let waits = |unit: &Unit| !unit.sent && unit.losses == 0 && unit.seal.is_some();
        while matches!(self.phase, Phase::Live | Phase::Replaying) {
            let mut units = self.units.range(self.front..);
            let Some(at) = units.position(waits) else { return };
            self.unseal(self.front + at);
        }
    }

    /// Lets go of what need not be kept any longer.
    pub(super) fn compact(&mut self) {
        let kept =
            matches!(&self.transaction, Transaction::Open(open) if open.unprotected.is_none());
        let kept = kept && !mutation::on(Mutation::RequestsForgotten);
        let spent = |unit: &&Unit| unit.answered && (unit.autocommit || !kept);
        let count = self.units.iter().take_while(spent).count();
        if count == self.units.len() {
            self.units.clear();
            self.front = 0;
            self.disturbed = false;
            self.clear_journal();
            return;
        }
        let Some(last) = self.units.range(..count).last() else { return };
        let used = last.end.max(self.journal_base) - self.journal_base;
        self.journal.advance(used.min(self.journal.len()));
        self.journal_base += used;
        self.units.drain(..count);
        self.front = self.front.saturating_sub(count);
    }

    pub(super) fn clear_journal(&mut self) {
        const KEEP: usize = 64 * 1024;
        self.journal_base = 0;
        if self.journal.capacity() > KEEP {
            self.journal = BytesMut::new();
        } else {
            self.journal.clear();
        }
    }
}

/// A request of a pipeline that must not be repeated, because those behind it are committed.
fn failed_before() -> Error {
    Error::new(
        ErrorKind::ProtectionLost,
        "the server was lost; the statement had failed before, and what the server said of it is \
         lost; it is not committed, while those behind it in the pipeline are",
    )
}

/// Whether what a server has refused may well be done a moment later: it is out of something, its disk
/// fails, it takes no writes at present, or somebody was in the way.
pub(super) fn passes(error: &ServerError) -> bool {
    matches!(error.code.get(..2), Some("40" | "53" | "58"))
        || matches!(error.code.as_str(), "25006" | "55P03" | "57014")
}
