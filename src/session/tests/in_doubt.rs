//! Commits whose acknowledgement was lost: what was once told of them, or run again, wrongly.

use super::*;

/// A second attempt had replied before its seal met the fence, and what it had replied was taken for
/// the reply of the first one, which had committed (simulation, seed 9975).
#[test]
fn the_reply_of_an_attempt_that_was_fenced_is_not_the_committed_ones() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.receive_look(0, 0);
    let replied = [no_columns(), complete("INSERT 0 1"), message(b'2', b"")].concat();
    play.receive(&[replied, error("SG001"), ready(b'I')].concat());
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["INSERT 0 1", "error 02000 Committed", "ready Idle"]);
}

/// What one server's ledger had was to be told once the statement ahead of it had been run again. That
/// server was lost as well, the next one was without the commit, and the application was told all the same
/// that it stood (simulation, seed 156094).
#[test]
fn a_commit_that_was_found_and_not_told_is_asked_for_again() {
    let mut play = Play::start();
    play.execute("SET app.y = '0'");
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.receive_look(1, 1);
    assert!(play.sends("app.y") && !play.sends("INSERT"));
    play.move_to(2, 3);
    play.receive_look(0, 0);
    assert!(play.sends("app.y") && play.sends("INSERT"));
    let set = [no_columns(), complete("SET"), ready(b'I')].concat();
    let inserted = [
        no_columns(),
        complete("INSERT 0 1"),
        message(b'2', b""),
        complete("UPDATE 1"),
        ready(b'I'),
    ];
    play.receive(&[set, inserted.concat()].concat());
    assert_eq!(play.told(), ["SET", "ready Idle", "INSERT 0 1", "ready Idle"]);
}

/// The same, and no server can be had any more: what was found is the best that is known.
#[test]
fn a_commit_that_was_found_is_told_where_no_server_is_left() {
    let mut play = Play::start();
    play.execute("SET app.y = '0'");
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.receive_look(1, 1);
    play.session.handle_link_lost();
    let none = Error::new(ErrorKind::FailoverTimeout, "no server");
    play.session.handle_no_link(&none);
    assert_eq!(
        play.told(),
        ["error 08006 NotCommitted", "ready Idle", "error 02000 Committed", "ready Idle"]
    );
}

/// A commit whose acknowledgement was lost was found in the ledger of the same server, and told at once:
/// with `commit_ack=backup` it was acknowledged before any backup had it, and a promotion could lose it
/// (simulation, seed 489).
#[test]
fn a_commit_that_was_found_waits_for_the_backup_too() {
    for lost_again in [false, true] {
        let mut play = commit_in_flight();
        play.session.options.backup_acknowledges = true;
        play.receive_look(1, 1);
        let told = play.told();
        assert!(matches!(told.as_slice(), [one] if one.starts_with("AwaitBackup")), "{told:?}");
        if lost_again {
            play.move_to(2, 3);
            play.receive_look(0, 0);
            assert!(play.sends("segue_begin"), "the next server is without it: it is run again");
            continue;
        }
        assert!(!play.session.is_quiet());
        play.session.handle_backup(Ok(()));
        assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
        assert!(play.session.is_quiet());
    }
}

fn replied() -> Vec<u8> {
    [no_columns(), complete("INSERT 0 1"), message(b'2', b"")].concat()
}

/// An insert was on its way to a server that was shutting down. The next one was without it, was given
/// it again and replied, and was killed with its commit on disk. Which of the two attempts had committed
/// was held to be unknown, and the application was told that the reply was lost (chaos, seed 702).
#[test]
fn the_reply_is_that_of_the_only_attempt_that_can_have_committed() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.sends("INSERT"));
    play.receive(&replied());
    play.move_to(2, 3);
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);
}

/// A link on which the ledger was only asked counted as another attempt.
#[test]
fn a_link_that_is_lost_while_the_ledger_is_asked_is_no_attempt() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&replied());
    play.fail_over();
    play.move_to(2, 3);
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);
}

/// Behind another name there may be the server that was lost, and on it the backend that was: without a
/// promotion between the two attempts it is not known which of them has committed.
#[test]
fn of_two_attempts_that_can_have_committed_neither_reply_is_told() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.move_to(1, 1);
    let look = play.look(0, 0);
    play.receive(&[nobody(), look].concat());
    play.receive(&replied());
    play.move_to(2, 2);
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["INSERT 0 1", "error 02000 Committed", "ready Idle"]);
}

