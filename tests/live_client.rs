//! The Rust API against a real server, with no fault at all: statements, types, transactions,
//! pipelines, COPY, LISTEN, cancelling.

use std::io::Write;
use std::time::Duration;

use segue::{Client, ErrorKind, Outcome};
use segue_testkit::Cluster;

fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::builder().start().expect("a cluster");
    let client = Client::connect(&cluster.conninfo()).expect("a client");
    (cluster, client)
}

#[test]
fn statements_and_types() {
    let (_cluster, client) = cluster();
    let mut session = client.session().unwrap();
    assert!(session.status().ledger, "{:?}", client.status());
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY, note text, at date)", &[]).unwrap();
    for id in 1..=3i64 {
        let done = session
            .execute("INSERT INTO t VALUES ($1, $2, $3)", &[&id, &"note", &"2026-01-02"])
            .unwrap();
        assert_eq!(done, 1);
    }
    let rows =
        session.query("SELECT id, note, at FROM t WHERE id > $1 ORDER BY id", &[&1i64]).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<i64>("id").unwrap(), 2);
    assert_eq!(rows[0].get::<&str>(1).unwrap(), "note");
    let none = session.query_opt("SELECT id FROM t WHERE id = $1", &[&99i32]).unwrap();
    assert!(none.is_none());
    let null = session.query_one("SELECT $1::int4", &[&None::<i32>]).unwrap();
    assert_eq!(null.get::<Option<i32>>(0).unwrap(), None);
    let error = session.execute("INSERT INTO t VALUES ($1)", &[&1i64]).unwrap_err();
    assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Server, "23505"));
    assert_eq!(error.outcome(), Outcome::NotCommitted);
    let results =
        session.batch("SELECT 1 AS a; INSERT INTO t VALUES (10), (11); SELECT 'x'").unwrap();
    assert_eq!(results.len(), 3, "{results:?}");
    assert_eq!(results[0].rows[0].get::<&str>(0).unwrap(), "1");
    assert_eq!(results[1].rows_affected(), 2);
    let prepared = session.prepare("SELECT $1 + id FROM t WHERE id = $2").unwrap();
    assert_eq!(prepared.param_oids(), [20, 20]);
    let row = session.query_one(&prepared, &[&5i32, &10i32]).unwrap();
    assert_eq!(row.get::<i64>(0).unwrap(), 15);
}

#[test]
fn transactions() {
    let (_cluster, client) = cluster();
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY)", &[]).unwrap();
    let mut tx = session.transaction().unwrap();
    tx.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    {
        let mut inner = tx.transaction().unwrap();
        inner.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
        assert!(inner.execute("INSERT INTO t VALUES (1)", &[]).is_err());
    }
    tx.execute("INSERT INTO t VALUES (3)", &[]).unwrap();
    tx.commit().unwrap();
    {
        let mut tx = session.transaction().unwrap();
        tx.execute("INSERT INTO t VALUES (4)", &[]).unwrap();
    }
    let mut tx = session.transaction().unwrap();
    assert!(tx.execute("INSERT INTO t VALUES (1)", &[]).is_err());
    let error = tx.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    session.execute("BEGIN", &[]).unwrap();
    session.execute("INSERT INTO t VALUES (5)", &[]).unwrap();
    session.execute("COMMIT", &[]).unwrap();
    let ids: Vec<i64> = session
        .query("SELECT id FROM t ORDER BY id", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0).unwrap())
        .collect();
    assert_eq!(ids, [1, 3, 5]);
}

#[test]
fn pipelines_streams_and_copy() {
    let (_cluster, client) = cluster();
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY, note text)", &[]).unwrap();
    let mut pipeline = session.pipeline();
    for id in 0..200i64 {
        pipeline.add("INSERT INTO t VALUES ($1, 'p')", &[&(id % 150)]).unwrap();
    }
    let results = pipeline.finish().unwrap();
    assert_eq!(results.len(), 200);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 50);

    let mut copy = session.copy_in("COPY t FROM STDIN").unwrap();
    for id in 1000..5000 {
        writeln!(copy, "{id}\t{}", "x".repeat(50)).unwrap();
    }
    assert_eq!(copy.finish().unwrap(), 4000);
    let mut copy = session.copy_in("COPY t FROM STDIN").unwrap();
    writeln!(copy, "1000\tagain").unwrap();
    assert_eq!(copy.finish().unwrap_err().sqlstate(), "23505");
    let copy = session.copy_in("COPY nowhere FROM STDIN");
    assert_eq!(copy.err().unwrap().sqlstate(), "42P01");
    drop(session.copy_in("COPY t FROM STDIN").unwrap());

    let mut count = 0;
    for row in session.query_stream("SELECT id FROM t WHERE id >= $1", &[&1000i64]).unwrap() {
        row.unwrap();
        count += 1;
    }
    assert_eq!(count, 4000);
    let pieces: Vec<_> =
        session.copy_out("COPY (SELECT 1, 2) TO STDOUT").unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces, [&b"1\t2\n"[..]]);
    let rows = session.query("SELECT count(*) FROM t", &[]).unwrap();
    assert_eq!(rows[0].get::<i64>(0).unwrap(), 4150);
}

