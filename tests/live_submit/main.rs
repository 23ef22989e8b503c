//! Transactions handed over whole, on real servers: exactly once, in order, through deaths of servers
//! and of the client.

mod basics;
mod crash;
mod failover;
mod harness;
mod kill;
mod letters;
mod lost;
