//! `executemany`: sets of parameters, many to a request, and requests without waiting for each reply.

use std::collections::VecDeque;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyIterator;
use segue::client::Progress;
use segue::wire::frame::Status;

use super::{Connection, waited};
use crate::core::{Io, Making, Purpose, Received, Request, Ticket, lock};
use crate::errors;
use crate::operation::Many;

impl Connection {
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
        let mut tickets = VecDeque::new();
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

    /// The requests of an `executemany` for an event loop: while the sets are converted, those converted
    /// go on their way. With them, why there are no more, where a set was refused behind them.
    pub(super) fn many(
        &self,
        query: &Bound<'_, PyAny>,
        params_seq: &Bound<'_, PyAny>,
        returning: bool,
    ) -> PyResult<(Many, Option<PyErr>)> {
        let py = query.py();
        let autocommit = lock(&self.settings).autocommit;
        let idle = self.at_once(py, |core| core.status() == Status::Idle)?;
        let mut many = Many { keep: returning, own: autocommit && idle, ..Many::default() };
        let mut begin = Some(lock(&self.settings).options());
        let mut chunks = Chunks::new(params_seq.try_iter()?, self, query, !returning);
        let mut sent = false;
        loop {
            let request = match chunks.next_chunk() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) if sent => {
                    // What is on its way has to be answered first.
                    many.refuse();
                    return Ok((many, Some(error)));
                }
                Err(error) => return Err(error),
            };
            if many.own && request.plan.controls_transaction {
                return Err(errors::programming(
                    py,
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
                self.at_once(py, |core| many.feed(core))?;
                if many.failed.is_some() {
                    break;
                }
            }
        }
        Ok((many, None))
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
