//! Records units in the journal and puts them on the wire, in the form that the present link needs.

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::classify::Effect;
use super::request::{NO_LEDGER, nul_in_statement};
use super::transaction::{Open, Transaction};
use super::unit::{CopyIn, Purpose, Steps, Unit, Verdict};
use super::{Event, Phase, Session, internals};
use crate::error::Result;
use crate::mutation::{self, Mutation};
use crate::wire::execution::SYNC;
use crate::wire::frame::Status;

pub(super) const TOO_LARGE: &str = "the transaction is larger than journal_bytes_max";

impl Session {
    pub(super) fn new_unit(&self, purpose: Purpose, steps: u8, streamed: bool) -> Unit {
        let mut unit = Unit::new(purpose, steps, self.journal_base + self.journal.len());
        unit.streamed = streamed;
        unit.autocommit = matches!(self.transaction, Transaction::None | Transaction::Pending(_));
        unit
    }

    /// A statement follows BEGIN, so the transaction is open from here on.
    pub(super) fn enter(&mut self, unit: &mut Unit, begins: bool) {
        if !begins {
            return;
        }
        unit.autocommit = false;
        if let Transaction::Pending(options) = &mut self.transaction {
            let options = std::mem::take(options);
            self.transaction = Transaction::Open(Open::new(options));
            self.conflict_retries = 0;
            self.replay_attempts = 0;
        }
    }

    pub(super) fn seal_or_say_why_not(&mut self, unit: &mut Unit, reason: Option<&'static str>) {
        if let Some(reason) = reason {
            unit.unprotected = Some(reason);
        } else if self.seals.enabled {
            unit.seal = Some(self.seals.allot(unit.effect == Effect::MayWrite));
            unit.all_steps |= Steps::SEAL;
        } else {
            unit.unprotected = Some(NO_LEDGER);
        }
    }

    pub(super) fn record_begin(&mut self, unit: &mut Unit) -> Result<()> {
        let Transaction::Pending(options) = &self.transaction else {
            return Ok(());
        };
        let start = self.journal.len();
        let written = if options.sql.is_empty() {
            internals::write_call(internals::BEGIN, &mut self.journal);
            Ok(())
        } else {
            frontend::parse("", &options.sql, [], &mut self.journal).map(|()| {
                internals::write_call("", &mut self.journal);
            })
        };
        if written.is_err() {
            self.journal.truncate(start);
            return Err(nul_in_statement());
        }
        unit.all_steps |= Steps::BEGIN;
        unit.begin_len = self.journal.len() - start;
        unit.end = self.journal_base + self.journal.len();
        Ok(())
    }

    /// Appends to the journal what `write` writes; on an error the journal is as before the unit.
    pub(super) fn record(
        &mut self,
        unit: &mut Unit,
        write: impl FnOnce(&mut BytesMut) -> Result<()>,
    ) -> Result<()> {
        if let Err(error) = write(&mut self.journal) {
            self.journal.truncate(unit.start - self.journal_base);
            return Err(error);
        }
        unit.end = self.journal_base + self.journal.len();
        Ok(())
    }

    /// A unit of Segue's own, ahead of the application's.
    pub(super) fn push_own(&mut self, purpose: Purpose) {
        self.push(Unit::own(purpose, self.journal_base + self.journal.len()));
    }

    pub(super) fn ensure_internals(&mut self) {
        if !self.internals_ready && self.status != Status::Failed {
            self.internals_ready = true;
            self.push_own(Purpose::Internals);
        }
    }

    /// Whether a statement with this effect is a transaction's first, which is to be sealed.
    fn begins_to_write(&self, effect: Effect) -> bool {
        let idle = self.status == Status::Idle && !matches!(self.transaction, Transaction::Open(_));
        idle && effect > Effect::Reads && self.options.writes
    }

    /// What kept the ledger from being used may have passed.
    pub(super) fn resume_ledger(&mut self, effect: Effect) {
        if self.seals.suspended && self.begins_to_write(effect) {
            self.seals.suspended = false;
            self.seals.enabled = true;
            self.ledger_refusal = None;
        }
    }

    pub(super) fn rotate_if_due(&mut self, effect: Effect) {
        if self.begins_to_write(effect) && self.seals.rotation_is_due() {
            // One that waits for its turn, behind what the journal on disk does not have yet, is enough.
            let waits = |unit: &Unit| unit.purpose == Purpose::OpenRow;
            if self.units.range(self.front..).any(waits) {
                return;
            }
            let mut undecided = self.units.range(self.front..).filter_map(|unit| unit.seal);
            if undecided.any(|seal| self.seals.would_retire(seal)) {
                return;
            }
            self.push_own(Purpose::OpenRow);
        }
    }

