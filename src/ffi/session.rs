//! `segue_session`: one logical connection that outlives the servers it uses.

use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::{
    Failure, Result, boundary, copy_out, free, handle, output, text, write_optional,
};
use super::client::segue_client;
use super::codes::SEGUE_USAGE;
use super::error::segue_error;
use super::lease::SessionCell;
use super::param::{is_text, segue_param, with_params};
use super::result::segue_result;
use crate::client::{IsolationLevel, TransactionOptions};

/// A session: one logical connection. One caller at a time, from any thread; a second one at the same
/// time gets SEGUE_BUSY. It keeps its client alive, and what is made from it keeps it alive.
pub struct segue_session(pub(super) Arc<SessionCell>);

/// The session belongs where target_session_attrs says.
pub const SEGUE_SESSION_DEFAULT: i32 = 0;
/// The session belongs on the primary.
pub const SEGUE_SESSION_READ_WRITE: i32 = 1;
/// The session need not be able to write: it uses the primary while there is one, and a standby
/// otherwise. Nothing keeps it from writing on a primary; its commits are not sealed. To have sessions on
/// standbys, write target_session_attrs=read-only.
pub const SEGUE_SESSION_READ_ONLY: i32 = 2;

/// The isolation level that the server's settings say.
pub const SEGUE_ISOLATION_DEFAULT: i32 = 0;
/// READ COMMITTED.
pub const SEGUE_ISOLATION_READ_COMMITTED: i32 = 1;
/// REPEATABLE READ.
pub const SEGUE_ISOLATION_REPEATABLE_READ: i32 = 2;
/// SERIALIZABLE.
pub const SEGUE_ISOLATION_SERIALIZABLE: i32 = 3;

/// A flag of segue_session_begin(): READ ONLY.
pub const SEGUE_BEGIN_READ_ONLY: u32 = 1;
/// A flag of segue_session_begin(): DEFERRABLE, which has a meaning with SERIALIZABLE and READ ONLY.
pub const SEGUE_BEGIN_DEFERRABLE: u32 = 2;

/// Opens a session; waits for a server for at most failover_timeout_ms.
///
/// @param[in]  client       The client.
/// @param[in]  access       SEGUE_SESSION_DEFAULT, SEGUE_SESSION_READ_WRITE or SEGUE_SESSION_READ_ONLY.
/// @param[out] session_out  The session; free with segue_session_free().
/// @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                the session is open
/// @return SEGUE_FAILOVER_TIMEOUT  no usable server appeared in time
/// @return SEGUE_AUTHENTICATION, SEGUE_TLS, SEGUE_CONNECT  no server could be used, and why
/// @return SEGUE_LEDGER            ledger=require, and there is none
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_open(
    client: *const segue_client,
    access: i32,
    session_out: *mut *mut segue_session,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, session_out) =
            unsafe { (handle(client, "client")?, output(session_out, "session_out")?) };
        let mut options = client.0.session_options();
        match access {
            SEGUE_SESSION_DEFAULT => {}
            SEGUE_SESSION_READ_WRITE => options.writes = true,
            SEGUE_SESSION_READ_ONLY => options.writes = false,
            _ => return Err(Failure::argument(format!("there is no access mode {access}"))),
        }
        let session = client.0.session_with(&options)?;
        session_out.give(segue_session(Arc::new(SessionCell::new(session))));
        Ok(())
    })
}

/// Executes a statement. Outside a transaction it is committed by itself, exactly once.
///
/// @param[in]  session            The session.
/// @param[in]  sql                One statement, with $1, $2, ... for parameters; or several, separated
///                                by semicolons, without parameters, as one implicit transaction.
/// @param[in]  params             The parameters; NULL if there are none.
/// @param[in]  params_len         Their number.
/// @param[out] rows_affected_out  Optional: the number of rows affected or returned.
/// @param[out] error_out          Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK               it is executed
/// @return SEGUE_SERVER           the server's own error
/// @return SEGUE_OUTCOME_UNKNOWN, SEGUE_REPLAY_DIVERGED, SEGUE_REPLY_LOST, SEGUE_PROTECTION_LOST,
///         SEGUE_FAILOVER_TIMEOUT  the server was lost: segue_error_outcome() says what became of it
/// Threads: one caller at a time per session. Blocks for the statement, and for at most
/// failover_timeout_ms without a server.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_execute(
    session: *mut segue_session,
    sql: *const c_char,
    params: *const segue_param,
    params_len: usize,
    rows_affected_out: *mut u64,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, sql) = unsafe { (handle(session, "session")?, text(sql, "sql")?) };
        let execute = |params: &[&dyn crate::ToSql]| {
            session.0.with(|session| Ok(session.execute(sql, params)?))
        };
        // SAFETY: the header's contract for parameters and an optional output.
        unsafe { write_optional(rows_affected_out, with_params(params, params_len, execute)?) };
        Ok(())
    })
}

