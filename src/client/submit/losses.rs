//! What a session remembers of what it has told, and what it does about what a promotion has lost of it.
//!
//! With `on_commits_lost=report` names alone are kept; what is lost is told, once. With `reapply`
//! statements are kept too, in memory or in the journal, until the backup has them: what is lost is queued
//! again under its old number, and so ahead of all that its lane has got since. Its claim sees to it
//! that it is done once. What `told` decides is carried out here, at the desk; it knows neither threads
//! nor servers, and the time is an argument.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar};

use uuid::Uuid;

use super::core::Held;
use super::desk::Desk;
use super::queue::New;
use super::store::Keep;
use super::submission::Payload;
use super::ticket::{Executed, Ticket};
use super::told::{Limits, Told};
use crate::client::event::{ClientEvent, SubmissionName};
use crate::config::{Config, OnCommitsLost};
use crate::error::{Error, ErrorKind, Result};
use crate::mutation::{self, Mutation};

/// Names that are remembered where the configuration has one server: as many as tickets are anyway.
const ALONE_MAX: usize = 4096;
/// Names of what the backup has that are remembered, in all sessions.
const CONFIRMED_MAX: usize = 16_384;
const CONFIRMED_AGE_MS: u64 = 10 * 60 * 1000;
/// Nothing that was told longer ago is looked for: its claim may have been purged.
pub const AGE_MS: u64 = 24 * 60 * 60 * 1000;

/// A submission that has ended well, as the desk hands it in.
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

/// What one session has told.
pub struct Losses {
    reapply: bool,
    /// Statements are in the journal.
    durable: bool,
    told: Told<Ticket, Whole>,
    /// What the backup is to be asked for beside what it was, each with whether it vouches for all before.
    notes: Vec<(Uuid, bool)>,
}

