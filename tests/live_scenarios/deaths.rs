//! The primary dies at one blow and a standby is promoted, twice: there and back again.

use segue::cluster::{ClusterEvent, Health, Role, Verdict};
use segue::{Client, ClientEvent};
use segue_testkit::{Auth, Cluster};

use super::setup::Stage;
use super::workload::{PATIENCE, Workload};

#[test]
fn a_killed_postmaster_then_a_killed_node() {
    there_and_back(&Stage::new());
}

#[test]
fn the_same_over_tls_and_scram() {
    there_and_back(&Stage::on(Cluster::builder().tls(true).auth(Auth::Scram)));
}

#[test]
fn the_same_over_unix_sockets() {
    there_and_back(&Stage::with(Cluster::builder(), Cluster::conninfo_unix));
}

fn there_and_back(stage: &Stage) {
    let cluster = &stage.cluster;
    let load = Workload::start(&stage.client);
    stage.wait_until_warm(1);
    load.arm();
    let before = stage.status();
    assert_eq!((before.chosen, before.standby, before.timeline_floor), (Some(0), Some(1), 1));
    assert_eq!(before.servers[0].role, Role::Primary);
    assert_eq!(before.servers[1].role, Role::Standby);

    cluster.server(0).kill_postmaster().unwrap();
    cluster.promote(1, PATIENCE).unwrap();
    load.settle();
    let after = stage.status();
    assert_eq!((after.chosen, after.timeline_floor), (Some(1), 2));
    assert_eq!((after.servers[1].role, after.servers[1].timeline), (Role::Primary, Some(2)));
    assert_eq!(after.servers[1].health, Health::Healthy);
    assert!(after.servers[1].warm_links_used > 0, "{after:#?}");
    let events = &stage.events;
    let lost = events.position(|e| matches!(e, ClusterEvent::Lost { server: 0, .. })).unwrap();
    let promoted = events.position(|e| {
        matches!(e, ClusterEvent::Promoted { server: 1, timeline: 2, previous: Some(0), .. })
    });
    assert!(lost < promoted.unwrap(), "{:#?}", events.all());
    let moved = events.count(|e| matches!(e, ClientEvent::SessionMoved { server: 1, .. }));
    assert!(moved >= 7, "{moved} sessions moved");
    events.assert_in_order();

    stage.rejoin_in_step(0);
    stage.wait_until_warm(0);
    let between = stage.status();
    assert_eq!((between.chosen, between.servers[0].role), (Some(1), Role::Standby));
    assert_eq!(between.servers[0].verdict, Verdict::Member);
    assert_eq!(between.servers[0].last_error, None);

    load.arm();
    cluster.server(1).kill_all().unwrap();
    cluster.promote(0, PATIENCE).unwrap();
    load.settle();
    let after = stage.status();
    assert_eq!((after.chosen, after.timeline_floor), (Some(0), 3));
    events.assert_in_order();
    let record = load.finish();
    record.check(cluster.server(0));

    refused_for_ever(stage);
}

/// The old primary comes back writable: also clients that have never seen its successor's promotion
/// refuse it, wherever it stands in their lists.
fn refused_for_ever(stage: &Stage) {
    let (new, old) = (stage.cluster.server(0), stage.cluster.server(1));
    old.start().unwrap();
    assert!(!old.is_in_recovery().unwrap());
    stage.events.wait("the old primary is refused", |event| {
        matches!(event, ClusterEvent::Stale { server: 1, timeline: 2, floor: 3, .. })
    });
    let conninfo = stage.client.config().hosts.clone();
    assert_eq!(conninfo.len(), 2);
    for turned in [false, true] {
        let mut config = stage.client.config().clone();
        // Another configuration, lest it be the same client.
        config.failover.poll_failures += 1;
        if turned {
            config.hosts.reverse();
        }
        let client = Client::open(config).unwrap();
        let mut session = client.session().unwrap();
        assert_eq!(session.status().server, usize::from(turned));
        session.execute("INSERT INTO done VALUES (-1)", &[]).unwrap();
    }
    let mut session = stage.client.session().unwrap();
    session.execute("INSERT INTO done VALUES (-1)", &[]).unwrap();
    assert_eq!(new.value("SELECT count(*) FROM done WHERE id = -1").unwrap(), "3");
    assert_eq!(old.value("SELECT count(*) FROM done WHERE id = -1").unwrap(), "0");
}
