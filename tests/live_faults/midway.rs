//! The link breaks before, between and in the middle of statements; what protects a transaction, and
//! what it says when nothing can.

use std::io::Write;

use segue::{ClientEvent, Error, ErrorKind, IsolationLevel, Outcome, Session, TransactionOptions};
use segue_testkit::proxy::{Action, Side};

use crate::harness::{Stand, judge};

#[test]
fn before_and_between_statements() {
    let levels = [
        TransactionOptions::default(),
        TransactionOptions::default().isolation(IsolationLevel::RepeatableRead),
        TransactionOptions::default().isolation(IsolationLevel::Serializable),
    ];
    let stand = Stand::new();
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    let mut id = 0i64;
    for options in levels {
        for cut_before in 0..5 {
            let mut tx = session.transaction_with(&options).unwrap();
            for step in 0..4 {
                if step == cut_before {
                    stand.cut();
                }
                tx.execute(&insert, &[&(id + step)]).unwrap();
                let count = tx.query_one(&stand.sql("SELECT count(*) FROM $T"), &[]).unwrap();
                assert_eq!(count.get::<i64>(0).unwrap(), id + step + 1);
            }
            if cut_before == 4 {
                stand.cut();
            }
            tx.commit().unwrap();
            id += 4;
        }
    }
    let content = stand.content();
    assert!(content.len() as i64 == id && content.values().all(|n| *n == 1), "{content:?}");
}

#[test]
fn in_the_middle_of_a_large_result() {
    let stand = Stand::new();
    let mut session = stand.session();
    let sql = "SELECT g, repeat('x', g % 100) FROM generate_series(1, $1::int4) g";
    const ROWS: i32 = 100_000;
    for explicit in [false, true] {
        for cut_at in [1, 2, 5000, 99_999, 100_000] {
            for streamed in [true, false] {
                if explicit {
                    session.execute("BEGIN", &[]).unwrap();
                    session.execute(&stand.sql("INSERT INTO $T VALUES ($1)"), &[&1i64]).unwrap();
                }
                stand.proxy.on_server_tag(b'D', cut_at, Action::Reset);
                let numbers: Vec<i32> = if streamed {
                    let rows = session.query_stream(sql, &[&ROWS]).unwrap();
                    rows.map(|row| row.unwrap().get(0).unwrap()).collect()
                } else {
                    let rows = session.query(sql, &[&ROWS]).unwrap();
                    rows.iter().map(|row| row.get(0).unwrap()).collect()
                };
                assert!(
                    numbers.iter().copied().eq(1..=ROWS),
                    "explicit {explicit}, streamed {streamed}, cut at {cut_at}: {} rows",
                    numbers.len()
                );
                if explicit {
                    session.execute("ROLLBACK", &[]).unwrap();
                }
            }
        }
    }
    assert!(stand.content().is_empty());
}

#[test]
fn copy_in_and_out() {
    let stand = Stand::new();
    for explicit in [false, true] {
        for cut_at in [0, 1, 3000, 5999] {
            let mut session = stand.session();
            if explicit {
                session.execute("BEGIN", &[]).unwrap();
            }
            let mut copy = session.copy_in(&stand.sql("COPY $T FROM STDIN")).unwrap();
            for row in 0..6000 {
                if row == cut_at {
                    stand.cut();
                }
                writeln!(copy, "{row}\t{}", "c".repeat(80)).unwrap();
            }
            let result = copy.finish();
            let result = match (explicit, result) {
                (true, Ok(_)) => session.commit(),
                (_, result) => result.map(drop),
            };
            let case = format!("explicit {explicit}, cut at {cut_at}");
            assert!(result.as_ref().err().is_none_or(Error::maybe_committed), "{case}: {result:?}");
            judge(&case, &stand.content(), &[((0..6000).collect(), result)]);
            for pieces_before in [1, 2, 3000, 6000] {
                stand.proxy.on_server_tag(b'd', pieces_before, Action::Reset);
                let sql = stand.sql("COPY (SELECT id FROM $T ORDER BY id) TO STDOUT");
                let pieces: Vec<String> = session
                    .copy_out(&sql)
                    .unwrap()
                    .map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
                    .collect();
                assert!(pieces.iter().enumerate().all(|(n, piece)| *piece == format!("{n}\n")));
                assert_eq!(pieces.len(), 6000, "cut at piece {pieces_before}");
            }
            stand.control_execute("DELETE FROM $T");
        }
    }
}

