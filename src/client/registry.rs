//! The statements of a client, each known by one number to all of its sessions and warm links.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, ErrorKind, Result};
use crate::session::{Statement, internals};

/// So many statements are known at most; beyond that, those that no session uses are forgotten.
const STATEMENTS_MAX: usize = 8192;

/// A key of text and parameter types; two statements may share it.
pub(super) fn key(sql: &str, oids: &[u32]) -> u64 {
    let seed =
        oids.iter().fold(0u64, |seed, oid| seed.rotate_left(9).wrapping_add(u64::from(*oid) + 1));
    xxh3_64_with_seed(sql.as_bytes(), seed)
}

pub(super) fn matches(statement: &Statement, sql: &str, oids: &[u32]) -> bool {
    statement.sql == sql && statement.param_oids == oids
}

#[derive(Debug)]
pub(super) struct Registry {
    /// Whether statements are prepared under names at all.
    cache: bool,
    warm_max: usize,
    next: AtomicU32,
    statements: Mutex<HashMap<u64, Vec<Arc<Statement>>>>,
}

impl Registry {
    pub fn new(statement_cache_size: usize) -> Self {
        Self {
            cache: statement_cache_size > 0,
            warm_max: statement_cache_size,
            next: AtomicU32::new(internals::FIRST_STATEMENT),
            statements: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<Arc<Statement>>>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn find_or_add(&self, key: u64, sql: &str, oids: &[u32]) -> Result<Arc<Statement>> {
        let mut statements = self.lock();
        if let Some(known) =
            statements.get(&key).and_then(|same| same.iter().find(|s| matches(s, sql, oids)))
        {
            return Ok(Arc::clone(known));
        }
        if statements.len() >= STATEMENTS_MAX {
            statements.retain(|_, same| same.iter().any(|s| Arc::strong_count(s) > 1));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let statement = Statement::new(number, sql, oids, self.cache).ok_or_else(|| {
            Error::new(ErrorKind::Usage, "the statement contains a NUL byte; nothing was sent")
        })?;
        let statement = Arc::new(statement);
        statements.entry(key).or_default().push(Arc::clone(&statement));
        Ok(statement)
    }

    /// Appends Parse for the statements that sessions use and that are not among `already`, the
    /// newest first, as many as a session keeps; returns their numbers.
    pub fn prepare(&self, already: &[u32], out: &mut BytesMut) -> Vec<u32> {
        let mut used: Vec<Arc<Statement>> = self
            .lock()
            .values()
            .flatten()
            .filter(|s| s.is_named() && Arc::strong_count(s) > 1 && s.description().is_some())
            .cloned()
            .collect();
        used.sort_unstable_by_key(|statement| std::cmp::Reverse(statement.id));
        used.truncate(self.warm_max.saturating_sub(already.len()));
        let mut numbers = Vec::new();
        for statement in used.iter().filter(|statement| !already.contains(&statement.id)) {
            let types = statement.param_oids.iter().copied();
            if frontend::parse(&statement.name, &statement.sql, types, out).is_ok() {
                numbers.push(statement.id);
            }
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_for_one_text_and_its_types() {
        let registry = Registry::new(8);
        let find =
            |sql: &str, oids: &[u32]| registry.find_or_add(key(sql, oids), sql, oids).unwrap();
        let one = find("SELECT 1", &[]);
        assert!(Arc::ptr_eq(&one, &find("SELECT 1", &[])));
        assert_ne!(one.id, find("SELECT 1", &[23]).id);
        assert_ne!(key("SELECT 1", &[0, 23]), key("SELECT 1", &[23, 0]));
        assert!(registry.find_or_add(0, "SELECT '\0'", &[]).is_err());
    }
}
