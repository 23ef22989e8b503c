//! `segue_submission_status`: a snapshot of what becomes of a client's submissions.

use std::ffi::{CString, c_char};
use std::ptr;

use super::boundary::{boundary, free, handle, output, read};
use super::client::segue_client;
use super::error::{c_string, or_null, segue_error};
use super::status::{find, number};

/// What became of a client's submissions until one moment. Immutable: any thread may read it.
pub struct segue_submission_status {
    numbers: [(&'static str, i64); 15],
    problem: Option<CString>,
}

/// Takes a snapshot of what becomes of a client's submissions.
///
/// @param[in]  client      The client.
/// @param[out] status_out  The snapshot; free with segue_submission_status_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is there
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_submissions(
    client: *const segue_client,
    status_out: *mut *mut segue_submission_status,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, status_out) =
            unsafe { (handle(client, "client")?, output(status_out, "status_out")?) };
        let status = client.0.submissions()?;
        status_out.give(segue_submission_status {
            numbers: [
                ("waiting", number(Some(status.waiting))),
                ("in_flight", number(Some(status.in_flight))),
                ("dead_letters", number(Some(status.dead_letters))),
                ("lanes", number(Some(status.lanes))),
                ("lanes_stopped", number(Some(status.lanes_stopped))),
                ("bytes", number(Some(status.bytes))),
                ("journal_bytes", number(status.journal_bytes)),
                ("submitted", number(Some(status.submitted))),
                ("recovered", number(Some(status.recovered))),
                ("committed", number(Some(status.committed))),
                ("found_done", number(Some(status.found_done))),
                ("resubmitted", number(Some(status.resubmitted))),
                ("died", number(Some(status.died))),
                ("lost", number(Some(status.lost))),
                ("reapplied", number(Some(status.reapplied))),
            ],
            problem: status.problem.map(c_string),
        });
        Ok(())
    })
}

/// A number of a snapshot. At that moment: "waiting" (handed over and not sent yet, or to be sent again),
/// "in_flight" (sent and not answered), "dead_letters"; "lanes" (with anything in them), "lanes_stopped" (of
/// these, by a dead letter); "bytes" (of memory, about), "journal_bytes" (of the journal's files; -1 if it is
/// in memory). Since the client was opened: "submitted", "recovered" (found in the journal), "committed",
/// "found_done" (of these, found to be so already), "resubmitted" (attempts made once more), "died"; "lost" (told
/// to be committed, lost by a promotion, and not run again, or not with success), "reapplied" (run again).
///
/// @param[in] status  A snapshot, or NULL.
/// @param[in] name    The number's name, or NULL.
/// @return the number; -1 if it is not known, or there is none of that name
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_status_number(
    status: *const segue_submission_status,
    name: *const c_char,
) -> i64 {
    // SAFETY: the header's contract: NULL or a string with its NUL.
    let number = |status: &segue_submission_status| unsafe { find(&status.numbers, name) };
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, -1, number) }
}

/// Why no submission can be run at present, such as that no server can be reached.
///
/// @param[in] status  A snapshot, or NULL.
/// @return a text that lives as long as the snapshot; NULL if there is no problem
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_status_problem(
    status: *const segue_submission_status,
) -> *const c_char {
    let problem = |status: &segue_submission_status| Some(or_null(status.problem.as_ref()));
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(status, ptr::null(), problem) }
}

/// Frees a snapshot.
///
/// @param[in] status  A snapshot; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_status_free(status: *mut segue_submission_status) {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { free(status) }
}
