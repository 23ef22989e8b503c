//! The directory cannot be written to: the transaction goes on without the journal, with a reason, or is
//! refused, and nothing is lost either way.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use segue::{ClientEvent, Outcome};

use crate::harness::{Stand, in_flight};

/// A journal so small that one transaction fills it.
const SMALL: &str = "journal_sync=none journal_bytes_max=1048576";

#[test]
fn a_full_journal_lets_go_of_what_is_new() {
    let stand = Stand::new();
    let client = stand.client(SMALL);
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let _subscription = client.on_event(move |event| {
        if let ClientEvent::ProtectionLost { reason, .. } = event {
            sink.lock().unwrap().push(reason.clone());
        }
    });
    let insert = format!("INSERT INTO {} VALUES ($1, $2)", stand.table);
    let note = "x".repeat(450_000);
    let mut large = client.session().unwrap();
    large.begin(&segue::TransactionOptions::default()).unwrap();
    large.execute(&insert, &[&1_i64, &note]).unwrap();
    let mut other = client.session().unwrap();
    other.begin(&segue::TransactionOptions::default()).unwrap();
    other.execute(&insert, &[&2_i64, &note]).unwrap();
    // Neither is refused: the one that found no room goes on without the journal.
    other.commit().unwrap();
    large.commit().unwrap();
    let told = events.lock().unwrap().clone();
    assert!(told.iter().any(|reason| reason.starts_with("journal_full")), "{told:?}");
    assert_eq!(stand.ids(), [1, 2]);
    other.execute(&insert, &[&3_i64, &"small"]).unwrap();
    assert_eq!(other.status().protection_lost, None, "there is room again");
}

#[test]
fn a_transaction_larger_than_the_limit() {
    for required in [false, true] {
        let stand = Stand::new();
        let more = if required { "journal_required=on" } else { "" };
        let client = stand.client(&format!("{SMALL} {more}"));
        let mut session = client.session().unwrap();
        let insert = format!("INSERT INTO {} VALUES ($1, $2)", stand.table);
        let note = "x".repeat(300_000);
        session.begin(&segue::TransactionOptions::default()).unwrap();
        let done = (0..5_i64)
            .try_for_each(|id| session.execute(&insert, &[&id, &note]).map(drop))
            .and_then(|()| session.commit());
        if required {
            let error = done.expect_err("it is refused");
            assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
            assert!(error.to_string().contains("journal_"), "{error}");
            // If a statement was refused, the transaction is still to be rolled back.
            let _ = session.rollback();
            assert!(stand.ids().is_empty());
        } else {
            done.unwrap();
            assert_eq!(stand.ids(), [0, 1, 2, 3, 4]);
        }
        session.execute(&insert, &[&9_i64, &"small"]).unwrap();
        assert_eq!(session.status().protection_lost, None);
        drop((session, client));
        assert!(in_flight(&stand.journal()).is_empty());
    }
}

/// The journal's directory is replaced by a file, so that no segment can be made, whoever runs the test.
fn take_away(stand: &Stand) {
    std::fs::rename(stand.journal(), stand.journal().with_extension("away")).unwrap();
    std::fs::write(stand.journal(), b"").unwrap();
}

fn bring_back(stand: &Stand) {
    std::fs::remove_file(stand.journal()).unwrap();
    std::fs::rename(stand.journal().with_extension("away"), stand.journal()).unwrap();
}

#[test]
fn without_its_directory_nothing_is_refused_unless_required() {
    for required in [false, true] {
        let stand = Stand::new();
        let more = if required { "journal_required=on" } else { "" };
        let client = stand.client(&format!("journal_sync=none {more}"));
        let mut session = client.session().unwrap();
        let insert = format!("INSERT INTO {} VALUES ($1)", stand.table);
        // No segment has been made yet.
        take_away(&stand);
        let error = session.execute(&insert, &[&1_i64]).err();
        let in_pipeline = {
            let mut pipeline = session.pipeline();
            for id in 2..=6_i64 {
                pipeline.add(&insert, &[&id]).unwrap();
            }
            pipeline.finish().unwrap()
        };
        let lost = session.status().protection_lost;
        let mut tx = session.transaction().unwrap();
        let of_tx = tx.execute(&insert, &[&7_i64]).and_then(|_| tx.commit());
        bring_back(&stand);
        assert!(lost.is_some_and(|reason| reason.starts_with("journal_")));
        if required {
            let all = in_pipeline.into_iter().map(|one| one.map(drop));
            let all = all.chain([error.map_or(Ok(()), Err), of_tx]);
            for one in all {
                let error = one.expect_err("it is refused");
                assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
            }
            assert!(stand.ids().is_empty());
        } else {
            assert!(error.is_none() && of_tx.is_ok() && in_pipeline.iter().all(Result::is_ok));
            assert_eq!(stand.ids(), [1, 2, 3, 4, 5, 6, 7]);
        }
    }
}

#[test]
fn a_directory_that_others_may_read_is_refused() {
    let stand = Stand::new();
    std::fs::create_dir(stand.journal()).unwrap();
    std::fs::set_permissions(stand.journal(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = segue::Client::connect(&stand.conninfo("")).err().expect("it is refused");
    assert!(error.to_string().contains("journal_permissions"), "{error}");
}
