//! One connection's session with the requests that are on their way, driven without Python.
//!
//! Replies come in the order of their requests: `queue` has a collector for each request that is not
//! answered. Whoever waits for one reply collects those ahead of it on the way. The same code serves
//! callers that block (`Io::Wait`) and event loops (`Io::Poll`), where any step may want the
//! socket first.
//!
//! `making` brings a request onto the wire; `pieces` takes replies as they come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use segue::client::Progress;
use segue::session::{Column, Event};
use segue::wire::frame::Status;
use segue::{Error, ErrorKind, Result, Session, TransactionOptions};

pub use self::making::{Making, Request};
use crate::decode::Decoders;
pub use crate::received::Received;
use crate::types::TypeMap;

/// Requests are put on the wire once so many bytes have gathered.
const BATCH: usize = 32 * 1024;

/// Whether to wait for what is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    Wait,
    Poll,
}

/// Passes on what has to be waited for.
macro_rules! ready {
    ($progress:expr) => {
        match $progress {
            Progress::Ready(value) => value,
            Progress::WantsRead => return Ok(Progress::WantsRead),
            Progress::WantsWrite => return Ok(Progress::WantsWrite),
            Progress::WantsHelp => return Ok(Progress::WantsHelp),
        }
    };
}

// Below the macro that they use.
mod making;
mod pieces;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Whole,
    /// Rows are taken as they come.
    Stream,
    /// COPY; its data is taken as it comes.
    Copy,
}

/// Names a request of a connection.
pub type Ticket = u64;

#[derive(Debug)]
struct Collector {
    ticket: Ticket,
    purpose: Purpose,
    text: bool,
    results: Vec<Received>,
    /// The last of `results` is not complete.
    open: bool,
    /// What the server was expected to return.
    expected: Option<Arc<Decoders>>,
    pieces: VecDeque<Bytes>,
    copies_in: bool,
    copies_out: bool,
    error: Option<Error>,
}

impl Collector {
    fn open(&mut self) -> &mut Received {
        if !std::mem::replace(&mut self.open, true) || self.results.is_empty() {
            self.results.push(Received::default());
        }
        let last = self.results.len() - 1;
        &mut self.results[last]
    }

    fn columns(&mut self, columns: Arc<[Column]>, types: &TypeMap) {
        let decoders = match &self.expected {
            Some(expected)
                if Arc::ptr_eq(&expected.columns, &columns) || *expected.columns == *columns =>
            {
                Arc::clone(expected)
            }
            _ => Arc::new(Decoders::of_received(columns, types, self.text)),
        };
        self.open().decoders = Some(decoders);
    }
}

pub struct Core {
    pub session: Session,
    pub types: Arc<TypeMap>,
    queue: VecDeque<Collector>,
    finished: HashMap<Ticket, Result<Vec<Received>>>,
    next_ticket: Ticket,
}

impl Core {
    pub fn new(session: Session, types: Arc<TypeMap>) -> Self {
        Self { session, types, queue: VecDeque::new(), finished: HashMap::new(), next_ticket: 1 }
    }

    pub fn status(&self) -> Status {
        self.session.transaction_status()
    }

