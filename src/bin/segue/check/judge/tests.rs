//! Every shortcoming is found, has its weight, and comes with advice.

use super::*;
use crate::check::probe::{Standby, Unreachable};

fn config(more: &str) -> Config {
    let text = format!("host=a,b user=app dbname=bank sslmode=disable {more}");
    Config::parse_with(&text, &segue::config::Environment::empty()).unwrap()
}

fn primary() -> Server {
    Server {
        address: "a:5432".to_owned(),
        auth: "SCRAM-SHA-256".to_owned(),
        facts: Some(Facts {
            system_identifier: "7".to_owned(),
            version_num: 150_000,
            timeline: Some(3),
            lsn: 1000,
            user: "app".to_owned(),
            max_connections: 100,
            synchronous_standby_names: "b".to_owned(),
            synchronous_commit: "on".to_owned(),
            fsync: true,
            ledger_access: "table".to_owned(),
            ledger_version: Some("1".to_owned()),
            ledger_owner: Some("app".to_owned()),
            standbys: vec![Standby {
                state: Some("streaming".to_owned()),
                sync_state: Some("sync".to_owned()),
                ..Standby::default()
            }],
            ..Facts::default()
        }),
        ..Server::default()
    }
}

fn standby() -> Server {
    let mut server = primary();
    server.address = "b:5432".to_owned();
    let facts = server.facts.as_mut().unwrap();
    facts.in_recovery = true;
    facts.standbys.clear();
    server
}

fn worst(judgement: &Judgement) -> Option<Severity> {
    judgement.findings.iter().map(|finding| finding.severity).max()
}

/// The cluster after `change`: what is found, and how bad it is.
fn with(more: &str, change: impl Fn(&mut Server, &mut Server)) -> Judgement {
    let mut servers = [primary(), standby()];
    let [a, b] = &mut servers;
    change(a, b);
    judge(&config(more), &servers)
}

#[test]
fn a_good_cluster_has_nothing_to_mend() {
    let good = with("", |_, _| {});
    assert_eq!(worst(&good), None, "{:?}", good.findings);
    assert!(good.protection.exactly_once);
    assert_eq!(good.protection.commits_can_be_lost, Some(false));
    assert_eq!(good.protection.backups, ["b:5432"]);
    assert_eq!(good.protection.detection, Duration::from_millis(2500));
}

#[test]
fn each_shortcoming_is_named_with_its_weight() {
    type Change = fn(&mut Facts, &mut Facts);
    let cases: [(&str, Change, Severity, &str); 14] = [
        ("", |a, _| a.version_num = 130_000, Unusable, "too old"),
        ("", |a, _| a.read_only = true, Unusable, "default_transaction_read_only"),
        ("", |_, b| b.system_identifier = "8".to_owned(), Unusable, "different clusters"),
        ("", |_, b| b.in_recovery = false, Unusable, "two primaries on one timeline"),
        ("", |a, b| (b.in_recovery, a.timeline) = (false, Some(4)), Warning, "two primaries;"),
        ("", |_, b| b.timeline = Some(2), Warning, "follows timeline 2"),
        ("", |a, _| a.synchronous_standby_names.clear(), Warning, "asynchronous"),
        ("", |a, _| a.synchronous_commit = "local".to_owned(), Warning, "synchronous_commit"),
        ("", |a, _| a.standbys.clear(), Warning, "no standby receives"),
        (
            "",
            |a, _| a.standbys[0].sync_state = Some("async".to_owned()),
            Warning,
            "every commit waits",
        ),
        ("", |a, _| a.used_connections = 95, Warning, "5 of 100"),
        ("", |_, b| b.retry_interval_ms = 5000, Hint, "wal_retrieve_retry_interval"),
        ("", |a, _| a.pooled = true, Warning, "pooler"),
        ("on_primary_loss=promote", |_, b| b.may_promote = false, Warning, "pg_promote"),
    ];
    for (more, change, severity, words) in cases {
        let judged = with(more, |a, b| {
            change(a.facts.as_mut().unwrap(), b.facts.as_mut().unwrap());
        });
        assert_eq!(worst(&judged), Some(severity), "{words}: {:?}", judged.findings);
        assert!(
            judged.findings.iter().any(|f| f.what.contains(words) && !f.advice.is_empty()),
            "{words}: {:?}",
            judged.findings
        );
    }
}

#[test]
fn exactly_once_is_promised_only_where_the_ledger_can_be_used() {
    let without = |may_create| {
        with("", move |a, _| {
            let facts = a.facts.as_mut().unwrap();
            facts.ledger_access = "none".to_owned();
            (facts.ledger_version, facts.ledger_owner) = (None, None);
            facts.may_create = may_create;
        })
    };
    assert!(without(true).protection.exactly_once);
    assert_eq!(worst(&without(true)), Some(Hint));
    assert!(!without(false).protection.exactly_once);
    assert_eq!(worst(&without(false)), Some(Warning));
    let pooled = with("", |a, _| a.facts.as_mut().unwrap().pooled = true);
    assert!(!pooled.protection.exactly_once);
    let off = with("ledger=off", |_, _| {});
    assert_eq!((off.protection.exactly_once, worst(&off)), (false, Some(Warning)));
}

#[test]
fn what_is_down_is_told_and_the_rest_judged() {
    let down = |server: &mut Server| {
        server.facts = None;
        let reason = "refused".to_owned();
        server.unreachable = Some(Unreachable { reason, kind: ErrorKind::Connect });
    };
    assert_eq!(worst(&with("", |_, b| down(b))), Some(Warning));
    assert_eq!(worst(&with("", |a, _| down(a))), Some(Unusable));
    let both = with("", |a, b| {
        down(a);
        down(b);
    });
    assert_eq!(worst(&both), Some(Unusable));
    let encrypted = with("", |a, _| a.is_remote = true);
    assert!(encrypted.findings.iter().any(|f| f.what.contains("not encrypted")));
}