#[test]
fn savepoints_and_errors() {
    let stand = Stand::new();
    let mut session = stand.session();
    for cut_at in 0..7 {
        let mut step = 0;
        let mut maybe_cut = || {
            if step == cut_at {
                stand.cut();
            }
            step += 1;
        };
        let insert = stand.sql("INSERT INTO $T VALUES ($1)");
        let mut tx = session.transaction().unwrap();
        tx.execute(&insert, &[&1i64]).unwrap();
        maybe_cut();
        tx.execute("SET LOCAL work_mem = '7MB'", &[]).unwrap();
        {
            let mut inner = tx.transaction().unwrap();
            maybe_cut();
            inner.execute(&insert, &[&2i64]).unwrap();
            inner.execute("SELECT 1/0", &[]).unwrap_err();
            maybe_cut();
            let error = inner.execute(&insert, &[&3i64]).unwrap_err();
            assert_eq!(error.sqlstate(), "25P02");
            maybe_cut();
            inner.rollback().unwrap();
        }
        maybe_cut();
        {
            let mut inner = tx.transaction().unwrap();
            inner.execute(&insert, &[&4i64]).unwrap();
            inner.commit().unwrap();
        }
        maybe_cut();
        let row = tx.query_one("SHOW work_mem", &[]).unwrap();
        assert_eq!(row.get::<&str>(0).unwrap(), "7MB");
        maybe_cut();
        tx.commit().unwrap();
        let ids: Vec<i64> = stand.content().into_keys().collect();
        assert_eq!(ids, [1, 4], "cut at {cut_at}");
        stand.control_execute("DELETE FROM $T");
        // And a transaction that has failed stays failed until it is rolled back.
        let mut tx = session.transaction().unwrap();
        tx.execute(&insert, &[&1i64]).unwrap();
        tx.execute("SELECT 1/0", &[]).unwrap_err();
        stand.cut();
        assert_eq!(tx.execute(&insert, &[&2i64]).unwrap_err().sqlstate(), "25P02");
        stand.cut();
        assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::TransactionFailed);
        assert!(stand.content().is_empty());
    }
}

fn setting(session: &mut Session, name: &str) -> String {
    let row = session.query_one("SELECT current_setting($1)", &[&name]).unwrap();
    row.get::<String>(0).unwrap()
}

#[test]
fn settings_are_restored_in_order_and_only_if_committed() {
    let stand = Stand::new();
    let mut session = stand.session();
    session.execute("SET work_mem = '5MB'", &[]).unwrap();
    session.execute("SET search_path = pg_catalog, public", &[]).unwrap();
    session.query("SELECT set_config('segue.mine', 'a', false)", &[]).unwrap();
    session.execute("BEGIN", &[]).unwrap();
    session.execute("SET work_mem = '6MB'", &[]).unwrap();
    session.execute("SAVEPOINT s", &[]).unwrap();
    session.execute("SET maintenance_work_mem = '9MB'", &[]).unwrap();
    session.execute("ROLLBACK TO s", &[]).unwrap();
    stand.cut();
    assert_eq!(setting(&mut session, "work_mem"), "6MB", "inside its transaction");
    session.execute("COMMIT", &[]).unwrap();
    session.execute("BEGIN", &[]).unwrap();
    session.execute("SET work_mem = '8MB'", &[]).unwrap();
    session.execute("LISTEN never", &[]).unwrap();
    session.execute("ROLLBACK", &[]).unwrap();
    session.execute("LISTEN news", &[]).unwrap();
    let prepared = session.prepare("SELECT $1::int4 + 1").unwrap();
    let default =
        stand.control("SELECT boot_val FROM pg_settings WHERE name = 'maintenance_work_mem'");
    for _ in 0..2 {
        stand.cut();
        assert_eq!(setting(&mut session, "work_mem"), "6MB");
        assert_eq!(setting(&mut session, "search_path"), "pg_catalog, public");
        assert_eq!(setting(&mut session, "segue.mine"), "a");
        assert_ne!(setting(&mut session, "maintenance_work_mem"), "9MB", "{default}");
        let channels = session.query("SELECT pg_listening_channels()", &[]).unwrap();
        assert_eq!(channels.len(), 1);
        let row = session.query_one(&prepared, &[&1i32]).unwrap();
        assert_eq!(row.get::<i32>(0).unwrap(), 2);
    }
    session.execute("RESET ALL", &[]).unwrap();
    stand.cut();
    assert_ne!(setting(&mut session, "work_mem"), "6MB");
}

