//! A primary and its standbys: how they are configured, started, and found by an application.
//!
//! Only the first primary waits for standbys (`synchronous_standby_names` stands in its own
//! postgresql.auto.conf); a promoted standby never waits for a server that is gone.
//! The superuser comes in over the Unix socket only, in a directory that nobody else may enter: an
//! open superuser on loopback would be a door for every user of the machine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::binaries::Binaries;
use crate::error::{Error, Result};
use crate::netns::Namespace;
use crate::owner::Owner;
use crate::ports::PortLease;
use crate::server::{Inner, Server, conninfo};
use crate::template;
use crate::tls::TlsFiles;
use crate::workdir::Workdir;

/// The application's role; it owns [`DATABASE`] and may call `pg_promote()`.
pub const USER: &str = "app";
/// The application's database.
pub const DATABASE: &str = "app";
/// The application role's password, where one is asked for.
pub const APP_PASSWORD: &str = "correct-horse";

const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// How the primary waits for its standbys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replication {
    /// It does not.
    Async,
    /// A commit waits until one standby has it on disk.
    #[default]
    Sync,
    /// A commit waits until one standby shows it to readers.
    RemoteApply,
}

/// How the application proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    Trust,
    /// SCRAM-SHA-256, over TCP and Unix socket.
    Scram,
    /// A cleartext password.
    Cleartext,
    /// A client certificate; implies TLS.
    Certificate,
}

/// What a cluster is to be like.
#[derive(Debug, Clone)]
#[must_use]
pub struct ClusterBuilder {
    standbys: usize,
    replication: Replication,
    auth: Auth,
    tls: bool,
    tls_names: Vec<String>,
    fresh_identity: bool,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    namespaces: Vec<(usize, String, String)>,
}

impl ClusterBuilder {
    /// How many standbys; 1 by default.
    pub fn standbys(mut self, count: usize) -> Self {
        self.standbys = count;
        self
    }

    /// Synchronous by default (asynchronous in effect where there is no standby).
    pub fn replication(mut self, replication: Replication) -> Self {
        self.replication = replication;
        self
    }

    /// Trust by default.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Offers TLS, and refuses TCP connections without it.
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// A further name for the servers' certificate, such as `DNS:db.example`.
    pub fn tls_name(mut self, name: impl Into<String>) -> Self {
        self.tls_names.push(name.into());
        self
    }

    /// Whether data is flushed to disk; on by default.
    pub fn fsync(self, on: bool) -> Self {
        self.setting("fsync", if on { "on" } else { "off" })
    }

    /// 200 by default; standbys do not start with less than 100.
    pub fn max_connections(self, count: u32) -> Self {
        self.setting("max_connections", count.max(100).to_string())
    }

    /// Any setting of all servers; a later one wins.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// A line of pg_hba.conf that is looked at before the kit's own.
    pub fn hba(mut self, line: impl Into<String>) -> Self {
        self.hba.push(line.into());
        self
    }

    /// A system identifier of its own. Without it clusters are copies of one template and look
    /// like one cluster to a client.
    pub fn fresh_identity(mut self) -> Self {
        self.fresh_identity = true;
        self
    }

    /// Runs one server inside a network namespace, on its address.
    pub fn in_namespace(mut self, server: usize, namespace: &Namespace) -> Self {
        let address = namespace.address().to_owned();
        self.namespaces.push((server, namespace.name().to_owned(), address));
        self
    }

