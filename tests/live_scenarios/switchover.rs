//! The primary is moved on purpose: stopped, another promoted, and it rejoins as a standby; then
//! the same back again, and the hard way.

use segue::cluster::{ClusterEvent, Role, Verdict};

use super::setup::Stage;
use super::workload::{PATIENCE, Workload};

#[test]
fn a_switchover_and_back_and_the_hard_way() {
    let stage = Stage::new();
    let cluster = &stage.cluster;
    let load = Workload::start(&stage.client);
    for (round, (from, to)) in [(0, 1), (1, 0), (0, 1)].into_iter().enumerate() {
        load.arm();
        match round {
            2 => cluster.server(from).stop_immediate().unwrap(),
            _ => cluster.server(from).stop_fast().unwrap(),
        }
        cluster.promote(to, PATIENCE).unwrap();
        load.settle();
        stage.rejoin_in_step(from);
        stage.wait_until_warm(from);
        let status = stage.status();
        assert_eq!(status.chosen, Some(to));
        assert_eq!(status.servers[from].role, Role::Standby);
        assert_eq!(status.servers[from].verdict, Verdict::Member);
        let floor = u32::try_from(round).unwrap() + 2;
        assert_eq!(status.timeline_floor, floor);
        stage.wait("the standby's timeline is known", |s| s.servers[from].timeline == Some(floor));
    }
    assert!(!stage.events.saw(|e| matches!(e, ClusterEvent::Stale { .. })));
    stage.events.assert_in_order();
    load.finish().check(cluster.server(1));
}
