//! The kit's own clusters: started, replicated, killed, promoted, paused, rejoined.

use std::time::Duration;

use segue_testkit::{Auth, Cluster, Replication};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_synchronous_pair_loses_its_primary_and_goes_on() {
    let cluster = Cluster::builder().start().unwrap();
    let (old, new) = (cluster.server(0), cluster.server(1));
    assert!(!old.is_in_recovery().unwrap());
    assert!(new.is_in_recovery().unwrap());
    let state = "SELECT sync_state FROM pg_stat_replication";
    assert_eq!(old.value(state).unwrap(), "quorum");
    old.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();

    old.kill_postmaster().unwrap();
    assert!(!old.is_running());
    let took = cluster.promote(1, LONG).unwrap();
    assert!(took < LONG);
    assert_eq!(cluster.primary().name(), "s1");
    // It must not wait for a standby that is gone.
    new.execute("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(new.value("SELECT sum(n) FROM t").unwrap(), "3");
    assert_eq!(new.timeline().unwrap(), 2);

    // The old primary comes back as it was: writable, on its own timeline.
    cluster.start_as_is(0).unwrap();
    assert_eq!(old.timeline().unwrap(), 1);
    assert!(!old.is_in_recovery().unwrap());
    old.reset_config("synchronous_standby_names").unwrap();
    old.execute("INSERT INTO t VALUES (40)").unwrap();

    // And then as a standby, without what it wrote in the meantime.
    cluster.rejoin(0).unwrap();
    assert!(old.is_in_recovery().unwrap());
    new.execute("INSERT INTO t VALUES (3)").unwrap();
    old.wait_until("SELECT sum(n) = 6 FROM t", LONG).unwrap();
    assert_eq!(old.timeline().unwrap(), 2);
}

#[test]
fn a_third_server_takes_over_from_the_second() {
    let cluster =
        Cluster::builder().standbys(2).replication(Replication::RemoteApply).start().unwrap();
    cluster.primary().execute("CREATE TABLE t (n int)").unwrap();
    cluster.server(0).kill_all().unwrap();
    cluster.promote(1, LONG).unwrap();
    cluster.follow(2).unwrap();
    cluster.server(1).execute("INSERT INTO t VALUES (1)").unwrap();
    cluster.server(2).wait_until("SELECT count(*) = 1 FROM t", LONG).unwrap();
    cluster.server(1).stop_immediate().unwrap();
    cluster.promote(2, LONG).unwrap();
    cluster.server(2).execute("INSERT INTO t VALUES (2)").unwrap();
    assert_eq!(cluster.server(2).timeline().unwrap(), 3);
}

/// A standby that had received what the promoted one had not was told to follow that, and never could.
#[test]
fn a_standby_that_has_more_than_the_new_primary_rejoins() {
    let cluster = Cluster::builder().standbys(2).replication(Replication::Async).start().unwrap();
    let (old, behind, ahead) = (cluster.server(0), cluster.server(1), cluster.server(2));
    old.execute("CREATE TABLE t (n int)").unwrap();
    behind.wait_until("SELECT to_regclass('t') IS NOT NULL", LONG).unwrap();
    behind.set_config("primary_conninfo", "").unwrap();
    old.wait_until("SELECT count(*) = 1 FROM pg_stat_replication", LONG).unwrap();
    old.execute("INSERT INTO t VALUES (1)").unwrap();
    ahead.wait_until("SELECT count(*) = 1 FROM t", LONG).unwrap();
    old.kill_all().unwrap();
    cluster.promote(1, LONG).unwrap();
    cluster.follow(2).unwrap();
    behind.execute("INSERT INTO t VALUES (2), (3)").unwrap();
    ahead.wait_until("SELECT count(*) = 2 FROM t", LONG).unwrap();
    assert!(ahead.is_in_recovery().unwrap());
}

#[test]
fn a_paused_server_is_silent_and_goes_on_afterwards() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    let server = cluster.primary();
    server.pause().unwrap();
    let silent = server.wait_until("SELECT true", Duration::from_millis(300)).unwrap_err();
    assert!(silent.to_string().contains("within 300ms"), "{silent}");
    server.resume().unwrap();
    server.wait_until("SELECT true", LONG).unwrap();
}

