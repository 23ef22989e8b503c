//! The link is lost, or none can be had: what is known at once of what was in flight, and what has to
//! wait for the ledger of the next server.

use super::classify::Effect;
use super::classify::control::TWO_PHASE;
use super::replay::Finish;
use super::transaction::Transaction;
use super::unit::{Attempt, CopyIn, Purpose, Unit, Verdict};
use super::verdict::{copy_not_kept, fatal_statement, unknown};
use super::{Event, LinkReady, Phase, Session};
use crate::error::{Error, ErrorKind, Outcome};
use crate::mutation::{self, Mutation};
use crate::wire::frame::Status;

/// A statement under which so many links were lost is not run again.
pub(super) const LOSSES_MAX: u32 = 5;
pub(super) const FATAL_STATEMENT: &str =
    "each time one of its statements was run, the link was lost";
/// So many backends are remembered that may still be at work.
const ZOMBIES: usize = 8;

/// A backend whose link was lost.
#[derive(Debug)]
pub(super) struct Zombie {
    pub link: LinkReady,
    /// It was given something of the application's.
    worked: bool,
}

impl Zombie {
    /// Whether it is on the server of this link, which may be known by another name too (a service's address
    /// beside the node's own): of one timeline there is one primary, and sessions that write have no other.
    pub fn is_of(&self, link: &LinkReady, writes: bool) -> bool {
        let same_timeline = writes && self.link.timeline == link.timeline;
        self.link.server == link.server
            || (same_timeline && !mutation::on(Mutation::NameTakenForServer))
    }
}

impl Session {
    /// The link is lost, or is given up; whatever was still readable has been handed over.
    pub fn handle_link_lost(&mut self) {
        if self.wants_link() {
            return;
        }
        // While the ledger is asked, or what was lost is run again, what was in flight has not been sent on
        // this link yet.
        let reapplies = self.reapply.is_running();
        let was_sent = !reapplies
            && !matches!(&self.phase, Phase::Adopting(adoption) if !adoption.has_sent_units());
        let executing = was_sent && matches!(self.phase, Phase::Live | Phase::Replaying);
        let attempt = self.attempt();
        // The transaction had failed before its COMMIT. One that fails with it, or in a replay that is passed
        // over, may be run again, and a lost commit's failures are its own.
        let failed = executing && self.status == Status::Failed && !self.give_up_link;
        let worked = reapplies || (was_sent && self.units.iter().any(|unit| unit.sent));
        let phase = std::mem::replace(&mut self.phase, Phase::Lost);
        if let Phase::Discarding(Finish::Refuse(error))
        | Phase::RollingBack(Finish::Refuse(error)) = phase
        {
            // Whether the server has rolled it back or the loss has: it is refused, and not run again.
            self.pending_error = Some(error);
        }
        self.disturbed = true;
        self.interrupt_reapplying();
        self.output.clear();
        self.forget_held();
        self.sync_owed = false;
        self.reset_reply();
        self.give_up_link = false;
        self.status = Status::Idle;
        self.internals_ready = false;
        if !mutation::on(Mutation::PreparedOutliveLink) {
            self.prepared.clear();
        }
        self.remember_zombie(worked);
        self.seals.unconfirm(false);
        self.forget_own_units();
        for unit in self.units.range_mut(self.front..) {
            if was_sent {
                unit.losses += u32::from(unit.sent);
                unit.note_attempt(attempt);
            }
            unit.doubt_what_was_found();
        }
        if executing {
            self.suspect_what_was_executed();
        }
        if self.units.back().is_some_and(|unit| unit.purpose == Purpose::Rollback) {
            self.rolled_back_by_loss();
            return;
        }
        let last = self.front + 1 == self.units.len();
        let commits = self.units.back().is_some_and(|unit| unit.purpose == Purpose::Commit);
        if failed && last && commits {
            // The server could only have rolled it back.
            self.settings.roll_back();
            self.finish_transaction(false);
            return;
        }
        self.judge_without_ledger();
        if self.commit_is_decided() {
            self.take_decided_commit();
            return;
        }
        self.take_verdicts();
        if let Some(mut error) = self.replay_blocker() {
            let two_phase = |unit: &Unit| {
                let class = unit.statement.as_ref().map(|statement| &statement.class);
                class.is_some_and(|class| class.unprotected == Some(TWO_PHASE)) && unit.losses > 0
            };
            if self.units.range(self.front..).any(two_phase) {
                error = unknown("two-phase commit");
            }
            if !self.has_sealed_units() {
                self.fail_outstanding(&error);
            }
        }
    }

    /// The backend of the link that is lost may be at work for a while, if it was given anything.
    fn remember_zombie(&mut self, worked: bool) {
        if self.zombies.len() == ZOMBIES {
            // Those that were given nothing go first. There is one of the others for each server, at most: before
            // anything that is sealed is sent again, those of the server are dealt with.
            let idle = self.zombies.iter().position(|zombie| !zombie.worked);
            let idle = idle.filter(|_| !mutation::on(Mutation::ZombieForgotten));
            self.zombies.remove(idle.unwrap_or_default());
        }
        self.zombies.push(Zombie { link: std::mem::take(&mut self.link), worked });
    }

