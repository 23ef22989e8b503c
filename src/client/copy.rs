//! COPY in and out.

use std::io::{self, Write};

use bytes::Bytes;

use super::reader::ReplyReader;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Event;

/// Data is sent once so much of it has gathered.
pub(super) const BATCH: usize = 64 * 1024;

/// A COPY FROM STDIN under way, without its session: for faces whose handles cannot borrow. It must
/// be used with the session that it was started on, which takes no other request before its end.
#[derive(Debug)]
pub struct CopyWriter {
    done: bool,
}

impl CopyWriter {
    pub fn start(session: &mut Session, sql: &str) -> Result<Self> {
        session.driver.ready()?;
        session.request(sql, &[], false, false)?;
        let mut error = None;
        loop {
            match session.driver.next()? {
                Event::CopyIn => return Ok(Self { done: false }),
                Event::Error(e) => error = Some(e),
                Event::Ready(_) => {
                    return Err(error.unwrap_or_else(|| {
                        session.executed("the statement is no COPY FROM STDIN; it was executed")
                    }));
                }
                _ => {}
            }
        }
    }

    /// Sends a piece of data; pieces need not end where rows do.
    pub fn send(&mut self, session: &mut Session, data: &[u8]) -> Result<()> {
        session.driver.restore()?;
        let core = &mut session.driver.core;
        if self.done || !core.copies_in() {
            return Err(Error::new(ErrorKind::Usage, "the COPY has failed: finish() tells why"));
        }
        core.copy_data(data)?;
        if core.output_len() >= BATCH {
            session.driver.flush()?;
        }
        Ok(())
    }

    /// Ends the COPY; the number of rows. With a reason of the application's it fails.
    pub fn end(&mut self, session: &mut Session, reason: Option<&str>) -> Result<u64> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(0);
        }
        session.driver.restore()?;
        if session.driver.core.copies_in() {
            session.driver.core.copy_end(reason)?;
        }
        let results = session.finish()?;
        Ok(results.last.rows_affected())
    }

    /// Makes the COPY fail if it has not been ended, so that nothing of it is committed.
    pub fn abandon(&mut self, session: &mut Session) {
        // The error is the wanted outcome.
        let _ = self.end(session, Some("the application abandoned the COPY"));
    }
}

/// COPY FROM STDIN under way: write the data, then [`finish`](Self::finish). Dropping it makes the
/// COPY fail, so that nothing of it is committed.
pub struct CopyIn<'a> {
    session: &'a mut Session,
    writer: CopyWriter,
}

impl<'a> CopyIn<'a> {
    pub(super) fn start(session: &'a mut Session, sql: &str) -> Result<Self> {
        let writer = CopyWriter::start(session, sql)?;
        Ok(Self { session, writer })
    }

    /// Sends a piece of data; pieces need not end where rows do.
    pub fn send(&mut self, data: &[u8]) -> Result<()> {
        self.writer.send(self.session, data)
    }

    /// Ends the COPY; the number of rows.
    pub fn finish(mut self) -> Result<u64> {
        self.writer.end(self.session, None)
    }

    /// Makes the COPY fail with a reason of the application's.
    pub fn abort(mut self, reason: &str) -> Result<()> {
        self.writer.end(self.session, Some(reason)).map(drop)
    }
}

impl Write for CopyIn<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.send(data).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.driver.flush().map_err(io::Error::other)
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        self.writer.abandon(self.session);
    }
}

/// COPY TO STDOUT under way: the data, piece by piece.
pub struct CopyOut<'a> {
    session: &'a mut Session,
    reader: ReplyReader,
}

impl<'a> CopyOut<'a> {
    pub(super) fn start(session: &'a mut Session, sql: &str) -> Result<Self> {
        let reader = ReplyReader::copy(session, sql)?;
        Ok(Self { session, reader })
    }

    /// The next piece: one row of the text formats; `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>> {
        self.reader.next_piece(self.session)
    }
}

impl Iterator for CopyOut<'_> {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_piece().transpose()
    }
}

impl Drop for CopyOut<'_> {
    fn drop(&mut self) {
        self.reader.finish(self.session);
    }
}
