//! Sessions that work while servers fail, and the oracle that compares what they were told with
//! what the surviving server holds.
//!
//! Every transaction inserts an id of its own into a table without any unique index, so that
//! nothing but Segue keeps it from being there twice. Workers share no rows: a replay that gives
//! something else than the application has seen would be a bug, and no divergence is allowed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use segue::{Client, Error, Outcome, Session};
use segue_testkit::Server;

/// No wait takes longer on a sound build, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(50);

/// Rows in a result that is large enough for the sockets' buffers to fill while nobody reads.
const LARGE: i64 = 150_000;
const FIXED: i64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Explicit,
    Writes,
    Reads,
    Idle,
    Streams,
}

const CREW: [Kind; 7] = [
    Kind::Explicit,
    Kind::Explicit,
    Kind::Explicit,
    Kind::Writes,
    Kind::Reads,
    Kind::Idle,
    Kind::Streams,
];

struct Worker {
    kind: Kind,
    /// Operations that have ended.
    done: AtomicU64,
}

struct Shared {
    workers: Vec<Worker>,
    stop: AtomicBool,
    /// Idle and streaming workers rest here in the middle of their transactions.
    gate: Mutex<Gate>,
    gate_changed: Condvar,
    fates: Mutex<BTreeMap<i64, Outcome>>,
    errors: Mutex<Vec<String>>,
    streamed: i64,
}

#[derive(Default)]
struct Gate {
    opened: u64,
    resting: usize,
    ending: bool,
}

/// Sessions at work.
pub struct Workload {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What they were told.
#[derive(Debug)]
pub struct Record {
    fates: BTreeMap<i64, Outcome>,
    errors: Vec<String>,
    explicit: Vec<i64>,
}

/// Creates the tables that every workload on this cluster uses.
pub fn create_tables(client: &Client) {
    let mut session = client.session().unwrap();
    for sql in [
        "CREATE TABLE done (id int8 NOT NULL)",
        "CREATE TABLE account (id int8 PRIMARY KEY, balance int8 NOT NULL)",
        "CREATE TABLE fixed (id int8 PRIMARY KEY)",
        "INSERT INTO fixed SELECT * FROM generate_series(1, 100)",
        "INSERT INTO account SELECT i, 0 FROM generate_series(0, 99) i",
    ] {
        session.execute(sql, &[]).unwrap();
    }
}

impl Workload {
    /// Starts the crew; returns once every one of them works.
    pub fn start(client: &Client) -> Self {
        Self::start_with(client, 1, LARGE)
    }

    /// So many crews of seven, and so many rows in the results that are streamed.
    pub fn start_with(client: &Client, crews: usize, streamed: i64) -> Self {
        let kinds = CREW.iter().copied().cycle().take(CREW.len() * crews);
        let shared = Arc::new(Shared {
            workers: kinds.map(|kind| Worker { kind, done: AtomicU64::new(0) }).collect(),
            stop: AtomicBool::new(false),
            gate: Mutex::default(),
            gate_changed: Condvar::new(),
            fates: Mutex::default(),
            errors: Mutex::default(),
            streamed,
        });
        let threads = (0..shared.workers.len()).map(|number| {
            let (shared, client) = (Arc::clone(&shared), client.clone());
            std::thread::spawn(move || shared.work(number, &client))
        });
        let threads = threads.collect();
        let load = Self { shared, threads };
        load.settle();
        load
    }

    /// Waits until every busy worker has ended some more operations since this call, and the others
    /// rest in the middle of theirs: the moment for a fault.
    pub fn arm(&self) {
        let busy = |worker: &Worker| !matches!(worker.kind, Kind::Idle | Kind::Streams);
        self.wait_for_progress(busy, 2);
        let resting = self.shared.workers.iter().filter(|worker| !busy(worker)).count();
        self.wait("the idle and the streaming rest", |shared| {
            shared.gate.lock().unwrap().resting == resting
        });
    }

    /// After a fault: lets those go on that rest, and waits until everybody has ended some more
    /// operations. Returns how long that took.
    pub fn settle(&self) -> Duration {
        let start = Instant::now();
        let before = self.counts();
        // The gate opens again and again, since a worker may come to it late.
        self.wait("everybody has gone on", |shared| {
            let late = shared.workers.iter().zip(&before).any(|(worker, before)| {
                let wanted = match worker.kind {
                    Kind::Idle | Kind::Streams => 1,
                    _ => 3,
                };
                worker.done.load(Ordering::SeqCst) < before + wanted
            });
            if late {
                shared.open_gate();
            }
            !late
        });
        start.elapsed()
    }

