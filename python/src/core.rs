//! One connection's session with the requests that are on their way, driven without Python.
//!
//! Replies come in the order of their requests: `queue` has a collector for each request that is not
//! answered. Whoever waits for one reply collects those ahead of it on the way. The same code serves
//! callers that block (`Io::Wait`) and event loops (`Io::Poll`), where any step may want the
//! socket first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use segue::client::Progress;
use segue::session::{Column, Event};
use segue::wire::frame::Status;
use segue::{Error, ErrorKind, Outcome, Result, Session, ToSql, TransactionOptions};
use smallvec::SmallVec;

use crate::decode::Decoders;
use crate::encode::Args;
use crate::plan::{Plan, Variant};
pub use crate::received::Received;
use crate::types::TypeMap;

/// Requests are put on the wire once so many bytes have gathered.
const BATCH: usize = 32 * 1024;
/// The same for the data of COPY.
const COPY_BATCH: usize = 64 * 1024;

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

/// What is asked of a session.
pub struct Request {
    pub plan: Arc<Plan>,
    pub args: Args,
    /// Further sets of parameters, of the same types.
    pub more: Vec<Args>,
    pub purpose: Purpose,
}

/// What a request that is being made waits for.
#[derive(Debug)]
enum Stage {
    Ready,
    Prepare(Ticket, segue::client::Preparing),
    Types(Ticket, segue::client::Prepared),
    Execute(Option<Arc<Variant>>),
}

/// A request that is being made.
pub struct Making {
    pub request: Request,
    /// A transaction is begun for it if none is open.
    pub begin: Option<TransactionOptions>,
    stage: Stage,
}

impl Making {
    pub fn new(request: Request, begin: Option<TransactionOptions>) -> Self {
        Self { request, begin, stage: Stage::Ready }
    }

