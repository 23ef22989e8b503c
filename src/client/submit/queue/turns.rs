//! Whose turn it is: what the queue hands out to whom, and when.

use super::{Job, Queue, State};
use crate::mutation::{self, Mutation};

/// So many of one lane are handed out before it is the next one's turn.
const TURN: usize = 32;

impl<T> Queue<T> {
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
                let unaware = mutation::on(Mutation::PredecessorNotNamed);
                let after = after.map(|entry| entry.id).filter(|_| !unaware);
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
