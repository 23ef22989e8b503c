//! The numbers of a session's commits: which row of the ledger they stand in, which is next, and
//! which were acknowledged.
//!
//! Invariants: a number is used for one transaction only, however often that is tried; a row is
//! retired only by the opening of the next but one, when no outcome that it decides is unresolved, and
//! never if a fence stands in it. So where a later row stands, one that is missing was retired, and all its
//! commits stand; where none does, what is missing of a row never came there.

use std::collections::VecDeque;
use std::iter;

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::unit::Seal;
use crate::mutation::{self, Mutation};

/// One row of the ledger, as a server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerRow {
    pub id: Uuid,
    /// The highest number that was committed.
    pub seq: u64,
    /// Bit *k* is set if number `seq - k` was committed.
    pub recent: u64,
}

impl LedgerRow {
    /// Whether `number` was committed. Numbers too old for the bitmap were resolved long ago.
    pub fn has(&self, number: u64) -> bool {
        self.says(number).unwrap_or(true)
    }

    /// The same; `None` where the number is too old for the bitmap.
    pub fn says(&self, number: u64) -> Option<bool> {
        match self.seq.checked_sub(number) {
            Some(age) if age < 64 => Some(self.recent >> age & 1 == 1),
            Some(_) => None,
            None => Some(false),
        }
    }
}

/// So many sealed units may be on their way at once: what the bitmap can tell apart.
pub(super) const WINDOW: usize = 63;

/// So many rows before the previous one are remembered.
const OLDER: usize = 64;

/// One row of the ledger, as this session knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub id: Uuid,
    /// The highest number whose commit was acknowledged.
    pub acknowledged: u64,
    next: u64,
    /// A fence stands in it against an attempt that may still be running: it is never deleted, for an
    /// UPDATE of a row that is gone stops nobody.
    fenced: bool,
    /// The opening of the next but one was to delete it. A backend that was left may open it once more, as a row
    /// without commits.
    retired: bool,
}

impl Row {
    fn new(id: Uuid) -> Self {
        Self { id, acknowledged: 0, next: 1, fenced: false, retired: false }
    }
}

/// Commits that were acknowledged and are not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub row: Uuid,
    pub from: u64,
    pub to: u64,
}

#[derive(Debug)]
pub(super) struct Seals {
    seed: u128,
    generated: u64,
    rotate_commits: u64,
    /// Whether the ledger may be used on the present servers.
    pub enabled: bool,
    /// It may not at present, and the next transaction that writes asks again.
    pub suspended: bool,
    current: Row,
    previous: Option<Row>,
    /// Those before the previous one, the oldest first: a promotion may have lost commits in them too.
    older: VecDeque<Row>,
    /// A row that has been asked for and is not yet confirmed.
    opening: Option<Uuid>,
    /// Whether the present row is known to stand in the ledger.
    confirmed: bool,
}

impl Seals {
    pub fn new(seed: u128, rotate_commits: u32) -> Self {
        let mut seals = Self {
            seed,
            generated: 0,
            rotate_commits: u64::from(rotate_commits.max(1)),
            enabled: false,
            suspended: false,
            current: Row::new(Uuid::nil()),
            previous: None,
            older: VecDeque::new(),
            opening: None,
            confirmed: false,
        };
        seals.current.id = seals.generate();
        seals
    }

    /// The session's name in the ledger at present.
    pub fn row(&self) -> Uuid {
        self.current.id
    }

    /// Hands out the next number.
    pub fn allot(&mut self, guarded: bool) -> Seal {
        let number = self.current.next;
        self.current.next += 1;
        Seal { row: self.current.id, number, guarded }
    }

