//! The cluster against real servers: who is chosen, who moves when, and who never does.

mod failover;
mod network;
mod setup;
mod steady;
mod warm;
