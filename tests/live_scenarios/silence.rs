//! A server that stops answering: one that goes on before anybody is promoted is waited for; one
//! whose standby is promoted is left, and never believed again.

use std::time::{Duration, Instant};

use segue::ClientEvent;
use segue::cluster::{ClusterEvent, Health, Verdict};
use segue_testkit::Cluster;

use super::setup::Stage;
use super::workload::{PATIENCE, Workload};

#[test]
fn a_frozen_primary_goes_on_then_freezes_again_and_is_replaced() {
    let quick = |cluster: &Cluster| format!("{} poll_timeout_ms=500", cluster.conninfo());
    let stage = Stage::with(Cluster::builder(), quick);
    let (old, new) = (stage.cluster.server(0), stage.cluster.server(1));
    let load = Workload::start(&stage.client);
    stage.wait_until_warm(1);
    load.arm();
    let moved = |e: &ClientEvent| matches!(e, ClientEvent::SessionMoved { .. });

    old.pause().unwrap();
    stage.events.wait("it is suspect", |e| matches!(e, ClusterEvent::Suspect { server: 0, .. }));
    assert_eq!(stage.status().chosen, Some(0), "suspicion alone moves nobody");
    let before = load.counts();
    old.resume().unwrap();
    load.settle();
    let recovered = |e: &ClusterEvent| matches!(e, ClusterEvent::Recovered { server: 0, .. });
    stage.events.wait("it answers again", recovered);
    assert_eq!(stage.events.count(moved), 0, "{:#?}", stage.events.all());
    assert!(load.counts().iter().zip(&before).all(|(after, before)| after > before));

    load.arm();
    old.pause().unwrap();
    stage.cluster.promote(1, PATIENCE).unwrap();
    let promoted = Instant::now();
    load.settle();
    assert!(promoted.elapsed() < Duration::from_secs(10), "{:?}", promoted.elapsed());
    let status = stage.status();
    assert_eq!((status.chosen, status.timeline_floor), (Some(1), 2));
    assert_eq!(status.servers[0].verdict, Verdict::Stale);
    stage.events.assert_in_order();

    // What its backends still have to say reaches nobody, and what they commit counts for nothing.
    load.arm();
    old.resume().unwrap();
    stage.events.wait("the old primary is refused", |e| {
        matches!(e, ClusterEvent::Stale { server: 0, timeline: 1, floor: 2, .. })
    });
    load.settle();
    stage.wait("the old primary answers", |s| s.servers[0].health == Health::Healthy);
    let status = stage.status();
    assert_eq!((status.chosen, status.servers[0].verdict), (Some(1), Verdict::Stale));
    let back = stage.events.count(|e| matches!(e, ClientEvent::SessionMoved { server: 0, .. }));
    assert_eq!(back, 0);
    let record = load.finish();
    record.check(new);
    record.check_left_behind(old);
    // Nothing of Segue's goes on there, save commits that wait for a standby which is none any more.
    let at_work = "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'app' \
                   AND state <> 'idle' AND wait_event IS DISTINCT FROM 'SyncRep' \
                   AND query NOT LIKE '%segue_probe%'";
    let ended = old.wait_until(at_work, Duration::from_secs(20));
    let all = "SELECT pid, state, wait_event, query FROM pg_stat_activity WHERE usename = 'app'";
    assert!(ended.is_ok(), "{ended:?}: {:#?}", old.query(all));
}
