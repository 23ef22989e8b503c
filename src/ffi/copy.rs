//! `segue_copy_in` and `segue_copy_out`: COPY from and to the application.

use std::ffi::{c_char, c_void};
use std::sync::Mutex;
use std::{mem, ptr};

use bytes::Bytes;

use super::boundary::{
    Failure, Result, array, boundary, free, handle, output, text, write_optional,
};
use super::codes::SEGUE_USAGE;
use super::error::segue_error;
use super::lease::{Lease, Then};
use super::session::segue_session;
use crate::client::{CopyWriter, ReplyReader};

/// A COPY FROM STDIN under way. It uses its session until it is finished, aborted or freed.
pub struct segue_copy_in(Lease<CopyWriter>);

impl Drop for segue_copy_in {
    fn drop(&mut self) {
        // One that was finished or aborted has given its session back already.
        let _ = self.0.end(|session, writer| {
            writer.abandon(session);
            Ok(())
        });
    }
}

/// A COPY TO STDOUT under way. It uses its session until it has come to its end or is freed.
pub struct segue_copy_out {
    lease: Lease<ReplyReader>,
    /// What was read last, which the application may be looking at.
    piece: Mutex<Bytes>,
}

impl Drop for segue_copy_out {
    fn drop(&mut self) {
        let _ = self.lease.end(|session, reader| {
            reader.finish(session);
            Ok(())
        });
    }
}

/// Starts a COPY ... FROM STDIN. Other calls on the session give SEGUE_BUSY until it is finished,
/// aborted or freed.
///
/// @param[in]  session    The session.
/// @param[in]  sql        The COPY statement.
/// @param[out] copy_out   The COPY; free with segue_copy_in_free().
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK     the server awaits data
/// @return SEGUE_USAGE  the statement is no COPY FROM STDIN; it was executed
/// @return SEGUE_SERVER and others, as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_copy_in(
    session: *mut segue_session,
    sql: *const c_char,
    copy_out: *mut *mut segue_copy_in,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, sql) = unsafe { (handle(session, "session")?, text(sql, "sql")?) };
        // SAFETY: the header's contract for an output.
        let copy_out = unsafe { output(copy_out, "copy_out") }?;
        let start = |session: &mut _| Ok(CopyWriter::start(session, sql)?);
        copy_out.give(segue_copy_in(Lease::start(&session.0, "COPY", start)?));
        Ok(())
    })
}

/// Sends a piece of data; pieces need not end where rows do.
///
/// @param[in]  copy       The COPY.
/// @param[in]  data       The bytes, in the format that the statement asks for.
/// @param[in]  length     Their number.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK     it is sent, or gathered for sending
/// @return SEGUE_USAGE  the COPY has failed or has ended: segue_copy_in_finish() tells why
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_copy_in_write(
    copy: *mut segue_copy_in,
    data: *const c_void,
    length: usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and an array.
        let (copy, data) =
            unsafe { (handle(copy, "copy")?, array(data.cast::<u8>(), length, "data")?) };
        let send = |session: &mut _, writer: &mut CopyWriter| {
            writer.send(session, data)?;
            Ok(Then::GoOn(()))
        };
        copy.0.with(send)?.ok_or_else(|| Failure::new(SEGUE_USAGE, "the COPY has ended"))
    })
}

/// Ends a COPY. Outside a transaction it is committed then.
///
/// @param[in]  copy       The COPY, which is to be freed all the same.
/// @param[out] rows_out   Optional: the number of rows.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute(); SEGUE_USAGE if it has ended already
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_copy_in_finish(
    copy: *mut segue_copy_in,
    rows_out: *mut u64,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let copy = unsafe { handle(copy, "copy") }?;
        let rows = copy.0.end(|session, writer| Ok(writer.end(session, None)?))?;
        // SAFETY: the header's contract for an optional output.
        unsafe { write_optional(rows_out, rows) };
        Ok(())
    })
}

