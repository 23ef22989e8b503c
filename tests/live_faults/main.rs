//! The promise of exactly once, held against real servers and a network that misbehaves.
//!
//! Every test judges by what the server holds, read through a connection that shares no code with
//! what is tested: reported committed means there exactly once, not committed means absent.

mod harness;

mod commit;
mod divergence;
mod midway;
mod network;
mod regressions;
mod statements;
mod zombies;
