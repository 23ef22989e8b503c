//! Asks the standby whether it has commits yet: for sessions whose commits the backup acknowledges, and
//! for whoever remembers commits until the backup has them.
//!
//! One link of its own serves all of them: each question names all of their ledger rows, or submissions.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::LedgerAccess;
use super::claims::Claims;
use super::conn::Conn;
use super::hub::Hub;
use super::probe::Row;
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

/// What is wanted of the standby now and then, for whoever keeps commits until the backup has them.
#[derive(Default)]
pub struct Backlog {
    /// Rows of the ledger, and the numbers that the standby is known to have.
    rows: Mutex<HashMap<Uuid, u64>>,
    submissions: Mutex<Submissions>,
}

/// Submissions that were told to be committed, by the thread that has told them.
#[derive(Default)]
struct Submissions {
    /// How they may be looked for.
    access: Option<LedgerAccess>,
    threads: HashMap<u64, (Claims, Wake)>,
}

/// Wakes a thread for which there is news; called on the background thread, where it must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

impl Backlog {
    fn rows(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submissions(&self) -> MutexGuard<'_, Submissions> {
        self.submissions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number that the standby is known to have; the row is asked for from now on.
    pub fn number(&self, row: Uuid) -> u64 {
        *self.rows().entry(row).or_default()
    }

    /// The row is of no interest any longer.
    pub fn forget(&self, row: Uuid) {
        self.rows().remove(&row);
    }

    /// A thread begins to tell of submissions.
    pub fn attend(&self, thread: u64, wake: Wake) {
        self.submissions().threads.insert(thread, (Claims::default(), wake));
    }

    pub fn leave(&self, thread: u64) {
        self.submissions().threads.remove(&thread);
    }

    /// Has `change` say what the standby is asked for on behalf of a thread.
    pub fn note(&self, thread: u64, access: LedgerAccess, change: impl FnOnce(&mut Claims)) {
        let mut submissions = self.submissions();
        submissions.access = Some(access);
        if let Some((claims, _)) = submissions.threads.get_mut(&thread) {
            change(claims);
        }
    }

    pub fn has_news(&self, thread: u64) -> bool {
        self.submissions().threads.get(&thread).is_some_and(|(claims, _)| claims.has_news())
    }

    /// The submissions that the standby was found to have since.
    pub fn take_news(&self, thread: u64) -> Vec<Uuid> {
        let mut submissions = self.submissions();
        submissions
            .threads
            .get_mut(&thread)
            .map(|(claims, _)| claims.take_news())
            .unwrap_or_default()
    }

    fn is_idle(&self) -> bool {
        self.rows().is_empty()
            && self.submissions().threads.values().all(|(claims, _)| claims.is_idle())
    }

    fn questions(&self) -> Questions {
        let rows = self.rows().keys().copied().collect();
        let mut submissions = self.submissions();
        let asked = submissions.threads.values_mut();
        let ids: Vec<Uuid> = asked.flat_map(|(claims, _)| claims.questions()).collect();
        let submissions = submissions.access.zip((!ids.is_empty()).then_some(ids));
        Questions { rows, submissions }
    }

    fn take(&self, answers: &Answers) {
        for (row, number) in self.rows().iter_mut() {
            if let Some(known) = answers.numbers.get(row) {
                *number = (*number).max(*known);
            }
        }
        if answers.submissions.is_empty() {
            return;
        }
        let wakes: Vec<Wake> = {
            let mut submissions = self.submissions();
            let threads = submissions.threads.values_mut();
            let news = threads.filter_map(|(claims, wake)| {
                claims.answer(&answers.submissions).then(|| Arc::clone(wake))
            });
            news.collect()
        };
        wakes.iter().for_each(|wake| wake());
    }
}

/// What the standby is asked for at once.
struct Questions {
    rows: Vec<Uuid>,
    submissions: Option<(LedgerAccess, Vec<Uuid>)>,
}

/// What it has of that.
#[derive(Default)]
struct Answers {
    numbers: HashMap<Uuid, u64>,
    submissions: HashSet<Uuid>,
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
            // Without a standby there is nobody to ask either.
            let idle = backlog.is_idle() || hub.with(|picture| picture.backup()).is_none();
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
        let mut questions = backlog.questions();
        questions.rows.extend(waits.iter().map(|wait| wait.row));
        if questions.rows.is_empty() && questions.submissions.is_none() {
            continue;
        }
        let Some(conn) = connect(&hub, &mut link).await else { continue };
        match ask(&hub, conn, &questions).await {
            Some(answers) => {
                backlog.take(&answers);
                answer(&mut waits, |wait| {
                    let number = answers.numbers.get(&wait.row)?;
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
    let Some(standby) = hub.with(|picture| picture.backup()) else {
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

/// What the standby has; `None` if its link is of no use.
async fn ask(hub: &Hub, conn: &mut Conn, questions: &Questions) -> Option<Answers> {
    let mut answers = Answers::default();
    if !questions.rows.is_empty() {
        let number = |row: &Row| {
            let id = row.first()?.as_deref()?.parse().ok()?;
            Some((id, row.get(1)?.as_deref()?.parse().ok()?))
        };
        let sql = hub.preparations.backup_sql(&questions.rows);
        answers.numbers = rows(hub, conn, &sql).await??.iter().filter_map(number).collect();
    }
    if let Some((access, ids)) = &questions.submissions {
        let sql = hub.preparations.claims_sql(*access, ids);
        // It may be that it has not got so far as to have the table.
        let there = rows(hub, conn, &sql).await?.unwrap_or_default();
        let id = |row: &Row| row.first()?.as_deref()?.parse().ok();
        answers.submissions = there.iter().filter_map(id).collect();
    }
    Some(answers)
}

/// The rows that the standby gives for a query; `Some(None)`: it cannot answer it.
async fn rows(hub: &Hub, conn: &mut Conn, sql: &str) -> Option<Option<Vec<Row>>> {
    let limit = hub.config.failover.poll_timeout;
    let reply = timeout(limit, conn.query(sql)).await.ok()?.ok()?;
    if let Some(error) = reply.error {
        tracing::debug!(code = %error.code, "the standby cannot say which commits it has");
        return Some(None);
    }
    Some(Some(reply.rows))
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
