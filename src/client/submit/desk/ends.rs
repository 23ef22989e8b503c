//! What becomes of submissions, recorded in the queue and in the journal, and told.

use super::Desk;
use crate::client::event::ClientEvent;
use crate::client::submit::carrier::Deed;
use crate::client::submit::failure::{After, SHORTAGE_MS, after, refusal};
use crate::client::submit::letter;
use crate::client::submit::losses::{Ended, Losses, tell_that_it_stays_lost};
use crate::client::submit::queue::Verdict;
use crate::client::submit::store::{Death, unix_ms};
use crate::client::submit::suspects::Cause;
use crate::client::submit::ticket::Executed;
use crate::error::{Error, ErrorKind, ServerError};
use crate::journal::JournalError;

impl Desk {
    /// Does what a session asks for, which remembers in `losses` what is told. Returns whether ends were handed to the journal that nobody has
    /// written.
    pub fn carry_out(&self, deeds: Vec<Deed>, losses: &mut Losses, now_ms: u64) -> bool {
        let mut unwritten = false;
        for deed in deeds {
            match deed {
                Deed::Tell(done) => {
                    unwritten |= self.store.is_durable();
                    self.tell(done, losses, now_ms);
                }
                Deed::Again(numbers) => {
                    let mut core = self.lock();
                    core.totals.resubmitted += numbers.len() as u64;
                    for number in numbers {
                        core.queue.settle(number, Verdict::Again { at: 0, plain: false });
                    }
                }
                Deed::Refused { number, statement, error } => {
                    self.refused(number, statement, *error, now_ms);
                }
                Deed::Bury { number, statement, error } => {
                    self.bury(number, statement, error, now_ms);
                }
                Deed::Claimed(number) => self.claimed(number),
                Deed::Suspect { flying, alone, cause } => {
                    self.suspect(flying, alone, cause, now_ms);
                }
                Deed::Problem(problem) => self.set_problem(problem.as_ref()),
            }
        }
        unwritten
    }

    fn again(&self, number: u64, at: u64, plain: bool) {
        let mut core = self.lock();
        core.totals.resubmitted += 1;
        core.queue.settle(number, Verdict::Again { at, plain });
    }

    /// They are committed: their tickets tell it.
    fn tell(&self, what: Vec<(u64, Executed)>, losses: &mut Losses, now_ms: u64) {
        let mut told = Vec::with_capacity(what.len());
        {
            let mut core = self.lock();
            for (number, executed) in what {
                let Some(entry) = core.queue.get_mut(number) else { continue };
                let (keep, ticket) = (entry.data.keep.take(), entry.data.ticket.clone());
                let payload = entry.data.payload.clone().filter(|_| losses.keeps_statements());
                let (bytes, lost) = (entry.bytes, entry.data.lost);
                core.totals.committed += 1;
                core.totals.found_done += u64::from(executed.found_done);
                core.remember(&ticket);
                core.forget_payload(number);
                core.queue.settle(number, Verdict::Done);
                told.push(Ended { number, ticket, keep, payload, bytes, executed, lost });
            }
        }
        self.room.notify_all();
        told.into_iter().for_each(|ended| losses.tell(self, ended, now_ms));
    }

    /// The server has refused a submission.
    fn refused(&self, number: u64, statement: usize, error: ServerError, now_ms: u64) {
        let (plain, attempts) = {
            let core = self.lock();
            let Some(entry) = core.queue.get(number) else { return };
            (entry.plain, entry.attempts)
        };
        match after(&error, attempts, plain) {
            After::Again { delay_ms: 0, plain } => self.again(number, 0, plain),
            After::Again { delay_ms, plain } => self.again(number, now_ms + delay_ms, plain),
            After::Shortage => {
                self.set_problem(Some(&refusal(error)));
                self.again(number, now_ms + SHORTAGE_MS, false);
            }
            After::Dead => self.bury(number, statement, refusal(error), now_ms),
        }
    }

    /// It can never succeed. Nobody is told before that is kept: else it might be run once more after
    /// a crash, and succeed.
    fn bury(&self, number: u64, statement: usize, error: Error, now_ms: u64) {
        let keep = self.lock().queue.get_mut(number).and_then(|it| it.data.keep.take());
        let Some(mut keep) = keep else { return };
        let death = Death {
            at_unix_ms: unix_ms(),
            statement: u32::try_from(statement).unwrap_or(u32::MAX),
            error: error.clone(),
        };
        let kept = self.store.bury(&mut keep, &death);
        let mut core = self.lock();
        let Some(entry) = core.queue.get_mut(number) else { return };
        let may_be_found = keep.refusal_may_be_found();
        entry.data.keep = Some(keep);
        match kept {
            Ok(()) => {
                let ticket = entry.data.ticket.clone();
                let event = ClientEvent::SubmissionDied {
                    id: ticket.id(),
                    key: ticket.key().map(str::to_owned),
                    sqlstate: error.sqlstate().to_owned(),
                    message: letter::message(&error),
                };
                entry.data.death = Some(Box::new(death));
                let lost = std::mem::take(&mut entry.data.lost);
                core.totals.died += 1;
                core.queue.settle(number, Verdict::Dead);
                if self.store.is_durable() {
                    core.forget_payload(number);
                }
                drop(core);
                ticket.tell(Err(error));
                if lost {
                    tell_that_it_stays_lost(self, &ticket);
                }
                self.events.emit(&event);
            }
            Err(why) => {
                entry.data.letter_refused |= may_be_found;
                drop(core);
                self.letter_not_kept(why);
                self.again(number, now_ms + SHORTAGE_MS, false);
            }
        }
    }

    fn letter_not_kept(&self, why: JournalError) {
        let message = "a dead letter could not be kept; it is tried again";
        tracing::warn!(error = %why, message);
        self.set_problem(Some(&Error::new(ErrorKind::ProtectionLost, message).with_source(why)));
    }

    /// A submission of which the journal has refused a dead letter is about to be run again: not before nobody can find
    /// that letter any more. Else it might be told to be done, and be found dead after a crash. Returns whether it
    /// may be run.
    pub(super) fn void_letter(&self, number: u64, now_ms: u64) -> bool {
        let keep = self.lock().queue.get_mut(number).and_then(|it| it.data.keep.take());
        let Some(mut keep) = keep else { return true };
        let voided = self.store.revive(&mut keep);
        let mut core = self.lock();
        let Some(entry) = core.queue.get_mut(number) else { return false };
        entry.data.keep = Some(keep);
        entry.data.letter_refused = voided.is_err();
        drop(core);
        let Err(why) = voided else { return true };
        self.letter_not_kept(why);
        self.again(number, now_ms + SHORTAGE_MS, false);
        false
    }

    /// What was under way when a link was lost is suspected of having crashed the server, or is not.
    fn suspect(&self, flying: Vec<u64>, alone: Option<u64>, cause: Cause, now_ms: u64) {
        let mut core = self.lock();
        for number in flying {
            let Some(entry) = core.queue.get_mut(number) else { continue };
            let delay = entry.suspicion.handle_loss(cause, alone == Some(number));
            if !delay.is_zero() {
                let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                core.queue.put_off(number, now_ms.saturating_add(delay));
            }
        }
    }

    /// A suspect may run: its last attempt is not committed, and is over.
    fn claimed(&self, number: u64) {
        let mut core = self.lock();
        let Some(entry) = core.queue.get_mut(number) else { return };
        if let Some(strikes) = entry.suspicion.handle_claim() {
            let id = entry.id;
            tracing::warn!(%id, strikes, "the server has crashed while it ran a submission alone");
        }
    }
}
