//! What has happened in runs, so that it can be seen that something did.

use std::fmt;
use std::time::Duration;

/// What a run does to the session's servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    LinkBroken,
    BackendEnded,
    Crash,
    CrashAndPromotion,
    /// The old primary lives on, and takes commits of which nobody hears.
    PromotionBesideTheOld,
    /// The old primary refuses to write, and another one takes over.
    Switchover,
    /// No server can be had for as long as the session waits.
    NoServer,
    /// The client hears of the end of its link twice.
    EndDuplicated,
    /// A primary dies, its standby is promoted and dies too, and the next takes over.
    Cascade,
    /// Nothing gets to a server, nor back.
    HostCutOff,
    /// Polls get through and sessions' traffic does not, or the other way, or one direction alone.
    Partition,
    /// A server's processes are stopped.
    Hang,
    /// A server answers late.
    Slow,
    /// A server has no connection to spare.
    Full,
    StandbyLost,
    /// A server of another cluster takes the place of a standby.
    OtherCluster,
    /// An old primary comes back as one.
    StaleReturned,
    /// Segue promotes a standby itself.
    SelfPromotion,
    /// A client's process dies, and a later one takes over its journal.
    ClientCrash,
}

pub const FAULTS: [(Fault, &str); 19] = [
    (Fault::LinkBroken, "links broken"),
    (Fault::BackendEnded, "backends ended"),
    (Fault::Crash, "servers crashed and restarted"),
    (Fault::CrashAndPromotion, "servers crashed, their standby promoted"),
    (Fault::PromotionBesideTheOld, "standbys promoted while the old primary lived on"),
    (Fault::Switchover, "primaries made read-only, their standby promoted"),
    (Fault::NoServer, "times that no server could be had"),
    (Fault::EndDuplicated, "ends of links that were told twice"),
    (Fault::Cascade, "servers crashed, and the promoted standby after them"),
    (Fault::HostCutOff, "servers cut off"),
    (Fault::Partition, "servers cut off for one kind of traffic or in one direction"),
    (Fault::Hang, "servers stopped"),
    (Fault::Slow, "servers slow"),
    (Fault::Full, "servers full"),
    (Fault::StandbyLost, "standbys crashed"),
    (Fault::OtherCluster, "standbys replaced by a server of another cluster"),
    (Fault::StaleReturned, "old primaries that came back as primaries"),
    (Fault::SelfPromotion, "standbys that Segue promoted itself"),
    (Fault::ClientCrash, "client processes that died"),
];

#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub runs: usize,
    pub requests: usize,
    pub faults: [usize; FAULTS.len()],
    /// The session has gone on upon a newer timeline.
    pub failovers: usize,
    /// It has gone on upon another link to whichever server.
    pub links: usize,
    pub replays: usize,
    pub divergences: usize,
    pub commits_lost: usize,
    pub reapplied: usize,
    pub unknown: usize,
    /// Sessions were told that no server could be had within their time.
    pub timeouts: usize,
    /// Virtual time, in microseconds.
    pub time: u64,
    /// Of the client processes that died, those that had not come further than recovery.
    pub crashes_of_recoveries: usize,
    /// Transactions that a later process was told the outcome of.
    pub recovered: usize,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.requests += other.requests;
        for (sum, count) in self.faults.iter_mut().zip(other.faults) {
            *sum += count;
        }
        self.failovers += other.failovers;
        self.links += other.links;
        self.replays += other.replays;
        self.divergences += other.divergences;
        self.commits_lost += other.commits_lost;
        self.reapplied += other.reapplied;
        self.unknown += other.unknown;
        self.timeouts += other.timeouts;
        self.time += other.time;
        self.crashes_of_recoveries += other.crashes_of_recoveries;
        self.recovered += other.recovered;
    }

    pub fn fault(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    pub fn report(&self, took: Duration, threads: usize) -> Report<'_> {
        Report { figures: self, took, threads }
    }
}

pub struct Report<'a> {
    figures: &'a Figures,
    took: Duration,
    threads: usize,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.figures;
        let seconds = self.took.as_secs_f64();
        let rate = it.runs as f64 / seconds.max(0.001);
        writeln!(
            f,
            "{} schedules in {seconds:.1} s on {} threads: {rate:.0} schedules/s",
            it.runs, self.threads
        )?;
        let mut line = |count: usize, what: &str| writeln!(f, "{count:>12} {what}");
        line(it.requests, "requests of applications")?;
        line(it.failovers, "failovers survived")?;
        line(it.links, "links found anew")?;
        line(it.replays, "replays")?;
        line(it.divergences, "divergences, told")?;
        line(it.commits_lost, "losses of acknowledged commits, told")?;
        line(it.reapplied, "lost commits, run again")?;
        line(it.unknown, "unknown outcomes, told")?;
        line(it.timeouts, "searches for a server that ended with failover_timeout")?;
        line((it.time / 1_000_000) as usize, "seconds of virtual time")?;
        line(it.recovered, "transactions of dead processes, judged")?;
        line(it.crashes_of_recoveries, "processes that died while they recovered")?;
        FAULTS.iter().try_for_each(|(fault, what)| line(it.faults[*fault as usize], what))
    }
}
