//! A client's process that dies at any moment, and the one that comes after it: it takes over the journal
//! by the real code, asks the ledger, and goes on with a new session. It may die as well.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::BytesMut;
use segue::RecoveredTransaction;
use segue::client::parts::{Answers, Asks, Inquiry, Reply, Survey, is_passing};
use segue::cluster::Want;
use segue::cluster::seeking::Seeking;
use segue::error::{Error, ErrorKind};
use segue::session::{LedgerAccess, Session};
use uuid::Uuid;

use crate::aftermath;
use crate::backend::{Wait, message};
use crate::disk::{CLUSTER, Disk};
use crate::figures::Fault;
use crate::files::Files;
use crate::focus::Focus;
use crate::ledger::REFUSALS;
use crate::monitor::us;
use crate::net::Way;
use crate::replication::OURS;
use crate::run::{Result, Run};
use crate::search::{Found, Waits};

/// How far the new process has come.
pub enum Recovery {
    /// The journal is to be opened.
    Opening,
    /// It is to be looked through.
    Opened,
    Asking(Box<Asking>),
    /// The application deals with what it was told.
    Telling(Vec<RecoveredTransaction>, Again),
}

/// Whether to ask once more, for there was no server.
#[derive(PartialEq)]
pub struct Again(bool);

pub struct Asking {
    survey: Survey,
    /// What server is asked for, and until when, where the picture of the cluster chooses it.
    want: Option<Want>,
    /// A backend, and what it is asked.
    link: Option<Link>,
    /// What it has said, if the backup has to have that before anything is told.
    answers: Option<Answers>,
}

struct Link {
    backend: usize,
    inquiry: Inquiry,
    kind: Option<Asks>,
    input: BytesMut,
    reply: Reply,
}

impl Recovery {
    /// The backend that is asked.
    pub fn backend(&self) -> Option<usize> {
        match self {
            Self::Asking(asking) => asking.link.as_ref().map(|link| link.backend),
            _ => None,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Asking(asking) => asking.want.as_ref().map(|want| want.deadline),
            _ => None,
        }
    }
}

impl Run {
    /// Whether this client's process may die now; it does so by a generator of its own.
    pub fn crash_is_due(&mut self) -> bool {
        if self.world.profile.focus.is_some_and(Focus::disk) {
            // They are kept for their moment.
            return false;
        }
        let client = &mut self.client;
        let in_flight = match &client.recovery {
            Some(_) => 40,
            None if client.session.commit_in_flight() => 30,
            None if client.app.tx.is_some() || !client.requests.is_empty() => 8,
            None => 1,
        };
        // Whatever happens once a session has failed over is worth looking at.
        let likely = if client.highest_timeline > 1 { 3 * in_flight } else { in_flight };
        let files = client.files.as_mut().and_then(|files| files.disk.as_mut());
        files.is_some_and(|disk| disk.crashes_left > 0 && disk.rng.below(1000) < likely)
    }

    /// The process dies.
    pub fn crash_client(&mut self) -> Result {
        if let Some(disk) = self.client.files.as_mut().and_then(|files| files.disk.as_mut()) {
            disk.crashes_left -= 1;
        }
        let number = self.faults;
        self.faults += 1;
        if self.plan.without_faults.contains(&number) {
            return Ok(());
        }
        self.figures.fault(Fault::ClientCrash);
        let who = self.client.number;
        self.world.note(|| format!("fault {number}: the process of client {who} dies"));
        match self.client.recovery.take() {
            None => self.die_at_work(),
            Some(recovery) => {
                self.figures.crashes_of_recoveries += 1;
                if let Some(id) = recovery.backend() {
                    self.hang_up(id);
                }
                drop(recovery);
                self.forget_waits();
                self.die(|_| {});
            }
        }
        Ok(())
    }

    fn die_at_work(&mut self) {
        // Some of what was to be sent has been.
        if let Some(id) = self.client.link.take() {
            let output = self.client.session.output().to_vec();
            let half = self.world.rng.chance(50);
            let sent = if half { self.world.rng.below(output.len() + 1) } else { 0 };
            self.world.backends[id].inflight.extend(&output[..sent]);
            self.left(self.address_of(id));
            self.leave_backend(id);
        }
        self.forget_waits();
        self.client.awaiting = None;
        self.client.input.clear();
        self.client.pipeline = 0;
        let newest = std::mem::take(&mut self.client.highest_timeline);
        self.client.aftermath.timeline = self.client.aftermath.timeline.max(newest);
        self.client.has_moved = false;
        self.client.statements.clear();
        self.client.incarnation += 1;
        let (options, seed) = (self.client.options.clone(), self.client.seed());
        let mut session = std::mem::replace(&mut self.client.session, Session::new(options, seed));
        // Perhaps in the midst of what the journal was being given.
        let gives = self.world.rng.chance(40);
        self.die(|files| {
            if gives {
                files.serve_last(&mut session);
            }
        });
        // What was handed over last counts as well.
        self.client.app.unsealed |=
            self.client.files.as_ref().is_some_and(|files| files.unsealed_of_process);
        aftermath::of_crash(&mut self.client);
        if let Some(files) = &mut self.client.files {
            files.begin_anew();
        }
        let fills = self.world.profile.focus == Some(Focus::JournalFills);
        self.client.steps_left += 1 + self.world.rng.below(if fills { 60 } else { 5 });
    }

