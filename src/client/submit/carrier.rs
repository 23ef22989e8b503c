//! Carries submissions to one server and makes something of its answers: what is sent when, what an answer
//! means, what is told and what has to be sent again.
//!
//! Pure: no I/O, no thread, no clock. Whoever drives it gives it links ([`handle_link`], [`handle_lost`]),
//! what the queue hands out ([`send`]) and what has arrived ([`handle_input`], [`handle_backup`]); and takes
//! what is to be sent, what the backup is to be asked ([`poll_question`]) and what is to be done with the
//! queue ([`poll_deeds`]), after each of these. The client's thread (`runner`) does, and the simulation.
//!
//! Invariant: what is committed, and not told before it is confirmed, is told or sent again, whatever
//! becomes of the link.
//!
//! [`handle_link`]: Carrier::handle_link
//! [`handle_lost`]: Carrier::handle_lost
//! [`send`]: Carrier::send
//! [`handle_input`]: Carrier::handle_input
//! [`handle_backup`]: Carrier::handle_backup
//! [`poll_question`]: Carrier::poll_question
//! [`poll_deeds`]: Carrier::poll_deeds

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use uuid::Uuid;

use super::failure::{crashes, refusal, too_large, unmet, unreadable};
use super::pipe::{Answer, Fate, Pipe};
use super::queue::Job;
use super::submission::Payload;
use super::suspects::{Cause, Incarnation, Wreck};
use super::ticket::Executed;
use super::untold::{Untold, Word};
use crate::cluster::{Confirmed, LedgerAccess};
use crate::error::{Error, ErrorKind, Outcome, Result, ServerError};
use crate::mutation::{self, Mutation};

/// So many submissions are unanswered at most; below half of that, more are sent.
const WINDOW: usize = 128;

/// Between attempts to get a link, and to get through at all.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// One session of submissions.
pub struct Carrier {
    work: Option<AtWork>,
    /// What it may not fall behind, and which server was lost last.
    pub timeline_floor: u32,
    pub lost: Option<usize>,
    pause: Duration,
    /// Committed, and not told before they are confirmed, and the backup has them too.
    untold: Untold,
    /// The backup has not answered in time.
    backup_is_silent: bool,
    /// The link that was lost last, until the next one tells what it was lost by.
    wreck: Option<Wreck>,
    deeds: Vec<Deed>,
}

/// A server at which submissions can be carried out: the ledger is there, nobody else is at work in this
/// place, the claims are prepared.
pub struct AtWork {
    pub pipe: Pipe,
    /// Its number in the configuration.
    pub server: usize,
    pub timeline: u32,
    /// How submissions are claimed, and looked for.
    pub access: LedgerAccess,
    /// By which the backup is asked what it has.
    pub seals: Option<Seals>,
    /// `None`: the server does not say.
    pub incarnation: Option<Incarnation>,
}

/// The seals of one link: its row of the ledger, and the numbers that were sent and answered last.
pub struct Seals {
    row: Uuid,
    sent: i64,
    answered: u64,
}

/// What the queue hands out, with what is to be sent.
pub struct Taken {
    pub job: Job,
    /// `None`: the journal has nothing of it that can be read.
    pub payload: Option<Arc<Payload>>,
    /// Without statements prepared ahead.
    pub plain: bool,
}

/// What is to be done with the queue, in this order.
#[derive(Debug)]
pub enum Deed {
    /// They are committed, and their tickets may tell it.
    Tell(Vec<(u64, Executed)>),
    /// They are sent again as soon as may be.
    Again(Vec<u64>),
    /// The server has refused one, which is sent again or is dead.
    Refused { number: u64, statement: usize, error: Box<ServerError> },
    /// It can never succeed.
    Bury { number: u64, statement: usize, error: Error },
    /// A suspect may run: its last attempt is not committed, and is over.
    Claimed(u64),
    /// What was under way on a link that was lost by this; one of them with nothing beside it.
    Suspect { flying: Vec<u64>, alone: Option<u64>, cause: Cause },
    /// Why nothing can be run at present.
    Problem(Option<Error>),
}

/// Whether the backup has what was sealed with a number in a row of this server's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    pub row: Uuid,
    pub number: u64,
    pub server: usize,
}

/// Why the link is of no use any more; `None`: it broke.
#[derive(Debug)]
pub struct Lost(pub Option<Error>);

impl Seals {
    pub fn of(row: Uuid) -> Self {
        Self { row, sent: 0, answered: 0 }
    }

    /// The number of one more.
    fn send(&mut self) -> i64 {
        self.sent += 1;
        self.sent
    }

    /// The number of the one that is answered: they are in the order in which they were sent.
    fn answer(&mut self) -> u64 {
        self.answered += 1;
        self.answered
    }
}

