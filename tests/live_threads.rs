//! Threads and handles: one background thread per configuration, which ends with the client, also
//! in the middle of a failover; and no call that outlives its deadline. One test, since it counts
//! the threads of its process.

use std::time::{Duration, Instant};

use segue::{Client, ErrorKind};
use segue_testkit::Cluster;

const PATIENCE: Duration = Duration::from_secs(30);

/// How many background threads this process has.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "segue-cluster").count()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}; {} threads", threads());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn threads_are_shared_and_end_with_their_client() {
    let cluster = Cluster::builder().start().unwrap();
    assert_eq!(threads(), 0);
    let first = Client::connect(&cluster.conninfo()).unwrap();
    let second = Client::connect(&cluster.conninfo()).unwrap();
    wait_for("one thread serves two equal clients", || threads() == 1);
    let mut session = second.session().unwrap();
    assert_eq!(first.status().sessions, 1, "they are one client");
    let other = Client::connect(&format!("{} poll_failures=3", cluster.conninfo())).unwrap();
    drop(other.session().unwrap());
    assert_eq!(threads(), 2);
    drop(other);
    wait_for("the other client's thread has ended", || threads() == 1);

    // A session needs no handle of its client.
    drop((first, second));
    session.execute("CREATE TABLE t (id int8)", &[]).unwrap();
    assert_eq!(threads(), 1);
    drop(session);
    wait_for("the last session's end is its client's", || threads() == 0);
    let again = Client::connect(&cluster.conninfo()).unwrap();
    let mut session = again.session().unwrap();
    session.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    drop((again, session));
    wait_for("the thread has ended once more", || threads() == 0);

    in_a_failover(&cluster);
}

/// Nobody is promoted: what waits ends at its deadline, and what does not wait ends at once.
fn in_a_failover(cluster: &Cluster) {
    let hasty =
        Client::connect(&format!("{} failover_timeout_ms=5000", cluster.conninfo())).unwrap();
    let mut waiting = hasty.session().unwrap();
    let idle = hasty.session().unwrap();
    let mut in_transaction = hasty.session().unwrap();
    in_transaction.begin(&segue::TransactionOptions::default()).unwrap();
    in_transaction.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
    cluster.server(0).kill_all().unwrap();
    let waiter = std::thread::spawn(move || {
        let start = Instant::now();
        let error = waiting.execute("INSERT INTO t VALUES (3)", &[]).unwrap_err();
        (error, start.elapsed())
    });
    let start = Instant::now();
    let status = hasty.status();
    assert_eq!(status.sessions, 3);
    idle.close();
    drop(in_transaction);
    drop(hasty);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let (error, took) = waiter.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::FailoverTimeout, "{error}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    wait_for("the last waiter's end is the client's", || threads() == 0);

    // A client that never finds a server can be dropped too.
    let start = Instant::now();
    let lonely = Client::connect(&cluster.server(0).conninfo()).unwrap();
    wait_for("its thread has begun", || threads() == 1);
    drop(lonely);
    wait_for("its thread has ended", || threads() == 0);
    assert!(start.elapsed() < Duration::from_secs(10));
    cluster.promote(1, PATIENCE).unwrap();
    let client = Client::connect(&cluster.conninfo()).unwrap();
    let count =
        client.session().unwrap().query_one("SELECT count(*) FROM t WHERE id <> 1", &[]).unwrap();
    assert!(count.get::<i64>(0).unwrap() <= 1, "what was reported unknown may be there, once");
}
