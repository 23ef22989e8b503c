//! Is this server alive? One small state machine per server, pure: time is an argument.
//!
//! Inputs are `handle_*`; each returns the new health where it changed. Times are asked for with
//! [`Detector::next_poll`] (while there is a poll link) and [`Detector::next_dial`] (while there
//! is none). It judges health alone: who is to be used is the matter of [`super::choice`].

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use crate::config::Failover;
use crate::error::{Error, ErrorKind, ServerError};
use crate::mutation::{self, Mutation};

/// A redial of a lost server waits at least this long after the first failure.
const REDIAL_MIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Healthy,
    /// It has missed polls. It may be dead, slow, or cut off.
    Suspect,
    /// It is gone: its socket was closed, or nobody listens, or it was silent for too long.
    Lost,
    /// It says that it starts, recovers or shuts down (57P03), or that it is full.
    ComingBack,
}

/// Why a link ended or could not be made.
#[derive(Debug, Clone)]
pub enum Failure {
    /// Nobody is there: refused, no such socket, no such name.
    Absent(String),
    /// Closed, reset, or ended by the server's last words.
    Gone(String),
    /// Alive, but it takes no connection for now.
    ComingBack(String),
    /// Alive, and has no connection to spare.
    Full(String),
    /// No answer within the time.
    Silent(String),
    /// Alive, and it will not have this client: authentication, TLS, no such database.
    Refuses(Error),
}

impl Failure {
    /// What a failed dial says of the server.
    pub fn of(error: &Error) -> Self {
        if let Some(server) = error.server_error() {
            return Self::of_last_words(server, Some(error));
        }
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        match (error.kind(), io.map(io::Error::kind)) {
            (_, Some(io::ErrorKind::TimedOut)) => Self::Silent(error.to_string()),
            (ErrorKind::Authentication | ErrorKind::Tls | ErrorKind::Config, None) => {
                Self::Refuses(error.clone())
            }
            // The operating system's own words are shorter, and tell more beside an address.
            (_, Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)) => {
                Self::Absent(io.map_or_else(|| error.to_string(), ToString::to_string))
            }
            _ => Self::Gone(io.map_or_else(|| error.to_string(), ToString::to_string)),
        }
    }

    /// What a FATAL, or a Notice that is one in all but name, says of the server.
    pub fn of_last_words(words: &ServerError, error: Option<&Error>) -> Self {
        let text = format!("{} ({})", words.message, words.code);
        match words.code.as_str() {
            "57P03" => Self::ComingBack(text),
            "53300" => Self::Full(text),
            code if code.starts_with("28") || code == "3D000" || code == "42501" => {
                let error = error.cloned().unwrap_or_else(|| {
                    Error::new(ErrorKind::Connect, "the server refuses this client")
                        .with_server_error(words.clone())
                });
                Self::Refuses(error)
            }
            _ => Self::Gone(text),
        }
    }

    pub fn text(&self) -> String {
        match self {
            Self::Absent(text)
            | Self::Gone(text)
            | Self::ComingBack(text)
            | Self::Full(text)
            | Self::Silent(text) => text.clone(),
            Self::Refuses(error) => match error.server_error() {
                Some(server) => format!("{} ({})", server.message, server.code),
                None => error.to_string(),
            },
        }
    }
}

#[derive(Debug)]
pub struct Detector {
    timing: Failover,
    health: Health,
    /// The polls in a row that went unanswered.
    misses: u32,
    /// The time up to which it is known to have answered, once it has begun to miss polls.
    silent_since: Option<Instant>,
    /// When it answered last, on whichever link.
    last_answer: Option<Instant>,
    /// The dials in a row that failed.
    failed_dials: u32,
    /// The last failure was of a kind that a dead server gives.
    gone: bool,
    last_poll: Option<Instant>,
    last_failure: Option<Instant>,
    poll_at_once: bool,
}

