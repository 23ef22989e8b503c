//! A client's process: its desk and the sessions that carry what it hands over. It dies, and a later one
//! takes over its journal.

use std::sync::Arc;

use segue::Config;
use segue::client::parts::{Desk, Events, Losses};

use super::books::{Books, Told};
use super::heard::Heard;
use super::order::Order;
use super::route::Route;
use crate::disk::Disk;
use crate::plan::{For, Plan};
use crate::world::World;

type Result<T = ()> = std::result::Result<T, String>;

/// A segment of the journal has room for several submissions, or the deaths of them could not be kept where each
/// takes up a segment of its own (docs/submit.md, Limits).
const SEGMENT_RECORDS: u64 = 6000;

pub struct Till {
    pub number: usize,
    config: Arc<Config>,
    shards: usize,
    /// `commit_ack=backup`.
    pub backup: bool,
    /// None: the journal is in memory.
    pub disk: Option<Disk>,
    /// None: its process is dead.
    pub desk: Option<Desk>,
    /// It does the last thing, which nobody hears of.
    pub dying: bool,
    pub routes: Vec<Route>,
    /// Which of them has begun to take its place on a server, and has not got it.
    pub opening: Option<usize>,
    /// The newest timeline that it has been on.
    pub floor: u32,
    pub books: Books,
    /// What was told of losses, and of how many.
    pub events: Heard,
    pub lost: usize,
    pub reapplied: usize,
    pub orders_left: usize,
    /// Ends were handed in that nobody has written.
    pub unwritten: bool,
}

impl Till {
    /// `loses`: what it is told may be lost.
    pub fn new(number: usize, plan: &Plan, world: &mut World, loses: bool) -> Self {
        let mut rng = plan.rng(For::Till(number));
        let disk = plan.rng(For::Disk(number));
        let disk = rng.chance(60).then(|| Disk::sized(disk, number, SEGMENT_RECORDS, None));
        let backup = rng.chance(if world.sync { 30 } else { 70 }) && !loses;
        let (shards, room) = (1 + rng.below(2), *rng.pick(&[4, 10_000, 10_000]));
        let cache = *rng.pick(&[0, 2, 64]);
        let lost = if rng.chance(40) { "reapply" } else { "report" };
        let ack = if backup { "backup" } else { "primary" };
        let config = format!(
            "host=nowhere sslmode=disable user=till dbname=sales submit_queue_max={room} commit_ack={ack} \
             statement_cache_size={cache} on_commits_lost={lost}"
        );
        world.note(|| {
            format!("till {number}: {shards} sessions, {config}, disk: {}", disk.is_some())
        });
        let config = Config::parse(&config).unwrap_or_else(|error| panic!("{error}"));
        let has_disk = disk.is_some();
        let mut it = Self {
            number,
            config: Arc::new(config),
            shards,
            backup,
            disk,
            desk: None,
            dying: false,
            routes: Vec::new(),
            opening: None,
            floor: 0,
            books: Books {
                keeps: world.sync || backup,
                reapplies: lost == "reapply",
                reapplies_later: lost == "reapply" && has_disk,
                ..Books::default()
            },
            events: Heard::default(),
            lost: 0,
            reapplied: 0,
            orders_left: 3 + rng.below(20),
            unwritten: false,
        };
        it.begin().unwrap_or_else(|problem| panic!("{problem}"));
        it
    }

