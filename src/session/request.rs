//! Turns requests into units: records them in the journal and puts them on the wire.

use std::error::Error as StdError;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend::{self, BindError};

use super::classify::{Classified, Effect, StatementKind};
use super::settle::passes;
use super::statement::Statement;
use super::transaction::{BeginOptions, Transaction};
use super::unit::{CopyIn, Purpose, Steps, Unit};
use super::{Event, Session, seals};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::mutation::{self, Mutation};
use crate::wire::execution;
use crate::wire::frame::Status;

/// The values of a statement's parameters, encoded one by one.
pub trait Parameters {
    fn count(&self) -> usize;
    /// 0 for text, 1 for binary.
    fn format(&self, index: usize) -> i16;
    /// Appends the value. An error's text must not contain it.
    fn encode(
        &self,
        index: usize,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Send + Sync>>;

    /// How each column is to come, 0 for text and 1 for binary, where they are not all to come as
    /// [`Execute::text_results`] says. There must be as many as the statement has columns.
    fn result_formats(&self) -> &[i16] {
        &[]
    }
}

/// For statements without parameters.
#[derive(Debug, Clone, Copy)]
pub struct NoParameters;

impl Parameters for NoParameters {
    fn count(&self) -> usize {
        0
    }

    fn format(&self, _: usize) -> i16 {
        1
    }

    fn encode(
        &self,
        _: usize,
        _: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Send + Sync>> {
        Ok(IsNull::Yes)
    }
}

/// One execution of a statement.
pub struct Execute<'a> {
    pub statement: &'a Arc<Statement>,
    pub parameters: &'a dyn Parameters,
    /// Whether results come as text rather than binary.
    pub text_results: bool,
    /// Whether the application takes the reply piece by piece.
    pub streamed: bool,
}

impl Session {
    /// Whether another request may be made before the outstanding ones are answered. Whoever makes one
    /// nevertheless has what is kept grow beyond `journal_bytes_max`.
    pub fn accepts_requests(&self) -> bool {
        self.is_live() && self.journal_has_room() && self.leaves_room()
    }

    /// What is unanswered is kept, protected or not: a pipeline that is larger than the journal may be
    /// waits for its replies.
    fn journal_has_room(&self) -> bool {
        self.journal.len() <= self.options.journal_bytes_max || self.front == self.units.len()
    }

    /// Whether what is unanswered allows another request. While no link has been lost under it, only the
    /// last can forbid one, and a transaction's statements have no seals: those of a long pipeline need
    /// not be looked at again for each that is added.
    fn leaves_room(&self) -> bool {
        let unanswered = self.units.len() - self.front;
        let few = unanswered < seals::WINDOW || matches!(self.transaction, Transaction::Open(_));
        if self.disturbed || !few {
            return self.all_leave_room();
        }
        let last = self.units.back().filter(|_| unanswered > 0);
        let room = last.is_none_or(leaves_room);
        debug_assert_eq!(room, self.all_leave_room());
        room
    }

    fn all_leave_room(&self) -> bool {
        let mut sealed = 0;
        for unit in self.units.range(self.front..) {
            if !leaves_room(unit) {
                return false;
            }
            sealed += usize::from(unit.seal.is_some());
        }
        sealed < seals::WINDOW
    }

    /// Executes a statement. Statements that control the transaction are recognised.
    pub fn execute(&mut self, request: Execute<'_>) -> Result<()> {
        self.check_live()?;
        let statement = request.statement;
        match &statement.class.kind {
            StatementKind::Begin { read_only } if matches!(self.transaction, Transaction::None) => {
                self.begin(BeginOptions { sql: statement.sql.clone(), read_only: *read_only })
            }
            StatementKind::Commit { chain } if !matches!(self.transaction, Transaction::None) => {
                self.commit(*chain)
            }
            StatementKind::Rollback { chain } if !matches!(self.transaction, Transaction::None) => {
                self.rollback(*chain)
            }
            StatementKind::Several(_) if request.parameters.count() > 0 => Err(Error::new(
                ErrorKind::Usage,
                "a string of several statements takes no parameters; nothing was sent",
            )),
            StatementKind::Several(_) => self.execute_several(&request),
            _ => self.execute_one(&request, &[]),
        }
    }

