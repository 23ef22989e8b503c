//! `segue_recovery`: what became of the transactions that an earlier process had in flight.

use std::ffi::{CString, c_char};
use std::ptr;
use std::time::UNIX_EPOCH;

use super::boundary::{Failure, Result, boundary, free, handle, output, read};
use super::client::segue_client;
use super::codes::{SEGUE_FORKED, SEGUE_INVALID_ARGUMENT};
use super::error::{c_string, or_null, segue_error};
use super::recovered_statement::segue_recovered_statements;
use crate::client::{Client, RecoveredTransaction, SealEvidence, Verdict, process_id};

/// It may be committed or not: segue_recovery_reason() says why that cannot be told.
pub const SEGUE_VERDICT_UNKNOWN: i32 = 0;
/// It is in the database, exactly once.
pub const SEGUE_VERDICT_COMMITTED: i32 = 1;
/// Its commit was sent and has failed: nothing of it is in the database, and nothing of it will be.
pub const SEGUE_VERDICT_NOT_COMMITTED: i32 = 2;
/// Its commit was never sent: nothing of it is in the database.
pub const SEGUE_VERDICT_NEVER_SENT: i32 = 3;

/// The transactions that an earlier process with the same journal had in flight, in the order in which they
/// began, and what became of each. Any thread may use it. As long as it is there, the journal keeps its
/// files, and no other client can have it: free it when all are dealt with. docs/recovery.md says what each
/// verdict means and why it holds.
pub struct segue_recovery {
    /// The journal is closed with the last that holds the client.
    client: Client,
    entries: Vec<Entry>,
    process: u32,
}

struct Entry {
    transaction: RecoveredTransaction,
    reason: Option<CString>,
    session: Option<CString>,
    database: Option<CString>,
    user: Option<CString>,
    begin: CString,
    rows: Vec<CString>,
}

impl Entry {
    fn new(transaction: RecoveredTransaction) -> Self {
        Self {
            reason: transaction.reason().map(c_string),
            session: transaction.session().map(|it| c_string(it.to_string())),
            database: transaction.database().map(c_string),
            user: transaction.user().map(c_string),
            begin: c_string(transaction.begin()),
            rows: transaction.seals().iter().map(|seal| c_string(seal.row.to_string())).collect(),
            transaction,
        }
    }
}

impl segue_recovery {
    /// In the child of a fork(), a thread that has not come along may hold the journal's lock.
    fn entry(&self, index: usize) -> Result<&Entry> {
        if self.process != process_id() {
            let message = "it was recovered before fork(): the journal is the parent process's";
            return Err(Failure::new(SEGUE_FORKED, message));
        }
        self.entries.get(index).ok_or_else(|| {
            let count = self.entries.len();
            let message = format!("there is no transaction {index}: {count} were found");
            Failure::new(SEGUE_INVALID_ARGUMENT, message)
        })
    }
}

/// What an accessor gives for one of the transactions; `fallback` if it is not there.
///
/// # Safety
/// The header's contract: NULL or a recovery that has not been freed.
unsafe fn of<T: Copy>(
    recovery: *const segue_recovery,
    index: usize,
    fallback: T,
    body: impl FnOnce(&Entry) -> Option<T>,
) -> T {
    // SAFETY: the caller's promise.
    unsafe { read(recovery, fallback, |recovery| recovery.entries.get(index).and_then(body)) }
}

/// The same for one of a transaction's attempts to commit.
///
/// # Safety
/// As for [`of`].
unsafe fn of_seal<T: Copy>(
    recovery: *const segue_recovery,
    index: usize,
    seal: usize,
    fallback: T,
    body: impl FnOnce(&SealEvidence) -> T,
) -> T {
    let found = |entry: &Entry| entry.transaction.seals().get(seal).map(body);
    // SAFETY: the caller's promise.
    unsafe { of(recovery, index, fallback, found) }
}

/// Finds what an earlier process with this client's journal (journal=file) had in flight, and asks the
/// ledger what became of it. Each transaction is found again, by this client and by later ones, until
/// segue_recovery_done(). Submissions are not among them: the client goes on with those by itself. Commits
/// of this client wait while the journal is read: this is for the time after the start.
///
/// @param[in]  client        The client.
/// @param[out] recovery_out  What was found, which may be nothing; free with segue_recovery_free().
/// @param[out] error_out     Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK      it is told; where the ledger could not be asked, the verdict is SEGUE_VERDICT_UNKNOWN
/// @return SEGUE_CONFIG  the journal cannot be read
/// @return SEGUE_FORKED  the client was opened before fork()
/// Threads: any. Waits for a server for at most failover_timeout_ms.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_recover(
    client: *const segue_client,
    recovery_out: *mut *mut segue_recovery,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, recovery_out) =
            unsafe { (handle(client, "client")?, output(recovery_out, "recovery_out")?) };
        let entries = client.0.recover()?.into_iter().map(Entry::new).collect();
        let process = process_id();
        recovery_out.give(segue_recovery { client: client.0.clone(), entries, process });
        Ok(())
    })
}