    /// Starts the cluster and waits until all standbys stream.
    ///
    /// # Errors
    /// When PostgreSQL or a tool is missing, or a server does not start.
    pub fn start(self) -> Result<Cluster> {
        // Leased ports are free, save for the moment in which a stranger may take one.
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.start_once() {
                Err(error) if error.is_port_taken() && attempts < 3 => {}
                result => return result,
            }
        }
    }

    fn start_once(&self) -> Result<Cluster> {
        let binaries = Binaries::find()?;
        let owner = Owner::find()?;
        let workdir = Arc::new(Workdir::create(&owner)?);
        let tls = match self.uses_tls() {
            true => {
                let mut names = self.tls_names.clone();
                names.extend(self.namespaces.iter().map(|(_, _, address)| format!("IP:{address}")));
                Some(TlsFiles::make(&owner, &workdir.path().join("tls"), &names)?)
            }
            false => None,
        };
        let suffix = self.suffix(tls.as_ref());
        let mut servers = Vec::new();
        for index in 0..=self.standbys {
            let name = format!("s{index}");
            let dir = workdir.path().join(&name);
            owner.create_dir(&dir)?;
            let place = self.namespaces.iter().find(|(server, _, _)| *server == index);
            servers.push(Server {
                inner: Arc::new(Inner {
                    name,
                    binaries: binaries.clone(),
                    owner: owner.clone(),
                    dir,
                    address: place.map_or("127.0.0.1", |(_, _, address)| address).to_owned(),
                    namespace: place.map(|(_, name, _)| name.clone()),
                    lease: PortLease::take()?,
                    suffix: suffix.clone(),
                    child: std::sync::Mutex::new(None),
                    workdir: workdir.clone(),
                }),
            });
        }
        let cluster = Cluster { servers, tls, primary: AtomicUsize::new(0) };
        self.fill(&cluster, &binaries, &owner)?;
        for server in &cluster.servers {
            server.launch()?;
        }
        for server in &cluster.servers {
            server.wait_until_ready()?;
        }
        cluster.wait_for_standbys()?;
        Ok(cluster)
    }

    /// Puts the data directories in place. A standby is a copy of the primary before its first
    /// start: the same system identifier and timeline, and nothing to catch up with.
    fn fill(&self, cluster: &Cluster, binaries: &Binaries, owner: &Owner) -> Result<()> {
        let primary = &cluster.servers[0];
        let first = primary.data_dir();
        template::put(binaries, owner, &first, self.fresh_identity)?;
        let conf = first.join("postgresql.conf");
        let initial = std::fs::read_to_string(&conf)
            .map_err(Error::io(format!("reading {}", conf.display())))?;
        owner.write_file(&conf, &(initial + &self.settings_text(cluster.tls.as_ref())), 0o600)?;
        owner.write_file(&first.join("pg_hba.conf"), &self.hba_text(), 0o600)?;
        for standby in &cluster.servers[1..] {
            let data = standby.data_dir();
            template::copy(owner, &first, &data)?;
            standby.make_standby_of(primary)?;
        }
        let names: Vec<_> = cluster.servers[1..].iter().map(Server::name).collect();
        if self.replication != Replication::Async && !names.is_empty() {
            let line = format!("synchronous_standby_names = 'ANY 1 ({})'\n", names.join(", "));
            owner.write_file(&first.join("postgresql.auto.conf"), &line, 0o600)?;
        }
        Ok(())
    }

    fn settings_text(&self, tls: Option<&TlsFiles>) -> String {
        let commit = match self.replication {
            Replication::RemoteApply => "remote_apply",
            _ => "on",
        };
        let mut settings: Vec<(String, String)> = [
            ("max_connections", "200"),
            ("shared_buffers", "32MB"),
            ("synchronous_commit", commit),
            ("max_wal_size", "1GB"),
            ("wal_keep_size", "256MB"),
            ("checkpoint_timeout", "30min"),
            // pg_rewind needs it.
            ("wal_log_hints", "on"),
            // How long a standby rests between attempts to reach its primary.
            ("wal_retrieve_retry_interval", "100ms"),
            ("wal_receiver_status_interval", "1s"),
            // In the data directory, so that a killed server leaves nothing in /dev/shm.
            ("dynamic_shared_memory_type", "mmap"),
            ("log_line_prefix", "%m [%p] %q%a "),
            ("log_timezone", "UTC"),
            ("timezone", "UTC"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        if let Some(tls) = tls {
            for (key, path) in [
                ("ssl_cert_file", &tls.server_cert),
                ("ssl_key_file", &tls.server_key),
                ("ssl_ca_file", &tls.ca),
            ] {
                settings.push((key.to_owned(), path.display().to_string()));
            }
            settings.push(("ssl".to_owned(), "on".to_owned()));
        }
        settings.extend(self.settings.iter().cloned());
        settings
            .iter()
            .map(|(key, value)| format!("{key} = '{}'\n", value.replace('\'', "''")))
            .collect()
    }

    fn hba_text(&self) -> String {
        let (local, remote) = match self.auth {
            Auth::Trust => ("trust", "trust"),
            Auth::Scram => ("scram-sha-256", "scram-sha-256"),
            Auth::Cleartext => ("password", "password"),
            Auth::Certificate => ("trust", "cert"),
        };
        let host = if self.uses_tls() { "hostssl" } else { "host" };
        let mut lines =
            vec!["local all postgres trust".to_owned(), "local replication all trust".to_owned()];
        lines.extend(self.hba.iter().cloned());
        lines.extend([
            "host replication repl all trust".to_owned(),
            "host all postgres all reject".to_owned(),
            "host all repl all reject".to_owned(),
            format!("local all all {local}"),
            format!("{host} all all all {remote}"),
        ]);
        lines.join("\n") + "\n"
    }

    fn suffix(&self, tls: Option<&TlsFiles>) -> Vec<(String, String)> {
        let mut suffix = Vec::new();
        let mut add = |key: &str, value: String| suffix.push((key.to_owned(), value));
        if matches!(self.auth, Auth::Scram | Auth::Cleartext) {
            add("password", APP_PASSWORD.to_owned());
        }
        match tls {
            Some(tls) => {
                add("sslmode", "verify-full".to_owned());
                add("sslrootcert", tls.ca.display().to_string());
                if self.auth == Auth::Certificate {
                    add("sslcert", tls.client_cert.display().to_string());
                    add("sslkey", tls.client_key.display().to_string());
                }
            }
            None => add("sslmode", "disable".to_owned()),
        }
        suffix
    }

    fn uses_tls(&self) -> bool {
        self.tls || self.auth == Auth::Certificate
    }
}

/// A running cluster. Its servers and their directory go away with the last handle on them.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Server>,
    tls: Option<TlsFiles>,
    primary: AtomicUsize,
}