    /// Executes a statement with several sets of parameters, as one request: all of them or, if one
    /// fails, none, unless a transaction is open. There is one `Complete` for each set.
    ///
    /// Not for statements that control the transaction, COPY, or strings of several statements.
    pub fn execute_sets(
        &mut self,
        statement: &Arc<Statement>,
        sets: &[&dyn Parameters],
    ) -> Result<()> {
        self.check_live()?;
        let class = &statement.class;
        let Some((first, more)) = sets.split_first() else {
            return Err(Error::new(ErrorKind::Usage, "no set of parameters; nothing was sent"));
        };
        if class.kind != StatementKind::Other || class.outside_transaction {
            return Err(Error::new(
                ErrorKind::Usage,
                "the statement cannot be executed with several sets of parameters at once; nothing was \
                 sent",
            ));
        }
        let request =
            Execute { statement, parameters: *first, text_results: false, streamed: false };
        self.execute_one(&request, more)
    }

    /// Has a statement prepared and described, without running it.
    pub fn prepare(&mut self, statement: &Arc<Statement>) -> Result<()> {
        self.check_live()?;
        if self.refuse_if_doomed() {
            return Ok(());
        }
        self.ensure_internals();
        let mut unit = self.new_unit(Purpose::User, 0, false);
        if statement.is_named() {
            unit.all_steps |= Steps::DESCRIBE;
        } else {
            unit.all_steps |= Steps::PARSE | Steps::DESCRIBE;
            self.record(&mut unit, |out| write_parse(statement, out))?;
        }
        unit.statement = Some(Arc::clone(statement));
        self.push(unit);
        Ok(())
    }

    /// Begins a transaction; nothing is sent before its first statement.
    pub fn begin(&mut self, options: BeginOptions) -> Result<()> {
        self.check_live()?;
        self.check_quiet()?;
        if !matches!(self.transaction, Transaction::None) {
            return Err(Error::new(
                ErrorKind::Usage,
                "a transaction is open already; commit it or roll it back first, or use a savepoint",
            ));
        }
        self.transaction = Transaction::Pending(options);
        self.emit_local("BEGIN", Status::Open);
        Ok(())
    }

    /// Whether the server knows nothing (any more) of the transaction, which can then be ended with a
    /// link or without.
    pub fn ends_without_server(&self) -> bool {
        matches!(self.transaction, Transaction::Pending(_) | Transaction::Doomed(_))
    }

    /// Commits the transaction, its seal with it.
    pub fn commit(&mut self, chain: bool) -> Result<()> {
        if !self.ends_without_server() {
            self.check_live()?;
        }
        match &self.transaction {
            Transaction::None => Err(no_transaction()),
            Transaction::Pending(_) => {
                self.check_settled()?;
                self.end_locally(chain, "COMMIT");
                Ok(())
            }
            Transaction::Doomed(error) => {
                let error = error.clone();
                self.transaction = Transaction::None;
                self.emit(Event::Error(error));
                self.emit(Event::Ready(Status::Idle));
                Ok(())
            }
            Transaction::Open(open) => {
                let effect = open.effect;
                self.ensure_internals();
                // A failed transaction can only be rolled back, whatever becomes of the link.
                if self.is_quiet() && self.status == Status::Failed {
                    return self.rollback(chain);
                }
                let mut steps = Steps::COMMIT;
                let mut unit = self.new_unit(Purpose::Commit, 0, false);
                if let Err(error) = self.check_ledger(effect) {
                    self.files.note_unit();
                    self.units.push_back(unit);
                    self.refuse(error);
                    return Ok(());
                }
                if let Transaction::Open(open) = &mut self.transaction {
                    open.chain = chain;
                    if self.seals.enabled && open.effect > Effect::Reads && !open.unsealable {
                        // Even a transaction declared READ ONLY may have been made writable since.
                        let guarded = open.effect == Effect::MayWrite || open.begin.read_only;
                        unit.seal = Some(self.seals.allot(guarded));
                        steps |= if mutation::on(Mutation::SealLeftOut) { 0 } else { Steps::SEAL };
                    }
                    unit.effect = open.effect;
                }
                unit.all_steps = steps;
                self.push(unit);
                Ok(())
            }
        }
    }

