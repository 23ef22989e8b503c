//! The Rust API: joins session, cluster and link.
//!
//! A [`Client`] is what an application opens once per cluster; a [`Session`] is one logical
//! connection that outlives the servers it uses. The thread that calls a session does its I/O.

mod cancel;
mod copy;
mod driver;
mod event;
mod journal;
mod keeper;
mod parameter;
#[doc(hidden)]
pub mod parts;
mod pipeline;
mod process;
mod question;
mod reader;
mod recover;
mod registry;
mod result;
mod row;
mod session;
mod setup;
mod slots;
mod statistics;
mod status;
mod steps;
mod stream;
mod submit;
mod transaction;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;

pub use cancel::CancelHandle;
pub use copy::{CopyIn, CopyOut, CopyWriter};
pub use driver::{Interrupt, Notification, Progress};
pub use event::{ClientEvent, SubmissionName, Subscription};
pub use parameter::{Raw, ToSql, Typed};
pub use pipeline::{Pipeline, PipelineQueue};
#[cfg(feature = "c-abi")]
pub(crate) use process::{id as process_id, note as note_process};
pub use reader::ReplyReader;
pub use recover::{
    RecoveredStatement, RecoveredStatements, RecoveredTransaction, SealEvidence, Verdict,
};
pub use result::QueryResult;
#[cfg(feature = "c-abi")]
pub(crate) use result::RowSet;
pub use row::{Row, RowIndex};
pub use session::{Prepared, Query, Session};
pub use setup::SetupOptions;
pub use statistics::ClientStatistics;
pub use status::{ClientStatus, JournalStatus, SessionStatus};
pub use steps::Preparing;
pub use stream::RowStream;
pub use submit::{DeadLetter, Executed, Submission, SubmissionStatus, Ticket};
pub use transaction::{IsolationLevel, Transaction, TransactionOptions};

use crate::cluster::{self, Cluster, Facts};
use crate::config::{Config, LedgerMode, TargetSessionAttrs};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, Recovered};
use crate::session::{LedgerAccess, internals, ledger};
use event::Events;
use journal::FileJournal;
use registry::Registry;
use statistics::Statistics;
use submit::Submissions;

/// What an application opens once per cluster. Cloning it is cheap, and clients opened with the same
/// configuration in one process are one client: they share servers, warm links and one thread.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

/// How a session is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Whether it belongs on a server that can be written to; by default as
    /// `target_session_attrs` says.
    pub writes: bool,
}

struct Inner {
    number: u64,
    pub config: Arc<Config>,
    pub cluster: Arc<Cluster>,
    pub registry: Arc<Registry>,
    events: Arc<Events>,
    pub next_session: AtomicU64,
    pub sessions: AtomicUsize,
    statistics: Statistics,
    /// The process that opened the client: a child of fork() shares its sockets but must not use them.
    process: u32,
    setup: Mutex<setup::State>,
    /// Made with the first submission, or with the client if there is a journal to be taken over.
    submissions: Mutex<Option<Arc<Submissions>>>,
    /// What is in flight, on disk; dropped behind the submissions, which use it to their end.
    file_journal: Option<Arc<FileJournal>>,
}

impl Client {
    /// Opens a client for a URI or a keyword string; see `docs/configuration.md`.
    ///
    /// Returns at once: the first session waits for a server.
    pub fn connect(conninfo: &str) -> Result<Self> {
        Self::open(Config::parse(conninfo)?)
    }

    pub fn open(config: Config) -> Result<Self> {
        // A child of fork() has a client, and threads, of its own.
        slots::find_or_open(config, Inner::open).map(Self)
    }

    /// Opens a session; waits for a server for at most `failover_timeout_ms`.
    pub fn session(&self) -> Result<Session> {
        self.session_with(&self.session_options())
    }

    /// The options that [`session`](Self::session) uses.
    pub fn session_options(&self) -> SessionOptions {
        SessionOptions {
            writes: self.0.config.target_session_attrs == TargetSessionAttrs::ReadWrite,
        }
    }

    pub fn session_with(&self, options: &SessionOptions) -> Result<Session> {
        Session::open(Arc::clone(&self.0), options.clone())
    }

    /// As [`session_with`](Self::session_with), for a session that asks `interrupt` from the start: see
    /// [`Session::set_interrupt`].
    pub fn session_with_interrupt(
        &self,
        options: &SessionOptions,
        interrupt: Interrupt,
    ) -> Result<Session> {
        Session::open_interruptible(Arc::clone(&self.0), options.clone(), Some(interrupt))
    }

