//! The statements of a transaction that was in flight, read from the journal one at a time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::client::journal::cannot_open;
use crate::client::parameter::Raw;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{self, Form, Found, Record, Records, Recovered};
use crate::session::classify::{StatementKind, classify};

/// A statement as an earlier process had executed it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveredStatement {
    /// One statement, or, if `simple`, a string of any number of them.
    pub sql: String,
    /// Encoded as they were sent; `None` is NULL.
    pub parameters: Vec<Option<Bytes>>,
    /// The OIDs of the parameters' types; 0 leaves a type to the server.
    pub types: Vec<u32>,
    /// Of each parameter: 0 is text, 1 is binary.
    pub formats: Vec<u16>,
    /// What was sent behind COPY FROM STDIN; empty for everything else.
    pub copy_data: Bytes,
    /// It was sent as a simple query, without parameters.
    pub simple: bool,
}

impl RecoveredStatement {
    /// The parameters as values that [`Session::execute`](crate::Session::execute) takes.
    pub fn values(&self) -> Vec<Raw<'_>> {
        let parameters = self.parameters.iter().enumerate();
        parameters
            .map(|(at, value)| Raw {
                type_oid: self.types.get(at).copied().unwrap_or_default(),
                text: self.formats.get(at).copied().unwrap_or_default() == 0,
                value: value.as_deref(),
            })
            .collect()
    }
}

/// Neither statement nor values are shown.
impl fmt::Debug for RecoveredStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveredStatement")
            .field("sql_bytes", &self.sql.len())
            .field("parameters", &self.parameters.len())
            .field("copy_data_bytes", &self.copy_data.len())
            .finish_non_exhaustive()
    }
}

/// The statements of one transaction, in order. Of a journal however large, one statement at a time is
/// in memory.
///
/// An error is the last that it gives.
#[derive(Debug)]
pub struct RecoveredStatements {
    records: Option<Records>,
    /// Its data may not be complete.
    begun: Option<Begun>,
    ready: VecDeque<RecoveredStatement>,
}

/// A statement's record, and what was sent later of its request.
struct Begun {
    form: Form,
    sql: String,
    types: Vec<u32>,
    request: Vec<u8>,
}

impl RecoveredStatements {
    /// Of a transaction that a journal was found to hold.
    pub fn read(recovered: &Arc<Recovered>, found: &Found) -> Self {
        let records = recovered.records_one_by_one(found);
        Self { records: Some(records), begun: None, ready: VecDeque::new() }
    }

    /// Reads until a statement is complete; `false` at the end.
    fn read_on(&mut self) -> Result<bool> {
        let Self { records: Some(records), begun, .. } = self else { return Ok(false) };
        let mut complete = None;
        let more = records.next_to(|record| match record {
            Record::Statement(it) => {
                complete = begun.replace(Begun {
                    form: it.form,
                    sql: it.sql.to_owned(),
                    types: it.param_oids.to_vec(),
                    request: it.request.to_vec(),
                });
            }
            Record::StatementData(data) => {
                if let Some(begun) = begun {
                    begun.request.extend_from_slice(data);
                }
            }
            _ => {}
        });
        let more = more.map_err(cannot_open)?;
        if !more {
            complete = begun.take();
            self.records = None;
        }
        if let Some(complete) = complete {
            self.ready.extend(complete.executions()?);
        }
        Ok(more)
    }
}

impl Iterator for RecoveredStatements {
    type Item = Result<RecoveredStatement>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(statement) = self.ready.pop_front() {
                return Some(Ok(statement));
            }
            match self.read_on() {
                Ok(true) => {}
                Ok(false) if self.ready.is_empty() => return None,
                Ok(false) => {}
                Err(error) => {
                    (self.records, self.begun) = (None, None);
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Begun {
    /// One for each time that it was executed.
    fn executions(self) -> Result<Vec<RecoveredStatement>> {
        let statement = journal::Statement {
            form: self.form,
            sql: &self.sql,
            param_oids: (&self.types).into(),
            request: &self.request,
        };
        let simple = self.form == Form::Simple;
        // The number of its commit is kept before it is sent, and what it is given afterwards need not be
        // kept: with a part of that, or nothing of it, it would be another statement.
        let cut = !simple
            && classify(&self.sql).kind == StatementKind::CopyIn
            && !statement.copy_has_ended();
        let executions = statement.executions().filter(|_| !cut).ok_or_else(|| {
            Error::new(
                ErrorKind::Protocol,
                "a statement in the journal is not complete: part of its data was never written",
            )
        })?;
        let copy_data: Vec<u8> = statement.copy_data().flatten().copied().collect();
        let plain = RecoveredStatement {
            sql: self.sql.clone(),
            parameters: Vec::new(),
            types: Vec::new(),
            formats: Vec::new(),
            copy_data: copy_data.into(),
            simple,
        };
        if executions.is_empty() {
            return Ok(vec![plain]);
        }
        let executions = executions.iter().map(|parameters| RecoveredStatement {
            parameters: parameters.iter().map(|it| it.value.map(Bytes::copy_from_slice)).collect(),
            types: parameters.iter().map(|it| it.oid).collect(),
            formats: parameters.iter().map(|it| it.format).collect(),
            ..plain.clone()
        });
        Ok(executions.collect())
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}
