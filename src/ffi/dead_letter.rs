//! `segue_dead_letters`: the submissions that can never succeed as things are.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::UNIX_EPOCH;

use super::boundary::{Failure, boundary, free, handle, output, read};
use super::client::segue_client;
use super::error::{c_string, or_null, segue_error};
use super::ticket::{id, segue_ticket};
use crate::client::DeadLetter;

/// The dead letters of a client at one moment, in the order in which they were handed over. Immutable: any
/// thread may read it.
pub struct segue_dead_letters(Vec<Letter>);

struct Letter {
    id: CString,
    key: Option<CString>,
    lane: Option<CString>,
    stops_lane: bool,
    died_at_ms: i64,
    statement: usize,
    statements: Vec<CString>,
    sqlstate: CString,
    message: CString,
    detail: Option<CString>,
    error: segue_error,
}

impl Letter {
    fn new(letter: DeadLetter) -> Self {
        let since = letter.died_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: c_string(letter.id.to_string()),
            key: letter.key.map(c_string),
            lane: letter.lane.map(c_string),
            stops_lane: letter.stops_lane,
            died_at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            statement: letter.statement,
            statements: letter.statements.into_iter().map(c_string).collect(),
            sqlstate: c_string(letter.sqlstate),
            message: c_string(letter.message),
            detail: letter.detail.map(c_string),
            error: segue_error::new(Failure::Core(letter.error)),
        }
    }
}

/// What an accessor gives for one of the letters; `fallback` if it is not there.
///
/// # Safety
/// The header's contract: NULL or a list that has not been freed.
unsafe fn of<T: Copy>(
    letters: *const segue_dead_letters,
    index: usize,
    fallback: T,
    body: impl FnOnce(&Letter) -> Option<T>,
) -> T {
    // SAFETY: the caller's promise.
    unsafe { read(letters, fallback, |letters| letters.0.get(index).and_then(body)) }
}

/// Lists the submissions that can never succeed as things are: what a server refuses for good, and what has
/// found another number of rows than it expects. Each is kept until it is retried with success or purged.
///
/// @param[in]  client       The client.
/// @param[out] letters_out  The list, which may be empty; free with segue_dead_letters_free().
/// @param[out] error_out    Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is there
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_dead_letters(
    client: *const segue_client,
    letters_out: *mut *mut segue_dead_letters,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, letters_out) =
            unsafe { (handle(client, "client")?, output(letters_out, "letters_out")?) };
        let letters = client.0.dead_letters()?;
        letters_out.give(segue_dead_letters(letters.into_iter().map(Letter::new).collect()));
        Ok(())
    })
}

/// Runs a dead letter again, ahead of what waits in its lane. Its tickets are without an outcome again.
///
/// @param[in]  client      The client.
/// @param[in]  id          The id of the submission.
/// @param[out] ticket_out  Optional: the ticket; free with segue_ticket_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                it is queued
/// @return SEGUE_USAGE             it is no dead letter of this client
/// @return SEGUE_INVALID_ARGUMENT  the id is no UUID
/// @return SEGUE_LIMIT, SEGUE_PROTECTION_LOST  the journal cannot be written: it stays what it is
/// Threads: any. Waits for the disk alone.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_retry_dead_letter(
    client: *const segue_client,
    id: *const c_char,
    ticket_out: *mut *mut segue_ticket,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (client, id) = unsafe { (handle(client, "client")?, self::id(id)?) };
        let ticket = client.0.retry_dead_letter(id)?;
        if !ticket_out.is_null() {
            // SAFETY: the header's contract for an output.
            let ticket_out = unsafe { output(ticket_out, "ticket_out") }?;
            ticket_out.give(segue_ticket::of(&client.0, ticket));
        }
        Ok(())
    })
}

