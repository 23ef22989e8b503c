//! The servers of one cluster: what is known of them, and which one a session should use.
//!
//! [`choice`], [`detector`] and `picture` are pure. All else runs on the one background thread of
//! a client (a tokio current-thread runtime), which polls every server on a link of its own
//! (`watch`), keeps warm links (`warm`), dials on behalf of sessions (`acquire`), and wakes the
//! sessions of a server that has been given up. [`Cluster`] is the handle that other threads have.
//!
//! Sessions come here only to open, lose or close a link: nothing of it is on the hot path. No
//! lock is held across an await or while the client's callbacks run.

pub mod choice;
pub mod detector;
// For the simulation, and for nobody else.
#[doc(hidden)]
pub mod picture;
#[doc(hidden)]
pub mod seeking;
pub mod status;

mod acquire;
mod claims;
mod confirm;
mod conn;
mod errand;
mod handle;
mod hub;
mod pacer;
mod probe;
mod promote;
mod warm;
mod watch;

use std::time::Instant;

use bytes::BytesMut;

pub use choice::Verdict;
pub use confirm::{Backlog, Confirmed};
pub use detector::Health;
pub use handle::{Cluster, EventSink};
pub use status::{ClusterEvent, Role, ServerStatus, Status};

use crate::link::Link;

/// What may be sealed with on a server, as the user of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LedgerAccess {
    /// Not installed, or of another version, or not permitted.
    None,
    /// The table may be updated directly: the fast form.
    Table,
    /// Only through the SECURITY DEFINER function.
    Function,
}

/// What a server says of itself over SQL on a freshly made link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub in_recovery: bool,
    /// `transaction_read_only` of a fresh transaction: a standby, or default_transaction_read_only.
    pub read_only: bool,
    pub system_identifier: u64,
    pub timeline: u32,
    /// The write position of a primary, the replay position of a standby.
    pub lsn: u64,
    pub ledger: LedgerAccess,
    /// Of the link's own backend: together with its pid its name on that server.
    pub backend_start: String,
}

/// What a session needs of its next link.
#[derive(Debug, Clone)]
pub struct Want {
    /// Unique within the client.
    pub session: u64,
    /// Never a server of an older timeline.
    pub timeline_floor: u32,
    /// Whether it has to be writable.
    pub writes: bool,
    /// The session has just lost this server; others were perhaps not asked since.
    pub lost: Option<usize>,
    pub deadline: Instant,
}

/// A link for one session, and what is known of it.
pub struct Handover {
    pub link: Link,
    /// Index into the configuration's hosts.
    pub server: usize,
    pub facts: Facts,
    /// The numbers of the statements that are prepared on it.
    pub prepared: Vec<u32>,
}

/// What to prepare on links ahead of time, and what to ask of them beside the cluster's own
/// questions; given by the client, which knows statements and ledger.
///
/// Called on the background thread, which must not be blocked.
pub trait Preparations: Send + Sync {
    /// Appends to `out` a Parse message for each statement that is worth having on a warm link and
    /// whose number is not in `already`; returns their numbers. `facts` chooses the seal's form,
    /// and what may be prepared: on a server that writes, Parse takes part in its deadlocks.
    ///
    /// Other messages may follow a Parse that they belong to; Sync is added by the cluster.
    fn prepare(&self, facts: &Facts, already: &[u32], out: &mut BytesMut) -> Vec<u32>;

    /// An SQL expression that gives `none`, `table` or `function`: the ledger as this user may use
    /// it. It must not fail where there is no ledger.
    fn ledger_access_sql(&self) -> &str {
        "'none'"
    }

    /// A query for the rows of the ledger that are given: their names and their numbers.
    fn backup_sql(&self, rows: &[uuid::Uuid]) -> String {
        let _ = rows;
        "SELECT NULL, NULL LIMIT 0".to_owned()
    }

    /// A query for the ids, of these, of submissions that are done.
    fn claims_sql(&self, access: LedgerAccess, ids: &[uuid::Uuid]) -> String {
        let _ = (access, ids);
        "SELECT NULL LIMIT 0".to_owned()
    }

    /// An SQL expression that gives [`Facts::backend_start`] as text, whatever DateStyle is.
    fn backend_start_sql(&self) -> &str {
        "(SELECT extract(epoch FROM a.backend_start)::pg_catalog.text FROM \
         pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a)"
    }
}
