//! What is queued and what has ended lately, with what is held of each in memory.
//!
//! Pure but for the tickets, which tell whoever waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::queue::{New, Queue};
use super::store::{Death, Keep, Unended};
use super::submission::Payload;
use super::ticket::Ticket;

/// Tickets of what has ended that can still be asked for.
const REMEMBERED: usize = 4096;

/// With `journal=file`, so many bytes of what is queued are kept in memory; the rest is read from the
/// journal when its turn comes.
const MEMORY_BYTES: usize = 8 << 20;

/// What is in memory of each submission that is queued, about.
const ENTRY_BYTES: usize = 800;

/// What the desk's lock guards.
pub struct Core {
    pub queue: Queue<Held>,
    /// What the payloads in memory take up.
    pub memory: usize,
    /// The tickets of what has ended, the oldest first.
    pub ended: HashMap<Uuid, Ticket>,
    pub ended_order: VecDeque<Uuid>,
    pub totals: Totals,
    pub problem: Option<String>,
    pub closed: bool,
}

#[derive(Default)]
pub struct Totals {
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
pub struct Held {
    /// `None`: it is in the journal only.
    pub payload: Option<Arc<Payload>>,
    pub ticket: Ticket,
    /// Its records; with whoever is writing one.
    pub keep: Option<Keep>,
    pub death: Option<Box<Death>>,
    /// The journal has refused a dead letter of it, which a later process may find all the same.
    pub letter_refused: bool,
    /// It was told to be committed, and a promotion has lost it.
    pub lost: bool,
}

impl Core {
    pub fn new(shards: usize) -> Self {
        Self {
            queue: Queue::new(shards),
            memory: 0,
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            totals: Totals::default(),
            problem: None,
            closed: false,
        }
    }

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

/// What is queued of a submission.
pub fn new(
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
        data: Held {
            payload: None,
            ticket: ticket.clone(),
            keep: None,
            death,
            letter_refused: false,
            lost: false,
        },
    }
}
