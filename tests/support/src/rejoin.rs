//! Servers that change sides: a standby of another primary, an old primary that comes back as a
//! standby (pg_rewind, or else a new base backup) or, unasked, as the primary it once was.

use std::fs;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::owner::run;
use crate::server::Server;

const ATTACH_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the present timeline of a primary branches off: in the last line of the timeline's history.
const PROMOTED_AT: &str = "\
    SELECT substring(pg_read_file(format('pg_wal/%s.history', left(file, 8))) \
                     FROM '([0-9A-F]+/[0-9A-F]+)\t[^\n]*\n*$') \
    FROM pg_walfile_name(pg_current_wal_insert_lsn()) AS file";

impl Cluster {
    /// Makes a server, running or not, a standby of the primary: by pg_rewind, or by a new base
    /// backup where that fails. Returns when it streams.
    ///
    /// # Errors
    /// When it is the primary itself, or neither way works.
    pub fn rejoin(&self, index: usize) -> Result<()> {
        let server = self.at(index)?;
        let primary = self.primary();
        if server.name() == primary.name() {
            return Err(Error::State(format!("server {} is the primary itself", server.name())));
        }
        if server.is_running() {
            // One that was paused cannot stop.
            server.resume()?;
            if server.stop_fast().is_err() {
                server.end();
            }
        }
        // pg_rewind reads the timeline from the control file, which a promotion updates only with
        // its first checkpoint.
        primary.execute("CHECKPOINT")?;
        if server.rewind_to(primary).is_err() {
            server.copy_anew_from(primary)?;
        }
        server.make_standby_of(primary)?;
        server.start()?;
        server.wait_until_attached_to(primary, ATTACH_TIMEOUT)
    }

    /// Starts a server as it is: an old primary comes back writable, on its old timeline.
    ///
    /// # Errors
    /// Those of [`Server::start`].
    pub fn start_as_is(&self, index: usize) -> Result<()> {
        self.at(index)?.start()
    }

    /// Lets a running standby follow the primary of now, after another standby was promoted. One that
    /// has received more than the other one had cannot follow, and rejoins: each standby has what was
    /// committed, and which of them has more of what was not is chance.
    ///
    /// # Errors
    /// When it is no running standby, or cannot follow.
    pub fn follow(&self, index: usize) -> Result<()> {
        let server = self.at(index)?;
        let primary = self.primary();
        let promoted_at = primary.value(PROMOTED_AT)?;
        let further = format!("SELECT pg_last_wal_receive_lsn() > '{promoted_at}'");
        if server.value(&further)? == "t" {
            return self.rejoin(index);
        }
        server.set_config("primary_conninfo", &primary.conninfo_for_standby(server.name()))?;
        server.wait_until_attached_to(primary, ATTACH_TIMEOUT)
    }
}

impl Server {
    /// Writes what makes a stopped server a standby of that primary.
    pub(crate) fn make_standby_of(&self, primary: &Self) -> Result<()> {
        let owner = &self.inner.owner;
        let data = self.data_dir();
        let conninfo = primary.conninfo_for_standby(self.name());
        let line = format!("primary_conninfo = '{conninfo}'\n");
        owner.write_file(&data.join("postgresql.auto.conf"), &line, 0o600)?;
        owner.write_file(&data.join("standby.signal"), "", 0o600)
    }

    /// Waits until this standby streams from that primary.
    pub(crate) fn wait_until_attached_to(&self, primary: &Self, timeout: Duration) -> Result<()> {
        let condition = format!(
            "SELECT count(*) = 1 FROM pg_stat_replication \
             WHERE application_name = '{}' AND state = 'streaming'",
            self.name()
        );
        primary.wait_until(&condition, timeout)
    }

    /// Over the network where the primary has one of its own, so that a fault there cuts
    /// replication as well; over the Unix socket otherwise.
    fn conninfo_for_standby(&self, name: &str) -> String {
        let host = match self.inner.namespace {
            Some(_) => self.address().to_owned(),
            None => self.socket_dir().display().to_string(),
        };
        format!("host={host} port={} user=repl application_name={name}", self.port())
    }

    fn rewind_to(&self, primary: &Self) -> Result<()> {
        let inner = &self.inner;
        let source = format!(
            "host={} port={} user=postgres dbname=postgres",
            primary.socket_dir().display(),
            primary.port()
        );
        let mut command = inner.owner.command(&inner.binaries.path("pg_rewind"), None);
        command.arg("--no-sync").arg("--target-pgdata").arg(self.data_dir());
        command.arg("--source-server").arg(source).current_dir(self.data_dir());
        run("pg_rewind", &mut command).map(drop)
    }

    fn copy_anew_from(&self, primary: &Self) -> Result<()> {
        let inner = &self.inner;
        let data = self.data_dir();
        fs::remove_dir_all(&data).map_err(Error::io(format!("removing {}", data.display())))?;
        inner.owner.create_dir(&data)?;
        let mut command = inner.owner.command(&inner.binaries.path("pg_basebackup"), None);
        command.args(["--no-sync", "--checkpoint=fast", "--wal-method=stream", "--no-slot"]);
        command.arg("-D").arg(&data).arg("-d").arg(primary.conninfo_for_standby(self.name()));
        run("pg_basebackup", &mut command).map(drop)
    }
}
