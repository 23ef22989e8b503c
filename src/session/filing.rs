//! What a journal on disk is handed of what is in flight, and what must be in it before a commit leaves.
//!
//! Only what may write is handed over: a transaction from its first statement that may, with all that
//! came before it in the transaction; an autocommit statement that may.
//!
//! Invariants: no byte that may commit is put on the wire before the journal has the *promise* that it
//! will be (the number that its seal carries, or that it has none), unless the journal says nothing at
//! all of the transaction. A row of the ledger that the journal may still name is not retired.

use std::collections::VecDeque;

use uuid::Uuid;

use super::classify::Effect;
use super::classify::control::TWO_PHASE;
use super::replay::Finish;
use super::send::TOO_LARGE;
use super::statement::Statement;
use super::transaction::Transaction;
use super::unit::{CopyIn, Promise, Purpose, Steps, Unit, Verdict};
use super::{Event, Phase, Session};
use crate::error::Error;
use crate::mutation::{self, Mutation};

/// What is handed over; it belongs to the *entry* whose number is given beside it.
#[derive(Debug)]
pub enum Filing<'a> {
    /// A transaction, or an autocommit statement.
    Began {
        autocommit: bool,
        read_only: bool,
        /// The statement that begins it; empty for a plain BEGIN.
        begin: &'a str,
        /// The session's present row in the ledger, and the number of its last commit there.
        ledger_row: Uuid,
        number: u64,
    },
    Statement {
        statement: &'a Statement,
        /// A simple query: the text is all there is.
        simple: bool,
        /// The messages, without those that depend on the link.
        request: &'a [u8],
    },
    /// More of the last statement's request.
    Data(&'a [u8]),
    /// A commit that this seals is about to be sent.
    Commit { ledger_row: Uuid, number: u64, guarded: bool },
    /// A commit that nobody will be able to tell of is about to be sent.
    Unsealed,
    /// It is larger than what may be kept: the journal lets go of it.
    TooLarge,
    /// Nothing of it is needed any more.
    Ended,
}

/// Whether the journal on disk has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Filed {
    /// It was not handed over so far.
    #[default]
    No,
    Entry(u64),
    /// It is not kept, and goes on without.
    Lost,
}

impl Filed {
    fn entry(self) -> Option<u64> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::No | Self::Lost => None,
        }
    }
}

/// An entry that has not ended, and the rows of the ledger that it names.
#[derive(Debug)]
struct Alive {
    entry: u64,
    rows: Vec<Uuid>,
}

#[derive(Debug, Default)]
pub(super) struct Files {
    enabled: bool,
    next: u64,
    /// So many units at the end of all have not been looked at.
    unfiled: usize,
    /// A unit is held back until its promise is kept.
    held: bool,
    alive: VecDeque<Alive>,
    /// Named by entries whose end was handed over and may not be in the journal yet.
    ending: Vec<Uuid>,
    /// Why transactions are not kept at present.
    problem: Option<String>,
}

impl Files {
    pub fn new(enabled: bool) -> Self {
        Self { enabled, ..Self::default() }
    }

    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    pub fn note_unit(&mut self) {
        self.unfiled += 1;
    }

    /// Whether the journal may name a row of the ledger.
    pub fn names(&self, row: Uuid) -> bool {
        self.ending.contains(&row) || self.alive.iter().any(|alive| alive.rows.contains(&row))
    }

    fn begin(&mut self) -> u64 {
        self.next += 1;
        self.alive.push_back(Alive { entry: self.next, rows: Vec::new() });
        self.next
    }

    fn promise(&mut self, entry: u64, row: Uuid) {
        let alive = self.alive.iter_mut().rev().find(|alive| alive.entry == entry);
        if let Some(alive) = alive.filter(|alive| !alive.rows.contains(&row)) {
            alive.rows.push(row);
        }
    }
}

impl Session {
    /// Whether there may be something to hand over.
    pub fn has_filings(&self) -> bool {
        self.files.enabled && (self.files.unfiled > 0 || !self.files.alive.is_empty())
    }

    /// Whether commits are held back until the journal has what [`file`](Self::file) hands over.
    pub fn awaits_journal(&self) -> bool {
        self.files.held && matches!(self.phase, Phase::Live | Phase::Replaying)
    }

