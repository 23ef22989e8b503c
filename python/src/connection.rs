//! The native half of a connection: a session behind a lock, which waits without the GIL.
//!
//! The lock may be held while the GIL is taken, never the other way round: whoever has the GIL and
//! wants the lock gives the GIL up first. Python code never runs under the lock, save signal handlers.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyMapping, PyString, PyTuple};
use segue::client::Progress;
use segue::wire::frame::Status;
use segue::{CancelHandle, IsolationLevel, TransactionOptions};

use crate::client::{Client, Watched};
use crate::core::{Core, Io, Making, Purpose, Received, Request, Ticket, lock};
use crate::decode::Context;
use crate::encode::{Args, Encoder};
use crate::errors;
use crate::objects::{self, Objects};
use crate::operation::{Many, Operation, Work};
use crate::plan::{Given, Places, Plan};
use crate::signals::{Interrupt, Signals};
use crate::types::{Kind, TypeMap};

/// Texts whose conversion is kept.
const PLANS_MAX: usize = 2048;

type Plans = HashMap<(isize, Given), Vec<(Py<PyString>, Arc<Plan>)>>;

/// What the application has set.
#[derive(Default)]
struct Settings {
    autocommit: bool,
    isolation: Option<IsolationLevel>,
    read_only: Option<bool>,
    deferrable: Option<bool>,
    json_loads: Option<Py<PyAny>>,
    json_dumps: Option<Py<PyAny>>,
}

impl Settings {
    fn options(&self) -> TransactionOptions {
        let mut options = TransactionOptions::default();
        options.isolation = self.isolation;
        options.read_only = self.read_only.unwrap_or(false);
        options.deferrable = self.deferrable.unwrap_or(false);
        options
    }
}

#[derive(Default)]
struct Zone {
    name: String,
    /// `None` is UTC.
    zone: Option<Py<PyAny>>,
}

#[pyclass(subclass, frozen, weakref, module = "segue._segue", name = "Connection")]
pub struct Connection {
    client: Watched,
    core: Mutex<Option<Core>>,
    /// The thread that holds `core`.
    owner: AtomicU64,
    pub types: Arc<TypeMap>,
    cancel: CancelHandle,
    signals: Arc<Signals>,
    settings: Mutex<Settings>,
    zone: Mutex<Zone>,
    plans: Mutex<Plans>,
    /// So many `pipeline()` scopes are open.
    pipelines: AtomicUsize,
}

/// Holds a connection's session.
pub struct Held<'a> {
    guard: MutexGuard<'a, Option<Core>>,
    connection: &'a Connection,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.connection.owner.store(0, Ordering::Release);
    }
}

/// A number for each thread that is not zero.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static THREAD: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    THREAD.with(|thread| *thread)
}

impl Connection {
    pub fn hold(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        if self.owner.load(Ordering::Acquire) == thread() {
            return Err(errors::interface(
                py,
                "the connection is in use by this very thread: a signal handler cannot use it",
            ));
        }
        let guard = self.core.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        self.owner.store(thread(), Ordering::Release);
        Ok(Held { guard, connection: self })
    }

