//! Runs in-flight units again, and compares what comes back with what the application has seen.
//!
//! Invariants: COMMIT is not sent before all that the application has seen has matched; what differs
//! is rolled back and reported, never continued.

use postgres_protocol::message::frontend;

use super::adoption::Adoption;
use super::classify::{Effect, StatementKind};
use super::transaction::Transaction;
use super::unit::{CopyIn, Purpose, Unit, Verdict};
use super::{Event, Phase, Session};
use crate::error::{Error, ServerError};
use crate::mutation::{self, Mutation};
use crate::wire::frame::Status;

/// What is to be done once the link is free of a failed attempt.
#[derive(Debug)]
pub(super) enum Finish {
    /// Tell the application; nothing is committed.
    Fail(Error),
    /// The same, and the application is told whatever becomes of the link meanwhile.
    Refuse(Error),
    /// Run it again.
    Again,
    /// Ask the ledger, then decide.
    Recheck,
    /// Run again what was lost, then it.
    Reapply,
}

/// A replay that fails for reasons of its own (a deadlock, say) is tried so often.
const REPLAY_ATTEMPTS: u32 = 5;

impl Session {
    pub(super) fn any_answered(&self) -> bool {
        self.units.iter().any(|unit| unit.answered && unit.replayed.is_some())
    }

    pub(super) fn start_replay(&mut self) {
        self.rewind();
        self.enter_replay();
        self.send_ready();
    }

    /// Makes every unit that is kept ready to be sent again.
    pub(super) fn rewind(&mut self) {
        let told = self.units.get(self.front).is_some_and(|unit| {
            unit.told && !unit.answered && !unit.streamed && unit.verdict.is_none()
        });
        if told {
            self.units[self.front].told = false;
            if !mutation::on(Mutation::ResultNotTakenBack) {
                self.emit(Event::Restarted);
            }
        }
        // What is before the first verdict's end is answered; autocommit units are not kept.
        self.front = 0;
        for unit in &mut self.units {
            if unit.verdict.is_none() {
                unit.rewind();
            }
        }
    }

    pub(super) fn enter_replay(&mut self) {
        if self.any_answered() {
            let statements = self.units.iter().filter(|unit| unit.answered).count();
            self.emit_of_replay(Event::ReplayStarted { statements });
            self.phase = Phase::Replaying;
        } else {
            self.phase = Phase::Live;
            self.take_verdicts();
        }
    }

    /// Tells how the replay of what is in flight goes. Of a lost commit that is run again the outcome is
    /// told, and nothing else: what the application is waiting for is none of it.
    fn emit_of_replay(&mut self, event: Event) {
        if !self.reapply.is_running() {
            self.emit(event);
        }
    }

    /// Sends what may be sent: COMMIT only once all before it has matched, and nothing upon a link that lacks
    /// settings of what is ahead of it.
    pub(super) fn send_ready(&mut self) {
        let mut unmatched = false;
        for index in self.front..self.units.len() {
            let unit = &self.units[index];
            let early = mutation::on(Mutation::CommitBeforeComparison);
            if unit.may_commit() && unmatched && !early {
                return;
            }
            if self.give_up_link || unit.sets_when_found() || self.awaits_row(unit) {
                return;
            }
            unmatched |= unit.replayed.is_some();
            if !unit.sent && unit.verdict.is_none() {
                self.send(index);
            }
            let unit = &self.units[index];
            if (!unit.sent && unit.verdict.is_none()) || unit.end_owed {
                return;
            }
        }
    }

    /// The unit in front has been dealt with.
    pub(super) fn go_live_if_caught_up(&mut self) {
        let next_is_new = self.units.get(self.front).is_none_or(|unit| !unit.answered);
        if matches!(self.phase, Phase::Replaying) && next_is_new {
            self.phase = Phase::Live;
            self.emit_of_replay(Event::ReplayFinished);
        }
        if matches!(self.phase, Phase::Live) {
            self.take_verdicts();
            if self.units.range(self.front..).any(|unit| !unit.sent) {
                self.send_ready();
            }
        }
    }

