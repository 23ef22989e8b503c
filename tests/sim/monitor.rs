//! One client process's view of the cluster: the real picture (detector, choice, and what joins them),
//! fed in virtual time with what the model's servers answer. What is written down here of the monitor's
//! tasks is their waiting alone, in the order of `src/cluster/watch.rs` and `warm.rs`.
//!
//! Beside the picture stands an account of what it was told, by which its decisions are judged.

use std::collections::BTreeMap;
use std::time::Duration;

use segue::cluster::choice::Goal;
use segue::cluster::detector::{Failure, Health};
use segue::cluster::picture::{Effects, Observed, Picture};
use segue::cluster::{ClusterEvent, LedgerAccess};
use segue::config::{Config, Failover};

use crate::clock::{MS, NEVER, Origin};
use crate::net::{Answer, Ask, Net, To, Traffic, Way, observe};
use crate::replication::OURS;
use crate::rng::Rng;
use crate::run::Result;
use crate::world::World;

/// As `watch::PROBE_INTERVAL`.
const PROBE_INTERVAL: u64 = 1000 * MS;
/// As `warm::SURPLUS_KEPT`, and its pause after a failure.
const SURPLUS_KEPT: u64 = 30_000 * MS;
const WARM_RETRY: u64 = 500 * MS;
/// As `choice::STANDBY_SLACK`.
const STANDBY_SLACK: u64 = 16 << 20;

/// What the monitor was told of one server, whatever it made of it.
#[derive(Debug, Default, Clone)]
pub struct Told {
    pub seen: Option<Observed>,
    /// The newest timeline that it was on as a standby.
    pub followed: u32,
    /// When it answered last.
    pub answered: u64,
    /// The polls that it has missed since.
    pub misses: u32,
    /// It was found closed, refused, starting or full since.
    pub dead: bool,
    /// When a dial began that succeeded.
    pub proved: u64,
}

impl Told {
    pub fn writes(&self) -> Option<u32> {
        let facts = &self.seen.as_ref()?.facts;
        let ours = facts.system_identifier == OURS;
        (ours && !facts.in_recovery && !facts.read_only).then_some(facts.timeline)
    }
}

struct Watch {
    state: State,
    probed: u64,
    /// The role that the link has reported last.
    role: (bool, bool),
}

enum State {
    Down,
    Dialling { ask: Ask, limit: u64, miss: u64 },
    Resting { on: To, gone: u64 },
    Asking { on: To, ask: Ask, full: bool, miss: u64, beside: Option<(Ask, u64)> },
}

#[derive(Default)]
pub struct Pool {
    /// Backends that wait for a session.
    pub links: Vec<usize>,
    dialling: Option<(Ask, u64)>,
    retry: u64,
    surplus_since: Option<u64>,
}

pub struct Monitor {
    pub picture: Picture,
    pub timing: Failover,
    pub origin: Origin,
    pub told: Vec<Told>,
    pub pools: Vec<Pool>,
    /// The sessions that use a link, and of which server.
    pub registered: BTreeMap<u64, usize>,
    /// Sessions to be woken.
    pub woken: Vec<u64>,
    /// Something has changed that those who wait may care about.
    pub changes: u64,
    /// Members that were told to be writable were on this timeline.
    pub newest: u32,
    /// Since when a server other than the one in use is known to be newer.
    pub newest_since: u64,
    access: LedgerAccess,
    watches: Vec<Watch>,
}

/// What a run's clients are configured to.
pub fn timing(rng: &mut Rng) -> Failover {
    let plain = Config::parse_with("host=/tmp user=u dbname=d", &Default::default());
    let mut timing = plain.unwrap_or_else(|error| unreachable!("{error}")).failover;
    let mut ms = |from: &[u64]| Duration::from_millis(*rng.pick(from));
    timing.timeout = ms(&[800, 2000, 4000, 10_000]);
    timing.poll_interval = ms(&[50, 100, 250]);
    timing.poll_timeout = ms(&[100, 300, 1000]);
    timing.promotion_poll_interval = ms(&[10, 20, 50]);
    timing.poll_failures = 1 + rng.below(3) as u32;
    timing.standby_links_max = *rng.pick(&[0, 1, 64]);
    timing
}

