//! What a session tells its driver, in the order in which it happened.

use bytes::Bytes;
use std::sync::Arc;
use uuid::Uuid;

use super::statement::Column;
use crate::error::{Error, ServerError};
use crate::wire::frame::Status;

/// What a session tells its driver.
///
/// Every request ends with exactly one [`Ready`](Event::Ready); what comes before it belongs to it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A result with rows begins.
    Columns(Arc<[Column]>),
    /// The body of a DataRow, whole and checked.
    Row(Bytes),
    /// A statement has ended; the command tag. Rows before it belong to it.
    Complete(Bytes),
    /// The server expects data for COPY.
    CopyIn,
    /// The server will send data of COPY.
    CopyOut,
    /// A piece of COPY's data.
    CopyData(Bytes),
    /// The request failed. Nothing but `Ready` follows for it, and where the outcome is `Committed`
    /// all the same, what it returned.
    Error(Error),
    /// The request has ended.
    Ready(Status),
    /// The link was lost in mid-reply and the request is being run again: what has been received of
    /// it since the last `Ready` is void. Only for requests that are not streamed.
    Restarted,
    /// The commit that carries this number stands on its server; see
    /// [`Session::handle_backup`](super::Session::handle_backup).
    AwaitBackup {
        ledger_row: Uuid,
        number: u64,
    },
    Notice(Box<ServerError>),
    Notification {
        process_id: i32,
        channel: String,
        payload: String,
    },
    Parameter {
        name: String,
        value: String,
    },
    /// The session or its transaction is from here on without protection.
    ProtectionLost(String),
    /// Commits that were acknowledged are not on the server that took over.
    CommitsLost {
        session: Uuid,
        from: u64,
        to: u64,
    },
    /// A commit that was acknowledged and then lost was run again, and stands.
    CommitReapplied {
        session: Uuid,
        number: u64,
    },
    ReplayStarted {
        statements: usize,
    },
    ReplayFinished,
    ReplayDiverged {
        statement: usize,
    },
}

impl Event {
    /// Whether it is part of the reply to a request, and for whoever has made the request.
    pub fn is_reply(&self) -> bool {
        matches!(
            self,
            Self::Columns(_)
                | Self::Row(_)
                | Self::Complete(_)
                | Self::CopyIn
                | Self::CopyOut
                | Self::CopyData(_)
                | Self::Error(_)
                | Self::Ready(_)
                | Self::Restarted
        )
    }
}
