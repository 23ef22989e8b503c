//! What a session once did wrong. Each test begins with the story.

use super::*;

/// The former backend could not be ended: it committed after the ledger had been asked, and the second
/// attempt failed on the first one's row, which was reported as not committed.
#[test]
fn a_backend_that_cannot_be_ended_is_fenced_before_the_ledger_is_asked() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.move_to(0, 1);
    assert!(play.sends("pg_terminate_backend"));
    let still_there =
        [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1"), ready(b'I')]
            .concat();
    let look = play.look(0, 0);
    play.receive(&[still_there, look].concat());
    assert!(play.sends("segue_seal") && play.sends("segue_look"));
    assert!(!play.sends("INSERT"), "the first attempt may still commit");
    let look = play.look(2, 0b11);
    play.receive(&[message(b'2', b""), complete("UPDATE 1"), ready(b'I'), look].concat());
    assert!(play.sends("pg_logical_emit_message"), "as safe as an acknowledged commit");
    play.receive(&[no_columns(), row("0/1"), complete("SELECT 1"), ready(b'I')].concat());
    assert_eq!(play.told(), ["error 02000 Committed", "ready Idle"]);
}

/// A request of a pipeline that had failed, while one behind it is committed, is run again under its
/// own number alone: were it to succeed now, it would change places with the one behind it.
#[test]
fn what_the_ledger_has_passed_can_only_fail_again() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.execute("DELETE FROM t");
    play.fail_over();
    play.receive_look(2, 0b1);
    play.receive(
        &[no_columns(), complete("INSERT 0 1"), message(b'2', b""), error("SG001"), ready(b'I')]
            .concat(),
    );
    assert_eq!(
        play.told(),
        [
            "INSERT 0 1",
            "error 08006 NotCommitted",
            "ready Idle",
            "error 02000 Committed",
            "ready Idle"
        ]
    );
}

/// Without a ledger the data of an autocommit COPY was not kept: after a failover the COPY went on
/// without what had been sent, and was reported complete.
#[test]
fn a_copy_without_a_ledger_is_run_again_with_all_its_data() {
    let mut play = Play::start();
    play.session.seals.enabled = false;
    play.execute("COPY t FROM STDIN");
    play.receive(&[no_columns(), message(b'G', &[0, 0, 1, 0, 0])].concat());
    play.session.copy_data(b"the first row\n").unwrap();
    play.flush();
    play.told();
    play.fail_over();
    // Its end was never sent, so nothing of it can be committed: no question need be asked first.
    assert!(play.sends("the first row"));
    assert!(play.session.copies_in(), "it goes on");
}

/// A failed transaction without a seal was reported committed, because it had only read.
#[test]
fn the_commit_of_a_failed_transaction_is_a_rollback_also_when_its_link_is_lost() {
    let mut play = Play::start();
    play.begin_and_read();
    play.execute("SELECT 1/0");
    play.receive(&[message(b'1', b""), error("22012"), ready(b'E')].concat());
    play.told();
    play.session.commit(false).unwrap();
    play.flush();
    play.session.handle_link_lost();
    assert_eq!(play.told(), ["ROLLBACK", "ready Idle"]);
}

/// BEGIN goes out in one string with the statements behind it; where that did not parse, the link was
/// taken for broken, again and again.
#[test]
fn a_transaction_that_begins_with_a_syntax_error_has_failed() {
    let mut play = Play::start();
    play.session.begin(BeginOptions::default()).unwrap();
    play.told();
    play.execute("SELECT 1; SELEC 2");
    play.receive(&[error("42601"), ready(b'I')].concat());
    assert_eq!(play.told(), ["error 42601 NotCommitted", "ready Failed"]);
    play.execute("INSERT INTO t VALUES (1)");
    assert_eq!(play.told(), ["error 42601 NotCommitted", "ready Failed"], "not outside of it");
}