impl Default for Carrier {
    fn default() -> Self {
        Self {
            work: None,
            timeline_floor: 0,
            lost: None,
            pause: PAUSE_MIN,
            untold: Untold::default(),
            backup_is_silent: false,
            wreck: None,
            deeds: Vec::new(),
        }
    }
}

impl Carrier {
    /// There is a link again. What was under way when the last one was lost is suspected of having crashed
    /// the server, or is not.
    pub fn handle_link(&mut self, work: AtWork) {
        self.lost = None;
        self.timeline_floor = self.timeline_floor.max(work.timeline);
        self.deeds.push(Deed::Problem(None));
        if let Some(wreck) = self.wreck.take() {
            let cause = wreck.cause(work.incarnation.as_ref());
            let Wreck { flying, alone, .. } = wreck;
            self.deeds.push(Deed::Suspect { flying, alone, cause });
        }
        self.work = Some(work);
    }

    pub fn is_linked(&self) -> bool {
        self.work.is_some()
    }

    /// Whether the cluster has moved away from the server of this link: `chosen` is where sessions belong,
    /// and there is a server on this timeline.
    pub fn is_left_behind(&self, chosen: Option<usize>, timeline: u32) -> bool {
        let Some(work) = &self.work else { return false };
        chosen.is_some_and(|chosen| chosen != work.server) || timeline > work.timeline
    }

