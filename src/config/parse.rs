//! Puts a [`Config`] together: connection string, service file, environment and defaults in, checked
//! data out.
//!
//! Rules that join several options of Segue's own stand here; those of hosts, TLS and
//! authentication have files of their own.

use std::str::FromStr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::options::OPTIONS;
use super::settings::{Pair, Settings, bad};
use super::{
    AutocommitReply, ChannelBinding, CommitAck, Config, Environment, Failover, KeepAlive, Ledger,
    LedgerMode, Limits, OnCommitsLost, OnPrimaryLoss, OptionInfo, Secret, TargetSessionAttrs, auth,
    hosts, journal, keywords, tls, uri,
};
use crate::error::Result;

impl Config {
    /// Reads a URI or a string of `keyword=value` pairs, together with the process's environment, the
    /// password file and the service file.
    pub fn parse(conninfo: &str) -> Result<Self> {
        Self::parse_with(conninfo, &Environment::real())
    }

    /// As [`parse`](Self::parse), in surroundings of the caller's choice.
    pub fn parse_with(conninfo: &str, env: &Environment) -> Result<Self> {
        Self::build(split(conninfo)?, env)
    }

    /// From options one by one. As in libpq's `PQconnectdbParams`, an empty value counts as not given.
    pub fn from_pairs<K, V>(
        pairs: impl IntoIterator<Item = (K, V)>,
        env: &Environment,
    ) -> Result<Self>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        Self::parse_and("", pairs, env)
    }

    /// From a connection string and options beside it, which win over the string.
    pub fn parse_and<K, V>(
        conninfo: &str,
        pairs: impl IntoIterator<Item = (K, V)>,
        env: &Environment,
    ) -> Result<Self>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut all = split(conninfo)?;
        for (keyword, value) in pairs {
            // An unknown keyword is an error even without a value.
            let known = super::options::position(keyword.as_ref()).is_some();
            if known && value.as_ref().is_empty() {
                continue;
            }
            all.push(Pair {
                keyword: keyword.as_ref().to_owned(),
                value: Zeroizing::new(value.as_ref().to_owned()),
                hide_keyword: false,
            });
        }
        Self::build(all, env)
    }

    /// All options: the table that the parser itself uses.
    pub fn options() -> &'static [OptionInfo] {
        OPTIONS
    }

    fn build(pairs: Vec<Pair>, env: &Environment) -> Result<Self> {
        let mut settings = Settings::gather(pairs, env)?;
        let mut hosts = hosts::hosts(&mut settings, env)?;
        let mut warnings = std::mem::take(&mut settings.warnings);
        let text = |name| settings.text(name).map(str::to_owned);

        let Some(user) = text("user").or_else(|| env.user_name.clone()) else {
            return Err(bad(
                "user is not given, and the operating system's user has no name; write user=NAME",
            ));
        };
        let database = text("dbname").unwrap_or_else(|| user.clone());
        let password = settings.text("password").map(Secret::new);
        if password.is_none() {
            hosts::add_passwords(&mut hosts, &database, &user, &settings, env, &mut warnings);
        }

        let channel_binding = match settings.choice("channel_binding")? {
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            _ => ChannelBinding::Prefer,
        };
        let ledger = ledger(&settings)?;
        let limits = limits(&settings)?;
        let mut config = Self {
            tls: tls::tls(&settings, env, &hosts, channel_binding)?,
            hosts,
            user,
            database,
            password,
            application_name: settings
                .text("application_name")
                .or_else(|| settings.text_or_default("fallback_application_name"))
                .unwrap_or_default()
                .to_owned(),
            options: text("options"),
            parameters: parameters(&settings),
            connect_timeout: connect_timeout(&settings)?,
            channel_binding,
            allow_cleartext_password: settings.flag("allow_cleartext_password")?,
            allow_md5_password: settings.flag("allow_md5_password")?,
            require_auth: auth::require_auth(&settings)?,
            keepalive: keepalive(&settings)?,
            target_session_attrs: match settings.choice("target_session_attrs")? {
                Some("any") => TargetSessionAttrs::Any,
                Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
                _ => TargetSessionAttrs::ReadWrite,
            },
            failover: failover(&settings)?,
            journal: journal::journal(&settings, ledger.mode)?,
            ledger,
            limits,
            warnings,
        };
        auth::check(&config, &settings)?;
        auth::warn_of_plain_passwords(&mut config);
        Ok(config)
    }
}

impl FromStr for Config {
    type Err = crate::Error;

    fn from_str(conninfo: &str) -> Result<Self> {
        Self::parse(conninfo)
    }
}

fn split(conninfo: &str) -> Result<Vec<Pair>> {
    match uri::strip_scheme(conninfo) {
        Some(rest) => uri::parse(rest),
        None => keywords::parse(conninfo),
    }
}

/// Those that libpq sends for its environment variables.
fn parameters(settings: &Settings) -> Vec<(String, String)> {
    [("datestyle", "DateStyle"), ("timezone", "TimeZone"), ("geqo", "geqo")]
        .into_iter()
        .filter_map(|(option, parameter)| {
            let value = settings.text(option)?;
            Some((parameter.to_owned(), value.to_owned()))
        })
        .collect()
}

