//! What happens in a run of submissions, in which order, and what breaks.

use segue::client::parts::{Desk, Lost};

use super::books;
use super::focus::Focus;
use super::route::hang_up;
use super::till::Till;
use crate::backend::last_words;
use crate::figures::{Fault, Figures};
use crate::plan::{For, Plan};
use crate::profile::Profile;
use crate::quiet::quietly;
use crate::world::World;

pub type Result<T = ()> = std::result::Result<T, String>;

/// More clients than this no run has.
const TILLS_MAX: usize = 3;

pub struct Run {
    pub plan: Plan,
    pub focus: Option<Focus>,
    pub world: World,
    pub tills: Vec<Till>,
    /// So many orders were drawn, and so many faults were there.
    orders: usize,
    pub faults: usize,
    pub faults_left: usize,
    promotes: bool,
    /// So many more promotions are to lose something that was told.
    losses_left: usize,
    pub ends: bool,
    pub figures: Figures,
}

/// Runs a plan; gives what went wrong, and the trace.
pub fn once(plan: &Plan, traced: bool) -> (Result<Figures>, Vec<String>) {
    let mut run = Run::new(plan.clone(), traced);
    let result = match quietly(|| run.run()) {
        Ok(Ok(())) => Ok(run.figures),
        Ok(Err(problem)) => Err(problem),
        Err(panic) => Err(format!("panic: {panic}")),
    };
    (result, run.world.trace.take().unwrap_or_default())
}

/// The numbers of the orders and faults that a plan comes to.
pub fn parts(plan: &Plan) -> (Vec<usize>, Vec<usize>) {
    let mut run = Run::new(plan.clone(), false);
    // However it ends.
    let _ = quietly(|| run.run());
    ((0..run.orders).collect(), (0..run.faults).collect())
}

impl Run {
    fn new(plan: Plan, traced: bool) -> Self {
        let mut rng = plan.rng(For::Submissions);
        let focus = Focus::of(&plan);
        let sync = rng.chance(60);
        let count = *rng.pick(&[1, 1, 2, TILLS_MAX]);
        let mut profile = Profile::new(plan.rng(For::Profile));
        profile.errors = *rng.pick(&[0, 0, 20, 60]);
        // What was told and is lost takes a promotion at the right moment, and a standby that lags.
        let loses = !sync && rng.chance(60);
        profile.replication = if loses { 5 } else { profile.replication };
        let cut_short = focus == Some(Focus::WaitCutShort);
        let (sync, loses) = (sync || cut_short, loses || cut_short);
        if let Some(focus) = focus {
            focus.profile(&mut profile);
        }
        let mut world = World::new(plan.rng(For::Order), profile, sync, 0, None);
        world.trace = traced.then(Vec::new);
        world.claims_by_function = rng.chance(30);
        world.note(|| format!("submissions; synchronous replication: {sync}, {profile:?}"));
        let tills = (0..count).map(|number| Till::new(number, &plan, &mut world, loses)).collect();
        Self {
            faults_left: 1 + rng.below(profile.faults_max),
            plan,
            focus,
            world,
            tills,
            orders: 0,
            faults: 0,
            promotes: false,
            losses_left: if loses { 1 + rng.below(3) } else { 0 },
            ends: false,
            figures: Figures { runs: 1, ..Figures::default() },
        }
    }

    fn run(&mut self) -> Result {
        let mut barren = 0;
        for _ in 0..100_000 {
            let done = self.round()?;
            barren = if done { 0 } else { barren + 1 };
            self.pass_time(barren);
            // Some of it is left for the quiet end.
            let handed = self.tills.iter().all(|till| till.orders_left == 0);
            let goes_on = if self.focus.is_some() { 8000 } else { 1000 };
            if handed && self.world.rng.below(goes_on) == 0 {
                return self.finish();
            }
        }
        Err("no end is in sight".into())
    }

    /// Time passes: to what is due next, if nothing happens.
    fn pass_time(&mut self, barren: usize) {
        self.world.now += 1 + self.world.rng.next() % 60;
        if barren > 50 {
            let now = self.world.now;
            let mut next = u64::MAX;
            for till in &self.tills {
                let Some(desk) = &till.desk else { continue };
                let core = desk.lock();
                for (at, route) in till.routes.iter().enumerate() {
                    let due = core.queue.due(at).map_or(0, |at| at * 1000);
                    let later = [due, route.rests_until].into_iter().filter(|at| *at > now);
                    next = later.fold(next, u64::min);
                }
            }
            self.world.now = if next == u64::MAX { now } else { next };
        }
        self.figures.time = self.world.now;
    }

