//! Transactions handed over whole: kept first, then run until their outcome is known, exactly once.
//!
//! * `submission`: what is handed over; `ticket`: what is got for it;
//! * `queue` (pure): lanes, order, room; `store`: the journal, or memory;
//! * `pipe` (pure): submissions as messages; `station`: a link made ready; `runner`: the threads.
//!
//! `docs/submit.md` says what may be relied on. An attempt may be made any number of times, whatever
//! became of those before: each begins by claiming its id in `segue.submission`, whose unique index
//! lets one of them through.

mod pipe;
mod queue;
mod runner;
mod station;
mod store;
mod submission;
#[cfg(test)]
mod tests;
mod ticket;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

pub use submission::Submission;
pub use ticket::{Executed, Ticket};

use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Outcome, Result, ServerError};
use crate::journal::Reason;
use crate::link::LinkWaker;
use queue::{New, Queue};
use runner::Runner;
use station::Backends;
use store::{Death, Keep, Store, Unended, unix_ms};
use submission::{Payload, id_of_key};

/// Tickets of what has ended that can still be asked for.
const REMEMBERED: usize = 4096;
/// A message of the protocol cannot be larger.
const SUBMISSION_BYTES_MAX: usize = 1 << 30;
/// What is under way when the client is closed is given so long to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to hand over to a journal that is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// A submission that can never succeed as things are.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    pub id: Uuid,
    pub key: Option<String>,
    pub lane: Option<String>,
    /// Whether its lane stands still because of it.
    pub stops_lane: bool,
    pub died_at: SystemTime,
    /// The statement that failed, from 0, and all texts.
    pub statement: usize,
    pub statements: Vec<String>,
    /// The server's error, unchanged; or Segue's own, for an expectation that was not met.
    pub sqlstate: String,
    pub message: String,
    /// May hold values of the application's.
    pub detail: Option<String>,
}

/// What becomes of submissions, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubmissionStatus {
    /// Handed over and not sent yet, or to be sent again.
    pub waiting: usize,
    /// Sent and not answered.
    pub in_flight: usize,
    pub dead_letters: usize,
    /// Lanes with anything in them, and those of them that a dead letter has stopped.
    pub lanes: usize,
    pub lanes_stopped: usize,
    /// Memory that they take up, about.
    pub bytes: usize,
    /// The journal's files, if submissions are kept in files.
    pub journal_bytes: Option<u64>,
    /// Since the client was opened: handed over, of these found in the journal; committed, of these
    /// found to be so already; attempts that were made once more; dead letters.
    pub submitted: u64,
    pub recovered: u64,
    pub committed: u64,
    pub found_done: u64,
    pub resubmitted: u64,
    pub died: u64,
    /// Why nothing can be run at present, if that is so.
    pub problem: Option<String>,
}

/// The submissions of one client. Dropping it ends the threads; what has not ended stays in the
/// journal.
pub(super) struct Submissions {
    shared: Arc<Shared>,
    threads: Mutex<Option<Vec<JoinHandle<()>>>>,
    /// Names of the sessions to the cluster.
    sessions: Vec<u64>,
    process: u32,
}

struct Shared {
    config: Arc<Config>,
    cluster: Arc<Cluster>,
    store: Store,
    core: Mutex<Core>,
    /// There may be something to send.
    work: Condvar,
    /// There may be room, or something is kept.
    room: Condvar,
    stop: AtomicBool,
    /// Ends pauses; goes with the mutex of `core`.
    stopping: Condvar,
    running: AtomicUsize,
    backends: Backends,
    started: Instant,
}

struct Core {
    queue: Queue<Held>,
    /// The tickets of what has ended, the oldest first.
    ended: HashMap<Uuid, Ticket>,
    ended_order: VecDeque<Uuid>,
    wakers: HashMap<usize, LinkWaker>,
    totals: Totals,
    problem: Option<String>,
    closed: bool,
}

#[derive(Default)]
struct Totals {
    submitted: u64,
    recovered: u64,
    committed: u64,
    found_done: u64,
    resubmitted: u64,
    died: u64,
}

/// What is held of a submission that has not ended.
struct Held {
    payload: Arc<Payload>,
    ticket: Ticket,
    /// Its records; with whoever is writing one.
    keep: Option<Keep>,
    death: Option<Death>,
}

