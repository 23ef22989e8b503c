//! The native half of a cursor: results, and how their rows are made.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::connection::{Connection, GcPaused, waited};
use crate::core::{Io, Purpose, Received, Ticket, lock};
use crate::decode::{Context, Decoders};
use crate::errors;

/// Makes rows.
#[derive(Clone)]
enum Maker {
    Tuple,
    Dict(Arc<[Py<PyString>]>),
    /// Called with the values.
    Call(Arc<Py<PyAny>>),
}

#[derive(Default)]
struct State {
    results: Vec<Arc<Received>>,
    /// The result in hand.
    at: usize,
    /// The next row of it.
    row: usize,
    /// The total that executemany() has counted.
    total: Option<i64>,
    arraysize: usize,
    factory: Option<Py<PyAny>>,
    maker: Option<Maker>,
    description: Option<Py<PyAny>>,
    query: Option<Py<PyAny>>,
    /// A request of a pipeline whose reply has not been taken.
    pending: Option<Ticket>,
    closed: bool,
}

impl State {
    fn result(&self) -> Option<&Arc<Received>> {
        self.results.get(self.at)
    }

    fn clear(&mut self) {
        self.results.clear();
        self.at = 0;
        self.turn();
    }

    /// Another result is in hand.
    fn turn(&mut self) {
        self.row = 0;
        self.total = None;
        self.maker = None;
        self.description = None;
    }
}

#[pyclass(subclass, frozen, weakref, module = "segue._segue", name = "Cursor")]
pub struct Cursor {
    connection: Py<Connection>,
    state: Mutex<State>,
}

/// How the rows of one call are made.
struct Rows<'py> {
    context: Context<'py>,
    result: Arc<Received>,
    decoders: Arc<Decoders>,
    maker: Maker,
}

impl<'py> Rows<'py> {
    fn row(&self, at: usize) -> PyResult<Bound<'py, PyAny>> {
        let values = match self.result.made.get(at) {
            Some(made) => made.bind(self.context.py).clone(),
            None => self.context.row(&self.decoders, self.result.body(at))?,
        };
        make(self.context.py, &self.maker, values)
    }
}

fn make<'py>(
    py: Python<'py>,
    maker: &Maker,
    values: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    match maker {
        Maker::Tuple => Ok(values.into_any()),
        Maker::Dict(names) => {
            let dict = PyDict::new(py);
            for (name, value) in names.iter().zip(values.iter_borrowed()) {
                dict.set_item(name, value)?;
            }
            Ok(dict.into_any())
        }
        Maker::Call(maker) => maker.bind(py).call1((values,)),
    }
}

impl Cursor {
    fn connection<'py>(&'py self, py: Python<'py>) -> &'py Connection {
        self.connection.bind(py).get()
    }

    fn check_open(&self, py: Python<'_>) -> PyResult<()> {
        if lock(&self.state).closed {
            return Err(errors::interface(py, "the cursor is closed"));
        }
        Ok(())
    }

    pub fn accept(
        &self,
        query: Option<&Bound<'_, PyAny>>,
        results: Vec<Received>,
        total: Option<i64>,
    ) {
        let mut state = lock(&self.state);
        state.clear();
        state.results.extend(results.into_iter().map(Arc::new));
        state.total = total;
        state.query = query.map(|query| query.clone().unbind());
        state.pending = None;
    }

