//! One session's way to a server: what the client's thread does with its link (`src/client/submit/runner.rs`,
//! `station.rs`), byte by byte.

use bytes::BytesMut;
use segue::ClientEvent;
use segue::client::parts::{
    BackupQuestion, Carrier, Desk, Losses, Lost, Opening, Pipe, Place, Reply, Site,
};
use segue::cluster::{Confirmed, LedgerAccess};
use segue::error::{Error, ErrorKind};
use uuid::Uuid;

use super::till::Till;
use crate::backend::Wait;
use crate::data::Op;
use crate::world::World;

type Result<T = ()> = std::result::Result<T, String>;

/// Larger is no message of the model's.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

pub struct Route {
    pub carrier: Carrier,
    pub losses: Losses,
    statements: usize,
    pub link: Option<Link>,
    /// No link is looked for before.
    pub rests_until: u64,
}

pub struct Link {
    pub backend: usize,
    /// It is not ready yet; whether something was asked.
    opening: Option<(Opening, Reply, bool)>,
    input: BytesMut,
    pub output: BytesMut,
    question: Option<BackupQuestion>,
}

impl Route {
    pub fn new(losses: Losses, statements: usize) -> Self {
        Self { carrier: Carrier::default(), losses, statements, link: None, rests_until: 0 }
    }

    pub fn backend(&self) -> Option<usize> {
        self.link.as_ref().map(|link| link.backend)
    }
}

impl Till {
    fn desk(&self) -> Result<&Desk> {
        self.desk.as_ref().ok_or_else(|| "the process is dead".to_owned())
    }

    /// A link to this server.
    pub fn link_to(&mut self, at: usize, server: usize, world: &mut World) -> Result {
        let id = world.open_backend(server);
        // Of those that live on one server, no two have the same process id.
        let before = world.backends[..id].iter().filter(|it| it.server == server).count();
        world.backends[id].pid = 100 + i32::try_from(before).unwrap_or_default();
        let here = |backend: &usize| world.backends[*backend].server == server;
        let others = self.routes.iter().enumerate().filter(|(other, _)| *other != at);
        let others = others.filter_map(|(_, route)| route.backend()).filter(here);
        let others = others.map(|backend| world.backends[backend].pid).collect();
        let place = Place { store: self.desk()?.store.id, number: at, others };
        let timeline = world.servers[server].timeline;
        let site = Site { server, timeline, ledger: LedgerAccess::Table };
        let route = &mut self.routes[at];
        let pipe = Pipe::new(route.statements, MESSAGE_BYTES_MAX);
        let row = self.backup.then(|| Uuid::from_u128((0x5e << 64) | (id as u128 + 1)));
        let opening = Opening::new(place, site, pipe, row);
        route.link = Some(Link {
            backend: id,
            opening: Some((opening, Reply::default(), false)),
            input: BytesMut::new(),
            output: BytesMut::new(),
            question: None,
        });
        self.opening = Some(at);
        world.note(|| format!("till {}, session {at}: backend {id} on {server}", self.number));
        Ok(())
    }

    /// The session does one thing; whether it did.
    pub fn travel(&mut self, at: usize, world: &mut World) -> Result<bool> {
        let Some(link) = &mut self.routes[at].link else { return Ok(false) };
        if link.opening.is_some() {
            return self.open(at, world);
        }
        if self.leaves(at, world)? {
            return Ok(true);
        }
        let Some(link) = &mut self.routes[at].link else { return Ok(false) };
        let id = link.backend;
        match world.rng.below(9) {
            0 => self.load(at, world),
            8 => self.hear_of_told(at, world),
            1 | 2 => {
                let count = if world.rng.chance(60) { usize::MAX } else { world.rng.below(80) };
                let sent = std::mem::take(&mut link.output);
                let backend = &mut world.backends[id];
                backend.inflight.extend(sent);
                let count = count.min(backend.inflight.len());
                backend.input.extend(backend.inflight.drain(..count));
                if !backend.alive {
                    backend.input.clear();
                }
                Ok(count > 0)
            }
            3 | 4 => {
                let available = world.backends[id].wire.len();
                let count =
                    if world.rng.chance(60) { available } else { world.rng.below(available + 1) };
                if count == 0 || !world.rng.chance(world.profile.replies) {
                    return Ok(false);
                }
                link.input.extend(world.backends[id].wire.drain(..count));
                let route = &mut self.routes[at];
                let link = route.link.as_mut().ok_or("no link")?;
                let taken_in = route.carrier.handle_input(&mut link.input, &mut link.output);
                self.carry_out(at, world)?;
                if let Err(lost) = taken_in {
                    self.lose(at, lost, world)?;
                }
                Ok(true)
            }
            5 => self.hear_backup(at, world),
            6 => self.notice(at, world),
            _ => world.step(id),
        }
    }

