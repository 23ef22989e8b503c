//! A standby is promoted: everybody moves, and never back.

use std::time::{Duration, Instant};

use segue::cluster::{ClusterEvent, Health, Verdict, Want};
use segue_testkit::{Cluster, Replication, USER};

use super::setup::{Client, PATIENCE, ask, assert_writes};

#[test]
fn a_killed_primary_is_followed_by_the_promoted_standby() {
    let servers = Cluster::builder().start().unwrap();
    let client = Client::open(&servers.conninfo());
    drop(client.session(None));
    servers.server(0).kill_postmaster().unwrap();
    std::thread::scope(|scope| {
        // Asks while the backends of the dead postmaster may still live.
        let waiting = scope.spawn(|| client.session(Some(0)));
        servers.promote(1, PATIENCE).unwrap();
        let promoted = Instant::now();
        let mut session = waiting.join().unwrap();
        assert!(promoted.elapsed() < Duration::from_secs(2), "{:?}", promoted.elapsed());
        assert_eq!((session.server, session.facts.timeline), (1, 2));
        assert!(!session.facts.in_recovery && !session.facts.read_only);
        assert_writes(&mut session);
    });
    client.wait_for_event("the promotion is told", |e| {
        matches!(e, ClusterEvent::Promoted { server: 1, timeline: 2, previous: Some(0), .. })
    });
}

#[test]
fn a_silent_primary_is_left_once_another_is_promoted_and_blocked_readers_are_woken() {
    let servers = Cluster::builder().replication(Replication::Async).start().unwrap();
    let client = Client::open(&servers.conninfo());
    let mut session = client.session(None);
    servers.server(0).pause().unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| ask(&mut session.link, "SELECT 1"));
        servers.promote(1, PATIENCE).unwrap();
        let promoted = Instant::now();
        assert!(blocked.join().unwrap().is_err(), "a stopped server has answered");
        assert!(promoted.elapsed() < Duration::from_secs(2), "{:?}", promoted.elapsed());
    });
    let mut session = client.session(Some(0));
    assert_eq!((session.server, session.facts.timeline), (1, 2));
    assert_writes(&mut session);

    // The old primary goes on, writable, and is refused.
    servers.server(0).resume().unwrap();
    client.wait_for_event("the old primary is refused", |e| {
        matches!(e, ClusterEvent::Stale { server: 0, timeline: 1, floor: 2, .. })
    });
    for _ in 0..5 {
        assert_eq!(client.session(None).server, 1);
    }
}

#[test]
fn an_old_primary_that_comes_back_is_refused_for_ever_and_welcome_as_a_standby() {
    let servers = Cluster::builder().replication(Replication::Async).start().unwrap();
    let client = Client::open(&servers.conninfo());
    drop(client.session(None));
    servers.server(0).kill_all().unwrap();
    servers.promote(1, PATIENCE).unwrap();
    assert_eq!(client.session(Some(0)).server, 1);
    servers.start_as_is(0).unwrap();
    client.wait("the old primary is refused", |s| {
        s.servers[0].verdict == Verdict::Stale && s.servers[0].health == Health::Healthy
    });
    // Not even as the only one that is left.
    servers.server(1).stop_fast().unwrap();
    client.wait("the new primary is lost", |s| s.servers[1].health == Health::Lost);
    let error =
        client.try_session(&client.want(Some(1), Duration::from_millis(300))).err().unwrap();
    assert!(error.to_string().contains("an old primary, refused"), "{error}");
    let reader = Want { writes: false, ..client.want(None, Duration::from_millis(300)) };
    assert!(client.try_session(&reader).is_err(), "its data are those of another time line");

    servers.server(1).start().unwrap();
    assert_eq!(client.session(Some(1)).server, 1);
    servers.rejoin(0).unwrap();
    client.wait("it is the standby", |s| s.standby == Some(0));
    assert_eq!(client.server(0).verdict, Verdict::Member);
}

#[test]
fn a_third_server_takes_over_from_the_second() {
    let servers = Cluster::builder().standbys(2).replication(Replication::Async).start().unwrap();
    let client = Client::open(&servers.conninfo());
    drop(client.session(None));
    servers.server(0).kill_all().unwrap();
    servers.promote(1, PATIENCE).unwrap();
    assert_eq!(client.session(Some(0)).server, 1);
    servers.follow(2).unwrap();
    servers.server(1).kill_all().unwrap();
    servers.promote(2, PATIENCE).unwrap();
    let mut session = client.session(Some(1));
    assert_eq!((session.server, session.facts.timeline), (2, 3));
    assert_writes(&mut session);
    let floor = Want { timeline_floor: 4, ..client.want(None, Duration::from_millis(100)) };
    let error = client.try_session(&floor).err().unwrap();
    assert!(error.to_string().contains("on timeline 4 or later"), "{error}");
}

#[test]
fn a_switchover_moves_the_sessions() {
    let servers = Cluster::builder().replication(Replication::Async).start().unwrap();
    let client = Client::open(&servers.conninfo());
    drop(client.session(None));
    servers.server(0).stop_fast().unwrap();
    servers.promote(1, PATIENCE).unwrap();
    assert_writes(&mut client.session(Some(0)));
    servers.rejoin(0).unwrap();
    client.wait("it is the standby", |s| s.standby == Some(0));
    assert_eq!(client.status().chosen, Some(1));
}

#[test]
fn segue_promotes_where_it_is_asked_to() {
    let servers = Cluster::builder().start().unwrap();
    let grant = format!("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {USER}");
    servers.server(0).execute(&grant).unwrap();
    let client = Client::open(&format!("{} on_primary_loss=promote", servers.conninfo()));
    drop(client.session(None));
    client.wait("the standby is known", |s| s.standby == Some(1));

    // A single link that ends is no loss of the primary.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE usename <> current_user AND backend_type = 'client backend'";
    servers.server(0).execute(end).unwrap();
    client.wait_for_event("it answers again", |e| matches!(e, ClusterEvent::Recovered { .. }));
    assert_eq!(client.session(Some(0)).server, 0);
    assert!(!client.saw(|e| matches!(e, ClusterEvent::Promoting { .. })));

    servers.server(0).kill_all().unwrap();
    let mut session = client.session(Some(0));
    assert_eq!((session.server, session.facts.timeline), (1, 2));
    assert_writes(&mut session);
    assert!(client.saw(|e| matches!(e, ClusterEvent::Promoting { server: 1, .. })));
}
