//! A link made ready for submissions: the ledger is there, nobody else is at work in this place, the
//! claims are prepared.
//!
//! Why nobody else may be at work: a backend whose client is gone still carries out what it has
//! received. Were it still to execute a submission that has been sent again and has failed by now, what
//! was reported as not committed would be. So each place holds an advisory lock for as long as its
//! backend lives, and whoever finds it taken ends that backend first.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use uuid::Uuid;

use super::pipe::{CLAIM, CLAIM_AFTER, Pipe, SEAL};
use super::suspects::Incarnation;
use crate::client::question::{self, Rows, broken};
use crate::client::session_access;
use crate::cluster::{Cluster, Handover, LedgerAccess, Want};
use crate::config::{CommitAck, Config};
use crate::error::{Error, ErrorKind, Result};
use crate::link::Link;
use crate::session::ledger;
use crate::wire::execution::SYNC;

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// A former backend is given so long to end.
const TERMINATE_MS: u64 = 5000;
/// Places whose former backends are looked for; as many as there can be sessions.
const PLACES: usize = 64;

const UUID: u32 = 2950;
const INT8: u32 = 20;

/// A link at work.
pub struct Station {
    pub link: Link,
    pub pipe: Pipe,
    pub input: BytesMut,
    pub server: usize,
    pub timeline: u32,
    /// How submissions are claimed, and looked for.
    pub access: LedgerAccess,
    /// By which the backup is asked what it has.
    pub seals: Option<Seals>,
    /// `None`: the server does not say.
    pub incarnation: Option<Incarnation>,
    /// The client is closed.
    stop: Arc<AtomicBool>,
}

/// The seals of one link: its row of the ledger, and the numbers that were sent and answered last.
pub struct Seals {
    pub row: Uuid,
    sent: i64,
    answered: u64,
}

impl Seals {
    /// The number of one more.
    pub fn send(&mut self) -> i64 {
        self.sent += 1;
        self.sent
    }

    /// The number of the one that is answered: they are in the order in which they were sent.
    pub fn answer(&mut self) -> u64 {
        self.answered += 1;
        self.answered
    }
}

/// The backends of one store's places, lest one of them is taken for a former one.
#[derive(Default)]
pub struct Backends(Mutex<Vec<(usize, i32)>>);

impl Backends {
    /// The backend of a place is lost.
    pub fn leave(&self, place: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != place);
    }
}

impl Station {
    /// Waits for a primary and makes a link to it ready. The cluster is told of the link at once, and
    /// has to be told of its end, also after an error.
    pub fn open(
        (config, cluster): (&Config, &Cluster),
        (store, place, backends): (Uuid, usize, &Backends),
        want: &Want,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let mut stops = || stop.load(Ordering::Acquire);
        let Handover { link, server, facts, .. } = cluster.acquire(want, &mut stops)?;
        cluster.register(want.session, server, link.waker());
        let pipe = Pipe::new(config.limits.statement_cache_size, config.limits.message_bytes_max);
        let input = BytesMut::with_capacity(8 * 1024);
        let timeline = facts.timeline;
        let stop = Arc::clone(stop);
        let (access, seals, incarnation) = (LedgerAccess::None, None, None);
        let mut it = Self { link, pipe, input, server, timeline, access, seals, incarnation, stop };
        let pid = it.link.info().backend_pid;
        // From here on until it has the lock: two places must not end each other's backend.
        let mut backends = backends.0.lock().unwrap_or_else(PoisonError::into_inner);
        backends.retain(|(other, _)| *other != place);
        let others: Vec<i32> = backends.iter().map(|(_, pid)| *pid).collect();
        it.take_place(store, place, &others)?;
        backends.push((place, pid));
        drop(backends);
        it.incarnation = it.look_at_server()?;
        it.access = it.find_access()?;
        it.prepare_claims()?;
        if config.ledger.commit_ack == CommitAck::Backup {
            it.open_row(facts.ledger)?;
        }
        Ok(it)
    }

