//! Tells the application of requests whose fate is known without running them.

use super::loss::LOSSES_MAX;
use super::settle::Awaiting;
use super::transaction::Transaction;
use super::unit::{Purpose, Seal, Verdict};
use super::{Event, Session};
use crate::error::{Error, ErrorKind, Outcome};
use crate::mutation::{self, Mutation};
use crate::wire::frame::Status;

impl Session {
    /// Tells the application of the units in front whose fate is known without running them.
    pub(super) fn take_verdicts(&mut self) {
        while !self.awaits_backup_of(self.front) {
            let front = self.units.get_mut(self.front);
            let Some(verdict) = front.and_then(|unit| unit.verdict.take()) else { return };
            let unit = &mut self.units[self.front];
            let (commit, seal, user_done) =
                (unit.purpose == Purpose::Commit, unit.seal, unit.user_done);
            // Which of several attempts has committed is not known, and each may have replied otherwise.
            let several = unit.attempts.len() > 1;
            let unconfirmed = unit.unconfirmed.take();
            match verdict {
                Verdict::Committed => {
                    self.note_found(seal);
                    let told = unconfirmed.is_some();
                    unconfirmed.into_iter().for_each(|error| self.emit(Event::Error(error)));
                    if commit {
                        self.commit_found_settings();
                        self.finish_transaction(true);
                        return;
                    }
                    self.note_success();
                    self.commit_found_settings();
                    if (!user_done || several) && !told {
                        self.emit(Event::Error(reply_lost()));
                    }
                    self.emit(Event::Ready(Status::Idle));
                }
                Verdict::Failed(error) => {
                    if commit && error.outcome() == Outcome::NotCommitted {
                        self.counters.transactions_rolled_back.add(1);
                    }
                    self.emit(Event::Error(error));
                    self.emit(Event::Ready(Status::Idle));
                    self.settings.roll_back();
                    if commit {
                        self.end_transaction();
                        return;
                    }
                }
            }
            self.units[self.front].answered = true;
            self.front += 1;
            self.compact();
        }
    }

    /// Whether a unit was found in the ledger, and is not told before the backup has it, which is then
    /// asked for: an acknowledgement that is lost with its link must not make that weaker.
    fn awaits_backup_of(&mut self, index: usize) -> bool {
        let waits = self.options.backup_acknowledges && !mutation::on(Mutation::BackupNotAwaited);
        let Some(unit) = self.units.get(index).filter(|unit| waits && !unit.backed) else {
            return false;
        };
        let (Some(seal), Some(Verdict::Committed)) = (unit.seal, &unit.verdict) else {
            return false;
        };
        if self.wants_link() {
            // No server can be had, and the application has waited for as long as it wants to.
            self.units[index].unconfirmed = Some(unbacked());
            self.units[index].backed = true;
        } else if self.awaiting.is_none() {
            self.awaiting = Some(Awaiting::Found);
            self.emit(Event::AwaitBackup { ledger_row: seal.row, number: seal.number });
        }
        self.awaiting.is_some()
    }

    /// The backup has what was found in the ledger, or an error says why that is not known.
    pub(super) fn found_is_settled(&mut self, unconfirmed: Option<Error>) {
        let at = if self.commit_is_decided() { self.units.len() - 1 } else { self.front };
        let Some(unit) = self.units.get_mut(at) else { return };
        unit.backed = true;
        unit.unconfirmed = unconfirmed;
        if self.commit_is_decided() {
            self.take_decided_commit();
        } else {
            self.go_live_if_caught_up();
        }
    }

    /// What a commit that was found has set was set on a link that is lost. The present one was given what
    /// was in force before, and is given up for one that has it all.
    fn commit_found_settings(&mut self) {
        self.give_up_link |= self.settings.are_pending() && !self.wants_link();
        self.settings.commit();
    }

    /// A commit was found in the ledger, and the application is about to be told.
    fn note_found(&mut self, seal: Option<Seal>) {
        self.counters.commits_found.add(1);
        if let Some(seal) = seal {
            self.seals.acknowledge(seal);
            // What it has replied need not be known.
            self.do_not_keep(seal);
        }
    }