/// A session that had lost its link found the same server by another of its names, and took it for another one: the
/// backend that it had left was neither ended nor fenced off, and committed what was told to be not committed
/// (simulation, seeds 284, 1530 and 4253 of their time). Of one timeline there is one primary.
#[test]
fn a_server_under_another_name_is_the_one_that_was_lost() {
    let mut play = Play::start();
    play.run("INSERT INTO t VALUES (1)", true);
    play.receive(&[no_columns(), complete("INSERT 0 1")].concat());
    play.move_to(1, 1);
    assert!(play.sends("pg_terminate_backend"));
    let lives = [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1")].concat();
    let look = play.look(0, 0);
    play.receive(&[lives, ready(b'I'), look].concat());
    assert!(play.sends("segue_seal"), "it may commit yet, and is fenced off");
    play.receive(&[message(b'2', b""), complete("UPDATE 1"), ready(b'I')].concat());
    play.receive_look(2, 1);
    assert_eq!(play.told(), ["INSERT 0 1", "error 40001 NotCommitted", "ready Idle"]);
}

/// The journal on disk could not keep a transaction, and `journal_required` refused it. The link was lost before
/// the server had rolled it back: the refusal was forgotten, and the transaction was run again and
/// committed without its promise (simulation, seed 102226 of its time).
#[test]
fn what_the_journal_refused_stays_refused_when_the_link_is_lost() {
    let mut play = Play::with(Options { files: true, ..options() });
    play.session.begin(BeginOptions::default()).unwrap();
    play.make("INSERT INTO t VALUES (1)", false);
    play.flush();
    play.receive(&[message(b'1', b""), message(b'2', b""), complete("BEGIN"), written()].concat());
    play.session.commit(false).unwrap();
    let mut entry = None;
    play.session.file(&mut |number, _| entry = Some(number));
    let refused = Error::new(ErrorKind::ProtectionLost, "the disk is full");
    play.session.handle_not_kept(entry.unwrap(), "the disk is full".into(), Some(refused));
    play.session.handle_journal(false);
    play.flush();
    assert!(play.sends("ROLLBACK") && !play.sends("segue_commit"));
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    let told = play.told();
    assert!(
        told.iter().any(|it| it.starts_with("error ") && it.ends_with("NotCommitted")),
        "{told:?}"
    );
    assert!(!play.sends("INSERT"));
    assert!(play.session.is_quiet());
}

/// The journal refused a transaction that was being rolled back to be run again: it was run again all the same, and
/// the refusal was told ahead of the replies that were outstanding (simulation, seed 8134671).
#[test]
fn what_the_journal_refuses_while_it_is_rolled_back_is_not_run_again() {
    let mut play = Play::with(Options { files: true, retry_conflicts: 1, ..options() });
    play.session.begin(BeginOptions::default()).unwrap();
    play.make("INSERT INTO t VALUES (1)", false);
    play.make("SELECT n FROM t", false);
    let mut entry = None;
    play.session.file(&mut |number, _| entry = Some(number));
    play.flush();
    let failed = [message(b'1', b""), message(b'2', b""), complete("BEGIN"), error("40001")];
    play.receive(&[failed.concat(), ready(b'E')].concat());
    let refused = Error::new(ErrorKind::ProtectionLost, "the disk is full");
    play.session.handle_not_kept(entry.unwrap(), "the disk is full".into(), Some(refused));
    play.receive(&[error("25P02"), ready(b'E')].concat());
    assert!(play.sends("ROLLBACK"));
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert!(!play.sends("INSERT"));
    let told = play.told();
    let failed = "error 08006 NotCommitted";
    assert_eq!(told[3..], [failed, "ready Failed", failed, "ready Failed"], "{told:?}");
}

/// Of two writes in flight the first stood in the row before the present one, which a fence had passed. It took a new
/// number in the present row, the one behind it kept its own, which was lower, and was refused when its turn came
/// (simulation, seed 9399664).
#[test]
fn what_is_behind_a_write_that_takes_another_number_takes_a_later_one() {
    let mut play = Play::with(Options { rotate_commits: 1, ..options() });
    let before = play.session.ledger_row();
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&sealed_insert());
    play.make("INSERT INTO t VALUES (2)", false);
    play.flush();
    let opened = [message(b'1', b""), message(b'2', b""), row("1"), complete("SELECT 1")].concat();
    play.receive(&[opened, ready(b'I')].concat());
    let present = play.session.ledger_row();
    assert_ne!(before, present);
    play.make("INSERT INTO t VALUES (3)", false);
    play.flush();
    play.fail_over();
    let rows = [no_columns(), ledger_row(before, 5, 1), ledger_row(present, 0, 0)].concat();
    play.receive(&[rows, complete("SELECT 2"), ready(b'I')].concat());
    let seals: Vec<_> = play.session.units.iter().filter_map(|unit| unit.seal).collect();
    assert!(seals.iter().all(|seal| seal.row == present), "{seals:?}");
    assert!(seals.len() == 2 && seals[0].number < seals[1].number, "{seals:?}");
}

