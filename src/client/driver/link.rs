//! The link of a session: lost, sought, and taken.

use std::time::{Duration, Instant};

use super::Driver;
use crate::client::event::ClientEvent;
use crate::cluster::Handover;
use crate::error::Result;
use crate::session::{self, LedgerAccess};

/// What a broken link may still have to say is waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(5);

impl Driver {
    /// The link is broken: hears its last words, then lets go of it.
    pub(super) fn lose_link(&mut self) {
        if let Some(link) = self.link.as_mut() {
            if !self.core.gives_up_link() {
                link.drain(&mut self.input, LAST_WORDS);
                let _ = self.core.handle_input(&mut self.input);
            }
        }
        self.input.clear();
        self.drop_link();
    }

    pub(super) fn drop_link(&mut self) {
        if let Some(link) = self.link.take() {
            link.abandon();
            self.core.counters().links_lost.add(1);
            self.set_whereabouts(None);
            self.inner.cluster.deregister(self.id);
            self.seeking.handle_lost(self.core.server());
            let code = self.core.last_words().map(|words| words.code.as_str()).unwrap_or_default();
            tracing::debug!(session = self.id, server = self.core.server(), code, "link lost");
        }
        self.sent = 0;
        self.lost_at.get_or_insert_with(Instant::now);
        self.core.handle_link_lost();
    }

    /// Asks the cluster for a link, and waits for it.
    pub(super) fn find_link(&mut self) -> Result<()> {
        self.lost_at.get_or_insert_with(Instant::now);
        let of_whom = (self.id, self.core.timeline_floor(), self.writes);
        let want = self.seeking.want(Instant::now(), self.timeout, of_whom);
        let interrupt = self.interrupt.clone();
        let mut interrupted = || interrupt.as_ref().is_some_and(|interrupt| interrupt());
        let taken = self
            .inner
            .cluster
            .acquire(&want, &mut interrupted)
            .and_then(|handover| self.take_link(handover));
        match taken {
            Ok(()) => Ok(()),
            Err(error) => {
                self.lost_at = None;
                self.seeking.handle_none();
                self.core.handle_no_link(&error);
                // If a request is waiting, its events tell; otherwise the caller is told here.
                if self.core.has_events() { Ok(()) } else { Err(error) }
            }
        }
    }

    pub(super) fn take_link(&mut self, handover: Handover) -> Result<()> {
        let Handover { mut link, server, facts, prepared } = handover;
        link.set_interruptible(self.interrupt.is_some());
        if let Some(keeper) = &mut self.keeper {
            keeper.system_identifier = facts.system_identifier;
            keeper.handle_timeline(facts.timeline, Instant::now() + self.timeout);
        }
        // Ahead of what the new server is asked and sent.
        self.hear_of_failures();
        let mut access = self.inner.ledger_access(&facts);
        let usable = self.writes && !facts.read_only && !facts.in_recovery;
        if usable
            && access == LedgerAccess::None
            && self.inner.install_once((server, facts.timeline))?
        {
            access = LedgerAccess::Table;
        }
        let ready = session::LinkReady {
            server,
            timeline: facts.timeline,
            backend_pid: link.info().backend_pid,
            backend_start: facts.backend_start,
            prepared,
            parameters: link.info().parameters.clone(),
            ledger: access,
        };
        self.inner.cluster.register(self.id, server, link.waker());
        self.core.handle_link_ready(ready)?;
        self.set_whereabouts(Some((server, link.info().clone())));
        self.link = Some(link);
        if let Some(since) = self.lost_at.take() {
            if self.seeking.handle_taken().is_some() {
                let pause = since.elapsed();
                let pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
                self.core.counters().pause_longest_us.raise(pause_us);
                self.core.counters().pause_total_us.add(pause_us);
                self.inner.emit(&ClientEvent::SessionMoved { session: self.id, server, pause });
            }
        }
        Ok(())
    }
}
