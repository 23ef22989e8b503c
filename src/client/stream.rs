//! Rows as they arrive.

use std::sync::Arc;

use super::row::Row;
use super::session::Session;
use crate::error::{Error, Result};
use crate::session::{Column, Event};

/// The rows of one statement, one by one. Memory stays bounded whatever the result's size.
///
/// Dropping it early reads the rest and throws it away; cancel the statement first if it is long.
pub struct RowStream<'a> {
    session: &'a mut Session,
    columns: Arc<[Column]>,
    text: bool,
    error: Option<Error>,
    done: bool,
}

impl<'a> RowStream<'a> {
    pub(super) fn new(session: &'a mut Session, text: bool) -> Self {
        Self { session, columns: Arc::new([]), text, error: None, done: false }
    }

    /// The next row; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        while !self.done {
            match self.session.driver.next() {
                Ok(Event::Columns(columns)) => self.columns = columns,
                Ok(Event::Row(body)) => {
                    return Ok(Some(Row::new(Arc::clone(&self.columns), body, self.text)));
                }
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

    /// The columns, once the first row has arrived.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
}

impl Iterator for RowStream<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

impl Drop for RowStream<'_> {
    fn drop(&mut self) {
        while !self.done && self.next_row().is_ok_and(|row| row.is_some()) {}
    }
}