/// Executes a statement and returns all that it returns.
///
/// @param[in]  session     The session.
/// @param[in]  sql         As for segue_session_execute(); of several statements the last one's rows.
/// @param[in]  params      The parameters; NULL if there are none.
/// @param[in]  params_len  Their number.
/// @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY. Several statements give text.
/// @param[out] result_out  The result; free with segue_result_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_query(
    session: *mut segue_session,
    sql: *const c_char,
    params: *const segue_param,
    params_len: usize,
    format: i32,
    result_out: *mut *mut segue_result,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, sql) = unsafe { (handle(session, "session")?, text(sql, "sql")?) };
        // SAFETY: the header's contract for an output.
        let result_out = unsafe { output(result_out, "result_out") }?;
        let text = is_text(format)?;
        let query = |params: &[&dyn crate::ToSql]| {
            session.0.with(|session| Ok(session.query_rows(sql, params, text)?))
        };
        // SAFETY: the header's contract for parameters.
        let result = unsafe { with_params(params, params_len, query) }?;
        result_out.give(segue_result::new(result, text));
        Ok(())
    })
}

/// Executes one or more statements, separated by semicolons, as one implicit transaction (unless they
/// control it themselves). Values come as text.
///
/// @param[in]  session      The session.
/// @param[in]  sql          The statements.
/// @param[out] results_out  The first one's result; segue_result_next() gives the next one's. Free the
///                          first with segue_result_free().
/// @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_batch(
    session: *mut segue_session,
    sql: *const c_char,
    results_out: *mut *mut segue_result,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, sql) = unsafe { (handle(session, "session")?, text(sql, "sql")?) };
        // SAFETY: the header's contract for an output.
        let results_out = unsafe { output(results_out, "results_out") }?;
        let results = session.0.with(|session| Ok(session.batch(sql)?))?;
        results_out.give(segue_result::chain(results, true));
        Ok(())
    })
}

/// Begins a transaction. BEGIN travels with the first statement.
///
/// @param[in]  session    The session.
/// @param[in]  isolation  SEGUE_ISOLATION_...
/// @param[in]  flags      SEGUE_BEGIN_READ_ONLY and SEGUE_BEGIN_DEFERRABLE, or'ed; or 0.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK     a transaction is open
/// @return SEGUE_USAGE  there is one already; it goes on
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_begin(
    session: *mut segue_session,
    isolation: i32,
    flags: u32,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let session = unsafe { handle(session, "session") }?;
        let options = begin_options(isolation, flags)?;
        session.0.with(|session| Ok(session.begin(&options)?))
    })
}

fn begin_options(isolation: i32, flags: u32) -> Result<TransactionOptions> {
    let isolation = match isolation {
        SEGUE_ISOLATION_DEFAULT => None,
        SEGUE_ISOLATION_READ_COMMITTED => Some(IsolationLevel::ReadCommitted),
        SEGUE_ISOLATION_REPEATABLE_READ => Some(IsolationLevel::RepeatableRead),
        SEGUE_ISOLATION_SERIALIZABLE => Some(IsolationLevel::Serializable),
        _ => return Err(Failure::argument(format!("there is no isolation level {isolation}"))),
    };
    let known = SEGUE_BEGIN_READ_ONLY | SEGUE_BEGIN_DEFERRABLE;
    if flags & !known != 0 {
        return Err(Failure::argument(format!("there is no flag {:#x}", flags & !known)));
    }
    Ok(TransactionOptions {
        isolation,
        read_only: flags & SEGUE_BEGIN_READ_ONLY != 0,
        deferrable: flags & SEGUE_BEGIN_DEFERRABLE != 0,
    })
}