/// The journal could not keep the timeline of the server that a session moved to. An autocommit write that was in
/// doubt was run again there, and a later process, for which that server was out of reach, could have been told by the
/// deposed one that it was not committed.
#[test]
fn a_write_in_doubt_that_the_journal_cannot_follow_is_not_run_again() {
    for committed in [false, true] {
        let mut play = Play::with(Options { files: true, ..options() });
        play.make("INSERT INTO t VALUES (1)", false);
        let mut entry = None;
        play.session.file(&mut |number, _| entry = Some(number));
        play.session.handle_journal(true);
        play.flush();
        play.receive(&replied());
        play.session.handle_link_lost();
        let refused = Error::new(ErrorKind::ProtectionLost, "the disk is full");
        play.session.handle_not_kept(entry.unwrap(), "the disk is full".into(), Some(refused));
        play.told();
        play.link(1, 2);
        let number = i64::from(committed);
        play.receive_look(number, number);
        assert!(!play.sends("INSERT"));
        let told = play.told();
        let failed = told.iter().any(|it| it.starts_with("error ") && it.ends_with("NotCommitted"));
        assert_eq!((failed, told.last().unwrap().as_str()), (!committed, "ready Idle"), "{told:?}");
        assert!(play.session.is_quiet());
    }
}

/// A COMMIT that was run again found its number taken, so that the ledger was to be asked behind a ROLLBACK.
/// The link was lost before that was answered, and the COMMIT was told to have rolled back, as that of a
/// transaction that had failed is: the ledger had it.
#[test]
fn a_commit_that_was_refused_is_asked_for_when_its_link_is_lost_too() {
    let mut play = commit_in_flight();
    play.receive_look(0, 0);
    play.receive(&[begun_and_read("a"), written()].concat());
    assert!(play.sends("segue_commit"));
    play.told();
    play.receive(&[message(b'2', b""), error("SG001"), ready(b'E')].concat());
    assert!(play.sends("ROLLBACK"));
    play.session.handle_link_lost();
    assert_eq!(play.told(), [""; 0]);
    play.link(2, 3);
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
}

/// What a commit had set that was found in the ledger was missing on the link on which it was found: that
/// had been given the settings of before.
#[test]
fn what_a_commit_that_is_found_has_set_is_in_force() {
    let mut play = Play::start();
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("SET app.x = '1'");
    let set = [no_columns(), complete("SET"), ready(b'T')].concat();
    play.receive(&[message(b'2', b""), complete("BEGIN"), set].concat());
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&written());
    play.session.commit(false).unwrap();
    play.flush();
    play.told();
    play.fail_over();
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
    play.execute("SELECT n FROM t");
    assert!(play.session.gives_up_link() && play.sent.is_empty());
    play.move_to(1, 2);
    assert!(play.sends("SET app.x = '1'") && play.sends("SELECT n FROM t"));
}

/// A write was on its way when its link was lost, and nine more links were lost before anything was sent on them. Eight
/// backends are remembered: the first one was forgotten, and neither ended nor fenced. It committed behind the question
/// to the ledger, and the write, which failed ahead of its seal when it was run again, was told as not committed
/// (simulation, seed 1036790).
#[test]
fn a_backend_that_is_at_work_is_not_forgotten_for_idle_ones() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    for number in 0..12 {
        play.session.handle_link_lost();
        play.link_of(&format!("start {number}"), 0, 1);
    }
    assert!(play.sends("then"), "the backend of the first link is ended");
    assert!(!play.sends("start 0") && play.sends("start 10"));
}