    /// Sends what the queue hands out.
    fn load(&mut self, at: usize, world: &mut World) -> Result<bool> {
        let Some(desk) = &self.desk else { return Ok(false) };
        let route = &mut self.routes[at];
        let (Some(link), room) = (&mut route.link, route.carrier.room()) else { return Ok(false) };
        if room == 0 {
            return Ok(false);
        }
        // Fewer at once than there is room for, as where they come one by one.
        let room = if world.rng.chance(50) { room } else { 1 + world.rng.below(3) };
        let taken = desk.take(at, room, route.carrier.is_idle(), world.now / 1000);
        let some = !taken.is_empty();
        if some {
            let numbers: Vec<u64> = taken.iter().map(|it| it.job.number).collect();
            world.note(|| format!("session {at} of till {} sends {numbers:?}", self.number));
        }
        route.carrier.send(taken, &mut link.output);
        self.carry_out(at, world)?;
        Ok(some)
    }

    pub fn carry_out(&mut self, at: usize, world: &mut World) -> Result {
        let deeds = self.routes[at].carrier.poll_deeds();
        if deeds.is_empty() {
            return Ok(());
        }
        world.note(|| format!("session {at} of till {}: {deeds:?}", self.number));
        let desk = self.desk.as_ref().ok_or("the process is dead")?;
        let losses = &mut self.routes[at].losses;
        let unwritten = desk.carry_out(deeds, losses, world.now / 1000);
        self.unwritten |= unwritten;
        self.hear_of_losses(None, world)?;
        // Whoever waits for the backup's word looks at once.
        let looks = self.backup && !self.dying;
        if looks { self.books.look(world, true) } else { Ok(()) }
    }

    /// A question of the opening's, or its answer.
    fn open(&mut self, at: usize, world: &mut World) -> Result<bool> {
        let mut moved = false;
        let route = &mut self.routes[at];
        let link = route.link.as_mut().ok_or("no link")?;
        let Some((opening, reply, asked)) = &mut link.opening else { return Ok(false) };
        let backend = &mut world.backends[link.backend];
        if !*asked {
            match opening.next().map_err(|error| format!("{error}"))? {
                Some(question) => backend.input.extend_from_slice(&question),
                None => {
                    let Some((opening, ..)) = link.opening.take() else { return Ok(false) };
                    let work = opening.finish();
                    self.floor = self.floor.max(work.timeline);
                    self.look_for_losses(at, world)?;
                    self.routes[at].carrier.handle_link(work);
                    world.note(|| format!("session {at} of till {} is at work", self.number));
                    self.carry_out(at, world)?;
                    return Ok(true);
                }
            }
            *asked = true;
            moved = true;
        }
        let (alive, waits) = (backend.alive, backend.wait.clone());
        link.input.extend(backend.wire.drain(..));
        let fed = reply.feed(&mut link.input).map_err(|error| format!("an answer: {error}"))?;
        if let Some(answer) = fed {
            (*reply, *asked) = (Reply::default(), false);
            let handled = opening.handle(answer);
            if opening.has_place() && self.opening == Some(at) {
                self.opening = None;
            }
            if let Err(error) = handled {
                world.note(|| format!("session {at} of till {}: {error}", self.number));
                self.give_up(at, world);
            }
            return Ok(true);
        }
        let server = world.backends[link.backend].server;
        let deposed = server != world.primary && world.rng.chance(10);
        if !alive || deposed || (waits == Wait::Standby && world.rng.below(500) == 0) {
            self.give_up(at, world);
            return Ok(true);
        }
        Ok(world.step(link.backend)? || moved)
    }

    /// What was told on other links is looked for on a new one.
    fn look_for_losses(&mut self, at: usize, world: &mut World) -> Result {
        let desk = self.desk.as_ref().ok_or("the process is dead")?;
        let Route { losses, link, .. } = &mut self.routes[at];
        let backend = link.as_ref().ok_or("no link")?.backend;
        let claims = &world.committed(backend).claims;
        let claimed =
            |ids: &[Uuid]| Ok(ids.iter().copied().filter(|id| claims.contains(id)).collect());
        losses
            .look(desk, world.now / 1000, claimed)
            .map_err(|error| format!("looking: {error}"))?;
        self.hear_of_losses(Some(backend), world)
    }