    /// Calls `callback` for every event, on the thread where it happens, until the subscription is
    /// dropped. It must not block, and must not call this client's sessions. What was found when the client
    /// was opened is told to the first callback, here and now.
    pub fn on_event(
        &self,
        callback: impl Fn(&ClientEvent) + Send + Sync + 'static,
    ) -> Subscription {
        self.0.events.subscribe(Arc::new(callback))
    }

    /// What is known of the servers.
    pub fn status(&self) -> ClientStatus {
        self.0.status()
    }

    /// What all sessions have done so far, in numbers.
    pub fn statistics(&self) -> ClientStatistics {
        self.0.statistics.snapshot()
    }

    /// Tells clients of this process apart; those that are one client have one number.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Hands over a transaction whole: it is kept (on disk with `journal=file`) when this returns, and
    /// then run until its outcome is known, exactly once, whatever becomes of servers and, with
    /// `journal=file`, of this process. See `docs/submit.md`.
    ///
    /// Needs no server. Waits for at most `failover_timeout_ms` if the queue is full. A key that is
    /// queued, or was done lately, gives that ticket.
    pub fn submit(&self, submission: Submission) -> Result<Ticket> {
        self.submit_within(submission, self.0.config.failover.timeout)
    }

    /// As [`submit`](Self::submit), but waits for room for at most `patience`.
    pub fn submit_within(&self, submission: Submission, patience: Duration) -> Result<Ticket> {
        self.0.submissions()?.submit(submission, Some(patience))
    }

    /// As [`submit`](Self::submit), but does not wait for room: [`ErrorKind::Limit`] if there is none.
    pub fn try_submit(&self, submission: Submission) -> Result<Ticket> {
        self.0.submissions()?.submit(submission, None)
    }

    /// The ticket of a submission that has not ended, or that has lately (the last few thousand).
    pub fn ticket(&self, id: uuid::Uuid) -> Result<Option<Ticket>> {
        Ok(self.0.submissions()?.ticket(id))
    }

    /// The same, by the key that the application gave it.
    pub fn ticket_for_key(&self, key: &str) -> Result<Option<Ticket>> {
        Ok(self.0.submissions()?.ticket_for_key(key))
    }

    /// The submissions that can never succeed as things are, in the order of handing over. Each is kept
    /// until it is retried with success or purged.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        Ok(self.0.submissions()?.dead_letters())
    }

    /// Runs a dead letter again, ahead of what waits in its lane.
    pub fn retry_dead_letter(&self, id: uuid::Uuid) -> Result<Ticket> {
        self.0.submissions()?.retry(id)
    }

    /// Forgets a dead letter; a lane that it has stopped goes on.
    pub fn purge_dead_letter(&self, id: uuid::Uuid) -> Result<()> {
        self.0.submissions()?.purge(id)
    }

    /// What becomes of submissions, in numbers.
    pub fn submissions(&self) -> Result<SubmissionStatus> {
        Ok(self.0.submissions()?.status())
    }

    /// What became of the transactions that an earlier process with this client's journal had in
    /// flight: each is committed, not committed, never sent or unknown, which the ledger is asked for;
    /// waits for a server for at most `failover_timeout_ms`. See `docs/recovery.md`.
    ///
    /// Each is told again, by this call and after a restart, until
    /// [`RecoveredTransaction::done`]. Without `journal=file` there are none. Commits of this client wait
    /// while the journal is read: this is for the time after the start.
    pub fn recover(&self) -> Result<Vec<RecoveredTransaction>> {
        match &self.0.file_journal {
            Some(file) => self.0.recover(&file.journal),
            None => Ok(Vec::new()),
        }
    }

    /// The same for a journal that is not this client's own, such as that of an application which is
    /// not running.
    pub fn recover_from(&self, journal: &Journal) -> Result<Vec<RecoveredTransaction>> {
        self.0.recover(journal)
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Installs or upgrades the ledger on the primary. Usually the first session does that by itself,
    /// where its role may.
    pub fn setup(&self, options: &SetupOptions) -> Result<()> {
        self.0.install(options)
    }

    /// Removes the ledger. Sessions in use lose their protection.
    pub fn remove_ledger(&self) -> Result<()> {
        self.0.remove_ledger()
    }
}