impl Detector {
    pub fn new(timing: Failover) -> Self {
        Self {
            timing,
            health: Health::Unknown,
            misses: 0,
            silent_since: None,
            last_answer: None,
            failed_dials: 0,
            gone: false,
            last_poll: None,
            last_failure: None,
            poll_at_once: false,
        }
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether anything speaks against this server just now.
    pub fn in_doubt(&self) -> bool {
        self.health != Health::Healthy || self.misses > 0
    }

    /// A poll was sent.
    pub fn handle_sent(&mut self, now: Instant) {
        self.last_poll = Some(now);
        self.poll_at_once = false;
    }

    /// A poll, or the probe of a new link, was answered.
    pub fn handle_answer(&mut self, now: Instant) -> Option<Health> {
        self.last_answer = Some(now);
        if !mutation::on(Mutation::MissesNotCleared) {
            self.misses = 0;
        }
        self.silent_since = None;
        self.failed_dials = 0;
        self.gone = false;
        self.last_failure = None;
        self.become_(Health::Healthy)
    }

    /// `poll_timeout` has passed once more without an answer.
    pub fn handle_miss(&mut self, now: Instant) -> Option<Health> {
        self.misses = self.misses.saturating_add(1);
        let sent = now.checked_sub(self.timing.poll_timeout).unwrap_or(now);
        // Another link may have answered since.
        let start = self.last_answer.map_or(sent, |answer| answer.max(sent));
        let since = *self.silent_since.get_or_insert(start);
        if matches!(self.health, Health::Lost | Health::ComingBack) {
            return None;
        }
        if now.saturating_duration_since(since) >= self.timing.timeout
            && !mutation::on(Mutation::SilenceNotGivenUp)
        {
            return self.become_(Health::Lost);
        }
        if self.misses >= self.timing.poll_failures {
            return self.become_(Health::Suspect);
        }
        None
    }

    /// A link broke, or a dial failed: the monitor's own or a session's.
    pub fn handle_failure(
        &mut self,
        now: Instant,
        failure: &Failure,
        dial: bool,
    ) -> Option<Health> {
        match failure {
            // A dial that hangs is told of by the misses that are counted meanwhile.
            Failure::Silent(_) => {
                self.last_failure = Some(now);
                self.failed_dials = self.failed_dials.saturating_add(u32::from(dial));
                None
            }
            // Another link was not let in, but the monitor's own still answers.
            Failure::Full(_) | Failure::Refuses(_) if self.health == Health::Healthy => None,
            Failure::Absent(_) | Failure::Gone(_) | Failure::Refuses(_) => {
                self.note(now, dial, !matches!(failure, Failure::Refuses(_)));
                self.become_(Health::Lost)
            }
            Failure::ComingBack(_) | Failure::Full(_) => {
                self.note(now, dial, false);
                self.become_(Health::ComingBack)
            }
        }
    }

    /// A session says that its link to this server broke: ask at once.
    pub fn handle_report(&mut self) {
        self.poll_at_once = true;
    }

    /// When to send the next poll. `urgent`: the primary is in doubt, and this may be the standby
    /// that takes over.
    pub fn next_poll(&self, now: Instant, urgent: bool) -> Instant {
        let interval = match urgent {
            true => self.timing.promotion_poll_interval.min(self.timing.poll_interval),
            false => self.timing.poll_interval,
        };
        match self.last_poll {
            Some(last) if !self.poll_at_once => last + interval,
            _ => now,
        }
    }

    /// When to dial again: at once after a link broke, then less and less often.
    pub fn next_dial(&self, now: Instant) -> Instant {
        let (Some(last), 1..) = (self.last_failure, self.failed_dials) else {
            return now;
        };
        let ceiling = self.timing.poll_interval.max(REDIAL_MIN);
        let doublings = (self.failed_dials - 1).min(16);
        last + REDIAL_MIN.saturating_mul(1 << doublings).min(ceiling)
    }

    /// Whether an answer on an old link counts for nothing: a server whose postmaster is dead has
    /// backends that live on for a while.
    pub fn needs_dial(&self) -> bool {
        matches!(self.health, Health::Lost | Health::ComingBack) && !self.given_up()
    }

    /// Whether it is certain enough that nobody can reach this server for another one to be
    /// promoted in its place: its link was closed *and* a dial has failed since, or it has been
    /// silent for twice the time that makes it suspect.
    pub fn unreachable(&self, now: Instant) -> bool {
        match self.health {
            Health::Lost if self.gone && self.failed_dials > 0 => true,
            Health::Lost | Health::Suspect => self.silent_since.is_some_and(|since| {
                let patience = self.timing.poll_timeout * self.timing.poll_failures * 2;
                now.saturating_duration_since(since) >= patience
            }),
            _ => false,
        }
    }

    /// Whether it was given up because of its silence, so that whoever still waits for an answer
    /// of it has to be woken.
    pub fn given_up(&self) -> bool {
        self.health == Health::Lost && self.silent_since.is_some() && !self.gone
    }

    fn note(&mut self, now: Instant, dial: bool, gone: bool) {
        self.last_failure = Some(now);
        self.gone = gone;
        self.failed_dials = self.failed_dials.saturating_add(u32::from(dial));
    }

    fn become_(&mut self, health: Health) -> Option<Health> {
        if self.health == health {
            return None;
        }
        self.health = health;
        Some(health)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnPrimaryLoss;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn timing() -> Failover {
        Failover {
            poll_interval: ms(250),
            poll_timeout: ms(1000),
            poll_failures: 2,
            promotion_poll_interval: ms(5),
            timeout: ms(60_000),
            on_primary_loss: OnPrimaryLoss::Wait,
            standby_links_max: 64,
            recovery_concurrency: 16,
            retry_conflicts: 0,
        }
    }

    fn healthy(start: Instant) -> Detector {
        let mut detector = Detector::new(timing());
        detector.handle_sent(start);
        assert_eq!(detector.handle_answer(start), Some(Health::Healthy));
        detector
    }

    #[test]
    fn two_missed_polls_make_a_suspect_and_a_late_answer_clears_it() {
        let start = Instant::now();
        let mut detector = healthy(start);
        assert_eq!(detector.handle_miss(start + ms(1000)), None);
        assert!(detector.in_doubt());
        assert_eq!(detector.health(), Health::Healthy);
        assert_eq!(detector.handle_miss(start + ms(2000)), Some(Health::Suspect));
        assert_eq!(detector.handle_miss(start + ms(3000)), None);
        assert_eq!(detector.handle_answer(start + ms(3500)), Some(Health::Healthy));
        assert!(!detector.in_doubt());
        // The count begins anew.
        assert_eq!(detector.handle_miss(start + ms(5000)), None);
    }

    #[test]
    fn silence_is_given_up_only_after_the_failover_timeout() {
        let start = Instant::now();
        let mut detector = healthy(start);
        let mut changes = Vec::new();
        for second in 1..=70 {
            if let Some(health) = detector.handle_miss(start + ms(1000 * second)) {
                changes.push((second, health));
            }
        }
        assert_eq!(changes, [(2, Health::Suspect), (60, Health::Lost)]);
        assert!(detector.given_up());
    }

    /// A dial of a session's was answered while a poll on the monitor's own link was not. The silence was
    /// counted from when that poll was sent, so that the server was given up before it had been silent
    /// for the failover timeout. Found by the simulation.
    #[test]
    fn silence_is_counted_from_the_last_answer_on_whichever_link() {
        let start = Instant::now();
        let mut detector = healthy(start);
        // A poll was sent at 0; a new link is answered at 900.
        detector.handle_answer(start + ms(900));
        for second in 1..=60 {
            assert_ne!(detector.handle_miss(start + ms(1000 * second)), Some(Health::Lost));
        }
        assert_eq!(detector.handle_miss(start + ms(61_000)), Some(Health::Lost));
    }

    #[test]
    fn a_closed_link_is_lost_at_once_and_redialled_at_once_then_with_backoff() {
        let start = Instant::now();
        let mut detector = healthy(start);
        let closed = Failure::Gone("closed".into());
        assert_eq!(detector.handle_failure(start, &closed, false), Some(Health::Lost));
        assert_eq!(detector.next_dial(start), start);
        assert!(!detector.unreachable(start), "one closed link is no dead server");
        assert!(!detector.given_up());
        let mut delays = Vec::new();
        for _ in 0..5 {
            detector.handle_failure(start, &closed, true);
            delays.push(detector.next_dial(start) - start);
        }
        assert_eq!(delays, [ms(50), ms(100), ms(200), ms(250), ms(250)]);
        assert!(detector.unreachable(start));
        assert_eq!(detector.handle_answer(start), Some(Health::Healthy));
        assert_eq!(detector.next_dial(start + ms(9)), start + ms(9));
    }

    #[test]
    fn a_server_that_starts_up_is_coming_back_and_not_unreachable() {
        let start = Instant::now();
        let mut detector = healthy(start);
        detector.handle_failure(start, &Failure::Gone("closed".into()), false);
        let starting = Failure::of_last_words(
            &ServerError {
                code: "57P03".into(),
                message: "the database system is in recovery mode".into(),
                ..ServerError::default()
            },
            None,
        );
        assert_eq!(detector.handle_failure(start, &starting, true), Some(Health::ComingBack));
        assert!(!detector.unreachable(start + ms(600_000)));
    }

    #[test]
    fn a_refusal_of_the_client_is_no_death() {
        let start = Instant::now();
        let mut detector = healthy(start);
        let full = Failure::Full("too many clients".into());
        assert_eq!(detector.handle_failure(start, &full, true), None, "its own link answers");
        detector.handle_failure(start, &Failure::Gone("closed".into()), false);
        assert_eq!(detector.handle_failure(start, &full, true), Some(Health::ComingBack));
        let wrong = Error::server(
            ServerError { code: "28P01".into(), ..ServerError::default() },
            crate::Outcome::NotCommitted,
        );
        let failure = Failure::of(&wrong);
        assert!(matches!(failure, Failure::Refuses(_)));
        detector.handle_failure(start, &failure, true);
        assert_eq!(detector.health(), Health::Lost);
        assert!(!detector.unreachable(start + ms(600_000)));
    }

    #[test]
    fn silence_becomes_unreachable_after_twice_the_time_of_suspicion() {
        let start = Instant::now();
        let mut detector = healthy(start);
        detector.handle_miss(start + ms(1000));
        detector.handle_miss(start + ms(2000));
        assert!(!detector.unreachable(start + ms(3999)));
        assert!(detector.unreachable(start + ms(4000)));
    }

    #[test]
    fn polls_are_hastened_by_urgency_and_by_reports() {
        let start = Instant::now();
        let mut detector = healthy(start);
        assert_eq!(detector.next_poll(start, false), start + ms(250));
        assert_eq!(detector.next_poll(start, true), start + ms(5));
        detector.handle_report();
        assert_eq!(detector.next_poll(start + ms(1), false), start + ms(1));
        detector.handle_sent(start + ms(1));
        assert_eq!(detector.next_poll(start + ms(2), false), start + ms(251));
    }

    #[test]
    fn errors_are_told_apart() {
        let of = |kind| {
            let error = Error::new(ErrorKind::Connect, "x").with_source(io::Error::from(kind));
            Failure::of(&error)
        };
        assert!(matches!(of(io::ErrorKind::ConnectionRefused), Failure::Absent(_)));
        assert!(matches!(of(io::ErrorKind::ConnectionReset), Failure::Gone(_)));
        assert!(matches!(of(io::ErrorKind::TimedOut), Failure::Silent(_)));
        let tls = Failure::of(&Error::new(ErrorKind::Tls, "certificate"));
        assert!(matches!(tls, Failure::Refuses(_)));
        let full = ServerError { code: "53300".into(), ..ServerError::default() };
        assert!(matches!(Failure::of_last_words(&full, None), Failure::Full(_)));
        let ended = ServerError { code: "57P01".into(), ..ServerError::default() };
        assert!(matches!(Failure::of_last_words(&ended, None), Failure::Gone(_)));
    }
}
