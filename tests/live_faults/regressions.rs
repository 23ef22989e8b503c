//! Bugs that these tests have found, each with its story.

use std::io::Write;
use std::time::Duration;

use segue::{ClientEvent, Error, ErrorKind, Outcome, QueryResult};
use segue_testkit::proxy::{Accept, Action, Side};

use crate::harness::{LONG, Stand, after, eventually, judge, within};

/// With the ledger off, the data of a COPY under way was not kept, yet the COPY was begun again on
/// the new link: it went on with what came after the fault and was reported a success, without the
/// rows that had been sent before.
#[test]
fn a_copy_without_a_ledger_loses_no_rows() {
    let stand = Stand::with("ledger=off");
    let mut session = stand.session();
    let mut copy = session.copy_in(&stand.sql("COPY $T FROM STDIN")).unwrap();
    for id in 0..1000 {
        writeln!(copy, "{id}\tfirst").unwrap();
    }
    copy.flush().unwrap();
    stand.cut();
    for id in 1000..10_000 {
        writeln!(copy, "{id}\t{}", "second".repeat(10)).unwrap();
    }
    assert_eq!(copy.finish().unwrap(), 10_000);
    assert_eq!(stand.content().len(), 10_000);
}

/// The same beyond the journal's limit: it can neither be repeated nor go on, and nothing of it is
/// committed, which was reported as unknown.
#[test]
fn a_copy_beyond_the_journal_without_a_ledger_is_not_committed() {
    let stand = Stand::with("ledger=off journal_bytes_max=10000");
    let mut session = stand.session();
    let mut copy = session.copy_in(&stand.sql("COPY $T FROM STDIN")).unwrap();
    for id in 0..1000 {
        writeln!(copy, "{id}\t{}", "x".repeat(50)).unwrap();
    }
    copy.flush().unwrap();
    stand.cut();
    for id in 0..10_000 {
        if writeln!(copy, "{id}\t{}", "x".repeat(50)).is_err() {
            break;
        }
    }
    let error = copy.finish().unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::ProtectionLost, Outcome::NotCommitted));
    assert!(stand.content().is_empty());
    session.execute(&stand.sql("INSERT INTO $T VALUES (1)"), &[]).unwrap();
}

/// A COPY larger than the journal as the first statement of a transaction: the bytes of BEGIN, let
/// go of with the rest, were still counted, and the session panicked at the end of the COPY.
#[test]
fn a_copy_beyond_the_journal_begins_a_transaction() {
    let stand = Stand::with("journal_bytes_max=10000");
    let mut session = stand.session();
    let mut tx = session.transaction().unwrap();
    let mut copy = tx.copy_in(&stand.sql("COPY $T FROM STDIN")).unwrap();
    for id in 0..1000 {
        writeln!(copy, "{id}\t{}", "x".repeat(50)).unwrap();
    }
    assert_eq!(copy.finish().unwrap(), 1000);
    assert!(tx.status().protection_lost.unwrap().contains("journal_bytes_max"));
    tx.commit().unwrap();
    assert_eq!(stand.content().len(), 1000);
}

/// A pipeline took request after request, although nobody could keep them (fuzzing). It waits for replies
/// where it is larger than the journal, and goes on.
#[test]
fn a_pipeline_beyond_the_journal_goes_on() {
    within(LONG, "the pipelines", || {
        let stand = Stand::with("journal_bytes_max=2000");
        let mut session = stand.session();
        let note = "x".repeat(100);
        let reads = |results: Vec<Result<QueryResult, Error>>| {
            results.iter().filter(|result| result.as_ref().unwrap().rows.len() == 1).count()
        };
        let mut pipeline = session.pipeline();
        (0..500).for_each(|_| pipeline.add("SELECT $1::text", &[&note]).unwrap());
        assert_eq!(reads(pipeline.finish().unwrap()), 500);
        let mut tx = session.transaction().unwrap();
        let mut pipeline = tx.pipeline();
        let insert = stand.sql("INSERT INTO $T VALUES ($1, $2) RETURNING id");
        (0..500i64).for_each(|id| pipeline.add(&insert, &[&id, &note]).unwrap());
        assert_eq!(reads(pipeline.finish().unwrap()), 500);
        assert!(tx.status().protection_lost.unwrap().contains("journal_bytes_max"));
        tx.commit().unwrap();
        assert_eq!(stand.content().len(), 500);
    });
}

