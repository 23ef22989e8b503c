//! Which submissions are suspected of crashing the server, and what is evidence that one does.
//!
//! Pure. Three facts together accuse a submission: its statements were under way with nothing beside them
//! and the link ended without a word; the next link is to the same postmaster; and that postmaster
//! has had to start all of its helpers anew. A backend that crashes says nothing, and makes its
//! postmaster do just that; the other backends are told `57P02` first. Whoever stops, restarts, kills or fails
//! over a server leaves another postmaster, and a network that fails leaves the helpers as they were.
//!
//! Invariant: an accusation becomes a strike only when the next attempt's claim was let through: it
//! proves that the attempt before is not committed, and is over.

use std::time::Duration;

use crate::error::ServerError;

/// So many strikes make a dead letter of a submission.
pub const STRIKES: u8 = 3;
/// So often may a submission be under way when a server is lost before it is run alone.
const HITS: u8 = 3;
/// After a submission that was alone has lost a server.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What tells one run of a server from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// Its number in the configuration.
    pub server: usize,
    /// When its postmaster was started.
    pub started: String,
    /// The processes of its helpers (checkpointer, WAL writer and the like), which a crash ends too.
    pub helpers: Vec<i32>,
}

/// What a link was lost by, as far as the server is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server goes on, or was stopped in an orderly way.
    Innocent,
    /// The link's own backend has crashed, and the postmaster has begun anew.
    Crash,
    /// Another backend has; or the server is gone, and nobody can tell why.
    Unclear,
}

/// What has become of a server since a link to it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// It has gone on: the link alone was lost.
    Same,
    /// A backend has crashed, and its postmaster has begun anew.
    Crashed,
    /// It was restarted, or it is another one, or nobody can tell.
    Another,
}

/// A link that was lost, and all that was said and under way on it.
#[derive(Debug)]
pub struct Wreck {
    pub incarnation: Option<Incarnation>,
    /// The submissions that were unanswered.
    pub flying: Vec<u64>,
    /// The one whose statements were under way with nothing beside them.
    pub alone: Option<u64>,
    /// What the server said last.
    pub words: Option<ServerError>,
}

/// What is held against a submission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Suspicion {
    suspect: bool,
    /// How often a server was lost while it was under way.
    hits: u8,
    /// How often while it was alone.
    alone: u8,
    /// Its last attempt ended in a crash; that it is not committed is still to be shown.
    accused: bool,
    strikes: u8,
}

impl Incarnation {
    fn until(&self, next: &Self) -> Since {
        if self.server != next.server || self.started != next.started {
            return Since::Another;
        }
        if self.helpers.is_empty() || next.helpers.is_empty() {
            return Since::Another;
        }
        // One of them may be started anew by itself; only a crash ends them all.
        match self.helpers.iter().any(|pid| next.helpers.contains(pid)) {
            true => Since::Same,
            false => Since::Crashed,
        }
    }
}

impl Wreck {
    /// What it was lost by, now that the next link is there.
    pub fn cause(&self, next: Option<&Incarnation>) -> Cause {
        let since = match (&self.incarnation, next) {
            (Some(last), Some(next)) => last.until(next),
            _ => Since::Another,
        };
        match (since, self.words.as_ref().map(|words| words.code.as_str())) {
            (Since::Same, _) => Cause::Innocent,
            (Since::Crashed, None) => Cause::Crash,
            (_, None | Some("57P02")) => Cause::Unclear,
            (_, Some(_)) => Cause::Innocent,
        }
    }
}

impl Suspicion {
    /// As after a crash that it may have caused.
    pub fn suspected() -> Self {
        Self { suspect: true, ..Self::default() }
    }

    /// Whether it has to run alone, its claim ahead of its statements.
    pub fn is_suspect(self) -> bool {
        self.suspect
    }

    /// Whether its next claim, if that is let through, makes a dead letter of it.
    pub fn is_condemned(self) -> bool {
        self.accused && self.strikes + 1 >= STRIKES
    }

