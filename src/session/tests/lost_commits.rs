//! `on_commits_lost=reapply`: what was once lost without a word, told although it was there, or run again
//! in another way than it should, and what was in flight meanwhile.

use super::*;

/// With `on_commits_lost=reapply` a lost transaction was run again with the SET in it, behind the settings
/// that the new link had been given: an old value replaced what the application had set since.
#[test]
fn what_is_run_again_does_not_bring_old_settings_back() {
    let set = |status| [no_columns(), complete("SET"), ready(status)].concat();
    let mut play = Play::start();
    play.session.options.reapply = true;
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("SET app.x = 'old'");
    play.receive(&[message(b'2', b""), complete("BEGIN"), set(b'T')].concat());
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&written());
    play.session.commit(false).unwrap();
    play.flush();
    play.receive(&committed());
    play.execute("SET app.x = 'new'");
    play.receive(&set(b'I'));
    play.told();
    play.fail_over();
    assert!(play.sends("app.x = 'new'") && !play.sends("app.x = 'old'"));
    let look = play.look(0, 0);
    play.receive(&[set(b'I'), look].concat());
    assert!(play.sends("app.x = 'old'"));
    play.receive(&[message(b'2', b""), complete("BEGIN"), set(b'T')].concat());
    play.receive(&written());
    play.receive(&committed());
    assert!(play.told().iter().any(|told| told.starts_with("reapplied")));
    assert!(play.session.gives_up_link(), "a new link has the settings of now");
    play.move_to(2, 3);
    assert!(play.sends("app.x = 'new'") && !play.sends("app.x = 'old'"));
    let look = play.look(1, 1);
    play.receive(&[set(b'I'), look].concat());
    assert!(play.session.is_quiet());
    assert_eq!(play.told(), [""; 0]);
}

/// The row of a lost commit had not survived either, so that it was run again under a number of a fresh
/// row; when that gave something else, it was the fresh number that was told to be lost, of which the
/// application had never heard, and of the commit itself nothing was said.
#[test]
fn a_commit_that_cannot_be_run_again_is_told_under_the_number_that_it_had() {
    let mut play = Play::start();
    play.session.options.reapply = true;
    let old_row = play.session.ledger_row();
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&sealed_insert());
    play.told();
    play.fail_over();
    play.receive(&[no_columns(), complete("SELECT 0"), ready(b'I')].concat());
    assert!(play.sends("segue.open("));
    let opened = [message(b'1', b""), message(b'2', b""), row("1"), complete("SELECT 1")].concat();
    play.receive(&[opened, ready(b'I')].concat());
    assert!(play.sends("INSERT INTO t"));
    let differs = [message(b'2', b""), complete("BEGIN"), no_columns(), complete("INSERT 0 0")];
    play.receive(&[differs.concat(), ready(b'T')].concat());
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    let mut lost = Vec::new();
    while let Some(event) = play.session.poll_event() {
        if let Event::CommitsLost { session, from, to } = event {
            lost.push((session, from, to));
        }
    }
    assert_eq!(lost, [(old_row, 1, 1)]);
}

/// The row of a lost commit had not survived, and the fresh one in which it was numbered anew was missing on
/// the next server too: it was run again without a seal, and with the next link once more
/// (simulation with lost commits in every run, seed 603604).
#[test]
fn a_lost_commit_is_numbered_anew_on_every_server_that_lacks_its_row() {
    let mut play = Play::start();
    play.session.options.reapply = true;
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&sealed_insert());
    let mut rows = vec![play.session.ledger_row()];
    for (server, timeline) in [(1, 2), (2, 3)] {
        play.move_to(server, timeline);
        play.receive(&[no_columns(), complete("SELECT 0"), ready(b'I')].concat());
        assert!(play.sends("segue.open("));
        let opened = [message(b'1', b""), message(b'2', b""), row("1"), complete("SELECT 1")];
        play.receive(&[opened.concat(), ready(b'I')].concat());
        assert!(play.sends("INSERT INTO t"));
        rows.push(play.session.ledger_row());
    }
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    let sealed_in = |row: &Uuid| play.sent.windows(16).any(|bytes| bytes == row.as_bytes());
    assert!(play.sends("segue_seal"));
    assert_eq!(rows.iter().map(sealed_in).collect::<Vec<_>>(), [false, false, true]);
}