    /// How many operations every worker has ended.
    pub fn counts(&self) -> Vec<u64> {
        let workers = self.shared.workers.iter();
        workers.map(|worker| worker.done.load(Ordering::SeqCst)).collect()
    }

    fn wait_for_progress(&self, whose: impl Fn(&Worker) -> bool, more: u64) {
        let before = self.counts();
        self.wait("the busy make progress", |shared| {
            let mut workers = shared.workers.iter().zip(&before);
            workers.all(|(w, before)| !whose(w) || w.done.load(Ordering::SeqCst) >= before + more)
        });
    }

    fn wait(&self, what: &str, mut condition: impl FnMut(&Shared) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.shared) {
            let errors = self.shared.errors.lock().unwrap().clone();
            assert!(errors.is_empty(), "waiting until {what}: {errors:#?}");
            assert!(Instant::now() < deadline, "waited in vain until {what}: {:?}", self.counts());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets everybody end what they are doing.
    pub fn finish(mut self) -> Record {
        self.end();
        Record {
            fates: std::mem::take(&mut *self.shared.fates.lock().unwrap()),
            errors: std::mem::take(&mut *self.shared.errors.lock().unwrap()),
            explicit: (0i64..)
                .zip(&self.shared.workers)
                .filter(|(_, worker)| worker.kind == Kind::Explicit)
                .map(|(number, _)| number)
                .collect(),
        }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.gate.lock().unwrap().ending = true;
        self.shared.gate_changed.notify_all();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            if ended.is_err() && !std::thread::panicking() {
                panic!("a worker has panicked");
            }
        }
    }
}

impl Drop for Workload {
    /// A test that has failed need not wait for its workers, whose servers are about to go.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.gate.lock().unwrap().ending = true;
        self.shared.gate_changed.notify_all();
    }
}

