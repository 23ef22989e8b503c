//! One operation of a connection for an event loop: polled until it is done, never waiting.
//!
//! `poll()` says what it wants: 0 it is done, 1 the socket readable, 2 the socket readable or writable,
//! 3 `Connection._help()`, called on another thread. Operations of one connection are polled one after
//! the other, each to its end; one that is given up (`give_up()`, and perhaps the connection's `cancel()`)
//! is polled on until it is done, and makes no more requests.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use segue::client::Progress;
use segue::wire::frame::Status;
use segue::{Error, ErrorKind, Notification, TransactionOptions};

use crate::connection::Connection;
use crate::core::{Core, Io, Making, Received, Ticket, lock};
use crate::cursor::Cursor;
use crate::errors;

const DONE: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;
const HELP: u8 = 3;

/// What an operation does.
pub enum Work {
    /// Makes a request, then waits for its reply.
    Execute(Box<Making>),
    Reply(Ticket),
    /// Makes many, then waits for all replies; `own` is a transaction around them.
    Many(Box<Many>),
    Ready,
    Begin(TransactionOptions),
    Commit,
    Rollback,
    /// Makes a request whose reply is taken by other operations.
    Start(Box<Making>),
    Started(Ticket),
    Stream(Ticket),
    CopyStart(Box<Making>),
    CopyBegun(Ticket),
    CopySend(Ticket, Vec<u8>),
    CopySent,
    CopyEnd(Ticket, Option<String>),
    CopyPiece(Ticket),
    Abandon(Ticket),
    Notification,
}

#[derive(Default)]
pub struct Many {
    pub makings: VecDeque<Making>,
    pub keep: bool,
    pub own: bool,
    pub tickets: VecDeque<Ticket>,
    pub results: Vec<Received>,
    pub count: i64,
    pub failed: Option<Error>,
    /// COMMIT or ROLLBACK of a transaction of its own.
    pub end: Option<Ticket>,
}

impl Many {
    /// Makes and sends what can be made and sent without waiting.
    pub fn feed(&mut self, core: &mut Core) {
        while self.failed.is_none() {
            let Some(making) = self.makings.front_mut() else { break };
            match core.make(making, Io::Poll) {
                Ok(Progress::Ready(ticket)) => self.tickets.push_back(ticket),
                Ok(_) => return,
                Err(error) => self.failed = Some(error),
            }
            self.makings.pop_front();
        }
        if core.wants_sending() {
            // What cannot be sent now is sent when the operation is polled.
            let _ = core.session.poll_sent();
            if let Err(error) = core.take_received() {
                self.failed.get_or_insert(error);
            }
        }
    }

    /// Further sets of parameters cannot be converted: what was sent is rolled back if it can be.
    pub fn refuse(&mut self) {
        let error = Error::new(ErrorKind::Usage, "a parameter could not be converted");
        self.failed.get_or_insert(error);
    }
}

/// What it came to.
enum Done {
    Nothing,
    Received(Vec<Received>, Option<i64>),
    Rows(Option<Received>),
    Ticket(Ticket),
    Begun(Ticket, bool),
    Piece(Option<Bytes>),
    Notification(Notification),
}

struct State {
    work: Work,
    done: Option<Done>,
    /// What is raised instead of the failure that it ends with.
    refused: Option<PyErr>,
}

impl State {
    /// What is left to do of something given up: to read what is on its way.
    fn give_up(&mut self) {
        match &mut self.work {
            Work::Execute(making) | Work::Start(making) | Work::CopyStart(making) => {
                match making.asked() {
                    Some(ticket) => self.work = Work::Abandon(ticket),
                    None => self.done = Some(Done::Nothing),
                }
            }
            Work::Started(ticket) | Work::CopyBegun(ticket) => self.work = Work::Abandon(*ticket),
            Work::Many(many) if many.end.is_none() => {
                many.makings.clear();
                let error = Error::new(ErrorKind::Usage, "executemany() was given up");
                many.failed.get_or_insert(error);
            }
            _ => {}
        }
    }
}

#[pyclass(frozen, module = "segue._segue", name = "Operation")]
pub struct Operation {
    connection: Py<Connection>,
    state: Mutex<State>,
}

impl Operation {
    pub fn new(connection: Py<Connection>, work: Work) -> Self {
        Self { connection, state: Mutex::new(State { work, done: None, refused: None }) }
    }

