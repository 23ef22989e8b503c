//! COPY in and out.

use std::io::{self, Write};

use bytes::Bytes;

use super::session::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::session::Event;

/// Data is sent once so much of it has gathered.
const BATCH: usize = 64 * 1024;

/// COPY FROM STDIN under way: write the data, then [`finish`](Self::finish). Dropping it makes the
/// COPY fail, so that nothing of it is committed.
pub struct CopyIn<'a> {
    session: &'a mut Session,
    done: bool,
}

impl<'a> CopyIn<'a> {
    pub(super) fn start(session: &'a mut Session, sql: &str) -> Result<Self> {
        session.driver.ready()?;
        session.request(sql, &[], false, false)?;
        let mut error = None;
        loop {
            match session.driver.next()? {
                Event::CopyIn => return Ok(Self { session, done: false }),
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
    pub fn send(&mut self, data: &[u8]) -> Result<()> {
        self.session.driver.restore()?;
        let core = &mut self.session.driver.core;
        if !core.copies_in() {
            return Err(Error::new(ErrorKind::Usage, "the COPY has failed: finish() tells why"));
        }
        core.copy_data(data)?;
        if core.output().len() >= BATCH {
            self.session.driver.flush()?;
        }
        Ok(())
    }

    /// Ends the COPY; the number of rows.
    pub fn finish(mut self) -> Result<u64> {
        self.end(None)
    }

    /// Makes the COPY fail with a reason of the application's.
    pub fn abort(mut self, reason: &str) -> Result<()> {
        self.end(Some(reason)).map(drop)
    }

    fn end(&mut self, reason: Option<&str>) -> Result<u64> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(0);
        }
        self.session.driver.restore()?;
        if self.session.driver.core.copies_in() {
            self.session.driver.core.copy_end(reason)?;
        }
        let results = self.session.finish()?;
        Ok(results.last.rows_affected())
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
        // The error is the wanted outcome.
        let _ = self.end(Some("the application abandoned the COPY"));
    }
}

/// COPY TO STDOUT under way: the data, piece by piece.
pub struct CopyOut<'a> {
    session: &'a mut Session,
    error: Option<Error>,
    done: bool,
}

impl<'a> CopyOut<'a> {
    pub(super) fn start(session: &'a mut Session, sql: &str) -> Result<Self> {
        session.driver.ready()?;
        session.request(sql, &[], false, true)?;
        let mut error = None;
        loop {
            match session.driver.next()? {
                Event::CopyOut => return Ok(Self { session, error: None, done: false }),
                Event::CopyIn => session.driver.core.copy_end(Some("use copy_in()"))?,
                Event::Error(e) => error = Some(e),
                Event::Ready(_) => {
                    return Err(error.unwrap_or_else(|| {
                        session.executed("the statement is no COPY TO STDOUT; it was executed")
                    }));
                }
                _ => {}
            }
        }
    }

    /// The next piece: one row of the text formats; `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>> {
        while !self.done {
            match self.session.driver.next() {
                Ok(Event::CopyData(piece)) => return Ok(Some(piece)),
                Ok(Event::Error(error)) => self.error = Some(error),
                Ok(Event::Ready(_)) => self.done = true,
                Ok(_) => {}
                Err(error) => {
                    self.done = true;
                    return Err(error);
                }
            }
        }
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(None),
        }
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
        while !self.done && self.next_piece().is_ok_and(|piece| piece.is_some()) {}
    }
}
