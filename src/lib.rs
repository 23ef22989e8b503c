//! Segue: a PostgreSQL connection that outlives its server.
//!
//! The map of the house, from the top down; each layer imports only what stands below it:
//!
//! * `ffi`: the C ABI, a face of [`client`]. The only layer with unsafe code.
//! * [`client`]: the Rust API. Joins all of the below.
//! * [`session`]: one logical connection, as a pure state machine.
//! * [`journal`]: what is in flight, on disk: format, writer, recovery.
//! * [`cluster`]: the servers: detector and choice (pure), monitor and standby links.
//! * [`link`]: sockets: dialling, TLS, authentication, blocking transport.
//! * [`wire`]: PostgreSQL's protocol as pure bytes <-> messages.
//! * [`config`]: what the user asks for. [`error`]: what went wrong and what became of it.
//! * `mutation`: deliberate faults for the simulation, in builds for it alone.

#[forbid(unsafe_code)]
pub mod client;
#[forbid(unsafe_code)]
pub mod cluster;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod error;
#[cfg(feature = "c-abi")]
mod ffi;
#[forbid(unsafe_code)]
pub mod journal;
#[forbid(unsafe_code)]
pub mod link;
#[cfg(feature = "mutations")]
#[doc(hidden)]
#[forbid(unsafe_code)]
pub mod mutation;
#[cfg(not(feature = "mutations"))]
#[forbid(unsafe_code)]
mod mutation;
#[forbid(unsafe_code)]
pub mod session;
#[forbid(unsafe_code)]
pub mod wire;

pub use client::{
    CancelHandle, Client, ClientEvent, CopyIn, CopyOut, DeadLetter, Executed, IsolationLevel,
    Notification, Pipeline, Prepared, QueryResult, Raw, RecoveredStatement, RecoveredStatements,
    RecoveredTransaction, Row, RowStream, Session, SessionOptions, Submission, SubmissionStatus,
    Ticket, ToSql, Transaction, TransactionOptions, Typed, Verdict,
};
pub use config::Config;
pub use error::{Error, ErrorKind, Outcome, Result};
