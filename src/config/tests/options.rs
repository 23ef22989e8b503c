//! Every option of the table: it is read, from the connection string and from its variable, it is
//! checked, and its default is what the struct's documentation says.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{assert_error, env, error, error_in, parse, parse_in};
use crate::config::{
    AutocommitReply, CommitAck, Config, LedgerMode, OnCommitsLost, OnPrimaryLoss, OptionDefault,
    OptionGroup, OptionInfo, OptionValues, TargetSessionAttrs,
};

#[test]
fn defaults_are_those_documented() {
    let config = parse("");
    assert_eq!((config.user.as_str(), config.database.as_str()), ("ann", "ann"));
    assert_eq!(config.application_name, "segue");
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(10)));
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::ReadWrite);
    assert!(!config.allow_cleartext_password && !config.allow_md5_password);
    let keepalive = &config.keepalive;
    assert!(keepalive.enabled);
    assert_eq!(keepalive.idle, Some(Duration::from_secs(5)));
    assert_eq!(keepalive.interval, Some(Duration::from_secs(3)));
    assert_eq!(keepalive.count, Some(3));
    assert_eq!(keepalive.tcp_user_timeout, Some(Duration::from_secs(15)));
    let failover = &config.failover;
    assert_eq!(failover.poll_interval, Duration::from_millis(250));
    assert_eq!(failover.poll_timeout, Duration::from_millis(1000));
    assert_eq!(failover.poll_failures, 2);
    assert_eq!(failover.promotion_poll_interval, Duration::from_millis(5));
    assert_eq!(failover.timeout, Duration::from_secs(60));
    assert_eq!(failover.on_primary_loss, OnPrimaryLoss::Wait);
    assert_eq!(failover.standby_links_max, 64);
    assert_eq!(failover.recovery_concurrency, 16);
    assert_eq!(failover.retry_conflicts, 0);
    assert_eq!(config.ledger.mode, LedgerMode::Prefer);
    assert_eq!(config.ledger.rotate_commits, 256);
    assert_eq!(config.ledger.commit_ack, CommitAck::Primary);
    assert_eq!(config.ledger.on_commits_lost, OnCommitsLost::Report);
    assert_eq!(config.ledger.autocommit_reply, AutocommitReply::WithCommit);
    assert_eq!(config.limits.journal_bytes_max, 16 << 20);
    assert_eq!(config.limits.statement_cache_size, 256);
    assert_eq!(config.limits.message_bytes_max, 1 << 30);
}

/// A value other than the default, for the options whose table entry does not tell one.
fn another_value(option: &OptionInfo) -> String {
    match (option.name, option.values, option.default) {
        (_, OptionValues::Integer { max, .. }, _) => max.to_string(),
        (_, OptionValues::Flag, OptionDefault::Value("on")) => "off".to_owned(),
        (_, OptionValues::Flag, _) => "on".to_owned(),
        ("ssl_min_protocol_version", ..) => "TLSv1.3".to_owned(),
        ("target_session_attrs", ..) => "any".to_owned(),
        (_, OptionValues::Choice { allowed, .. }, OptionDefault::Value(default)) => {
            let other = allowed.iter().find(|word| **word != default).unwrap();
            (*other).to_owned()
        }
        ("host", ..) => "other".to_owned(),
        ("hostaddr", ..) => "10.9.8.7".to_owned(),
        ("port", ..) => "77".to_owned(),
        ("require_auth", ..) => "scram-sha-256".to_owned(),
        ("sslmode", ..) => "disable".to_owned(),
        ("sslrootcert", ..) => "/etc/hostname".to_owned(),
        ("sslcert" | "sslkey" | "sslcrl", ..) => "/etc/passwd".to_owned(),
        _ => "other".to_owned(),
    }
}