    /// A number above all that were handed out, in each of the rows in which `used` stand.
    pub fn fences(&mut self, used: &[Seal]) -> Vec<Seal> {
        let mut fences: Vec<Seal> = Vec::new();
        for seal in used {
            if fences.iter().any(|fence| fence.row == seal.row) {
                continue;
            }
            let number = match self.known_mut().find(|row| row.id == seal.row) {
                Some(row) => {
                    row.fenced = true;
                    row.next += 1;
                    row.next - 1
                }
                // A row that was given up: nothing is numbered in it any more.
                None => {
                    let numbers = used.iter().filter(|other| other.row == seal.row);
                    numbers.map(|other| other.number).max().unwrap_or(seal.number) + 1
                }
            };
            fences.push(Seal { row: seal.row, number, guarded: false });
        }
        fences
    }

    /// The server has acknowledged the commit that carried `seal`.
    pub fn acknowledge(&mut self, seal: Seal) {
        if let Some(row) = self.known_mut().find(|row| row.id == seal.row) {
            row.acknowledged = row.acknowledged.max(seal.number);
        }
    }

    /// The rows that are remembered, the newest first.
    fn known(&self) -> impl Iterator<Item = &Row> {
        iter::once(&self.current).chain(&self.previous).chain(self.older.iter().rev())
    }

