//! What befalls the servers of a run, and for how long, where the real detector and choice are at work.

use crate::backend::error_message;
use crate::clock::{MS, NEVER};
use crate::figures::Fault;
use crate::monitor::us;
use crate::net::Cut;
use crate::plan::For;
use crate::rng::Rng;
use crate::run::{Result, Run};

/// What is to happen at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deed {
    Restart(usize),
    /// The operator promotes a standby.
    Promote,
    /// The primary dies, and a standby of its own takes over.
    Cascade,
    /// A primary that was left comes back as one, and knows of nothing.
    Return(usize),
    /// What is behind the address is made anew as a standby.
    Rejoin(usize),
}

const KINDS: [Fault; 21] = [
    Fault::LinkBroken,
    Fault::EndDuplicated,
    Fault::BackendEnded,
    Fault::Crash,
    Fault::Crash,
    Fault::CrashAndPromotion,
    Fault::CrashAndPromotion,
    Fault::CrashAndPromotion,
    Fault::Cascade,
    Fault::PromotionBesideTheOld,
    Fault::PromotionBesideTheOld,
    Fault::Switchover,
    Fault::HostCutOff,
    Fault::Partition,
    Fault::Partition,
    Fault::Hang,
    Fault::Slow,
    Fault::Full,
    Fault::StandbyLost,
    Fault::OtherCluster,
    Fault::NoServer,
];

/// How long something lasts: a millisecond or seconds.
fn span(rng: &mut Rng) -> u64 {
    let about = *rng.pick(&[1, 5, 20, 50, 100, 200, 400, 1000, 4000]) * MS;
    about / 2 + rng.next() % about
}

impl Run {
    pub fn strike(&mut self, number: usize) -> Result {
        let mut rng = self.plan.rng(For::Fault(number));
        let (now, primary) = (self.world.now, self.world.primary);
        let address = self.world.servers[primary].address;
        let words = match rng.below(3) {
            0 => Some(error_message(b'E', "FATAL", "57P01")),
            1 => Some(error_message(b'N', "WARNING", "57P02")),
            _ => None,
        };
        let words = words.as_deref();
        let mut kind = *rng.pick(&KINDS);
        let mut till = || span(&mut rng);
        let (lasts, later, much_later) = (now + till(), now + till(), till());
        let any = if rng.chance(70) { address } else { rng.below(self.net.addresses.len()) };
        let promotes = matches!(
            kind,
            Fault::CrashAndPromotion
                | Fault::PromotionBesideTheOld
                | Fault::Switchover
                | Fault::Cascade
        );
        // One at a time, and whoever takes over by himself has no operator.
        if promotes
            && (self.self_promotion || self.agenda.iter().any(|(_, it)| *it == Deed::Promote))
        {
            kind = Fault::Crash;
        }
        self.figures.fault(kind);
        self.world.note(|| format!("fault {number}: {kind:?}"));
        let cut = Cut {
            address: any,
            polls: true,
            sessions: true,
            to_server: true,
            to_client: true,
            from: now,
            until: lasts,
        };
        match kind {
            Fault::LinkBroken => self.lose_link(true)?,
            Fault::EndDuplicated => {
                self.lose_link(true)?;
                self.client.session.handle_link_lost();
                self.drain_events()?;
            }
            Fault::BackendEnded => {
                if let Some(id) = self.client.link {
                    self.world.end_backend(id, words);
                }
            }
            Fault::Crash => {
                self.world.crash(primary, words);
                let at = if self.self_promotion { lasts + 10_000 * MS } else { lasts };
                self.agenda.push((at, Deed::Restart(primary)));
            }
            Fault::CrashAndPromotion | Fault::Cascade => {
                if rng.chance(30) {
                    // The machine is gone, and nobody says so.
                    self.net.cuts.push(Cut { address, until: later.max(lasts), ..cut });
                }
                self.world.crash(primary, words);
                self.agenda.push((lasts, Deed::Promote));
                if kind == Fault::Cascade {
                    self.agenda.push((lasts + much_later, Deed::Cascade));
                }
                if rng.chance(50) {
                    self.agenda.push((later.max(lasts), Deed::Return(primary)));
                }
                self.agenda.push((later.max(lasts) + much_later, Deed::Rejoin(address)));
            }
            Fault::PromotionBesideTheOld => {
                self.agenda.push((lasts, Deed::Promote));
                if rng.chance(50) {
                    let (polls, sessions) = (rng.chance(80), rng.chance(50));
                    let until = later.max(lasts);
                    self.net.cuts.push(Cut { address, polls, sessions, until, ..cut });
                }
                self.agenda.push((later.max(lasts) + much_later, Deed::Rejoin(address)));
            }
            Fault::Switchover => {
                self.world.servers[primary].read_only = true;
                self.clients_mut().for_each(|client| client.app.read_only_seen = true);
                self.agenda.push((lasts, Deed::Promote));
                self.agenda.push((lasts + 1, Deed::Rejoin(address)));
            }
            Fault::HostCutOff => self.net.cuts.push(cut),
            Fault::Partition => {
                let polls = rng.chance(50);
                let to_server = rng.chance(50);
                let sessions = !polls || rng.chance(30);
                let to_client = !to_server || rng.chance(30);
                self.net.cuts.push(Cut { polls, sessions, to_server, to_client, ..cut });
            }
            Fault::Hang => {
                // Half of them for so long that it is given up.
                let timeout = us(self.monitors[0].timing.timeout);
                let longer = if rng.chance(50) { timeout * 2 + 3000 * MS } else { 0 };
                self.net.addresses[any].hung_until = lasts + longer;
            }
            Fault::Slow => self.net.addresses[any].slow_until = lasts,
            Fault::Full => self.net.addresses[any].full_until = lasts,
            Fault::StandbyLost => {
                if let Some(standby) = self.any_standby(&mut rng) {
                    self.world.crash(standby, words);
                    self.agenda.push((lasts, Deed::Restart(standby)));
                }
            }
            Fault::OtherCluster => self.replace_standby(&mut rng, lasts),
            // These follow from others, or come by a generator of their own.
            Fault::StaleReturned | Fault::SelfPromotion | Fault::ClientCrash => {}
            Fault::NoServer => {
                let timeout = us(self.monitors[0].timing.timeout);
                let until = now + timeout / 2 + rng.next() % timeout;
                for address in 0..self.net.addresses.len() {
                    if rng.chance(50) {
                        self.net.cuts.push(Cut { address, until, ..cut.clone() });
                    } else {
                        let server = self.net.addresses[address].server;
                        self.world.crash(server, words);
                        self.agenda.push((until, Deed::Restart(server)));
                    }
                }
            }
        }
        self.next_due = 0;
        Ok(())
    }

