//! The server ends sessions, crashes or is restarted, and the very same one comes back: nobody
//! moves elsewhere, everything goes on.

use std::time::{Duration, Instant};

use segue::ClientEvent;
use segue::cluster::ClusterEvent;

use super::setup::Stage;
use super::workload::Workload;

#[test]
fn a_crash_a_stop_and_a_restart_of_the_same_server() {
    let stage = Stage::new();
    let server = stage.cluster.server(0);
    let load = Workload::start(&stage.client);
    let faults: [(&str, &dyn Fn()); 5] = [
        ("one backend is killed, so that all others are ended", &|| {
            let victim = server.backend_pids().unwrap()[0];
            server.kill_backend(victim).unwrap();
        }),
        ("again, another one", &|| {
            let victim = *server.backend_pids().unwrap().last().unwrap();
            server.kill_backend(victim).unwrap();
        }),
        ("fast restart", &|| server.restart().unwrap()),
        ("immediate restart", &|| {
            server.stop_immediate().unwrap();
            server.start().unwrap();
        }),
        ("the node is killed and started again", &|| {
            server.kill_all().unwrap();
            server.start().unwrap();
        }),
    ];
    for (what, fault) in faults {
        load.arm();
        let moved = moves(&stage, 0);
        fault();
        load.settle();
        assert!(moves(&stage, 0) > moved, "{what}: nobody has noticed");
    }
    assert_eq!(moves(&stage, 1), 0);
    let status = stage.status();
    assert_eq!((status.chosen, status.timeline_floor), (Some(0), 1));
    stage.events.assert_in_order();
    load.finish().check(server);
}

/// `pg_terminate_backend` again and again, whatever the sessions are doing.
#[test]
fn sessions_whose_backends_are_ended_again_and_again() {
    let stage = Stage::new();
    let server = stage.cluster.server(0);
    let load = Workload::start(&stage.client);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE usename <> current_user AND backend_type = 'client backend'";
    for _ in 0..5 {
        load.arm();
        let moved = moves(&stage, 0);
        server.execute(end).unwrap();
        load.settle();
        assert!(moves(&stage, 0) >= moved + 7, "not all backends were replaced");
    }
    // One by one at a quick pace, in the middle of replays as well.
    let one = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE usename <> current_user AND backend_type = 'client backend' \
               ORDER BY random() LIMIT 1";
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        server.execute(one).unwrap();
    }
    load.settle();
    assert_eq!(moves(&stage, 1), 0);
    assert!(!stage.events.saw(|e| matches!(e, ClusterEvent::Promoted { .. })));
    stage.events.assert_in_order();
    load.finish().check(server);
}

fn moves(stage: &Stage, to: usize) -> usize {
    let is_move =
        |e: &ClientEvent| matches!(e, ClientEvent::SessionMoved { server, .. } if *server == to);
    stage.events.count(is_move)
}
