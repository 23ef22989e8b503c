//! While nobody is promoted: choosing at first, deadlines, restarts, what is refused.

use std::time::{Duration, Instant};

use segue::ErrorKind;
use segue::cluster::{ClusterEvent, Health, Role, Verdict, Want};
use segue_testkit::{Auth, Cluster, Replication};

use super::setup::{Client, PATIENCE, ask, assert_writes};

#[test]
fn finds_the_primary_whichever_the_order() {
    let servers = Cluster::builder().start().unwrap();
    let (first, second) = (servers.server(0).port(), servers.server(1).port());
    for (ports, primary) in [([first, second], 0), ([second, first], 1)] {
        let client = Client::open(&servers.conninfo_via(&ports));
        let mut session = client.session(None);
        assert_eq!(session.server, primary);
        assert!(!session.facts.backend_start.is_empty());
        assert_writes(&mut session);
        client.wait("the roles are known", |status| {
            status.servers[primary].role == Role::Primary
                && status.servers[1 - primary].role == Role::Standby
                && status.servers[1 - primary].lag_bytes.is_some()
        });
        assert_eq!(client.status().chosen, Some(primary));
        assert_eq!(client.status().standby, Some(1 - primary));
    }
}

#[test]
fn a_deadline_tells_what_is_known_of_every_server() {
    let servers = Cluster::builder().start().unwrap();
    let client = Client::open(&servers.conninfo());
    drop(client.session(None));
    servers.server(0).stop_fast().unwrap();
    client.wait("the primary is lost", |s| s.servers[0].health == Health::Lost);
    let began = Instant::now();
    let error =
        client.try_session(&client.want(Some(0), Duration::from_millis(300))).err().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(2), "late: {:?}", began.elapsed());
    assert_eq!(error.kind(), ErrorKind::FailoverTimeout);
    let text = error.to_string();
    for part in ["lost: ", "refused", "standby, not promoted", "failover_timeout_ms"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn survives_a_restart_of_the_same_server_and_the_death_of_both() {
    let servers = Cluster::builder().replication(Replication::Async).start().unwrap();
    let client = Client::open(&servers.conninfo());
    let session = client.session(None);
    servers.server(0).restart().unwrap();
    drop(session);
    let mut session = client.session(Some(0));
    assert_eq!((session.server, session.facts.timeline), (0, 1));
    assert_writes(&mut session);

    servers.server(0).kill_all().unwrap();
    servers.server(1).kill_all().unwrap();
    client.wait("both are lost", |s| s.servers.iter().all(|s| s.health == Health::Lost));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.session(Some(0)));
        client.wait("the session waits", |s| s.waiting == 1);
        servers.server(1).start().unwrap();
        servers.server(0).start().unwrap();
        let mut session = waiting.join().unwrap();
        assert_eq!(session.server, 0);
        assert_writes(&mut session);
    });
}

#[test]
fn a_crash_of_one_backend_brings_the_same_server_back() {
    let servers = Cluster::builder().start().unwrap();
    let client = Client::open(&servers.conninfo());
    let mut session = client.session(None);
    let pid = ask(&mut session.link, "SELECT 'pid=' || pg_backend_pid()").unwrap();
    let pid = pid.split("pid=").nth(1).unwrap();
    let pid: String = pid.chars().take_while(char::is_ascii_digit).collect();
    servers.server(0).kill_backend(pid.parse().unwrap()).unwrap();
    let mut session = client.session(Some(0));
    assert_eq!((session.server, session.facts.timeline), (0, 1));
    assert_writes(&mut session);
}

#[test]
fn silence_without_a_promotion_moves_nobody() {
    let servers = Cluster::builder().start().unwrap();
    let options = "poll_interval_ms=50 poll_timeout_ms=150";
    let client = Client::open(&format!("{} {options}", servers.conninfo()));
    let mut session = client.session(None);
    servers.server(0).pause().unwrap();
    client.wait_for_event("the primary is suspect", |e| {
        matches!(e, ClusterEvent::Suspect { server: 0, .. })
    });
    assert_eq!(client.status().chosen, Some(0), "suspicion alone moved the choice");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&mut session.link, "SELECT 'still here'"));
        // Some more polls are missed meanwhile.
        let missed = Instant::now() + Duration::from_millis(500);
        client.wait("time has passed", |_| Instant::now() >= missed);
        servers.server(0).resume().unwrap();
        assert!(asking.join().unwrap().unwrap().contains("still here"));
    });
    client.wait("the suspect is healthy again", |s| s.servers[0].health == Health::Healthy);
    assert_eq!(client.status().chosen, Some(0));
    assert!(!client.saw(|e| matches!(e, ClusterEvent::Lost { .. })), "{:?}", client.events());
    assert!(!client.saw(|e| matches!(e, ClusterEvent::NoServer { .. })));
}