/// No server came back while a COPY was under way: restoring the link was tried again and again, for
/// each time there was an event that nobody took, and the COPY never returned.
#[test]
fn a_copy_ends_when_no_server_comes_back() {
    for finish_at_once in [true, false] {
        let error = within(LONG, "the COPY", move || {
            let stand = Stand::with("failover_timeout_ms=700");
            let mut session = stand.session();
            let mut copy = session.copy_in(&stand.sql("COPY $T FROM STDIN")).unwrap();
            copy.write_all(b"1\tx\n").unwrap();
            copy.flush().unwrap();
            stand.proxy.set_accept(Accept::Refuse).unwrap();
            stand.cut();
            if !finish_at_once {
                // More than is gathered before it is sent.
                for _ in 0..50 {
                    let _ = copy.write_all(&b"2\ty\n".repeat(1000));
                }
            }
            let error = copy.finish().unwrap_err();
            stand.proxy.set_accept(Accept::Forward).unwrap();
            session.execute(&stand.sql("INSERT INTO $T VALUES (9)"), &[]).unwrap();
            assert_eq!(stand.content().keys().collect::<Vec<_>>(), [&9]);
            error
        });
        assert_eq!(error.kind(), ErrorKind::FailoverTimeout, "{error:?}");
    }
}

/// A function that might have written but did not takes no seal, and yet its number was counted as
/// acknowledged: the next link's ledger seemed to lack a commit.
#[test]
fn a_statement_that_wrote_nothing_is_no_lost_commit() {
    let stand = Stand::new();
    let mut session = stand.session();
    stand.control_execute(
        "CREATE FUNCTION idle_$T() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
    );
    let empty = stand.sql("UPDATE $T SET id = 1 WHERE false; SELECT 1");
    for round in 0..3 {
        if round > 0 {
            session.query(&stand.sql("SELECT idle_$T()"), &[]).unwrap();
        }
        if round > 1 {
            session.batch(&empty).unwrap();
        }
        let mut tx = session.transaction().unwrap();
        tx.query(&stand.sql("SELECT idle_$T()"), &[]).unwrap();
        tx.commit().unwrap();
        stand.cut();
        session.query("SELECT 1", &[]).unwrap();
        let lost = stand.has_event(|event| matches!(event, ClientEvent::CommitsLost { .. }));
        assert!(!lost, "round {round}: {:?}", stand.events());
    }
}

/// A row of the ledger was retired, and the reply to that was lost: the numbers that had stood in it
/// were reported as lost commits.
#[test]
fn a_retired_row_is_no_lost_commit() {
    let stand = Stand::with("ledger_rotate_commits=3");
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    let mut id = 0i64;
    for action in [Action::SwallowReply, Action::ForwardThenReset, Action::Reset] {
        for _ in 0..4 {
            session.execute(&insert, &[&id]).unwrap();
            id += 1;
        }
        let trigger = stand.proxy.on_client_message(|message| message.runs("segue.open("), action);
        let cutter = after(trigger.clone(), |connection| connection.reset(Side::Both));
        while !trigger.has_fired() {
            let _ = session.execute(&insert, &[&id]);
            id += 1;
        }
        cutter.join().unwrap();
        for _ in 0..10 {
            let result = session.execute(&insert, &[&id]);
            assert!(result.as_ref().err().is_none_or(Error::maybe_committed), "{result:?}");
            id += 1;
        }
    }
    let content = stand.content();
    assert!(content.values().all(|count| *count == 1), "{content:?}");
    assert_eq!(content.len() as i64, id);
    let lost = stand.has_event(|event| matches!(event, ClientEvent::CommitsLost { .. }));
    assert!(!lost, "{:?}", stand.events());
}

/// A pipeline rotated twice before all that was sealed in the first row was answered: the row was
/// deleted while it still decided outcomes, and what it had decided was run a second time.
#[test]
fn a_row_is_not_retired_while_it_decides() {
    let stand = Stand::with("ledger_rotate_commits=1");
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    session.execute(&insert, &[&-1i64]).unwrap();
    let mut id = 0i64;
    for count in (1..100).step_by(3) {
        stand.proxy.on_server_tag(
            b'Z',
            count,
            Action::run(|connection| connection.reset(Side::Client)),
        );
        let mut pipeline = session.pipeline();
        let first = id;
        for _ in 0..110 {
            pipeline.add(&insert, &[&id]).unwrap();
            id += 1;
        }
        let results = pipeline.finish().unwrap();
        let reported: Vec<_> =
            (first..id).zip(results).map(|(id, result)| (vec![id], result.map(drop))).collect();
        judge(&format!("cut at reply {count}"), &stand.content(), &reported);
    }
}