    fn any_standby(&self, rng: &mut Rng) -> Option<usize> {
        let up = self.world.standbys.iter().copied().filter(|it| self.world.servers[*it].alive);
        let up: Vec<usize> = up.collect();
        (!up.is_empty()).then(|| *rng.pick(&up))
    }

    /// A server of another cluster comes to be where a standby was, once the cluster is known.
    fn replace_standby(&mut self, rng: &mut Rng, until: u64) {
        let known = |monitor: usize| {
            self.clients().any(|it| it.monitor == monitor && it.highest_timeline > 0)
        };
        if self.world.standbys.len() < 2 || !(0..self.monitors.len()).all(known) {
            return;
        }
        let Some(standby) = self.any_standby(rng) else { return };
        let len = |it: usize| self.world.servers[it].wal.len();
        // What it alone has stays to be had.
        if !self.world.standbys.iter().any(|it| *it != standby && len(*it) >= len(standby)) {
            return;
        }
        let address = self.world.servers[standby].address;
        self.world.crash(standby, None);
        self.world.standbys.retain(|it| *it != standby);
        self.net.addresses[address].server = self.world.add_foreign(address);
        self.agenda.push((until, Deed::Rejoin(address)));
    }

    /// When the next thing is due that somebody has set out to do.
    pub fn next_deed(&self) -> u64 {
        self.agenda.iter().map(|(at, _)| *at).min().unwrap_or(NEVER)
    }

    pub fn deeds(&mut self) -> Result {
        while let Some(index) = self.due_deed() {
            let (_, deed) = self.agenda.remove(index);
            self.world.note(|| format!("due: {deed:?}"));
            match deed {
                Deed::Restart(server) => self.restart(server),
                Deed::Promote => self.promote(),
                Deed::Cascade => {
                    let primary = self.world.primary;
                    if self.world.servers[primary].alive && self.heir().is_some() {
                        self.world.crash(primary, None);
                        self.promote();
                    }
                }
                Deed::Return(server) => {
                    self.figures.fault(Fault::StaleReturned);
                    self.restart(server);
                }
                Deed::Rejoin(address) => self.rejoin(address),
            }
        }
        self.promote_by_itself()
    }

    /// The one that was due first.
    fn due_deed(&self) -> Option<usize> {
        let due = self.agenda.iter().enumerate().filter(|(_, (at, _))| *at <= self.world.now);
        due.min_by_key(|(index, (at, _))| (*at, *index)).map(|(index, _)| index)
    }

    fn restart(&mut self, server: usize) {
        let address = self.world.servers[server].address;
        // Another one may have taken its place meanwhile.
        if self.net.addresses[address].server == server && !self.world.servers[server].alive {
            self.world.restart(server);
            let takes = self.world.rng.next() % (200 * MS);
            self.net.addresses[address].starting_until = self.world.now + takes;
        }
    }

    /// The standby that has most; with synchronous replication only if that is all that was acknowledged: one
    /// that lags behind a primary that has just been promoted itself need not.
    fn heir(&self) -> Option<usize> {
        let has = |it: &usize| self.world.servers[*it].wal.len();
        let best = self.world.standbys.iter().copied().max_by_key(has)?;
        let acknowledged = self.world.servers[self.world.primary].acknowledged;
        (!self.world.sync || has(&best) >= acknowledged).then_some(best)
    }

