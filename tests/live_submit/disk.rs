//! The journal on a file system that is full, or read-only.

use segue::{Client, ErrorKind, Submission};
use segue_testkit::{Cluster, SmallDisk};

use crate::harness::{committed, eventually, ids_on, insert, make_table, refused};

const DISK_BYTES: usize = 2 << 20;

/// `None`, and the reason is printed, where nothing may be mounted.
fn disk() -> Option<SmallDisk> {
    match SmallDisk::create(DISK_BYTES) {
        Ok(disk) => Some(disk),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// More than what was prepared ahead has room for.
fn large(id: i64) -> Submission {
    let sql = "INSERT INTO t (id, note) VALUES ($1, $2)";
    Submission::new().statement(sql, &[&id, &"x".repeat(400_000)]).unwrap().lane("a")
}

#[test]
fn a_full_disk_refuses_by_name_and_loses_nothing() {
    let Some(disk) = disk() else { return };
    for sync in ["none", "batch"] {
        let cluster = Cluster::builder().standbys(0).start().unwrap();
        make_table(cluster.server(0), "t");
        cluster.server(0).stop_fast().unwrap();
        let dir = disk.path().join(sync);
        let conninfo = format!(
            "{} journal=file journal_sync={sync} journal_dir={} failover_timeout_ms=2000",
            cluster.conninfo(),
            dir.display()
        );
        let client = Client::connect(&conninfo).unwrap();
        for id in 0..5 {
            client.submit(insert("t", id).lane("a")).unwrap();
        }
        disk.fill().unwrap();
        let error = client.submit(large(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProtectionLost, "{error}");
        assert!(error.to_string().contains("journal_no_space"), "{error}");
        assert_eq!(client.submissions().unwrap().waiting, 5, "it is not queued");
        disk.free().unwrap();
        // There is room again.
        client.submit(large(5)).unwrap();
        drop(client);
        // The same after a restart on a disk that is full.
        disk.fill().unwrap();
        if let Ok(client) = Client::connect(&conninfo) {
            assert_eq!(client.submissions().unwrap().recovered, 6);
            let error = client.submit(large(101)).unwrap_err();
            assert!(error.to_string().contains("journal_no_space"), "{error}");
        }
        disk.free().unwrap();
        let client = Client::connect(&conninfo).unwrap();
        assert_eq!(client.submissions().unwrap().recovered, 6, "what was refused is not there");
        let last = client.submit(insert("t", 6).lane("a")).unwrap();
        cluster.server(0).start().unwrap();
        committed(&last);
        assert_eq!(ids_on(cluster.server(0), "t"), (0..7).collect::<Vec<_>>());
        drop(client);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// A server that has the table and is down, and how a client with its journal on that disk connects.
fn stopped(disk: &SmallDisk) -> (Cluster, String) {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    make_table(cluster.server(0), "t");
    cluster.server(0).stop_fast().unwrap();
    let dir = disk.path().join("j");
    let conninfo = format!("{} journal=file journal_dir={}", cluster.conninfo(), dir.display());
    (cluster, conninfo)
}

/// What was accepted is run while the disk is full, and its end is written once there is room: it is run
/// once, whichever of the two a restart finds.
#[test]
fn what_is_accepted_is_run_on_a_full_disk() {
    let Some(disk) = disk() else { return };
    let (cluster, conninfo) = stopped(&disk);
    let server = cluster.server(0);
    let client = Client::connect(&conninfo).unwrap();
    let tickets: Vec<_> = (0..200).map(|id| client.submit(insert("t", id)).unwrap()).collect();
    disk.fill().unwrap();
    server.start().unwrap();
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    drop(client);
    disk.free().unwrap();
    let client = Client::connect(&conninfo).unwrap();
    eventually("all of them have ended", || {
        let status = client.submissions().unwrap();
        status.waiting + status.in_flight == 0
    });
    let mut there = ids_on(server, "t");
    there.sort_unstable();
    assert_eq!(there, (0..200).collect::<Vec<_>>());
    assert!(client.dead_letters().unwrap().is_empty());
}

/// The server refuses a submission while the disk is full: it becomes a dead letter as soon as there is room, and
/// its lane goes on, without the client being opened again.
#[test]
fn a_dead_letter_is_kept_once_there_is_room() {
    let Some(disk) = disk() else { return };
    let (cluster, conninfo) = stopped(&disk);
    let server = cluster.server(0);
    let client = Client::connect(&conninfo).unwrap();
    // The server's error repeats what it cannot read: more than what was prepared ahead has room for.
    let poison = "INSERT INTO t (id) SELECT pg_catalog.repeat('x', 400000)::int8";
    let poison = Submission::new().statement(poison, &[]).unwrap().lane("a");
    let poison = client.submit(poison).unwrap();
    let behind = client.submit(insert("t", 1).lane("a")).unwrap();
    disk.fill().unwrap();
    server.start().unwrap();
    eventually("the dead letter is refused", || {
        let problem = client.submissions().unwrap().problem;
        problem.is_some_and(|problem| problem.contains("a dead letter could not be kept"))
    });
    assert!(poison.poll().unwrap().is_none(), "nobody is told before it is kept");
    assert!(behind.poll().unwrap().is_none());
    disk.free().unwrap();
    assert_eq!(refused(&poison).sqlstate(), "22P02");
    committed(&behind);
    assert_eq!(ids_on(server, "t"), [1]);
    drop((poison, behind, client));
    let client = Client::connect(&conninfo).unwrap();
    let letters = client.dead_letters().unwrap();
    assert_eq!(letters.iter().map(|letter| &*letter.sqlstate).collect::<Vec<_>>(), ["22P02"]);
}

#[test]
fn a_read_only_disk_is_told_by_name_and_its_journal_goes_on_later() {
    let Some(disk) = disk() else { return };
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    make_table(cluster.server(0), "t");
    cluster.server(0).stop_fast().unwrap();
    let conninfo = format!(
        "{} journal=file journal_dir={}",
        cluster.conninfo(),
        disk.path().join("j").display()
    );
    let client = Client::connect(&conninfo).unwrap();
    client.submit(insert("t", 1)).unwrap();
    drop(client);
    disk.set_read_only(true).unwrap();
    let error = Client::connect(&conninfo).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("journal_read_only"), "{error}");
    disk.set_read_only(false).unwrap();
    let client = Client::connect(&conninfo).unwrap();
    assert_eq!(client.submissions().unwrap().recovered, 1);
    cluster.server(0).start().unwrap();
    committed(&client.submit(insert("t", 2)).unwrap());
    eventually("both are run", || client.submissions().unwrap().committed == 2);
    let mut there = ids_on(cluster.server(0), "t");
    there.sort_unstable();
    assert_eq!(there, [1, 2]);
}