/// The replies to what the session prepares and opens for itself were taken for malformed: every
/// rotation of the ledger's row and every DISCARD ALL cost the link, and what was in flight its reply.
#[test]
fn rotations_and_discards_keep_the_link() {
    let stand = Stand::with("ledger_rotate_commits=3");
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    session.execute(&insert, &[&-1i64]).unwrap();
    let pid = session.status().backend_pid;
    for id in 0..30i64 {
        session.execute(&insert, &[&id]).unwrap();
    }
    for sql in ["DISCARD ALL", "DEALLOCATE ALL"] {
        session.execute(sql, &[]).unwrap();
        session.execute(&insert, &[&100i64]).unwrap();
        session.query("SELECT 1", &[]).unwrap();
        let mut tx = session.transaction().unwrap();
        tx.execute(&insert, &[&101i64]).unwrap();
        tx.commit().unwrap();
    }
    assert_eq!(session.status().backend_pid, pid);
}

/// In a pipeline the INSERT failed by a unique violation and the DELETE behind it was committed; the
/// replies were lost. The INSERT was run again, succeeded now, met its own number passed over, took
/// that for an earlier success, and was reported committed although nothing of it was there.
#[test]
fn what_failed_in_a_pipeline_is_not_taken_for_committed() {
    let stand = Stand::new();
    stand.control_execute("CREATE UNIQUE INDEX ON $T (id)");
    let mut session = stand.session();
    let (insert, delete) = (stand.sql("INSERT INTO $T VALUES (1)"), stand.sql("DELETE FROM $T"));
    session.execute(&delete, &[]).unwrap();
    session.execute(&insert, &[]).unwrap();
    let mut pipeline = session.pipeline();
    pipeline.add(&insert, &[]).unwrap();
    pipeline.add(&delete, &[]).unwrap();
    pipeline.add("SELECT 1", &[]).unwrap();
    let trigger = stand.at_commit(Action::SwallowReply);
    let cutter = after(trigger, move |connection| {
        std::thread::sleep(Duration::from_millis(100));
        connection.reset(Side::Both);
    });
    let results = pipeline.finish().unwrap();
    cutter.join().unwrap();
    assert!(stand.content().is_empty());
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotCommitted, "{error:?}");
    let deleted = results[1].as_ref().map_err(|error| error.outcome());
    assert!(matches!(deleted, Ok(_) | Err(Outcome::Committed)), "{deleted:?}");
    session.execute(&insert, &[]).unwrap();
}

/// COMMIT of a failed transaction carries no seal, for there is nothing to seal; when its reply was
/// lost its outcome was called unknown, though a failed transaction can only be rolled back.
#[test]
fn the_commit_of_a_failed_transaction_is_never_unknown() {
    let stand = Stand::new();
    let mut session = stand.session();
    for action in [Action::SwallowReply, Action::Reset, Action::ForwardThenReset] {
        let mut tx = session.transaction().unwrap();
        tx.execute(&stand.sql("INSERT INTO $T VALUES (1)"), &[]).unwrap();
        tx.execute("SELECT 1/0", &[]).unwrap_err();
        let trigger = stand.proxy.on_client_message(
            |message| message.runs("COMMIT") || message.runs("ROLLBACK"),
            action,
        );
        let cutter = after(trigger, |connection| connection.reset(Side::Both));
        let error = tx.commit().unwrap_err();
        cutter.join().unwrap();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::TransactionFailed, Outcome::NotCommitted)
        );
        assert!(stand.content().is_empty());
        session.query("SELECT 1", &[]).unwrap();
    }
}

/// DEALLOCATE ALL in a transaction takes ROLLBACK's own prepared statement with it; if the
/// transaction then failed, it could not be prepared again, and the transaction stayed open on the
/// server while the session believed that it had ended.
#[test]
fn a_failed_transaction_ends_after_deallocate_all() {
    let stand = Stand::new();
    let mut session = stand.session();
    for commit in [false, true] {
        let mut tx = session.transaction().unwrap();
        tx.execute("DEALLOCATE ALL", &[]).unwrap();
        tx.execute("SELECT 1/0", &[]).unwrap_err();
        if commit {
            assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::TransactionFailed);
        } else {
            tx.rollback().unwrap();
        }
        assert!(!session.status().in_transaction);
        session.execute(&stand.sql("INSERT INTO $T VALUES (1)"), &[]).unwrap();
    }
    let mut tx = session.transaction().unwrap();
    tx.batch("DEALLOCATE ALL; SELECT 1").unwrap();
    tx.execute(&stand.sql("INSERT INTO $T VALUES (2)"), &[]).unwrap();
    tx.commit().unwrap();
    assert_eq!(stand.content().get(&2), Some(&1));
}

