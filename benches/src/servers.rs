//! The servers that the benchmarks measure against: real ones with fsync on, and pgbench's tables.
//!
//! Nothing here is timed.

use segue_testkit::{Cluster, ClusterBuilder, DATABASE, Replication, Server, USER};

use crate::Failure;

/// Branches; ten tellers and 100,000 accounts each.
pub const SCALE: u32 = 10;

/// A primary with so many asynchronous standbys, tuned so that neither checkpoints nor a small
/// cache disturb: what is compared is clients.
pub fn builder(standbys: usize) -> ClusterBuilder {
    Cluster::builder()
        .standbys(standbys)
        .replication(Replication::Async)
        .fsync(true)
        .setting("shared_buffers", "256MB")
        .setting("max_wal_size", "4GB")
        .setting("synchronous_commit", "on")
}

/// Creates and fills pgbench's tables, as the application's role, and waits for the standbys.
pub fn load(cluster: &Cluster, scale: u32) -> Result<(), Failure> {
    let primary = cluster.primary();
    primary.execute(&format!(
        "SET ROLE {USER};
         CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88)) WITH (fillfactor = 100);
         CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84)) WITH (fillfactor = 100);
         CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 100);
         CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
         INSERT INTO pgbench_branches SELECT n, 0, '' FROM generate_series(1, {scale}) n;
         INSERT INTO pgbench_tellers SELECT n, (n - 1) / 10 + 1, 0, '' FROM generate_series(1, {scale} * 10) n;
         INSERT INTO pgbench_accounts SELECT n, (n - 1) / 100000 + 1, 0, '' FROM generate_series(1, {scale} * 100000) n;"
    ))?;
    settle(cluster)
}

/// Creates the tables of the C benchmark: 10,000 rows to read, and a place for those that are inserted.
pub fn load_large(cluster: &Cluster) -> Result<(), Failure> {
    cluster.primary().execute(&format!(
        "SET ROLE {USER};
         CREATE TABLE bench_large (id int, big bigint, ratio float8, name text, made timestamptz, odd bool);
         CREATE TABLE bench_inserts (id int, big bigint, name text);
         INSERT INTO bench_large SELECT n, n * 1000000007::bigint, n / 7.0, 'the name of row ' || n,
             '2026-01-01 00:00:00+00'::timestamptz + n * interval '1.000001 min', n % 2 = 1
             FROM generate_series(1, 10000) n;"
    ))?;
    cluster.primary().execute("VACUUM ANALYZE bench_large")?;
    Ok(())
}

/// Tidies up and writes everything out, so that no leftover work falls into a measurement.
pub fn settle(cluster: &Cluster) -> Result<(), Failure> {
    for table in ["branches", "tellers", "accounts", "history"] {
        cluster.primary().execute(&format!("VACUUM ANALYZE pgbench_{table}"))?;
    }
    cluster.primary().execute("CHECKPOINT")?;
    cluster.wait_for_standbys()?;
    Ok(())
}

/// How clients reach the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Tcp,
    Unix,
}

impl Way {
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Unix];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Unix => "Unix",
        }
    }

    /// For clients that know one server only.
    pub fn conninfo(self, server: &Server) -> String {
        match self {
            Self::Tcp => server.conninfo(),
            Self::Unix => server.conninfo_unix(),
        }
    }

    /// For clients that know them all.
    pub fn conninfo_all(self, cluster: &Cluster) -> String {
        match self {
            Self::Tcp => cluster.conninfo(),
            Self::Unix => cluster.conninfo_unix(),
        }
    }
}

/// The user and the database of a startup message.
pub fn identity() -> (&'static str, &'static str) {
    (USER, DATABASE)
}