    /// What was told of losses since.
    fn hear_of_losses(&mut self, backend: Option<usize>, world: &mut World) -> Result {
        let events = self.events.take();
        for event in events {
            world.note(|| format!("till {}: {event:?}", self.number));
            match event {
                ClientEvent::SubmissionsLost { submissions, others } => {
                    let there = backend.map(|backend| &world.committed(backend).claims);
                    self.lost += submissions.len();
                    for lost in &submissions {
                        if there.is_some_and(|there| there.contains(&lost.id)) {
                            return Err(format!("named as lost, and it is there: {lost:?}"));
                        }
                        self.books.lost(lost.id)?;
                    }
                    if others {
                        self.books.others_are_lost();
                    }
                }
                ClientEvent::SubmissionReapplied { id, .. } => {
                    self.reapplied += 1;
                    self.books.reapplied(id)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What the standby has of what was told is heard now and then.
    fn hear_of_told(&mut self, at: usize, world: &mut World) -> Result<bool> {
        let Some(desk) = &self.desk else { return Ok(false) };
        let losses = &mut self.routes[at].losses;
        let open = losses.open_witnesses();
        let has = |id: &Uuid| {
            let mut standbys = world.standbys.iter();
            standbys.any(|standby| {
                let mut log = world.servers[*standby].wal.iter();
                log.any(|it| it.ops.contains(&Op::Claim(*id)))
            })
        };
        let has: Vec<Uuid> = open.into_iter().map(|(id, _)| id).filter(has).collect();
        let some = !has.is_empty();
        losses.handle_backup_has(desk, has);
        Ok(some)
    }

    /// Sessions belong on another server, and something was told: that is looked for there.
    fn leaves(&mut self, at: usize, world: &mut World) -> Result<bool> {
        let leaves = self.is_left_behind(at, world) && world.rng.chance(20);
        if leaves {
            let why = Error::new(ErrorKind::FailoverTimeout, "the cluster has moved");
            self.lose(at, Lost(Some(why)), world)?;
        }
        Ok(leaves)
    }

    pub fn is_left_behind(&self, at: usize, world: &World) -> bool {
        let Route { carrier, losses, .. } = &self.routes[at];
        let timeline = world.servers[world.primary].timeline;
        !losses.is_empty() && carrier.is_left_behind(Some(world.primary), timeline)
    }

    /// The link was not made ready.
    fn give_up(&mut self, at: usize, world: &mut World) {
        self.opening = self.opening.filter(|opening| *opening != at);
        let route = &mut self.routes[at];
        if let Some(link) = route.link.take() {
            hang_up(link.backend, &[], world);
        }
        self.rest(at, world);
    }

    fn rest(&mut self, at: usize, world: &World) {
        let route = &mut self.routes[at];
        let pause = u64::try_from(route.carrier.take_pause().as_micros()).unwrap_or_default();
        route.rests_until = world.now + pause;
    }

    /// The link is lost; some of what was under way may have arrived, on either side.
    pub fn lose(&mut self, at: usize, lost: Lost, world: &mut World) -> Result {
        let Some(mut link) = self.routes[at].link.take() else { return Ok(()) };
        world.note(|| format!("session {at} of till {} loses its link: {lost:?}", self.number));
        self.opening = self.opening.filter(|opening| *opening != at);
        if lost.0.is_none() {
            let available = world.backends[link.backend].wire.len();
            // What a backend says before it ends arrives, unless the network has failed.
            let all = world.rng.chance(50) || !world.backends[link.backend].alive;
            let count = if all { available } else { world.rng.below(available + 1) };
            link.input.extend(world.backends[link.backend].wire.drain(..count));
        }
        hang_up(link.backend, &link.output, world);
        self.routes[at].carrier.handle_lost(lost, &mut link.input);
        self.carry_out(at, world)?;
        self.rest(at, world);
        Ok(())
    }

    /// Its end is noticed.
    fn notice(&mut self, at: usize, world: &mut World) -> Result<bool> {
        let Some(id) = self.routes[at].backend() else { return Ok(false) };
        let backend = &world.backends[id];
        let deposed = backend.server != world.primary;
        let gone = !backend.alive || (deposed && world.rng.chance(20));
        if gone {
            self.lose(at, Lost(None), world)?;
        }
        Ok(gone)
    }

    /// With `commit_ack=backup`: what the standby has of what was sealed.
    fn hear_backup(&mut self, at: usize, world: &mut World) -> Result<bool> {
        let route = &mut self.routes[at];
        let Some(link) = &mut route.link else { return Ok(false) };
        if link.question.is_none() {
            link.question = route.carrier.poll_question();
        }
        let Some(BackupQuestion { row, number, .. }) = link.question else { return Ok(false) };
        let server = world.backends[link.backend].server;
        let word = if server != world.primary {
            Ok(Confirmed::Moved)
        } else if world.standbys.iter().any(|standby| {
            let mut sealed = world.servers[*standby].wal.iter().filter_map(|it| it.sealed);
            sealed.any(|(of, at)| of == row && at.cast_unsigned() >= number)
        }) {
            Ok(Confirmed::ByBackup)
        } else if world.rng.chance(5) {
            Err(Error::new(ErrorKind::FailoverTimeout, "the backup does not answer"))
        } else {
            return Ok(false);
        };
        link.question = None;
        let heard = route.carrier.handle_backup(word);
        self.carry_out(at, world)?;
        if let Err(lost) = heard {
            self.lose(at, lost, world)?;
        }
        Ok(true)
    }
}

/// Nobody listens to a backend any more; what was under way to it may arrive yet.
pub fn hang_up(id: usize, output: &[u8], world: &mut World) {
    let rng = &mut world.rng;
    let sent = if rng.chance(50) { rng.below(output.len() + 1) } else { 0 };
    let backend = &mut world.backends[id];
    backend.inflight.extend(&output[..sent]);
    backend.eof = true;
    let left = backend.inflight.len();
    let arrives = if rng.chance(50) { left } else { rng.below(left + 1) };
    backend.inflight.truncate(arrives);
    backend.stubborn = rng.chance(world.profile.stubborn);
}
