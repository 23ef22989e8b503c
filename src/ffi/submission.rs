//! `segue_submission`: a transaction that is handed over whole.

use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::boundary::{Failure, Result, boundary, free, handle, optional_text, output, text};
use super::client::segue_client;
use super::codes::SEGUE_USAGE;
use super::error::segue_error;
use super::param::{segue_param, with_params};
use super::ticket::segue_ticket;
use crate::client::{Submission, Ticket};
use crate::error::Error;

/// A transaction that is to be handed over whole: statements with their parameters, and how they are to
/// be treated. One caller at a time. docs/submit.md says what may be relied on.
pub struct segue_submission(Mutex<Draft>);

#[derive(Default)]
struct Draft {
    submission: Submission,
    statements: usize,
}

impl segue_submission {
    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(Submission) -> Submission) {
        let mut draft = self.draft();
        draft.submission = change(std::mem::take(&mut draft.submission));
    }
}

/// Makes a submission without statements.
///
/// @param[out] submission_out  The submission; free with segue_submission_free().
/// @param[out] error_out       Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is there
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_new(
    submission_out: *mut *mut segue_submission,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for an output.
        let submission_out = unsafe { output(submission_out, "submission_out") }?;
        submission_out.give(segue_submission(Mutex::default()));
        Ok(())
    })
}

/// Adds a statement. Its parameters are copied, so that they are not needed after this call. What could
/// be no part of a transaction, or would change the session that runs it, is refused here: BEGIN, COMMIT,
/// SAVEPOINT, COPY, SET without LOCAL, LISTEN, several statements in one string and the like.
///
/// @param[in]  submission  The submission; unchanged if this fails.
/// @param[in]  sql         One statement, with $1, $2, ... for parameters.
/// @param[in]  params      The parameters; NULL if there are none.
/// @param[in]  params_len  Their number.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK          it is added; whether a server takes it is told by the ticket
/// @return SEGUE_USAGE       it can be no part of a submission, or has too many parameters
/// @return SEGUE_CONVERSION  a parameter does not fit the type that it names
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_add_statement(
    submission: *mut segue_submission,
    sql: *const c_char,
    params: *const segue_param,
    params_len: usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (submission, sql) = unsafe { (handle(submission, "submission")?, text(sql, "sql")?) };
        let add = |params: &[&dyn crate::ToSql]| {
            let mut draft = submission.draft();
            draft.submission.add(sql, params)?;
            draft.statements += 1;
            Ok(())
        };
        // SAFETY: the header's contract for parameters.
        unsafe { with_params(params, params_len, add) }
    })
}

/// Says how many rows the statement added last must affect or return. If it does not, nothing of the
/// submission is committed, and it becomes a dead letter.
///
/// @param[in]  submission  The submission.
/// @param[in]  rows_min    At least so many.
/// @param[in]  rows_max    At most so many; UINT64_MAX is no limit.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                it is set
/// @return SEGUE_USAGE             there is no statement yet
/// @return SEGUE_INVALID_ARGUMENT  rows_min is more than rows_max
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_expect_rows(
    submission: *mut segue_submission,
    rows_min: u64,
    rows_max: u64,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let submission = unsafe { handle(submission, "submission") }?;
        if rows_min > rows_max {
            return Err(Failure::argument("rows_min is more than rows_max"));
        }
        if submission.draft().statements == 0 {
            let message = "there is no statement yet that could be expected to give rows";
            return Err(Failure::new(SEGUE_USAGE, message));
        }
        submission.change(|it| it.expect_rows(rows_min..=rows_max));
        Ok(())
    })
}

/// Puts the submission in a lane: those of one lane take effect in the order in which they were handed
/// over. Without a lane a submission is ordered with nothing.
///
/// @param[in]  submission  The submission.
/// @param[in]  lane        The lane's name, any text; NULL or "" for none.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is set
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_set_lane(
    submission: *mut segue_submission,
    lane: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (submission, lane) =
            unsafe { (handle(submission, "submission")?, optional_text(lane, "lane")?) };
        submission.change(|it| it.lane(lane.unwrap_or_default()));
        Ok(())
    })
}