    /// Works with the session, without the GIL; raises what a signal handler has raised meanwhile.
    pub fn wait<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Core) -> segue::Result<T> + Send,
    ) -> PyResult<T> {
        let mut held = self.hold(py)?;
        let Some(core) = held.guard.as_mut() else {
            return Err(errors::closed(py, "the connection is closed"));
        };
        let done = py.detach(|| work(core));
        self.note_zone(py, core)?;
        drop(held);
        self.raise_signal()?;
        done.map_err(|error| errors::from_core(py, &error))
    }

    /// Works with the session at once.
    pub fn at_once<T>(&self, py: Python<'_>, work: impl FnOnce(&mut Core) -> T) -> PyResult<T> {
        let mut held = self.hold(py)?;
        match held.guard.as_mut() {
            Some(core) => Ok(work(core)),
            None => Err(errors::closed(py, "the connection is closed")),
        }
    }

    fn raise_signal(&self) -> PyResult<()> {
        self.signals.take().map_or(Ok(()), Err)
    }

    /// The server has told of another time zone.
    fn note_zone(&self, py: Python<'_>, core: &Core) -> PyResult<()> {
        let name = core.session.parameter("TimeZone").unwrap_or_default();
        if lock(&self.zone).name != name {
            // Not under the lock: Python may let another thread run meanwhile.
            let found = objects::time_zone(py, name)?;
            let utc = found.is(Objects::get(py)?.utc.bind(py));
            let new = Zone { name: name.to_owned(), zone: (!utc).then(|| found.unbind()) };
            let old = std::mem::replace(&mut *lock(&self.zone), new);
            drop(old);
        }
        Ok(())
    }

    /// Takes note of what the server has told of meanwhile.
    pub fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        let held = self.hold(py)?;
        held.guard.as_ref().map_or(Ok(()), |core| self.note_zone(py, core))
    }

    pub fn encoder<'py>(&self, py: Python<'py>) -> PyResult<Encoder<'py>> {
        let dumps = lock(&self.settings).json_dumps.as_ref().map(|dumps| dumps.bind(py).clone());
        Ok(Encoder { py, objects: Objects::get(py)?, json_dumps: dumps })
    }

    pub fn context<'py>(&'py self, py: Python<'py>) -> PyResult<Context<'py>> {
        let loads = lock(&self.settings).json_loads.as_ref().map(|loads| loads.bind(py).clone());
        let time_zone = lock(&self.zone).zone.as_ref().map(|zone| zone.bind(py).clone());
        Ok(Context {
            py,
            objects: Objects::get(py)?,
            types: &self.types,
            time_zone,
            json_loads: loads,
            exact: Cell::new(None),
        })
    }

    /// The text of a statement, converted.
    pub fn plan(&self, query: &Bound<'_, PyAny>, given: Given) -> PyResult<Arc<Plan>> {
        let py = query.py();
        let converted;
        let text = match query.cast::<PyString>() {
            Ok(text) => text,
            Err(_) => {
                converted = text_of(query)?;
                &converted
            }
        };
        let key = (text.hash()?, given);
        if let Some(known) = lock(&self.plans).get(&key) {
            for (other, plan) in known {
                if other.bind(py).is(text) || other.bind(py).as_any().eq(text)? {
                    return Ok(Arc::clone(plan));
                }
            }
        }
        let Ok(sql) = text.to_str() else {
            return Err(errors::programming(
                py,
                "the statement has surrogates in it: it is no text",
            ));
        };
        let plan = Plan::new(sql, given)
            .map_err(|error| errors::programming(py, format!("{error}; nothing was sent")))?;
        let plan = Arc::new(plan);
        let mut plans = lock(&self.plans);
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.entry(key).or_default().push((text.clone().unbind(), Arc::clone(&plan)));
        Ok(plan)
    }

    /// A request with its parameters converted.
    pub fn request<'py>(
        &self,
        query: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        purpose: Purpose,
    ) -> PyResult<Request> {
        let given = given(query.py(), params)?;
        let plan = self.plan(query, given)?;
        if purpose != Purpose::Copy && (plan.copy_in || plan.copy_out) {
            return Err(errors::programming(
                query.py(),
                "COPY goes through cursor.copy(); nothing was sent",
            ));
        }
        if plan.several && purpose != Purpose::Whole {
            return Err(errors::programming(
                query.py(),
                "a string of several statements cannot be streamed; nothing was sent",
            ));
        }
        let mut args = Args::default();
        if let Some(params) = params {
            fill(&self.encoder(query.py())?, &plan, given, params, &mut args)?;
        }
        Ok(Request { plan, args, more: Vec::new(), purpose })
    }

    /// How the transaction begins that a statement needs; `None` with autocommit.
    pub fn begins(&self) -> Option<TransactionOptions> {
        let settings = lock(&self.settings);
        (!settings.autocommit).then(|| settings.options())
    }

    pub fn making(&self, request: Request) -> Making {
        Making::new(request, self.begins())
    }

    pub fn pipelined(&self) -> bool {
        self.pipelines.load(Ordering::Relaxed) > 0
    }

    /// Executes a statement and waits for its reply.
    pub fn run(&self, py: Python<'_>, request: Request) -> PyResult<Vec<Received>> {
        let mut making = self.making(request);
        self.wait(py, |core| {
            let ticket = waited(core.make(&mut making, Io::Wait)?);
            waited(core.reply_meanwhile(ticket, Io::Wait, &mut |some| self.make_rows(some))?)
        })
    }

    /// Makes rows while the server is at work on more. What cannot be made is left to whoever fetches
    /// it, who is then told why. No Python code runs here.
    pub fn make_rows(&self, received: &mut Received) {
        let Some(decoders) = received.decoders.clone() else { return };
        let asked = Instant::now();
        Python::attach(|py| {
            received.got_gil(asked);
            let Ok(context) = self.context(py) else { return };
            let _paused = GcPaused::new(py);
            received.make(&mut |body| Some(context.row(&decoders, body).ok()?.unbind()));
        });
    }

    /// Executes a statement with each of many sets of parameters, without waiting for each reply. Outside
    /// a transaction they are one.
    pub fn run_many(
        &self,
        query: &Bound<'_, PyAny>,
        sets: &Bound<'_, PyAny>,
        keep: bool,
    ) -> PyResult<(Vec<Received>, i64)> {
        let py = query.py();
        let mut results = Vec::new();
        let mut count: i64 = 0;
        let mut tickets = std::collections::VecDeque::new();
        let mut failed: Option<PyErr> = None;
        let own = self.at_once(py, |core| core.status() == Status::Idle)?
            && lock(&self.settings).autocommit;
        let options = lock(&self.settings).options();
        let mut take = |reply: segue::Result<Vec<Received>>, failed: &mut Option<PyErr>| match reply
        {
            Ok(received) => {
                for result in received {
                    count += result.row_count().max(0);
                    if keep {
                        results.push(result);
                    }
                }
            }
            Err(error) => {
                failed.get_or_insert_with(|| errors::from_core(py, &error));
            }
        };
        let mut begin = Some(options);
        let mut chunks = Chunks::new(sets.try_iter()?, self, query, !keep);
        while failed.is_none() {
            let request = match chunks.next_chunk() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            if own && request.plan.controls_transaction {
                failed = Some(errors::programming(
                    py,
                    "executemany() takes no statements that begin or end transactions",
                ));
                break;
            }
            let mut making = Making::new(request, None);
            // One request is a transaction anyway.
            let alone = own && begin.is_some() && chunks.is_at_end();
            if !alone && (own || !lock(&self.settings).autocommit) {
                making.begin = begin.take();
            }
            match self.many_step(py, making) {
                Ok(ticket) => tickets.push_back(ticket),
                Err(error) => failed = Some(error),
            }
            // What has been answered is taken off, so that memory stays bounded.
            while let Some(ticket) = tickets.front() {
                let Some(reply) = self.at_once(py, |core| core.take_finished(*ticket))? else {
                    break;
                };
                tickets.pop_front();
                take(reply, &mut failed);
            }
        }
        for ticket in tickets {
            match self.wait(py, |core| Ok(waited(core.reply(ticket, Io::Wait)?))) {
                Ok(reply) => take(reply, &mut failed),
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        if own && self.at_once(py, |core| core.status() != Status::Idle)? {
            match &failed {
                None => self.commit_now(py)?,
                // The first error is what the caller has to know.
                Some(_) => {
                    let _ = self.rollback_now(py);
                }
            }
        }
        failed.map_or(Ok((results, count)), Err)
    }

    /// Makes one request of many, without the GIL only where something has to be waited for.
    fn many_step(&self, py: Python<'_>, mut making: Making) -> PyResult<Ticket> {
        let made = self.at_once(py, |core| {
            let at_once = core.makes_at_once(&making);
            at_once.then(|| core.make(&mut making, Io::Wait))
        })?;
        match made {
            Some(Ok(Progress::Ready(ticket))) => Ok(ticket),
            Some(Err(error)) => Err(errors::from_core(py, &error)),
            _ => self.wait(py, |core| {
                core.send_batch()?;
                Ok(waited(core.make(&mut making, Io::Wait)?))
            }),
        }
    }

    fn commit_now(&self, py: Python<'_>) -> PyResult<()> {
        let results = self.wait(py, |core| {
            if core.status() == Status::Idle {
                return Ok(Vec::new());
            }
            let ticket = waited(core.commit(Io::Wait)?);
            waited(core.reply(ticket, Io::Wait)?)
        })?;
        self.check_committed(py, &results)
    }

    pub fn check_committed(&self, py: Python<'_>, results: &[Received]) -> PyResult<()> {
        if results.last().is_some_and(|last| last.tag() == "ROLLBACK") {
            let error = segue::Error::new(
                segue::ErrorKind::TransactionFailed,
                "the transaction had failed earlier and was rolled back; nothing of it is committed",
            );
            return Err(errors::from_core(py, &error));
        }
        Ok(())
    }

    fn rollback_now(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, |core| {
            if core.status() == Status::Idle {
                return Ok(());
            }
            let ticket = waited(core.rollback(Io::Wait)?);
            waited(core.reply(ticket, Io::Wait)?).map(drop)
        })
    }
}

