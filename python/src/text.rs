//! Statement texts and parameters as Python gives them: the conversion of a text is kept, for the next
//! time that it comes; parameters are put into the places that it has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyString, PyTuple};

use crate::core::lock;
use crate::encode::{Args, Encoder};
use crate::errors;
use crate::plan::{Given, Places, Plan};

/// Texts whose conversion is kept.
const PLANS_MAX: usize = 2048;

/// Texts that have come, converted.
#[derive(Default)]
pub struct Plans(Mutex<Known>);

type Known = HashMap<(isize, Given), Vec<(Py<PyString>, Arc<Plan>)>>;

impl Plans {
    /// The text of a statement, converted.
    pub fn plan(&self, query: &Bound<'_, PyAny>, given: Given) -> PyResult<Arc<Plan>> {
        let py = query.py();
        let converted;
        let text = match query.cast_exact::<PyString>() {
            Ok(text) => text,
            Err(_) => {
                converted = text_of(query)?;
                &converted
            }
        };
        let Ok(sql) = text.to_str() else {
            return Err(errors::programming(
                py,
                "the statement has surrogates in it: it is no text",
            ));
        };
        let key = (text.hash()?, given);
        if let Some(known) = lock(&self.0).get(&key) {
            for (other, plan) in known {
                let other = other.bind(py);
                // Nothing that runs code of the application's: the lock is held.
                if other.is(text) || other.to_str().is_ok_and(|other| other == sql) {
                    return Ok(Arc::clone(plan));
                }
            }
        }
        let plan = Plan::new(sql, given)
            .map_err(|error| errors::programming(py, format!("{error}; nothing was sent")))?;
        let plan = Arc::new(plan);
        let mut plans = lock(&self.0);
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.entry(key).or_default().push((text.clone().unbind(), Arc::clone(&plan)));
        Ok(plan)
    }
}

/// A query that is no plain str: a str of a class of its own, bytes, or something with `as_string()`.
fn text_of<'py>(query: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let py = query.py();
    if let Ok(text) = query.cast::<PyString>() {
        return match text.to_str() {
            Ok(text) => Ok(PyString::new(py, text)),
            // No text at all, as its user is told.
            Err(_) => Ok(text.clone()),
        };
    }
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

/// How parameters were given.
pub fn given(py: Python<'_>, params: Option<&Bound<'_, PyAny>>) -> PyResult<Given> {
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
pub fn fill<'py>(
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
