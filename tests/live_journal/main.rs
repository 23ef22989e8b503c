//! Transactions of sessions in the journal on disk, against real servers.

mod crash;
mod disk;
mod faults;
mod harness;
mod steady;