    /// Takes the reply to a request of a pipeline.
    fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let Some(ticket) = lock(&self.state).pending.take() else { return Ok(()) };
        let results = self.connection(py).wait(py, |core| waited(core.reply(ticket, Io::Wait)?))?;
        let mut state = lock(&self.state);
        state.clear();
        state.results.extend(results.into_iter().map(Arc::new));
        Ok(())
    }

    /// What makes the rows of the result in hand.
    fn rows<'py>(slf: &'py Bound<'py, Self>) -> PyResult<Rows<'py>> {
        let py = slf.py();
        let this = slf.get();
        this.settle(py)?;
        let (result, maker) = {
            let state = lock(&this.state);
            if state.closed {
                return Err(errors::interface(py, "the cursor is closed"));
            }
            (state.result().cloned(), state.maker.clone())
        };
        let found = result.and_then(|result| {
            let decoders = result.decoders.clone()?;
            Some((result, decoders))
        });
        let Some((result, decoders)) = found else {
            return Err(errors::programming(
                py,
                "there are no rows to fetch: nothing was executed, or it returns none",
            ));
        };
        let maker = match maker {
            Some(maker) => maker,
            None => {
                let maker = Self::maker(slf, &decoders)?;
                lock(&this.state).maker = Some(maker.clone());
                maker
            }
        };
        Ok(Rows { context: this.connection(py).context(py)?, result, decoders, maker })
    }

    fn maker(slf: &Bound<'_, Self>, decoders: &Decoders) -> PyResult<Maker> {
        let py = slf.py();
        let factory = lock(&slf.get().state).factory.as_ref().map(|factory| factory.clone_ref(py));
        let Some(factory) = factory else { return Ok(Maker::Tuple) };
        let native = factory.bind(py).getattr_opt("_segue_native")?;
        let native = native.as_ref().and_then(|native| native.extract::<&str>().ok());
        match native {
            Some("tuple") => Ok(Maker::Tuple),
            Some("dict") => {
                let names = decoders.columns.iter();
                Ok(Maker::Dict(names.map(|c| PyString::new(py, &c.name).unbind()).collect()))
            }
            _ => Ok(Maker::Call(Arc::new(factory.bind(py).call1((slf,))?.unbind()))),
        }
    }

    /// The next `count` rows, as a range.
    fn advance(&self, count: usize, of: usize) -> std::ops::Range<usize> {
        let mut state = lock(&self.state);
        let start = state.row.min(of);
        let end = start.saturating_add(count).min(of);
        state.row = end;
        start..end
    }

    fn fetch<'py>(slf: &'py Bound<'py, Self>, count: usize) -> PyResult<Bound<'py, PyList>> {
        let rows = Self::rows(slf)?;
        let range = slf.get().advance(count, rows.result.len());
        let _paused = (range.len() >= 1000).then(|| GcPaused::new(slf.py()));
        let list = crate::objects::list(slf.py(), range.map(|at| rows.row(at)))?;
        Ok(list)
    }
}

#[pymethods]
impl Cursor {
    #[new]
    #[pyo3(signature = (connection, row_factory = None))]
    fn new(connection: Py<Connection>, row_factory: Option<Py<PyAny>>) -> Self {
        let state = State { arraysize: 1, factory: row_factory, ..State::default() };
        Self { connection, state: Mutex::new(state) }
    }

