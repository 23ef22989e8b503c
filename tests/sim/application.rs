//! What the application of a run does, one thing at a time, and what it is told.

use std::error::Error;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use segue::ErrorKind;
use segue::session::{
    BeginOptions, Event, Execute, NoParameters, Parameters, Statement, internals,
};
use segue::wire::frame::Status;
use segue::wire::row::Values;

use crate::app::{Expect, Kind, Request};
use crate::client::ids_from;
use crate::data::Reply;
use crate::isolation::Isolation;
use crate::plan::For;
use crate::run::{Result, Run};
use crate::sql::PARAMETER;
use crate::workload;

impl Run {
    /// The application does one thing.
    pub fn application(&mut self) -> Result<bool> {
        if !self.client.session.is_live() {
            return Ok(false);
        }
        if let Some(request) = self.client.requests.front().filter(|request| request.copies_in()) {
            if request.copy_ready && request.error.is_none() && self.client.session.copies_in() {
                return self.copy();
            }
            return Ok(false);
        }
        let alone = self.client.requests.is_empty();
        let in_tx = self.client.app.tx.is_some();
        if alone {
            self.check_quiet()?;
            if self.client.steps_left == 0 && !in_tx {
                return Ok(false);
            }
        } else if self.client.pipeline == 0 || !self.client.session.accepts_requests() {
            return Ok(false);
        }
        let last = self.client.steps_left == 0;
        let number = self.client.action_number(self.client.actions);
        let mut rng = self.plan.rng(For::Action(number));
        self.client.actions += 1;
        if alone {
            self.client.steps_left = self.client.steps_left.saturating_sub(1);
            let profile = &self.world.profile;
            self.client.pipeline = 0;
            if rng.chance(profile.pipelined) {
                self.client.pipeline = 1 + rng.below(profile.pipeline_max);
            }
        } else {
            self.client.pipeline -= 1;
        }
        if self.plan.without_actions.contains(&number) && !last {
            return Ok(true);
        }
        let ends = in_tx && (self.client.steps_left == 0 || rng.chance(20));
        let request = if ends {
            self.client.pipeline = 0;
            let kind = if rng.chance(75) { Kind::Commit } else { Kind::Rollback };
            Request::new(kind, if kind == Kind::Commit { "COMMIT" } else { "ROLLBACK" })
        } else if !in_tx && alone && rng.chance(self.world.profile.begins) {
            let isolation = *rng.pick(&[
                Isolation::ReadCommitted,
                Isolation::ReadCommitted,
                Isolation::RepeatableRead,
                Isolation::Serializable,
            ]);
            self.client.app.begin(isolation);
            let sql = match isolation {
                Isolation::ReadCommitted => "BEGIN".to_owned(),
                _ => format!("BEGIN ISOLATION LEVEL {}", isolation.name()),
            };
            Request::new(Kind::Begin, &sql)
        } else {
            self.client.app.next_id = ids_from(number);
            workload::request(&mut rng, &self.world.profile, &mut self.client.app, alone)
        };
        if request.copies_in() || request.sql.contains("DISCARD") || request.sql.contains("DEALLOC")
        {
            self.client.pipeline = 0;
        }
        self.make(request)?;
        Ok(true)
    }

    pub fn make(&mut self, mut request: Request) -> Result {
        self.figures.requests += 1;
        self.client.link_is_newer = false;
        self.world
            .note(|| format!("the application: {} (streamed {})", request.sql, request.streamed));
        let (kind, sql, streamed) = (request.kind, request.template(), request.streamed);
        let parameter = request.parameter.map(Number);
        request.links_lost = self.client.app.links_lost;
        self.client.requests.push_back(request);
        let made = match kind {
            Kind::Begin => {
                let sql = if sql == "BEGIN" { String::new() } else { sql };
                self.client.session.begin(BeginOptions { sql, read_only: false })
            }
            Kind::Commit => self.client.session.commit(false),
            Kind::Rollback => self.client.session.rollback(false),
            Kind::Execute => {
                let number = internals::FIRST_STATEMENT + self.client.statements.len() as u32;
                let cached = self.client.statements.entry(sql);
                let statement = cached.or_insert_with_key(|sql| {
                    let types: &[u32] = if sql.contains(PARAMETER) { &[20] } else { &[] };
                    let statement = Statement::new(number, sql, types, !number.is_multiple_of(5));
                    Arc::new(statement.unwrap_or_else(|| unreachable!("no NUL byte")))
                });
                let statement = Arc::clone(statement);
                self.client.session.execute(Execute {
                    statement: &statement,
                    parameters: match &parameter {
                        Some(number) => number,
                        None => &NoParameters,
                    },
                    text_results: false,
                    streamed,
                })
            }
        };
        let is_ledger =
            |error: &segue::Error| matches!(error.kind(), ErrorKind::Ledger | ErrorKind::Server);
        match made {
            // Nothing was sent, and a transaction goes on without it.
            Err(error) if is_ledger(&error) && self.client.app.ledger_required => {
                self.world.note(|| format!("refused: {error}"));
                let refused = self.client.requests.pop_back();
                let ids = refused.map(|request| request.ids).unwrap_or_default();
                self.client.app.mark(ids.iter(), Expect::Never);
            }
            made => made.map_err(|error| format!("a request is refused: {error}"))?,
        }
        self.drain_events()
    }

