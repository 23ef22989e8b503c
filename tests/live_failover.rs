//! The main job: a transaction outlives its server.

use std::time::Duration;

use segue::Client;
use segue_testkit::{Cluster, Replication};

#[test]
fn an_open_transaction_goes_on_after_kill_and_promotion() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    let client = Client::connect(&cluster.conninfo()).unwrap();
    let _events = client.on_event(|event| eprintln!("{event:?}"));
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY)", &[]).unwrap();
    let mut tx = session.transaction().unwrap();
    for id in 0..5i64 {
        tx.execute("INSERT INTO t VALUES ($1)", &[&id]).unwrap();
    }
    cluster.primary().kill_postmaster().unwrap();
    cluster.promote(1, Duration::from_secs(20)).unwrap();
    tx.execute("INSERT INTO t VALUES ($1)", &[&5i64]).unwrap();
    tx.commit().unwrap();
    let count = session.query_one("SELECT count(*) FROM t", &[]).unwrap();
    assert_eq!(count.get::<i64>(0).unwrap(), 6);
    assert_eq!(session.status().server, 1);
}

/// With asynchronous replication a primary acknowledges commits that die with it. `commit_ack=backup`
/// keeps such a commit in flight until the backup has it, so that the failover replays it.
#[test]
fn a_commit_that_the_backup_never_got_is_replayed() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    let client = Client::connect(&format!("{} commit_ack=backup", cluster.conninfo())).unwrap();
    let _events = client.on_event(|event| eprintln!("{event:?}"));
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY)", &[]).unwrap();
    session.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    let seen = cluster.server(1).value("SELECT count(*) FROM t").unwrap();
    assert_eq!(seen, "1", "acknowledged means that the backup has it");
    // Nothing reaches the standby from here on.
    cluster.server(1).pause().unwrap();
    let writer = std::thread::spawn(move || {
        let mut tx = session.transaction().unwrap();
        tx.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
        tx.commit().unwrap();
        session.execute("INSERT INTO t VALUES (3)", &[]).unwrap();
        session
    });
    cluster.primary().wait_until("SELECT count(*) = 2 FROM t", Duration::from_secs(20)).unwrap();
    assert!(!writer.is_finished());
    cluster.primary().kill_all().unwrap();
    cluster.server(1).resume().unwrap();
    cluster.promote(1, Duration::from_secs(20)).unwrap();
    let mut session = writer.join().unwrap();
    let ids = session.query("SELECT id FROM t ORDER BY id", &[]).unwrap();
    let ids: Vec<i64> = ids.iter().map(|row| row.get(0).unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
}
