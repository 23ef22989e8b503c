//! The one error type: what happened ([`ErrorKind`]), what became of the transaction
//! ([`Outcome`]), and what to do about it.
//!
//! Kind and outcome are separate on purpose: advice to retry derives from the outcome alone.
//! A server's own error passes through unchanged, as a [`ServerError`].
//! Neither a secret nor a parameter's value may ever be put into a message here.

use std::fmt;
use std::sync::Arc;

/// The result of nearly everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What became of the transaction (or of the autocommit statement) that an error ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing of it is in the database, and nothing of it will be.
    NotCommitted,
    /// It is in the database, exactly once.
    Committed,
    /// It cannot be said: the ledger is off, or no server could be asked before the deadline.
    Unknown,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration is wrong or contradicts itself.
    Config,
    /// A server could not be reached.
    Connect,
    /// TLS could not be agreed upon, or a certificate was refused.
    Tls,
    /// The server refused the user, or asked for a method that the configuration does not allow.
    Authentication,
    /// The server sent bytes that are not PostgreSQL's protocol.
    Protocol,
    /// The server's own error; see [`Error::server_error`].
    Server,
    /// The link was lost and nothing can be said of the commit that was in flight.
    OutcomeUnknown,
    /// The replay gave other results than the application has seen; it was rolled back.
    ReplayDiverged,
    /// The commit stands, but the server's reply to the statement is lost.
    ReplyLost,
    /// The link was lost and the transaction was not protected; the message names the reason.
    ProtectionLost,
    /// No usable server appeared before `failover_timeout_ms` had passed.
    FailoverTimeout,
    /// `ledger=require`, and the server's ledger is missing or may not be used.
    Ledger,
    /// COMMIT was asked for in a transaction that had failed earlier: it was rolled back.
    TransactionFailed,
    /// The server has crashed each time that it ran a submission alone, which is a dead letter now.
    ServerCrash,
    /// The call does not fit the state of the handle.
    Usage,
    /// A value could not be converted to or from its PostgreSQL type.
    Conversion,
    /// A limit of the configuration was reached.
    Limit,
    /// The handle was closed.
    Closed,
    /// The handle was made by the process that forked this one.
    Forked,
}

/// An error of the server, field by field, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, not localised.
    pub severity: String,
    /// SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// Secondary message.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Position in the statement, in characters from 1.
    pub position: Option<u32>,
    /// Position in the internally generated statement.
    pub internal_position: Option<u32>,
    /// The internally generated statement.
    pub internal_query: Option<String>,
    /// The call stack within the server.
    pub context: Option<String>,
    /// Schema name.
    pub schema: Option<String>,
    /// Table name.
    pub table: Option<String>,
    /// Column name.
    pub column: Option<String>,
    /// Data type name.
    pub datatype: Option<String>,
    /// Constraint name.
    pub constraint: Option<String>,
    /// Source file, line and routine of the server.
    pub file: Option<String>,
    /// Source line of the server.
    pub line: Option<u32>,
    /// Routine of the server.
    pub routine: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)
    }
}

impl std::error::Error for ServerError {}

/// What went wrong, what became of the transaction, and what caused it.
///
/// Cloning is cheap: an error is shared, because one lost server may answer many requests.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    message: String,
    server: Option<Box<ServerError>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a message of Segue's own. The outcome is [`Outcome::NotCommitted`]
    /// until [`with_outcome`](Self::with_outcome) says otherwise.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            outcome: Outcome::NotCommitted,
            message: message.into(),
            server: None,
            source: None,
        }))
    }

    /// The server's own error, unchanged.
    pub fn server(error: ServerError, outcome: Outcome) -> Self {
        Self(Arc::new(Inner {
            kind: ErrorKind::Server,
            outcome,
            message: String::new(),
            server: Some(Box::new(error)),
            source: None,
        }))
    }

    /// The same error with another outcome.
    #[must_use]
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        self.rebuild(|inner| inner.outcome = outcome)
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        self.rebuild(|inner| inner.source = Some(source))
    }

    /// The same error with the server's error that caused it.
    #[must_use]
    pub fn with_server_error(self, error: ServerError) -> Self {
        self.rebuild(|inner| inner.server = Some(Box::new(error)))
    }

    fn rebuild(self, change: impl FnOnce(&mut Inner)) -> Self {
        // A shared error loses its source here; errors are built before they are shared.
        let mut inner = Arc::try_unwrap(self.0).unwrap_or_else(|shared| Inner {
            kind: shared.kind,
            outcome: shared.outcome,
            message: shared.message.clone(),
            server: shared.server.clone(),
            source: None,
        });
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What became of the transaction.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The server's own error, where it sent one.
    pub fn server_error(&self) -> Option<&ServerError> {
        self.0.server.as_deref()
    }

    /// SQLSTATE: the server's where it sent one, else the standard code nearest to the kind.
    pub fn sqlstate(&self) -> &str {
        if let (ErrorKind::Server, Some(server)) = (self.0.kind, &self.0.server) {
            return &server.code;
        }
        match self.0.kind {
            ErrorKind::Config => "F0000",
            ErrorKind::Connect | ErrorKind::Tls => "08001",
            ErrorKind::Authentication => "28000",
            ErrorKind::Protocol => "08P01",
            ErrorKind::Server => "XX000",
            ErrorKind::OutcomeUnknown => "08007",
            ErrorKind::ReplayDiverged => "40001",
            ErrorKind::ReplyLost => "02000",
            ErrorKind::ProtectionLost | ErrorKind::FailoverTimeout => "08006",
            ErrorKind::Ledger => "55000",
            ErrorKind::TransactionFailed => "25P02",
            ErrorKind::ServerCrash => "57P02",
            ErrorKind::Usage => "HY010",
            ErrorKind::Conversion => "22023",
            ErrorKind::Limit => "54000",
            ErrorKind::Closed | ErrorKind::Forked => "08003",
        }
    }

    /// Whether running the whole transaction again is certain not to apply it twice.
    pub fn is_retryable(&self) -> bool {
        let transient = match self.0.kind {
            ErrorKind::Server => matches!(self.sqlstate(), "40001" | "40P01" | "55P03" | "57014"),
            ErrorKind::Connect
            | ErrorKind::Protocol
            | ErrorKind::ReplayDiverged
            | ErrorKind::ProtectionLost
            | ErrorKind::FailoverTimeout => true,
            _ => false,
        };
        transient && self.0.outcome == Outcome::NotCommitted
    }

    /// Whether the transaction may stand although an error was reported.
    pub fn maybe_committed(&self) -> bool {
        self.0.outcome != Outcome::NotCommitted
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.kind, &self.0.server) {
            (ErrorKind::Server, Some(server)) => server.fmt(f),
            _ => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Error");
        d.field("kind", &self.0.kind).field("outcome", &self.0.outcome);
        if !self.0.message.is_empty() {
            d.field("message", &self.0.message);
        }
        if let Some(server) = &self.0.server {
            // Detail may carry the values of a row; it is left out of Debug output.
            d.field("sqlstate", &server.code).field("server_message", &server.message);
        }
        if let Some(source) = &self.0.source {
            d.field("source", source);
        }
        d.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Some(source) = &self.0.source {
            return Some(&**source);
        }
        match (&self.0.kind, &self.0.server) {
            (ErrorKind::Server, _) | (_, None) => None,
            (_, Some(server)) => Some(&**server),
        }
    }
}
