//! One run: a session, its application, its network and its servers, driven by one random generator.

use segue::session::LedgerAccess;
use segue::wire::frame::Status;

use crate::client::{self, Client};
use crate::clock::{MS, Origin};
use crate::figures::Figures;
use crate::files::Files;
use crate::focus::Focus;
use crate::history;
use crate::monitor::{self, Monitor};
use crate::nemesis::Deed;
use crate::net::Net;
use crate::plan::{For, Plan};
use crate::profile::Profile;
use crate::quiet::quietly;
use crate::submit;
use crate::world::World;

pub struct Run {
    pub plan: Plan,
    pub world: World,
    /// The one whose turn it is, and the others.
    pub client: Client,
    pub others: Vec<Client>,
    /// So many faults there were, and so many may come.
    pub faults: usize,
    pub faults_left: usize,
    pub lag_max: usize,
    /// The standby is going to take over.
    pub promotes: bool,
    /// All is answered, and nothing more is to go wrong.
    pub ends: bool,
    /// In so many rounds nothing has happened.
    pub barren: usize,
    pub figures: Figures,
    pub net: Net,
    /// The processes' views of the cluster; none: the session's server is drawn.
    pub monitors: Vec<Monitor>,
    pub agenda: Vec<(u64, Deed)>,
    /// Something is due then.
    pub next_due: u64,
    /// `on_primary_loss = promote`.
    pub self_promotion: bool,
    pub promoting_until: u64,
    /// After so long a link that is cut off is lost.
    pub user_timeout: u64,
    /// Since when a server can be had.
    pub well_since: Option<u64>,
}

pub type Result<T = ()> = std::result::Result<T, String>;

/// Runs a plan; gives what went wrong, and the trace.
pub fn once(plan: &Plan, traced: bool) -> (Result<Figures>, Vec<String>) {
    if plan.submissions {
        return submit::once(plan, traced);
    }
    let mut run = Run::new(plan.clone(), traced);
    let done = quietly(|| run.run());
    let result = match done {
        Ok(Ok(())) => Ok(run.figures),
        Ok(Err(problem)) => Err(problem),
        Err(panic) => Err(format!("panic: {panic}")),
    };
    (result, run.trace().to_vec())
}

/// The numbers of the actions and faults that a plan comes to.
pub fn parts(plan: &Plan) -> (Vec<usize>, Vec<usize>) {
    if plan.submissions {
        return submit::parts(plan);
    }
    let mut run = Run::new(plan.clone(), false);
    // However it ends.
    let _ = quietly(|| run.run());
    let mut actions: Vec<usize> = run.clients().flat_map(Client::action_numbers).collect();
    actions.sort_unstable();
    (actions, (0..run.faults).collect())
}