    /// What was asked for it and has not been answered.
    pub fn asked(&self) -> Option<Ticket> {
        match &self.stage {
            Stage::Prepare(ticket, _) | Stage::Types(ticket, _) => Some(*ticket),
            Stage::Ready | Stage::Execute(_) => None,
        }
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

    /// Makes a request: brings it to where its reply can be waited for.
    pub fn make(&mut self, making: &mut Making, io: Io) -> Result<Progress<Ticket>> {
        loop {
            match &mut making.stage {
                Stage::Ready => {
                    ready!(self.get_ready(io)?);
                    let plan = &making.request.plan;
                    if let Some(options) = &making.begin {
                        if self.status() == Status::Idle && !plan.bounds_transaction {
                            self.begin(options)?;
                        }
                    }
                    making.stage = self.look_up(&making.request)?;
                }
                Stage::Prepare(ticket, _) => {
                    let reply = ready!(self.reply(*ticket, io)?);
                    let stage = std::mem::replace(&mut making.stage, Stage::Execute(None));
                    let Stage::Prepare(_, preparing) = stage else { continue };
                    match reply {
                        Ok(_) => {
                            making.stage = self.prepared(&making.request, preparing.finish())?
                        }
                        // Executing it fails in the same way, and the transaction with it.
                        Err(_) if self.session.ends_without_server() => {}
                        Err(error) => return Err(error),
                    }
                }
                Stage::Types(ticket, _) => {
                    let reply = ready!(self.reply(*ticket, io)?);
                    let stage = std::mem::replace(&mut making.stage, Stage::Execute(None));
                    let Stage::Types(_, prepared) = stage else { continue };
                    crate::introspect::learn(&self.types, &reply?);
                    making.stage = Stage::Execute(Some(self.remember(&making.request, prepared)));
                }
                Stage::Execute(variant) => {
                    let variant = variant.take();
                    let request = &making.request;
                    if !request.more.is_empty() {
                        self.start_sets(request, variant.as_deref())?;
                        return Ok(Progress::Ready(self.enqueue(Purpose::Whole, false, None)));
                    }
                    let streamed = request.purpose != Purpose::Whole;
                    let raw = request.args.raw();
                    let params: SmallVec<[&dyn ToSql; 8]> =
                        raw.iter().map(|raw| raw as &dyn ToSql).collect();
                    let text = match &variant {
                        Some(variant) => {
                            let formats = variant.decoders.formats();
                            let prepared = &variant.prepared;
                            self.session.start(prepared, &params, false, &formats, streamed)?
                        }
                        None => {
                            self.session.start(&*request.plan.sql, &params, false, &[], streamed)?
                        }
                    };
                    let expected = variant.map(|variant| Arc::clone(&variant.decoders));
                    return Ok(Progress::Ready(self.enqueue(request.purpose, text, expected)));
                }
            }
        }
    }

    fn start_sets(&mut self, request: &Request, variant: Option<&Variant>) -> Result<()> {
        let raw: Vec<_> =
            std::iter::once(&request.args).chain(&request.more).map(Args::raw).collect();
        let sets: Vec<SmallVec<[&dyn ToSql; 8]>> =
            raw.iter().map(|set| set.iter().map(|raw| raw as &dyn ToSql).collect()).collect();
        let sets: Vec<&[&dyn ToSql]> = sets.iter().map(|set| &set[..]).collect();
        match variant {
            Some(variant) => self.session.start_sets(&variant.prepared, &sets),
            None => self.session.start_sets(&*request.plan.sql, &sets),
        }
    }

    /// Whether a request can be made without waiting for anything.
    pub fn makes_at_once(&self, making: &Making) -> bool {
        self.session.accepts_requests()
            && self.session.unsent() < BATCH
            && making.begin.is_none()
            && (!making.request.plan.may_return_rows
                || lock(&making.request.plan.variants).iter().any(|variant| {
                    making.request.args.has_oids(&variant.oids)
                        && variant.decoders.epoch == self.types.epoch()
                }))
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

    /// What is known of a statement with these parameters; if nothing is, the server is asked.
    fn look_up(&mut self, request: &Request) -> Result<Stage> {
        let plan = &request.plan;
        if !plan.may_return_rows || request.purpose == Purpose::Copy {
            return Ok(Stage::Execute(None));
        }
        let known = {
            let mut variants = lock(&plan.variants);
            let at = variants.iter().position(|variant| request.args.has_oids(&variant.oids));
            match at {
                Some(at) if variants[at].decoders.epoch == self.types.epoch() => {
                    Some(Arc::clone(&variants[at]))
                }
                // A type was registered meanwhile.
                Some(at) => {
                    let old = variants.swap_remove(at);
                    drop(variants);
                    return self.described(request, old.prepared.clone());
                }
                None => None,
            }
        };
        if known.is_some() {
            return Ok(Stage::Execute(known));
        }
        let preparing = self.session.start_prepare(&plan.sql, &request.args.oids())?;
        let ticket = self.enqueue(Purpose::Whole, false, None);
        Ok(Stage::Prepare(ticket, preparing))
    }

    fn prepared(&mut self, request: &Request, prepared: segue::client::Prepared) -> Result<Stage> {
        let (given, taken) = (request.args.raw().len(), prepared.param_oids().len());
        if given != taken {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "the statement takes {taken} parameters, {given} were given; nothing was sent"
                ),
            ));
        }
        self.described(request, prepared)
    }

    fn described(&mut self, request: &Request, prepared: segue::client::Prepared) -> Result<Stage> {
        let strange: Vec<u32> = prepared
            .columns()
            .iter()
            .map(|column| column.type_oid)
            .filter(|oid| self.types.is_strange(*oid))
            .collect();
        if strange.is_empty() {
            return Ok(Stage::Execute(Some(self.remember(request, prepared))));
        }
        let sql = crate::introspect::sql(&strange);
        self.session.start(&*sql, &[], true, &[], false)?;
        let ticket = self.enqueue(Purpose::Whole, true, None);
        Ok(Stage::Types(ticket, prepared))
    }

    fn remember(&mut self, request: &Request, prepared: segue::client::Prepared) -> Arc<Variant> {
        let decoders = Arc::new(Decoders::new(prepared.shared_columns(), &self.types));
        let oids = request.args.oids().into_vec().into_boxed_slice();
        let variant = Arc::new(Variant { oids, prepared, decoders });
        let mut variants = lock(&request.plan.variants);
        // Parameters of ever new types would fill the memory.
        if variants.len() >= 32 {
            variants.clear();
        }
        variants.push(Arc::clone(&variant));
        variant
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

    /// Rows of a streamed reply that have arrived, with their columns; `None` at its end.
    pub fn stream(&mut self, ticket: Ticket, io: Io) -> Result<Progress<Option<Received>>> {
        loop {
            if let Some(front) = self.queue.front_mut().filter(|front| front.ticket == ticket) {
                if let Some(last) = front.results.last_mut() {
                    last.split();
                }
                let rows = front.results.last_mut().filter(|last| !last.rows.is_empty());
                if let Some(last) = rows {
                    let decoders = last.decoders.clone();
                    let rows = std::mem::take(&mut last.rows);
                    let mut some = Received::default();
                    (some.decoders, some.rows) = (decoders, rows);
                    return Ok(Progress::Ready(Some(some)));
                }
            }
            if let Some(reply) = self.finished.remove(&ticket) {
                // The last piece may have no rows: a result without any has columns all the same.
                let last = reply?.pop();
                if last.is_some() {
                    // Its end is told by the next call.
                    self.finished.insert(ticket, Ok(Vec::new()));
                }
                return Ok(Progress::Ready(last));
            }
            ready!(self.pump(io)?);
            // What has arrived together is handed over together.
            self.take_received()?;
        }
    }

    /// Waits until a COPY takes data (true) or gives some (false).
    pub fn copy_begun(&mut self, ticket: Ticket, io: Io) -> Result<Progress<bool>> {
        loop {
            if let Some(reply) = self.finished.remove(&ticket) {
                reply?;
                let outcome = match self.status() {
                    Status::Idle => Outcome::Committed,
                    _ => Outcome::NotCommitted,
                };
                return Err(Error::new(
                    ErrorKind::Usage,
                    "copy() takes a COPY FROM STDIN or a COPY TO STDOUT; the statement was executed",
                )
                .with_outcome(outcome));
            }
            match self.queue.front().filter(|front| front.ticket == ticket) {
                Some(front) if front.copies_in => return Ok(Progress::Ready(true)),
                Some(front) if front.copies_out => return Ok(Progress::Ready(false)),
                _ => {}
            }
            ready!(self.pump(io)?);
        }
    }

    /// The next piece of data of COPY TO STDOUT; `None` at the end.
    pub fn copy_piece(&mut self, ticket: Ticket, io: Io) -> Result<Progress<Option<Bytes>>> {
        loop {
            if let Some(front) = self.queue.front_mut().filter(|front| front.ticket == ticket) {
                if let Some(piece) = front.pieces.pop_front() {
                    return Ok(Progress::Ready(Some(piece)));
                }
                // The last event of a reply takes the collector along: not before it is empty.
            } else if let Some(reply) = self.finished.remove(&ticket) {
                reply?;
                return Ok(Progress::Ready(None));
            }
            ready!(self.pump(io)?);
        }
    }

    /// There is a link, unless what was under way has ended without one.
    fn restored(&mut self, io: Io) -> Result<Progress<()>> {
        loop {
            match io {
                Io::Wait => self.session.restore()?,
                Io::Poll => ready!(self.session.poll_restored()),
            }
            // Polling stops at an event, be there a link or not.
            if !self.take_some()? {
                return Ok(Progress::Ready(()));
            }
        }
    }

    /// There is a link on which a COPY FROM STDIN can go on, if it has not ended.
    pub fn copy_ready(&mut self, ticket: Ticket, io: Io) -> Result<Progress<()>> {
        loop {
            ready!(self.restored(io)?);
            if self.session.copies_in() || self.finished.contains_key(&ticket) {
                return Ok(Progress::Ready(()));
            }
            // It has failed: its reply is on its way.
            ready!(self.pump(io)?);
        }
    }

    /// Adds a piece of data to a COPY FROM STDIN that is ready.
    pub fn copy_add(&mut self, ticket: Ticket, data: &[u8]) -> Result<()> {
        if self.session.copies_in() {
            return self.session.copy_data(data).map(drop);
        }
        let reply = self.finished.insert(ticket, Ok(Vec::new()));
        Err(reply.and_then(Result::err).unwrap_or_else(|| {
            Error::new(ErrorKind::Usage, "the COPY has ended and takes no more data")
        }))
    }

    /// Sends what has been added to a COPY, once it is much.
    pub fn copy_sent(&mut self, io: Io) -> Result<Progress<()>> {
        if self.session.unsent() < COPY_BATCH {
            return Ok(Progress::Ready(()));
        }
        match io {
            Io::Wait => self.session.send_requests()?,
            Io::Poll => ready!(self.session.poll_sent()),
        }
        self.take_received()?;
        Ok(Progress::Ready(()))
    }

    pub fn copy_send(&mut self, ticket: Ticket, data: &[u8], io: Io) -> Result<Progress<()>> {
        ready!(self.copy_ready(ticket, io)?);
        self.copy_add(ticket, data)?;
        self.copy_sent(io)
    }

    /// Ends COPY FROM STDIN; with a reason it fails. Its reply is then to be waited for.
    pub fn copy_end(&mut self, reason: Option<&str>) -> Result<()> {
        self.take_received()?;
        if self.session.copies_in() {
            self.session.copy_end(reason)?;
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

    /// Reads the rest of a reply and throws it away.
    pub fn abandon(&mut self, ticket: Ticket, io: Io) -> Result<Progress<()>> {
        loop {
            if self.finished.remove(&ticket).is_some() || self.queue.is_empty() {
                return Ok(Progress::Ready(()));
            }
            let mut copies_in = false;
            if let Some(front) = self.queue.front_mut().filter(|front| front.ticket == ticket) {
                front.pieces.clear();
                front.results.clear();
                copies_in = front.copies_in;
            }
            if copies_in && self.session.copies_in() {
                // The link may have been lost since the last piece of data.
                ready!(self.restored(io)?);
                if self.session.copies_in() {
                    self.session.copy_end(Some("the application abandoned the COPY"))?;
                }
                continue;
            }
            ready!(self.pump(io)?);
        }
    }
}

/// A mutex whose holder has panicked holds plain data all the same.
pub fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
