//! What a thread remembers of what it has told, and what it does about what a promotion has lost of it.
//!
//! With `on_commits_lost=report` names alone are kept; what is lost is told, once. With `reapply`
//! statements are kept too, in memory or in the journal, until the backup has them: what is lost is queued
//! again under its old number, and so ahead of all that its lane has got since. Its claim sees to it
//! that it is done once. What `told` decides is carried out here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::queue::New;
use super::shared::{Held, Shared};
use super::station::Station;
use super::store::Keep;
use super::submission::Payload;
use super::ticket::{Executed, Ticket};
use super::told::{Limits, Told};
use crate::client::event::{ClientEvent, SubmissionName};
use crate::cluster::LedgerAccess;
use crate::config::{Config, OnCommitsLost};
use crate::error::{Error, ErrorKind};

/// Names that are remembered where the configuration has one server: as many as tickets are anyway.
const ALONE_MAX: usize = 4096;
/// Names of what the backup has that are remembered, in all threads.
const CONFIRMED_MAX: usize = 16_384;
const CONFIRMED_AGE_MS: u64 = 10 * 60 * 1000;
/// Nothing that was told longer ago is looked for: its claim may have been purged.
pub const AGE_MS: u64 = 24 * 60 * 60 * 1000;

/// A submission that has ended well, as its runner hands it in.
pub struct Ended {
    pub number: u64,
    pub ticket: Ticket,
    pub keep: Option<Keep>,
    pub payload: Option<Arc<Payload>>,
    pub bytes: usize,
    pub executed: Executed,
    /// It was told before, lost, and run again.
    pub lost: bool,
}

/// What is needed to run it again; the statements are in the journal if they are not here.
struct Whole {
    number: u64,
    keep: Keep,
    payload: Option<Arc<Payload>>,
}

pub struct Losses {
    shared: Arc<Shared>,
    /// Which part of the queue is the thread's, and its name to the cluster.
    shard: usize,
    session: u64,
    reapply: bool,
    told: Told<Ticket, Whole>,
    /// How claims are looked for on the link in use.
    access: LedgerAccess,
}

impl Losses {
    pub fn new(shared: Arc<Shared>, shard: usize, session: u64) -> Self {
        let told = Told::new(limits(&shared.config, shared.store.is_durable()));
        let reapply = shared.config.ledger.on_commits_lost == OnCommitsLost::Reapply;
        let weak = Arc::downgrade(&shared);
        let wake = move || {
            if let Some(shared) = weak.upgrade() {
                shared.wake(shard);
            }
        };
        shared.cluster.backlog().attend(session, Arc::new(wake));
        Self { shared, shard, session, reapply, told, access: LedgerAccess::None }
    }

    /// Whether the statements of what has ended are kept in memory: the journal's are read back when they
    /// are needed, or a standby that lags would have memory filled with them.
    pub fn keeps_statements(&self) -> bool {
        self.reapply && !self.shared.store.is_durable()
    }

    /// It is committed: remembered first, and then told.
    pub fn tell(&mut self, ended: Ended) {
        let Ended { number, ticket, keep, payload, bytes, executed, lost } = ended;
        let vouches = !executed.found_done;
        let whole = match (keep, self.reapply) {
            (Some(mut keep), true) => {
                self.shared.store.told(&mut keep);
                Some((bytes, Whole { number, keep, payload }))
            }
            (Some(keep), false) => {
                self.shared.store.end(keep);
                None
            }
            (None, _) => None,
        };
        let now = self.shared.now_ms();
        self.told.push(ticket.id(), vouches, now, ticket.clone(), whole);
        self.shared.cluster.backlog().note(self.session, self.access, |claims| {
            claims.note((ticket.id(), vouches));
        });
        self.end_released();
        let name = name_of(&ticket);
        ticket.tell(Ok(executed));
        if lost && vouches {
            self.shared.lock().totals.reapplied += 1;
            let SubmissionName { id, key } = name;
            self.shared.events.emit(&ClientEvent::SubmissionReapplied { id, key });
        }
    }

    /// What need not be run again has no place in the journal any more.
    fn end_released(&mut self) {
        for whole in self.told.take_released() {
            self.shared.store.end(whole.keep);
        }
    }

    /// Takes in what the backup was found to have.
    pub fn hear_backup(&mut self) {
        if self.told.is_empty() {
            return;
        }
        for id in self.shared.cluster.backlog().take_news(self.session) {
            self.told.handle_backup_has(id);
        }
        self.end_released();
    }

    /// Whether there is something for the thread to do here though nothing is queued.
    pub fn is_due(&self, has_link: bool) -> bool {
        let moved = || self.shared.moved[self.shard].load(Ordering::Acquire);
        let news = || self.shared.cluster.backlog().has_news(self.session);
        !self.told.is_empty() && (!has_link || moved() || news())
    }

    /// Whether the cluster has moved away from the server of an idle link: what was told has to be
    /// looked for on the next one.
    pub fn must_leave(&self, station: &Station) -> bool {
        if !self.shared.moved[self.shard].swap(false, Ordering::AcqRel) || self.told.is_empty() {
            return false;
        }
        let status = self.shared.cluster.status();
        let elsewhere = status.chosen.is_some_and(|chosen| chosen != station.server);
        elsewhere || status.timeline_floor > station.timeline
    }

