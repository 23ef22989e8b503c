//! `segue_cancel`: cancels what a session is executing, from any thread.

use super::boundary::{boundary, free, handle, output};
use super::error::segue_error;
use super::session::segue_session;
use crate::client::CancelHandle;

/// Cancels what a session is executing. Any thread may use it at any time, also while the session is
/// in use, and after it was freed.
pub struct segue_cancel(CancelHandle);

/// Makes a handle that cancels what the session is executing.
///
/// @param[in]  session     The session, which may be in use.
/// @param[out] cancel_out  The handle; free with segue_cancel_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  the handle is there
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_cancel_handle(
    session: *const segue_session,
    cancel_out: *mut *mut segue_cancel,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (session, cancel_out) =
            unsafe { (handle(session, "session")?, output(cancel_out, "cancel_out")?) };
        cancel_out.give(segue_cancel(session.0.cancel.clone()));
        Ok(())
    })
}

/// Asks the server to cancel the session's statement, which then fails with SQLSTATE 57014, unless it
/// is over by the time that the server hears of it.
///
/// @param[in]  cancel     The handle.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK       the server was asked, or nothing is being executed
/// @return SEGUE_CONNECT  the server could not be reached
/// Threads: any. Blocks for one connection to the server.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_cancel_request(
    cancel: *const segue_cancel,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        Ok(unsafe { handle(cancel, "cancel") }?.0.cancel()?)
    })
}

/// Frees the handle. The session goes on.
///
/// @param[in] cancel  A handle; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_cancel_free(cancel: *mut segue_cancel) {
    // SAFETY: the header's contract: NULL or a handle that has not been freed.
    unsafe { free(cancel) }
}
