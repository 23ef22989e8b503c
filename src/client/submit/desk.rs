//! Where submissions are handed in, and where it is recorded what becomes of them: the queue under its
//! lock, and the journal.
//!
//! It knows neither threads nor servers: the time is an argument wherever it decides something. Invariants:
//! nothing is handed out before it is kept; a death is told once it is kept; an end is written behind the
//! commit that it speaks of.

mod ends;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::bell::Bell;
use super::carrier::Taken;
use super::core::{Core, Held, new};
use super::failure::SHORTAGE_MS;
use super::letter::{DeadLetter, SubmissionStatus, letter};
use super::queue::Verdict;
use super::store::{self, Keep, Store, unix_ms};
use super::submission::{Payload, Submission, id_of_key};
use super::suspects::Suspicion;
use super::ticket::Ticket;
use crate::client::event::Events;
use crate::client::journal::FileJournal;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::journal::{Reason, Recovered};
use crate::mutation::{self, Mutation};

/// A message of the protocol cannot be larger.
const SUBMISSION_BYTES_MAX: usize = 1 << 30;
/// Nobody waits longer for room.
const PATIENCE_MAX: Duration = Duration::from_secs(1 << 30);
/// Between two attempts to hand over to a journal that is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// Bytes that are sent at once, about.
const BATCH_BYTES: usize = 256 * 1024;

/// One client's submissions.
pub struct Desk {
    config: Arc<Config>,
    pub(super) events: Arc<Events>,
    pub store: Store,
    core: Arc<Mutex<Core>>,
    /// There may be something to send: one for each session, lest all wake for one submission.
    pub work: Arc<[Condvar]>,
    /// There may be room, or something is kept.
    room: Condvar,
}

/// What came of asking for a place in the queue.
enum Reserved {
    /// It is there already, or was: the same key.
    Known(Ticket),
    Place(Keep, Ticket),
}

impl Desk {
    /// Queues again what had not ended; `shards`: so many sessions.
    pub fn open(
        config: Arc<Config>,
        events: Arc<Events>,
        shards: usize,
        journal: Option<(Arc<FileJournal>, &Recovered)>,
    ) -> Result<Self> {
        let (file, recovered) = journal.unzip();
        let it = Self {
            config,
            events,
            store: Store::new(file),
            core: Arc::new(Mutex::new(Core::new(shards))),
            work: (0..shards).map(|_| Condvar::new()).collect(),
            room: Condvar::new(),
        };
        if let Some(recovered) = recovered {
            it.store.unended(recovered, |it_was| it.lock().refill(it_was))?;
        }
        Ok(it)
    }

    /// By which its threads are woken.
    pub fn bell(&self) -> Bell {
        Bell::new(&self.core, &self.work)
    }

    pub fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_empty(&self) -> bool {
        self.lock().queue.len() == 0
    }

    /// Nothing is handed in any more, and nobody waits.
    pub fn close(&self) {
        // Under the lock, so that nobody is between looking and waiting.
        self.lock().closed = true;
        self.work.iter().for_each(Condvar::notify_all);
        self.room.notify_all();
    }

    pub fn set_problem(&self, problem: Option<&Error>) {
        self.lock().problem = problem.map(|error| {
            let source = std::error::Error::source(error).map(|why| format!(": {why}"));
            format!("{error}{}", source.unwrap_or_default())
        });
    }

