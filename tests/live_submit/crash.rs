//! Submissions that crash the server, and innocent ones that are there when it goes down.

use std::time::Duration;

use segue::{Client, ErrorKind, Outcome, Submission, Ticket};
use segue_testkit::proxy::Proxy;
use segue_testkit::{Cluster, Replication, Server};

use crate::harness::{committed, eventually, ids_on, insert, make_table, refused};

/// More often than a suspect has to crash a server before it is given up.
const TIMES: usize = 4;

fn server() -> Cluster {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    let server = cluster.server(0);
    make_table(server, "t");
    // Its backend is killed as a memory killer would do it.
    server
        .execute(
            "CREATE FUNCTION crash() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
             EXECUTE 'COPY (SELECT 1) TO PROGRAM ''kill -9 $PPID'''; END $$",
        )
        .unwrap();
    wait_function(server);
    cluster
}

/// What calls it is under way until there is a row in `go`.
fn wait_function(server: &Server) {
    server
        .execute(
            "CREATE TABLE go (); GRANT ALL ON go TO PUBLIC; \
             CREATE FUNCTION wait_for_go() RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
             WHILE NOT EXISTS (SELECT FROM go) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$",
        )
        .unwrap();
}

fn crashes(server: &Server) -> usize {
    let log = server.log_tail(100_000);
    log.lines().filter(|line| line.contains("was terminated by signal 9")).count()
}

fn calls(table: &str, id: i64, function: &str) -> Submission {
    insert(table, id).statement(&format!("SELECT {function}()"), &[]).unwrap()
}

/// Its last backend that is in the midst of it.
fn backend(server: &Server) -> Option<u32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE state = 'active' \
               AND query LIKE 'SELECT wait_for_go%'";
    let rows = server.query(sql).ok()?;
    rows.first()?[0].as_deref()?.parse().ok()
}

fn under_way(server: &Server) -> u32 {
    let mut pid = None;
    eventually("it is under way", || {
        pid = backend(server);
        pid.is_some()
    });
    pid.unwrap()
}

#[test]
fn what_crashes_the_server_is_given_up_and_its_lane_goes_on() {
    let cluster = server();
    let server = cluster.server(0);
    let dir = tempfile::tempdir().unwrap();
    let conninfo = format!(
        "{} submit_sessions=1 journal=file journal_dir={}",
        cluster.conninfo(),
        dir.path().join("j").display()
    );
    let client = Client::connect(&conninfo).unwrap();
    let lane = |id: i64| insert("t", id).lane("a");
    let mut tickets: Vec<Ticket> = (0..20).map(|id| client.submit(lane(id)).unwrap()).collect();
    let poison = client.submit(calls("t", 100, "crash").lane("a").key("poison")).unwrap();
    tickets.extend((20..40).map(|id| client.submit(lane(id)).unwrap()));
    tickets.extend((200..220).map(|id| client.submit(insert("t", id)).unwrap()));
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    let error = refused(&poison);
    assert_eq!(error.kind(), ErrorKind::ServerCrash, "{error}");
    assert_eq!((error.sqlstate(), error.outcome()), ("57P02", Outcome::NotCommitted));
    assert!(error.to_string().contains("nothing of it is committed"), "{error}");
    let there = ids_on(server, "t");
    let of_lane: Vec<i64> = there.iter().copied().filter(|id| *id < 200).collect();
    assert_eq!(of_lane, (0..40).collect::<Vec<_>>(), "in order, without the poison");
    assert_eq!(there.len(), 60);
    // Once with the others, three times alone.
    assert_eq!(crashes(server), 4);
    // The letter outlives the client, as what it is.
    drop(client);
    let client = Client::connect(&conninfo).unwrap();
    let letters = client.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].sqlstate.as_str()), (1, "57P02"));
    let id = letters[0].id;
    let again = refused(&client.ticket(id).unwrap().unwrap());
    assert_eq!((again.kind(), again.to_string()), (ErrorKind::ServerCrash, error.to_string()));
    // Retried in vain, it is alone from the beginning.
    refused(&client.retry_dead_letter(id).unwrap());
    assert_eq!(crashes(server), 7);
    server
        .execute("CREATE OR REPLACE FUNCTION crash() RETURNS void LANGUAGE sql AS 'SELECT'")
        .unwrap();
    assert_eq!(committed(&client.retry_dead_letter(id).unwrap()).rows, [1, 1]);
    assert!(client.dead_letters().unwrap().is_empty());
    assert_eq!(ids_on(server, "t").iter().filter(|id| **id == 100).count(), 1);
}