impl Submissions {
    /// Opens the store, and queues again what has not ended; `sessions` are names for the cluster.
    pub fn open(config: Arc<Config>, cluster: Arc<Cluster>, sessions: Vec<u64>) -> Result<Self> {
        let (store, unended) = Store::open(&config)?;
        let core = Core {
            queue: Queue::new(sessions.len()),
            ended: HashMap::new(),
            ended_order: VecDeque::new(),
            wakers: HashMap::new(),
            totals: Totals::default(),
            problem: None,
            closed: false,
        };
        let shared = Arc::new(Shared {
            config,
            cluster,
            store,
            core: Mutex::new(core),
            work: Condvar::new(),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
            stopping: Condvar::new(),
            running: AtomicUsize::new(0),
            backends: Backends::default(),
            started: Instant::now(),
        });
        let it = Self {
            shared,
            threads: Mutex::default(),
            sessions,
            process: std::process::id(),
        };
        if !unended.is_empty() {
            it.shared.lock().refill(unended);
            it.start()?;
        }
        Ok(it)
    }

    /// Starts the threads, unless they have been.
    fn start(&self) -> Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_some() {
            return Ok(());
        }
        let mut started = Vec::new();
        for (shard, session) in self.sessions.iter().enumerate() {
            // Counted down by the runner itself, also if its thread cannot be started.
            self.shared.running.fetch_add(1, Ordering::AcqRel);
            let runner = Runner::new(Arc::clone(&self.shared), shard, *session);
            let thread = thread::Builder::new()
                .name("segue-submit".to_owned())
                .spawn(move || runner.run())
                .map_err(|error| {
                    let message = "a thread for submissions could not be started";
                    Error::new(ErrorKind::Limit, message).with_source(error)
                });
            started.push(thread?);
        }
        *threads = Some(started);
        Ok(())
    }

    pub fn submit(&self, submission: Submission, may_wait: bool) -> Result<Ticket> {
        self.start()?;
        let payload = Arc::new(submission.into_payload(unix_ms())?);
        let bytes = payload.bytes();
        let shared = &*self.shared;
        let most = shared.config.limits.journal_bytes_max.min(SUBMISSION_BYTES_MAX);
        if bytes > most {
            return Err(Error::new(
                ErrorKind::Limit,
                "the submission is larger than journal_bytes_max allows; nothing was handed over",
            ));
        }
        let deadline = Instant::now() + shared.config.failover.timeout;
        loop {
            let (mut keep, ticket) = match shared.reserve(&payload, bytes, may_wait, deadline)? {
                Reserved::Known(ticket) => return Ok(ticket),
                Reserved::Place(keep, ticket) => (keep, ticket),
            };
            let number = keep.number();
            let kept = shared.store.keep(&mut keep, &payload);
            let mut core = shared.lock();
            match kept {
                Ok(()) => {
                    if let Some(entry) = core.queue.get_mut(number) {
                        entry.data.keep = Some(keep);
                    }
                    core.queue.kept(number);
                    core.totals.submitted += 1;
                    drop(core);
                    shared.work.notify_all();
                    shared.room.notify_all();
                    return Ok(ticket);
                }
                Err(error) => {
                    core.queue.remove(number);
                    let full = error.reason() == Reason::Full;
                    let again = full && may_wait && Instant::now() < deadline && !core.closed;
                    shared.room.notify_all();
                    if !again {
                        return Err(store::refused(error));
                    }
                    let waited = shared.room.wait_timeout(core, FULL_PAUSE);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
    }

    /// The ticket of what has not ended, or has lately.
    pub fn ticket(&self, id: Uuid) -> Option<Ticket> {
        let core = self.shared.lock();
        let queued = core.queue.find(id).and_then(|number| core.queue.get(number));
        queued.map(|entry| &entry.data.ticket).or_else(|| core.ended.get(&id)).cloned()
    }

    pub fn ticket_for_key(&self, key: &str) -> Option<Ticket> {
        self.ticket(id_of_key(key))
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let core = self.shared.lock();
        let mut letters: Vec<(u64, DeadLetter)> = core
            .queue
            .entries()
            .filter_map(|(number, entry)| {
                let death = entry.data.death.as_ref()?;
                Some((number, letter(&entry.data.payload, death)))
            })
            .collect();
        letters.sort_unstable_by_key(|(number, _)| *number);
        letters.into_iter().map(|(_, letter)| letter).collect()
    }

    /// Runs a dead letter again, ahead of what is queued in its lane.
    pub fn retry(&self, id: Uuid) -> Result<Ticket> {
        self.start()?;
        let (number, mut keep) = self.shared.take_dead(id)?;
        let kept = self.shared.store.revive(&mut keep);
        let mut core = self.shared.lock();
        let entry = core.queue.get_mut(number).ok_or_else(|| no_dead_letter(id))?;
        entry.data.keep = Some(keep);
        kept.map_err(store::refused)?;
        entry.data.death = None;
        let ticket = entry.data.ticket.clone();
        ticket.reopen();
        core.queue.revive(number);
        drop(core);
        self.shared.work.notify_all();
        Ok(ticket)
    }

    /// Forgets a dead letter for good; its lane goes on.
    pub fn purge(&self, id: Uuid) -> Result<()> {
        let (number, keep) = self.shared.take_dead(id)?;
        self.shared.store.end(keep);
        self.shared.store.flush();
        self.shared.lock().queue.remove(number);
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        Ok(())
    }

    pub fn status(&self) -> SubmissionStatus {
        let store = &self.shared.store;
        let journal_bytes = store.is_durable().then(|| store.disk_bytes());
        let core = self.shared.lock();
        let counts = core.queue.counts();
        let totals = &core.totals;
        SubmissionStatus {
            waiting: counts.waiting,
            in_flight: counts.flying,
            dead_letters: counts.dead,
            lanes: core.queue.lanes(),
            lanes_stopped: core.queue.lanes_stopped(),
            bytes: core.queue.bytes(),
            journal_bytes,
            submitted: totals.submitted,
            recovered: totals.recovered,
            committed: totals.committed,
            found_done: totals.found_done,
            resubmitted: totals.resubmitted,
            died: totals.died,
            problem: core.problem.clone(),
        }
    }
}

/// What came of asking for a place in the queue.
enum Reserved {
    /// It is there already, or was: the same key.
    Known(Ticket),
    Place(Keep, Ticket),
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Milliseconds since the client was opened: the queue's clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn set_problem(&self, problem: Option<&Error>) {
        self.lock().problem = problem.map(|error| {
            let source = std::error::Error::source(error).map(|why| format!(": {why}"));
            format!("{error}{}", source.unwrap_or_default())
        });
    }

    /// Sleeps, unless the client is closed meanwhile.
    fn pause(&self, time: Duration) {
        let core = self.lock();
        let stopped = |_: &mut Core| !self.stops();
        drop(self.stopping.wait_timeout_while(core, time, stopped));
    }

    /// Takes a place in the queue once there is room.
    fn reserve(
        &self,
        payload: &Arc<Payload>,
        bytes: usize,
        may_wait: bool,
        deadline: Instant,
    ) -> Result<Reserved> {
        let limits = &self.config.limits;
        let mut core = self.lock();
        loop {
            if core.closed {
                return Err(closed(self.store.is_durable()));
            }
            let queued = core.queue.find(payload.id);
            let full = core.queue.len() >= limits.submit_queue_max
                || core.queue.bytes() + bytes > limits.journal_bytes_max;
            match queued {
                // Another thread's: not before it is kept.
                Some(number) if core.queue.is_writing(number) => {}
                Some(number) => {
                    let entry = core.queue.get(number).ok_or_else(|| no_dead_letter(payload.id))?;
                    return Ok(Reserved::Known(entry.data.ticket.clone()));
                }
                None => {
                    if let Some(ticket) = core.ended.get(&payload.id) {
                        return Ok(Reserved::Known(ticket.clone()));
                    }
                    if !full {
                        // The number is given out under the lock: the journal's order is the queue's.
                        let keep = self.store.begin();
                        let ticket = Ticket::new(payload.id, payload.key.clone());
                        core.queue.reserve(new(keep.number(), payload, bytes, &ticket, None));
                        return Ok(Reserved::Place(keep, ticket));
                    }
                    if !may_wait {
                        return Err(no_room());
                    }
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(no_room());
            }
            let waited = self.room.wait_timeout(core, left);
            core = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The records of a dead letter, for whoever is about to change it.
    fn take_dead(&self, id: Uuid) -> Result<(u64, Keep)> {
        let mut core = self.lock();
        let number = core.queue.find(id).filter(|number| core.queue.is_dead(*number));
        let entry = number.and_then(|number| Some((number, core.queue.get_mut(number)?)));
        let (number, entry) = entry.ok_or_else(|| no_dead_letter(id))?;
        // Somebody else is at it.
        let keep = entry.data.keep.take().ok_or_else(|| no_dead_letter(id))?;
        Ok((number, keep))
    }

    /// The last thread has ended: whoever waits is told.
    fn end(&self) {
        self.store.close();
        let tickets: Vec<Ticket> = {
            let mut core = self.lock();
            core.closed = true;
            core.queue.entries().map(|(_, entry)| entry.data.ticket.clone()).collect()
        };
        self.room.notify_all();
        for ticket in tickets {
            ticket.give_up(closed(self.store.is_durable()));
        }
    }
}

impl Core {
    /// Queues what the journal holds, in its order.
    fn refill(&mut self, unended: Vec<Unended>) {
        for Unended { keep, payload, death } in unended {
            let payload = Arc::new(payload);
            let ticket = Ticket::new(payload.id, payload.key.clone());
            if let Some(death) = &death {
                ticket.tell(Err(death.error()));
            }
            let (number, dead) = (keep.number(), death.is_some());
            let mut new = new(number, &payload, payload.bytes(), &ticket, death);
            new.data.keep = Some(keep);
            self.queue.reserve(new);
            if dead {
                self.queue.kept_dead(number);
            } else {
                self.queue.kept(number);
            }
            self.totals.recovered += 1;
        }
    }

    /// Its ticket can be asked for a while longer.
    fn remember(&mut self, ticket: &Ticket) {
        if self.ended.insert(ticket.id(), ticket.clone()).is_none() {
            self.ended_order.push_back(ticket.id());
        }
        if self.ended_order.len() > REMEMBERED {
            if let Some(oldest) = self.ended_order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }
}

impl Death {
    fn error(&self) -> Error {
        if self.sqlstate == "25P02" {
            return Error::new(ErrorKind::TransactionFailed, self.message.clone());
        }
        let server = ServerError {
            severity: "ERROR".to_owned(),
            code: self.sqlstate.clone(),
            message: self.message.clone(),
            detail: Some(self.detail.clone()).filter(|detail| !detail.is_empty()),
            ..ServerError::default()
        };
        Error::server(server, Outcome::NotCommitted)
    }
}

fn new(
    number: u64,
    payload: &Arc<Payload>,
    bytes: usize,
    ticket: &Ticket,
    death: Option<Death>,
) -> New<Held> {
    New {
        number,
        id: payload.id,
        lane: payload.lane.clone(),
        bytes,
        solo: payload.is_solo(),
        blocks: payload.stop_on_failure,
        data: Held { payload: Arc::clone(payload), ticket: ticket.clone(), keep: None, death },
    }
}

fn letter(payload: &Payload, death: &Death) -> DeadLetter {
    DeadLetter {
        id: payload.id,
        key: payload.key.as_deref().map(str::to_owned),
        lane: payload.lane.as_deref().map(str::to_owned),
        stops_lane: payload.stop_on_failure,
        died_at: UNIX_EPOCH + Duration::from_millis(death.at_unix_ms),
        statement: usize::try_from(death.statement).unwrap_or(usize::MAX),
        statements: payload.statements.iter().map(|it| it.sql.to_string()).collect(),
        sqlstate: death.sqlstate.clone(),
        message: death.message.clone(),
        detail: Some(death.detail.clone()).filter(|detail| !detail.is_empty()),
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither texts nor what the server says of values.
        f.debug_struct("DeadLetter")
            .field("id", &self.id)
            .field("lane", &self.lane)
            .field("statement", &self.statement)
            .field("sqlstate", &self.sqlstate)
            .finish_non_exhaustive()
    }
}

fn no_room() -> Error {
    Error::new(
        ErrorKind::Limit,
        "the queue of submissions is full (submit_queue_max, journal_bytes_max); nothing was handed \
         over: wait, or purge dead letters",
    )
}

fn no_dead_letter(id: Uuid) -> Error {
    Error::new(ErrorKind::Usage, format!("{id} is no dead letter of this client"))
}

fn closed(durable: bool) -> Error {
    let message = if durable {
        "the client was closed; the submission is in the journal and goes on when it is opened again"
    } else {
        "the client was closed, and the submission with it, for the journal is in memory; whether it \
         is committed is not known here"
    };
    Error::new(ErrorKind::Closed, message).with_outcome(Outcome::Unknown)
}

impl Drop for Submissions {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // The threads stayed behind in the process that forked this one.
            return;
        }
        self.shared.stop.store(true, Ordering::Release);
        {
            // So that nobody is between looking and waiting.
            let mut core = self.shared.lock();
            core.closed = true;
        }
        self.shared.work.notify_all();
        self.shared.stopping.notify_all();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads.filter(|threads| !threads.is_empty()) else {
            return self.shared.end();
        };
        let own = thread::current().id();
        let others: Vec<_> = threads.into_iter().filter(|it| it.thread().id() != own).collect();
        let deadline = Instant::now() + CLOSE_PATIENCE;
        while Instant::now() < deadline && others.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(1));
        }
        let wakers: Vec<LinkWaker> = self.shared.lock().wakers.values().cloned().collect();
        if others.iter().any(|thread| !thread.is_finished()) {
            wakers.iter().for_each(LinkWaker::shut_down);
        }
        for thread in others {
            drop(thread.join());
        }
    }
}
