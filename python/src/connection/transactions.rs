//! Transactions of a connection: how they begin, as the application has set it, and how they end.

use pyo3::prelude::*;
use segue::wire::frame::Status;
use segue::{IsolationLevel, TransactionOptions};

use super::{Connection, waited};
use crate::core::{Io, Received, lock};
use crate::errors;

/// What the application has set.
#[derive(Default)]
pub(super) struct Settings {
    pub autocommit: bool,
    pub isolation: Option<IsolationLevel>,
    pub read_only: Option<bool>,
    pub deferrable: Option<bool>,
    pub json_loads: Option<Py<PyAny>>,
    pub json_dumps: Option<Py<PyAny>>,
}

impl Settings {
    pub(super) fn options(&self) -> TransactionOptions {
        let mut options = TransactionOptions::default();
        options.isolation = self.isolation;
        options.read_only = self.read_only.unwrap_or(false);
        options.deferrable = self.deferrable.unwrap_or(false);
        options
    }
}

pub(super) fn isolation(value: Option<u8>) -> Option<IsolationLevel> {
    match value {
        Some(2) => Some(IsolationLevel::ReadCommitted),
        Some(3) => Some(IsolationLevel::RepeatableRead),
        Some(4) => Some(IsolationLevel::Serializable),
        _ => None,
    }
}

impl Connection {
    /// How the transaction begins that a statement needs; `None` with autocommit.
    pub fn begins(&self) -> Option<TransactionOptions> {
        let settings = lock(&self.settings);
        (!settings.autocommit).then(|| settings.options())
    }

    pub(super) fn begin_options(
        &self,
        isolation_level: Option<u8>,
        read_only: Option<bool>,
        deferrable: Option<bool>,
    ) -> TransactionOptions {
        let mut options = lock(&self.settings).options();
        options.isolation = isolation(isolation_level).or(options.isolation);
        options.read_only = read_only.unwrap_or(options.read_only);
        options.deferrable = deferrable.unwrap_or(options.deferrable);
        options
    }

    pub(super) fn commit_now(&self, py: Python<'_>) -> PyResult<()> {
        let results = self.wait(py, |core| {
            if core.status() == Status::Idle {
                return Ok(Vec::new());
            }
            let ticket = waited(core.commit(Io::Wait)?);
            waited(core.reply(ticket, Io::Wait)?)
        })?;
        self.check_committed(py, &results)
    }

    pub fn check_committed(&self, py: Python<'_>, results: &[Received]) -> PyResult<()> {
        if results.last().is_some_and(|last| last.tag() == "ROLLBACK") {
            let error = segue::Error::new(
                segue::ErrorKind::TransactionFailed,
                "the transaction had failed earlier and was rolled back; nothing of it is committed",
            );
            return Err(errors::from_core(py, &error));
        }
        Ok(())
    }

    pub(super) fn rollback_now(&self, py: Python<'_>) -> PyResult<()> {
        self.wait(py, |core| {
            if core.status() == Status::Idle {
                return Ok(());
            }
            let ticket = waited(core.rollback(Io::Wait)?);
            waited(core.reply(ticket, Io::Wait)?).map(drop)
        })
    }
}
