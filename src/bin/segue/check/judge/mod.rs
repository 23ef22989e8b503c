//! What the answers mean for an application: pure, so that every shortcoming can be tested.

mod cluster;
#[cfg(test)]
mod tests;

use std::time::Duration;

use segue::config::{OnPrimaryLoss, SslMode};
use segue::{Config, ErrorKind};

use super::probe::{Facts, Server};
use Severity::{Hint, Unusable, Warning};

/// Ordered: the worst one makes the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Hint,
    Warning,
    /// An application could not work with this.
    Unusable,
}

#[derive(Debug)]
pub struct Finding {
    pub severity: Severity,
    /// Empty where it is the whole cluster's.
    pub server: String,
    pub what: String,
    pub advice: String,
}

/// What an application would have.
#[derive(Debug)]
pub struct Protection {
    pub exactly_once: bool,
    pub why: String,
    /// Acknowledged commits may be lost at a promotion; `None` where that could not be seen.
    pub commits_can_be_lost: Option<bool>,
    pub primary: Option<String>,
    /// Standbys that could take over.
    pub backups: Vec<String>,
    /// A silent server is suspected at the latest after this.
    pub detection: Duration,
}

pub struct Judgement {
    pub findings: Vec<Finding>,
    pub protection: Protection,
}

const OLDEST_VERSION: u32 = 140_000;
const HEADROOM_MIN: u64 = 10;
const RETRY_INTERVAL_MS: u64 = 1000;

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, server: &str, what: impl Into<String>, advice: &str) {
        self.0.push(Finding {
            severity,
            server: server.to_owned(),
            what: what.into(),
            advice: advice.to_owned(),
        });
    }
}

pub fn judge(config: &Config, servers: &[Server]) -> Judgement {
    let mut findings = Findings::default();
    for server in servers {
        each(config, server, &mut findings);
    }
    let primary = cluster::primary(config, servers, &mut findings);
    let standbys = cluster::standbys(primary, servers, &mut findings);
    let commits_can_be_lost = cluster::replication(config, primary, &standbys, &mut findings);
    let (exactly_once, why) = cluster::ledger(config, primary, &mut findings);
    let poll = config.failover.poll_interval + config.failover.poll_timeout;
    findings.0.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Judgement {
        findings: findings.0,
        protection: Protection {
            exactly_once,
            why,
            commits_can_be_lost,
            primary: primary.map(|(address, _)| address.to_owned()),
            backups: standbys.iter().map(|(address, _)| (*address).to_owned()).collect(),
            detection: poll * config.failover.poll_failures,
        },
    }
}

/// What is to be said of a server by itself.
fn each(config: &Config, server: &Server, findings: &mut Findings) {
    let at = server.address.as_str();
    if let Some(unreachable) = &server.unreachable {
        let advice = match unreachable.kind {
            ErrorKind::Authentication => {
                "check user, password (password file, PGPASSWORD) and the server's pg_hba.conf"
            }
            ErrorKind::Tls => "check sslmode and sslrootcert, and the server's certificate",
            ErrorKind::Server => {
                "the server refused: check database, role and its connection limits"
            }
            _ => "check that it runs, listens on this address, and that no firewall is in between",
        };
        findings.add(Warning, at, "cannot be used", advice);
        return;
    }
    for question in &server.unanswered {
        findings.add(
            Warning,
            at,
            format!("could not be asked for {question}"),
            "see the server's log",
        );
    }
    link(config, server, findings);
    let Some(facts) = &server.facts else { return };
    if facts.version_num < OLDEST_VERSION {
        findings.add(
            Unusable,
            at,
            format!("PostgreSQL {} is too old", facts.version),
            "upgrade it to 14 or later",
        );
    }
    if facts.pooled {
        findings.add(
            Warning,
            at,
            "a connection pooler is in between: the backend is not the one that the link was opened with",
            "let Segue connect to the servers themselves: it has to tell them apart, and its sessions \
             keep prepared statements",
        );
    }
    connections(at, facts, findings);
    if !facts.fsync {
        findings.add(
            Warning,
            at,
            "fsync is off: a crash of its machine destroys its data",
            "set fsync = on",
        );
    }
    if facts.idle_session_timeout_ms > 0 {
        findings.add(
            Hint,
            at,
            format!(
                "idle_session_timeout ends idle links after {} ms; they are made anew",
                facts.idle_session_timeout_ms
            ),
            "ALTER ROLE ... SET idle_session_timeout = 0 for the application's role",
        );
    }
    if facts.in_recovery && facts.retry_interval_ms > RETRY_INTERVAL_MS {
        findings.add(
            Hint,
            at,
            format!("wal_retrieve_retry_interval is {} ms: a promotion asked for once right after the \
                 primary's death may take as long", facts.retry_interval_ms),
            "set wal_retrieve_retry_interval = '100ms', or let whoever promotes repeat pg_promote(false)",
        );
    }
    if config.failover.on_primary_loss == OnPrimaryLoss::Promote && !facts.may_promote {
        findings.add(
            Warning,
            at,
            format!(
                "on_primary_loss=promote, but the role {} may not call pg_promote()",
                facts.user
            ),
            "GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer) TO the role, in this database",
        );
    }
}

fn link(config: &Config, server: &Server, findings: &mut Findings) {
    let at = server.address.as_str();
    if !server.is_remote {
        return;
    }
    match &server.tls {
        None => findings.add(
            Warning,
            at,
            "the connection is not encrypted",
            "set ssl = on at the server and sslmode=verify-full here",
        ),
        Some(_) if config.tls.mode == SslMode::Require => findings.add(
            Warning,
            at,
            "the connection is encrypted, but the server's certificate is not verified: somebody in \
             between could be the server",
            "set sslmode=verify-full and sslrootcert",
        ),
        Some(_) => {}
    }
    match server.auth.as_str() {
        "trust" => findings.add(
            Hint,
            at,
            "the server asked for no password: it trusts the address, or a client certificate",
            "unless it is the certificate, use scram-sha-256 in pg_hba.conf",
        ),
        "md5" | "password" => findings.add(
            Warning,
            at,
            format!("authentication by {} is weak", server.auth),
            "use scram-sha-256 in pg_hba.conf",
        ),
        _ => {}
    }
}

fn connections(at: &str, facts: &Facts, findings: &mut Findings) {
    let room = facts.max_connections.saturating_sub(facts.reserved_connections);
    let free = room.saturating_sub(facts.used_connections);
    if facts.max_connections > 0 && free < HEADROOM_MIN {
        findings.add(
            Warning,
            at,
            format!("only {free} of {} connections are free", facts.max_connections),
            "raise max_connections: each session takes one link on the primary and may take one on \
             the standby, each client one more on every server",
        );
    }
    if let Some(limit) = facts.connection_limit {
        findings.add(
            Hint,
            at,
            format!("role or database are limited to {limit} connections"),
            "allow for a link of every session and one of every client",
        );
    }
}