impl Losses {
    pub fn new(config: &Config, durable: bool) -> Self {
        let told = Told::new(limits(config, durable));
        let reapply = config.ledger.on_commits_lost == OnCommitsLost::Reapply;
        Self { reapply, durable, told, notes: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Whether the statements of what has ended are kept in memory: the journal's are read back when they
    /// are needed, or a standby that lags would have memory filled with them.
    pub fn keeps_statements(&self) -> bool {
        self.reapply && !self.durable
    }

    /// It is committed: remembered first, and then told.
    pub fn tell(&mut self, desk: &Desk, ended: Ended, now_ms: u64) {
        let Ended { number, ticket, keep, payload, bytes, executed, lost } = ended;
        let vouches = !executed.found_done;
        let whole = match (keep, self.reapply) {
            (Some(mut keep), true) if !mutation::on(Mutation::ToldEndedInJournal) => {
                desk.store.told(&mut keep);
                Some((bytes, Whole { number, keep, payload }))
            }
            (Some(keep), _) => {
                desk.store.end(keep);
                None
            }
            (None, _) => None,
        };
        self.told.push(ticket.id(), vouches, now_ms, ticket.clone(), whole);
        self.notes.push((ticket.id(), vouches));
        if mutation::on(Mutation::BackupTakenToHave) {
            self.told.handle_backup_has(ticket.id());
        }
        self.end_released(desk);
        let name = name_of(&ticket);
        ticket.tell(Ok(executed));
        if lost && vouches {
            desk.lock().totals.reapplied += 1;
            let SubmissionName { id, key } = name;
            desk.events.emit(&ClientEvent::SubmissionReapplied { id, key });
        }
    }

    /// What the backup is to be asked for from now on, too.
    pub fn poll_notes(&mut self) -> Vec<(Uuid, bool)> {
        std::mem::take(&mut self.notes)
    }

    /// What it is to be asked for in all.
    pub fn open_witnesses(&mut self) -> Vec<(Uuid, bool)> {
        self.notes.clear();
        self.told.open_witnesses()
    }

    /// What need not be run again has no place in the journal any more.
    fn end_released(&mut self, desk: &Desk) {
        for whole in self.told.take_released() {
            desk.store.end(whole.keep);
        }
    }

    /// The backup was found to have these.
    pub fn handle_backup_has(&mut self, desk: &Desk, ids: Vec<Uuid>) {
        ids.into_iter().for_each(|id| self.told.handle_backup_has(id));
        self.end_released(desk);
    }

    /// Looks on a new server for what was told: `claimed` says which of some submissions it has. What is
    /// missing there is lost.
    pub fn look(
        &mut self,
        desk: &Desk,
        now_ms: u64,
        mut claimed: impl FnMut(&[Uuid]) -> Result<HashSet<Uuid>>,
    ) -> Result<()> {
        let ids = self.told.witnesses();
        if ids.is_empty() || mutation::on(Mutation::LossNotLookedFor) {
            return Ok(());
        }
        let there = match claimed(&ids) {
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
            let ids = self.told.ids(now_ms);
            let there = claimed(&ids)?;
            self.lose(desk, &there, now_ms);
        }
        Ok(())
    }

    /// Of all that is remembered, the server that has taken over has these alone.
    fn lose(&mut self, desk: &Desk, there: &HashSet<Uuid>, now_ms: u64) {
        let losses = self.told.take_lost(there, now_ms);
        self.end_released(desk);
        let (mut named, mut again) = (Vec::new(), Vec::new());
        for (ticket, whole) in losses.lost {
            match whole {
                Some(whole) => again.push((ticket, whole)),
                None => named.push(ticket),
            }
        }
        named.extend(queue_again(desk, again));
        desk.work.iter().for_each(Condvar::notify_all);
        if named.is_empty() && !losses.others {
            return;
        }
        // Their ends may not have been written yet. Found by a later process, they would be run again, after somebody
        // was told that they are not.
        desk.store.flush();
        {
            let mut core = desk.lock();
            core.totals.lost += named.len() as u64;
            // Handed over again under its key, it is run again.
            named.iter().for_each(|ticket| core.forget(ticket.id()));
        }
        let submissions = named.iter().map(name_of).collect();
        named.iter().for_each(|ticket| ticket.tell(Err(lost())));
        let others = losses.others;
        desk.events.emit(&ClientEvent::SubmissionsLost { submissions, others });
    }
}

/// Queues what is lost once more. Returns the tickets of what cannot be.
fn queue_again(desk: &Desk, lost: Vec<(Ticket, Whole)>) -> Vec<Ticket> {
    let in_journal = |(_, whole): &&(Ticket, Whole)| whole.payload.is_none();
    let numbers: Vec<u64> = lost.iter().filter(in_journal).map(|(_, it)| it.number).collect();
    let mut read = desk.store.load(&numbers).unwrap_or_else(|error| {
        tracing::error!(%error, "submissions that are lost cannot be read back from the journal");
        HashMap::new()
    });
    let (mut cannot, mut ended, mut followed) = (Vec::new(), Vec::new(), Vec::new());
    let mut core = desk.lock();
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
            data: Held {
                payload: None,
                ticket,
                keep: Some(keep),
                death: None,
                letter_refused: false,
                lost: true,
            },
        });
        core.remember_payload(number, payload, desk.store.is_durable());
        core.queue.kept(number);
    }
    drop(core);
    ended.into_iter().for_each(|keep| desk.store.end(keep));
    for (ahead, ticket) in followed {
        ticket.reopen();
        ahead.on_done(move |outcome| ticket.tell(outcome.clone()));
    }
    cannot
}

/// What was lost, and was run again, has become a dead letter.
pub fn tell_that_it_stays_lost(desk: &Desk, ticket: &Ticket) {
    desk.lock().totals.lost += 1;
    let submissions = vec![name_of(ticket)];
    desk.events.emit(&ClientEvent::SubmissionsLost { submissions, others: false });
}

fn name_of(ticket: &Ticket) -> SubmissionName {
    SubmissionName { id: ticket.id(), key: ticket.key().map(str::to_owned) }
}

/// What each session may remember.
fn limits(config: &Config, durable: bool) -> Limits {
    let sessions = config.limits.submit_sessions.max(1);
    let bytes = match durable {
        // It must not keep out what is new.
        true => {
            config.limits.journal_bytes_max.min(config.limits.journal_dir_bytes_max / 4 / sessions)
        }
        false => config.limits.journal_bytes_max,
    };
    let names = match config.hosts.len() {
        1 => config.limits.submit_queue_max.min(ALONE_MAX),
        _ => config.limits.submit_queue_max,
    };
    Limits {
        names: (names / sessions).max(1),
        confirmed: CONFIRMED_MAX / sessions,
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
