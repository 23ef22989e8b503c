//! The live timeline: a line for every second and for everything of note, as it happens.
//!
//! Eight sessions that move at once are one thing to a reader: what sessions report is collected for
//! a moment and told in one line. Segue's callbacks only ever count here; they never block.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use segue::ClientEvent;
use segue::cluster::ClusterEvent;

use crate::output::{err, grouped, out};

/// How long sessions' reports are collected for.
const COLLECT: Duration = Duration::from_millis(150);
const BAR: u64 = 30;

/// What the client has told over the whole run.
#[derive(Default)]
pub struct Counts {
    pub moves: AtomicU64,
    pub replays: AtomicU64,
    pub replayed_statements: AtomicU64,
    pub diverged: AtomicU64,
    pub unprotected: AtomicU64,
    /// Commits that were acknowledged, and reported lost later.
    pub commits_lost: AtomicU64,
}

#[derive(Default)]
struct Collected {
    since: Option<Instant>,
    moved: u64,
    pauses: Option<(Duration, Duration)>,
    replays: u64,
    statements: u64,
    finished: u64,
    diverged: u64,
    commits_lost: u64,
    unprotected: Vec<String>,
}

pub struct Timeline {
    start: Instant,
    /// With `--json` stdout is for the verdict alone.
    to_stderr: bool,
    pub counts: Counts,
    collected: Mutex<Collected>,
    /// The most transfers in a second so far: the full length of the bar.
    best: AtomicU64,
}

impl Timeline {
    pub fn new(to_stderr: bool) -> Self {
        Self {
            start: Instant::now(),
            to_stderr,
            counts: Counts::default(),
            collected: Mutex::default(),
            best: AtomicU64::new(1),
        }
    }

    pub fn say(&self, text: &str) {
        let line = format!("{:8.3} s  {text}", self.start.elapsed().as_secs_f64());
        if self.to_stderr { err(&line) } else { out(&line) }
    }

    pub fn throughput(&self, transfers: u64) {
        let best = self.best.fetch_max(transfers, Ordering::Relaxed).max(transfers);
        let width = usize::try_from(transfers * BAR / best).unwrap_or(0);
        let most = usize::try_from(BAR).unwrap_or(0);
        self.say(&format!("|{:<most$}| {} transfers/s", "=".repeat(width), grouped(transfers)));
    }

    /// Takes an event of the client, on whatever thread it happens.
    pub fn handle(&self, event: &ClientEvent) {
        if let ClientEvent::Cluster(event) = event {
            // Links get warm all the time, and a demo is no log.
            if !matches!(event, ClusterEvent::Warm { .. }) {
                self.say(&format!("   segue: {event}"));
            }
            return;
        }
        let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &self.counts;
        match event {
            ClientEvent::ReplayStarted { statements, .. } => {
                let statements = *statements as u64;
                collected.replays += 1;
                collected.statements += statements;
                counts.replays.fetch_add(1, Ordering::Relaxed);
                counts.replayed_statements.fetch_add(statements, Ordering::Relaxed);
            }
            ClientEvent::ReplayFinished { .. } => collected.finished += 1,
            ClientEvent::ReplayDiverged { .. } => {
                collected.diverged += 1;
                counts.diverged.fetch_add(1, Ordering::Relaxed);
            }
            ClientEvent::SessionMoved { pause, .. } => {
                collected.moved += 1;
                collected.pauses = Some(match collected.pauses {
                    None => (*pause, *pause),
                    Some((least, most)) => (least.min(*pause), most.max(*pause)),
                });
                counts.moves.fetch_add(1, Ordering::Relaxed);
            }
            ClientEvent::ProtectionLost { reason, .. } => {
                if !collected.unprotected.contains(reason) {
                    collected.unprotected.push(reason.clone());
                }
                counts.unprotected.fetch_add(1, Ordering::Relaxed);
            }
            ClientEvent::CommitsLost { from, to, .. } => {
                let lost = to.saturating_sub(*from) + 1;
                collected.commits_lost += lost;
                counts.commits_lost.fetch_add(lost, Ordering::Relaxed);
            }
            _ => return,
        }
        collected.since.get_or_insert_with(Instant::now);
    }

    /// Tells what was collected, once it is old enough.
    pub fn flush(&self, at_once: bool) {
        let told = {
            let mut collected = self.collected.lock().unwrap_or_else(PoisonError::into_inner);
            match collected.since {
                Some(since) if at_once || since.elapsed() >= COLLECT => {
                    std::mem::take(&mut *collected)
                }
                _ => return,
            }
        };
        for line in told.lines() {
            self.say(&format!("   segue: {line}"));
        }
    }
}

impl Collected {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some((least, most)) = self.pauses {
            lines.push(format!(
                "{} moved, after {} to {} ms without a server",
                plural(self.moved, "session"),
                least.as_millis(),
                most.as_millis()
            ));
        }
        if self.replays + self.finished > 0 {
            lines.push(format!(
                "{} of {} resubmitted, {} matched what the application has seen",
                plural(self.replays, "transaction"),
                plural(self.statements, "statement"),
                self.finished
            ));
        }
        if self.diverged > 0 {
            lines
                .push(format!("{} diverged and were rolled back", plural(self.diverged, "replay")));
        }
        if self.commits_lost > 0 {
            lines.push(format!(
                "COMMITS LOST: {} acknowledged by the old primary never reached the new one",
                self.commits_lost
            ));
        }
        lines.extend(self.unprotected.iter().map(|reason| format!("protection lost: {reason}")));
        lines
    }
}

pub fn plural(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {what}{s}", grouped(count))
}
