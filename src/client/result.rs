//! Collects the events of requests into results.

use std::sync::Arc;

use super::row::Row;
use crate::error::{Error, Result};
use crate::session::{Column, Event};
use crate::wire::frame::{command_tag, rows_affected};

/// What one statement returned.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct QueryResult {
    /// Empty for a statement that returns no rows.
    pub columns: Arc<[Column]>,
    pub rows: Vec<Row>,
    /// The server's command tag, such as `INSERT 0 5`.
    pub tag: String,
}

impl QueryResult {
    /// The number of rows that the command tag tells of.
    pub fn rows_affected(&self) -> u64 {
        rows_affected(&self.tag)
    }
}

/// The results of one request: several for a string of several statements.
#[derive(Debug, Default)]
pub(super) struct Collector {
    text: bool,
    open: QueryResult,
    results: Vec<QueryResult>,
    error: Option<Error>,
}

impl Collector {
    pub fn new(text: bool) -> Self {
        Self { text, ..Self::default() }
    }

    /// Takes an event; the results when it was the request's last.
    pub fn take(&mut self, event: Event) -> Option<Result<Vec<QueryResult>>> {
        match event {
            Event::Columns(columns) => self.open.columns = columns,
            Event::Row(body) => {
                self.open.rows.push(Row::new(Arc::clone(&self.open.columns), body, self.text));
            }
            Event::Complete(tag) => {
                self.open.tag = command_tag(&tag).unwrap_or_default().to_owned();
                self.results.push(std::mem::take(&mut self.open));
            }
            Event::Restarted => *self = Self::new(self.text),
            Event::Error(error) => self.error = Some(error),
            Event::Ready(_) => {
                let done = std::mem::replace(self, Self::new(self.text));
                return Some(match done.error {
                    Some(error) => Err(error),
                    None => Ok(done.results),
                });
            }
            _ => {}
        }
        None
    }
}