    pub fn copy(&mut self) -> Result<bool> {
        let Some(request) = self.client.requests.front_mut() else { return Ok(false) };
        let done = if request.lines.is_empty() {
            let reason = request.copy_fails.then_some("the application gives up");
            self.client.session.copy_end(reason)
        } else {
            let line = request.lines.remove(0);
            self.client.session.copy_data(format!("{line}\n").as_bytes())
        };
        done.map_err(|error| format!("COPY: {error}"))?;
        self.drain_events()?;
        Ok(true)
    }

    pub fn drain_events(&mut self) -> Result {
        while let Some(event) = self.client.session.poll_event() {
            self.world.note(|| format!("told: {event:?}"));
            self.event(event)?;
        }
        Ok(())
    }

    /// A transaction is given up because its replay gave something else: it must have.
    fn check_divergence(&self) -> Result {
        let (Some(id), Some(app)) = (self.client.link, &self.client.app.tx) else { return Ok(()) };
        let Some(tx) = &self.world.backends[id].tx else { return Ok(()) };
        let told = |replies: &[Reply]| -> Vec<Reply> {
            replies.iter().filter(|reply| reply.end != "25P02").cloned().collect()
        };
        let (seen, given) = (told(&app.seen), told(&tx.replies));
        let Some(front) = self.client.requests.front() else { return Ok(()) };
        let alone = front.rows.is_empty() && front.results.is_empty() && front.error.is_none();
        if alone && given.starts_with(&seen) && app.seen.len() == seen.len() {
            return Err(format!("a replay that gave the same has diverged: {given:?}, {seen:?}"));
        }
        Ok(())
    }

    pub fn event(&mut self, event: Event) -> Result {
        match event {
            Event::Parameter { .. } | Event::Notice(_) | Event::Notification { .. } => {
                return Ok(());
            }
            Event::ProtectionLost(reason) => {
                // Refused for a reason that passes; the next transaction may be sealed again.
                self.client.app.ledger &= !reason.starts_with("the ledger cannot be used");
                return Ok(());
            }
            Event::ReplayFinished => return Ok(()),
            Event::ReplayStarted { .. } => {
                self.figures.replays += 1;
                return Ok(());
            }
            Event::ReplayDiverged { .. } => {
                self.figures.divergences += 1;
                return self.check_divergence();
            }
            Event::CommitsLost { session, from, to } => {
                self.figures.commits_lost += 1;
                let server = self.client.link.map(|id| self.world.backends[id].server);
                let wal = server.map_or(&[][..], |server| &self.world.servers[server].wal);
                let kept = wal.iter().filter_map(|record| record.sealed).find(|(row, number)| {
                    *row == session && (from..=to).contains(&number.cast_unsigned())
                });
                if let Some((_, number)) = kept {
                    return Err(format!("reported lost, and is there: {number}"));
                }
                self.client.app.lost.push((session, from, to));
                return Ok(());
            }
            Event::CommitReapplied { .. } => {
                self.figures.reapplied += 1;
                return Ok(());
            }
            Event::AwaitBackup { ledger_row, number } => {
                self.client.awaiting = Some((ledger_row, number));
                return Ok(());
            }
            _ => {}
        }
        let Some(request) = self.client.requests.front_mut() else {
            return Err(format!("nothing was requested, and it is told of something: {event:?}"));
        };
        // A commit that no backup confirms is told of in both ways.
        let unconfirmed = request.kind == Kind::Commit && matches!(event, Event::Complete(_));
        if request.error.is_some() && !unconfirmed && !matches!(event, Event::Ready(_)) {
            return Err(format!(
                "something behind the error of a request: {event:?}, {}",
                request.sql
            ));
        }
        match event {
            Event::Row(body) => request.rows.push(row_text(&body)?),
            Event::CopyData(body) => request.rows.push(String::from_utf8_lossy(&body).into_owned()),
            Event::Complete(tag) => {
                let end = String::from_utf8_lossy(&tag).trim_end_matches('\0').to_owned();
                let rows = std::mem::take(&mut request.rows);
                request.results.push(Reply { rows, end });
            }
            Event::CopyIn => request.copy_ready = true,
            Event::Restarted => {
                if request.streamed {
                    return Err(format!("what is streamed is taken back: {}", request.sql));
                }
                request.rows.clear();
                request.results.clear();
            }
            Event::Error(error) => request.error = Some(error),
            Event::Ready(status) => {
                let Some(request) = self.client.requests.pop_front() else { return Ok(()) };
                check_status(&request, status)?;
                self.client.app.finish(request, &self.world)?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_status(request: &Request, status: Status) -> Result {
    let ended = request.kind != Kind::Begin && request.autocommit;
    if ended && status != Status::Idle {
        return Err(format!(
            "it has ended, and its transaction has not: {}, {status:?}",
            request.sql
        ));
    }
    Ok(())
}

/// The values of a row in the form in which the model's servers keep account of them.
fn row_text(body: &[u8]) -> Result<String> {
    let malformed = |_| "a malformed row is handed over".to_owned();
    let values = Values::new(body).map_err(malformed)?;
    let texts = values.map(|value| {
        let value = value.map_err(malformed)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(value).into_owned())
    });
    Ok(texts.collect::<Result<Vec<String>>>()?.join("|"))
}

/// The parameter of a statement that has one.
struct Number(i64);

impl Parameters for Number {
    fn count(&self) -> usize {
        1
    }

    fn format(&self, _: usize) -> i16 {
        1
    }

    fn encode(
        &self,
        _: usize,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn Error + Send + Sync>> {
        out.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}
