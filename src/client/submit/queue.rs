//! The queue of submissions: lanes, their order, what is in flight, what is dead, what there is room
//! for.
//!
//! Pure: no I/O, no clock (`now` is an argument, in milliseconds), no thread. Numbers are given out by
//! whoever keeps the submissions, and grow in the order of handing over.
//!
//! Invariants: of one lane, what is in flight stands ahead of all that waits, in the order of numbers,
//! save for what has failed and is taken up again, before which nothing of its lane is handed out;
//! a submission is in flight once at most; a lane belongs to one shard, for ever.

mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::suspects::Suspicion;
use crate::mutation::{self, Mutation};

/// The submissions that have not ended, each with something of its keeper's.
pub struct Queue<T> {
    entries: HashMap<u64, Entry<T>>,
    by_id: HashMap<Uuid, u64>,
    lanes: HashMap<Arc<str>, Lane>,
    shards: Vec<Shard>,
    bytes: usize,
    counts: Counts,
}

/// How many there are of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub waiting: usize,
    pub flying: usize,
    pub dead: usize,
}

/// What is to be queued.
pub struct New<T> {
    pub number: u64,
    pub id: Uuid,
    pub lane: Option<Arc<str>>,
    pub bytes: usize,
    /// It cannot travel with others.
    pub solo: bool,
    /// Its lane stops if it dies.
    pub blocks: bool,
    pub data: T,
}

pub struct Entry<T> {
    pub id: Uuid,
    lane: Option<Arc<str>>,
    /// Whose it is to send.
    pub shard: usize,
    pub bytes: usize,
    solo: bool,
    blocks: bool,
    state: State,
    not_before: u64,
    /// How often it was in flight and was taken up again.
    pub attempts: u32,
    /// To be run without statements prepared ahead.
    pub plain: bool,
    pub suspicion: Suspicion,
    pub data: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is not kept yet.
    Writing,
    Waiting,
    Flying,
    Dead,
}

#[derive(Default)]
struct Lane {
    waiting: BTreeSet<u64>,
    flying: VecDeque<u64>,
    /// What was handed out last has to be settled before anything more is.
    broken: bool,
    /// Dead letters that stop it.
    blocked_by: BTreeSet<u64>,
    /// It is among those whose turn will come.
    in_turn: bool,
}

/// The work of one session.
#[derive(Default)]
struct Shard {
    turn: VecDeque<Arc<str>>,
    /// Those without a lane.
    free: BTreeSet<u64>,
    /// When to look again at what was put off.
    later: BTreeMap<(u64, u64), ()>,
    lanes_next: bool,
}

/// One submission that is to be sent now.
#[derive(Debug, PartialEq, Eq)]
pub struct Job {
    pub number: u64,
    /// It may only be done if this one is: the one that is in flight ahead of it.
    pub after: Option<Uuid>,
    pub solo: bool,
    /// It may crash the server: its claim goes ahead of its statements.
    pub suspect: bool,
    /// It has done so: its claim alone is sent, to learn that it is not committed.
    pub condemned: bool,
}

/// What has become of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// To be sent again, not before `at`; without prepared statements if `plain`.
    Again {
        at: u64,
        plain: bool,
    },
    Dead,
}

impl<T> Entry<T> {
    /// Whether it cannot travel with others, as things are.
    fn is_solo(&self) -> bool {
        self.solo || self.suspicion.is_suspect()
    }

    fn job(&self, number: u64, after: Option<Uuid>) -> Job {
        Job {
            number,
            after,
            solo: self.is_solo(),
            suspect: self.suspicion.is_suspect(),
            condemned: self.suspicion.is_condemned(),
        }
    }
}

impl<T> Queue<T> {
    pub fn new(shards: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_id: HashMap::new(),
            lanes: HashMap::new(),
            shards: (0..shards.max(1)).map(|_| Shard::default()).collect(),
            bytes: 0,
            counts: Counts::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Lanes that a dead letter has stopped.
    pub fn lanes_stopped(&self) -> usize {
        self.lanes.values().filter(|lane| !lane.blocked_by.is_empty()).count()
    }

    pub fn get(&self, number: u64) -> Option<&Entry<T>> {
        self.entries.get(&number)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Entry<T>> {
        self.entries.get_mut(&number)
    }

    pub fn find(&self, id: Uuid) -> Option<u64> {
        self.by_id.get(&id).copied()
    }

    pub fn entries(&self) -> impl Iterator<Item = (u64, &Entry<T>)> {
        self.entries.iter().map(|(number, entry)| (*number, entry))
    }

    /// Takes its place; it is not handed out before [`kept`](Self::kept).
    pub fn reserve(&mut self, new: New<T>) {
        let shard = self.shard_of(&new);
        if let Some(lane) = &new.lane {
            self.lanes.entry(Arc::clone(lane)).or_default().waiting.insert(new.number);
        } else {
            self.shards[shard].free.insert(new.number);
        }
        self.bytes += new.bytes;
        self.counts.waiting += 1;
        self.by_id.insert(new.id, new.number);
        let entry = Entry {
            id: new.id,
            lane: new.lane,
            shard,
            bytes: new.bytes,
            solo: new.solo,
            blocks: new.blocks,
            state: State::Writing,
            not_before: 0,
            attempts: 0,
            plain: false,
            suspicion: Suspicion::default(),
            data: new.data,
        };
        self.entries.insert(new.number, entry);
    }

    /// It is kept, and may be handed out when its turn has come.
    pub fn kept(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if entry.state == State::Writing {
            entry.state = State::Waiting;
            self.call_lane_of(number);
        }
    }

    /// It is found dead when the queue is filled.
    pub fn kept_dead(&mut self, number: u64) {
        self.bury(number);
    }

    pub fn is_writing(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|entry| entry.state == State::Writing)
    }

    pub fn is_dead(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|entry| entry.state == State::Dead)
    }