pub fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(NEVER)
}

impl Monitor {
    pub fn new(timing: Failover, addresses: usize, access: LedgerAccess, origin: Origin) -> Self {
        let names = (0..addresses).map(|address| format!("address{address}")).collect();
        let watch = |_| Watch { state: State::Down, probed: 0, role: (false, false) };
        Self {
            picture: Picture::of(names, timing.clone(), Goal::ReadWrite),
            timing,
            origin,
            told: vec![Told::default(); addresses],
            pools: (0..addresses).map(|_| Pool::default()).collect(),
            registered: BTreeMap::new(),
            woken: Vec::new(),
            changes: 0,
            newest: 0,
            newest_since: 0,
            access,
            watches: (0..addresses).map(watch).collect(),
        }
    }

    /// That of another process with the same configuration, which knows nothing yet.
    pub fn anew(&self) -> Self {
        Self::new(self.timing.clone(), self.told.len(), self.access, self.origin)
    }

    pub fn dial_limit(&self) -> u64 {
        us(self.timing.poll_timeout) * 5
    }

    /// Does everything that is due.
    pub fn run(&mut self, net: &Net, world: &mut World) -> Result {
        let now = self.origin.at(world.now);
        if self.picture.opening_ends().is_some_and(|end| end <= now) {
            let effects = self.picture.handle_tick(now);
            self.apply(effects, world)?;
        }
        for address in 0..self.watches.len() {
            for _ in 0..8 {
                if !self.watch(address, net, world)? {
                    break;
                }
            }
            self.level(address, net, world)?;
        }
        Ok(())
    }

    /// When something is due next.
    pub fn next(&self, world: &World) -> u64 {
        let now = self.origin.at(world.now);
        let mut next = self.picture.opening_ends().map_or(NEVER, |end| self.origin.us(end));
        for (address, watch) in self.watches.iter().enumerate() {
            let detector = &self.picture.servers[address].detector;
            let due = match &watch.state {
                State::Down => self.origin.us(detector.next_dial(now)),
                State::Dialling { ask, limit, miss } => ask.next().min(*limit).min(*miss),
                State::Resting { on, gone } => {
                    let poll = detector.next_poll(now, self.picture.urgent(now, address));
                    let gone = if *gone == NEVER && on.is_dead(world) { world.now } else { *gone };
                    self.origin.us(poll).min(gone)
                }
                State::Asking { ask, miss, beside, .. } => {
                    let beside =
                        beside.as_ref().map_or(NEVER, |(ask, limit)| ask.next().min(*limit));
                    ask.next().min(*miss).min(beside)
                }
            };
            next = next.min(due);
            let pool = &self.pools[address];
            let dialling =
                pool.dialling.as_ref().map_or(NEVER, |(ask, limit)| ask.next().min(*limit));
            next = next.min(dialling);
            if pool.links.len() < self.picture.warm_links_wanted(address) && dialling == NEVER {
                next = next.min(pool.retry);
            }
        }
        next.max(world.now)
    }