    #[pyo3(signature = (query, params = None, *, prepare = None, binary = None))]
    fn execute<'py>(
        slf: Bound<'py, Self>,
        query: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        prepare: Option<bool>,
        binary: Option<bool>,
    ) -> PyResult<Bound<'py, Self>> {
        // Everything is prepared, and binary where that can be: these are for psycopg's users.
        let _ = (prepare, binary);
        let py = slf.py();
        let this = slf.get();
        this.check_open(py)?;
        let connection = this.connection(py);
        if connection.pipelined() {
            this.settle(py)?;
            let request = connection.request(query, params, Purpose::Whole)?;
            let mut making = connection.making(request);
            let ticket = connection.wait(py, |core| {
                let ticket = waited(core.make(&mut making, Io::Wait)?);
                core.send_batch()?;
                Ok(ticket)
            })?;
            this.accept(Some(query), Vec::new(), None);
            lock(&this.state).pending = Some(ticket);
            return Ok(slf);
        }
        let done = connection
            .request(query, params, Purpose::Whole)
            .and_then(|request| connection.run(py, request));
        match done {
            Ok(results) => this.accept(Some(query), results, None),
            Err(error) => {
                this.accept(Some(query), Vec::new(), None);
                return Err(error);
            }
        }
        Ok(slf)
    }

    #[pyo3(signature = (query, params_seq, *, returning = false))]
    fn executemany<'py>(
        slf: Bound<'py, Self>,
        query: &Bound<'py, PyAny>,
        params_seq: &Bound<'py, PyAny>,
        returning: bool,
    ) -> PyResult<()> {
        let this = slf.get();
        this.check_open(slf.py())?;
        this.settle(slf.py())?;
        this.accept(Some(query), Vec::new(), None);
        let connection = this.connection(slf.py());
        let (results, total) = connection.run_many(query, params_seq, returning)?;
        this.accept(Some(query), results, Some(total));
        Ok(())
    }

    /// Lets go of what is in hand.
    fn _clear(&self) {
        self.accept(None, Vec::new(), None);
    }

    /// Waits for the reply of a pipeline's request; raises its error.
    fn _settle(&self, py: Python<'_>) -> PyResult<()> {
        self.settle(py)
    }

    fn fetchone<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let rows = Cursor::rows(slf)?;
        match slf.get().advance(1, rows.result.len()).next() {
            // The bindings of the result are of this call, those of the row are not.
            Some(at) => Ok(Some(rows.row(at)?.unbind().into_bound(slf.py()))),
            None => Ok(None),
        }
    }

    #[pyo3(signature = (size = None))]
    fn fetchmany<'py>(slf: &Bound<'py, Self>, size: Option<usize>) -> PyResult<Bound<'py, PyList>> {
        let size = size.unwrap_or_else(|| lock(&slf.get().state).arraysize);
        Ok(Cursor::fetch(slf, size)?.unbind().into_bound(slf.py()))
    }

    fn fetchall<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyList>> {
        Ok(Cursor::fetch(slf, usize::MAX)?.unbind().into_bound(slf.py()))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Self::fetchone(slf)
    }

    /// Goes to the next result of a string of several statements: True, or None at the end.
    fn nextset(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        self.settle(py)?;
        self.check_open(py)?;
        let mut state = lock(&self.state);
        if state.at + 1 >= state.results.len() {
            return Ok(None);
        }
        state.at += 1;
        state.turn();
        Ok(Some(true))
    }

    /// Moves within the rows of the result.
    #[pyo3(signature = (value, mode = "relative"))]
    fn scroll(slf: &Bound<'_, Self>, value: isize, mode: &str) -> PyResult<()> {
        let py = slf.py();
        let length = Self::rows(slf)?.result.len();
        let mut state = lock(&slf.get().state);
        let target = match mode {
            "relative" => state.row.checked_add_signed(value),
            "absolute" => usize::try_from(value).ok(),
            _ => return Err(errors::programming(py, "scroll() takes 'relative' or 'absolute'")),
        };
        match target.filter(|target| *target < length) {
            Some(target) => {
                state.row = target;
                Ok(())
            }
            None => {
                Err(pyo3::exceptions::PyIndexError::new_err("the position is out of the result"))
            }
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let pending = {
            let mut state = lock(&self.state);
            state.clear();
            state.closed = true;
            state.pending.take()
        };
        if let Some(ticket) = pending {
            let _ = self.connection(py).wait(py, |core| core.abandon(ticket, Io::Wait).map(waited));
        }
        Ok(())
    }

    #[getter]
    fn closed(&self) -> bool {
        lock(&self.state).closed
    }

    #[getter(connection)]
    fn get_connection(&self, py: Python<'_>) -> Py<Connection> {
        self.connection.clone_ref(py)
    }

    /// Name, type and more of each column; None if there are no rows to fetch.
    #[getter]
    fn description(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.settle(py)?;
        let result = {
            let state = lock(&self.state);
            if let Some(description) = &state.description {
                return Ok(Some(description.clone_ref(py)));
            }
            state.result().cloned()
        };
        let decoders = result.and_then(|result| result.decoders.clone());
        let Some(decoders) = decoders else { return Ok(None) };
        let class = py.import("segue._column")?.getattr("Column")?;
        let columns = PyList::empty(py);
        for c in decoders.columns.iter() {
            let made = class.call1((&c.name, c.type_oid, c.type_size, c.type_modifier))?;
            columns.append(made)?;
        }
        let description = columns.into_any().unbind();
        lock(&self.state).description = Some(description.clone_ref(py));
        Ok(Some(description))
    }

    #[getter]
    fn rowcount(&self, py: Python<'_>) -> PyResult<i64> {
        self.settle(py)?;
        let state = lock(&self.state);
        let total = state.total.filter(|_| state.at == 0);
        Ok(total.or_else(|| state.result().map(|result| result.row_count())).unwrap_or(-1))
    }

    /// The index of the next row.
    #[getter]
    fn rownumber(&self) -> Option<usize> {
        let state = lock(&self.state);
        let has_rows = state.result().is_some_and(|result| result.decoders.is_some());
        has_rows.then_some(state.row)
    }

    /// PostgreSQL has no such thing.
    #[getter]
    fn lastrowid(&self) -> Option<i64> {
        None
    }

    #[getter]
    fn statusmessage(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.settle(py)?;
        Ok(lock(&self.state).result().map(|result| result.tag().to_owned()))
    }

    #[getter]
    fn _query(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        lock(&self.state).query.as_ref().map(|query| query.clone_ref(py))
    }

    #[getter]
    fn get_arraysize(&self) -> usize {
        lock(&self.state).arraysize
    }

    #[setter]
    fn set_arraysize(&self, size: usize) {
        lock(&self.state).arraysize = size;
    }

    #[getter]
    fn get_row_factory(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        lock(&self.state).factory.as_ref().map(|factory| factory.clone_ref(py))
    }

    #[setter]
    fn set_row_factory(&self, factory: Option<Py<PyAny>>) {
        let mut state = lock(&self.state);
        state.factory = factory;
        state.maker = None;
    }

    /// Starts a statement whose rows `_stream_next` gives.
    #[pyo3(signature = (query, params = None))]
    fn _stream_start(
        &self,
        query: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Ticket> {
        let py = query.py();
        self.check_open(py)?;
        self.settle(py)?;
        let connection = self.connection(py);
        let request = connection.request(query, params, Purpose::Stream)?;
        let mut making = connection.making(request);
        let ticket = connection.wait(py, |core| core.make(&mut making, Io::Wait).map(waited))?;
        self.accept(Some(query), Vec::new(), None);
        Ok(ticket)
    }

    /// Rows that have arrived; None at the end.
    fn _stream_next<'py>(
        slf: &Bound<'py, Self>,
        ticket: Ticket,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let py = slf.py();
        let this = slf.get();
        let connection = this.connection(py);
        let received = connection.wait(py, |core| core.stream(ticket, Io::Wait).map(waited))?;
        let Some(received) = received else { return Ok(None) };
        Cursor::streamed(slf, received).map(Some)
    }

    /// Starts a COPY; whether it takes data.
    fn _copy_start(&self, query: &Bound<'_, PyAny>) -> PyResult<(Ticket, bool)> {
        let py = query.py();
        self.check_open(py)?;
        self.settle(py)?;
        let connection = self.connection(py);
        let request = connection.copy_request(query)?;
        let mut making = connection.making(request);
        let begun = connection.wait(py, |core| {
            let ticket = waited(core.make(&mut making, Io::Wait)?);
            Ok((ticket, waited(core.copy_begun(ticket, Io::Wait)?)))
        })?;
        self.accept(Some(query), Vec::new(), None);
        Ok(begun)
    }

    fn _copy_send(&self, py: Python<'_>, ticket: Ticket, data: &[u8]) -> PyResult<()> {
        self.connection(py).wait(py, |core| core.copy_send(ticket, data, Io::Wait).map(waited))
    }

    /// Ends a COPY FROM STDIN; with a reason it fails.
    #[pyo3(signature = (ticket, reason = None))]
    fn _copy_end(&self, py: Python<'_>, ticket: Ticket, reason: Option<&str>) -> PyResult<()> {
        let results = self.connection(py).wait(py, |core| {
            core.copy_end(reason)?;
            waited(core.reply(ticket, Io::Wait)?)
        })?;
        self.finished(results);
        Ok(())
    }

    /// The next piece of COPY TO STDOUT; None at the end.
    fn _copy_piece<'py>(
        &self,
        py: Python<'py>,
        ticket: Ticket,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let piece =
            self.connection(py).wait(py, |core| core.copy_piece(ticket, Io::Wait).map(waited))?;
        Ok(piece.map(|piece| PyBytes::new(py, &piece)))
    }

    /// Reads the rest of a stream or a COPY and throws it away.
    fn _abandon(&self, py: Python<'_>, ticket: Ticket) -> PyResult<()> {
        self.connection(py).wait(py, |core| core.abandon(ticket, Io::Wait).map(waited))
    }
}

impl Cursor {
    /// Rows of a stream, made as this cursor makes them.
    pub fn streamed<'py>(
        slf: &Bound<'py, Self>,
        received: Received,
    ) -> PyResult<Bound<'py, PyList>> {
        {
            let mut state = lock(&slf.get().state);
            let (maker, description) = (state.maker.take(), state.description.take());
            state.clear();
            // The columns stay the same from piece to piece.
            (state.maker, state.description) = (maker, description);
            state.results.push(Arc::new(received));
        }
        Ok(Self::fetch(slf, usize::MAX)?.unbind().into_bound(slf.py()))
    }

    fn finished(&self, results: Vec<Received>) {
        let mut state = lock(&self.state);
        state.clear();
        state.results.extend(results.into_iter().map(Arc::new));
    }
}
