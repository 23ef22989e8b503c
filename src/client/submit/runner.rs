//! The threads that run submissions: each takes what the queue hands out, sends it, and says what has
//! become of it.
//!
//! It decides which errors are final. Whatever is not is sent again, for ever: the claim sees to it
//! that nothing is done twice.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::letter;
use super::losses::{Ended, Losses, tell_that_it_stays_lost};
use super::pipe::{Answer, Fate};
use super::queue::{Job, Verdict};
use super::shared::Shared;
use super::station::Station;
use super::store::{Death, unix_ms};
use super::submission::Payload;
use super::suspects::{Incarnation, STRIKES, Wreck};
use super::ticket::Executed;
use super::untold::{Sealed, Untold, Word};
use crate::client::event::ClientEvent;
use crate::cluster::Want;
use crate::error::{Error, ErrorKind, Outcome, ServerError};

/// So many submissions are unanswered at most; below half of that, more are sent.
const WINDOW: usize = 128;
/// Bytes that are sent at once, about.
const BATCH_BYTES: usize = 256 * 1024;

/// Between attempts to get a link, and to get through at all.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After a conflict with other transactions.
const CONFLICT_MIN_MS: u64 = 5;
const CONFLICT_MAX_MS: u64 = 1000;
/// After a server has run out of something.
const SHORTAGE_MS: u64 = 500;
/// What a server says before it closes a link is waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// While the backup is asked, an answer of the server's is waited for so long before that is seen to.
const ATTENTION: Duration = Duration::from_millis(10);
/// When the client is closed, the backup's word is waited for so long.
const FAREWELL: Duration = Duration::from_millis(500);

pub(super) struct Runner {
    shared: Arc<Shared>,
    /// Which part of the queue, and which place on servers, is its own.
    shard: usize,
    /// Its name to the cluster.
    session: u64,
    station: Option<Station>,
    timeline_floor: u32,
    lost: Option<usize>,
    pause: Duration,
    /// Ends are handed in that nobody has written.
    unwritten: bool,
    /// Committed, and not told before they are confirmed, and the backup has them too.
    untold: Untold,
    /// Told, and what to do should a promotion lose it.
    losses: Losses,
    /// The backup has not answered in time.
    backup_is_silent: bool,
    /// The link that was lost last, until the next one tells what it was lost by.
    wreck: Option<Wreck>,
}

/// Why the link is of no use any more.
struct Lost(Option<Error>);

impl Runner {
    pub fn new(shared: Arc<Shared>, shard: usize, session: u64) -> Self {
        let losses = Losses::new(Arc::clone(&shared), shard, session);
        Self {
            shared,
            shard,
            session,
            losses,
            station: None,
            timeline_floor: 0,
            lost: None,
            pause: PAUSE_MIN,
            unwritten: false,
            untold: Untold::default(),
            backup_is_silent: false,
            wreck: None,
        }
    }

    pub fn run(mut self) {
        while !self.shared.stops() {
            if !self.wait_for_work() {
                continue;
            }
            if self.station.is_none() {
                self.find_station();
                continue;
            }
            if self.station.as_ref().is_some_and(|station| self.losses.must_leave(station)) {
                self.lose(Lost(Some(moved())));
                continue;
            }
            if let Err(lost) = self.pump() {
                self.lose(lost);
            }
        }
        self.say_farewell();
        if let Some(station) = self.station.take() {
            self.leave_server();
            if station.pipe.is_empty() {
                station.link.close();
            } else {
                station.link.abandon();
            }
        }
    }

    /// Whether there is something to do now.
    fn wait_for_work(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let now = shared.now_ms();
        let core = shared.lock();
        let work = !self.untold.is_full() && core.queue.has_work(self.shard, now);
        let due = self.untold.is_answered() || self.losses.is_due(self.station.is_some());
        if work || due {
            return true;
        }
        if std::mem::take(&mut self.unwritten) {
            drop(core);
            shared.store.flush();
            return false;
        }
        // A link that the cluster has given up meanwhile is found out about with the next use.
        let wait = core.queue.due(self.shard).map_or(Duration::from_secs(60), |at| {
            Duration::from_millis(at.saturating_sub(now).max(1))
        });
        if let Some(work) = shared.work.get(self.shard) {
            drop(work.wait_timeout(core, wait).unwrap_or_else(PoisonError::into_inner));
        }
        false
    }

