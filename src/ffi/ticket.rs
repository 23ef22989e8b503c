//! `segue_ticket`: what is got for a submission, to wait on, poll, or be called back by.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::OnceLock;

use uuid::Uuid;

use super::boundary::{Failure, Result, boundary, free, handle, output, read, text, timeout};
use super::client::segue_client;
use super::codes::SEGUE_FORKED;
use super::error::{c_string, or_null, segue_error};
use super::event::{UserData, segue_destroy_callback};
use crate::client::{Client, Executed, Ticket, process_id};

/// A submission that was accepted. Any number of threads may use it at once. Freeing it changes nothing for
/// the submission.
pub struct segue_ticket {
    ticket: Ticket,
    /// What is made from a client keeps it alive; a callback's ticket does not.
    _client: Option<Client>,
    id: CString,
    key: Option<CString>,
    process: u32,
    /// Once it is committed it stays so.
    executed: OnceLock<Executed>,
}

/// What is called once the outcome of a submission is known, on a thread of the client's, or on the one
/// that asks for it if it is known already. The error is NULL if the submission is committed; else it says
/// what segue_ticket_poll() would. Ticket and error stay the library's, and are good during the call only.
/// It must not block, and must not throw a C++ exception; it may submit with segue_try_submit().
pub type segue_ticket_callback = Option<
    unsafe extern "C" fn(
        ticket: *const segue_ticket,
        error: *const segue_error,
        user_data: *mut c_void,
    ),
>;

impl segue_ticket {
    pub(super) fn of(client: &Client, ticket: Ticket) -> Self {
        Self::new(Some(client.clone()), ticket)
    }

    fn new(client: Option<Client>, ticket: Ticket) -> Self {
        Self {
            _client: client,
            id: c_string(ticket.id().to_string()),
            key: ticket.key().map(c_string),
            process: process_id(),
            executed: OnceLock::new(),
            ticket,
        }
    }

    /// In the child of a fork(), a thread that has not come along may hold the ticket's lock.
    fn ticket(&self) -> Result<&Ticket> {
        if self.process == process_id() {
            return Ok(&self.ticket);
        }
        let message = "the ticket was made before fork(): what becomes of the submission is known to \
                       the parent process";
        Err(Failure::new(SEGUE_FORKED, message))
    }

    fn executed(&self) -> Option<&Executed> {
        if self.executed.get().is_none() {
            if let Ok(Some(executed)) = self.ticket().ok()?.poll() {
                let _ = self.executed.set(executed);
            }
        }
        self.executed.get()
    }
}

/// The id in a text.
///
/// # Safety
/// The header's contract for a string.
pub(super) unsafe fn id(id: *const c_char) -> Result<Uuid> {
    // SAFETY: the caller's promise.
    let id = unsafe { text(id, "id") }?;
    Uuid::parse_str(id).map_err(|_| Failure::argument("id is no UUID"))
}

/// The ticket of a submission that has not ended, also if an earlier process has handed it over with the
/// same journal; or that has ended lately in this process (the last few thousand).
///
/// @param[in]  client      The client.
/// @param[in]  id          What segue_ticket_id() gave.
/// @param[out] ticket_out  The ticket; free with segue_ticket_free(). NULL if there is none.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                ticket_out says whether there is one
/// @return SEGUE_INVALID_ARGUMENT  the id is no UUID
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_ticket(
    client: *const segue_client,
    id: *const c_char,
    ticket_out: *mut *mut segue_ticket,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, ticket_out) =
            unsafe { (handle(client, "client")?, output(ticket_out, "ticket_out")?) };
        // SAFETY: the header's contract for a string.
        let id = unsafe { self::id(id) }?;
        match client.0.ticket(id)? {
            Some(ticket) => ticket_out.give(segue_ticket::of(&client.0, ticket)),
            None => ticket_out.give_null(),
        }
        Ok(())
    })
}

/// The same, by the key that the application gave the submission.
///
/// @param[in]  client      The client.
/// @param[in]  key         The key.
/// @param[out] ticket_out  The ticket; free with segue_ticket_free(). NULL if there is none.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  ticket_out says whether there is one
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_ticket_for_key(
    client: *const segue_client,
    key: *const c_char,
    ticket_out: *mut *mut segue_ticket,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (client, key) = unsafe { (handle(client, "client")?, text(key, "key")?) };
        // SAFETY: the header's contract for an output.
        let ticket_out = unsafe { output(ticket_out, "ticket_out") }?;
        match client.0.ticket_for_key(key)? {
            Some(ticket) => ticket_out.give(segue_ticket::of(&client.0, ticket)),
            None => ticket_out.give_null(),
        }
        Ok(())
    })
}

/// The id of a submission: under it the ticket is found again, and so is the row in the server's table
/// segue.submission once it is committed.
///
/// @param[in] ticket  A ticket, or NULL.
/// @return a UUID of 36 characters, good until segue_ticket_free(); NULL for NULL
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_id(ticket: *const segue_ticket) -> *const c_char {
    // SAFETY: the header's contract: NULL or a ticket that has not been freed.
    unsafe { read(ticket, ptr::null(), |ticket| Some(ticket.id.as_ptr())) }
}

/// The key that the application gave the submission.
///
/// @param[in] ticket  A ticket, or NULL.
/// @return the key, good until segue_ticket_free(); NULL if it has none
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_key(ticket: *const segue_ticket) -> *const c_char {
    // SAFETY: the header's contract: NULL or a ticket that has not been freed.
    unsafe { read(ticket, ptr::null(), |ticket| Some(or_null(ticket.key.as_ref()))) }
}

