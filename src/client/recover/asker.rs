//! Asks the ledger of the current primary, in such a way that what it says stays true.
//!
//! An attempt whose client is gone may still be at work on the server, and commit later. Therefore the
//! number is *taken*: recovery itself seals a higher number in the same row, in a transaction of its
//! own. Once that has committed, every seal of a lower number raises, so that what it belongs to rolls
//! back; what had sealed before has committed or rolled back by then, for the row's lock is held
//! until the end. What the ledger says behind that is final. `docs/recovery.md` has the whole argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use uuid::Uuid;

use crate::client::Inner;
use crate::client::question::{self, Rows};
use crate::cluster::{Confirmed, Handover, LedgerAccess, Want};
use crate::config::CommitAck;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Link;
use crate::session::{LedgerRow, ledger};

/// So many rows are asked for at once.
const ROWS: usize = 500;
/// Between attempts whose link broke.
const PAUSE: Duration = Duration::from_millis(20);
/// A fence that waits for an attempt's end gives it so long to end by itself, and again each time.
const GRACE: Duration = Duration::from_millis(300);

/// Nothing of the role's or the database's settings may get in the way: no limit but our own, a fence
/// that waits for the row and then looks at it, and a commit that waits for the standbys if any does.
const SETTINGS: &str = "\
SET statement_timeout = 0; SET lock_timeout = 0; \
SET default_transaction_isolation = 'read committed'; \
SELECT pg_catalog.pg_backend_pid(), CASE WHEN pg_catalog.current_setting('synchronous_commit') \
OPERATOR(pg_catalog.=) ANY ('{off,local}'::pg_catalog.text[]) \
THEN pg_catalog.set_config('synchronous_commit', 'on', false) END";

/// What is to be known of one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The numbers in question.
    pub lowest: u64,
    pub highest: u64,
    /// Of the cluster on which they were handed out; 0 if that is not known.
    pub system_identifier: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { lowest: u64::MAX, highest: 0, system_identifier: 0 }
    }
}

/// What the ledger says.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub system_identifier: u64,
    /// Those that are there.
    pub rows: HashMap<Uuid, Answer>,
}

impl Answers {
    pub fn is_of_another_cluster(&self, system_identifier: u64) -> bool {
        system_identifier != 0 && system_identifier != self.system_identifier
    }
}

/// A row, before and behind the fence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub before: LedgerRow,
    pub behind: LedgerRow,
}

impl Answer {
    /// Whether the number was committed, for good; `None` if that is not remembered.
    pub fn says(&self, number: u64) -> Option<bool> {
        // A fence far ahead leaves nothing of what was remembered before it.
        if self.before.seq >= number && self.before.says(number) == Some(true) {
            return Some(true);
        }
        // Without a number at or above it there would be no fence.
        (self.behind.seq >= number).then(|| self.behind.says(number)).flatten()
    }
}

