//! What is asked of one server, and what it has said. Judging is done elsewhere.

use std::time::{Duration, Instant};

use segue::config::{Address, Host, SslMode};
use segue::session::ledger;
use segue::{Config, ErrorKind};

use super::ask::Asker;
use crate::output::chain;

const IDENTITY: &str = "\
SELECT r, (SELECT system_identifier FROM pg_control_system()), current_setting('server_version_num'), \
current_setting('server_version'), \
CASE WHEN r THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END, \
CASE WHEN r THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()), \
(SELECT received_tli FROM pg_stat_get_wal_receiver())) END, \
CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - '0/0'::pg_lsn, \
pg_backend_pid(), current_user, current_database() \
FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) AS x";

const SETTINGS: &str = "\
SELECT name, CASE WHEN name = 'default_transaction_read_only' THEN current_setting(name) \
ELSE setting END FROM pg_settings WHERE name IN ('max_connections', \
'superuser_reserved_connections', 'synchronous_standby_names', 'synchronous_commit', \
'wal_retrieve_retry_interval', 'default_transaction_read_only', 'idle_session_timeout', 'fsync')";

const CONNECTIONS: &str = "\
SELECT (SELECT sum(numbackends) FROM pg_stat_database), \
(SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user), \
(SELECT datconnlimit FROM pg_database WHERE datname = current_database())";

const RIGHTS: &str = "\
SELECT has_function_privilege('pg_catalog.pg_promote(boolean,integer)', 'EXECUTE'), \
has_database_privilege(current_database(), 'CREATE')";

const LEDGER: &str = "\
SELECT (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'segue'), \
(SELECT substring(prosrc FROM 'SELECT ([0-9]+)') FROM pg_proc \
WHERE pronamespace = to_regnamespace('segue') AND proname = 'version')";

/// Without pg_read_all_stats all but the process id is hidden, which shows as a NULL state.
const STANDBYS: &str = "\
SELECT coalesce(application_name, '?'), coalesce(client_addr::text, 'Unix socket'), state, sync_state, \
pg_current_wal_lsn() - replay_lsn FROM pg_stat_replication ORDER BY application_name";

/// One server, as far as it let itself be looked at.
#[derive(Debug, Default)]
pub struct Server {
    pub address: String,
    /// Whether strangers may listen on the way to it.
    pub is_remote: bool,
    /// Why it could not be reached.
    pub unreachable: Option<Unreachable>,
    pub peer: Option<String>,
    pub connect: Duration,
    pub tls: Option<String>,
    pub auth: String,
    pub facts: Option<Facts>,
    /// Questions that it did not answer.
    pub unanswered: Vec<String>,
}

#[derive(Debug)]
pub struct Unreachable {
    pub reason: String,
    pub kind: ErrorKind,
}

#[derive(Debug, Default)]
pub struct Facts {
    pub in_recovery: bool,
    pub system_identifier: String,
    pub version_num: u32,
    pub version: String,
    pub timeline: Option<u32>,
    pub lsn: u64,
    pub user: String,
    pub database: String,
    /// The backend says that it is another than the one that the link was opened with.
    pub pooled: bool,
    pub max_connections: u64,
    pub reserved_connections: u64,
    pub used_connections: u64,
    /// Of the role or the database, the smaller one.
    pub connection_limit: Option<u64>,
    pub synchronous_standby_names: String,
    pub synchronous_commit: String,
    pub retry_interval_ms: u64,
    pub read_only: bool,
    pub idle_session_timeout_ms: u64,
    pub fsync: bool,
    pub may_promote: bool,
    pub may_create: bool,
    /// `table`, `function`, `none`.
    pub ledger_access: String,
    pub ledger_version: Option<String>,
    pub ledger_owner: Option<String>,
    /// Of a primary.
    pub standbys: Vec<Standby>,
}

/// A standby as its primary sees it.
#[derive(Debug, Default)]
pub struct Standby {
    pub name: String,
    pub address: String,
    /// Not visible to this role if `None`.
    pub state: Option<String>,
    pub sync_state: Option<String>,
    pub lag_bytes: Option<u64>,
}

/// Dials one server and asks it everything.
pub fn look(config: &Config, host: &Host) -> Server {
    let is_tcp = matches!(host.address, Address::Tcp { .. });
    let mut server = Server { address: host.to_string(), is_remote: is_tcp, ..Server::default() };
    let began = Instant::now();
    let mut asker = match Asker::dial(config, host) {
        Ok(asker) => asker,
        Err(error) => {
            server.unreachable = Some(Unreachable { reason: chain(&error), kind: error.kind() });
            return server;
        }
    };
    server.connect = began.elapsed();
    let info = asker.info();
    let pid = info.backend_pid;
    server.peer = info.peer.map(|peer| peer.to_string());
    server.is_remote = is_tcp && !info.peer.is_some_and(|peer| peer.ip().is_loopback());
    server.tls = info.tls_version.map(|version| format!("{version}, {}", verified(config)));
    server.auth = info.auth_method.to_owned();
    match identity(&mut asker, pid) {
        Ok(mut facts) => {
            fill(&mut asker, &mut facts, &mut server.unanswered);
            server.facts = Some(facts);
        }
        Err(reason) => server.unanswered.push(format!("what it is: {reason}")),
    }
    asker.close();
    server
}