/// What has become of a submission.
///
/// @param[in]  ticket         The ticket.
/// @param[out] committed_out  true if it is committed, exactly once; false while that is not known.
/// @param[out] error_out      Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                  committed_out says it
/// @return SEGUE_SERVER              it is a dead letter, and this is the server's error, unchanged
/// @return SEGUE_TRANSACTION_FAILED  it is a dead letter: another number of rows was expected
/// @return SEGUE_SERVER_CRASH        it is a dead letter: the server has crashed each time that it ran it alone
/// @return SEGUE_CLOSED              the client's submissions have come to an end by a failure; with
///                                   journal=file it goes on when the client is opened again
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_poll(
    ticket: *const segue_ticket,
    committed_out: *mut bool,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (ticket, committed_out) =
            unsafe { (handle(ticket, "ticket")?, output(committed_out, "committed_out")?) };
        committed_out.write(ticket.ticket.poll()?.is_some());
        Ok(())
    })
}

/// Waits until it is known what has become of a submission.
///
/// @param[in]  ticket         The ticket.
/// @param[in]  timeout_ms     How long to wait; 0 does not wait, a negative number waits for ever.
/// @param[out] committed_out  true if it is committed, exactly once; false if that is not known yet.
/// @param[out] error_out      Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_ticket_poll()
/// Threads: any, but no callback's.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_wait(
    ticket: *const segue_ticket,
    timeout_ms: i64,
    committed_out: *mut bool,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (ticket, committed_out) =
            unsafe { (handle(ticket, "ticket")?, output(committed_out, "committed_out")?) };
        committed_out.write(ticket.ticket.wait(timeout(timeout_ms))?.is_some());
        Ok(())
    })
}

/// Whether a committed submission was found done already: by an attempt whose reply was lost, by an
/// earlier process, or by another one that has used the same key.
///
/// @param[in] ticket  A ticket; NULL gives false.
/// @return true if it was found done; false as long as it is not committed
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_found_done(ticket: *const segue_ticket) -> bool {
    // SAFETY: the header's contract: NULL or a ticket that has not been freed.
    unsafe { read(ticket, false, |ticket| Some(ticket.executed()?.found_done)) }
}

/// For how many statements of a committed submission it is known how many rows they have affected.
///
/// @param[in] ticket  A ticket; NULL gives 0.
/// @return the number of statements; 0 as long as it is not committed, and if the reply of the attempt
///         that has committed it is lost
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_statement_count(ticket: *const segue_ticket) -> usize {
    // SAFETY: the header's contract: NULL or a ticket that has not been freed.
    unsafe { read(ticket, 0, |ticket| Some(ticket.executed()?.rows.len())) }
}

/// How many rows a statement of a committed submission has affected or returned.
///
/// @param[in] ticket     A ticket, or NULL.
/// @param[in] statement  The statement's position, from 0.
/// @return the number of rows; 0 if there is no such statement, or none is known
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_rows_affected(
    ticket: *const segue_ticket,
    statement: usize,
) -> u64 {
    let rows = |ticket: &segue_ticket| ticket.executed()?.rows.get(statement).copied();
    // SAFETY: the header's contract: NULL or a ticket that has not been freed.
    unsafe { read(ticket, 0, rows) }
}

/// A callback that waits for the outcome of a submission.
struct Completion {
    ticket: Ticket,
    callback: unsafe extern "C" fn(*const segue_ticket, *const segue_error, *mut c_void),
    user_data: UserData,
}

impl Completion {
    fn call(self, outcome: &crate::error::Result<Executed>) {
        let ticket = segue_ticket::new(None, self.ticket);
        let error = match outcome {
            Ok(executed) => {
                let _ = ticket.executed.set(executed.clone());
                None
            }
            Err(error) => Some(segue_error::new(Failure::Core(error.clone()))),
        };
        let error = error.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: by the header's contract the callback takes a ticket, an error or NULL, and the user
        // data, which is destroyed after this call.
        unsafe { (self.callback)(&raw const ticket, error, self.user_data.pointer) };
    }
}

/// Has a callback called once, as soon as the outcome of a submission is known: here and now if it is,
/// else on a thread of the client's, or of whoever frees the client: with SEGUE_CLOSED then. It is called
/// also if the ticket was freed before. A dead letter that is retried calls nobody for a second time: ask
/// for that anew.
///
/// @param[in]  ticket     The ticket.
/// @param[in]  callback   What is called.
/// @param[in]  user_data  What it is called with; may be NULL.
/// @param[in]  destroy    Called once with the user data, after the callback, or if it will never be
///                        called, also if this function fails; may be NULL.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  the callback was called or will be
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_on_done(
    ticket: *const segue_ticket,
    callback: segue_ticket_callback,
    user_data: *mut c_void,
    destroy: segue_destroy_callback,
    error_out: *mut *mut segue_error,
) -> i32 {
    let user_data = UserData { pointer: user_data, destroy };
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let ticket = unsafe { handle(ticket, "ticket") }?.ticket()?;
        let callback = callback.ok_or_else(|| Failure::argument("callback is NULL"))?;
        // The ticket in here lets go of the callback, and so of itself, once there is an outcome; closing
        // the client is one.
        let completion = Completion { ticket: ticket.clone(), callback, user_data };
        ticket.on_done(move |outcome| completion.call(outcome));
        Ok(())
    })
}

/// Frees a ticket. The submission goes on, and callbacks stay in place.
///
/// @param[in] ticket  A ticket; NULL does nothing. Not one that a callback was given.
/// Threads: any, once nobody else uses it. Where it is the last that keeps the client alive, as
/// segue_client_free().
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_ticket_free(ticket: *mut segue_ticket) {
    // SAFETY: the header's contract: NULL or a ticket that has not been freed.
    unsafe { free(ticket) }
}