impl Inner {
    /// Waits for a primary for at most `failover_timeout_ms`, which bounds all that follows too.
    pub(super) fn ask_ledger(&self, wanted: &BTreeMap<Uuid, Wanted>) -> Result<Answers> {
        let deadline = Instant::now() + self.config.failover.timeout;
        let mut want = Want {
            session: self.next_session.fetch_add(1, Ordering::Relaxed),
            timeline_floor: 0,
            writes: true,
            lost: None,
            deadline,
        };
        loop {
            let mut asker = Asker::open(self, &want)?;
            want.lost = Some(asker.server);
            want.timeline_floor = want.timeline_floor.max(asker.timeline);
            match asker.ask(wanted) {
                Err(error) if is_passing(&error) && Instant::now() + PAUSE < deadline => {
                    tracing::debug!(%error, "the ledger is asked again");
                    drop(asker);
                    std::thread::sleep(PAUSE);
                }
                Ok(answers) => {
                    asker.close();
                    return Ok(answers);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether it may go better with another link.
fn is_passing(error: &Error) -> bool {
    let code = error.server_error().map(|it| it.code.as_str()).unwrap_or_default();
    error.kind() == ErrorKind::Connect
        || ["25006", "40001", "40P01", "57P01", "57P02", "57P03"].contains(&code)
}

struct Asker<'a> {
    inner: &'a Inner,
    want: Want,
    link: Option<Link>,
    input: BytesMut,
    server: usize,
    timeline: u32,
    system_identifier: u64,
    access: LedgerAccess,
    /// Another link, with which that is ended that a fence waits for.
    other: Option<(Link, BytesMut)>,
}

impl<'a> Asker<'a> {
    fn open(inner: &'a Inner, want: &Want) -> Result<Self> {
        let Handover { link, server, facts, .. } = inner.cluster.acquire(want, &mut || false)?;
        inner.cluster.register(want.session, server, link.waker());
        Ok(Self {
            inner,
            want: want.clone(),
            link: Some(link),
            input: BytesMut::new(),
            server,
            timeline: facts.timeline,
            system_identifier: facts.system_identifier,
            access: facts.ledger,
            other: None,
        })
    }

    fn ask(&mut self, wanted: &BTreeMap<Uuid, Wanted>) -> Result<Answers> {
        let mut answers =
            Answers { system_identifier: self.system_identifier, rows: HashMap::new() };
        let here: Vec<(Uuid, Wanted)> = wanted
            .iter()
            .filter(|(_, wanted)| !answers.is_of_another_cluster(wanted.system_identifier))
            .map(|(row, wanted)| (*row, *wanted))
            .collect();
        if here.is_empty() {
            return Ok(answers);
        }
        if self.access == LedgerAccess::None {
            return Err(Error::new(
                ErrorKind::Ledger,
                "the primary has no ledger in this database, or this role may not use it; name the \
                 database and the role of the application, or have an owner of the database run \
                 `segue setup`",
            ));
        }
        let settings = self.query(SETTINGS)?;
        let pid = settings.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
        let pid = pid.unwrap_or_else(|| self.link.as_ref().map_or(0, |it| it.info().backend_pid));
        let ids: Vec<Uuid> = here.iter().map(|(row, _)| *row).collect();
        let before = self.look(&ids)?;
        let mut fenced = Vec::new();
        for (id, wanted) in &here {
            // Where a number at or above all of them has been committed, that is the fence.
            if before.get(id).is_some_and(|row| row.seq < wanted.highest) {
                self.fence(*id, wanted.highest.saturating_add(1), pid)?;
                fenced.push(*id);
            }
        }
        let mut behind = self.look(&fenced)?;
        // What was found may have been committed while its wait for the standbys was cut short. This
        // commit waits in its stead, behind all of them.
        self.query(ledger::CONFIRM).map_err(|error| match error.kind() {
            ErrorKind::Connect if Instant::now() >= self.want.deadline => Error::new(
                ErrorKind::FailoverTimeout,
                "the primary answers and its synchronous standbys have not confirmed in time",
            )
            .with_source(error),
            _ => error,
        })?;
        for (id, before) in before {
            let behind = if fenced.contains(&id) { behind.remove(&id) } else { Some(before) };
            if let Some(behind) = behind {
                answers.rows.insert(id, Answer { before, behind });
            }
        }
        self.await_backup(&answers)?;
        Ok(answers)
    }

    /// With `commit_ack=backup`, what is told as committed is on the backup.
    fn await_backup(&self, answers: &Answers) -> Result<()> {
        if self.inner.config.ledger.commit_ack != CommitAck::Backup {
            return Ok(());
        }
        for (id, answer) in &answers.rows {
            let deadline = self.want.deadline;
            match self.inner.cluster.confirm(*id, answer.behind.seq, self.server, deadline)? {
                Confirmed::ByBackup | Confirmed::NoBackup => {}
                Confirmed::Moved => {
                    return Err(Error::new(ErrorKind::Connect, "the primary has moved meanwhile"));
                }
            }
        }
        Ok(())
    }

    fn look(&mut self, rows: &[Uuid]) -> Result<HashMap<Uuid, LedgerRow>> {
        let mut found = HashMap::new();
        for rows in rows.chunks(ROWS) {
            for row in self.query(&ledger::look_closely_sql(rows))? {
                let row = ledger_row(&row).ok_or_else(|| {
                    Error::new(ErrorKind::Protocol, "the ledger's reply is not of its own shape")
                })?;
                found.insert(row.id, row);
            }
        }
        Ok(found)
    }

    /// Takes a number above all that were handed out in a row.
    fn fence(&mut self, row: Uuid, number: u64, pid: i32) -> Result<()> {
        let Self { inner, want, link, input, other, .. } = self;
        let Some(link) = link else { return Err(no_link()) };
        let mut next = Instant::now() + GRACE;
        let mut waits = || {
            if Instant::now() >= next {
                if let Err(error) = end_blockers(inner, want, other, pid) {
                    tracing::debug!(%error, "an attempt that is still running could not be ended");
                    *other = None;
                }
                next = Instant::now() + GRACE;
            }
            false
        };
        let sql = ledger::fence_sql(row, number);
        let fenced = question::ask(link, input, &sql, want.deadline, &mut waits);
        let Err(error) = fenced else { return Ok(()) };
        match error.server_error().map(|it| it.code.as_str()) {
            // Passed by another one meanwhile, which is as good; or gone, which the look behind shows.
            Some(ledger::SQLSTATE_FENCED | ledger::SQLSTATE_NO_ROW) => Ok(()),
            None if Instant::now() >= want.deadline => Err(Error::new(
                ErrorKind::FailoverTimeout,
                "an attempt to commit is still at work on the primary, or a synchronous standby is \
                 missing, and it could not be brought to an end in time",
            )
            .with_source(error)),
            _ => Err(error),
        }
    }

    fn query(&mut self, sql: &str) -> Result<Rows> {
        let Some(link) = &mut self.link else { return Err(no_link()) };
        question::ask(link, &mut self.input, sql, self.want.deadline, &mut || false)
    }

    fn close(mut self) {
        if let Some(link) = self.link.take() {
            link.close();
        }
        if let Some((link, _)) = self.other.take() {
            link.close();
        }
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        self.inner.cluster.deregister(self.want.session);
        if let Some(link) = self.link.take() {
            link.abandon();
        }
        if let Some((link, _)) = self.other.take() {
            link.abandon();
        }
    }
}

/// Ends the attempt whose end backend `pid` waits for.
fn end_blockers(
    inner: &Inner,
    want: &Want,
    other: &mut Option<(Link, BytesMut)>,
    pid: i32,
) -> Result<()> {
    if other.is_none() {
        let want =
            Want { session: inner.next_session.fetch_add(1, Ordering::Relaxed), ..want.clone() };
        let Handover { link, .. } = inner.cluster.acquire(&want, &mut || false)?;
        *other = Some((link, BytesMut::new()));
    }
    let Some((link, input)) = other else { return Err(no_link()) };
    question::ask(link, input, &ledger::end_blockers_sql(pid), want.deadline, &mut || false)
        .map(drop)
}

fn ledger_row(row: &[Option<String>]) -> Option<LedgerRow> {
    let text = |at: usize| row.get(at)?.as_deref();
    let seq: i64 = text(1)?.parse().ok()?;
    let recent: i64 = text(2)?.parse().ok()?;
    Some(LedgerRow {
        id: text(0)?.parse().ok()?,
        seq: u64::try_from(seq).unwrap_or(0),
        recent: recent.cast_unsigned(),
    })
}

fn no_link() -> Error {
    Error::new(ErrorKind::Connect, "there is no link")
}
