//! The choreography: the primary is lost, the standby promoted, the old primary made a standby of
//! the new one, and again. Segue is told nothing of it; it has to find out.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use segue_testkit::{Cluster, Error};

use super::report::Failover;
use super::timeline::{Timeline, plural};
use super::workload::Board;
use super::{Fault, Options, Replication};
use crate::output::Failure;
use crate::stop::Stop;

const PROMOTION_TIMEOUT: Duration = Duration::from_secs(30);
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// A fault in the middle of transactions is what is to be shown: it waits for some to be open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Transfers may be slow for so long after a failover because of it.
const PAUSE_WINDOW: Duration = Duration::from_millis(500);
const PROMOTION_ATTEMPTS: u32 = 3;

pub struct Director<'a> {
    cluster: &'a Cluster,
    options: &'a Options,
    board: &'a Board,
    timeline: &'a Timeline,
    stop: &'a Stop,
    primary: usize,
    last: Option<Instant>,
    longest_us: u64,
    pub failovers: Vec<Failover>,
}

impl<'a> Director<'a> {
    pub fn new(
        cluster: &'a Cluster,
        options: &'a Options,
        board: &'a Board,
        timeline: &'a Timeline,
        stop: &'a Stop,
    ) -> Self {
        let failovers = Vec::new();
        Self {
            cluster,
            options,
            board,
            timeline,
            stop,
            primary: 0,
            last: None,
            longest_us: 0,
            failovers,
        }
    }

    /// Carries out all failovers, spread over the time of the run.
    pub fn direct(&mut self, began: Instant) -> Result<(), Failure> {
        let whole = Duration::from_secs(u64::from(self.options.seconds));
        let step = whole / (self.options.failovers + 1);
        for number in 1..=self.options.failovers {
            if number > 1 {
                self.rejoin()?;
            }
            let due = began + step * number;
            // Where bringing the old primary back took long, some work comes first all the same.
            let soonest = Instant::now() + PAUSE_WINDOW.min(step);
            if !self.stop.sleep_until(due.max(soonest)) {
                return Ok(());
            }
            self.fail_over()?;
            if !self.stop.sleep_until(Instant::now() + PAUSE_WINDOW) {
                return Ok(());
            }
            let pause = self.take_longest();
            if let Some(failover) = self.failovers.last_mut() {
                failover.pause = pause;
            }
        }
        Ok(())
    }

    /// When the last failover was over; now if there was none.
    pub fn last_failover(&self) -> Instant {
        self.last.unwrap_or_else(Instant::now)
    }

    pub fn longest_pause(&self) -> Duration {
        let now = self.board.longest_us.load(Ordering::Relaxed);
        Duration::from_micros(self.longest_us.max(now))
    }

    fn take_longest(&mut self) -> Duration {
        let longest = self.board.longest_us.swap(0, Ordering::Relaxed);
        self.longest_us = self.longest_us.max(longest);
        Duration::from_micros(longest)
    }

    fn fail_over(&mut self) -> Result<(), Failure> {
        let old = self.cluster.server(self.primary);
        let next = 1 - self.primary;
        let open = self.wait_for_open_transactions()?;
        let what = match self.options.fault {
            Fault::Kill => "SIGKILL to the primary",
            Fault::StopFast => "fast shutdown of the primary",
            Fault::StopImmediate => "immediate shutdown of the primary",
            Fault::Freeze => "SIGSTOP to all processes of the primary",
        };
        self.timeline.say(&format!(
            "** {what} on port {}, with {} open",
            old.port(),
            plural(open as u64, "transfer")
        ));
        self.take_longest();
        let fault_at = Instant::now();
        match self.options.fault {
            Fault::Kill => old.kill_postmaster()?,
            Fault::StopFast => old.stop_fast()?,
            Fault::StopImmediate => old.stop_immediate()?,
            Fault::Freeze => old.pause()?,
        }
        let promotion = self.promote(next)?;
        let outage = fault_at.elapsed();
        self.timeline.say(&format!(
            "** the standby on port {} is promoted and writable, {} ms after the fault",
            self.cluster.server(next).port(),
            outage.as_millis()
        ));
        self.primary = next;
        self.last = Some(Instant::now());
        self.failovers.push(Failover { outage, promotion, pause: Duration::ZERO });
        Ok(())
    }

    /// How many transfers are open; at least half of the sessions' where that can be had.
    fn wait_for_open_transactions(&self) -> Result<usize, Failure> {
        let wanted = usize::try_from(self.options.sessions.div_ceil(2))?;
        let deadline = Instant::now() + OPEN_TIMEOUT;
        loop {
            let open = self.board.open.load(Ordering::Relaxed);
            if open >= wanted || Instant::now() >= deadline {
                return Ok(open);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// A standby may have no connection to spare at that very moment, or be so busy that it ends
    /// one; an operator would ask again.
    fn promote(&self, next: usize) -> Result<Duration, Error> {
        let mut attempt = 1;
        loop {
            match self.cluster.promote(next, PROMOTION_TIMEOUT) {
                Err(Error::Sql { .. }) if attempt < PROMOTION_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// Makes the lost primary a standby of the new one, synchronous if the first one was.
    fn rejoin(&self) -> Result<(), Failure> {
        let old = 1 - self.primary;
        self.cluster.rejoin(old)?;
        let primary = self.cluster.server(self.primary);
        let name = self.cluster.server(old).name();
        if self.options.replication == Replication::Sync {
            primary.set_config("synchronous_standby_names", &format!("ANY 1 ({name})"))?;
            primary.wait_until(
                "SELECT count(*) > 0 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')",
                SYNC_TIMEOUT,
            )?;
            // The setting holds for commits once the checkpointer has read it, which nothing tells.
            // A commit that is seen waiting does.
            primary.wait_until(
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
                SYNC_TIMEOUT,
            )?;
        }
        self.timeline.say(&format!(
            "** the old primary on port {} is back, as a standby",
            self.cluster.server(old).port()
        ));
        Ok(())
    }
}