/// What travels alone anyway; what has committed before it crashes is not given up, for it is done.
#[test]
fn what_crashes_the_server_at_its_end_is_judged_by_the_ledger() {
    let cluster = server();
    let server = cluster.server(0);
    // A deferred trigger: the crash comes with the commit.
    server
        .execute(
            "CREATE TABLE d (id int8); GRANT ALL ON d TO PUBLIC; \
             CREATE FUNCTION crash_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM crash(); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON d DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION crash_late()",
        )
        .unwrap();
    let client = Client::connect(&format!("{} submit_sessions=1", cluster.conninfo())).unwrap();
    let late = Submission::new().statement("INSERT INTO d VALUES (1)", &[]).unwrap();
    let late = client.submit(late.expect_rows(1..=1).lane("a")).unwrap();
    let next = client.submit(insert("t", 1).lane("a")).unwrap();
    assert_eq!(refused(&late).kind(), ErrorKind::ServerCrash);
    committed(&next);
    assert_eq!(server.value("SELECT count(*) FROM d").unwrap(), "0");
    assert_eq!(ids_on(server, "t"), [1]);
}

/// Ends servers in this way while an innocent submission is under way, alone and suspected, and more
/// often than one that crashes them would be forgiven.
fn nobody_is_accused(cluster: &Cluster, conninfo: &str, end: impl Fn(&Server, u32)) {
    let client = Client::connect(&format!("{conninfo} submit_sessions=1")).unwrap();
    let slow = client.submit(calls("t", 1, "wait_for_go").lane("a")).unwrap();
    let beside = client.submit(calls("t", 2, "wait_for_go").lane("b")).unwrap();
    // From now on both are suspects, and run alone.
    cluster.primary().kill_backend(under_way(cluster.primary())).unwrap();
    is_back(cluster.primary());
    for _ in 0..TIMES {
        let primary = cluster.primary();
        let pid = under_way(primary);
        end(primary, pid);
    }
    let primary = cluster.primary();
    under_way(primary);
    primary.execute("INSERT INTO go DEFAULT VALUES").unwrap();
    assert_eq!(committed(&slow).rows, [1, 1]);
    assert_eq!(committed(&beside).rows, [1, 1]);
    assert!(client.dead_letters().unwrap().is_empty());
    let mut there = ids_on(primary, "t");
    there.sort_unstable();
    assert_eq!(there, [1, 2]);
    let status = client.submissions().unwrap();
    assert!(status.resubmitted > TIMES as u64, "{status:?}");
}

fn is_back(server: &Server) {
    eventually("the server is back", || server.value("SELECT 1").is_ok());
}

#[test]
fn a_server_that_is_restarted_accuses_nobody() {
    let cluster = server();
    let ends = std::cell::Cell::new(0);
    nobody_is_accused(&cluster, &cluster.conninfo(), |server, _| {
        ends.set(ends.get() + 1);
        match ends.get() % 2 {
            0 => server.stop_fast().unwrap(),
            _ => server.stop_immediate().unwrap(),
        }
        server.start().unwrap();
    });
}

#[test]
fn a_server_that_is_killed_accuses_nobody() {
    let cluster = server();
    nobody_is_accused(&cluster, &cluster.conninfo(), |server, _| {
        server.kill_all().unwrap();
        server.start().unwrap();
    });
}

/// The same postmaster begins anew each time, but the backend that crashes is another one.
#[test]
fn a_crash_of_another_backend_accuses_nobody() {
    let cluster = server();
    // Its role hears of no warnings, unless it asks for them.
    cluster.server(0).execute("ALTER ROLE app SET client_min_messages = error").unwrap();
    nobody_is_accused(&cluster, &cluster.conninfo(), |server, _| {
        let before = crashes(server);
        assert!(server.execute("SELECT crash()").is_err());
        eventually("the crash", || crashes(server) > before);
        is_back(server);
    });
}

#[test]
fn a_failover_accuses_nobody() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    make_table(cluster.primary(), "t");
    wait_function(cluster.primary());
    cluster.wait_for_standbys().unwrap();
    nobody_is_accused(&cluster, &cluster.conninfo(), |server, _| {
        let old = usize::from(server.name() != cluster.server(0).name());
        server.kill_all().unwrap();
        cluster.promote(1 - old, Duration::from_secs(30)).unwrap();
        cluster.rejoin(old).unwrap();
        cluster.wait_for_standbys().unwrap();
    });
}

/// Links that break without a word, and backends that are ended by hand.
#[test]
fn a_link_that_breaks_accuses_nobody() {
    let cluster = server();
    let proxy = Proxy::to_server(cluster.server(0)).unwrap();
    let conninfo = cluster.conninfo_via(&[proxy.port()]);
    let ends = std::cell::Cell::new(0);
    nobody_is_accused(&cluster, &conninfo, |server, pid| {
        ends.set(ends.get() + 1);
        match ends.get() % 2 {
            0 => server.execute(&format!("SELECT pg_terminate_backend({pid})")).unwrap(),
            _ => proxy.reset_all(),
        }
        eventually("the backend is gone", || backend(server) != Some(pid));
    });
}