    /// What the application has seen is not what the replay gives.
    pub(super) fn diverge(&mut self) {
        let statement = self.units.range(..=self.front).filter(|u| u.purpose.is_users()).count();
        if let Some(error) = self.unit_error.take() {
            if self.is_read_only_by_surprise(&error) {
                self.give_up_link = true;
                return;
            }
            if is_conflict(&error) && self.replay_attempts < REPLAY_ATTEMPTS {
                self.replay_attempts += 1;
                // What is on its way behind it commits by itself: run again, it could fail ahead of its seal and be
                // told as not committed, or without a ledger be committed twice.
                let commits = |unit: &Unit| unit.autocommit && unit.effect > Effect::Reads;
                let once = self.on_its_way().any(commits)
                    && !mutation::on(Mutation::WritesRepeatedBehindRead);
                self.begin_discarding(if once { Finish::Recheck } else { Finish::Again });
                return;
            }
        }
        self.emit_of_replay(Event::ReplayDiverged { statement });
        let error = self.diverged_error(statement);
        let unit = &mut self.units[self.front];
        if unit.end_owed {
            // It has not been told to commit; those behind it are transactions of their own.
            self.begin_discarding(Finish::Again);
            self.units[self.front].verdict = Some(Verdict::Failed(error));
            return;
        }
        if unit.autocommit {
            // Those behind it are transactions of their own, and on their way.
            unit.diverged = Some(error);
            return;
        }
        self.begin_discarding(Finish::Fail(error));
    }

    /// What can be done about an error other than telling it.
    pub(super) fn second_chance(&mut self, error: &ServerError) -> Option<Finish> {
        if self.reapply.is_running() {
            let again = is_conflict(error) && self.replay_attempts < REPLAY_ATTEMPTS;
            self.replay_attempts += 1;
            return again.then_some(Finish::Again);
        }
        let unit = &self.units[self.front];
        let again = unit.losses > 0 || self.replay_attempts > 0;
        if self.is_fence(error) && again {
            // Which attempt has taken the number, or whether a later one has, only the ledger knows. A second
            // line: whoever could have was ended, or fenced off, before the ledger was asked.
            let ask = !unit.passed_over && self.replay_attempts < REPLAY_ATTEMPTS;
            self.replay_attempts += 1;
            return ask.then_some(Finish::Recheck);
        }
        if is_conflict(error)
            && again
            && unit.seal.is_some()
            && self.replay_attempts < REPLAY_ATTEMPTS
        {
            self.replay_attempts += 1;
            return Some(Finish::Recheck);
        }
        let last = self.front + 1 == self.units.len();
        let replayable = match &self.transaction {
            Transaction::Open(open) if !unit.autocommit => {
                open.unprotected.is_none() && !self.may_commit_without_it()
            }
            _ => unit.autocommit && last && unit.unprotected.is_none(),
        };
        let streams = unit.streamed && unit.told;
        if !replayable || streams || unit.copy == CopyIn::Failed {
            return None;
        }
        if is_stale_plan(error) && self.replay_attempts < REPLAY_ATTEMPTS {
            self.replay_attempts += 1;
            if let Some(statement) = unit.statement.as_ref().filter(|s| s.is_named()) {
                self.prepared.forget(statement.id);
            }
            // It may be one of Segue's own that is gone.
            self.internals_ready &= error.code != "26000";
            return Some(Finish::Again);
        }
        if is_conflict(error) && self.conflict_retries < self.options.retry_conflicts {
            self.conflict_retries += 1;
            return Some(Finish::Again);
        }
        None
    }

    /// What was sent behind the unit in front and is unanswered.
    fn on_its_way(&self) -> impl Iterator<Item = &Unit> {
        let behind = self.units.range(self.front + 1..);
        behind.filter(|unit| unit.sent && unit.verdict.is_none())
    }

    /// Whether what follows the unit in front is on its way and makes up for its failure, so that the
    /// transaction may be committed without it by now.
    fn may_commit_without_it(&self) -> bool {
        let mut mended = false;
        self.on_its_way().any(|unit| {
            let kind = unit.statement.as_ref().map(|statement| &statement.class.kind);
            mended |= unit.purpose == Purpose::Simple
                || matches!(kind, Some(StatementKind::RollbackTo(_)));
            mended && unit.may_commit()
        })
    }

