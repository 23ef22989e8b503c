//! PostgreSQL's protocol as pure bytes <-> messages, on the `postgres-protocol` crate.
//!
//! Nothing here does I/O. [`frame`] cuts the stream of a server's bytes into messages and checks
//! their outer shape; whatever does not fit is [`Malformed`], which every caller treats as the
//! loss of the link. [`row`] reads rows and their values, [`error_fields`] a server's complaint;
//! [`execution`] writes what executes a statement.

pub mod error_fields;
pub mod execution;
pub mod frame;
pub mod row;

use std::fmt;

/// The server sent bytes that are not PostgreSQL's protocol, or not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message from the server: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<std::io::Error> for Malformed {
    fn from(_: std::io::Error) -> Self {
        Self("a message's body does not parse")
    }
}