fn connect_timeout(settings: &Settings) -> Result<Option<Duration>> {
    let (seconds, millis) = ("connect_timeout", "connect_timeout_ms");
    let use_millis = match (settings.source(seconds), settings.source(millis)) {
        (Some(a), Some(b)) if a.rank() == b.rank() => {
            return Err(bad(format!(
                "{} and {} say the same in two units; write one of them",
                settings.shown(seconds),
                settings.shown(millis)
            )));
        }
        (Some(a), Some(b)) => b.rank() < a.rank(),
        (None, Some(_)) => true,
        (_, None) => false,
    };
    Ok(match use_millis {
        true => Some(duration_ms(settings, millis)?),
        false => some_seconds(settings, seconds)?,
    })
}

fn keepalive(settings: &Settings) -> Result<KeepAlive> {
    let count = count(settings, "keepalives_count")?;
    let user_timeout = duration_ms(settings, "tcp_user_timeout")?;
    Ok(KeepAlive {
        enabled: settings.flag("keepalives")?,
        idle: some_seconds(settings, "keepalives_idle")?,
        interval: some_seconds(settings, "keepalives_interval")?,
        count: (count > 0).then_some(count),
        tcp_user_timeout: (!user_timeout.is_zero()).then_some(user_timeout),
    })
}

fn failover(settings: &Settings) -> Result<Failover> {
    Ok(Failover {
        poll_interval: duration_ms(settings, "poll_interval_ms")?,
        poll_timeout: duration_ms(settings, "poll_timeout_ms")?,
        poll_failures: count(settings, "poll_failures")?,
        promotion_poll_interval: duration_ms(settings, "promotion_poll_interval_ms")?,
        timeout: duration_ms(settings, "failover_timeout_ms")?,
        on_primary_loss: match settings.choice("on_primary_loss")? {
            Some("promote") => OnPrimaryLoss::Promote,
            _ => OnPrimaryLoss::Wait,
        },
        standby_links_max: count(settings, "standby_links_max")?,
        recovery_concurrency: count(settings, "recovery_concurrency")?,
        retry_conflicts: count(settings, "retry_conflicts")?,
    })
}

fn ledger(settings: &Settings) -> Result<Ledger> {
    let ledger = Ledger {
        mode: match settings.choice("ledger")? {
            Some("require") => LedgerMode::Require,
            Some("off") => LedgerMode::Off,
            _ => LedgerMode::Prefer,
        },
        rotate_commits: count(settings, "ledger_rotate_commits")?,
        commit_ack: match settings.choice("commit_ack")? {
            Some("backup") => CommitAck::Backup,
            _ => CommitAck::Primary,
        },
        autocommit_reply: match settings.choice("autocommit_reply")? {
            Some("before_commit") => AutocommitReply::BeforeCommit,
            _ => AutocommitReply::WithCommit,
        },
        on_commits_lost: match settings.choice("on_commits_lost")? {
            Some("reapply") => OnCommitsLost::Reapply,
            _ => OnCommitsLost::Report,
        },
    };
    if ledger.mode == LedgerMode::Off {
        let needs_ledger = [
            (ledger.commit_ack == CommitAck::Backup, "commit_ack"),
            (ledger.on_commits_lost == OnCommitsLost::Reapply, "on_commits_lost"),
            (ledger.autocommit_reply == AutocommitReply::BeforeCommit, "autocommit_reply"),
        ];
        if let Some((_, option)) = needs_ledger.into_iter().find(|(is_set, _)| *is_set) {
            return Err(bad(format!(
                "{} needs the ledger, which {} switches off",
                settings.shown(option),
                settings.shown("ledger")
            )));
        }
    }
    Ok(ledger)
}

fn limits(settings: &Settings) -> Result<Limits> {
    let size = |name| {
        let number = settings.integer(name)?.unwrap_or_default();
        Ok::<_, crate::Error>(usize::try_from(number).unwrap_or(usize::MAX))
    };
    Ok(Limits {
        journal_bytes_max: size("journal_bytes_max")?,
        journal_dir_bytes_max: size("journal_dir_bytes_max")?,
        submit_sessions: size("submit_sessions")?,
        submit_queue_max: size("submit_queue_max")?,
        statement_cache_size: size("statement_cache_size")?,
        message_bytes_max: size("message_bytes_max")?,
    })
}

/// A number whose range in the table lies within u32; a test holds the table to that.
fn count(settings: &Settings, name: &str) -> Result<u32> {
    let number = settings.integer(name)?.unwrap_or_default();
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

fn duration_ms(settings: &Settings, name: &str) -> Result<Duration> {
    Ok(Duration::from_millis(u64::from(count(settings, name)?)))
}

/// Zero means none.
fn some_seconds(settings: &Settings, name: &str) -> Result<Option<Duration>> {
    let seconds = count(settings, name)?;
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}
