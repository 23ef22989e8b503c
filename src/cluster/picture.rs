//! The whole picture: what is known of every server, who is chosen, and which sessions have to
//! leave theirs. Pure: time is an argument, and what follows from an input comes back as
//! [`Effects`] for the monitor to carry out.
//!
//! Invariants: the floor never sinks once a session was handed a link; the identity is fixed from
//! then on; an event is given once per change.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::choice::{self, Goal, Rules, Seen, ServerView, Verdict, verdict};
use super::detector::{Detector, Failure, Health};
use super::status::{ClusterEvent, Role, ServerStatus, Status};
use super::{Facts, Want};
use crate::config::{Config, Failover, TargetSessionAttrs};
use crate::error::{Error, ErrorKind};
use crate::mutation::{self, Mutation};

/// What an answered probe told.
#[derive(Debug, Clone)]
pub struct Observed {
    pub facts: Facts,
    /// The position up to which a standby has received WAL, which a promotion would replay first.
    pub received: u64,
    /// When it was asked.
    pub asked: Instant,
}

/// What is known of one server.
#[derive(Debug)]
pub struct Server {
    pub address: String,
    pub detector: Detector,
    pub observed: Option<Observed>,
    /// The newest timeline that it has been on as a standby.
    followed: u32,
    pub last_failure: Option<Failure>,
    /// When the last dial began that succeeded: proof that its postmaster lived then.
    pub proved: Option<Instant>,
    pub links_dialled: u64,
    pub warm_links: usize,
    pub warm_links_used: u64,
    /// The verdict that was last reported.
    reported: Verdict,
}

/// What the monitor has to do after an input.
#[derive(Debug, Default)]
pub struct Effects {
    pub events: Vec<ClusterEvent>,
    /// Sessions to be woken from whatever they wait for on their link.
    pub wake: Vec<u64>,
    /// Something changed that waiting sessions, tasks and `status()` should see.
    pub changed: bool,
}

/// A primary that cannot be reached, and the standby to take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succession {
    pub lost: usize,
    pub heir: usize,
}

#[derive(Debug)]
pub struct Picture {
    pub servers: Vec<Server>,
    pub waiting: usize,
    timing: Failover,
    goal: Goal,
    identity: Option<u64>,
    identity_fixed: bool,
    floor: u32,
    /// The server in use, and whether it can be used just now.
    last: Option<usize>,
    chosen: Option<usize>,
    standby: Option<usize>,
    /// Until it is over nobody is chosen: the first to answer may be an old primary.
    opening: bool,
    first_usable: Option<Instant>,
    doubt_since: Option<Instant>,
    sessions: HashMap<u64, Registered>,
}

#[derive(Debug)]
struct Registered {
    server: usize,
    woken: bool,
}

impl Picture {
    pub fn new(config: &Config) -> Self {
        let goal = match config.target_session_attrs {
            TargetSessionAttrs::ReadWrite => Goal::ReadWrite,
            TargetSessionAttrs::ReadOnly => Goal::ReadOnly,
            TargetSessionAttrs::Any => Goal::Any,
        };
        let addresses = config.hosts.iter().map(ToString::to_string).collect();
        Self::of(addresses, config.failover.clone(), goal)
    }