/// The number of transactions that were found.
///
/// @param[in] recovery  A recovery; NULL gives 0.
/// @return how many there are
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_count(recovery: *const segue_recovery) -> usize {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { read(recovery, 0, |recovery| Some(recovery.entries.len())) }
}

/// The number of a transaction in the journal, by which the command `segue journal` calls it too. It grows in
/// the order of beginning.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return its number, from 1; 0 if there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_number(
    recovery: *const segue_recovery,
    index: usize,
) -> u64 {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, 0, |entry| Some(entry.transaction.number())) }
}

/// What became of a transaction.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return SEGUE_VERDICT_...
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_verdict(
    recovery: *const segue_recovery,
    index: usize,
) -> i32 {
    let verdict = |entry: &Entry| {
        Some(match entry.transaction.verdict() {
            Verdict::Committed => SEGUE_VERDICT_COMMITTED,
            Verdict::NotCommitted => SEGUE_VERDICT_NOT_COMMITTED,
            Verdict::NeverSent => SEGUE_VERDICT_NEVER_SENT,
            Verdict::Unknown => SEGUE_VERDICT_UNKNOWN,
        })
    };
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, SEGUE_VERDICT_UNKNOWN, verdict) }
}

/// Why the verdict is SEGUE_VERDICT_UNKNOWN, and what can be done about it.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return a text that lives as long as the recovery; NULL for any other verdict, or if there is no such
///         transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_reason(
    recovery: *const segue_recovery,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, ptr::null(), |entry| Some(or_null(entry.reason.as_ref()))) }
}

/// Whether records of a transaction may be missing, because the journal was found damaged: do not run its
/// statements again without having looked at them.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return true if that is so; false if there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_is_doubtful(
    recovery: *const segue_recovery,
    index: usize,
) -> bool {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, false, |entry| Some(entry.transaction.is_doubtful())) }
}

/// The session that ran a transaction.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return a UUID that lives as long as the recovery; NULL if that record is lost, or there is no such
///         transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_session(
    recovery: *const segue_recovery,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, ptr::null(), |entry| Some(or_null(entry.session.as_ref()))) }
}

/// The number of that session in the journal.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return its number, from 1; 0 if that record is lost, or there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_session_number(
    recovery: *const segue_recovery,
    index: usize,
) -> u64 {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, 0, |entry| entry.transaction.session_number()) }
}

/// The database that a transaction was run in.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return a text that lives as long as the recovery; NULL if that record is lost, or there is no such
///         transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_database(
    recovery: *const segue_recovery,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, ptr::null(), |entry| Some(or_null(entry.database.as_ref()))) }
}

/// The role that ran a transaction.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return a text that lives as long as the recovery; NULL if that record is lost, or there is no such
///         transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_user(
    recovery: *const segue_recovery,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, ptr::null(), |entry| Some(or_null(entry.user.as_ref()))) }
}

/// When a transaction began.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return milliseconds since 1970 (UTC), by the clock of the machine that ran it; -1 if that record is lost,
///         or there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_began_at_ms(
    recovery: *const segue_recovery,
    index: usize,
) -> i64 {
    let began = |entry: &Entry| {
        let since = entry.transaction.began_at()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    };
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, -1, began) }
}

/// Whether a transaction was one statement outside a transaction block.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return true if it was; false if there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_is_autocommit(
    recovery: *const segue_recovery,
    index: usize,
) -> bool {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, false, |entry| Some(entry.transaction.is_autocommit())) }
}

/// Whether a transaction was declared READ ONLY.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return true if it was; false if there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_is_read_only(
    recovery: *const segue_recovery,
    index: usize,
) -> bool {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, false, |entry| Some(entry.transaction.is_read_only())) }
}

/// The statement that began a transaction.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return a text that lives as long as the recovery, "" for a plain BEGIN; NULL if there is no such
///         transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_begin(
    recovery: *const segue_recovery,
    index: usize,
) -> *const c_char {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, ptr::null(), |entry| Some(entry.begin.as_ptr())) }
}

/// How many statements of a transaction were recorded. One that was executed with several sets of parameters
/// at once counts once here, and segue_recovery_statements() gives it once for each.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return their number; 0 if there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_statement_count(
    recovery: *const segue_recovery,
    index: usize,
) -> usize {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, 0, |entry| Some(entry.transaction.size().0)) }
}

