//! What the transaction of a backend sees: what is committed, or was when it took its snapshot, and what
//! it has done itself.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::data::{Op, State};
use crate::world::World;

impl World {
    fn base(&self, me: usize) -> &State {
        let backend = &self.backends[me];
        let snapshot = backend.tx.as_ref().and_then(|tx| tx.snapshot.as_deref());
        snapshot.unwrap_or(&self.servers[backend.server].state)
    }

    fn own(&self, me: usize) -> impl Iterator<Item = &Op> {
        self.backends[me].tx.iter().flat_map(|tx| &tx.ops)
    }

    pub fn sees_t(&self, me: usize) -> BTreeSet<i64> {
        let own = self.own(me).filter_map(|op| match op {
            Op::T(id) => Some(*id),
            _ => None,
        });
        self.base(me).t.iter().copied().chain(own).collect()
    }

    pub fn sees_in_t(&self, me: usize, id: i64) -> bool {
        self.base(me).t.contains(&id) || self.own(me).any(|op| *op == Op::T(id))
    }

    pub fn sees_log(&self, me: usize) -> Vec<i64> {
        let own = self.own(me).filter_map(|op| match op {
            Op::Log(id) => Some(*id),
            _ => None,
        });
        self.base(me).log.iter().copied().chain(own).collect()
    }

    pub fn sees_account(&self, me: usize, key: i64) -> Vec<i64> {
        let own = self.own(me).filter_map(|op| match op {
            Op::Acct(k, id) if *k == key => Some(*id),
            _ => None,
        });
        self.base(me).acct.get(&key).into_iter().flatten().copied().chain(own).collect()
    }

    /// Only others write there.
    pub fn sees_big(&self, me: usize) -> &[i64] {
        &self.base(me).big
    }

    /// Whether a submission is done.
    pub fn sees_claim(&self, me: usize, id: Uuid) -> bool {
        self.base(me).claims.contains(&id) || self.own(me).any(|op| *op == Op::Claim(id))
    }

    /// A row of the ledger: its seq and recent.
    pub fn sees_ledger(&self, me: usize, row: Uuid) -> Option<(i64, i64)> {
        let own = self.own(me).filter_map(|op| match op {
            Op::Ledger(id, seq, recent) if *id == row => Some(Some((*seq, *recent))),
            Op::LedgerDelete(id) if *id == row => Some(None),
            _ => None,
        });
        own.last().unwrap_or_else(|| self.base(me).ledger.get(&row).copied())
    }
}
