//! What is to be said of the servers together: the primary, who could take over, what a promotion
//! could lose, and whether commits are exactly once.

use std::collections::BTreeSet;

use segue::Config;
use segue::config::{CommitAck, LedgerMode, OnCommitsLost, TargetSessionAttrs};

use super::Severity::{Hint, Unusable, Warning};
use super::{Facts, Findings, Server};
use crate::output::grouped;

const LAG_BYTES: u64 = 64 << 20;

pub(super) type Known<'a> = (&'a str, &'a Facts);

fn known(servers: &[Server]) -> impl Iterator<Item = Known<'_>> {
    servers.iter().filter_map(|server| Some((server.address.as_str(), server.facts.as_ref()?)))
}

/// The server that sessions would be on.
pub(super) fn primary<'a>(
    config: &Config,
    servers: &'a [Server],
    findings: &mut Findings,
) -> Option<Known<'a>> {
    if known(servers).next().is_none() {
        findings.add(Unusable, "", "no server can be used", "see what is said of each");
        return None;
    }
    let identities: BTreeSet<&str> =
        known(servers).map(|(_, facts)| facts.system_identifier.as_str()).collect();
    if identities.len() > 1 {
        findings.add(
            Unusable,
            "",
            "the servers belong to different clusters: their system identifiers differ",
            "name a primary and its own standbys only",
        );
    }
    let mut primaries: Vec<Known> =
        known(servers).filter(|(_, facts)| !facts.in_recovery).collect();
    primaries.sort_by_key(|(_, facts)| std::cmp::Reverse(facts.timeline));
    let Some(&(at, facts)) = primaries.first() else {
        let severity = match config.target_session_attrs {
            TargetSessionAttrs::ReadWrite => Unusable,
            _ => Warning,
        };
        findings.add(
            severity,
            "",
            "no primary: nothing can be written",
            "promote a standby, or start the primary",
        );
        return None;
    };
    for (old, other) in &primaries[1..] {
        if identities.len() > 1 {
            break;
        }
        let (severity, what) = match other.timeline == facts.timeline {
            true => (Unusable, format!("two primaries on one timeline: {at} and {old}")),
            false => (
                Warning,
                format!(
                    "two primaries; Segue uses {at} (timeline {:?}) and refuses this one (timeline {:?})",
                    facts.timeline.unwrap_or(0),
                    other.timeline.unwrap_or(0)
                ),
            ),
        };
        findings.add(
            severity,
            old,
            what,
            "stop the one that is not to be, and rejoin it as a standby with pg_rewind",
        );
    }
    if facts.read_only && config.target_session_attrs == TargetSessionAttrs::ReadWrite {
        findings.add(
            Unusable,
            at,
            format!(
                "default_transaction_read_only is on in database {}: nothing can be written",
                facts.database
            ),
            "ALTER SYSTEM / DATABASE / ROLE ... SET default_transaction_read_only = off",
        );
    }
    Some((at, facts))
}

/// The standbys that could take over.
pub(super) fn standbys<'a>(
    primary: Option<Known>,
    servers: &'a [Server],
    findings: &mut Findings,
) -> Vec<Known<'a>> {
    let Some((_, facts)) = primary else {
        return known(servers).filter(|(_, facts)| facts.in_recovery).collect();
    };
    let standbys: Vec<Known> = known(servers)
        .filter(|(_, other)| {
            other.in_recovery && other.system_identifier == facts.system_identifier
        })
        .collect();
    if servers.len() == 1 {
        findings.add(
            Warning,
            "",
            "only one server is named: transactions outlive its restart, but not its loss",
            "name the standbys too: host=a,b",
        );
    } else if standbys.is_empty() {
        findings.add(
            Warning,
            "",
            "no standby is there to take over",
            "start one; until then transactions outlive a restart of the primary, but not its loss",
        );
    }
    for (at, standby) in &standbys {
        if standby.timeline < facts.timeline {
            findings.add(
                Warning,
                at,
                format!("follows timeline {}, the primary is on {}",
                    standby.timeline.unwrap_or(0), facts.timeline.unwrap_or(0)),
                "check primary_conninfo and the standby's log; rejoin it with pg_rewind if it diverged",
            );
        }
        let lag = facts.lsn.saturating_sub(standby.lsn);
        if lag > LAG_BYTES {
            findings.add(
                Warning,
                at,
                format!("is {} bytes behind; a promotion replays them first", grouped(lag)),
                "see why it cannot follow",
            );
        }
        if standby.max_connections < facts.max_connections {
            findings.add(
                Warning,
                at,
                "has a smaller max_connections than the primary",
                "make them equal",
            );
        }
    }
    standbys
}

