//! What one statement does to its session and its transaction, read off its text alone.
//!
//! A mistake here must cost speed, never correctness: what is not understood counts as a statement
//! that may write and may be replayed only as part of what it is in.

/// The most that a statement may do to the database, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Touches no data: SET, SAVEPOINT, LISTEN.
    None,
    /// Only reads; may simply be asked again.
    Reads,
    /// Cannot be told from the text: a SELECT that calls functions not known to only read, DO, CALL.
    MayWrite,
    /// Writes if it succeeds: INSERT, UPDATE, DELETE, MERGE, DDL, a data-modifying WITH.
    Writes,
}

/// What kind of statement it is, as far as a session must know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatementKind {
    /// Nothing but white space and comments.
    Empty,
    /// Anything that a session need not know more of.
    Other,
    /// BEGIN or START TRANSACTION; whether READ ONLY is among its modes.
    Begin {
        read_only: bool,
    },
    /// COMMIT or END; whether AND CHAIN.
    Commit {
        chain: bool,
    },
    /// ROLLBACK or ABORT; whether AND CHAIN.
    Rollback {
        chain: bool,
    },
    /// SAVEPOINT; names here are folded as the server folds identifiers.
    Savepoint(String),
    Release(String),
    RollbackTo(String),
    /// SET or SET SESSION (`local` false), SET LOCAL or SET TRANSACTION (`local` true). The name is in
    /// lower case; SET TIME ZONE is `timezone`, SET ROLE `role`, SET SESSION AUTHORIZATION
    /// `session_authorization`, SET SESSION CHARACTERISTICS `session characteristics`.
    Set {
        name: String,
        local: bool,
    },
    /// RESET name; `all` for RESET ALL.
    Reset(String),
    Listen(String),
    /// The channel, or `*`.
    Unlisten(String),
    Discard(Discard),
    /// DEALLOCATE; `None` for ALL.
    Deallocate(Option<String>),
    /// COPY ... FROM STDIN.
    CopyIn,
    /// COPY ... TO STDOUT.
    CopyOut,
    /// Several statements in one string, one by one.
    Several(Vec<Classified>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    All,
    Plans,
    Sequences,
    Temp,
}

impl Discard {
    pub fn is_all(self) -> bool {
        self == Self::All
    }
}

/// What is known of one statement from its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classified {
    pub kind: StatementKind,
    pub effect: Effect,
    /// Whether it may be prepared under a name and run again from there.
    pub prepare: bool,
    /// It calls set_config(..., false), which changes a setting without SET.
    pub sets_config: bool,
    /// It refuses to run in a transaction block (VACUUM, CREATE DATABASE, ... CONCURRENTLY), or may
    /// commit inside (CALL, DO outside a transaction), so that no seal can share its transaction.
    pub outside_transaction: bool,
    /// Why a transaction that contains it cannot be replayed; `None` if it can.
    pub unprotected: Option<&'static str>,
    /// Why the session cannot be carried to another server after it has committed (temporary tables
    /// that outlive the transaction, session advisory locks, WITH HOLD cursors, PREPARE, LOAD).
    pub unrestorable: Option<&'static str>,
}

/// Reads what `sql` does off its text.
pub fn classify(sql: &str) -> Classified {
    let _ = sql;
    todo!()
}
