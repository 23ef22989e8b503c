//! How time passes in a run: a little with everything that happens, and to the next thing that is due
//! when nothing does.

use crate::backend::Wait;
use crate::client::Client;
use crate::clock::{MS, NEVER};
use crate::monitor::us;
use crate::net::Way;
use crate::recovering::Recovery;
use crate::run::{Result, Run};

/// After so many rounds in which nothing has happened, it is waited for.
const PATIENCE: usize = 25;
/// And after so many in any case.
const IMPATIENCE: usize = 300;
/// So many polls and the like are passed over at once.
const POLLS: usize = 200;
/// A run that has not ended by then will not.
const TIME_MAX: u64 = 3600 * 1000 * MS;

impl Run {
    /// A round is over, and in so many nothing has happened.
    pub fn pass_time(&mut self, barren: usize) -> Result {
        self.barren = barren;
        self.world.now += 1 + self.world.rng.next() % 60;
        if self.is_watched() && self.world.now >= self.next_due {
            self.happen()?;
        }
        if barren > PATIENCE && barren.is_multiple_of(5) {
            if !self.somebody_may_act() {
                self.wait(POLLS)?;
            } else if barren > IMPATIENCE {
                self.wait(1)?;
            }
        }
        Ok(())
    }

    /// Everything happens that is due.
    fn happen(&mut self) -> Result {
        // What comes of it may be due at once.
        for _ in 0..4 {
            self.deeds()?;
            self.look_at_servers();
            for monitor in &mut self.monitors {
                monitor.run(&self.net, &mut self.world)?;
            }
            self.wake();
            for index in 0..=self.others.len() {
                self.swap(index);
                self.judge_link()?;
                match (&self.client.search, &self.client.recovery) {
                    (None, _) => {}
                    (Some(_), None) => drop(self.seek()?),
                    (Some(_), Some(_)) => drop(self.recover()?),
                }
                self.swap(index);
            }
            self.next_due = self.next_due();
            if self.next_due > self.world.now {
                break;
            }
        }
        self.next_due = self.next_due.max(self.world.now + 1);
        Ok(())
    }

    /// The client with this number among the others takes the place of the one whose turn it is.
    fn swap(&mut self, index: usize) {
        if let Some(other) = self.others.get_mut(index) {
            std::mem::swap(other, &mut self.client);
        }
    }

    fn next_due(&self) -> u64 {
        let mut next = self.next_deed().min(self.net.next(self.world.now));
        for monitor in &self.monitors {
            next = next.min(monitor.next(&self.world));
        }
        for client in self.clients() {
            let Some(monitor) = self.monitors.get(client.monitor) else { continue };
            if let Some(search) = &client.search {
                next = next.min(search.next(monitor.origin.us(search.deadline())));
            }
            if let Some(deadline) = client.recovery.as_ref().and_then(Recovery::deadline) {
                next = next.min(monitor.origin.us(deadline));
            }
            if let Some(since) = client.waits.backup_since {
                next = next.min(since + us(monitor.timing.timeout));
            }
        }
        next
    }

    /// When something arrives, or somebody who only waits for time does something.
    fn next_arrival(&mut self) -> u64 {
        let now = self.world.now;
        let mut next = NEVER;
        for id in 0..self.world.backends.len() {
            if self.world.backends[id].alive || !self.world.backends[id].wire.is_empty() {
                self.stamp(id);
                let backend = &self.world.backends[id];
                next = next.min(backend.up.next(now)).min(backend.down.next(now));
            }
        }
        let mut wake = |at: u64| {
            if at > now {
                next = next.min(at);
            }
        };
        for client in self.clients() {
            wake(client.waits.idle_until);
            let Some(id) = client.backend().filter(|_| self.is_watched()) else { continue };
            let traffic = crate::net::Traffic::Sessions;
            if let Some(since) = self.net.blocked_since(self.address_of(id), traffic, now) {
                wake(since.max(client.waits.linked_at) + self.user_timeout);
            }
        }
        next
    }

