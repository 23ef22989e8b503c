//! The table of all options. The parser takes names, environment variables, defaults and ranges
//! from here, and `docs/configuration.md` is generated from it, so that they cannot drift apart.
//! It holds no rule that joins two options.

use std::fmt;

use OptionDefault::{Computed, Unset, Value};
use OptionGroup::{Connection, Libpq, Login, Network, Segue, Tls};
use OptionValues::{Choice, Fixed, Flag, Integer, List, Secret, Text};

/// One option: what the parser knows of it, and what a reader should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionInfo {
    /// The keyword, in connection strings, in URIs and in service files.
    pub name: &'static str,
    /// The environment variable that gives it where nothing else does.
    pub env: Option<&'static str>,
    pub default: OptionDefault,
    /// `ms`, `s`, `bytes`; empty where there is none.
    pub unit: &'static str,
    pub values: OptionValues,
    pub group: OptionGroup,
    /// One line on what it does.
    pub summary: &'static str,
}

/// The section of the documentation that an option stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OptionGroup {
    Connection,
    Login,
    Tls,
    Network,
    Segue,
    /// Known to libpq; accepted only where it says what Segue does anyway.
    Libpq,
}

/// What holds where an option was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionDefault {
    Unset,
    /// Parsed like a value that was given.
    Value(&'static str),
    /// Found out at run time, in the way described.
    Computed(&'static str),
}

/// What may stand after the `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionValues {
    Text,
    /// Text that is never shown.
    Secret,
    /// Comma-separated.
    List,
    Flag,
    Integer {
        min: i64,
        max: i64,
    },
    Choice {
        allowed: &'static [&'static str],
        /// Values of libpq's that are refused, and what to do instead.
        refused: &'static [(&'static str, &'static str)],
    },
    /// An option of libpq's that Segue knows but cannot honour, except for these values.
    Fixed {
        accepted: &'static [&'static str],
        reason: &'static str,
    },
}

impl fmt::Display for OptionDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unset => Ok(()),
            Value(text) | Computed(text) => f.write_str(text),
        }
    }
}

const fn option(
    group: OptionGroup,
    name: &'static str,
    env: &'static str,
    default: OptionDefault,
    values: OptionValues,
    summary: &'static str,
) -> OptionInfo {
    OptionInfo {
        name,
        env: if env.is_empty() { None } else { Some(env) },
        default,
        unit: "",
        values,
        group,
        summary,
    }
}

const fn number(
    group: OptionGroup,
    name: &'static str,
    env: &'static str,
    default: OptionDefault,
    (min, max, unit): (i64, i64, &'static str),
    summary: &'static str,
) -> OptionInfo {
    let values = Integer { min, max };
    let mut info = option(group, name, env, default, values, summary);
    info.unit = unit;
    info
}

const fn choice(allowed: &'static [&'static str]) -> OptionValues {
    Choice { allowed, refused: &[] }
}

/// A day is longer than anything Segue should wait for.
const DAY_MS: i64 = 86_400_000;
const DAY_S: i64 = 86_400;

const PLAIN_TEXT_FALLBACK: &str = "it may silently fall back to an unencrypted connection. Write \
     sslmode=verify-full (encrypted, the server's certificate and name are checked), sslmode=require \
     (encrypted, not checked) or sslmode=disable (plain text)";

const NO_GSS: &str = "Segue does not speak GSSAPI or Kerberos";
const NO_OAUTH: &str = "Segue does not speak OAuth";

const fn fixed(
    name: &'static str,
    env: &'static str,
    default: OptionDefault,
    accepted: &'static [&'static str],
    reason: &'static str,
) -> OptionInfo {
    option(Libpq, name, env, default, Fixed { accepted, reason }, reason)
}

