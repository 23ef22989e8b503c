//! What follows once something new is known: who is chosen, what is told, who has to leave.

use std::time::Instant;

use super::{Effects, Picture, view};
use crate::cluster::choice::{self, Goal, ServerView, Verdict, verdict};
use crate::cluster::detector::Health;
use crate::cluster::status::ClusterEvent;
use crate::mutation::{self, Mutation};

impl Picture {
    pub(super) fn rechoose(&mut self, now: Instant, effects: &mut Effects) {
        let views = self.views();
        if !self.identity_fixed {
            let identity = choice::identity(&views);
            if identity != self.identity {
                (self.identity, self.floor) = (identity, 0);
            }
        }
        // Also of one that is lost again before anybody was chosen.
        self.raise_floor(&views);
        if self.opening && !self.opening_is_over(now, &views) {
            return;
        }
        effects.changed |= self.opening;
        self.opening = false;
        self.report_refused(&views, effects);

        let chosen = choice::choose(&views, self.last, &self.rules(self.goal));
        if chosen != self.chosen {
            self.choice_changed(chosen, effects);
        }
        let standby = choice::best_standby(&views, self.standby, self.chosen, self.identity);
        effects.changed |= standby != self.standby;
        self.standby = standby;

        let in_doubt = match self.chosen {
            None => true,
            Some(chosen) => self.servers[chosen].detector.in_doubt(),
        };
        match (in_doubt, self.doubt_since) {
            (true, None) => {
                self.doubt_since = Some(now);
                effects.changed = true;
            }
            (false, Some(_)) => self.doubt_since = None,
            _ => {}
        }
        self.wake_who_has_to_leave(effects);
    }

    /// Everybody has answered or failed, or enough time has passed since somebody could be used.
    fn opening_is_over(&mut self, now: Instant, views: &[ServerView]) -> bool {
        if self.servers.iter().all(|s| s.observed.is_some() || s.last_failure.is_some()) {
            return true;
        }
        if choice::choose(views, None, &self.rules(self.goal)).is_none() {
            self.first_usable = None;
            return false;
        }
        let first = *self.first_usable.get_or_insert(now);
        now.saturating_duration_since(first) >= self.timing.poll_timeout
    }

    fn raise_floor(&mut self, views: &[ServerView]) {
        let newest = views
            .iter()
            .filter(|view| view.health == Health::Healthy)
            .filter_map(|view| view.seen)
            .filter(|seen| Some(seen.system_identifier) == self.identity && seen.writable())
            .map(|seen| seen.timeline)
            .max();
        let before = if mutation::on(Mutation::FloorForgotten) { 0 } else { self.floor };
        self.floor = before.max(newest.unwrap_or(0));
    }

    fn report_refused(&mut self, views: &[ServerView], effects: &mut Effects) {
        for (index, view) in views.iter().enumerate() {
            let found = verdict(view, self.identity, self.floor);
            let server = &mut self.servers[index];
            // The lost primary is stale as soon as its successor is there; that is news only once
            // it is back.
            let hidden = found == Verdict::Stale && view.health != Health::Healthy;
            if hidden || found == server.reported {
                continue;
            }
            server.reported = found;
            effects.changed = true;
            let (address, Some(seen)) = (server.address.clone(), view.seen) else {
                continue;
            };
            match found {
                Verdict::Stale => effects.events.push(ClusterEvent::Stale {
                    server: index,
                    address,
                    timeline: seen.timeline,
                    floor: self.floor,
                }),
                Verdict::OtherCluster => effects.events.push(ClusterEvent::OtherCluster {
                    server: index,
                    address,
                    system_identifier: seen.system_identifier,
                }),
                _ => {}
            }
        }
    }

    fn choice_changed(&mut self, chosen: Option<usize>, effects: &mut Effects) {
        effects.changed = true;
        self.chosen = chosen;
        let previous = self.last;
        let Some(server) = chosen else {
            effects.events.extend(previous.map(|previous| ClusterEvent::NoServer { previous }));
            return;
        };
        if previous == chosen {
            return;
        }
        self.last = chosen;
        let timeline_of =
            |index: usize| self.servers[index].observed.as_ref().map_or(0, |o| o.facts.timeline);
        let (address, timeline) = (self.servers[server].address.clone(), timeline_of(server));
        effects.events.push(match previous {
            Some(before) if self.goal == Goal::ReadWrite && timeline > timeline_of(before) => {
                ClusterEvent::Promoted { server, address, timeline, previous }
            }
            _ => ClusterEvent::PrimaryChosen { server, address, timeline, previous },
        });
    }

    fn wake_who_has_to_leave(&mut self, effects: &mut Effects) {
        let leave: Vec<bool> = (0..self.servers.len()).map(|s| self.has_to_leave(s)).collect();
        for (id, session) in &mut self.sessions {
            if !session.woken && leave[session.server] {
                session.woken = true;
                effects.wake.push(*id);
            }
        }
    }

    /// Whether a session that still uses this server has to be woken: a writer when another one
    /// is in use, anybody when it is refused or given up.
    pub(super) fn has_to_leave(&self, server: usize) -> bool {
        let it = &self.servers[server];
        if mutation::on(Mutation::LostLinksKept) {
            return false;
        }
        if mutation::on(Mutation::SuspicionMovesSessions) && it.detector.health() == Health::Suspect
        {
            return true;
        }
        let refused = matches!(
            verdict(&view(it), self.identity, self.floor),
            Verdict::Stale | Verdict::OtherCluster
        );
        let moved = self.goal == Goal::ReadWrite && self.chosen.is_some_and(|c| c != server);
        refused || moved || it.detector.given_up()
    }
}