    /// Looks on a new link for what was told. What is missing there is lost.
    pub fn look(&mut self, station: &mut Station) -> Result<(), Error> {
        self.access = station.access;
        self.hear_backup();
        let ids = self.told.witnesses();
        if ids.is_empty() {
            return Ok(());
        }
        let there = match station.claimed(&ids) {
            Err(error) if error.sqlstate().starts_with("42") => {
                // Submissions can be run here, and that goes first.
                tracing::error!(
                    %error,
                    "whether submissions that were told to be committed are on this server cannot be \
                     looked up: have the owner of the ledger run `segue setup`"
                );
                return Ok(());
            }
            there => there?,
        };
        if ids.iter().any(|id| !there.contains(id)) {
            let now = self.shared.now_ms();
            let ids = self.told.ids(now);
            let there = station.claimed(&ids)?;
            self.lose(&there, now);
        }
        let open = self.told.open_witnesses();
        self.shared
            .cluster
            .backlog()
            .note(self.session, self.access, |claims| claims.restart(open));
        Ok(())
    }

    /// Of all that is remembered, the server that has taken over has these alone.
    fn lose(&mut self, there: &HashSet<uuid::Uuid>, now: u64) {
        let losses = self.told.take_lost(there, now);
        self.end_released();
        let (mut named, mut again) = (Vec::new(), Vec::new());
        for (ticket, whole) in losses.lost {
            match whole {
                Some(whole) => again.push((ticket, whole)),
                None => named.push(ticket),
            }
        }
        named.extend(self.queue_again(again));
        self.shared.work.iter().for_each(std::sync::Condvar::notify_all);
        if named.is_empty() && !losses.others {
            return;
        }
        {
            let mut core = self.shared.lock();
            core.totals.lost += named.len() as u64;
            // Handed over again under its key, it is run again.
            named.iter().for_each(|ticket| core.forget(ticket.id()));
        }
        let submissions = named.iter().map(name_of).collect();
        named.iter().for_each(|ticket| ticket.tell(Err(lost())));
        let others = losses.others;
        self.shared.events.emit(&ClientEvent::SubmissionsLost { submissions, others });
    }

    /// Queues what is lost once more. Returns the tickets of what cannot be.
    fn queue_again(&self, lost: Vec<(Ticket, Whole)>) -> Vec<Ticket> {
        let shared = &self.shared;
        let in_journal = |(_, whole): &&(Ticket, Whole)| whole.payload.is_none();
        let numbers: Vec<u64> = lost.iter().filter(in_journal).map(|(_, it)| it.number).collect();
        let mut read = shared.store.load(&numbers).unwrap_or_else(|error| {
            tracing::error!(%error, "submissions that are lost cannot be read back from the journal");
            HashMap::new()
        });
        let (mut cannot, mut ended, mut followed) = (Vec::new(), Vec::new(), Vec::new());
        let mut core = shared.lock();
        for (ticket, Whole { number, keep, payload }) in lost {
            let Some(payload) = payload.or_else(|| read.remove(&number)) else {
                ended.push(keep);
                cannot.push(ticket);
                continue;
            };
            let queued = core.queue.find(payload.id);
            if let Some(queued) = queued {
                // It was handed over again under its key, and that is run, unless it has died.
                ended.push(keep);
                let dead = core.queue.is_dead(queued);
                match core.queue.get_mut(queued).filter(|_| !dead) {
                    Some(entry) => {
                        entry.data.lost = true;
                        followed.push((entry.data.ticket.clone(), ticket));
                    }
                    None => cannot.push(ticket),
                }
                continue;
            }
            core.forget(payload.id);
            ticket.reopen();
            core.queue.reserve(New {
                number,
                id: payload.id,
                lane: payload.lane.clone(),
                bytes: payload.bytes(),
                solo: payload.is_solo(),
                blocks: payload.stop_on_failure,
                data: Held { payload: None, ticket, keep: Some(keep), death: None, lost: true },
            });
            core.remember_payload(number, payload, shared.store.is_durable());
            core.queue.kept(number);
        }
        drop(core);
        ended.into_iter().for_each(|keep| shared.store.end(keep));
        for (ahead, ticket) in followed {
            ticket.reopen();
            ahead.on_done(move |outcome| ticket.tell(outcome.clone()));
        }
        cannot
    }
}

impl Drop for Losses {
    fn drop(&mut self) {
        self.shared.cluster.backlog().leave(self.session);
    }
}

/// What was lost, and was run again, has become a dead letter.
pub fn tell_that_it_stays_lost(shared: &Shared, ticket: &Ticket) {
    shared.lock().totals.lost += 1;
    let submissions = vec![name_of(ticket)];
    shared.events.emit(&ClientEvent::SubmissionsLost { submissions, others: false });
}

fn name_of(ticket: &Ticket) -> SubmissionName {
    SubmissionName { id: ticket.id(), key: ticket.key().map(str::to_owned) }
}

/// What each thread may remember.
fn limits(config: &Config, durable: bool) -> Limits {
    let threads = config.limits.submit_sessions.max(1);
    let bytes = match durable {
        // It must not keep out what is new.
        true => {
            config.limits.journal_bytes_max.min(config.limits.journal_dir_bytes_max / 4 / threads)
        }
        false => config.limits.journal_bytes_max,
    };
    let names = match config.hosts.len() {
        1 => config.limits.submit_queue_max.min(ALONE_MAX),
        _ => config.limits.submit_queue_max,
    };
    Limits {
        names: (names / threads).max(1),
        confirmed: CONFIRMED_MAX / threads,
        bytes,
        age_ms: AGE_MS,
        confirmed_age_ms: CONFIRMED_AGE_MS,
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::ProtectionLost,
        "the submission was committed, and told to be; the server that took over does not have it \
         (asynchronous replication): nothing of it is committed there, and it is not run again by itself: \
         hand it over again, under the same key if it has one",
    )
}
