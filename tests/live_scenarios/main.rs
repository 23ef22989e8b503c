//! Whole servers fail under sessions at work; afterwards the servers' own content is compared with
//! what the application was told.

mod deaths;
mod setup;
mod workload;
