//! One PostgreSQL server: where it is and how to reach it.
//!
//! Its life (start, stop, kill, pause) is in `lifecycle`, what it is asked in `control`. A
//! `Server` is a handle; its processes are killed when the last handle is dropped.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::binaries::Binaries;
use crate::cluster::{DATABASE, USER};
use crate::owner::Owner;
use crate::ports::PortLease;
use crate::workdir::{self, Workdir};

/// A handle on one server of a [`crate::Cluster`]; clones are handles on the same server.
#[derive(Debug, Clone)]
pub struct Server {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) binaries: Binaries,
    pub(crate) owner: Owner,
    pub(crate) dir: PathBuf,
    pub(crate) address: String,
    pub(crate) namespace: Option<String>,
    pub(crate) lease: PortLease,
    /// Parameters of every connection string: password, TLS.
    pub(crate) suffix: Vec<(String, String)>,
    pub(crate) child: Mutex<Option<Child>>,
    /// Dropped last: the directory goes away after the processes in it.
    pub(crate) workdir: Arc<Workdir>,
}

impl Server {
    /// Its name, which is the `application_name` of its replication too: `s0`, `s1`, ...
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its TCP port, which stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.inner.lease.port
    }

    /// The address it listens on: 127.0.0.1, or that of its network namespace.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// The directory of its Unix socket: what `host=` takes.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.inner.dir.join("data")
    }

    /// Its log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.inner.dir.join("log")
    }

    /// A keyword string for the application's role over TCP.
    #[must_use]
    pub fn conninfo(&self) -> String {
        conninfo(std::slice::from_ref(self), |server| server.address().to_owned())
    }

    /// A keyword string for the application's role over the Unix socket.
    #[must_use]
    pub fn conninfo_unix(&self) -> String {
        conninfo(std::slice::from_ref(self), |server| server.socket_dir().display().to_string())
    }

    /// A URI for a role and a database of one's choice over TCP, without a password.
    #[must_use]
    pub fn uri(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@{}:{}/{database}", self.address(), self.port())
    }

    /// A keyword string for the superuser, who may come in over the Unix socket only.
    #[must_use]
    pub fn conninfo_superuser(&self) -> String {
        let socket_dir = self.socket_dir().display();
        format!("host={socket_dir} port={} user=postgres dbname={DATABASE}", self.port())
    }

    pub(crate) fn child(&self) -> MutexGuard<'_, Option<Child>> {
        match self.inner.child.lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        workdir::end_processes(&self.dir.join("data"));
        let child = match self.child.get_mut() {
            Ok(child) => child,
            Err(poisoned) => poisoned.into_inner(),
        };
        if let Some(mut child) = child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A keyword string for several servers.
pub(crate) fn conninfo(servers: &[Server], host: impl Fn(&Server) -> String) -> String {
    let hosts: Vec<_> = servers.iter().map(host).collect();
    let ports: Vec<_> = servers.iter().map(|server| server.port().to_string()).collect();
    let mut text =
        format!("host={} port={} user={USER} dbname={DATABASE}", hosts.join(","), ports.join(","));
    for (key, value) in servers.first().map_or(&[][..], |server| &server.inner.suffix) {
        text.push_str(&format!(" {key}={value}"));
    }
    text
}
