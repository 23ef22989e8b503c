//! The queue against a model: random lives of submissions, and what must hold of them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use crate::client::submit::queue::{Job, New, Queue, Verdict};

fn id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn add(queue: &mut Queue<()>, number: u64, lane: Option<&str>, solo: bool, blocks: bool) {
    queue.reserve(New {
        number,
        id: id(number),
        lane: lane.map(Arc::from),
        bytes: 1,
        solo,
        blocks,
        data: (),
    });
}

fn numbers(jobs: &[Job]) -> Vec<u64> {
    jobs.iter().map(|job| job.number).collect()
}

/// A queue of one shard with these of one lane in it.
fn lane(count: u64) -> Queue<()> {
    let mut queue = Queue::new(1);
    for number in 1..=count {
        add(&mut queue, number, Some("a"), false, false);
        queue.kept(number);
    }
    queue
}

#[test]
fn nothing_is_handed_out_before_it_is_kept() {
    let mut queue = Queue::new(1);
    add(&mut queue, 1, Some("a"), false, false);
    add(&mut queue, 2, Some("a"), false, false);
    add(&mut queue, 3, None, false, false);
    queue.kept(2);
    assert_eq!(queue.take(0, 10, true, 0), [], "the first of the lane is not kept yet");
    queue.kept(3);
    queue.kept(1);
    let mut taken = numbers(&queue.take(0, 10, true, 0));
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3]);
}

#[test]
fn those_behind_name_the_one_ahead() {
    let mut queue = lane(3);
    let jobs = queue.take(0, 2, true, 0);
    assert_eq!(
        jobs[0],
        Job { number: 1, after: None, solo: false, suspect: false, condemned: false }
    );
    assert_eq!(
        jobs[1],
        Job { number: 2, after: Some(id(1)), solo: false, suspect: false, condemned: false }
    );
    queue.settle(1, Verdict::Done);
    let jobs = queue.take(0, 2, false, 0);
    assert_eq!(
        jobs,
        [Job { number: 3, after: Some(id(2)), solo: false, suspect: false, condemned: false }]
    );
}

#[test]
fn what_fails_is_taken_up_again_ahead_of_the_others() {
    let mut queue = lane(4);
    assert_eq!(numbers(&queue.take(0, 3, true, 0)), [1, 2, 3]);
    queue.settle(1, Verdict::Again { at: 10, plain: false });
    assert_eq!(queue.take(0, 3, false, 20), [], "first all of them come home");
    queue.settle(2, Verdict::Again { at: 0, plain: false });
    queue.settle(3, Verdict::Again { at: 0, plain: false });
    assert_eq!(queue.take(0, 3, true, 5), [], "the first one is put off, and the order is kept");
    assert_eq!(queue.due(0), Some(10));
    assert_eq!(numbers(&queue.take(0, 9, true, 10)), [1, 2, 3, 4]);
}

#[test]
fn a_dead_letter_stops_its_lane_only_if_it_is_to() {
    let mut queue = lane(2);
    add(&mut queue, 3, Some("b"), false, true);
    add(&mut queue, 4, Some("b"), false, true);
    (3..=4).for_each(|number| queue.kept(number));
    assert_eq!(queue.take(0, 10, true, 0).len(), 4);
    for (number, behind) in [(1, 2), (3, 4)] {
        queue.settle(number, Verdict::Dead);
        queue.settle(behind, Verdict::Again { at: 0, plain: false });
    }
    assert_eq!(numbers(&queue.take(0, 10, true, 0)), [2]);
    assert_eq!((queue.counts().dead, queue.lanes_stopped()), (2, 1));
    assert!(queue.revive(3));
    assert!(!queue.revive(3));
    assert_eq!(numbers(&queue.take(0, 10, false, 0)), [3, 4]);
    queue.settle(3, Verdict::Dead);
    queue.settle(4, Verdict::Again { at: 0, plain: false });
    queue.remove(3);
    assert_eq!(numbers(&queue.take(0, 10, false, 0)), [4]);
}

#[test]
fn what_travels_alone_waits_for_the_others_and_is_not_starved() {
    let mut queue = lane(1);
    add(&mut queue, 2, Some("b"), true, false);
    add(&mut queue, 3, Some("c"), false, false);
    (2..=3).for_each(|number| queue.kept(number));
    assert_eq!(numbers(&queue.take(0, 10, true, 0)), [1]);
    assert_eq!(queue.take(0, 10, false, 0), [], "nothing overtakes it");
    queue.settle(1, Verdict::Done);
    assert_eq!(
        queue.take(0, 10, true, 0),
        [Job { number: 2, after: None, solo: true, suspect: false, condemned: false }]
    );
    queue.settle(2, Verdict::Done);
    assert_eq!(numbers(&queue.take(0, 10, true, 0)), [3]);
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Act {
    Add {
        lane: u8,
        solo: bool,
        blocks: bool,
    },
    Take {
        room: usize,
    },
    /// The oldest in flight is answered.
    Answer {
        fate: u8,
    },
    LinkLost,
    Revive,
    Purge,
    Later,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..4u8, prop::bool::weighted(0.1), prop::bool::weighted(0.3))
            .prop_map(|(lane, solo, blocks)| Act::Add { lane, solo, blocks }),
        3 => (1..20usize).prop_map(|room| Act::Take { room }),
        6 => (0..10u8).prop_map(|fate| Act::Answer { fate }),
        1 => Just(Act::LinkLost),
        1 => Just(Act::Revive),
        1 => Just(Act::Purge),
        1 => Just(Act::Later),
    ]
}

