//! Makes Python exceptions of the core's errors, through `segue.errors`.
//!
//! No message made here may have a parameter's value in it.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use segue::Error;
use segue::error::ServerError;

/// The exception for an error of the core.
pub fn from_core(py: Python<'_>, error: &Error) -> PyErr {
    make(py, error).map_or_else(|failure| failure, PyErr::from_value)
}

fn make<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    static FROM_CORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let from_core = FROM_CORE.import(py, "segue.errors", "_from_core")?;
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    let fields = error.server_error().map(|server| fields(py, server)).transpose()?;
    from_core.call1((
        format!("{:?}", error.kind()),
        format!("{:?}", error.outcome()),
        error.sqlstate(),
        message,
        fields,
    ))
}

/// The fields of `segue.errors.Diagnostic`.
pub fn fields<'py>(py: Python<'py>, server: &ServerError) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("severity", &server.severity)?;
    fields.set_item("sqlstate", &server.code)?;
    fields.set_item("message_primary", &server.message)?;
    fields.set_item("message_detail", &server.detail)?;
    fields.set_item("message_hint", &server.hint)?;
    fields.set_item("statement_position", server.position)?;
    fields.set_item("internal_position", server.internal_position)?;
    fields.set_item("internal_query", &server.internal_query)?;
    fields.set_item("context", &server.context)?;
    fields.set_item("schema_name", &server.schema)?;
    fields.set_item("table_name", &server.table)?;
    fields.set_item("column_name", &server.column)?;
    fields.set_item("datatype_name", &server.datatype)?;
    fields.set_item("constraint_name", &server.constraint)?;
    fields.set_item("source_file", &server.file)?;
    fields.set_item("source_line", server.line)?;
    fields.set_item("source_function", &server.routine)?;
    Ok(fields)
}

macro_rules! raisers {
    ($($function:ident => $class:literal),* $(,)?) => {$(
        pub fn $function(py: Python<'_>, message: impl Into<String>) -> PyErr {
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            match CLASS.import(py, "segue.errors", $class) {
                Ok(class) => PyErr::from_type(class.clone(), (message.into(),)),
                Err(failure) => failure,
            }
        }
    )*};
}

raisers! {
    programming => "ProgrammingError",
    interface => "InterfaceError",
    data => "DataError",
    not_supported => "NotSupportedError",
    closed => "ConnectionClosed",
    forked => "ConnectionForked",
}
