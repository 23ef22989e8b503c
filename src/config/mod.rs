//! What the user asks for: servers, credentials, TLS, limits, and Segue's own options.
//!
//! [`Config`] is plain data, complete and checked: nothing below reads the environment or a file
//! of settings again. This file holds the data; `parse` and its neighbours fill it:
//!
//! * `options`: the table of all options, which the parser and `docs/configuration.md` share.
//! * `uri`, `keywords`: the two forms of a connection string, as libpq writes them.
//! * `settings`: which value of an option holds: explicit > service file > environment > default.
//! * `environment`, `service`, `passfile`: where values come from besides the connection string.
//! * `hosts`, `tls`, `auth`, `journal`: rules that join several options.
//! * `parse`: puts a [`Config`] together; `display` shows one.
//!
//! A password is never put into an error, into Display or into Debug.

mod auth;
mod display;
mod environment;
mod hosts;
mod journal;
mod keywords;
mod options;
mod parse;
mod passfile;
mod service;
mod settings;
mod tls;
mod uri;

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

pub use environment::Environment;
pub use options::{OptionDefault, OptionGroup, OptionInfo, OptionValues};

/// Everything a client needs to know; two clients with equal configurations are one client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// The servers in the user's order of preference.
    pub hosts: Vec<Host>,
    pub user: String,
    pub database: String,
    /// One password for all servers (`password=`, `PGPASSWORD`); a password file's are in the hosts.
    pub password: Option<Secret>,
    pub application_name: String,
    /// Command-line options for the server (`options=-c geqo=off`).
    pub options: Option<String>,
    /// Startup parameters beyond those above, in order (`PGDATESTYLE`, `PGTZ`, `PGGEQO`).
    /// `client_encoding` is not among them: it is always UTF8, and whoever dials says so.
    pub parameters: Vec<(String, String)>,
    /// How long opening one link may take; `None` (`connect_timeout=0`) waits for ever.
    pub connect_timeout: Option<Duration>,
    pub tls: Tls,
    pub channel_binding: ChannelBinding,
    /// Whether a server may ask for the password in the clear (only ever inside TLS or a Unix socket
    /// is this harmless). Off by default.
    pub allow_cleartext_password: bool,
    /// Whether a server may ask for an MD5 hash. Off by default.
    pub allow_md5_password: bool,
    /// What a server may ask for (`require_auth`); `None` leaves that to the two fields above.
    pub require_auth: Option<AuthMethods>,
    pub keepalive: KeepAlive,
    pub target_session_attrs: TargetSessionAttrs,
    pub failover: Failover,
    pub ledger: Ledger,
    pub journal: Journal,
    pub limits: Limits,
    /// What was odd but no error, such as a password file that others can read.
    pub warnings: Warnings,
}

/// What parsing found odd. Two configurations that differ only here are equal.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Vec<String>);

impl Warnings {
    pub(crate) fn push(&mut self, warning: String) {
        if !self.0.contains(&warning) {
            self.0.push(warning);
        }
    }
}