    /// Hands over what is due, in order.
    pub fn file(&mut self, take: &mut dyn FnMut(u64, Filing<'_>)) {
        if !self.has_filings() || self.reapply.is_running() {
            return;
        }
        self.file_units(take);
        self.file_data(take);
        if self.files.held {
            self.file_promises(take);
        }
        self.file_ends(take);
    }

    fn file_units(&mut self, take: &mut dyn FnMut(u64, Filing<'_>)) {
        let Self { units, transaction, files, seals, .. } = self;
        let mut of_transaction = None;
        if let Transaction::Open(open) = transaction {
            if open.filed == Filed::No {
                if open.effect <= Effect::Reads && !files.held {
                    return;
                }
                let entry = files.begin();
                open.filed = Filed::Entry(entry);
                let (begin, read_only) = (&*open.begin.sql, open.begin.read_only);
                let (ledger_row, number) = seals.last();
                take(
                    entry,
                    Filing::Began { autocommit: false, read_only, begin, ledger_row, number },
                );
            }
            of_transaction = open.filed.entry();
        }
        let first = units.len() - files.unfiled.min(units.len());
        files.unfiled = 0;
        for unit in units.range_mut(first..) {
            let executes = matches!(unit.purpose, Purpose::User | Purpose::Simple)
                && unit.all_steps & Steps::USER != 0;
            if std::mem::replace(&mut unit.handed_over, true) || !executes {
                continue;
            }
            if unit.autocommit && unit.filed == Filed::No && unit.promise().is_some() {
                let entry = files.begin();
                unit.filed = Filed::Entry(entry);
                let (ledger_row, number) = seals.last();
                take(
                    entry,
                    Filing::Began {
                        autocommit: true,
                        read_only: false,
                        begin: "",
                        ledger_row,
                        number,
                    },
                );
            }
            let entry = if unit.autocommit { unit.filed.entry() } else { of_transaction };
            let (Some(entry), Some(statement)) = (entry, &unit.statement) else { continue };
            let at = |position: usize| position - self.journal_base;
            let simple = unit.purpose == Purpose::Simple;
            let request = &self.journal[at(unit.start) + unit.begin_len..at(unit.end)];
            unit.filed_len = request.len();
            take(
                entry,
                Filing::Statement {
                    statement,
                    simple,
                    request: if simple { &[] } else { request },
                },
            );
        }
    }

    /// Data of a COPY that has come since, and what has become too large.
    fn file_data(&mut self, take: &mut dyn FnMut(u64, Filing<'_>)) {
        let (mut entry, mut reason) = (None, None);
        if let Transaction::Open(open) = &self.transaction {
            (entry, reason) = (open.filed.entry(), open.unprotected);
        }
        let unit = self.units.back_mut().filter(|unit| unit.copy != CopyIn::No);
        if let Some(unit) = unit {
            if unit.autocommit {
                (entry, reason) = (unit.filed.entry(), unit.unprotected);
            }
            let at = |position: usize| position - self.journal_base;
            let from = at(unit.start) + unit.begin_len + unit.filed_len;
            if let (Some(entry), true) = (entry, unit.handed_over && from < at(unit.end)) {
                unit.filed_len += at(unit.end) - from;
                take(entry, Filing::Data(&self.journal[from..at(unit.end)]));
            }
        }
        if let (Some(entry), Some(TOO_LARGE)) = (entry, reason) {
            take(entry, Filing::TooLarge);
        }
    }

    fn file_promises(&mut self, take: &mut dyn FnMut(u64, Filing<'_>)) {
        let of_transaction = match &self.transaction {
            Transaction::Open(open) => open.filed.entry(),
            _ => None,
        };
        for unit in self.units.range(self.front..).filter(|unit| unit.held) {
            let entry = if unit.autocommit { unit.filed.entry() } else { of_transaction };
            let new = unit.promise().filter(|promise| unit.promised != Some(*promise));
            let (Some(entry), Some(promise)) = (entry, new) else { continue };
            match promise {
                Promise::Sealed(seal) => {
                    self.files.promise(entry, seal.row);
                    let (ledger_row, number, guarded) = (seal.row, seal.number, seal.guarded);
                    take(entry, Filing::Commit { ledger_row, number, guarded });
                }
                Promise::Unsealed => take(entry, Filing::Unsealed),
            }
        }
    }

    /// Entries end in the order in which they began.
    fn file_ends(&mut self, take: &mut dyn FnMut(u64, Filing<'_>)) {
        if self.files.alive.is_empty() {
            return;
        }
        let needed = match &self.transaction {
            Transaction::Open(open) => open.filed.entry(),
            _ => self.units.range(self.front..).find_map(|unit| unit.filed.entry()),
        };
        let early = mutation::on(Mutation::EntryEndedEarly);
        let ended = |alive: &Alive| {
            needed.is_none_or(|first| alive.entry < first) || (early && !alive.rows.is_empty())
        };
        while self.files.alive.front().is_some_and(ended) {
            let Some(alive) = self.files.alive.pop_front() else { break };
            take(alive.entry, Filing::Ended);
            for row in alive.rows {
                if !self.files.ending.contains(&row) {
                    self.files.ending.push(row);
                }
            }
        }
    }

    /// The session ends. What is not ended then may commit yet: the journal keeps it.
    pub fn file_end(&mut self, take: &mut dyn FnMut(u64, Filing<'_>)) {
        let out = |unit: &&Unit| unit.promised.is_some() && (unit.sent || unit.losses > 0);
        let tx_entry = match &self.transaction {
            Transaction::Open(open) => open.filed.entry(),
            _ => None,
        };
        let out: Vec<u64> = self
            .units
            .range(self.front.min(self.units.len())..)
            .filter(out)
            .filter_map(|unit| if unit.autocommit { unit.filed.entry() } else { tx_entry })
            .collect();
        for alive in self.files.alive.drain(..).filter(|alive| !out.contains(&alive.entry)) {
            take(alive.entry, Filing::Ended);
        }
    }

    /// Whether a unit that is about to be sent has to wait for the journal.
    pub(super) fn must_be_kept(&self, index: usize) -> bool {
        if !self.files.enabled || self.reapply.is_running() {
            return false;
        }
        let unit = &self.units[index];
        let filed = match &self.transaction {
            Transaction::Open(open) if !unit.autocommit => open.filed,
            _ => unit.filed,
        };
        let promise = unit.promise();
        let awaited = !mutation::on(Mutation::PromiseNotAwaited);
        promise.is_some() && promise != unit.promised && filed != Filed::Lost && awaited
    }

    /// Holds a unit back, and with it all that follows, until the journal has its promise.
    pub(super) fn hold(&mut self, index: usize) {
        self.files.held = true;
        self.units.range_mut(index..).for_each(|unit| unit.held = true);
    }

    /// What was held back is going to be sent anew, or not at all.
    pub(super) fn forget_held(&mut self) {
        if std::mem::take(&mut self.files.held) {
            self.units.iter_mut().for_each(|unit| unit.held = false);
        }
    }

    /// So many bytes wait for the journal.
    pub(super) fn held_len(&self) -> usize {
        if !self.files.held {
            return 0;
        }
        let first = self.units.range(self.front..).find(|unit| unit.held);
        first.map_or(0, |unit| self.journal_base + self.journal.len() - unit.start)
    }

    /// The journal does not keep an entry, and has been made to say nothing of it: it goes on without,
    /// for this reason. With an error nothing of it must be committed: that ends it.
    pub fn handle_not_kept(&mut self, entry: u64, reason: String, refused: Option<Error>) {
        self.files.alive.retain(|alive| alive.entry != entry);
        if self.files.problem.as_ref() != Some(&reason) {
            self.emit(Event::ProtectionLost(reason.clone()));
            self.files.problem = Some(reason);
        }
        if self.reapply.is_running() {
            self.handle_aside_not_kept(entry, refused);
            return;
        }
        if let Transaction::Open(open) = &mut self.transaction {
            if open.filed == Filed::Entry(entry) {
                open.filed = Filed::Lost;
                if let Some(error) = refused {
                    self.refuse(error);
                }
                return;
            }
        }
        let wants_link = self.wants_link();
        let mut units = self.units.range_mut(self.front..);
        let Some(at) = units.position(|unit| unit.filed == Filed::Entry(entry)) else { return };
        let unit = &mut self.units[self.front + at];
        unit.filed = Filed::Lost;
        // What waits for a link may have been tried on an earlier one.
        let tried = wants_link && unit.losses > 0;
        if !unit.sent && !tried && unit.verdict.is_none() {
            self.disturbed |= refused.is_some();
            unit.verdict = refused.map(Verdict::Failed);
        } else if let (Some(error), CopyIn::Open, 0) = (&refused, unit.copy, at) {
            self.refuse(error.clone());
        } else {
            // It is on its way, or has been: only if it is not committed can it still be refused.
            unit.refused = refused;
        }
    }

    /// Ends the open transaction, or what is outstanding, on the server and for the application.
    pub(super) fn refuse(&mut self, error: Error) {
        if !matches!(self.phase, Phase::Live | Phase::Replaying) {
            // Whatever becomes of the link, it is told before anything is run again.
            self.pending_error = Some(error);
            return;
        }
        self.end_batch();
        self.begin_discarding(Finish::Refuse(error));
    }

    /// Everything that was handed over is in the journal, but for entries that
    /// [`handle_not_kept`](Self::handle_not_kept) was told of: what was held back goes out.
    pub fn handle_journal(&mut self, all_kept: bool) {
        if all_kept {
            self.files.ending.clear();
            self.files.problem = None;
        }
        if !std::mem::take(&mut self.files.held) {
            return;
        }
        for unit in self.units.range_mut(self.front..).filter(|unit| unit.held) {
            unit.held = false;
            unit.promised = unit.promise();
        }
        if matches!(self.phase, Phase::Live) {
            self.take_verdicts();
        }
        self.send_ready();
    }
}

impl Unit {
    /// What the journal has to know before the unit is sent, if sending it may commit something.
    pub(super) fn promise(&self) -> Option<Promise> {
        let sealed = self.seal.map(Promise::Sealed);
        let writes = self.effect > Effect::Reads;
        match self.purpose {
            Purpose::Commit => writes.then_some(sealed.unwrap_or(Promise::Unsealed)),
            Purpose::User | Purpose::Simple if self.all_steps & Steps::USER == 0 => None,
            Purpose::User | Purpose::Simple if self.autocommit => {
                let unsealed = writes || self.unprotected.is_some();
                sealed.or(unsealed.then_some(Promise::Unsealed))
            }
            Purpose::User | Purpose::Simple => {
                let class = self.statement.as_ref().map(|statement| &statement.class);
                let ends = class.is_some_and(|class| class.unprotected == Some(TWO_PHASE));
                (ends || self.may_commit()).then_some(Promise::Unsealed)
            }
            Purpose::Rollback | Purpose::Internals | Purpose::OpenRow => None,
        }
    }
}