/// A row was missing on the new server, and a fresh one took its place; a request that was sealed in the
/// row before both was not asked for at the next failover, and was applied twice.
#[test]
fn the_ledger_is_asked_for_every_row_that_decides_something() {
    let mut play = Play::start();
    let sealed_in = play.session.ledger_row();
    play.execute("INSERT INTO t VALUES (1)");
    for server in [1, 2, 3] {
        play.session.handle_link_lost();
        play.session.seals.unconfirm(true);
        play.link(server, 2);
        let asked = play.sent.windows(16).any(|window| window == sealed_in.as_bytes());
        assert!(asked, "at failover {server}");
    }
}

/// The fence's own number stood above those that were lost, whose loss was not reported.
#[test]
fn a_fence_hides_no_lost_commits() {
    let mut play = Play::start();
    let written = [
        no_columns(),
        complete("INSERT 0 1"),
        message(b'2', b""),
        complete("UPDATE 1"),
        ready(b'I'),
    ];
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&written.concat());
    play.told();
    play.execute("INSERT INTO t VALUES (2)");
    play.move_to(0, 1);
    let still_there =
        [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1"), ready(b'I')]
            .concat();
    let look = play.look(0, 0);
    play.receive(&[still_there, look].concat());
    assert_eq!(play.told(), ["lost 1 to 1"]);
}