    /// One step of the task that watches a server; whether there was one.
    fn watch(&mut self, address: usize, net: &Net, world: &mut World) -> Result<bool> {
        let now = world.now;
        let at = self.origin.at(now);
        let poll_timeout = us(self.timing.poll_timeout);
        let detector = &self.picture.servers[address].detector;
        let (needs_dial, next_dial) = (detector.needs_dial(), detector.next_dial(at));
        let state = std::mem::replace(&mut self.watches[address].state, State::Down);
        let next = match state {
            State::Down if next_dial > at => State::Down,
            State::Down => {
                let ask = self.ask(address, None, net, world);
                let limit = now + self.dial_limit();
                self.watches[address].state =
                    State::Dialling { ask, limit, miss: now + poll_timeout };
                return Ok(true);
            }
            State::Dialling { mut ask, limit, mut miss } => {
                match ask.poll(net, world, self.access, self.origin) {
                    Some(Answer::Is(observed, on)) => {
                        self.dialled(address, ask.began, observed, world)?;
                        self.begin(address, on, world);
                        return Ok(true);
                    }
                    Some(Answer::Fails(failure)) => {
                        self.failed(address, failure, true, world)?;
                        return Ok(true);
                    }
                    None if limit <= now => {
                        let failure = Failure::Silent("no connection".into());
                        self.failed(address, failure, true, world)?;
                        return Ok(true);
                    }
                    None if miss <= now => {
                        self.missed(address, world)?;
                        miss = now + poll_timeout;
                    }
                    None => {}
                }
                State::Dialling { ask, limit, miss }
            }
            State::Resting { on, mut gone } => {
                if needs_dial {
                    return Ok(true);
                }
                if gone == NEVER && on.is_dead(world) {
                    gone = now + net.latency(address, &mut world.rng, now);
                }
                if gone <= now {
                    match net.blocked(address, Traffic::Polls, Way::ToClient, now) {
                        Some(until) => gone = until,
                        None => {
                            let failure = Failure::Gone("closed".into());
                            self.failed(address, failure, false, world)?;
                            return Ok(true);
                        }
                    }
                }
                let detector = &self.picture.servers[address].detector;
                let due = detector.next_poll(at, self.picture.urgent(at, address));
                if due > at {
                    State::Resting { on, gone }
                } else {
                    self.picture.servers[address].detector.handle_sent(at);
                    let full = now - self.watches[address].probed >= PROBE_INTERVAL;
                    if full {
                        self.watches[address].probed = now;
                    }
                    let ask = self.ask(address, Some(on), net, world);
                    let miss = now + poll_timeout;
                    State::Asking { on, ask, full, miss, beside: None }
                }
            }
            State::Asking { on, mut ask, full, mut miss, mut beside } => {
                match ask.poll(net, world, self.access, self.origin) {
                    Some(Answer::Is(observed, _)) => {
                        self.answered(address, full, observed, world)?;
                        self.watches[address].state = State::Resting { on, gone: NEVER };
                        return Ok(true);
                    }
                    Some(Answer::Fails(failure)) => {
                        self.failed(address, failure, false, world)?;
                        return Ok(true);
                    }
                    None => {}
                }
                if let Some((dial, limit)) = &mut beside {
                    let limit = *limit;
                    match dial.poll(net, world, self.access, self.origin) {
                        Some(Answer::Is(observed, on)) => {
                            let began = dial.began;
                            self.dialled(address, began, observed, world)?;
                            self.watches[address].state = State::Resting { on, gone: NEVER };
                            return Ok(true);
                        }
                        Some(Answer::Fails(failure)) => {
                            beside = None;
                            self.failed(address, failure, true, world)?;
                        }
                        None if limit <= now => {
                            beside = None;
                            let failure = Failure::Silent("no connection".into());
                            self.failed(address, failure, true, world)?;
                        }
                        None => {}
                    }
                }
                if miss <= now {
                    miss = now + poll_timeout;
                    self.missed(address, world)?;
                    if beside.is_none() {
                        let dial = self.ask(address, None, net, world);
                        beside = Some((dial, now + self.dial_limit()));
                    }
                }
                if self.picture.servers[address].detector.needs_dial() {
                    return Ok(true);
                }
                State::Asking { on, ask, full, miss, beside }
            }
        };
        self.watches[address].state = next;
        Ok(false)
    }

    fn ask(&self, address: usize, on: Option<To>, net: &Net, world: &mut World) -> Ask {
        let now = world.now;
        Ask::new((address, Traffic::Polls), on, net, &mut world.rng, now)
    }

    /// A poll link begins.
    fn begin(&mut self, address: usize, on: To, world: &World) {
        let at = self.origin.at(world.now);
        self.picture.servers[address].detector.handle_sent(at);
        let watch = &mut self.watches[address];
        watch.probed = world.now;
        watch.state = State::Resting { on, gone: NEVER };
    }

