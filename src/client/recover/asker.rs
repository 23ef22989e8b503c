//! Puts the questions of an `inquiry` to the current primary.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use uuid::Uuid;

use super::inquiry::{Answers, Asks, Inquiry, Question, Wanted, is_passing};
use crate::client::Inner;
use crate::client::question::{self, Rows};
use crate::cluster::{Confirmed, Handover, LedgerAccess, Want};
use crate::config::CommitAck;
use crate::error::{Error, ErrorKind, Result};
use crate::link::Link;
use crate::session::ledger;

/// Between attempts whose link broke.
const PAUSE: Duration = Duration::from_millis(20);
/// A fence that waits for an attempt's end gives it so long to end by itself, and again each time.
const GRACE: Duration = Duration::from_millis(300);

impl Inner {
    /// Waits for a primary for at most `failover_timeout_ms`, which bounds all that follows too.
    pub(super) fn ask_ledger(
        &self,
        wanted: &BTreeMap<Uuid, Wanted>,
        timeline_floor: u32,
    ) -> Result<Answers> {
        let deadline = Instant::now() + self.config.failover.timeout;
        let mut want = Want {
            session: self.next_session.fetch_add(1, Ordering::Relaxed),
            timeline_floor,
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
        let mut inquiry = Inquiry::new(self.system_identifier, wanted);
        let asks = !inquiry.is_over();
        if asks && self.access == LedgerAccess::None {
            return Err(Error::new(
                ErrorKind::Ledger,
                "the primary has no ledger in this database, or this role may not use it; name the \
                 database and the role of the application, or have an owner of the database run \
                 `segue setup`",
            ));
        }
        while let Some(Question { sql, kind }) = inquiry.next() {
            let reply = match kind {
                Asks::Fence => self.fence(&sql, inquiry.backend_pid()),
                _ => self.query(&sql),
            };
            inquiry.handle(reply.map_err(|error| self.in_time(kind, error)))?;
        }
        let answers = inquiry.answers();
        if asks {
            self.await_backup(&answers)?;
        }
        Ok(answers)
    }

    /// Says so where an answer has not come in time, and what that means.
    fn in_time(&self, kind: Asks, error: Error) -> Error {
        let message = match kind {
            _ if error.server_error().is_some() || Instant::now() < self.want.deadline => {
                return error;
            }
            Asks::Fence => {
                "an attempt to commit is still at work on the primary, or a synchronous standby is \
                 missing, and it could not be brought to an end in time"
            }
            Asks::Confirmation => {
                "the primary answers and its synchronous standbys have not confirmed in time"
            }
            Asks::Settings | Asks::Look => return error,
        };
        Error::new(ErrorKind::FailoverTimeout, message).with_source(error)
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

    /// Takes a number, and brings those to their end for whom that has to wait.
    fn fence(&mut self, sql: &str, pid: Option<i32>) -> Result<Rows> {
        let Self { inner, want, link, input, other, .. } = self;
        let Some(link) = link else { return Err(no_link()) };
        let pid = pid.unwrap_or_else(|| link.info().backend_pid);
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
        question::ask(link, input, sql, want.deadline, &mut waits)
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

fn no_link() -> Error {
    Error::new(ErrorKind::Connect, "there is no link")
}
