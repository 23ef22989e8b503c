//! Transactions as scopes: what is not committed is rolled back.

use std::ops::{Deref, DerefMut};

use super::session::Session;
use crate::error::Result;

/// Isolation levels of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IsolationLevel {
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// How a transaction begins; by default as the server's settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionOptions {
    pub isolation: Option<IsolationLevel>,
    pub read_only: bool,
    pub deferrable: bool,
}

impl TransactionOptions {
    #[must_use]
    pub fn isolation(mut self, level: IsolationLevel) -> Self {
        self.isolation = Some(level);
        self
    }

    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    #[must_use]
    pub fn deferrable(mut self) -> Self {
        self.deferrable = true;
        self
    }

    /// The BEGIN; empty for a plain one, which is prepared on every link.
    pub(super) fn sql(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let level = match self.isolation {
            None => "",
            Some(IsolationLevel::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(IsolationLevel::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(IsolationLevel::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        };
        let read_only = if self.read_only { " READ ONLY" } else { "" };
        let deferrable = if self.deferrable { " DEFERRABLE" } else { "" };
        format!("BEGIN{level}{read_only}{deferrable}")
    }
}

/// An open transaction, or a savepoint inside one. It gives access to its session.
pub struct Transaction<'a> {
    session: &'a mut Session,
    savepoint: Option<String>,
    done: bool,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        Self { session, savepoint: None, done: false }
    }

    /// Commits; a savepoint is released.
    pub fn commit(mut self) -> Result<()> {
        self.done = true;
        match self.savepoint.take() {
            None => self.session.commit(),
            Some(name) => self.session.execute(&format!("RELEASE SAVEPOINT {name}"), &[]).map(drop),
        }
    }

    /// Rolls back to where it began.
    pub fn rollback(mut self) -> Result<()> {
        self.done = true;
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        match self.savepoint.take() {
            None => self.session.rollback(),
            Some(name) => {
                self.session.execute(&format!("ROLLBACK TO SAVEPOINT {name}"), &[])?;
                self.session.execute(&format!("RELEASE SAVEPOINT {name}"), &[]).map(drop)
            }
        }
    }

    /// A transaction within this one: a savepoint that is rolled back to unless it is committed.
    pub fn transaction(&mut self) -> Result<Transaction<'_>> {
        self.session.savepoints = self.session.savepoints.wrapping_add(1);
        let name = format!("segue_savepoint_{}", self.session.savepoints);
        self.session.execute(&format!("SAVEPOINT {name}"), &[])?;
        Ok(Transaction { session: self.session, savepoint: Some(name), done: false })
    }
}

impl Deref for Transaction<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl DerefMut for Transaction<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        self.session
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.done {
            // An error here has no one to go to; the next statement will tell.
            let _ = self.undo();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_says_what_was_asked_for() {
        assert_eq!(TransactionOptions::default().sql(), "");
        let options = TransactionOptions::default()
            .isolation(IsolationLevel::Serializable)
            .read_only()
            .deferrable();
        assert_eq!(options.sql(), "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE");
    }
}