impl Inner {
    fn open(config: Config) -> Result<Self> {
        let config = Arc::new(config);
        let registry = Arc::new(Registry::new(config.limits.statement_cache_size));
        let events = Arc::new(Events::default());
        let preparations = Arc::new(Preparations {
            registry: Arc::clone(&registry),
            ledger: config.ledger.mode != LedgerMode::Off,
            ledger_access: ledger::ACCESS.to_owned(),
        });
        let sink = Arc::clone(&events);
        let cluster = Cluster::open(
            Arc::clone(&config),
            preparations,
            Arc::new(move |event| sink.emit(&ClientEvent::Cluster(event))),
        )?;
        let (file_journal, recovered) = FileJournal::open(&config)?.unzip();
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let inner = Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            config,
            cluster,
            registry,
            events,
            next_session: AtomicU64::new(1),
            sessions: AtomicUsize::new(0),
            statistics: Statistics::default(),
            process: std::process::id(),
            setup: Mutex::default(),
            submissions: Mutex::default(),
            file_journal,
        };
        if let Some(recovered) = &recovered {
            let count = journal::transactions(recovered);
            if count > 0 {
                inner.events.keep(ClientEvent::TransactionsFound { count });
            }
            inner.open_submissions(Some(recovered))?;
        }
        Ok(inner)
    }

    /// The submissions of this client.
    fn submissions(&self) -> Result<Arc<Submissions>> {
        self.check_process()?;
        self.open_submissions(None)
    }

    /// The same; `recovered` is what the journal held when the client was opened.
    fn open_submissions(&self, recovered: Option<&Recovered>) -> Result<Arc<Submissions>> {
        let mut submissions = self.submissions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(submissions) = &*submissions {
            return Ok(Arc::clone(submissions));
        }
        let names = (0..self.config.limits.submit_sessions)
            .map(|_| self.next_session.fetch_add(1, Ordering::Relaxed))
            .collect();
        let (config, cluster) = (Arc::clone(&self.config), Arc::clone(&self.cluster));
        let journal = self.file_journal.as_ref().map(Arc::clone).zip(recovered);
        let made =
            Arc::new(Submissions::open(config, cluster, Arc::clone(&self.events), names, journal)?);
        *submissions = Some(Arc::clone(&made));
        Ok(made)
    }

    fn emit(&self, event: &ClientEvent) {
        self.events.emit(event);
    }

    /// Refuses to go on in a child of fork(), which would share sockets with its parent.
    fn check_process(&self) -> Result<()> {
        if self.process == process::id() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Forked,
            "the client was opened before fork(): open another in the child process",
        ))
    }

    /// What a session may seal with on a server of these facts.
    fn ledger_access(&self, facts: &Facts) -> LedgerAccess {
        if self.config.ledger.mode == LedgerMode::Off {
            return LedgerAccess::None;
        }
        session_access(facts.ledger)
    }
}

fn session_access(access: cluster::LedgerAccess) -> LedgerAccess {
    match access {
        cluster::LedgerAccess::None => LedgerAccess::None,
        cluster::LedgerAccess::Table => LedgerAccess::Table,
        cluster::LedgerAccess::Function => LedgerAccess::Function,
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        slots::forget_unused();
    }
}

/// What warm links are given ahead of time.
struct Preparations {
    registry: Arc<Registry>,
    ledger: bool,
    ledger_access: String,
}

impl cluster::Preparations for Preparations {
    fn prepare(&self, facts: &Facts, already: &[u32], out: &mut BytesMut) -> Vec<u32> {
        let access = if self.ledger { session_access(facts.ledger) } else { LedgerAccess::None };
        let mut numbers = internals::prepare(access, already, out);
        // Not where it writes: a Parse locks its tables, and so could deadlock with the application's
        // own transactions. There a link that is needed has them parsed in its first write.
        if facts.in_recovery {
            numbers.extend(self.registry.prepare(already, out));
        }
        numbers
    }

    fn ledger_access_sql(&self) -> &str {
        if self.ledger { &self.ledger_access } else { "'none'" }
    }

    fn backup_sql(&self, rows: &[uuid::Uuid]) -> String {
        ledger::look_sql(rows)
    }

    fn claims_sql(&self, access: cluster::LedgerAccess, ids: &[uuid::Uuid]) -> String {
        ledger::claimed_sql(session_access(access), ids)
    }

    fn backend_start_sql(&self) -> &str {
        ledger::BACKEND_START
    }
}
