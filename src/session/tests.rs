//! The session against a server that is played by hand: every reply is written out.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::*;
use crate::error::Outcome;

/// A session, and what it has told.
struct Play {
    session: Session,
    sent: Vec<u8>,
    next_statement: u32,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

fn complete(tag: &str) -> Vec<u8> {
    let mut body = tag.as_bytes().to_vec();
    body.push(0);
    message(b'C', &body)
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

fn row(value: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    body.extend(value.as_bytes());
    message(b'D', &body)
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mno\0\0").as_bytes())
}

/// Parse, Describe and Bind are answered; the result has one column.
fn described() -> Vec<u8> {
    let mut columns = BytesMut::new();
    columns.put_u16(1);
    columns.put_slice(b"n\0");
    columns.put_slice(&[0; 6]);
    columns.put_u32(25);
    columns.put_i16(-1);
    columns.put_i32(-1);
    columns.put_i16(1);
    [message(b'1', b""), message(b't', &[0, 0]), message(b'T', &columns), message(b'2', b"")]
        .concat()
}

fn no_columns() -> Vec<u8> {
    [message(b'1', b""), message(b't', &[0, 0]), message(b'n', b""), message(b'2', b"")].concat()
}

fn ledger_row(id: Uuid, seq: i64, recent: i64) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u16(3);
    body.put_i32(16);
    body.put_slice(id.as_bytes());
    body.put_i32(8);
    body.put_i64(seq);
    body.put_i32(8);
    body.put_i64(recent);
    message(b'D', &body)
}

const ALL_INTERNALS: [u32; 6] = [0, 1, 2, 3, 4, 5];

impl Play {
    /// A session on its first link, its row in the ledger opened.
    fn start() -> Self {
        let options = Options {
            journal_bytes_max: 1 << 20,
            message_bytes_max: 1 << 20,
            statement_cache_size: 16,
            rotate_commits: 100,
            retry_conflicts: 0,
            writes: true,
            backup_acknowledges: false,
            ledger_required: false,
            reapply: false,
        };
        let session = Session::new(options, 1);
        let mut play =
            Self { session, sent: Vec::new(), next_statement: internals::FIRST_STATEMENT };
        play.link(0, 1);
        play.receive(&[no_columns(), row("1"), complete("SELECT 1"), ready(b'I')].concat());
        assert!(play.session.is_live());
        play
    }

    fn link(&mut self, server: usize, timeline: u32) {
        let ready = LinkReady {
            server,
            timeline,
            backend_pid: 10,
            backend_start: "then".into(),
            prepared: ALL_INTERNALS.to_vec(),
            parameters: Vec::new(),
            ledger: LedgerAccess::Table,
        };
        self.session.handle_link_ready(ready).unwrap();
        self.flush();
    }

    /// The server is lost, and another one found.
    fn fail_over(&mut self) {
        self.session.handle_link_lost();
        self.link(1, 2);
    }

    fn flush(&mut self) {
        self.sent = self.session.output().to_vec();
        self.session.handle_sent();
    }

    fn sends(&self, text: &str) -> bool {
        self.sent.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn receive(&mut self, bytes: &[u8]) {
        // Cut in the worst places: every byte arrives by itself.
        let mut input = BytesMut::new();
        for byte in bytes {
            input.put_u8(*byte);
            self.session.handle_input(&mut input).unwrap();
        }
        assert!(input.is_empty() || self.session.gives_up_link());
        self.flush();
    }

    fn statement(&mut self, sql: &str) -> Arc<Statement> {
        self.next_statement += 1;
        Arc::new(Statement::new(self.next_statement, sql, &[], true).unwrap())
    }

    fn execute(&mut self, sql: &str) {
        self.run(sql, false);
    }

    fn run(&mut self, sql: &str, streamed: bool) {
        let statement = self.statement(sql);
        let request = Execute {
            statement: &statement,
            parameters: &NoParameters,
            text_results: false,
            streamed,
        };
        self.session.execute(request).unwrap();
        self.flush();
    }

    /// What was told since the last call, in short.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = self.session.poll_event() {
            told.push(match event {
                Event::Columns(_) => continue,
                Event::Row(body) => format!("row {}", String::from_utf8_lossy(&body[6..])),
                Event::Complete(tag) => {
                    String::from_utf8_lossy(&tag).trim_end_matches('\0').to_owned()
                }
                Event::Error(error) => format!("error {} {:?}", error.sqlstate(), error.outcome()),
                Event::Ready(status) => format!("ready {status:?}"),
                Event::ReplayStarted { statements } => format!("replay of {statements}"),
                Event::ReplayFinished => "replayed".into(),
                Event::ReplayDiverged { statement } => format!("diverged at {statement}"),
                Event::Restarted => "restarted".into(),
                Event::CommitsLost { from, to, .. } => format!("lost {from} to {to}"),
                other => format!("{other:?}"),
            });
        }
        told
    }