    /// Where what is sent on this link is run.
    pub(super) fn attempt(&self) -> Attempt {
        Attempt { server: self.link.server, timeline: self.link.timeline }
    }

    /// A statement that takes its backend, or even its server, along each time it is run must not be
    /// run for ever.
    pub(super) fn suspect_what_was_executed(&mut self) {
        let Some(unit) = self.units.get_mut(self.front).filter(|unit| unit.sent) else {
            return;
        };
        unit.losses_in_front += 1;
        if unit.losses_in_front < LOSSES_MAX {
            return;
        }
        if unit.autocommit {
            unit.unprotected = Some(FATAL_STATEMENT);
        } else if let Transaction::Open(open) = &mut self.transaction {
            open.unprotected.get_or_insert(FATAL_STATEMENT);
        }
    }

    /// No link can be had: what is waiting for one ends with `error`, whose outcome is that of a
    /// transaction that never reached COMMIT.
    pub fn handle_no_link(&mut self, error: &Error) {
        for unit in self.units.range_mut(self.front..) {
            let sealed = unit.seal.is_some() && unit.copy != CopyIn::Open;
            if unit.losses > 0 && sealed && unit.verdict.is_none() {
                let unknown = error.clone().with_outcome(Outcome::Unknown);
                unit.verdict = Some(unit.without_ledger(unknown));
            }
        }
        if self.commit_is_decided() {
            self.take_decided_commit();
            return;
        }
        self.take_verdicts();
        self.fail_outstanding(error);
    }

    /// A transaction that was being rolled back ends with its link.
    pub(super) fn rolled_back_by_loss(&mut self) {
        let error = Error::new(
            ErrorKind::ProtectionLost,
            "the server was lost while the transaction was being rolled back; nothing of it is committed",
        );
        while self.front + 1 < self.units.len() {
            if !self.units[self.front].answered {
                self.emit(Event::Error(error.clone()));
                self.emit(Event::Ready(Status::Failed));
            }
            self.front += 1;
        }
        self.settings.roll_back();
        self.finish_transaction(false);
    }

    /// Decides what needs no question to the ledger.
    pub(super) fn judge_without_ledger(&mut self) {
        let commit_in_front = self.front + 1 == self.units.len();
        for unit in self.units.range_mut(self.front..) {
            if unit.losses == 0 || unit.seal.is_some() {
                continue;
            }
            let reads = unit.effect <= Effect::Reads;
            if unit.purpose == Purpose::Commit {
                if reads && commit_in_front {
                    // It has read only, and all it has read was seen.
                    unit.verdict = Some(Verdict::Committed);
                } else if !reads {
                    unit.verdict = Some(Verdict::Failed(unknown("the commit")));
                }
            } else if unit.autocommit && unit.copy == CopyIn::Open {
                // Its end was never sent.
                if !unit.kept {
                    unit.verdict = Some(Verdict::Failed(copy_not_kept()));
                }
            } else if unit.autocommit && reads && unit.unprotected == Some(FATAL_STATEMENT) {
                unit.verdict = Some(Verdict::Failed(fatal_statement()));
            } else if unit.autocommit && !reads && mutation::on(Mutation::UnsealedToldCommitted) {
                unit.verdict = Some(Verdict::Committed);
            } else if unit.autocommit && (!reads || unit.unprotected.is_some()) {
                unit.verdict = Some(Verdict::Failed(unknown("the statement")));
            }
        }
    }

    /// Why the open transaction or the session cannot go on elsewhere.
    pub(super) fn replay_blocker(&mut self) -> Option<Error> {
        if let Some(reason) = self.unrestorable.take() {
            let error = Error::new(
                ErrorKind::ProtectionLost,
                format!(
                    "the server was lost, and with it state of the session that cannot be restored: {reason}; \
                     the transaction is not committed: set the state up again and run it again"
                ),
            );
            self.pending_error = Some(error);
        }
        if let Some(error) = &self.pending_error {
            return Some(error.clone());
        }
        match &self.transaction {
            Transaction::Open(open) => open.unprotected.map(|reason| {
                Error::new(
                    ErrorKind::ProtectionLost,
                    format!(
                        "the server was lost and the transaction could not be replayed: {reason}; \
                         it is not committed: run the whole transaction again"
                    ),
                )
            }),
            _ => None,
        }
    }

    pub(super) fn forget_own_units(&mut self) {
        let before = self.front.min(self.units.len());
        let own = |unit: &Unit| !unit.purpose.is_users();
        let gone = self.units.range(..before).filter(|unit| own(unit)).count();
        self.front -= gone;
        self.units.retain(|unit| !own(unit));
    }

    pub(super) fn reset_reply(&mut self) {
        self.unit_error = None;
        self.seal_missing = false;
        self.sealed = false;
        self.awaiting = None;
        self.rolled_back = false;
        self.pending_param_oids.clear();
    }
}