/// Forgets a dead letter for good; a lane that it has stopped goes on.
///
/// @param[in]  client     The client.
/// @param[in]  id         The id of the submission.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                it is gone
/// @return SEGUE_USAGE             it is no dead letter of this client
/// @return SEGUE_INVALID_ARGUMENT  the id is no UUID
/// Threads: any. Waits for the disk alone.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_purge_dead_letter(
    client: *const segue_client,
    id: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (client, id) = unsafe { (handle(client, "client")?, self::id(id)?) };
        Ok(client.0.purge_dead_letter(id)?)
    })
}

/// The number of dead letters.
///
/// @param[in] letters  A list; NULL gives 0.
/// @return how many there are
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_count(letters: *const segue_dead_letters) -> usize {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { read(letters, 0, |letters| Some(letters.0.len())) }
}

/// The id of a submission, as segue_ticket_id() gave it.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return a UUID that lives as long as the list; NULL if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_id(
    letters: *const segue_dead_letters,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), |letter| Some(letter.id.as_ptr())) }
}

/// The key that the application gave the submission.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return a text that lives as long as the list; NULL if it has none, or there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_key(
    letters: *const segue_dead_letters,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), |letter| Some(or_null(letter.key.as_ref()))) }
}

/// The lane of the submission.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return a text that lives as long as the list; NULL if it has none, or there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_lane(
    letters: *const segue_dead_letters,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), |letter| Some(or_null(letter.lane.as_ref()))) }
}

/// Whether the lane stands still because of a letter.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return true if it does; false if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_stops_lane(
    letters: *const segue_dead_letters,
    index: usize,
) -> bool {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, false, |letter| Some(letter.stops_lane)) }
}

/// When the submission became a dead letter.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return milliseconds since 1970 (UTC), by this machine's clock; -1 if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_died_at_ms(
    letters: *const segue_dead_letters,
    index: usize,
) -> i64 {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, -1, |letter| Some(letter.died_at_ms)) }
}

/// The statement that failed.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return the statement's position in the submission, from 0; 0 if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_statement(
    letters: *const segue_dead_letters,
    index: usize,
) -> usize {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, 0, |letter| Some(letter.statement)) }
}

/// The number of statements of the submission.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return how many it has; 0 if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_statement_count(
    letters: *const segue_dead_letters,
    index: usize,
) -> usize {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, 0, |letter| Some(letter.statements.len())) }
}

/// The text of a statement of the submission, without its parameters.
///
/// @param[in] letters    A list, or NULL.
/// @param[in] index      The letter's position, from 0.
/// @param[in] statement  The statement's position, from 0.
/// @return a text that lives as long as the list; NULL if there is no such letter or statement
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_sql(
    letters: *const segue_dead_letters,
    index: usize,
    statement: usize,
) -> *const c_char {
    let sql = |letter: &Letter| Some(letter.statements.get(statement)?.as_ptr());
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), sql) }
}

/// The SQLSTATE of the server's error; 25P02 where another number of rows was expected.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return five characters that live as long as the list; NULL if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_sqlstate(
    letters: *const segue_dead_letters,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), |letter| Some(letter.sqlstate.as_ptr())) }
}

/// The server's message.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return a text that lives as long as the list; NULL if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_message(
    letters: *const segue_dead_letters,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), |letter| Some(letter.message.as_ptr())) }
}

/// The detail of the server's error, which may hold values of the application's.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return a text that lives as long as the list; NULL if it has none, or there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_detail(
    letters: *const segue_dead_letters,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), |letter| Some(or_null(letter.detail.as_ref()))) }
}

/// The error that the submission's tickets give, with all fields of the server's: constraint, table, hint.
///
/// @param[in] letters  A list, or NULL.
/// @param[in] index    The letter's position, from 0.
/// @return an error that belongs to the list and lives as long: not to be freed; NULL if there is no such letter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_error(
    letters: *const segue_dead_letters,
    index: usize,
) -> *const segue_error {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { of(letters, index, ptr::null(), |letter| Some(&raw const letter.error)) }
}

/// Frees a list. The dead letters stay where they are.
///
/// @param[in] letters  A list; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_dead_letters_free(letters: *mut segue_dead_letters) {
    // SAFETY: the header's contract: NULL or a list that has not been freed.
    unsafe { free(letters) }
}