    /// BEGIN, and a SELECT that has returned `a`.
    fn begin_and_read(&mut self) {
        self.session.begin(BeginOptions::default()).unwrap();
        self.execute("SELECT n FROM t");
        assert!(self.sends("segue_begin"), "BEGIN travels with the first statement");
        self.receive(&begun_and_read("a"));
        self.told();
    }

    fn look(&mut self, seq: i64, recent: i64) -> Vec<u8> {
        let id = self.session.ledger_row();
        [no_columns(), ledger_row(id, seq, recent), complete("SELECT 1"), ready(b'I')].concat()
    }
}

fn begun_and_read(value: &str) -> Vec<u8> {
    [
        message(b'2', b""),
        complete("BEGIN"),
        described(),
        row(value),
        complete("SELECT 1"),
        ready(b'T'),
    ]
    .concat()
}

fn written() -> Vec<u8> {
    [no_columns(), complete("INSERT 0 1"), ready(b'T')].concat()
}

fn committed() -> Vec<u8> {
    [message(b'2', b""), complete("UPDATE 1"), message(b'2', b""), complete("COMMIT"), ready(b'I')]
        .concat()
}

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

fn commit_in_flight() -> Play {
    let mut play = Play::start();
    play.begin_and_read();
    play.execute("INSERT INTO t VALUES (1)");
    play.receive(&written());
    play.told();
    play.session.commit(false).unwrap();
    play.flush();
    play.fail_over();
    assert!(!play.sends("segue_begin"), "nothing is run again before the ledger has answered");
    play
}

#[test]
fn a_commit_in_flight_that_is_in_the_ledger_is_reported_and_not_repeated() {
    let mut play = commit_in_flight();
    let look = play.look(1, 1);
    play.receive(&look);
    assert_eq!(play.told(), ["COMMIT", "ready Idle"]);
    assert!(play.sent.is_empty());
}

#[test]
fn a_commit_in_flight_that_is_not_in_the_ledger_is_replayed_before_it_is_sent() {
    let mut play = commit_in_flight();
    let look = play.look(0, 0);
    play.receive(&look);
    assert!(play.sends("segue_begin") && !play.sends("segue_commit"));
    play.receive(&[begun_and_read("a"), written()].concat());
    assert!(play.sends("segue_seal") && play.sends("segue_commit"), "all has matched");
    play.receive(&committed());
    assert_eq!(play.told(), ["replay of 2", "replayed", "COMMIT", "ready Idle"]);
}

