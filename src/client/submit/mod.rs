//! Transactions handed over whole: kept first, then run until their outcome is known, exactly once.
//!
//! * `submission`: what is handed over; `ticket`: what is got for it; `letter`: dead letters, numbers;
//! * `queue` (pure): lanes, order, room; `store`: the journal, or memory;
//! * `suspects` (pure): which of them crash the server;
//! * `pipe` (pure): submissions as messages; `station`: a link made ready; `runner`: the threads;
//! * `untold`: what is committed and waits for the backup;
//! * `told` (pure): what was told, until the backup has it; `losses`: what a promotion has lost of it;
//! * `shared`: what these and their callers share.
//!
//! `docs/submit.md` says what may be relied on. An attempt may be made any number of times, whatever
//! became of those before: each begins by claiming its id in `segue.submission`, whose unique index
//! lets one of them through.

mod letter;
mod losses;
mod pipe;
mod queue;
mod runner;
mod shared;
mod station;
mod store;
mod submission;
mod suspects;
#[cfg(test)]
mod tests;
mod ticket;
mod told;
mod untold;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use uuid::Uuid;

pub use letter::{DeadLetter, SubmissionStatus};
pub use submission::Submission;
pub use ticket::{Executed, Ticket};

use super::event::{ClientEvent, Events, Subscription};
use super::journal::FileJournal;
use crate::cluster::{Cluster, ClusterEvent};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Reason, Recovered};
use crate::link::LinkWaker;
use letter::letter;
use runner::Runner;
use shared::{Held, Reserved, Shared, no_dead_letter};
use store::{Store, unix_ms};
use submission::id_of_key;
use suspects::Suspicion;

/// A message of the protocol cannot be larger.
const SUBMISSION_BYTES_MAX: usize = 1 << 30;
/// What is under way when the client is closed is given so long to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How long closing waits for a thread that is stuck in a callback.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Nobody waits longer for room.
const PATIENCE_MAX: Duration = Duration::from_secs(1 << 30);
/// Between two attempts to hand over to a journal that is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

/// The submissions of one client. Dropping it ends the threads; what has not ended stays in the
/// journal.
pub(super) struct Submissions {
    shared: Arc<Shared>,
    threads: Mutex<Option<Vec<JoinHandle<()>>>>,
    /// Names of the sessions to the cluster.
    sessions: Vec<u64>,
    process: u32,
    /// Tells the threads that the cluster has moved.
    moves: Option<Subscription>,
}

impl Submissions {
    /// Opens the store, and queues again what has not ended; `sessions` are names for the cluster.
    pub fn open(
        config: Arc<Config>,
        cluster: Arc<Cluster>,
        events: Arc<Events>,
        sessions: Vec<u64>,
        journal: Option<(Arc<FileJournal>, &Recovered)>,
    ) -> Result<Self> {
        let (file, recovered) = journal.unzip();
        let shared = Shared::new(config, cluster, events, Store::new(file), sessions.len());
        let shared = Arc::new(shared);
        let moves = Some(attend_moves(&shared));
        let (threads, process) = (Mutex::default(), std::process::id());
        let it = Self { shared, threads, sessions, process, moves };
        if let Some(recovered) = recovered {
            it.shared.store.unended(recovered, |it_was| it.shared.lock().refill(it_was))?;
            if it.shared.lock().queue.len() > 0 {
                it.start()?;
            }
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
            let thread =
                thread::Builder::new().name("segue-submit".to_owned()).spawn(move || runner.run());
            match thread {
                Ok(thread) => started.push(thread),
                Err(error) => {
                    // With some of them missing, their lanes would stand still without a word.
                    self.shared.stop();
                    *threads = Some(started);
                    let message = "a thread for submissions could not be started; none are run";
                    return Err(Error::new(ErrorKind::Limit, message).with_source(error));
                }
            }
        }
        *threads = Some(started);
        Ok(())
    }