    /// The server refuses to write although nobody has asked it to: it is no primary any more.
    pub(super) fn is_read_only_by_surprise(&self, error: &ServerError) -> bool {
        let asked_for = match &self.transaction {
            Transaction::Open(open) => open.begin.read_only || open.sets_mode,
            _ => false,
        };
        error.code == "25006"
            && self.options.writes
            && !asked_for
            && self.units.get(self.front).is_some_and(|unit| unit.losses < 3)
            && ![
                "default_transaction_read_only",
                "transaction_read_only",
                "session characteristics",
            ]
            .iter()
            .any(|name| self.settings.contains(name))
    }

    /// From here on replies are passed over until the link is quiet.
    pub(super) fn begin_discarding(&mut self, finish: Finish) {
        // What has a verdict was sent on an earlier link only.
        let comes = |unit: &Unit| unit.sent && unit.verdict.is_none();
        let synced = |unit: &&Unit| comes(unit) && unit.steps.has_sync();
        self.discards = self.units.range(self.front..).filter(synced).count();
        if self.units.back().is_some_and(|unit| unit.copy == CopyIn::Open && comes(unit)) {
            let _ = frontend::copy_fail("the transaction is rolled back", &mut self.output);
            frontend::sync(&mut self.output);
        }
        self.withhold_end();
        self.reset_reply();
        self.forget_held();
        self.disturbed = true;
        self.phase = Phase::Discarding(finish);
        if self.discards == 0 {
            // All that was sent is answered: what is not was held back.
            self.discarded(self.status);
        }
    }

    /// A ReadyForQuery of what is passed over.
    pub(super) fn passed_over(&mut self, status: Status) {
        self.status = status;
        if matches!(self.phase, Phase::RollingBack(_)) {
            self.discarded(Status::Idle);
            return;
        }
        self.discards = self.discards.saturating_sub(1);
        if self.discards == 0 {
            self.discarded(status);
        }
    }

    pub(super) fn discarded(&mut self, status: Status) {
        let (Phase::Discarding(finish) | Phase::RollingBack(finish)) =
            std::mem::replace(&mut self.phase, Phase::Live)
        else {
            return;
        };
        if status != Status::Idle {
            let _ = frontend::query("ROLLBACK", &mut self.output);
            self.phase = Phase::RollingBack(finish);
            return;
        }
        self.status = Status::Idle;
        self.reset_reply();
        self.forget_own_units();
        self.seals.unconfirm(false);
        match finish {
            Finish::Fail(_) | Finish::Refuse(_) if self.reapply.is_running() => {
                self.abandon_reapplying();
            }
            Finish::Fail(error) | Finish::Refuse(error) => self.fail_outstanding(&error),
            Finish::Reapply => self.reapply_next(),
            Finish::Again => match self.pending_error.clone() {
                // The journal has refused it meanwhile.
                Some(error) if !self.reapply.is_running() => self.fail_outstanding(&error),
                _ => {
                    self.restore_internals();
                    self.start_replay();
                }
            },
            Finish::Recheck => {
                let attempt = self.attempt();
                // What was passed over has run, as if the link had been lost behind it.
                for unit in self.units.range_mut(self.front..).filter(|unit| unit.sent) {
                    unit.losses = unit.losses.max(1);
                    unit.note_attempt(attempt);
                    // What this attempt has replied was rolled back with it.
                    unit.user_done = false;
                }
                self.judge_without_ledger();
                let mut adoption = Adoption::default();
                let link = self.link.clone();
                self.write_questions(&link, &mut adoption);
                self.phase = Phase::Adopting(adoption);
                self.adopt_if_answered();
            }
        }
    }

    pub(super) fn restore_internals(&mut self) {
        if !self.internals_ready {
            self.internals_ready = true;
            let at = self.journal_base;
            self.units.insert(0, Unit::own(Purpose::Internals, at));
            self.front += 1;
        }
    }
}

fn is_conflict(error: &ServerError) -> bool {
    matches!(error.code.as_str(), "40001" | "40P01")
}

/// A named statement is gone, or its result has another shape since it was prepared.
fn is_stale_plan(error: &ServerError) -> bool {
    error.code == "26000"
        || (error.code == "0A000" && error.routine.as_deref() == Some("RevalidateCachedQuery"))
}