impl Connection {
    fn begin_options(
        &self,
        isolation_level: Option<u8>,
        read_only: Option<bool>,
        deferrable: Option<bool>,
    ) -> TransactionOptions {
        let mut options = lock(&self.settings).options();
        options.isolation = isolation(isolation_level).or(options.isolation);
        options.read_only = read_only.unwrap_or(options.read_only);
        options.deferrable = deferrable.unwrap_or(options.deferrable);
        options
    }

    /// A COPY as a request.
    pub fn copy_request(&self, query: &Bound<'_, PyAny>) -> PyResult<Request> {
        let request = self.request(query, None, Purpose::Copy)?;
        if !(request.plan.copy_in || request.plan.copy_out) || request.plan.several {
            return Err(errors::programming(
                query.py(),
                "copy() takes one COPY ... FROM STDIN or COPY ... TO STDOUT; nothing was sent",
            ));
        }
        Ok(request)
    }

    fn op<'py>(
        slf: &Bound<'py, Self>,
        query: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        purpose: Purpose,
        work: impl FnOnce(Box<Making>) -> Work,
    ) -> PyResult<Operation> {
        let connection = slf.get();
        let making = connection.making(connection.request(query, params, purpose)?);
        Ok(Operation::new(slf.clone().unbind(), work(Box::new(making))))
    }
}

