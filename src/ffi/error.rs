//! `segue_error`: what went wrong, what became of the transaction, and the server's own fields.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use super::boundary::{Failure, free, read};
use super::codes;
use crate::error::{Outcome, ServerError};

/// An error. Immutable: any thread may read it. Every text in it lives as long as it does.
#[derive(Debug)]
pub struct segue_error {
    status: i32,
    outcome: i32,
    retryable: bool,
    message: CString,
    sqlstate: CString,
    cause: Option<CString>,
    fields: Fields,
}

/// The fields of a server's error or notice, by the protocol's codes.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(u8, CString)>);

impl Fields {
    pub fn new(error: &ServerError) -> Self {
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let all = [
            (b'S', Some(error.severity.clone())),
            (b'V', Some(error.severity.clone())),
            (b'C', Some(error.code.clone())),
            (b'M', Some(error.message.clone())),
            (b'D', error.detail.clone()),
            (b'H', error.hint.clone()),
            (b'P', number(error.position)),
            (b'p', number(error.internal_position)),
            (b'q', error.internal_query.clone()),
            (b'W', error.context.clone()),
            (b's', error.schema.clone()),
            (b't', error.table.clone()),
            (b'c', error.column.clone()),
            (b'd', error.datatype.clone()),
            (b'n', error.constraint.clone()),
            (b'F', error.file.clone()),
            (b'L', number(error.line)),
            (b'R', error.routine.clone()),
        ];
        Self(all.into_iter().filter_map(|(code, text)| Some((code, c_string(text?)))).collect())
    }

    pub fn find(&self, code: u8) -> Option<*const c_char> {
        self.0.iter().find(|(known, _)| *known == code).map(|(_, text)| text.as_ptr())
    }
}

/// A text for C, which ends at its first NUL; ours have none.
pub(super) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

/// What stands for a text that is not there.
pub(super) fn or_null(text: Option<&CString>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

impl segue_error {
    pub(super) fn new(failure: Failure) -> Self {
        match failure {
            Failure::Boundary { status, message, outcome } => Self {
                status,
                outcome: codes::of_outcome(outcome),
                retryable: false,
                message: c_string(message),
                sqlstate: c_string(codes::sqlstate(status)),
                cause: None,
                fields: Fields::default(),
            },
            Failure::Core(error) => Self {
                status: codes::of(error.kind()),
                outcome: codes::of_outcome(error.outcome()),
                retryable: error.is_retryable(),
                message: c_string(error.to_string()),
                sqlstate: c_string(error.sqlstate()),
                cause: causes(&error),
                fields: error.server_error().map(Fields::new).unwrap_or_default(),
            },
        }
    }
}

/// The chain of what caused an error, on one line.
fn causes(error: &dyn std::error::Error) -> Option<CString> {
    let mut texts = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        texts.push(cause.to_string());
        next = cause.source();
    }
    (!texts.is_empty()).then(|| c_string(texts.join(": ")))
}

/// The status of an error, the same that the function has returned.
///
/// @param[in] error  An error; NULL gives SEGUE_OK.
/// @return the status
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_status(error: *const segue_error) -> i32 {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, codes::SEGUE_OK, |error| Some(error.status)) }
}

/// What happened, what became of the transaction, and what can be done. A server's error reads
/// "ERROR: ..." as the server has said it; its parts are in segue_error_field().
///
/// @param[in] error  An error; NULL gives "".
/// @return a text that lives as long as the error; never NULL
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_message(error: *const segue_error) -> *const c_char {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, c"".as_ptr(), |error| Some(error.message.as_ptr())) }
}

/// What became of the transaction, or of the statement where there was none.
///
/// @param[in] error  An error; NULL gives SEGUE_TXN_UNKNOWN.
/// @return SEGUE_TXN_NOT_COMMITTED, SEGUE_TXN_COMMITTED or SEGUE_TXN_UNKNOWN
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_outcome(error: *const segue_error) -> i32 {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, codes::SEGUE_TXN_UNKNOWN, |error| Some(error.outcome)) }
}

/// The SQLSTATE: the server's own where it sent one, else the standard code nearest to the status.
///
/// @param[in] error  An error; NULL gives "00000".
/// @return five characters that live as long as the error; never NULL
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_sqlstate(error: *const segue_error) -> *const c_char {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, c"00000".as_ptr(), |error| Some(error.sqlstate.as_ptr())) }
}

/// Whether running the whole transaction again is certain not to apply it twice, and may succeed.
///
/// @param[in] error  An error; NULL gives false.
/// @return true if the transaction can be run again
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_is_retryable(error: *const segue_error) -> bool {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, false, |error| Some(error.retryable)) }
}

/// Whether the transaction may stand although an error was reported.
///
/// @param[in] error  An error; NULL gives false.
/// @return true unless the outcome is SEGUE_TXN_NOT_COMMITTED
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_maybe_committed(error: *const segue_error) -> bool {
    let committed = |error: &segue_error| error.outcome != codes::of_outcome(Outcome::NotCommitted);
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, false, |error| Some(committed(error))) }
}

/// A field of the server's error, by the protocol's code, which libpq names PG_DIAG_*: 'S' severity,
/// 'C' SQLSTATE, 'M' message, 'D' detail, 'H' hint, 'P' position, 'p' internal position, 'q' internal
/// query, 'W' context, 's' schema, 't' table, 'c' column, 'd' data type, 'n' constraint, 'F' file,
/// 'L' line, 'R' routine.
///
/// @param[in] error  An error, or NULL.
/// @param[in] field  The code of the field.
/// @return a text that lives as long as the error; NULL if the server has sent no such field
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_field(
    error: *const segue_error,
    field: c_char,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, ptr::null(), |error| error.fields.find(field.to_ne_bytes()[0])) }
}

/// What caused the error, from the nearest cause to the farthest, joined by ": ".
///
/// @param[in] error  An error, or NULL.
/// @return a text that lives as long as the error; NULL if no cause is known
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_cause(error: *const segue_error) -> *const c_char {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { read(error, ptr::null(), |error| error.cause.as_deref().map(CStr::as_ptr)) }
}

/// Frees an error.
///
/// @param[in] error  An error; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_error_free(error: *mut segue_error) {
    // SAFETY: the header's contract: NULL or an error that has not been freed.
    unsafe { free(error) }
}