/// No option is in the table that the parser forgets: each makes a difference.
#[test]
fn every_option_reaches_the_configuration() {
    // sslcert and sslkey need each other, and all of TLS needs a server to use it with.
    let base =
        "host=h sslmode=require sslrootcert=/etc/passwd sslcert=/etc/group sslkey=/etc/group";
    let without = |name: &str| {
        let kept: Vec<_> =
            base.split(' ').filter(|pair| pair.split('=').next() != Some(name)).collect();
        kept.join(" ")
    };
    // Without these, nothing is left to compare with, or the file itself decides.
    let elsewhere = ["service", "servicefile", "passfile"];
    for option in Config::options() {
        // The journal's need each other: they have tests of their own.
        let journal = option.name.starts_with("journal") && !option.name.ends_with("bytes_max");
        if option.group == OptionGroup::Libpq || elsewhere.contains(&option.name) || journal {
            continue;
        }
        let plain = parse(base);
        let value = another_value(option);
        if option.name != "datestyle" && option.name != "timezone" && option.name != "geqo" {
            let changed = parse(&format!("{base} {}={value}", option.name));
            assert_ne!(changed, plain, "{}={value} changed nothing", option.name);
        }
        if let Some(variable) = option.env {
            let in_env = env().with(variable, value.clone());
            let changed = parse_in(&without(option.name), &in_env);
            assert_ne!(changed, plain, "{variable}={value} changed nothing");
            // And the connection string is stronger.
            if base.contains(&format!("{}=", option.name)) {
                assert_eq!(parse_in(base, &in_env), plain, "{variable}");
            }
        }
    }
}

#[test]
fn names_and_variables_are_unique() {
    let names: BTreeSet<_> = Config::options().iter().map(|option| option.name).collect();
    assert_eq!(names.len(), Config::options().len());
    let variables: Vec<_> = Config::options().iter().filter_map(|option| option.env).collect();
    assert_eq!(variables.iter().collect::<BTreeSet<_>>().len(), variables.len());
    for option in Config::options() {
        assert!(!option.summary.is_empty() && !option.summary.contains(['\n', '|']));
        if let Some(variable) = option.env.filter(|variable| variable.starts_with("SEGUE_")) {
            assert_eq!(variable, format!("SEGUE_{}", option.name.to_uppercase()));
        }
        // Counts and times are handed out as u32.
        if let OptionValues::Integer { min, max } = option.values {
            assert!(min >= 0 && (max <= u32::MAX.into() || option.unit == "bytes"));
        }
    }
}

#[test]
fn numbers_are_held_to_their_range() {
    for option in Config::options() {
        let OptionValues::Integer { min, max } = option.values else {
            continue;
        };
        let name = option.name;
        for good in [min.to_string(), max.to_string(), format!("' {max} '")] {
            parse(&format!("{name}={good}"));
        }
        let range = format!("{min} to {max}");
        for wrong in [(min - 1).to_string(), (max + 1).to_string(), "1e3".into(), "5s".into()] {
            assert_error(&format!("{name}={wrong}"), &[name, &wrong, &range, option.unit]);
        }
    }
    assert_error("poll_interval_ms=0", &["poll_interval_ms", "\"0\"", "1 to"]);
    assert_error("poll_timeout_ms=0", &["poll_timeout_ms", "1 to"]);
    let error = error_in("", &env().with("SEGUE_POLL_FAILURES", "0"));
    assert!(error.contains("SEGUE_POLL_FAILURES"), "{error}");
}

#[test]
fn zero_means_what_libpq_means() {
    let config = parse("connect_timeout=0 keepalives_idle=0 keepalives_count=0 tcp_user_timeout=0");
    assert_eq!(config.connect_timeout, None);
    assert_eq!(config.keepalive.idle, None);
    assert_eq!(config.keepalive.count, None);
    assert_eq!(config.keepalive.tcp_user_timeout, None);
    assert!(!parse("keepalives=0").keepalive.enabled);
}

#[test]
fn the_stronger_connect_timeout_wins() {
    let timeout = |conninfo: &str, variable: &str| {
        parse_in(conninfo, &env().with(variable, "7")).connect_timeout
    };
    let ms = |ms| Some(Duration::from_millis(ms));
    assert_eq!(timeout("", "PGCONNECT_TIMEOUT"), ms(7000));
    assert_eq!(timeout("", "SEGUE_CONNECT_TIMEOUT_MS"), ms(7));
    assert_eq!(timeout("connect_timeout_ms=3", "PGCONNECT_TIMEOUT"), ms(3));
    assert_eq!(timeout("connect_timeout=3", "SEGUE_CONNECT_TIMEOUT_MS"), ms(3000));
    assert_error(
        "connect_timeout=1 connect_timeout_ms=1",
        &["connect_timeout=1", "connect_timeout_ms=1"],
    );
}