/// What a string of several statements does to its session was not noted: its settings were gone
/// after a failover, and so were its temporary tables, without a word.
#[test]
fn a_string_of_several_statements_changes_the_session() {
    let stand = Stand::new();
    let mut session = stand.session();
    session.batch("SET application_name = 'several'; SET work_mem = '5MB'; LISTEN news").unwrap();
    session.execute("SET work_mem = '6MB'", &[]).unwrap();
    stand.cut();
    let row = session
        .query_one("SELECT current_setting('application_name'), current_setting('work_mem')", &[])
        .unwrap();
    assert_eq!((row.get::<&str>(0).unwrap(), row.get::<&str>(1).unwrap()), ("several", "6MB"));
    let channels = session.query("SELECT pg_listening_channels()", &[]).unwrap();
    assert_eq!(channels.len(), 1);

    session.batch("CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (1)").unwrap();
    assert!(session.status().protection_lost.is_some());
    stand.cut();
    let error = session.query("SELECT a FROM mine", &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProtectionLost, "{error:?}");
    session.query("SELECT 1", &[]).unwrap();
}

/// A streamed statement that failed before its first row was to be retried, but its error counted as
/// seen by the application, and the retry's success as a divergence.
#[test]
fn a_streamed_statement_is_retried_after_a_conflict() {
    let stand = Stand::with("retry_conflicts=3");
    let mut session = stand.session();
    stand.control_execute("CREATE SEQUENCE s_$T");
    stand.control_execute("GRANT ALL ON SEQUENCE s_$T TO PUBLIC");
    stand.control_execute(
        "CREATE FUNCTION conflict_$T() RETURNS int LANGUAGE plpgsql AS $$BEGIN \
         IF nextval('s_$T') < 2 THEN RAISE serialization_failure; END IF; RETURN 7; END$$",
    );
    let mut tx = session.transaction().unwrap();
    tx.execute(&stand.sql("INSERT INTO $T VALUES (1)"), &[]).unwrap();
    let rows: Vec<i32> = tx
        .query_stream(&stand.sql("SELECT conflict_$T()"), &[])
        .unwrap()
        .map(|row| row.unwrap().get(0).unwrap())
        .collect();
    assert_eq!(rows, [7]);
    tx.commit().unwrap();
    assert_eq!(stand.content().get(&1), Some(&1));
}

/// Ending a transaction needed a server even if there was none to end it on: commit() and rollback()
/// failed, their handle was gone, and the session stayed in a failed transaction for ever.
#[test]
fn a_transaction_ends_without_a_server() {
    let stand = Stand::with("failover_timeout_ms=500");
    let insert = stand.sql("INSERT INTO $T VALUES (1)");
    for commit in [false, true] {
        for noticed in [false, true] {
            let mut session = stand.session();
            let mut tx = session.transaction().unwrap();
            tx.execute(&insert, &[]).unwrap();
            stand.proxy.set_accept(Accept::Refuse).unwrap();
            stand.cut();
            if noticed {
                assert_eq!(
                    tx.execute(&insert, &[]).unwrap_err().kind(),
                    ErrorKind::FailoverTimeout
                );
            }
            if commit {
                assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::FailoverTimeout);
            } else {
                tx.rollback().unwrap();
            }
            assert!(!session.status().in_transaction, "commit {commit}, noticed {noticed}");
            stand.proxy.set_accept(Accept::Forward).unwrap();
            eventually("the server's return", || session.query("SELECT 1", &[]).is_ok());
            assert!(stand.content().is_empty());
        }
    }
}

/// A replay repeated the DEALLOCATE ALL inside its transaction, and COMMIT and its seal were not
/// prepared behind it.
#[test]
fn a_replay_may_forget_its_statements() {
    let stand = Stand::new();
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    for (id, forget) in [(1i64, "DEALLOCATE ALL"), (3, "DEALLOCATE ALL; SELECT 1")] {
        let mut tx = session.transaction().unwrap();
        tx.execute(&insert, &[&id]).unwrap();
        tx.batch(forget).unwrap();
        tx.execute(&insert, &[&(id + 1)]).unwrap();
        stand.cut();
        tx.commit().unwrap();
        let content = stand.content();
        assert_eq!((content.get(&id), content.get(&(id + 1))), (Some(&1), Some(&1)));
    }
}
