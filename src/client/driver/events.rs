//! What a session has to tell that is not the reply to a request: the client hears of it, and the backup
//! is asked for what waits for it.

use std::time::Instant;

use uuid::Uuid;

use super::{Driver, Notification};
use crate::client::event::ClientEvent;
use crate::cluster::Confirmed;
use crate::session::Event;

impl Driver {
    /// Deals with what concerns the client rather than the request in hand.
    pub(super) fn pass_on(&mut self, event: Event) {
        let session = self.id;
        let event = match event {
            Event::Parameter { .. } => return,
            Event::Notification { process_id, channel, payload } => {
                self.notifications.push_back(Notification { process_id, channel, payload });
                return;
            }
            Event::AwaitBackup { ledger_row, number } => {
                // With the next step: whoever only polls must not wait.
                self.awaited = Some((ledger_row, number));
                return;
            }
            Event::Notice(notice) => ClientEvent::Notice { session, notice },
            Event::ProtectionLost(reason) => ClientEvent::ProtectionLost { session, reason },
            Event::CommitsLost { session: ledger_row, from, to } => {
                ClientEvent::CommitsLost { session, ledger_row, from, to }
            }
            Event::CommitReapplied { session: ledger_row, number } => {
                ClientEvent::CommitReapplied { session, ledger_row, number }
            }
            Event::ReplayStarted { statements } => {
                ClientEvent::ReplayStarted { session, statements }
            }
            Event::ReplayFinished => ClientEvent::ReplayFinished { session },
            Event::ReplayDiverged { statement } => {
                ClientEvent::ReplayDiverged { session, statement }
            }
            _ => return,
        };
        self.tell(&event);
    }

    /// Counts an event of the session's, and tells the client.
    pub(super) fn tell(&self, event: &ClientEvent) {
        let counters = self.core.counters();
        match event {
            ClientEvent::ReplayStarted { .. } => counters.replays_started.add(1),
            ClientEvent::ReplayFinished { .. } => counters.replays_finished.add(1),
            ClientEvent::ReplayDiverged { .. } => counters.replays_diverged.add(1),
            ClientEvent::ProtectionLost { .. } => counters.protection_lost.add(1),
            ClientEvent::CommitsLost { from, to, .. } => {
                counters.commits_lost.add(to.saturating_sub(*from) + 1);
            }
            ClientEvent::CommitReapplied { .. } => counters.commits_reapplied.add(1),
            ClientEvent::Notice { .. } => counters.notices.add(1),
            ClientEvent::Cluster(_)
            | ClientEvent::SessionMoved { .. }
            | ClientEvent::SubmissionDied { .. }
            | ClientEvent::SubmissionsLost { .. }
            | ClientEvent::SubmissionReapplied { .. }
            | ClientEvent::TransactionsFound { .. } => {}
        }
        self.inner.emit(event);
    }

    /// A commit stands on its server; the application hears of it once the backup has it too.
    pub(super) fn await_backup(&mut self, ledger_row: Uuid, number: u64) {
        let deadline = Instant::now() + self.timeout;
        let server = self.core.server();
        match self.inner.cluster.confirm(ledger_row, number, server, deadline) {
            Ok(Confirmed::ByBackup) => {
                self.told_no_backup = false;
                self.core.handle_backup(Ok(()));
            }
            Ok(Confirmed::NoBackup) => {
                if !std::mem::replace(&mut self.told_no_backup, true) {
                    let reason =
                        "no backup is up to confirm commits (commit_ack=backup)".to_owned();
                    self.tell(&ClientEvent::ProtectionLost { session: self.id, reason });
                }
                self.core.handle_backup(Ok(()));
            }
            Ok(Confirmed::Moved) => return self.lose_link(),
            Err(error) => self.core.handle_backup(Err(error)),
        }
        // What had arrived behind it.
        self.take_input();
    }
}
