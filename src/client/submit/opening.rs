//! What a server is asked before it carries out submissions, and what its answers mean.
//!
//! Pure: questions out, answers in, in this order: whatever an earlier link of this place has left behind is
//! ended, the place's lock is taken, the server says which run of which server it is, the ledger is looked
//! for and made if need be, the claims are prepared, and with `commit_ack=backup` a row is opened by whose
//! number on the backup it is known what that has.
//!
//! Why nobody else may be at work: a backend whose client is gone still carries out what it has
//! received. Were it still to execute a submission that has been sent again and has failed by now, what
//! was reported as not committed would be. So each place holds an advisory lock for as long as its
//! backend lives, and whoever finds it taken ends that backend first.

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use uuid::Uuid;

use super::carrier::{AtWork, Seals};
use super::messages::{CLAIM, CLAIM_AFTER, SEAL};
use super::pipe::Pipe;
use super::suspects::Incarnation;
use crate::client::question::{Rows, broken};
use crate::cluster::LedgerAccess;
use crate::error::{Error, ErrorKind, Result};
use crate::mutation::{self, Mutation};
use crate::session::ledger;
use crate::wire::execution::SYNC;

/// A former backend is given so long to end.
const TERMINATE_MS: u64 = 5000;
/// Places whose former backends are looked for; as many as there can be sessions.
const PLACES: usize = 64;

const UUID: u32 = 2950;
const INT8: u32 = 20;

/// Whose place it is, and who else is at work for the same.
pub struct Place {
    /// Names the journal.
    pub store: Uuid,
    pub number: usize,
    /// Backends of its other places.
    pub others: Vec<i32>,
}

/// The server, as it was found.
pub struct Site {
    /// Its number in the configuration.
    pub server: usize,
    pub timeline: u32,
    pub ledger: LedgerAccess,
}

pub struct Opening {
    place: Place,
    site: Site,
    pipe: Pipe,
    /// The row to be opened: `commit_ack=backup`.
    row: Option<Uuid>,
    stage: Stage,
    incarnation: Option<Incarnation>,
    access: LedgerAccess,
    /// The ledger of submissions could not be installed.
    not_installed: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    EndFormer,
    TakeLock,
    LookAtServer,
    Look,
    Install,
    LookAgain,
    PrepareClaims,
    InstallLedger,
    OpenRow,
    PrepareSeal,
    Ready,
}

impl Opening {
    pub fn new(place: Place, site: Site, pipe: Pipe, row: Option<Uuid>) -> Self {
        Self {
            place,
            site,
            pipe,
            row,
            stage: Stage::EndFormer,
            incarnation: None,
            access: LedgerAccess::None,
            not_installed: None,
        }
    }

    /// Whether the place's lock is held: two places must not end each other's backend before that.
    pub fn has_place(&self) -> bool {
        !matches!(self.stage, Stage::EndFormer | Stage::TakeLock)
    }

    /// What is to be asked next, as one simple query or messages that end with a Sync; `None`: it is ready.
    pub fn next(&self) -> Result<Option<BytesMut>> {
        let row = self.row.unwrap_or_default();
        let sql = match self.stage {
            Stage::EndFormer => self.end_former_sql(),
            Stage::TakeLock => format!("SELECT pg_catalog.pg_try_advisory_lock({})", self.lock()),
            Stage::LookAtServer => LOOK_AT_SERVER.to_owned(),
            Stage::Look | Stage::LookAgain => format!("SELECT {}", ledger::SUBMISSION_ACCESS),
            Stage::Install => ledger::install_submissions_sql(false, None),
            Stage::InstallLedger => ledger::install_sql(false, None),
            Stage::OpenRow => format!("SELECT segue.open('{row}', '{}')", Uuid::nil()),
            Stage::PrepareClaims => {
                let (claim, after) = match self.access {
                    LedgerAccess::Function => {
                        (ledger::CLAIM_FUNCTION, ledger::CLAIM_AFTER_FUNCTION)
                    }
                    _ => (ledger::CLAIM_TABLE, ledger::CLAIM_AFTER_TABLE),
                };
                let claims: [(_, _, &[u32]); 2] =
                    [(CLAIM, claim, &[UUID]), (CLAIM_AFTER, after, &[UUID, UUID])];
                return prepare(&claims).map(Some);
            }
            Stage::PrepareSeal => {
                let seal = match self.site.ledger {
                    LedgerAccess::Function => ledger::SEAL_FUNCTION,
                    _ => ledger::SEAL_TABLE,
                };
                return prepare(&[(SEAL, seal, &[UUID, INT8])]).map(Some);
            }
            Stage::Ready => return Ok(None),
        };
        let mut out = BytesMut::new();
        frontend::query(&sql, &mut out).map_err(broken)?;
        Ok(Some(out))
    }