    /// Ends whatever an earlier link of this store has left behind, and takes the place's lock.
    fn take_place(&mut self, store: Uuid, place: usize, others: &[i32]) -> Result<()> {
        let keys: Vec<String> =
            (0..PLACES).map(|place| lock_key(store, place).to_string()).collect();
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        let sql = format!(
            "SELECT pg_catalog.pg_terminate_backend(l.pid, {TERMINATE_MS}) \
             FROM pg_catalog.pg_locks AS l \
             WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
             AND l.objsubid OPERATOR(pg_catalog.=) 1::pg_catalog.int2 \
             AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d \
             WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
             AND ((l.classid::pg_catalog.int8 OPERATOR(pg_catalog.<<) 32) OPERATOR(pg_catalog.|) \
             l.objid::pg_catalog.int8) OPERATOR(pg_catalog.=) ANY ('{{{}}}'::pg_catalog.int8[]) \
             AND l.pid OPERATOR(pg_catalog.<>) ALL ('{{{}}}'::pg_catalog.int4[])",
            keys.join(","),
            others.join(","),
        );
        self.ask(&sql)?;
        let key = lock_key(store, place);
        let locked = self.ask(&format!("SELECT pg_catalog.pg_try_advisory_lock({key})"))?;
        if locked
            .first()
            .is_some_and(|row| row.first().is_some_and(|it| it.as_deref() == Some("t")))
        {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::FailoverTimeout,
            "a backend that was lost is still at work on submissions and could not be ended",
        ))
    }

    /// Which run of which server this is. Its helpers are the backends without database and user, of
    /// which anybody may see the process ids.
    fn look_at_server(&mut self) -> Result<Option<Incarnation>> {
        let sql = "SELECT pg_catalog.pg_postmaster_start_time()::pg_catalog.text, \
                   (SELECT pg_catalog.string_agg(a.pid::pg_catalog.text, ',') \
                   FROM pg_catalog.pg_stat_get_activity(NULL) AS a \
                   WHERE a.datid IS NULL AND a.usesysid IS NULL)";
        let rows = match self.ask(sql) {
            Ok(rows) => rows,
            // It may have been revoked; nobody is ever accused then.
            Err(error) if error.kind() == ErrorKind::Server => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        let (Some(Some(started)), Some(Some(helpers))) = (row.next(), row.next()) else {
            return Ok(None);
        };
        let helpers = helpers.split(',').filter_map(|pid| pid.parse().ok()).collect();
        Ok(Some(Incarnation { server: self.server, started, helpers }))
    }

    /// How submissions are claimed here; what they need is installed if it is missing.
    fn find_access(&mut self) -> Result<LedgerAccess> {
        let mut access = self.look()?;
        if access == LedgerAccess::None {
            let installed = self.ask(&ledger::install_submissions_sql(false, None));
            access = self.look()?;
            if access == LedgerAccess::None {
                let mut error = Error::new(
                    ErrorKind::Ledger,
                    "segue.submission is missing, or this role may not use it, and it could not be \
                     installed: have an owner of the database run `segue setup`; submissions wait",
                );
                if let Err(why) = installed {
                    error = error.with_source(why);
                }
                return Err(error);
            }
        }
        Ok(access)
    }

    fn look(&mut self) -> Result<LedgerAccess> {
        let rows = self.ask(&format!("SELECT {}", ledger::SUBMISSION_ACCESS))?;
        let word = rows.first().and_then(|row| row.first()).and_then(Option::as_deref);
        Ok(match word {
            Some("table") => LedgerAccess::Table,
            Some("function") => LedgerAccess::Function,
            _ => LedgerAccess::None,
        })
    }

    /// Which of these are done.
    pub fn claimed(&mut self, ids: &[Uuid]) -> Result<HashSet<Uuid>> {
        let rows = self.ask(&ledger::claimed_sql(session_access(self.access), ids))?;
        let id = |row: &Vec<Option<String>>| row.first()?.as_deref()?.parse().ok();
        Ok(rows.iter().filter_map(id).collect())
    }

    fn prepare_claims(&mut self) -> Result<()> {
        let (claim, after) = match self.access {
            LedgerAccess::Function => (ledger::CLAIM_FUNCTION, ledger::CLAIM_AFTER_FUNCTION),
            _ => (ledger::CLAIM_TABLE, ledger::CLAIM_AFTER_TABLE),
        };
        self.prepare(&[(CLAIM, claim, &[UUID]), (CLAIM_AFTER, after, &[UUID, UUID])])
    }

    /// Opens a row by whose number on the backup it is known what the backup has.
    fn open_row(&mut self, access: LedgerAccess) -> Result<()> {
        let mut access = access;
        if access == LedgerAccess::None {
            self.ask(&ledger::install_sql(false, None))?;
            access = LedgerAccess::Table;
        }
        let row = Uuid::new_v4();
        self.ask(&format!("SELECT segue.open('{row}', '{}')", Uuid::nil()))?;
        let seal = match access {
            LedgerAccess::Function => ledger::SEAL_FUNCTION,
            _ => ledger::SEAL_TABLE,
        };
        self.prepare(&[(SEAL, seal, &[UUID, INT8])])?;
        self.seals = Some(Seals { row, sent: 0, answered: 0 });
        Ok(())
    }

    fn prepare(&mut self, statements: &[(&str, &str, &[u32])]) -> Result<()> {
        let mut out = BytesMut::new();
        for (name, sql, types) in statements {
            frontend::parse(name, sql, types.iter().copied(), &mut out).map_err(broken)?;
        }
        out.put_slice(SYNC);
        self.exchange(&out).map(drop)
    }

    /// Asks something of Segue's own; the rows as text.
    fn ask(&mut self, sql: &str) -> Result<Rows> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(broken)?;
        self.exchange(&out)
    }

    fn exchange(&mut self, out: &[u8]) -> Result<Rows> {
        let Self { link, input, stop, .. } = self;
        let mut stops = || stop.load(Ordering::Acquire);
        question::exchange(link, input, out, Instant::now() + PATIENCE, &mut stops)
    }
}

/// The advisory lock of a place. The host is a part of it, lest a copied directory on another machine
/// be taken for this one.
fn lock_key(store: Uuid, place: usize) -> i64 {
    let host = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut bytes = store.as_bytes().to_vec();
    bytes.extend_from_slice(&host);
    xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, place as u64).cast_signed()
}