impl Deref for Warnings {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl PartialEq for Warnings {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Warnings {}

impl Hash for Warnings {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// One server as the user named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Host {
    pub address: Address,
    pub port: u16,
    /// From the password file, where it has a line for this host.
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A host name (also what a certificate is checked against) and, where `hostaddr` gave one, the
    /// address to dial instead of resolving the name.
    Tcp { name: String, addr: Option<IpAddr> },
    /// The directory that holds the socket `.s.PGSQL.<port>`. One that starts with `@` is Linux's
    /// abstract namespace: the socket's name is `@<directory>/.s.PGSQL.<port>` with a zero byte in the
    /// place of the `@`.
    Unix { directory: PathBuf },
}

/// How links over TCP are encrypted. Unix sockets never are, whatever is said here, as in libpq.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tls {
    pub mode: SslMode,
    pub root_cert: RootCert,
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    pub crl: Option<PathBuf>,
    pub sni: bool,
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SslMode {
    Disable,
    /// Encrypted, but the server's certificate is not checked (libpq: checked as `verify-ca` if a root
    /// certificate file was given).
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RootCert {
    /// Nothing was said and no default file exists.
    None,
    /// The operating system's trusted roots.
    System,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// The ways of authentication that a server may choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AuthMethods {
    /// The server asks for nothing (`trust`, `peer`, `cert`).
    pub none: bool,
    /// The password in the clear; `allow_cleartext_password` must be on as well.
    pub password: bool,
    /// An MD5 hash; `allow_md5_password` must be on as well.
    pub md5: bool,
    /// SCRAM-SHA-256, with and without channel binding.
    pub scram_sha_256: bool,
}

/// How TCP notices that a peer vanished. By default an idle link is given up after
/// 5 s + 3 * 3 s = 14 s, and one with unacknowledged data after 15 s. `None` is the system's setting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeepAlive {
    pub enabled: bool,
    pub idle: Option<Duration>,
    pub interval: Option<Duration>,
    pub count: Option<u32>,
    pub tcp_user_timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TargetSessionAttrs {
    /// Segue's default: a session belongs on the primary.
    ReadWrite,
    Any,
    /// A session that only ever reads, on a standby.
    ReadOnly,
}

/// Detection and failover.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Failover {
    /// `poll_interval_ms`, 250.
    pub poll_interval: Duration,
    /// `poll_timeout_ms`, 1000.
    pub poll_timeout: Duration,
    /// `poll_failures`, 2: so many misses in a row make a server suspect.
    pub poll_failures: u32,
    /// `promotion_poll_interval_ms`, 5: how often a standby is asked once the primary is in doubt.
    pub promotion_poll_interval: Duration,
    /// `failover_timeout_ms`, 60000: how long a statement waits for a usable server.
    pub timeout: Duration,
    /// `on_primary_loss`: `wait` (default) or `promote`.
    pub on_primary_loss: OnPrimaryLoss,
    /// `standby_links_max`, 64: warm links kept on the best standby, never more than there are sessions.
    pub standby_links_max: u32,
    /// `recovery_concurrency`, 16: how many sessions of one client dial or replay at once.
    pub recovery_concurrency: u32,
    /// `retry_conflicts`, 0: how often a transaction ended by a deadlock or a serialization failure is
    /// replayed before the application is told.
    pub retry_conflicts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnPrimaryLoss {
    Wait,
    Promote,
}

/// The ledger of commits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Ledger {
    /// `ledger`: `require`, `prefer` (default), `off`.
    pub mode: LedgerMode,
    /// `ledger_rotate_commits`, 256: after so many commits a session takes a fresh row.
    pub rotate_commits: u32,
    /// `commit_ack`: `primary` (default) or `backup`.
    pub commit_ack: CommitAck,
    /// `autocommit_reply`: `with_commit` (default) or `before_commit`.
    pub autocommit_reply: AutocommitReply,
    /// `on_commits_lost`: `report` (default) or `reapply`.
    pub on_commits_lost: OnCommitsLost,
}

/// When a commit is acknowledged to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommitAck {
    /// As soon as the primary acknowledges it.
    Primary,
    /// Only when a backup has it too.
    Backup,
}

/// When a statement outside transactions commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AutocommitReply {
    /// Together with its execution: one round trip.
    WithCommit,
    /// Once its reply is here: one round trip more, and no reply is lost with its server.
    BeforeCommit,
}

/// What to do about commits that were acknowledged and did not survive a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnCommitsLost {
    Report,
    Reapply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerMode {
    Require,
    Prefer,
    Off,
}

/// Where what is in flight is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Journal {
    /// `journal`: `memory` (default) or `file`.
    pub mode: JournalMode,
    /// `journal_dir`: the directory of the files, this client's alone.
    pub dir: Option<PathBuf>,
    /// `journal_sync`: `none`, `batch` (default) or `always`.
    pub sync: JournalSync,
    /// `journal_key`: 64 hexadecimal digits.
    pub key: Option<Secret>,
    /// `journal_key_file`: a file that holds the key.
    pub key_file: Option<PathBuf>,
    /// `journal_required`: what the journal cannot keep is refused instead of going on unprotected.
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalMode {
    /// It outlives the server.
    Memory,
    /// It outlives the client, too.
    File,
}

/// When what was written to the journal counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalSync {
    /// When the kernel has it: it survives the process, not the machine.
    None,
    /// When the disk has it; one sync serves all sessions that wait.
    Batch,
    /// When the disk has it, for each record by itself.
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limits {
    /// `journal_bytes_max`, 16 MiB: a transaction larger than this loses its protection, a submission
    /// larger than this is refused; in memory, so are more submissions.
    pub journal_bytes_max: usize,
    /// `journal_dir_bytes_max`, 256 MiB: the files of a journal on disk are together never larger.
    pub journal_dir_bytes_max: usize,
    /// `submit_sessions`, 2: sessions on which submissions are run.
    pub submit_sessions: usize,
    /// `submit_queue_max`, 100000: submissions that have not ended.
    pub submit_queue_max: usize,
    /// `statement_cache_size`, 256: prepared statements kept per session; 0 prepares none.
    pub statement_cache_size: usize,
    /// `message_bytes_max`, 1 GiB: a server message larger than this closes the link.
    pub message_bytes_max: usize,
}

/// A secret: erased when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret itself, for the authentication exchange alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Hash for Secret {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Host {
    pub fn new(address: Address, port: u16) -> Self {
        Self { address, port, password: None }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Address::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
            Address::Unix { directory } => {
                write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port)
            }
        }
    }
}
