//! A sequence: its values are handed out outside of all transactions, and every so many of them are
//! written to the log ahead of time, so that a server that takes over, or is up again, goes on behind a
//! gap; or, where the log was not replicated, hands out values for a second time.

use std::rc::Rc;

use crate::data::{Op, Record};
use crate::world::World;

/// So many values are logged ahead, as PostgreSQL does (`SEQ_LOG_VALS`).
const AHEAD: i64 = 32;

impl World {
    pub fn nextval(&mut self, me: usize) -> i64 {
        let server = self.backends[me].server;
        let value = self.servers[server].sequence + 1;
        if value > self.servers[server].state.sequence {
            self.log_sequence(me, value + AHEAD);
        }
        self.servers[server].sequence = value;
        self.backends[me].last_value = Some(value);
        value
    }

    pub fn setval(&mut self, me: usize, value: i64) -> i64 {
        self.log_sequence(me, value);
        let server = self.backends[me].server;
        self.servers[server].sequence = value;
        self.backends[me].last_value = Some(value);
        value
    }

    /// It stands whatever becomes of the transaction, whose commit has to wait for it all the same.
    fn log_sequence(&mut self, me: usize, value: i64) {
        let server = &mut self.servers[self.backends[me].server];
        let op = Op::Sequence(value);
        Rc::make_mut(&mut server.state).apply(&op);
        server.wal.push(Rc::new(Record { ops: vec![op], ..Record::default() }));
        self.op(me, Op::Message);
    }
}
