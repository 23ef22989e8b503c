//! The committed content of a model server, and its write-ahead log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

/// What one statement has returned: its rows and its command tag or SQLSTATE.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub rows: Vec<String>,
    pub end: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    T(i64),
    D(i64),
    Log(i64),
    Acct(i64, i64),
    Big(Vec<i64>),
    /// The row's seq and recent.
    Ledger(Uuid, i64, i64),
    LedgerDelete(Uuid),
    /// The ledger of submissions is there.
    SubmissionTable,
    /// A submission is done.
    Claim(Uuid),
    /// Up to this value, those of the sequence may have been handed out.
    Sequence(i64),
    /// Written to the log, and of no other consequence.
    Message,
}

/// One committed transaction.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub ops: Vec<Op>,
    pub replies: Vec<Reply>,
    pub sealed: Option<(Uuid, i64)>,
}

impl Record {
    pub fn ids(&self) -> impl Iterator<Item = i64> {
        self.ops.iter().filter_map(|op| match op {
            Op::T(id) | Op::D(id) | Op::Log(id) | Op::Acct(_, id) => Some(*id),
            _ => None,
        })
    }
}

#[derive(Debug, Clone, Default)]
pub struct State {
    pub t: BTreeSet<i64>,
    pub d: BTreeSet<i64>,
    pub log: Vec<i64>,
    pub acct: BTreeMap<i64, Vec<i64>>,
    pub big: Vec<i64>,
    pub ledger: BTreeMap<Uuid, (i64, i64)>,
    pub has_submissions: bool,
    pub claims: BTreeSet<Uuid>,
    pub sequence: i64,
}

impl State {
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::T(id) => drop(self.t.insert(*id)),
            Op::D(id) => drop(self.d.insert(*id)),
            Op::Log(id) => self.log.push(*id),
            Op::Acct(key, id) => self.acct.entry(*key).or_default().push(*id),
            Op::Big(rows) => self.big.clone_from(rows),
            Op::Ledger(row, seq, recent) => drop(self.ledger.insert(*row, (*seq, *recent))),
            Op::LedgerDelete(row) => drop(self.ledger.remove(row)),
            Op::SubmissionTable => self.has_submissions = true,
            Op::Claim(id) => drop(self.claims.insert(*id)),
            Op::Sequence(value) => self.sequence = *value,
            Op::Message => {}
        }
    }

    pub fn count(&self, id: i64) -> usize {
        usize::from(self.t.contains(&id))
            + usize::from(self.d.contains(&id))
            + self.log.iter().filter(|n| **n == id).count()
            + self.acct.values().flatten().filter(|n| **n == id).count()
    }

    /// How often each number is there.
    pub fn counts(&self) -> HashMap<i64, usize> {
        let all = self.t.iter().chain(&self.d).chain(&self.log);
        let mut counts = HashMap::new();
        for id in all.chain(self.acct.values().flatten()) {
            *counts.entry(*id).or_default() += 1;
        }
        counts
    }
}
