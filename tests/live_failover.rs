//! The main job: a transaction outlives its server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use segue::{Client, ClientEvent};
use segue_testkit::{Cluster, Replication};

#[test]
fn an_open_transaction_goes_on_after_kill_and_promotion() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    let client = Client::connect(&cluster.conninfo()).unwrap();
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

/// Nothing reaches the standby from here on, not even what waits in a socket.
fn cut_replication(cluster: &Cluster) {
    cluster.server(1).set_config("primary_conninfo", "").unwrap();
    let gone = "SELECT count(*) = 0 FROM pg_stat_replication";
    cluster.primary().wait_until(gone, Duration::from_secs(20)).unwrap();
}

/// With asynchronous replication a primary acknowledges commits that die with it. `commit_ack=backup`
/// keeps such a commit in flight until the backup has it, so that the failover replays it.
#[test]
fn a_commit_that_the_backup_never_got_is_replayed() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    let client = Client::connect(&format!("{} commit_ack=backup", cluster.conninfo())).unwrap();
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY)", &[]).unwrap();
    session.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    let seen = cluster.server(1).value("SELECT count(*) FROM t").unwrap();
    assert_eq!(seen, "1", "acknowledged means that the backup has it");
    cut_replication(&cluster);
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
    cluster.promote(1, Duration::from_secs(20)).unwrap();
    let mut session = writer.join().unwrap();
    let ids = session.query("SELECT id FROM t ORDER BY id", &[]).unwrap();
    let ids: Vec<i64> = ids.iter().map(|row| row.get(0).unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

/// Commits that were acknowledged by a primary that died before the standby got them are run again,
/// in their order, ahead of what was in flight; one that cannot be is reported lost.
#[test]
fn commits_that_were_acknowledged_and_lost_are_run_again() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    let client =
        Client::connect(&format!("{} on_commits_lost=reapply", cluster.conninfo())).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    let _events = client.on_event(move |event| {
        let line = match event {
            ClientEvent::CommitReapplied { .. } => "reapplied".to_owned(),
            ClientEvent::CommitsLost { from, to, .. } => format!("lost {}", to - from + 1),
            _ => return,
        };
        telling.lock().unwrap().push(line);
    });
    let mut session = client.session().unwrap();
    let mut other = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY, n int8)", &[]).unwrap();
    session.execute("CREATE TABLE odd (n int8)", &[]).unwrap();
    session.execute("INSERT INTO odd VALUES (0)", &[]).unwrap();
    cluster.server(1).wait_until("SELECT count(*) = 1 FROM odd", Duration::from_secs(20)).unwrap();
    cut_replication(&cluster);
    session.execute("INSERT INTO t VALUES (1, 0)", &[]).unwrap();
    let mut tx = session.transaction().unwrap();
    tx.query("SELECT n FROM t WHERE id = 1 FOR UPDATE", &[]).unwrap();
    tx.execute("UPDATE t SET n = n + 1 WHERE id = 1", &[]).unwrap();
    tx.commit().unwrap();
    session.batch("INSERT INTO t VALUES (2, 0); INSERT INTO t VALUES (3, 0)").unwrap();
    // What this one has read will not be there: its update of the other session's row is lost.
    other.execute("UPDATE odd SET n = 1", &[]).unwrap();
    let mut tx = session.transaction().unwrap();
    tx.execute("INSERT INTO t VALUES (4, 0)", &[]).unwrap();
    cluster.primary().kill_all().unwrap();
    cluster.promote(1, Duration::from_secs(20)).unwrap();
    tx.execute("INSERT INTO t VALUES (5, 0)", &[]).unwrap();
    tx.commit().unwrap();
    let rows = session.query("SELECT id, n FROM t ORDER BY id", &[]).unwrap();
    let rows: Vec<(i64, i64)> =
        rows.iter().map(|row| (row.get(0).unwrap(), row.get(1).unwrap())).collect();
    assert_eq!(rows, [(1, 1), (2, 0), (3, 0), (4, 0), (5, 0)]);
    assert_eq!(*told.lock().unwrap(), ["reapplied"; 3]);
    let odd = other.query_one("SELECT n FROM odd", &[]).unwrap();
    assert_eq!(odd.get::<i64>(0).unwrap(), 1);
    assert_eq!(*told.lock().unwrap(), ["reapplied"; 4]);
}