    /// Nothing happens until something is due.
    fn wait(&mut self, times: usize) -> Result {
        // Polls alone change nothing for anybody.
        let before = self.what_matters();
        let arrival = self.next_arrival();
        for _ in 0..times {
            let due = if self.is_watched() { self.next_due() } else { NEVER };
            let next = arrival.min(due);
            if next == NEVER {
                return Ok(());
            }
            if next > TIME_MAX {
                return Err("no end is in sight".into());
            }
            self.world.now = self.world.now.max(next);
            if self.is_watched() {
                self.happen()?;
            }
            if next >= arrival || self.what_matters() != before {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What clients and servers have a part in.
    fn what_matters(&self) -> impl PartialEq + use<> {
        let clients = self.clients().map(|it| (it.backend(), it.waits.woken, it.search.is_some()));
        let servers = self.world.servers.iter().map(|it| (it.alive, it.wal.len()));
        (clients.collect::<Vec<_>>(), servers.collect::<Vec<_>>(), self.agenda.len())
    }

    /// Whether somebody has something to do that needs no waiting for, and has not had his turn.
    fn somebody_may_act(&mut self) -> bool {
        let links: Vec<usize> = self.clients().filter_map(Client::backend).collect();
        links.into_iter().for_each(|id| self.stamp(id));
        if self.clients().any(|client| self.may_act(client)) || !self.in_the_way().is_empty() {
            return true;
        }
        self.standby_that_receives().is_some_and(|standby| self.world.lag(standby) > 0)
    }

    /// The backends whose client is gone, and for which somebody waits: for what they hold or for their end, or
    /// for the end of all; and which can come to that without waiting.
    fn in_the_way(&self) -> Vec<usize> {
        let alive = || self.world.backends.iter().filter(|it| it.alive);
        let works =
            |id: usize| self.world.backends[id].alive && self.world.backends[id].tx.is_some();
        let in_the_way = alive().filter(|backend| {
            let (id, server) = (backend.id, backend.server);
            if self.is_hung(server) || !self.is_zombie(id) {
                return false;
            }
            let ends = backend.told_to_end && !backend.stubborn;
            if ends && alive().any(|it| it.server == server && it.wait == Wait::Terminate) {
                return true;
            }
            let arrived = backend.inflight.is_empty() || backend.up.arrived(self.world.now) > 0;
            let free = match backend.wait {
                Wait::Nothing => true,
                Wait::Lock(holder) => !works(holder),
                Wait::Standby | Wait::Terminate => false,
            };
            let awaited = self.ends || alive().any(|it| it.wait == Wait::Lock(id));
            backend.eof && arrived && free && awaited
        });
        in_the_way.map(|backend| backend.id).collect()
    }

    /// The same, where nothing has happened for so long that it is they who are waited for: however slow they are
    /// otherwise, they go on.
    pub fn overdue(&self) -> Vec<usize> {
        if self.barren > IMPATIENCE { self.in_the_way() } else { Vec::new() }
    }

    fn may_act(&self, client: &Client) -> bool {
        let now = self.world.now;
        if client.recovery.is_some() {
            // It asks, or waits for what it has asked for.
            let Some(id) = client.backend() else {
                let primary = &self.world.servers[self.world.primary];
                return client.search.is_none() && (self.is_watched() || primary.alive);
            };
            let backend = &self.world.backends[id];
            let (there, back) = (!self.is_cut(id, Way::ToServer), !self.is_cut(id, Way::ToClient));
            let free = backend.wait == Wait::Nothing && !self.is_hung(backend.server);
            return client.waits.woken
                || (backend.alive && free && !backend.input.is_empty())
                || (there && backend.up.arrived(now) > 0)
                || (back && (backend.down.arrived(now) > 0 || !backend.alive));
        }
        if client.session.is_quiet() && !client.is_over() && client.waits.idle_until <= now {
            return true;
        }
        let Some(id) = client.link else {
            return client.search.is_none() && client.waits.idle_until <= now;
        };
        let backend = &self.world.backends[id];
        let (there, back) = (!self.is_cut(id, Way::ToServer), !self.is_cut(id, Way::ToClient));
        let works = backend.alive && !self.is_hung(backend.server) && !backend.input.is_empty();
        let hears = client.awaiting.is_some() || backend.down.arrived(now) > 0 || !backend.alive;
        client.waits.woken
            || client.session.gives_up_link()
            || (works && backend.wait == Wait::Nothing)
            || (there && (client.session.output_len() > 0 || backend.up.arrived(now) > 0))
            || (back && hears)
    }

    /// Gives what is new on a link's way the time at which it arrives.
    pub fn stamp(&mut self, id: usize) {
        let (now, address) = (self.world.now, self.address_of(id));
        let (up, down) = {
            let rng = &mut self.world.rng;
            (self.net.latency(address, rng, now), self.net.latency(address, rng, now))
        };
        let backend = &mut self.world.backends[id];
        backend.up.note(backend.inflight.len(), now + up);
        backend.down.note(backend.wire.len(), now + down);
    }

    /// Now and then the application does nothing for a while.
    pub fn is_idle(&mut self) -> bool {
        if !self.is_watched() {
            return false;
        }
        let now = self.world.now;
        if self.client.waits.idle_until <= now && self.world.rng.chance(1) {
            let about = *self.world.rng.pick(&[1, 20, 100, 1000]) * MS;
            self.client.waits.idle_until = now + about;
        }
        self.client.waits.idle_until > now
    }

    /// A standby that its primary can send something to now.
    pub fn standby_that_receives(&mut self) -> Option<usize> {
        if self.world.standbys.is_empty() {
            return None;
        }
        let standby = *self.world.rng.pick(&self.world.standbys);
        if !self.is_watched() {
            return Some(standby);
        }
        let primary = self.world.primary;
        let up = |server: usize| self.world.servers[server].alive && !self.is_hung(server);
        (up(primary) && up(standby)).then_some(standby)
    }

    /// All faults are over: everybody must come to be served by the primary, and within some time.
    pub fn come_to_rest(&mut self) -> Result {
        self.make_peace();
        let timing = &self.monitors[0].timing;
        let limit = self.world.now + us(timing.timeout) * 3 + 60_000 * MS;
        let (mut barren, mut rested) = (0, 0);
        for _ in 0..100_000 {
            for client in self.clients_mut() {
                client.waits.idle_until = 0;
            }
            if let Some(standby) = self.standby_that_receives() {
                self.world.replicate(standby, usize::MAX);
            }
            let done = self.round()?;
            barren = if done { 0 } else { barren + 1 };
            rested = if !done && self.rests_on(self.world.primary) { rested + 1 } else { 0 };
            if rested > 100 {
                self.figures.time = self.world.now;
                return Ok(());
            }
            if self.world.now > limit {
                break;
            }
            self.pass_time(if rested > 0 { 0 } else { barren })?;
        }
        let stuck = self.clients().map(|it| (it.number, it.link, &it.requests)).collect::<Vec<_>>();
        let left = self.world.backends.iter().filter(|it| self.is_zombie(it.id));
        let left: Vec<_> = left.map(|it| (it.id, &it.wait, &it.input, it.inflight.len())).collect();
        Err(format!("it does not come to rest: {stuck:?}, {left:?}"))
    }
}