/// With `on_commits_lost=reapply` a commit was let go of once the backup had it. The backup died as well, a
/// standby that lagged was promoted, and nothing was said of the commit, which was lost: it was neither
/// run again nor told (simulation, seed 978).
#[test]
fn what_the_backup_had_is_told_if_another_server_takes_over_without_it() {
    let mut play = Play::start();
    play.session.options.reapply = true;
    let row = play.session.ledger_row();
    for number in 1..=2 {
        play.execute(&format!("INSERT INTO t VALUES ({number})"));
        play.receive(&sealed_insert());
    }
    play.session.handle_backup_has(row, 1);
    assert!(play.session.keeps_commits(), "the second one");
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t VALUES (2)") && !play.sends("INSERT INTO t VALUES (1)"));
    assert_eq!(play.told().iter().filter(|told| *told == "lost 1 to 1").count(), 1);
    play.move_to(2, 3);
    play.receive_look(0, 0);
    assert_eq!(play.told().iter().filter(|told| told.starts_with("lost")).count(), 0, "once");
}

/// One insert was committed and is kept, for no backup has it yet.
fn kept_insert() -> Play {
    let mut play = Play::start();
    play.session.options.reapply = true;
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&sealed_insert());
    play.told();
    play
}

/// With `on_commits_lost=reapply` all that was kept was let go of with the first new link, also what the server
/// had and the next one was without: it was lost in silence (simulation, seed 103643).
#[test]
fn what_one_server_has_is_kept_for_the_next() {
    let mut play = kept_insert();
    play.fail_over();
    play.receive_look(1, 1);
    assert!(play.session.is_quiet() && play.session.keeps_commits());
    play.move_to(2, 3);
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t"));
}

/// A lost commit was run again, and its acknowledgement was lost with the link. It was found in the ledger,
/// and held to be safe from then on: a further promotion lost it in silence.
#[test]
fn what_was_run_again_and_found_is_kept_too() {
    let mut play = kept_insert();
    play.fail_over();
    play.receive_look(0, 0);
    let begun = [message(b'2', b""), complete("BEGIN")].concat();
    play.receive(&[begun, written()].concat());
    assert!(play.sends("segue_seal"));
    play.move_to(1, 2);
    play.receive(&message(b'1', b""));
    play.receive(&[message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat());
    play.receive_look(1, 1);
    let told = play.told();
    assert!(told.iter().any(|it| it.starts_with("reapplied")), "{told:?}");
    play.move_to(2, 3);
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t"));
}

/// A commit whose acknowledgement was lost was found in the ledger; it cannot be run again, for what it had
/// returned is not known. With `on_commits_lost=reapply` its loss was not told.
#[test]
fn a_commit_that_was_found_is_told_if_it_is_lost_after_all() {
    let mut play = Play::start();
    play.session.options.reapply = true;
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["error 02000 Committed", "ready Idle"]);
    play.move_to(2, 3);
    play.receive_look(0, 0);
    assert_eq!(play.told(), ["lost 1 to 1"]);
    assert!(!play.sends("INSERT INTO t"));
}

/// A commit that could not be kept was told to be lost with all those before it, which were kept, and were
/// run again nevertheless.
#[test]
fn what_is_told_to_be_lost_is_not_run_again() {
    let mut play = kept_insert();
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("INSERT INTO t VALUES (2)");
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.execute("SELECT 1; SAVEPOINT a");
    play.receive(&[described_row(), complete("SELECT 1"), complete("SAVEPOINT")].concat());
    play.receive(&ready(b'T'));
    play.session.commit(false).unwrap();
    play.flush();
    play.receive(&committed());
    assert_eq!(play.told().last().unwrap(), "ready Idle");
    play.fail_over();
    play.receive_look(0, 0);
    let told = play.told();
    let lost: Vec<_> = told.iter().filter(|it| it.starts_with("lost")).collect();
    assert_eq!(lost, ["lost 2 to 2"]);
    assert!(play.sends("INSERT INTO t VALUES (1)") && !play.sends("INSERT INTO t VALUES (2)"));
}