    /// Whether nothing is unanswered.
    pub fn is_idle(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.pipe.is_empty())
    }

    /// Whether something is committed and not told.
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether so much is that nothing more may be sent.
    pub fn is_full(&self) -> bool {
        self.untold.is_full()
    }

    /// Whether the backup was asked and has not answered.
    pub fn is_asking(&self) -> bool {
        self.untold.is_asking()
    }

    /// For so long it is waited before a link is asked for again; each time that it is in vain, longer.
    pub fn take_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    /// So many may be sent now.
    pub fn room(&self) -> usize {
        let Some(AtWork { pipe, .. }) = &self.work else { return 0 };
        if pipe.is_alone() || self.untold.is_full() || pipe.jobs() > WINDOW / 2 {
            return 0;
        }
        WINDOW - pipe.jobs()
    }

    /// Appends to `out` what is to be sent of these, and their seal.
    pub fn send(&mut self, taken: Vec<Taken>, out: &mut BytesMut) {
        let Some(AtWork { pipe, seals, .. }) = &mut self.work else { return };
        let some = !taken.is_empty();
        for Taken { job, payload, plain } in taken {
            let refused = match payload {
                None => unreadable(),
                Some(payload) if pipe.push(&job, &payload, plain, out) => continue,
                Some(_) => too_large(),
            };
            let (number, error) = (job.number, Box::new(refused));
            self.deeds.push(Deed::Refused { number, statement: 0, error });
        }
        if let Some(seals) = seals.as_mut().filter(|_| some && !pipe.is_alone()) {
            pipe.push_seal(seals.row, seals.send(), out);
        }
    }

    /// Takes in what has arrived; appends to `out` what is to be sent in reply.
    pub fn handle_input(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> std::result::Result<(), Lost> {
        let Some(AtWork { pipe, seals, .. }) = &mut self.work else { return Ok(()) };
        let mut answers = Vec::new();
        let fed = pipe.feed(input, out, &mut answers);
        let sealing = seals.is_some() && !mutation::on(Mutation::TicketToldBeforeBackup);
        let sealed = answers.iter().rposition(|answer| matches!(answer, Answer::Sealed));
        let behind = &answers[sealed.map_or(0, |at| at + 1)..];
        let hold = behind.iter().any(|answer| must_be_held(answer, sealing));
        if hold && !pipe.is_sealing() {
            match seals {
                // It travelled alone: its seal follows.
                Some(seals) => pipe.push_seal(seals.row, seals.send(), out),
                None => pipe.push_confirmation(out),
            }
        }
        let settled = self.settle(answers, sealing);
        if let Err(malformed) = fed {
            return Err(Lost(Some(Error::new(ErrorKind::Protocol, malformed.to_string()))));
        }
        settled
    }

    /// Deals with answers. What is found done, and with `sealing` all that is committed, is held back
    /// until what was sent behind it is answered, and the backup has it.
    fn settle(&mut self, answers: Vec<Answer>, sealing: bool) -> std::result::Result<(), Lost> {
        let mut lost = None;
        let mut done = Vec::new();
        for answer in answers {
            match answer {
                Answer::Sealed => match self.work.as_mut().and_then(|work| work.seals.as_mut()) {
                    Some(seals) => self.untold.seal(seals.answer()),
                    None => done.extend(self.untold.all()),
                },
                Answer::Claimed(number) => self.deeds.push(Deed::Claimed(number)),
                Answer::NotSealed(error) => lost = Some(refusal(*error)),
                Answer::Job(number, Fate::Committed(rows)) => {
                    let executed = Executed { rows, found_done: false };
                    match sealing {
                        true => self.untold.push(number, executed),
                        false => done.push((number, executed)),
                    }
                }
                Answer::Job(number, Fate::FoundDone) => {
                    let executed = Executed { rows: Vec::new(), found_done: true };
                    match mutation::on(Mutation::FoundDoneToldAtOnce) {
                        true => done.push((number, executed)),
                        false => self.untold.push(number, executed),
                    }
                }
                Answer::Job(number, Fate::OutOfOrder) => self.deeds.push(Deed::Again(vec![number])),
                Answer::Job(number, Fate::NoClaim(error)) => {
                    self.deeds.push(Deed::Again(vec![number]));
                    lost = Some(refusal(*error));
                }
                Answer::Job(number, Fate::Failed { statement, error }) => {
                    self.pause = PAUSE_MIN;
                    self.deeds.push(Deed::Refused { number, statement, error });
                }
                Answer::Job(number, Fate::Unmet { statement, rows }) => {
                    self.bury(number, statement, unmet(statement, rows));
                }
                Answer::Job(number, Fate::Crashes) => self.bury(number, 0, crashes()),
            }
        }
        self.tell(done);
        lost.map_or(Ok(()), |error| Err(Lost(Some(error))))
    }

    fn bury(&mut self, number: u64, statement: usize, error: Error) {
        self.pause = PAUSE_MIN;
        self.deeds.push(Deed::Bury { number, statement, error });
    }

    fn tell(&mut self, done: Vec<(u64, Executed)>) {
        if !done.is_empty() {
            self.pause = PAUSE_MIN;
            self.deeds.push(Deed::Tell(done));
        }
    }

    /// What the backup is to be asked now. Its answer goes to [`handle_backup`](Self::handle_backup), unless
    /// the link is lost first.
    pub fn poll_question(&mut self) -> Option<Question> {
        let AtWork { server, seals: Some(seals), .. } = self.work.as_ref()? else { return None };
        let number = self.untold.poll_question()?;
        Some(Question { row: seals.row, number, server: *server })
    }

    /// The backup has answered.
    pub fn handle_backup(&mut self, word: Result<Confirmed>) -> std::result::Result<(), Lost> {
        match self.untold.handle_word(word) {
            Word::Has(told) => {
                if std::mem::take(&mut self.backup_is_silent) {
                    self.deeds.push(Deed::Problem(None));
                }
                self.tell(told);
            }
            Word::Silent(error) => {
                self.backup_is_silent = true;
                self.deeds.push(Deed::Problem(Some(error)));
            }
            Word::Moved => {
                return Err(Lost(Some(Error::new(
                    ErrorKind::FailoverTimeout,
                    "the server was left before the backup was known to have what was committed \
                     there: the next one is asked",
                ))));
            }
        }
        Ok(())
    }

    /// The link is lost, and this came last on it. What was unanswered is sent again on the next one.
    pub fn handle_lost(&mut self, Lost(why): Lost, input: &mut BytesMut) {
        let Some(mut work) = self.work.take() else { return };
        let mut unanswered = work.pipe.unanswered();
        let why = why.or_else(|| {
            let words = work.pipe.last_words(input);
            self.wreck = Some(Wreck {
                incarnation: work.incarnation.take(),
                flying: unanswered.clone(),
                alone: work.pipe.exposed(),
                words: words.clone(),
            });
            Some(Error::server(words?, Outcome::Unknown))
        });
        // A server whose ledger is missing is none that is lost.
        let refuses = why.as_ref().is_some_and(|error| {
            error.kind() == ErrorKind::Server && error.outcome() == Outcome::NotCommitted
        });
        let read_only = why.as_ref().is_some_and(|error| error.sqlstate() == "25006");
        self.lost = (!refuses || read_only).then_some(work.server);
        if let Some(error) = why {
            tracing::debug!(%error, "the link of submissions is given up");
            self.deeds.push(Deed::Problem(Some(error)));
        }
        // They are committed on a server that may be lost with them: asked again on the next one.
        let untold = self.untold.lose();
        if !mutation::on(Mutation::UntoldForgotten) {
            unanswered.extend(untold);
        }
        self.deeds.push(Deed::Again(unanswered));
    }

    /// What is to be done with the queue.
    pub fn poll_deeds(&mut self) -> Vec<Deed> {
        std::mem::take(&mut self.deeds)
    }
}

fn must_be_held(answer: &Answer, sealing: bool) -> bool {
    match answer {
        Answer::Job(_, Fate::FoundDone) => true,
        Answer::Job(_, Fate::Committed(_)) => sealing,
        _ => false,
    }
}
