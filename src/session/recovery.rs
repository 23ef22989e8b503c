//! Brings a session to another link: restores its state, asks the ledger what became of commits that
//! were in flight, and runs the in-flight units again.
//!
//! Invariants: a sealed unit that has been on a lost link is not run again before the ledger has been
//! asked on the new one; COMMIT is not sent before all that the application has seen has matched.

use std::collections::VecDeque;

use postgres_protocol::message::frontend;

use super::classify::Effect;
use super::classify::control::TWO_PHASE;
use super::internals::LedgerAccess;
use super::seals::LedgerRow;
use super::transaction::Transaction;
use super::unit::{CopyIn, Purpose, Seal, Unit, Verdict};
use super::{Event, LinkReady, Phase, Session, internals};
use crate::error::{Error, ErrorKind, Outcome, Result, ServerError};
use crate::wire::Malformed;
use crate::wire::frame::{Frame, Status};
use crate::wire::row::Values;

/// What a new link is asked and told before the session goes on; each step ends with ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Internals,
    Terminate,
    Settings,
    Fence,
    Look,
    OpenRow,
    /// A commit that waits for the standbys, if the server's commits do.
    Confirm,
}

#[derive(Debug, Default)]
pub(super) struct Adoption {
    steps: VecDeque<Step>,
    rows: Vec<LedgerRow>,
    /// The units are on their way already, behind the questions.
    replays: bool,
    /// The ledger has been asked, and has answered.
    looked: bool,
    /// What the ledger says is as safe as an acknowledged commit.
    confirmed: bool,
    /// The step in front has failed.
    failed: bool,
    /// A former backend on this server could not be ended, and may yet commit.
    zombie_lives: bool,
}

/// What is to be done once the link is free of a failed attempt.
#[derive(Debug)]
pub(super) enum Finish {
    /// Tell the application; nothing is committed.
    Fail(Error),
    /// Run it again.
    Again,
    /// Ask the ledger, then decide.
    Recheck,
}

/// A replay that fails for reasons of its own (a deadlock, say) is tried so often.
const REPLAY_ATTEMPTS: u32 = 5;
/// A statement under which so many links were lost is not run again.
const LOSSES_MAX: u32 = 5;
const FATAL_STATEMENT: &str = "each time one of its statements was run, the link was lost";
/// So many backends are remembered that may still be at work.
const ZOMBIES: usize = 8;

impl Session {
    /// The link is lost, or is given up; whatever was still readable has been handed over.
    pub fn handle_link_lost(&mut self) {
        if self.wants_link() {
            return;
        }
        let executing = matches!(self.phase, Phase::Live | Phase::Replaying);
        let failed = self.status == Status::Failed;
        self.phase = Phase::Lost;
        self.interrupt_reapplying();
        self.output.clear();
        self.reset_reply();
        self.give_up_link = false;
        self.status = Status::Idle;
        self.internals_ready = false;
        self.prepared.clear();
        if self.zombies.len() == ZOMBIES {
            self.zombies.remove(0);
        }
        self.zombies.push(std::mem::take(&mut self.link));
        self.seals.unconfirm(false);
        self.forget_own_units();
        for unit in self.units.range_mut(self.front..) {
            unit.losses += u32::from(unit.sent);
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
            let asks_ledger = self.units.range(self.front..).any(|unit| unit.seal.is_some());
            if !asks_ledger {
                self.fail_outstanding(&error);
            }
        }
    }

    /// A statement that takes its backend, or even its server, along each time it is run must not be
    /// run for ever.
    fn suspect_what_was_executed(&mut self) {
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
                unit.verdict = Some(Verdict::Failed(unknown));
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
    fn rolled_back_by_loss(&mut self) {
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
    fn judge_without_ledger(&mut self) {
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
            } else if unit.autocommit && (!reads || unit.unprotected.is_some()) {
                unit.verdict = Some(Verdict::Failed(unknown("the statement")));
            }
        }
    }

