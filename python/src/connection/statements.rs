//! Statements made into requests: their text converted, their parameters encoded. Nothing is sent here.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyString, PyTuple};

use super::Connection;
use crate::core::{Making, Purpose, Request, lock};
use crate::encode::{Args, Encoder};
use crate::errors;
use crate::objects::Objects;
use crate::operation::{Operation, Work};
use crate::plan::{Given, Places, Plan};

/// Texts whose conversion is kept.
const PLANS_MAX: usize = 2048;

pub(super) type Plans = HashMap<(isize, Given), Vec<(Py<PyString>, Arc<Plan>)>>;

impl Connection {
    pub fn encoder<'py>(&self, py: Python<'py>) -> PyResult<Encoder<'py>> {
        let dumps = lock(&self.settings).json_dumps.as_ref().map(|dumps| dumps.bind(py).clone());
        Ok(Encoder { py, objects: Objects::get(py)?, json_dumps: dumps })
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

    pub fn making(&self, request: Request) -> Making {
        Making::new(request, self.begins())
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

    pub(super) fn op<'py>(
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