/// What stands beside the queue: a server that does what it is sent, in order.
#[derive(Default)]
struct Model {
    lanes: BTreeMap<u64, (Option<String>, bool)>,
    flying: Vec<Job>,
    done: Vec<u64>,
    dead: BTreeSet<u64>,
    /// Were dead once.
    died: BTreeSet<u64>,
    gone: BTreeSet<u64>,
}

impl Model {
    /// Answers the oldest in flight as a server would: one whose predecessor is not done is refused.
    fn answer(&mut self, queue: &mut Queue<()>, fate: u8, now: u64) {
        if self.flying.is_empty() {
            return;
        }
        let job = self.flying.remove(0);
        let ahead = job.after.map(|ahead| self.done.contains(&(ahead.as_u128() as u64)));
        let verdict = match fate {
            _ if ahead == Some(false) => Verdict::Again { at: 0, plain: false },
            0 => Verdict::Dead,
            1 => Verdict::Again { at: now + 5, plain: false },
            2 => Verdict::Again { at: 0, plain: true },
            _ => Verdict::Done,
        };
        match verdict {
            Verdict::Done => {
                // The order of a lane, dead letters left out, is that of the numbers.
                let lane = &self.lanes[&job.number].0;
                if lane.is_some() {
                    let earlier = self
                        .lanes
                        .iter()
                        .filter(|(number, (other, _))| **number < job.number && other == lane);
                    for (number, _) in earlier {
                        // One that was dead was passed by others meanwhile, unless it stops its lane.
                        let passed = self.died.contains(number) && !self.lanes[number].1;
                        let settled =
                            self.done.contains(number) || self.gone.contains(number) || passed;
                        assert!(settled, "{} was done ahead of {number}", job.number);
                    }
                }
                assert!(!self.done.contains(&job.number), "done twice");
                self.done.push(job.number);
            }
            Verdict::Dead => {
                self.dead.insert(job.number);
                self.died.insert(job.number);
            }
            Verdict::Again { .. } => {}
        }
        queue.settle(job.number, verdict);
    }

    fn take(&mut self, queue: &mut Queue<()>, room: usize, now: u64) {
        if self.flying.iter().any(|job| job.solo) {
            return;
        }
        let jobs = queue.take(0, room, self.flying.is_empty(), now);
        assert!(jobs.len() <= room);
        for job in jobs {
            assert!(!self.flying.iter().any(|other| other.number == job.number));
            assert!(!self.done.contains(&job.number) && !self.dead.contains(&job.number));
            if job.solo {
                assert!(self.flying.is_empty(), "it does not travel alone");
            }
            self.flying.push(job);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_order_is_kept_and_all_ends(acts in prop::collection::vec(act(), 0..200)) {
        let mut queue = Queue::new(1);
        let mut model = Model::default();
        let (mut next, mut now) = (1, 0);
        for act in acts {
            match act {
                Act::Add { lane, solo, blocks } => {
                    let lane = (lane > 0).then(|| format!("lane {lane}"));
                    let blocks = blocks && lane.is_some();
                    add(&mut queue, next, lane.as_deref(), solo, blocks);
                    queue.kept(next);
                    model.lanes.insert(next, (lane, blocks));
                    next += 1;
                }
                Act::Take { room } => model.take(&mut queue, room, now),
                Act::Answer { fate } => model.answer(&mut queue, fate, now),
                Act::LinkLost => {
                    for job in std::mem::take(&mut model.flying) {
                        queue.settle(job.number, Verdict::Again { at: 0, plain: false });
                    }
                }
                Act::Revive => {
                    if let Some(number) = model.dead.pop_first() {
                        prop_assert!(queue.revive(number));
                    }
                }
                Act::Purge => {
                    if let Some(number) = model.dead.pop_last() {
                        queue.remove(number);
                        model.gone.insert(number);
                    }
                }
                Act::Later => now += 10,
            }
            let counts = queue.counts();
            prop_assert_eq!(counts.flying, model.flying.len());
            prop_assert_eq!(counts.dead, model.dead.len());
            prop_assert_eq!(counts.waiting + counts.flying + counts.dead, queue.len());
            prop_assert_eq!(queue.bytes(), queue.len());
        }
        // When nothing fails any more, all that is not stopped comes to its end.
        while let Some(number) = model.dead.pop_first() {
            queue.remove(number);
            model.gone.insert(number);
        }
        for _ in 0..10_000 {
            if queue.len() == 0 {
                break;
            }
            now += 10;
            model.take(&mut queue, 128, now);
            model.answer(&mut queue, 9, now);
        }
        prop_assert_eq!(queue.len(), 0, "something is stuck");
        prop_assert_eq!(queue.lanes(), 0);
        prop_assert_eq!(model.done.len() + model.gone.len(), model.lanes.len());
    }
}
