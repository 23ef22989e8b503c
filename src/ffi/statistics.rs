//! `segue_statistics`: what a client has been through, in numbers that have names.

use std::ffi::{CStr, c_char};
use std::ptr;

use super::boundary::{Failure, boundary, free, handle, output, read, text};
use super::client::segue_client;
use super::error::segue_error;
use crate::client::ClientStatistics;

/// What all sessions of a client had done at one moment, those that were closed included. Immutable:
/// any thread may read it.
pub struct segue_statistics([(&'static CStr, u64); 16]);

impl segue_statistics {
    fn new(statistics: &ClientStatistics) -> Self {
        Self([
            (c"sessions_opened", statistics.sessions_opened),
            (c"statements", statistics.statements),
            (c"transactions_committed", statistics.transactions_committed),
            (c"transactions_rolled_back", statistics.transactions_rolled_back),
            (c"links_lost", statistics.links_lost),
            (c"replays_started", statistics.replays_started),
            (c"replays_finished", statistics.replays_finished),
            (c"replays_diverged", statistics.replays_diverged),
            (c"commits_found", statistics.commits_found),
            (c"outcomes_unknown", statistics.outcomes_unknown),
            (c"commits_lost", statistics.commits_lost),
            (c"commits_reapplied", statistics.commits_reapplied),
            (c"protection_lost", statistics.protection_lost),
            (c"notices", statistics.notices),
            (c"pause_longest_us", statistics.pause_longest_us),
            (c"pause_total_us", statistics.pause_total_us),
        ])
    }
}

/// Takes a snapshot of a client's counters, which are never reset. New ones may be added behind the
/// last:
/// "sessions_opened";
/// "statements" (without BEGIN, COMMIT, ROLLBACK and what a replay runs again);
/// "transactions_committed", "transactions_rolled_back" (those begun by the application);
/// "links_lost" (connections that broke under a session);
/// "replays_started", "replays_finished", "replays_diverged";
/// "commits_found" (whose acknowledgement was lost, and that the ledger has told to stand);
/// "outcomes_unknown"; "commits_lost", "commits_reapplied" (acknowledged, and not on the server that
/// took over); "protection_lost"; "notices";
/// "pause_longest_us", "pause_total_us" (how long sessions were without a server before they had moved).
///
/// @param[in]  client          The client.
/// @param[out] statistics_out  The snapshot; free with segue_statistics_free().
/// @param[out] error_out       Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is there
/// Threads: any. Does not block.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_client_statistics(
    client: *const segue_client,
    statistics_out: *mut *mut segue_statistics,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (client, statistics_out) =
            unsafe { (handle(client, "client")?, output(statistics_out, "statistics_out")?) };
        statistics_out.give(segue_statistics::new(&client.0.statistics()));
        Ok(())
    })
}

/// The number of counters.
///
/// @param[in] statistics  A snapshot; NULL gives 0.
/// @return how many there are
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statistics_count(statistics: *const segue_statistics) -> usize {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(statistics, 0, |statistics| Some(statistics.0.len())) }
}

/// The name of a counter.
///
/// @param[in] statistics  A snapshot, or NULL.
/// @param[in] index       The counter's position, from 0.
/// @return a static text; NULL if there is no such counter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statistics_name(
    statistics: *const segue_statistics,
    index: usize,
) -> *const c_char {
    let name = |statistics: &segue_statistics| Some(statistics.0.get(index)?.0.as_ptr());
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(statistics, ptr::null(), name) }
}

/// The value of a counter.
///
/// @param[in] statistics  A snapshot, or NULL.
/// @param[in] index       The counter's position, from 0.
/// @return its value; 0 if there is no such counter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statistics_value(
    statistics: *const segue_statistics,
    index: usize,
) -> u64 {
    let value = |statistics: &segue_statistics| Some(statistics.0.get(index)?.1);
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { read(statistics, 0, value) }
}

/// The value of the counter with a name.
///
/// @param[in]  statistics  The snapshot.
/// @param[in]  name        The counter's name.
/// @param[out] value_out   Its value.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK                it is there
/// @return SEGUE_INVALID_ARGUMENT  there is no such counter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statistics_find(
    statistics: *const segue_statistics,
    name: *const c_char,
    value_out: *mut u64,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (statistics, name) =
            unsafe { (handle(statistics, "statistics")?, text(name, "name")?) };
        // SAFETY: the header's contract for an output.
        let value_out = unsafe { output(value_out, "value_out") }?;
        let found = statistics.0.iter().find(|(known, _)| known.to_bytes() == name.as_bytes());
        let (_, value) =
            found.ok_or_else(|| Failure::argument(format!("there is no counter {name}")))?;
        value_out.write(*value);
        Ok(())
    })
}

/// Frees a snapshot.
///
/// @param[in] statistics  A snapshot; NULL does nothing.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_statistics_free(statistics: *mut segue_statistics) {
    // SAFETY: the header's contract: NULL or a snapshot that has not been freed.
    unsafe { free(statistics) }
}
