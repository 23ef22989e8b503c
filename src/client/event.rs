//! What a client tells of itself: through callbacks, and as `tracing` events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use uuid::Uuid;

use crate::cluster::ClusterEvent;
use crate::error::ServerError;

/// Something that an operator may want to know. None carries a secret; none a parameter's value, save
/// where a server quotes one in its own message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A server was found suspect, was lost, was promoted, came back.
    Cluster(ClusterEvent),
    /// A session's in-flight transaction is being run again on another link.
    ReplayStarted { session: u64, statements: usize },
    /// All that the application has seen has matched.
    ReplayFinished { session: u64 },
    /// The replay gave something else at this statement (counted from 1); it was rolled back.
    ReplayDiverged { session: u64, statement: usize },
    /// The session has a link again; so long was it without one.
    SessionMoved { session: u64, server: usize, pause: Duration },
    /// The session, or its open transaction, goes on without protection.
    ProtectionLost { session: u64, reason: String },
    /// Commits that were acknowledged are not on the server that took over.
    CommitsLost { session: u64, ledger_row: Uuid, from: u64, to: u64 },
    /// A commit that was acknowledged and then lost was run again, and stands.
    CommitReapplied { session: u64, ledger_row: Uuid, number: u64 },
    /// A submission can never succeed as things are: it is kept as a dead letter, and nothing of it is
    /// committed. The message is the server's, or Segue's own.
    SubmissionDied { id: Uuid, key: Option<String>, sqlstate: String, message: String },
    /// Submissions that were told to be committed are not on the server that took over, and are not run
    /// again by themselves. `others`: earlier ones may be lost too, whose names are not remembered any
    /// more.
    SubmissionsLost { submissions: Vec<SubmissionName>, others: bool },
    /// A submission that was told to be committed and then lost was run again, and stands.
    SubmissionReapplied { id: Uuid, key: Option<String> },
    /// The client's journal holds so many transactions of an earlier process, which wait for
    /// [`Client::recover`](crate::Client::recover). Told to the first callback, when that is put in place.
    TransactionsFound { count: usize },
    /// A warning of the server's.
    Notice { session: u64, notice: Box<ServerError> },
}

/// Names a submission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubmissionName {
    pub id: Uuid,
    /// The application's own name for it, if it has given one.
    pub key: Option<String>,
}

type Callback = Arc<dyn Fn(&ClientEvent) + Send + Sync>;

/// Passes events on to whoever has asked for them.
#[derive(Default)]
pub struct Events {
    next: AtomicU64,
    callbacks: Mutex<Vec<(u64, Callback)>>,
    /// What happened before anybody could listen.
    early: Mutex<Vec<ClientEvent>>,
}

impl Events {
    pub fn emit(&self, event: &ClientEvent) {
        trace(event);
        let callbacks: Vec<Callback> = {
            let callbacks = self.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
            if callbacks.is_empty() {
                return;
            }
            callbacks.iter().map(|(_, callback)| Arc::clone(callback)).collect()
        };
        for callback in callbacks {
            callback(event);
        }
    }

    /// Tells it to whoever comes first.
    pub fn keep(&self, event: ClientEvent) {
        trace(&event);
        self.early.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    pub fn subscribe(self: &Arc<Self>, callback: Callback) -> Subscription {
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        early.iter().for_each(|event| callback(event));
        self.attend(callback)
    }

    /// As [`subscribe`](Self::subscribe), for Segue itself: what happened before is left to the application.
    pub fn attend(self: &Arc<Self>, callback: Callback) -> Subscription {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).push((id, callback));
        Subscription { id, events: Arc::downgrade(self) }
    }
}

/// Keeps a callback in place; dropping it removes the callback.
#[must_use = "the callback is removed when this is dropped"]
pub struct Subscription {
    id: u64,
    events: Weak<Events>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(events) = self.events.upgrade() {
            let mut callbacks = events.callbacks.lock().unwrap_or_else(PoisonError::into_inner);
            callbacks.retain(|(id, _)| *id != self.id);
        }
    }
}

fn trace(event: &ClientEvent) {
    match event {
        // The cluster traces its own.
        ClientEvent::Cluster(_) => {}
        ClientEvent::ReplayStarted { session, statements } => {
            tracing::info!(session, statements, "replay started");
        }
        ClientEvent::ReplayFinished { session } => tracing::info!(session, "replay finished"),
        ClientEvent::ReplayDiverged { session, statement } => {
            tracing::warn!(session, statement, "replay diverged; the transaction was rolled back");
        }
        ClientEvent::SessionMoved { session, server, pause } => {
            let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(session, server, pause_ms, "session moved");
        }
        ClientEvent::ProtectionLost { session, reason } => {
            tracing::warn!(session, %reason, "protection lost");
        }
        ClientEvent::CommitsLost { session, ledger_row, from, to } => {
            tracing::error!(session, %ledger_row, from, to, "acknowledged commits are lost");
        }
        ClientEvent::CommitReapplied { session, ledger_row, number } => {
            tracing::warn!(session, %ledger_row, number, "a lost commit was run again");
        }
        ClientEvent::SubmissionDied { id, sqlstate, .. } => {
            tracing::warn!(%id, %sqlstate, "a submission is a dead letter");
        }
        ClientEvent::SubmissionsLost { submissions, others } => {
            for SubmissionName { id, key } in submissions {
                tracing::error!(%id, key, "a submission that was told to be committed is lost");
            }
            if *others {
                tracing::error!(
                    "earlier submissions that were told to be committed may be lost too"
                );
            }
        }
        ClientEvent::SubmissionReapplied { id, key } => {
            tracing::warn!(%id, key, "a lost submission was run again");
        }
        ClientEvent::TransactionsFound { count } => {
            tracing::warn!(
                count,
                "the journal holds transactions of an earlier process, which wait for recover()"
            );
        }
        ClientEvent::Notice { session, notice } => {
            tracing::debug!(session, code = %notice.code, "notice: {}", notice.message);
        }
    }
}