    /// `room`: for so long it waits for room, if it may at all.
    pub fn submit(&self, submission: Submission, room: Option<Duration>) -> Result<Ticket> {
        let payload = Arc::new(submission.into_payload(unix_ms())?);
        let bytes = payload.bytes();
        let most = self.config.limits.journal_bytes_max.min(SUBMISSION_BYTES_MAX);
        if bytes > most {
            return Err(Error::new(
                ErrorKind::Limit,
                "the submission is larger than journal_bytes_max allows; nothing was handed over",
            ));
        }
        let may_wait = room.is_some();
        let deadline =
            Instant::now() + room.unwrap_or(self.config.failover.timeout).min(PATIENCE_MAX);
        loop {
            let (mut keep, ticket) = match self.reserve(&payload, bytes, may_wait, deadline)? {
                Reserved::Known(ticket) => return Ok(ticket),
                Reserved::Place(keep, ticket) => (keep, ticket),
            };
            let number = keep.number();
            let kept = self.store.keep(&mut keep, &payload);
            let mut core = self.lock();
            match kept {
                Ok(()) => {
                    core.remember_payload(number, payload, self.store.is_durable());
                    let entry = core.queue.get_mut(number);
                    let work = entry.and_then(|entry| {
                        entry.data.keep = Some(keep);
                        self.work.get(entry.shard)
                    });
                    core.queue.kept(number);
                    core.totals.submitted += 1;
                    drop(core);
                    if let Some(work) = work {
                        work.notify_all();
                    }
                    self.room.notify_all();
                    return Ok(ticket);
                }
                Err(error) => {
                    core.queue.remove(number);
                    let full = error.reason() == Reason::Full;
                    let again = full && may_wait && Instant::now() < deadline && !core.closed;
                    self.room.notify_all();
                    if !again {
                        return Err(store::refused(error));
                    }
                    let waited = self.room.wait_timeout(core, FULL_PAUSE);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
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
            // What is on disk the journal itself has a limit for.
            let in_memory = !self.store.is_durable();
            let full = core.queue.len() >= limits.submit_queue_max
                || in_memory && core.queue.bytes() + bytes > limits.journal_bytes_max;
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

    /// The ticket of what has not ended, or has lately.
    pub fn ticket(&self, id: Uuid) -> Option<Ticket> {
        let core = self.lock();
        let queued = core.queue.find(id).and_then(|number| core.queue.get(number));
        queued.map(|entry| &entry.data.ticket).or_else(|| core.ended.get(&id)).cloned()
    }

    pub fn ticket_for_key(&self, key: &str) -> Option<Ticket> {
        self.ticket(id_of_key(key))
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut dead: Vec<_> = {
            let core = self.lock();
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
        let mut read = self.store.load(&read).unwrap_or_else(|error| {
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
        let (number, mut keep) = self.take_dead(id)?;
        let kept = self.store.revive(&mut keep);
        let mut core = self.lock();
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
        self.work.iter().for_each(Condvar::notify_all);
        Ok(ticket)
    }

    /// Forgets a dead letter for good; its lane goes on.
    pub fn purge(&self, id: Uuid) -> Result<()> {
        let (number, keep) = self.take_dead(id)?;
        self.store.end(keep);
        self.store.flush();
        let mut core = self.lock();
        core.forget_payload(number);
        core.queue.remove(number);
        drop(core);
        self.work.iter().for_each(Condvar::notify_all);
        self.room.notify_all();
        Ok(())
    }

    pub fn status(&self) -> SubmissionStatus {
        let store = &self.store;
        let journal_bytes = store.is_durable().then(|| store.disk_bytes());
        let core = self.lock();
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

    /// So many of them as one write should hold. What is not in memory is read from the journal.
    pub fn take(&self, shard: usize, room: usize, empty: bool, now: u64) -> Vec<Taken> {
        let mut taken = Vec::new();
        let mut letters = Vec::new();
        {
            let mut core = self.lock();
            let mut bytes = 0;
            for job in core.queue.take(shard, room, empty, now) {
                if bytes >= BATCH_BYTES {
                    // In their order, so that the queue has them as they were.
                    core.queue.settle(job.number, Verdict::Again { at: 0, plain: false });
                    continue;
                }
                let Some(entry) = core.queue.get_mut(job.number) else { continue };
                if mutation::on(Mutation::SubmissionEndedWhenSent) {
                    if let Some(keep) = entry.data.keep.replace(self.store.begin()) {
                        self.store.end(keep);
                    }
                }
                bytes += entry.bytes;
                if entry.data.letter_refused {
                    letters.push(job.number);
                }
                let (payload, plain) = (entry.data.payload.clone(), entry.plain);
                taken.push(Taken { job, payload, plain });
            }
        }
        // What is sent behind one that stays here is sent on the condition that it is done.
        letters.retain(|number| !self.void_letter(*number, now));
        taken.retain(|it| !letters.contains(&it.job.number));
        let missing = |it: &&mut Taken| it.payload.is_none();
        let read: Vec<u64> = taken.iter_mut().filter(missing).map(|it| it.job.number).collect();
        if read.is_empty() {
            return taken;
        }
        match self.store.load(&read) {
            Ok(mut found) => {
                for it in taken.iter_mut().filter(missing) {
                    it.payload = found.remove(&it.job.number);
                }
                taken
            }
            Err(error) => {
                let error =
                    Error::new(ErrorKind::ProtectionLost, "submissions cannot be read back")
                        .with_source(error);
                self.set_problem(Some(&error));
                let mut core = self.lock();
                for it in taken {
                    let again = Verdict::Again { at: now + SHORTAGE_MS, plain: false };
                    core.queue.settle(it.job.number, again);
                }
                Vec::new()
            }
        }
    }

    /// The last thread has ended: whoever waits is told.
    pub fn end(&self) {
        self.store.flush();
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

fn no_room() -> Error {
    Error::new(
        ErrorKind::Limit,
        "the queue of submissions is full (submit_queue_max; in memory, journal_bytes_max); nothing was \
         handed over: wait, or purge dead letters",
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
