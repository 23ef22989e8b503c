//! Transactions handed over whole: kept first, then run until their outcome is known, exactly once.
//!
//! * `submission`: what is handed over; `ticket`: what is got for it; `letter`: dead letters, numbers;
//! * `desk`: where they are handed in, and their ends recorded; `core`: what is in memory of them; `queue`
//!   (pure): lanes, order, room; `store`: the journal, or memory;
//! * `carrier` (pure): takes them to one server, and decides what its answers mean; `pipe`, `messages`
//!   (pure): submissions as messages; `untold` (pure): what is committed and waits for the backup;
//!   `told` (pure): what was told, until the backup has it; `losses`: what a promotion has lost of it;
//!   `suspects` (pure): which of them crash the server; `failure` (pure): which errors are final;
//! * `opening` (pure): what a server is asked before it is given any; `station`: asks it; `runner`: the
//!   threads; `shared`: what these and their callers share; `bell`: wakes the threads.
//!
//! The simulation drives `desk`, `carrier`, `losses` and `opening` as the threads do (`docs/simulation.md`).
//!
//! `docs/submit.md` says what may be relied on. An attempt may be made any number of times, whatever
//! became of those before: each begins by claiming its id in `segue.submission`, whose unique index
//! lets one of them through.

mod bell;
pub mod carrier;
pub mod core;
pub mod desk;
mod failure;
mod letter;
pub mod losses;
mod messages;
pub mod opening;
pub mod pipe;
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

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
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
use crate::journal::Recovered;
use crate::link::LinkWaker;
use desk::Desk;
use runner::Runner;
use shared::Shared;

/// What is under way when the client is closed is given so long to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How long closing waits for a thread that is stuck in a callback.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
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
        let desk = Desk::open(Arc::clone(&config), events, sessions.len(), journal)?;
        let (threads, process) = (Mutex::default(), std::process::id());
        let shared = Arc::new(Shared::new(config, cluster, desk));
        let moves = Some(attend_moves(&shared));
        let it = Self { shared, threads, sessions, process, moves };
        if !it.shared.desk.is_empty() {
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
        self.shared.desk.submit(submission, room)
    }

    /// The ticket of what has not ended, or has lately.
    pub fn ticket(&self, id: Uuid) -> Option<Ticket> {
        self.shared.desk.ticket(id)
    }

    pub fn ticket_for_key(&self, key: &str) -> Option<Ticket> {
        self.shared.desk.ticket_for_key(key)
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        self.shared.desk.dead_letters()
    }

    /// Runs a dead letter again, ahead of what is queued in its lane.
    pub fn retry(&self, id: Uuid) -> Result<Ticket> {
        self.start()?;
        self.shared.desk.retry(id)
    }

    /// Forgets a dead letter for good; its lane goes on.
    pub fn purge(&self, id: Uuid) -> Result<()> {
        self.shared.desk.purge(id)
    }

    pub fn status(&self) -> SubmissionStatus {
        self.shared.desk.status()
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
            return self.shared.desk.end();
        };
        let own = thread::current().id();
        let others: Vec<_> = threads.into_iter().filter(|it| it.thread().id() != own).collect();
        if !ended(&others, CLOSE_PATIENCE) {
            let wakers: Vec<LinkWaker> = self.shared.wakers().values().cloned().collect();
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
    let bell = shared.bell.clone();
    shared.desk.events.attend(Arc::new(move |event| {
        use ClusterEvent::{PrimaryChosen, Promoted};
        if let ClientEvent::Cluster(PrimaryChosen { .. } | Promoted { .. }) = event {
            bell.handle_move();
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
