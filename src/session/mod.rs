//! One logical connection, as a pure state machine: it outlives the servers that it uses.

pub mod classify;
pub mod event;
pub mod ledger;
pub mod statement;
