//! What the threads of submissions and their callers share: the queue under its lock, and who waits
//! for what.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::queue::{New, Queue};
use super::station::Backends;
use super::store::{Death, Keep, Store, Unended};
use super::submission::Payload;
use super::ticket::Ticket;
use crate::client::event::Events;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::link::LinkWaker;

/// Tickets of what has ended that can still be asked for.
const REMEMBERED: usize = 4096;

/// With `journal=file`, so many bytes of what is queued are kept in memory; the rest is read from the
/// journal when its turn comes.
const MEMORY_BYTES: usize = 8 << 20;

/// What is in memory of each submission that is queued, about.
const ENTRY_BYTES: usize = 800;

/// One client's submissions, for as long as one of its threads or handles lives.
pub(super) struct Shared {
    pub config: Arc<Config>,
    pub cluster: Arc<Cluster>,
    pub events: Arc<Events>,
    pub store: Store,
    pub core: Mutex<Core>,
    /// There may be something to send: one for each thread, lest all wake for one submission.
    pub work: Vec<Condvar>,
    /// There may be room, or something is kept.
    pub room: Condvar,
    pub stop: Arc<AtomicBool>,
    /// Ends pauses; goes with the mutex of `core`.
    pub stopping: Condvar,
    pub running: AtomicUsize,
    pub backends: Backends,
    pub started: Instant,
    /// For each thread: sessions may belong on another server than before.
    pub moved: Vec<AtomicBool>,
}

/// What the lock guards.
pub(super) struct Core {
    pub queue: Queue<Held>,
    /// What the payloads in memory take up.
    pub memory: usize,
    /// The tickets of what has ended, the oldest first.
    pub ended: HashMap<Uuid, Ticket>,
    pub ended_order: VecDeque<Uuid>,
    pub wakers: HashMap<usize, LinkWaker>,
    pub totals: Totals,
    pub problem: Option<String>,
    pub closed: bool,
}

#[derive(Default)]
pub(super) struct Totals {
    pub submitted: u64,
    pub recovered: u64,
    pub committed: u64,
    pub found_done: u64,
    pub resubmitted: u64,
    pub died: u64,
    pub lost: u64,
    pub reapplied: u64,
}

/// What is held of a submission that has not ended.
pub(super) struct Held {
    /// `None`: it is in the journal only.
    pub payload: Option<Arc<Payload>>,
    pub ticket: Ticket,
    /// Its records; with whoever is writing one.
    pub keep: Option<Keep>,
    pub death: Option<Box<Death>>,
    /// It was told to be committed, and a promotion has lost it.
    pub lost: bool,
}

/// What came of asking for a place in the queue.
pub(super) enum Reserved {
    /// It is there already, or was: the same key.
    Known(Ticket),
    Place(Keep, Ticket),
}

impl Shared {
    pub fn new(
        config: Arc<Config>,
        cluster: Arc<Cluster>,
        events: Arc<Events>,
        store: Store,
        shards: usize,
    ) -> Self {
        let core = Core {
            queue: Queue::new(shards),
            memory: 0,
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            wakers: HashMap::new(),
            totals: Totals::default(),
            problem: None,
            closed: false,
        };
        Self {
            config,
            cluster,
            events,
            store,
            core: Mutex::new(core),
            work: (0..shards).map(|_| Condvar::new()).collect(),
            room: Condvar::new(),
            stop: Arc::default(),
            stopping: Condvar::new(),
            running: AtomicUsize::new(0),
            backends: Backends::default(),
            started: Instant::now(),
            moved: (0..shards).map(|_| AtomicBool::default()).collect(),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // Under the lock, so that nobody is between looking and waiting.
        self.lock().closed = true;
        self.work.iter().for_each(Condvar::notify_all);
        self.room.notify_all();
        self.stopping.notify_all();
    }

    /// Wakes one thread, which may be between looking and waiting.
    pub fn wake(&self, shard: usize) {
        let core = self.lock();
        if let Some(work) = self.work.get(shard) {
            work.notify_all();
        }
        drop(core);
    }

    /// Sessions belong on another server from now on.
    pub fn handle_move(&self) {
        for (shard, moved) in self.moved.iter().enumerate() {
            moved.store(true, Ordering::Release);
            self.wake(shard);
        }
    }

    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Milliseconds since the client was opened: the queue's clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn set_problem(&self, problem: Option<&Error>) {
        self.lock().problem = problem.map(|error| {
            let source = std::error::Error::source(error).map(|why| format!(": {why}"));
            format!("{error}{}", source.unwrap_or_default())
        });
    }

    /// Sleeps, unless the client is closed meanwhile.
    pub fn pause(&self, time: Duration) {
        let core = self.lock();
        let stopped = |_: &mut Core| !self.stops();
        drop(self.stopping.wait_timeout_while(core, time, stopped));
    }

