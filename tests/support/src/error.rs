//! What can go wrong while servers are set up, controlled and disturbed.
//!
//! Each message says what was tried and what to do about it; a server that would not start brings
//! the end of its log along.

use std::io;
use std::time::Duration;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable PostgreSQL was found.
    #[error(
        "no PostgreSQL 14 or later found (looked in {searched}); install it, on Debian or Ubuntu \
         with `apt-get install postgresql`, or name its bin directory in SEGUE_PG_BIN"
    )]
    NoPostgres {
        /// The places that were looked at.
        searched: String,
    },
    /// A program of the operating system is missing.
    #[error("{tool} is missing; install it, on Debian or Ubuntu with `apt-get install {package}`")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A helper program failed.
    #[error("{what} failed ({status}): {output}")]
    Command {
        /// The program and its purpose.
        what: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A server did not start.
    #[error("server {server} did not start: {reason}; the end of its log:\n{log}")]
    Start {
        /// The server's name.
        server: String,
        /// What was seen of the failure.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// A statement of the kit's own failed.
    #[error("server {server}: {message} (SQLSTATE {})", sqlstate.as_deref().unwrap_or("none"))]
    Sql {
        /// The server's name.
        server: String,
        /// The server's SQLSTATE; none when the connection failed.
        sqlstate: Option<String>,
        /// The message, with its causes.
        message: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {after:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The call does not fit the state of the server or cluster.
    #[error("{0}")]
    State(String),
    /// This machine or user cannot do it.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn timeout(what: impl Into<String>, after: Duration) -> Self {
        Self::Timeout { what: what.into(), after }
    }

    /// Whether a server failed to start because another program holds its port.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Start { log, .. } if log.contains("Address already in use"))
    }

    /// The server's SQLSTATE, if it is the server that refused.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Sql { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }
}
