//! `segue_notification`: a message of NOTIFY.

use std::ffi::{CString, c_char};
use std::ptr;

use super::boundary::{boundary, free, handle, output, read, timeout};
use super::error::{c_string, segue_error};
use super::session::segue_session;

/// A message of NOTIFY. Immutable: any thread may read it.
pub struct segue_notification {
    process_id: i32,
    channel: CString,
    payload: CString,
}

/// The next notification of a session that has executed LISTEN: one that has arrived already, or one
/// that arrives in time. LISTEN survives a failover; what is notified during one may be missed.
///
/// @param[in]  session           The session.
/// @param[in]  timeout_ms        How long to wait; 0 does not wait, a negative number waits for ever.
/// @param[out] notification_out  The notification; free with segue_notification_free(). NULL if none
///                               has arrived in time.
/// @param[out] error_out         Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or SEGUE_FAILOVER_TIMEOUT and others if the session has no server any more
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_notification(
    session: *mut segue_session,
    timeout_ms: i64,
    notification_out: *mut *mut segue_notification,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (session, notification_out) =
            unsafe { (handle(session, "session")?, output(notification_out, "notification_out")?) };
        let timeout = timeout(timeout_ms);
        match session.0.with(|session| Ok(session.notification(timeout)?))? {
            Some(notification) => notification_out.give(segue_notification {
                process_id: notification.process_id,
                channel: c_string(notification.channel),
                payload: c_string(notification.payload),
            }),
            None => notification_out.give_null(),
        }
        Ok(())
    })
}

/// The channel of a notification.
///
/// @param[in] notification  A notification, or NULL.
/// @return the channel's name, good until segue_notification_free(); NULL for NULL
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_notification_channel(
    notification: *const segue_notification,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a notification that has not been freed.
    unsafe { read(notification, ptr::null(), |notification| Some(notification.channel.as_ptr())) }
}

/// The payload of a notification.
///
/// @param[in] notification  A notification, or NULL.
/// @return the payload, good until segue_notification_free(); NULL for NULL
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_notification_payload(
    notification: *const segue_notification,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a notification that has not been freed.
    unsafe { read(notification, ptr::null(), |notification| Some(notification.payload.as_ptr())) }
}

/// The process of the server that has sent a notification.
///
/// @param[in] notification  A notification; NULL gives 0.
/// @return the number of the backend's process
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_notification_process_id(
    notification: *const segue_notification,
) -> i32 {
    // SAFETY: the header's contract: NULL or a notification that has not been freed.
    unsafe { read(notification, 0, |notification| Some(notification.process_id)) }
}

/// Frees a notification.
///
/// @param[in] notification  A notification; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_notification_free(notification: *mut segue_notification) {
    // SAFETY: the header's contract: NULL or a notification that has not been freed.
    unsafe { free(notification) }
}
