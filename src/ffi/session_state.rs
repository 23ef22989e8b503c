//! `segue_session_state`: a snapshot of where a session is and what protects it.

use std::ffi::{CString, c_char};
use std::ptr;

use super::boundary::{boundary, free, handle, output, read};
use super::error::{c_string, or_null, segue_error};
use super::session::segue_session;
use super::status::{find, index, number};

/// Where a session was and what protected it at one moment. Immutable: any thread may read it.
pub struct segue_session_state {
    id: u64,
    server: i32,
    address: Option<CString>,
    numbers: [(&'static str, i64); 2],
    in_transaction: bool,
    transaction_failed: bool,
    ledger: bool,
    tls_version: Option<CString>,
    protection_lost: Option<CString>,
}

/// Takes a snapshot of where a session is and what protects it.
///
/// @param[in]  session    The session.
/// @param[out] state_out  The snapshot; free with segue_session_state_free().
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is there
/// Threads: one caller at a time per session. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_status(
    session: *const segue_session,
    state_out: *mut *mut segue_session_state,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (session, state_out) =
            unsafe { (handle(session, "session")?, output(state_out, "state_out")?) };
        let status = session.0.with(|session| Ok(session.status()))?;
        state_out.give(segue_session_state {
            id: status.session,
            server: index(Some(status.server)),
            address: status.address.as_deref().map(c_string),
            numbers: [
                ("timeline", status.timeline.into()),
                ("backend_pid", number(status.backend_pid)),
            ],
            in_transaction: status.in_transaction,
            transaction_failed: status.transaction_failed,
            ledger: status.ledger,
            tls_version: status.tls_version.map(c_string),
            protection_lost: status.protection_lost.as_deref().map(c_string),
        });
        Ok(())
    })
}

/// The number of a session, which events carry.
///
/// @param[in] state  A snapshot; NULL gives 0.
/// @return the session's number, from 1
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_id(state: *const segue_session_state) -> u64 {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, 0, |state| Some(state.id)) }
}

/// The server that a session is on, or was on last.
///
/// @param[in] state  A snapshot; NULL gives -1.
/// @return its position among the configuration's hosts, from 0
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_server(state: *const segue_session_state) -> i32 {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, -1, |state| Some(state.server)) }
}

/// The address of that server.
///
/// @param[in] state  A snapshot, or NULL.
/// @return a text that lives as long as the snapshot; NULL if it is not known
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_address(
    state: *const segue_session_state,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, ptr::null(), |state| Some(or_null(state.address.as_ref()))) }
}

/// A number about a session: "timeline" (it never goes to a server of an older one), "backend_pid".
///
/// @param[in] state  A snapshot, or NULL.
/// @param[in] name   The number's name, or NULL.
/// @return the number; -1 if it is not known, or there is none of that name
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_number(
    state: *const segue_session_state,
    name: *const c_char,
) -> i64 {
    // SAFETY: the header's contract: NULL or a string with its NUL.
    let number = |state: &segue_session_state| unsafe { find(&state.numbers, name) };
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, -1, number) }
}

/// Whether a transaction is open.
///
/// @param[in] state  A snapshot; NULL gives false.
/// @return true inside a transaction, also one that has failed
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_in_transaction(
    state: *const segue_session_state,
) -> bool {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, false, |state| Some(state.in_transaction)) }
}

/// Whether the open transaction has failed and can only be rolled back.
///
/// @param[in] state  A snapshot; NULL gives false.
/// @return true if it has failed
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_transaction_failed(
    state: *const segue_session_state,
) -> bool {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, false, |state| Some(state.transaction_failed)) }
}

/// Whether the session's commits are sealed in the ledger.
///
/// @param[in] state  A snapshot; NULL gives false.
/// @return true if they are
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_ledger(state: *const segue_session_state) -> bool {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, false, |state| Some(state.ledger)) }
}

/// The version of TLS in use, such as "TLSv1.3".
///
/// @param[in] state  A snapshot, or NULL.
/// @return a text that lives as long as the snapshot; NULL if the connection is not encrypted
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_tls_version(
    state: *const segue_session_state,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, ptr::null(), |state| Some(or_null(state.tls_version.as_ref()))) }
}

/// Why the open transaction, or the session's state, would not survive its server.
///
/// @param[in] state  A snapshot, or NULL.
/// @return a text that lives as long as the snapshot; NULL if it is protected
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_protection_lost(
    state: *const segue_session_state,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(state, ptr::null(), |state| Some(or_null(state.protection_lost.as_ref()))) }
}

/// Frees a snapshot.
///
/// @param[in] state  A snapshot; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_state_free(state: *mut segue_session_state) {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { free(state) }
}
