//! `segue_recovered_statements`: what a transaction of an earlier process had executed.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::boundary::{Failure, Result, boundary, free, handle, output, read, write_optional};
use super::codes::SEGUE_FORKED;
use super::error::{c_string, segue_error};
use super::param::{SEGUE_FORMAT_BINARY, SEGUE_FORMAT_TEXT, segue_param, segue_param_value};
use crate::client::{Client, Raw, RecoveredStatement, RecoveredStatements, process_id};

/// The statements of one transaction, one at a time: what the functions below say is said of the one that
/// segue_recovered_statements_next() has come to. One caller at a time.
pub struct segue_recovered_statements {
    place: Mutex<Place>,
    /// The journal is closed with the last that holds the client.
    _client: Client,
    process: u32,
}

struct Place {
    statements: RecoveredStatements,
    here: Option<Here>,
}

/// A statement, in C's terms.
struct Here {
    sql: CString,
    /// They point into the statement's own memory, which is not touched as long as it is here.
    params: Vec<segue_param>,
    statement: RecoveredStatement,
}

impl Here {
    fn new(statement: RecoveredStatement) -> Self {
        let encoded = |raw: Raw<'_>| match raw.value {
            Some(value) => {
                let format = if raw.text { SEGUE_FORMAT_TEXT } else { SEGUE_FORMAT_BINARY };
                segue_param_value(raw.type_oid, format, value.as_ptr().cast(), value.len())
            }
            None => segue_param_value(raw.type_oid, SEGUE_FORMAT_TEXT, ptr::null(), 0),
        };
        let params = statement.values().into_iter().map(encoded).collect();
        Self { params, sql: c_string(statement.sql.as_str()), statement }
    }
}

impl segue_recovered_statements {
    pub(super) fn new(client: &Client, statements: RecoveredStatements) -> Self {
        let place = Mutex::new(Place { statements, here: None });
        Self { place, _client: client.clone(), process: process_id() }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_on(&self) -> Result<bool> {
        if self.process != process_id() {
            let message = "it was recovered before fork(): the journal is the parent process's";
            return Err(Failure::new(SEGUE_FORKED, message));
        }
        let mut place = self.place();
        place.here = None;
        place.here = place.statements.next().transpose()?.map(Here::new);
        Ok(place.here.is_some())
    }
}

/// What an accessor gives for the statement that it stands at; `fallback` if it stands at none.
///
/// # Safety
/// The header's contract: NULL or statements that have not been freed.
unsafe fn here<T: Copy>(
    statements: *const segue_recovered_statements,
    fallback: T,
    body: impl FnOnce(&Here) -> T,
) -> T {
    // SAFETY: the caller's promise.
    unsafe { read(statements, fallback, |it| it.place().here.as_ref().map(body)) }
}

/// Goes on to the next statement. What was got of the one before is good no longer.
///
/// @param[in]  statements  The statements.
/// @param[out] there_out   true if there is one; false behind the last.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK        there_out says it
/// @return SEGUE_CONFIG    the journal's file cannot be read
/// @return SEGUE_PROTOCOL  part of the statement's data was never written; there is no more behind it
/// @return SEGUE_FORKED    they were found before fork()
/// Threads: one caller at a time. Waits for the disk alone.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovered_statements_next(
    statements: *mut segue_recovered_statements,
    there_out: *mut bool,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (statements, there_out) = unsafe {
            (handle(statements.cast_const(), "statements")?, output(there_out, "there_out")?)
        };
        there_out.write(statements.go_on()?);
        Ok(())
    })
}

/// The text of the statement.
///
/// @param[in] statements  The statements, or NULL.
/// @return a text that lives until the next statement; NULL if it stands at none
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovered_statements_sql(
    statements: *const segue_recovered_statements,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or statements that have not been freed.
    unsafe { here(statements, ptr::null(), |here| here.sql.as_ptr()) }
}

/// Whether the statement was sent as a simple query: a string of any number of statements, without
/// parameters.
///
/// @param[in] statements  The statements, or NULL.
/// @return true if it was; false if it stands at none
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovered_statements_is_simple(
    statements: *const segue_recovered_statements,
) -> bool {
    // SAFETY: the header's contract: NULL or statements that have not been freed.
    unsafe { here(statements, false, |here| here.statement.simple) }
}

/// The parameters of the statement, as they were sent: segue_session_execute() and its like take them as they
/// are.
///
/// @param[in]  statements  The statements, or NULL.
/// @param[out] length_out  Optional: the number of parameters; 0 if it stands at no statement.
/// @return the parameters, which live until the next statement; NULL if there are none
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovered_statements_params(
    statements: *const segue_recovered_statements,
    length_out: *mut usize,
) -> *const segue_param {
    let params = |here: &Here| match here.params.as_slice() {
        [] => (ptr::null(), 0),
        params => (params.as_ptr(), params.len()),
    };
    // SAFETY: the header's contract: NULL or statements that have not been freed.
    let (params, length) = unsafe { here(statements, (ptr::null(), 0), params) };
    // SAFETY: the header's contract for an output.
    unsafe { write_optional(length_out, length) };
    params
}

/// What was sent to the server behind COPY ... FROM STDIN.
///
/// @param[in]  statements  The statements, or NULL.
/// @param[out] length_out  Optional: the number of bytes; 0 for any other statement, or if it stands at none.
/// @return the bytes, which live until the next statement; NULL if there are none
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovered_statements_copy_data(
    statements: *const segue_recovered_statements,
    length_out: *mut usize,
) -> *const c_void {
    let data = |here: &Here| match &*here.statement.copy_data {
        [] => (ptr::null(), 0),
        data => (data.as_ptr().cast::<c_void>(), data.len()),
    };
    // SAFETY: the header's contract: NULL or statements that have not been freed.
    let (data, length) = unsafe { here(statements, (ptr::null(), 0), data) };
    // SAFETY: the header's contract for an output.
    unsafe { write_optional(length_out, length) };
    data
}

/// Frees the statements; the journal keeps them.
///
/// @param[in] statements  The statements; NULL does nothing.
/// Threads: any, once nobody else uses them. Where they are the last that keeps the client alive, as
/// segue_client_free().
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovered_statements_free(
    statements: *mut segue_recovered_statements,
) {
    // SAFETY: the header's contract: NULL or statements that have not been freed.
    unsafe { free(statements) }
}
