//! The native half of a connection: the class that Python extends.
//!
//! * `waiting`: the lock around its session, and waits without the GIL.
//! * `statements`: texts and parameters made into requests; `many`: executemany.
//! * `transactions`: how they begin and end.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use segue::config::Address;
use segue::wire::frame::Status;
use segue::{CancelHandle, IsolationLevel};

use self::transactions::{Settings, isolation};
pub use self::waiting::waited;
use crate::client::{Client, Watched};
use crate::core::{Core, Io, Purpose, Received, Request, Ticket, lock};
use crate::decode::Context;
use crate::errors;
use crate::notices::Notices;
use crate::objects::Objects;
use crate::operation::{Operation, Work};
use crate::signals::{Interrupt, Signals, note_thread};
use crate::text::Plans;
use crate::types::{Kind, TypeMap};

mod many;
mod statements;
mod transactions;
mod waiting;

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
    plans: Plans,
    /// Once it has had handlers for notices.
    notices: OnceLock<Notices>,
    /// So many `pipeline()` scopes are open.
    pipelines: AtomicUsize,
}

impl Connection {
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
        note_thread(py);
        let signals = Arc::new(Signals::new(interrupt.map(Bound::get)));
        let interrupt = signals.interrupt();
        let client = match client {
            Some(client) => client.get().watched(py)?,
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
            plans: Plans::default(),
            notices: OnceLock::new(),
            pipelines: AtomicUsize::new(0),
        };
        let core = Core::new(session, types);
        connection.note_zone(py, &core)?;
        *lock(&connection.core) = Some(core);
        Ok(connection)
    }

    /// Waits for nobody: what is in use is not closed.
    #[getter]
    fn closed(&self) -> bool {
        self.at_rest().is_some_and(|core| core.is_none())
    }

    /// Whether a statement is under way, or something else has the session.
    fn _is_busy(&self) -> bool {
        self.at_rest().is_none()
    }

    /// Ends the session; an open transaction is rolled back. Waits for a statement that is under way.
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

    /// The configuration's side of it, and the host in use.
    fn _where<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let server = self.at_once(py, |core| core.session.status().server)?;
        let config = self.client.client.config();
        let dict = PyDict::new(py);
        dict.set_item("user", &config.user)?;
        dict.set_item("dbname", &config.database)?;
        dict.set_item("options", config.options.as_deref().unwrap_or_default())?;
        dict.set_item("dsn", config.to_string())?;
        if let Some(host) = config.hosts.get(server) {
            match &host.address {
                Address::Tcp { name, .. } => dict.set_item("host", name)?,
                Address::Unix { directory } => {
                    dict.set_item("host", directory.to_string_lossy())?;
                }
                _ => {}
            }
            dict.set_item("port", host.port)?;
        }
        Ok(dict)
    }

    /// From now on `_noticed` is called with the fields of each notice.
    fn _watch_notices(slf: &Bound<'_, Self>) -> PyResult<()> {
        let this = slf.get();
        if this.notices.get().is_none() {
            let session = this.at_once(slf.py(), |core| core.session.status().session)?;
            // Another thread may have been faster.
            let _ = this.notices.set(Notices::new(slf, this.client.inboxes(), session)?);
        }
        Ok(())
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
        let (many, refused) = slf.get().many(query, params_seq, returning)?;
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
    /// The fields of a row in the text format of COPY, as objects of these types.
    fn _load_texts<'py>(
        &self,
        py: Python<'py>,
        oids: Vec<u32>,
        fields: Vec<Option<String>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let context = self.context(py)?;
        let mut values = Vec::with_capacity(fields.len());
        for (oid, field) in oids.into_iter().zip(fields) {
            values.push(match field {
                Some(text) => context.text(&self.types.kind(oid), text.as_bytes())?.unbind(),
                None => py.None(),
            });
        }
        PyTuple::new(py, values)
    }

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