    /// `room`: for so long it waits for room, if it may at all.
    pub fn submit(&self, submission: Submission, room: Option<Duration>) -> Result<Ticket> {
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
        let may_wait = room.is_some();
        let deadline =
            Instant::now() + room.unwrap_or(shared.config.failover.timeout).min(PATIENCE_MAX);
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
                    core.remember_payload(number, payload, shared.store.is_durable());
                    let entry = core.queue.get_mut(number);
                    let work = entry.and_then(|entry| {
                        entry.data.keep = Some(keep);
                        shared.work.get(entry.shard)
                    });
                    core.queue.kept(number);
                    core.totals.submitted += 1;
                    drop(core);
                    if let Some(work) = work {
                        work.notify_all();
                    }
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
        let mut dead: Vec<_> = {
            let core = self.shared.lock();
            let dead = core.queue.entries().filter_map(|(number, entry)| {
                let Held { payload, ticket, death, .. } = &entry.data;
                Some((number, ticket.clone(), payload.clone(), death.clone()?))
            });
            dead.collect()
        };
        dead.sort_unstable_by_key(|(number, ..)| *number);
        let read: Vec<u64> = dead
            .iter()
            .filter(|(_, _, payload, _)| payload.is_none())
            .map(|(number, ..)| *number)
            .collect();
        let mut read = self.shared.store.load(&read).unwrap_or_else(|error| {
            tracing::warn!(%error, "the statements of dead letters cannot be read");
            HashMap::new()
        });
        dead.into_iter()
            .map(|(number, ticket, payload, death)| {
                letter(&ticket, payload.or_else(|| read.remove(&number)).as_deref(), &death)
            })
            .collect()
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
        let death = entry.data.death.take();
        let crashed = death.is_some_and(|it| it.error.kind() == ErrorKind::ServerCrash);
        entry.suspicion = if crashed { Suspicion::suspected() } else { Suspicion::default() };
        let ticket = entry.data.ticket.clone();
        ticket.reopen();
        core.queue.revive(number);
        drop(core);
        self.shared.work.iter().for_each(Condvar::notify_all);
        Ok(ticket)
    }

    /// Forgets a dead letter for good; its lane goes on.
    pub fn purge(&self, id: Uuid) -> Result<()> {
        let (number, keep) = self.shared.take_dead(id)?;
        self.shared.store.end(keep);
        self.shared.store.flush();
        let mut core = self.shared.lock();
        core.forget_payload(number);
        core.queue.remove(number);
        drop(core);
        self.shared.work.iter().for_each(Condvar::notify_all);
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
            bytes: core.bytes(store.is_durable()),
            journal_bytes,
            submitted: totals.submitted,
            recovered: totals.recovered,
            committed: totals.committed,
            found_done: totals.found_done,
            resubmitted: totals.resubmitted,
            died: totals.died,
            lost: totals.lost,
            reapplied: totals.reapplied,
            problem: core.problem.clone(),
        }
    }
}

impl Drop for Submissions {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // The threads stayed behind in the process that forked this one, and so did whoever may hold
            // the lock that the end of a subscription takes.
            std::mem::forget(self.moves.take());
            return;
        }
        self.shared.stop();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads.filter(|threads| !threads.is_empty()) else {
            return self.shared.end();
        };
        let own = thread::current().id();
        let others: Vec<_> = threads.into_iter().filter(|it| it.thread().id() != own).collect();
        if !ended(&others, CLOSE_PATIENCE) {
            let wakers: Vec<LinkWaker> = self.shared.lock().wakers.values().cloned().collect();
            wakers.iter().for_each(LinkWaker::shut_down);
            if !ended(&others, CLOSE_LIMIT) {
                tracing::error!("a callback blocks a thread of submissions; it is left behind");
                return;
            }
        }
        for thread in others {
            drop(thread.join());
        }
    }
}

/// A thread without work would not find out before its next use of a link, and what it has told may
/// be lost.
fn attend_moves(shared: &Arc<Shared>) -> Subscription {
    let weak = Arc::downgrade(shared);
    shared.events.attend(Arc::new(move |event| {
        use ClusterEvent::{PrimaryChosen, Promoted};
        if let ClientEvent::Cluster(PrimaryChosen { .. } | Promoted { .. }) = event {
            if let Some(shared) = weak.upgrade() {
                shared.handle_move();
            }
        }
    }))
}

/// Waits for the end of the threads, for at most so long.
fn ended(threads: &[JoinHandle<()>], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if threads.iter().all(JoinHandle::is_finished) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