    pub fn of(addresses: Vec<String>, timing: Failover, goal: Goal) -> Self {
        let server = |address: String| Server {
            address,
            detector: Detector::new(timing.clone()),
            observed: None,
            followed: 0,
            last_failure: None,
            proved: None,
            links_dialled: 0,
            warm_links: 0,
            warm_links_used: 0,
            reported: Verdict::Unknown,
        };
        Self {
            servers: addresses.into_iter().map(server).collect(),
            waiting: 0,
            goal,
            identity: None,
            identity_fixed: false,
            floor: 0,
            last: None,
            chosen: None,
            standby: None,
            opening: true,
            first_usable: None,
            doubt_since: None,
            sessions: HashMap::new(),
            timing,
        }
    }

    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }

    /// Whether every server but the chosen one is known to be down. A silent one is not, for however
    /// long it has been so.
    pub fn others_are_lost(&self) -> bool {
        let mut others = self.servers.iter().enumerate().filter(|(i, _)| Some(*i) != self.chosen);
        let is_down = |s: &Server| s.detector.health() == Health::Lost && !s.detector.given_up();
        self.chosen.is_some() && others.all(|(_, server)| is_down(server))
    }

    pub fn standby(&self) -> Option<usize> {
        self.standby
    }

    /// The standby whose word on commits counts. The server that sessions were on last may have become one for
    /// want of a primary; what it has need not be anywhere else.
    pub fn backup(&self) -> Option<usize> {
        self.standby.filter(|standby| self.last != Some(*standby))
    }

    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The server answered a probe on a link of its own, or one that a session will get.
    pub fn handle_facts(&mut self, now: Instant, server: usize, observed: Observed) -> Effects {
        let mut effects = Effects::default();
        let it = &mut self.servers[server];
        if observed.facts.in_recovery {
            it.followed = it.followed.max(observed.facts.timeline);
        }
        let old = it.observed.replace(observed);
        let is_new = old.is_none_or(|old| {
            let new = self.servers[server].observed.as_ref();
            new.is_none_or(|new| seen(&new.facts) != seen(&old.facts))
        });
        effects.changed |= is_new;
        self.answered(now, server, &mut effects);
        self.rechoose(now, &mut effects);
        effects
    }

    /// The server answered a bare poll.
    pub fn handle_answer(&mut self, now: Instant, server: usize) -> Effects {
        let mut effects = Effects::default();
        self.answered(now, server, &mut effects);
        if effects.changed || self.opening {
            self.rechoose(now, &mut effects);
        }
        effects
    }

    pub fn handle_miss(&mut self, now: Instant, server: usize) -> Effects {
        let mut effects = Effects::default();
        let it = &mut self.servers[server];
        let was_in_doubt = it.detector.in_doubt();
        let text = format!("no answer within {} ms", self.timing.poll_timeout.as_millis());
        it.last_failure = Some(Failure::Silent(text));
        if let Some(health) = it.detector.handle_miss(now) {
            self.health_changed(server, health, &mut effects);
        }
        effects.changed |= !was_in_doubt;
        self.rechoose(now, &mut effects);
        effects
    }

    /// A link to the server broke, or a dial failed.
    pub fn handle_failure(
        &mut self,
        now: Instant,
        server: usize,
        failure: Failure,
        dial: bool,
    ) -> Effects {
        let mut effects = Effects::default();
        let it = &mut self.servers[server];
        let was_unreachable = it.detector.unreachable(now);
        let health = it.detector.handle_failure(now, &failure, dial);
        // A promotion waits for this.
        effects.changed |= it.detector.unreachable(now) != was_unreachable;
        if it.detector.health() != Health::Healthy {
            // A refusal may be the last thing that somebody waits for.
            effects.changed |= it.last_failure.is_none()
                || matches!(failure, Failure::Refuses(_) | Failure::Absent(_));
            it.last_failure = Some(failure);
        }
        if let Some(health) = health {
            self.health_changed(server, health, &mut effects);
        }
        self.rechoose(now, &mut effects);
        effects
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.rechoose(now, &mut effects);
        effects
    }

    /// A session has got a link: the cluster is known for good.
    pub fn handle_handover(&mut self, server: usize) {
        if let Some(observed) = &self.servers[server].observed {
            if self.identity == Some(observed.facts.system_identifier) {
                self.identity_fixed = true;
            }
        }
    }

    /// A session uses a link to this server. It is woken at once where the choice has moved on
    /// between the handover and now.
    pub fn handle_register(&mut self, session: u64, server: usize) -> Effects {
        let mut effects = Effects::default();
        let woken = self.has_to_leave(server);
        if woken {
            effects.wake.push(session);
        }
        self.sessions.insert(session, Registered { server, woken });
        effects
    }

    pub fn handle_deregister(&mut self, session: u64) {
        self.sessions.remove(&session);
    }

    /// Whether standbys are to be asked every few milliseconds: the primary is in doubt, and
    /// somebody waits or it is not long ago.
    pub fn urgent(&self, now: Instant, server: usize) -> bool {
        let Some(since) = self.doubt_since else {
            return false;
        };
        let recent = now.saturating_duration_since(since) < self.timing.timeout;
        let may_take_over = self.servers[server]
            .observed
            .as_ref()
            .is_some_and(|o| !Seen::from(&o.facts).writable());
        may_take_over && (recent || self.waiting > 0)
    }

    /// The server for this want, if there is one now.
    pub fn pick(&self, want: &Want) -> Option<usize> {
        if self.opening {
            return None;
        }
        let goal = match (want.writes, self.goal) {
            (true, _) => Goal::ReadWrite,
            // While a server is in use, its links are what sessions of any kind belong on.
            (false, Goal::ReadWrite) if self.chosen.is_some() => Goal::ReadWrite,
            (false, Goal::ReadWrite) => Goal::Any,
            (false, goal) => goal,
        };
        let server = match goal == self.goal {
            true => self.chosen,
            false => choice::choose(&self.views(), self.last, &self.rules(goal)),
        }?;
        self.satisfies(server, &self.servers[server].observed.as_ref()?.facts, want)
            .then_some(server)
    }

    /// Whether a link with these facts may be given to this want.
    pub fn satisfies(&self, server: usize, facts: &Facts, want: &Want) -> bool {
        let seen = Seen::from(facts);
        let view = ServerView { health: self.servers[server].detector.health(), seen: Some(seen) };
        if verdict(&view, self.identity, self.floor) != Verdict::Member {
            return false;
        }
        // A standby's timeline is what it last heard of; only a primary's can be a way back.
        if !facts.in_recovery && facts.timeline < want.timeline_floor {
            return false;
        }
        !want.writes || seen.writable()
    }

    /// The error for a session that nobody will ever serve: every server refuses this client; or,
    /// before any session was served, those do that can be reached, or nobody is anywhere.
    pub fn refusal(&self) -> Option<Error> {
        let mut first = None;
        let mut absent = 0;
        for server in &self.servers {
            match (&server.last_failure, server.detector.health()) {
                (Some(Failure::Refuses(error)), Health::Lost) => {
                    first.get_or_insert_with(|| error.clone());
                }
                (failure, Health::Lost) if !self.identity_fixed => {
                    absent += usize::from(matches!(failure, Some(Failure::Absent(_))));
                }
                _ => return None,
            }
        }
        let nobody = absent == self.servers.len();
        first.or_else(|| nobody.then(|| self.nobody_there()))
    }

    /// A cluster that nobody has seen yet, and no server of which is there, is more likely misnamed than
    /// between two primaries.
    fn nobody_there(&self) -> Error {
        let text = format!(
            "no server is there: {}. Nothing was sent; start one, or correct the configuration",
            self.status().summary()
        );
        Error::new(ErrorKind::Connect, text)
    }

    pub fn status(&self) -> Status {
        let primary = self.last.and_then(|last| self.servers[last].observed.as_ref());
        let primary = primary.filter(|o| !o.facts.in_recovery).map(|o| o.facts.lsn);
        let servers = self.servers.iter().map(|server| {
            let facts = server.observed.as_ref().map(|o| &o.facts);
            ServerStatus {
                address: server.address.clone(),
                role: match facts {
                    None => Role::Unknown,
                    Some(f) if f.in_recovery => Role::Standby,
                    Some(f) if f.read_only => Role::ReadOnlyPrimary,
                    Some(_) => Role::Primary,
                },
                health: server.detector.health(),
                verdict: verdict(&view(server), self.identity, self.floor),
                timeline: facts.map(|f| f.timeline),
                system_identifier: facts.map(|f| f.system_identifier),
                lsn: facts.map(|f| f.lsn),
                lag_bytes: facts
                    .filter(|f| f.in_recovery)
                    .and_then(|f| primary.map(|lsn| lsn.saturating_sub(f.lsn))),
                last_error: server.last_failure.as_ref().map(Failure::text),
                warm_links: server.warm_links,
                links_dialled: server.links_dialled,
                warm_links_used: server.warm_links_used,
            }
        });
        Status {
            servers: servers.collect(),
            chosen: self.chosen,
            standby: self.standby,
            system_identifier: self.identity,
            timeline_floor: self.floor,
            sessions: self.sessions.len(),
            waiting: self.waiting,
        }
    }

    /// Who would be promoted by `on_primary_loss = promote`, if it has come to that: the server in
    /// use cannot be reached, nothing else is writable, and among the healthy standbys that have followed
    /// its timeline the heir has received most. One that has more than the primary had when that was promoted
    /// cannot follow it: its promotion would begin another history under the same number.
    pub fn succession(&self, now: Instant) -> Option<Succession> {
        let lost = self.lost_without_successor(now)?;
        let heirs = self.standbys_but(lost).filter(|(_, server, _)| server.followed >= self.floor);
        let received = |observed: &Observed| (observed.facts.timeline, observed.received);
        let heir = if mutation::on(Mutation::LaggingHeirPromoted) {
            heirs.min_by_key(|(_, _, observed)| received(observed))
        } else {
            heirs.max_by_key(|(index, _, observed)| (received(observed), Reverse(*index)))
        };
        heir.map(|(heir, ..)| Succession { lost, heir })
    }

    /// A standby that might be promoted in place of this primary, were it known to have followed it.
    pub fn unproven_heir(&self, lost: usize) -> Option<usize> {
        let unproven = |(_, server, _): &(usize, &Server, &Observed)| server.followed < self.floor;
        self.standbys_but(lost).find(unproven).map(|(heir, ..)| heir)
    }

    /// The server in use, if it cannot be reached and nothing else is writable.
    pub fn lost_without_successor(&self, now: Instant) -> Option<usize> {
        let last = self.last?;
        if self.opening || self.goal != Goal::ReadWrite || self.chosen.is_some_and(|c| c != last) {
            return None;
        }
        self.servers[last].detector.unreachable(now).then_some(last)
    }

    /// The healthy standbys of this cluster apart from one server.
    fn standbys_but(&self, lost: usize) -> impl Iterator<Item = (usize, &Server, &Observed)> {
        self.servers.iter().enumerate().filter_map(move |(index, server)| {
            let observed = server.observed.as_ref()?;
            let fit = index != lost
                && server.detector.health() == Health::Healthy
                && observed.facts.in_recovery
                && Some(observed.facts.system_identifier) == self.identity;
            fit.then_some((index, server, observed))
        })
    }

    /// How long to sleep before `handle_tick` is due, while the opening lasts.
    pub fn opening_ends(&self) -> Option<Instant> {
        let first = self.first_usable?;
        self.opening.then(|| first + self.timing.poll_timeout)
    }

    fn answered(&mut self, now: Instant, server: usize, effects: &mut Effects) {
        let it = &mut self.servers[server];
        effects.changed |= it.detector.in_doubt();
        match it.detector.handle_answer(now) {
            Some(health) => self.health_changed(server, health, effects),
            None => it.last_failure = None,
        }
    }

    fn health_changed(&mut self, server: usize, health: Health, effects: &mut Effects) {
        effects.changed = true;
        let it = &mut self.servers[server];
        let address = it.address.clone();
        let reason = it.last_failure.as_ref().map(Failure::text).unwrap_or_default();
        match health {
            Health::Healthy if it.last_failure.take().is_some() => {
                effects.events.push(ClusterEvent::Recovered { server, address });
            }
            Health::Healthy | Health::Unknown => {}
            Health::Suspect => effects.events.push(ClusterEvent::Suspect { server, address }),
            Health::Lost => effects.events.push(ClusterEvent::Lost { server, address, reason }),
            Health::ComingBack => {
                effects.events.push(ClusterEvent::ComingBack { server, address, reason });
            }
        }
    }

    fn rules(&self, goal: Goal) -> Rules {
        Rules { goal, identity: self.identity, floor: self.floor }
    }

    fn views(&self) -> Vec<ServerView> {
        self.servers.iter().map(view).collect()
    }
}

