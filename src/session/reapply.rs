//! `on_commits_lost=reapply`: committed transactions are kept until the backup has them, and are run
//! again where a promotion has lost them.
//!
//! A lost transaction is run like any replay, under the number that it was committed with: all that
//! the application has seen of it must come back. The first that does not, or under which a link is lost
//! each time, ends the reapplying, for what follows may build on it; what is not reapplied is reported lost.

use std::collections::VecDeque;

use bytes::BytesMut;
use uuid::Uuid;

use super::classify::Effect;
use super::filing::Filed;
use super::loss::LOSSES_MAX;
use super::seals::{LedgerRow, Lost};
use super::transaction::{BeginOptions, Open, Transaction};
use super::unit::{Purpose, Seal, Steps, Unit, Verdict};
use super::{Event, Session, internals};
use crate::error::Error;

/// A committed transaction that the backup may not have yet.
#[derive(Debug)]
struct Kept {
    seal: Seal,
    /// The number that it was told to be committed under. Where its row has not survived, it is run
    /// again under another.
    told: Seal,
    begin: BeginOptions,
    units: VecDeque<Unit>,
    journal: BytesMut,
    journal_base: usize,
    /// So many links were lost while it was run again.
    losses: u32,
    /// It was being run again when the link was lost behind its COMMIT, which may have succeeded.
    attempted: bool,
}

/// Acknowledged commits of one row of the ledger that are not kept.
#[derive(Debug, Clone, Copy)]
struct NotKept {
    row: Uuid,
    from: u64,
    to: u64,
}

/// What was in flight, put aside while lost transactions are run again.
#[derive(Debug)]
struct Aside {
    transaction: Transaction,
    units: VecDeque<Unit>,
    front: usize,
    journal: BytesMut,
    journal_base: usize,
}

/// A lost transaction that is being run again.
#[derive(Debug)]
struct Running {
    seal: Seal,
    told: Seal,
    begin: BeginOptions,
    losses: u32,
    aside: Aside,
}

#[derive(Debug, Default)]
pub(super) struct Reapply {
    /// In the order of their commits.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// The backup had them, there was no room for them, or they cannot be run again. Should one of these be
    /// lost after all, it is told. Between two of the same row there is one that is kept.
    not_kept: Vec<NotKept>,
    /// Lost, and to be run again.
    lost: VecDeque<Kept>,
    running: Option<Running>,
    /// The ledger of the present link has been asked what of the lost stands.
    asked: bool,
    /// What was run again on this link has made settings that may have been changed since.
    disturbs: bool,
}

impl Reapply {
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn is_due(&self) -> bool {
        self.running.is_none() && self.asked && !self.lost.is_empty()
    }

    /// Whether the present link's ledger has yet to say what of it stands.
    pub fn must_ask(&self) -> bool {
        !self.asked && !self.lost.is_empty()
    }

    /// What is to be run again and may have committed already.
    pub fn attempted(&self) -> Option<Seal> {
        self.lost.front().filter(|kept| kept.attempted).map(|kept| kept.seal)
    }

    /// The rows of the ledger that say whether what is to be run again stands.
    pub fn rows(&self) -> impl Iterator<Item = Uuid> {
        self.lost.iter().flat_map(|kept| [kept.seal.row, kept.told.row])
    }

    /// Whether a commit under `seal` comes behind one with a higher number.
    pub fn overtakes(&self, seal: Seal) -> bool {
        let later = |kept: &Kept| kept.seal.row == seal.row && kept.seal.number > seal.number;
        self.lost.iter().any(later)
    }
}

impl Kept {
    fn new(
        seal: Seal,
        begin: BeginOptions,
        units: VecDeque<Unit>,
        journal: BytesMut,
        journal_base: usize,
    ) -> Self {
        Self { seal, told: seal, begin, units, journal, journal_base, losses: 0, attempted: false }
    }
}

