//! The server ends sessions, crashes or is restarted, and the very same one comes back: nobody
//! moves elsewhere, everything goes on.

use std::thread;
use std::time::{Duration, Instant};

use segue::cluster::ClusterEvent;
use segue::{Client, ClientEvent};
use segue_testkit::Cluster;

use super::setup::Stage;
use super::workload::{PATIENCE, Workload};

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
    // One by one at a quick pace, in the middle of replays as well. It is always the oldest, so that
    // no statement is met so often that it is taken for the cause.
    let one = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE usename <> current_user AND backend_type = 'client backend' \
               ORDER BY backend_start LIMIT 1";
    for _ in 0..40 {
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

/// Links that are made ahead of time must not take part in the application's own locking: a Parse
/// of a query on two tables can deadlock with whoever drops both.
#[test]
fn spare_links_are_ready_while_a_table_is_locked() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    let server = cluster.server(0);
    server.execute("CREATE TABLE a (); CREATE TABLE b (); GRANT ALL ON a, b TO PUBLIC").unwrap();
    let client = Client::connect(&cluster.conninfo()).unwrap();
    let mut session = client.session().unwrap();
    let mut other = client.session().unwrap();
    session.query("SELECT count(*) FROM a UNION ALL SELECT count(*) FROM b", &[]).unwrap();
    let spares = |dialled: u64| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = client.status().cluster;
            let server = &status.servers[0];
            if server.warm_links == 2 && server.links_dialled >= dialled {
                return server.links_dialled;
            }
            assert!(Instant::now() < deadline, "no spare links: {server:#?}");
            thread::sleep(Duration::from_millis(2));
        }
    };
    let dialled = spares(0);

    other.begin(&segue::TransactionOptions::default()).unwrap();
    other.execute("LOCK TABLE a, b", &[]).unwrap();
    let idle = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
                AND query NOT LIKE 'LOCK%' AND query NOT LIKE '%UNION%'";
    server.execute(idle).unwrap();
    spares(dialled + 2);
    let waiting = server.query("SELECT count(*) FROM pg_locks WHERE NOT granted").unwrap();
    assert_eq!(waiting[0][0].as_deref(), Some("0"));
    other.rollback().unwrap();
}