    fn known_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        iter::once(&mut self.current).chain(&mut self.previous).chain(self.older.iter_mut().rev())
    }

    /// Another row takes the seals from here on. One without a commit is remembered too: that it is there says
    /// that a server has all of those before it.
    fn succeed(&mut self, id: Uuid) {
        let current = std::mem::replace(&mut self.current, Row::new(id));
        let previous = self.previous.replace(current);
        if self.older.len() == OLDER {
            self.older.pop_front();
        }
        self.older.extend(previous.filter(|_| !mutation::on(Mutation::OlderRowsForgotten)));
    }

    /// Whether a fresh row is due, and none has been asked for yet.
    pub fn rotation_is_due(&self) -> bool {
        self.enabled
            && self.opening.is_none()
            && (!self.confirmed || self.current.next > self.rotate_commits)
    }

    /// Whether opening the next row deletes the one that `seal` stands in.
    pub fn would_retire(&self, seal: Seal) -> bool {
        self.confirmed
            && !mutation::on(Mutation::UndecidedRowRetired)
            && self.previous.is_some_and(|row| row.id == seal.row)
    }

    /// Whether a fence stands in a row of this session's.
    pub fn is_fenced(&self, id: Uuid) -> bool {
        self.known().any(|row| row.id == id && row.fenced)
    }

    /// The row that was in use before the present one.
    pub fn previous(&self) -> Option<Uuid> {
        self.previous.map(|row| row.id)
    }

    /// The present row, and the last number in it whose commit was acknowledged.
    pub fn last(&self) -> (Uuid, u64) {
        (self.current.id, self.current.acknowledged)
    }

    /// The row to open, and the one to delete by the same call; none if it is `needed`.
    pub fn open(&mut self, needed: bool) -> (Uuid, Uuid) {
        let id = if self.confirmed { self.generate() } else { self.current.id };
        self.opening = Some(id);
        let fenced = |row: &Row| row.fenced && !mutation::on(Mutation::FencedRowRetired);
        let retires = self.confirmed && !needed;
        match self.previous.as_mut().filter(|row| retires && !fenced(row)) {
            Some(row) => {
                row.retired = true;
                (id, row.id)
            }
            None => (id, Uuid::nil()),
        }
    }

    pub fn opened(&mut self) {
        let Some(id) = self.opening.take() else {
            return;
        };
        if id != self.current.id {
            self.succeed(id);
        }
        self.confirmed = true;
    }

    /// The row that was asked for was not confirmed, or the present one turned out to be missing.
    pub fn unconfirm(&mut self, missing: bool) {
        self.opening = None;
        if missing {
            // A fresh name: the numbers of the old one may yet be decided by another server.
            let id = self.generate();
            self.succeed(id);
            self.confirmed = false;
        }
    }

    /// Whether `row`, in which seals are to stand, has been asked for and is not known to be there.
    pub fn awaits(&self, row: Uuid) -> bool {
        self.opening == Some(row) && row == self.current.id
    }

    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The rows whose numbers may have to be asked for.
    pub fn rows(&self) -> impl Iterator<Item = Uuid> {
        self.known().map(|row| row.id)
    }

    /// Whether a row is looked after: numbered in, or not retired before the next one is opened.
    pub fn is_in_use(&self, id: Uuid) -> bool {
        id == self.current.id || self.previous() == Some(id)
    }

    /// Whether commits were acknowledged that a server might lack.
    pub fn has_acknowledged(&self) -> bool {
        self.known().any(|row| row.acknowledged > 0)
    }

    /// Whether the row that takes the seals at present stands in `ledger`.
    pub fn is_present(&self, ledger: &[LedgerRow]) -> bool {
        ledger.iter().any(|row| row.id == self.current.id)
    }

    /// Compares what was acknowledged with what a server's ledger says.
    pub fn lost(&self, ledger: &[LedgerRow]) -> Vec<Lost> {
        let mut lost = Vec::new();
        let (mut has_next, mut has_later) = (false, false);
        for row in self.known() {
            let there = ledger.iter().find(|it| it.id == row.id);
            // Where the row stands by whose opening it was retired, or one behind that, it had all its commits; and one
            // that is missing where the next one stands was retired.
            let complete =
                (row.retired && has_later) || (there.is_none() && (has_next || has_later));
            has_later |= has_next;
            has_next = there.is_some();
            let survived = there.map_or(0, |it| it.seq);
            if survived < row.acknowledged && !complete {
                lost.push(Lost { row: row.id, from: survived + 1, to: row.acknowledged });
            }
        }
        if mutation::on(Mutation::LossNotTold) {
            lost.clear();
        }
        lost.reverse();
        lost
    }

    /// A row has gone from under the session: somebody deletes rows, and none that is missing says anything any more.
    pub fn forget_acknowledged(&mut self) {
        self.known_mut().for_each(|row| row.acknowledged = 0);
    }

    /// What was lost has been told; it is not told again.
    pub fn forget_lost(&mut self, lost: &[Lost]) {
        for Lost { row: id, from, .. } in lost {
            if let Some(row) = self.known_mut().find(|row| row.id == *id) {
                row.acknowledged = from - 1;
            }
        }
    }

    /// A row name that nobody can guess: it is what allows its holder to seal.
    fn generate(&mut self) -> Uuid {
        self.generated += 1;
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(self.generated.to_le_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Builder::from_random_bytes(bytes).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: Uuid, seq: u64) -> LedgerRow {
        LedgerRow { id, seq, recent: u64::MAX }
    }

    #[test]
    fn the_bitmap_tells_a_failed_number_from_a_committed_one() {
        let row = LedgerRow { id: Uuid::nil(), seq: 70, recent: 0b1011 };
        let has = |n| row.has(n);
        assert!(has(70) && has(69) && !has(68) && has(67) && !has(66));
        assert!(!has(71));
        assert!(has(6), "what is too old for the bitmap was resolved");
        assert_eq!(
            [6, 7, 69, 71].map(|n| row.says(n)),
            [None, Some(false), Some(true), Some(false)]
        );
    }

    fn opened() -> Seals {
        let mut seals = Seals::new(7, 2);
        seals.enabled = true;
        seals.open(false);
        seals.opened();
        seals
    }

    #[test]
    fn rotates_and_retires_the_row_before_the_last() {
        let mut seals = opened();
        let first = seals.row();
        assert!(!seals.rotation_is_due());
        seals.allot(false);
        seals.allot(false);
        assert!(seals.rotation_is_due());
        let (second, retired) = seals.open(false);
        assert_eq!(retired, Uuid::nil(), "nothing precedes the first row");
        assert_eq!(seals.row(), first, "the old row serves until the new one is confirmed");
        seals.opened();
        assert_eq!(seals.row(), second);
        seals.allot(false);
        seals.allot(false);
        assert_eq!(seals.open(false).1, first);
    }

    /// The row in which a fence stood was deleted when the next but one was opened; the attempt that it
    /// was to stop found no row to update, and committed as well (simulation, seed 34253).
    #[test]
    fn a_row_with_a_fence_is_not_retired() {
        let mut seals = opened();
        let seal = seals.allot(false);
        seals.open(false);
        seals.opened();
        assert_eq!(seals.fences(&[seal]).len(), 1);
        assert_eq!(seals.open(false).1, Uuid::nil());
        let second = seals.row();
        seals.opened();
        assert_eq!(seals.open(false).1, second, "the others are");
    }

    /// The link was lost while a row was being opened: its predecessor had been deleted by the same
    /// call, and all its commits were reported lost.
    #[test]
    fn a_row_that_may_have_been_retired_is_not_missed() {
        let mut seals = opened();
        let first = seals.row();
        let seal = seals.allot(false);
        seals.acknowledge(seal);
        seals.open(false);
        seals.opened();
        let second = seals.row();
        seals.open(false);
        seals.unconfirm(false);
        assert_eq!(seals.lost(&[row(second, 0)]), []);
        assert_eq!(
            seals.lost(&[row(second, 0), row(first, 0)]).len(),
            1,
            "it is there, and behind"
        );
    }

    #[test]
    fn tells_lost_commits_once() {
        let mut seals = opened();
        let id = seals.row();
        for _ in 0..3 {
            let seal = seals.allot(false);
            seals.acknowledge(seal);
        }
        assert_eq!(seals.lost(&[row(id, 3)]), []);
        assert_eq!(seals.lost(&[row(id, 1)]), [Lost { row: id, from: 2, to: 3 }]);
        assert_eq!(seals.lost(&[]), [Lost { row: id, from: 1, to: 3 }]);
        let lost = seals.lost(&[row(id, 1)]);
        seals.forget_lost(&lost);
        assert_eq!(seals.lost(&[row(id, 1)]), []);
    }

    /// The rows before the previous one were not asked for, and what a promotion had lost of their commits was
    /// lost in silence (simulation, seed 5008074).
    #[test]
    fn commits_in_older_rows_are_missed_too() {
        let mut seals = opened();
        let rows: Vec<_> = (0..4)
            .map(|_| {
                let seal = seals.allot(false);
                seals.acknowledge(seal);
                let seal = seals.allot(false);
                seals.acknowledge(seal);
                seals.open(false);
                seals.opened();
                seal.row
            })
            .collect();
        let all = seals.row();
        let lost = |index: usize, from| Lost { row: rows[index], from, to: 2 };
        // The rows before the previous one are retired, as they are everywhere.
        assert_eq!(seals.lost(&[row(all, 0), row(rows[3], 2)]), []);
        assert_eq!(seals.lost(&[row(rows[3], 1), row(rows[2], 2)]), [lost(3, 2)]);
        assert_eq!(
            seals.lost(&[row(rows[1], 1), row(rows[0], 2)]),
            [lost(1, 2), lost(2, 1), lost(3, 1)]
        );
        assert_eq!(seals.lost(&[]), [lost(0, 1), lost(1, 1), lost(2, 1), lost(3, 1)]);
        let gone = seals.lost(&[row(rows[1], 1), row(rows[0], 2)]);
        seals.forget_lost(&gone);
        assert_eq!(seals.lost(&[row(rows[1], 1), row(rows[0], 2)]), []);
        // Another one may have less.
        assert_eq!(seals.lost(&[row(rows[0], 2)]), [Lost { row: rows[1], from: 1, to: 1 }]);
    }

    /// A row without a commit was forgotten; it had been all that said that the rows before it were retired where it
    /// was, and their commits were told to be lost and run again (simulation, seed 8052138).
    #[test]
    fn a_row_without_a_commit_vouches_for_those_before_it() {
        let mut seals = opened();
        let seal = seals.allot(false);
        seals.acknowledge(seal);
        let mut empty = seals.row();
        for _ in 0..3 {
            empty = seals.open(false).0;
            seals.opened();
        }
        seals.open(false);
        seals.opened();
        assert_eq!(seals.lost(&[row(empty, 0)]), []);
        seals.unconfirm(true);
        assert_eq!(seals.lost(&[row(empty, 0)]), []);
    }
}