fn verified(config: &Config) -> &'static str {
    match config.tls.mode {
        SslMode::VerifyFull => "certificate and name verified",
        SslMode::VerifyCa => "certificate verified, its name not",
        _ => "certificate not verified",
    }
}

fn identity(asker: &mut Asker, pid: i32) -> Result<Facts, String> {
    let row = asker.row(IDENTITY)?;
    let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let in_recovery = text(0) == "t";
    let timeline = match in_recovery {
        true => text(5).parse().ok(),
        // The first eight digits of a WAL file's name.
        false => text(4).get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()),
    };
    Ok(Facts {
        in_recovery,
        system_identifier: text(1),
        version_num: text(2).parse().unwrap_or(0),
        version: text(3).split_whitespace().next().unwrap_or_default().to_owned(),
        timeline,
        lsn: text(6).parse().unwrap_or(0),
        pooled: text(7).parse() != Ok(pid),
        user: text(8),
        database: text(9),
        ..Facts::default()
    })
}

fn fill(asker: &mut Asker, facts: &mut Facts, unanswered: &mut Vec<String>) {
    let mut note = |what: &str, reason: String| unanswered.push(format!("{what}: {reason}"));
    match asker.ask(SETTINGS) {
        Ok(rows) => rows.into_iter().for_each(|row| {
            if let [Some(name), value] = row.as_slice() {
                setting(facts, name, value.as_deref().unwrap_or_default());
            }
        }),
        Err(reason) => note("its settings", reason),
    }
    match asker.row(CONNECTIONS) {
        Ok(row) => {
            let number = |at: usize| row.get(at)?.as_ref()?.parse::<i64>().ok();
            facts.used_connections = number(0).map_or(0, i64::unsigned_abs);
            let limits = [number(1), number(2)].into_iter().flatten().filter(|limit| *limit >= 0);
            facts.connection_limit = limits.min().map(i64::unsigned_abs);
        }
        Err(reason) => note("its connections", reason),
    }
    match asker.row(RIGHTS) {
        Ok(row) => {
            let is = |at: usize| row.get(at).and_then(Option::as_deref) == Some("t");
            (facts.may_promote, facts.may_create) = (is(0), is(1));
        }
        Err(reason) => note("this role's rights", reason),
    }
    match asker.row(&format!("SELECT {}", ledger::ACCESS)) {
        Ok(row) => facts.ledger_access = row.into_iter().next().flatten().unwrap_or_default(),
        Err(reason) => note("access to the ledger", reason),
    }
    match asker.row(LEDGER) {
        Ok(row) => {
            let mut values = row.into_iter();
            facts.ledger_owner = values.next().flatten();
            facts.ledger_version = values.next().flatten();
        }
        Err(reason) => note("the ledger", reason),
    }
    if !facts.in_recovery {
        match asker.ask(STANDBYS) {
            Ok(rows) => facts.standbys = rows.iter().map(|row| standby(row)).collect(),
            Err(reason) => note("its standbys", reason),
        }
    }
}

fn setting(facts: &mut Facts, name: &str, value: &str) {
    let number = || value.parse().unwrap_or(0);
    match name {
        "max_connections" => facts.max_connections = number(),
        "superuser_reserved_connections" => facts.reserved_connections = number(),
        "synchronous_standby_names" => facts.synchronous_standby_names = value.to_owned(),
        "synchronous_commit" => facts.synchronous_commit = value.to_owned(),
        "wal_retrieve_retry_interval" => facts.retry_interval_ms = number(),
        "default_transaction_read_only" => facts.read_only = value == "on",
        "idle_session_timeout" => facts.idle_session_timeout_ms = number(),
        "fsync" => facts.fsync = value == "on",
        _ => {}
    }
}

fn standby(row: &[Option<String>]) -> Standby {
    let text = |at: usize| row.get(at).cloned().flatten();
    Standby {
        name: text(0).unwrap_or_default(),
        address: text(1).unwrap_or_default(),
        state: text(2),
        sync_state: text(3),
        lag_bytes: text(4)
            .and_then(|lag| lag.parse::<i64>().ok())
            .map(|lag| lag.max(0).unsigned_abs()),
    }
}
