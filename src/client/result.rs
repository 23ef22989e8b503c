//! Collects the events of requests into results.

use std::sync::Arc;

use bytes::Bytes;

use super::row::Row;
use crate::error::{Error, Result};
use crate::session::{Column, Event};
use crate::wire::frame::{command_tag, rows_affected};
use crate::wire::row::Rows;

/// What one statement returned. The crate's other faces keep the rows in a form of their own.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct QueryResult<R = Vec<Row>> {
    /// Empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
    pub rows: R,
    tag: Bytes,
}

/// Where the rows of a result are kept.
pub(crate) trait RowSet: Default {
    /// Takes the body of one DataRow that has been checked.
    fn add(&mut self, columns: &Arc<[Column]>, text: bool, body: Bytes);

    /// Takes rows that have arrived together.
    fn add_all(&mut self, columns: &Arc<[Column]>, text: bool, rows: Rows);
}

impl RowSet for Vec<Row> {
    fn add(&mut self, columns: &Arc<[Column]>, text: bool, body: Bytes) {
        self.push(Row::new(Arc::clone(columns), body, text));
    }

    fn add_all(&mut self, columns: &Arc<[Column]>, text: bool, rows: Rows) {
        self.extend(rows.map(|body| Row::new(Arc::clone(columns), body, text)));
    }
}

impl<R> QueryResult<R> {
    /// The server's command tag, such as `INSERT 0 5`; empty for an empty statement.
    pub fn tag(&self) -> &str {
        command_tag(&self.tag).unwrap_or_default()
    }

    /// The number of rows that the command tag tells of.
    pub fn rows_affected(&self) -> u64 {
        rows_affected(self.tag())
    }

    /// The same with its rows in another form.
    #[cfg(feature = "c-abi")]
    pub(crate) fn with_rows<S>(self, change: impl FnOnce(R) -> S) -> QueryResult<S> {
        QueryResult { columns: self.columns, rows: change(self.rows), tag: self.tag }
    }
}

/// The results of one request: several for a string of several statements.
#[derive(Debug, Default)]
pub(super) struct Results<R = Vec<Row>> {
    earlier: Vec<QueryResult<R>>,
    /// Nearly always the only one.
    pub last: QueryResult<R>,
    complete: bool,
}

impl<R> Results<R> {
    pub fn into_all(mut self) -> Vec<QueryResult<R>> {
        if self.complete {
            self.earlier.push(self.last);
        }
        self.earlier
    }
}

#[derive(Debug, Default)]
pub(super) struct Collector<R = Vec<Row>> {
    text: bool,
    results: Results<R>,
    error: Option<Error>,
}

impl<R: RowSet> Collector<R> {
    pub fn new(text: bool) -> Self {
        Self { text, ..Self::default() }
    }

    /// Collects rows in a list that has been used before.
    pub fn reuse(text: bool, rows: R) -> Self {
        let mut collector = Self::new(text);
        collector.results.last.rows = rows;
        collector
    }

    /// The result in hand; what was there before is complete.
    fn open(&mut self) -> &mut QueryResult<R> {
        let results = &mut self.results;
        if std::mem::take(&mut results.complete) {
            results.earlier.push(std::mem::take(&mut results.last));
        }
        &mut results.last
    }

    /// Takes an event; the results when it was the request's last.
    pub fn take(&mut self, event: Event) -> Option<Result<Results<R>>> {
        let done = self.add(event);
        done.then(|| std::mem::replace(self, Self::new(self.text)).finish())
    }

    /// What the request has come to.
    pub fn finish(self) -> Result<Results<R>> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.results),
        }
    }

    /// Takes rows that have arrived together.
    pub fn add_rows(&mut self, rows: Rows) {
        let text = self.text;
        let open = self.open();
        open.rows.add_all(&open.columns, text, rows);
    }

    /// Takes an event; whether it was the request's last.
    #[inline]
    pub fn add(&mut self, event: Event) -> bool {
        match event {
            Event::Columns(columns) => self.open().columns = columns,
            Event::Row(body) => {
                let text = self.text;
                let open = self.open();
                open.rows.add(&open.columns, text, body);
            }
            Event::Complete(tag) => {
                self.open().tag = tag;
                self.results.complete = true;
            }
            Event::Restarted => *self = Self::new(self.text),
            Event::Error(error) => self.error = Some(error),
            Event::Ready(_) => return true,
            _ => {}
        }
        false
    }
}