/// The columns of a simple query's only result, whose one row is `1`.
fn described_row() -> Vec<u8> {
    let columns = described();
    let at = columns.iter().position(|tag| *tag == b'T').unwrap();
    let length = u32::from_be_bytes(columns[at + 1..at + 5].try_into().unwrap()) as usize;
    [columns[at..=at + length].to_vec(), row("1")].concat()
}

/// The link was lost while a lost commit was run again, in a transaction that had failed; a COMMIT in flight
/// was told to be rolled back, as if the failed transaction were its own.
#[test]
fn a_failure_of_what_is_run_again_is_not_that_of_a_commit_in_flight() {
    let mut play = kept_insert();
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("INSERT INTO t VALUES (2)");
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.told();
    play.session.commit(false).unwrap();
    play.flush();
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t VALUES (1)"));
    play.receive(&[message(b'2', b""), complete("BEGIN"), error("53100"), ready(b'E')].concat());
    assert!(play.sends("ROLLBACK"));
    play.session.handle_link_lost();
    let told = play.told();
    assert!(!told.contains(&"ROLLBACK".to_owned()), "{told:?}");
    play.link(2, 3);
    play.receive_look(2, 3);
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
}

/// What was lost could not be run again as it was. A transaction in flight had lost its protection by then, and
/// what was left of it was run, outside a transaction (simulation, seed 324237).
#[test]
fn an_unprotected_transaction_is_not_run_behind_what_was_lost() {
    let mut play = kept_insert();
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("INSERT INTO t VALUES (2)");
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.execute("SELECT 1; SAVEPOINT a");
    play.receive(&[described_row(), complete("SELECT 1"), complete("SAVEPOINT")].concat());
    play.receive(&ready(b'T'));
    play.make("INSERT INTO t VALUES (3)", false);
    play.session.commit(false).unwrap();
    play.flush();
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t VALUES (1)"));
    let differs = [message(b'2', b""), complete("BEGIN"), no_columns(), complete("INSERT 0 0")];
    play.receive(&[differs.concat(), ready(b'T')].concat());
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert!(!play.sends("INSERT INTO t VALUES (3)"));
    let told = play.told();
    let refused = ["error 08006 NotCommitted", "ready Failed"];
    assert_eq!(told[told.len() - 5..told.len() - 2], ["lost 1 to 1", refused[0], refused[1]]);
    assert_eq!(told.last().unwrap(), "ready Idle", "the COMMIT");
}

/// A lost commit that was run again waited for the backup as if the application waited for it, which was told
/// of the end of a request that it had not made (simulation, seed 315218).
#[test]
fn what_is_run_again_does_not_wait_for_the_backup() {
    let mut play = kept_insert();
    play.session.options.backup_acknowledges = true;
    play.fail_over();
    play.receive_look(0, 0);
    let begun = [message(b'2', b""), complete("BEGIN")].concat();
    play.receive(&[begun, written(), committed()].concat());
    let told = play.told();
    assert!(told.iter().any(|it| it.starts_with("reapplied")), "{told:?}");
    assert!(!told.iter().any(|it| it.starts_with("AwaitBackup")), "{told:?}");
    assert!(play.session.is_quiet() && play.session.keeps_commits());
}