#[test]
fn a_server_is_stopped_restarted_and_recovers_from_a_kill() {
    let cluster = Cluster::builder().standbys(0).fsync(false).start().unwrap();
    let server = cluster.primary();
    server.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").unwrap();
    let port = server.port();
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    server.kill_postmaster().unwrap();
    assert!(server.stop_fast().unwrap_err().to_string().contains("not running"));
    server.start().unwrap();
    assert!(server.start().unwrap_err().to_string().contains("running already"));
    assert_eq!(server.value("SELECT n FROM t").unwrap(), "1");
    server.stop_smart().unwrap();
    server.wait_until_stopped(LONG).unwrap();
    server.start().unwrap();
    server.set_config("work_mem", "5MB").unwrap();
    assert_eq!(server.value("SHOW work_mem").unwrap(), "5MB");
    let error = server.query("SELECT 1/0").unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
}

#[test]
fn killing_one_backend_makes_the_server_recover() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    let server = cluster.primary();
    let mut client = postgres::Client::connect(&server.conninfo(), postgres::NoTls).unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    assert_eq!(server.backend_pids().unwrap(), [pid as u32]);
    assert!(server.kill_backend(std::process::id()).is_err());
    server.kill_backend(pid as u32).unwrap();
    server.wait_until("SELECT true", LONG).unwrap();
    assert!(client.simple_query("SELECT 1").is_err());
    assert!(server.is_running());
}

#[test]
fn a_server_that_does_not_start_shows_its_log() {
    let error = Cluster::builder().standbys(0).setting("work_mem", "rubbish").start().unwrap_err();
    assert!(error.to_string().contains("invalid value for parameter \"work_mem\""), "{error}");
}

#[test]
fn scram_and_tls_are_asked_for() {
    let cluster = Cluster::builder().standbys(0).auth(Auth::Scram).tls(true).start().unwrap();
    let server = cluster.primary();
    assert!(cluster.tls().unwrap().ca.exists());
    // Checked with psql, since the postgres crate has no TLS here and an oracle should be libpq.
    let psql = |conninfo: &str| {
        let program = segue_testkit::Binaries::find().unwrap().path("psql");
        let mut command = std::process::Command::new(program);
        command.args(["-Atc", "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"]);
        command.arg("-d").arg(conninfo);
        command.output().unwrap()
    };
    let good = psql(&server.conninfo());
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("TLSv1."), "{good:?}");
    assert!(psql(&server.conninfo_unix()).status.success());
    let plain = server.conninfo().replace("verify-full", "disable");
    assert!(String::from_utf8_lossy(&psql(&plain).stderr).contains("no encryption"));
    let wrong = server.conninfo().replace("correct-horse", "wrong");
    assert!(String::from_utf8_lossy(&psql(&wrong).stderr).contains("authentication failed"));

    let cluster = Cluster::builder().standbys(0).auth(Auth::Certificate).start().unwrap();
    let good = psql(&cluster.conninfo());
    assert!(String::from_utf8_lossy(&good.stdout).starts_with("TLSv1."), "{good:?}");
}

#[test]
fn clusters_are_copies_unless_asked_otherwise() {
    let identity = "SELECT system_identifier FROM pg_control_system()";
    let copy = Cluster::builder().standbys(0).start().unwrap();
    let fresh = Cluster::builder().standbys(0).fresh_identity().start().unwrap();
    let (copy, fresh) = (copy.primary(), fresh.primary());
    assert_ne!(copy.value(identity).unwrap(), fresh.value(identity).unwrap());
}

#[test]
fn many_connections_fit() {
    let cluster = Cluster::builder().standbys(1).max_connections(1200).start().unwrap();
    assert_eq!(cluster.server(1).value("SHOW max_connections").unwrap(), "1200");
}

#[test]
fn nothing_is_left_behind() {
    let cluster = Cluster::builder().start().unwrap();
    let (dir, data) = (cluster.dir().to_owned(), cluster.primary().data_dir());
    cluster.primary().pause().unwrap();
    drop(cluster);
    assert!(!dir.exists());
    let standing = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&data))
    });
    assert!(!standing);
}