    /// A process begins.
    pub fn begin(&mut self) -> Result {
        let events = Arc::new(Events::default());
        self.events = Heard::listen(&events);
        // Another number of sessions than before does no harm.
        let recovered = self.disk.as_mut().map(Disk::open);
        let file = self.disk.as_ref().and_then(|disk| disk.file.clone());
        let journal = file.zip(recovered.as_ref());
        let desk = Desk::open(Arc::clone(&self.config), events, self.shards, journal);
        let desk = desk.map_err(|error| format!("the desk cannot be opened: {error}"))?;
        let forgets = self.disk.as_ref().is_some_and(|disk| disk.forgets);
        let find = |entry: &super::books::Entry| {
            let id = entry.id.filter(|_| !entry.purged);
            let by_id = id.and_then(|id| desk.ticket(id));
            by_id
                .or_else(|| desk.ticket_for_key(entry.order.key.as_ref().filter(|_| id.is_none())?))
        };
        let refused = self.disk.as_mut().is_some_and(Disk::may_have_refused);
        self.books.reopened(find, forgets, refused)?;
        let statements = self.config.limits.statement_cache_size;
        let losses = || Losses::new(&self.config, desk.store.is_durable());
        self.routes = (0..self.shards).map(|_| Route::new(losses(), statements)).collect();
        self.opening = None;
        self.desk = Some(desk);
        Ok(())
    }

    /// The application does one thing. `dies`: its process, in the midst of that.
    pub fn act(&mut self, world: &mut World, number: Option<usize>, dies: bool) -> Result<bool> {
        let Some(desk) = &self.desk else { return Ok(false) };
        if let Some(number) = number {
            let order = Order::draw(number, self.number, &mut world.rng);
            let handed = desk.submit(order.submission(), None);
            world.note(|| {
                let answer = handed.as_ref().map(segue::Ticket::id);
                format!("till {} hands over {order:?}: {answer:?}", self.number)
            });
            let (ticket, error) = match handed {
                Ok(ticket) => (Ok(ticket), None),
                Err(error) => (Err(()), Some(error)),
            };
            let answer = match (&error, ticket) {
                (None, Ok(ticket)) => Ok(ticket),
                (Some(error), _) => Err(error),
                _ => unreachable!(),
            };
            self.books.handed(order, answer, dies);
            return Ok(true);
        }
        let letters = desk.dead_letters();
        for entry in &self.books.entries {
            let listed = letters.iter().find(|letter| Some(letter.id) == entry.id);
            if let (Some(Told::Dead(code)), false, true) =
                (&entry.told, entry.purged || entry.unsure, entry.ticket.is_some())
            {
                if listed.is_none_or(|letter| letter.sqlstate != *code) {
                    let listed = listed.map(|it| &it.sqlstate);
                    return Err(format!("a dead letter of {code} is listed as {listed:?}"));
                }
            }
        }
        if letters.is_empty() {
            return Ok(false);
        }
        let letter = world.rng.pick(&letters);
        if world.rng.chance(50) {
            let again = desk.retry(letter.id);
            world.note(|| format!("the dead letter {} is run again: {}", letter.id, again.is_ok()));
            for entry in self.books.of_id(letter.id) {
                match &again {
                    Ok(ticket) if !dies => {
                        (entry.told, entry.purged) = (None, false);
                        entry.ticket = Some(ticket.clone());
                    }
                    _ => entry.unsure = true,
                }
            }
        } else {
            let purged = desk.purge(letter.id);
            world.note(|| format!("the dead letter {} is purged: {}", letter.id, purged.is_ok()));
            if purged.is_ok() {
                self.books.purged(letter)?;
            }
        }
        Ok(true)
    }

    /// The process ends in an orderly way, and another one takes its place.
    pub fn restart(&mut self) -> Result {
        self.desk = None;
        if let Some(disk) = &mut self.disk {
            (disk.file, disk.keeper) = (None, None);
        }
        self.begin()
    }

    /// Nothing of it is wanted any more.
    pub fn purge_all(&mut self) -> Result {
        let Some(desk) = &self.desk else { return Ok(()) };
        for letter in desk.dead_letters() {
            if desk.purge(letter.id).is_ok() {
                self.books.purged(&letter)?;
            }
        }
        Ok(())
    }

    pub fn is_at_rest(&self, world: &World) -> bool {
        let looked = |at: usize| {
            let route = &self.routes[at];
            route.losses.is_empty() || route.carrier.is_linked() && !self.is_left_behind(at, world)
        };
        self.desk.as_ref().is_some_and(Desk::is_empty)
            && self.routes.iter().all(|route| route.carrier.is_idle())
            && (0..self.routes.len()).all(looked)
    }
}
