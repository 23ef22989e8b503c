//! What is on its way behind a request that fails, or is run again: what was once run twice, or told wrongly.

use super::*;

/// A link was lost while the one before it was still being replaced: the replay began anew at its
/// first unit, which the application had been told of in full, and took it back.
#[test]
fn what_was_answered_is_not_taken_back_when_two_links_are_lost_in_a_row() {
    let mut play = Play::start();
    play.begin_and_read();
    play.fail_over();
    play.move_to(2, 3);
    assert_eq!(play.told(), [""; 0]);
    let look = play.look(0, 0);
    play.receive(&[look, begun_and_read("a")].concat());
    assert_eq!(play.told(), ["replay of 1", "replayed"]);
}

/// One request of a pipeline differed when it was run again, and those behind it, which were on their
/// way and committed, were reported as not committed.
#[test]
fn a_divergence_outside_a_transaction_concerns_one_request() {
    let mut play = Play::start();
    play.run("SELECT n FROM t", true);
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&[described(), row("a"), row("b")].concat());
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    play.receive(&[described(), row("b"), row("c"), complete("SELECT 2"), ready(b'I')].concat());
    play.receive(
        &[
            no_columns(),
            complete("INSERT 0 1"),
            message(b'2', b""),
            complete("UPDATE 1"),
            ready(b'I'),
        ]
        .concat(),
    );
    assert_eq!(
        play.told(),
        ["diverged at 1", "error 40001 NotCommitted", "ready Idle", "INSERT 0 1", "ready Idle"]
    );
}

/// A statement whose rows had been delivered in part was run again on another server, with nothing
/// before it to be compared; the application's COMMIT, made meanwhile, went out behind it at once, and
/// what had read something else was committed, and reported as rolled back (simulation, seed 88558).
#[test]
fn a_commit_waits_for_the_comparison_of_what_is_run_again() {
    let mut play = Play::start();
    play.session.begin(BeginOptions::default()).unwrap();
    play.run("SELECT n FROM t", true);
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&[message(b'2', b""), complete("BEGIN"), described(), row("a")].concat());
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.session.is_live());
    play.session.commit(false).unwrap();
    play.flush();
    assert!(!play.sends("segue_commit"));
    play.receive(&begun_and_read("a"));
    assert!(!play.sends("segue_commit"));
    play.receive(&written());
    assert!(play.sends("segue_seal") && play.sends("segue_commit"));
    play.receive(&committed());
    assert_eq!(
        play.told(),
        ["SELECT 1", "ready Open", "INSERT 0 1", "ready Open", "COMMIT", "ready Idle"]
    );
}

/// Several statements waited for the journal on disk, and each had asked for the next row of the ledger.
/// The answer to the first of these was taken for that to the last, and where the server then refused
/// the last, commits were sealed in a row that was not there (simulation, seed 1981 of its time).
#[test]
fn a_row_that_waits_for_its_turn_is_not_asked_for_twice() {
    let mut play = Play::with(Options { rotate_commits: 1, files: true, ..options() });
    for number in 1..=3 {
        play.make(&format!("INSERT INTO t VALUES ({number})"), false);
    }
    play.session.file(&mut |_, _| {});
    play.session.handle_journal(true);
    play.flush();
    let opens = play.sent.windows(11).filter(|window| *window == b"segue.open(").count();
    assert_eq!(opens, 1);
}

/// The same of a string in a pipeline: what was behind it ran without its setting.
#[test]
fn what_is_behind_a_string_that_is_found_has_its_settings() {
    let mut play = Play::start();
    play.make("INSERT INTO t VALUES (1); SET app.x = '1'", false);
    play.make("INSERT INTO t VALUES (2)", false);
    play.flush();
    play.fail_over();
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["error 02000 Committed", "ready Idle"]);
    assert!(play.session.gives_up_link() && !play.sends("VALUES (2)"));
    play.move_to(2, 3);
    assert!(play.sends("SET app.x = '1'"));
    let look = play.look(1, 1);
    play.receive(&[[no_columns(), complete("SET"), ready(b'I')].concat(), look].concat());
    assert!(play.sends("VALUES (2)"));
}

/// A statement of a pipeline was not prepared any more; ROLLBACK TO and COMMIT were on their way behind it,
/// and the transaction was committed without it. It was run again as if nothing were committed, several
/// times, until the application heard SG001 (simulation, seed 201319); without a ledger it was committed twice.
#[test]
fn what_may_be_committed_behind_a_failure_is_not_run_again() {
    let mut play = Play::start();
    play.session.begin(BeginOptions::default()).unwrap();
    play.make("INSERT INTO t VALUES (1)", false);
    play.make("SAVEPOINT a", false);
    play.make("SELECT n FROM t", false);
    play.make("ROLLBACK TO a", false);
    play.session.commit(false).unwrap();
    play.flush();
    assert!(play.sends("segue_commit"));
    let done = |tag| [no_columns(), complete(tag), ready(b'T')].concat();
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.receive(&[done("SAVEPOINT"), error("26000"), ready(b'E'), done("ROLLBACK")].concat());
    play.receive(&committed());
    let told = play.told();
    assert!(told.contains(&"error 26000 NotCommitted".to_owned()), "{told:?}");
    assert!(told.ends_with(&["COMMIT".to_owned(), "ready Idle".to_owned()]), "{told:?}");
    assert!(!play.sends("INSERT"));
}