#[test]
fn a_primary_that_is_made_read_only_is_not_given_to_writers() {
    let servers = Cluster::builder().standbys(0).start().unwrap();
    let client = Client::open(&servers.conninfo());
    drop(client.session(None));
    servers.server(0).set_config("default_transaction_read_only", "on").unwrap();
    client.wait("nobody is chosen", |s| s.chosen.is_none());
    assert_eq!(client.server(0).role, Role::ReadOnlyPrimary);
    assert_eq!(client.server(0).health, Health::Healthy);
    let error = client.try_session(&client.want(None, Duration::from_millis(100))).err().unwrap();
    assert!(error.to_string().contains("primary, read only"), "{error}");
    let reader = Want { writes: false, ..client.want(None, PATIENCE) };
    assert!(client.try_session(&reader).unwrap().facts.read_only);
    // The setting cannot be taken back by a session that is read only by it.
    servers.server(0).reset_config("default_transaction_read_only").unwrap();
    assert_writes(&mut client.session(None));
}

#[test]
fn another_cluster_is_refused() {
    let ours = Cluster::builder().start().unwrap();
    let theirs = Cluster::builder().standbys(0).fresh_identity().start().unwrap();
    let ports = [theirs.server(0).port(), ours.server(0).port(), ours.server(1).port()];
    let client = Client::open(&ours.conninfo_via(&ports));
    assert_eq!(client.session(None).server, 1);
    client.wait("the stranger is known", |s| s.servers[0].verdict == Verdict::OtherCluster);
    ours.server(0).kill_all().unwrap();
    client.wait("ours is lost", |s| s.servers[1].health == Health::Lost);
    let error =
        client.try_session(&client.want(Some(1), Duration::from_millis(300))).err().unwrap();
    assert!(error.to_string().contains("of another cluster, refused"), "{error}");
}

#[test]
fn a_wrong_password_is_told_at_once() {
    let servers = Cluster::builder().auth(Auth::Scram).start().unwrap();
    let ports = [servers.server(0).port(), servers.server(1).port()];
    let conninfo = servers.conninfo_via(&ports);
    let right: Vec<&str> =
        conninfo.split(' ').filter(|part| !part.starts_with("password")).collect();
    let client = Client::open(&format!("{} password=wrong", right.join(" ")));
    let began = Instant::now();
    let error = client.try_session(&client.want(None, PATIENCE)).err().unwrap();
    assert_eq!(error.server_error().map(|e| e.code.as_str()), Some("28P01"), "{error:?}");
    assert!(began.elapsed() < PATIENCE / 2);
}

#[test]
fn closing_ends_every_wait_and_runs_nothing_afterwards() {
    let servers = Cluster::builder().standbys(0).start().unwrap();
    let client = Client::open(&servers.conninfo());
    let mut session = client.session(None);
    servers.server(0).set_config("default_transaction_read_only", "on").unwrap();
    client.wait("nobody is chosen", |s| s.chosen.is_none());
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| client.cluster.acquire(&client.want(None, PATIENCE), &mut || false));
        client.wait("the session waits", |s| s.waiting == 1);
        let began = Instant::now();
        client.cluster.close();
        let error = waiting.join().unwrap().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(began.elapsed() < Duration::from_secs(2));
    });
    let error = client.cluster.acquire(&client.want(None, PATIENCE), &mut || false).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(ask(&mut session.link, "SELECT 'alive'").unwrap().contains("alive"));
}

#[test]
fn an_errand_runs_on_the_primary_and_passes_on_its_error() {
    let servers = Cluster::builder().start().unwrap();
    let ports = [servers.server(1).port(), servers.server(0).port()];
    let client = Client::open(&servers.conninfo_via(&ports));
    let run = |sql: &str| client.cluster.run_on_primary(sql.to_owned(), PATIENCE);
    run("CREATE TABLE errand (n int); INSERT INTO errand VALUES (42)").unwrap();
    let found = servers.server(0).value("SELECT n FROM errand").unwrap();
    assert_eq!(found, "42");
    let error = run("SELECT 1/0").err().unwrap();
    assert_eq!(error.sqlstate(), "22012");
}

#[test]
fn a_reader_goes_to_standbys_and_never_to_the_primary() {
    let servers = Cluster::builder().standbys(2).replication(Replication::Async).start().unwrap();
    let client = Client::open(&format!("{} target_session_attrs=read-only", servers.conninfo()));
    let reads = |lost, patience| Want { writes: false, ..client.want(lost, patience) };
    let first = client.try_session(&reads(None, PATIENCE)).unwrap();
    assert!(first.facts.in_recovery);
    let other = 3 - first.server;
    client.wait("the other standby is warm", |s| s.servers[other].warm_links == 1);
    servers.server(first.server).kill_all().unwrap();
    let second = client.try_session(&reads(Some(first.server), PATIENCE)).unwrap();
    assert_eq!(second.server, other);
    servers.server(other).kill_all().unwrap();
    client.wait("both are lost", |s| s.chosen.is_none());
    let error = client.try_session(&reads(None, Duration::from_millis(200))).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::FailoverTimeout);
    // As in libpq, one that is made read only will do.
    servers.server(0).set_config("default_transaction_read_only", "on").unwrap();
    assert_eq!(client.try_session(&reads(None, PATIENCE)).unwrap().server, 0);
}
