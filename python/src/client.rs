//! The native half of `segue.Client`: status, counters, the ledger, and events on their way to Python.
//!
//! Events arise on any thread: the client's own, or one that works with a session and may hold the
//! GIL, a connection's lock, or neither. So nothing of Python runs where they arise: they are put into
//! a queue, under a lock that nobody holds while waiting for anything else, and a thread of
//! `segue._dispatch` takes them from there. A slow callback delays no failover.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use segue::client::{ClientEvent, SetupOptions, Subscription};
use segue::cluster::{ClusterEvent, Health, Role, ServerStatus, Verdict};
use segue::error::ServerError;

use crate::core::lock;
use crate::errors;
use crate::notices::Inboxes;
use crate::objects::Objects;

/// So many events wait for the thread that delivers them, at most; later ones are only counted.
const WAITING_MAX: usize = 10_000;

/// A client of the core, and the subscription that brings its events to Python for as long as anything
/// of it is open.
#[derive(Clone)]
pub struct Watched {
    /// Dropped ahead of `watch`, which has another.
    pub client: segue::Client,
    /// What it was opened with. It may hold a password.
    pub conninfo: Arc<str>,
    watch: Arc<Watch>,
}

struct Watch {
    number: u64,
    /// The last handle on the client, save those that Rust code has for a moment.
    client: Option<segue::Client>,
    inboxes: Arc<Inboxes>,
    process: u32,
    subscription: Option<Subscription>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Its end may wait for submissions that are under way.
        let mut client = self.client.take();
        if Python::try_attach(|py| py.detach(|| drop(client.take()))).is_none() {
            drop(client);
        }
        // In a child of fork() the lock that it would take may be held for ever.
        if self.process != std::process::id() {
            std::mem::forget(self.subscription.take());
        }
    }
}

/// By the client's number in the core. Locked with the GIL only, so that a fork never finds it locked.
static WATCHES: Mutex<Option<HashMap<u64, Weak<Watch>>>> = Mutex::new(None);

impl Watched {
    pub fn open(py: Python<'_>, conninfo: &str) -> PyResult<Self> {
        let client = py
            .detach(|| segue::Client::connect(conninfo))
            .map_err(|error| errors::from_core(py, &error))?;
        Self::new(py, client, conninfo.into())
    }

    /// Where sessions with handlers for notices find theirs.
    pub fn inboxes(&self) -> &Inboxes {
        &self.watch.inboxes
    }