    /// Takes a place in the queue once there is room.
    pub fn reserve(
        &self,
        payload: &Arc<Payload>,
        bytes: usize,
        may_wait: bool,
        deadline: Instant,
    ) -> Result<Reserved> {
        let limits = &self.config.limits;
        let mut core = self.lock();
        loop {
            if core.closed {
                return Err(closed(self.store.is_durable()));
            }
            let queued = core.queue.find(payload.id);
            // What is on disk the journal itself has a limit for.
            let in_memory = !self.store.is_durable();
            let full = core.queue.len() >= limits.submit_queue_max
                || in_memory && core.queue.bytes() + bytes > limits.journal_bytes_max;
            match queued {
                // Another thread's: not before it is kept.
                Some(number) if core.queue.is_writing(number) => {}
                Some(number) => {
                    let entry = core.queue.get(number).ok_or_else(|| no_dead_letter(payload.id))?;
                    return Ok(Reserved::Known(entry.data.ticket.clone()));
                }
                None => {
                    if let Some(ticket) = core.ended.get(&payload.id) {
                        return Ok(Reserved::Known(ticket.clone()));
                    }
                    if !full {
                        // The number is given out under the lock: the journal's order is the queue's.
                        let keep = self.store.begin();
                        let ticket = Ticket::new(payload.id, payload.key.clone());
                        core.queue.reserve(new(keep.number(), payload, bytes, &ticket, None));
                        return Ok(Reserved::Place(keep, ticket));
                    }
                    if !may_wait {
                        return Err(no_room());
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(no_room());
            }
            let waited = self.room.wait_timeout(core, left);
            core = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The records of a dead letter, for whoever is about to change it.
    pub fn take_dead(&self, id: Uuid) -> Result<(u64, Keep)> {
        let mut core = self.lock();
        let number = core.queue.find(id).filter(|number| core.queue.is_dead(*number));
        let entry = number.and_then(|number| Some((number, core.queue.get_mut(number)?)));
        let (number, entry) = entry.ok_or_else(|| no_dead_letter(id))?;
        // Somebody else is at it.
        let keep = entry.data.keep.take().ok_or_else(|| no_dead_letter(id))?;
        Ok((number, keep))
    }

    /// The last thread has ended: whoever waits is told.
    pub fn end(&self) {
        self.store.flush();
        let tickets: Vec<Ticket> = {
            let mut core = self.lock();
            core.closed = true;
            core.queue.entries().map(|(_, entry)| entry.data.ticket.clone()).collect()
        };
        self.room.notify_all();
        for ticket in tickets {
            ticket.give_up(closed(self.store.is_durable()));
        }
    }
}

impl Core {
    /// Queues what the journal holds, in its order.
    pub fn refill(&mut self, Unended { keep, payload, death, told }: Unended) {
        let payload = Arc::new(payload);
        let ticket = Ticket::new(payload.id, payload.key.clone());
        if let Some(death) = &death {
            ticket.tell(Err(death.error.clone()));
        }
        let (number, dead) = (keep.number(), death.is_some());
        let mut new = new(number, &payload, payload.bytes(), &ticket, death.map(Box::new));
        new.data.keep = Some(keep);
        new.data.lost = told;
        self.queue.reserve(new);
        if dead {
            self.queue.kept_dead(number);
        } else {
            self.remember_payload(number, payload, true);
            self.queue.kept(number);
        }
        self.totals.recovered += 1;
    }

    /// Keeps in memory what is to be sent, if it is nowhere else or there is room.
    pub fn remember_payload(&mut self, number: u64, payload: Arc<Payload>, durable: bool) {
        let Some(entry) = self.queue.get_mut(number) else { return };
        if !durable || self.memory + entry.bytes <= MEMORY_BYTES {
            self.memory += entry.bytes;
            entry.data.payload = Some(payload);
        }
    }

    /// It is not needed in memory any more.
    pub fn forget_payload(&mut self, number: u64) {
        let Some(entry) = self.queue.get_mut(number) else { return };
        if entry.data.payload.take().is_some() {
            self.memory -= entry.bytes;
        }
    }

    /// About so much memory does the queue take up.
    pub fn bytes(&self, durable: bool) -> usize {
        if durable { self.memory + self.queue.len() * ENTRY_BYTES } else { self.queue.bytes() }
    }

    /// Its ticket cannot be asked for any more: it is not done, and its key may be handed over again.
    pub fn forget(&mut self, id: Uuid) {
        if self.ended.remove(&id).is_some() {
            self.ended_order.retain(|other| *other != id);
        }
    }

    /// Its ticket can be asked for a while longer.
    pub fn remember(&mut self, ticket: &Ticket) {
        if self.ended.insert(ticket.id(), ticket.clone()).is_none() {
            self.ended_order.push_back(ticket.id());
        }
        if self.ended_order.len() > REMEMBERED {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

fn new(
    number: u64,
    payload: &Arc<Payload>,
    bytes: usize,
    ticket: &Ticket,
    death: Option<Box<Death>>,
) -> New<Held> {
    New {
        number,
        id: payload.id,
        lane: payload.lane.clone(),
        bytes,
        solo: payload.is_solo(),
        blocks: payload.stop_on_failure,
        data: Held { payload: None, ticket: ticket.clone(), keep: None, death, lost: false },
    }
}

fn no_room() -> Error {
    Error::new(
        ErrorKind::Limit,
        "the queue of submissions is full (submit_queue_max; in memory, journal_bytes_max); nothing was \
         handed over: wait, or purge dead letters",
    )
}

pub(super) fn no_dead_letter(id: Uuid) -> Error {
    Error::new(ErrorKind::Usage, format!("{id} is no dead letter of this client"))
}

fn closed(durable: bool) -> Error {
    let message = if durable {
        "the client was closed; the submission is in the journal and goes on when it is opened again"
    } else {
        "the client was closed, and the submission with it, for the journal is in memory; whether it \
         is committed is not known here"
    };
    Error::new(ErrorKind::Closed, message).with_outcome(Outcome::Unknown)
}