    /// Of many sets of parameters some were sent, and then one could not be converted.
    pub fn refused(connection: Py<Connection>, many: Many, error: PyErr) -> Self {
        let work = Work::Many(Box::new(many));
        Self { connection, state: Mutex::new(State { work, done: None, refused: Some(error) }) }
    }
}

macro_rules! ready {
    ($progress:expr) => {
        match $progress {
            Progress::Ready(value) => value,
            Progress::WantsRead => return Ok(Err(READ)),
            Progress::WantsWrite => return Ok(Err(WRITE)),
            Progress::WantsHelp => return Ok(Err(HELP)),
        }
    };
}

/// What is done, or what is wanted.
type Polled = segue::Result<Result<Done, u8>>;

/// `meanwhile` is called with a result that is still coming.
fn poll(core: &mut Core, work: &mut Work, meanwhile: &mut dyn FnMut(&mut Received)) -> Polled {
    const IO: Io = Io::Poll;
    loop {
        *work = match work {
            Work::Execute(making) => Work::Reply(ready!(core.make(making, IO)?)),
            Work::Reply(ticket) => {
                let received = ready!(core.reply_meanwhile(*ticket, IO, meanwhile)?)?;
                return Ok(Ok(Done::Received(received, None)));
            }
            Work::Many(many) => return poll_many(core, many),
            Work::Ready => {
                ready!(core.session.poll_ready()?);
                return Ok(Ok(Done::Nothing));
            }
            Work::Begin(options) => {
                ready!(core.settled(IO)?);
                ready!(core.session.poll_ready()?);
                core.begin(options)?;
                return Ok(Ok(Done::Nothing));
            }
            Work::Commit | Work::Rollback if core.status() == Status::Idle => {
                return Ok(Ok(Done::Received(Vec::new(), None)));
            }
            Work::Commit => Work::Reply(ready!(core.commit(IO)?)),
            Work::Rollback => Work::Reply(ready!(core.rollback(IO)?)),
            Work::Start(making) => Work::Started(ready!(core.make(making, IO)?)),
            Work::Started(ticket) => {
                if core.wants_sending() {
                    ready!(core.session.poll_sent());
                    core.take_received()?;
                }
                return Ok(Ok(Done::Ticket(*ticket)));
            }
            Work::Stream(ticket) => {
                return Ok(Ok(Done::Rows(ready!(core.stream(*ticket, IO)?))));
            }
            Work::CopyStart(making) => Work::CopyBegun(ready!(core.make(making, IO)?)),
            Work::CopyBegun(ticket) => {
                let ticket = *ticket;
                return Ok(Ok(Done::Begun(ticket, ready!(core.copy_begun(ticket, IO)?))));
            }
            Work::CopySend(ticket, data) => {
                ready!(core.copy_ready(*ticket, IO)?);
                core.copy_add(*ticket, data)?;
                Work::CopySent
            }
            Work::CopySent => {
                ready!(core.copy_sent(IO)?);
                return Ok(Ok(Done::Nothing));
            }
            Work::CopyEnd(ticket, reason) => {
                ready!(core.copy_ready(*ticket, IO)?);
                core.copy_end(reason.as_deref())?;
                Work::Reply(*ticket)
            }
            Work::CopyPiece(ticket) => {
                return Ok(Ok(Done::Piece(ready!(core.copy_piece(*ticket, IO)?))));
            }
            Work::Abandon(ticket) => {
                ready!(core.abandon(*ticket, IO)?);
                return Ok(Ok(Done::Nothing));
            }
            Work::Notification => {
                ready!(core.settled(IO)?);
                return Ok(Ok(Done::Notification(ready!(core.session.poll_notification()?))));
            }
        };
    }
}

