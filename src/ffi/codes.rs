//! Status codes and their names. A value is never given another meaning; ranges have gaps on purpose.

use std::ffi::{CStr, c_char};

use crate::error::{ErrorKind, Outcome};

/// Success.
pub const SEGUE_OK: i32 = 0;
/// NULL where it is not allowed, text that is not UTF-8, an unknown constant, a row or column that does not exist.
pub const SEGUE_INVALID_ARGUMENT: i32 = 1;
/// The call does not fit the state of the handle.
pub const SEGUE_USAGE: i32 = 2;
/// The session is in use by another thread, or by a stream, COPY or pipeline that is still open.
pub const SEGUE_BUSY: i32 = 3;
/// The handle was closed.
pub const SEGUE_CLOSED: i32 = 4;
/// The handle was made by the process that forked this one.
pub const SEGUE_FORKED: i32 = 5;
/// A value could not be converted to or from its PostgreSQL type.
pub const SEGUE_CONVERSION: i32 = 6;
/// A typed getter met SQL's NULL.
pub const SEGUE_NULL_VALUE: i32 = 7;
/// A limit of the configuration was reached, or a buffer is too small.
pub const SEGUE_LIMIT: i32 = 8;
/// The configuration is not valid.
pub const SEGUE_CONFIG: i32 = 100;
/// No connection could be opened.
pub const SEGUE_CONNECT: i32 = 101;
/// The server refused the credentials, or asked for a method that is not allowed.
pub const SEGUE_AUTHENTICATION: i32 = 102;
/// The TLS handshake failed, or the server's certificate is not the expected one.
pub const SEGUE_TLS: i32 = 103;
/// The server sent what the protocol does not allow.
pub const SEGUE_PROTOCOL: i32 = 104;
/// The server's own error, unchanged: see segue_error_sqlstate() and segue_error_field().
pub const SEGUE_SERVER: i32 = 200;
/// COMMIT was sent, the server was lost, and no ledger can tell what became of it.
pub const SEGUE_OUTCOME_UNKNOWN: i32 = 300;
/// Not committed: the replay gave other results than the application has seen.
pub const SEGUE_REPLAY_DIVERGED: i32 = 301;
/// Committed, but what the statement returned was lost with the server.
pub const SEGUE_REPLY_LOST: i32 = 302;
/// The server was lost while the session had no protection.
pub const SEGUE_PROTECTION_LOST: i32 = 303;
/// No usable server appeared before failover_timeout_ms had passed.
pub const SEGUE_FAILOVER_TIMEOUT: i32 = 304;
/// ledger=require, and the server's ledger is missing or may not be used.
pub const SEGUE_LEDGER: i32 = 305;
/// COMMIT was asked for in a transaction that had failed earlier: it was rolled back.
pub const SEGUE_TRANSACTION_FAILED: i32 = 306;
/// Not committed: the server has crashed each time that it ran the submission alone.
pub const SEGUE_SERVER_CRASH: i32 = 307;
/// A bug of Segue's. The handle is closed, the process is unharmed.
pub const SEGUE_INTERNAL: i32 = 900;

/// Nothing of the transaction is committed.
pub const SEGUE_TXN_NOT_COMMITTED: i32 = 0;
/// The transaction is committed, although an error was reported.
pub const SEGUE_TXN_COMMITTED: i32 = 1;
/// It cannot be told whether the transaction is committed.
pub const SEGUE_TXN_UNKNOWN: i32 = 2;

