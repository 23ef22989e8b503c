//! `autocommit_reply=before_commit`: a statement outside transactions commits once its reply is here.

use super::*;

fn start() -> Play {
    Play::with(Options { reply_before_commit: true, ..options() })
}

fn replied() -> Vec<u8> {
    [described(), row("a"), complete("INSERT 0 1")].concat()
}

fn sealed() -> Vec<u8> {
    [message(b'2', b""), complete("UPDATE 1"), ready(b'I')].concat()
}

const INSERT: &str = "INSERT INTO t VALUES (1) RETURNING n";

#[test]
fn the_seal_follows_the_reply() {
    let mut play = start();
    play.execute(INSERT);
    assert!(play.sends("INSERT") && !play.sends("segue_seal") && !play.sends("S\0\0\0\x04"));
    play.receive(&replied());
    assert!(play.sends("segue_seal") && play.sends("S\0\0\0\x04"));
    assert_eq!(play.told(), ["row a", "INSERT 0 1"]);
    play.receive(&sealed());
    assert_eq!(play.told(), ["ready Idle"]);
}

/// The commit is found, and so is its reply.
#[test]
fn no_reply_is_lost() {
    let mut play = start();
    play.execute(INSERT);
    play.receive(&replied());
    play.fail_over();
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["row a", "INSERT 0 1", "ready Idle"]);
}

/// A link that was lost before the reply had come was never told to commit: whichever other attempt
/// commits, its reply is at hand.
#[test]
fn an_attempt_without_its_end_is_no_attempt_to_commit() {
    let mut play = start();
    play.execute(INSERT);
    play.fail_over();
    play.receive_look(0, 0);
    play.receive(&replied());
    play.move_to(2, 2);
    let look = play.look(1, 1);
    play.receive(&[nobody(), look].concat());
    play.receive(&nobody());
    assert_eq!(play.told(), ["row a", "INSERT 0 1", "ready Idle"]);
}

#[test]
fn what_follows_goes_behind_the_end() {
    let mut play = start();
    play.execute(INSERT);
    play.execute("SELECT n FROM t");
    assert!(play.sent.is_empty());
    play.receive(&replied());
    assert!(play.sends("segue_seal") && play.sends("SELECT n FROM t"));
    play.receive(&sealed());
    play.receive(&[described(), row("b"), complete("SELECT 1"), ready(b'I')].concat());
    let told = ["row a", "INSERT 0 1", "ready Idle", "row b", "SELECT 1", "ready Idle"];
    assert_eq!(play.told(), told);
}

#[test]
fn a_statement_that_fails_is_not_sealed() {
    let mut play = start();
    play.execute(INSERT);
    play.execute("SELECT n FROM t");
    play.receive(&error("23505"));
    assert!(!play.sends("segue_seal") && play.sends("S\0\0\0\x04"));
    play.receive(&ready(b'I'));
    assert!(play.sends("SELECT n FROM t"));
    assert_eq!(play.told(), ["error 23505 NotCommitted", "ready Idle"]);
}

/// Rows that were handed over one by one are compared with those of the next attempt before that
/// commits; what differs is rolled back, and what waits behind it is run.
#[test]
fn rows_that_were_handed_over_are_compared_first() {
    for (again, matches) in [("a", true), ("b", false)] {
        let mut play = start();
        play.run(INSERT, true);
        play.receive(&[described(), row("a")].concat());
        play.execute("SELECT n FROM t");
        play.fail_over();
        play.receive_look(0, 0);
        assert!(play.sends("INSERT") && !play.sends("segue_seal"));
        play.receive(&[described(), row(again)].concat());
        if matches {
            play.receive(&complete("INSERT 0 1"));
            assert!(play.sends("segue_seal") && play.sends("SELECT n FROM t"));
            play.receive(&sealed());
            assert_eq!(play.told(), ["row a", "INSERT 0 1", "ready Idle"]);
            continue;
        }
        assert!(play.sends("segue_nothing") && !play.sends("segue_seal"));
        play.receive(&[complete("INSERT 0 1"), error("26000"), ready(b'I')].concat());
        assert!(play.sends("SELECT n FROM t") && !play.sends("INSERT"));
        let told = ["row a", "diverged at 1", "error 40001 NotCommitted", "ready Idle"];
        assert_eq!(play.told(), told);
    }
}

/// Fewer rows than were handed over are a difference too.
#[test]
fn rows_that_do_not_come_again_are_a_difference() {
    let mut play = start();
    play.run(INSERT, true);
    play.receive(&[described(), row("a"), row("b")].concat());
    play.fail_over();
    play.receive_look(0, 0);
    play.receive(&[described(), row("a"), complete("INSERT 0 1")].concat());
    assert!(play.sends("segue_nothing") && !play.sends("segue_seal"));
    play.receive(&[error("26000"), ready(b'I')].concat());
    assert_eq!(play.told()[2..], ["diverged at 1", "error 40001 NotCommitted", "ready Idle"]);
}

/// A write was on its way, without its end, behind a read that was run again and failed for a conflict:
/// its end was waited for, and never sent (simulation, seed 2718).
#[test]
fn what_is_passed_over_is_ended_and_does_not_commit() {
    let mut play = start();
    play.run("SELECT n FROM t", true);
    play.receive(&[described(), row("a")].concat());
    play.move_to(2, 3);
    play.receive_look(0, 0);
    play.execute(INSERT);
    assert!(play.sends("INSERT") && !play.sends("segue_seal"));
    play.receive(&[error("40001"), ready(b'I')].concat());
    assert!(play.sends("segue_nothing") && !play.sends("segue_seal"));
    play.receive(&[replied(), error("26000"), ready(b'I')].concat());
    play.receive_look(0, 0);
    assert!(play.sends("SELECT n FROM t") && play.sends("segue_8") && !play.sends("segue_seal"));
}

#[test]
fn a_copy_commits_once_its_rows_are_counted() {
    let mut play = start();
    play.execute("COPY t FROM STDIN");
    play.receive(&[no_columns(), message(b'G', &[0, 0, 1, 0, 0])].concat());
    play.session.copy_data(b"1\n").unwrap();
    play.session.copy_end(None).unwrap();
    play.flush();
    assert!(play.sends("1\n") && !play.sends("segue_seal"));
    play.receive(&complete("COPY 1"));
    assert!(play.sends("segue_seal"));
    play.receive(&sealed());
    assert_eq!(play.told(), ["CopyIn", "COPY 1", "ready Idle"]);
}
