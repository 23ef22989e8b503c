//! The named statements that are prepared on the session's present link.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::internals::FIRST_STATEMENT;
use super::number_hash::NumberMap;
use super::statement::{Description, Statement};
use super::unit::Steps;

#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// By number; what the server says of it, once this link has been asked.
    statements: NumberMap<u32, Option<Arc<Description>>>,
    /// The order in which they were prepared; the oldest makes room.
    order: VecDeque<u32>,
    /// Names that may be taken on the link by something that must be closed first.
    stale: HashSet<u32>,
}

impl Prepared {
    /// On a new link: `numbers` were prepared on it ahead of time.
    pub fn reset(&mut self, numbers: &[u32]) {
        self.clear();
        let users = numbers.iter().filter(|number| **number >= FIRST_STATEMENT);
        for number in users {
            self.statements.insert(*number, None);
            self.order.push_back(*number);
        }
    }

    pub fn clear(&mut self) {
        self.statements.clear();
        self.order.clear();
        self.stale.clear();
    }

    /// Writes what must go ahead of the statement's Bind. Returns the steps that this adds, and what
    /// the statement returns where this link has been asked before.
    pub fn ready(
        &mut self,
        statement: &Statement,
        cache_size: usize,
        out: &mut BytesMut,
    ) -> (u8, Option<Arc<Description>>) {
        let mut steps = Steps::DESCRIBE;
        match self.statements.get(&statement.id) {
            Some(Some(description)) => return (0, Some(Arc::clone(description))),
            Some(None) => {}
            None => {
                self.make_room(cache_size, out);
                if self.stale.remove(&statement.id) {
                    close(statement.id, out);
                }
                let types = statement.param_oids.iter().copied();
                // A text with a NUL byte was refused when the statement was made.
                let _ = frontend::parse(&statement.name, &statement.sql, types, out);
                self.statements.insert(statement.id, None);
                self.order.push_back(statement.id);
                steps |= Steps::PARSE;
            }
        }
        let _ = frontend::describe(b'S', &statement.name, out);
        (steps, None)
    }

    /// Whether the statement is prepared already, or on its way to be.
    pub fn has(&self, number: u32) -> bool {
        self.statements.contains_key(&number)
    }

    fn make_room(&mut self, cache_size: usize, out: &mut BytesMut) {
        while self.statements.len() >= cache_size.max(1) {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if self.statements.remove(&oldest).is_some() {
                close(oldest, out);
            }
        }
    }

    pub fn described(&mut self, number: u32, description: &Arc<Description>) {
        if let Some(known) = self.statements.get_mut(&number) {
            *known = Some(Arc::clone(description));
        }
    }

    /// A statement that drops them all is on its way; whether it succeeds is not known.
    pub fn doubt(&mut self) {
        self.stale.extend(self.statements.drain().map(|(number, _)| number));
        self.order.clear();
    }

    /// Its Parse failed, or was skipped behind another failure: the name is not taken for sure.
    pub fn forget(&mut self, number: u32) {
        if self.statements.remove(&number).is_some() {
            self.order.retain(|known| *known != number);
        }
        self.stale.insert(number);
    }
}

fn close(number: u32, out: &mut BytesMut) {
    let _ = frontend::close(b'S', &super::statement::name_of(number), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_once_and_makes_room() {
        let mut prepared = Prepared::default();
        let mut out = BytesMut::new();
        let one = Statement::new(11, "SELECT 1", &[], true).unwrap();
        let two = Statement::new(12, "SELECT 2", &[], true).unwrap();
        assert_eq!(prepared.ready(&one, 1, &mut out), (Steps::PARSE | Steps::DESCRIBE, None));
        prepared.described(11, &Arc::default());
        out.clear();
        assert_eq!(prepared.ready(&one, 1, &mut out), (0, Some(Arc::default())));
        assert!(out.is_empty());
        prepared.ready(&two, 1, &mut out);
        assert_eq!(out[0], b'C', "the first is closed to make room");
        assert_ne!(prepared.ready(&one, 1, &mut out).0, 0);
    }

    #[test]
    fn a_statement_prepared_ahead_is_described_only() {
        let mut prepared = Prepared::default();
        prepared.reset(&[11]);
        let mut out = BytesMut::new();
        let one = Statement::new(11, "SELECT 1", &[], true).unwrap();
        assert_eq!(prepared.ready(&one, 8, &mut out), (Steps::DESCRIBE, None));
        assert_eq!(out[0], b'D');
    }
}