#[test]
fn a_fenced_replay_finds_out_that_the_first_attempt_has_committed() {
    let mut play = commit_in_flight();
    let look = play.look(0, 0);
    play.receive(&look);
    play.receive(&[begun_and_read("a"), written()].concat());
    play.receive(&[message(b'2', b""), error("SG001"), ready(b'E')].concat());
    assert!(play.sends("ROLLBACK"));
    play.receive(&[complete("ROLLBACK"), ready(b'I')].concat());
    assert!(play.sends("segue_look"), "which attempt it was is asked, not guessed");
    let look = play.look(1, 1);
    play.receive(&look);
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
    let look = play.look(1, 1);
    play.receive(&look);
    assert_eq!(play.told(), ["INSERT 0 1", "ready Idle"]);

    play.execute("INSERT INTO t VALUES (2)");
    play.session.handle_link_lost();
    play.link(2, 3);
    let look = play.look(2, 3);
    play.receive(&look);
    assert_eq!(
        play.told(),
        ["error 02000 Committed", "ready Idle"],
        "it stands, its reply is lost"
    );

    play.execute("INSERT INTO t VALUES (3)");
    play.session.handle_link_lost();
    play.link(3, 4);
    let look = play.look(2, 3);
    play.receive(&look);
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
    let look = play.look(3, 0b101);
    play.receive(&look);
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
    let without = LinkReady { server: 5, timeline: 1, ..LinkReady::default() };
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
    let look = play.look(1, 1);
    play.receive(&look);
    assert_eq!(play.told(), ["lost 2 to 2"]);
    play.session.handle_link_lost();
    play.link(2, 2);
    let look = play.look(1, 1);
    play.receive(&look);
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

impl Play {
    fn execute_refused(&mut self) {
        self.link(1, 2);
        let look = self.look(0, 0);
        self.receive(&look);
        self.execute("SELECT 1");
        assert_eq!(self.told(), ["error 08006 NotCommitted", "ready Failed"]);
    }
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
    let _ = Outcome::Unknown;
}

/// A link was lost while the one before it was still being replaced: the replay began anew at its
/// first unit, which the application had been told of in full, and took it back.
#[test]
fn what_was_answered_is_not_taken_back_when_two_links_are_lost_in_a_row() {
    let mut play = Play::start();
    play.begin_and_read();
    play.fail_over();
    play.session.handle_link_lost();
    play.link(2, 3);
    assert_eq!(play.told(), [""; 0]);
    let look = play.look(0, 0);
    play.receive(&[look, begun_and_read("a")].concat());
    assert_eq!(play.told(), ["replay of 1", "replayed"]);
}

/// The former backend could not be ended: it committed after the ledger had been asked, and the second
/// attempt failed on the first one's row, which was reported as not committed.
#[test]
fn a_backend_that_cannot_be_ended_is_fenced_before_the_ledger_is_asked() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.session.handle_link_lost();
    play.link(0, 1);
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
    let look = play.look(2, 0b1);
    play.receive(&look);
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
    let look = play.look(0, 0);
    play.receive(&look);
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
    play.session.handle_link_lost();
    play.link(0, 1);
    let still_there =
        [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1"), ready(b'I')]
            .concat();
    let look = play.look(0, 0);
    play.receive(&[still_there, look].concat());
    assert_eq!(play.told(), ["lost 1 to 1"]);
}

/// A second attempt had replied before its seal met the fence, and what it had replied was taken for
/// the reply of the first one, which had committed (simulation, seed 9975).
#[test]
fn the_reply_of_an_attempt_that_was_fenced_is_not_the_committed_ones() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    let look = play.look(0, 0);
    play.receive(&look);
    let replied = [no_columns(), complete("INSERT 0 1"), message(b'2', b"")].concat();
    play.receive(&[replied, error("SG001"), ready(b'I')].concat());
    let look = play.look(1, 1);
    play.receive(&look);
    assert_eq!(play.told(), ["INSERT 0 1", "error 02000 Committed", "ready Idle"]);
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
    play.session.handle_link_lost();
    play.link(0, 1);
    let still_there =
        [message(b'1', b""), message(b'2', b""), row("\0"), complete("SELECT 1"), ready(b'I')]
            .concat();
    let look = play.look(0, 0);
    play.receive(&[still_there.clone(), look.clone()].concat());
    assert!(play.sends("segue_seal"), "the fence");
    play.session.handle_link_lost();
    play.link(0, 1);
    let gone = [message(b'1', b""), message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat();
    // The fence's own backend is gone, the first one is not.
    play.receive(&[still_there, gone, look].concat());
    assert!(play.sends("segue_seal") && !play.sends("INSERT"), "the fence, and nothing else yet");
    let fenced = [message(b'2', b""), complete("UPDATE 1"), ready(b'I')].concat();
    let look = play.look(3, 1);
    play.receive(&[fenced, look].concat());
    assert!(play.sends("INSERT"));
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
    let look = play.look(0, 0);
    play.receive(&look);
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

/// A fence was set in a row that the new server did not have; the function said so with SG002, and the
/// ledger was given up: a commit that was not there ended unknown (simulation, seed 142108).
#[test]
fn a_fence_needs_no_row_that_the_server_never_had() {
    let mut play = Play::start();
    play.execute("INSERT INTO t VALUES (1)");
    play.fail_over();
    play.session.handle_link_lost();
    play.link(1, 2);
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
    play.session.handle_link_lost();
    play.link(2, 3);
    let look = play.look(0, 0);
    play.receive(&look);
    assert_eq!(play.told(), ["lost 1 to 1"]);
}

#[test]
fn several_sets_of_parameters_are_one_request_with_one_seal() {
    let mut play = Play::start();
    let statement = play.statement("INSERT INTO t VALUES (1)");
    let set: &dyn Parameters = &NoParameters;
    play.session.execute_sets(&statement, &[set, set, set]).unwrap();
    play.flush();
    assert!(play.sends("segue_seal") && !play.sends("segue_begin"));
    let repeated = [message(b'2', b""), complete("INSERT 0 1")].concat();
    play.receive(&[no_columns(), complete("INSERT 0 1"), repeated.clone()].concat());
    // The first of three was answered, and the second: all are run again, once.
    play.fail_over();
    let look = play.look(0, 0);
    play.receive(&look);
    let seal = [message(b'2', b""), complete("UPDATE 1")].concat();
    let all = [no_columns(), complete("INSERT 0 1"), repeated.clone(), repeated, seal].concat();
    play.receive(&[all, ready(b'I')].concat());
    let told = play.told();
    assert_eq!(told.iter().filter(|event| *event == "restarted").count(), 1, "{told:?}");
    let after = told.iter().position(|event| event == "restarted").unwrap();
    assert_eq!(told[after + 1..], ["INSERT 0 1", "INSERT 0 1", "INSERT 0 1", "ready Idle"]);
    let begin = play.statement("BEGIN");
    assert!(play.session.execute_sets(&begin, &[set]).is_err());
    assert!(play.session.execute_sets(&statement, &[]).is_err());
}
