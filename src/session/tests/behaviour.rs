//! What a session does, one behaviour at a time.

use super::*;

#[test]
fn a_transaction_goes_on_after_its_server_is_lost() {
    let mut play = Play::start();
    play.begin_and_read();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    assert!(play.sends("segue_look"), "the ledger is asked");
    assert!(play.sends("segue_begin"), "and the replay is on its way behind the question");
    let look = play.look(0, 0);
    play.receive(&[look, begun_and_read("a"), written()].concat());
    assert_eq!(play.told(), ["replay of 1", "replayed", "INSERT 0 1", "ready Open"]);
    play.session.commit(false).unwrap();
    play.flush();
    assert!(play.sends("segue_seal"), "the seal travels with COMMIT");
    play.receive(&committed());
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
}

#[test]
fn a_replay_that_reads_something_else_is_never_continued() {
    let mut play = Play::start();
    play.begin_and_read();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    let look = play.look(0, 0);
    play.receive(&[look, begun_and_read("b"), written()].concat());
    assert!(play.sends("ROLLBACK"));
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert_eq!(
        play.told(),
        ["replay of 1", "diverged at 1", "error 40001 NotCommitted", "ready Failed"]
    );
    play.execute("SELECT 1");
    assert_eq!(
        play.told(),
        ["error 40001 NotCommitted", "ready Failed"],
        "until it is rolled back"
    );
    play.session.rollback(false).unwrap();
    assert_eq!(play.told(), ["ROLLBACK", "ready Idle"]);
}

#[test]
fn a_replay_with_fewer_rows_diverges() {
    let mut play = Play::start();
    play.begin_and_read();
    play.fail_over();
    let look = play.look(0, 0);
    let begun =
        [message(b'2', b""), complete("BEGIN"), described(), complete("SELECT 0"), ready(b'T')];
    play.receive(&[look, begun.concat()].concat());
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert_eq!(play.told(), ["replay of 1", "diverged at 1"], "nobody is waiting for a reply");
    play.execute("SELECT 1");
    assert_eq!(play.told(), ["error 40001 NotCommitted", "ready Failed"]);
}

#[test]
fn a_commit_in_flight_that_is_in_the_ledger_is_reported_and_not_repeated() {
    let mut play = commit_in_flight();
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
    assert!(play.sent.is_empty());
}

#[test]
fn a_commit_in_flight_that_is_not_in_the_ledger_is_replayed_before_it_is_sent() {
    let mut play = commit_in_flight();
    play.receive_look(0, 0);
    assert!(play.sends("segue_begin") && !play.sends("segue_commit"));
    play.receive(&[begun_and_read("a"), written()].concat());
    assert!(play.sends("segue_seal") && play.sends("segue_commit"), "all has matched");
    play.receive(&committed());
    assert_eq!(play.told(), ["replay of 2", "replayed", "COMMIT", "ready Idle"]);
}

#[test]
fn a_fenced_replay_finds_out_that_the_first_attempt_has_committed() {
    let mut play = commit_in_flight();
    play.receive_look(0, 0);
    play.receive(&[begun_and_read("a"), written()].concat());
    play.receive(&[message(b'2', b""), error("SG001"), ready(b'E')].concat());
    assert!(play.sends("ROLLBACK"));
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert!(play.sends("segue_look"), "which attempt it was is asked, not guessed");
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["replay of 2", "replayed", "COMMIT", "ready Idle"]);
}

#[test]
fn an_autocommit_write_is_sealed_in_its_own_request_and_resolved_by_the_ledger() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    assert!(play.sends("segue_seal") && !play.sends("segue_commit"));
    // The reply is at hand, the acknowledgement is not.
    play.receive(&[no_columns(), complete("INSERT 0 1")].concat());
    play.fail_over();
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);

    play.execute("INSERT INTO t VALUES (2)");
    play.move_to(2, 3);
    play.receive_look(2, 3);
    assert_eq!(
        play.told(),
        ["error 02000 Committed", "ready Idle"],
        "it stands, its reply is lost"
    );

    play.execute("INSERT INTO t VALUES (3)");
    play.move_to(3, 4);
    play.receive_look(2, 3);
    assert!(play.sends("INSERT INTO t VALUES (3)"));
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
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);
}

#[test]
fn the_ledger_tells_failed_requests_of_a_pipeline_from_committed_ones() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.execute("INSERT INTO t VALUES (1)");
    play.execute("INSERT INTO t VALUES (2)");
    play.fail_over();
    // The first and the third stand; the second has failed, or was never run.
    play.receive_look(3, 0b101);
    assert!(play.sends("INSERT INTO t VALUES (1)") && !play.sends("INSERT INTO t VALUES (2)"));
    play.receive(&[message(b'1', b""), error("23505"), ready(b'I')].concat());
    assert_eq!(
        play.told(),
        [
            "error 02000 Committed",
            "ready Idle",
            "error 23505 NotCommitted",
            "ready Idle",
            "error 02000 Committed",
            "ready Idle"
        ]
    );
}

#[test]
fn a_streamed_result_goes_on_where_it_broke_off() {
    let mut play = Play::start();
    play.run("SELECT n FROM t", true);
    play.receive(&[described(), row("a"), row("b")].concat());
    assert_eq!(play.told(), ["row a", "row b"]);
    play.fail_over();
    let look = play.look(0, 0);
    play.receive(&[look, described(), row("a"), row("b"), row("c")].concat());
    play.receive(&[complete("SELECT 3"), ready(b'I')].concat());
    assert_eq!(play.told(), ["row c", "SELECT 3", "ready Idle"]);
}

