//! `segue_statement`: a statement that the server has looked at.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use super::boundary::{array, boundary, free, handle, output, read, text, write_optional};
use super::error::{c_string, segue_error};
use super::lease::SessionCell;
use super::param::{is_text, segue_param, with_params};
use super::result::segue_result;
use super::session::segue_session;
use super::stream::segue_stream;
use crate::client::Prepared;

/// A prepared statement of a session, good on every server that the session moves to. It is used like
/// its session: one caller at a time. What it tells of itself any thread may ask.
pub struct segue_statement {
    cell: Arc<SessionCell>,
    pub(super) prepared: Prepared,
    sql: CString,
    names: Vec<CString>,
}

/// Has the server look at a statement: the types of its parameters and its columns. Ordinary
/// statements need not be prepared for speed: that happens by itself.
///
/// @param[in]  session        The session.
/// @param[in]  sql            One statement.
/// @param[in]  type_oids      The types of the first parameters, 0 for those that the server is to
///                            infer; NULL if there are none.
/// @param[in]  type_oids_len  Their number.
/// @param[out] statement_out  The statement; free with segue_statement_free().
/// @param[out] error_out      Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_prepare(
    session: *mut segue_session,
    sql: *const c_char,
    type_oids: *const u32,
    type_oids_len: usize,
    statement_out: *mut *mut segue_statement,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, sql) = unsafe { (handle(session, "session")?, text(sql, "sql")?) };
        // SAFETY: the header's contract for an array.
        let oids = unsafe { array(type_oids, type_oids_len, "type_oids") }?;
        // SAFETY: the header's contract for an output.
        let statement_out = unsafe { output(statement_out, "statement_out") }?;
        let prepared = session.0.with(|session| Ok(session.prepare_typed(sql, oids)?))?;
        statement_out.give(segue_statement {
            cell: Arc::clone(&session.0),
            sql: c_string(prepared.sql()),
            names: prepared.columns().iter().map(|c| c_string(c.name.as_str())).collect(),
            prepared,
        });
        Ok(())
    })
}

/// Executes a prepared statement; see segue_session_execute().
///
/// @param[in]  statement          The statement.
/// @param[in]  params             The parameters; NULL if there are none.
/// @param[in]  params_len         Their number.
/// @param[out] rows_affected_out  Optional: the number of rows affected or returned.
/// @param[out] error_out          Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute(); SEGUE_USAGE for another number of parameters
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_execute(
    statement: *const segue_statement,
    params: *const segue_param,
    params_len: usize,
    rows_affected_out: *mut u64,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let statement = unsafe { handle(statement, "statement") }?;
        let execute = |params: &[&dyn crate::ToSql]| {
            statement.cell.with(|session| Ok(session.execute(&statement.prepared, params)?))
        };
        // SAFETY: the header's contract for parameters and an optional output.
        unsafe { write_optional(rows_affected_out, with_params(params, params_len, execute)?) };
        Ok(())
    })
}

/// Executes a prepared statement and returns all that it returns; see segue_session_query().
///
/// @param[in]  statement   The statement.
/// @param[in]  params      The parameters; NULL if there are none.
/// @param[in]  params_len  Their number.
/// @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
/// @param[out] result_out  The result; free with segue_result_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute(); SEGUE_USAGE for another number of parameters
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_query(
    statement: *const segue_statement,
    params: *const segue_param,
    params_len: usize,
    format: i32,
    result_out: *mut *mut segue_result,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (statement, result_out) =
            unsafe { (handle(statement, "statement")?, output(result_out, "result_out")?) };
        let text = is_text(format)?;
        let query = |params: &[&dyn crate::ToSql]| {
            statement
                .cell
                .with(|session| Ok(session.query_rows(&statement.prepared, params, text)?))
        };
        // SAFETY: the header's contract for parameters.
        let result = unsafe { with_params(params, params_len, query) }?;
        result_out.give(segue_result::new(result, text));
        Ok(())
    })
}

