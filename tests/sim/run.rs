//! One run: a session, its application, its network and its servers, driven by one random generator.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use segue::error::{Error, ErrorKind};
use segue::session::{
    BeginOptions, Event, Execute, LedgerAccess, LinkReady, NoParameters, Options, Session,
    Statement, internals,
};
use segue::wire::frame::Status;

use crate::app::{self, App, Kind, Request};
use crate::backend::{Backend, error_message};
use crate::files::Files;
use crate::rng::Rng;
use crate::world::World;

#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub requests: usize,
    pub faults: usize,
    pub replays: usize,
    pub divergences: usize,
    pub commits_lost: usize,
    pub unknown: usize,
}

pub struct Run {
    world: World,
    session: Session,
    app: App,
    statements: HashMap<String, Arc<Statement>>,
    link: Option<usize>,
    input: BytesMut,
    requests: VecDeque<Request>,
    /// So many requests follow without waiting for replies.
    pipeline: usize,
    awaiting: Option<(uuid::Uuid, u64)>,
    access: LedgerAccess,
    steps_left: usize,
    faults_left: usize,
    fault_percent: usize,
    lag_max: usize,
    /// The standby is going to take over.
    promotes: bool,
    highest_timeline: u32,
    /// The journal on disk.
    files: Option<Files>,
    pub figures: Figures,
}

type Result<T = ()> = std::result::Result<T, String>;

impl Run {
    pub fn new(seed: u64, traced: bool) -> Self {
        let files = Files::new(seed);
        let mut rng = Rng::new(seed);
        let sync = rng.chance(60);
        let access = match rng.below(10) {
            0 => LedgerAccess::None,
            1..=3 => LedgerAccess::Function,
            _ => LedgerAccess::Table,
        };
        let options = Options {
            journal_bytes_max: if rng.chance(8) { 200 } else { 1 << 20 },
            message_bytes_max: 1 << 20,
            statement_cache_size: *rng.pick(&[0, 1, 3, 64]),
            rotate_commits: *rng.pick(&[1, 2, 5, 100]),
            retry_conflicts: *rng.pick(&[0, 0, 2]),
            writes: true,
            backup_acknowledges: rng.chance(15),
            ledger_required: false,
            reapply: false,
            files: files.is_some(),
        };
        let steps_left = 3 + rng.below(20);
        let faults_left = rng.below(6);
        let fault_percent = *rng.pick(&[1, 3, 8]);
        let lag_max = rng.below(8);
        let app = App {
            next_id: 1000,
            ledger: access != LedgerAccess::None,
            rotates_fast: options.rotate_commits < 100,
            ..App::default()
        };
        let mut world = World::new(rng, sync);
        world.trace = traced.then(Vec::new);
        world.note(|| format!("sync {sync}, {access:?}, {options:?}"));
        Self {
            session: Session::new(options, u128::from(seed) + 1),
            world,
            app,
            statements: HashMap::new(),
            link: None,
            input: BytesMut::new(),
            requests: VecDeque::new(),
            pipeline: 0,
            awaiting: None,
            access,
            steps_left,
            faults_left,
            fault_percent,
            lag_max,
            promotes: false,
            highest_timeline: 0,
            files,
            figures: Figures::default(),
        }
    }

    pub fn trace(&self) -> &[String] {
        self.world.trace.as_deref().unwrap_or_default()
    }

    pub fn run(&mut self) -> Result {
        let mut barren = 0;
        for _ in 0..100_000 {
            let done = self.round()?;
            barren = if done { 0 } else { barren + 1 };
            if self.is_over() {
                return self.finish();
            }
            if barren > 1500 {
                return Err(format!("nothing happens any more; waiting: {:?}", self.requests));
            }
        }
        Err(format!("no end is in sight; waiting: {:?}", self.requests))
    }

    fn is_over(&self) -> bool {
        self.steps_left == 0 && self.requests.is_empty() && self.app.tx.is_none()
    }