    fn die(&mut self, last: impl FnOnce(&mut Files)) {
        let Some(files) = &mut self.client.files else { return };
        let Some(mark) = files.disk.as_ref().map(Disk::mark) else { return };
        last(files);
        let left = files.disk.as_mut().map(|disk| disk.crash(mark));
        self.world.note(|| format!("of its journal there is left: {left:?}"));
        self.client.recovery = Some(Recovery::Opening);
    }

    fn hang_up(&mut self, id: usize) {
        self.left(self.address_of(id));
        self.leave_backend(id);
    }

    /// Nobody listens to it any more; what was under way to it may arrive yet.
    fn leave_backend(&mut self, id: usize) {
        let rng = &mut self.world.rng;
        let backend = &mut self.world.backends[id];
        backend.eof = true;
        let left = backend.inflight.len();
        let arrives = if rng.chance(50) { left } else { rng.below(left + 1) };
        backend.inflight.truncate(arrives);
        backend.stubborn = rng.chance(30);
    }

    /// The new process does one thing.
    pub fn recover(&mut self) -> Result<bool> {
        match self.client.recovery.take() {
            None => return Ok(false),
            Some(Recovery::Opening) => {
                if let Some(disk) = self.client.files.as_mut().and_then(|it| it.disk.as_mut()) {
                    disk.open();
                }
                self.world.note(|| "a later process opens the journal".into());
                self.client.recovery = Some(Recovery::Opened);
            }
            Some(Recovery::Opened) => self.survey()?,
            Some(Recovery::Asking(asking)) => return self.ask(*asking),
            Some(Recovery::Telling(found, again)) => self.deal_with(found, &again),
        }
        Ok(true)
    }

    fn survey(&mut self) -> Result {
        let disk = self.client.files.as_ref().and_then(|files| files.disk.as_ref());
        let Some(file) = disk.and_then(|disk| disk.file.as_ref()) else { return Ok(()) };
        let survey = Survey::take(&file.journal).map_err(|error| format!("recover: {error}"))?;
        if survey.wanted().is_empty() {
            self.world.note(|| "the ledger need not be asked".into());
            let server = self.world.primary;
            let found = survey.conclude(Ok(&Answers::default()));
            return self.told(found, Some(server), Again(false));
        }
        let want = self.is_watched().then(|| {
            self.client.waits.seeks_since = Some(self.world.now);
            let monitor = &self.monitors[self.client.monitor];
            Want {
                session: self.client.number as u64,
                timeline_floor: survey.timeline_floor(),
                writes: true,
                lost: None,
                deadline: monitor.origin.at(self.world.now + us(monitor.timing.timeout)),
            }
        });
        self.client.recovery =
            Some(Recovery::Asking(Box::new(Asking { survey, want, link: None, answers: None })));
        Ok(())
    }

    fn told(
        &mut self,
        found: Vec<RecoveredTransaction>,
        server: Option<usize>,
        again: Again,
    ) -> Result {
        for it in &found {
            self.figures.recovered += 1;
            self.world.note(|| {
                let (number, verdict) = (it.number(), it.verdict());
                let statements: Vec<String> = it
                    .statements()
                    .map(|it| {
                        it.map_or_else(
                            |error| error.to_string(),
                            |it| format!("{} {:?}", it.sql, it.copy_data),
                        )
                    })
                    .collect();
                let seals = it.seals();
                format!("transaction {number} is {}: {statements:?}, {seals:?}", verdict.name())
            });
        }
        aftermath::told(&mut self.client, &self.world, &found, server)?;
        self.client.recovery = Some(Recovery::Telling(found, again));
        Ok(())
    }