/// What cannot be carried to another server is named beforehand, and named again when it is lost.
#[test]
fn state_that_cannot_be_restored() {
    let cases = [
        ("temporary table", "CREATE TEMP TABLE mine (a int)"),
        ("advisory", "SELECT pg_advisory_lock(4711)"),
        ("WITH HOLD", "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
    ];
    for (reason, sql) in cases {
        for explicit in [false, true] {
            let stand = Stand::new();
            let mut session = stand.session();
            if explicit {
                session.execute("BEGIN", &[]).unwrap();
            } else if reason == "WITH HOLD" {
                session.execute("BEGIN", &[]).unwrap();
                session.execute(sql, &[]).unwrap();
                session.execute("COMMIT", &[]).unwrap();
            }
            if explicit || reason != "WITH HOLD" {
                session.execute(sql, &[]).unwrap();
            }
            if explicit {
                session.execute("COMMIT", &[]).unwrap();
            }
            let lost = session.status().protection_lost.expect("a reason");
            assert!(lost.to_lowercase().contains(&reason.to_lowercase()), "{reason}: {lost}");
            assert!(stand.has_event(|event| matches!(event, ClientEvent::ProtectionLost { .. })));
            stand.cut();
            let insert = stand.sql("INSERT INTO $T VALUES (1)");
            let error = session.execute(&insert, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ProtectionLost);
            assert_eq!(error.outcome(), Outcome::NotCommitted);
            assert!(error.to_string().contains(&lost), "{error}");
            assert!(stand.content().is_empty());
            session.execute(&insert, &[]).unwrap();
            assert_eq!(stand.content().get(&1), Some(&1));
            assert_eq!(session.status().protection_lost, None);
        }
    }
}

#[test]
fn a_transaction_larger_than_the_journal() {
    let stand = Stand::with("journal_bytes_max=100000");
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1, $2)");
    let filler = "f".repeat(1000);
    let mut tx = session.transaction().unwrap();
    for id in 0..500i64 {
        tx.execute(&insert, &[&id, &filler]).unwrap();
    }
    assert!(tx.status().protection_lost.unwrap().contains("journal_bytes_max"));
    stand.cut();
    let error = tx.execute(&insert, &[&500i64, &filler]).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::ProtectionLost, Outcome::NotCommitted));
    drop(tx);
    assert!(stand.content().is_empty());
    // Its commit is sealed all the same.
    for action in [Action::Reset, Action::ForwardThenReset] {
        let mut tx = session.transaction().unwrap();
        for id in 0..200i64 {
            tx.execute(&insert, &[&id, &filler]).unwrap();
        }
        stand.at_commit(action);
        let result = tx.commit();
        judge("the commit", &stand.content(), &[((0..200).collect(), result)]);
        stand.control_execute("DELETE FROM $T");
    }
}

/// Statements that no seal can share a transaction with: their loss in flight is unknown, never
/// repeated.
#[test]
fn statements_outside_transactions() {
    let stand = Stand::new();
    let mut session = stand.session();
    stand.control_execute(
        "CREATE PROCEDURE halves_$T() LANGUAGE plpgsql AS \
         $$BEGIN INSERT INTO $T VALUES (1); COMMIT; INSERT INTO $T VALUES (2); END$$",
    );
    let call = stand.sql("CALL halves_$T()");
    let block =
        stand.sql("DO $$BEGIN INSERT INTO $T VALUES (1); COMMIT; INSERT INTO $T VALUES (2); END$$");
    for sql in [call, block] {
        session.execute(&sql, &[]).unwrap();
        assert_eq!(stand.content().len(), 2);
        stand.control_execute("DELETE FROM $T");
        let text = sql[..4].trim().to_owned();
        let text = if text == "CALL" { "CALL halves" } else { "DO $$BEGIN" };
        stand.proxy.on_client_message(move |message| message.runs(text), Action::ForwardThenReset);
        let error = session.execute(&sql, &[]).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::OutcomeUnknown, Outcome::Unknown));
        crate::harness::eventually("the block's end", || stand.content().len() == 2);
        assert!(stand.content().values().all(|count| *count == 1));
        stand.control_execute("DELETE FROM $T");
    }
    stand.proxy.on_client_message(|message| message.runs("VACUUM"), Action::ForwardThenReset);
    let error = session.execute(&stand.sql("VACUUM $T"), &[]).err();
    assert!(error.is_none_or(|error| error.outcome() == Outcome::Unknown));
    session.query("SELECT 1", &[]).unwrap();
}

