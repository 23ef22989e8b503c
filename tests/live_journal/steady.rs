//! While nothing goes wrong: what is in the journal when, and that its room is used again.

use segue::TransactionOptions;
use segue::journal::State;

use crate::harness::{Stand, eventually, in_flight, look};

#[test]
fn a_transaction_is_there_from_its_first_write_to_its_end() {
    for sync in ["none", "batch", "always"] {
        let stand = Stand::new();
        let client = stand.client(&format!("journal_sync={sync}"));
        let mut session = client.session().unwrap();
        let mut tx = session.transaction().unwrap();
        tx.query(&format!("SELECT id FROM {}", stand.table), &[]).unwrap();
        assert!(in_flight(&stand.journal()).is_empty(), "it has only read so far");
        let insert = format!("INSERT INTO {} VALUES ($1, $2)", stand.table);
        tx.execute(&insert, &[&1_i64, &"a"]).unwrap();
        eventually("the background writes it", || !in_flight(&stand.journal()).is_empty());
        let found = in_flight(&stand.journal());
        assert_eq!(found[0].state, State::NeverSent);
        assert_eq!(found[0].statements.len(), 2, "what was read counts as well: {found:?}");
        tx.commit().unwrap();
        eventually("its end is written", || in_flight(&stand.journal()).is_empty());
        session.execute(&insert, &[&2_i64, &"b"]).unwrap();
        eventually("its end is written", || in_flight(&stand.journal()).is_empty());
        session.begin(&TransactionOptions::default()).unwrap();
        session.execute(&insert, &[&3_i64, &"c"]).unwrap();
        eventually("the background writes it", || !in_flight(&stand.journal()).is_empty());
        drop(session);
        eventually("it ends with its session", || in_flight(&stand.journal()).is_empty());
        assert_eq!(stand.ids(), [1, 2]);
        drop(client);
        assert_eq!(look(&stand.journal()).in_flight().count(), 0, "the session has ended as well");
    }
}

#[test]
fn what_only_reads_leaves_no_trace() {
    let stand = Stand::new();
    let client = stand.client("journal_sync=none");
    let mut session = client.session().unwrap();
    for _ in 0..50 {
        session.query(&format!("SELECT id FROM {}", stand.table), &[]).unwrap();
        let options = TransactionOptions::default().read_only();
        let mut tx = session.transaction_with(&options).unwrap();
        tx.query(&format!("SELECT count(*) FROM {}", stand.table), &[]).unwrap();
        tx.commit().unwrap();
    }
    drop(session);
    drop(client);
    assert_eq!(look(&stand.journal()).report().records, 0);
}

#[test]
fn room_is_used_again() {
    let stand = Stand::new();
    let client =
        stand.client("journal_sync=none journal_dir_bytes_max=1048576 ledger_rotate_commits=100");
    let mut session = client.session().unwrap();
    let (insert, count) = (format!("INSERT INTO {} VALUES ($1)", stand.table), 20_000_i64);
    for id in 0..count / 2 {
        session.execute(&insert, &[&id]).unwrap();
    }
    let mut pipeline = session.pipeline();
    for id in count / 2..count {
        pipeline.add(&insert, &[&id]).unwrap();
    }
    assert!(pipeline.finish().unwrap().iter().all(Result::is_ok));
    assert_eq!(session.status().protection_lost, None);
    assert!(client.status().journal.unwrap().bytes <= 1_048_576);
    assert_eq!(stand.ids(), (0..count).collect::<Vec<_>>());
    drop(session);
    drop(client);
    assert_eq!(look(&stand.journal()).in_flight().count(), 0);
}

#[test]
fn a_copy_is_kept_with_its_data() {
    let stand = Stand::new();
    let client = stand.client("journal_sync=none");
    let mut session = client.session().unwrap();
    let mut tx = session.transaction().unwrap();
    let mut copy = tx.copy_in(&format!("COPY {} FROM STDIN", stand.table)).unwrap();
    for id in 0..20_000 {
        copy.send(format!("{id}\tsome text\n").as_bytes()).unwrap();
    }
    copy.finish().unwrap();
    eventually("it is written", || {
        in_flight(&stand.journal()).first().is_some_and(|found| found.requests.len() > 300_000)
    });
    tx.commit().unwrap();
    let mut copy = session.copy_in(&format!("COPY {} FROM STDIN", stand.table)).unwrap();
    copy.send(b"20000\tthe last\n").unwrap();
    copy.finish().unwrap();
    assert_eq!(stand.ids().len(), 20_001);
    eventually("both have ended", || in_flight(&stand.journal()).is_empty());
}