impl Session {
    /// The transaction in `units` has committed under `seal`; its COMMIT is the last of them.
    pub(super) fn keep_transaction(&mut self, seal: Seal) {
        if !self.options.reapply {
            return;
        }
        let Transaction::Open(open) = &self.transaction else { return };
        if open.unprotected.is_some() {
            self.do_not_keep(seal);
            return;
        }
        let begin = open.begin.clone();
        let mut units = std::mem::take(&mut self.units);
        units.retain(|unit| matches!(unit.purpose, Purpose::User | Purpose::Simple));
        self.front = 0;
        let journal = std::mem::take(&mut self.journal);
        let journal_base = std::mem::take(&mut self.journal_base);
        self.keep(Kept::new(seal, begin, units, journal, journal_base));
    }

    /// The autocommit unit in front has committed under `seal`.
    pub(super) fn keep_autocommit(&mut self, seal: Seal) {
        if !self.options.reapply {
            return;
        }
        let front = &self.units[self.front];
        if front.unprotected.is_some() {
            self.do_not_keep(seal);
            return;
        }
        // It is run again inside a transaction, so that it can be compared before it commits.
        let simple = front.purpose == Purpose::Simple;
        let mut journal = BytesMut::new();
        if !simple {
            internals::write_call(internals::BEGIN, &mut journal);
        }
        let begin_len = journal.len();
        let at = |position: usize| position - self.journal_base;
        journal.extend_from_slice(&self.journal[at(front.start)..at(front.end)]);
        let mut unit = Unit::new(front.purpose, (front.all_steps & !Steps::SEAL) | Steps::BEGIN, 0);
        unit.statement.clone_from(&front.statement);
        unit.begin_len = begin_len;
        unit.end = journal.len();
        unit.answered = true;
        unit.copy = front.copy;
        unit.seen = front.seen;
        let units = VecDeque::from([unit]);
        let begin = BeginOptions::default();
        self.keep(Kept::new(seal, begin, units, journal, 0));
    }

    fn keep(&mut self, kept: Kept) {
        self.reapply.kept_bytes += kept.journal.len();
        self.reapply.kept.push_back(kept);
        while self.reapply.kept_bytes > self.options.journal_bytes_max {
            let Some(oldest) = self.reapply.kept.pop_front() else { break };
            self.reapply.kept_bytes -= oldest.journal.len();
            self.do_not_keep(oldest.seal);
        }
    }

    pub(super) fn do_not_keep(&mut self, seal: Seal) {
        if !self.options.reapply {
            return;
        }
        let Reapply { kept, not_kept, .. } = &mut self.reapply;
        let kept_between = |low: u64, high: u64| {
            let between = |number: u64| low < number && number < high;
            kept.iter().any(|it| it.seal.row == seal.row && between(it.seal.number))
        };
        let (mut from, mut to) = (seal.number, seal.number);
        not_kept.retain(|known| {
            let apart = known.row != seal.row
                || kept_between(known.to, from)
                || kept_between(to, known.from);
            if !apart {
                (from, to) = (from.min(known.from), to.max(known.to));
            }
            // Nothing is told of rows that are not remembered.
            apart && self.seals.rows().any(|row| row == known.row)
        });
        not_kept.push(NotKept { row: seal.row, from, to });
    }

    /// The backup has everything of this row of the ledger up to `number`. Whoever takes over may be another
    /// one, which has less.
    pub fn handle_backup_has(&mut self, row: Uuid, number: u64) {
        let has = |kept: &Kept| kept.seal.row == row && kept.seal.number <= number;
        let Some(last) = self.reapply.kept.iter().rposition(has) else { return };
        let rest = self.reapply.kept.split_off(last + 1);
        for kept in std::mem::replace(&mut self.reapply.kept, rest) {
            self.reapply.kept_bytes -= kept.journal.len();
            self.do_not_keep(kept.seal);
        }
    }

    /// Whether committed transactions are being kept until the backup has them.
    pub fn keeps_commits(&self) -> bool {
        !self.reapply.kept.is_empty()
    }

