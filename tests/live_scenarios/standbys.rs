//! Standbys that die and come back, clusters that are gone altogether, and a third server.

use segue::cluster::{ClusterEvent, Health};
use segue::{Client, ErrorKind, Outcome};
use segue_testkit::Cluster;

use super::setup::{Stage, keep_in_step};
use super::workload::{PATIENCE, Workload};

#[test]
fn the_standby_dies_and_comes_back_then_the_primary_dies_then_both() {
    let stage = Stage::new();
    let cluster = &stage.cluster;
    let load = Workload::start(&stage.client);
    stage.wait_until_warm(1);
    load.arm();

    // Commits wait for the standby, so everybody does.
    cluster.server(1).kill_all().unwrap();
    stage.wait("the standby is lost, and its links", |s| {
        s.servers[1].health == Health::Lost && s.standby.is_none() && s.servers[1].warm_links == 0
    });
    cluster.server(1).start().unwrap();
    load.settle();
    stage.wait_until_warm(1);
    let moved = |e: &segue::ClientEvent| matches!(e, segue::ClientEvent::SessionMoved { .. });
    assert_eq!(stage.events.count(moved), 0, "the standby's death is no matter of the sessions");

    load.arm();
    cluster.server(0).kill_all().unwrap();
    cluster.promote(1, PATIENCE).unwrap();
    load.settle();
    assert!(stage.status().servers[1].warm_links_used >= 7, "{:#?}", stage.status());

    // Nobody is left: who is patient waits, and who is not is told of every server.
    let hasty = format!("{} failover_timeout_ms=1500", cluster.conninfo());
    let hasty = Client::connect(&hasty).unwrap();
    let mut session = hasty.session().unwrap();
    let mut busy = hasty.session().unwrap();
    busy.begin(&segue::TransactionOptions::default()).unwrap();
    busy.execute("INSERT INTO done VALUES (-2)", &[]).unwrap();
    load.arm();
    cluster.server(1).kill_all().unwrap();
    let sent = session.execute("INSERT INTO done VALUES (-2)", &[]).unwrap_err();
    let commit = busy.commit().unwrap_err();
    let none = hasty.session().err().unwrap();
    assert_eq!(none.outcome(), Outcome::NotCommitted);
    for error in [sent, commit, none] {
        // What was sent into the dying server's socket may be committed for all that anybody knows.
        assert!(matches!(error.outcome(), Outcome::NotCommitted | Outcome::Unknown), "{error}");
        assert_eq!(error.kind(), ErrorKind::FailoverTimeout, "{error}");
        for server in cluster.servers() {
            let address = format!("{}:{}", server.address(), server.port());
            assert!(error.to_string().contains(&address), "{error}");
        }
    }
    assert!(stage.status().chosen.is_none());
    cluster.server(1).start().unwrap();
    load.settle();
    // The hasty ones can go on as well.
    session.execute("INSERT INTO done VALUES (-1)", &[]).unwrap();
    busy.execute("INSERT INTO done VALUES (-1)", &[]).unwrap();
    let count = "SELECT count(*) FROM done WHERE id =";
    assert_eq!(cluster.server(1).value(&format!("{count} -1")).unwrap(), "2");
    assert_eq!(cluster.server(1).value(&format!("{count} -2")).unwrap(), "0");
    cluster.server(1).execute("DELETE FROM done WHERE id < 0").unwrap();
    stage.events.assert_in_order();
    load.finish().check(cluster.server(1));
}

#[test]
fn a_third_server_takes_over_from_the_second() {
    let stage = Stage::on(Cluster::builder().standbys(2));
    let cluster = &stage.cluster;
    keep_in_step(cluster.server(0), &[cluster.server(1), cluster.server(2)]);
    let load = Workload::start(&stage.client);
    load.arm();
    cluster.server(0).kill_all().unwrap();
    cluster.promote(1, PATIENCE).unwrap();
    load.settle();
    cluster.follow(2).unwrap();
    keep_in_step(cluster.server(1), &[cluster.server(2)]);
    stage.wait_until_warm(2);
    load.arm();
    cluster.server(1).kill_postmaster().unwrap();
    cluster.promote(2, PATIENCE).unwrap();
    load.settle();
    let status = stage.status();
    assert_eq!((status.chosen, status.timeline_floor), (Some(2), 3));
    // The first one comes back as it was, and is two timelines behind.
    cluster.start_as_is(0).unwrap();
    stage.events.wait("the first is refused", |e| {
        matches!(e, ClusterEvent::Stale { server: 0, timeline: 1, floor: 3, .. })
    });
    load.arm();
    load.settle();
    stage.events.assert_in_order();
    let record = load.finish();
    record.check(cluster.server(2));
    record.check_left_behind(cluster.server(0));
}