/// Sets of parameters, as many to a request as may be.
struct Chunks<'a, 'py> {
    sets: Bound<'py, PyIterator>,
    connection: &'a Connection,
    query: &'a Bound<'py, PyAny>,
    /// Sets may share a request.
    together: bool,
    /// The first set of the next request.
    next: Option<Request>,
    error: Option<PyErr>,
    begun: bool,
}

impl<'a, 'py> Chunks<'a, 'py> {
    fn new(
        sets: Bound<'py, PyIterator>,
        connection: &'a Connection,
        query: &'a Bound<'py, PyAny>,
        together: bool,
    ) -> Self {
        Self { sets, connection, query, together, next: None, error: None, begun: false }
    }

    fn read(&mut self) {
        self.next = match self.sets.next() {
            Some(params) => params
                .and_then(|params| {
                    self.connection.request(self.query, Some(&params), Purpose::Whole)
                })
                .map_err(|error| self.error = Some(error))
                .ok(),
            None => None,
        };
    }

    fn next_chunk(&mut self) -> PyResult<Option<Request>> {
        const SETS: usize = 1000;
        const BYTES: usize = 256 * 1024;
        if !std::mem::replace(&mut self.begun, true) {
            self.read();
        }
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let Some(mut chunk) = self.next.take() else { return Ok(None) };
        self.read();
        let mut bytes = chunk.args.len();
        let together = self.together && chunk.plan.repeatable;
        while let Some(next) = self.next.take_if(|next| {
            bytes += next.args.len();
            together
                && chunk.more.len() + 1 < SETS
                && bytes < BYTES
                && Arc::ptr_eq(&next.plan, &chunk.plan)
                && next.args.same_types(&chunk.args)
        }) {
            chunk.more.push(next.args);
            self.read();
        }
        Ok(Some(chunk))
    }

    /// Whether there is nothing behind the request that was given last.
    fn is_at_end(&self) -> bool {
        self.next.is_none() && self.error.is_none()
    }
}

/// Keeps the garbage collector from looking, again and again, at rows that are being made: none of them
/// is garbage.
pub struct GcPaused<'py>(Option<Bound<'py, PyAny>>);

impl<'py> GcPaused<'py> {
    pub fn new(py: Python<'py>) -> Self {
        let pause = || -> PyResult<Option<Bound<'py, PyAny>>> {
            let gc = py.import("gc")?;
            if !gc.call_method0("isenabled")?.is_truthy()? {
                return Ok(None);
            }
            gc.call_method0("disable")?;
            Ok(Some(gc.getattr("enable")?))
        };
        Self(pause().ok().flatten())
    }
}