#[test]
fn a_streamed_result_that_changed_is_not_continued() {
    let mut play = Play::start();
    play.run("SELECT n FROM t", true);
    play.receive(&[described(), row("a"), row("b")].concat());
    play.told();
    play.fail_over();
    let look = play.look(0, 0);
    play.receive(&[look, described(), row("b"), row("c")].concat());
    play.receive(&[row("d"), complete("SELECT 3"), ready(b'I')].concat());
    assert_eq!(play.told(), ["diverged at 1", "error 40001 NotCommitted", "ready Idle"]);
}

#[test]
fn a_collected_result_is_taken_back_and_asked_again() {
    let mut play = Play::start();
    play.execute("SELECT n FROM t");
    play.receive(&[described(), row("a")].concat());
    play.fail_over();
    let look = play.look(0, 0);
    play.receive(&[look, described(), row("z"), complete("SELECT 1"), ready(b'I')].concat());
    assert_eq!(play.told(), ["row a", "restarted", "row z", "SELECT 1", "ready Idle"]);
}

#[test]
fn without_a_ledger_a_commit_in_flight_is_unknown_and_is_not_retried() {
    let mut play = Play::start();
    play.session.handle_link_lost();
    let without = LinkReady { server: 5, timeline: 2, ..LinkReady::default() };
    play.session.handle_link_ready(without).unwrap();
    play.flush();
    play.receive(&[message(b'1', b"").repeat(3), ready(b'I')].concat());
    play.told();
    play.execute("INSERT INTO t VALUES (1)");
    play.session.handle_link_lost();
    assert_eq!(play.told(), ["error 08007 Unknown", "ready Idle"]);
}

#[test]
fn an_older_timeline_is_refused_for_ever() {
    let mut play = Play::start();
    play.fail_over();
    play.session.handle_link_lost();
    let old = LinkReady { server: 0, timeline: 1, ..LinkReady::default() };
    assert!(play.session.handle_link_ready(old).is_err());
    assert!(play.session.wants_link());
}

#[test]
fn commits_that_were_acknowledged_and_are_gone_are_reported_once() {
    let mut play = Play::start();
    for _ in 0..2 {
        play.execute("INSERT INTO t VALUES (1)");
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
    }
    play.told();
    play.fail_over();
    play.receive_look(1, 1);
    assert_eq!(play.told(), ["lost 2 to 2"]);
    play.move_to(2, 2);
    play.receive_look(1, 1);
    assert_eq!(play.told(), [""; 0]);
}

#[test]
fn a_committed_setting_is_restored_and_a_rolled_back_one_is_not() {
    let mut play = Play::start();
    play.execute("SET work_mem = '5MB'");
    play.receive(&[no_columns(), complete("SET"), ready(b'I')].concat());
    play.session.begin(BeginOptions::default()).unwrap();
    play.execute("SET lock_timeout = 7");
    play.receive(
        &[message(b'2', b""), complete("BEGIN"), no_columns(), complete("SET"), ready(b'T')]
            .concat(),
    );
    play.session.rollback(false).unwrap();
    play.flush();
    play.receive(&[message(b'2', b""), complete("ROLLBACK"), ready(b'I')].concat());
    play.fail_over();
    assert!(play.sends("SET work_mem") && !play.sends("SET lock_timeout"));
}

/// A setting made by set_config() was restored although RESET had undone it (simulation, seed 1013).
#[test]
fn reset_undoes_what_a_function_has_set() {
    let mut play = Play::start();
    play.execute("SELECT set_config('work_mem', '5MB', false)");
    let seal = [message(b'2', b""), complete("SELECT 1")].concat();
    play.receive(&[described(), row("5MB"), complete("SELECT 1"), seal, ready(b'I')].concat());
    play.execute("RESET work_mem");
    play.receive(&[no_columns(), complete("RESET"), ready(b'I')].concat());
    play.fail_over();
    let at = |text: &str| play.sent.windows(text.len()).position(|w| w == text.as_bytes());
    assert!(at("set_config") < at("RESET work_mem"));
}

#[test]
fn a_transaction_beyond_the_limit_loses_its_protection_by_name() {
    let mut play = Play::start();
    play.session.options.journal_bytes_max = 100;
    play.begin_and_read();
    play.execute(&format!("INSERT INTO t VALUES ('{}')", "x".repeat(10)));
    play.receive(&written());
    for _ in 0..10 {
        play.execute("INSERT INTO t VALUES (1)");
        play.receive(&written());
    }
    let told = play.told();
    assert!(told.iter().any(|event| event.contains("journal_bytes_max")), "{told:?}");
    assert!(play.session.journal.len() <= 200, "what cannot be replayed is not kept");
    play.session.handle_link_lost();
    play.execute_refused();
}

#[test]
fn malformed_replies_are_refused() {
    for bytes in [&b"Z\0\0\0\x05I"[..], b"D\0\0\0\x06\0\x01", b"?\0\0\0\x04", b"C\0\0\0\x03"] {
        let mut play = Play::start();
        let mut input = BytesMut::from(bytes);
        assert!(play.session.handle_input(&mut input).is_err(), "{bytes:?}");
    }
}

#[test]
fn outcome_of_a_failure_to_find_any_server() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.session.handle_link_lost();
    let error = Error::new(ErrorKind::FailoverTimeout, "no server");
    play.session.handle_no_link(&error);
    assert_eq!(play.told(), ["error 08006 Unknown", "ready Idle"]);
}