    pub(super) fn push(&mut self, mut unit: Unit) {
        self.files.note_unit();
        unit.tracked = unit.streamed || !unit.autocommit || self.options.reapply;
        // What may commit waits for the comparison of what is run again ahead of it, and what follows
        // waits for its turn.
        let ahead = self.units.range(self.front..);
        let last = ahead.clone().next_back();
        unit.held = last.is_some_and(|last| last.held);
        let early = mutation::on(Mutation::CommitBeforeComparison);
        let waits = last.is_some_and(|last| !last.sent || last.end_owed)
            || self.give_up_link
            || self.awaits_row(&unit)
            || (unit.may_commit() && !early && ahead.clone().any(|it| it.replayed.is_some()));
        self.units.push_back(unit);
        if !waits {
            self.send(self.units.len() - 1);
        }
    }

    /// Whether the row that the unit is sealed in is just being opened. The server may refuse that, and
    /// take the unit behind it: without its row the fast seal writes nothing.
    pub(super) fn awaits_row(&self, unit: &Unit) -> bool {
        unit.seal.is_some_and(|seal| self.seals.awaits(seal.row))
            && !mutation::on(Mutation::OpeningNotAwaited)
    }

    /// What was to be sealed and is not on its way cannot be: it goes without or, with `ledger=require`,
    /// not at all.
    pub(super) fn unseal(&mut self, index: usize) {
        let unit = &mut self.units[index];
        unit.seal = None;
        unit.all_steps &= !Steps::SEAL;
        if unit.autocommit {
            unit.unprotected.get_or_insert(NO_LEDGER);
        }
        if !self.options.ledger_required {
            return;
        }
        let error = self.no_ledger();
        self.disturbed = true;
        let unit = &mut self.units[index];
        if unit.autocommit {
            unit.verdict = Some(Verdict::Failed(error));
        } else {
            self.refuse(error);
        }
    }

    /// Writes the Sync that the last unit has been waiting with.
    pub(super) fn end_batch(&mut self) {
        if std::mem::take(&mut self.sync_owed) {
            self.output.extend_from_slice(SYNC);
        }
    }

    /// Whether a unit may go without a Sync until it is known what follows it.
    fn may_share_sync(&self, index: usize) -> bool {
        matches!(self.phase, Phase::Live)
            && self.internals_ready
            && !self.reapply.is_running()
            && self.units[index].is_batchable()
    }

    /// Whether the unit has no Parse, so that it may be passed over: what is prepared on the link stays as
    /// it is known, and what a failed transaction says of it does not depend on its text, which may
    /// have an error of syntax.
    fn needs_no_parse(&self, index: usize) -> bool {
        let statement = self.units[index].statement.as_ref();
        statement.is_some_and(|statement| statement.is_named() && self.prepared.has(statement.id))
    }

    /// The unit whose bytes a unit is sent with, which is itself.
    fn source(&self, index: usize) -> usize {
        let unit = &self.units[index];
        let again = unit.losses > 0 || unit.replayed.is_some();
        if !again || !mutation::on(Mutation::ParametersMixedUp) {
            return index;
        }
        let id = |at: usize| self.units[at].statement.as_ref().map(|statement| statement.id);
        let like = |at: &usize| id(*at) == id(index) && self.units[*at].begin_len == 0;
        (0..index).find(like).unwrap_or(index)
    }