#[test]
fn without_a_ledger_a_commit_in_flight_is_unknown() {
    let stand = Stand::with("ledger=off");
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    let mut tx = session.transaction().unwrap();
    tx.execute(&insert, &[&1i64]).unwrap();
    stand.cut();
    tx.execute(&insert, &[&2i64]).unwrap();
    stand.proxy.on_client_message(|message| message.runs("COMMIT"), Action::ForwardThenReset);
    let error = tx.commit().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::OutcomeUnknown, Outcome::Unknown));
    crate::harness::eventually("the commit", || stand.content().len() == 2);
    assert!(stand.content().values().all(|count| *count == 1));
    let mut reader = session.transaction().unwrap();
    reader.query("SELECT 1", &[]).unwrap();
    stand.proxy.on_client_message(|message| message.runs("COMMIT"), Action::Reset);
    reader.commit().unwrap();
    stand.proxy.on_client_message(|message| message.runs("INSERT"), Action::Reset);
    assert_eq!(session.execute(&insert, &[&3i64]).unwrap_err().outcome(), Outcome::Unknown);
}

#[test]
fn read_only_transactions() {
    let stand = Stand::new();
    let mut session = stand.session();
    session.execute(&stand.sql("INSERT INTO $T VALUES (1)"), &[]).unwrap();
    for action in [Action::Reset, Action::ForwardThenReset, Action::SwallowReply] {
        let swallows = matches!(action, Action::SwallowReply);
        let mut tx = session.transaction_with(&TransactionOptions::default().read_only()).unwrap();
        let sql = stand.sql("SELECT count(*) FROM $T");
        assert_eq!(tx.query_one(&sql, &[]).unwrap().get::<i64>(0).unwrap(), 1);
        stand.cut();
        assert_eq!(tx.query_one(&sql, &[]).unwrap().get::<i64>(0).unwrap(), 1);
        let error = tx.execute(&stand.sql("INSERT INTO $T VALUES (2)"), &[]).unwrap_err();
        assert_eq!(error.sqlstate(), "25006");
        tx.rollback().unwrap();
        let mut tx = session.transaction_with(&TransactionOptions::default().read_only()).unwrap();
        tx.query_one(&sql, &[]).unwrap();
        let trigger = stand.at_commit(action);
        let cutter = swallows.then(|| crate::harness::after(trigger, |c| c.reset(Side::Both)));
        tx.commit().unwrap();
        if let Some(cutter) = cutter {
            cutter.join().unwrap();
        }
    }
    assert_eq!(stand.content().len(), 1);
}

/// `ledger=require` refuses a role that may neither use nor install the ledger.
#[test]
fn a_ledger_that_is_required() {
    let cluster = segue_testkit::Cluster::builder()
        .standbys(0)
        .replication(segue_testkit::Replication::Async)
        .start()
        .unwrap();
    let server = cluster.server(0);
    server.execute("CREATE ROLE humble LOGIN PASSWORD 'x'").unwrap();
    server.execute("REVOKE CREATE ON DATABASE app FROM PUBLIC").ok();
    let conninfo = |mode: &str| {
        let text =
            cluster.conninfo().replace(&format!("user={}", segue_testkit::USER), "user=humble");
        format!("{text} ledger={mode} failover_timeout_ms=3000")
    };
    let client = segue::Client::connect(&conninfo("require")).unwrap();
    let error = client.session().err().expect("a refusal");
    assert_eq!(error.kind(), ErrorKind::Ledger, "{error:?}");
    let client = segue::Client::connect(&conninfo("prefer")).unwrap();
    let session = client.session().unwrap();
    assert!(session.status().protection_lost.unwrap().contains("ledger"));
}
