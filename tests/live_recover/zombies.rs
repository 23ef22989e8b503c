//! The client is gone, and its backend goes on with what it had received.

use std::time::Duration;

use postgres::{NoTls, SimpleQueryMessage};
use segue::Verdict::{Committed, NotCommitted};

use crate::harness::{Past, count, eventually, name, only, open_row, seal, server};

/// Sends what a client sends in one write, on a thread of its own, and says how it ended.
fn backend(
    sql: String,
) -> std::thread::JoinHandle<Result<Vec<SimpleQueryMessage>, postgres::Error>> {
    let conninfo = crate::harness::shared().conninfo();
    std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&conninfo, NoTls).expect("a connection");
        client.simple_query(&sql)
    })
}

fn is_running(words: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{words}%' AND state = 'active' \
         AND wait_event = 'PgSleep'"
    );
    server().value(&sql).unwrap() != "0"
}

#[test]
fn an_attempt_that_has_not_sealed_yet_is_fenced() {
    let mut past = Past::new();
    let (row, id) = (open_row(server()), name());
    past.transaction(&id, row, 1);
    past.leave();
    let zombie = backend(format!(
        "BEGIN; INSERT INTO t (id) VALUES ('{id}'); SELECT pg_sleep(4), '{id}'; {}; COMMIT",
        seal(row, 1)
    ));
    eventually("the attempt", || is_running(&id));
    let found = only(past.client("").recover().unwrap());
    assert_eq!(found.verdict(), NotCommitted);
    let error = zombie.join().unwrap().unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("SG001"), "{error}");
    assert_eq!(count(server(), &id), 0);
}

/// It has sealed and holds the row: recovery ends it, or waits until it has ended by itself. Either way
/// the verdict is the truth.
#[test]
fn an_attempt_that_has_sealed_is_ended() {
    let mut past = Past::new();
    let (row, id) = (open_row(server()), name());
    past.transaction(&id, row, 1);
    past.leave();
    let zombie = backend(format!(
        "BEGIN; INSERT INTO t (id) VALUES ('{id}'); {}; SELECT pg_sleep(300), '{id}'; COMMIT",
        seal(row, 1)
    ));
    eventually("the attempt", || is_running(&id));
    let found = only(past.client("").recover().unwrap());
    assert_eq!(found.verdict(), NotCommitted);
    assert!(zombie.join().unwrap().is_err(), "it was ended");
    assert_eq!(count(server(), &id), 0);
}

/// It commits while recovery asks: before the fence, or not at all.
#[test]
fn an_attempt_that_is_just_committing_is_told_right() {
    let (mut committed, mut lost) = (0, 0);
    for round in 0..24 {
        let mut past = Past::new();
        let (row, id) = (open_row(server()), name());
        past.transaction(&id, row, 1);
        past.leave();
        let pause = f64::from(round) / 100.0;
        let sealed_first = round % 2 == 0;
        let sleep = format!("SELECT pg_sleep({pause}), '{id}'");
        let (before, after) =
            if sealed_first { (seal(row, 1), sleep) } else { (sleep, seal(row, 1)) };
        let zombie = backend(format!(
            "BEGIN; INSERT INTO t (id) VALUES ('{id}'); {before}; {after}; COMMIT"
        ));
        std::thread::sleep(Duration::from_millis(30));
        let found = only(past.client("").recover().unwrap());
        let told = zombie.join().unwrap();
        match found.verdict() {
            Committed => {
                committed += 1;
                assert_eq!(count(server(), &id), 1, "round {round}");
            }
            NotCommitted => {
                lost += 1;
                assert!(told.is_err(), "round {round}: it was told that it had committed");
                assert_eq!(count(server(), &id), 0, "round {round}");
            }
            other => panic!("round {round}: {other:?}, {found:?}"),
        }
    }
    println!("{committed} committed, {lost} not");
}

/// A repeatable read transaction learns of the fence by 40001 instead.
#[test]
fn an_attempt_with_an_old_snapshot_is_fenced_too() {
    let mut past = Past::new();
    let (row, id) = (open_row(server()), name());
    past.transaction(&id, row, 1);
    past.leave();
    let zombie = backend(format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO t (id) VALUES ('{id}'); \
         SELECT pg_sleep(3), '{id}'; {}; COMMIT",
        seal(row, 1)
    ));
    eventually("the attempt", || is_running(&id));
    assert_eq!(only(past.client("").recover().unwrap()).verdict(), NotCommitted);
    let error = zombie.join().unwrap().unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error}");
    assert_eq!(count(server(), &id), 0);
}

/// The role's own settings would make the fence fail, or look at an old snapshot.
#[test]
fn settings_of_the_role_do_not_get_in_the_way() {
    let mut past = Past::new();
    let (row, id) = (open_row(server()), name());
    past.transaction(&id, row, 1);
    past.leave();
    let zombie = backend(format!(
        "BEGIN; INSERT INTO t (id) VALUES ('{id}'); {}; SELECT pg_sleep(1), '{id}'; COMMIT",
        seal(row, 1)
    ));
    eventually("the attempt", || is_running(&id));
    past.conninfo.push_str(
        " options='-c statement_timeout=100 -c lock_timeout=50 \
         -c default_transaction_isolation=serializable -c synchronous_commit=off'",
    );
    let verdict = only(past.client("").recover().unwrap()).verdict();
    let told = zombie.join().unwrap();
    assert_eq!(verdict == Committed, count(server(), &id) == 1, "{verdict:?} {told:?}");
}
