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
