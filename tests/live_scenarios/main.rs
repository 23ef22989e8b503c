//! Whole servers fail under sessions at work; afterwards the servers' own content is compared with
//! what the application was told.

mod deaths;
mod lost_commits;
mod promotes;
mod read_only;
mod same_server;
mod setup;
mod silence;
mod standbys;
mod storm;
mod switchover;
mod workload;
