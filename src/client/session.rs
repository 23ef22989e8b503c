//! A session: one logical connection of the application, which outlives the servers that it uses.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cancel::CancelHandle;
use super::copy::{CopyIn, CopyOut};
use super::driver::{Driver, Interrupt, Notification, usage};
use super::parameter::{Encoder, ToSql};
use super::pipeline::Pipeline;
use super::registry;
use super::result::{Collector, QueryResult, Results, RowSet};
use super::row::Row;
use super::status::SessionStatus;
use super::stream::RowStream;
use super::transaction::{Transaction, TransactionOptions};
use super::{Inner, SessionOptions};
use crate::config::{AutocommitReply, CommitAck, LedgerMode, OnCommitsLost};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::session::{self, Column, Event, Execute, LedgerAccess, NumberMap, Statement};
use crate::wire::frame::Status;

/// One logical connection. One caller at a time; it may move between threads.
pub struct Session {
    pub(super) driver: Driver,
    /// The statements that this session has used, by text and types.
    statements: NumberMap<u64, Arc<Statement>>,
    /// The types of the parameters in hand.
    oids: Vec<u32>,
    /// The formats of the columns in hand; empty where all come alike.
    pub(super) result_formats: Vec<i16>,
    /// An empty list that has held a row, so that single rows need no new one each.
    row_list: Vec<Row>,
    pub(super) savepoints: u32,
}

/// A statement that the server has looked at.
#[derive(Debug, Clone)]
pub struct Prepared {
    statement: Arc<Statement>,
    param_oids: Vec<u32>,
    columns: Arc<[Column]>,
}

impl Prepared {
    /// A statement as a server has just described it.
    pub(super) fn described(statement: Arc<Statement>) -> Self {
        let description = statement.description().unwrap_or_default();
        Self {
            param_oids: description.param_oids.clone(),
            columns: Arc::clone(&description.columns),
            statement,
        }
    }

    pub fn sql(&self) -> &str {
        &self.statement.sql
    }

    /// The OIDs of the parameters' types.
    pub fn param_oids(&self) -> &[u32] {
        &self.param_oids
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns, as a share in what every execution returns.
    pub fn shared_columns(&self) -> Arc<[Column]> {
        Arc::clone(&self.columns)
    }
}

/// What can be executed: a text, or a [`Prepared`] statement.
pub trait Query {
    #[doc(hidden)]
    fn text(&self) -> &str;
    #[doc(hidden)]
    fn prepared(&self) -> Option<&Prepared> {
        None
    }
}

impl Query for str {
    fn text(&self) -> &str {
        self
    }
}

impl Query for String {
    fn text(&self) -> &str {
        self
    }
}

impl Query for Prepared {
    fn text(&self) -> &str {
        self.sql()
    }

    fn prepared(&self) -> Option<&Prepared> {
        Some(self)
    }
}

impl Session {
    pub(super) fn open(inner: Arc<Inner>, options: SessionOptions) -> Result<Self> {
        Self::open_interruptible(inner, options, None)
    }

    pub(super) fn open_interruptible(
        inner: Arc<Inner>,
        options: SessionOptions,
        interrupt: Option<Interrupt>,
    ) -> Result<Self> {
        inner.check_process()?;
        let config = &inner.config;
        let core = session::Session::new(
            session::Options {
                journal_bytes_max: config.limits.journal_bytes_max,
                message_bytes_max: config.limits.message_bytes_max,
                statement_cache_size: config.limits.statement_cache_size,
                rotate_commits: config.ledger.rotate_commits,
                retry_conflicts: config.failover.retry_conflicts,
                writes: options.writes,
                backup_acknowledges: config.ledger.commit_ack == CommitAck::Backup,
                reply_before_commit: config.ledger.autocommit_reply
                    == AutocommitReply::BeforeCommit,
                ledger_required: config.ledger.mode == LedgerMode::Require,
                reapply: config.ledger.on_commits_lost == OnCommitsLost::Reapply,
                files: inner.file_journal.is_some(),
            },
            uuid::Uuid::new_v4().as_u128(),
        );
        let id = inner.next_session.fetch_add(1, Ordering::Relaxed);
        let mut driver = Driver::new(inner, core, id, options.writes);
        driver.set_interrupt(interrupt);
        driver.ready()?;
        driver.core.counters().sessions_opened.add(1);
        Ok(Self {
            driver,
            statements: NumberMap::default(),
            oids: Vec::new(),
            result_formats: Vec::new(),
            row_list: Vec::new(),
            savepoints: 0,
        })
    }

