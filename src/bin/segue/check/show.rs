//! A check's result in words and as JSON. Nothing of the configuration but addresses is shown.

use serde_json::{Value, json};

use super::judge::{Finding, Judgement, Severity};
use super::probe::{Facts, Server};
use crate::output::grouped;

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Hint => "hint",
            Self::Warning => "warning",
            Self::Unusable => "error",
        }
    }
}

pub fn text(servers: &[Server], judgement: &Judgement) -> String {
    let mut lines = Vec::new();
    for server in servers {
        lines.push(server.address.clone());
        lines.extend(server_lines(server).into_iter().map(|line| format!("  {line}")));
    }
    lines.push(String::new());
    for finding in &judgement.findings {
        lines.extend(finding_lines(finding));
    }
    if judgement.findings.is_empty() {
        lines.push("Nothing to mend.".to_owned());
    }
    lines.push(String::new());
    lines.extend(protection_lines(judgement));
    lines.join("\n")
}

fn server_lines(server: &Server) -> Vec<String> {
    if let Some(unreachable) = &server.unreachable {
        return vec![format!("not usable: {}", unreachable.reason)];
    }
    let peer = server.peer.as_deref().unwrap_or("its Unix socket");
    let mut lines = vec![format!(
        "reached at {peer} in {:.1} ms; {}; authentication: {}",
        server.connect.as_secs_f64() * 1000.0,
        server.tls.as_deref().unwrap_or("not encrypted"),
        match server.auth.as_str() {
            "trust" => "no password asked for",
            method => method,
        }
    )];
    let Some(facts) = &server.facts else { return lines };
    lines.push(format!(
        "{}, PostgreSQL {}, system {}, timeline {}, at {}",
        role(facts),
        facts.version,
        facts.system_identifier,
        facts.timeline.map_or_else(|| "unknown".to_owned(), |timeline| timeline.to_string()),
        lsn(facts.lsn)
    ));
    lines.push(format!(
        "{} of {} connections in use; database {}, role {}{}",
        facts.used_connections,
        facts.max_connections,
        facts.database,
        facts.user,
        if facts.may_promote { ", which may promote" } else { "" }
    ));
    if !facts.in_recovery {
        let names = match facts.synchronous_standby_names.as_str() {
            "" => "none".to_owned(),
            names => format!("{names:?}"),
        };
        lines.push(format!(
            "synchronous standbys: {names}, synchronous_commit: {}",
            facts.synchronous_commit
        ));
    }
    for standby in &facts.standbys {
        lines.push(match &standby.state {
            None => "a standby, whose state this role may not see".to_owned(),
            Some(state) => format!(
                "standby {} ({}): {state}, {}, {} bytes behind",
                standby.name,
                standby.address,
                standby.sync_state.as_deref().unwrap_or("unknown"),
                standby.lag_bytes.map_or_else(|| "unknown".to_owned(), grouped)
            ),
        });
    }
    lines.push(match (&facts.ledger_version, facts.ledger_access.as_str()) {
        (None, _) => "ledger: not installed".to_owned(),
        (Some(version), access) => format!(
            "ledger: version {version}, owner {}, {}",
            facts.ledger_owner.as_deref().unwrap_or("unknown"),
            match access {
                "table" => "used by the table (fast)",
                "function" => "used by functions (hardened)",
                _ => "may not be used by this role",
            }
        ),
    });
    lines
}

fn finding_lines(finding: &Finding) -> Vec<String> {
    let place = match finding.server.as_str() {
        "" => String::new(),
        server => format!("{server}: "),
    };
    vec![
        format!("{}: {place}{}", finding.severity.name(), finding.what),
        format!("    what to do: {}", finding.advice),
    ]
}

fn protection_lines(judgement: &Judgement) -> Vec<String> {
    let protection = &judgement.protection;
    let yes = if protection.exactly_once { "yes" } else { "NO" };
    let backups = match protection.backups.as_slice() {
        [] => "nobody".to_owned(),
        backups => backups.join(", "),
    };
    vec![
        "What an application would have:".to_owned(),
        format!("  writes on:            {}", protection.primary.as_deref().unwrap_or("nothing")),
        format!("  who could take over:  {backups}"),
        format!("  exactly once:         {yes}: {}", protection.why),
        format!(
            "  acknowledged commits: {}",
            match protection.commits_can_be_lost {
                Some(true) => "CAN BE LOST at a promotion",
                Some(false) => "survive a promotion",
                None => "cannot be said without a standby",
            }
        ),
        format!(
            "  a server's death:     noticed at once where its connections close; a silent one within \
             {:.1} s",
            protection.detection.as_secs_f64()
        ),
    ]
}

pub fn json(servers: &[Server], judgement: &Judgement, exit: u8) -> String {
    let protection = &judgement.protection;
    let findings: Vec<Value> = judgement
        .findings
        .iter()
        .map(|finding| {
            json!({
                "severity": finding.severity.name(),
                "server": (!finding.server.is_empty()).then_some(&finding.server),
                "what": finding.what,
                "advice": finding.advice,
            })
        })
        .collect();
    json!({
        "exit": exit,
        "servers": servers.iter().map(server_json).collect::<Vec<_>>(),
        "findings": findings,
        "protection": {
            "exactly_once": protection.exactly_once,
            "why": protection.why,
            "acknowledged_commits_can_be_lost": protection.commits_can_be_lost,
            "primary": protection.primary,
            "standbys": protection.backups,
            "detection_ms": u64::try_from(protection.detection.as_millis()).unwrap_or(u64::MAX),
        },
    })
    .to_string()
}

fn server_json(server: &Server) -> Value {
    let mut value = json!({
        "address": server.address,
        "reachable": server.unreachable.is_none(),
        "problem": server.unreachable.as_ref().map(|unreachable| &unreachable.reason),
    });
    let mut add = |more: Value| {
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
    };
    if server.unreachable.is_none() {
        add(json!({
            "peer": server.peer,
            "connect_ms": (server.connect.as_secs_f64() * 10_000.0).round() / 10.0,
            "tls": server.tls,
            "authentication": server.auth,
        }));
    }
    if let Some(facts) = &server.facts {
        let standbys: Vec<Value> = facts
            .standbys
            .iter()
            .map(|standby| {
                json!({
                    "name": standby.name,
                    "address": standby.address,
                    "state": standby.state,
                    "sync_state": standby.sync_state,
                    "lag_bytes": standby.lag_bytes,
                })
            })
            .collect();
        add(json!({
            "role": role(facts),
            "system_identifier": facts.system_identifier,
            "version": facts.version,
            "timeline": facts.timeline,
            "lsn": lsn(facts.lsn),
            "user": facts.user,
            "database": facts.database,
            "pooled": facts.pooled,
            "max_connections": facts.max_connections,
            "used_connections": facts.used_connections,
            "synchronous_standby_names": facts.synchronous_standby_names,
            "synchronous_commit": facts.synchronous_commit,
            "wal_retrieve_retry_interval_ms": facts.retry_interval_ms,
            "default_transaction_read_only": facts.read_only,
            "may_promote": facts.may_promote,
            "ledger_version": facts.ledger_version,
            "ledger_owner": facts.ledger_owner,
            "ledger_access": facts.ledger_access,
            "standbys": standbys,
        }));
    }
    value
}

fn role(facts: &Facts) -> &'static str {
    if facts.in_recovery { "standby" } else { "primary" }
}

fn lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}