impl Drop for GcPaused<'_> {
    fn drop(&mut self) {
        if let Some(enable) = &self.0 {
            // It takes nothing and has nothing to fail at.
            let _ = enable.call0();
        }
    }
}

/// What a wait has come to: with `Io::Wait` nothing else can be.
pub fn waited<T>(progress: Progress<T>) -> T {
    match progress {
        Progress::Ready(value) => value,
        _ => unreachable!("a wait that has not waited"),
    }
}

/// A query that is no str: bytes, or something with `as_string()`.
fn text_of<'py>(query: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let py = query.py();
    if let Ok(bytes) = query.cast::<PyBytes>() {
        return std::str::from_utf8(bytes.as_bytes())
            .map(|text| PyString::new(py, text))
            .map_err(|_| errors::programming(py, "the statement is not UTF-8; nothing was sent"));
    }
    if let Ok(method) = query.getattr("as_string") {
        return Ok(method.call1((py.None(),))?.cast_into::<PyString>()?);
    }
    Err(errors::programming(py, "a statement is a str; nothing was sent"))
}

fn given(py: Python<'_>, params: Option<&Bound<'_, PyAny>>) -> PyResult<Given> {
    let Some(params) = params else { return Ok(Given::None) };
    if params.is_exact_instance_of::<PyTuple>() || params.is_exact_instance_of::<PyList>() {
        return Ok(Given::Sequence);
    }
    if params.is_instance_of::<PyString>() || params.is_instance_of::<PyBytes>() {
        return Err(errors::programming(
            py,
            "parameters are a sequence or a mapping: for one parameter write (value,); nothing was sent",
        ));
    }
    if params.is_instance_of::<PyDict>() || params.cast::<PyMapping>().is_ok() {
        return Ok(Given::Mapping);
    }
    if params.hasattr("__len__")? && params.hasattr("__getitem__")? {
        return Ok(Given::Sequence);
    }
    Err(errors::programming(py, "parameters are a sequence or a mapping; nothing was sent"))
}

/// Converts parameters.
fn fill<'py>(
    encoder: &Encoder<'py>,
    plan: &Plan,
    given: Given,
    params: &Bound<'py, PyAny>,
    args: &mut Args,
) -> PyResult<()> {
    match &plan.places {
        Places::Names(names) => {
            for name in names {
                let value = match params.get_item(name) {
                    Ok(value) => value,
                    Err(error)
                        if error.is_instance_of::<pyo3::exceptions::PyKeyError>(encoder.py) =>
                    {
                        return Err(errors::programming(
                            encoder.py,
                            format!("there is no parameter {name}; nothing was sent"),
                        ));
                    }
                    Err(error) => return Err(error),
                };
                args.push(encoder, &value)?;
            }
            Ok(())
        }
        Places::Count(count) => {
            let length = if given == Given::Mapping { 0 } else { params.len()? };
            if length != *count {
                return Err(errors::programming(
                    encoder.py,
                    format!(
                        "the statement takes {count} parameters, {length} were given; nothing was sent"
                    ),
                ));
            }
            if let Ok(tuple) = params.cast_exact::<PyTuple>() {
                return tuple.iter_borrowed().try_for_each(|value| args.push(encoder, &value));
            }
            if *count > 0 {
                for value in params.try_iter()? {
                    args.push(encoder, &value?)?;
                }
            }
            Ok(())
        }
    }
}

