//! Rows as they arrive.

use super::parameter::ToSql;
use super::reader::ReplyReader;
use super::row::Row;
use super::session::{Query, Session};
use crate::error::Result;
use crate::session::Column;

/// The rows of one statement, one by one. Memory stays bounded whatever the result's size.
///
/// Dropping it early reads the rest and throws it away; cancel the statement first if it is long.
pub struct RowStream<'a> {
    session: &'a mut Session,
    reader: ReplyReader,
}

impl<'a> RowStream<'a> {
    pub(super) fn start<Q: Query + ?Sized>(
        session: &'a mut Session,
        query: &Q,
        params: &[&dyn ToSql],
    ) -> Result<Self> {
        let reader = ReplyReader::rows(session, query, params, false)?;
        Ok(Self { session, reader })
    }

    /// The next row; `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<Row>> {
        self.reader.next_row(self.session)
    }

    /// The columns, once the first row has arrived.
    pub fn columns(&self) -> &[Column] {
        self.reader.columns()
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
        self.reader.finish(self.session);
    }
}
