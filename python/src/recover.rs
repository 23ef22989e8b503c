//! What an earlier process had in flight: the native half of `segue.RecoveredTransaction`.
//!
//! As long as one of these has its transaction, the journal's files are kept and its lock is held. So
//! closing the client has them let go, whether or not a variable still holds them.

use std::cell::Cell;
use std::sync::{Arc, Mutex, Weak};
use std::time::UNIX_EPOCH;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use segue::client::{RecoveredStatement, RecoveredStatements, RecoveredTransaction, Verdict};

use crate::client::Client;
use crate::core::lock;
use crate::decode::Context;
use crate::errors;
use crate::objects::Objects;
use crate::types::TypeMap;

/// A parameter as it was sent: the OID of its type, whether it is in binary form, its bytes.
type Sent<'py> = (u32, bool, Bound<'py, PyBytes>);

/// A statement: its text, its parameters as they were sent and as Python objects, the data of a COPY,
/// whether it was a simple query.
type Stated<'py> = (String, Vec<Option<Sent<'py>>>, Bound<'py, PyTuple>, Bound<'py, PyBytes>, bool);

/// What this client's journal was found to hold.
#[pyfunction]
pub fn recover(py: Python<'_>, client: &Bound<'_, Client>) -> PyResult<Vec<Recovered>> {
    let watched = client.get().watched(py)?;
    let types = TypeMap::of(&watched.conninfo);
    let client = watched.client;
    let found = py.detach(|| client.recover()).map_err(|error| errors::from_core(py, &error))?;
    Ok(found.into_iter().map(|it| Recovered::new(it, Arc::clone(&types))).collect())
}

type Reading = Mutex<Option<RecoveredStatements>>;

/// A transaction that an earlier process had in flight.
#[pyclass(frozen, module = "segue._segue", name = "Recovered")]
pub struct Recovered {
    /// `None` once the client is closed.
    transaction: Mutex<Option<RecoveredTransaction>>,
    reading: Mutex<Vec<Weak<Reading>>>,
    types: Arc<TypeMap>,
    process: u32,
}

impl Recovered {
    fn new(transaction: RecoveredTransaction, types: Arc<TypeMap>) -> Self {
        let transaction = Mutex::new(Some(transaction));
        Self { transaction, reading: Mutex::default(), types, process: std::process::id() }
    }

    /// Calls `then` with it, without the GIL.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        then: impl FnOnce(&RecoveredTransaction) -> segue::Result<T> + Send,
    ) -> PyResult<T> {
        check_process(py, self.process)?;
        match py.detach(|| lock(&self.transaction).as_ref().map(then)) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err(errors::from_core(py, &error)),
            None => Err(closed(py)),
        }
    }
}

#[pymethods]
impl Recovered {
    /// What is known of it, for the dataclass-like half in Python.
    fn described<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let transaction = lock(&self.transaction);
        let Some(it) = transaction.as_ref() else { return Err(closed(py)) };
        let verdict = match it.verdict() {
            Verdict::Committed => "committed",
            Verdict::NotCommitted => "not_committed",
            Verdict::NeverSent => "never_sent",
            _ => "unknown",
        };
        let seals = PyList::empty(py);
        for seal in it.seals() {
            seals.append((seal.row.as_u128(), seal.number, seal.guarded, seal.committed))?;
        }
        let began = it.began_at().map(|at| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_secs_f64()
        });
        let (statement_count, bytes) = it.size();
        dict.set_item("number", it.number())?;
        dict.set_item("verdict", verdict)?;
        dict.set_item("reason", it.reason())?;
        dict.set_item("is_doubtful", it.is_doubtful())?;
        dict.set_item("session", it.session().map(|it| it.as_u128()))?;
        dict.set_item("session_number", it.session_number())?;
        dict.set_item("database", it.database())?;
        dict.set_item("user", it.user())?;
        dict.set_item("began_at", began)?;
        dict.set_item("autocommit", it.is_autocommit())?;
        dict.set_item("read_only", it.is_read_only())?;
        dict.set_item("begin", it.begin())?;
        dict.set_item("statement_count", statement_count)?;
        dict.set_item("bytes", bytes)?;
        dict.set_item("seals", seals)?;
        Ok(dict)
    }

    fn statements(&self, py: Python<'_>) -> PyResult<Statements> {
        let statements = self.with(py, |it| Ok(it.statements()))?;
        let reading = Arc::new(Mutex::new(Some(statements)));
        let mut all = lock(&self.reading);
        all.retain(|it| it.strong_count() > 0);
        all.push(Arc::downgrade(&reading));
        let types = Arc::clone(&self.types);
        Ok(Statements { reading, types, process: self.process })
    }

    fn done(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, RecoveredTransaction::done)
    }

    /// Lets go of the journal.
    fn close(&self, py: Python<'_>) {
        if self.process != std::process::id() {
            // Somebody may hold the locks who is not there.
            return;
        }
        py.detach(|| {
            for reading in lock(&self.reading).drain(..).filter_map(|it| it.upgrade()) {
                drop(lock(&reading).take());
            }
            drop(lock(&self.transaction).take());
        });
    }
}

/// The statements of one transaction, read one at a time.
#[pyclass(frozen, module = "segue._segue", name = "RecoveredStatements")]
pub struct Statements {
    reading: Arc<Reading>,
    types: Arc<TypeMap>,
    process: u32,
}

#[pymethods]
impl Statements {
    /// The next one; `None` behind the last.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Stated<'py>>> {
        check_process(py, self.process)?;
        let next = py.detach(|| lock(&self.reading).as_mut().map(Iterator::next));
        match next {
            Some(Some(Ok(statement))) => self.stated(py, &statement).map(Some),
            Some(Some(Err(error))) => Err(errors::from_core(py, &error)),
            Some(None) => Ok(None),
            None => Err(closed(py)),
        }
    }
}

impl Statements {
    fn stated<'py>(&self, py: Python<'py>, it: &RecoveredStatement) -> PyResult<Stated<'py>> {
        let context = Context {
            py,
            objects: Objects::get(py)?,
            types: &self.types,
            time_zone: None,
            json_loads: None,
            exact: Cell::new(None),
        };
        let mut sent = Vec::with_capacity(it.parameters.len());
        let mut values = Vec::with_capacity(it.parameters.len());
        for raw in it.values() {
            let Some(value) = raw.value else {
                sent.push(None);
                values.push(py.None());
                continue;
            };
            let bytes = PyBytes::new(py, value);
            let kind = self.types.kind(raw.type_oid);
            let object = if raw.text {
                context.text(&kind, value)
            } else if kind.is_binary() {
                context.binary(&kind, value)
            } else {
                Ok(bytes.clone().into_any())
            };
            // What has no Python object is given as it was sent.
            values.push(object.map_or_else(|_| bytes.clone().into_any().unbind(), Bound::unbind));
            sent.push(Some((raw.type_oid, !raw.text, bytes)));
        }
        let values = PyTuple::new(py, values)?;
        let data = PyBytes::new(py, &it.copy_data);
        Ok((it.sql.clone(), sent, values, data, it.simple))
    }
}

fn closed(py: Python<'_>) -> PyErr {
    errors::interface(py, "the client was closed: open it, and recover again")
}

fn check_process(py: Python<'_>, process: u32) -> PyResult<()> {
    if process == std::process::id() {
        return Ok(());
    }
    let message = "it was recovered before fork(): the journal is the parent process's";
    Err(errors::forked(py, message))
}
