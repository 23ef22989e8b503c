//! The threads that run submissions. Each takes what the queue hands out to its link, and brings home what
//! arrives there; what is made of it `carrier` says, and `desk` records.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use crossbeam_channel::{Receiver, TryRecvError, bounded};

use super::carrier::{AtWork, Carrier, Lost, Question};
use super::losses::Losses;
use super::shared::Shared;
use super::station::Station;
use crate::cluster::{Confirmed, LedgerAccess, Want};
use crate::error::{Error, ErrorKind, Result};

/// What a server says before it closes a link is waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// While the backup is asked, an answer of the server's is waited for so long before that is seen to.
const ATTENTION: Duration = Duration::from_millis(10);
/// The backup is asked for so long before somebody is told that it does not answer.
const CONFIRM: Duration = Duration::from_millis(500);
/// When the client is closed, the backup's word is waited for so long.
const FAREWELL: Duration = Duration::from_millis(500);

pub(super) struct Runner {
    shared: Arc<Shared>,
    /// Which part of the queue, and which place on servers, is its own.
    shard: usize,
    /// Its name to the cluster.
    session: u64,
    carrier: Carrier,
    /// What it has told, should a promotion lose it.
    losses: Losses,
    /// How that is looked for on the link in use.
    access: LedgerAccess,
    station: Option<Station>,
    /// What the backup says to the question that it was asked.
    answer: Option<Receiver<Result<Confirmed>>>,
    /// Ends are handed in that nobody has written.
    unwritten: bool,
}

