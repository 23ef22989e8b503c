//! Warm links: there before they are needed, used when they are, and dialled no second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use segue::cluster::{ClusterEvent, Facts, Preparations};
use segue_testkit::{Auth, Cluster};

use super::setup::{Client, PATIENCE, ask};

/// So many statements, of which number 1 cannot be prepared.
struct Statements(AtomicU32);

impl Preparations for Statements {
    fn prepare(&self, _: &Facts, already: &[u32], out: &mut BytesMut) -> Vec<u32> {
        let wanted = 0..self.0.load(Ordering::SeqCst);
        let new: Vec<u32> = wanted.filter(|number| !already.contains(number)).collect();
        for number in &new {
            let sql = match number {
                1 => "SELECT nothing FROM nowhere".to_owned(),
                _ => format!("SELECT 'statement {number}'"),
            };
            frontend::parse(&format!("s{number}"), &sql, [], out).unwrap();
        }
        new
    }
}

#[test]
fn warm_links_are_used_at_a_failover_and_none_is_dialled() {
    const SESSIONS: usize = 8;
    let servers = Cluster::builder().tls(true).auth(Auth::Scram).start().unwrap();
    let statements = Arc::new(Statements(AtomicU32::new(3)));
    let client = Client::open_with(&servers.conninfo(), statements.clone());
    let sessions: Vec<_> = (0..SESSIONS).map(|_| client.session(None)).collect();
    client.wait("the standby is warm", |s| s.servers[1].warm_links == SESSIONS);
    client.wait("there are spares", |s| s.servers[0].warm_links == 2);
    client.wait_for_event("it is told", |e| {
        matches!(e, ClusterEvent::Warm { server: 1, links: SESSIONS, .. })
    });
    statements.0.store(4, Ordering::SeqCst);
    client.cluster.statements_changed();
    let prepared = "SELECT count(*) = 8 FROM pg_stat_activity \
                    WHERE query LIKE '%statement 3%' AND pid <> pg_backend_pid()";
    servers.server(1).wait_until(prepared, PATIENCE).unwrap();

    let dialled = client.server(1).links_dialled;
    servers.server(0).kill_all().unwrap();
    drop(sessions);
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..SESSIONS).map(|_| scope.spawn(|| client.session(Some(0)))).collect();
        client.wait("they all wait", |s| s.waiting == SESSIONS);
        servers.promote(1, PATIENCE).unwrap();
        for session in waiting {
            let mut session = session.join().unwrap();
            assert_eq!((session.server, session.facts.timeline), (1, 2));
            assert!(!session.facts.in_recovery && !session.facts.backend_start.is_empty());
            session.prepared.sort_unstable();
            assert_eq!(session.prepared, [0, 2, 3], "number 1 cannot be prepared");
            let reply = ask(&mut session.link, "EXECUTE s2").unwrap();
            assert!(reply.contains("statement 2"), "{reply}");
            let own = "SELECT 'own=' || extract(epoch FROM backend_start)::text FROM pg_stat_activity \
                       WHERE pid = pg_backend_pid()";
            let reply = ask(&mut session.link, own).unwrap();
            assert!(reply.contains(&session.facts.backend_start), "{reply}");
        }
    });
    assert_eq!(client.server(1).warm_links_used, SESSIONS as u64);
    // The new primary's two spare links may have been made since.
    assert!(client.server(1).links_dialled <= dialled + 2, "links were dialled at the failover");
}

#[test]
fn a_dead_warm_link_is_noticed_and_replaced() {
    let servers = Cluster::builder().start().unwrap();
    let client = Client::open(&servers.conninfo());
    let sessions: Vec<_> = (0..3).map(|_| client.session(None)).collect();
    client.wait("the standby is warm", |s| s.servers[1].warm_links == 3);
    let dialled = client.server(1).links_dialled;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    servers.server(1).execute(end).unwrap();
    // Three warm links and the monitor's own.
    client.wait("they are replaced", |s| {
        s.servers[1].warm_links == 3 && s.servers[1].links_dialled >= dialled + 4
    });
    for session in &sessions {
        client.cluster.deregister(session.id);
    }
    client.wait("nobody is registered", |s| s.sessions == 0);
}

#[test]
fn many_sessions_at_once_each_get_a_link() {
    let servers = Cluster::builder().start().unwrap();
    let client = Client::open(&format!("{} recovery_concurrency=4", servers.conninfo()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..40).map(|_| scope.spawn(|| client.session(None))).collect();
        for session in all {
            let mut session = session.join().unwrap();
            assert_eq!(session.server, 0);
            assert!(ask(&mut session.link, "SELECT 'mine'").unwrap().contains("mine"));
        }
    });
    assert!(began.elapsed() < PATIENCE);
}