    /// Executes a statement; the number of rows that it affected or returned.
    pub fn execute<Q: Query + ?Sized>(&mut self, query: &Q, params: &[&dyn ToSql]) -> Result<u64> {
        Ok(self.query_result(query, params, false)?.rows_affected())
    }

    /// Executes a statement and returns its rows.
    pub fn query<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
    ) -> Result<Vec<Row>> {
        Ok(self.query_result(query, params, false)?.rows)
    }

    /// Executes a statement that returns at most one row.
    pub fn query_opt<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
    ) -> Result<Option<Row>> {
        let list = std::mem::take(&mut self.row_list);
        let mut rows = self.run_into(list, query, params, false)?.last.rows;
        if rows.len() > 1 {
            return Err(self.row_count_error("at most one row was expected", rows.len()));
        }
        let row = rows.pop();
        self.row_list = rows;
        Ok(row)
    }

    /// Executes a statement that returns exactly one row.
    pub fn query_one<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
    ) -> Result<Row> {
        match self.query_opt(query, params)? {
            Some(row) => Ok(row),
            None => Err(self.row_count_error("exactly one row was expected", 0)),
        }
    }

    fn row_count_error(&self, expected: &str, got: usize) -> Error {
        self.executed(&format!("{expected}, the statement returned {got}; it was executed"))
    }

    /// An error in the use of a statement that the server has executed all the same.
    pub(super) fn executed(&self, message: &str) -> Error {
        let error = usage(message);
        // An autocommit statement stands; one inside a transaction ends with it.
        match self.driver.core.status() {
            Status::Idle => error.with_outcome(Outcome::Committed),
            _ => error,
        }
    }

    /// Executes a statement; all that it returned. Values come as text if `text`.
    pub fn query_result<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
    ) -> Result<QueryResult> {
        self.query_rows(query, params, text)
    }

    /// The same, with the rows in the form that the caller wants.
    pub(crate) fn query_rows<Q: Query + ?Sized, R: RowSet>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
    ) -> Result<QueryResult<R>> {
        Ok(self.run(query, params, text)?.last)
    }

    /// Executes one or more statements, separated by semicolons, as one implicit transaction (unless
    /// they control it themselves). Values come as text.
    pub fn batch(&mut self, sql: &str) -> Result<Vec<QueryResult>> {
        Ok(self.run(sql, &[], true)?.into_all())
    }

    fn run<Q: Query + ?Sized, R: RowSet>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
    ) -> Result<Results<R>> {
        self.run_into(R::default(), query, params, text)
    }

    /// As `run`, with a list for the rows.
    fn run_into<Q: Query + ?Sized, R: RowSet>(
        &mut self,
        list: R,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
    ) -> Result<Results<R>> {
        self.driver.ready()?;
        let several = self.request(query, params, text, false)?;
        let mut collector = Collector::reuse(text || several, list);
        loop {
            if let Some(rows) = self.driver.core.poll_rows() {
                collector.add_rows(rows);
            }
            let event = self.driver.next()?;
            self.refuse_copy(&event)?;
            if collector.add(event) {
                return collector.finish();
            }
        }
    }

    /// COPY goes through its own calls: here there is no data to send.
    fn refuse_copy(&mut self, event: &Event) -> Result<()> {
        if matches!(event, Event::CopyIn) {
            self.driver.core.copy_end(Some("use copy_in() for COPY FROM STDIN"))?;
        }
        Ok(())
    }

    /// Makes the request; whether it is a string of several statements, whose values come as text.
    pub(super) fn request<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
        streamed: bool,
    ) -> Result<bool> {
        self.request_if(query, params, text, streamed, |_| Ok(()))
    }

    /// The same if `allowed` says nothing against the statement.
    pub(super) fn request_if<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
        text: bool,
        streamed: bool,
        allowed: impl FnOnce(&Statement) -> Result<()>,
    ) -> Result<bool> {
        if let Some(prepared) = query.prepared() {
            allowed(&prepared.statement)?;
            if prepared.param_oids.len() != params.len() {
                return Err(usage(&format!(
                    "the statement takes {} parameters, {} were given; nothing was sent",
                    prepared.param_oids.len(),
                    params.len()
                )));
            }
            let encoder = Encoder {
                values: params,
                oids: &prepared.param_oids,
                result_formats: &self.result_formats,
            };
            self.driver.core.execute(Execute {
                statement: &prepared.statement,
                parameters: &encoder,
                text_results: text,
                streamed,
            })?;
            return Ok(false);
        }
        self.oids.clear();
        self.oids.extend(params.iter().map(|value| value.type_oid()));
        let statement = self.statement(query.text())?;
        allowed(&statement)?;
        let encoder =
            Encoder { values: params, oids: &self.oids, result_formats: &self.result_formats };
        self.driver.core.execute(Execute {
            statement: &statement,
            parameters: &encoder,
            text_results: text,
            streamed,
        })?;
        Ok(statement.is_several())
    }

    /// The statement of a query, and the types that its parameters are encoded for.
    pub(super) fn find<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        oids: Vec<u32>,
    ) -> Result<(Arc<Statement>, Vec<u32>)> {
        if let Some(prepared) = query.prepared() {
            return Ok((Arc::clone(&prepared.statement), prepared.param_oids.clone()));
        }
        self.oids.clear();
        self.oids.extend_from_slice(&oids);
        Ok((self.statement(query.text())?, oids))
    }

    /// The statement with this text and the types in hand.
    fn statement(&mut self, sql: &str) -> Result<Arc<Statement>> {
        let key = registry::key(sql, &self.oids);
        if let Some(known) = self.statements.get(&key) {
            if registry::matches(known, sql, &self.oids) {
                return Ok(Arc::clone(known));
            }
        }
        let inner = &self.driver.inner;
        let statement = inner.registry.find_or_add(key, sql, &self.oids)?;
        let most = inner.config.limits.statement_cache_size.max(16);
        if self.statements.len() >= most {
            self.statements.clear();
        }
        self.statements.insert(key, Arc::clone(&statement));
        self.driver.new_statements = true;
        Ok(statement)
    }

    /// Has the server look at a statement: the types of its parameters and its columns. Ordinary
    /// statements need not be prepared: that happens by itself.
    pub fn prepare(&mut self, sql: &str) -> Result<Prepared> {
        self.prepare_typed(sql, &[])
    }

    /// As [`prepare`](Self::prepare), with the types of the first parameters given as OIDs.
    pub fn prepare_typed(&mut self, sql: &str, param_oids: &[u32]) -> Result<Prepared> {
        self.driver.ready()?;
        let statement = self.request_prepare(sql, param_oids)?;
        self.finish()?;
        Ok(Prepared::described(statement))
    }

    pub(super) fn request_prepare(
        &mut self,
        sql: &str,
        param_oids: &[u32],
    ) -> Result<Arc<Statement>> {
        self.oids.clear();
        self.oids.extend_from_slice(param_oids);
        let statement = self.statement(sql)?;
        if statement.is_several() {
            return Err(usage(
                "a string of several statements cannot be prepared; nothing was sent",
            ));
        }
        self.driver.core.prepare(&statement)?;
        Ok(statement)
    }

    /// Begins a transaction. Dropping it rolls it back.
    pub fn transaction(&mut self) -> Result<Transaction<'_>> {
        self.transaction_with(&TransactionOptions::default())
    }

    /// Begins a transaction with an isolation level or access mode of its own.
    pub fn transaction_with(&mut self, options: &TransactionOptions) -> Result<Transaction<'_>> {
        self.begin(options)?;
        Ok(Transaction::new(self))
    }

    /// Begins a transaction that [`commit`](Self::commit) or [`rollback`](Self::rollback) ends.
    /// BEGIN travels with the first statement.
    pub fn begin(&mut self, options: &TransactionOptions) -> Result<()> {
        self.driver.ready()?;
        self.start_begin(options)?;
        self.finish().map(drop)
    }

    /// Commits the open transaction, failing over and replaying it if its server is lost.
    pub fn commit(&mut self) -> Result<()> {
        self.ready_to_end()?;
        self.driver.core.commit(false)?;
        self.finish_commit()
    }

    /// Reads the reply to COMMIT. What a failed transaction says of it depends on whether there was a
    /// seal; it means the same.
    pub(super) fn finish_commit(&mut self) -> Result<()> {
        let failed = match self.finish() {
            Ok(results) => results.last.tag() == "ROLLBACK",
            Err(error) if error.kind() == ErrorKind::Server && error.sqlstate() == "25P02" => true,
            Err(error) => return Err(error),
        };
        if failed {
            return Err(Error::new(
                ErrorKind::TransactionFailed,
                "the transaction had failed earlier and was rolled back; nothing of it is committed",
            ));
        }
        Ok(())
    }

    /// Rolls the open transaction back.
    pub fn rollback(&mut self) -> Result<()> {
        self.ready_to_end()?;
        self.driver.core.rollback(false)?;
        self.finish().map(drop)
    }

    /// Gets ready to end the transaction. Without a server it has ended already, and only the handle
    /// has to be told: COMMIT reports why, and ROLLBACK is done.
    fn ready_to_end(&mut self) -> Result<()> {
        if self.driver.core.ends_without_server() {
            return self.driver.inner.check_process();
        }
        match self.driver.ready() {
            Err(_) if self.driver.core.ends_without_server() => Ok(()),
            ready => ready,
        }
    }

    /// Reads the reply to its end.
    pub(super) fn finish(&mut self) -> Result<Results> {
        let mut collector = Collector::<Vec<Row>>::new(false);
        loop {
            let event = self.driver.next()?;
            if collector.add(event) {
                return collector.finish();
            }
        }
    }

    /// Executes a statement and hands its rows over as they arrive. A failover in the middle goes
    /// on with the next row.
    pub fn query_stream<Q: Query + ?Sized>(
        &mut self,
        query: &Q,
        params: &[&dyn ToSql],
    ) -> Result<RowStream<'_>> {
        RowStream::start(self, query, params)
    }

    /// COPY ... FROM STDIN.
    pub fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>> {
        CopyIn::start(self, sql)
    }

    /// COPY ... TO STDOUT.
    pub fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        CopyOut::start(self, sql)
    }

    /// Sends statements without waiting for each one's reply.
    pub fn pipeline(&mut self) -> Pipeline<'_> {
        Pipeline::new(self)
    }

    /// The next notification: one that has arrived, or one that arrives within `timeout`.
    pub fn notification(&mut self, timeout: Duration) -> Result<Option<Notification>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(notification) = self.driver.notifications.pop_front() {
                return Ok(Some(notification));
            }
            self.driver.ready()?;
            // Also without any time left, so that those who poll see what has arrived.
            self.driver.wait(deadline)?;
            if self.driver.notifications.is_empty() && Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Cancels the statement that this session is executing, from any thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.driver.cancel_handle()
    }

    /// Where the session is and what protects it.
    pub fn status(&self) -> SessionStatus {
        let core = &self.driver.core;
        let server = core.server();
        SessionStatus {
            session: self.driver.id,
            server,
            address: self.driver.inner.config.hosts.get(server).map(ToString::to_string),
            timeline: core.timeline_floor(),
            backend_pid: self.driver.link_info().map(|info| info.backend_pid),
            tls_version: self.driver.link_info().and_then(|info| info.tls_version),
            in_transaction: core.status() != Status::Idle,
            transaction_failed: core.status() == Status::Failed,
            ledger: core.ledger_in_use(),
            ledger_row: core.ledger_row(),
            protection_lost: core.protection_lost(),
        }
    }

    /// A setting that the server reports, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.driver.core.parameter(name)
    }

    /// How commits are sealed on the present server.
    pub fn ledger_access(&self) -> LedgerAccess {
        self.driver.core.ledger_access()
    }

    /// Ends the session in an orderly way; an open transaction is rolled back.
    pub fn close(mut self) {
        self.driver.close();
    }
}
