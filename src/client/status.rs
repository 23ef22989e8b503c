//! Snapshots of what a client and a session know.

use std::sync::Arc;

use uuid::Uuid;

use crate::cluster;

/// A client: its servers and how it is set up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientStatus {
    pub cluster: Arc<cluster::Status>,
    /// Sessions that are open.
    pub sessions: usize,
    /// Why the ledger could not be installed, if it could not.
    pub ledger_problem: Option<String>,
    /// The journal on disk, if there is one.
    pub journal: Option<JournalStatus>,
}

/// The journal on disk, which keeps submissions and the transactions of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalStatus {
    pub dir: std::path::PathBuf,
    /// What all of its files take up.
    pub bytes: u64,
}

/// A session: where it is and what protects it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionStatus {
    pub session: u64,
    /// Index of its server in the configuration, and its address.
    pub server: usize,
    pub address: Option<String>,
    /// It never goes to a server of an older timeline.
    pub timeline: u32,
    pub backend_pid: Option<i32>,
    pub tls_version: Option<&'static str>,
    pub in_transaction: bool,
    pub transaction_failed: bool,
    /// Whether its commits are sealed.
    pub ledger: bool,
    /// Its present row in the ledger. It is a capability: whoever knows it can seal in its name.
    pub ledger_row: Uuid,
    /// Why the open transaction, or the session's state, would not survive its server.
    pub protection_lost: Option<String>,
}
