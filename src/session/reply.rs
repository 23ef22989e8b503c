//! Turns a server's messages into events: tells which step of which unit each one answers, and
//! compares what the application has seen before. `settle` takes over when a unit ends.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::statement::{Column, Description};
use super::unit::{CopyIn, Purpose, Steps, Track, Unit};
use super::{Event, Phase, Session, internals, ledger};
use crate::error::{Error, ErrorKind, ServerError};
use crate::wire::frame::{self, Frame, Status, command_tag};
use crate::wire::row::{Rows, Values};
use crate::wire::{Malformed, error_fields, row};

impl Session {
    /// Takes what has arrived. On an error the link must be treated as lost.
    pub fn handle_input(&mut self, input: &mut BytesMut) -> Result<(), Malformed> {
        self.end_batch();
        if self.awaiting.is_some() {
            return Ok(());
        }
        let limit = self.options.message_bytes_max;
        while let Some((tag, length)) = frame::peek_whole(input, limit)? {
            match (tag, &self.phase) {
                // What comes with every statement is read where it stands.
                (b'2' | b'Z', Phase::Live | Phase::Replaying) => {
                    let body = &input[frame::HEADER..length];
                    let status = if tag == b'Z' { Some(Status::from_body(body)?) } else { None };
                    input.advance(length);
                    self.handle_brief(status)?;
                }
                (b'D', Phase::Live) if self.takes_new_rows() => self.handle_rows(input)?,
                _ => self.handle_frame(Frame::cut(tag, length, input))?,
            }
            if self.give_up_link || self.awaiting.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn handle_frame(&mut self, frame: Frame) -> Result<(), Malformed> {
        match frame.tag() {
            b'N' => return self.handle_notice(frame.body()),
            b'S' | b'A' => return self.handle_asynchronous(&frame),
            b'E' => {
                let error = error_fields::parse(frame.body())?;
                if matches!(error.severity.as_str(), "FATAL" | "PANIC") {
                    self.last_words = Some(error);
                    return Ok(());
                }
                return match self.phase {
                    Phase::Adopting(_) => self.adoption_error(error),
                    Phase::Live | Phase::Replaying => {
                        self.handle_error(error)?;
                        self.pass_over_batch()
                    }
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        match &self.phase {
            Phase::Live | Phase::Replaying => self.handle_reply(frame),
            Phase::Adopting(_) => self.adoption_reply(&frame),
            Phase::Discarding(_) | Phase::RollingBack(_) => match frame.tag() {
                b'Z' => {
                    self.passed_over(Status::from_body(frame.body())?);
                    Ok(())
                }
                // A COPY that nobody feeds any more would wait for ever.
                b'G' => {
                    let _ = frontend::copy_fail("the transaction is rolled back", &mut self.output);
                    Ok(())
                }
                _ => Ok(()),
            },
            Phase::Lost => Err(Malformed("bytes on a link that was given up")),
        }
    }

    fn handle_notice(&mut self, body: &[u8]) -> Result<(), Malformed> {
        let notice = error_fields::parse(body)?;
        // A server that crashes or stops at once says so in a mere notice.
        if matches!(notice.code.as_str(), "57P01" | "57P02" | "57P03") {
            self.last_words = Some(notice);
        } else if matches!(self.phase, Phase::Live) {
            self.emit(Event::Notice(Box::new(notice)));
        }
        Ok(())
    }

    fn handle_asynchronous(&mut self, frame: &Frame) -> Result<(), Malformed> {
        match frame.parse()? {
            Message::ParameterStatus(body) => {
                let (name, value) = (body.name()?.to_owned(), body.value()?.to_owned());
                self.parameters.insert(name.clone(), value.clone());
                self.emit(Event::Parameter { name, value });
            }
            Message::NotificationResponse(body) => {
                let event = Event::Notification {
                    process_id: body.process_id(),
                    channel: body.channel()?.to_owned(),
                    payload: body.message()?.to_owned(),
                };
                self.emit(event);
            }
            _ => {
                return Err(Malformed("an asynchronous message of another shape than its tag"));
            }
        }
        Ok(())
    }

    /// A message that answers the unit in front.
    fn handle_reply(&mut self, frame: Frame) -> Result<(), Malformed> {
        let front = self.front;
        let Some(unit) = self.units.get_mut(front).filter(|unit| unit.sent) else {
            return Err(Malformed("a reply that nobody has asked for"));
        };
        let step = unit.steps.current();
        let simple = unit.purpose == Purpose::Simple;
        match frame.tag() {
            b'3' => Ok(()),
            b'1' => {
                if step == Steps::PARSE {
                    unit.steps.advance();
                }
                Ok(())
            }
            b't' if step == Steps::DESCRIBE => {
                let Message::ParameterDescription(body) = frame.parse()? else {
                    return Err(Malformed("a parameter description of another shape"));
                };
                self.pending_param_oids = body.parameters().collect()?;
                Ok(())
            }
            b'T' if simple && step == Steps::USER => {
                let columns = columns(&frame)?;
                unit.in_seal = unit.seal.is_some()
                    && columns.len() == 1
                    && columns[0].name == internals::SIMPLE_SEAL_COLUMN;
                unit.description = Some(Arc::new(Description { param_oids: Vec::new(), columns }));
                unit.columns_told = false;
                Ok(())
            }
            b'T' if step == Steps::DESCRIBE => {
                let columns = columns(&frame)?;
                self.described(columns);
                Ok(())
            }
            b'n' if step == Steps::DESCRIBE => {
                self.described(Arc::new([]));
                Ok(())
            }
            // The guarded seal is a SELECT of the number, or of 0 if it wrote nothing.
            b'D' if step == Steps::SEAL || unit.in_seal => {
                let value = Values::new(frame.body())?.next().transpose()?.flatten();
                self.sealed =
                    value.is_some_and(|value| !matches!(value, [0, 0, 0, 0, 0, 0, 0, 0] | b"0"));
                Ok(())
            }
            b'D' if step == Steps::USER && unit.purpose.is_users() => {
                self.handle_row(frame.into_body())
            }
            b'T' | b'D' if step == Steps::SEAL || !unit.purpose.is_users() => Ok(()),
            b'C' | b'I' => {
                self.handle_complete(frame)?;
                if self.has_ended_without_sync() {
                    self.end_unit(Status::Open);
                }
                Ok(())
            }
            b'd' if step == Steps::USER => {
                let body = frame.into_body();
                match unit.track(b'd', &body) {
                    Track::New => self.tell(Event::CopyData(body)),
                    Track::Seen => {}
                    Track::Diverged => self.diverge(),
                }
                Ok(())
            }
            b'c' if step == Steps::USER => Ok(()),
            b'G' if step == Steps::USER => {
                match unit.copy {
                    CopyIn::No => {
                        let text = "COPY FROM STDIN must be the only statement of its request";
                        let _ = frontend::copy_fail(text, &mut self.output);
                    }
                    _ if !unit.told && !unit.answered => self.tell(Event::CopyIn),
                    _ => {}
                }
                Ok(())
            }
            b'H' if step == Steps::USER => {
                if unit.seen.count == 0 {
                    self.tell(Event::CopyOut);
                }
                Ok(())
            }
            _ => Err(Malformed("a message that does not answer what was asked")),
        }
    }

    /// BindComplete, or ReadyForQuery with the transaction's status.
    fn handle_brief(&mut self, status: Option<Status>) -> Result<(), Malformed> {
        let Some(unit) = self.units.get(self.front).filter(|unit| unit.sent) else {
            return Err(Malformed("a reply that nobody has asked for"));
        };
        let Some(status) = status else { return Ok(()) };
        let step = unit.steps.current();
        // A simple query has as many answers as it has statements, and so have Segue's own requests:
        // neither has a last one that could be known for it. A string that does not parse fails as a
        // whole, BEGIN included.
        let uncounted = unit.purpose == Purpose::Simple || !unit.purpose.is_users();
        if step != Steps::SYNC && !(uncounted && step <= Steps::USER) {
            return Err(Malformed("ReadyForQuery before all was answered"));
        }
        self.end_unit(status);
        Ok(())
    }

    fn described(&mut self, columns: Arc<[Column]>) {
        let param_oids = std::mem::take(&mut self.pending_param_oids);
        let description = Arc::new(Description { param_oids, columns });
        let unit = &mut self.units[self.front];
        if let Some(statement) = &unit.statement {
            if statement.is_named() {
                self.prepared.described(statement.id, &description);
            }
            statement.set_description(&description);
        }
        unit.description = Some(description);
        unit.steps.advance();
    }

    /// Whether a row that comes now is the application's, and nothing that it has seen before.
    fn takes_new_rows(&self) -> bool {
        self.units.get(self.front).is_some_and(|unit| {
            unit.sent
                && unit.purpose.is_users()
                && unit.steps.current() == Steps::USER
                && !unit.in_seal
                && unit.replayed.is_none()
                && unit.diverged.is_none()
        })
    }

    /// All the rows that stand one behind the other in `input`: checked and tracked one by one, told
    /// together.
    fn handle_rows(&mut self, input: &mut BytesMut) -> Result<(), Malformed> {
        let unit = &mut self.units[self.front];
        let columns = unit.description.as_ref().map(|description| description.columns.len());
        let (mut count, mut end) = (0, 0);
        let read = loop {
            match frame::peek_whole(&input[end..], self.options.message_bytes_max) {
                Ok(Some((b'D', length))) => {
                    let body = &input[end + frame::HEADER..end + length];
                    if let Err(malformed) = row::check(body, columns) {
                        break Err(malformed);
                    }
                    unit.track(b'D', body);
                    count += 1;
                    end += length;
                }
                Ok(_) => break Ok(()),
                Err(malformed) => break Err(malformed),
            }
        };
        // What has been tracked is told, even if it ends in the middle of nonsense.
        if count > 0 {
            self.tell_columns();
            self.events.push_rows(Rows::cut(count, end, input));
        }
        read
    }

    /// A row that the application may have seen before.
    fn handle_row(&mut self, body: Bytes) -> Result<(), Malformed> {
        let unit = &mut self.units[self.front];
        let columns = unit.description.as_ref().map(|description| description.columns.len());
        row::check(&body, columns)?;
        match unit.track(b'D', &body) {
            Track::New => {
                self.tell_columns();
                self.emit(Event::Row(body));
            }
            Track::Seen => {}
            Track::Diverged => self.diverge(),
        }
        Ok(())
    }

    /// The columns of a result go ahead of its first row, or of its end if there is none.
    fn tell_columns(&mut self) {
        let unit = &mut self.units[self.front];
        unit.told = true;
        if unit.columns_told {
            return;
        }
        unit.columns_told = true;
        if let Some(description) = &unit.description {
            if !description.columns.is_empty() {
                self.events.push(Event::Columns(Arc::clone(&description.columns)));
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.units[self.front].told = true;
        self.emit(event);
    }

    fn handle_complete(&mut self, frame: Frame) -> Result<(), Malformed> {
        let body = if frame.tag() == b'I' { Bytes::from_static(b"\0") } else { frame.into_body() };
        let unit = &mut self.units[self.front];
        let simple = unit.purpose == Purpose::Simple;
        match unit.steps.current() {
            Steps::BEGIN => unit.steps.advance(),
            Steps::USER if !unit.purpose.is_users() => {}
            Steps::USER => {
                if unit.in_seal {
                    return Ok(());
                }
                if unit.repeats_left > 0 {
                    unit.repeats_left -= 1;
                } else if !simple {
                    unit.steps.advance();
                    unit.user_done = true;
                }
                let done = unit.user_done;
                self.complete(body);
                if done && matches!(self.phase, Phase::Live) {
                    self.send_end();
                }
            }
            Steps::SEAL => {
                match command_tag(&body)? {
                    "UPDATE 0" => self.seal_missing = true,
                    "UPDATE 1" => self.sealed = true,
                    _ => {}
                }
                unit.steps.advance();
            }
            Steps::COMMIT => {
                self.rolled_back = command_tag(&body)? == "ROLLBACK";
                unit.steps.advance();
            }
            _ => {
                return Err(Malformed("a command tag that does not answer what was asked"));
            }
        }
        Ok(())
    }

    /// One of the user's statements has ended.
    fn complete(&mut self, body: Bytes) {
        match self.units[self.front].track(b'C', &body) {
            Track::New => {
                self.tell_columns();
                self.emit(Event::Complete(body));
            }
            Track::Seen => {}
            Track::Diverged => self.diverge(),
        }
        let unit = &mut self.units[self.front];
        if unit.purpose == Purpose::Simple {
            unit.columns_told = false;
            unit.description = None;
        }
    }

    fn handle_error(&mut self, error: ServerError) -> Result<(), Malformed> {
        let Some(unit) = self.units.get_mut(self.front).filter(|unit| unit.sent) else {
            return Err(Malformed("an error that answers nothing"));
        };
        let step = unit.steps.current();
        if step == Steps::PARSE || (step == Steps::DESCRIBE && unit.all_steps & step == 0) {
            if let Some(statement) = unit.statement.as_ref().filter(|s| s.is_named()) {
                self.prepared.forget(statement.id);
            }
        }
        if unit.purpose != Purpose::Simple {
            unit.steps.skip_to_sync();
        }
        if unit.copy == CopyIn::Open {
            // The server passes over all data up to a Sync, which has not been sent yet.
            unit.copy = CopyIn::Failed;
            frontend::sync(&mut self.output);
        } else if std::mem::take(&mut unit.end_owed) {
            frontend::sync(&mut self.output);
        }
        if step != Steps::SEAL && step != Steps::COMMIT && unit.purpose.is_users() {
            // A deferred error after the user's part counts as part of what was seen, once it is told.
            unit.before_error.get_or_insert(unit.seen);
            let track = unit.track(b'E', error.code.as_bytes());
            // An error ends the unit: what was seen beyond it cannot come any more.
            let track = if unit.has_caught_up() { track } else { Track::Diverged };
            match track {
                Track::Diverged => {
                    self.unit_error = Some(Box::new(error));
                    self.diverge();
                    return Ok(());
                }
                // Told already, unless the link was lost between the error and ReadyForQuery.
                Track::Seen if unit.answered => return Ok(()),
                Track::Seen | Track::New => {}
            }
        }
        self.unit_error = Some(Box::new(error));
        Ok(())
    }

    /// Whether the unit in front has been answered in full and shares a later unit's Sync.
    fn has_ended_without_sync(&self) -> bool {
        let done = |unit: &Unit| unit.sent && unit.steps.is_done();
        matches!(self.phase, Phase::Live)
            && !self.give_up_link
            && self.units.get(self.front).is_some_and(done)
    }

    /// An error has the server pass over all that shares its Sync, without a word for each. They are
    /// told what it would have said of each by itself, and what it will say if they are run again.
    fn pass_over_batch(&mut self) -> Result<(), Malformed> {
        while self.has_ended_without_sync() {
            self.end_unit(Status::Failed);
            if !matches!(self.phase, Phase::Live) || self.give_up_link {
                break;
            }
            self.handle_error(ServerError {
                severity: "ERROR".to_owned(),
                code: "25P02".to_owned(),
                message: "current transaction is aborted, commands ignored until end of \
                          transaction block"
                    .to_owned(),
                ..ServerError::default()
            })?;
        }
        Ok(())
    }

    /// The error that a commit brings because an earlier attempt of it stands.
    pub(super) fn is_fence(&self, error: &ServerError) -> bool {
        error.code == ledger::SQLSTATE_FENCED && self.units[self.front].seal.is_some()
    }

    pub(super) fn diverged_error(&self, statement: usize) -> Error {
        Error::new(
            ErrorKind::ReplayDiverged,
            format!(
                "the server was lost and the transaction was run again on another, where statement \
                 {statement} returned something else than the application has seen; it was rolled \
                 back, nothing of it is committed: run the whole transaction again"
            ),
        )
    }
}

fn columns(frame: &Frame) -> Result<Arc<[Column]>, Malformed> {
    let Message::RowDescription(body) = frame.parse()? else {
        return Err(Malformed("a row description of another shape"));
    };
    let columns: Vec<Column> = body
        .fields()
        .map(|field| {
            Ok(Column {
                name: field.name().to_owned(),
                type_oid: field.type_oid(),
                type_modifier: field.type_modifier(),
                type_size: field.type_size(),
                table_oid: field.table_oid(),
                column_id: field.column_id(),
            })
        })
        .collect()?;
    Ok(columns.into())
}
