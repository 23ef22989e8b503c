//! Reads one streamed reply, piece by piece.
//!
//! A reader does not hold its session, so that faces whose handles cannot borrow (C, Python) can
//! keep both side by side; in Rust, [`RowStream`](super::RowStream) and [`CopyOut`](super::CopyOut)
//! do that by a borrow. It must be used with the session that it was started on, and the session
//! must be given no other request before the reader [is done](ReplyReader::is_done).

use std::sync::Arc;

use bytes::Bytes;

use super::parameter::ToSql;
use super::row::Row;
use super::session::{Query, Session};
use crate::error::{Error, Result};
use crate::session::{Column, Event};

/// A streamed reply that is being read: rows, or the data of COPY.
#[derive(Debug)]
pub struct ReplyReader {
    columns: Arc<[Column]>,
    text: bool,
    error: Option<Error>,
    done: bool,
}

impl ReplyReader {
    /// Executes a statement whose rows are then read one by one. Values come as text if `text`.
    pub fn rows<Q: Query + ?Sized>(
        session: &mut Session,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
    ) -> Result<Self> {
        session.driver.ready()?;
        let several = session.request(query, params, text, true)?;
        // On its way at once, so that it can be cancelled before its first row is asked for.
        session.driver.send_while_reading();
        Ok(Self { columns: Arc::new([]), text: text || several, error: None, done: false })
    }

    /// Starts a COPY ... TO STDOUT.
    pub fn copy(session: &mut Session, sql: &str) -> Result<Self> {
        session.driver.ready()?;
        session.request(sql, &[], false, true)?;
        let mut error = None;
        loop {
            match session.driver.next()? {
                Event::CopyOut => break,
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
        Ok(Self { columns: Arc::new([]), text: false, error: None, done: false })
    }

    /// The next row; `None` at the end.
    pub fn next_row(&mut self, session: &mut Session) -> Result<Option<Row>> {
        while let Some(event) = self.next(session)? {
            match event {
                Event::Columns(columns) => self.columns = columns,
                Event::Row(body) => {
                    return Ok(Some(Row::new(Arc::clone(&self.columns), body, self.text)));
                }
                // Refused where it is met: here there is no data to send.
                Event::CopyIn => session.driver.core.copy_end(Some("use copy_in()"))?,
                _ => {}
            }
        }
        Ok(None)
    }

    /// The next piece of COPY's data: one row of the text formats; `None` at the end.
    pub fn next_piece(&mut self, session: &mut Session) -> Result<Option<Bytes>> {
        while let Some(event) = self.next(session)? {
            if let Event::CopyData(piece) = event {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// The next event; `None` once the reply has ended, after its error if it has one.
    fn next(&mut self, session: &mut Session) -> Result<Option<Event>> {
        while !self.done {
            match session.driver.next() {
                Ok(Event::Error(error)) => self.error = Some(error),
                Ok(Event::Ready(_)) => self.done = true,
                Ok(event) => return Ok(Some(event)),
                Err(error) => {
                    self.done = true;
                    return Err(error);
                }
            }
        }
        self.error.take().map_or(Ok(None), Err)
    }

    /// Has an error told by the next call once more.
    #[cfg(feature = "c-abi")]
    pub(crate) fn put_back(&mut self, error: Error) {
        self.error = Some(error);
    }

    /// Whether the reply has been read to its end.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Reads the rest and throws it away.
    pub fn finish(&mut self, session: &mut Session) {
        while self.next(session).is_ok_and(|event| event.is_some()) {}
    }

    /// The columns, once the first row has arrived.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
}