pub(super) fn of(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::Config => SEGUE_CONFIG,
        ErrorKind::Connect => SEGUE_CONNECT,
        ErrorKind::Authentication => SEGUE_AUTHENTICATION,
        ErrorKind::Tls => SEGUE_TLS,
        ErrorKind::Protocol => SEGUE_PROTOCOL,
        ErrorKind::Server => SEGUE_SERVER,
        ErrorKind::OutcomeUnknown => SEGUE_OUTCOME_UNKNOWN,
        ErrorKind::ReplayDiverged => SEGUE_REPLAY_DIVERGED,
        ErrorKind::ReplyLost => SEGUE_REPLY_LOST,
        ErrorKind::ProtectionLost => SEGUE_PROTECTION_LOST,
        ErrorKind::FailoverTimeout => SEGUE_FAILOVER_TIMEOUT,
        ErrorKind::Ledger => SEGUE_LEDGER,
        ErrorKind::TransactionFailed => SEGUE_TRANSACTION_FAILED,
        ErrorKind::ServerCrash => SEGUE_SERVER_CRASH,
        ErrorKind::Usage => SEGUE_USAGE,
        ErrorKind::Conversion => SEGUE_CONVERSION,
        ErrorKind::Limit => SEGUE_LIMIT,
        ErrorKind::Closed => SEGUE_CLOSED,
        ErrorKind::Forked => SEGUE_FORKED,
    }
}

pub(super) fn of_outcome(outcome: Outcome) -> i32 {
    match outcome {
        Outcome::NotCommitted => SEGUE_TXN_NOT_COMMITTED,
        Outcome::Committed => SEGUE_TXN_COMMITTED,
        Outcome::Unknown => SEGUE_TXN_UNKNOWN,
    }
}

/// SQLSTATE of the boundary's own statuses.
pub(super) fn sqlstate(status: i32) -> &'static str {
    match status {
        SEGUE_INVALID_ARGUMENT => "HY009",
        SEGUE_USAGE | SEGUE_BUSY => "HY010",
        SEGUE_CLOSED | SEGUE_FORKED => "08003",
        SEGUE_CONVERSION => "22023",
        SEGUE_NULL_VALUE => "22002",
        SEGUE_LIMIT => "54000",
        _ => "XX000",
    }
}

/// The name of a status code.
///
/// @param[in] status  A status that a function has returned.
/// @return its constant's name, such as "SEGUE_BUSY"; "unknown" for a value that is none
/// Threads: any. The text is static.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_status_name(status: i32) -> *const c_char {
    name(status).as_ptr()
}

fn name(status: i32) -> &'static CStr {
    match status {
        SEGUE_OK => c"SEGUE_OK",
        SEGUE_INVALID_ARGUMENT => c"SEGUE_INVALID_ARGUMENT",
        SEGUE_USAGE => c"SEGUE_USAGE",
        SEGUE_BUSY => c"SEGUE_BUSY",
        SEGUE_CLOSED => c"SEGUE_CLOSED",
        SEGUE_FORKED => c"SEGUE_FORKED",
        SEGUE_CONVERSION => c"SEGUE_CONVERSION",
        SEGUE_NULL_VALUE => c"SEGUE_NULL_VALUE",
        SEGUE_LIMIT => c"SEGUE_LIMIT",
        SEGUE_CONFIG => c"SEGUE_CONFIG",
        SEGUE_CONNECT => c"SEGUE_CONNECT",
        SEGUE_AUTHENTICATION => c"SEGUE_AUTHENTICATION",
        SEGUE_TLS => c"SEGUE_TLS",
        SEGUE_PROTOCOL => c"SEGUE_PROTOCOL",
        SEGUE_SERVER => c"SEGUE_SERVER",
        SEGUE_OUTCOME_UNKNOWN => c"SEGUE_OUTCOME_UNKNOWN",
        SEGUE_REPLAY_DIVERGED => c"SEGUE_REPLAY_DIVERGED",
        SEGUE_REPLY_LOST => c"SEGUE_REPLY_LOST",
        SEGUE_PROTECTION_LOST => c"SEGUE_PROTECTION_LOST",
        SEGUE_FAILOVER_TIMEOUT => c"SEGUE_FAILOVER_TIMEOUT",
        SEGUE_LEDGER => c"SEGUE_LEDGER",
        SEGUE_TRANSACTION_FAILED => c"SEGUE_TRANSACTION_FAILED",
        SEGUE_SERVER_CRASH => c"SEGUE_SERVER_CRASH",
        SEGUE_INTERNAL => c"SEGUE_INTERNAL",
        _ => c"unknown",
    }
}
