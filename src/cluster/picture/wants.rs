//! What the picture comes to for those who wait: a session for a link, a commit for the backup, the
//! pools for their level.

use std::time::{Duration, Instant};

use super::Picture;
use crate::cluster::confirm::{Confirmed, silent};
use crate::cluster::detector::Health;
use crate::cluster::{Want, status::Status};
use crate::error::{Error, ErrorKind, Result};
use crate::mutation::{self, Mutation};

/// Spare links on the server in use.
const SPARES: usize = 2;

/// What a session that waits for a link can do now.
#[derive(Debug)]
pub enum Next {
    /// Nobody will ever serve it.
    Refused(Error),
    /// There is no server for it until something changes.
    Wait,
    /// It may have a link to this server: a warm one, if `warm` and there is one, or dial.
    Take { server: usize, warm: bool },
}

impl Picture {
    /// What a session that has asked for a link at `asked` can do now.
    pub fn next(&self, want: &Want, asked: Instant) -> Next {
        if let Some(error) = self.refusal() {
            return Next::Refused(error);
        }
        match self.pick(want) {
            Some(server) => Next::Take { server, warm: self.may_be_warm(want, server, asked) },
            None => Next::Wait,
        }
    }

    /// A warm link to a server that was just lost proves nothing: see [`acquire`](crate::cluster).
    fn may_be_warm(&self, want: &Want, server: usize, asked: Instant) -> bool {
        let it = &self.servers[server];
        let proved = it.proved.is_some_and(|proved| proved >= asked)
            || mutation::on(Mutation::LostServerNotProved);
        !it.detector.in_doubt() && (want.lost != Some(server) || proved)
    }

    /// The error of a session whose deadline has passed.
    pub fn deadline_error(&self, want: &Want, asked: Instant) -> Error {
        let waited = want.deadline.saturating_duration_since(asked).as_millis();
        let status: Status = self.status();
        let what = match want.writes {
            true => "no server that accepts writes",
            false => "no usable server",
        };
        let floor = match want.timeline_floor {
            0 | 1 => String::new(),
            floor => format!(" on timeline {floor} or later"),
        };
        Error::new(
            ErrorKind::FailoverTimeout,
            format!(
                "{what}{floor} was found within {waited} ms: {}. Start or promote a server, or \
                 allow more time with failover_timeout_ms",
                status.summary()
            ),
        )
    }

    /// What is to be said to a session whose commit on `server` waits for the backup, beside what the
    /// backup itself says.
    pub fn backup_word(
        &self,
        now: Instant,
        server: usize,
        deadline: Instant,
    ) -> Option<Result<Confirmed>> {
        if self.chosen.is_some_and(|chosen| chosen != server) {
            return Some(Ok(Confirmed::Moved));
        }
        if now >= deadline {
            return Some(Err(silent()));
        }
        (self.standby.is_none() && self.others_are_lost()).then_some(Ok(Confirmed::NoBackup))
    }

    /// How many warm links the server should have.
    pub fn warm_links_wanted(&self, server: usize) -> usize {
        let most = usize::try_from(self.timing.standby_links_max).unwrap_or(usize::MAX);
        if self.servers[server].detector.health() != Health::Healthy {
            0
        } else if self.chosen == Some(server) {
            SPARES.min(self.sessions.len()).min(most)
        } else if self.standby == Some(server) {
            if mutation::on(Mutation::WarmLinksUnlimited) {
                return self.sessions.len() * 2;
            }
            self.sessions.len().min(most)
        } else {
            0
        }
    }

    /// The time within which an answer is expected.
    pub fn poll_timeout(&self) -> Duration {
        self.timing.poll_timeout
    }
}