    /// The operator promotes: with synchronous replication the standby that has all that was
    /// acknowledged, otherwise any; if there is none, the primary is started again.
    fn promote(&mut self) {
        let standbys = self.world.standbys.clone();
        let most = |it: &usize| self.world.servers[*it].wal.len();
        let best = self.heir();
        let chosen = if self.world.sync || self.world.rng.chance(50) {
            best
        } else {
            let up = standbys.iter().copied().filter(|it| self.world.servers[*it].alive);
            up.min_by_key(most).or(best)
        };
        match chosen {
            Some(heir) => {
                self.restart(heir);
                self.world.promote(heir);
                self.rejoin_others();
            }
            None => {
                self.restart(self.world.primary);
                self.world.servers[self.world.primary].read_only = false;
            }
        }
    }

    /// Who follows nobody is made anew, sooner or later.
    fn rejoin_others(&mut self) {
        for address in 0..self.net.addresses.len() {
            let server = self.net.addresses[address].server;
            let waits = self.agenda.iter().any(|(_, it)| *it == Deed::Rejoin(address));
            let serves = server == self.world.primary || self.world.standbys.contains(&server);
            if !serves && !waits {
                let later = self.world.now + self.world.rng.next() % (3000 * MS);
                self.agenda.push((later, Deed::Rejoin(address)));
            }
        }
    }

    fn rejoin(&mut self, address: usize) {
        let old = self.net.addresses[address].server;
        let primary = self.world.primary;
        if old == primary || (self.world.standbys.contains(&old) && self.world.servers[old].alive) {
            return;
        }
        if self.world.standbys.contains(&old) || !self.world.servers[primary].alive {
            // There is nothing to make it from, or no need to.
            self.agenda.push((self.world.now + 500 * MS, Deed::Restart(old)));
            if !self.world.servers[primary].alive {
                self.agenda.push((self.world.now + 500 * MS, Deed::Rejoin(address)));
            }
            return;
        }
        self.net.addresses[address].server = self.world.rejoin(address, old, None);
    }

    /// `on_primary_loss = promote`: what `src/cluster/promote.rs` does with the picture's word.
    fn promote_by_itself(&mut self) -> Result {
        if !self.self_promotion || self.promoting_until > self.world.now {
            return Ok(());
        }
        let monitor = &mut self.monitors[0];
        let at = monitor.origin.at(self.world.now);
        let Some(succession) = monitor.picture.succession(at) else { return Ok(()) };
        let now = self.world.now;
        let standbys = self.world.standbys.clone();
        let up = |server: usize, run: &Self| {
            let it = &run.world.servers[server];
            it.alive && run.net.answers(it.address, now)
        };
        // Where one cannot be asked it is known what that may cost; here it waits.
        if !standbys.iter().all(|standby| up(*standby, self)) {
            return Ok(());
        }
        let lost = self.net.addresses[succession.lost].server;
        for server in standbys.into_iter().chain(up(lost, self).then_some(lost)) {
            let address = self.world.servers[server].address;
            self.monitors[0].learn(address, server, &mut self.world)?;
        }
        let Some(succession) = self.monitors[0].picture.succession(at) else { return Ok(()) };
        let heir = self.net.addresses[succession.heir].server;
        if self.heir().is_none() {
            return Ok(());
        }
        if self.world.standbys.contains(&heir) {
            let has = |server: &usize| self.world.servers[*server].wal.len();
            if self.world.standbys.iter().map(has).max() > Some(has(&heir)) {
                return Err(format!("Segue promotes server {heir}, which lags"));
            }
            self.world.note(|| format!("Segue promotes server {heir}"));
            // It waits for that to become known before it thinks of another one.
            self.promoting_until = now + us(self.monitors[0].timing.timeout);
            self.figures.fault(Fault::SelfPromotion);
            self.world.promote(heir);
            self.rejoin_others();
        }
        Ok(())
    }

    /// Since when there is a server that a session can have.
    pub fn look_at_servers(&mut self) {
        let primary = &self.world.servers[self.world.primary];
        let well = primary.alive
            && !primary.read_only
            && self.net.addresses[primary.address].server == self.world.primary
            && self.net.answers(primary.address, self.world.now);
        self.well_since = well.then(|| self.well_since.unwrap_or(self.world.now));
    }

    /// All faults end; what was left behind is made anew, or is left to stand there.
    pub fn make_peace(&mut self) {
        self.net.heal();
        self.agenda.clear();
        self.self_promotion = false;
        let primary = self.world.primary;
        if !self.world.servers[primary].alive {
            self.world.restart(primary);
        }
        self.world.servers[primary].read_only = false;
        let leaves = self.world.rng.chance(50);
        for address in 0..self.net.addresses.len() {
            let server = self.net.addresses[address].server;
            if self.world.standbys.contains(&server) {
                if !self.world.servers[server].alive {
                    self.world.restart(server);
                }
            } else if server != primary && !(leaves && self.world.standbys.len() > 1) {
                self.net.addresses[address].server = self.world.rejoin(address, server, None);
            }
        }
        self.next_due = 0;
    }
}
