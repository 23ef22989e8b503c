//! Statements made into requests: their text converted, their parameters encoded. Nothing is sent here.

use pyo3::prelude::*;

use super::Connection;
use crate::core::{Making, Purpose, Request, lock};
use crate::encode::{Args, Encoder};
use crate::errors;
use crate::objects::Objects;
use crate::operation::{Operation, Work};
use crate::text::{fill, given};

impl Connection {
    pub fn encoder<'py>(&self, py: Python<'py>) -> PyResult<Encoder<'py>> {
        let dumps = lock(&self.settings).json_dumps.as_ref().map(|dumps| dumps.bind(py).clone());
        Ok(Encoder { py, objects: Objects::get(py)?, json_dumps: dumps })
    }

    /// A request with its parameters converted.
    pub fn request<'py>(
        &self,
        query: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        purpose: Purpose,
    ) -> PyResult<Request> {
        let given = given(query.py(), params)?;
        let plan = self.plans.plan(query, given)?;
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