/// Gives the submission the application's own name: the same key is never executed twice, whichever
/// process hands it over and how often, for as long as the ledger of submissions remembers it.
///
/// @param[in]  submission  The submission.
/// @param[in]  key         The key, any text; NULL or "" for none.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is set
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_set_key(
    submission: *mut segue_submission,
    key: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (submission, key) =
            unsafe { (handle(submission, "submission")?, optional_text(key, "key")?) };
        submission.change(|it| it.key(key.unwrap_or_default()));
        Ok(())
    })
}

/// Says whether what follows in the lane waits if this submission becomes a dead letter, until that is
/// retried or purged. Otherwise the lane goes on.
///
/// @param[in]  submission       The submission, which needs a lane then.
/// @param[in]  stop_on_failure  Whether the lane waits.
/// @param[out] error_out        Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is set
/// Threads: one caller at a time.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_set_stop_on_failure(
    submission: *mut segue_submission,
    stop_on_failure: bool,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let submission = unsafe { handle(submission, "submission") }?;
        submission.change(|it| it.stop_on_failure(stop_on_failure));
        Ok(())
    })
}

/// Hands over a transaction whole: it is kept when this returns (on disk with journal=file), and then run
/// until its outcome is known, exactly once, whatever becomes of servers and, with journal=file, of this
/// process. Needs no server.
///
/// @param[in]  client      The client.
/// @param[in]  submission  The submission, which stays the caller's. Handed over again it is another one,
///                         unless it has a key: a key that is queued, or was done lately, gives that ticket.
/// @param[out] ticket_out  The ticket; free with segue_ticket_free(), which changes nothing for the
///                         submission.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK               it is kept
/// @return SEGUE_USAGE            it has no statement, or stop_on_failure without a lane
/// @return SEGUE_LIMIT            it is too large, or no room was left in the queue or the journal within
///                                failover_timeout_ms (submit_queue_max, journal_bytes_max)
/// @return SEGUE_PROTECTION_LOST  the journal cannot be written: it was not accepted
/// Threads: any; one caller at a time per submission. Waits for room for at most failover_timeout_ms.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submit(
    client: *const segue_client,
    submission: *const segue_submission,
    ticket_out: *mut *mut segue_ticket,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the contract is the same.
    unsafe { submit(client, submission, ticket_out, error_out, crate::Client::submit) }
}

/// As segue_submit(), but does not wait for room.
///
/// @param[in]  client      The client.
/// @param[in]  submission  The submission, which stays the caller's.
/// @param[out] ticket_out  The ticket; free with segue_ticket_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK     it is kept
/// @return SEGUE_LIMIT  there is no room just now; nothing was handed over
/// @return as segue_submit() otherwise
/// Threads: any; one caller at a time per submission. Waits for the disk alone.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_try_submit(
    client: *const segue_client,
    submission: *const segue_submission,
    ticket_out: *mut *mut segue_ticket,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the contract is the same.
    unsafe { submit(client, submission, ticket_out, error_out, crate::Client::try_submit) }
}

/// # Safety
/// The header's contract for these handles and outputs.
unsafe fn submit(
    client: *const segue_client,
    submission: *const segue_submission,
    ticket_out: *mut *mut segue_ticket,
    error_out: *mut *mut segue_error,
    hand_over: impl FnOnce(&crate::Client, Submission) -> std::result::Result<Ticket, Error>,
) -> i32 {
    boundary(error_out, || -> Result<()> {
        // SAFETY: the caller's promise.
        let (client, submission, ticket_out) = unsafe {
            let ticket_out = output(ticket_out, "ticket_out")?;
            (handle(client, "client")?, handle(submission, "submission")?, ticket_out)
        };
        // A copy, so that the submission is not locked while this waits for room.
        let copy = submission.draft().submission.clone();
        ticket_out.give(segue_ticket::of(&client.0, hand_over(&client.0, copy)?));
        Ok(())
    })
}

/// Frees a submission. What was handed over with it is not touched.
///
/// @param[in] submission  A submission; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_submission_free(submission: *mut segue_submission) {
    // SAFETY: the header's contract: NULL or a submission that has not been freed.
    unsafe { free(submission) }
}
