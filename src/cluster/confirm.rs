//! Asks the standby whether it has commits yet, for sessions whose commits the backup acknowledges.
//!
//! One link of its own serves all waiting sessions: each question names all of their ledger rows.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// Between two questions for the sake of kept commits alone.
const BACKLOG: Duration = Duration::from_millis(100);

/// How soon a backlog is noticed.
const IDLE: Duration = Duration::from_secs(1);

/// A session that waits until the backup has a commit.
pub struct Wait {
    pub row: Uuid,
    pub number: u64,
    /// The server that the commit was made on.
    pub server: usize,
    pub deadline: Instant,
    pub reply: Reply,
}

/// Takes the answer, on the background thread: it must not block.
pub type Reply = Box<dyn FnOnce(Result<Confirmed>) + Send>;

/// Rows of the ledger whose numbers on the standby are wanted now and then, for sessions that keep
/// commits until the backup has them.
#[derive(Debug, Default)]
pub struct Backlog(Mutex<HashMap<Uuid, u64>>);

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that the standby is known to have; the row is asked for from now on.
    pub fn number(&self, row: Uuid) -> u64 {
        *self.lock().entry(row).or_default()
    }

    /// The row is of no interest any longer.
    pub fn forget(&self, row: Uuid) {
        self.lock().remove(&row);
    }

    fn rows(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }

    fn take(&self, numbers: &HashMap<Uuid, u64>) {
        for (row, number) in self.lock().iter_mut() {
            if let Some(known) = numbers.get(row) {
                *number = (*number).max(*known);
            }
        }
    }
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
pub async fn keep(hub: Rc<Hub>, backlog: Arc<Backlog>, mut inbox: mpsc::UnboundedReceiver<Wait>) {
    let mut waits: Vec<Wait> = Vec::new();
    let mut link: Option<(usize, Conn)> = None;
    loop {
        if waits.is_empty() {
            let idle = backlog.lock().is_empty();
            match timeout(if idle { IDLE } else { BACKLOG }, inbox.recv()).await {
                Ok(Some(wait)) => waits.push(wait),
                Ok(None) => return,
                Err(_) => {}
            }
        }
        while let Ok(wait) = inbox.try_recv() {
            waits.push(wait);
        }
        drop_hopeless(&hub, &mut waits);
        let mut rows = backlog.rows();
        rows.extend(waits.iter().map(|wait| wait.row));
        if rows.is_empty() {
            continue;
        }
        let Some(conn) = connect(&hub, &mut link).await else { continue };
        match ask(&hub, conn, &rows).await {
            Some(numbers) => {
                backlog.take(&numbers);
                answer(&mut waits, |wait| {
                    let number = numbers.get(&wait.row)?;
                    (*number >= wait.number).then_some(Ok(Confirmed::ByBackup))
                });
            }
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

/// A link to the standby, if there is one.
async fn connect<'a>(hub: &Rc<Hub>, link: &'a mut Option<(usize, Conn)>) -> Option<&'a mut Conn> {
    let Some(standby) = hub.with(|picture| picture.standby()) else {
        sleep(RETRY).await;
        return None;
    };
    if link.as_ref().is_none_or(|(server, _)| *server != standby) {
        match hub.dial(standby).await {
            Ok((conn, _)) => *link = Some((standby, conn)),
            Err(failure) => {
                hub.handle_failure(standby, failure, true);
                sleep(RETRY).await;
                return None;
            }
        }
    }
    link.as_mut().map(|(_, conn)| conn)
}

/// The numbers that the standby has; `None` if its link is of no use.
async fn ask(hub: &Hub, conn: &mut Conn, rows: &[Uuid]) -> Option<HashMap<Uuid, u64>> {
    let sql = hub.preparations.backup_sql(rows);
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

/// Ends the waits whose server was left, those that nobody can end any more, and those whose deadline
/// has passed.
fn drop_hopeless(hub: &Hub, waits: &mut Vec<Wait>) {
    let now = Instant::now();
    answer(waits, |wait| hub.with(|p| p.backup_word(now, wait.server, wait.deadline)));
}

/// Ends the waits that there is an answer for.
fn answer(waits: &mut Vec<Wait>, mut word: impl FnMut(&Wait) -> Option<Result<Confirmed>>) {
    let mut at = 0;
    while let Some(wait) = waits.get(at) {
        match word(wait) {
            Some(word) => (waits.remove(at).reply)(word),
            None => at += 1,
        }
    }
}

pub(super) fn silent() -> Error {
    Error::new(
        ErrorKind::FailoverTimeout,
        "the transaction is committed on the primary, but the backup did not confirm within \
         failover_timeout_ms that it has it (commit_ack=backup): it would be lost if the primary \
         were lost now; do not run it again",
    )
    .with_outcome(Outcome::Committed)
}
