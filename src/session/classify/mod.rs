//! What one statement does to its session and its transaction, read off its text alone.
//!
//! A mistake here must cost speed, never correctness: what is not understood counts as a statement
//! that may write and may be replayed only as part of what it is in.
//!
//! What a text cannot show, and what is therefore taken on trust:
//! - a function, operator or cast of the user's that passes for a built-in one by its name, and a
//!   function that is written like a column (`SELECT t.f FROM t` calls `f(t)`);
//! - what views, row security policies, rules and column defaults call behind a plain SELECT;
//! - tables made in `pg_temp` because `search_path` says so, and what functions do to the session;
//! - `standard_conforming_strings = on`, without which strings end elsewhere.

pub(super) mod control;
mod functions;
mod head;
mod lexer;
mod scan;
mod statements;

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

impl StatementKind {
    /// Whether it begins, ends or divides a transaction.
    pub fn controls_transaction(&self) -> bool {
        match self {
            Self::Several(parts) => parts.iter().any(|part| part.kind.controls_transaction()),
            Self::Begin { .. }
            | Self::Commit { .. }
            | Self::Rollback { .. }
            | Self::Savepoint(_)
            | Self::Release(_)
            | Self::RollbackTo(_) => true,
            _ => false,
        }
    }
}

impl StatementKind {
    /// Whether it begins or ends a transaction. Savepoints do neither.
    fn is_boundary(&self) -> bool {
        matches!(self, Self::Begin { .. } | Self::Commit { .. } | Self::Rollback { .. })
    }

    /// Whether it drops all prepared statements: DEALLOCATE ALL, DISCARD ALL.
    pub fn forgets_statements(&self) -> bool {
        match self {
            Self::Several(parts) => parts.iter().any(|part| part.kind.forgets_statements()),
            Self::Deallocate(None) | Self::Discard(Discard::All) => true,
            _ => false,
        }
    }
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

impl Classified {
    /// Whether it ends a transaction by itself, so that a seal in front of the COMMIT behind it says
    /// nothing of what it has done.
    pub fn commits_by_itself(&self) -> bool {
        let divides = match &self.kind {
            StatementKind::Several(parts) => parts.iter().any(|part| part.kind.is_boundary()),
            _ => false,
        };
        divides || self.outside_transaction || self.unprotected == Some(control::TWO_PHASE)
    }

    /// Whether that which makes the session unrestorable outlives a rollback, as no data does.
    pub fn outlives_rollback(&self) -> bool {
        let lasts = |why| control::BY_STATEMENT.contains(&why) || control::BY_CALL.contains(&why);
        self.unrestorable.is_some_and(lasts)
    }

    /// Whether it is there even if the statement fails: a function that it calls has done it by then.
    pub fn outlives_failure(&self) -> bool {
        self.unrestorable.is_some_and(|why| control::BY_CALL.contains(&why))
    }

    fn new(kind: StatementKind, effect: Effect) -> Self {
        Self {
            kind,
            effect,
            prepare: false,
            sets_config: false,
            outside_transaction: false,
            unprotected: None,
            unrestorable: None,
        }
    }

    /// Whether the session has to take note of it once it has succeeded.
    pub fn changes_session(&self) -> bool {
        let plain = matches!(self.kind, StatementKind::Other | StatementKind::Empty);
        !plain || self.sets_config || self.unrestorable.is_some()
    }

    /// Whether it makes, changes or ends a setting or a LISTEN that outlives its transaction.
    pub fn sets_anything(&self) -> bool {
        match &self.kind {
            StatementKind::Several(parts) => parts.iter().any(Self::sets_anything),
            StatementKind::Set { local, .. } => !local,
            StatementKind::Reset(_)
            | StatementKind::Listen(_)
            | StatementKind::Unlisten(_)
            | StatementKind::Discard(_) => true,
            _ => self.sets_config,
        }
    }

    fn outside_transaction(mut self) -> Self {
        self.outside_transaction = true;
        self
    }

    fn unprotected(mut self, why: &'static str) -> Self {
        self.unprotected = Some(why);
        self
    }

    fn unrestorable(mut self, why: &'static str) -> Self {
        self.unrestorable = Some(why);
        self
    }

    fn several(parts: Vec<Self>) -> Self {
        let mut all = Self::new(StatementKind::Several(Vec::new()), Effect::None);
        for part in &parts {
            all.effect = all.effect.max(part.effect);
            all.sets_config |= part.sets_config;
            all.outside_transaction |= part.outside_transaction;
            all.unprotected = all.unprotected.or(part.unprotected);
            all.unrestorable = all.unrestorable.or(part.unrestorable);
        }
        all.kind = StatementKind::Several(parts);
        all
    }
}

/// Reads what `sql` does off its text.
pub fn classify(sql: &str) -> Classified {
    let mut rest = sql.as_bytes();
    let mut only = None;
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (found, behind) = scan::scan(rest);
        rest = behind;
        if found.is_empty {
            continue;
        }
        let statement = statements::classify_one(&found);
        match only.take() {
            Some(first) => parts.extend([first, statement]),
            None if parts.is_empty() => only = Some(statement),
            None => parts.push(statement),
        }
    }
    match only {
        Some(statement) => statement,
        None if parts.is_empty() => Classified::new(StatementKind::Empty, Effect::None),
        None => Classified::several(parts),
    }
}

/// The statements of a string, as [`StatementKind::Several`] lists them.
pub fn split(sql: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let mut start = 0;
    while start < sql.len() {
        let (found, behind) = scan::scan(&sql.as_bytes()[start..]);
        let end = sql.len() - behind.len();
        if !found.is_empty {
            // A statement ends at a semicolon or at the end: never inside a character.
            statements.extend(sql.get(start..end));
        }
        start = end;
    }
    statements
}

#[cfg(test)]
mod tests;