    /// The application is done with what it was told, but for now and then, and goes on.
    fn deal_with(&mut self, mut found: Vec<RecoveredTransaction>, again: &Again) {
        if again.0 {
            self.client.recovery = Some(Recovery::Opened);
            return;
        }
        if let Some(it) = found.pop() {
            let fills = self.world.profile.focus == Some(Focus::JournalFills);
            if self.world.rng.chance(if fills { 30 } else { 90 }) {
                self.client.aftermath.done(it.number(), it.done().is_ok());
            }
            self.client.recovery = Some(Recovery::Telling(found, Again(false)));
            return;
        }
        if let Some(disk) = self.client.files.as_mut().and_then(|files| files.disk.as_mut()) {
            disk.attend();
            disk.goes_wrong();
        }
        (self.client.seeking, self.client.waits) = (Seeking::default(), Waits::default());
        self.world.note(|| "a new session begins".into());
    }

    fn ask(&mut self, mut asking: Asking) -> Result<bool> {
        if self.client.access == LedgerAccess::None {
            let error = Error::new(ErrorKind::Ledger, "the model has no ledger");
            return self.give_up(asking, &error, false);
        }
        if asking.link.is_some() && self.is_late(&asking) {
            let error = Error::new(ErrorKind::FailoverTimeout, "no answer in time");
            return self.give_up(asking, &error, true);
        }
        let Some(mut link) = asking.link.take() else { return self.ask_somebody(asking) };
        let id = link.backend;
        // Where answers take their time there are more rounds to be lost in.
        let rarely = if self.is_watched() { 3000 } else { 300 };
        let lost = match self.is_watched() {
            true => self.is_gone(id),
            false => {
                let backend = &self.world.backends[id];
                let deposed = backend.server != self.world.primary;
                (!backend.alive && backend.wire.is_empty())
                    || (deposed && self.world.rng.chance(self.world.profile.deposed_links))
            }
        };
        if lost || self.world.rng.below(rarely) == 0 {
            self.world.note(|| format!("the link to backend {id} is lost, and the ledger unasked"));
            return self.ask_again(asking, id);
        }
        if let Some(answers) = asking.answers.take() {
            return self.await_backup(asking, link, answers);
        }
        let moved = match link.kind {
            None => {
                let Some(question) = link.inquiry.next() else {
                    // A new one takes its place, which has nothing to ask.
                    let inquiry = std::mem::replace(&mut link.inquiry, nothing_to_ask());
                    return self.await_backup(asking, link, inquiry.answers());
                };
                let body = [question.sql.as_bytes(), b"\0"].concat();
                self.world.note(|| format!("the ledger is asked: {}", question.sql));
                self.world.backends[id].inflight.extend(message(b'Q', &body));
                link.kind = Some(question.kind);
                true
            }
            Some(kind) => {
                let waits = matches!(self.world.backends[id].wait, Wait::Lock(_));
                if kind == Asks::Fence && waits && self.world.rng.chance(20) {
                    self.world.end_blocker(id);
                }
                let count = self.world.rng.below(200);
                let arrived = self.arrive(id, count);
                let hung = self.is_hung(self.world.backends[id].server);
                let stepped = !hung && self.world.step(id)?;
                self.stamp(id);
                let cut = self.is_cut(id, Way::ToClient);
                let there = self.world.backends[id].down.arrived(self.world.now);
                let count = if cut { 0 } else { self.world.rng.below(there + 1) };
                let backend = &mut self.world.backends[id];
                backend.down.take(count);
                let bytes: Vec<u8> = backend.wire.drain(..count).collect();
                link.input.extend_from_slice(&bytes);
                let fed = link.reply.feed(&mut link.input);
                if let Some(reply) = fed.map_err(|error| format!("the ledger's answer: {error}"))? {
                    link.kind = None;
                    match link.inquiry.handle(reply) {
                        Ok(()) => {}
                        Err(error) if is_passing(&error) => {
                            self.world.note(|| format!("{error}: it is asked again"));
                            return self.ask_again(asking, id);
                        }
                        // As where nobody answers in time.
                        Err(error) if REFUSALS.contains(&error.sqlstate()) => {
                            asking.link = Some(link);
                            return self.give_up(asking, &error, true);
                        }
                        Err(error) => return Err(format!("the ledger cannot be asked: {error}")),
                    }
                }
                arrived || stepped || count > 0
            }
        };
        asking.link = Some(link);
        self.client.recovery = Some(Recovery::Asking(Box::new(asking)));
        Ok(moved)
    }

    fn is_late(&self, asking: &Asking) -> bool {
        let now = self.monitors.first().map(|monitor| monitor.origin.at(self.world.now));
        asking.want.as_ref().is_some_and(|want| now >= Some(want.deadline))
    }