/// A COPY whose link was lost before its end was sent kept the number it had been given, although the
/// row of that number had not reached the new server: its seal found no row there, and the application
/// was told SG002 (simulation, seed 19607). With the seal by UPDATE it was committed unsealed instead.
#[test]
fn a_copy_is_sealed_in_a_row_that_the_new_server_has() {
    let mut play = Play::start();
    let lost = play.session.ledger_row();
    play.execute("COPY t FROM STDIN");
    let copies = [no_columns(), message(b'G', &[0, 0, 1, 0, 0])].concat();
    play.receive(&copies);
    play.fail_over();
    play.receive(&[message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat());
    let fresh = play.session.ledger_row();
    assert_ne!(fresh, lost);
    play.receive(&[no_columns(), row("1"), complete("SELECT 1"), ready(b'I')].concat());
    play.receive(&copies);
    play.session.copy_end(None).unwrap();
    play.flush();
    assert!(play.sent.windows(16).any(|window| window == fresh.as_bytes()));
    assert!(!play.sent.windows(16).any(|window| window == lost.as_bytes()));
}

/// A transaction that was made READ ONLY after it had written could not write its seal any more: the
/// guarded form wrote nothing and let it commit, and when its link was lost in that moment it was
/// replayed, though it stood; the plain form failed with 25006 what PostgreSQL allows (found by asking
/// what a server would have to do for the simulation's seed 18641).
#[test]
fn what_is_made_read_only_after_it_has_written_ends_unknown() {
    let mut play = Play::start();
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("SELECT f()");
    play.receive(&begun_and_read("a"));
    play.told();
    play.execute("SET TRANSACTION READ ONLY");
    play.receive(&[no_columns(), complete("SET"), ready(b'T')].concat());
    let told = play.told();
    assert!(told[0].starts_with("ProtectionLost"), "{told:?}");
    play.session.commit(false).unwrap();
    play.flush();
    assert!(!play.sends("segue_seal"));
    play.fail_over();
    assert_eq!(play.told(), ["error 08007 Unknown", "ready Idle"]);
}

/// SET TRANSACTION where it belongs costs nothing.
#[test]
fn a_mode_set_before_anything_is_written_keeps_the_seal() {
    let mut play = Play::start();
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT f()");
    play.receive(&[complete("BEGIN"), complete("SET"), complete("SELECT 1"), ready(b'T')].concat());
    play.session.commit(false).unwrap();
    play.flush();
    assert!(play.sends("segue_seal_guarded"));
}

/// A backend could not be ended, and the link was lost before the fence against it was up; the next link
/// had forgotten that backend, which committed after the ledger had been asked: what had been reported
/// as failed stood, or stood twice (simulation, seeds 28861 and 34253).
#[test]
fn a_backend_that_lives_is_remembered_until_the_fence_stands() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.move_to(0, 1);
    let still_there =
        [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1"), ready(b'I')]
            .concat();
    let look = play.look(0, 0);
    play.receive(&[still_there.clone(), look.clone()].concat());
    assert!(play.sends("segue_seal"), "the fence");
    play.move_to(0, 1);
    let gone = [message(b'1', b""), message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat();
    // The fence's own backend is gone, the first one is not.
    play.receive(&[still_there, gone, look].concat());
    assert!(play.sends("segue_seal") && !play.sends("INSERT"), "the fence, and nothing else yet");
    let fenced = [message(b'2', b""), complete("UPDATE 1"), ready(b'I')].concat();
    let look = play.look(3, 1);
    play.receive(&[fenced, look].concat());
    assert!(play.sends("INSERT"));
}

/// A fence was set in a row that the new server did not have; the function said so with SG002, and the
/// ledger was given up: a commit that was not there ended unknown (simulation, seed 142108).
#[test]
fn a_fence_needs_no_row_that_the_server_never_had() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.move_to(1, 2);
    let still_there =
        [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1"), ready(b'I')]
            .concat();
    let none = [message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat();
    play.receive(&[still_there, none.clone()].concat());
    let fence = [message(b'2', b""), error("SG002"), ready(b'I')].concat();
    play.receive(&[fence, none].concat());
    assert!(play.session.ledger_in_use());
    play.receive(&[no_columns(), row("1"), complete("SELECT 1"), ready(b'I')].concat());
    assert!(play.sends("INSERT") && play.told().is_empty());
}

/// Requests of a pipeline whose fate was known, and which had been sent on an earlier link only, were
/// waited for when what had been sent with them was passed over: the session waited for ever
/// (simulation, seed 112956).
#[test]
fn nothing_is_awaited_of_what_an_earlier_link_was_sent() {
    let mut play = Play::start();
    play.session.seals.enabled = false;
    play.execute("SELECT 1");
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    assert!(play.sends("SELECT 1") && !play.sends("INSERT"));
    // The row is gone, so that what was sent blindly is passed over.
    play.receive(&[message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat());
    let one = [described(), row("1"), complete("SELECT 1"), ready(b'I')].concat();
    play.receive(&one);
    play.receive(&[no_columns(), row("1"), complete("SELECT 1"), ready(b'I')].concat());
    play.receive(&one);
    let told = play.told();
    assert_eq!(told, ["row 1", "SELECT 1", "ready Idle", "error 08007 Unknown", "ready Idle"]);
}

/// A COPY that the server had refused at once was run again, where it was not refused, and the
/// application was asked for its data after it had been told of its end (simulation, seed 131510).
#[test]
fn no_data_is_asked_for_a_copy_that_has_ended() {
    let mut play = Play::start();
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("COPY t FROM STDIN");
    let begun = [message(b'2', b""), complete("BEGIN"), no_columns()].concat();
    play.receive(&[begun.clone(), error("42501"), ready(b'E')].concat());
    play.told();
    play.fail_over();
    let look = play.look(0, 0);
    let copies = [begun, message(b'G', &[0, 0, 1, 0, 0]), error("57014"), ready(b'E')].concat();
    play.receive(&[look, copies].concat());
    assert_eq!(play.told(), ["replay of 1", "diverged at 1"]);
}

/// A COPY that had begun on a server whose ledger could not be used was run again where it could, and was
/// committed without a seal all the same: its loss in a later failover went unnoticed (simulation, seed
/// 296868).
#[test]
fn a_copy_that_ends_where_there_is_a_ledger_is_sealed() {
    let mut play = Play::start();
    play.session.seals.enabled = false;
    play.execute("COPY t FROM STDIN");
    let copies = [no_columns(), message(b'G', &[0, 0, 1, 0, 0])].concat();
    play.receive(&copies);
    play.fail_over();
    let look = play.look(0, 0);
    play.receive(&[look, copies].concat());
    play.told();
    play.session.copy_end(None).unwrap();
    play.flush();
    assert!(play.sends("segue_seal"));
    let sealed = [message(b'2', b""), complete("UPDATE 1"), ready(b'I')].concat();
    play.receive(&[complete("COPY 0"), sealed].concat());
    assert_eq!(play.told(), ["COPY 0", "ready Idle"]);
    play.move_to(2, 3);
    play.receive_look(0, 0);
    assert_eq!(play.told(), ["lost 1 to 1"]);
}

impl Play {
    /// A statement of an open transaction that begins with it, answered with these messages.
    fn begin_with(&mut self, sql: &str, answer: &[u8]) {
        self.session.begin(BeginOptions::default()).unwrap();
        self.execute(sql);
        self.receive(&[&message(b'2', b"")[..], &complete("BEGIN"), answer].concat());
    }

    /// What the next statement is told once the server was lost.
    fn told_of_the_loss(&mut self) -> Vec<String> {
        self.told();
        self.fail_over();
        let look = self.look(1, 1);
        self.receive(&look);
        self.execute("SELECT 1");
        self.told()
    }
}

/// A lock that a session takes with pg_advisory_lock() is held beyond a rollback, and so is what PREPARE
/// makes; both counted with their transaction's commit only, and a server that was lost took them with it
/// in silence.
#[test]
fn a_session_lock_of_a_transaction_that_was_rolled_back_is_missed() {
    for sql in
        ["SELECT pg_advisory_lock(1)", "PREPARE q AS SELECT 1", "CREATE TEMP TABLE x (a int)"]
    {
        let mut play = Play::start();
        play.begin_with(sql, &[no_columns(), complete("DONE"), ready(b'T')].concat());
        play.session.rollback(false).unwrap();
        play.flush();
        play.receive(&[message(b'2', b""), complete("ROLLBACK"), ready(b'I')].concat());
        let told = play.told_of_the_loss();
        // A table is gone with its transaction.
        let missed = !sql.contains("TABLE");
        assert_eq!(
            told.contains(&"error 08006 NotCommitted".to_owned()),
            missed,
            "{sql}: {told:?}"
        );
    }
}

/// The same of a statement that fails behind the call that has taken the lock.
#[test]
fn a_session_lock_of_a_statement_that_failed_is_missed() {
    for (code, missed) in [("22012", true), ("25P02", false)] {
        let mut play = Play::start();
        play.execute("SELECT pg_advisory_lock(1), 1/0");
        play.receive(&[error(code), ready(b'I')].concat());
        let told = play.told_of_the_loss();
        assert_eq!(
            told.contains(&"error 08006 NotCommitted".to_owned()),
            missed,
            "{code}: {told:?}"
        );
    }
}

/// What makes a session unrestorable was forgotten where a string of several statements ended the
/// transaction: the session went on without its temporary table and said nothing.
#[test]
fn a_temporary_table_is_missed_whatever_commits_it() {
    let mut play = Play::start();
    play.begin_with("SELECT n FROM t", &[described(), complete("SELECT 0"), ready(b'T')].concat());
    play.execute("CREATE TEMP TABLE x (a int); COMMIT");
    play.receive(&[complete("CREATE TABLE"), complete("COMMIT"), ready(b'I')].concat());
    assert_eq!(play.told_of_the_loss().first().unwrap(), "error 08006 NotCommitted");
}

/// The question to the ledger ran into a `statement_timeout`, and the commit in flight was reported
/// unknown.
#[test]
fn a_question_to_the_ledger_that_is_cancelled_is_asked_again() {
    let mut play = commit_in_flight();
    play.receive(&error("57014"));
    assert!(play.session.gives_up_link());
    play.session.handle_link_lost();
    assert_eq!(play.told(), [""; 0]);
    play.link(2, 3);
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
}

/// A string had set something, and its rows differed when it was run again: it was told as not committed, and what
/// it had set was in force on the link from then on (simulation, seed 3113502).
#[test]
fn what_a_string_has_set_whose_replay_differs_is_not_in_force() {
    let mut play = Play::start();
    play.run("SET app.y = '2'; SELECT n FROM t", true);
    play.receive(&[complete("SET"), only_columns(), row("a")].concat());
    play.told();
    play.fail_over();
    play.receive_look(0, 0);
    let again = [complete("SET"), only_columns(), row("b"), complete("SELECT 1"), ready(b'I')];
    play.receive(&again.concat());
    assert_eq!(play.told(), ["diverged at 1", "error 40001 NotCommitted", "ready Idle"]);
    assert!(play.session.gives_up_link());
    play.move_to(2, 3);
    assert!(!play.sends("app.y"));
}
