//! The queue of submissions: lanes, their order, what is in flight, what is dead, what there is room
//! for.
//!
//! Pure: no I/O, no clock (`now` is an argument, in milliseconds), no thread. Numbers are given out by
//! whoever keeps the submissions, and grow in the order of handing over.
//!
//! Invariants: of one lane, what is in flight stands ahead of all that waits, in the order of numbers,
//! save for what has failed and is taken up again, before which nothing of its lane is handed out;
//! a submission is in flight once at most; a lane belongs to one shard, for ever.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::suspects::Suspicion;

/// So many of one lane are handed out before it is the next one's turn.
const TURN: usize = 32;

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

    /// Hands out what `shard` is to send now, `room` of them at most. `empty`: it has nothing in
    /// flight, so that something that travels alone may go.
    pub fn take(&mut self, shard: usize, room: usize, empty: bool, now: u64) -> Vec<Job> {
        self.wake(shard, now);
        let mut jobs = Vec::new();
        while jobs.len() < room {
            let alone = empty && jobs.is_empty();
            let lanes_first = self.shards[shard].lanes_next;
            self.shards[shard].lanes_next = !lanes_first;
            let before = jobs.len();
            let mut stop = false;
            for lanes in [lanes_first, !lanes_first] {
                if jobs.len() == before && !stop {
                    stop = if lanes {
                        self.take_from_lane(shard, room, alone, now, &mut jobs)
                    } else {
                        self.take_free(shard, room, alone, now, &mut jobs)
                    };
                }
            }
            if stop || jobs.len() == before {
                break;
            }
        }
        jobs
    }

    /// Returns whether nothing more may be handed out for now.
    fn take_from_lane(
        &mut self,
        shard: usize,
        room: usize,
        alone: bool,
        now: u64,
        jobs: &mut Vec<Job>,
    ) -> bool {
        while let Some(name) = self.shards[shard].turn.pop_front() {
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            lane.in_turn = false;
            let before = jobs.len();
            let mut stop = false;
            while jobs.len() < room && jobs.len() - before < TURN {
                let open = !lane.broken && lane.blocked_by.is_empty();
                let Some(number) = lane.waiting.first().copied().filter(|_| open) else { break };
                let Some(entry) = self.entries.get_mut(&number) else {
                    lane.waiting.remove(&number);
                    continue;
                };
                if entry.state == State::Writing {
                    break;
                }
                if entry.not_before > now {
                    self.shards[shard].later.insert((entry.not_before, number), ());
                    break;
                }
                if entry.is_solo() && !(alone && jobs.is_empty()) {
                    // First let all that is in flight come home.
                    stop = true;
                    break;
                }
                lane.waiting.remove(&number);
                let after = lane.flying.back().and_then(|last| self.entries.get(last));
                let after = after.map(|entry| entry.id);
                lane.flying.push_back(number);
                let Some(entry) = self.entries.get_mut(&number) else { continue };
                entry.state = State::Flying;
                self.counts.waiting -= 1;
                self.counts.flying += 1;
                jobs.push(entry.job(number, after));
                if entry.is_solo() {
                    stop = true;
                    break;
                }
            }
            if !lane.waiting.is_empty() && (stop || jobs.len() > before) {
                lane.in_turn = true;
                // One that has to wait for the others to come home is the next.
                if stop && jobs.len() == before {
                    self.shards[shard].turn.push_front(name);
                } else {
                    self.shards[shard].turn.push_back(name);
                }
            }
            if stop || jobs.len() > before {
                return stop;
            }
        }
        false
    }

    fn take_free(
        &mut self,
        shard: usize,
        room: usize,
        alone: bool,
        now: u64,
        jobs: &mut Vec<Job>,
    ) -> bool {
        let most = room.min(jobs.len() + TURN);
        let mut passed = Vec::new();
        let mut stop = false;
        while jobs.len() < most && !stop {
            let Some(number) = self.shards[shard].free.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            if entry.state == State::Writing {
                // Put among the others again once it is kept.
                continue;
            }
            if entry.not_before > now {
                self.shards[shard].later.insert((entry.not_before, number), ());
                continue;
            }
            stop = entry.is_solo();
            if stop && !(alone && jobs.is_empty()) {
                passed.push(number);
                break;
            }
            entry.state = State::Flying;
            self.counts.waiting -= 1;
            self.counts.flying += 1;
            jobs.push(entry.job(number, None));
        }
        self.shards[shard].free.extend(passed);
        stop
    }

    /// When something that was put off is due, if anything is.
    pub fn due(&self, shard: usize) -> Option<u64> {
        self.shards[shard].later.first_key_value().map(|((at, _), ())| *at)
    }

    /// Whether [`take`](Self::take) may have something to give.
    pub fn has_work(&self, shard: usize, now: u64) -> bool {
        let it = &self.shards[shard];
        !it.turn.is_empty() || !it.free.is_empty() || self.due(shard).is_some_and(|at| at <= now)
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
                        lane.broken = true;
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
        if blocks {
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

    /// What was put off until `now` is due.
    fn wake(&mut self, shard: usize, now: u64) {
        while let Some(((at, number), ())) = self.shards[shard].later.first_key_value() {
            let (at, number) = (*at, *number);
            if at > now {
                return;
            }
            self.shards[shard].later.remove(&(at, number));
            if self.entries.get(&number).is_some_and(|it| it.state == State::Waiting) {
                self.call_lane_of(number);
            }
        }
    }
}