fn view(server: &Server) -> ServerView {
    let seen = server.observed.as_ref().map(|observed| Seen::from(&observed.facts));
    // A standby does not leave a timeline that it has followed, and forgets it when its primary is lost.
    let followed = |seen: Seen| match seen.in_recovery {
        true => Seen { timeline: server.followed, ..seen },
        false => seen,
    };
    ServerView { health: server.detector.health(), seen: seen.map(followed) }
}

/// What matters of the facts beside the position, which changes all the time.
fn seen(facts: &Facts) -> (bool, bool, u64, u32, super::LedgerAccess) {
    (facts.in_recovery, facts.read_only, facts.system_identifier, facts.timeline, facts.ledger)
}

impl From<&Facts> for Seen {
    fn from(facts: &Facts) -> Self {
        Self {
            system_identifier: facts.system_identifier,
            timeline: facts.timeline,
            in_recovery: facts.in_recovery,
            read_only: facts.read_only,
            lsn: facts.lsn,
        }
    }
}

/// How long the monitor lets a dial take before it is given up.
pub fn dial_limit(config: &Config) -> Duration {
    config.connect_timeout.unwrap_or(config.failover.poll_timeout.saturating_mul(5))
}

mod settle;
#[cfg(test)]
mod tests;
mod wants;

pub use wants::Next;