    /// A server's ledger has been asked, and shows these acknowledged commits to be gone: what is kept of
    /// them is to be run again, and the rest is reported.
    pub(super) fn plan_reapplying(&mut self, lost: &[Lost], rows: &[LedgerRow]) {
        if !self.options.reapply {
            for lost in lost {
                self.emit(Event::CommitsLost { session: lost.row, from: lost.from, to: lost.to });
            }
            return;
        }
        self.skip_what_stands(rows);
        self.tell_what_was_not_kept(lost);
        let is_lost = |kept: &Kept| {
            let number = kept.seal.number;
            lost.iter().any(|l| l.row == kept.seal.row && (l.from..=l.to).contains(&number))
        };
        // What this server has, the next one may be without.
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.reapply.kept).into_iter().partition(is_lost);
        self.reapply.kept_bytes = kept.iter().map(|kept| kept.journal.len()).sum();
        self.reapply.kept = kept;
        // Behind these there were committed those that wait to be run again already.
        let waiting = std::mem::replace(&mut self.reapply.lost, gone);
        self.reapply.lost.extend(waiting);
        self.renumber_lost(rows);
        self.reapply.asked = true;
    }

    /// What an interrupted reapplying has committed after all need not be run again, and neither need what
    /// is there as it was first committed.
    fn skip_what_stands(&mut self, rows: &[LedgerRow]) {
        for mut kept in std::mem::take(&mut self.reapply.lost) {
            let stands = |seal: Seal| {
                let row = rows.iter().find(|row| row.id == seal.row);
                // What is as far as that behind a fence was not tried, or is known not to have committed there.
                let behind_fence = seal != kept.seal || !kept.attempted;
                row.is_some_and(|row| {
                    row.says(seal.number)
                        .unwrap_or(!(behind_fence && self.seals.is_fenced(seal.row)))
                })
            };
            let Some(seal) = [kept.seal, kept.told].into_iter().find(|seal| stands(*seal)) else {
                self.reapply.lost.push_back(kept);
                continue;
            };
            self.seals.acknowledge(seal);
            if std::mem::take(&mut kept.attempted) && seal == kept.seal {
                self.emit(Event::CommitReapplied { session: seal.row, number: seal.number });
            }
            (kept.seal, kept.told) = (seal, seal);
            kept.losses = 0;
            self.keep(kept);
        }
    }

    fn tell_what_was_not_kept(&mut self, lost: &[Lost]) {
        for not_kept in std::mem::take(&mut self.reapply.not_kept) {
            let NotKept { row, from, to } = not_kept;
            let Some(lost) = lost.iter().find(|lost| lost.row == row && lost.from <= to) else {
                self.reapply.not_kept.push(not_kept);
                continue;
            };
            self.emit(Event::CommitsLost { session: row, from: from.max(lost.from), to });
            if from < lost.from {
                // Those that are told are not told again.
                self.reapply.not_kept.push(NotKept { row, from, to: lost.from - 1 });
            }
        }
    }

    /// What cannot commit under its number any more takes another: a fence has passed it, or its row has
    /// not reached this server or is not looked after any more. What is behind it must come later.
    fn renumber_lost(&mut self, rows: &[LedgerRow]) {
        let mut anew = false;
        for kept in &mut self.reapply.lost {
            let seal = kept.seal;
            let row = rows.iter().find(|row| row.id == seal.row);
            let passed = row.map_or(seal.row != self.seals.row(), |row| row.seq >= seal.number);
            anew |= passed || !self.seals.is_in_use(seal.row);
            if anew {
                kept.seal = self.seals.allot(seal.guarded);
                kept.attempted = false;
            }
        }
    }

    /// Runs the next lost transaction, or goes on with what was in flight.
    pub(super) fn reapply_next(&mut self) {
        let aside = match self.reapply.running.take() {
            Some(running) => running.aside,
            None => self.put_aside(),
        };
        let Some(next) = self.reapply.lost.pop_front() else {
            self.go_on_with(aside);
            return;
        };
        if next.losses >= LOSSES_MAX {
            self.tell_lost(next.told);
            self.go_on_with(aside);
            return;
        }
        let changes =
            |unit: &Unit| unit.statement.as_ref().is_some_and(|s| s.class.sets_anything());
        self.reapply.disturbs |= next.units.iter().any(changes);
        self.units = next.units;
        self.journal = next.journal;
        self.journal_base = next.journal_base;
        self.front = 0;
        let mut open = Open::new(next.begin.clone());
        open.effect = Effect::Writes;
        self.transaction = Transaction::Open(open);
        let end = self.journal_base + self.journal.len();
        let mut commit = Unit::new(Purpose::Commit, Steps::SEAL | Steps::COMMIT, end);
        commit.seal = Some(next.seal);
        commit.effect = Effect::Writes;
        self.units.push_back(commit);
        let Kept { seal, told, begin, losses, .. } = next;
        self.reapply.running = Some(Running { seal, told, begin, losses, aside });
        self.start_replay();
    }

    fn put_aside(&mut self) -> Aside {
        // Nothing of it is on its way any more, and what becomes of the link is not its doing.
        self.units.range_mut(self.front..).for_each(|unit| unit.sent = false);
        Aside {
            transaction: std::mem::replace(&mut self.transaction, Transaction::None),
            units: std::mem::take(&mut self.units),
            front: self.front,
            journal: std::mem::take(&mut self.journal),
            journal_base: self.journal_base,
        }
    }

    /// The journal on disk does not keep an entry of what was put aside.
    pub(super) fn handle_aside_not_kept(&mut self, entry: u64, refused: Option<Error>) {
        let Some(Running { aside, .. }) = &mut self.reapply.running else { return };
        let filed = Filed::Entry(entry);
        if let Transaction::Open(open) = &mut aside.transaction {
            if open.filed == filed {
                open.filed = Filed::Lost;
                // Told before anything of it is run again.
                self.pending_error = refused.or(self.pending_error.take());
                return;
            }
        }
        let mut units = aside.units.range_mut(aside.front..);
        let Some(unit) = units.find(|unit| unit.filed == filed) else { return };
        unit.filed = Filed::Lost;
        if unit.verdict.is_none() {
            unit.verdict = refused.map(Verdict::Failed);
        }
    }

    /// The COMMIT of a transaction that was run again has succeeded.
    pub(super) fn reapplied(&mut self) {
        let Some(Running { seal, begin, .. }) = &self.reapply.running else { return };
        let (seal, begin) = (*seal, begin.clone());
        self.acknowledge(seal);
        self.emit(Event::CommitReapplied { session: seal.row, number: seal.number });
        self.units.pop_back();
        let units = std::mem::take(&mut self.units);
        let journal = std::mem::take(&mut self.journal);
        let journal_base = std::mem::take(&mut self.journal_base);
        if std::mem::take(&mut self.sealed) {
            self.keep(Kept::new(seal, begin, units, journal, journal_base));
        }
        self.reapply_next();
    }

    /// It could not be run again as it was: it is lost, and with it whatever may build on it.
    pub(super) fn abandon_reapplying(&mut self) {
        let Some(Running { told, aside, .. }) = self.reapply.running.take() else { return };
        self.tell_lost(told);
        self.go_on_with(aside);
    }

    /// The first of those that are lost is not run again, and none behind it.
    fn tell_lost(&mut self, first: Seal) {
        let rest = std::mem::take(&mut self.reapply.lost);
        for seal in std::iter::once(first).chain(rest.into_iter().map(|kept| kept.told)) {
            let (from, to) = (seal.number, seal.number);
            self.emit(Event::CommitsLost { session: seal.row, from, to });
        }
    }

    /// Goes on with what was in flight. The settings that are in force then must be those of now, and
    /// not those that an old transaction has made once more: a new link is given them.
    fn go_on_with(&mut self, aside: Aside) {
        self.restore_aside(aside);
        if std::mem::take(&mut self.reapply.disturbs) {
            self.give_up_link = true;
            return;
        }
        self.resume();
    }

    /// The link is lost in the middle: the transaction in hand is to be run again.
    pub(super) fn interrupt_reapplying(&mut self) {
        self.reapply.disturbs = false;
        self.reapply.asked = false;
        let Some(running) = self.reapply.running.take() else { return };
        let Running { seal, told, begin, losses, aside } = running;
        let attempted = self.units.pop_back().is_some_and(|commit| commit.sent);
        let units = std::mem::take(&mut self.units);
        let journal = std::mem::take(&mut self.journal);
        let kept = Kept::new(seal, begin, units, journal, self.journal_base);
        self.reapply.lost.push_front(Kept { told, attempted, losses: losses + 1, ..kept });
        self.restore_aside(aside);
    }

    fn restore_aside(&mut self, aside: Aside) {
        self.transaction = aside.transaction;
        self.units = aside.units;
        self.front = aside.front;
        self.journal = aside.journal;
        self.journal_base = aside.journal_base;
    }
}
