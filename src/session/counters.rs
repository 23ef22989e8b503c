//! What a session has done, counted: readable from other threads while it goes on.
//!
//! Only the thread that has the session in hand counts, so that counting is a load and a store
//! and never contends. The transport's own incidents are counted by the driver.

use std::sync::atomic::{AtomicU64, Ordering};

/// One count, with one writer at a time.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.store(self.value().wrapping_add(more), Ordering::Relaxed);
    }

    /// Keeps the larger one.
    pub fn raise(&self, value: u64) {
        self.0.store(self.value().max(value), Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one session.
#[derive(Debug, Default)]
pub struct Counters {
    /// 1 once the session is open.
    pub sessions_opened: Counter,
    pub statements: Counter,
    pub transactions_committed: Counter,
    pub transactions_rolled_back: Counter,
    pub links_lost: Counter,
    pub replays_started: Counter,
    pub replays_finished: Counter,
    pub replays_diverged: Counter,
    pub commits_found: Counter,
    pub outcomes_unknown: Counter,
    pub commits_lost: Counter,
    pub commits_reapplied: Counter,
    pub protection_lost: Counter,
    pub notices: Counter,
    pub pause_longest_us: Counter,
    pub pause_total_us: Counter,
}
