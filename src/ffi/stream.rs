//! `segue_stream`: rows as they arrive.

use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::{Failure, Result, boundary, free, handle, output, text};
use super::error::segue_error;
use super::lease::{Lease, SessionCell, Then};
use super::param::{is_text, segue_param, with_params};
use super::result::segue_result;
use super::session::segue_session;
use super::table::Table;
use crate::client::{Query, ReplyReader, ToSql};

/// The rows of one statement as they arrive. Memory stays bounded whatever their number. It uses its
/// session until it has come to its end or is freed.
pub struct segue_stream {
    lease: Lease<ReplyReader>,
    text: bool,
}

impl segue_stream {
    pub(super) fn start<Q: Query + ?Sized>(
        cell: &Arc<SessionCell>,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
    ) -> Result<Self> {
        let start = |session: &mut _| Ok(ReplyReader::rows(session, query, params, text)?);
        Ok(Self { lease: Lease::start(cell, "stream", start)?, text })
    }

    /// At most `rows_max` rows; `None` at the end.
    fn next(&self, rows_max: usize) -> Result<Option<segue_result>> {
        let table = self.lease.with(|session, reader| {
            let mut table: Option<Table> = None;
            loop {
                match reader.next_row(session) {
                    Ok(Some(row)) => {
                        let table = table.get_or_insert_with(|| {
                            Table::empty(row.shared_columns(), self.text || row.is_text())
                        });
                        table.push(row.len(), row.body());
                        if table.rows() >= rows_max {
                            break;
                        }
                    }
                    // Its error is told by the next call: these rows came before it.
                    Err(error) if table.is_some() => {
                        reader.put_back(error);
                        break;
                    }
                    Err(error) => return Ok(Then::End(Err(error))),
                    Ok(None) => break,
                }
            }
            Ok(if table.is_some() { Then::GoOn(Ok(table)) } else { Then::End(Ok(None)) })
        })?;
        match table {
            None | Some(Ok(None)) => Ok(None),
            Some(Ok(Some(table))) => Ok(Some(segue_result::of_table(table))),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

impl Drop for segue_stream {
    fn drop(&mut self) {
        // A stream that has come to its end has given its session back already.
        let _ = self.lease.end(|session, reader| {
            reader.finish(session);
            Ok(())
        });
    }
}

/// Executes a statement and hands its rows over as they arrive. A failover in the middle goes on with
/// the next row. Other calls on the session give SEGUE_BUSY until the stream has come to its end or is
/// freed.
///
/// @param[in]  session     The session.
/// @param[in]  sql         One statement.
/// @param[in]  params      The parameters; NULL if there are none.
/// @param[in]  params_len  Their number.
/// @param[in]  format      SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
/// @param[out] stream_out  The rows; free with segue_stream_free().
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  the statement is under way; its errors come with segue_stream_next()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_stream(
    session: *mut segue_session,
    sql: *const c_char,
    params: *const segue_param,
    params_len: usize,
    format: i32,
    stream_out: *mut *mut segue_stream,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, sql) = unsafe { (handle(session, "session")?, text(sql, "sql")?) };
        // SAFETY: the header's contract for an output.
        let stream_out = unsafe { output(stream_out, "stream_out") }?;
        let text = is_text(format)?;
        let start = |params: &[&dyn ToSql]| segue_stream::start(&session.0, sql, params, text);
        // SAFETY: the header's contract for parameters.
        stream_out.give(unsafe { with_params(params, params_len, start) }?);
        Ok(())
    })
}

/// The next rows of a stream. Waits until there are so many, or no more.
///
/// @param[in]  stream      The stream.
/// @param[in]  rows_max    How many rows at most, from 1.
/// @param[out] result_out  The rows; free with segue_result_free(). NULL at the end: then the session
///                         can be used again.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute(); after an error the stream has come to its end
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_stream_next(
    stream: *mut segue_stream,
    rows_max: usize,
    result_out: *mut *mut segue_result,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (stream, result_out) =
            unsafe { (handle(stream, "stream")?, output(result_out, "result_out")?) };
        if rows_max == 0 {
            return Err(Failure::argument("rows_max is 0"));
        }
        match stream.next(rows_max)? {
            Some(rows) => result_out.give(rows),
            None => result_out.give_null(),
        }
        Ok(())
    })
}

/// Frees a stream. Before its end, that reads the rest and throws it away: cancel the statement first
/// if it is long.
///
/// @param[in] stream  A stream; NULL does nothing.
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_stream_free(stream: *mut segue_stream) {
    // SAFETY: the header's contract: NULL or a stream that has not been freed.
    unsafe { free(stream) }
}