/// Whether acknowledged commits may be lost at a promotion.
pub(super) fn replication(
    config: &Config,
    primary: Option<Known>,
    standbys: &[Known],
    findings: &mut Findings,
) -> Option<bool> {
    let (at, facts) = primary?;
    if standbys.is_empty() && facts.standbys.is_empty() {
        return None;
    }
    let backup_acknowledges = config.ledger.commit_ack == CommitAck::Backup;
    let is_seen = facts.standbys.iter().all(|standby| standby.state.is_some());
    let streaming =
        facts.standbys.iter().filter(|s| s.state.as_deref() == Some("streaming")).count();
    if facts.standbys.is_empty() {
        findings.add(
            Warning,
            at,
            "no standby receives WAL from this primary: a promotion would lose what it has committed",
            "check primary_conninfo of the standby, and pg_hba.conf here",
        );
        return Some(true);
    }
    if !is_seen {
        findings.add(
            Hint,
            at,
            format!("the role {} cannot see whether its standbys stream", facts.user),
            "GRANT pg_monitor TO a role that checks",
        );
    } else if streaming == 0 {
        findings.add(
            Warning,
            at,
            "no standby is streaming yet",
            "wait until it has caught up, or see its log",
        );
    }
    if facts.synchronous_standby_names.is_empty() {
        if backup_acknowledges {
            return Some(false);
        }
        let then = match config.ledger.on_commits_lost {
            OnCommitsLost::Reapply => "Segue runs them again (on_commits_lost=reapply)",
            _ => "Segue reports them",
        };
        findings.add(
            Warning,
            at,
            format!("replication is asynchronous: a promotion can lose commits that were acknowledged; {then}"),
            "set synchronous_standby_names at the primary, or commit_ack=backup here",
        );
        return Some(true);
    }
    if matches!(facts.synchronous_commit.as_str(), "off" | "local") && !backup_acknowledges {
        findings.add(
            Warning,
            at,
            format!(
                "synchronous_commit is {}: commits do not wait for the synchronous standby",
                facts.synchronous_commit
            ),
            "set synchronous_commit = on",
        );
        return Some(true);
    }
    let waits_for = |state: &Option<String>| matches!(state.as_deref(), Some("sync" | "quorum"));
    if is_seen && !facts.standbys.iter().any(|standby| waits_for(&standby.sync_state)) {
        findings.add(
            Warning,
            at,
            format!("synchronous_standby_names is {:?}, and no such standby is connected: every commit waits for one",
                facts.synchronous_standby_names),
            "start the standby, or mend its application_name in primary_conninfo",
        );
    }
    Some(false)
}

/// Whether commits are exactly once, and why.
pub(super) fn ledger(
    config: &Config,
    primary: Option<Known>,
    findings: &mut Findings,
) -> (bool, String) {
    let Some((at, facts)) = primary else {
        return (false, "there is no primary".to_owned());
    };
    if config.ledger.mode == LedgerMode::Off {
        findings.add(
            Warning,
            "",
            "ledger=off: commits in flight when a server is lost end with an unknown outcome",
            "leave ledger out",
        );
        return (false, "ledger=off".to_owned());
    }
    if facts.pooled {
        // What each server is found to be is said already; this follows from it.
        let why =
            "through a pooler a session's statements may meet a backend that does not know them";
        return (false, why.to_owned());
    }
    let owner = facts.ledger_owner.as_deref().unwrap_or_default();
    match (facts.ledger_access.as_str(), &facts.ledger_version) {
        ("table", _) => {
            return (
                true,
                format!("{} seals its commits in the ledger, in the fast form", facts.user),
            );
        }
        ("function", _) => {
            return (
                true,
                format!("{} seals its commits in the ledger, in the hardened form", facts.user),
            );
        }
        (_, None) if facts.ledger_owner.is_none() && facts.may_create && !facts.read_only => {
            findings.add(
                Hint,
                at,
                format!(
                    "the ledger is not installed; the first session of {} will install it",
                    facts.user
                ),
                "run `segue setup` to do so now, or to choose who may use it",
            );
            return (true, "the first session installs the ledger".to_owned());
        }
        _ => {}
    }
    let severity = if config.ledger.mode == LedgerMode::Require { Unusable } else { Warning };
    let ours = segue::session::ledger::VERSION.to_string();
    let (what, advice) = match &facts.ledger_version {
        None => (
            format!("the ledger is not installed, and {} may not install it", facts.user),
            "run `segue setup` as the database's owner",
        ),
        Some(version) if *version != ours => (
            format!("the ledger has version {version}, this program knows {ours}"),
            "run `segue setup` of the newer one of the two",
        ),
        Some(_) => (
            format!(
                "the ledger (owner {owner}) may not be used by {}, or is owned by a role that it has no reason to trust",
                facts.user
            ),
            "run `segue setup --role ROLE` as the database's owner",
        ),
    };
    findings.add(
        severity,
        at,
        format!("{what}: commits in flight when a server is lost end with an unknown outcome"),
        advice,
    );
    (false, what)
}
