//! A session driven step by step: for faces that collect replies themselves, and for those whose
//! waiting is done by an event loop of their own.
//!
//! 1. Get ready: [`wait_ready`](Session::wait_ready), or [`poll_ready`](Session::poll_ready) until it
//!    is ready.
//! 2. Make one request with a `start_*` call. Nothing is sent yet.
//! 3. Take events with [`wait_event`](Session::wait_event) or [`poll_event`](Session::poll_event)
//!    up to and including [`Event::Ready`], which ends each request. An `Event::CopyIn` must be
//!    answered with [`copy_end`](Session::copy_end), after any number of `copy_data`.
//!
//! What the `poll_*` calls want ([`Progress`]) has to be given before they are called again. They
//! never wait for longer than the few milliseconds in which a broken link is heard out. The socket
//! may be another one each time: see [`socket`](Session::socket).

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::copy;
use super::driver::{Interrupt, Notification, Progress, usage};
use super::parameter::{Encoder, ToSql};
use super::session::{Prepared, Query, Session};
use super::transaction::TransactionOptions;
use crate::error::Result;
use crate::session::{BeginOptions, Event, Parameters, Statement};
use crate::wire::frame::Status;
use crate::wire::row::Rows;

/// A statement that is being prepared.
#[derive(Debug)]
pub struct Preparing(Arc<Statement>);

impl Preparing {
    /// What the server has said, once the request has ended without an error.
    pub fn finish(self) -> Prepared {
        Prepared::described(self.0)
    }
}

