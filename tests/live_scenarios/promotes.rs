//! Where there is no operator, Segue itself promotes; and a network that swallows packets between
//! the clients and the primary is no different from its death once a standby is promoted.

use std::time::Instant;

use segue::cluster::{ClusterEvent, Health, Verdict};
use segue_testkit::netns::{Namespace, Packets};
use segue_testkit::{Cluster, USER};

use super::setup::Stage;
use super::workload::{PATIENCE, Workload};

/// Segue may promote, and is to.
fn promote(cluster: &Cluster) -> String {
    let grant = format!("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO {USER}");
    cluster.server(0).execute(&grant).unwrap();
    format!("{} on_primary_loss=promote", cluster.conninfo())
}

#[test]
fn segue_promotes_by_itself_where_it_is_asked_to() {
    let stage = Stage::with(Cluster::builder(), promote);
    let cluster = &stage.cluster;
    let load = Workload::start(&stage.client);
    stage.wait_until_warm(1);
    load.arm();
    // A crash that the server recovers from by itself is no reason to promote.
    cluster.server(0).kill_backend(cluster.server(0).backend_pids().unwrap()[0]).unwrap();
    load.settle();
    let promoting = |e: &ClusterEvent| matches!(e, ClusterEvent::Promoting { .. });
    assert!(!stage.events.saw(promoting), "{:#?}", stage.events.all());
    assert_eq!(stage.status().chosen, Some(0));

    load.arm();
    cluster.server(0).kill_all().unwrap();
    load.settle();
    let status = stage.status();
    assert_eq!((status.chosen, status.timeline_floor), (Some(1), 2));
    let promoting = stage.events.position(promoting).unwrap();
    let promoted = |e: &ClusterEvent| matches!(e, ClusterEvent::Promoted { server: 1, .. });
    assert!(promoting < stage.events.position(promoted).unwrap());
    assert!(!stage.events.saw(|e| matches!(e, ClusterEvent::PromotionFailed { .. })));
    stage.events.assert_in_order();
    load.finish().check(cluster.server(1));
}

/// The second of two standbys was not told to follow the first, which Segue had promoted: it has another history
/// than what was written since, and is left alone. Nothing said so.
#[test]
fn a_standby_that_does_not_follow_is_not_promoted_and_that_is_told() {
    let stage = Stage::with(Cluster::builder().standbys(2), promote);
    let cluster = &stage.cluster;
    let _session = stage.client.session().unwrap();
    stage.wait("all servers are known", |s| s.servers.iter().all(|s| s.health == Health::Healthy));
    cluster.server(0).kill_all().unwrap();
    stage.wait("a standby is promoted", |status| status.chosen.is_some_and(|chosen| chosen > 0));
    let first = stage.status().chosen.unwrap();
    let other = 3 - first;
    let failed = |e: &ClusterEvent| matches!(e, ClusterEvent::PromotionFailed { .. });
    assert!(!stage.events.saw(failed), "{:#?}", stage.events.all());
    cluster.server(first).kill_all().unwrap();
    stage.events.wait("why the other one is not", |event| match event {
        ClusterEvent::PromotionFailed { server, reason, .. } => {
            *server == other && reason.contains("follow")
        }
        _ => false,
    });
    let promoting =
        |e: &ClusterEvent| matches!(e, ClusterEvent::Promoting { server, .. } if *server == other);
    assert!(!stage.events.saw(promoting), "{:#?}", stage.events.all());
}

#[test]
fn a_network_that_swallows_everything() {
    cut_off(
        |network| network.drop_packets(Packets::Both).unwrap(),
        |network| network.heal().unwrap(),
    );
}

#[test]
fn a_network_whose_cable_is_pulled() {
    cut_off(|network| network.set_link(false).unwrap(), |network| network.set_link(true).unwrap());
}

/// Both the clients and the standby are cut off from the primary, which lives on.
fn cut_off(cut: impl Fn(&Namespace), mend: impl Fn(&Namespace)) {
    let network = Namespace::create().unwrap();
    let stage = Stage::on(Cluster::builder().in_namespace(0, &network));
    let cluster = &stage.cluster;
    let load = Workload::start(&stage.client);
    stage.wait_until_warm(1);

    // A short black-out before anybody is promoted: a pause.
    load.arm();
    cut(&network);
    stage.events.wait("it is suspect", |e| matches!(e, ClusterEvent::Suspect { server: 0, .. }));
    mend(&network);
    load.settle();
    assert_eq!(stage.status().chosen, Some(0));

    load.arm();
    cut(&network);
    cluster.promote(1, PATIENCE).unwrap();
    let promoted = Instant::now();
    load.settle();
    assert!(promoted.elapsed().as_secs() < 10, "{:?}", promoted.elapsed());
    assert_eq!(stage.status().chosen, Some(1));
    load.arm();
    mend(&network);
    stage.wait("the old primary is there, and refused", |s| {
        s.servers[0].health == Health::Healthy && s.servers[0].verdict == Verdict::Stale
    });
    load.settle();
    assert_eq!(stage.status().chosen, Some(1));
    stage.events.assert_in_order();
    let record = load.finish();
    record.check(cluster.server(1));
    record.check_left_behind(cluster.server(0));
}