    fn round(&mut self) -> Result<bool> {
        let Profile { fault, fault_at_commit, .. } = self.world.profile;
        let likely = fault + 5 * fault_at_commit;
        if self.faults_left > 0 && self.world.rng.below(1000) < likely {
            self.faults_left -= 1;
            let number = self.faults;
            self.faults += 1;
            if !self.plan.without_faults.contains(&number) {
                self.fault(number)?;
            }
            return Ok(true);
        }
        let likely = if self.focus == Some(Focus::WaitCutShort) { 30 } else { 3 };
        if self.may_lose() && self.world.rng.chance(likely) {
            return self.lose_what_was_told();
        }
        let at = self.world.rng.below(self.tills.len());
        if let Some(session) = self.moment(at) {
            self.lose_at_moment(at, session)?;
            return Ok(true);
        }
        let dies = !self.ends && self.dies(at);
        if self.tills[at].desk.is_none() {
            self.world.note(|| format!("a later process of till {at} opens the journal"));
            let till = &mut self.tills[at];
            till.begin()?;
            if let Some(disk) = till.disk.as_mut().filter(|_| !self.ends) {
                disk.goes_wrong();
            }
            return Ok(true);
        }
        if dies {
            return self.crash(at);
        }
        match self.world.rng.below(12) {
            0 => self.application(at),
            1 => self.zombie(),
            2 => self.elsewhere(),
            3 => {
                let till = &mut self.tills[at];
                let unwritten = till.unwritten && self.world.rng.chance(20);
                if let Some(disk) = till.disk.as_ref().filter(|_| unwritten) {
                    disk.flush();
                    till.unwritten = false;
                }
                Ok(unwritten)
            }
            4 if self.world.rng.chance(20) => {
                let till = &mut self.tills[at];
                let holds = till.backup;
                till.books.look(&self.world, holds)?;
                Ok(false)
            }
            _ => self.travel(at),
        }
    }

    /// Whether a promotion now would lose something that was told.
    fn may_lose(&self) -> bool {
        let told = |till: &Till| till.routes.iter().any(|route| !route.losses.is_empty());
        self.losses_left > 0
            && !(self.ends || self.promotes)
            && self.world.lag(self.world.standbys[0]) > 0
            && self.tills.iter().any(told)
    }

    fn lose_what_was_told(&mut self) -> Result<bool> {
        self.losses_left -= 1;
        let number = self.faults;
        self.faults += 1;
        if self.plan.without_faults.contains(&number) {
            return Ok(true);
        }
        let crashes = self.world.rng.chance(50);
        let kind = if crashes { Fault::CrashAndPromotion } else { Fault::PromotionBesideTheOld };
        self.figures.fault(kind);
        self.world.note(|| format!("fault {number}: {kind:?}, with a standby that lags"));
        if crashes {
            self.world.crash(self.world.primary, None);
        }
        self.promotes = true;
        Ok(true)
    }

    fn application(&mut self, at: usize) -> Result<bool> {
        let rare = self.tills[at].orders_left == 0 || self.world.rng.chance(20);
        let number = if rare { None } else { self.next_order(at) };
        if !rare && number.is_none() {
            return Ok(false);
        }
        let holds = self.tills[at].backup;
        self.tills[at].books.look(&self.world, holds)?;
        let acts = number.is_some() || self.world.rng.chance(3);
        if !acts {
            return Ok(false);
        }
        self.figures.requests += usize::from(number.is_some());
        self.tills[at].act(&mut self.world, number, false)
    }

    /// The number of one more order, unless it is left out.
    fn next_order(&mut self, at: usize) -> Option<usize> {
        self.tills[at].orders_left -= 1;
        let number = self.orders;
        self.orders += 1;
        (!self.plan.without_actions.contains(&number)).then_some(number)
    }

    /// A session does something.
    fn travel(&mut self, at: usize) -> Result<bool> {
        let till = &mut self.tills[at];
        let session = self.world.rng.below(till.routes.len());
        if till.routes[session].link.is_some() {
            return till.travel(session, &mut self.world);
        }
        let rests = till.routes[session].rests_until > self.world.now;
        let work = till
            .desk
            .as_ref()
            .is_some_and(|desk| desk.lock().queue.has_work(session, self.world.now / 1000));
        // What was told has to be looked for.
        let work = work || !till.routes[session].losses.is_empty();
        if rests || !work || till.opening.is_some() {
            return Ok(false);
        }
        let Some(server) = self.find_server(at, session) else { return Ok(true) };
        self.tills[at].link_to(session, server, &mut self.world)?;
        self.figures.links += 1;
        Ok(true)
    }