impl Cluster {
    /// One primary, one standby, synchronous replication, trust, no TLS; change what you need.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            standbys: 1,
            replication: Replication::default(),
            auth: Auth::default(),
            tls: false,
            tls_names: Vec::new(),
            fresh_identity: false,
            settings: Vec::new(),
            hba: Vec::new(),
            namespaces: Vec::new(),
        }
    }

    /// All servers; number 0 is the first primary.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server of that number.
    ///
    /// # Panics
    /// As indexing a slice does; the number is the caller's own.
    #[must_use]
    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// The primary: the first one, or whom [`Cluster::promote`] has made it since.
    #[must_use]
    pub fn primary(&self) -> &Server {
        &self.servers[self.primary.load(Ordering::Relaxed)]
    }

    /// The first server that is not the primary, running or not.
    ///
    /// # Errors
    /// When there is no other server.
    pub fn standby(&self) -> Result<&Server> {
        let primary = self.primary.load(Ordering::Relaxed);
        let mut others = self.servers.iter().enumerate().filter(|(index, _)| *index != primary);
        others
            .next()
            .map(|(_, server)| server)
            .ok_or_else(|| Error::State("the cluster has no standby".to_owned()))
    }

    /// The certificates, where the cluster has TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsFiles> {
        self.tls.as_ref()
    }

    /// The cluster's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.servers[0].inner.workdir.path()
    }

    /// A keyword string that names all servers, over TCP, for the application's role.
    #[must_use]
    pub fn conninfo(&self) -> String {
        conninfo(&self.servers, |server| server.address().to_owned())
    }

    /// The same over Unix sockets.
    #[must_use]
    pub fn conninfo_unix(&self) -> String {
        conninfo(&self.servers, |server| server.socket_dir().display().to_string())
    }

    /// The same by way of other ports on 127.0.0.1, such as those of proxies.
    #[must_use]
    pub fn conninfo_via(&self, ports: &[u16]) -> String {
        let hosts = vec!["127.0.0.1"; ports.len()].join(",");
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let mut text = format!("host={hosts} port={ports} user={USER} dbname={DATABASE}");
        for (key, value) in &self.servers[0].inner.suffix {
            text.push_str(&format!(" {key}={value}"));
        }
        text
    }

    /// Promotes a standby (see [`Server::promote_repeatedly`]) and takes it for the primary.
    ///
    /// # Errors
    /// Those of [`Server::promote_repeatedly`], and when there is no such server.
    pub fn promote(&self, index: usize, timeout: Duration) -> Result<Duration> {
        let took = self.at(index)?.promote_repeatedly(timeout)?;
        self.primary.store(index, Ordering::Relaxed);
        Ok(took)
    }

    /// Waits until every other running server streams from the primary.
    ///
    /// # Errors
    /// When one of them does not within 30 s.
    pub fn wait_for_standbys(&self) -> Result<()> {
        let primary = self.primary();
        for standby in self.servers.iter().filter(|server| server.name() != primary.name()) {
            if standby.is_running() {
                standby.wait_until_attached_to(primary, ATTACH_TIMEOUT)?;
            }
        }
        Ok(())
    }

    pub(crate) fn at(&self, index: usize) -> Result<&Server> {
        self.servers
            .get(index)
            .ok_or_else(|| Error::State(format!("the cluster has no server {index}")))
    }
}