    /// Whether the fate of the transaction's COMMIT is known, so that nothing of it is run again.
    pub(super) fn commit_is_decided(&self) -> bool {
        let last = self.units.back();
        last.is_some_and(|unit| unit.purpose == Purpose::Commit && unit.verdict.is_some())
    }

    pub(super) fn take_decided_commit(&mut self) {
        // Nothing of the transaction is told before that.
        if !self.wants_link() && self.awaits_backup_of(self.units.len() - 1) {
            return;
        }
        let error = match self.units.back().and_then(|unit| unit.verdict.as_ref()) {
            Some(Verdict::Failed(error)) => error.clone(),
            _ => reply_lost(),
        };
        while self.front + 1 < self.units.len() {
            if !self.units[self.front].answered {
                if error.outcome() == Outcome::Committed {
                    self.note_success();
                }
                self.emit(Event::Error(error.clone()));
                self.emit(Event::Ready(Status::Open));
            }
            self.front += 1;
        }
        self.take_verdicts();
    }

    /// Fails every request that is unanswered; an open transaction must then be rolled back.
    pub(super) fn fail_outstanding(&mut self, error: &Error) {
        self.awaiting = None;
        self.settings.roll_back();
        let mut told = false;
        let open = matches!(self.transaction, Transaction::Open(_));
        if open && error.outcome() == Outcome::NotCommitted && !self.commit_is_decided() {
            self.counters.transactions_rolled_back.add(1);
        }
        let mut ended = !open;
        while let Some(unit) = self.units.get_mut(self.front) {
            let waiting = unit.purpose.is_users() && !unit.answered;
            let autocommit = unit.autocommit;
            let ends = matches!(unit.purpose, Purpose::Commit | Purpose::Rollback);
            let seal = unit.seal;
            let error = match unit.verdict.take() {
                Some(Verdict::Failed(own)) => own,
                Some(Verdict::Committed) => {
                    self.note_found(seal);
                    self.note_success();
                    self.commit_found_settings();
                    if self.options.backup_acknowledges { unbacked() } else { reply_lost() }
                }
                None => error.clone(),
            };
            self.front += 1;
            if waiting {
                ended |= ends;
                told = true;
                self.emit(Event::Error(error));
                let idle = ends || autocommit;
                self.emit(Event::Ready(if idle { Status::Idle } else { Status::Failed }));
            }
        }
        let in_transaction = !ended;
        if in_transaction {
            self.end_transaction();
            self.transaction = Transaction::Doomed(error.clone());
        } else if matches!(self.transaction, Transaction::Open(_)) {
            self.end_transaction();
        } else {
            self.units.clear();
            self.front = 0;
            self.clear_journal();
        }
        if told || in_transaction {
            self.pending_error = None;
        }
    }
}

pub(super) fn unknown(what: &str) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        format!(
            "the server was lost while {what} was in flight, and no ledger can tell whether it is \
             committed: look for its effects before running it again"
        ),
    )
    .with_outcome(Outcome::Unknown)
}

pub(super) fn fatal_statement() -> Error {
    Error::new(
        ErrorKind::ProtectionLost,
        format!(
            "the link was lost each of the {LOSSES_MAX} times that the statement was run, so that it \
             seems to be the cause; it is not committed: find out why before running it again"
        ),
    )
}

pub(super) fn half_told() -> Error {
    Error::new(
        ErrorKind::ReplayDiverged,
        "the server was lost while the rows of a writing statement were being delivered; nothing of \
         it is committed: discard the rows and run it again",
    )
}

pub(super) fn copy_not_kept() -> Error {
    Error::new(
        ErrorKind::ProtectionLost,
        "the server was lost and the COPY was too large to be kept; nothing of it is committed: run \
         it again",
    )
}

pub(super) fn reply_lost() -> Error {
    Error::new(
        ErrorKind::ReplyLost,
        "the server was lost; the statement is committed, exactly once, but what it returned is \
         lost: do not run it again",
    )
    .with_outcome(Outcome::Committed)
}

fn unbacked() -> Error {
    Error::new(
        ErrorKind::FailoverTimeout,
        "the server was lost; the statement or transaction is committed, but whether a backup has it is \
         not known (commit_ack=backup), and what a statement returned is lost: do not run it again",
    )
    .with_outcome(Outcome::Committed)
}