    fn find_station(&mut self) {
        let shared = Arc::clone(&self.shared);
        let want = Want {
            session: self.session,
            timeline_floor: self.timeline_floor,
            writes: true,
            lost: self.lost,
            deadline: Instant::now() + shared.config.failover.timeout,
        };
        let place = (shared.store.id, self.shard, &shared.backends);
        let opened = Station::open((&shared.config, &shared.cluster), place, &want, &shared.stop);
        match opened.and_then(|mut station| self.losses.look(&mut station).map(|()| station)) {
            Ok(station) => {
                self.lost = None;
                self.timeline_floor = self.timeline_floor.max(station.timeline);
                shared.lock().wakers.insert(self.shard, station.link.waker());
                shared.set_problem(None);
                self.judge(station.incarnation.as_ref());
                self.station = Some(station);
            }
            Err(error) => {
                self.leave_server();
                if !shared.stops() {
                    tracing::debug!(%error, "submissions wait");
                    shared.set_problem(Some(&error));
                    self.take_pause();
                }
            }
        }
    }

    fn take_pause(&mut self) {
        self.shared.pause(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn leave_server(&self) {
        self.shared.cluster.deregister(self.session);
        self.shared.lock().wakers.remove(&self.shard);
        self.shared.backends.leave(self.shard);
    }

    /// What was unanswered is sent again on the next link.
    fn lose(&mut self, Lost(why): Lost) {
        let Some(mut station) = self.station.take() else { return };
        let mut unanswered = station.pipe.unanswered();
        let why = why.or_else(|| {
            let Station { link, pipe, input, incarnation, .. } = &mut station;
            link.drain(input, LAST_WORDS);
            let words = pipe.last_words(input);
            self.wreck = Some(Wreck {
                incarnation: incarnation.take(),
                flying: unanswered.clone(),
                alone: pipe.exposed(),
                words: words.clone(),
            });
            Some(Error::server(words?, Outcome::Unknown))
        });
        if let Some(error) = &why {
            tracing::debug!(%error, "the link of submissions is given up");
            self.shared.set_problem(Some(error));
        }
        // A server whose ledger is missing is none that is lost.
        let refuses = why.as_ref().is_some_and(|error| {
            error.kind() == ErrorKind::Server && error.outcome() == Outcome::NotCommitted
        });
        let read_only = why.as_ref().is_some_and(|error| error.sqlstate() == "25006");
        self.lost = (!refuses || read_only).then_some(station.server);
        // They are committed on a server that may be lost with them: asked again on the next one.
        unanswered.extend(self.untold.lose());
        station.link.abandon();
        self.leave_server();
        {
            let mut core = self.shared.lock();
            core.totals.resubmitted += unanswered.len() as u64;
            for number in unanswered {
                core.queue.settle(number, Verdict::Again { at: 0, plain: false });
            }
        }
        if !self.shared.stops() {
            self.take_pause();
        }
    }

    /// There is a link again: what was under way when the last one was lost is suspected of having
    /// crashed the server, or is not.
    fn judge(&mut self, next: Option<&Incarnation>) {
        let Some(wreck) = self.wreck.take() else { return };
        let cause = wreck.cause(next);
        let now = self.shared.now_ms();
        let mut core = self.shared.lock();
        for number in wreck.flying {
            let Some(entry) = core.queue.get_mut(number) else { continue };
            let delay = entry.suspicion.handle_loss(cause, wreck.alone == Some(number));
            if !delay.is_zero() {
                let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                core.queue.put_off(number, now.saturating_add(delay));
            }
        }
    }

    /// A suspect may run: its last attempt is not committed, and is over.
    fn claimed(&self, number: u64) {
        let mut core = self.shared.lock();
        let Some(entry) = core.queue.get_mut(number) else { return };
        if let Some(strikes) = entry.suspicion.handle_claim() {
            let id = entry.id;
            tracing::warn!(%id, strikes, "the server has crashed while it ran a submission alone");
        }
    }

    /// Sends and receives until nothing is left to do.
    fn pump(&mut self) -> Result<(), Lost> {
        let shared = Arc::clone(&self.shared);
        let mut out = BytesMut::new();
        let mut answers = Vec::new();
        // So much of a message has come whose end has not.
        let mut begun = 0;
        loop {
            self.hear_backup()?;
            let Some(station) = self.station.as_mut() else { return Ok(()) };
            let pipe = &mut station.pipe;
            let closed = pipe.is_alone() || shared.stops() || self.untold.is_full();
            let room = match pipe.jobs() {
                jobs if closed || jobs > WINDOW / 2 => 0,
                jobs => WINDOW - jobs,
            };
            if room > 0 {
                let jobs = take(&shared, self.shard, room, pipe.is_empty());
                let some = !jobs.is_empty();
                for Taken { job, payload, plain } in jobs {
                    let refused = match payload {
                        None => Some(unreadable()),
                        Some(payload) if pipe.push(&job, &payload, plain, &mut out) => None,
                        Some(_) => Some(too_large()),
                    };
                    answers.extend(refused.map(|fate| Answer::Job(job.number, fate)));
                }
                if let Some(seals) = station.seals.as_mut().filter(|_| some && !pipe.is_alone()) {
                    pipe.push_seal(seals.row, seals.send(), &mut out);
                }
            }
            if pipe.is_empty() && answers.is_empty() {
                return Ok(());
            }
            if !out.is_empty() {
                station.link.exchange(&out, &mut station.input).map_err(|_| Lost(None))?;
                out.clear();
            }
            if station.input.len() == begun && !pipe.is_empty() {
                let received = match self.untold.is_asking() {
                    false => station.link.recv(&mut station.input),
                    true => {
                        let until = Instant::now() + ATTENTION;
                        station.link.recv_deadline(&mut station.input, until)
                    }
                };
                match received {
                    Ok(1..) => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
                    Ok(0) | Err(_) => return Err(Lost(None)),
                }
            }
            let fed = pipe.feed(&mut station.input, &mut out, &mut answers);
            begun = station.input.len();
            let sealing = station.seals.is_some();
            let sealed = answers.iter().rposition(|answer| matches!(answer, Answer::Sealed));
            let behind = &answers[sealed.map_or(0, |at| at + 1)..];
            let hold = behind.iter().any(|answer| must_be_held(answer, sealing));
            if hold && !pipe.is_sealing() {
                match &mut station.seals {
                    // It travelled alone: its seal follows.
                    Some(seals) => pipe.push_seal(seals.row, seals.send(), &mut out),
                    None => pipe.push_confirmation(&mut out),
                }
            }
            let settled = self.settle(std::mem::take(&mut answers), sealing);
            if let Err(malformed) = fed {
                return Err(Lost(Some(Error::new(ErrorKind::Protocol, malformed.to_string()))));
            }
            settled?;
        }
    }

    /// Deals with answers. What is found done, and with `sealing` all that is committed, is held back
    /// until what was sent behind it is answered, and the backup has it.
    fn settle(&mut self, answers: Vec<Answer>, sealing: bool) -> Result<(), Lost> {
        let mut lost = None;
        let mut done = Vec::new();
        for answer in answers {
            match answer {
                Answer::Sealed => match self.station.as_mut().and_then(|it| it.seals.as_mut()) {
                    Some(seals) => self.untold.seal(seals.answer()),
                    None => done.extend(self.untold.all()),
                },
                Answer::Claimed(number) => self.claimed(number),
                Answer::NotSealed(error) => lost = Some(refusal(*error)),
                Answer::Job(number, Fate::Committed(rows)) => {
                    let executed = Executed { rows, found_done: false };
                    match sealing {
                        true => self.untold.push(number, executed),
                        false => done.push((number, executed)),
                    }
                }
                Answer::Job(number, Fate::FoundDone) => {
                    self.untold.push(number, Executed { rows: Vec::new(), found_done: true });
                }
                Answer::Job(number, Fate::OutOfOrder) => self.again(number, 0, false),
                Answer::Job(number, Fate::NoClaim(error)) => {
                    self.again(number, 0, false);
                    lost = Some(refusal(*error));
                }
                Answer::Job(number, Fate::Failed { statement, error }) => {
                    self.failed(number, statement, error);
                }
                Answer::Job(number, Fate::Unmet { statement, rows }) => {
                    self.bury(number, statement, unmet(statement, rows));
                }
                Answer::Job(number, Fate::Crashes) => self.bury(number, 0, crashes()),
            }
        }
        if !done.is_empty() {
            self.done(done);
        }
        lost.map_or(Ok(()), |error| Err(Lost(Some(error))))
    }

    /// Tells what the backup has by now, and asks it for what it may have next.
    fn hear_backup(&mut self) -> Result<(), Lost> {
        match self.untold.poll() {
            Word::Has(told) => {
                if std::mem::take(&mut self.backup_is_silent) {
                    self.shared.set_problem(None);
                }
                self.done(told);
            }
            Word::Nothing => {}
            Word::Silent(error) => {
                self.backup_is_silent = true;
                self.shared.set_problem(Some(&error));
            }
            Word::Moved => {
                return Err(Lost(Some(Error::new(
                    ErrorKind::FailoverTimeout,
                    "the server was left before the backup was known to have what was committed \
                     there: the next one is asked",
                ))));
            }
        }
        self.losses.hear_backup();
        if let Some(Station { server, seals: Some(seals), .. }) = &self.station {
            let of = Sealed { row: seals.row, server: *server, shard: self.shard };
            self.untold.ask(&self.shared, of);
        }
        Ok(())
    }

    /// The client is closed. What the backup confirms now need not be asked about again.
    fn say_farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        while self.station.is_some() && !self.untold.is_empty() && Instant::now() < deadline {
            if self.hear_backup().is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn again(&self, number: u64, delay_ms: u64, plain: bool) {
        let at = if delay_ms == 0 { 0 } else { self.shared.now_ms() + delay_ms };
        let mut core = self.shared.lock();
        core.totals.resubmitted += 1;
        core.queue.settle(number, Verdict::Again { at, plain });
    }

    fn done(&mut self, what: Vec<(u64, Executed)>) {
        self.pause = PAUSE_MIN;
        self.unwritten = self.shared.store.is_durable();
        let mut told = Vec::with_capacity(what.len());
        {
            let mut core = self.shared.lock();
            for (number, executed) in what {
                let Some(entry) = core.queue.get_mut(number) else { continue };
                let (keep, ticket) = (entry.data.keep.take(), entry.data.ticket.clone());
                let payload = entry.data.payload.as_ref();
                let payload = payload.filter(|_| self.losses.keeps_statements()).map(Arc::clone);
                let (bytes, lost) = (entry.bytes, entry.data.lost);
                core.totals.committed += 1;
                core.totals.found_done += u64::from(executed.found_done);
                core.remember(&ticket);
                core.forget_payload(number);
                core.queue.settle(number, Verdict::Done);
                told.push(Ended { number, ticket, keep, payload, bytes, executed, lost });
            }
        }
        self.shared.room.notify_all();
        told.into_iter().for_each(|ended| self.losses.tell(ended));
    }

    /// The server has refused a submission.
    fn failed(&mut self, number: u64, statement: usize, error: Box<ServerError>) {
        let (plain, attempts, payload) = {
            let core = self.shared.lock();
            let Some(entry) = core.queue.get(number) else { return };
            (entry.plain, entry.attempts, entry.data.payload.clone())
        };
        let class = error.code.get(..2).unwrap_or_default();
        match (error.code.as_str(), class) {
            ("40001" | "40P01", _) => {
                let delay = CONFLICT_MIN_MS << attempts.min(16);
                self.again(number, delay.min(CONFLICT_MAX_MS), false);
            }
            // What was prepared ahead is gone, was never there, or no longer fits.
            ("26000" | "0A000", _) if !plain => {
                let payload =
                    payload.or_else(|| self.shared.store.load(&[number]).ok()?.remove(&number));
                if let Some((station, payload)) = self.station.as_mut().zip(payload) {
                    station.pipe.forget(&payload);
                }
                self.again(number, 0, true);
            }
            // Parameters that do not fit the statement.
            ("08P01", _) => self.bury(number, statement, refusal(*error)),
            // The server is out of something, its disks fail, or it cannot reach another one: nothing
            // that is wrong with the submission.
            (_, "08" | "53" | "58") => {
                self.shared.set_problem(Some(&refusal(*error)));
                self.again(number, SHORTAGE_MS, false);
            }
            _ => self.bury(number, statement, refusal(*error)),
        }
    }

    /// It can never succeed. Nobody is told before that is kept: else it might be run once more after
    /// a crash, and succeed.
    fn bury(&mut self, number: u64, statement: usize, error: Error) {
        self.pause = PAUSE_MIN;
        let keep = self.shared.lock().queue.get_mut(number).and_then(|it| it.data.keep.take());
        let Some(mut keep) = keep else { return };
        let death = Death {
            at_unix_ms: unix_ms(),
            statement: u32::try_from(statement).unwrap_or(u32::MAX),
            error: error.clone(),
        };
        let kept = self.shared.store.bury(&mut keep, &death);
        let mut core = self.shared.lock();
        let Some(entry) = core.queue.get_mut(number) else { return };
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
                if self.shared.store.is_durable() {
                    core.forget_payload(number);
                }
                drop(core);
                ticket.tell(Err(error));
                if lost {
                    tell_that_it_stays_lost(&self.shared, &ticket);
                }
                self.shared.events.emit(&event);
            }
            Err(why) => {
                drop(core);
                tracing::warn!(error = %why, "a dead letter could not be kept; it is tried again");
                self.again(number, SHORTAGE_MS, false);
            }
        }
    }
}

/// What the queue hands out, with what is to be sent.
struct Taken {
    job: Job,
    /// `None`: the journal has nothing of it that can be read.
    payload: Option<Arc<Payload>>,
    plain: bool,
}

/// So many of them as one write should hold. What is not in memory is read from the journal.
fn take(shared: &Shared, shard: usize, room: usize, empty: bool) -> Vec<Taken> {
    let now = shared.now_ms();
    let mut taken = Vec::new();
    {
        let mut core = shared.lock();
        let mut bytes = 0;
        for job in core.queue.take(shard, room, empty, now) {
            if bytes >= BATCH_BYTES {
                // In their order, so that the queue has them as they were.
                core.queue.settle(job.number, Verdict::Again { at: 0, plain: false });
                continue;
            }
            let Some(entry) = core.queue.get(job.number) else { continue };
            bytes += entry.bytes;
            let (payload, plain) = (entry.data.payload.clone(), entry.plain);
            taken.push(Taken { job, payload, plain });
        }
    }
    let missing = |it: &&mut Taken| it.payload.is_none();
    let read: Vec<u64> = taken.iter_mut().filter(missing).map(|it| it.job.number).collect();
    if read.is_empty() {
        return taken;
    }
    match shared.store.load(&read) {
        Ok(mut found) => {
            for it in taken.iter_mut().filter(missing) {
                it.payload = found.remove(&it.job.number);
            }
            taken
        }
        Err(error) => {
            let error = Error::new(ErrorKind::ProtectionLost, "submissions cannot be read back")
                .with_source(error);
            shared.set_problem(Some(&error));
            let mut core = shared.lock();
            for it in taken {
                let again = Verdict::Again { at: now + SHORTAGE_MS, plain: false };
                core.queue.settle(it.job.number, again);
            }
            Vec::new()
        }
    }
}

fn moved() -> Error {
    Error::new(ErrorKind::FailoverTimeout, "the cluster has moved to another server")
}

fn must_be_held(answer: &Answer, sealing: bool) -> bool {
    match answer {
        Answer::Job(_, Fate::FoundDone) => true,
        Answer::Job(_, Fate::Committed(_)) => sealing,
        _ => false,
    }
}

fn refusal(error: ServerError) -> Error {
    Error::server(error, Outcome::NotCommitted)
}

fn too_large() -> Fate {
    let error = ServerError {
        severity: "ERROR".to_owned(),
        code: "54000".to_owned(),
        message: "the submission is larger than a message of the protocol can be".to_owned(),
        ..ServerError::default()
    };
    Fate::Failed { statement: 0, error: Box::new(error) }
}

fn unreadable() -> Fate {
    let error = ServerError {
        severity: "ERROR".to_owned(),
        code: "XX001".to_owned(),
        message:
            "the journal is damaged where this submission stands; an earlier attempt may have \
                  committed it: look at the journal, then retry or purge it"
                .to_owned(),
        ..ServerError::default()
    };
    Fate::Failed { statement: 0, error: Box::new(error) }
}

fn unmet(statement: usize, rows: u64) -> Error {
    let number = statement + 1;
    Error::new(
        ErrorKind::TransactionFailed,
        format!(
            "statement {number} of the submission has affected {rows} rows, which is not what was \
             expected; all of it was rolled back and nothing is committed"
        ),
    )
}

fn crashes() -> Error {
    Error::new(
        ErrorKind::ServerCrash,
        format!(
            "the server has crashed {STRIKES} times while it ran this submission with no other beside it; \
             nothing of it is committed, and it is not run again by itself: look for the backend's end in \
             the server's log, mend what crashes it, then retry or purge the dead letter"
        ),
    )
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.end();
        }
    }
}