/// Commits the open transaction, failing over and replaying it if its server is lost.
///
/// @param[in]  session    The session, with an open transaction.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                  committed exactly once on the server now in use
/// @return SEGUE_TRANSACTION_FAILED  it had failed earlier and was rolled back
/// @return SEGUE_SERVER              the server's own error; it is rolled back
/// @return SEGUE_OUTCOME_UNKNOWN     see segue_error_outcome()
/// @return SEGUE_REPLAY_DIVERGED     not committed: the replay gave other results than were seen
/// @return SEGUE_USAGE               no transaction is open
/// Threads: one caller at a time per session. Blocks for at most failover_timeout_ms.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_commit(
    session: *mut segue_session,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let session = unsafe { handle(session, "session") }?;
        session.0.with(|session| Ok(session.commit()?))
    })
}

/// Rolls the open transaction back.
///
/// @param[in]  session    The session, with an open transaction.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK     nothing of it is committed
/// @return SEGUE_USAGE  no transaction is open
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_rollback(
    session: *mut segue_session,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let session = unsafe { handle(session, "session") }?;
        session.0.with(|session| Ok(session.rollback()?))
    })
}

/// Executes a statement about a savepoint, whose name is quoted.
///
/// # Safety
/// The header's contract for a handle and a string.
unsafe fn savepoint(
    statement: &str,
    session: *mut segue_session,
    name: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the caller's promise.
        let (session, name) = unsafe { (handle(session, "session")?, text(name, "name")?) };
        if name.is_empty() {
            return Err(Failure::argument("the name of a savepoint cannot be empty"));
        }
        let sql = format!("{statement} \"{}\"", name.replace('"', "\"\""));
        session.0.with(|session| Ok(session.execute(&sql, &[]).map(drop)?))
    })
}

/// Makes a savepoint in the open transaction.
///
/// @param[in]  session    The session, with an open transaction.
/// @param[in]  name       The savepoint's name; need not be quoted.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_savepoint(
    session: *mut segue_session,
    name: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the header's contract for a handle and a string.
    unsafe { savepoint("SAVEPOINT", session, name, error_out) }
}

/// Undoes all since a savepoint, which stays. A transaction that has failed since goes on.
///
/// @param[in]  session    The session, with an open transaction.
/// @param[in]  name       The savepoint's name; need not be quoted.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_rollback_to(
    session: *mut segue_session,
    name: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the header's contract for a handle and a string.
    unsafe { savepoint("ROLLBACK TO SAVEPOINT", session, name, error_out) }
}

/// Lets go of a savepoint; what was done since stays part of the transaction.
///
/// @param[in]  session    The session, with an open transaction.
/// @param[in]  name       The savepoint's name; need not be quoted.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_release(
    session: *mut segue_session,
    name: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the header's contract for a handle and a string.
    unsafe { savepoint("RELEASE SAVEPOINT", session, name, error_out) }
}

/// A setting that the server reports, such as server_version or TimeZone, copied.
///
/// @param[in]  session     The session.
/// @param[in]  name        The setting's name.
/// @param[out] buffer      Where the value and a NUL go; NULL asks for the length alone.
/// @param[in]  capacity    The number of bytes that the buffer has room for.
/// @param[out] length_out  The length of the value without the NUL.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK     it is there
/// @return SEGUE_USAGE  the server does not report such a setting: ask with SHOW
/// @return SEGUE_LIMIT  the buffer is too small; nothing was written
/// Threads: one caller at a time per session. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_parameter(
    session: *const segue_session,
    name: *const c_char,
    buffer: *mut c_char,
    capacity: usize,
    length_out: *mut usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, name) = unsafe { (handle(session, "session")?, text(name, "name")?) };
        // SAFETY: the header's contract for an output.
        let length_out = unsafe { output(length_out, "length_out") }?;
        session.0.with(|session| {
            let value = session.parameter(name).ok_or_else(|| {
                Failure::reading(SEGUE_USAGE, "the server does not report such a setting")
            })?;
            // SAFETY: the header's contract: NULL, or room for `capacity` bytes.
            unsafe { copy_out(value.as_bytes(), true, buffer.cast(), capacity, length_out) }
        })
    })
}

/// Ends a session; an open transaction is rolled back. What was made from it stays valid, and keeps
/// the connection until it is freed as well.
///
/// @param[in] session  A session; NULL does nothing.
/// Threads: any, once nobody else uses the session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_free(session: *mut segue_session) {
    // SAFETY: the header's contract: NULL or a session that has not been freed.
    unsafe { free(session) }
}
