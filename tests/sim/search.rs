//! How a session of the run comes to a link and leaves it, where the real picture decides it: what
//! `src/client/driver/link.rs` and `src/cluster/acquire.rs` do, with their waiting written out.

use std::time::Instant;

use segue::cluster::detector::Failure;
use segue::cluster::picture::{Next, Observed};
use segue::cluster::seeking::Seeking;
use segue::cluster::{Confirmed, Want};
use segue::error::{Error, ErrorKind};

use crate::clock::{MS, NEVER};
use crate::monitor::us;
use crate::net::{Answer, Ask, To, Traffic, Way};
use crate::replication::OURS;
use crate::run::{Result, Run};

/// As `acquire::RETRY`.
const RETRY: u64 = 20 * MS;
/// A deadline is kept to within this.
const SLACK: u64 = 20 * MS;

/// A session's request for a link.
pub struct Search {
    want: Want,
    asked: Instant,
    began: u64,
    stage: Stage,
    /// The changes that were known when it looked last.
    changes: u64,
}

/// What has come of one step of a search.
pub enum Found {
    Nothing,
    /// A backend of the server at this address, on this timeline.
    Link {
        address: usize,
        backend: usize,
        timeline: u32,
    },
    InVain(Error),
}

enum Stage {
    Waiting,
    Dialling { ask: Ask, server: usize, limit: u64 },
    Retry(u64),
}

/// Since when a session of the run waits, and for what, by the account of the run itself.
#[derive(Debug, Default)]
pub struct Waits {
    /// Since when it has looked for a link on which it can go on.
    pub seeks_since: Option<u64>,
    pub linked_at: u64,
    pub backup_since: Option<u64>,
    /// The application asks for nothing until then.
    pub idle_until: u64,
    /// Its link was shut down by the monitor.
    pub woken: bool,
}

impl Search {
    pub fn next(&self, deadline: u64) -> u64 {
        let stage = match &self.stage {
            Stage::Waiting => NEVER,
            Stage::Dialling { ask, limit, .. } => ask.next().min(*limit),
            Stage::Retry(at) => *at,
        };
        stage.min(deadline)
    }

    pub fn deadline(&self) -> Instant {
        self.want.deadline
    }
}

impl Run {
    /// Whether the real detector and choice are at work in this run.
    pub fn is_watched(&self) -> bool {
        !self.monitors.is_empty()
    }

    /// The session has no link, and looks for one. Whether anything came of it.
    pub fn seek(&mut self) -> Result<bool> {
        if self.client.link.is_some() {
            return Ok(false);
        }
        if !self.client.session.wants_link() {
            return Err("there is no link, and the session wants none".into());
        }
        let now = self.world.now;
        if self.client.search.is_none() && self.client.waits.idle_until > now {
            return Ok(false);
        }
        if self.client.search.is_none() {
            let monitor = &self.monitors[self.client.monitor];
            let of_whom = (self.client.number as u64, self.client.session.timeline_floor(), true);
            let at = monitor.origin.at(now);
            let want = self.client.seeking.want(at, monitor.timing.timeout, of_whom);
            self.begin_search(want);
        }
        match self.search_on()? {
            Found::Nothing => Ok(false),
            Found::InVain(error) => self.found_none(&error),
            Found::Link { address, backend, timeline } => {
                self.register(address, backend, timeline)?;
                self.client.seeking.handle_taken();
                self.give_link(self.world.backends[backend].server, backend, timeline)?;
                self.wake();
                Ok(true)
            }
        }
    }

    /// A session of this client's, or its recovery, asks for a link.
    pub fn begin_search(&mut self, want: Want) {
        let now = self.world.now;
        let monitor = &mut self.monitors[self.client.monitor];
        if let Some(lost) = want.lost {
            monitor.picture.servers[lost].detector.handle_report();
        }
        monitor.picture.waiting += 1;
        self.client.waits.seeks_since.get_or_insert(now);
        self.next_due = now;
        let (asked, stage, changes) = (monitor.origin.at(now), Stage::Retry(now), monitor.changes);
        self.client.search = Some(Search { want, asked, began: now, stage, changes });
    }

    pub fn search_on(&mut self) -> Result<Found> {
        let Some(mut search) = self.client.search.take() else { return Ok(Found::Nothing) };
        let found = self.step_of_search(&mut search)?;
        self.client.search = Some(search);
        match found {
            Found::Nothing => self.judge_search()?,
            Found::InVain(ref error) => {
                self.judge_end(error)?;
                self.end_search();
                self.client.waits.seeks_since = None;
            }
            Found::Link { .. } => self.end_search(),
        }
        Ok(found)
    }