fn isolation(value: Option<u8>) -> Option<IsolationLevel> {
    match value {
        Some(2) => Some(IsolationLevel::ReadCommitted),
        Some(3) => Some(IsolationLevel::RepeatableRead),
        Some(4) => Some(IsolationLevel::Serializable),
        _ => None,
    }
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (conninfo, *, autocommit = false, writes = None, interrupt = None, client = None))]
    fn new(
        py: Python<'_>,
        conninfo: &str,
        autocommit: bool,
        writes: Option<bool>,
        interrupt: Option<&Bound<'_, Interrupt>>,
        client: Option<&Bound<'_, Client>>,
    ) -> PyResult<Self> {
        let signals = Arc::new(Signals::new(interrupt.map(Bound::get)));
        let interrupt = signals.interrupt();
        let client = match client {
            Some(client) => client.get().watched(),
            None => Watched::open(py, conninfo)?,
        };
        let opened = py.detach(|| {
            let mut options = client.client.session_options();
            if let Some(writes) = writes {
                options.writes = writes;
            }
            client.client.session_with_interrupt(&options, interrupt)
        });
        if let Some(error) = signals.take() {
            return Err(error);
        }
        let session = opened.map_err(|error| errors::from_core(py, &error))?;
        let types = TypeMap::of(conninfo);
        let connection = Self {
            cancel: session.cancel_handle(),
            client,
            core: Mutex::new(None),
            owner: AtomicU64::new(0),
            types: Arc::clone(&types),
            signals,
            settings: Mutex::new(Settings { autocommit, ..Settings::default() }),
            zone: Mutex::default(),
            plans: Mutex::default(),
            pipelines: AtomicUsize::new(0),
        };
        let core = Core::new(session, types);
        connection.note_zone(py, &core)?;
        *lock(&connection.core) = Some(core);
        Ok(connection)
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.hold(py)?.guard.is_none())
    }

    /// Ends the session; an open transaction is rolled back.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let mut held = self.hold(py)?;
        if let Some(core) = held.guard.take() {
            py.detach(|| core.session.close());
        }
        Ok(())
    }

    fn commit(&self, py: Python<'_>) -> PyResult<()> {
        self.commit_now(py)
    }

    fn rollback(&self, py: Python<'_>) -> PyResult<()> {
        self.rollback_now(py)
    }

    /// Asks the server to cancel the statement that is running; for any thread.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.cancel.cancel()).map_err(|error| errors::from_core(py, &error))
    }

    /// 0: no transaction is open; 2: one is; 3: one is, and has failed; 4: the connection is closed.
    fn _transaction_status(&self, py: Python<'_>) -> PyResult<u8> {
        Ok(match self.hold(py)?.guard.as_ref().map(Core::status) {
            Some(Status::Idle) => 0,
            Some(Status::Open) => 2,
            Some(Status::Failed) => 3,
            None => 4,
        })
    }

    /// Begins a transaction now, whatever autocommit says. An argument that is None is as set.
    #[pyo3(signature = (isolation_level = None, read_only = None, deferrable = None))]
    fn _begin(
        &self,
        py: Python<'_>,
        isolation_level: Option<u8>,
        read_only: Option<bool>,
        deferrable: Option<bool>,
    ) -> PyResult<()> {
        let options = self.begin_options(isolation_level, read_only, deferrable);
        self.wait(py, |core| {
            core.session.wait_ready()?;
            core.begin(&options)
        })
    }

    #[getter]
    fn get_autocommit(&self) -> bool {
        lock(&self.settings).autocommit
    }

    fn _set_autocommit(&self, autocommit: bool) {
        lock(&self.settings).autocommit = autocommit;
    }

    fn _isolation_level(&self) -> Option<u8> {
        lock(&self.settings).isolation.map(|level| match level {
            IsolationLevel::RepeatableRead => 3,
            IsolationLevel::Serializable => 4,
            _ => 2,
        })
    }

    fn _set_isolation_level(&self, level: Option<u8>) {
        lock(&self.settings).isolation = isolation(level);
    }

    #[getter]
    fn get_read_only(&self) -> Option<bool> {
        lock(&self.settings).read_only
    }

    fn _set_read_only(&self, value: Option<bool>) {
        lock(&self.settings).read_only = value;
    }

    #[getter]
    fn get_deferrable(&self) -> Option<bool> {
        lock(&self.settings).deferrable
    }

    fn _set_deferrable(&self, value: Option<bool>) {
        lock(&self.settings).deferrable = value;
    }

    fn _set_json(&self, loads: Option<Py<PyAny>>, dumps: Option<Py<PyAny>>) {
        let mut settings = lock(&self.settings);
        let old = (
            std::mem::replace(&mut settings.json_loads, loads),
            std::mem::replace(&mut settings.json_dumps, dumps),
        );
        drop(settings);
        // What these end may run Python code.
        drop(old);
    }

    /// A setting that the server reports.
    fn _parameter(&self, py: Python<'_>, name: &str) -> PyResult<Option<String>> {
        self.at_once(py, |core| core.session.parameter(name).map(str::to_owned))
    }

    /// Where the session is, and what protects it.
    fn _status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let status = self.at_once(py, |core| core.session.status())?;
        let dict = PyDict::new(py);
        dict.set_item("session", status.session)?;
        dict.set_item("server", status.server)?;
        dict.set_item("address", status.address)?;
        dict.set_item("timeline", status.timeline)?;
        dict.set_item("backend_pid", status.backend_pid)?;
        dict.set_item("tls_version", status.tls_version)?;
        dict.set_item("in_transaction", status.in_transaction)?;
        dict.set_item("transaction_failed", status.transaction_failed)?;
        dict.set_item("ledger", status.ledger)?;
        dict.set_item("protection_lost", status.protection_lost)?;
        Ok(dict)
    }

    /// The next notification as (channel, payload, pid); None if none came within so many seconds.
    fn _notification(
        &self,
        py: Python<'_>,
        seconds: f64,
    ) -> PyResult<Option<(String, String, i32)>> {
        const SLICE: Duration = Duration::from_millis(100);
        let timeout = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // In slices, so that other threads can use the connection meanwhile.
            let slice = left.map_or(SLICE, |left| left.min(SLICE));
            let found = self.wait(py, |core| core.notification(slice))?;
            if let Some(found) = found {
                return Ok(Some((found.channel, found.payload, found.process_id)));
            }
            py.check_signals()?;
            if left.is_some_and(|left| left <= slice) {
                return Ok(None);
            }
        }
    }

    /// The socket of the present link, which may be another one after `_help`; None without a link.
    fn _fileno(&self, py: Python<'_>) -> PyResult<Option<i32>> {
        use std::os::fd::AsRawFd;
        self.at_once(py, |core| core.session.socket().map(|socket| socket.as_raw_fd()))
    }

    /// Waits for what an operation wanted help with. For a thread that may wait.
    fn _help(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, |core| core.session.help())
    }

    /// Operations for an event loop; see `Operation`.
    #[pyo3(signature = (query, params = None))]
    fn _op_execute(
        slf: &Bound<'_, Self>,
        query: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        Self::op(slf, query, params, Purpose::Whole, Work::Execute)
    }

    #[pyo3(signature = (query, params = None))]
    fn _op_start(
        slf: &Bound<'_, Self>,
        query: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        Self::op(slf, query, params, Purpose::Whole, Work::Start)
    }

    #[pyo3(signature = (query, params = None))]
    fn _op_stream_start(
        slf: &Bound<'_, Self>,
        query: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Operation> {
        Self::op(slf, query, params, Purpose::Stream, Work::Start)
    }

    fn _op_copy_start(slf: &Bound<'_, Self>, query: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let connection = slf.get();
        let request = connection.copy_request(query)?;
        let work = Work::CopyStart(Box::new(connection.making(request)));
        Ok(Operation::new(slf.clone().unbind(), work))
    }

    #[pyo3(signature = (query, params_seq, returning = false))]
    fn _op_many(
        slf: &Bound<'_, Self>,
        query: &Bound<'_, PyAny>,
        params_seq: &Bound<'_, PyAny>,
        returning: bool,
    ) -> PyResult<Operation> {
        let connection = slf.get();
        let autocommit = lock(&connection.settings).autocommit;
        let idle = connection.at_once(slf.py(), |core| core.status() == Status::Idle)?;
        let mut many = Many { keep: returning, own: autocommit && idle, ..Many::default() };
        let mut begin = Some(lock(&connection.settings).options());
        let mut chunks = Chunks::new(params_seq.try_iter()?, connection, query, !returning);
        let mut refused = None;
        let mut sent = false;
        loop {
            let request = match chunks.next_chunk() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) if sent => {
                    // What is on its way has to be answered first.
                    many.refuse();
                    refused = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            };
            if many.own && request.plan.controls_transaction {
                return Err(errors::programming(
                    slf.py(),
                    "executemany() takes no statements that begin or end transactions",
                ));
            }
            // One request is a transaction anyway.
            let at_end = chunks.is_at_end();
            let alone = many.own && !sent && at_end;
            let begin = if idle && !alone { begin.take() } else { None };
            many.makings.push_back(Making::new(request, begin));
            if !at_end {
                // The server is at work on these while the next are converted.
                sent = true;
                connection.at_once(slf.py(), |core| many.feed(core))?;
                if many.failed.is_some() {
                    break;
                }
            }
        }
        if let Some(error) = refused {
            return Ok(Operation::refused(slf.clone().unbind(), many, error));
        }
        Ok(Operation::new(slf.clone().unbind(), Work::Many(Box::new(many))))
    }

    fn _op_reply(slf: Py<Self>, ticket: Ticket) -> Operation {
        Operation::new(slf, Work::Reply(ticket))
    }

    fn _op_stream(slf: Py<Self>, ticket: Ticket) -> Operation {
        Operation::new(slf, Work::Stream(ticket))
    }

    fn _op_copy_send(slf: Py<Self>, ticket: Ticket, data: Vec<u8>) -> Operation {
        Operation::new(slf, Work::CopySend(ticket, data))
    }

    #[pyo3(signature = (ticket, reason = None))]
    fn _op_copy_end(slf: Py<Self>, ticket: Ticket, reason: Option<String>) -> Operation {
        Operation::new(slf, Work::CopyEnd(ticket, reason))
    }

    fn _op_copy_piece(slf: Py<Self>, ticket: Ticket) -> Operation {
        Operation::new(slf, Work::CopyPiece(ticket))
    }

    fn _op_abandon(slf: Py<Self>, ticket: Ticket) -> Operation {
        Operation::new(slf, Work::Abandon(ticket))
    }

    fn _op_notification(slf: Py<Self>) -> Operation {
        Operation::new(slf, Work::Notification)
    }

    /// Gets ready for a statement: there is a link.
    fn _op_ready(slf: Py<Self>) -> Operation {
        Operation::new(slf, Work::Ready)
    }

    fn _op_commit(slf: Py<Self>) -> Operation {
        Operation::new(slf, Work::Commit)
    }

    fn _op_rollback(slf: Py<Self>) -> Operation {
        Operation::new(slf, Work::Rollback)
    }

    #[pyo3(signature = (isolation_level = None, read_only = None, deferrable = None))]
    fn _op_begin(
        slf: &Bound<'_, Self>,
        isolation_level: Option<u8>,
        read_only: Option<bool>,
        deferrable: Option<bool>,
    ) -> Operation {
        let options = slf.get().begin_options(isolation_level, read_only, deferrable);
        Operation::new(slf.clone().unbind(), Work::Begin(options))
    }

    /// One row in COPY's text format.
    fn _copy_row<'py>(&self, row: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(row.py(), &self.encoder(row.py())?.copy_row(row)?))
    }

    fn _pipeline_enter(&self) {
        self.pipelines.fetch_add(1, Ordering::Relaxed);
    }

    fn _pipeline_exit(&self) {
        self.pipelines.fetch_sub(1, Ordering::Relaxed);
    }

    /// The conversion of a type of this database. `loads` is None for the built-in one.
    fn _register_loader(&self, oid: u32, loads: Py<PyAny>, binary: bool) {
        let custom = crate::types::Custom { loads, binary };
        self.types.set(oid, Kind::Custom(Arc::new(custom)));
    }

    fn _register_enum(&self, oid: u32, array_oid: u32, members: Vec<(String, Py<PyAny>)>) {
        let kind = Kind::Enum(members.into());
        self.types.set(array_oid, Kind::Array(Arc::new(kind.clone())));
        self.types.set(oid, kind);
    }

    fn _register_composite(&self, oid: u32, array_oid: u32, fields: Vec<u32>, factory: Py<PyAny>) {
        let kind = Kind::Composite(Arc::new(crate::types::Composite { fields, factory }));
        self.types.set(array_oid, Kind::Array(Arc::new(kind.clone())));
        self.types.set(oid, kind);
    }

    fn _register_hstore(&self, oid: u32, array_oid: u32) {
        self.types.set(array_oid, Kind::Array(Arc::new(Kind::Hstore)));
        self.types.set(oid, Kind::Hstore);
    }

    fn _register_range(&self, oid: u32, multirange_oid: u32, bound: u32) {
        let bound = Arc::new(self.types.kind(bound));
        self.types.set(oid, Kind::Range(Arc::clone(&bound)));
        if multirange_oid != 0 {
            self.types.set(multirange_oid, Kind::Multirange(bound));
        }
    }

    /// The client that it belongs to.
    fn _client(&self) -> Client {
        Client::of(&self.client)
    }

    /// What is known of the servers, as (address, state) pairs.
    fn _servers(&self) -> Vec<String> {
        self.client.client.status().cluster.servers.iter().map(ToString::to_string).collect()
    }
}