    /// Puts a unit on the wire, in the form that the present link needs.
    pub(super) fn send(&mut self, index: usize) {
        if self.must_be_kept(index) {
            self.hold(index);
            return;
        }
        self.units[index].held = false;
        // A Sync makes the server flush its replies, and costs both sides a system call.
        let waits_with_sync = self.may_share_sync(index);
        if self.sync_owed && waits_with_sync && self.needs_no_parse(index) {
            self.units[index - 1].steps.share_sync();
        } else {
            self.end_batch();
        }
        self.sync_owed = waits_with_sync;
        let opens = self.units[index].purpose == Purpose::OpenRow;
        let needed = opens && self.previous_row_is_needed();
        let Unit { start, end, .. } = self.units[self.source(index)];
        let unit = &mut self.units[index];
        unit.sent = true;
        unit.repeats_left = unit.repeats;
        let needs_internals = matches!(unit.purpose, Purpose::User | Purpose::Commit);
        if needs_internals && !self.internals_ready && self.status != Status::Failed {
            // A replay brings no unit of its own for them behind the statement that dropped them.
            self.internals_ready = true;
            internals::write_internals(self.ledger_access, &mut self.output);
        }
        let at = |position: usize| position - self.journal_base;
        let bytes = &self.journal[at(start)..at(end)];
        let out = &mut self.output;
        let mut steps = unit.all_steps;
        match unit.purpose {
            Purpose::Internals => {
                internals::write_internals(self.ledger_access, out);
                out.extend_from_slice(SYNC);
            }
            Purpose::OpenRow => {
                let (open, retire) = self.seals.open(needed);
                internals::write_open(open, retire, out);
                out.extend_from_slice(SYNC);
            }
            Purpose::Simple => {
                let begin = match &self.transaction {
                    Transaction::Open(open) if steps & Steps::BEGIN != 0 => Some(&open.begin),
                    _ => None,
                };
                internals::write_simple(
                    begin.map(|begin| begin.sql.as_str()),
                    bytes,
                    unit.seal,
                    out,
                );
            }
            Purpose::User => {
                let (begin, user) = bytes.split_at(unit.begin_len);
                out.extend_from_slice(begin);
                if let Some(statement) = unit.statement.as_ref().filter(|s| s.is_named()) {
                    let size = self.options.statement_cache_size;
                    let (added, description) = self.prepared.ready(statement, size, out);
                    steps |= added;
                    // A statement that is described anew may return something else than before.
                    let described = steps & Steps::DESCRIBE != 0;
                    unit.description = if described { None } else { description };
                } else if steps & Steps::USER == 0 {
                    // Prepared without a name: described only.
                    out.extend_from_slice(user);
                    let _ = frontend::describe(b'S', "", out);
                }
                if steps & Steps::USER != 0 {
                    out.extend_from_slice(user);
                }
                match unit.copy {
                    CopyIn::Open => frontend::flush(out),
                    // It has failed, and must fail again before its end is reached.
                    CopyIn::Failed => {
                        let _ = frontend::copy_fail("it has failed before", out);
                        out.extend_from_slice(SYNC);
                    }
                    _ => {
                        let waits = self.options.ends_behind_reply(unit.seal);
                        unit.end_owed = waits;
                        // The reply leaves the server before the commit is written, so that
                        // it is at hand if the server dies between the two.
                        if waits || (unit.seal.is_some() && unit.copy == CopyIn::No) {
                            frontend::flush(out);
                        }
                        if let Some(seal) = unit.seal.filter(|_| !waits) {
                            internals::write_seal(seal, out);
                        }
                        if !waits && !waits_with_sync {
                            out.extend_from_slice(SYNC);
                        }
                    }
                }
            }
            Purpose::Commit => {
                if let Some(seal) = unit.seal.filter(|_| steps & Steps::SEAL != 0) {
                    internals::write_seal(seal, out);
                }
                internals::write_call(internals::COMMIT, out);
                out.extend_from_slice(SYNC);
            }
            Purpose::Rollback => {
                if self.internals_ready {
                    internals::write_call(internals::ROLLBACK, out);
                    out.extend_from_slice(SYNC);
                } else {
                    // Nothing can be prepared in a failed transaction.
                    let _ = frontend::query("ROLLBACK", out);
                }
            }
        }
        unit.steps = Steps::new(steps);
        let forgets = unit.statement.as_ref().is_some_and(|s| s.class.kind.forgets_statements());
        if forgets && unit.purpose.is_users() {
            // Known before the reply: what is sent behind it must be prepared anew.
            self.prepared.doubt();
            self.internals_ready = false;
        }
    }

    /// The reply of the unit in front is here, and is what the application has seen before: it may commit,
    /// and what waits behind it may go.
    pub(super) fn send_end(&mut self) {
        let Some(unit) = self.units.get_mut(self.front).filter(|unit| unit.end_owed) else {
            return;
        };
        if !unit.has_caught_up() {
            self.diverge();
            return;
        }
        unit.end_owed = false;
        if let Some(seal) = unit.seal {
            internals::write_seal(seal, &mut self.output);
        }
        frontend::sync(&mut self.output);
        self.send_ready();
    }

    /// What the last unit that was sent does must not commit, if it has not been told to.
    pub(super) fn withhold_end(&mut self) {
        let mut units = self.units.range_mut(self.front..);
        let Some(unit) = units.find(|unit| unit.end_owed) else { return };
        unit.end_owed = false;
        if !mutation::on(Mutation::EndNotWithheld) {
            internals::write_failure(&mut self.output);
        }
        frontend::sync(&mut self.output);
    }

    /// The transaction, or an autocommit unit by itself, cannot be replayed from here on.
    pub(super) fn lose_protection(&mut self, unit: &mut Unit, reason: &'static str) {
        if unit.autocommit {
            unit.unprotected.get_or_insert(reason);
        } else if let Transaction::Open(open) = &mut self.transaction {
            if open.unprotected.is_none() {
                open.unprotected = Some(reason);
                self.emit(Event::ProtectionLost(reason.to_owned()));
            }
        }
    }

    pub(super) fn enforce_journal_limit(&mut self) {
        if self.journal.len() <= self.options.journal_bytes_max {
            return;
        }
        let reason = TOO_LARGE;
        match &mut self.transaction {
            Transaction::Open(open) if open.unprotected.is_none() => {
                open.unprotected = Some(reason);
                self.emit(Event::ProtectionLost(reason.to_owned()));
            }
            Transaction::None => {
                if let Some(unit) = self.units.back_mut().filter(|unit| unit.copy != CopyIn::No) {
                    if unit.unprotected.is_none() {
                        unit.unprotected = Some(reason);
                        self.emit(Event::ProtectionLost(reason.to_owned()));
                    }
                }
            }
            _ => {}
        }
        if let Some(unit) = self.units.back_mut().filter(|unit| unit.copy == CopyIn::Open) {
            // Its data is not kept any longer; only what has been sent counts.
            if unit.sent {
                unit.unprotected = Some(reason);
                unit.kept = false;
                unit.begin_len = 0;
                unit.end = unit.start;
                self.journal.truncate(unit.start - self.journal_base);
            }
        }
        self.compact();
    }
}