    fn hear(&mut self, address: usize, seen: Option<Observed>, now: u64) {
        let told = &mut self.told[address];
        (told.answered, told.misses, told.dead) = (now, 0, false);
        if seen.is_some() {
            let standby = seen.as_ref().filter(|seen| seen.facts.in_recovery);
            told.followed = told.followed.max(standby.map_or(0, |seen| seen.facts.timeline));
            told.seen = seen;
            let newer = told.writes().filter(|timeline| *timeline > self.newest);
            if let Some(timeline) = newer {
                (self.newest, self.newest_since) = (timeline, now);
            }
        }
    }

    /// What `Hub::dial` does with what it has learnt.
    pub fn dialled(
        &mut self,
        address: usize,
        began: u64,
        observed: Observed,
        world: &mut World,
    ) -> Result {
        self.hear(address, Some(observed.clone()), world.now);
        self.told[address].proved = began;
        self.watches[address].role = (observed.facts.in_recovery, observed.facts.read_only);
        self.picture.servers[address].links_dialled += 1;
        self.picture.servers[address].proved = Some(self.origin.at(began));
        let at = self.origin.at(world.now);
        let effects = self.picture.handle_facts(at, address, observed);
        self.apply(effects, world)
    }

    /// As if a dial had been answered just now.
    pub fn learn(&mut self, address: usize, server: usize, world: &mut World) -> Result {
        let observed = observe(&world.servers[server], self.access, self.origin.at(world.now));
        self.dialled(address, world.now, observed, world)
    }

    /// A poll was answered: with all that the server is, if that was asked or has changed.
    fn answered(
        &mut self,
        address: usize,
        full: bool,
        observed: Observed,
        world: &mut World,
    ) -> Result {
        let at = self.origin.at(world.now);
        let role = (observed.facts.in_recovery, observed.facts.read_only);
        let effects = if full || role != self.watches[address].role {
            self.watches[address].role = role;
            self.hear(address, Some(observed.clone()), world.now);
            self.picture.handle_facts(at, address, observed)
        } else {
            self.hear(address, None, world.now);
            self.picture.handle_answer(at, address)
        };
        self.apply(effects, world)
    }

    pub fn failed(
        &mut self,
        address: usize,
        failure: Failure,
        dial: bool,
        world: &mut World,
    ) -> Result {
        world.note(|| format!("address {address}: {}", failure.text()));
        self.told[address].dead |= !matches!(failure, Failure::Silent(_));
        let at = self.origin.at(world.now);
        let effects = self.picture.handle_failure(at, address, failure, dial);
        self.apply(effects, world)
    }

    fn missed(&mut self, address: usize, world: &mut World) -> Result {
        self.told[address].misses += 1;
        let at = self.origin.at(world.now);
        let effects = self.picture.handle_miss(at, address);
        self.apply(effects, world)
    }

    /// What `Hub::apply` does, judged by what was told.
    pub fn apply(&mut self, effects: Effects, world: &mut World) -> Result {
        self.changes += u64::from(effects.changed);
        for event in &effects.events {
            world.note(|| format!("the cluster: {event}"));
            self.judge_event(event, world.now)?;
        }
        let mut wake = effects.wake;
        // They come out of a hash table.
        wake.sort_unstable();
        for session in wake {
            self.judge_wake(session, world.now)?;
            self.woken.push(session);
        }
        self.judge_standby()
    }