/// A lost commit was being run again when the link was lost, and its backend could not be ended. Nothing kept
/// that attempt from committing later, beside the next one or behind the word that it was lost.
#[test]
fn an_attempt_to_run_it_again_that_may_still_commit_is_fenced_off() {
    let mut play = kept_insert();
    play.fail_over();
    play.receive_look(0, 0);
    let begun = [message(b'2', b""), complete("BEGIN")].concat();
    play.receive(&[begun, written()].concat());
    assert!(play.sends("segue_seal"));
    play.move_to(1, 2);
    assert!(play.sends("pg_terminate_backend"));
    let lives = [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1")].concat();
    play.receive(&[lives, ready(b'I')].concat());
    play.receive_look(0, 0);
    assert!(play.sends("segue_seal") && !play.sends("INSERT"), "the fence");
    let fenced = [message(b'2', b""), complete("UPDATE 1"), ready(b'I')].concat();
    play.receive(&fenced);
    play.receive_look(2, 1);
    assert!(play.sends("INSERT INTO t"));
    play.receive(&[message(b'2', b""), complete("BEGIN"), written(), committed()].concat());
    let told = play.told();
    assert!(told.contains(&"reapplied 3".to_owned()), "{told:?}");
}

/// A fence far above the numbers of lost commits leaves nothing of them in the ledger's row: those that took other
/// numbers for it were then taken for committed under the ones that they had had, and were lost in silence.
#[test]
fn what_is_lost_behind_a_fence_is_not_taken_for_found() {
    let mut play = Play::with(Options { reapply: true, ..options() });
    for number in 1..=70 {
        play.execute(&format!("INSERT INTO t VALUES ({number})"));
        play.receive(&sealed_insert());
    }
    play.told();
    play.fail_over();
    play.receive_look(1, 1);
    let begun = [message(b'2', b""), complete("BEGIN")].concat();
    play.receive(&[begun.clone(), written()].concat());
    assert!(play.sends("segue_seal"));
    play.move_to(1, 2);
    let lives = [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1")].concat();
    play.receive(&[lives, ready(b'I')].concat());
    play.receive_look(1, 1);
    assert!(play.sends("segue_seal") && !play.sends("INSERT"), "the fence");
    play.receive(&[message(b'2', b""), complete("UPDATE 1"), ready(b'I')].concat());
    play.receive_look(71, 1);
    assert!(play.sends("VALUES (3)"));
    play.move_to(2, 3);
    play.receive_look(71, 1);
    assert!(play.sends("VALUES (3)"), "{:?}", play.told());
}

/// A commit that was acknowledged, `SELECT bump()` with the result 7, and a transaction in flight that has
/// read `a`, when the server is lost; the next one is without the commit, and is given it again.
fn a_lost_commit_is_run_again() -> Play {
    let mut play = Play::with(Options { reapply: true, ..options() });
    play.execute("SELECT bump()");
    let seal = [message(b'2', b""), row("\0\0\0\0\0\0\0\x01"), complete("SELECT 1")].concat();
    play.receive(&[described(), row("7"), complete("SELECT 1"), seal, ready(b'I')].concat());
    play.begin_and_read();
    play.fail_over();
    play.receive_look(0, 0);
    play.receive(&begun_and_read("a"));
    assert!(play.sends("ROLLBACK"), "what was lost goes ahead of what is in flight");
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert!(play.sends("SELECT bump()"));
    play
}

/// A lost commit that was run again and gave something else was told as `ReplayDiverged`, as if it were the
/// transaction in flight that had been rolled back; that one went on (simulation, seed 206087).
#[test]
fn of_a_lost_commit_nothing_is_told_but_what_becomes_of_it() {
    for (value, outcome) in [("7", "reapplied 1"), ("8", "lost 1 to 1")] {
        let mut play = a_lost_commit_is_run_again();
        play.receive(&begun_and_read(value));
        if value == "7" {
            play.receive(&committed());
        } else {
            play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
        }
        play.receive(&begun_and_read("a"));
        assert_eq!(play.told(), [outcome, "replay of 1", "replayed"]);
    }
}

/// The server was lost while a lost commit was being run again; the attempt on it was counted as one of the
/// statement in flight, which had not been sent there, and whose reply was told to be lost.
#[test]
fn what_waits_behind_a_lost_commit_has_not_been_tried() {
    let mut play = Play::with(Options { reapply: true, ..options() });
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&sealed_insert());
    play.execute("INSERT INTO t VALUES (2)");
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t VALUES (1)"));
    play.move_to(2, 3);
    play.receive_look(1, 1);
    assert!(play.sends("INSERT INTO t VALUES (2)"));
    play.receive(&[no_columns(), complete("INSERT 0 1"), message(b'2', b"")].concat());
    play.move_to(3, 4);
    play.receive_look(2, 3);
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);
}