    pub fn end_search(&mut self) {
        if self.client.search.take().is_some() {
            self.monitors[self.client.monitor].picture.waiting -= 1;
        }
    }

    fn step_of_search(&mut self, search: &mut Search) -> Result<Found> {
        let now = self.world.now;
        let monitor = &mut self.monitors[self.client.monitor];
        if search.want.deadline <= monitor.origin.at(now) {
            let error = monitor.picture.deadline_error(&search.want, search.asked);
            return Ok(Found::InVain(error));
        }
        match &mut search.stage {
            Stage::Waiting if search.changes == monitor.changes => {}
            Stage::Retry(until) if *until > now && search.changes == monitor.changes => {}
            Stage::Waiting | Stage::Retry(_) => {
                search.changes = monitor.changes;
                match monitor.picture.next(&search.want, search.asked) {
                    Next::Refused(error) => return Ok(Found::InVain(error)),
                    Next::Wait => search.stage = Stage::Waiting,
                    Next::Take { server, warm } => {
                        let warm = if warm { self.take_warm(search, server)? } else { None };
                        if let Some(found) = warm {
                            return Ok(found);
                        }
                        let to = (server, Traffic::Sessions);
                        let ask = Ask::new(to, None, &self.net, &mut self.world.rng, now);
                        let limit = now + self.monitors[self.client.monitor].dial_limit();
                        search.stage = Stage::Dialling { ask, server, limit };
                        self.next_due = self.next_due.min(search.next(NEVER));
                    }
                }
            }
            Stage::Dialling { ask, server, limit } => {
                let server = *server;
                let access = crate::client::access(self.client.access);
                let answer = ask.poll(&self.net, &mut self.world, access, monitor.origin);
                let failure = match answer {
                    Some(Answer::Is(observed, to)) => {
                        let began = ask.began;
                        monitor.dialled(server, began, observed.clone(), &mut self.world)?;
                        if let Some(found) = self.take_dialled(search, server, &observed, to) {
                            return Ok(found);
                        }
                        search.stage = Stage::Retry(now + RETRY);
                        None
                    }
                    Some(Answer::Fails(Failure::Refuses(error))) => {
                        return Ok(Found::InVain(error));
                    }
                    Some(Answer::Fails(failure)) => Some(failure),
                    None if *limit <= now => Some(Failure::Silent("no connection".into())),
                    None if monitor.picture.pick(&search.want) != Some(server) => {
                        search.stage = Stage::Retry(now);
                        self.next_due = now;
                        None
                    }
                    None => None,
                };
                if let Some(failure) = failure {
                    let monitor = &mut self.monitors[self.client.monitor];
                    monitor.failed(server, failure, true, &mut self.world)?;
                    search.stage = Stage::Retry(now + RETRY);
                }
            }
        }
        Ok(Found::Nothing)
    }

    fn take_warm(&mut self, search: &Search, address: usize) -> Result<Option<Found>> {
        let now = self.world.now;
        loop {
            let monitor = &mut self.monitors[self.client.monitor];
            let Some(backend) = monitor.pools[address].links.pop() else { return Ok(None) };
            let it = &mut monitor.picture.servers[address];
            it.warm_links = it.warm_links.saturating_sub(1);
            if !self.world.backends[backend].alive {
                continue;
            }
            let facts = it.observed.as_ref().map(|observed| observed.facts.clone());
            let facts =
                facts.filter(|facts| monitor.picture.satisfies(address, facts, &search.want));
            let Some(facts) = facts else {
                self.world.end_backend(backend, None);
                continue;
            };
            if search.want.lost == Some(address) && monitor.told[address].proved < search.began {
                return Err(format!(
                    "a warm link to server {address}, which was just lost and not dialled since"
                ));
            }
            self.world.note(|| format!("backend {backend} was warm, at {now}"));
            self.world.backends[backend].warm = false;
            return Ok(Some(Found::Link { address, backend, timeline: facts.timeline }));
        }
    }

    fn take_dialled(
        &mut self,
        search: &Search,
        address: usize,
        observed: &Observed,
        to: To,
    ) -> Option<Found> {
        let picture = &self.monitors[self.client.monitor].picture;
        if to.is_dead(&self.world) || !picture.satisfies(address, &observed.facts, &search.want) {
            return None;
        }
        let backend = self.world.open_backend(to.server);
        Some(Found::Link { address, backend, timeline: observed.facts.timeline })
    }