    /// Rolls the transaction back.
    pub fn rollback(&mut self, chain: bool) -> Result<()> {
        if !self.ends_without_server() {
            self.check_live()?;
        }
        match &self.transaction {
            Transaction::None => Err(no_transaction()),
            Transaction::Pending(_) | Transaction::Doomed(_) => {
                self.check_settled()?;
                self.end_locally(chain, "ROLLBACK");
                Ok(())
            }
            Transaction::Open(_) => {
                self.ensure_internals();
                if let Transaction::Open(open) = &mut self.transaction {
                    open.chain = chain;
                }
                let unit = self.new_unit(Purpose::Rollback, Steps::COMMIT, false);
                self.push(unit);
                Ok(())
            }
        }
    }

    fn execute_one(&mut self, request: &Execute<'_>, more: &[&dyn Parameters]) -> Result<()> {
        if self.refuse_if_doomed() {
            return Ok(());
        }
        let statement = request.statement;
        let class = &statement.class;
        self.resume_ledger(class.effect);
        self.check_ledger(class.effect)?;
        self.ensure_internals();
        self.rotate_if_due(class.effect);
        let mut unit = self.new_unit(Purpose::User, Steps::USER, request.streamed);
        let begins = matches!(self.transaction, Transaction::Pending(_));
        if begins {
            self.record_begin(&mut unit)?;
        }
        if !statement.is_named() {
            unit.all_steps |= Steps::PARSE | Steps::DESCRIBE;
        }
        self.record(&mut unit, |out| {
            if !statement.is_named() {
                write_parse(statement, out)?;
                frontend::describe(b'S', "", out).map_err(nul)?;
            }
            write_execution(statement, request, out)?;
            more.iter().try_for_each(|parameters| {
                write_execution(statement, &Execute { parameters: *parameters, ..*request }, out)
            })
        })?;
        unit.repeats = more.len();
        unit.statement = Some(Arc::clone(statement));
        unit.effect = class.effect;
        if class.kind == StatementKind::CopyIn {
            unit.copy = CopyIn::Open;
        }
        self.enter(&mut unit, begins);
        if unit.autocommit && class.effect > Effect::Reads {
            self.seal_or_say_why_not(&mut unit, class.outside_transaction.then_some(OUTSIDE));
        }
        self.enlist(unit, class);
        Ok(())
    }

    /// A string of several statements goes out as it is, as a simple query: one implicit
    /// transaction, as its author expects, which takes a seal at its end.
    fn execute_several(&mut self, request: &Execute<'_>) -> Result<()> {
        if self.refuse_if_doomed() {
            return Ok(());
        }
        let class = &request.statement.class;
        self.resume_ledger(class.effect);
        self.check_ledger(class.effect)?;
        self.ensure_internals();
        self.rotate_if_due(class.effect);
        let mut unit = self.new_unit(Purpose::Simple, Steps::USER, request.streamed);
        let begins = matches!(self.transaction, Transaction::Pending(_));
        if begins {
            unit.all_steps |= Steps::BEGIN;
        }
        let sql = &request.statement.sql;
        self.record(&mut unit, |out| {
            out.extend_from_slice(sql.as_bytes());
            Ok(())
        })?;
        unit.statement = Some(Arc::clone(request.statement));
        unit.effect = class.effect;
        self.enter(&mut unit, begins);
        let controls = class.kind.controls_transaction();
        if unit.autocommit {
            let reason = if controls {
                Some(CONTROLS)
            } else {
                class.outside_transaction.then_some(OUTSIDE)
            };
            if class.effect > Effect::Reads || controls {
                self.seal_or_say_why_not(&mut unit, reason);
            }
        } else if controls {
            self.lose_protection(&mut unit, CONTROLS);
        }
        self.enlist(unit, class);
        Ok(())
    }

    /// With `ledger=require` nothing is written that cannot be sealed.
    fn check_ledger(&self, effect: Effect) -> Result<()> {
        let sealable = self.seals.enabled || effect <= Effect::Reads;
        if sealable || !self.options.ledger_required || !self.options.writes {
            return Ok(());
        }
        Err(self.no_ledger())
    }

    /// Why nothing can be sealed: what the server has said where that may pass, as of any other statement.
    pub(super) fn no_ledger(&self) -> Error {
        let general = Error::new(
            ErrorKind::Ledger,
            "ledger=require, and this server's ledger cannot be used: nothing is committed; run `segue \
             check` to see why",
        );
        match self.ledger_refusal.clone() {
            Some(error) if passes(&error) => Error::server(error, Outcome::NotCommitted),
            Some(error) => general.with_server_error(error),
            None => general,
        }
    }

