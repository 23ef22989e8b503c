//! What a session that has no link asks of its cluster, and until when. Pure: time is an argument.
//!
//! Invariant: a session seeks until one and the same deadline, however many links it is given and
//! loses again before it can go on with one.

use std::time::{Duration, Instant};

use super::Want;
use crate::mutation::{self, Mutation};

/// One session's search for a link on which it can go on.
#[derive(Debug, Default)]
pub struct Seeking {
    since: Option<Instant>,
    /// The server whose link was lost last, until another one was taken.
    lost: Option<usize>,
}

impl Seeking {
    /// The session can go on: its next search is another one.
    pub fn handle_live(&mut self) {
        self.since = None;
    }

    pub fn handle_lost(&mut self, server: usize) {
        self.lost = Some(server);
        if mutation::on(Mutation::DeadlineSetAnew) {
            self.since = None;
        }
    }

    /// What to ask for, now. The search does not begin with the loss, since when nobody may have
    /// waited for a link.
    pub fn want(
        &mut self,
        now: Instant,
        timeout: Duration,
        (session, timeline_floor, writes): (u64, u32, bool),
    ) -> Want {
        let since = *self.since.get_or_insert(now);
        let patience = if mutation::on(Mutation::DeadlineNotKept) { timeout * 4 } else { timeout };
        Want { session, timeline_floor, writes, lost: self.lost, deadline: since + patience }
    }

    /// A link was taken. Returns the server that it takes the place of.
    pub fn handle_taken(&mut self) -> Option<usize> {
        self.lost.take()
    }

    /// No link could be had, and whoever waited has been told: the next search is another one.
    pub fn handle_none(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn links_that_are_lost_before_the_session_goes_on_do_not_move_the_deadline() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut seeking = Seeking::default();
        seeking.handle_lost(0);
        let want = seeking.want(at(5), TIMEOUT, (1, 3, true));
        assert_eq!((want.deadline, want.lost, want.timeline_floor), (at(65), Some(0), 3));
        assert_eq!(seeking.handle_taken(), Some(0));
        seeking.handle_lost(1);
        let again = seeking.want(at(30), TIMEOUT, (1, 3, true));
        assert_eq!((again.deadline, again.lost), (at(65), Some(1)));
        seeking.handle_none();
        assert_eq!(seeking.want(at(66), TIMEOUT, (1, 3, true)).deadline, at(126));
        seeking.handle_live();
        assert_eq!(seeking.want(at(70), TIMEOUT, (1, 3, true)).deadline, at(130));
    }
}