#[test]
fn choices() {
    use TargetSessionAttrs::{Any, ReadOnly, ReadWrite};
    for (word, wanted) in [
        ("read-write", ReadWrite),
        ("primary", ReadWrite),
        ("any", Any),
        ("read-only", ReadOnly),
        ("standby", ReadOnly),
    ] {
        let config = parse(&format!("target_session_attrs={word}"));
        assert_eq!(config.target_session_attrs, wanted, "{word}");
    }
    assert_error(
        "target_session_attrs=prefer-standby",
        &["target_session_attrs=prefer-standby", "read-only"],
    );
    assert_error("ledger=of", &["ledger", "\"of\"", "did you mean off?"]);
    let config = parse(
        "ledger=require commit_ack=backup on_commits_lost=reapply on_primary_loss=promote \
         autocommit_reply=before_commit",
    );
    assert_eq!(config.ledger.autocommit_reply, AutocommitReply::BeforeCommit);
    assert_eq!(config.ledger.mode, LedgerMode::Require);
    assert_eq!(config.ledger.commit_ack, CommitAck::Backup);
    assert_eq!(config.ledger.on_commits_lost, OnCommitsLost::Reapply);
    assert_eq!(config.failover.on_primary_loss, OnPrimaryLoss::Promote);
    assert_error("allow_md5_password=maybe", &["allow_md5_password", "maybe"]);
}

#[test]
fn what_needs_the_ledger_is_refused_without_it() {
    assert_error("ledger=off commit_ack=backup", &["ledger=off", "commit_ack=backup"]);
    assert_error("ledger=off on_commits_lost=reapply", &["ledger=off", "on_commits_lost=reapply"]);
    assert_error("ledger=off autocommit_reply=before_commit", &["ledger=off", "autocommit_reply"]);
    let env = env().with("SEGUE_LEDGER", "off");
    let error = error_in("commit_ack=backup", &env);
    assert!(error.contains("SEGUE_LEDGER"), "{error}");
    assert_eq!(parse_in("", &env).ledger.mode, LedgerMode::Off);
}

#[test]
fn unknown_options_suggest_the_nearest() {
    for (unknown, known) in [
        ("pol_interval_ms", "poll_interval_ms"),
        ("sslrootcrt", "sslrootcert"),
        ("User", "user"),
        ("database", "dbname"),
        ("hostname", "host"),
        ("failover_timeout", "failover_timeout_ms"),
    ] {
        let error = error(&format!("{unknown}=1"));
        assert!(error.contains(unknown), "{error}");
        assert!(error.contains(&format!("did you mean {known}?")), "{error}");
    }
    assert!(!error("qqqq=1").contains("did you mean"));
    let error = Config::from_pairs([("hst", "")], &env()).unwrap_err().to_string();
    assert!(error.contains("did you mean host?"), "{error}");
}

#[test]
fn a_misspelt_variable_of_segue_is_warned_of() {
    let env = env()
        .with("SEGUE_POLL_INTERVAL", "1")
        .with("SEGUE_LEDGR", "off")
        .with("SEGUE_BLESS", "1")
        .with("PGSOMETHING", "1");
    let warnings = parse_in("", &env).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("SEGUE_LEDGR") && warnings[0].contains("SEGUE_LEDGER"));
}

#[test]
fn options_of_libpq_that_cannot_be_honoured_are_named() {
    for option in Config::options() {
        let OptionValues::Fixed { accepted, .. } = option.values else {
            continue;
        };
        for value in accepted {
            parse(&format!("{}={}", option.name, value.to_lowercase()));
        }
        parse(&format!("{}=''", option.name));
        assert_error(&format!("{}=something", option.name), &[option.name, "not support"]);
        if let Some(variable) = option.env {
            let error = error_in("", &env().with(variable, "something"));
            assert!(error.contains(variable), "{error}");
        }
    }
    assert_error("client_encoding=LATIN1", &["client_encoding", "UTF8"]);
    assert_error("replication=database", &["replication"]);
}

#[test]
fn startup_parameters_come_from_the_environment() {
    let env =
        env().with("PGTZ", "UTC").with("PGDATESTYLE", "ISO, YMD").with("PGOPTIONS", "-c geqo=off");
    let config = parse_in("", &env);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(config.parameters, [pair("DateStyle", "ISO, YMD"), pair("TimeZone", "UTC")]);
    assert_eq!(config.options.as_deref(), Some("-c geqo=off"));
    assert_error("timezone=UTC", &["timezone", "options=", "PGTZ"]);
}

#[test]
fn names_of_the_application() {
    assert_eq!(parse("fallback_application_name=f").application_name, "f");
    assert_eq!(parse("fallback_application_name=f application_name=a").application_name, "a");
}

#[test]
fn zero_bytes_and_a_nameless_user_are_refused() {
    let error = Config::from_pairs([("user", "a\0b")], &env()).unwrap_err();
    assert!(error.to_string().contains("user"), "{error}");
    let error = error_in("", &crate::config::Environment::empty());
    assert!(error.contains("user="), "{error}");
}
