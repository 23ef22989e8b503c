//! What a transaction of the model sees of others, and when it may not commit because of them.
//!
//! READ COMMITTED sees what is committed when each statement begins. REPEATABLE READ has one snapshot,
//! and the first to change a row wins. SERIALIZABLE also validates what was read when it commits:
//! PostgreSQL finds conflicts in another way, but whatever this lets pass is serializable.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::data::State;
use crate::sql::Stmt;
use crate::world::{Exec, World};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    #[default]
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    pub const ALL: [Self; 3] = [Self::ReadCommitted, Self::RepeatableRead, Self::Serializable];

    pub fn name(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// What a transaction has read.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    accounts: BTreeSet<i64>,
    t: bool,
    log: bool,
    big: bool,
}

impl Reads {
    fn note(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::SelectAcct(key)
            | Stmt::Peek(key)
            | Stmt::Guard(key)
            | Stmt::UpdateAcct { key, .. } => {
                self.accounts.insert(*key);
            }
            Stmt::SelectT => self.t = true,
            Stmt::SelectLog | Stmt::Bump(_) => self.log = true,
            Stmt::SelectBig | Stmt::CopyOutBig => self.big = true,
            _ => {}
        }
    }

    fn are_the_same(&self, one: &State, other: &State) -> bool {
        self.accounts.iter().all(|key| one.acct.get(key) == other.acct.get(key))
            && (!self.t || one.t == other.t)
            && (!self.log || one.log == other.log)
            && (!self.big || one.big == other.big)
    }
}

impl World {
    /// A statement is about to look at rows.
    pub fn look(&mut self, me: usize, stmt: &Stmt) {
        let server = self.backends[me].server;
        let Some(tx) = &mut self.backends[me].tx else { return };
        if tx.isolation == Isolation::ReadCommitted {
            return;
        }
        if tx.snapshot.is_none() {
            tx.snapshot = Some(Rc::clone(&self.servers[server].state));
        }
        tx.reads.note(stmt);
    }

    pub fn committed(&self, me: usize) -> &State {
        &self.servers[self.backends[me].server].state
    }

    /// A row that somebody else has changed since the snapshot cannot be changed.
    pub fn check_unchanged<T: PartialEq>(
        &self,
        me: usize,
        row: impl Fn(&State) -> T,
    ) -> Result<(), Exec> {
        let tx = self.backends[me].tx.as_ref();
        match tx.and_then(|tx| tx.snapshot.as_deref()) {
            Some(snapshot) if row(snapshot) != row(self.committed(me)) => Err(Exec::Error("40001")),
            _ => Ok(()),
        }
    }

    /// Whether what a SERIALIZABLE transaction has read is still so, also after the commits that wait
    /// for the standby.
    pub fn may_serialize(&self, me: usize) -> bool {
        let Some(tx) = &self.backends[me].tx else { return true };
        let (Isolation::Serializable, Some(snapshot)) = (tx.isolation, &tx.snapshot) else {
            return true;
        };
        let server = &self.servers[self.backends[me].server];
        let mut now = State::clone(&server.state);
        for (position, _) in &server.unconfirmed {
            server.wal[position - 1].ops.iter().for_each(|op| now.apply(op));
        }
        tx.reads.are_the_same(snapshot, &now)
    }
}