impl Shared {
    fn work(&self, number: usize, client: &Client) {
        let mut session = match client.session() {
            Ok(session) => session,
            Err(error) => return self.complain(number, "opening a session", &error),
        };
        let me = i64::try_from(number).unwrap();
        let mut commits = 0;
        for round in 0i64.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let id = me * 1_000_000 + round;
            let done = match self.workers[number].kind {
                Kind::Explicit => self.transfer(&mut session, me, id, &mut commits),
                Kind::Writes => write(&mut session, id),
                Kind::Reads => read(&mut session, me),
                Kind::Idle => self.idle(&mut session, id),
                Kind::Streams => self.stream(&mut session, id),
            };
            let outcome = match &done {
                Ok(()) => Outcome::Committed,
                Err(error) => error.outcome(),
            };
            if self.workers[number].kind != Kind::Reads {
                self.fates.lock().unwrap().insert(id, outcome);
            }
            if let Err(error) = done {
                self.complain(number, "working", &error);
            }
            self.workers[number].done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A transaction of five statements that sees its own earlier commits, every one of them once.
    fn transfer(
        &self,
        session: &mut Session,
        me: i64,
        id: i64,
        commits: &mut i64,
    ) -> Result<(), Error> {
        let mut tx = session.transaction()?;
        let sql = "SELECT balance FROM account WHERE id = $1 FOR UPDATE";
        let balance: i64 = tx.query_one(sql, &[&me])?.get(0)?;
        if balance != *commits {
            let text = format!("worker {me}: balance {balance} after {commits} commits");
            self.errors.lock().unwrap().push(text);
            *commits = balance;
        }
        tx.execute("UPDATE account SET balance = balance + 1 WHERE id = $1", &[&me])?;
        tx.execute("INSERT INTO done VALUES ($1)", &[&id])?;
        let after = tx.query_one("SELECT balance FROM account WHERE id = $1", &[&me])?;
        if after.get::<i64>(0)? != balance + 1 {
            self.errors.lock().unwrap().push(format!("worker {me} does not see its own update"));
        }
        tx.commit()?;
        *commits += 1;
        Ok(())
    }

    fn idle(&self, session: &mut Session, id: i64) -> Result<(), Error> {
        let mut tx = session.transaction()?;
        tx.execute("INSERT INTO done VALUES ($1)", &[&id])?;
        self.rest();
        let count = tx.query_one("SELECT count(*) FROM done WHERE id = $1", &[&id])?;
        if count.get::<i64>(0)? != 1 {
            self.errors.lock().unwrap().push(format!("id {id} is not there once: {count:?}"));
        }
        tx.commit()
    }

    fn stream(&self, session: &mut Session, id: i64) -> Result<(), Error> {
        let mut tx = session.transaction()?;
        tx.execute("INSERT INTO done VALUES ($1)", &[&id])?;
        let sql = "SELECT i, repeat('x', 100) FROM generate_series(1::int8, $1) i";
        let mut rows = tx.query_stream(sql, &[&self.streamed])?;
        let mut expected = 1;
        while let Some(row) = rows.next_row()? {
            let got: i64 = row.get(0)?;
            if got != expected {
                let text = format!("row {got} was streamed where {expected} was due");
                self.errors.lock().unwrap().push(text);
            }
            expected = got + 1;
            if got == 1000 {
                self.rest();
            }
        }
        drop(rows);
        if expected != self.streamed + 1 {
            self.errors.lock().unwrap().push(format!("the stream ended before row {expected}"));
        }
        tx.commit()
    }

    fn rest(&self) {
        let mut gate = self.gate.lock().unwrap();
        let opened = gate.opened;
        gate.resting += 1;
        while gate.opened == opened && !gate.ending {
            gate = self.gate_changed.wait(gate).unwrap();
        }
        gate.resting -= 1;
    }

    fn open_gate(&self) {
        self.gate.lock().unwrap().opened += 1;
        self.gate_changed.notify_all();
    }

    fn complain(&self, number: usize, what: &str, error: &Error) {
        let kind = self.workers[number].kind;
        let text = format!("{kind:?} {number}, {what}: {error:?}: {error}");
        self.errors.lock().unwrap().push(text);
    }
}

fn write(session: &mut Session, id: i64) -> Result<(), Error> {
    let row = session.query_one("INSERT INTO done VALUES ($1) RETURNING id", &[&id])?;
    assert_eq!(row.get::<i64>(0)?, id);
    Ok(())
}

fn read(session: &mut Session, me: i64) -> Result<(), Error> {
    let row = session.query_one("SELECT count(*), $1::int8 FROM fixed", &[&me])?;
    assert_eq!((row.get::<i64>(0)?, row.get::<i64>(1)?), (FIXED, me));
    Ok(())
}

impl Record {
    /// Nobody saw an error, nor anything that does not fit what they saw before.
    pub fn assert_no_errors(&self) {
        assert!(self.errors.is_empty(), "{:#?}", self.errors);
    }

    /// Holds what was told against what this server has.
    pub fn check(&self, server: &Server) {
        self.assert_no_errors();
        let mut there = self.counts(server);
        let mut wrong = Vec::new();
        for (id, outcome) in &self.fates {
            let count = there.remove(id).unwrap_or(0);
            let right = match outcome {
                Outcome::Committed => count == 1,
                Outcome::NotCommitted => count == 0,
                _ => count <= 1,
            };
            if !right {
                wrong.push(format!("{id} was reported {outcome:?} and is there {count} times"));
            }
        }
        wrong.extend(
            there.iter().map(|(id, count)| format!("{id} is there {count} times, unreported")),
        );
        for me in &self.explicit {
            let sql = format!("SELECT balance FROM account WHERE id = {me}");
            let balance: usize = server.value(&sql).unwrap().parse().unwrap();
            let mine = self.fates.range(me * 1_000_000..(me + 1) * 1_000_000);
            let commits = mine.filter(|(_, outcome)| **outcome == Outcome::Committed).count();
            if balance != commits {
                wrong.push(format!("worker {me} has committed {commits} times, balance {balance}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// What may be on a server that was left: nothing twice, and nothing that nobody has done.
    pub fn check_left_behind(&self, server: &Server) {
        for (id, count) in self.counts(server) {
            assert_eq!(count, 1, "{id} on {}", server.name());
            assert!(self.fates.contains_key(&id), "{id} on {}", server.name());
        }
    }

    fn counts(&self, server: &Server) -> HashMap<i64, usize> {
        let rows = server.query("SELECT id, count(*) FROM done GROUP BY id").unwrap();
        let number = |value: &Option<String>| value.as_deref().unwrap().parse::<i64>().unwrap();
        rows.iter()
            .map(|row| (number(&row[0]), usize::try_from(number(&row[1])).unwrap()))
            .collect()
    }
}
