//! Collects the events of requests into results.

use std::sync::Arc;

use bytes::Bytes;

use super::row::Row;
use crate::error::{Error, Result};
use crate::session::{Column, Event};
use crate::wire::frame::{command_tag, rows_affected};
use crate::wire::row::Rows;

/// What one statement returned.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct QueryResult {
    /// Empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
    pub rows: Vec<Row>,
    tag: Bytes,
}

impl QueryResult {
    /// The server's command tag, such as `INSERT 0 5`; empty for an empty statement.
    pub fn tag(&self) -> &str {
        command_tag(&self.tag).unwrap_or_default()
    }

    /// The number of rows that the command tag tells of.
    pub fn rows_affected(&self) -> u64 {
        rows_affected(self.tag())
    }
}

/// The results of one request: several for a string of several statements.
#[derive(Debug, Default)]
pub(super) struct Results {
    earlier: Vec<QueryResult>,
    /// Nearly always the only one.
    pub last: QueryResult,
    complete: bool,
}

impl Results {
    pub fn into_all(mut self) -> Vec<QueryResult> {
        if self.complete {
            self.earlier.push(self.last);
        }
        self.earlier
    }
}

#[derive(Debug, Default)]
pub(super) struct Collector {
    text: bool,
    results: Results,
    error: Option<Error>,
}

impl Collector {
    pub fn new(text: bool) -> Self {
        Self { text, ..Self::default() }
    }

    /// Collects rows in a list that has been used before.
    pub fn reuse(text: bool, rows: Vec<Row>) -> Self {
        let mut collector = Self::new(text);
        collector.results.last.rows = rows;
        collector
    }

    /// The result in hand; what was there before is complete.
    fn open(&mut self) -> &mut QueryResult {
        let results = &mut self.results;
        if std::mem::take(&mut results.complete) {
            results.earlier.push(std::mem::take(&mut results.last));
        }
        &mut results.last
    }

    /// Takes an event; the results when it was the request's last.
    pub fn take(&mut self, event: Event) -> Option<Result<Results>> {
        let done = self.add(event);
        done.then(|| std::mem::replace(self, Self::new(self.text)).finish())
    }

    /// What the request has come to.
    pub fn finish(self) -> Result<Results> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.results),
        }
    }

    /// Takes rows that have arrived together.
    pub fn add_rows(&mut self, rows: Rows) {
        let text = self.text;
        let open = self.open();
        let columns = &open.columns;
        open.rows.extend(rows.map(|body| Row::new(Arc::clone(columns), body, text)));
    }

    /// Takes an event; whether it was the request's last.
    #[inline]
    pub fn add(&mut self, event: Event) -> bool {
        match event {
            Event::Columns(columns) => self.open().columns = columns,
            Event::Row(body) => {
                let text = self.text;
                let open = self.open();
                open.rows.push(Row::new(Arc::clone(&open.columns), body, text));
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
