//! Every verdict, and what it rests on.

use std::time::{Duration, UNIX_EPOCH};

use segue::Verdict::{Committed, NeverSent, NotCommitted, Unknown};
use segue::journal::{Fate, Record, Seal};
use uuid::Uuid;

use crate::harness::{
    INSERT, Past, commit, count, name, only, open_row, seal, seq, server, system_identifier,
    verdicts,
};

#[test]
fn each_transaction_has_its_verdict() {
    let mut past = Past::new();
    let (row, done, not_done) = (open_row(server()), name(), name());
    commit(server(), &done, row, 3);
    let never = past.statement(past.began(false), INSERT, &[Some(b"never")]).number();
    let committed = past.transaction(&done, row, 3);
    let lost = past.transaction(&not_done, row, 4);
    past.known(past.sent(past.began(true), row, 1), Fate::Committed);
    past.known(past.sent(past.began(true), row, 2), Fate::NotCommitted);
    past.known(past.began(true), Fate::Unknown);
    past.leave();

    let client = past.client("");
    let found = client.recover().unwrap();
    let expected = [NeverSent, Committed, NotCommitted, Committed, NotCommitted, Unknown];
    assert_eq!(verdicts(&found), expected, "{found:?}");
    let numbers: Vec<u64> = found.iter().map(|it| it.number()).take(3).collect();
    assert_eq!(numbers, [never, committed, lost]);
    assert_eq!((count(server(), &done), count(server(), &not_done)), (1, 0));

    let it = &found[1];
    assert_eq!(it.session(), Some(past.session_uuid));
    assert_eq!(it.session_number(), Some(past.session));
    assert_eq!((it.database(), it.user()), (Some("postgres"), Some("somebody")));
    let began = UNIX_EPOCH + Duration::from_millis(1_700_000_001_000);
    assert_eq!((it.began_at(), it.is_autocommit(), it.begin()), (Some(began), false, ""));
    assert_eq!(it.size().0, 1);
    let evidence = it.seals()[0];
    assert_eq!((evidence.row, evidence.number, evidence.committed), (row, 3, Some(true)));
    assert_eq!(found[2].seals()[0].committed, Some(false));
    assert!(found[0].seals().is_empty() && found[0].reason().is_none());
    assert!(found[3].is_autocommit());
    assert!(found[5].reason().unwrap().contains("left it open"));

    // The number is taken: whoever comes late with it cannot commit any more.
    assert_eq!(seq(server(), row), 5);
    let late = format!("BEGIN; INSERT INTO t (id) VALUES ('{not_done}'); {}; COMMIT", seal(row, 4));
    let error = server().execute(&late).unwrap_err().to_string();
    assert!(error.contains("is taken"), "{error}");
    assert_eq!(count(server(), &not_done), 0);
}

#[test]
fn any_attempt_that_has_committed_counts() {
    let mut past = Past::new();
    let (first, second) = (open_row(server()), open_row(server()));
    let (done, not_done) = (name(), name());
    commit(server(), &done, second, 1);
    let owner = past.sent(past.began(false), first, 7);
    past.sent(owner, second, 1);
    let owner = past.sent(past.began(false), first, 8);
    past.sent(owner, second, 2);
    past.leave();
    let found = past.client("").recover().unwrap();
    assert_eq!(verdicts(&found), [Committed, NotCommitted]);
    let said: Vec<_> = found[0].seals().iter().map(|it| (it.number, it.committed)).collect();
    assert_eq!(said, [(7, Some(false)), (1, Some(true))]);
    // Both rows are fenced above all numbers that were handed out in them.
    assert_eq!((seq(server(), first), seq(server(), second)), (9, 3));
    let _ = not_done;
}

/// An attempt that has failed is followed by another one under another number.
#[test]
fn an_attempt_behind_a_failure_is_the_one_that_counts() {
    let mut past = Past::new();
    let row = open_row(server());
    commit(server(), &name(), row, 2);
    let owner = past.known(past.sent(past.began(false), row, 1), Fate::NotCommitted);
    past.sent(owner, row, 2);
    past.leave();
    assert_eq!(verdicts(&past.client("").recover().unwrap()), [Committed]);
}

#[test]
fn a_number_that_was_passed_is_not_committed_and_needs_no_fence() {
    let mut past = Past::new();
    let row = open_row(server());
    commit(server(), &name(), row, 5);
    commit(server(), &name(), row, 7);
    for number in [5, 6, 7] {
        past.sent(past.began(false), row, number);
    }
    past.leave();
    let found = past.client("").recover().unwrap();
    assert_eq!(verdicts(&found), [Committed, NotCommitted, Committed]);
    assert_eq!(seq(server(), row), 7);
}

