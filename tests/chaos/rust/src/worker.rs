//! What every worker has: arguments, random numbers, ids, a log that outlives SIGKILL.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use segue::{ClientEvent, Error, Outcome};

use crate::described;

/// The command line: the same for every client program, see `tests/chaos/app.py`.
pub struct Arguments {
    pub conninfo: String,
    pub face: String,
    pub logs: PathBuf,
    pub worker: u64,
    pub incarnation: u64,
    pub seed: u64,
    pub accounts: u64,
    pub total: i64,
    pub pace_ms: u64,
    pub stop: PathBuf,
    pub journal_dir: PathBuf,
    /// More of the connection string, for the client that hands payments over.
    pub submit_options: String,
}

impl Arguments {
    pub fn from_command_line() -> Result<Self, String> {
        let mut given = HashMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let value = words.next().ok_or(format!("{name} needs a value"))?;
            given.insert(name, value);
        }
        let text = |name: &str| given.get(name).cloned().ok_or(format!("{name} is missing"));
        let number =
            |name: &str| text(name)?.parse::<u64>().map_err(|error| format!("{name}: {error}"));
        Ok(Self {
            conninfo: text("--conninfo")?,
            face: text("--face")?,
            logs: text("--logs")?.into(),
            worker: number("--worker")?,
            incarnation: number("--incarnation")?,
            seed: number("--seed")?,
            accounts: number("--accounts")?,
            total: text("--total")?.parse().map_err(|error| format!("--total: {error}"))?,
            pace_ms: number("--pace-ms")?,
            stop: text("--stop")?.into(),
            journal_dir: text("--journal-dir")?.into(),
            submit_options: text("--submit-options").unwrap_or_default(),
        })
    }
}

/// One worker's file. One line is one write(2).
pub struct Log(File);

impl Log {
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub fn write(&self, letter: char, text: &str) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        let line = format!("{letter} {us} {}\n", text.replace('\n', " "));
        (&self.0).write_all(line.as_bytes()).expect("the log can be written");
    }

    /// What the application was told of a payment.
    pub fn end<T>(&self, id: i64, result: Result<T, &Error>) {
        match result {
            Ok(_) => self.write('E', &format!("{id} committed 00000 ")),
            Err(error) => {
                let outcome = match error.outcome() {
                    Outcome::Committed => "committed",
                    Outcome::NotCommitted => "not_committed",
                    _ => "unknown",
                };
                let state = error.sqlstate();
                self.write('E', &format!("{id} {outcome} {state} {:?}: {error}", error.kind()));
            }
        }
    }

    pub fn finding(&self, text: &str) {
        self.write('F', text);
    }

    pub fn event(&self, event: &ClientEvent) {
        let (name, session, from, to, pause) = described(event);
        let text = match event {
            ClientEvent::Cluster(event) => event.to_string(),
            event => format!("{event:?}"),
        };
        if let ClientEvent::SubmissionsLost { submissions, others } = event {
            for submission in submissions {
                self.write('L', submission.key.as_deref().unwrap_or("nothing"));
            }
            let text = format!("{} submissions, others: {others}", submissions.len());
            return self.write('V', &format!("{name} {session} {from} {to} {pause} {text}"));
        }
        self.write('V', &format!("{name} {session} {from} {to} {pause} {text}"));
    }
}

pub struct Worker {
    pub log: Log,
    pub number: u64,
    pub accounts: u64,
    pub total: i64,
    pace_ms: u64,
    stop: PathBuf,
    last_id: Cell<i64>,
    random: Cell<u64>,
}

impl Worker {
    pub fn new(arguments: &Arguments, index: u64) -> io::Result<Self> {
        let number = arguments.worker + index;
        let name = format!("{}.{number}.{}.log", arguments.face, arguments.incarnation);
        let file = OpenOptions::new().create(true).append(true).open(arguments.logs.join(name))?;
        let first = number * 1_000_000_000_000 + arguments.incarnation * 10_000_000;
        Ok(Self {
            log: Log(file),
            number,
            accounts: arguments.accounts,
            total: arguments.total,
            pace_ms: arguments.pace_ms,
            stop: arguments.stop.clone(),
            last_id: Cell::new(i64::try_from(first).unwrap_or(0)),
            random: Cell::new(arguments.seed ^ (first + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        })
    }

    /// Whether the harness wants it to end.
    pub fn stops(&self) -> bool {
        self.stop.exists()
    }

    /// SplitMix64.
    pub fn below(&self, limit: u64) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub fn next_id(&self) -> i64 {
        self.last_id.set(self.last_id.get() + 1);
        self.last_id.get()
    }

    /// Logs the intention.
    pub fn begin(&self, kind: &str) -> i64 {
        let id = self.next_id();
        self.log.write('B', &format!("{id} {kind}"));
        id
    }

    pub fn amount(&self) -> i64 {
        1 + self.below(100) as i64
    }

    /// Whence and where to, among the shared accounts.
    pub fn two_accounts(&self) -> (i32, i32) {
        let source = self.below(self.accounts);
        let target = (source + 1 + self.below(self.accounts - 1)) % self.accounts;
        (source as i32 + 1, target as i32 + 1)
    }

    /// The two accounts that only this worker touches.
    pub fn own_accounts(&self) -> (i32, i32) {
        (1000 + 2 * self.number as i32, 1001 + 2 * self.number as i32)
    }

    pub fn rest(&self) {
        let ms = self.pace_ms * (20 + self.below(160)) / 100;
        std::thread::sleep(Duration::from_millis(ms));
    }

    /// Where nobody is there at all, opening a session fails at once; then it is tried again.
    pub fn until_connected<T>(&self, open: impl Fn() -> segue::Result<T>) -> Option<T> {
        while !self.stops() {
            match open() {
                Ok(it) => return Some(it),
                Err(error) => {
                    let text = format!("connect_error 0 0 0 0 {} {error}", error.sqlstate());
                    self.log.write('V', &text);
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
        None
    }
}
