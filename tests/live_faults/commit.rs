//! The link breaks while a commit is in flight, and the same server can be reached again at once.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use segue::{Outcome, Result, Session, TransactionOptions};
use segue_testkit::proxy::{Action, Side};

use crate::harness::{Reported, Stand, after, judge};

/// Does its work with ids from a base on, and reports what it was told.
type Work = fn(&Stand, &mut Session, i64) -> Vec<Reported>;

fn done<T>(ids: impl IntoIterator<Item = i64>, result: Result<T>) -> Reported {
    (ids.into_iter().collect(), result.map(drop))
}

fn insert_returning(stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    let sql = stand.sql("INSERT INTO $T VALUES ($1, 'i') RETURNING id");
    let result = session.query(&sql, &[&id]);
    if let Ok(rows) = &result {
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].get::<i64>(0).unwrap(), id);
    }
    vec![done([id], result)]
}

fn update(stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    // What it changes is visible as a change of the id itself.
    stand.control_execute(&format!("INSERT INTO $T VALUES ({}, 'u')", -id));
    let result = session.execute(&stand.sql("UPDATE $T SET id = -id WHERE id = $1"), &[&-id]);
    if let Ok(count) = &result {
        assert_eq!(*count, 1);
    }
    vec![done([id], result)]
}

fn writing_function(stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    let result = session.query(&stand.sql("SELECT write_$T($1)"), &[&id]);
    vec![done([id], result)]
}

fn copy_from(stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    let copy = |session: &mut Session| -> Result<u64> {
        let mut copy = session.copy_in(&stand.sql("COPY $T FROM STDIN"))?;
        for row in id..id + 500 {
            writeln!(copy, "{row}\t{}", "c".repeat(100)).expect("COPY data");
        }
        copy.finish()
    };
    let result = copy(session);
    if let Ok(count) = &result {
        assert_eq!(*count, 500);
    }
    vec![done(id..id + 500, result)]
}

fn batch(stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    let sql = format!(
        "INSERT INTO $T VALUES ({id}, 'b'); SELECT 1; INSERT INTO $T VALUES ({}, 'b') RETURNING id",
        id + 1
    );
    let result = session.batch(&stand.sql(&sql));
    if let Ok(results) = &result {
        assert_eq!(results.len(), 3);
    }
    vec![done([id, id + 1], result)]
}

/// Every third statement fails by a unique violation.
fn pipeline(stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    let in_transaction = session.status().in_transaction;
    if !in_transaction {
        stand.control_execute(&format!("INSERT INTO unique_$T VALUES ({id})"));
    }
    let mut pipeline = session.pipeline();
    let fine = stand.sql("INSERT INTO $T VALUES ($1, 'p')");
    let failing = stand.sql("INSERT INTO unique_$T VALUES ($1)");
    for n in 0..30 {
        match n % 3 {
            2 if !in_transaction => pipeline.add(&failing, &[&id]),
            _ => pipeline.add(&fine, &[&(id + n)]),
        }
        .expect("room in the pipeline");
    }
    let results = pipeline.finish().expect("the pipeline's end");
    assert_eq!(results.len(), 30);
    let mut reported = Vec::new();
    for (n, result) in (0..).zip(results) {
        if n % 3 == 2 && !in_transaction {
            let error = result.expect_err("a unique violation");
            assert_eq!(error.sqlstate(), "23505", "{error:?}");
        } else {
            reported.push(done([id + n], result));
        }
    }
    reported
}

/// A transaction whose COMMIT goes out with its statements.
fn pipelined_commit(stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    session.begin(&TransactionOptions::default()).expect("BEGIN, of which the server hears later");
    let insert = stand.sql("INSERT INTO $T VALUES ($1, 'pc')");
    let mut pipeline = session.pipeline();
    for n in 0..30 {
        pipeline.add(&insert, &[&(id + n)]).expect("room in the pipeline");
    }
    let committed = pipeline.commit();
    let results = pipeline.finish().expect("the pipeline's end");
    assert_eq!(results.len(), 30);
    if committed.is_ok() {
        for error in results.into_iter().filter_map(Result::err) {
            // What it has returned may be lost with the link, but it stands.
            assert_eq!(error.outcome(), Outcome::Committed, "{error:?}");
        }
    }
    vec![done(id..id + 30, committed)]
}

const WORKS: &[(&str, Work)] = &[
    ("INSERT RETURNING", insert_returning),
    ("UPDATE", update),
    ("SELECT of a writing function", writing_function),
    ("COPY", copy_from),
    ("batch", batch),
    ("pipeline", pipeline),
];

const WITH_A_TRANSACTION_OF_THEIR_OWN: &[(&str, Work)] =
    &[("COMMIT in a pipeline", pipelined_commit)];