impl Session {
    /// Waits until a request can be made.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.driver.ready()
    }

    /// Whether a request can be made.
    pub fn poll_ready(&mut self) -> Result<Progress<()>> {
        loop {
            if self.driver.is_live() {
                // It has nothing to wait for any more.
                return self.driver.ready().map(Progress::Ready);
            }
            while self.driver.poll().is_some() {}
            if let Some(wants) = self.driver.try_step() {
                return Ok(wants);
            }
        }
    }

    /// Requests that a statement be executed. Values come as text if `text`, or if it is a string of
    /// several statements, which is what is returned. With `result_formats`, of which there are none or
    /// one for each column, columns come as these say: 0 as text, 1 in binary.
    pub fn start<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
        result_formats: &[i16],
        streamed: bool,
    ) -> Result<bool> {
        self.result_formats.extend_from_slice(result_formats);
        let several = self.request(query, params, text, streamed);
        self.result_formats.clear();
        Ok(several? || text)
    }

    /// Requests that a statement be executed with several sets of parameters of the same types, as one
    /// request: all of them or, if one fails, none, unless a transaction is open. There is one
    /// `Event::Complete` for each set; rows come without their columns.
    pub fn start_sets<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        sets: &[&[&dyn ToSql]],
    ) -> Result<()> {
        let first = sets.first().copied().unwrap_or_default();
        let types = |set: &[&dyn ToSql]| set.iter().map(|v| v.type_oid()).collect::<Vec<_>>();
        let oids = types(first);
        if sets.iter().any(|set| types(set) != oids) {
            return Err(usage("the sets of parameters are not all of the same types"));
        }
        let (statement, oids) = self.find(query, oids)?;
        let encoders: Vec<_> = sets
            .iter()
            .map(|set| Encoder { values: set, oids: &oids, result_formats: &[] })
            .collect();
        let encoders: Vec<&dyn Parameters> =
            encoders.iter().map(|encoder| encoder as &dyn Parameters).collect();
        self.driver.core.execute_sets(&statement, &encoders)
    }

    /// Requests that a statement be prepared.
    pub fn start_prepare(&mut self, sql: &str, param_oids: &[u32]) -> Result<Preparing> {
        self.request_prepare(sql, param_oids).map(Preparing)
    }

    /// Begins a transaction, whose BEGIN travels with its first statement.
    pub fn start_begin(&mut self, options: &TransactionOptions) -> Result<()> {
        self.driver.core.begin(BeginOptions { sql: options.sql(), read_only: options.read_only })
    }

    /// Requests COMMIT. Where it was no COMMIT in the end, the tag says ROLLBACK.
    pub fn start_commit(&mut self) -> Result<()> {
        self.driver.core.commit(false)
    }

    /// Requests ROLLBACK.
    pub fn start_rollback(&mut self) -> Result<()> {
        self.driver.core.rollback(false)
    }

    /// The transaction's status.
    pub fn transaction_status(&self) -> Status {
        self.driver.core.status()
    }

    /// Whether the open transaction can be ended without a server, and so without getting ready.
    pub fn ends_without_server(&self) -> bool {
        self.driver.core.ends_without_server()
    }

    /// Whether another request may be made before the outstanding ones have been answered.
    pub fn accepts_requests(&self) -> bool {
        self.driver.core.accepts_requests()
    }

    /// Waits for the next event.
    pub fn wait_event(&mut self) -> Result<Event> {
        self.driver.next()
    }

    /// The next event, if it has arrived.
    pub fn poll_event(&mut self) -> Progress<Event> {
        self.driver.try_next()
    }

    /// The next event that has been received already. Asks the socket for nothing.
    pub fn received_event(&mut self) -> Option<Event> {
        self.driver.poll()
    }

    /// The rows that have been received and come next, all that have arrived together; `None` if it is
    /// not a row that comes next. For those who want no event for each of them.
    pub fn received_rows(&mut self) -> Option<Rows> {
        self.driver.core.poll_rows()
    }

    /// Brings a lost link back while a request is under way; ready also when an event has to be looked
    /// at first.
    pub fn poll_restored(&mut self) -> Progress<()> {
        while !self.driver.is_live()
            && !self.driver.core.is_settled()
            && !self.driver.core.has_events()
        {
            if let Some(wants) = self.driver.try_step() {
                return wants;
            }
        }
        Progress::Ready(())
    }

    /// Does what a `poll_*` call wanted help with: waits for another link, or for the backup.
    pub fn help(&mut self) -> Result<()> {
        self.driver.inner.check_process()?;
        self.driver.help()
    }

    /// The socket of the present link.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.driver.link().map(AsFd::as_fd)
    }

    /// Adds a piece of data of COPY FROM STDIN. Whether it is time to [send](Self::send_requests) or
    /// [`poll_sent`](Self::poll_sent).
    pub fn copy_data(&mut self, data: &[u8]) -> Result<bool> {
        self.driver.core.copy_data(data)?;
        Ok(self.driver.core.output_len() >= copy::BATCH)
    }

    /// Whether a COPY FROM STDIN still takes data; it does not once it has failed.
    pub fn copies_in(&self) -> bool {
        self.driver.core.copies_in()
    }

    /// Ends COPY FROM STDIN; with a reason it fails.
    pub fn copy_end(&mut self, reason: Option<&str>) -> Result<()> {
        self.driver.core.copy_end(reason)
    }

    /// Brings a lost link back in the middle of a COPY.
    pub fn restore(&mut self) -> Result<()> {
        self.driver.restore()
    }

    /// Sends what has been requested, while reading what has arrived.
    pub fn send_requests(&mut self) -> Result<()> {
        self.driver.flush()
    }

    /// So many bytes have been requested and not been sent.
    pub fn unsent(&self) -> usize {
        self.driver.core.output_len()
    }

    /// Sends what has been requested, as far as there is room; ready when all is sent, or when an
    /// event has to be looked at first.
    pub fn poll_sent(&mut self) -> Progress<()> {
        while self.driver.core.has_output() && !self.driver.core.has_events() {
            match self.driver.try_step() {
                Some(Progress::WantsRead) | None => {}
                Some(wants) => return wants,
            }
        }
        Progress::Ready(())
    }

    /// A notification, if one has arrived. No request may be under way.
    pub fn poll_notification(&mut self) -> Result<Progress<Notification>> {
        loop {
            if let Some(notification) = self.driver.notifications.pop_front() {
                return Ok(Progress::Ready(notification));
            }
            while self.driver.poll().is_some() {}
            if !self.driver.notifications.is_empty() {
                continue;
            }
            if let Some(wants) = self.driver.try_step() {
                return Ok(wants);
            }
        }
    }

    /// A notification that has been received already. Asks the socket for nothing.
    pub fn received_notification(&mut self) -> Option<Notification> {
        self.driver.notifications.pop_front()
    }

    /// Sets what is asked when a signal interrupts a wait. If it says yes, the statement is cancelled,
    /// and the wait goes on until the server has ended it; a search for a server ends at once.
    pub fn set_interrupt(&mut self, interrupt: Option<Interrupt>) {
        self.driver.set_interrupt(interrupt);
    }
}
