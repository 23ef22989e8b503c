//! What a client has been through, in numbers.
//!
//! Each session counts for itself; a snapshot adds up the sessions that are open and those that have
//! been closed. Nothing here is ever reset.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::session::Counters;

/// What all sessions of a client have done since it was opened, those that are closed included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStatistics {
    /// Sessions that were opened, whether or not they are still open.
    pub sessions_opened: u64,
    /// Statements that were executed, in a pipeline or by themselves; a string of several counts
    /// once. BEGIN, COMMIT and ROLLBACK are not among them, nor is what a replay runs again.
    pub statements: u64,
    /// Transactions begun by the application that were committed. A statement outside of one counts
    /// as a statement only.
    pub transactions_committed: u64,
    /// Transactions begun by the application that were rolled back, by its own wish or because they
    /// had failed. One that was begun and ended without any statement is not counted.
    pub transactions_rolled_back: u64,
    /// Links that broke, or were given up, under a session.
    pub links_lost: u64,
    /// Replays of transactions of which the application had seen something.
    pub replays_started: u64,
    pub replays_finished: u64,
    /// Replays that gave something else than the application had seen.
    pub replays_diverged: u64,
    /// Commits whose acknowledgement was lost and that the ledger told to stand.
    pub commits_found: u64,
    /// Requests that ended with an error whose outcome is unknown.
    pub outcomes_unknown: u64,
    /// Acknowledged commits that were not on the server that took over.
    pub commits_lost: u64,
    /// Those of them that were run again, and stand.
    pub commits_reapplied: u64,
    /// How often a session or its transaction went on without protection.
    pub protection_lost: u64,
    /// Notices and warnings of the servers.
    pub notices: u64,
    /// The longest time that a session was without a link before it had moved, and all of them
    /// together, in microseconds.
    pub pause_longest_us: u64,
    pub pause_total_us: u64,
}

impl ClientStatistics {
    fn add(&mut self, session: &Counters) {
        self.sessions_opened += session.sessions_opened.value();
        self.statements += session.statements.value();
        self.transactions_committed += session.transactions_committed.value();
        self.transactions_rolled_back += session.transactions_rolled_back.value();
        self.links_lost += session.links_lost.value();
        self.replays_started += session.replays_started.value();
        self.replays_finished += session.replays_finished.value();
        self.replays_diverged += session.replays_diverged.value();
        self.commits_found += session.commits_found.value();
        self.outcomes_unknown += session.outcomes_unknown.value();
        self.commits_lost += session.commits_lost.value();
        self.commits_reapplied += session.commits_reapplied.value();
        self.protection_lost += session.protection_lost.value();
        self.notices += session.notices.value();
        self.pause_longest_us = self.pause_longest_us.max(session.pause_longest_us.value());
        self.pause_total_us += session.pause_total_us.value();
    }
}

/// The counters of a client's sessions.
#[derive(Debug, Default)]
pub(super) struct Statistics(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the session's number.
    open: HashMap<u64, Arc<Counters>>,
    /// The sum of those that are closed.
    closed: ClientStatistics,
}

impl Statistics {
    pub fn enter(&self, session: u64, counters: &Arc<Counters>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.insert(session, Arc::clone(counters));
    }

    pub fn leave(&self, session: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counters) = state.open.remove(&session) {
            state.closed.add(&counters);
        }
    }

    pub fn snapshot(&self) -> ClientStatistics {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = state.closed;
        state.open.values().for_each(|session| sum.add(session));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_sessions_still_count() {
        let statistics = Statistics::default();
        let (one, two) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
        statistics.enter(1, &one);
        statistics.enter(2, &two);
        one.statements.add(3);
        one.pause_longest_us.raise(70);
        one.pause_total_us.add(70);
        two.statements.add(1);
        two.pause_longest_us.raise(50);
        two.pause_total_us.add(50);
        let expected = ClientStatistics {
            statements: 4,
            pause_longest_us: 70,
            pause_total_us: 120,
            ..ClientStatistics::default()
        };
        assert_eq!(statistics.snapshot(), expected);
        statistics.leave(1);
        assert_eq!(statistics.snapshot(), expected);
        two.statements.add(1);
        statistics.leave(2);
        assert_eq!(statistics.snapshot(), ClientStatistics { statements: 5, ..expected });
    }
}
