//! Regressions of `on_commits_lost=reapply`: what became of commits that a promotion had lost.

use super::regressions::sealed_insert;
use super::*;

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
    assert!(play.told().iter().any(|told| told.starts_with("CommitReapplied")));
    assert!(play.session.gives_up_link(), "a new link has the settings of now");
    play.session.handle_link_lost();
    play.link(2, 3);
    assert!(play.sends("app.x = 'new'") && !play.sends("app.x = 'old'"));
    let look = play.look(1, 1);
    play.receive(&[set(b'I'), look].concat());
    assert!(play.session.is_quiet());
    assert_eq!(play.told(), [""; 0]);
}

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
    play.session.handle_link_lost();
    play.link(2, 3);
    play.receive_look(0, 0);
    assert_eq!(play.told().iter().filter(|told| told.starts_with("lost")).count(), 0, "once");
}

/// With `commit_ack=backup` as well, what was run again waited for the backup like a new commit. It did not come within
/// `failover_timeout_ms`, and the application was told so, of a commit that it had been told of before, instead of the reply that
/// it waited for (simulation, seed 315218).
#[test]
fn what_is_run_again_is_not_told_of_when_the_backup_does_not_answer() {
    let mut play = Play::with(Options { reapply: true, backup_acknowledges: true, ..options() });
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&sealed_insert());
    play.session.handle_backup(Err(Error::new(ErrorKind::FailoverTimeout, "the backup is silent")));
    assert!(play.told().contains(&"error 08006 Committed".to_owned()));
    play.fail_over();
    play.receive_look(0, 0);
    assert!(play.sends("INSERT INTO t"));
    play.receive(&[message(b'2', b""), complete("BEGIN"), written()].concat());
    play.receive(&committed());
    let told = play.told();
    assert!(!told.iter().any(|told| told.starts_with("AwaitBackup")), "{told:?}");
    assert!(told.iter().any(|told| told.starts_with("CommitReapplied")), "{told:?}");
    assert!(play.session.keeps_commits(), "until the backup has it");
}
