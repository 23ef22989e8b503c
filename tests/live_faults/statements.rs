//! Prepared statements that vanish, change or make room; rotation; cancelling.

use std::time::Duration;

use segue_testkit::proxy::{Accept, Action};

use crate::harness::{LONG, Stand, judge, within};

#[test]
fn statements_that_the_server_has_forgotten() {
    let stand = Stand::new();
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    let mut id = 0i64;
    for forget in ["DISCARD ALL", "DEALLOCATE ALL"] {
        for explicit in [false, true] {
            for _ in 0..2 {
                session.execute(&insert, &[&id]).unwrap();
                session.execute(forget, &[]).unwrap();
                if explicit {
                    session.execute("BEGIN", &[]).unwrap();
                }
                session.execute(&insert, &[&(id + 1)]).unwrap();
                session.query("SELECT 1", &[]).unwrap();
                if explicit {
                    session.execute("COMMIT", &[]).unwrap();
                }
                stand.cut();
                session.execute(&insert, &[&(id + 2)]).unwrap();
                id += 3;
            }
        }
    }
    let content = stand.content();
    assert!(content.len() as i64 == id && content.values().all(|n| *n == 1), "{content:?}");
}

#[test]
fn a_result_type_that_changes() {
    let stand = Stand::new();
    let mut session = stand.session();
    stand.control_execute("INSERT INTO $T VALUES (1, 'a')");
    let sql = stand.sql("SELECT * FROM $T");
    for (round, explicit) in [false, true, false, true].into_iter().enumerate() {
        assert_eq!(session.query(&sql, &[]).unwrap()[0].columns().len(), 2 + round);
        stand.control_execute(&format!("ALTER TABLE $T ADD COLUMN c{round} int"));
        if explicit {
            session.execute("BEGIN", &[]).unwrap();
            session.execute(&stand.sql("UPDATE $T SET note = note || 'x'"), &[]).unwrap();
        }
        assert_eq!(session.query(&sql, &[]).unwrap()[0].columns().len(), 3 + round);
        if explicit {
            session.execute("COMMIT", &[]).unwrap();
        }
    }
    assert_eq!(stand.control("SELECT note FROM $T"), "axx");
}

#[test]
fn a_small_cache_and_many_statements() {
    for size in [0, 1, 3] {
        let stand = Stand::with(&format!("statement_cache_size={size}"));
        let mut session = stand.session();
        for round in 0..3 {
            if round == 2 {
                stand.cut();
            }
            let mut tx = session.transaction().unwrap();
            for n in 0..10i32 {
                let row = tx.query_one(&format!("SELECT {n} + $1::int4"), &[&round]).unwrap();
                assert_eq!(row.get::<i32>(0).unwrap(), n + round);
                if n == 5 && round == 1 {
                    stand.cut();
                }
            }
            tx.execute(&stand.sql("INSERT INTO $T VALUES ($1)"), &[&i64::from(round)]).unwrap();
            tx.commit().unwrap();
        }
        let content = stand.content();
        assert!(content.len() == 3 && content.values().all(|n| *n == 1), "{size}: {content:?}");
        let names = session.query("SELECT name FROM pg_prepared_statements", &[]).unwrap();
        // Segue's own are BEGIN, COMMIT, ROLLBACK, two seals and the question to the ledger.
        assert!(names.len() <= 6 + size, "{size}: {}", names.len());
    }
}

/// Rows of the ledger are opened and retired under faults of every kind.
#[test]
fn rotation_under_faults() {
    let stand = Stand::with("ledger_rotate_commits=3");
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    let mut reported = Vec::new();
    let mut id = 0i64;
    for round in 0..24 {
        match round % 4 {
            0 => drop(stand.at_commit(Action::Reset)),
            1 => drop(stand.at_commit(Action::ForwardThenReset)),
            2 => drop(stand.proxy.on_client_message(|m| m.runs("segue.open("), Action::Reset)),
            _ => drop(
                stand.proxy.on_client_message(|m| m.runs("segue.open("), Action::ForwardThenReset),
            ),
        }
        for _ in 0..=round % 5 {
            let result = session.execute(&insert, &[&id]).map(drop);
            reported.push((vec![id], result));
            id += 1;
        }
    }
    judge("rotation", &stand.content(), &reported);
    assert!(
        reported.iter().all(|(_, r)| r.as_ref().err().is_none_or(segue::Error::maybe_committed)),
        "{reported:?}"
    );
    let lost = stand.has_event(|e| matches!(e, segue::ClientEvent::CommitsLost { .. }));
    assert!(!lost, "{:?}", stand.events());
}

/// Cancelling finds the statement where it runs now, and does no harm where none does.
#[test]
fn cancelling_around_a_failover() {
    within(LONG, "cancelling", || {
        let stand = Stand::new();
        let mut session = stand.session();
        let cancel = session.cancel_handle();
        let insert = stand.sql("INSERT INTO $T VALUES ($1)");
        session.execute(&insert, &[&0i64]).unwrap();
        stand.proxy.set_accept(Accept::Refuse).unwrap();
        stand.cut();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| session.query("SELECT pg_sleep(60)", &[]).map(drop));
            for _ in 0..5 {
                // Nothing can be reached: an error or nothing, and no hang.
                let _ = cancel.cancel();
                std::thread::sleep(Duration::from_millis(20));
            }
            stand.proxy.set_accept(Accept::Forward).unwrap();
            while !running.is_finished() {
                let _ = cancel.cancel();
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(running.join().unwrap().unwrap_err().sqlstate(), "57014");
        });
        session.execute(&insert, &[&1i64]).unwrap();
        assert_eq!(stand.content().len(), 2);
    });
}

/// Behind DISCARD ALL in a pipeline nothing is prepared any more, which was not known when what
/// follows was sent.
#[test]
fn a_pipeline_behind_discard_all() {
    let stand = Stand::new();
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    session.execute(&insert, &[&0i64]).unwrap();
    for forget in ["DISCARD ALL", "DEALLOCATE ALL"] {
        stand.control_execute("DELETE FROM $T");
        let mut pipeline = session.pipeline();
        pipeline.add(&insert, &[&1i64]).unwrap();
        pipeline.add(forget, &[]).unwrap();
        (2..6i64).for_each(|id| pipeline.add(&insert, &[&id]).unwrap());
        let results = pipeline.finish().unwrap();
        assert!(results.iter().all(Result::is_ok), "{forget}: {results:?}");
        assert_eq!(stand.content().len(), 5, "{forget}");
    }
}
