//! Asks the standby whether it has commits yet, for sessions whose commits the backup acknowledges.
//!
//! One link of its own serves all waiting sessions: each question names all of their ledger rows.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::conn::Conn;
use super::hub::Hub;
use crate::error::{Error, ErrorKind, Outcome, Result};

/// Between two questions; a standby that replays at once is asked about as often as commits come.
const PAUSE: Duration = Duration::from_micros(500);
/// Between two attempts to find a standby.
const RETRY: Duration = Duration::from_millis(20);

/// A session that waits until the backup has a commit.
pub struct Wait {
    pub row: Uuid,
    pub number: u64,
    /// The server that the commit was made on.
    pub server: usize,
    pub deadline: Instant,
    pub reply: Sender<Result<Confirmed>>,
}

/// What became of the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmed {
    /// The backup has the commit.
    ByBackup,
    /// All other servers are known to be down, so that nobody can have it.
    NoBackup,
    /// The server on which it was made is no longer the one that sessions belong on: only the ledger
    /// of the next one can tell.
    Moved,
}

/// Serves all waits until the channel ends.
pub async fn keep(hub: Rc<Hub>, mut inbox: mpsc::UnboundedReceiver<Wait>) {
    let mut waits: Vec<Wait> = Vec::new();
    let mut link: Option<(usize, Conn)> = None;
    loop {
        if waits.is_empty() {
            match inbox.recv().await {
                Some(wait) => waits.push(wait),
                None => return,
            }
        }
        while let Ok(wait) = inbox.try_recv() {
            waits.push(wait);
        }
        drop_hopeless(&hub, &mut waits);
        let Some(standby) = hub.with(|picture| picture.standby()) else {
            if hub.with(|picture| picture.others_are_lost()) {
                for wait in waits.drain(..) {
                    let _ = wait.reply.send(Ok(Confirmed::NoBackup));
                }
                continue;
            }
            sleep(RETRY).await;
            continue;
        };
        if link.as_ref().is_none_or(|(server, _)| *server != standby) {
            link = match hub.dial(standby).await {
                Ok((conn, _)) => Some((standby, conn)),
                Err(failure) => {
                    hub.handle_failure(standby, failure, true);
                    sleep(RETRY).await;
                    continue;
                }
            };
        }
        let Some((_, conn)) = link.as_mut() else { continue };
        match ask(&hub, conn, &waits).await {
            Some(numbers) => waits.retain(|wait| {
                let has = numbers.get(&wait.row).is_some_and(|number| *number >= wait.number);
                if has {
                    let _ = wait.reply.send(Ok(Confirmed::ByBackup));
                }
                !has
            }),
            None => {
                link = None;
                sleep(RETRY).await;
            }
        }
        if !waits.is_empty() {
            sleep(PAUSE).await;
        }
    }
}

/// The numbers that the standby has; `None` if its link is of no use.
async fn ask(hub: &Hub, conn: &mut Conn, waits: &[Wait]) -> Option<HashMap<Uuid, u64>> {
    let rows: Vec<Uuid> = waits.iter().map(|wait| wait.row).collect();
    let sql = hub.preparations.backup_sql(&rows);
    let limit = hub.config.failover.poll_timeout;
    let reply = timeout(limit, conn.query(&sql)).await.ok()?.ok()?;
    if let Some(error) = reply.error {
        tracing::debug!(code = %error.code, "the standby cannot say which commits it has");
        return None;
    }
    let number = |row: &super::probe::Row| {
        let id = row.first()?.as_deref()?.parse().ok()?;
        Some((id, row.get(1)?.as_deref()?.parse().ok()?))
    };
    Some(reply.rows.iter().filter_map(number).collect())
}

/// Ends the waits whose server was left, and those whose deadline has passed.
fn drop_hopeless(hub: &Hub, waits: &mut Vec<Wait>) {
    let now = Instant::now();
    let chosen = hub.with(|picture| picture.chosen());
    waits.retain(|wait| {
        if chosen.is_some_and(|server| server != wait.server) {
            let _ = wait.reply.send(Ok(Confirmed::Moved));
            return false;
        }
        if now >= wait.deadline {
            let _ = wait.reply.send(Err(silent()));
            return false;
        }
        true
    });
}

fn silent() -> Error {
    Error::new(
        ErrorKind::FailoverTimeout,
        "the transaction is committed on the primary, but the backup did not confirm within \
         failover_timeout_ms that it has it (commit_ack=backup): it would be lost if the primary \
         were lost now; do not run it again",
    )
    .with_outcome(Outcome::Committed)
}