impl Runner {
    pub fn new(shared: Arc<Shared>, shard: usize, session: u64) -> Self {
        let losses = Losses::new(&shared.config, shared.desk.store.is_durable());
        let bell = shared.bell.clone();
        let wake = move || bell.wake(shard);
        shared.cluster.backlog().attend(session, Arc::new(wake));
        Self {
            shared,
            shard,
            session,
            carrier: Carrier::default(),
            losses,
            access: LedgerAccess::None,
            station: None,
            answer: None,
            unwritten: false,
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
            if let Err(lost) = self.stay().and_then(|()| self.pump()) {
                self.lose(lost);
            }
        }
        self.say_farewell();
        if let Some(station) = self.station.take() {
            self.leave_server();
            if self.carrier.is_idle() {
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
        let core = shared.desk.lock();
        let work = !self.carrier.is_full() && core.queue.has_work(self.shard, now);
        let answered = self.answer.as_ref().is_some_and(|answer| !answer.is_empty());
        if work || answered || self.must_attend_to_losses() {
            return true;
        }
        if std::mem::take(&mut self.unwritten) {
            drop(core);
            shared.desk.store.flush();
            return false;
        }
        // A link that the cluster has given up meanwhile is found out about with the next use.
        let wait = core.queue.due(self.shard).map_or(Duration::from_secs(60), |at| {
            Duration::from_millis(at.saturating_sub(now).max(1))
        });
        if let Some(work) = shared.desk.work.get(self.shard) {
            drop(work.wait_timeout(core, wait).unwrap_or_else(PoisonError::into_inner));
        }
        false
    }

    /// Whether there is something to be done about what was told though nothing is queued.
    fn must_attend_to_losses(&self) -> bool {
        let moved = || self.shared.bell.has_moved(self.shard);
        let news = || self.shared.cluster.backlog().has_news(self.session);
        !self.losses.is_empty() && (self.station.is_none() || moved() || news())
    }

    /// Where the cluster has moved away from the server of a link, what was told has to be looked for on
    /// the next one.
    fn stay(&self) -> std::result::Result<(), Lost> {
        if !self.shared.bell.take_move(self.shard) || self.losses.is_empty() {
            return Ok(());
        }
        let status = self.shared.cluster.status();
        match self.carrier.is_left_behind(status.chosen, status.timeline_floor) {
            true => Err(Lost(Some(left_behind()))),
            false => Ok(()),
        }
    }

    fn find_station(&mut self) {
        let shared = Arc::clone(&self.shared);
        let want = Want {
            session: self.session,
            timeline_floor: self.carrier.timeline_floor,
            writes: true,
            lost: self.carrier.lost,
            deadline: Instant::now() + shared.config.failover.timeout,
        };
        let place = (shared.desk.store.id, self.shard, &shared.backends);
        let opened = Station::open((&shared.config, &shared.cluster), place, &want, &shared.stop);
        let looked = opened.and_then(|(mut station, work)| {
            self.look_for_losses(&mut station, &work)?;
            Ok((station, work))
        });
        match looked {
            Ok((station, work)) => {
                shared.wakers().insert(self.shard, station.link.waker());
                self.station = Some(station);
                self.carrier.handle_link(work);
                self.carry_out();
            }
            Err(error) => {
                self.leave_server();
                if !shared.stops() {
                    tracing::debug!(%error, "submissions wait");
                    shared.desk.set_problem(Some(&error));
                    shared.pause(self.carrier.take_pause());
                }
            }
        }
    }

    /// Looks on a new link for what was told on others. What is missing there is lost.
    fn look_for_losses(&mut self, station: &mut Station, work: &AtWork) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        self.access = work.access;
        self.hear_of_told();
        self.losses.look(&shared.desk, shared.now_ms(), |ids| {
            station.claimed(work.access, ids, &shared.stop)
        })?;
        let open = self.losses.open_witnesses();
        let backlog = shared.cluster.backlog();
        backlog.note(self.session, self.access, |claims| claims.restart(open));
        Ok(())
    }

    /// Takes in what the backup was found to have of what was told.
    fn hear_of_told(&mut self) {
        if !self.losses.is_empty() {
            let news = self.shared.cluster.backlog().take_news(self.session);
            self.losses.handle_backup_has(&self.shared.desk, news);
        }
    }

    fn leave_server(&self) {
        self.shared.cluster.deregister(self.session);
        self.shared.wakers().remove(&self.shard);
        self.shared.backends.leave(self.shard);
    }

    /// The link is of no use any more.
    fn lose(&mut self, lost: Lost) {
        let Some(mut station) = self.station.take() else { return };
        if lost.0.is_none() {
            station.link.drain(&mut station.input, LAST_WORDS);
        }
        self.carrier.handle_lost(lost, &mut station.input);
        self.answer = None;
        station.link.abandon();
        self.leave_server();
        self.carry_out();
        if !self.shared.stops() {
            self.shared.pause(self.carrier.take_pause());
        }
    }

    /// Sends and receives until nothing is left to do.
    fn pump(&mut self) -> std::result::Result<(), Lost> {
        let shared = Arc::clone(&self.shared);
        let mut out = BytesMut::new();
        // So much of a message has come whose end has not.
        let mut begun = 0;
        loop {
            self.hear_backup()?;
            let Some(station) = self.station.as_mut() else { return Ok(()) };
            let room = if shared.stops() { 0 } else { self.carrier.room() };
            if room > 0 {
                let (empty, now) = (self.carrier.is_idle(), shared.now_ms());
                self.carrier.send(shared.desk.take(self.shard, room, empty, now), &mut out);
            }
            if self.carrier.is_idle() {
                self.carry_out();
                return Ok(());
            }
            if !out.is_empty() {
                station.link.exchange(&out, &mut station.input).map_err(|_| Lost(None))?;
                out.clear();
            }
            if station.input.len() == begun {
                let received = match self.carrier.is_asking() {
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
            let taken_in = self.carrier.handle_input(&mut station.input, &mut out);
            begun = station.input.len();
            self.carry_out();
            taken_in?;
        }
    }

    /// Does what the carrier has found out.
    fn carry_out(&mut self) {
        let deeds = self.carrier.poll_deeds();
        if deeds.is_empty() {
            return;
        }
        let (shared, losses) = (&self.shared, &mut self.losses);
        self.unwritten |= shared.desk.carry_out(deeds, losses, shared.now_ms());
        let notes = losses.poll_notes();
        if !notes.is_empty() {
            shared.cluster.backlog().note(self.session, self.access, |claims| {
                notes.into_iter().for_each(|note| claims.note(note));
            });
        }
    }

    /// Takes in what the backup has said, and asks it what it may have next.
    fn hear_backup(&mut self) -> std::result::Result<(), Lost> {
        let word = self.answer.as_ref().and_then(|answer| match answer.try_recv() {
            Ok(word) => Some(word),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Ok(Confirmed::Moved)),
        });
        if let Some(word) = word {
            self.answer = None;
            let heard = self.carrier.handle_backup(word);
            self.carry_out();
            heard?;
        }
        self.hear_of_told();
        if let Some(question) = self.carrier.poll_question() {
            self.ask_backup(question);
        }
        Ok(())
    }

    /// The answer wakes this thread.
    fn ask_backup(&mut self, Question { row, number, server }: Question) {
        let (sender, answer) = bounded(1);
        let (bell, shard) = (self.shared.bell.clone(), self.shard);
        let reply = move |word| {
            let _ = sender.send(word);
            bell.wake(shard);
        };
        let deadline = Instant::now() + CONFIRM;
        self.shared.cluster.confirm_then(row, number, server, deadline, reply);
        self.answer = Some(answer);
    }

    /// The client is closed. What the backup confirms now need not be asked about again.
    fn say_farewell(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        while self.station.is_some() && self.carrier.has_untold() && Instant::now() < deadline {
            if self.hear_backup().is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn left_behind() -> Error {
    Error::new(ErrorKind::FailoverTimeout, "the cluster has moved to another server")
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.shared.cluster.backlog().leave(self.session);
        if self.shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.desk.end();
        }
    }
}
