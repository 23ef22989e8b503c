//! Statements sent without waiting for each one's reply.

use super::driver::usage;
use super::parameter::ToSql;
use super::result::{Collector, QueryResult};
use super::session::{Query, Session};
use crate::error::Result;
use crate::session::Event;

/// Requests are put on the wire once so many bytes have gathered.
const BATCH: usize = 16 * 1024;

/// A pipeline: [`add`](Self::add) statements, then [`finish`](Self::finish).
///
/// Each statement is a request of its own: outside a transaction each is committed by itself, and a
/// failing one does not stop the others. Inside a transaction a failure fails those behind it.
/// Transactions are begun and ended outside the pipeline.
pub struct Pipeline<'a> {
    session: &'a mut Session,
    collector: Collector,
    outstanding: usize,
    results: Vec<Result<QueryResult>>,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        Self { session, collector: Collector::new(false), outstanding: 0, results: Vec::new() }
    }

    /// Adds a statement. An error here is one of the call itself: nothing was added.
    pub fn add<Q: Query + ?Sized>(&mut self, query: &Q, params: &[&dyn ToSql]) -> Result<()> {
        self.make_room()?;
        if self.session.controls_transaction(query, params)? {
            return Err(usage(
                "a pipeline takes no statements that begin or end transactions; nothing was sent",
            ));
        }
        self.session.request(query, params, false, false)?;
        self.outstanding += 1;
        if self.session.driver.core.output().len() >= BATCH {
            self.session.driver.send_while_reading();
            self.collect();
        }
        Ok(())
    }

    /// So many statements are unanswered.
    pub fn len(&self) -> usize {
        self.outstanding
    }

    pub fn is_empty(&self) -> bool {
        self.outstanding == 0 && self.results.is_empty()
    }

    /// Waits for all replies; one result for each statement, in order.
    pub fn finish(mut self) -> Result<Vec<Result<QueryResult>>> {
        while self.outstanding > 0 {
            let event = self.session.driver.next()?;
            self.take(event)?;
        }
        Ok(std::mem::take(&mut self.results))
    }

    fn make_room(&mut self) -> Result<()> {
        self.session.driver.inner.check_process()?;
        while !self.session.driver.core.accepts_requests() {
            if self.outstanding == 0 {
                self.session.driver.ready()?;
                continue;
            }
            let event = self.session.driver.next()?;
            self.take(event)?;
        }
        Ok(())
    }

    fn collect(&mut self) {
        while let Some(event) = self.session.driver.poll() {
            // Ending a COPY that was refused is sent with what follows.
            let _ = self.take(event);
        }
    }

    fn take(&mut self, event: Event) -> Result<()> {
        if matches!(event, Event::CopyIn) {
            self.session.driver.core.copy_end(Some("a pipeline takes no COPY FROM STDIN"))?;
        }
        if let Some(done) = self.collector.take(event) {
            self.outstanding -= 1;
            self.results.push(done.map(|results| results.last));
        }
        Ok(())
    }
}

impl Drop for Pipeline<'_> {
    fn drop(&mut self) {
        while self.outstanding > 0 {
            let Ok(event) = self.session.driver.next() else { return };
            if self.take(event).is_err() {
                return;
            }
        }
    }
}
