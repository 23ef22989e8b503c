//! What was told, against a model: a log that servers have up to some place, and threads that tell.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;
use uuid::Uuid;

use crate::client::submit::told::{Limits, Losses, Told};

const WIDE: Limits =
    Limits { names: 1000, confirmed: 1000, bytes: 1000, age_ms: 1000, confirmed_age_ms: 1000 };

fn id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> HashSet<Uuid> {
    numbers.into_iter().map(id).collect()
}

/// Its number is its name, and what is needed to run it again.
fn push(told: &mut Told<u64, u64>, number: u64, vouches: bool) {
    told.push(id(number), vouches, 0, number, Some((10, number)));
}

fn lost(losses: &Losses<u64, u64>) -> Vec<(u64, Option<u64>)> {
    losses.lost.clone()
}

#[test]
fn what_the_backup_has_is_not_run_again_and_is_missed_all_the_same() {
    let mut told = Told::new(WIDE);
    assert!(told.is_empty() && told.witnesses().is_empty());
    (1..=5).for_each(|number| push(&mut told, number, true));
    assert_eq!(told.witnesses(), [id(5)]);
    told.handle_backup_has(id(3));
    assert_eq!(told.take_released(), [1, 2, 3]);
    assert_eq!(told.open_witnesses(), [(id(5), true)]);
    told.handle_backup_has(id(2));
    assert_eq!(told.take_released(), [] as [u64; 0]);
    let losses = told.take_lost(&ids([1, 2]), 0);
    assert_eq!(lost(&losses), [(3, None), (4, Some(4)), (5, Some(5))]);
    assert!(!losses.others);
    let losses = told.take_lost(&ids([1, 2]), 0);
    assert!(losses.lost.is_empty(), "it is given once");
}

#[test]
fn what_was_found_done_vouches_for_itself_alone() {
    let mut told = Told::new(WIDE);
    push(&mut told, 1, true);
    push(&mut told, 2, false);
    push(&mut told, 3, false);
    assert_eq!(told.open_witnesses(), [(id(1), true), (id(2), false), (id(3), false)]);
    told.handle_backup_has(id(3));
    assert_eq!(told.take_released(), [3]);
    told.handle_backup_has(id(1));
    assert_eq!(told.take_released(), [1]);
    assert_eq!(told.open_witnesses(), [(id(2), false)]);
    push(&mut told, 4, true);
    told.handle_backup_has(id(4));
    assert_eq!(told.take_released(), [2, 4]);
    assert!(told.open_witnesses().is_empty());
}

#[test]
fn the_oldest_make_room_and_that_is_not_forgotten() {
    let limits = Limits { names: 4, bytes: 20, ..WIDE };
    let mut told = Told::new(limits);
    (1..=6).for_each(|number| push(&mut told, number, true));
    assert_eq!(told.take_released(), [1, 2, 3, 4]);
    // The newest that was forgotten is asked for beside those that are remembered.
    assert_eq!(told.ids(0), [2, 3, 4, 5, 6].map(id));
    let losses = told.take_lost(&ids([2, 3, 4]), 0);
    assert_eq!(lost(&losses), [(5, Some(5)), (6, Some(6))]);
    assert!(!losses.others);
    let losses = told.take_lost(&ids([2]), 0);
    assert_eq!(lost(&losses), [(3, None), (4, None)]);
    assert!(!losses.others, "who has the newest that was forgotten has all of these");
    assert_eq!(told.witnesses(), [id(2)]);
    assert!(told.take_lost(&ids([]), 0).others, "who lacks it may lack others");
    assert!(!told.take_lost(&ids([]), 0).others, "it is told once");
}

#[test]
fn what_is_old_is_not_asked_for() {
    let mut told = Told::new(Limits { confirmed_age_ms: 100, ..WIDE });
    told.push(id(1), true, 0, 1u64, Some((10, 1u64)));
    told.push(id(2), true, 500, 2, Some((10, 2)));
    told.push(id(3), true, 900, 3, Some((10, 3)));
    told.handle_backup_has(id(1));
    assert_eq!(told.ids(101), [1, 2, 3].map(id), "the newest forgotten is asked for");
    assert_eq!(told.ids(1001), [2, 3].map(id), "until it is old");
    assert_eq!(told.ids(1501), [id(3)]);
    let losses = told.take_lost(&ids([]), 1501);
    assert_eq!(lost(&losses), [(3, Some(3))]);
    assert!(losses.others, "nothing is known of what was told before");
    assert_eq!(told.take_released(), [1, 2]);
}