impl Run {
    pub fn new(plan: Plan, traced: bool) -> Self {
        let mut rng = plan.rng(For::Options);
        let mut sync = rng.chance(60);
        let big = rng.below(9);
        let count = *rng.pick(&[1, 1, 2, 3]);
        let mut profile = Profile::new(plan.rng(For::Profile));
        let mut addresses = rng.chance(40).then(|| 2 + rng.below(2));
        let focus = Focus::of(&plan);
        if let Some(focus) = focus {
            profile.concentrate(focus, plan.rng(For::Profile));
            addresses = None;
            sync = focus.sync().unwrap_or(sync);
        }
        let mut world = World::new(plan.rng(For::Order), profile, sync, big, addresses);
        world.trace = traced.then(Vec::new);
        world.note(|| {
            format!(
                "synchronous replication: {sync}, clients: {count}, addresses: {addresses:?}, \
                 {profile:?}"
            )
        });
        let access = match rng.below(10) {
            0 if focus.is_none() => LedgerAccess::None,
            0..=3 => LedgerAccess::Function,
            _ => LedgerAccess::Table,
        };
        let mut clients: Vec<Client> =
            (0..count).map(|number| Client::new(number, &plan, access, &mut world)).collect();
        let mut watched = plan.rng(For::Cluster);
        let net = Net::new(&mut watched, addresses.unwrap_or(0));
        let mut monitors = Vec::new();
        if let Some(addresses) = addresses {
            let timing = monitor::timing(&mut watched);
            let own = watched.chance(50);
            let origin = Origin::new();
            world.note(|| format!("{timing:?}, {net:?}"));
            for client in &mut clients {
                client.monitor = if own { client.number } else { 0 };
            }
            for _ in 0..if own { count } else { 1 } {
                let access = client::access(access);
                monitors.push(Monitor::new(timing.clone(), addresses, access, origin));
            }
        }
        Self {
            net,
            monitors,
            agenda: Vec::new(),
            next_due: 0,
            promoting_until: 0,
            self_promotion: addresses.is_some() && watched.chance(15),
            user_timeout: *watched.pick(&[1000 * MS, 5000 * MS, 15_000 * MS]),
            well_since: None,
            client: clients.remove(0),
            others: clients,
            world,
            plan,
            faults: 0,
            faults_left: 1 + rng.below(profile.faults_max),
            lag_max: rng.below(8),
            promotes: false,
            ends: false,
            barren: 0,
            figures: Figures { runs: 1, ..Figures::default() },
        }
    }

    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        std::iter::once(&self.client).chain(&self.others)
    }

    pub fn clients_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        std::iter::once(&mut self.client).chain(&mut self.others)
    }

    /// It is another client's turn.
    pub fn turn(&mut self) {
        if !self.others.is_empty() {
            let next = self.world.rng.below(self.others.len() + 1);
            if let Some(other) = self.others.get_mut(next) {
                std::mem::swap(other, &mut self.client);
            }
        }
        self.world.client = self.client.number;
    }

    pub fn trace(&self) -> &[String] {
        self.world.trace.as_deref().unwrap_or_default()
    }

    pub fn run(&mut self) -> Result {
        let mut barren = 0;
        for _ in 0..5_000_000 {
            let done = self.round()?;
            barren = if done { 0 } else { barren + 1 };
            self.pass_time(barren)?;
            if self.is_over() {
                return self.finish();
            }
            if barren > 20_000 && !self.is_watched() {
                return Err(format!("nothing happens any more: {}", self.awaited()));
            }
        }
        Err(format!("no end is in sight: {}", self.awaited()))
    }

    fn is_over(&self) -> bool {
        self.clients().all(Client::is_over)
    }

    fn awaited(&self) -> String {
        let requests: Vec<_> = self.clients().map(|client| &client.requests).collect();
        format!("waiting: {requests:?}")
    }

    /// One thing happens; whether anything did.
    pub fn round(&mut self) -> Result<bool> {
        self.turn();
        self.drain_events()?;
        if self.client.session.is_live() {
            self.client.seeking.handle_live();
            self.client.waits.seeks_since = None;
        }
        self.client.check_limits()?;
        if self.seize_moment()? {
            return Ok(true);
        }
        if self.faults_left > 0 && self.fault_is_due() {
            if let Some(number) = self.next_fault() {
                self.fault(number)?;
            }
            return Ok(true);
        }
        if !self.ends && self.crash_is_due() {
            self.crash_client()?;
            return Ok(true);
        }
        self.client.files.iter_mut().for_each(Files::flush_now_and_then);
        if self.client.recovery.is_some() {
            return match self.world.rng.below(6) {
                0 => self.zombie(),
                1 => self.elsewhere(),
                _ => self.recover(),
            };
        }
        match self.world.rng.below(12) {
            0 | 1 if self.is_idle() => Ok(false),
            0 | 1 => self.application(),
            2 | 3 => self.deliver_to_server(),
            4 | 5 => self.deliver_to_client(),
            6 => self.zombie(),
            7 => self.network(),
            8 => self.elsewhere(),
            _ => match self.client.link {
                Some(backend) if self.is_hung(self.world.backends[backend].server) => Ok(false),
                Some(backend) => self.world.step(backend),
                None if self.is_watched() => self.seek(),
                None => self.find_link(),
            },
        }
    }

    fn fault_is_due(&mut self) -> bool {
        let Profile { fault, fault_at_commit, fault_in_transaction, .. } = self.world.profile;
        let at_commit = fault_at_commit > 0 && self.client.session.commit_in_flight();
        let in_transaction = fault_in_transaction > 0 && self.client.app.tx.is_some();
        self.world.rng.below(1000) < fault
            || (at_commit && self.world.rng.chance(fault_at_commit))
            || (in_transaction && self.world.rng.chance(fault_in_transaction))
    }

    /// The number of the fault that is due, unless it is left out.
    pub fn next_fault(&mut self) -> Option<usize> {
        self.faults_left -= 1;
        let number = self.faults;
        self.faults += 1;
        (!self.plan.without_faults.contains(&number)).then_some(number)
    }

    /// Replication, the second writer, and the pending promotion.
    fn elsewhere(&mut self) -> Result<bool> {
        self.trim_kept_commits();
        match self.world.rng.below(5) {
            0 if self.world.rng.chance(self.world.profile.second_writer) => {
                self.world.second_writer()
            }
            1 if self.promotes => {
                self.promotes = false;
                self.world.promote(self.world.standbys[0]);
            }
            2 => {
                let primary = self.world.primary;
                for backend in &mut self.world.backends {
                    // No faster than they are taken.
                    let waits = backend.wire.len() > 100;
                    if backend.alive && backend.server == primary && !waits {
                        backend.notifications.insert("c0".into());
                        backend.notify_if_idle();
                    }
                }
            }
            _ => {
                let Some(standby) = self.standby_that_receives() else { return Ok(false) };
                let lag = self.world.lag(standby);
                let goes_on = self.world.rng.chance(self.world.profile.replication);
                if lag > 0 && !self.promotes && goes_on {
                    let count = 1 + self.world.rng.below(lag);
                    self.world.replicate(standby, count.max(lag.saturating_sub(self.lag_max)));
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// `on_commits_lost=reapply`: the session is told which of its commits the backup has.
    fn trim_kept_commits(&mut self) {
        if !self.client.session.keeps_commits() {
            return;
        }
        let row = self.client.session.ledger_row();
        let Some(standby) = self.world.standbys.first() else { return };
        let log = &self.world.servers[*standby].wal;
        let sealed = log.iter().rev().filter_map(|record| record.sealed);
        let number = sealed.filter(|(id, _)| *id == row).map(|(_, number)| number).next();
        if let Some(number) = number {
            self.client.session.handle_backup_has(row, number.cast_unsigned());
        }
    }

    /// A backend whose client has gone goes on with what it has received.
    fn zombie(&mut self) -> Result<bool> {
        let overdue = self.overdue();
        let (zombies, often): (Vec<usize>, usize) = match overdue.is_empty() {
            true => {
                let all = 0..self.world.backends.len();
                (all.filter(|id| self.is_zombie(*id)).collect(), self.world.profile.zombies)
            }
            false => (overdue, 100),
        };
        if zombies.is_empty() || !self.world.rng.chance(often) {
            return Ok(false);
        }
        let id = *self.world.rng.pick(&zombies);
        if self.is_hung(self.world.backends[id].server) {
            return Ok(false);
        }
        let count = self.world.rng.below(60);
        let moved = self.arrive(id, count);
        Ok(self.world.step(id)? || moved)
    }

    pub fn is_zombie(&self, id: usize) -> bool {
        let backend = &self.world.backends[id];
        backend.alive && !backend.warm && self.clients().all(|client| client.backend() != Some(id))
    }

    /// What has ended goes to the journal as soon as that is known.
    pub fn file_ends(&mut self) -> Result {
        match self.client.files.as_ref().is_some_and(|files| files.disk.is_some()) {
            true => self.serve_files(),
            false => Ok(()),
        }
    }

    pub fn serve_files(&mut self) -> Result {
        if let Some(files) = &mut self.client.files {
            files.serve(&mut self.client.session);
            self.drain_events()?;
        }
        Ok(())
    }

    /// Nothing is under way: the session, its server and the application must agree.
    pub fn check_quiet(&mut self) -> Result {
        if !self.client.session.is_quiet() {
            return Ok(());
        }
        let Some(id) = self.client.link else { return Ok(()) };
        let backend = &self.world.backends[id];
        let in_tx = self.client.app.tx.is_some();
        if !in_tx && self.client.session.journal_len() > 0 {
            return Err(format!(
                "what has ended stays in memory: {} bytes",
                self.client.session.journal_len()
            ));
        }
        // A link that is about to be given up lacks something that the next one will have.
        let goes = backend.eof || self.client.session.gives_up_link();
        if !backend.alive || goes || in_tx || !self.client.session.output().is_empty() {
            return Ok(());
        }
        if !backend.is_quiet() {
            return Err("the session is quiet, its backend is not".into());
        }
        if self.client.session.status() != Status::Idle {
            return Err(
                "the session is in a transaction of which the application knows nothing".into()
            );
        }
        let refused = self.client.app.no_link || self.client.app.read_only_seen;
        if !self.client.app.settings_unknown
            && !refused
            && backend.session != self.client.app.session
        {
            return Err(format!(
                "other settings are in force than were made: {:?}, {:?}",
                backend.session, self.client.app.session
            ));
        }
        Ok(())
    }

    /// All is answered: lets everything that is still at work come to its end, and judges.
    fn finish(&mut self) -> Result {
        if self.promotes {
            self.promotes = false;
            self.world.promote(self.world.standbys[0]);
        }
        self.world.note(|| "the end: everything comes to rest".into());
        self.faults_left = 0;
        self.world.profile.come_to_rest();
        self.ends = true;
        if self.is_watched() {
            self.come_to_rest()?;
        }
        let mut barren = 0;
        while barren < 3000 && !self.is_watched() {
            self.turn();
            let primary = self.world.primary;
            if self.client.link.is_some_and(|id| self.world.backends[id].server != primary) {
                self.lose_link(true)?;
            }
            self.world.replicate(self.world.standbys[0], usize::MAX);
            if self.client.link.is_none() && self.world.servers[primary].alive {
                self.make_link(primary)?;
            }
            let done = self.round()?;
            let rests = !done && self.rests_on(primary);
            barren = if done { 0 } else { barren + 1 };
            self.pass_time(barren)?;
            if rests && barren > 100 {
                break;
            }
        }
        self.judge()?;
        for index in 0..self.others.len() {
            std::mem::swap(&mut self.client, &mut self.others[index]);
            self.world.client = self.client.number;
            self.judge()?;
        }
        // What is lost breaks the histories of whoever has read it, and is told of.
        if self.world.sync { history::check(&self.world, self.clients()) } else { Ok(()) }
    }

    /// What the client was told, against what there is.
    fn judge(&mut self) -> Result {
        self.serve_files()?;
        let client = &self.client;
        if let Some(files) = &client.files {
            for server in self.world.servers.iter().filter(|_| !client.options.reapply) {
                files.check(&server.wal, client.number)?;
            }
            if client.session.is_quiet() {
                files.check_empty()?;
            }
        }
        if !client.session.is_quiet() {
            return Err("the session does not come to rest".into());
        }
        self.check_quiet()?;
        self.figures.unknown += self.client.app.unknowns;
        self.client.app.judge(&self.world)
    }

    /// Everybody is served by this server, and nothing else is at work there.
    pub fn rests_on(&self, server: usize) -> bool {
        let served = |client: &Client| {
            client.session.is_quiet()
                && client.link.is_some_and(|id| self.world.backends[id].server == server)
        };
        self.clients().all(served)
            && (0..self.world.backends.len()).all(|id| !self.is_zombie_on(id, server))
    }

    fn is_zombie_on(&self, id: usize, server: usize) -> bool {
        self.is_zombie(id) && self.world.backends[id].server == server
    }
}