    /// The answer. After an error the link is of no use.
    pub fn handle(&mut self, reply: Result<Rows>) -> Result<()> {
        self.stage = match self.stage {
            Stage::EndFormer => {
                reply?;
                Stage::TakeLock
            }
            Stage::TakeLock => {
                let taken = word(&reply?) != Some("t");
                if taken && !mutation::on(Mutation::FormerBackendLeft) {
                    return Err(Error::new(
                        ErrorKind::FailoverTimeout,
                        "a backend that was lost is still at work on submissions and could not be ended",
                    ));
                }
                Stage::LookAtServer
            }
            Stage::LookAtServer => {
                self.incarnation = match reply {
                    Ok(rows) => self.incarnation(rows),
                    // It may have been revoked; nobody is ever accused then.
                    Err(error) if error.kind() == ErrorKind::Server => None,
                    Err(error) => return Err(error),
                };
                Stage::Look
            }
            Stage::Look => {
                self.access = access(&reply?);
                match self.access {
                    LedgerAccess::None => Stage::Install,
                    _ => Stage::PrepareClaims,
                }
            }
            Stage::Install => {
                self.not_installed = reply.err();
                Stage::LookAgain
            }
            Stage::LookAgain => {
                self.access = access(&reply?);
                if self.access == LedgerAccess::None {
                    let error = Error::new(
                        ErrorKind::Ledger,
                        "segue.submission is missing, or this role may not use it, and it could not be \
                         installed: have an owner of the database run `segue setup`; submissions wait",
                    );
                    return Err(match self.not_installed.take() {
                        Some(why) => error.with_source(why),
                        None => error,
                    });
                }
                Stage::PrepareClaims
            }
            Stage::PrepareClaims => {
                reply?;
                match (self.row, self.site.ledger) {
                    (None, _) => Stage::Ready,
                    (Some(_), LedgerAccess::None) => Stage::InstallLedger,
                    (Some(_), _) => Stage::OpenRow,
                }
            }
            Stage::InstallLedger => {
                reply?;
                self.site.ledger = LedgerAccess::Table;
                Stage::OpenRow
            }
            Stage::OpenRow => {
                reply?;
                Stage::PrepareSeal
            }
            Stage::PrepareSeal | Stage::Ready => {
                reply?;
                Stage::Ready
            }
        };
        Ok(())
    }

    /// It is ready.
    pub fn finish(self) -> AtWork {
        AtWork {
            pipe: self.pipe,
            server: self.site.server,
            timeline: self.site.timeline,
            access: self.access,
            seals: self.row.map(Seals::of),
            incarnation: self.incarnation,
        }
    }

    fn lock(&self) -> i64 {
        lock_key(self.place.store, self.place.number)
    }

    fn end_former_sql(&self) -> String {
        let places = if mutation::on(Mutation::FormerBackendLeft) { 0 } else { PLACES };
        let keys: Vec<String> =
            (0..places).map(|place| lock_key(self.place.store, place).to_string()).collect();
        let others: Vec<String> = self.place.others.iter().map(ToString::to_string).collect();
        format!(
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
        )
    }

    /// Which run of which server this is.
    fn incarnation(&self, rows: Rows) -> Option<Incarnation> {
        let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
        let (started, helpers) = (row.next()??, row.next()??);
        let helpers = helpers.split(',').filter_map(|pid| pid.parse().ok()).collect();
        Some(Incarnation { server: self.site.server, started, helpers })
    }
}

/// Its helpers are the backends without database and user, of which anybody may see the process ids.
pub const LOOK_AT_SERVER: &str = "SELECT pg_catalog.pg_postmaster_start_time()::pg_catalog.text, \
     (SELECT pg_catalog.string_agg(a.pid::pg_catalog.text, ',') \
     FROM pg_catalog.pg_stat_get_activity(NULL) AS a \
     WHERE a.datid IS NULL AND a.usesysid IS NULL)";

fn word(rows: &Rows) -> Option<&str> {
    rows.first().and_then(|row| row.first()).and_then(Option::as_deref)
}

/// How submissions are claimed here.
fn access(rows: &Rows) -> LedgerAccess {
    match word(rows) {
        Some("table") => LedgerAccess::Table,
        Some("function") => LedgerAccess::Function,
        _ => LedgerAccess::None,
    }
}

fn prepare(statements: &[(&str, &str, &[u32])]) -> Result<BytesMut> {
    let mut out = BytesMut::new();
    for (name, sql, types) in statements {
        frontend::parse(name, sql, types.iter().copied(), &mut out).map_err(broken)?;
    }
    out.put_slice(SYNC);
    Ok(out)
}

/// The advisory lock of a place. The host is a part of it, lest a copied directory on another machine
/// be taken for this one.
fn lock_key(store: Uuid, place: usize) -> i64 {
    let host = std::fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut bytes = store.as_bytes().to_vec();
    bytes.extend_from_slice(&host);
    xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, place as u64).cast_signed()
}