#[test]
fn notifications_and_cancelling() {
    let (_cluster, client) = cluster();
    let mut session = client.session().unwrap();
    let mut other = client.session().unwrap();
    session.execute("LISTEN news", &[]).unwrap();
    other.execute("NOTIFY news, 'hello'", &[]).unwrap();
    let news = session.notification(Duration::from_secs(10)).unwrap().unwrap();
    assert_eq!((news.channel.as_str(), news.payload.as_str()), ("news", "hello"));
    assert!(session.notification(Duration::from_millis(10)).unwrap().is_none());

    let cancel = session.cancel_handle();
    let handle = std::thread::spawn(move || {
        // The cancel is repeated until it finds the statement running.
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(10));
            cancel.cancel().unwrap();
        }
    });
    let error = session.query("SELECT pg_sleep(60)", &[]).unwrap_err();
    assert_eq!(error.sqlstate(), "57014");
    handle.join().unwrap();
}

/// A session takes a fresh row of the ledger every few hundred commits. The answer to that was taken
/// for a malformed one, so that from then on every write lost its link, and some their reply.
#[test]
fn a_fresh_row_of_the_ledger_costs_no_link() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let conninfo = format!("{} ledger_rotate_commits=3", cluster.conninfo());
    let client = Client::connect(&conninfo).expect("a client");
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY)", &[]).unwrap();
    let (pid, row) = (session.status().backend_pid, session.status().ledger_row);
    for id in 0..10i64 {
        session.execute("INSERT INTO t VALUES ($1)", &[&id]).unwrap();
        assert_eq!(session.status().backend_pid, pid, "after {id} commits");
    }
    assert_ne!(session.status().ledger_row, row);
    // What a client resets on its own has to be prepared anew, which is another such request.
    session.execute("DISCARD ALL", &[]).unwrap();
    session.execute("INSERT INTO t VALUES (10)", &[]).unwrap();
    assert_eq!(session.status().backend_pid, pid);
}

/// The counters tell what was done, of sessions that are closed already too.
#[test]
fn statistics() {
    let (cluster, client) = cluster();
    assert_eq!(client.statistics(), segue::client::ClientStatistics::default());
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY)", &[]).unwrap();
    session.execute("DO $$ BEGIN RAISE NOTICE 'listen'; END $$", &[]).unwrap();
    let mut tx = session.transaction().unwrap();
    tx.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    let pid = tx.status().backend_pid.unwrap();
    cluster.primary().execute(&format!("SELECT pg_terminate_backend({pid}, 20000)")).unwrap();
    tx.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
    tx.commit().unwrap();
    let mut tx = session.transaction().unwrap();
    tx.execute("INSERT INTO t VALUES (3)", &[]).unwrap();
    tx.rollback().unwrap();
    let mut other = client.session().unwrap();
    assert_eq!(other.query("SELECT id FROM t", &[]).unwrap().len(), 2);
    other.close();

    let counted = client.statistics();
    assert_eq!((counted.sessions_opened, counted.statements), (2, 6), "{counted:?}");
    let transactions = (counted.transactions_committed, counted.transactions_rolled_back);
    assert_eq!(transactions, (1, 1), "{counted:?}");
    assert_eq!((counted.links_lost, counted.notices), (1, 1), "{counted:?}");
    let replays = (counted.replays_started, counted.replays_finished, counted.replays_diverged);
    assert_eq!(replays, (1, 1, 0), "{counted:?}");
    assert!(counted.pause_longest_us > 0, "{counted:?}");
    assert_eq!(counted.pause_total_us, counted.pause_longest_us);
    assert_eq!((counted.outcomes_unknown, counted.commits_lost), (0, 0), "{counted:?}");
    drop(session);
    assert_eq!(client.statistics(), counted);
}