#[rustfmt::skip] // One line per option and one for its text reads better than rustfmt's ten.
pub(super) static OPTIONS: &[OptionInfo] = &[
    option(Connection, "host", "PGHOST", Computed("see [Hosts](#hosts)"), List,
        "Servers in order of preference: names, addresses, or directories of Unix sockets (starting with `/` or `@`)."),
    option(Connection, "hostaddr", "PGHOSTADDR", Unset, List,
        "IP addresses to dial instead of resolving `host`; as many as there are hosts."),
    option(Connection, "port", "PGPORT", Value("5432"), List,
        "One port for all hosts, or as many as there are hosts."),
    option(Connection, "dbname", "PGDATABASE", Computed("the user's name"), Text,
        "The database."),
    option(Connection, "user", "PGUSER", Computed("the operating system's user"), Text,
        "The role to log in as."),
    option(Connection, "service", "PGSERVICE", Unset, Text,
        "A section of the service file to take further options from."),
    option(Connection, "servicefile", "PGSERVICEFILE", Computed("~/.pg_service.conf, then pg_service.conf in PGSYSCONFDIR (Debian: /etc/postgresql-common)"), Text,
        "The service file."),
    option(Connection, "target_session_attrs", "PGTARGETSESSIONATTRS", Value("read-write"),
        Choice { allowed: &["read-write", "primary", "any", "read-only", "standby"], refused: &[
            ("prefer-standby", "a session stays with the role it was opened for. Write target_session_attrs=read-only for a standby, or any"),
        ] },
        "Which servers a session may use; `primary` is the same as `read-write`, `standby` the same as `read-only`."),
    option(Connection, "application_name", "PGAPPNAME", Computed("`fallback_application_name`"), Text,
        "Shown in pg_stat_activity and in the server's log."),
    option(Connection, "fallback_application_name", "", Value("segue"), Text,
        "The application's name where `application_name` says nothing."),
    option(Connection, "options", "PGOPTIONS", Unset, Text,
        "Command-line options for the server, such as `-c geqo=off`."),
    option(Connection, "datestyle", "PGDATESTYLE", Unset, Text,
        "Startup parameter DateStyle; from the environment only."),
    option(Connection, "timezone", "PGTZ", Unset, Text,
        "Startup parameter TimeZone; from the environment only."),
    option(Connection, "geqo", "PGGEQO", Unset, Text,
        "Startup parameter geqo; from the environment only."),

    option(Login, "password", "PGPASSWORD", Computed("from the password file"), Secret,
        "The password for all servers."),
    option(Login, "passfile", "PGPASSFILE", Computed("~/.pgpass"), Text,
        "The password file."),
    option(Login, "require_auth", "PGREQUIREAUTH", Unset, List,
        "Methods that a server may ask for: `password`, `md5`, `scram-sha-256`, `none`; or, each with `!`, those it may not."),
    option(Login, "channel_binding", "PGCHANNELBINDING", Value("prefer"), choice(&["disable", "prefer", "require"]),
        "Whether SCRAM must be bound to the TLS channel."),
    option(Login, "allow_cleartext_password", "SEGUE_ALLOW_CLEARTEXT_PASSWORD", Value("off"), Flag,
        "Whether a server may ask for the password itself."),
    option(Login, "allow_md5_password", "SEGUE_ALLOW_MD5_PASSWORD", Value("off"), Flag,
        "Whether a server may ask for an MD5 hash of the password."),

    option(Tls, "sslmode", "PGSSLMODE", Computed("see [TLS](#tls)"),
        Choice { allowed: &["disable", "require", "verify-ca", "verify-full"], refused: &[
            ("prefer", PLAIN_TEXT_FALLBACK), ("allow", PLAIN_TEXT_FALLBACK),
        ] },
        "How TCP links are encrypted and whom they trust."),
    option(Tls, "sslrootcert", "PGSSLROOTCERT", Computed("~/.postgresql/root.crt if it exists"), Text,
        "File of trusted root certificates, or `system` for the operating system's."),
    option(Tls, "sslcert", "PGSSLCERT", Computed("~/.postgresql/postgresql.crt if it exists"), Text,
        "File of the client's certificate."),
    option(Tls, "sslkey", "PGSSLKEY", Computed("~/.postgresql/postgresql.key if it exists"), Text,
        "File of the client's key; not encrypted."),
    option(Tls, "sslcrl", "PGSSLCRL", Computed("~/.postgresql/root.crl if it exists"), Text,
        "File of revoked certificates."),
    option(Tls, "sslsni", "PGSSLSNI", Value("on"), Flag,
        "Whether the host's name is sent in the clear when TLS begins."),
    option(Tls, "ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Value("TLSv1.2"),
        choice(&["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]),
        "The oldest version of TLS; never older than TLSv1.2, whatever is said here."),
    option(Tls, "ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Value("TLSv1.3"),
        Choice { allowed: &["TLSv1.2", "TLSv1.3"], refused: &[
            ("TLSv1", "Segue speaks TLSv1.2 and TLSv1.3 only"), ("TLSv1.1", "Segue speaks TLSv1.2 and TLSv1.3 only"),
        ] },
        "The newest version of TLS."),

    number(Network, "connect_timeout", "PGCONNECT_TIMEOUT", Value("10"), (0, DAY_S, "s"),
        "How long opening one link may take; 0 waits for ever."),
    number(Network, "connect_timeout_ms", "SEGUE_CONNECT_TIMEOUT_MS", Unset, (1, DAY_MS, "ms"),
        "The same in milliseconds, instead of `connect_timeout`."),
    option(Network, "keepalives", "", Value("on"), Flag,
        "Whether TCP probes an idle link."),
    number(Network, "keepalives_idle", "", Value("5"), (0, 32_767, "s"),
        "Idle time before the first probe; 0 is the system's setting."),
    number(Network, "keepalives_interval", "", Value("3"), (0, 32_767, "s"),
        "Time between probes; 0 is the system's setting."),
    number(Network, "keepalives_count", "", Value("3"), (0, 127, ""),
        "Unanswered probes that end the link; 0 is the system's setting."),
    number(Network, "tcp_user_timeout", "", Value("15000"), (0, DAY_MS, "ms"),
        "How long sent data may stay unacknowledged; 0 is the system's setting."),

    number(Segue, "poll_interval_ms", "SEGUE_POLL_INTERVAL_MS", Value("250"), (1, 3_600_000, "ms"),
        "How often each server is polled."),
    number(Segue, "poll_timeout_ms", "SEGUE_POLL_TIMEOUT_MS", Value("1000"), (1, 3_600_000, "ms"),
        "How long a server may take to answer a poll."),
    number(Segue, "poll_failures", "SEGUE_POLL_FAILURES", Value("2"), (1, 1000, ""),
        "Misses in a row that make a server suspect."),
    number(Segue, "promotion_poll_interval_ms", "SEGUE_PROMOTION_POLL_INTERVAL_MS", Value("5"), (1, 60_000, "ms"),
        "How often a standby is asked whether it was promoted, once the primary is in doubt."),
    number(Segue, "failover_timeout_ms", "SEGUE_FAILOVER_TIMEOUT_MS", Value("60000"), (1, DAY_MS, "ms"),
        "How long a statement waits for a usable server."),
    option(Segue, "on_primary_loss", "SEGUE_ON_PRIMARY_LOSS", Value("wait"), choice(&["wait", "promote"]),
        "Whether Segue waits for somebody to promote a standby, or promotes one itself (which risks two primaries)."),
    number(Segue, "standby_links_max", "SEGUE_STANDBY_LINKS_MAX", Value("64"), (0, 65_535, ""),
        "Warm links kept on the best standby, never more than there are sessions; 0 keeps none."),
    number(Segue, "recovery_concurrency", "SEGUE_RECOVERY_CONCURRENCY", Value("16"), (1, 65_535, ""),
        "Sessions of one client that dial or replay at once."),
    number(Segue, "retry_conflicts", "SEGUE_RETRY_CONFLICTS", Value("0"), (0, 1000, ""),
        "How often a transaction ended by a deadlock or a serialization failure is replayed; 0 never."),
    option(Segue, "ledger", "SEGUE_LEDGER", Value("prefer"), choice(&["require", "prefer", "off"]),
        "Whether commits are recorded on the server, without which the outcome of one in flight at a failure is unknown."),
    number(Segue, "ledger_rotate_commits", "SEGUE_LEDGER_ROTATE_COMMITS", Value("256"), (1, 1_000_000, ""),
        "Commits after which a session takes a fresh row of the ledger."),
    option(Segue, "commit_ack", "SEGUE_COMMIT_ACK", Value("primary"), choice(&["primary", "backup"]),
        "Whose word a commit waits for before the application is told."),
    option(Segue, "autocommit_reply", "SEGUE_AUTOCOMMIT_REPLY", Value("with_commit"), choice(&["with_commit", "before_commit"]),
        "Whether a statement outside transactions commits in the round trip that brings its reply, or in one more: then its reply is here before it commits, and is never lost."),
    option(Segue, "on_commits_lost", "SEGUE_ON_COMMITS_LOST", Value("report"), choice(&["report", "reapply"]),
        "What happens to acknowledged commits, and to submissions, that did not survive a promotion."),
    number(Segue, "journal_bytes_max", "SEGUE_JOURNAL_BYTES_MAX", Value("16777216"), (1024, 1 << 40, "bytes"),
        "A transaction larger than this loses its protection; a submission larger than this is refused. With `journal=memory`, all submissions together are never larger."),
    number(Segue, "journal_dir_bytes_max", "SEGUE_JOURNAL_DIR_BYTES_MAX", Value("268435456"), (1 << 20, 1 << 44, "bytes"),
        "With `journal=file`, all files of the journal together are never larger. What is in flight may take up about two thirds of it."),
    option(Segue, "journal", "SEGUE_JOURNAL", Value("memory"), choice(&["memory", "file"]),
        "Where submissions and transactions are kept until they have ended: in memory they outlive the server, in files the client too."),
    option(Segue, "journal_dir", "SEGUE_JOURNAL_DIR", Unset, Text,
        "The directory of the journal's files (mode 0700, one client's alone); made if it is missing."),
    option(Segue, "journal_sync", "SEGUE_JOURNAL_SYNC", Value("batch"), choice(&["none", "batch", "always"]),
        "When a record counts as kept: `none`, once the kernel has it; `batch`, once the disk has it, with one sync for all sessions that wait; `always`, the same for each record by itself."),
    option(Segue, "journal_key", "SEGUE_JOURNAL_KEY", Unset, Secret,
        "Encrypts the journal's files: 64 hexadecimal digits."),
    option(Segue, "journal_key_file", "SEGUE_JOURNAL_KEY_FILE", Unset, Text,
        "A file with that key: 32 bytes, or 64 hexadecimal digits; readable by its owner only."),
    option(Segue, "journal_required", "SEGUE_JOURNAL_REQUIRED", Value("off"), Flag,
        "Whether what the journal cannot keep is refused; else it goes on without that protection."),
    number(Segue, "submit_sessions", "SEGUE_SUBMIT_SESSIONS", Value("2"), (1, 64, ""),
        "Sessions on which submissions are run; a lane is run by one of them."),
    number(Segue, "submit_queue_max", "SEGUE_SUBMIT_QUEUE_MAX", Value("100000"), (1, 1_000_000_000, ""),
        "Submissions that have not ended, dead letters included; with more, handing over waits."),
    number(Segue, "statement_cache_size", "SEGUE_STATEMENT_CACHE_SIZE", Value("256"), (0, 1_000_000, ""),
        "Prepared statements kept per session; 0 prepares none."),
    number(Segue, "message_bytes_max", "SEGUE_MESSAGE_BYTES_MAX", Value("1073741824"), (65_536, 2_147_483_647, "bytes"),
        "A message of a server larger than this closes the link."),

    fixed("client_encoding", "PGCLIENTENCODING", Value("UTF8"), &["UTF8", "UTF-8", "UNICODE", "auto"],
        "Segue always speaks UTF-8; the server converts."),
    fixed("gssencmode", "PGGSSENCMODE", Value("disable"), &["disable", "prefer"], NO_GSS),
    fixed("gssdelegation", "PGGSSDELEGATION", Value("0"), &["0"], NO_GSS),
    fixed("gsslib", "PGGSSLIB", Unset, &[], NO_GSS),
    fixed("krbsrvname", "PGKRBSRVNAME", Unset, &["postgres"], NO_GSS),
    fixed("load_balance_hosts", "PGLOADBALANCEHOSTS", Value("disable"), &["disable"],
        "Hosts are used in the order given; a session belongs where the primary is"),
    fixed("replication", "", Value("false"), &["false", "off", "no", "0"],
        "Segue does not speak the replication protocol"),
    fixed("requirepeer", "PGREQUIREPEER", Unset, &[],
        "Segue does not check the owner of a Unix socket"),
    fixed("requiressl", "PGREQUIRESSL", Value("0"), &["0"],
        "It is obsolete; write sslmode=require or, better, sslmode=verify-full"),
    fixed("sslcertmode", "PGSSLCERTMODE", Value("allow"), &["allow"],
        "A client certificate is sent when there is one and the server asks"),
    fixed("sslcompression", "PGSSLCOMPRESSION", Value("0"), &["0"],
        "TLS compression is insecure and not implemented"),
    fixed("sslcrldir", "PGSSLCRLDIR", Unset, &[],
        "Directories of revoked certificates are not supported; write sslcrl=FILE"),
    fixed("sslkeylogfile", "", Unset, &[], "Session keys are never written to a file"),
    fixed("sslnegotiation", "PGSSLNEGOTIATION", Value("postgres"), &["postgres"],
        "TLS always begins with PostgreSQL's own request"),
    fixed("sslpassword", "", Unset, &[],
        "Encrypted keys are not supported; store the key without a passphrase, readable by its owner only"),
    fixed("min_protocol_version", "PGMINPROTOCOLVERSION", Value("3.0"), &["3.0"],
        "Segue must be free to speak protocol 3.0"),
    fixed("max_protocol_version", "PGMAXPROTOCOLVERSION", Value("latest"), &["3.0", "3.2", "latest"],
        "Segue speaks protocol 3.0 upwards"),
    fixed("scram_client_key", "", Unset, &[], "Pass-through of SCRAM keys is not supported; write password"),
    fixed("scram_server_key", "", Unset, &[], "Pass-through of SCRAM keys is not supported; write password"),
    fixed("oauth_issuer", "", Unset, &[], NO_OAUTH),
    fixed("oauth_client_id", "", Unset, &[], NO_OAUTH),
    fixed("oauth_client_secret", "", Unset, &[], NO_OAUTH),
    fixed("oauth_scope", "", Unset, &[], NO_OAUTH),
];

/// Options that have an environment variable and no keyword, as in libpq.
pub(super) const ENVIRONMENT_ONLY: &[&str] = &["datestyle", "timezone", "geqo"];

/// What users of other libraries write, where spelling alone would not lead to the right option.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("ssl", "sslmode"),
    ("tls", "sslmode"),
    ("database", "dbname"),
    ("db", "dbname"),
    ("username", "user"),
    ("hostname", "host"),
    ("server", "host"),
    ("pass", "password"),
    ("passwd", "password"),
    ("pwd", "password"),
    ("timeout", "connect_timeout"),
    ("sslca", "sslrootcert"),
];

/// Where in the table an option stands.
pub(super) fn position(name: &str) -> Option<usize> {
    OPTIONS.iter().position(|option| option.name == name)
}

/// The known option nearest to an unknown name.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let unknown = unknown.to_lowercase();
    if let Some((_, known)) = OTHER_NAMES.iter().find(|(other, _)| *other == unknown) {
        return Some(known);
    }
    let names = OPTIONS.iter().map(|option| option.name);
    closest(&unknown, names.filter(|name| !ENVIRONMENT_ONLY.contains(name)))
}

/// The candidate most like `text`, unless none is at all.
pub(super) fn closest<'a>(
    text: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Very long input is no slip of the finger, and comparing costs the product of the lengths.
    if text.len() > 64 {
        return None;
    }
    candidates
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.6)
        .map(|(_, candidate)| candidate)
}

/// Whether a value of this option must not be shown.
pub(super) fn is_secret(name: &str) -> bool {
    matches!(
        name,
        "password"
            | "journal_key"
            | "sslpassword"
            | "oauth_client_secret"
            | "scram_client_key"
            | "scram_server_key"
    )
}