/// Makes a COPY fail, so that nothing of it is committed.
///
/// @param[in]  copy       The COPY, which is to be freed all the same.
/// @param[in]  reason     What the server's error says.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_SERVER  the server's error, SQLSTATE 57014, which is what was asked for
/// @return SEGUE_USAGE   it has ended already
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_copy_in_abort(
    copy: *mut segue_copy_in,
    reason: *const c_char,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (copy, reason) = unsafe { (handle(copy, "copy")?, text(reason, "reason")?) };
        copy.0.end(|session, writer| Ok(writer.end(session, Some(reason)).map(drop)?))
    })
}

/// Frees a COPY; one that was not finished is aborted.
///
/// @param[in] copy  A COPY; NULL does nothing.
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_copy_in_free(copy: *mut segue_copy_in) {
    // SAFETY: the header's contract: NULL or a COPY that has not been freed.
    unsafe { free(copy) }
}

/// Starts a COPY ... TO STDOUT. Other calls on the session give SEGUE_BUSY until it has come to its end
/// or is freed.
///
/// @param[in]  session    The session.
/// @param[in]  sql        The COPY statement.
/// @param[out] copy_out   The COPY; free with segue_copy_out_free().
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK     the server sends data
/// @return SEGUE_USAGE  the statement is no COPY TO STDOUT; it was executed
/// @return SEGUE_SERVER and others, as segue_session_execute()
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_session_copy_out(
    session: *mut segue_session,
    sql: *const c_char,
    copy_out: *mut *mut segue_copy_out,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle and a string.
        let (session, sql) = unsafe { (handle(session, "session")?, text(sql, "sql")?) };
        // SAFETY: the header's contract for an output.
        let copy_out = unsafe { output(copy_out, "copy_out") }?;
        let start = |session: &mut _| Ok(ReplyReader::copy(session, sql)?);
        let lease = Lease::start(&session.0, "COPY", start)?;
        copy_out.give(segue_copy_out { lease, piece: Mutex::default() });
        Ok(())
    })
}

/// The next piece of a COPY's data: one row of the text formats.
///
/// @param[in]  copy        The COPY.
/// @param[out] data_out    The bytes, good until the next call or segue_copy_out_free(); NULL at the
///                         end: then the session can be used again.
/// @param[out] length_out  Their number; 0 at the end.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK, or as segue_session_execute(); after an error the COPY has come to its end
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_copy_out_read(
    copy: *mut segue_copy_out,
    data_out: *mut *const c_void,
    length_out: *mut usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for a handle.
        let copy = unsafe { handle(copy, "copy") }?;
        // SAFETY: the header's contract for outputs.
        let (data_out, length_out) =
            unsafe { (output(data_out, "data_out")?, output(length_out, "length_out")?) };
        let piece = copy.next()?;
        length_out.write(piece.as_ref().map_or(0, Bytes::len));
        data_out.write(piece.as_ref().map_or(ptr::null(), |piece| piece.as_ptr().cast()));
        if let Ok(mut kept) = copy.piece.lock() {
            drop(mem::replace(&mut *kept, piece.unwrap_or_default()));
        }
        Ok(())
    })
}

impl segue_copy_out {
    fn next(&self) -> Result<Option<Bytes>> {
        let piece = self.lease.with(|session, reader| match reader.next_piece(session) {
            Ok(Some(piece)) => Ok(Then::GoOn(Ok(Some(piece)))),
            end => Ok(Then::End(end)),
        })?;
        Ok(piece.unwrap_or(Ok(None))?)
    }
}

/// Frees a COPY. Before its end, that reads the rest and throws it away.
///
/// @param[in] copy  A COPY; NULL does nothing.
/// Threads: one caller at a time per session.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_copy_out_free(copy: *mut segue_copy_out) {
    // SAFETY: the header's contract: NULL or a COPY that has not been freed.
    unsafe { free(copy) }
}