/// What is run again may be what takes its link along. The statement in flight was given up for it once five
/// links were lost, and the lost commit was run again for ever.
#[test]
fn what_waits_behind_a_lost_commit_has_not_lost_the_link() {
    let mut play = Play::with(Options { reapply: true, ..options() });
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&sealed_insert());
    play.execute("INSERT INTO t VALUES (2)");
    play.told();
    for server in 1..=5 {
        play.move_to(server, 1 + server as u32);
        play.receive_look(0, 0);
        assert!(play.sends("INSERT INTO t VALUES (1)"));
        play.receive(&[message(b'2', b""), complete("BEGIN")].concat());
    }
    play.session.handle_link_lost();
    assert_eq!(play.told(), [""; 0]);
    play.link(6, 7);
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t VALUES (2)") && !play.sends("INSERT INTO t VALUES (1)"));
    assert_eq!(play.told(), ["lost 1 to 1"], "it is that one that is given up");
}

/// The journal on disk could not keep the transaction in flight, which was heard while a lost commit was
/// being run again, and was forgotten: with `journal_required` it was committed, unknown to the journal.
#[test]
fn what_the_journal_refuses_behind_a_lost_commit_is_refused() {
    let mut play = Play::with(Options { reapply: true, files: true, ..options() });
    let mut newest = 0;
    for number in 1..=2 {
        play.make(&format!("INSERT INTO t VALUES ({number})"), false);
        play.session.file(&mut |entry, _| newest = newest.max(entry));
        play.session.handle_journal(true);
        play.flush();
        if number == 1 {
            play.receive(&sealed_insert());
        }
    }
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t VALUES (1)"));
    let refused = Error::new(ErrorKind::ProtectionLost, "the disk is full");
    play.session.handle_not_kept(newest, "the disk is full".into(), Some(refused));
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.receive(&committed());
    assert!(!play.sends("INSERT INTO t VALUES (2)"));
    let told = play.told();
    assert_eq!(told[1..], ["reapplied 1", "error 08006 NotCommitted", "ready Idle"]);
}

/// The journal on disk could not keep a transaction in flight, and refused it while a lost commit was run
/// again: the refusal was lost, and the transaction was run again and committed, unknown to the journal.
#[test]
fn what_the_journal_refuses_meanwhile_is_refused() {
    let mut play = Play::with(Options { files: true, reapply: true, ..options() });
    play.make("INSERT INTO t VALUES (1)", false);
    play.session.file(&mut |_, _| {});
    play.session.handle_journal(true);
    play.flush();
    play.receive(&sealed_insert());
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("INSERT INTO t VALUES (2)");
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    let mut entry = 0;
    play.session.file(&mut |number, _| entry = entry.max(number));
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    // It was on its way behind the question.
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert!(play.sends("INSERT INTO t VALUES (1)"));
    let refused = Error::new(ErrorKind::ProtectionLost, "the disk is full");
    play.session.handle_not_kept(entry, "the disk is full".into(), Some(refused));
    let begun = [message(b'2', b""), complete("BEGIN")].concat();
    play.receive(&[begun, written(), committed()].concat());
    assert!(!play.sends("INSERT INTO t VALUES (2)"));
    play.execute("INSERT INTO t VALUES (3)");
    assert!(!play.sends("INSERT INTO t VALUES (3)"));
    let told = play.told();
    assert!(told.contains(&"error 08006 NotCommitted".to_owned()), "{told:?}");
}