    /// Why the open transaction or the session cannot go on elsewhere.
    fn replay_blocker(&mut self) -> Option<Error> {
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

    /// Gives the session a link; its state goes ahead of the units that are run again.
    pub fn handle_link_ready(&mut self, link: LinkReady) -> Result<()> {
        if !self.wants_link() {
            return Err(Error::new(ErrorKind::Usage, "the session has a link already"));
        }
        if self.options.writes && link.timeline < self.timeline_floor {
            return Err(Error::new(
                ErrorKind::Connect,
                format!(
                    "server {} is on timeline {}, but this session has seen timeline {}: it is never used again",
                    link.server, link.timeline, self.timeline_floor
                ),
            ));
        }
        // Of a standby it is only what it last heard of.
        self.timeline_floor = self.timeline_floor.max(link.timeline);
        self.returned = false;
        self.ledger_access = link.ledger;
        self.seals.enabled = link.ledger != LedgerAccess::None && self.options.writes;
        self.prepared.reset(&link.prepared);
        self.internals_ready = internals::are_prepared(link.ledger, &link.prepared);
        self.parameters.extend(link.parameters.iter().cloned());
        let mut adoption = Adoption::default();
        self.write_questions(&link, &mut adoption);
        self.link = link;
        let sealed = self.units.range(self.front..).any(|unit| unit.seal.is_some());
        if !sealed && self.seals_are_ready(&adoption) && self.pending_error.is_none() {
            adoption.replays = true;
            self.rewind();
            self.send_ready();
        }
        self.phase = Phase::Adopting(adoption);
        self.adopt_if_answered();
        Ok(())
    }

    /// Whether the seals of what is sent next have a row to stand in.
    fn seals_are_ready(&self, adoption: &Adoption) -> bool {
        !self.seals.enabled || self.seals.is_confirmed() || adoption.steps.contains(&Step::OpenRow)
    }

    /// The rows that decide what is in flight, and those that may show commits to be lost. A row may
    /// have been given up since a unit was sealed in it.
    fn rows_to_ask(&self) -> Vec<uuid::Uuid> {
        let mut rows: Vec<_> = self.seals.rows().collect();
        for seal in self.units.range(self.front..).filter_map(|unit| unit.seal) {
            if !rows.contains(&seal.row) {
                rows.push(seal.row);
            }
        }
        rows
    }

    fn write_questions(&mut self, link: &LinkReady, adoption: &mut Adoption) {
        let rows_to_ask = self.rows_to_ask();
        let out = &mut self.output;
        let mut step = |step: Step, out: &mut bytes::BytesMut| {
            frontend::sync(out);
            adoption.steps.push_back(step);
        };
        if !self.internals_ready {
            self.internals_ready = true;
            internals::write_internals(link.ledger, out);
            step(Step::Internals, out);
        }
        for zombie in self.zombies.iter().filter(|zombie| zombie.server == link.server) {
            internals::write_terminate(zombie.backend_pid, &zombie.backend_start, out);
            step(Step::Terminate, out);
        }
        if self.settings.restorable().len() > 0 {
            for bytes in self.settings.restorable() {
                out.extend_from_slice(bytes);
            }
            step(Step::Settings, out);
        }
        if !self.seals.enabled {
            return;
        }
        if self.seals.is_confirmed() {
            internals::write_look(rows_to_ask.into_iter(), out);
            step(Step::Look, out);
        } else if self.units.range(self.front..).all(|unit| unit.seal.is_none()) {
            let (open, retire) = self.seals.open();
            internals::write_open(open, retire, out);
            step(Step::OpenRow, out);
        } else {
            // Sealed by a row that was never confirmed, or is missing: ask for it all the same.
            internals::write_look(rows_to_ask.into_iter(), out);
            step(Step::Look, out);
        }
    }

    pub(super) fn adoption_reply(&mut self, frame: &Frame) -> Result<(), Malformed> {
        let Phase::Adopting(adoption) = &mut self.phase else {
            return Ok(());
        };
        let Some(&step) = adoption.steps.front() else {
            return Err(Malformed("a reply that nobody has asked for"));
        };
        match frame.tag() {
            b'D' if step == Step::Look => adoption.rows.push(internals::read_look(frame.body())?),
            // False: it was still there after the time allowed.
            b'D' if step == Step::Terminate => {
                let value = Values::new(frame.body())?.next().transpose()?.flatten();
                adoption.zombie_lives |= value != Some(&[1]);
            }
            b'Z' => {
                let status = Status::from_body(frame.body())?;
                if status != Status::Idle {
                    return Err(Malformed("a transaction is open on a link that is new"));
                }
                let failed = std::mem::take(&mut adoption.failed);
                adoption.steps.pop_front();
                adoption.looked |= step == Step::Look && !failed;
                if step == Step::OpenRow && !failed {
                    self.seals.opened();
                }
                self.adopt_if_answered();
            }
            b'1' | b'2' | b'3' | b'C' | b'T' | b't' | b'n' | b'D' | b'I' => {}
            _ => return Err(Malformed("a message that does not answer what was asked")),
        }
        Ok(())
    }

    pub(super) fn adoption_error(&mut self, error: ServerError) -> Result<(), Malformed> {
        let Phase::Adopting(adoption) = &mut self.phase else {
            return Ok(());
        };
        adoption.failed = true;
        match adoption.steps.front() {
            Some(Step::Settings) => {
                self.pending_error = Some(
                    Error::new(
                        ErrorKind::ProtectionLost,
                        "the session moved to another server, which refused one of its settings; \
                         nothing is committed: set them up again and run the transaction again",
                    )
                    .with_server_error(error),
                );
            }
            // An earlier fence has passed this number already, which is as good.
            Some(Step::Fence) if error.code == super::ledger::SQLSTATE_FENCED => {}
            Some(Step::Fence | Step::Look | Step::OpenRow) => self.refuse_ledger(&error),
            Some(Step::Terminate) => adoption.zombie_lives = true,
            // An internal statement that cannot be parsed fails where it is used.
            _ => {}
        }
        Ok(())
    }

    fn adopt_if_answered(&mut self) {
        let Phase::Adopting(adoption) = &mut self.phase else {
            return;
        };
        if !adoption.steps.is_empty() {
            return;
        }
        let adoption = std::mem::take(adoption);
        self.returned |= self.zombies.iter().any(|zombie| zombie.server == self.link.server);
        self.zombies.retain(|zombie| zombie.server != self.link.server);
        self.adopted(adoption);
    }

    /// All questions are answered: decide what became of what was in flight.
    fn adopted(&mut self, adoption: Adoption) {
        if adoption.zombie_lives && self.has_undecided_seals() {
            // Behind the fence, whose number is the highest, no loss would show any more.
            self.compare_ledger(&adoption);
            self.fence();
            return;
        }
        let row_is_missing = self.compare_ledger(&adoption);
        if row_is_missing {
            if adoption.replays {
                self.phase = if self.any_answered() { Phase::Replaying } else { Phase::Live };
                self.begin_discarding(Finish::Recheck);
                return;
            }
            let (open, retire) = self.seals.open();
            internals::write_open(open, retire, &mut self.output);
            frontend::sync(&mut self.output);
            let steps = VecDeque::from([Step::OpenRow]);
            self.judge(&adoption.rows);
            self.phase = Phase::Adopting(Adoption { steps, ..Adoption::default() });
            return;
        }
        if !adoption.replays && (adoption.looked || !self.seals.enabled) {
            if self.needs_confirmation(&adoption) {
                internals::write_confirm(&mut self.output);
                frontend::sync(&mut self.output);
                let steps = VecDeque::from([Step::Confirm]);
                self.phase = Phase::Adopting(Adoption { steps, confirmed: true, ..adoption });
                return;
            }
            self.judge(&adoption.rows);
        }
        if self.reapply.is_due() {
            self.phase = Phase::Live;
            if adoption.replays {
                self.begin_discarding(Finish::Again);
            } else {
                self.reapply_next();
            }
            return;
        }
        if !adoption.replays {
            self.resume();
            return;
        }
        match self.replay_blocker() {
            Some(error) => {
                self.phase = Phase::Live;
                self.begin_discarding(Finish::Fail(error));
            }
            None => self.enter_replay(),
        }
    }

    /// Goes on with what was in flight when the link was lost.
    pub(super) fn resume(&mut self) {
        if self.commit_is_decided() {
            self.phase = Phase::Live;
            self.take_decided_commit();
        } else if let Some(error) = self.replay_blocker() {
            self.phase = Phase::Live;
            self.take_verdicts();
            self.fail_outstanding(&error);
        } else {
            self.start_replay();
        }
    }

    /// Whether an attempt that may still be running could commit under a number of this session's.
    fn has_undecided_seals(&self) -> bool {
        self.seals.enabled
            && self
                .units
                .range(self.front..)
                .any(|unit| unit.seal.is_some() && unit.losses > 0 && unit.verdict.is_none())
    }

    /// Commits a number above all that were handed out, so that no earlier attempt can commit any
    /// more, and asks the ledger behind it: what it says then stays true.
    fn fence(&mut self) {
        let used: Vec<_> = self.units.range(self.front..).filter_map(|unit| unit.seal).collect();
        let mut steps = VecDeque::new();
        for seal in self.seals.fences(&used) {
            internals::write_seal(seal, &mut self.output);
            frontend::sync(&mut self.output);
            steps.push_back(Step::Fence);
        }
        internals::write_look(self.rows_to_ask().into_iter(), &mut self.output);
        frontend::sync(&mut self.output);
        steps.push_back(Step::Look);
        self.phase = Phase::Adopting(Adoption { steps, ..Adoption::default() });
    }

    /// Reports acknowledged commits that are gone. Returns whether a row must be opened first.
    fn compare_ledger(&mut self, adoption: &Adoption) -> bool {
        if !self.seals.enabled {
            return false;
        }
        let rows = &adoption.rows;
        if adoption.looked && self.seals.is_confirmed() {
            let lost = self.seals.lost(rows);
            self.seals.forget_lost(rows);
            let missing = !self.seals.is_present(rows);
            if missing {
                self.seals.unconfirm(true);
            }
            self.skip_reapplied(rows);
            self.plan_reapplying(&lost, missing);
        }
        !self.seals.is_confirmed()
    }

    /// On a server that the session has returned to, a commit may be visible that no standby has: its
    /// backend was ended while it waited for them, or the server crashed. A commit of our own behind
    /// it waits in its stead.
    fn needs_confirmation(&self, adoption: &Adoption) -> bool {
        let committed =
            |seal: Seal| adoption.rows.iter().any(|row| row.id == seal.row && row.has(seal.number));
        self.returned
            && adoption.looked
            && !adoption.confirmed
            && self.seals.enabled
            && self.units.range(self.front..).any(|unit| unit.seal.is_some_and(committed))
    }

    /// What the ledger says of the sealed units that were on their way.
    fn judge(&mut self, rows: &[LedgerRow]) {
        let blocked =
            matches!(&self.transaction, Transaction::Open(open) if open.unprotected.is_some());
        for index in self.front..self.units.len() {
            let Some(seal) = self.units[index].seal else { continue };
            let row = rows.iter().find(|row| row.id == seal.row);
            let followed = row.is_some_and(|row| {
                let mut behind = self.units.range(index + 1..).filter_map(|unit| unit.seal);
                behind.any(|later| later.row == row.id && row.has(later.number))
            });
            let unit = &mut self.units[index];
            if unit.losses == 0 || unit.verdict.is_some() {
                continue;
            }
            if unit.copy == CopyIn::Open {
                // Its end, and so its seal, was never sent.
                if !unit.kept && !blocked {
                    unit.verdict = Some(Verdict::Failed(copy_not_kept()));
                }
                continue;
            }
            if !self.seals.enabled {
                unit.verdict = Some(Verdict::Failed(unknown("the commit")));
                continue;
            }
            if row.is_some_and(|row| row.has(seal.number)) {
                unit.verdict = Some(Verdict::Committed);
                continue;
            }
            if unit.autocommit && unit.unprotected.is_some() && !blocked {
                let error = match unit.unprotected {
                    Some(FATAL_STATEMENT) => fatal_statement(),
                    _ => copy_not_kept(),
                };
                unit.verdict = Some(Verdict::Failed(error));
            } else if unit.autocommit && unit.streamed && unit.seen.count > 0 {
                // Run again it would commit together with a reply that may not match what was told.
                unit.verdict = Some(Verdict::Failed(half_told()));
            } else if let Some(row) = row {
                // Passed by one behind it, or by a fence: under neither can it commit any more.
                if row.seq >= seal.number && !followed {
                    unit.seal = Some(self.seals.allot(seal.guarded));
                } else {
                    unit.passed_over = row.seq > seal.number;
                }
            } else if seal.row != self.seals.row() {
                // Its row never reached this server, so its number can stand in another as well.
                // In a row that is merely to be opened the number stays: it is the fence.
                unit.seal = Some(self.seals.allot(seal.guarded));
            }
        }
    }

    fn any_answered(&self) -> bool {
        self.units.iter().any(|unit| unit.answered && unit.replayed.is_some())
    }

    pub(super) fn start_replay(&mut self) {
        self.rewind();
        self.enter_replay();
        self.send_ready();
    }

    /// Makes every unit that is kept ready to be sent again.
    fn rewind(&mut self) {
        let told = self.units.get(self.front).is_some_and(|unit| {
            unit.told && !unit.answered && !unit.streamed && unit.verdict.is_none()
        });
        if told {
            self.units[self.front].told = false;
            self.emit(Event::Restarted);
        }
        // What is before the first verdict's end is answered; autocommit units are not kept.
        self.front = 0;
        for unit in &mut self.units {
            if unit.verdict.is_none() {
                unit.rewind();
            }
        }
    }

    fn enter_replay(&mut self) {
        if self.any_answered() {
            let statements = self.units.iter().filter(|unit| unit.answered).count();
            self.emit(Event::ReplayStarted { statements });
            self.phase = Phase::Replaying;
        } else {
            self.phase = Phase::Live;
            self.take_verdicts();
        }
    }

    /// Sends what may be sent: COMMIT only once all before it has matched.
    pub(super) fn send_ready(&mut self) {
        let mut unmatched = false;
        for index in self.front..self.units.len() {
            let unit = &self.units[index];
            if unit.purpose == Purpose::Commit && unmatched {
                return;
            }
            unmatched |= unit.replayed.is_some();
            if !unit.sent && unit.verdict.is_none() {
                self.send(index);
            }
        }
    }

    /// The unit in front has been dealt with.
    pub(super) fn go_live_if_caught_up(&mut self) {
        let next_is_new = self.units.get(self.front).is_none_or(|unit| !unit.answered);
        if matches!(self.phase, Phase::Replaying) && next_is_new {
            self.phase = Phase::Live;
            self.emit(Event::ReplayFinished);
        }
        if matches!(self.phase, Phase::Live) {
            self.take_verdicts();
            if self.units.range(self.front..).any(|unit| !unit.sent) {
                self.send_ready();
            }
        }
    }

    /// Tells the application of the units in front whose fate is known without running them.
    fn take_verdicts(&mut self) {
        while let Some(verdict) = self.units.get_mut(self.front).and_then(|u| u.verdict.take()) {
            let unit = &mut self.units[self.front];
            let (commit, seal, user_done) =
                (unit.purpose == Purpose::Commit, unit.seal, unit.user_done);
            match verdict {
                Verdict::Committed => {
                    if let Some(seal) = seal {
                        self.seals.acknowledge(seal);
                    }
                    if commit {
                        self.settings.commit();
                        self.finish_transaction(true);
                        return;
                    }
                    self.note_success();
                    self.settings.commit();
                    if !user_done {
                        self.emit(Event::Error(reply_lost()));
                    }
                    self.emit(Event::Ready(Status::Idle));
                }
                Verdict::Failed(error) => {
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

    /// Whether the fate of the transaction's COMMIT is known, so that nothing of it is run again.
    fn commit_is_decided(&self) -> bool {
        let last = self.units.back();
        last.is_some_and(|unit| unit.purpose == Purpose::Commit && unit.verdict.is_some())
    }

    fn take_decided_commit(&mut self) {
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
    fn fail_outstanding(&mut self, error: &Error) {
        self.settings.roll_back();
        let mut told = false;
        let mut ended = !matches!(self.transaction, Transaction::Open(_));
        while let Some(unit) = self.units.get_mut(self.front) {
            let waiting = unit.purpose.is_users() && !unit.answered;
            let autocommit = unit.autocommit;
            let ends = matches!(unit.purpose, Purpose::Commit | Purpose::Rollback);
            let error = match unit.verdict.take() {
                Some(Verdict::Failed(own)) => own,
                _ => error.clone(),
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
                self.begin_discarding(Finish::Again);
                return;
            }
        }
        self.emit(Event::ReplayDiverged { statement });
        let error = self.diverged_error(statement);
        let unit = &mut self.units[self.front];
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
            // Which attempt has taken the number, or whether a later one has, only the ledger knows.
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
            Transaction::Open(open) if !unit.autocommit => open.unprotected.is_none(),
            _ => unit.autocommit && last && unit.unprotected.is_none(),
        };
        if !replayable || (unit.streamed && unit.told) || unit.copy == CopyIn::Failed {
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
        self.discards = self.units.range(self.front..).filter(|unit| unit.sent).count();
        if self.units.back().is_some_and(|unit| unit.copy == CopyIn::Open && unit.sent) {
            let _ = frontend::copy_fail("the transaction is rolled back", &mut self.output);
            frontend::sync(&mut self.output);
        }
        self.reset_reply();
        self.phase = Phase::Discarding(finish);
        if self.discards == 0 {
            self.discarded(Status::Idle);
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

    fn discarded(&mut self, status: Status) {
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
            Finish::Fail(_) if self.reapply.is_running() => self.abandon_reapplying(),
            Finish::Fail(error) => self.fail_outstanding(&error),
            Finish::Again if self.reapply.is_due() => self.reapply_next(),
            Finish::Again => {
                self.restore_internals();
                self.start_replay();
            }
            Finish::Recheck => {
                // What was passed over has run, as if the link had been lost behind it.
                for unit in self.units.range_mut(self.front..).filter(|unit| unit.sent) {
                    unit.losses = unit.losses.max(1);
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

    fn restore_internals(&mut self) {
        if !self.internals_ready {
            self.internals_ready = true;
            let at = self.journal_base;
            self.units.insert(0, Unit::own(Purpose::Internals, at));
            self.front += 1;
        }
    }

    fn forget_own_units(&mut self) {
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

fn is_conflict(error: &ServerError) -> bool {
    matches!(error.code.as_str(), "40001" | "40P01")
}

/// A named statement is gone, or its result has another shape since it was prepared.
fn is_stale_plan(error: &ServerError) -> bool {
    error.code == "26000"
        || (error.code == "0A000" && error.routine.as_deref() == Some("RevalidateCachedQuery"))
}

fn unknown(what: &str) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        format!(
            "the server was lost while {what} was in flight, and no ledger can tell whether it is \
             committed: look for its effects before running it again"
        ),
    )
    .with_outcome(Outcome::Unknown)
}

fn fatal_statement() -> Error {
    Error::new(
        ErrorKind::ProtectionLost,
        format!(
            "the link was lost each of the {LOSSES_MAX} times that the statement was run, so that it \
             seems to be the cause; it is not committed: find out why before running it again"
        ),
    )
}

fn half_told() -> Error {
    Error::new(
        ErrorKind::ReplayDiverged,
        "the server was lost while the rows of a writing statement were being delivered; nothing of \
         it is committed: discard the rows and run it again",
    )
}

fn copy_not_kept() -> Error {
    Error::new(
        ErrorKind::ProtectionLost,
        "the server was lost and the COPY was too large to be kept; nothing of it is committed: run \
         it again",
    )
}

fn reply_lost() -> Error {
    Error::new(
        ErrorKind::ReplyLost,
        "the server was lost; the statement is committed, exactly once, but what it returned is \
         lost: do not run it again",
    )
    .with_outcome(Outcome::Committed)
}
