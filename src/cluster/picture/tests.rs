//! The picture in virtual time: no server, no thread, no clock.

use super::*;
use crate::cluster::{Confirmed, LedgerAccess};
use crate::config::OnPrimaryLoss;
use crate::error::ServerError;

const OURS: u64 = 77;

struct World {
    picture: Picture,
    now: Instant,
    events: Vec<ClusterEvent>,
    woken: Vec<u64>,
}

impl World {
    fn new(servers: usize) -> Self {
        Self::with_goal(servers, Goal::ReadWrite)
    }

    fn with_goal(servers: usize, goal: Goal) -> Self {
        let ms = Duration::from_millis;
        let timing = Failover {
            poll_interval: ms(250),
            poll_timeout: ms(1000),
            poll_failures: 2,
            promotion_poll_interval: ms(5),
            timeout: ms(60_000),
            on_primary_loss: OnPrimaryLoss::Wait,
            standby_links_max: 64,
            recovery_concurrency: 16,
            retry_conflicts: 0,
        };
        let addresses = (0..servers).map(|n| format!("server{n}")).collect();
        Self {
            picture: Picture::of(addresses, timing, goal),
            now: Instant::now(),
            events: Vec::new(),
            woken: Vec::new(),
        }
    }

    fn then(&mut self, input: impl FnOnce(&mut Picture, Instant) -> Effects) {
        let effects = input(&mut self.picture, self.now);
        self.events.extend(effects.events);
        self.woken.extend(effects.wake);
    }

