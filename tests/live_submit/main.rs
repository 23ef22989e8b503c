//! Transactions handed over whole, on real servers: exactly once, in order, through deaths of servers
//! and of the client.

mod basics;
mod crash;
mod disk;
mod failover;
mod harness;
mod keys;
mod kill;
mod letters;
mod lost;
mod told;