/// The same inside an explicit transaction, reported by its COMMIT.
fn in_transaction(work: Work, stand: &Stand, session: &mut Session, id: i64) -> Vec<Reported> {
    let body = |session: &mut Session, reported: &mut Vec<Reported>| -> Result<()> {
        let mut transaction = session.transaction()?;
        transaction.execute(&stand.sql("INSERT INTO $T VALUES ($1, 'tx')"), &[&(id + 1000)])?;
        *reported = work(stand, &mut transaction, id);
        transaction.commit()
    };
    let mut reported = Vec::new();
    let result = body(session, &mut reported);
    let mut ids = vec![id + 1000];
    for (of_one, inner) in reported {
        if inner.is_ok() {
            ids.extend(of_one);
        } else {
            assert!(result.is_err(), "a failed statement inside: {inner:?}");
        }
    }
    vec![(ids, result)]
}

/// Breaks the link around the next commit.
type Fault = fn(&Stand);

fn never_arrives(stand: &Stand) {
    stand.at_commit(Action::Reset);
}

fn swallowed_then_reset(stand: &Stand) {
    let trigger = stand.at_commit(Action::SwallowReply);
    drop(after(trigger, |connection| connection.reset(Side::Both)));
}

fn arrives_then_reset(stand: &Stand) {
    stand.at_commit(Action::ForwardThenReset);
}

/// It is held back, the client is cut off, and it arrives when the session is back already.
fn arrives_late(stand: &Stand) {
    let trigger = stand.at_commit(Action::Hold);
    drop(after(trigger, |connection| {
        connection.reset(Side::Client);
        std::thread::sleep(std::time::Duration::from_millis(20));
        connection.release();
    }));
}

/// The reply breaks off before the ReadyForQuery that follows a writing statement's tag.
fn reply_is_cut(stand: &Stand) {
    let tags = [&b"INSERT"[..], b"UPDATE", b"COPY", b"SELECT", b"COMMIT"];
    let committing = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&committing);
    stand.proxy.on_client_message(
        crate::harness::commits,
        Action::run(move |_| seen.store(true, Ordering::SeqCst)),
    );
    let mut complete = false;
    stand.proxy.on_server_message(
        move |message| {
            if complete {
                return true;
            }
            complete = committing.load(Ordering::SeqCst)
                && message.tag == b'C'
                && tags.iter().any(|tag| message.body.starts_with(tag));
            false
        },
        Action::Reset,
    );
}

const FAULTS: &[(&str, Fault)] = &[
    ("never arrives", never_arrives),
    ("swallowed, then reset", swallowed_then_reset),
    ("arrives, then reset", arrives_then_reset),
    ("arrives late", arrives_late),
    ("reply cut", reply_is_cut),
];

const REPLY_FIRST: &str = "autocommit_reply=before_commit";

fn run_all(explicit: bool, options: &str) {
    let own = if explicit { &[] } else { WITH_A_TRANSACTION_OF_THEIR_OWN };
    for (work_name, work) in WORKS.iter().chain(own) {
        let stand = Stand::with(options);
        // A string of several statements is one message, its seal with it.
        let replies_kept = options == REPLY_FIRST && *work_name != "batch";
        stand.control_execute(
            "CREATE TABLE unique_$T (id int8 PRIMARY KEY); GRANT ALL ON unique_$T TO PUBLIC; \
             CREATE FUNCTION write_$T(id int8) RETURNS int8 LANGUAGE sql AS \
             'INSERT INTO $T VALUES (id, ''f''); SELECT id'",
        );
        let mut session = stand.session();
        let mut id = 10_000;
        // Prepared and described beforehand, as in the life of an application; and not.
        for warm in [false, true] {
            for (fault_name, fault) in FAULTS {
                let case = format!("{work_name}, explicit {explicit}, warm {warm}: {fault_name}");
                let mut fresh;
                let session = if warm {
                    &mut session
                } else {
                    fresh = stand.session();
                    &mut fresh
                };
                let run = |session: &mut Session, id: i64| match explicit {
                    true => in_transaction(*work, &stand, session, id),
                    false => work(&stand, session, id),
                };
                if warm {
                    run(session, id);
                    id += 10_000;
                }
                fault(&stand);
                let reported = run(session, id);
                judge(&case, &stand.content(), &reported);
                if replies_kept {
                    let all = reported.iter().all(|(_, result)| result.is_ok());
                    assert!(all, "{case}: {reported:?}");
                }
                if !matches!(*fault_name, "reply cut") {
                    // The ledger tells: nothing is reported failed that could be repeated.
                    for (ids, result) in &reported {
                        let fine = result.as_ref().err().is_none_or(|e| e.maybe_committed());
                        assert!(fine, "{case}: {ids:?} {result:?}");
                    }
                }
                id += 10_000;
                let next = run(session, id);
                judge(&format!("{case}, afterwards"), &stand.content(), &next);
                assert!(next.iter().all(|(_, result)| result.is_ok()), "{case}: {next:?}");
                id += 10_000;
            }
        }
        assert!(
            !stand.has_event(|event| matches!(event, segue::ClientEvent::CommitsLost { .. })),
            "{work_name}: {:?}",
            stand.events()
        );
    }
}

#[test]
fn a_commit_in_flight_in_autocommit() {
    run_all(false, "");
}

/// Whatever breaks, and wherever: there is no error, and no reply is lost.
#[test]
fn a_commit_in_flight_behind_its_reply() {
    run_all(false, REPLY_FIRST);
}

#[test]
fn a_commit_in_flight_in_a_transaction() {
    run_all(true, "");
}