/// A fence far ahead of what was committed must not make the ledger forget that.
#[test]
fn a_fence_far_ahead_forgets_nothing() {
    let mut past = Past::new();
    let row = open_row(server());
    commit(server(), &name(), row, 1);
    past.sent(past.began(false), row, 1);
    past.sent(past.began(false), row, 500);
    past.leave();
    let found = past.client("").recover().unwrap();
    assert_eq!(verdicts(&found), [Committed, NotCommitted]);
    drop(found);
    // What the ledger has said is in the journal: it need not be asked any more, and could not be.
    assert_eq!(seq(server(), row), 501);
    assert_eq!(verdicts(&past.client("").recover().unwrap()), [Committed, NotCommitted]);
}

#[test]
fn what_the_ledger_cannot_say_is_unknown() {
    let mut past = Past::new();
    let row = open_row(server());
    commit(server(), &name(), row, 100);
    past.sent(past.began(false), row, 36);
    past.sent(past.began(false), Uuid::new_v4(), 1);
    past.sent(past.began(false), Uuid::nil(), 0);
    past.sent(past.statement(past.began(true), "VACUUM t", &[]), row, 101);
    past.statement(past.began(false), "PREPARE TRANSACTION 'x'", &[]);
    // Nothing of it was ever sent.
    past.statement(past.began(true), "CALL p()", &[]);
    past.leave();
    let found = past.client("").recover().unwrap();
    assert_eq!(verdicts(&found), [Unknown, Unknown, Unknown, Unknown, Unknown, NeverSent]);
    let reasons = [
        "does not remember",
        "no row",
        "without a number",
        "commits by itself",
        "commits by itself",
    ];
    for (it, words) in found.iter().zip(reasons) {
        assert!(it.reason().unwrap().contains(words), "{it:?}");
    }
    // Where nothing can be said, nothing is done.
    assert!(found[1].seals()[0].committed.is_none());
}

#[test]
fn a_guarded_seal_that_was_not_written_is_not_committed() {
    let mut past = Past::new();
    let row = open_row(server());
    past.write(
        Some(past.began(false)),
        &Record::CommitSent(Seal { row, number: 1, guarded: true }),
    );
    past.leave();
    let found = only(past.client("").recover().unwrap());
    assert_eq!(found.verdict(), NotCommitted);
    assert!(found.seals()[0].guarded);
}

/// The same row on another cluster, as in a copy that was restored from a dump.
#[test]
fn another_cluster_is_not_believed() {
    let other = system_identifier(server()) + 1;
    let mut past = Past::with(crate::harness::shared().conninfo(), other, None);
    let row = open_row(server());
    past.sent(past.began(false), row, 4);
    past.leave();
    let found = only(past.client("").recover().unwrap());
    assert_eq!(found.verdict(), Unknown);
    assert!(found.reason().unwrap().contains(&other.to_string()), "{found:?}");
    assert_eq!(seq(server(), row), 0, "nothing is written there");
}

/// A session had failed over before its process died, and after the restart only the deposed primary could
/// be reached. It was asked, its ledger fenced, and "not committed" said of what the promoted
/// server may have committed. Found by reading, while recovery was modelled for the simulation.
#[test]
fn a_server_of_an_older_timeline_is_not_asked() {
    let mut past = Past::new();
    let row = open_row(server());
    past.sent(past.began(false), row, 4);
    past.reached(1);
    past.reached(1000);
    past.leave();
    let found = only(past.client("failover_timeout_ms=2000").recover().unwrap());
    assert_eq!(found.verdict(), Unknown);
    assert!(found.reason().unwrap().contains("could not be asked"), "{found:?}");
    assert_eq!(seq(server(), row), 0, "nothing is fenced there");
}

#[test]
fn a_database_without_the_ledger_says_nothing() {
    let mut past = Past::new();
    past.sent(past.began(false), open_row(server()), 1);
    past.statement(past.began(false), INSERT, &[Some(b"x")]);
    past.leave();
    past.conninfo = past.conninfo.replace("dbname=app", "dbname=template1");
    assert!(past.conninfo.contains("template1"), "{}", past.conninfo);
    let found = past.client("").recover().unwrap();
    assert_eq!(verdicts(&found), [Unknown, NeverSent]);
    assert!(found[0].reason().unwrap().contains("no ledger"), "{found:?}");
}

#[test]
fn without_a_journal_there_is_nothing_to_recover() {
    let client = segue::Client::connect(&crate::harness::shared().conninfo()).unwrap();
    assert!(client.recover().unwrap().is_empty());
}

/// What the session itself had sealed, in a row of its own.
#[test]
fn the_seals_of_a_real_session_are_found() {
    let mut past = Past::new();
    let client = segue::Client::connect(&crate::harness::shared().conninfo()).unwrap();
    let mut session = client.session().unwrap();
    let id = name();
    session.execute(INSERT, &[&id.as_str()]).unwrap();
    let row = session.status().ledger_row;
    let number = seq(server(), row);
    past.transaction(&id, row, number);
    past.transaction("not there", row, number + 1);
    past.leave();
    let found = past.client("").recover().unwrap();
    assert_eq!(verdicts(&found), [Committed, NotCommitted]);
    assert_eq!((count(server(), &id), count(server(), "not there")), (1, 0));
}