    fn judge_event(&self, event: &ClusterEvent, now: u64) -> Result {
        match event {
            ClusterEvent::Suspect { server, .. } => {
                let misses = self.told[*server].misses;
                if misses < self.timing.poll_failures {
                    return Err(format!(
                        "server {server} is suspected after {misses} missed polls"
                    ));
                }
            }
            ClusterEvent::Lost { server, .. } => {
                let told = &self.told[*server];
                if !told.dead && now - told.answered < us(self.timing.timeout) {
                    return Err(format!("server {server} is given up too early"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A session has to leave its server for a better one, or because that is not what it was, or has
    /// been silent for as long as anybody waits; never because it is slow.
    fn judge_wake(&self, session: u64, now: u64) -> Result {
        let Some(server) = self.registered.get(&session).copied() else { return Ok(()) };
        let told = &self.told[server];
        let silent = now - told.answered >= us(self.timing.timeout);
        let facts = told.seen.as_ref().map(|seen| &seen.facts);
        let refused = facts.is_some_and(|it| {
            it.system_identifier != OURS || (!it.in_recovery && it.timeline < self.newest)
        });
        let own = told.writes().unwrap_or(0);
        let mut others = self.told.iter().enumerate().filter(|(address, _)| *address != server);
        let better = others.any(|(_, other)| {
            let sound = !other.dead && other.misses < self.timing.poll_failures;
            other
                .writes()
                .is_some_and(|it| it > own || (it == own && (told.dead || own == 0)) && sound)
        });
        if silent || refused || better {
            return Ok(());
        }
        Err(format!("session {session} is moved from server {server} by suspicion alone: {told:?}"))
    }

    fn judge_standby(&self) -> Result {
        let Some(standby) = self.picture.standby() else { return Ok(()) };
        let at = |address: usize| {
            let facts = &self.told[address].seen.as_ref()?.facts;
            let sound = self.picture.servers[address].detector.health() == Health::Healthy
                && facts.in_recovery
                && facts.system_identifier == OURS
                && self.picture.chosen() != Some(address);
            sound.then_some((self.told[address].followed, facts.lsn))
        };
        let Some((timeline, lsn)) = at(standby) else {
            return Err(format!("server {standby} is no standby, and is kept warm as one"));
        };
        let best = (0..self.told.len()).filter_map(at).max().unwrap_or_default();
        if (timeline, lsn + STANDBY_SLACK) < best {
            return Err(format!(
                "the standby that is kept warm is at {lsn} of timeline {timeline}, another one at {best:?}"
            ));
        }
        Ok(())
    }

    /// Brings the pool of a server nearer to its level.
    fn level(&mut self, address: usize, net: &Net, world: &mut World) -> Result {
        let now = world.now;
        let wanted = self.picture.warm_links_wanted(address);
        let before = self.pools[address].links.len();
        self.pools[address].links.retain(|backend| world.backends[*backend].alive);
        if self.pools[address].links.len() < before {
            self.picture.servers[address].detector.handle_report();
        }
        if let Some((mut ask, limit)) = self.pools[address].dialling.take() {
            match ask.poll(net, world, self.access, self.origin) {
                Some(Answer::Is(observed, to)) => {
                    let began = ask.began;
                    self.dialled(address, began, observed, world)?;
                    if !to.is_dead(world) {
                        let backend = world.open_backend(to.server);
                        world.backends[backend].warm = true;
                        self.pools[address].links.push(backend);
                        self.picture.servers[address].warm_links += 1;
                    }
                }
                None if limit > now => self.pools[address].dialling = Some((ask, limit)),
                _ => {
                    self.pools[address].retry = now + WARM_RETRY;
                    self.picture.servers[address].detector.handle_report();
                }
            }
        }
        let have = self.pools[address].links.len();
        let most = self.timing.standby_links_max as usize;
        if have > most || have > self.registered.len().max(self.told.len()) + 4 {
            return Err(format!("{have} warm links to server {address}, and {most} are allowed"));
        }
        if have > wanted {
            let pool = &mut self.pools[address];
            let since = *pool.surplus_since.get_or_insert(now);
            if now - since >= SURPLUS_KEPT {
                let gone = self.pools[address].links.split_off(wanted);
                gone.iter().for_each(|backend| world.end_backend(*backend, None));
                self.pools[address].surplus_since = None;
            }
            return Ok(());
        }
        self.pools[address].surplus_since = None;
        let pool = &self.pools[address];
        if have < wanted && pool.dialling.is_none() && pool.retry <= now {
            let ask = self.ask(address, None, net, world);
            self.pools[address].dialling = Some((ask, now + self.dial_limit()));
        }
        Ok(())
    }
}