    /// The primary, or a server that was one, where the session has not been on a newer timeline.
    fn find_server(&mut self, at: usize, session: usize) -> Option<usize> {
        let primary = self.world.primary;
        if self.promotes && (self.world.servers[primary].read_only || self.world.rng.chance(50)) {
            self.promote();
            return None;
        }
        if !self.world.servers[primary].alive {
            if !self.promotes {
                self.world.restart(primary);
            }
            return None;
        }
        let till = &self.tills[at];
        let floor = till.routes[session].carrier.timeline_floor.max(till.floor);
        let mut old = (0..primary).rev().filter(|old| {
            let old = &self.world.servers[*old];
            old.alive && old.timeline >= floor
        });
        let old = old.next();
        Some(old.filter(|_| self.world.rng.chance(15)).unwrap_or(primary))
    }

    fn promote(&mut self) {
        self.promotes = false;
        self.figures.failovers += 1;
        self.world.promote(self.world.standbys[0]);
    }

    /// Replication, the second writer, and the pending promotion.
    fn elsewhere(&mut self) -> Result<bool> {
        match self.world.rng.below(4) {
            0 if self.world.rng.chance(self.world.profile.second_writer) => {
                self.world.second_writer()
            }
            1 if self.promotes => self.promote(),
            _ => {
                let standby = self.world.standbys[0];
                let lag = self.world.lag(standby);
                let goes_on = self.world.rng.chance(self.world.profile.replication);
                if lag > 0 && goes_on {
                    let count = 1 + self.world.rng.below(lag);
                    self.world.replicate(standby, count);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn is_left(&self, id: usize) -> bool {
        let backend = &self.world.backends[id];
        let served = |till: &Till| till.routes.iter().any(|route| route.backend() == Some(id));
        backend.alive && !self.tills.iter().any(served)
    }

    /// A backend whose client has gone goes on with what it has received.
    fn zombie(&mut self) -> Result<bool> {
        let left: Vec<usize> =
            (0..self.world.backends.len()).filter(|id| self.is_left(*id)).collect();
        if left.is_empty() || !self.world.rng.chance(self.world.profile.zombies) {
            return Ok(false);
        }
        let id = *self.world.rng.pick(&left);
        let count = self.world.rng.below(60);
        let backend = &mut self.world.backends[id];
        let count = count.min(backend.inflight.len());
        backend.input.extend(backend.inflight.drain(..count));
        Ok(self.world.step(id)? || count > 0)
    }

    fn fault(&mut self, number: usize) -> Result {
        let mut rng = self.plan.rng(For::Fault(number));
        let primary = self.world.primary;
        let words = last_words(&mut rng);
        let words = words.as_deref();
        let kind = self.world.profile.fault_kind(&mut rng);
        self.figures.fault(kind);
        self.world.note(|| format!("fault {number}: {kind:?}"));
        let at = self.world.rng.below(self.tills.len());
        let session = self.world.rng.below(self.tills[at].routes.len().max(1));
        match kind {
            Fault::LinkBroken if !self.tills[at].routes.is_empty() => {
                self.tills[at].lose(session, Lost(None), &mut self.world)?;
            }
            Fault::BackendEnded => {
                let backend = self.tills[at].routes.get(session).and_then(|it| it.backend());
                if let Some(id) = backend {
                    self.world.end_backend(id, words);
                }
            }
            Fault::Crash => self.world.crash(primary, words),
            Fault::CrashAndPromotion => {
                self.world.crash(primary, words);
                self.promotes = true;
            }
            Fault::PromotionBesideTheOld => self.promotes = true,
            Fault::Switchover => {
                self.world.servers[primary].read_only = true;
                self.promotes = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the process dies now.
    fn dies(&mut self, at: usize) -> bool {
        let till = &mut self.tills[at];
        if till.desk.is_none() {
            return false;
        }
        let busy = till.routes.iter().any(|route| !route.carrier.is_idle());
        let likely = if busy { 8 } else { 1 };
        let disk = till.disk.as_mut();
        disk.is_some_and(|disk| disk.crashes_left > 0 && disk.rng.below(1000) < likely)
    }

    /// The process dies, perhaps in the midst of something that it does with its journal.
    fn crash(&mut self, at: usize) -> Result<bool> {
        let number = self.faults;
        self.faults += 1;
        let Some(disk) = &mut self.tills[at].disk else { return Ok(false) };
        disk.crashes_left -= 1;
        if self.plan.without_faults.contains(&number) {
            return Ok(false);
        }
        self.figures.fault(Fault::ClientCrash);
        self.world.note(|| format!("fault {number}: the process of till {at} dies"));
        let mark = disk.mark();
        // What it does last nobody hears of.
        self.tills[at].dying = true;
        match self.world.rng.below(3) {
            0 => drop(self.travel(at)?),
            1 => {
                let handing = self.world.rng.chance(70) && self.tills[at].orders_left > 0;
                let number = if handing { self.next_order(at) } else { None };
                if number.is_some() || !handing {
                    self.tills[at].act(&mut self.world, number, true)?;
                }
            }
            _ => {}
        }
        let till = &mut self.tills[at];
        till.dying = false;
        for route in &mut till.routes {
            if let Some(link) = route.link.take() {
                hang_up(link.backend, &link.output, &mut self.world);
            }
        }
        till.routes.clear();
        till.opening = None;
        let left = till.disk.as_mut().map(|disk| disk.crash(mark));
        till.desk = None;
        self.world.note(|| format!("of its journal there is left: {left:?}"));
        Ok(true)
    }

    /// Nothing goes wrong any more: all that was handed over comes to its end.
    fn finish(&mut self) -> Result {
        if self.promotes {
            self.promote();
        }
        self.world.note(|| "the end: everything comes to rest".into());
        (self.faults_left, self.ends) = (0, true);
        self.world.profile.come_to_rest();
        self.world.profile.stubborn = 0;
        self.world.backends.iter_mut().for_each(|backend| backend.stubborn = false);
        for till in &mut self.tills {
            till.disk.iter_mut().for_each(crate::disk::Disk::heal);
            till.orders_left = 0;
        }
        let mut barren = 0;
        for round in 0..300_000 {
            if round == 20_000 {
                self.restart_given_up()?;
            }
            self.world.replicate(self.world.standbys[0], usize::MAX);
            let done = self.round()?;
            barren = if done { 0 } else { barren + 1 };
            self.pass_time(barren);
            if round % 100 == 0 {
                for till in &mut self.tills {
                    till.books.look(&self.world, till.backup)?;
                    // Late enough for what it stops to have gone on, if it did.
                    if round % 3000 == 2900 {
                        till.purge_all()?;
                    }
                }
            }
            let rests = self.tills.iter().all(|till| till.is_at_rest(&self.world));
            if rests && (0..self.world.backends.len()).all(|id| !self.is_left_on_primary(id)) {
                for till in &mut self.tills {
                    for _ in 0..10 {
                        till.books.look(&self.world, till.backup)?;
                    }
                }
                self.figures.commits_lost = self.tills.iter().map(|till| till.lost).sum();
                self.figures.reapplied = self.tills.iter().map(|till| till.reapplied).sum();
                let books: Vec<_> =
                    self.tills.iter_mut().map(|it| std::mem::take(&mut it.books)).collect();
                return books::judge(&books, &self.world);
            }
        }
        let left = self.tills.iter().map(|till| {
            let routes = till.routes.iter().map(|route| (route.backend(), route.rests_until));
            (till.number, till.desk.as_ref().map(Desk::status), routes.collect::<Vec<_>>())
        });
        Err(format!("submissions do not come to rest: {:?}", left.collect::<Vec<_>>()))
    }

    /// A journal that has failed too often is left alone until it is opened again. Nothing else needs that.
    fn restart_given_up(&mut self) -> Result {
        for till in self.tills.iter_mut() {
            let problem = till.desk.as_ref().and_then(|desk| desk.status().problem);
            if !problem.is_some_and(|problem| problem.contains("is left alone")) {
                continue;
            }
            self.world.note(|| format!("the process of till {} is started again", till.number));
            for route in till.routes.drain(..).filter_map(|route| route.link) {
                hang_up(route.backend, &[], &mut self.world);
            }
            till.restart()?;
        }
        Ok(())
    }

    fn is_left_on_primary(&self, id: usize) -> bool {
        self.is_left(id) && self.world.backends[id].server == self.world.primary
    }
}
