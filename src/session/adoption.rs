//! A new link: the session's state is restored on it, and the ledger is asked what became of commits
//! that were in flight.
//!
//! Invariant: a sealed unit that has been on a lost link is not run again before the ledger has been
//! asked on the new one, and nothing that may still be running could make the answer untrue.

use std::collections::VecDeque;

use postgres_protocol::message::frontend;

use super::internals::LedgerAccess;
use super::ledger::{SQLSTATE_FENCED, SQLSTATE_NO_ROW};
use super::loss::{FATAL_STATEMENT, Zombie};
use super::replay::Finish;
use super::seals::LedgerRow;
use super::settle::passes;
use super::transaction::Transaction;
use super::unit::{CopyIn, Purpose, Seal, Verdict};
use super::verdict::{copy_not_kept, fatal_statement, half_told, unknown};
use super::{LinkReady, Phase, Session, internals};
use crate::error::{Error, ErrorKind, Result, ServerError};
use crate::mutation::{self, Mutation};
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

impl Adoption {
    pub fn has_sent_units(&self) -> bool {
        self.replays
    }
}

impl Session {
    /// Gives the session a link; its state goes ahead of the units that are run again.
    pub fn handle_link_ready(&mut self, link: LinkReady) -> Result<()> {
        if !self.wants_link() {
            return Err(Error::new(ErrorKind::Usage, "the session has a link already"));
        }
        let checked = !mutation::on(Mutation::TimelineNotChecked);
        if self.options.writes && link.timeline < self.timeline_floor && checked {
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
        self.seals.suspended = false;
        self.ledger_refusal = None;
        if !mutation::on(Mutation::PreparedOutliveLink) {
            self.prepared.reset(&link.prepared);
        }
        self.internals_ready = internals::are_prepared(link.ledger, &link.prepared);
        self.parameters.extend(link.parameters.iter().cloned());
        let mut adoption = Adoption::default();
        self.write_questions(&link, &mut adoption);
        self.link = link;
        let waits =
            self.has_sealed_units() || self.reapply.must_ask() || self.pending_error.is_some();
        if !waits && self.seals_are_ready(&adoption) {
            adoption.replays = true;
            self.rewind();
            self.send_ready();
        }
        self.phase = Phase::Adopting(adoption);
        self.adopt_if_answered();
        Ok(())
    }

    /// Whether the ledger decides something of what is in flight.
    pub(super) fn has_sealed_units(&self) -> bool {
        self.units.range(self.front..).any(|unit| unit.seal.is_some())
    }

    /// Whether what is on disk may name the row that the opening of the next one would retire.
    pub(super) fn previous_row_is_needed(&self) -> bool {
        self.seals.previous().is_some_and(|row| self.files.names(row))
    }

    /// Whether the seals of what is sent next have a row to stand in.
    pub(super) fn seals_are_ready(&self, adoption: &Adoption) -> bool {
        !self.seals.enabled || self.seals.is_confirmed() || adoption.steps.contains(&Step::OpenRow)
    }

    /// The rows that decide what is in flight, and those that may show commits to be lost. A row may
    /// have been given up since a unit was sealed in it.
    pub(super) fn rows_to_ask(&self) -> Vec<uuid::Uuid> {
        let mut rows: Vec<_> = self.seals.rows().collect();
        let of_units = self.units.range(self.front..).filter_map(|unit| unit.seal);
        for row in of_units.map(|seal| seal.row).chain(self.reapply.rows()) {
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        rows
    }

    pub(super) fn write_questions(&mut self, link: &LinkReady, adoption: &mut Adoption) {
        let rows_to_ask = self.rows_to_ask();
        let needed = self.previous_row_is_needed();
        let sealed = self.has_sealed_units();
        let writes = self.options.writes;
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
        for zombie in self.zombies.iter().filter(|zombie| zombie.is_of(link, writes)) {
            internals::write_terminate(zombie.link.backend_pid, &zombie.link.backend_start, out);
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
        // Also by a row that was never confirmed, or is missing.
        if self.seals.is_confirmed()
            || self.seals.has_acknowledged()
            || sealed
            || self.reapply.must_ask()
        {
            internals::write_look(rows_to_ask.into_iter(), out);
            step(Step::Look, out);
        } else {
            let (open, retire) = self.seals.open(needed);
            internals::write_open(open, retire, out);
            step(Step::OpenRow, out);
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
        let undecided = self.has_undecided_seals();
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
            // An earlier fence has passed this number already, which is as good; and in a row that this
            // server never had, no attempt can have been made here.
            Some(Step::Fence)
                if [SQLSTATE_FENCED, SQLSTATE_NO_ROW].contains(&error.code.as_str()) => {}
            // What became of the commits in flight must not be given up for that.
            Some(Step::Fence | Step::Look | Step::Confirm) if passes(&error) => {
                self.give_up_link = true;
            }
            Some(Step::OpenRow) if passes(&error) && undecided => self.give_up_link = true,
            Some(Step::Fence | Step::Look | Step::OpenRow) => self.refuse_ledger(&error),
            Some(Step::Terminate) => adoption.zombie_lives = true,
            // An internal statement that cannot be parsed fails where it is used.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn adopt_if_answered(&mut self) {
        let Phase::Adopting(adoption) = &mut self.phase else {
            return;
        };
        if !adoption.steps.is_empty() {
            return;
        }
        let adoption = std::mem::take(adoption);
        let here = |zombie: &Zombie| zombie.is_of(&self.link, self.options.writes);
        self.returned |= self.zombies.iter().any(here);
        // One that could not be ended is remembered until the fence stands.
        if !(adoption.zombie_lives && self.has_undecided_seals()) {
            let (link, writes) = (&self.link, self.options.writes);
            self.zombies.retain(|zombie| !zombie.is_of(link, writes));
        }
        self.adopted(adoption);
    }

    /// All questions are answered: decide what became of what was in flight.
    pub(super) fn adopted(&mut self, adoption: Adoption) {
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
            let needed = self.previous_row_is_needed();
            let (open, retire) = self.seals.open(needed);
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
        if self.reapply.is_due() && self.seals.enabled {
            self.phase = Phase::Live;
            if adoption.replays {
                self.begin_discarding(Finish::Reapply);
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
    pub(super) fn has_undecided_seals(&self) -> bool {
        let mut units = self.units.range(self.front..);
        self.seals.enabled
            && !mutation::on(Mutation::FenceLeftOut)
            && (self.reapply.attempted().is_some()
                || units.any(|it| it.seal.is_some() && it.losses > 0 && it.verdict.is_none()))
    }

    /// Commits a number above all that were handed out, so that no earlier attempt can commit any
    /// more, and asks the ledger behind it: what it says then stays true.
    pub(super) fn fence(&mut self) {
        let of_units = self.units.range(self.front..).filter_map(|unit| unit.seal);
        let used: Vec<_> = of_units.chain(self.reapply.attempted()).collect();
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
    pub(super) fn compare_ledger(&mut self, adoption: &Adoption) -> bool {
        if !self.seals.enabled {
            return false;
        }
        let rows = &adoption.rows;
        if adoption.looked {
            let lost = self.seals.lost(rows);
            self.seals.forget_lost(&lost);
            if self.seals.is_confirmed() && !self.seals.is_present(rows) {
                self.seals.unconfirm(true);
            }
            self.plan_reapplying(&lost, rows);
        }
        !self.seals.is_confirmed()
    }

    /// On a server that the session has returned to, a commit may be visible that no standby has: its
    /// backend was ended while it waited for them, or the server crashed. A commit of our own behind
    /// it waits in its stead.
    pub(super) fn needs_confirmation(&self, adoption: &Adoption) -> bool {
        let committed =
            |seal: Seal| adoption.rows.iter().any(|row| row.id == seal.row && row.has(seal.number));
        self.returned
            && !mutation::on(Mutation::ConfirmationLeftOut)
            && adoption.looked
            && !adoption.confirmed
            && self.seals.enabled
            && self.units.range(self.front..).any(|unit| unit.seal.is_some_and(committed))
    }

    /// What the ledger says of the sealed units that were on their way.
    pub(super) fn judge(&mut self, rows: &[LedgerRow]) {
        let blocked =
            matches!(&self.transaction, Transaction::Open(open) if open.unprotected.is_some());
        // What is behind one that takes another number must come later.
        let mut anew = false;
        for index in self.front..self.units.len() {
            let Some(seal) = self.units[index].seal else { continue };
            let row = rows.iter().find(|row| row.id == seal.row);
            let followed = row.is_some_and(|row| {
                let mut behind = self.units.range(index + 1..).filter_map(|unit| unit.seal);
                behind.any(|later| later.row == row.id && row.has(later.number))
            });
            let unit = &mut self.units[index];
            if unit.verdict.is_some() {
                continue;
            }
            if unit.losses == 0 || unit.copy == CopyIn::Open {
                // Its seal was never sent, or was rolled back, so that any number will do. That of a
                // row which never reached this server is none, nor is one below a fence.
                if unit.copy == CopyIn::Open && !unit.kept && !blocked {
                    unit.verdict = Some(Verdict::Failed(copy_not_kept()));
                } else if !self.seals.enabled {
                    self.unseal(index);
                } else if row.map_or(seal.row != self.seals.row(), |row| row.seq >= seal.number)
                    || self.reapply.overtakes(seal)
                    || anew
                {
                    unit.seal = Some(self.seals.allot(seal.guarded));
                    anew = true;
                }
                continue;
            }
            if !self.seals.enabled {
                unit.verdict = Some(unit.without_ledger(unknown("the commit")));
                continue;
            }
            let found = row.is_some_and(|row| row.has(seal.number));
            let found = found && !mutation::on(Mutation::FoundTakenForAbsent)
                || mutation::on(Mutation::AbsentTakenForFound);
            if found {
                unit.verdict = Some(Verdict::Committed);
                continue;
            }
            unit.found = false;
            unit.rule_out_attempts(self.link.server, self.link.timeline);
            if let Some(error) = unit.refused.take() {
                unit.verdict = Some(Verdict::Failed(error));
            } else if unit.autocommit && unit.unprotected.is_some() && !blocked {
                let error = match unit.unprotected {
                    Some(FATAL_STATEMENT) => fatal_statement(),
                    _ => copy_not_kept(),
                };
                unit.verdict = Some(Verdict::Failed(error));
            } else if unit.autocommit
                && unit.streamed
                && unit.seen.count > 0
                && !(self.options.reply_before_commit && unit.purpose == Purpose::User)
            {
                // Run again it would commit together with a reply that may not match what was told.
                unit.verdict = Some(Verdict::Failed(half_told()));
            } else if let Some(row) = row {
                // Passed by one behind it, or by a fence: under neither can it commit any more.
                let passed = (row.seq >= seal.number || anew) && !followed;
                if passed || mutation::on(Mutation::ReplayTakesNewNumber) {
                    unit.seal = Some(self.seals.allot(seal.guarded));
                    anew |= passed;
                } else {
                    unit.passed_over = row.seq > seal.number;
                }
            } else if seal.row != self.seals.row() {
                // Its row never reached this server, so its number can stand in another as well.
                // In a row that is merely to be opened the number stays: it is the fence.
                unit.seal = Some(self.seals.allot(seal.guarded));
                anew = true;
            }
        }
    }
}