    fn new(py: Python<'_>, client: segue::Client, conninfo: Arc<str>) -> PyResult<Self> {
        static QUEUE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        // What connections import is imported here, by whoever opens the client, and not by a thread in
        // the background: a child of a fork() in the midst of that could never import it.
        Objects::get(py)?;
        // Python code may let other threads run, so it comes before the lock.
        let queue = QUEUE.import(py, "segue._dispatch", "queue")?.call0()?;
        let queue = Arc::clone(&queue.cast::<EventQueue>()?.get().0);
        let number = client.number();
        let mut watches = lock(&WATCHES);
        let watches = watches.get_or_insert_default();
        if let Some(watch) = watches.get(&number).and_then(Weak::upgrade) {
            return Ok(Self { client, conninfo, watch });
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        let inboxes = Arc::new(Inboxes::default());
        let told = Arc::clone(&inboxes);
        let subscription = client.on_event(move |event| {
            told.note(event);
            queue.push(number, event);
        });
        let watch = Arc::new(Watch {
            number,
            client: Some(client.clone()),
            inboxes,
            process: std::process::id(),
            subscription: Some(subscription),
        });
        watches.insert(number, Arc::downgrade(&watch));
        Ok(Self { client, conninfo, watch })
    }
}

/// Events on their way to Python, and other calls.
pub struct Queue {
    /// In a child of fork() nobody takes events from it, and its lock may be held for ever.
    process: u32,
    state: Mutex<Waiting>,
    changed: Condvar,
}

struct Happened {
    client: u64,
    /// Seconds since 1970.
    time: f64,
    event: ClientEvent,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Happened>,
    dropped: u64,
    calls: Vec<Call>,
    closed: bool,
}

/// What is to be called, with what.
type Call = (Py<PyAny>, Py<PyAny>);

impl Queue {
    fn push(&self, client: u64, event: &ClientEvent) {
        if self.process != std::process::id() {
            return;
        }
        let mut state = lock(&self.state);
        if state.closed {
            return;
        }
        if state.events.len() < WAITING_MAX {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let time = time.as_secs_f64();
            state.events.push_back(Happened { client, time, event: event.clone() });
        } else {
            state.dropped += 1;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Of these none is dropped: whoever has asked to be called waits for it.
    pub fn push_call(&self, callback: Py<PyAny>, argument: Py<PyAny>) {
        if self.process != std::process::id() {
            return;
        }
        let mut state = lock(&self.state);
        if !state.closed {
            state.calls.push((callback, argument));
            drop(state);
            self.changed.notify_one();
        }
    }

    /// What has come; waits until something has. `None` once it is closed and empty.
    fn take(&self) -> Option<(VecDeque<Happened>, u64, Vec<Call>)> {
        let mut state = lock(&self.state);
        loop {
            if !state.events.is_empty() || !state.calls.is_empty() {
                let dropped = std::mem::take(&mut state.dropped);
                let calls = std::mem::take(&mut state.calls);
                return Some((std::mem::take(&mut state.events), dropped, calls));
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

type Taken<'py> = (Bound<'py, PyList>, u64, Vec<Call>);

#[pyclass(frozen, module = "segue._segue", name = "EventQueue")]
pub struct EventQueue(Arc<Queue>);

impl EventQueue {
    pub fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl EventQueue {
    #[new]
    fn new() -> Self {
        Self(Arc::new(Queue {
            process: std::process::id(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Waits for events: a list of (client, time, kind, message, fields), how many were dropped since, and
    /// a list of (callable, argument). None once it is closed.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Taken<'py>>> {
        let Some((events, dropped, calls)) = py.detach(|| self.0.take()) else { return Ok(None) };
        let list = PyList::empty(py);
        for happened in &events {
            list.append(described(py, happened)?)?;
        }
        Ok(Some((list, dropped, calls)))
    }

    /// Takes no more events; what has come is still given.
    fn close(&self, py: Python<'_>) {
        if self.0.process == std::process::id() {
            py.detach(|| lock(&self.0.state).closed = true);
            self.0.changed.notify_all();
        }
    }
}

/// Tells of an exception that nobody can be told of, as the interpreter does.
#[pyfunction]
pub fn unraisable(py: Python<'_>, error: &Bound<'_, PyAny>, object: &Bound<'_, PyAny>) {
    PyErr::from_value(error.clone()).write_unraisable(py, Some(object));
}

#[pyclass(frozen, module = "segue._segue", name = "Client")]
pub struct Client {
    number: u64,
    watched: Mutex<Option<Watched>>,
}

impl Client {
    pub fn of(watched: &Watched) -> Self {
        Self { number: watched.watch.number, watched: Mutex::new(Some(watched.clone())) }
    }

    pub fn watched(&self, py: Python<'_>) -> PyResult<Watched> {
        let watched = lock(&self.watched).clone();
        watched.ok_or_else(|| errors::interface(py, "the client is closed"))
    }
}

#[pymethods]
impl Client {
    #[new]
    fn new(py: Python<'_>, conninfo: &str) -> PyResult<Self> {
        Ok(Self::of(&Watched::open(py, conninfo)?))
    }

    /// The same for all that is one client of the core, and for no other.
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    /// For another connection of the same client; never to be shown.
    fn _conninfo(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.watched(py)?.conninfo.to_string())
    }

    /// Lets go of the core's client; its end may wait for submissions that are under way.
    fn close(&self) {
        let watched = lock(&self.watched).take();
        drop(watched);
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // The core's locks are waited for without the GIL.
        let client = self.watched(py)?.client;
        let status = py.detach(|| client.status());
        let cluster = &status.cluster;
        let servers = PyList::empty(py);
        for server in &cluster.servers {
            servers.append(server_status(py, server)?)?;
        }
        let dict = PyDict::new(py);
        dict.set_item("servers", servers)?;
        dict.set_item("chosen", cluster.chosen)?;
        dict.set_item("standby", cluster.standby)?;
        dict.set_item("system_identifier", cluster.system_identifier)?;
        dict.set_item("timeline_floor", cluster.timeline_floor)?;
        dict.set_item("sessions", status.sessions)?;
        dict.set_item("sessions_linked", cluster.sessions)?;
        dict.set_item("sessions_waiting", cluster.waiting)?;
        dict.set_item("ledger_problem", status.ledger_problem)?;
        let journal = status.journal.map(|it| (it.dir, it.bytes));
        dict.set_item("journal", journal)?;
        Ok(dict)
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let client = self.watched(py)?.client;
        let statistics = py.detach(|| client.statistics());
        let dict = PyDict::new(py);
        macro_rules! set {
            ($($name:ident),* $(,)?) => {
                $(dict.set_item(stringify!($name), statistics.$name)?;)*
            };
        }
        set!(
            sessions_opened,
            statements,
            transactions_committed,
            transactions_rolled_back,
            links_lost,
            replays_started,
            replays_finished,
            replays_diverged,
            commits_found,
            outcomes_unknown,
            commits_lost,
            commits_reapplied,
            protection_lost,
            notices,
            pause_longest_us,
            pause_total_us,
        );
        Ok(dict)
    }

    #[pyo3(signature = (hardened = false, role = None))]
    fn setup(&self, py: Python<'_>, hardened: bool, role: Option<String>) -> PyResult<()> {
        let options = SetupOptions::default().hardened(hardened).role(role);
        let client = self.watched(py)?.client;
        py.detach(|| client.setup(&options)).map_err(|error| errors::from_core(py, &error))
    }

    fn remove_ledger(&self, py: Python<'_>) -> PyResult<()> {
        let client = self.watched(py)?.client;
        py.detach(|| client.remove_ledger()).map_err(|error| errors::from_core(py, &error))
    }
}

fn server_status<'py>(py: Python<'py>, server: &ServerStatus) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("address", &server.address)?;
    let role = match server.role {
        Role::Primary => "primary",
        Role::ReadOnlyPrimary => "read_only_primary",
        Role::Standby => "standby",
        _ => "unknown",
    };
    dict.set_item("role", role)?;
    let health = match server.health {
        Health::Healthy => "healthy",
        Health::Suspect => "suspect",
        Health::Lost => "lost",
        Health::ComingBack => "coming_back",
        _ => "unknown",
    };
    dict.set_item("health", health)?;
    let verdict = match server.verdict {
        Verdict::Member => "member",
        Verdict::Stale => "stale",
        Verdict::OtherCluster => "other_cluster",
        _ => "unknown",
    };
    dict.set_item("verdict", verdict)?;
    dict.set_item("timeline", server.timeline)?;
    dict.set_item("system_identifier", server.system_identifier)?;
    dict.set_item("lsn", server.lsn)?;
    dict.set_item("lag_bytes", server.lag_bytes)?;
    dict.set_item("last_error", &server.last_error)?;
    dict.set_item("warm_links", server.warm_links)?;
    dict.set_item("links_dialled", server.links_dialled)?;
    dict.set_item("warm_links_used", server.warm_links_used)?;
    dict.set_item("summary", server.to_string())?;
    Ok(dict)
}

/// An event as (client, time, kind, message, fields).
fn described<'py>(py: Python<'py>, happened: &Happened) -> PyResult<Bound<'py, PyTuple>> {
    let fields = PyDict::new(py);
    macro_rules! set {
        ($($name:ident),* $(,)?) => {
            $(fields.set_item(stringify!($name), $name)?;)*
        };
    }
    let (kind, message) = match &happened.event {
        ClientEvent::Cluster(event) => (cluster_fields(&fields, event)?, event.to_string()),
        ClientEvent::ReplayStarted { session, statements } => {
            set!(session, statements);
            (
                "ReplayStarted",
                format!("session {session}: replay of {statements} statements started"),
            )
        }
        ClientEvent::ReplayFinished { session } => {
            set!(session);
            ("ReplayFinished", format!("session {session}: replay finished"))
        }
        ClientEvent::ReplayDiverged { session, statement } => {
            set!(session, statement);
            let message = format!(
                "session {session}: replay diverged at statement {statement}; the transaction was \
                 rolled back"
            );
            ("ReplayDiverged", message)
        }
        ClientEvent::SessionMoved { session, server, pause } => {
            set!(session, server);
            fields.set_item("pause", pause.as_secs_f64())?;
            let ms = pause.as_millis();
            ("SessionMoved", format!("session {session}: on server {server} after {ms} ms"))
        }
        ClientEvent::ProtectionLost { session, reason } => {
            set!(session, reason);
            ("ProtectionLost", format!("session {session}: protection lost: {reason}"))
        }
        ClientEvent::CommitsLost { session, ledger_row, from, to } => {
            set!(session);
            fields.set_item("ledger_row", ledger_row.to_string())?;
            fields.set_item("first", from)?;
            fields.set_item("last", to)?;
            let message = format!(
                "session {session}: acknowledged commits {from} to {to} of ledger row {ledger_row} \
                 are lost"
            );
            ("CommitsLost", message)
        }
        ClientEvent::CommitReapplied { session, ledger_row, number } => {
            set!(session, number);
            fields.set_item("ledger_row", ledger_row.to_string())?;
            let message = format!(
                "session {session}: lost commit {number} of ledger row {ledger_row} was run again"
            );
            ("CommitReapplied", message)
        }
        ClientEvent::SubmissionDied { id, key, sqlstate, message } => {
            set!(key, sqlstate);
            fields.set_item("id", id.to_string())?;
            fields.set_item("reason", message)?;
            ("SubmissionDied", format!("submission {id} is a dead letter: {message}"))
        }
        ClientEvent::SubmissionsLost { submissions, others } => {
            set!(others);
            let names = submissions.iter().map(|it| (it.id.to_string(), it.key.as_deref()));
            fields.set_item("submissions", PyTuple::new(py, names)?)?;
            let count = submissions.len();
            let more = if *others { ", and perhaps earlier ones" } else { "" };
            let what = "submissions that were told to be committed are lost";
            ("SubmissionsLost", format!("{count} {what}{more}"))
        }
        ClientEvent::SubmissionReapplied { id, key } => {
            set!(key);
            fields.set_item("id", id.to_string())?;
            ("SubmissionReapplied", format!("lost submission {id} was run again, and stands"))
        }
        ClientEvent::TransactionsFound { count } => {
            set!(count);
            let what = "transactions of an earlier process, which wait for recover()";
            ("TransactionsFound", format!("the journal holds {count} {what}"))
        }
        ClientEvent::Notice { session, notice } => {
            set!(session);
            notice_fields(&fields, notice)?;
            ("Notice", format!("session {session}: {}: {}", notice.severity, notice.message))
        }
        // The core knows a kind that this module does not; it is told of without its fields.
        other => ("Event", format!("{other:?}")),
    };
    let kind = PyString::intern(py, kind);
    (happened.client, happened.time, kind, message, fields).into_pyobject(py)
}

fn notice_fields(fields: &Bound<'_, PyDict>, notice: &ServerError) -> PyResult<()> {
    fields.set_item("diag", errors::fields(fields.py(), notice)?)
}

fn cluster_fields(fields: &Bound<'_, PyDict>, event: &ClusterEvent) -> PyResult<&'static str> {
    macro_rules! set {
        ($($name:ident),* $(,)?) => {
            $(fields.set_item(stringify!($name), $name)?;)*
        };
    }
    Ok(match event {
        ClusterEvent::Suspect { server, address } => {
            set!(server, address);
            "ServerSuspect"
        }
        ClusterEvent::Recovered { server, address } => {
            set!(server, address);
            "ServerRecovered"
        }
        ClusterEvent::Lost { server, address, reason } => {
            set!(server, address, reason);
            "ServerLost"
        }
        ClusterEvent::ComingBack { server, address, reason } => {
            set!(server, address, reason);
            "ServerComingBack"
        }
        ClusterEvent::PrimaryChosen { server, address, timeline, previous } => {
            set!(server, address, timeline, previous);
            "PrimaryChosen"
        }
        ClusterEvent::Promoted { server, address, timeline, previous } => {
            set!(server, address, timeline, previous);
            "Promoted"
        }
        ClusterEvent::NoServer { previous } => {
            set!(previous);
            "NoServer"
        }
        ClusterEvent::Stale { server, address, timeline, floor } => {
            set!(server, address, timeline, floor);
            "StaleServer"
        }
        ClusterEvent::OtherCluster { server, address, system_identifier } => {
            set!(server, address, system_identifier);
            "OtherCluster"
        }
        ClusterEvent::Promoting { server, address } => {
            set!(server, address);
            "Promoting"
        }
        ClusterEvent::PromotionFailed { server, address, reason } => {
            set!(server, address, reason);
            "PromotionFailed"
        }
        ClusterEvent::Warm { server, address, links } => {
            set!(server, address, links);
            "LinksWarm"
        }
        _ => "Event",
    })
}