#[test]
fn what_was_told_twice_is_lost_once() {
    let mut told = Told::new(WIDE);
    push(&mut told, 1, true);
    told.push(id(1), false, 0, 1, Some((10, 11)));
    let losses = told.take_lost(&ids([]), 0);
    assert_eq!(lost(&losses), [(1, Some(1))]);
    assert_eq!(told.take_released(), [11]);
}

/// One step of a life: this thread commits; it finds done what somebody committed so many places ago; the
/// backup is asked and has all but so many places; another server, with all but so many, takes over.
#[derive(Debug, Clone)]
enum Step {
    Commit,
    Find(u64),
    Ask(u64),
    TakeOver(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Commit),
        2 => (0..5u64).prop_map(Step::Find),
        2 => (0..5u64).prop_map(Step::Ask),
        1 => (0..12u64).prop_map(Step::TakeOver),
    ]
}

proptest! {
    #[test]
    fn whatever_is_lost_is_named_or_hinted_at_and_nothing_else(
        steps in proptest::collection::vec(step(), 1..120),
        names in 3..40usize,
        bytes in 1..300usize,
    ) {
        let mut told = Told::new(Limits { names, bytes, confirmed: names / 2, ..WIDE });
        // Places in the log of what was told and not lost; those of its own commits; what was handed out.
        let (mut end, mut next) = (0u64, 0u64);
        let mut standing: Vec<(u64, u64, bool)> = Vec::new();
        let mut whole = BTreeSet::new();
        let mut out = BTreeSet::new();
        for step in steps {
            match step {
                Step::Commit | Step::Find(_) => {
                    next += 1;
                    let (place, own) = match step {
                        Step::Find(ago) => (end.saturating_sub(ago), false),
                        _ => {
                            end += 1;
                            (end, true)
                        }
                    };
                    standing.push((next, place, own));
                    whole.insert(next);
                    told.push(id(next), own, 0, next, Some((10, next)));
                }
                Step::Ask(behind) => {
                    let has = |it: &&(u64, u64, bool)| it.1 + behind <= end;
                    let there = ids(standing.iter().filter(has).map(|it| it.0));
                    for (witness, _) in told.open_witnesses() {
                        if there.contains(&witness) {
                            told.handle_backup_has(witness);
                        }
                    }
                }
                Step::TakeOver(behind) => {
                    let stays = |it: &(u64, u64, bool)| it.1 + behind <= end;
                    let there = ids(standing.iter().filter(|it| stays(it)).map(|it| it.0));
                    let asked: HashSet<Uuid> = told.ids(0).into_iter().collect();
                    let gone: Vec<_> = standing.iter().copied().filter(|it| !stays(it)).collect();
                    let witnesses = told.witnesses();
                    if witnesses.iter().all(|id| there.contains(id)) {
                        // One question has told it all: of what is remembered, all is there.
                        prop_assert!(!gone.iter().any(|it| asked.contains(&id(it.0))));
                        prop_assert!(!gone.iter().any(|it| it.2));
                    }
                    let there = asked.intersection(&there).copied().collect();
                    let losses = told.take_lost(&there, 0);
                    let named: BTreeSet<u64> = losses.lost.iter().map(|it| it.0).collect();
                    for (number, again) in &losses.lost {
                        prop_assert!(again.is_none_or(|it| it == *number && whole.remove(&it)));
                        out.insert(*number);
                    }
                    for (number, ..) in standing.iter().filter(|it| stays(it)) {
                        prop_assert!(!named.contains(number), "{number} is there");
                    }
                    for (number, _, own) in &gone {
                        let known = named.contains(number) || losses.others || !own;
                        prop_assert!(known, "{number} is lost without a word");
                    }
                    // Once it is told that earlier ones may be lost, nothing more is known of these.
                    standing.retain(|it| stays(it) && (!losses.others || asked.contains(&id(it.0))));
                    end = end.saturating_sub(behind);
                }
            }
            for released in told.take_released() {
                prop_assert!(whole.remove(&released), "{released} is handed out twice");
            }
        }
        prop_assert!(out.len() as u64 <= next);
    }
}
