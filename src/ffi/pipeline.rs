//! `segue_pipeline`: statements sent without waiting for each one's reply.

use std::ffi::c_char;
use std::sync::{Mutex, PoisonError};
use std::vec;

use super::boundary::{Failure, Result, boundary, free, handle, output, text};
use super::codes::SEGUE_USAGE;
use super::error::segue_error;
use super::lease::{Lease, Then};
use super::param::{is_text, segue_param, with_params};
use super::result::segue_result;
use super::session::segue_session;
use super::statement::segue_statement;
use crate::client::{PipelineQueue, Query, QueryResult, ToSql};
use crate::error;

/// Statements sent without waiting for each one's reply: add them, then ask for their results. Each is
/// a request of its own: outside a transaction each is committed by itself, and a failing one does not
/// stop the others. It uses its session until the last result was asked for, or it is freed.
pub struct segue_pipeline {
    lease: Lease<PipelineQueue>,
    text: bool,
    /// What is left of the results, once they have been asked for.
    results: Mutex<vec::IntoIter<error::Result<QueryResult>>>,
}

impl segue_pipeline {
    fn add<Q: Query + ?Sized>(&self, query: &Q, params: &[&dyn ToSql]) -> Result<()> {
        let add = |session: &mut _, queue: &mut PipelineQueue| {
            queue.add(session, query, params)?;
            Ok(Then::GoOn(()))
        };
        self.lease.with(add)?.ok_or_else(|| {
            Failure::new(
                SEGUE_USAGE,
                "the pipeline's results have been asked for; nothing was sent",
            )
        })
    }

    /// Keeps the results whatever becomes of COMMIT.
    fn commit(&self) -> Result<()> {
        let commit = |session: &mut _, queue: &mut PipelineQueue| {
            let committed = queue.commit(session);
            Ok(Then::End((committed, queue.finish(session))))
        };
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((committed, collected)) = self.lease.with(commit)? else {
            return Err(Failure::new(
                SEGUE_USAGE,
                "the pipeline's results have been asked for; nothing was sent",
            ));
        };
        if let Ok(collected) = collected {
            *results = collected.into_iter();
        }
        Ok(committed?)
    }

    fn next(&self) -> Result<Option<segue_result>> {
        let collect =
            |session: &mut _, queue: &mut PipelineQueue| Ok(Then::End(queue.finish(session)));
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(collected) = self.lease.with(collect)? {
            *results = collected?.into_iter();
        }
        match results.next() {
            Some(result) => Ok(Some(segue_result::of_rows(result?, self.text))),
            None => Ok(None),
        }
    }
}

impl Drop for segue_pipeline {
    fn drop(&mut self) {
        // One whose results have been asked for has given its session back already.
        let _ = self.lease.end(|session, queue| Ok(queue.finish(session).map(drop)?));
    }
}

/// Starts a pipeline. Transactions are begun outside of it, and ended there or by
/// segue_pipeline_commit(). Other calls on the session give
/// SEGUE_BUSY until its results have been asked for, or it is freed.
///
/// @param[in]  session       The session.
/// @param[in]  format        SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY, for all its results.
/// @param[out] pipeline_out  The pipeline; free with segue_pipeline_free().
/// @param[out] error_out     Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it can be added to
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_pipeline(
    session: *mut segue_session,
    format: i32,
    pipeline_out: *mut *mut segue_pipeline,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (session, pipeline_out) =
            unsafe { (handle(session, "session")?, output(pipeline_out, "pipeline_out")?) };
        let text = is_text(format)?;
        let lease = Lease::start(&session.0, "pipeline", |_| Ok(PipelineQueue::new(text)))?;
        pipeline_out.give(segue_pipeline { lease, text, results: Mutex::default() });
        Ok(())
    })
}

/// Adds a statement.
///
/// @param[in]  pipeline    The pipeline.
/// @param[in]  sql         One statement that does not begin or end a transaction.
/// @param[in]  params      The parameters; NULL if there are none.
/// @param[in]  params_len  Their number.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK  it is added; what becomes of it, segue_pipeline_next() tells. Otherwise nothing
///                   was added, and the pipeline can be used further.
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_pipeline_add(
    pipeline: *mut segue_pipeline,
    sql: *const c_char,
    params: *const segue_param,
    params_len: usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (pipeline, sql) = unsafe { (handle(pipeline, "pipeline")?, text(sql, "sql")?) };
        // SAFETY: the header's contract for parameters.
        unsafe { with_params(params, params_len, |params| pipeline.add(sql, params)) }
    })
}

/// Adds a prepared statement, of the same session or another one of the client.
///
/// @param[in]  pipeline    The pipeline.
/// @param[in]  statement   The statement.
/// @param[in]  params      The parameters; NULL if there are none.
/// @param[in]  params_len  Their number.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return as segue_pipeline_add()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_pipeline_add_statement(
    pipeline: *mut segue_pipeline,
    statement: *const segue_statement,
    params: *const segue_param,
    params_len: usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for handles.
        let (pipeline, statement) =
            unsafe { (handle(pipeline, "pipeline")?, handle(statement, "statement")?) };
        let add = |params: &[&dyn ToSql]| pipeline.add(&statement.prepared, params);
        // SAFETY: the header's contract for parameters.
        unsafe { with_params(params, params_len, add) }
    })
}

/// Commits the session's open transaction behind the statements that were added: COMMIT goes out with
/// them and costs no round trip of its own. Waits for all replies; nothing can be added afterwards,
/// whatever is returned, and the session can be used again. segue_pipeline_next() gives the results.
///
/// @param[in]  pipeline   The pipeline.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return as segue_session_commit(): SEGUE_TRANSACTION_FAILED where one of the statements has failed
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_pipeline_commit(
    pipeline: *mut segue_pipeline,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        unsafe { handle(pipeline, "pipeline") }?.commit()
    })
}

/// The result of the next statement, in the order in which they were added. The first call waits for
/// all of them; nothing can be added after it, and the session can be used again.
///
/// @param[in]  pipeline    The pipeline.
/// @param[out] result_out  The result; free with segue_result_free(). NULL after the last.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or what became of this statement, as segue_session_execute(); go on with the next
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_pipeline_next(
    pipeline: *mut segue_pipeline,
    result_out: *mut *mut segue_result,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an output.
        let (pipeline, result_out) =
            unsafe { (handle(pipeline, "pipeline")?, output(result_out, "result_out")?) };
        match pipeline.next()? {
            Some(result) => result_out.give(result),
            None => result_out.give_null(),
        }
        Ok(())
    })
}

/// Frees a pipeline. Before its results have been asked for, that waits for them.
///
/// @param[in] pipeline  A pipeline; NULL does nothing.
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_pipeline_free(pipeline: *mut segue_pipeline) {
    // SAFETY: the header's contract: NULL or a pipeline that has not been freed.
    unsafe { free(pipeline) }
}