    /// Whether requests are unanswered.
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty()
    }

    fn enqueue(&mut self, purpose: Purpose, text: bool, expected: Option<Arc<Decoders>>) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.push_back(Collector {
            ticket,
            purpose,
            text,
            results: Vec::new(),
            open: false,
            expected,
            pieces: VecDeque::new(),
            copies_in: false,
            copies_out: false,
            error: None,
        });
        ticket
    }

    /// A notification that has arrived or arrives within `timeout`.
    pub fn notification(
        &mut self,
        timeout: std::time::Duration,
    ) -> Result<Option<segue::Notification>> {
        while !self.queue.is_empty() {
            let _ = self.pump(Io::Wait)?;
        }
        self.session.notification(timeout)
    }

    /// There is a link, and room for one more request.
    fn get_ready(&mut self, io: Io) -> Result<Progress<()>> {
        while !self.session.accepts_requests() && !self.queue.is_empty() {
            ready!(self.pump(io)?);
        }
        match io {
            Io::Wait => self.session.wait_ready().map(Progress::Ready),
            Io::Poll => self.session.poll_ready(),
        }
    }

    /// Begins a transaction on this side; the server hears of it with the first statement.
    pub fn begin(&mut self, options: &TransactionOptions) -> Result<()> {
        while !self.queue.is_empty() {
            let _ = self.pump(Io::Wait)?;
        }
        self.session.start_begin(options)?;
        while !matches!(self.session.received_event(), Some(Event::Ready(_)) | None) {}
        Ok(())
    }

    pub fn commit(&mut self, io: Io) -> Result<Progress<Ticket>> {
        self.end(io, Session::start_commit)
    }

    pub fn rollback(&mut self, io: Io) -> Result<Progress<Ticket>> {
        self.end(io, Session::start_rollback)
    }

    fn end(
        &mut self,
        io: Io,
        start: impl Fn(&mut Session) -> Result<()>,
    ) -> Result<Progress<Ticket>> {
        while !self.queue.is_empty() {
            ready!(self.pump(io)?);
        }
        if !self.session.ends_without_server() {
            match self.get_ready(io) {
                // What the loss of the server has ended needs none.
                Err(_) if self.session.ends_without_server() => {}
                progress => ready!(progress?),
            }
        }
        start(&mut self.session)?;
        Ok(Progress::Ready(self.enqueue(Purpose::Whole, false, None)))
    }

    /// The reply to a request, all of it.
    pub fn reply(&mut self, ticket: Ticket, io: Io) -> Result<Progress<Result<Vec<Received>>>> {
        loop {
            if let Some(reply) = self.finished.remove(&ticket) {
                return Ok(Progress::Ready(reply));
            }
            if self.queue.is_empty() {
                return Err(Error::new(ErrorKind::Usage, "the reply was taken before"));
            }
            ready!(self.pump(io)?);
        }
    }

    /// As `reply`; calls `meanwhile` with a result of which many rows have come, and more are expected.
    pub fn reply_meanwhile(
        &mut self,
        ticket: Ticket,
        io: Io,
        meanwhile: &mut dyn FnMut(&mut Received),
    ) -> Result<Progress<Result<Vec<Received>>>> {
        loop {
            if let Some(reply) = self.finished.remove(&ticket) {
                return Ok(Progress::Ready(reply));
            }
            if self.queue.is_empty() {
                return Err(Error::new(ErrorKind::Usage, "the reply was taken before"));
            }
            let progress = self.pump(io)?;
            self.take_received()?;
            if let Some(front) = self.queue.front_mut().filter(|front| front.ticket == ticket) {
                if let Some(last) = front.results.last_mut().filter(|last| last.is_much()) {
                    meanwhile(last);
                }
            }
            ready!(progress);
        }
    }

    /// The reply to a request, if it has been received.
    pub fn take_finished(&mut self, ticket: Ticket) -> Option<Result<Vec<Received>>> {
        self.finished.remove(&ticket)
    }

    /// Takes one event.
    fn pump(&mut self, io: Io) -> Result<Progress<()>> {
        self.take_rows();
        let event = match io {
            Io::Wait => self.session.wait_event(),
            Io::Poll => Ok(ready!(self.session.poll_event())),
        };
        match event {
            Ok(event) => self.take(event)?,
            Err(error) => {
                // Nothing more will come for any of them.
                for collector in self.queue.drain(..) {
                    self.finished.insert(collector.ticket, Err(error.clone()));
                }
            }
        }
        Ok(Progress::Ready(()))
    }

    /// Takes the rows that come next, if there are any.
    fn take_rows(&mut self) -> bool {
        let Some(rows) = self.session.received_rows() else { return false };
        if let Some(front) = self.queue.front_mut() {
            front.open().add_all(rows);
        }
        true
    }

    fn take(&mut self, event: Event) -> Result<()> {
        let Some(front) = self.queue.front_mut() else { return Ok(()) };
        match event {
            Event::Columns(columns) => front.columns(columns, &self.types),
            Event::Row(body) => front.open().add(body),
            Event::Complete(tag) => {
                let result = front.open();
                result.tag = tag;
                result.split();
                front.open = false;
            }
            Event::CopyData(piece) => front.pieces.push_back(piece),
            Event::CopyOut => front.copies_out = true,
            Event::CopyIn if front.purpose == Purpose::Copy => front.copies_in = true,
            Event::CopyIn => {
                self.session.copy_end(Some("use cursor.copy() for COPY FROM STDIN"))?
            }
            Event::Restarted => {
                front.results.clear();
                front.open = false;
            }
            Event::Error(error) => front.error = Some(error),
            Event::Ready(_) => {
                if let Some(done) = self.queue.pop_front() {
                    let reply = done.error.map_or(Ok(done.results), Err);
                    self.finished.insert(done.ticket, reply);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what has been received, without asking the socket.
    pub fn take_received(&mut self) -> Result<()> {
        self.take_some().map(drop)
    }

    /// As `take_received`; whether there was anything.
    fn take_some(&mut self) -> Result<bool> {
        let mut some = false;
        loop {
            some |= self.take_rows();
            match self.session.received_event() {
                Some(event) => self.take(event)?,
                None => return Ok(some),
            }
            some = true;
        }
    }

    /// Sends what has gathered, if it is much, and takes what has arrived meanwhile.
    pub fn send_batch(&mut self) -> Result<()> {
        if self.session.unsent() >= BATCH {
            self.session.send_requests()?;
            self.take_received()?;
        }
        Ok(())
    }

    /// Whether so much has gathered that it is time to send it.
    pub fn wants_sending(&self) -> bool {
        self.session.unsent() >= BATCH
    }

    /// Takes the replies to all requests.
    pub fn settled(&mut self, io: Io) -> Result<Progress<()>> {
        while !self.queue.is_empty() {
            ready!(self.pump(io)?);
        }
        Ok(Progress::Ready(()))
    }
}

/// A mutex whose holder has panicked holds plain data all the same.
pub fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
