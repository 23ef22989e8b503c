//! Transactions of sessions in the journal on disk, against real servers.

mod crash;
mod faults;
mod harness;
mod steady;