    /// The cluster is told who uses the link from now on.
    pub fn register(&mut self, address: usize, backend: usize, timeline: u32) -> Result {
        let number = self.client.number as u64;
        let monitor = &mut self.monitors[self.client.monitor];
        let server = self.world.backends[backend].server;
        if self.world.servers[server].system != OURS {
            return Err("a session is given a server of another cluster".into());
        }
        if timeline < monitor.newest {
            return Err(format!(
                "a session is given timeline {timeline}, and {} was known to be writable",
                monitor.newest
            ));
        }
        monitor.picture.handle_handover(address);
        monitor.registered.insert(number, address);
        let effects = monitor.picture.handle_register(number, address);
        monitor.apply(effects, &mut self.world)?;
        self.client.waits.linked_at = self.world.now;
        Ok(())
    }

    /// The search ends in vain: whether it does so in time.
    fn judge_end(&mut self, error: &Error) -> Result {
        let now = self.world.now;
        self.world.note(|| format!("no link can be had: {error}"));
        let Some(search) = &self.client.search else { return Ok(()) };
        if error.kind() == ErrorKind::FailoverTimeout {
            self.figures.timeouts += 1;
            let timeout = us(self.monitors[self.client.monitor].timing.timeout);
            let since = self.client.waits.seeks_since.unwrap_or(now);
            let due = (since + timeout).max(search.began);
            if now < since + timeout || now > due + SLACK {
                return Err(format!(
                    "a session is told that its time is over {} us after it began to wait, of {timeout}",
                    now - since
                ));
            }
        }
        Ok(())
    }

    fn found_none(&mut self, error: &Error) -> Result<bool> {
        // The application waits a little before it tries again.
        self.client.waits.idle_until = self.world.now + RETRY;
        self.client.seeking.handle_none();
        self.client.app.no_link = true;
        self.client.app.time_is_over = true;
        self.client.session.handle_no_link(error);
        self.drain_events()?;
        self.client.app.time_is_over = false;
        Ok(true)
    }

    /// Nobody waits behind his deadline, nor while there is what he waits for.
    fn judge_search(&self) -> Result {
        let Some(search) = &self.client.search else { return Ok(()) };
        let (now, waits) = (self.world.now, &self.client.waits);
        let timing = &self.monitors[self.client.monitor].timing;
        let since = waits.seeks_since.unwrap_or(search.began);
        if now > (since + us(timing.timeout)).max(search.began) + SLACK {
            return Err(format!("a session has waited for a link since {since}, and it is {now}"));
        }
        let bound = us(timing.poll_timeout) * 8 + us(timing.poll_interval) + 1500 * MS;
        match self.well_since {
            Some(well) if now > well.max(search.began) + bound => Err(format!(
                "a session waits for a link since {}, and a server could be had since {well}; it is {now}",
                search.began
            )),
            _ => Ok(()),
        }
    }

    /// The client has noticed that its link is lost.
    pub fn left(&mut self, address: usize) {
        let Some(monitor) = self.monitors.get_mut(self.client.monitor) else { return };
        let number = self.client.number as u64;
        monitor.registered.remove(&number);
        monitor.picture.handle_deregister(number);
        self.client.seeking.handle_lost(address);
        self.client.waits.woken = false;
        self.client.waits.backup_since = None;
    }

    /// The client's process has died, and its monitor's account of it with it.
    pub fn forget_waits(&mut self) {
        self.end_search();
        self.client.seeking = Seeking::default();
        self.client.waits = Waits::default();
        self.begin_picture();
    }

    /// The next process's picture of the cluster is empty, if the one before did not share it.
    fn begin_picture(&mut self) {
        let own = self.client.monitor;
        let shared = self.others.iter().any(|other| other.monitor == own);
        // Which of two clusters is its own it could not know.
        let system = |address: &crate::net::Address| self.world.servers[address.server].system;
        let all_ours = self.net.addresses.iter().all(|address| system(address) == OURS);
        if !self.is_watched() || shared || !all_ours {
            return;
        }
        let anew = self.monitors[own].anew();
        let before = std::mem::replace(&mut self.monitors[own], anew);
        for backend in before.pools.into_iter().flat_map(|pool| pool.links) {
            self.world.end_backend(backend, None);
        }
        self.next_due = 0;
    }

    /// Tells those sessions that the monitors have woken.
    pub fn wake(&mut self) {
        for index in 0..self.monitors.len() {
            for session in std::mem::take(&mut self.monitors[index].woken) {
                let mut clients = self.clients_mut();
                if let Some(client) = clients.find(|client| client.number as u64 == session) {
                    client.waits.woken = client.backend().is_some();
                }
            }
        }
    }

    pub fn address_of(&self, backend: usize) -> usize {
        self.world.servers[self.world.backends[backend].server].address
    }

