//! A session driven by any requests, and answered by any messages of a server, losses of the link among
//! them: it must not panic, go on for ever, or keep more than it may.
//!
//! Each pair of bytes is a step; what a server says takes its body from the bytes that follow.

#![no_main]

use std::sync::Arc;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use segue::Error;
use segue::error::ErrorKind;
use segue::session::{
    BeginOptions, Execute, LedgerAccess, LinkReady, NoParameters, Options, Session, Statement,
};

const JOURNAL_BYTES_MAX: usize = 4096;
const LIMIT: usize = 1 << 16;
/// What the session writes of its own for one request is less than this.
const SLACK: usize = 4096;

const STATEMENTS: [&str; 12] = [
    "SELECT 1",
    "INSERT INTO t VALUES (1) RETURNING n",
    "BEGIN READ ONLY",
    "COMMIT",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT s; UPDATE t SET n = 1; RELEASE s",
    "SET search_path = a; SELECT 2; COMMIT",
    "COPY t FROM STDIN",
    "LISTEN c",
    "DISCARD ALL",
    "CALL p()",
    "PREPARE TRANSACTION 'x'",
];

/// Tags that servers send.
const TAGS: &[u8] = b"ZCDTt12n3sEISNAGHWcKRdV";

fn options() -> Options {
    Options {
        journal_bytes_max: JOURNAL_BYTES_MAX,
        message_bytes_max: LIMIT,
        statement_cache_size: 4,
        rotate_commits: 3,
        retry_conflicts: 1,
        writes: true,
        backup_acknowledges: false,
        ledger_required: false,
        reapply: true,
    }
}

struct Play {
    session: Session,
    statements: Vec<Arc<Statement>>,
    input: BytesMut,
}

impl Play {
    fn request(&mut self, which: u8) {
        let statement = Arc::clone(&self.statements[usize::from(which) % self.statements.len()]);
        // Refusals are answers like any other.
        let session = &mut self.session;
        let _ = match which >> 5 {
            0..=2 => session.execute(Execute {
                statement: &statement,
                parameters: &NoParameters,
                text_results: which & 16 != 0,
                streamed: which & 32 != 0,
            }),
            3 => session.prepare(&statement),
            4 => {
                session.begin(BeginOptions { sql: "BEGIN".to_owned(), read_only: which & 16 != 0 })
            }
            5 => session.commit(which & 16 != 0),
            6 => session.rollback(which & 16 != 0),
            _ if which & 16 != 0 => session.copy_data(&[which; 64]),
            _ => session.copy_end((which & 8 != 0).then_some("no")),
        };
    }

    /// A message of a server, its body at the front of `rest`; returns what is behind it.
    fn answer<'a>(&mut self, which: u8, rest: &'a [u8]) -> &'a [u8] {
        let tag = TAGS[usize::from(which) % TAGS.len()];
        let (body, rest): (Vec<u8>, &[u8]) = match tag {
            b'Z' => (vec![b"ITE"[usize::from(which >> 5) % 3]], rest),
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => (Vec::new(), rest),
            b'C' => {
                let tags =
                    [&b"SELECT 1\0"[..], b"COMMIT\0", b"ROLLBACK\0", b"BEGIN\0", b"INSERT 0 1\0"];
                (tags[usize::from(which >> 5) % tags.len()].to_vec(), rest)
            }
            b'E' if which & 128 != 0 => {
                let codes = ["40001", "57P01", "25006", "SG001", "26000", "23505", "SG002"];
                let code = codes[usize::from(which >> 4) % codes.len()];
                (format!("SERROR\0VERROR\0C{code}\0Mno\0\0").into_bytes(), rest)
            }
            _ => {
                let length = rest.first().map_or(0, |len| usize::from(*len));
                let rest = rest.get(1..).unwrap_or_default();
                let (body, rest) = rest.split_at(length.min(rest.len()));
                (body.to_vec(), rest)
            }
        };
        self.input.extend_from_slice(&[tag]);
        self.input.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        self.input.extend_from_slice(&body);
        if self.session.wants_link() {
            self.input.clear();
        } else if self.session.handle_input(&mut self.input).is_err() {
            self.lose();
        }
        rest
    }

    fn lose(&mut self) {
        self.input.clear();
        self.session.handle_link_lost();
    }

    fn link(&mut self, which: u8) {
        if !self.session.wants_link() {
            self.lose();
        }
        let ledgers = [LedgerAccess::None, LedgerAccess::Table, LedgerAccess::Function];
        let link = LinkReady {
            server: usize::from(which & 1),
            timeline: u32::from(which >> 4),
            backend_pid: 7,
            backend_start: "1.5".to_owned(),
            ledger: ledgers[usize::from(which >> 1) % 3],
            ..LinkReady::default()
        };
        if self.session.handle_link_ready(link).is_err() {
            self.lose();
        }
    }

    fn settle(&mut self) {
        if self.session.gives_up_link() {
            self.lose();
        }
        let _ = self.session.output();
        self.session.handle_sent();
        // What a session has to tell is bounded by what it was asked and answered.
        for _ in 0..4096 {
            match self.session.poll_event() {
                Some(event) => drop(format!("{event:?}")),
                None => return,
            }
        }
        panic!("it never stops telling");
    }
}

fuzz_target!(|data: &[u8]| {
    let statements = STATEMENTS.iter().zip(64u32..);
    let statements = statements
        .map(|(sql, id)| Arc::new(Statement::new(id, sql, &[], id % 2 == 0).expect("no NUL byte")))
        .collect();
    let mut play = Play { session: Session::new(options(), 1), statements, input: BytesMut::new() };
    let mut rest = data;
    play.link(2);
    while let [step, which, tail @ ..] = rest {
        rest = tail;
        match step % 8 {
            0..=2 => play.request(*which),
            3..=5 => rest = play.answer(*which, tail),
            6 => play.link(*which),
            _ if which & 1 == 0 => play.lose(),
            _ if play.session.wants_link() => {
                let error = Error::new(ErrorKind::FailoverTimeout, "no server");
                play.session.handle_no_link(&error);
            }
            _ => {}
        }
        play.settle();
        assert!(
            play.session.journal_len() <= JOURNAL_BYTES_MAX + SLACK,
            "{} bytes are kept",
            play.session.journal_len()
        );
    }
});