    fn ask_again(&mut self, mut asking: Asking, id: usize) -> Result<bool> {
        self.hang_up(id);
        (asking.link, asking.answers) = (None, None);
        self.client.recovery = Some(Recovery::Asking(Box::new(asking)));
        Ok(true)
    }

    /// There is no link, and one is looked for: by the real choice, or by chance.
    fn ask_somebody(&mut self, mut asking: Asking) -> Result<bool> {
        let (done, server) = match &mut asking.want {
            None => {
                // As when no server is found in time; it is asked once more later.
                if self.faults_left > 0 && self.world.rng.chance(3) {
                    let error = Error::new(ErrorKind::FailoverTimeout, "no server");
                    return self.give_up(asking, &error, true);
                }
                let (done, server) = self.find_asked(&asking);
                (done, server.map(|server| self.world.open_backend(server)))
            }
            Some(want) => {
                if self.client.search.is_none() {
                    self.begin_search(want.clone());
                }
                match self.search_on()? {
                    Found::Nothing => (false, None),
                    Found::InVain(error) => return self.give_up(asking, &error, true),
                    Found::Link { address, backend, timeline } => {
                        want.lost = Some(address);
                        want.timeline_floor = want.timeline_floor.max(timeline);
                        self.register(address, backend, timeline)?;
                        (true, Some(backend))
                    }
                }
            }
        };
        asking.link = server.map(|backend| {
            let server = self.world.backends[backend].server;
            self.world
                .note(|| format!("the ledger is asked on server {server}, backend {backend}"));
            let inquiry = Inquiry::new(CLUSTER, &asking.survey.wanted());
            Link { backend, inquiry, kind: None, input: BytesMut::new(), reply: Reply::default() }
        });
        self.client.recovery = Some(Recovery::Asking(Box::new(asking)));
        self.wake();
        Ok(done)
    }

    fn give_up(&mut self, mut asking: Asking, error: &Error, again: bool) -> Result<bool> {
        if let Some(link) = asking.link.take() {
            self.hang_up(link.backend);
        }
        self.client.waits.seeks_since = None;
        self.world.note(|| format!("the ledger cannot be asked: {error}"));
        let found = asking.survey.conclude(Err(error));
        self.told(found, None, Again(again))?;
        Ok(true)
    }

    fn conclude(&mut self, asking: Asking, id: usize, answers: &Answers) -> Result<bool> {
        let server = self.world.backends[id].server;
        self.hang_up(id);
        let found = asking.survey.conclude(Ok(answers));
        self.told(found, Some(server), Again(false))?;
        Ok(true)
    }

    /// With `commit_ack=backup` nothing is told that the backup does not have.
    fn await_backup(&mut self, mut asking: Asking, link: Link, answers: Answers) -> Result<bool> {
        let id = link.backend;
        let deposed = self.world.backends[id].server != self.world.primary;
        let standbys = self.world.standbys.iter().map(|standby| &self.world.servers[*standby]);
        let has = |row: &Uuid, number: u64| {
            let sealed = Some((*row, number.cast_signed()));
            let mut logs = standbys.clone().flat_map(|standby| &standby.wal);
            number == 0 || logs.any(|record| record.sealed == sealed)
        };
        let confirmed = answers.rows.iter().all(|(row, answer)| has(row, answer.behind.seq));
        if !self.client.app.backed || (!deposed && confirmed) {
            return self.conclude(asking, id, &answers);
        }
        (asking.link, asking.answers) = (Some(link), Some(answers));
        self.client.recovery = Some(Recovery::Asking(Box::new(asking)));
        Ok(false)
    }

    /// Looks for a server to ask; whether anything was done.
    fn find_asked(&mut self, asking: &Asking) -> (bool, Option<usize>) {
        let primary = self.world.primary;
        if self.promotes && (self.world.servers[primary].read_only || self.world.rng.chance(50)) {
            self.promotes = false;
            self.world.promote(self.world.standbys[0]);
            return (true, None);
        }
        if !self.world.servers[primary].alive {
            // In time, where there is one.
            if !self.promotes {
                self.world.restart(primary);
            }
            return (!self.promotes, None);
        }
        // What was the primary once may be all that can be reached.
        let floor = asking.survey.timeline_floor();
        let may_be_asked = |old: &usize| {
            let old = &self.world.servers[*old];
            old.alive && !old.in_recovery && old.system == OURS && old.timeline >= floor
        };
        let old = (0..primary).rev().find(may_be_asked);
        let old = old.filter(|_| self.world.rng.chance(50));
        (true, Some(old.unwrap_or(primary)))
    }
}

fn nothing_to_ask() -> Inquiry {
    Inquiry::new(CLUSTER, &BTreeMap::new())
}
