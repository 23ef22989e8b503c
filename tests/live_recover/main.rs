//! What became of the transactions of a client that is gone: journals as it leaves them, ledgers and
//! backends on real servers.

#[cfg(feature = "cli")]
mod command_line;
mod failover;
mod harness;
mod journals;
mod killed;
mod statements;
mod verdicts;
mod zombies;
