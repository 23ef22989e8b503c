//! Statements: one text with its parameter types, known to a whole client by one number.
//!
//! Because the number, and so the name on the server, is the same for all sessions of a client, a
//! standby link can be given the statements of a session that it does not yet belong to.

use std::sync::{Arc, Mutex, PoisonError};

use super::classify::{Classified, StatementKind, classify};

/// One statement text with its parameter types.
#[derive(Debug)]
pub struct Statement {
    /// Unique within its client.
    pub id: u32,
    /// What it is called on every server; empty for one that is parsed anew each time.
    pub name: String,
    pub sql: String,
    /// The types that the application declared; 0 leaves the choice to the server.
    pub param_oids: Vec<u32>,
    pub class: Classified,
    /// What the server said of it, once it has been asked.
    described: Mutex<Option<Arc<Description>>>,
}

/// What a server says of a prepared statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    pub param_oids: Vec<u32>,
    /// Empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
}

/// One column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
    pub type_size: i16,
    pub table_oid: u32,
    pub column_id: i16,
}

/// What the statement with this number is called on every server.
pub(super) fn name_of(number: u32) -> String {
    format!("segue_{number}")
}

impl Statement {
    /// A statement that is prepared under a name where that pays, and parsed anew where not.
    /// `None` if the text contains a NUL byte, which the protocol cannot carry.
    pub fn new(id: u32, sql: &str, param_oids: &[u32], cache: bool) -> Option<Self> {
        if sql.contains('\0') {
            return None;
        }
        let class = classify(sql);
        let named = cache && class.prepare && !class.sets_config;
        Some(Self {
            id,
            name: if named { name_of(id) } else { String::new() },
            sql: sql.to_owned(),
            param_oids: param_oids.to_owned(),
            class,
            described: Mutex::new(None),
        })
    }

    /// A string of several statements, which goes out as a simple query.
    pub fn is_several(&self) -> bool {
        matches!(self.class.kind, StatementKind::Several(_))
    }

    pub fn is_named(&self) -> bool {
        !self.name.is_empty()
    }

    /// What a server last said of it, if any session has had it described.
    pub fn description(&self) -> Option<Arc<Description>> {
        self.described.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_description(&self, description: &Arc<Description>) {
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        *described = Some(Arc::clone(description));
    }
}