/// What a transaction takes up in the journal.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return a number of bytes; 0 if there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_bytes(
    recovery: *const segue_recovery,
    index: usize,
) -> u64 {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, 0, |entry| Some(entry.transaction.size().1)) }
}

/// How often a transaction may have been committed under a number of the ledger: one for each attempt. What
/// the ledger says of them is what the verdict rests on.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @return the number of attempts; 0 if none was sent, or there is no such transaction
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_seal_count(
    recovery: *const segue_recovery,
    index: usize,
) -> usize {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, 0, |entry| Some(entry.transaction.seals().len())) }
}

/// The row of the ledger (segue.ledger.session) in which an attempt was to stand. Whoever knows it can seal in
/// it: do not print it where strangers read.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @param[in] seal      The attempt's position, from 0.
/// @return a UUID that lives as long as the recovery; NULL if there is no such attempt
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_seal_row(
    recovery: *const segue_recovery,
    index: usize,
    seal: usize,
) -> *const c_char {
    let row = |entry: &Entry| Some(entry.rows.get(seal)?.as_ptr());
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of(recovery, index, ptr::null(), row) }
}

/// The number under which an attempt was to stand in its row.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @param[in] seal      The attempt's position, from 0.
/// @return its number; 0 if there is no such attempt
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_seal_number(
    recovery: *const segue_recovery,
    index: usize,
    seal: usize,
) -> u64 {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of_seal(recovery, index, seal, 0, |seal| seal.number) }
}

/// Whether an attempt would have been written into the ledger only if the transaction had written anything
/// itself.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @param[in] seal      The attempt's position, from 0.
/// @return true if that is so; false if there is no such attempt
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_seal_is_guarded(
    recovery: *const segue_recovery,
    index: usize,
    seal: usize,
) -> bool {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of_seal(recovery, index, seal, false, |seal| seal.guarded) }
}

/// What the ledger says of an attempt.
///
/// @param[in] recovery  A recovery, or NULL.
/// @param[in] index     The transaction's position, from 0.
/// @param[in] seal      The attempt's position, from 0.
/// @return 1 if it has committed, 0 if it has not and never will; -1 if the ledger cannot say or was not asked,
///         or there is no such attempt
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_seal_committed(
    recovery: *const segue_recovery,
    index: usize,
    seal: usize,
) -> i32 {
    let committed = |seal: &SealEvidence| seal.committed.map_or(-1, i32::from);
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { of_seal(recovery, index, seal, -1, committed) }
}

/// Opens the statements that a transaction had executed, in order. They are read from the journal's files one
/// at a time, as segue_recovered_statements_next() asks for them.
///
/// @param[in]  recovery        What was found.
/// @param[in]  index           The transaction's position, from 0.
/// @param[out] statements_out  The statements, before the first one; free with
///                             segue_recovered_statements_free().
/// @param[out] error_out       Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                they are open
/// @return SEGUE_INVALID_ARGUMENT  there is no such transaction
/// @return SEGUE_FORKED            they were found before fork()
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_statements(
    recovery: *const segue_recovery,
    index: usize,
    statements_out: *mut *mut segue_recovered_statements,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (recovery, statements_out) =
            unsafe { (handle(recovery, "recovery")?, output(statements_out, "statements_out")?) };
        let statements = recovery.entry(index)?.transaction.statements();
        statements_out.give(segue_recovered_statements::new(&recovery.client, statements));
        Ok(())
    })
}

/// The application is done with a transaction: the journal forgets it. Returns once that is kept. May be
/// repeated. Run a transaction again first, where it is to be run again, and call this then.
///
/// @param[in]  recovery   What was found.
/// @param[in]  index      The transaction's position, from 0.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                it will not be found again
/// @return SEGUE_INVALID_ARGUMENT  there is no such transaction
/// @return SEGUE_PROTECTION_LOST   the journal cannot be written: it is found again when the journal is opened
/// @return SEGUE_FORKED            it was found before fork()
/// Threads: any. Waits for the disk alone.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_done(
    recovery: *const segue_recovery,
    index: usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let recovery = unsafe { handle(recovery, "recovery") }?;
        Ok(recovery.entry(index)?.transaction.done()?)
    })
}

/// Frees a recovery. What is not done with stays in the journal.
///
/// @param[in] recovery  A recovery; NULL does nothing. Its statements may be freed later.
/// Threads: any, once nobody else uses it. Where it is the last that keeps the client alive, as
/// segue_client_free().
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_recovery_free(recovery: *mut segue_recovery) {
    // SAFETY: the header's contract: NULL or a recovery that has not been freed.
    unsafe { free(recovery) }
}