    /// One thing happens; whether anything did.
    fn round(&mut self) -> Result<bool> {
        self.drain_events()?;
        if self.faults_left > 0 && self.world.rng.chance(self.fault_percent) {
            self.faults_left -= 1;
            self.fault()?;
            return Ok(true);
        }
        match self.world.rng.below(12) {
            0 | 1 => self.application(),
            2 | 3 => self.deliver_to_server(),
            4 | 5 => self.deliver_to_client(),
            6 => self.zombie(),
            7 => self.network(),
            8 => self.others(),
            _ => match self.link {
                Some(backend) => self.world.step(backend),
                None => self.find_link(),
            },
        }
    }

    /// Replication, the second writer, and the pending promotion.
    fn others(&mut self) -> Result<bool> {
        match self.world.rng.below(5) {
            0 if self.world.rng.chance(30) => self.world.second_writer(),
            1 if self.promotes => {
                self.promotes = false;
                self.world.promote();
            }
            2 => {
                let primary = self.world.primary;
                for backend in &mut self.world.backends {
                    if backend.alive && backend.server == primary {
                        backend.notifications.insert("c0".into());
                        backend.notify_if_idle();
                    }
                }
            }
            _ => {
                let lag = self.world.lag();
                if lag > 0 && !self.promotes {
                    let count = 1 + self.world.rng.below(lag);
                    self.world.replicate(count.max(lag.saturating_sub(self.lag_max)));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// A backend whose client has gone goes on with what it has received.
    fn zombie(&mut self) -> Result<bool> {
        let zombies: Vec<usize> =
            (0..self.world.backends.len()).filter(|id| self.is_zombie(*id)).collect();
        if zombies.is_empty() {
            return Ok(false);
        }
        let id = *self.world.rng.pick(&zombies);
        let count = self.world.rng.below(60);
        let moved = self.arrive(id, count);
        Ok(self.world.step(id)? || moved)
    }

    fn is_zombie(&self, id: usize) -> bool {
        self.link != Some(id) && self.world.backends[id].alive
    }

    fn arrive(&mut self, id: usize, count: usize) -> bool {
        let backend = &mut self.world.backends[id];
        let count = count.min(backend.inflight.len());
        if !backend.alive {
            backend.inflight.clear();
            return false;
        }
        backend.input.extend(backend.inflight.drain(..count));
        count > 0
    }

    fn deliver_to_server(&mut self) -> Result<bool> {
        let Some(id) = self.link else { return Ok(false) };
        self.serve_files()?;
        // While more is about to be requested, a Sync that may be shared need not be sent yet.
        let ahead = self.pipeline > 0 && self.world.rng.chance(50);
        let session = &mut self.session;
        let output = if ahead { session.output_so_far() } else { session.output() }.to_vec();
        if !output.is_empty() {
            self.world.note(|| format!("sent: {}", printable(&output)));
            self.session.handle_sent();
            self.world.backends[id].inflight.extend(output);
        }
        let count = if self.world.rng.chance(60) { usize::MAX } else { self.world.rng.below(60) };
        Ok(self.arrive(id, count))
    }

    fn serve_files(&mut self) -> Result {
        if let Some(files) = &mut self.files {
            files.serve(&mut self.session);
            self.drain_events()?;
        }
        Ok(())
    }

    fn deliver_to_client(&mut self) -> Result<bool> {
        let Some(id) = self.link else { return Ok(false) };
        let available = self.world.backends[id].wire.len();
        let count =
            if self.world.rng.chance(60) { available } else { self.world.rng.below(available + 1) };
        if count == 0 {
            return Ok(false);
        }
        self.receive(id, count)?;
        Ok(true)
    }

    fn receive(&mut self, id: usize, count: usize) -> Result {
        let bytes: Vec<u8> = self.world.backends[id].wire.drain(..count).collect();
        self.input.extend_from_slice(&bytes);
        self.world.note(|| format!("received: {}", printable(&bytes)));
        self.take_input()
    }

    fn take_input(&mut self) -> Result {
        if self.awaiting.is_some() || self.session.gives_up_link() {
            return Ok(());
        }
        self.session.handle_input(&mut self.input).map_err(|error| format!("{error}"))?;
        self.drain_events()
    }

    /// The client notices what has become of its link.
    fn network(&mut self) -> Result<bool> {
        let Some(id) = self.link else { return Ok(false) };
        if self.session.gives_up_link() {
            self.lose_link(false)?;
            return Ok(true);
        }
        if let Some((row, number)) = self.awaiting {
            return self.confirm(row, number);
        }
        let backend = &self.world.backends[id];
        let deposed = backend.server != self.world.primary;
        if !backend.alive || (deposed && self.world.rng.chance(20)) {
            self.lose_link(true)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn confirm(&mut self, row: uuid::Uuid, number: u64) -> Result<bool> {
        let deposed = self.link.is_none_or(|id| {
            self.world.backends[id].server != self.world.primary || !self.world.backends[id].alive
        });
        if deposed && self.world.rng.chance(90) {
            self.lose_link(false)?;
            return Ok(true);
        }
        let sealed = Some((row, number.cast_signed()));
        let standby = &self.world.servers[self.world.standby];
        if !deposed && standby.wal.iter().any(|record| record.sealed == sealed) {
            self.awaiting = None;
            self.session.handle_backup(Ok(()));
        } else if self.world.rng.chance(5) {
            self.awaiting = None;
            let error = Error::new(ErrorKind::FailoverTimeout, "no backup");
            self.world.note(|| "no backup confirms the commit".into());
            self.session.handle_backup(Err(error));
        } else {
            return Ok(false);
        }
        self.drain_events()?;
        self.take_input()?;
        Ok(true)
    }

    /// The link is lost: a part of what was under way may yet arrive, on either side.
    fn lose_link(&mut self, last_words: bool) -> Result {
        let Some(id) = self.link else { return Ok(()) };
        self.world.note(|| format!("the link to backend {id} is lost"));
        // Known gap: what a commit has set that is found in the ledger is missing on the very link
        // on which it was found; it is there again on the next.
        self.app.settings_unknown |=
            self.requests.iter().any(|r| r.kind == Kind::Commit || r.sql.contains(';'));
        if last_words {
            let available = self.world.backends[id].wire.len();
            let all = self.world.rng.chance(50);
            let count = if all { available } else { self.world.rng.below(available + 1) };
            self.receive(id, count)?;
        }
        let output = self.session.output().to_vec();
        let sent =
            if self.world.rng.chance(50) { self.world.rng.below(output.len() + 1) } else { 0 };
        let backend = &mut self.world.backends[id];
        backend.inflight.extend(&output[..sent]);
        backend.eof = true;
        let left = backend.inflight.len();
        let arrives = if self.world.rng.chance(50) { left } else { self.world.rng.below(left + 1) };
        let backend = &mut self.world.backends[id];
        backend.inflight.truncate(arrives);
        backend.stubborn = self.world.rng.chance(30);
        self.link = None;
        self.awaiting = None;
        self.input.clear();
        self.session.handle_link_lost();
        self.drain_events()
    }

    fn fault(&mut self) -> Result {
        self.figures.faults += 1;
        let primary = self.world.primary;
        let words = match self.world.rng.below(3) {
            0 => Some(error_message(b'E', "FATAL", "57P01")),
            1 => Some(error_message(b'N', "WARNING", "57P02")),
            _ => None,
        };
        match self.world.rng.below(7) {
            0 | 1 => self.lose_link(true)?,
            2 => {
                if let Some(id) = self.link {
                    self.world.end_backend(id, words.as_deref());
                }
            }
            3 => self.world.crash(primary, words.as_deref()),
            4 => {
                self.world.crash(primary, words.as_deref());
                self.promotes = true;
            }
            // The old primary lives on, and takes commits of which nobody hears.
            5 => self.promotes = true,
            _ => {
                self.world.note(|| "the primary becomes read-only".into());
                self.world.servers[primary].read_only = true;
                self.app.read_only_seen = true;
                self.promotes = true;
            }
        }
        Ok(())
    }

    fn find_link(&mut self) -> Result<bool> {
        if !self.session.wants_link() {
            return Err("there is no link, and the session wants none".into());
        }
        let primary = self.world.primary;
        if self.promotes && (self.world.servers[primary].read_only || self.world.rng.chance(50)) {
            self.promotes = false;
            self.world.promote();
            return Ok(true);
        }
        if !self.requests.is_empty() && self.faults_left > 0 && self.world.rng.chance(4) {
            self.faults_left -= 1;
            self.app.no_link = true;
            self.world.note(|| "no link can be had".into());
            let error = Error::new(ErrorKind::FailoverTimeout, "no server");
            self.session.handle_no_link(&error);
            self.drain_events()?;
            return Ok(true);
        }
        if !self.world.servers[primary].alive {
            if self.promotes {
                return Ok(false);
            }
            self.world.restart(primary);
            return Ok(true);
        }
        let mut server = primary;
        let old = (0..primary).rev().find(|old| self.world.servers[*old].alive);
        if let Some(old) = old.filter(|_| self.world.rng.chance(15)) {
            server = old;
        }
        self.make_link(server)?;
        Ok(true)
    }

    fn make_link(&mut self, server: usize) -> Result {
        let id = self.world.backends.len();
        let buffer = *self.world.rng.pick(&[0, 40, 8192]);
        let mut backend = Backend::new(id, server, buffer);
        backend.session.settings.clear();
        self.world.backends.push(backend);
        let mut prepared = Vec::new();
        if self.world.rng.chance(60) {
            let mut bytes = BytesMut::new();
            prepared = internals::prepare(self.access, &[], &mut bytes);
            bytes.extend_from_slice(b"S\0\0\0\x04");
            self.world.backends[id].input.extend_from_slice(&bytes);
            let mut known: Vec<_> =
                self.statements.values().filter(|s| s.is_named()).cloned().collect();
            known.sort_by_key(|statement| statement.id);
            for statement in known {
                if self.world.rng.chance(30) && !statement.sql.starts_with("SELEC ") {
                    self.world.parse_message(id, statement.name.clone(), statement.sql.clone());
                    prepared.push(statement.id);
                }
            }
            while self.world.step(id)? {}
            self.world.backends[id].wire.clear();
        }
        let timeline = self.world.servers[server].timeline;
        let ready = LinkReady {
            server,
            timeline,
            backend_pid: self.world.backends[id].pid,
            backend_start: self.world.backends[id].start.clone(),
            prepared,
            parameters: Vec::new(),
            ledger: self.access,
        };
        self.world
            .note(|| format!("a link to server {server}, backend {id}: {:?}", ready.prepared));
        let taken = self.session.handle_link_ready(ready);
        if timeline < self.highest_timeline {
            self.world.end_backend(id, None);
            return match taken {
                Err(_) => Ok(()),
                Ok(()) => Err("the session goes back to an older timeline".into()),
            };
        }
        taken.map_err(|error| format!("the session refuses a good link: {error}"))?;
        self.highest_timeline = timeline;
        self.link = Some(id);
        self.drain_events()
    }

    /// The application does one thing.
    fn application(&mut self) -> Result<bool> {
        if !self.session.is_live() {
            return Ok(false);
        }
        if let Some(request) = self.requests.front().filter(|request| request.copies_in()) {
            if request.copy_ready && request.error.is_none() && self.session.copies_in() {
                return self.copy();
            }
            return Ok(false);
        }
        if self.requests.is_empty() {
            self.check_quiet()?;
            if self.steps_left == 0 && self.app.tx.is_none() {
                return Ok(false);
            }
            self.steps_left = self.steps_left.saturating_sub(1);
            self.pipeline = if self.world.rng.chance(30) { 1 + self.world.rng.below(5) } else { 0 };
        } else if self.pipeline == 0 || !self.session.accepts_requests() {
            return Ok(false);
        } else {
            self.pipeline -= 1;
        }
        let alone = self.requests.is_empty();
        let in_tx = self.app.tx.is_some();
        let ends = in_tx && (self.steps_left == 0 || self.world.rng.chance(20));
        let request = if ends {
            self.pipeline = 0;
            let kind = if self.world.rng.chance(75) { Kind::Commit } else { Kind::Rollback };
            Request::new(kind, if kind == Kind::Commit { "COMMIT" } else { "ROLLBACK" })
        } else if !in_tx && alone && self.world.rng.chance(30) {
            self.app.begin();
            Request::new(Kind::Begin, "BEGIN")
        } else {
            app::request(&mut self.world.rng, &mut self.app, alone)
        };
        if request.copies_in() || request.sql.contains("DISCARD") || request.sql.contains("DEALLOC")
        {
            self.pipeline = 0;
        }
        self.make(request)?;
        Ok(true)
    }

    fn make(&mut self, request: Request) -> Result {
        self.figures.requests += 1;
        self.world
            .note(|| format!("the application: {} (streamed {})", request.sql, request.streamed));
        let (kind, sql, streamed) = (request.kind, request.sql.clone(), request.streamed);
        self.requests.push_back(request);
        let made = match kind {
            Kind::Begin => self.session.begin(BeginOptions::default()),
            Kind::Commit => self.session.commit(false),
            Kind::Rollback => self.session.rollback(false),
            Kind::Execute => {
                let number = internals::FIRST_STATEMENT + self.statements.len() as u32;
                let cached = self.statements.entry(sql);
                let statement = cached.or_insert_with_key(|sql| {
                    let statement = Statement::new(number, sql, &[], !number.is_multiple_of(5));
                    Arc::new(statement.unwrap_or_else(|| unreachable!("no NUL byte")))
                });
                let statement = Arc::clone(statement);
                self.session.execute(Execute {
                    statement: &statement,
                    parameters: &NoParameters,
                    text_results: false,
                    streamed,
                })
            }
        };
        made.map_err(|error| format!("a request is refused: {error}"))?;
        self.drain_events()
    }

    fn copy(&mut self) -> Result<bool> {
        let Some(request) = self.requests.front_mut() else { return Ok(false) };
        let done = if request.lines.is_empty() {
            let reason = request.copy_fails.then_some("the application gives up");
            self.session.copy_end(reason)
        } else {
            let line = request.lines.remove(0);
            self.session.copy_data(format!("{line}\n").as_bytes())
        };
        done.map_err(|error| format!("COPY: {error}"))?;
        self.drain_events()?;
        Ok(true)
    }

    fn drain_events(&mut self) -> Result {
        while let Some(event) = self.session.poll_event() {
            self.world.note(|| format!("told: {event:?}"));
            self.event(event)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result {
        match event {
            Event::Parameter { .. } | Event::Notice(_) | Event::Notification { .. } => {
                return Ok(());
            }
            Event::ProtectionLost(_) | Event::ReplayFinished => return Ok(()),
            Event::ReplayStarted { .. } => {
                self.figures.replays += 1;
                return Ok(());
            }
            Event::ReplayDiverged { .. } => {
                self.figures.divergences += 1;
                return Ok(());
            }
            Event::CommitsLost { session, from, to } => {
                self.figures.commits_lost += 1;
                let server = self.link.map(|id| self.world.backends[id].server);
                let wal = server.map_or(&[][..], |server| &self.world.servers[server].wal);
                let kept = wal.iter().filter_map(|record| record.sealed).find(|(row, number)| {
                    *row == session && (from..=to).contains(&number.cast_unsigned())
                });
                if let Some((_, number)) = kept {
                    return Err(format!("commit {number} is reported lost, and is there"));
                }
                self.app.lost.push((session, from, to));
                return Ok(());
            }
            Event::AwaitBackup { ledger_row, number } => {
                self.awaiting = Some((ledger_row, number));
                return Ok(());
            }
            _ => {}
        }
        let Some(request) = self.requests.front_mut() else {
            return Err(format!("{event:?}, and nothing was requested"));
        };
        // A commit that no backup confirms is told of in both ways.
        let unconfirmed = request.kind == Kind::Commit && matches!(event, Event::Complete(_));
        if request.error.is_some() && !unconfirmed && !matches!(event, Event::Ready(_)) {
            return Err(format!("{event:?} behind the error of {}", request.sql));
        }
        match event {
            Event::Row(body) => request.rows.push(String::from_utf8_lossy(&body[6..]).into_owned()),
            Event::CopyData(body) => request.rows.push(String::from_utf8_lossy(&body).into_owned()),
            Event::Complete(tag) => {
                let end = String::from_utf8_lossy(&tag).trim_end_matches('\0').to_owned();
                let rows = std::mem::take(&mut request.rows);
                request.results.push(crate::data::Reply { rows, end });
            }
            Event::CopyIn => request.copy_ready = true,
            Event::Restarted => {
                if request.streamed {
                    return Err(format!("{} is streamed, and is taken back", request.sql));
                }
                request.rows.clear();
                request.results.clear();
            }
            Event::Error(error) => request.error = Some(error),
            Event::Ready(status) => {
                let Some(request) = self.requests.pop_front() else { return Ok(()) };
                check_status(&request, status)?;
                self.app.finish(request, &self.world)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing is under way: the session, its server and the application must agree.
    fn check_quiet(&mut self) -> Result {
        if !self.session.is_quiet() {
            return Ok(());
        }
        let Some(id) = self.link else { return Ok(()) };
        let backend = &self.world.backends[id];
        let in_tx = self.app.tx.is_some();
        if !in_tx && self.session.journal_len() > 0 {
            return Err(format!("{} bytes stay in the journal", self.session.journal_len()));
        }
        if !backend.alive || backend.eof || in_tx || !self.session.output().is_empty() {
            return Ok(());
        }
        if !backend.is_idle() {
            return Err("the session is quiet, its backend is not".into());
        }
        if self.session.status() != Status::Idle {
            return Err(
                "the session is in a transaction of which the application knows nothing".into()
            );
        }
        let refused = self.app.no_link || self.app.read_only_seen;
        if !self.app.settings_unknown && !refused && backend.session != self.app.session {
            return Err(format!(
                "in force: {:?}; the application has set {:?}",
                backend.session, self.app.session
            ));
        }
        Ok(())
    }

    /// All is answered: lets everything that is still at work come to its end, and judges.
    fn finish(&mut self) -> Result {
        if self.promotes {
            self.promotes = false;
            self.world.promote();
        }
        if self.link.is_some_and(|id| self.world.backends[id].server != self.world.primary) {
            self.lose_link(true)?;
        }
        self.world.note(|| "the end: everything comes to rest".into());
        self.faults_left = 0;
        let mut barren = 0;
        while barren < 3000 {
            let primary = self.world.primary;
            if self.world.lag() > 0 {
                self.world.replicate(usize::MAX / 2);
            }
            if self.link.is_none() && self.world.servers[primary].alive {
                self.make_link(primary)?;
            }
            let done = self.round()?;
            let rests = self.session.is_quiet()
                && !done
                && (0..self.world.backends.len()).all(|id| !self.is_zombie_on(id, primary));
            barren = if done { 0 } else { barren + 1 };
            if rests && barren > 100 {
                break;
            }
        }
        self.serve_files()?;
        if let Some(files) = &self.files {
            for server in &self.world.servers {
                files.check(&server.wal)?;
            }
            if self.session.is_quiet() {
                files.check_empty()?;
            }
        }
        if !self.session.is_quiet() {
            return Err("the session does not come to rest".into());
        }
        self.check_quiet()?;
        self.figures.unknown = self.app.unknowns;
        let strict = self.world.sync && !self.world.sync_broken;
        self.app.judge(&self.world, strict)
    }

    fn is_zombie_on(&self, id: usize, server: usize) -> bool {
        self.is_zombie(id) && self.world.backends[id].server == server
    }
}

fn check_status(request: &Request, status: Status) -> Result {
    let ended = request.kind != Kind::Begin && request.autocommit;
    if ended && status != Status::Idle {
        return Err(format!("{} has ended with status {status:?}", request.sql));
    }
    Ok(())
}

/// Bytes in a form that a reader of the trace can make out.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            32..=126 => text.push(char::from(*byte)),
            _ if !text.ends_with('.') => text.push('.'),
            _ => {}
        }
    }
    text
}
