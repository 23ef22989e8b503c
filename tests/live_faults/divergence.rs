//! A replay that gives something else is never continued; one that meets a conflict is repeated.

use segue::{ClientEvent, ErrorKind, IsolationLevel, Outcome, TransactionOptions};

use crate::harness::Stand;

#[test]
fn a_changed_result_ends_the_transaction() {
    for case in ["value", "fewer", "more", "error", "tag", "in flight", "at commit"] {
        let stand = Stand::new();
        stand.control_execute("INSERT INTO $T VALUES (1, 'a'), (2, 'b')");
        let mut session = stand.session();
        let insert = stand.sql("INSERT INTO $T VALUES (10)");
        let tx = &mut session;
        tx.begin(&TransactionOptions::default()).unwrap();
        tx.query(&stand.sql("SELECT note FROM $T WHERE id < 10 ORDER BY id"), &[]).unwrap();
        tx.execute(&stand.sql("SELECT 1 / count(*) FROM $T WHERE id = 1"), &[]).unwrap();
        tx.execute(&insert, &[]).unwrap();
        if case == "tag" {
            tx.execute(&stand.sql("UPDATE $T SET note = note WHERE id = 2"), &[]).unwrap();
        }
        stand.cut();
        // The transaction's own end is seen first, lest the change waits for its locks.
        let change = match case {
            "fewer" => "DELETE FROM $T WHERE id = 2",
            "more" => "INSERT INTO $T VALUES (3, 'c')",
            "error" => "DELETE FROM $T WHERE id = 1",
            "tag" => "UPDATE $T SET id = 20 WHERE id = 2",
            _ => "UPDATE $T SET note = 'z' WHERE id = 1",
        };
        stand.control_execute(change);
        let error = match case {
            "at commit" => tx.commit().unwrap_err(),
            "in flight" => tx.query(&stand.sql("SELECT count(*) FROM $T"), &[]).unwrap_err(),
            _ => tx.execute(&insert, &[]).unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::ReplayDiverged, "{case}: {error:?}");
        assert_eq!((error.sqlstate(), error.outcome()), ("40001", Outcome::NotCommitted));
        assert!(error.is_retryable());
        if case != "at commit" {
            assert!(session.status().in_transaction);
            assert_eq!(session.query("SELECT 1", &[]).unwrap_err().sqlstate(), "40001");
            session.rollback().unwrap();
        }
        assert_eq!(stand.content().get(&10), None, "{case}");
        assert!(stand.has_event(|event| matches!(event, ClientEvent::ReplayDiverged { .. })));
        assert!(!session.status().in_transaction);
        session.execute(&insert, &[]).unwrap();
        assert_eq!(stand.content().get(&10), Some(&1), "{case}");
    }
}

/// A stream cannot take back what it has handed over.
#[test]
fn a_changed_stream_is_not_continued() {
    let stand = Stand::new();
    stand.control_execute("INSERT INTO $T SELECT g, 'x' FROM generate_series(1, 50000) g");
    let mut session = stand.session();
    let sql = stand.sql("SELECT id, note FROM $T ORDER BY id");
    let mut stream = session.query_stream(&sql, &[]).unwrap();
    for _ in 0..100 {
        stream.next_row().unwrap().unwrap();
    }
    stand.control_execute("UPDATE $T SET note = 'y' WHERE id = 50");
    stand.cut();
    let error = loop {
        match stream.next_row() {
            Ok(Some(row)) => assert_eq!(row.get::<&str>(1).unwrap(), "x"),
            Ok(None) => panic!("the stream ended as if nothing had changed"),
            Err(error) => break error,
        }
    };
    drop(stream);
    assert_eq!(error.kind(), ErrorKind::ReplayDiverged);
    assert_eq!(session.query(&sql, &[]).unwrap().len(), 50_000);
}

/// The replay runs into a serialization failure or a deadlock of its own and is run again.
#[test]
fn a_replay_that_meets_a_conflict_is_repeated() {
    for state in ["serialization_failure", "deadlock_detected"] {
        let stand = Stand::new();
        stand.control_execute("CREATE SEQUENCE s_$T; GRANT ALL ON SEQUENCE s_$T TO PUBLIC");
        stand.control_execute(&format!(
            "CREATE FUNCTION conflict_$T() RETURNS int LANGUAGE plpgsql AS $$BEGIN \
             IF nextval('s_$T') IN (2, 3) THEN RAISE {state}; END IF; RETURN 7; END$$"
        ));
        let mut session = stand.session();
        let mut tx = session.transaction().unwrap();
        tx.execute(&stand.sql("INSERT INTO $T VALUES (1)"), &[]).unwrap();
        tx.query(&stand.sql("SELECT conflict_$T()"), &[]).unwrap();
        stand.cut();
        tx.execute(&stand.sql("INSERT INTO $T VALUES (2)"), &[]).unwrap();
        tx.commit().unwrap();
        let content = stand.content();
        assert!(content.len() == 2 && content.values().all(|n| *n == 1), "{state}: {content:?}");
    }
}

/// Two transactions of one client conflict; with `retry_conflicts` neither hears of it.
#[test]
fn conflicts_are_retried_where_asked_for() {
    for retries in [0, 3] {
        let stand = Stand::with(&format!("retry_conflicts={retries}"));
        stand.control_execute("INSERT INTO $T VALUES (1, '0')");
        let mut session = stand.session();
        let level = TransactionOptions::default().isolation(IsolationLevel::RepeatableRead);
        let update = stand.sql("UPDATE $T SET note = (note::int + 1)::text WHERE id = 1");
        let mut tx = session.transaction_with(&level).unwrap();
        tx.execute("SELECT 1", &[]).unwrap();
        stand.control_execute(&update);
        let result = tx.execute(&update, &[]);
        if retries == 0 {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.sqlstate()), (ErrorKind::Server, "40001"));
            tx.rollback().unwrap();
            assert_eq!(stand.control("SELECT note FROM $T"), "1");
        } else {
            result.unwrap();
            tx.commit().unwrap();
            assert_eq!(stand.control("SELECT note FROM $T"), "2");
        }
    }
}