fn poll_many(core: &mut Core, many: &mut Many) -> Polled {
    const IO: Io = Io::Poll;
    loop {
        if let Some(ticket) = many.end {
            let reply = ready!(core.reply(ticket, IO)?);
            if let Some(error) = many.failed.take() {
                return Err(error);
            }
            reply?;
            let results = std::mem::take(&mut many.results);
            return Ok(Ok(Done::Received(results, Some(many.count))));
        }
        while let Some(ticket) = many.tickets.front() {
            let reply = match core.take_finished(*ticket) {
                Some(reply) => reply,
                None if many.makings.is_empty() || many.failed.is_some() => {
                    ready!(core.reply(*ticket, IO)?)
                }
                None => break,
            };
            many.tickets.pop_front();
            match reply {
                Ok(received) => {
                    for result in received {
                        many.count += result.row_count().max(0);
                        if many.keep {
                            many.results.push(result);
                        }
                    }
                }
                Err(error) => {
                    many.failed.get_or_insert(error);
                }
            }
        }
        if many.failed.is_some() {
            many.makings.clear();
        }
        if core.wants_sending() {
            ready!(core.session.poll_sent());
            core.take_received()?;
        }
        if let Some(making) = many.makings.front_mut() {
            let made = core.make(making, IO);
            match made {
                Ok(progress) => {
                    let ticket = ready!(progress);
                    many.tickets.push_back(ticket);
                }
                Err(error) => many.failed = Some(error),
            }
            many.makings.pop_front();
            continue;
        }
        if !many.tickets.is_empty() {
            continue;
        }
        if many.own && core.status() != Status::Idle {
            let end = if many.failed.is_some() { core.rollback(IO)? } else { core.commit(IO)? };
            many.end = Some(ready!(end));
            continue;
        }
        if let Some(error) = many.failed.take() {
            return Err(error);
        }
        let results = std::mem::take(&mut many.results);
        return Ok(Ok(Done::Received(results, Some(many.count))));
    }
}

#[pymethods]
impl Operation {
    /// Goes on as far as it can; what it wants then.
    fn poll(&self, py: Python<'_>) -> PyResult<u8> {
        let connection = self.connection.bind(py).get();
        let polled = connection.at_once(py, |core| {
            let mut state = lock(&self.state);
            if state.done.is_some() {
                return Ok(DONE);
            }
            match poll(core, &mut state.work, &mut |some| connection.make_rows(some))? {
                Ok(done) => {
                    state.done = Some(done);
                    Ok(DONE)
                }
                Err(wants) => Ok(wants),
            }
        })?;
        connection.refresh(py)?;
        connection.tell_notices(py)?;
        polled.map_err(|error| {
            let refused = lock(&self.state).refused.take();
            refused.unwrap_or_else(|| errors::from_core(py, &error))
        })
    }

    /// Makes no more requests.
    fn give_up(&self) {
        lock(&self.state).give_up();
    }

    /// Hands what was received over to a cursor.
    #[pyo3(signature = (cursor, query = None))]
    fn hand_over(&self, cursor: &Bound<'_, Cursor>, query: Option<&Bound<'_, PyAny>>) {
        if let Some(Done::Received(results, total)) = lock(&self.state).done.take() {
            cursor.get().accept(query, results, total);
        }
    }

    /// Raises if COMMIT was answered with ROLLBACK.
    fn check_committed(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(Done::Received(results, _)) = &lock(&self.state).done {
            self.connection.bind(py).get().check_committed(py, results)?;
        }
        Ok(())
    }

    /// The ticket of a request that was started.
    fn ticket(&self) -> Option<Ticket> {
        match &lock(&self.state).done {
            Some(Done::Ticket(ticket) | Done::Begun(ticket, _)) => Some(*ticket),
            _ => None,
        }
    }

    /// Whether a COPY that was started takes data.
    fn takes_data(&self) -> bool {
        matches!(&lock(&self.state).done, Some(Done::Begun(_, true)))
    }

    /// Rows of a stream that have arrived, made as the cursor makes them; None at its end.
    fn rows<'py>(&self, cursor: &Bound<'py, Cursor>) -> PyResult<Option<Bound<'py, PyList>>> {
        let done = lock(&self.state).done.take();
        match done {
            Some(Done::Rows(Some(received))) => Cursor::streamed(cursor, received).map(Some),
            _ => Ok(None),
        }
    }

    /// A piece of COPY's data; None at its end.
    fn piece<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        match &lock(&self.state).done {
            Some(Done::Piece(Some(piece))) => Some(PyBytes::new(py, piece)),
            _ => None,
        }
    }

    /// A notification as (channel, payload, pid).
    fn notification(&self) -> Option<(String, String, i32)> {
        match &lock(&self.state).done {
            Some(Done::Notification(n)) => {
                Some((n.channel.clone(), n.payload.clone(), n.process_id))
            }
            _ => None,
        }
    }
}