    /// What became of one that is in flight.
    pub fn settle(&mut self, number: u64, verdict: Verdict) {
        let flying = self.entries.get(&number).is_some_and(|it| it.state == State::Flying);
        if !flying {
            return;
        }
        match verdict {
            Verdict::Done => self.remove(number),
            Verdict::Dead => self.bury(number),
            Verdict::Again { at, plain } => {
                let Some(entry) = self.entries.get_mut(&number) else { return };
                entry.state = State::Waiting;
                entry.not_before = at;
                entry.attempts = entry.attempts.saturating_add(1);
                entry.plain |= plain;
                self.counts.flying -= 1;
                self.counts.waiting += 1;
                let (lane, shard) = (entry.lane.clone(), entry.shard);
                match lane {
                    None => drop(self.shards[shard].free.insert(number)),
                    Some(name) => {
                        let lane = self.lanes.entry(name).or_default();
                        lane.flying.retain(|other| *other != number);
                        lane.waiting.insert(number);
                        lane.broken = !mutation::on(Mutation::LaneGoesOnBehindFailure);
                    }
                }
                self.call_lane_of(number);
            }
        }
    }

    /// What waits is not sent before `at`.
    pub fn put_off(&mut self, number: u64, at: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.not_before = entry.not_before.max(at);
        }
    }

    /// A dead letter is to be run again, ahead of what has been handed over since.
    pub fn revive(&mut self, number: u64) -> bool {
        let Some(entry) = self.entries.get_mut(&number) else { return false };
        if entry.state != State::Dead {
            return false;
        }
        entry.state = State::Waiting;
        entry.not_before = 0;
        self.counts.dead -= 1;
        self.counts.waiting += 1;
        match &entry.lane {
            None => drop(self.shards[entry.shard].free.insert(number)),
            Some(name) => {
                let lane = self.lanes.entry(Arc::clone(name)).or_default();
                lane.waiting.insert(number);
                lane.blocked_by.remove(&number);
                // What was handed out meanwhile comes home first.
                lane.broken = !lane.flying.is_empty();
            }
        }
        self.call_lane_of(number);
        true
    }

    /// Nothing of it is needed any more: it was never kept, it is done, or a dead letter is purged.
    pub fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.by_id.remove(&entry.id);
        self.bytes -= entry.bytes;
        match entry.state {
            State::Writing | State::Waiting => self.counts.waiting -= 1,
            State::Flying => self.counts.flying -= 1,
            State::Dead => self.counts.dead -= 1,
        }
        self.shards[entry.shard].free.remove(&number);
        let Some(name) = entry.lane else { return };
        if let Some(lane) = self.lanes.get_mut(&name) {
            lane.waiting.remove(&number);
            lane.flying.retain(|other| *other != number);
            lane.blocked_by.remove(&number);
        }
        self.call(&name, entry.shard);
    }

    fn bury(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        match entry.state {
            State::Writing | State::Waiting => self.counts.waiting -= 1,
            State::Flying => self.counts.flying -= 1,
            State::Dead => return,
        }
        entry.state = State::Dead;
        self.counts.dead += 1;
        let (blocks, shard) = (entry.blocks, entry.shard);
        self.shards[shard].free.remove(&number);
        let Some(name) = entry.lane.clone() else { return };
        let lane = self.lanes.entry(Arc::clone(&name)).or_default();
        lane.waiting.remove(&number);
        lane.flying.retain(|other| *other != number);
        // Those behind it were sent on the condition that it is done.
        lane.broken = true;
        if blocks && !mutation::on(Mutation::LaneNotStopped) {
            lane.blocked_by.insert(number);
        }
        self.call(&name, shard);
    }

    fn shard_of(&self, new: &New<T>) -> usize {
        let hash = match &new.lane {
            Some(lane) => xxhash_rust::xxh3::xxh3_64(lane.as_bytes()),
            None => xxhash_rust::xxh3::xxh3_64(new.id.as_bytes()),
        };
        let shards = self.shards.len() as u64;
        usize::try_from(hash % shards).unwrap_or_default()
    }

    fn call_lane_of(&mut self, number: u64) {
        let Some(entry) = self.entries.get(&number) else { return };
        let shard = entry.shard;
        match entry.lane.clone() {
            Some(name) => self.call(&name, shard),
            None => drop(self.shards[shard].free.insert(number)),
        }
    }

    /// Something has happened to a lane: it takes its turn, if there is any for it, or goes.
    fn call(&mut self, name: &Arc<str>, shard: usize) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if lane.flying.is_empty() {
            lane.broken = false;
        }
        if lane.waiting.is_empty() && lane.flying.is_empty() && lane.blocked_by.is_empty() {
            self.lanes.remove(name);
            return;
        }
        let ready = !lane.waiting.is_empty() && !lane.broken && lane.blocked_by.is_empty();
        if ready && !lane.in_turn {
            lane.in_turn = true;
            self.shards[shard].turn.push_back(Arc::clone(name));
        }
    }
}
