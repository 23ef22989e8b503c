//! The session against a server that is played by hand: every reply is written out. Here is the player;
//! `behaviour` and `batch` have what a session does, the others what
//! it once did wrong.

mod batch;
mod behaviour;
mod in_doubt;
mod lost_commits;
mod lost_rows;
mod openings;
mod pipelines;
mod regressions;
mod reply_first;

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::*;

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

/// The result has one column.
fn only_columns() -> Vec<u8> {
    let mut columns = BytesMut::new();
    columns.put_u16(1);
    columns.put_slice(b"n\0");
    columns.put_slice(&[0; 6]);
    columns.put_u32(25);
    columns.put_i16(-1);
    columns.put_i32(-1);
    columns.put_i16(1);
    message(b'T', &columns)
}

/// Parse, Describe and Bind are answered; the result has one column.
fn described() -> Vec<u8> {
    [message(b'1', b""), message(b't', &[0, 0]), only_columns(), message(b'2', b"")].concat()
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

fn options() -> Options {
    Options {
        journal_bytes_max: 1 << 20,
        message_bytes_max: 1 << 20,
        statement_cache_size: 16,
        rotate_commits: 100,
        retry_conflicts: 0,
        writes: true,
        backup_acknowledges: false,
        reply_before_commit: false,
        ledger_required: false,
        reapply: false,
        files: false,
    }
}

const ALL_INTERNALS: [u32; 6] = [0, 1, 2, 3, 4, 5];

impl Play {
    /// A session on its first link, its row in the ledger opened.
    fn start() -> Self {
        Self::with(options())
    }

    fn with(options: Options) -> Self {
        let session = Session::new(options, 1);
        let mut play =
            Self { session, sent: Vec::new(), next_statement: internals::FIRST_STATEMENT };
        play.link(0, 1);
        play.receive(&[no_columns(), row("1"), complete("SELECT 1"), ready(b'I')].concat());
        assert!(play.session.is_live());
        play
    }

    fn link(&mut self, server: usize, timeline: u32) {
        self.link_of("then", server, timeline);
    }

    /// The link of the backend that began then.
    fn link_of(&mut self, start: &str, server: usize, timeline: u32) {
        self.link_with(LedgerAccess::Table, start, server, timeline);
    }

    fn link_without_ledger(&mut self, server: usize, timeline: u32) {
        self.link_with(LedgerAccess::None, "then", server, timeline);
    }

    fn link_with(&mut self, ledger: LedgerAccess, start: &str, server: usize, timeline: u32) {
        let ready = LinkReady {
            server,
            timeline,
            backend_pid: 10,
            backend_start: start.into(),
            prepared: ALL_INTERNALS.to_vec(),
            parameters: Vec::new(),
            ledger,
        };
        self.session.handle_link_ready(ready).unwrap();
        self.flush();
    }

    /// The server is lost, and another one found.
    fn fail_over(&mut self) {
        self.move_to(1, 2);
    }

    fn move_to(&mut self, server: usize, timeline: u32) {
        self.session.handle_link_lost();
        self.link(server, timeline);
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
        self.make(sql, streamed);
        self.flush();
    }

    /// Makes a request that is not sent yet.
    fn make(&mut self, sql: &str, streamed: bool) {
        let statement = self.statement(sql);
        self.make_of(&statement, streamed);
    }

    fn make_of(&mut self, statement: &Arc<Statement>, streamed: bool) {
        let request =
            Execute { statement, parameters: &NoParameters, text_results: false, streamed };
        self.session.execute(request).unwrap();
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
                Event::CommitReapplied { number, .. } => format!("reapplied {number}"),
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

    /// The ledger's answer to what was asked of the session's row arrives.
    fn receive_look(&mut self, seq: i64, recent: i64) {
        let look = self.look(seq, recent);
        self.receive(&look);
    }

    fn look(&mut self, seq: i64, recent: i64) -> Vec<u8> {
        let id = self.session.ledger_row();
        [no_columns(), ledger_row(id, seq, recent), complete("SELECT 1"), ready(b'I')].concat()
    }
}

/// There is no backend that could be ended.
fn nobody() -> Vec<u8> {
    [message(b'1', b""), message(b'2', b""), complete("SELECT 0"), ready(b'I')].concat()
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

fn sealed_insert() -> Vec<u8> {
    [no_columns(), complete("INSERT 0 1"), message(b'2', b""), complete("UPDATE 1"), ready(b'I')]
        .concat()
}

fn committed() -> Vec<u8> {
    [message(b'2', b""), complete("UPDATE 1"), message(b'2', b""), complete("COMMIT"), ready(b'I')]
        .concat()
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

impl Play {
    fn execute_refused(&mut self) {
        self.link(1, 2);
        let look = self.look(0, 0);
        self.receive(&look);
        self.execute("SELECT 1");
        assert_eq!(self.told(), ["error 08006 NotCommitted", "ready Failed"]);
    }
}