    fn passes(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn says(&mut self, server: usize, timeline: u32, in_recovery: bool) {
        self.says_as(OURS, server, timeline, in_recovery, in_recovery, 1000);
    }

    fn says_as(
        &mut self,
        system_identifier: u64,
        server: usize,
        timeline: u32,
        in_recovery: bool,
        read_only: bool,
        lsn: u64,
    ) {
        let facts = Facts {
            in_recovery,
            read_only,
            system_identifier,
            timeline,
            lsn,
            ledger: LedgerAccess::None,
            backend_start: String::new(),
        };
        let observed = Observed { facts, received: lsn, asked: self.now };
        self.then(|p, now| p.handle_facts(now, server, observed));
    }

    fn dies(&mut self, server: usize) {
        let gone = || Failure::Gone("connection refused".into());
        self.then(|p, now| p.handle_failure(now, server, gone(), false));
        self.then(|p, now| p.handle_failure(now, server, gone(), true));
    }

    fn misses(&mut self, server: usize, times: u64) {
        for _ in 0..times {
            self.passes(1000);
            self.then(|p, now| p.handle_miss(now, server));
        }
    }

    fn want(&self) -> Want {
        Want { session: 1, timeline_floor: 0, writes: true, lost: None, deadline: self.now }
    }

    fn stale(&self) -> usize {
        self.events.iter().filter(|e| matches!(e, ClusterEvent::Stale { .. })).count()
    }
}

#[test]
fn the_first_to_answer_does_not_win_over_a_newer_timeline() {
    let mut world = World::new(2);
    world.says(0, 1, false);
    assert_eq!(world.picture.chosen(), None, "the other one has not been heard");
    world.says(1, 2, false);
    assert_eq!(world.picture.chosen(), Some(1));
    assert_eq!(world.stale(), 1);
}

/// A client had just been opened, and not all servers had answered. The one that had been promoted was heard
/// and lost again; then the deposed primary answered, and was given to sessions (simulation, seed 4563).
#[test]
fn a_newer_timeline_that_was_lost_before_the_first_choice_is_not_forgotten() {
    let mut world = World::new(2);
    world.says(1, 2, false);
    world.dies(1);
    world.says(0, 1, false);
    assert_eq!(world.picture.chosen(), None);
    assert_eq!(world.stale(), 1);
    world.says(1, 2, false);
    assert_eq!(world.picture.chosen(), Some(1));
}

#[test]
fn the_first_choice_waits_no_longer_than_the_poll_timeout() {
    let mut world = World::new(3);
    world.says(0, 1, false);
    world.dies(1);
    world.passes(999);
    world.then(|p, now| p.handle_tick(now));
    assert_eq!(world.picture.chosen(), None);
    world.passes(1);
    assert_eq!(world.picture.opening_ends(), Some(world.now));
    world.then(|p, now| p.handle_tick(now));
    assert_eq!(world.picture.chosen(), Some(0));
    assert_eq!(world.picture.opening_ends(), None);
}

#[test]
fn a_promotion_wakes_whoever_is_on_the_old_primary_once() {
    let mut world = World::new(2);
    world.says(0, 1, false);
    world.says(1, 1, true);
    world.then(|p, _| p.handle_register(7, 0));
    world.misses(0, 5);
    assert_eq!(world.picture.chosen(), Some(0), "suspicion alone has moved the choice");
    assert!(world.woken.is_empty());
    assert!(world.picture.urgent(world.now, 1));
    assert!(!world.picture.urgent(world.now, 0), "only a standby can be promoted");
    world.says(1, 2, false);
    assert_eq!(world.picture.chosen(), Some(1));
    world.misses(0, 2);
    assert_eq!(world.woken, [7]);
    // Who registers late for the old one is woken at once.
    world.then(|p, _| p.handle_register(8, 0));
    assert_eq!(world.woken, [7, 8]);
    assert!(matches!(
        world.events[..],
        [
            ClusterEvent::PrimaryChosen { server: 0, previous: None, .. },
            ClusterEvent::Suspect { server: 0, .. },
            ClusterEvent::Promoted { server: 1, timeline: 2, previous: Some(0), .. },
        ]
    ));
}

#[test]
fn a_suspect_that_answers_has_changed_nothing() {
    let mut world = World::new(2);
    world.says(0, 1, false);
    world.says(1, 1, true);
    world.then(|p, _| p.handle_register(7, 0));
    world.misses(0, 10);
    world.then(|p, now| p.handle_answer(now, 0));
    assert_eq!(world.picture.chosen(), Some(0));
    assert!(world.woken.is_empty());
    assert!(!world.picture.urgent(world.now, 1));
    assert!(matches!(world.events.last(), Some(ClusterEvent::Recovered { server: 0, .. })));
}

#[test]
fn a_server_that_is_silent_for_the_failover_timeout_is_given_up() {
    let mut world = World::new(1);
    world.says(0, 1, false);
    world.then(|p, _| p.handle_register(7, 0));
    world.misses(0, 59);
    assert!(world.woken.is_empty());
    world.misses(0, 1);
    assert_eq!(world.woken, [7]);
    assert_eq!(world.picture.chosen(), None);
    // Should it answer after all, new sessions may use it.
    world.then(|p, now| p.handle_answer(now, 0));
    assert_eq!(world.picture.pick(&world.want()), Some(0));
}

/// With `commit_ack=backup` a commit was acknowledged, and `ProtectionLost` told, as if no backup were
/// up, once the standby had been silent for the failover timeout: nobody knew that it was down, and
/// docs/guarantees.md says that a silent one is waited for. Found by the simulation.
#[test]
fn a_backup_that_is_silent_is_not_known_to_be_down() {
    let mut world = World::new(2);
    world.says(0, 1, false);
    world.says(1, 1, true);
    let deadline = world.now + Duration::from_secs(600);
    let word = |world: &World| world.picture.backup_word(world.now, 0, deadline);
    world.misses(1, 61);
    assert_eq!(world.picture.standby(), None, "it was given up");
    assert!(word(&world).is_none(), "{:?}", word(&world));
    world.dies(1);
    assert!(matches!(word(&world), Some(Ok(Confirmed::NoBackup))));
}

/// The primary and the standby crashed; the former was up first, in recovery, and became the standby that is kept
/// warm. Asked whether the backup has what was committed on it, it would have said yes.
#[test]
fn the_server_of_the_commits_is_no_backup_of_its_own() {
    let mut world = World::new(2);
    world.says(0, 1, false);
    world.says(1, 1, true);
    assert_eq!(world.picture.backup(), Some(1));
    world.dies(1);
    world.dies(0);
    world.says(0, 1, true);
    assert_eq!((world.picture.standby(), world.picture.backup()), (Some(0), None));
    world.says(1, 2, false);
    world.says(0, 2, true);
    assert_eq!(world.picture.backup(), Some(0), "it follows the new primary");
}

#[test]
fn the_old_primary_is_refused_for_ever_and_told_of_once_per_return() {
    let mut world = World::new(2);
    world.says(0, 1, false);
    world.says(1, 1, true);
    world.dies(0);
    world.says(1, 2, false);
    assert_eq!(world.stale(), 0, "it is not back yet");
    for _ in 0..3 {
        world.says(0, 1, false);
    }
    assert_eq!(world.stale(), 1);
    world.dies(1);
    assert_eq!(world.picture.chosen(), None);
    assert_eq!(world.picture.pick(&world.want()), None);
    assert_eq!(world.picture.pick(&Want { writes: false, ..world.want() }), None);
    // As a standby it is welcome, and after its own promotion as the primary.
    world.says(0, 2, true);
    assert_eq!(world.picture.standby(), Some(0));
    world.says(0, 3, false);
    assert_eq!(world.picture.chosen(), Some(0));
}

#[test]
fn the_identity_is_fixed_by_the_first_handover() {
    let mut world = World::new(2);
    world.dies(1);
    world.says_as(5, 0, 9, false, false, 1);
    assert_eq!(world.picture.status().system_identifier, Some(5));
    world.picture.handle_handover(0);
    world.dies(0);
    world.says_as(6, 1, 12, false, false, 1);
    assert_eq!(world.picture.chosen(), None);
    assert_eq!(world.picture.status().system_identifier, Some(5));
    assert!(world.events.iter().any(|e| matches!(e, ClusterEvent::OtherCluster { .. })));
}

#[test]
fn only_the_most_advanced_standby_of_an_unreachable_primary_is_promoted() {
    let mut world = World::new(3);
    world.says_as(OURS, 0, 1, false, false, 900);
    world.says_as(OURS, 1, 1, true, true, 700);
    world.says_as(OURS, 2, 1, true, true, 800);
    assert_eq!(world.picture.succession(world.now), None);
    let closed = Failure::Gone("closed".into());
    world.then(|p, now| p.handle_failure(now, 0, closed, false));
    assert_eq!(world.picture.succession(world.now), None, "nobody has tried to reach it");
    world.dies(0);
    assert_eq!(world.picture.succession(world.now), Some(Succession { lost: 0, heir: 2 }));
    let starting = ServerError { code: "57P03".into(), ..ServerError::default() };
    let starting = Failure::of_last_words(&starting, None);
    world.then(|p, now| p.handle_failure(now, 0, starting, true));
    assert_eq!(world.picture.succession(world.now), None, "it is coming back");
    world.dies(0);
    world.says_as(OURS, 1, 2, false, false, 900);
    assert_eq!(world.picture.succession(world.now), None, "somebody else was faster");
}

/// Of two standbys the one was promoted that had received less. The other one could not follow it, and had the higher
/// position: it was promoted when that one was lost, and began another history with the same number.
#[test]
fn a_standby_that_never_followed_the_primary_is_not_promoted() {
    let unproven = |world: &World| {
        let lost = world.picture.lost_without_successor(world.now);
        lost.and_then(|lost| world.picture.unproven_heir(lost))
    };
    let mut world = World::new(3);
    world.says_as(OURS, 0, 1, false, false, 900);
    world.says_as(OURS, 1, 1, true, true, 880);
    world.says_as(OURS, 2, 1, true, true, 890);
    world.dies(0);
    world.says_as(OURS, 1, 2, false, false, 885);
    world.says_as(OURS, 2, 1, true, true, 890);
    assert_eq!(unproven(&world), None);
    world.dies(1);
    let heir = Some(Succession { lost: 1, heir: 2 });
    assert_eq!(world.picture.succession(world.now), None);
    assert_eq!(unproven(&world), Some(2));
    // It is told its primary again by then, which is forgotten as soon as the link is gone.
    world.says_as(OURS, 2, 2, true, true, 887);
    world.says_as(OURS, 2, 1, true, true, 887);
    assert_eq!(world.picture.succession(world.now), heir);
    assert_eq!(unproven(&world), None);
}

#[test]
fn a_client_that_has_never_seen_a_primary_promotes_nobody() {
    let mut world = World::new(2);
    world.dies(0);
    world.says(1, 1, true);
    world.passes(100_000);
    world.dies(0);
    assert_eq!(world.picture.succession(world.now), None);
}

#[test]
fn a_reader_is_not_woken_when_the_primary_changes() {
    let mut world = World::with_goal(3, Goal::ReadOnly);
    world.says(0, 1, false);
    world.says(1, 1, true);
    world.says(2, 1, true);
    assert_eq!(world.picture.chosen(), Some(1));
    world.then(|p, _| p.handle_register(7, 1));
    world.dies(0);
    world.says(2, 2, false);
    world.says(1, 2, true);
    assert_eq!(world.picture.chosen(), Some(1));
    assert!(world.woken.is_empty());
}

#[test]
fn a_client_that_every_server_refuses_is_told_so() {
    let mut world = World::new(2);
    let wrong = ServerError { code: "28P01".into(), ..ServerError::default() };
    for server in 0..2 {
        assert!(world.picture.refusal().is_none());
        let refuses = Failure::of_last_words(&wrong, None);
        world.then(|p, now| p.handle_failure(now, server, refuses, true));
    }
    assert!(world.picture.refusal().is_some());
    // One that was served before waits for the others.
    world.says(1, 1, false);
    assert!(world.picture.refusal().is_none());
    world.picture.handle_handover(1);
    world.dies(1);
    assert!(world.picture.refusal().is_none());
}

#[test]
fn a_new_client_that_is_refused_does_not_wait_for_dead_servers() {
    let mut world = World::new(2);
    let wrong = ServerError { code: "28P01".into(), ..ServerError::default() };
    let refuses = Failure::of_last_words(&wrong, None);
    world.then(|p, now| p.handle_failure(now, 0, refuses, true));
    assert!(world.picture.refusal().is_none(), "the other one has not been tried");
    world.dies(1);
    assert!(world.picture.refusal().is_some());
}

#[test]
fn a_new_client_that_finds_nobody_is_told_so() {
    let mut world = World::new(2);
    let absent = || Failure::Absent("Connection refused".into());
    world.then(|p, now| p.handle_failure(now, 0, absent(), true));
    assert!(world.picture.refusal().is_none(), "the other one has not been tried");
    world.then(|p, now| p.handle_failure(now, 1, absent(), true));
    let error = world.picture.refusal().unwrap();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("Connection refused"), "{error}");
    // One that is there and silent may be the primary; and whoever was served once is patient.
    world.says(1, 1, false);
    assert!(world.picture.refusal().is_none());
    world.picture.handle_handover(1);
    world.then(|p, now| p.handle_failure(now, 1, absent(), true));
    assert!(world.picture.refusal().is_none());
}

#[test]
fn urgency_ends_with_the_failover_timeout_unless_somebody_waits() {
    let mut world = World::new(2);
    world.says(0, 1, false);
    world.says(1, 1, true);
    world.dies(0);
    world.passes(59_999);
    assert!(world.picture.urgent(world.now, 1));
    world.passes(1);
    assert!(!world.picture.urgent(world.now, 1));
    world.picture.waiting = 1;
    assert!(world.picture.urgent(world.now, 1));
}
