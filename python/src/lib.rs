//! `segue._segue`: the native half of the Python package `segue`, on the Rust core.
//!
//! * `connection`, `cursor`: the classes that `segue.Connection` and `segue.Cursor` extend.
//! * `client`: the class that `segue.Client` is around, and events.
//! * `core`: a session and its requests, without Python; waits or polls. `received`: results.
//! * `text`, `plan`: statement texts; `encode`, `decode`: values; `types`, `introspect`: which is which.
//! * `submit`: transactions handed over whole, and their tickets; `hands`: for event loops.
//! * `recover`: what an earlier process had in flight.
//! * `operation`: what an event loop polls.
//! * `notices`: the server's notices, for a connection's handlers.
//! * `signals`: what ends a wait, Ctrl-C above all; `errors`: exceptions; `objects`: Python's own classes.
//!
//! Every wait is without the GIL. Nothing here panics on what a server or an application gives it.

#![forbid(unsafe_code)]

mod client;
mod connection;
mod core;
mod cursor;
mod decode;
mod encode;
mod errors;
mod hands;
mod introspect;
mod notices;
mod objects;
mod operation;
mod plan;
mod received;
mod recover;
mod signals;
mod submit;
mod text;
mod types;

use pyo3::prelude::*;
use pyo3::types::PyType;

/// Registers how the values of a class are written.
#[pyfunction]
fn register_dumper(class: &Bound<'_, PyType>, oid: u32, dumps: Py<PyAny>) -> PyResult<()> {
    encode::register(class, oid, dumps)
}

#[pymodule]
fn _segue(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<client::Client>()?;
    module.add_class::<client::EventQueue>()?;
    module.add_class::<connection::Connection>()?;
    module.add_class::<cursor::Cursor>()?;
    module.add_class::<operation::Operation>()?;
    module.add_class::<signals::Interrupt>()?;
    module.add_class::<submit::Submissions>()?;
    module.add_class::<submit::Ticket>()?;
    module.add_class::<recover::Recovered>()?;
    module.add_class::<recover::Statements>()?;
    module.add_class::<hands::Handover>()?;
    module.add_class::<hands::Inbox>()?;
    module.add_function(wrap_pyfunction!(register_dumper, module)?)?;
    module.add_function(wrap_pyfunction!(client::unraisable, module)?)?;
    module.add_function(wrap_pyfunction!(recover::recover, module)?)?;
    module.add_function(wrap_pyfunction!(encode::text_form, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