    /// A statement of the application's goes on its way.
    fn enlist(&mut self, mut unit: Unit, class: &Classified) {
        self.counters.statements.add(1);
        if let Transaction::Open(open) = &mut self.transaction {
            open.note(class);
            if open.unsealable {
                self.lose_protection(&mut unit, MODE_SET_LATE);
            }
        }
        if let Some(reason) = class.unprotected {
            self.lose_protection(&mut unit, reason);
        }
        self.push(unit);
        self.enforce_journal_limit();
    }

    /// Refuses a request in a transaction that has ended under the application's feet.
    fn refuse_if_doomed(&mut self) -> bool {
        let (error, status) = match (&self.transaction, self.pending_error.take()) {
            (Transaction::Doomed(error), _) => (error.clone(), Status::Failed),
            (_, Some(error)) => (error, Status::Idle),
            (_, None) => return false,
        };
        if let Transaction::Pending(_) = self.transaction {
            self.transaction = Transaction::Doomed(error.clone());
        }
        self.emit(Event::Error(error));
        self.emit(Event::Ready(status));
        true
    }

    fn end_locally(&mut self, chain: bool, tag: &'static str) {
        let options = match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::Pending(options) => options,
            _ => BeginOptions::default(),
        };
        if chain {
            self.transaction = Transaction::Pending(options);
        }
        self.emit_local(tag, if chain { Status::Open } else { Status::Idle });
    }

    fn emit_local(&mut self, tag: &'static str, status: Status) {
        let mut body = BytesMut::from(tag.as_bytes());
        body.extend_from_slice(&[0]);
        self.emit(Event::Complete(body.freeze()));
        self.emit(Event::Ready(status));
    }

    fn check_quiet(&self) -> Result<()> {
        self.check_live()?;
        self.check_settled()
    }

    fn check_settled(&self) -> Result<()> {
        if self.is_settled() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Usage,
            "earlier requests are not answered yet: read their replies before this call",
        ))
    }
}

pub(super) const OUTSIDE: &str =
    "the statement does not run inside a transaction, or may commit inside itself";
pub(super) const CONTROLS: &str =
    "the string of several statements controls the transaction itself";
pub(super) const MODE_SET_LATE: &str = "its mode was set by SET TRANSACTION after it may have written: if it is READ ONLY now, its commit \
     cannot be recorded";
pub(super) const NO_LEDGER: &str = "the ledger is not in use";

/// Whether another request may be made behind a unit that is not answered.
fn leaves_room(unit: &Unit) -> bool {
    let ends = matches!(unit.purpose, Purpose::Commit | Purpose::Rollback);
    // If it does not parse, the transaction has not begun, and what follows must not run.
    let begins = unit.purpose == Purpose::Simple && unit.all_steps & Steps::BEGIN != 0;
    (unit.sent || unit.held) && !ends && !begins
}

fn no_transaction() -> Error {
    Error::new(ErrorKind::Usage, "no transaction is open; nothing was sent")
}

pub(super) fn nul_in_statement() -> Error {
    Error::new(ErrorKind::Usage, "the statement contains a NUL byte; nothing was sent")
}

fn nul(_: std::io::Error) -> Error {
    nul_in_statement()
}

fn write_parse(statement: &Statement, out: &mut BytesMut) -> Result<()> {
    frontend::parse(&statement.name, &statement.sql, statement.param_oids.iter().copied(), out)
        .map_err(nul)
}

fn write_execution(statement: &Statement, request: &Execute<'_>, out: &mut BytesMut) -> Result<()> {
    let parameters = request.parameters;
    let count = parameters.count();
    if count > usize::from(u16::MAX) {
        return Err(Error::new(ErrorKind::Usage, "more than 65535 parameters; nothing was sent"));
    }
    let all: &[i16] = if request.text_results { &[0] } else { &[1] };
    let results = match parameters.result_formats() {
        [] => all,
        each => each,
    };
    execution::write(
        &statement.name,
        (0..count).map(|index| parameters.format(index)),
        |index, out| parameters.encode(index, out),
        results,
        out,
    )
    .map_err(|error| match error {
        BindError::Conversion(source) => Error::new(
            ErrorKind::Conversion,
            "a parameter could not be converted to its PostgreSQL type; nothing was sent",
        )
        .with_source(source),
        BindError::Serialization(source) => Error::new(
            ErrorKind::Limit,
            "the parameters are larger than a message may be; nothing was sent",
        )
        .with_source(source),
    })
}
