//! A session driven by any requests, and answered by any messages of a server, losses of the link among
//! them: it must not panic, go on for ever, or keep more than it may.
//!
//! The first byte says what the session was told to do: keep a journal on disk, re-apply, wait for the backup.
//! Each pair of bytes that follows is a step; what a server says takes its body from the bytes behind it.

#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use segue::Error;
use segue::error::ErrorKind;
use segue::session::{
    BeginOptions, Event, Execute, Filing, LedgerAccess, LinkReady, NoParameters, Options, Session,
    Statement,
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

fn options(mode: u8) -> Options {
    Options {
        journal_bytes_max: JOURNAL_BYTES_MAX,
        message_bytes_max: LIMIT,
        statement_cache_size: 4,
        rotate_commits: 3,
        retry_conflicts: 1,
        writes: true,
        backup_acknowledges: mode & 1 != 0,
        ledger_required: mode & 2 != 0,
        reapply: mode & 4 == 0,
        files: mode & 8 != 0,
        reply_before_commit: mode & 16 != 0,
    }
}

struct Play {
    session: Session,
    statements: Vec<Arc<Statement>>,
    input: BytesMut,
    /// What the journal on disk was handed and not told the end of: has it the promise of a commit?
    entries: BTreeMap<u64, bool>,
}

/// What a journal may rely on in what it is handed.
fn take(entries: &mut BTreeMap<u64, bool>, entry: u64, filing: &Filing<'_>) {
    match filing {
        Filing::Began { .. } => {
            let last = entries.last_key_value().map_or(0, |(last, _)| *last);
            assert!(entry > last, "entry {entry} begins behind {last}");
            entries.insert(entry, false);
        }
        Filing::Ended => {
            assert!(entries.remove(&entry).is_some(), "entry {entry} ends and was not there");
        }
        Filing::Commit { .. } | Filing::Unsealed => {
            *entries.get_mut(&entry).expect("a promise of an entry that is there") = true;
        }
        _ => {
            assert!(entries.contains_key(&entry), "{filing:?} of entry {entry}, which is not there")
        }
    }
}

impl Play {
    /// A request, or data of a COPY. They may come when no request is accepted, and before data is asked for,
    /// as long as the journal has room.
    fn request(&mut self, which: u8) {
        let full = self.session.journal_len() > JOURNAL_BYTES_MAX;
        let ends_copy = which >> 5 == 7 && which & 16 == 0;
        if full && !ends_copy && !self.session.accepts_requests() {
            return;
        }
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

    /// The journal takes what it is handed, or not.
    fn file(&mut self, which: u8) {
        let Self { session, entries, .. } = self;
        session.file(&mut |entry, filing| take(entries, entry, &filing));
        let refuses = which & 7 == 7;
        if let Some((&entry, _)) = self.entries.first_key_value().filter(|_| refuses) {
            self.entries.remove(&entry);
            let error = Error::new(ErrorKind::Limit, "no room");
            let refused = (which & 8 != 0).then_some(error);
            self.session.handle_not_kept(entry, "no room".to_owned(), refused);
        }
        if self.session.awaits_journal() {
            self.session.handle_journal(!refuses);
        }
    }

    fn settle(&mut self, which: u8) {
        if self.session.gives_up_link() {
            self.lose();
        }
        self.file(which);
        let _ = self.session.output();
        self.session.handle_sent();
        // What a session has to tell is bounded by what it was asked and answered.
        for _ in 0..4096 {
            match self.session.poll_event() {
                Some(Event::AwaitBackup { ledger_row, number }) => {
                    if which & 16 != 0 {
                        self.session.handle_backup_has(ledger_row, number);
                    }
                    let late = || Error::new(ErrorKind::FailoverTimeout, "the backup says nothing");
                    self.session.handle_backup(if which & 32 == 0 { Ok(()) } else { Err(late()) });
                }
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
    let Some((mode, mut rest)) = data.split_first() else { return };
    let session = Session::new(options(*mode), 1);
    let mut play = Play { session, statements, input: BytesMut::new(), entries: BTreeMap::new() };
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
        play.settle(*which);
        assert!(
            play.session.journal_len() <= JOURNAL_BYTES_MAX + SLACK,
            "{} bytes are kept",
            play.session.journal_len()
        );
    }
    let Play { session, entries, .. } = &mut play;
    session.file_end(&mut |entry, filing| take(entries, entry, &filing));
    // What is left may have been committed.
    assert!(entries.values().all(|promised| *promised), "{entries:?}");
});