    /// Its claim was let through: its last attempt is not committed, and is over. Returns the number
    /// of its strikes if that made another one.
    pub fn handle_claim(&mut self) -> Option<u8> {
        if !std::mem::take(&mut self.accused) {
            return None;
        }
        self.strikes = self.strikes.saturating_add(1);
        Some(self.strikes)
    }

    /// It was under way on a link that was lost by this; `alone`: with nothing beside it. Returns
    /// how long it is to be put off.
    pub fn handle_loss(&mut self, cause: Cause, alone: bool) -> Duration {
        if cause == Cause::Innocent {
            return Duration::ZERO;
        }
        self.hits = self.hits.saturating_add(1);
        let crash = cause == Cause::Crash;
        self.suspect |= crash || self.hits >= HITS;
        self.accused |= crash && alone;
        if !alone {
            return Duration::ZERO;
        }
        let delay = BACKOFF_MIN * 2u32.pow(self.alone.min(8).into());
        self.alone = self.alone.saturating_add(1);
        delay.min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(started: &str, helpers: &[i32]) -> Incarnation {
        Incarnation { server: 0, started: started.to_owned(), helpers: helpers.to_vec() }
    }

    fn wreck(code: Option<&str>) -> Wreck {
        let said = |code: &str| ServerError { code: code.to_owned(), ..ServerError::default() };
        let (incarnation, words) = (Some(run("noon", &[1, 2])), code.map(said));
        Wreck { incarnation, flying: vec![7], alone: Some(7), words }
    }

    #[test]
    fn only_a_crash_of_its_own_backend_accuses() {
        let crashed = run("noon", &[3, 4]);
        assert_eq!(wreck(None).cause(Some(&crashed)), Cause::Crash);
        let cases = [
            // Another backend has crashed; the server was stopped; its disk is full.
            (Some("57P02"), crashed.clone(), Cause::Unclear),
            (Some("57P01"), crashed.clone(), Cause::Innocent),
            (Some("53100"), crashed.clone(), Cause::Innocent),
            // The network; one helper that was started anew; a restart; a failover.
            (None, run("noon", &[1, 2]), Cause::Innocent),
            (None, run("noon", &[1, 4]), Cause::Innocent),
            (None, run("one", &[3, 4]), Cause::Unclear),
            (None, Incarnation { server: 1, ..crashed.clone() }, Cause::Unclear),
            (None, run("noon", &[]), Cause::Unclear),
        ];
        for (words, next, cause) in cases {
            assert_eq!(wreck(words).cause(Some(&next)), cause, "{words:?} {next:?}");
        }
        assert_eq!(wreck(None).cause(None), Cause::Unclear);
    }

    #[test]
    fn strikes_are_crashes_alone_that_are_shown_to_be_not_committed() {
        let mut it = Suspicion::default();
        assert_eq!(it.handle_loss(Cause::Crash, false), Duration::ZERO);
        assert!(it.is_suspect());
        assert_eq!(it.handle_claim(), None, "it was not alone");
        for strike in 1..=STRIKES {
            assert!(!it.is_condemned());
            assert!(it.handle_loss(Cause::Crash, true) > Duration::ZERO);
            // The network fails before its claim is answered: no more is known than before.
            it.handle_loss(Cause::Innocent, false);
            assert_eq!(it.is_condemned(), strike == STRIKES);
            assert_eq!(it.handle_claim(), Some(strike));
            assert_eq!(it.handle_claim(), None);
        }
    }

    #[test]
    fn losses_of_servers_put_it_off_and_are_no_strikes() {
        let mut it = Suspicion::default();
        for _ in 0..HITS {
            assert!(!it.is_suspect());
            it.handle_loss(Cause::Unclear, false);
        }
        assert!(it.is_suspect());
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let delay = it.handle_loss(Cause::Unclear, true);
            assert!(delay >= last && delay <= BACKOFF_MAX);
            last = delay;
            assert_eq!((it.handle_claim(), it.is_condemned()), (None, false));
        }
        assert_eq!(last, BACKOFF_MAX);
    }
}