/// A prepared statement was missing in a transaction that had failed, and the transaction was run again, although a
/// ROLLBACK TO and the COMMIT were on their way behind it: it committed, and then the application was told that nothing
/// was committed, or it committed twice (simulation, seed 3837 of its time).
#[test]
fn what_may_commit_behind_a_savepoint_is_not_run_again() {
    for (code, retry_conflicts) in [("26000", 0), ("40001", 2)] {
        let mut play = Play::with(Options { retry_conflicts, ..options() });
        play.begin_and_read();
        play.execute("SAVEPOINT s");
        play.receive(&[no_columns(), complete("SAVEPOINT"), ready(b'T')].concat());
        play.told();
        play.make("INSERT INTO t VALUES (1)", false);
        play.make("ROLLBACK TO s", false);
        play.make("INSERT INTO t VALUES (2)", false);
        play.session.commit(false).unwrap();
        play.flush();
        assert!(play.sends("segue_commit"));
        play.receive(&[error(code), ready(b'E')].concat());
        play.receive(&[no_columns(), complete("ROLLBACK"), ready(b'T'), written()].concat());
        play.receive(&committed());
        assert!(!play.sends("segue_begin"));
        let error = format!("error {code} NotCommitted");
        assert_eq!(
            play.told(),
            [
                &error,
                "ready Failed",
                "ROLLBACK",
                "ready Open",
                "INSERT 0 1",
                "ready Open",
                "COMMIT",
                "ready Idle"
            ]
        );
    }
}

/// A read that had been delivered in part met a conflict when it was run again, and was run once more; so was a write
/// of the pipeline behind it, which had committed meanwhile. Without a ledger it was committed twice.
#[test]
fn without_a_ledger_a_write_behind_a_repeated_read_is_not_repeated() {
    let mut play =
        Play { session: Session::new(options(), 1), sent: Vec::new(), next_statement: 100 };
    play.link_without_ledger(0, 1);
    play.run("SELECT n FROM t", true);
    play.receive(&[described(), row("a")].concat());
    assert_eq!(play.told(), ["row a"]);
    play.session.handle_link_lost();
    play.link_without_ledger(1, 2);
    play.execute("INSERT INTO t VALUES (1)");
    assert!(play.sends("INSERT"));
    play.receive(&[message(b'1', b""), error("40001"), ready(b'I')].concat());
    play.receive(&[no_columns(), complete("INSERT 0 1"), ready(b'I')].concat());
    play.receive(&[described(), row("a"), complete("SELECT 1"), ready(b'I')].concat());
    let unknown = "error 08007 Unknown";
    assert_eq!(play.told(), ["SELECT 1", "ready Idle", unknown, "ready Idle"]);
}

/// The same with a ledger: the write had committed while the replies behind the read were passed over, failed ahead of its
/// seal when it was run again, and was told as not committed (simulation, seed 509 of its time).
#[test]
fn a_write_behind_a_repeated_read_is_asked_for() {
    let mut play = Play::start();
    play.run("SELECT n FROM t", true);
    play.receive(&[described(), row("a")].concat());
    assert_eq!(play.told(), ["row a"]);
    play.fail_over();
    play.receive_look(0, 0);
    play.execute("INSERT INTO t VALUES (1)");
    assert!(play.sends("INSERT"));
    play.receive(&[message(b'1', b""), error("40001"), ready(b'I')].concat());
    play.receive(&sealed_insert());
    assert!(!play.sends("SELECT n FROM t") && play.told().is_empty());
    play.receive_look(1, 1);
    assert!(play.sends("SELECT n FROM t") && !play.sends("INSERT"));
    play.receive(&[described(), row("a"), complete("SELECT 1"), ready(b'I')].concat());
    assert_eq!(play.told(), ["SELECT 1", "ready Idle", "error 02000 Committed", "ready Idle"]);
}

/// What a transaction without protection had sent was kept until it was answered, and its pipeline took
/// request after request: nothing limited what was kept (fuzzing, `session`).
#[test]
fn a_pipeline_that_is_larger_than_the_journal_waits_for_its_replies() {
    for begins in [true, false] {
        let mut play = Play::with(Options { journal_bytes_max: 1024, ..options() });
        if begins {
            play.session.begin(BeginOptions::default()).unwrap();
        }
        let mut made = 0;
        while play.session.accepts_requests() {
            play.make("SELECT n FROM t", false);
            made += 1;
            assert!(play.session.journal_len() < 2048, "{made} requests are kept");
        }
        assert!(play.session.journal_len() > 1024 && made > 10);
        play.flush();
        play.told();
        let replies = |count: usize, status| {
            [described(), complete("SELECT 0"), ready(status)].concat().repeat(count)
        };
        if begins {
            play.receive(&[message(b'2', b""), complete("BEGIN")].concat());
        }
        let status = if begins { b'T' } else { b'I' };
        play.receive(&replies(made / 2, status));
        assert!(play.session.accepts_requests());
        play.receive(&replies(made - made / 2, status));
        assert_eq!(play.session.journal_len(), 0);
        assert!(play.session.accepts_requests());
    }
}