/// Executes a prepared statement and hands its rows over as they arrive; see segue_session_stream().
///
/// @param[in]  statement   The statement.
/// @param[in]  params      The parameters; NULL if there are none.
/// @param[in]  params_len  Their number.
/// @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
/// @param[out] stream_out  The rows; free with segue_stream_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_stream()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_stream(
    statement: *const segue_statement,
    params: *const segue_param,
    params_len: usize,
    format: i32,
    stream_out: *mut *mut segue_stream,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (statement, stream_out) =
            unsafe { (handle(statement, "statement")?, output(stream_out, "stream_out")?) };
        let text = is_text(format)?;
        let start = |params: &[&dyn crate::ToSql]| {
            segue_stream::start(&statement.cell, &statement.prepared, params, text)
        };
        // SAFETY: the header's contract for parameters.
        stream_out.give(unsafe { with_params(params, params_len, start) }?);
        Ok(())
    })
}

/// The text of a statement.
///
/// @param[in] statement  A statement, or NULL.
/// @return its text, good until segue_statement_free(); NULL for NULL
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_sql(statement: *const segue_statement) -> *const c_char {
    // SAFETY: the header's contract: NULL or a statement that has not been freed.
    unsafe { read(statement, ptr::null(), |statement| Some(statement.sql.as_ptr())) }
}

/// The number of parameters that a statement takes.
///
/// @param[in] statement  A statement; NULL gives 0.
/// @return the number of parameters
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_param_count(statement: *const segue_statement) -> usize {
    // SAFETY: the header's contract: NULL or a statement that has not been freed.
    unsafe { read(statement, 0, |statement| Some(statement.prepared.param_oids().len())) }
}

/// The OID of a parameter's type, as the server has inferred it.
///
/// @param[in] statement  A statement, or NULL.
/// @param[in] param      The parameter's position: 0 for $1.
/// @return the OID; 0 if there is no such parameter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_param_type(
    statement: *const segue_statement,
    param: usize,
) -> u32 {
    let oid = |statement: &segue_statement| statement.prepared.param_oids().get(param).copied();
    // SAFETY: the header's contract: NULL or a statement that has not been freed.
    unsafe { read(statement, 0, oid) }
}

/// The number of columns that a statement returns.
///
/// @param[in] statement  A statement; NULL gives 0.
/// @return the number of columns; 0 for a statement that returns no rows
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_column_count(statement: *const segue_statement) -> usize {
    // SAFETY: the header's contract: NULL or a statement that has not been freed.
    unsafe { read(statement, 0, |statement| Some(statement.prepared.columns().len())) }
}

/// The name of a column that a statement returns.
///
/// @param[in] statement  A statement, or NULL.
/// @param[in] column     The column's position.
/// @return its name, good until segue_statement_free(); NULL if there is no such column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_column_name(
    statement: *const segue_statement,
    column: usize,
) -> *const c_char {
    let name = |statement: &segue_statement| Some(statement.names.get(column)?.as_ptr());
    // SAFETY: the header's contract: NULL or a statement that has not been freed.
    unsafe { read(statement, ptr::null(), name) }
}

/// The OID of the type of a column that a statement returns.
///
/// @param[in] statement  A statement, or NULL.
/// @param[in] column     The column's position.
/// @return the OID; 0 if there is no such column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_column_type(
    statement: *const segue_statement,
    column: usize,
) -> u32 {
    let oid =
        |statement: &segue_statement| Some(statement.prepared.columns().get(column)?.type_oid);
    // SAFETY: the header's contract: NULL or a statement that has not been freed.
    unsafe { read(statement, 0, oid) }
}

/// Frees a statement. Its results stay.
///
/// @param[in] statement  A statement; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statement_free(statement: *mut segue_statement) {
    // SAFETY: the header's contract: NULL or a statement that has not been freed.
    unsafe { free(statement) }
}
