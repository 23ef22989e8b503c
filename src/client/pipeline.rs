//! Statements sent without waiting for each one's reply.

use super::driver::usage;
use super::parameter::ToSql;
use super::result::{Collector, QueryResult};
use super::session::{Query, Session};
use crate::error::Result;
use crate::session::Event;

/// The first requests are put on the wire once so many bytes have gathered, so that the server is at work
/// while the others are made; then once twice as many have, up to [`BATCH_MAX`].
const BATCH_FIRST: usize = 2 * 1024;
const BATCH_MAX: usize = 16 * 1024;

/// A pipeline without its session: for faces whose handles cannot borrow. It must be used with one
/// session alone, which takes no other request before the pipeline's end.
#[derive(Debug)]
pub struct PipelineQueue {
    collector: Collector,
    text: bool,
    outstanding: usize,
    batch: usize,
    results: Vec<Result<QueryResult>>,
}

impl PipelineQueue {
    /// All values come as text if `text`.
    pub fn new(text: bool) -> Self {
        Self {
            collector: Collector::new(text),
            text,
            outstanding: 0,
            batch: BATCH_FIRST,
            results: Vec::new(),
        }
    }

    /// Adds a statement. An error here is one of the call itself: nothing was added.
    pub fn add<Q: Query + ?Sized>(
        &mut self,
        session: &mut Session,
        query: &Q,
        params: &[&dyn ToSql],
    ) -> Result<()> {
        self.make_room(session)?;
        session.request_if(query, params, self.text, false, |statement| {
            if statement.class.kind.controls_transaction() {
                return Err(usage(
                    "a pipeline takes no statements that begin or end transactions; nothing was sent",
                ));
            }
            Ok(())
        })?;
        self.outstanding += 1;
        if session.driver.core.output_len() >= self.batch {
            self.batch = BATCH_MAX.min(self.batch * 2);
            session.driver.send_ahead();
            self.collect(session);
        }
        Ok(())
    }

    /// Commits the session's transaction behind what was added, in the same write: COMMIT costs no round
    /// trip of its own. Waits for all replies; [`finish`](Self::finish) then gives those of the statements.
    pub fn commit(&mut self, session: &mut Session) -> Result<()> {
        session.driver.inner.check_process()?;
        // Where the link was lost, what is in flight is dealt with first.
        while self.outstanding > 0 && !session.driver.core.accepts_requests() {
            let event = session.driver.next()?;
            self.take(session, event)?;
        }
        if self.outstanding == 0 {
            return session.commit();
        }
        session.driver.core.commit(false)?;
        self.wait(session)?;
        session.finish_commit()
    }

    /// So many statements are unanswered.
    pub fn len(&self) -> usize {
        self.outstanding
    }

    pub fn is_empty(&self) -> bool {
        self.outstanding == 0 && self.results.is_empty()
    }

    /// Waits for all replies; one result for each statement, in order.
    pub fn finish(&mut self, session: &mut Session) -> Result<Vec<Result<QueryResult>>> {
        self.wait(session)?;
        Ok(std::mem::take(&mut self.results))
    }

    fn wait(&mut self, session: &mut Session) -> Result<()> {
        while self.outstanding > 0 {
            let event = session.driver.next()?;
            self.take(session, event)?;
        }
        Ok(())
    }

    fn make_room(&mut self, session: &mut Session) -> Result<()> {
        session.driver.inner.check_process()?;
        if session.driver.core.accepts_requests() {
            return Ok(());
        }
        // Room for one statement after each reply would mean a write for each statement.
        let enough = self.outstanding / 2;
        while self.outstanding > enough || !session.driver.core.accepts_requests() {
            if self.outstanding == 0 {
                session.driver.ready()?;
                continue;
            }
            let event = session.driver.next()?;
            self.take(session, event)?;
        }
        Ok(())
    }

    fn collect(&mut self, session: &mut Session) {
        while let Some(event) = session.driver.poll() {
            // Ending a COPY that was refused is sent with what follows.
            let _ = self.take(session, event);
        }
    }

    fn take(&mut self, session: &mut Session, event: Event) -> Result<()> {
        if matches!(event, Event::CopyIn) {
            session.driver.core.copy_end(Some("a pipeline takes no COPY FROM STDIN"))?;
        }
        if let Some(done) = self.collector.take(event) {
            self.outstanding -= 1;
            self.results.push(done.map(|results| results.last));
        }
        Ok(())
    }
}

/// A pipeline: [`add`](Self::add) statements, then [`finish`](Self::finish).
///
/// Each statement is a request of its own: outside a transaction each is committed by itself, and a
/// failing one does not stop the others. Inside a transaction a failure fails those behind it.
/// Transactions are begun outside the pipeline, and ended there or by [`commit`](Self::commit).
pub struct Pipeline<'a> {
    session: &'a mut Session,
    queue: PipelineQueue,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(session: &'a mut Session) -> Self {
        Self { session, queue: PipelineQueue::new(false) }
    }

    /// Adds a statement. An error here is one of the call itself: nothing was added.
    pub fn add<Q: Query + ?Sized>(&mut self, query: &Q, params: &[&dyn ToSql]) -> Result<()> {
        self.queue.add(self.session, query, params)
    }

    /// So many statements are unanswered.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Commits the session's transaction behind what was added, in the same write: COMMIT costs no round
    /// trip of its own. Waits for all replies; [`finish`](Self::finish) then gives those of the statements.
    pub fn commit(&mut self) -> Result<()> {
        self.queue.commit(self.session)
    }

    /// Waits for all replies; one result for each statement, in order.
    pub fn finish(mut self) -> Result<Vec<Result<QueryResult>>> {
        self.queue.finish(self.session)
    }
}

impl Drop for Pipeline<'_> {
    fn drop(&mut self) {
        // What was not asked for has no one to go to.
        let _ = self.queue.finish(self.session);
    }
}