    /// Whether what a backend's client and it send each other gets there.
    pub fn is_cut(&self, backend: usize, way: Way) -> bool {
        let (address, now) = (self.address_of(backend), self.world.now);
        self.net.blocked(address, Traffic::Sessions, way, now).is_some()
    }

    /// Whether the server's processes are stopped.
    pub fn is_hung(&self, server: usize) -> bool {
        let address = self.world.servers[server].address;
        self.net.addresses.get(address).is_some_and(|it| it.hung_until > self.world.now)
    }

    /// Whether the client notices that this link of its own is lost.
    pub fn is_gone(&self, id: usize) -> bool {
        let (now, address) = (self.world.now, self.address_of(id));
        let cut = self.net.blocked_since(address, Traffic::Sessions, now);
        let given_up = cut
            .is_some_and(|since| now >= since.max(self.client.waits.linked_at) + self.user_timeout);
        let closed = !self.world.backends[id].alive && !self.is_cut(id, Way::ToClient);
        self.client.waits.woken || closed || given_up
    }

    /// No session stays on a server that was silent for too long, or that the cluster has left.
    pub fn judge_link(&self) -> Result {
        let Some(id) = self.client.link.filter(|_| !self.client.waits.woken) else { return Ok(()) };
        let address = self.address_of(id);
        let monitor = &self.monitors[self.client.monitor];
        let (now, timing) = (self.world.now, &monitor.timing);
        let told = &monitor.told[address];
        let patience = us(timing.timeout) + us(timing.poll_timeout) * 3 + us(timing.poll_interval);
        let linked = self.client.waits.linked_at;
        if !told.dead && now > told.answered.max(linked) + patience + 1000 * MS {
            return Err(format!("a session waits for a server that was last heard of {told:?}"));
        }
        let left = told.writes().is_some_and(|timeline| timeline < monitor.newest);
        if left && now > monitor.newest_since.max(linked) + 1000 * MS {
            return Err(format!(
                "a session stays on timeline {:?}: {}",
                told.writes(),
                monitor.newest
            ));
        }
        Ok(())
    }

    /// The backup is asked for a commit, with the picture's word on when that is in vain.
    pub fn hear_backup(&mut self, row: uuid::Uuid, number: u64) -> Result<bool> {
        let now = self.world.now;
        let since = *self.client.waits.backup_since.get_or_insert(now);
        let monitor = &self.monitors[self.client.monitor];
        let timeout = us(monitor.timing.timeout);
        let deadline = monitor.origin.at(since + timeout);
        let server = self.client.session.server();
        let word = monitor.picture.backup_word(monitor.origin.at(now), server, deadline);
        let word = match word {
            Some(word) => Some(word),
            None => {
                let standby = monitor
                    .picture
                    .backup()
                    .filter(|standby| self.net.answers(*standby, now) && self.world.rng.chance(30));
                standby.and_then(|standby| {
                    let server = &self.world.servers[self.net.addresses[standby].server];
                    let has = |sealed: Option<(uuid::Uuid, i64)>| {
                        sealed.is_some_and(|(it, at)| it == row && at.cast_unsigned() >= number)
                    };
                    let has = server.alive && server.wal.iter().any(|record| has(record.sealed));
                    has.then_some(Ok(Confirmed::ByBackup))
                })
            }
        };
        let Some(word) = word else {
            if now > since + timeout + SLACK {
                return Err(format!("a commit has waited for the backup since {since}: {now}"));
            }
            return Ok(false);
        };
        self.world.note(|| format!("the backup: {word:?}"));
        self.client.awaiting = None;
        self.client.waits.backup_since = None;
        match word {
            Ok(Confirmed::Moved) => {
                self.lose_link(true)?;
                return Ok(true);
            }
            Ok(Confirmed::NoBackup) => {
                let others = self.monitors[self.client.monitor].told.iter().enumerate();
                if let Some(up) = others.filter(|(at, _)| *at != server).find(|(_, it)| !it.dead) {
                    return Err(format!("there is said to be no backup: {up:?}"));
                }
                // The application was told that its commits have no backup.
                self.client.app.backed = false;
                self.client.session.handle_backup(Ok(()));
            }
            Ok(Confirmed::ByBackup) => self.client.session.handle_backup(Ok(())),
            Err(error) => {
                if now < since + timeout {
                    return Err("the wait for the backup ends before its deadline".into());
                }
                self.client.app.time_is_over = true;
                self.client.session.handle_backup(Err(error));
                self.drain_events()?;
                self.client.app.time_is_over = false;
            }
        }
        self.drain_events()?;
        self.take_input()?;
        Ok(true)
    }
}
