//! The old backend is still at work when its session comes back, or its server is replaced by a
//! standby while a commit is in flight.

use std::time::Duration;

use segue::{Client, Outcome, Session};
use segue_testkit::proxy::{Action, Direction, Flow, Proxy, Side};
use segue_testkit::{Cluster, Replication};

use crate::harness::{LONG, Reported, Stand, after, commits, content, judge};

/// An UPDATE that waits for a lock when its client is cut off: the session comes back, ends the
/// backend it has left behind, and waits for the lock in its stead.
#[test]
fn a_statement_that_waits_for_a_lock() {
    for explicit in [false, true] {
        let stand = Stand::new();
        stand.control_execute("INSERT INTO $T VALUES (1, '0')");
        let update = stand.sql("UPDATE $T SET note = (note::int + 1)::text WHERE id = 1");
        let other = Stand::new();
        let mut blocker = other.session();
        blocker.execute("BEGIN", &[]).unwrap();
        blocker.execute(&stand.sql("SELECT 1 FROM $T FOR UPDATE"), &[]).unwrap();
        let mut session = stand.session();
        let first = session.status().backend_pid.unwrap();
        let of_blocker = blocker.status().backend_pid.unwrap();
        let thread = std::thread::spawn({
            let update = update.clone();
            move || -> segue::Result<Session> {
                if explicit {
                    let mut tx = session.transaction()?;
                    tx.execute(&update, &[])?;
                    tx.commit()?;
                } else {
                    session.execute(&update, &[])?;
                }
                Ok(session)
            }
        });
        let waits = |pid: &str| {
            format!(
                "SELECT count(*) = 1 FROM pg_stat_activity WHERE {of_blocker} = \
                 ANY (pg_blocking_pids(pid)) AND pid {pid}"
            )
        };
        crate::harness::server().wait_until(&waits(&format!("= {first}")), LONG).unwrap();
        stand.cut_client_side();
        crate::harness::server().wait_until(&waits(&format!("<> {first}")), LONG).unwrap();
        let gone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {first}");
        crate::harness::server().wait_until(&gone, LONG).unwrap();
        blocker.execute("COMMIT", &[]).unwrap();
        thread.join().unwrap().unwrap();
        assert_eq!(stand.control("SELECT note FROM $T"), "1", "explicit {explicit}");
    }
}

/// A commit waits for a standby that is gone when its client is cut off. Ended, its backend leaves a
/// commit that is visible on the primary and nowhere else; it must not be reported before it is safe,
/// or the standby's promotion makes it a lost one.
#[test]
fn a_commit_that_waits_for_the_standby() {
    for explicit in [false, true] {
        let cluster =
            Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
        let proxy = Proxy::to_server(cluster.server(0)).unwrap();
        let ports = [proxy.port(), cluster.server(1).port()];
        let client = Client::connect(&cluster.conninfo_via(&ports)).unwrap();
        let mut session = client.session().unwrap();
        session.execute("CREATE TABLE t (id int8)", &[]).unwrap();
        let first = session.status().backend_pid.unwrap();
        cluster.server(1).stop_immediate().unwrap();
        let thread = std::thread::spawn(move || {
            let mut work = || -> segue::Result<()> {
                if explicit {
                    let mut tx = session.transaction()?;
                    tx.execute("INSERT INTO t VALUES (1)", &[])?;
                    tx.commit()
                } else {
                    session.execute("INSERT INTO t VALUES (1)", &[]).map(drop)
                }
            };
            let result = work();
            (result, session)
        });
        let waits = |pid: &str| {
            format!(
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid {pid}"
            )
        };
        let primary = cluster.server(0);
        primary.wait_until(&waits(&format!("= {first}")), LONG).unwrap();
        proxy.connections().iter().for_each(|connection| connection.reset(Side::Client));
        // The session is back and waits again, or has reported already, which is too early.
        let again = waits(&format!("<> {first}"));
        let deadline = std::time::Instant::now() + LONG;
        while !thread.is_finished() && std::time::Instant::now() < deadline {
            if primary.wait_until(&again, Duration::from_millis(100)).is_ok() {
                break;
            }
        }
        assert!(!thread.is_finished(), "explicit {explicit}: reported before any standby has it");
        primary.kill_all().unwrap();
        cluster.server(1).start().unwrap();
        cluster.promote(1, LONG).unwrap();
        let (result, _session) = thread.join().unwrap();
        judge("after the promotion", &content(cluster.server(1), "t"), &[(vec![1], result)]);
    }
}

/// The old server falls silent with the commit in flight, and the standby is promoted.
#[test]
fn a_black_hole_and_a_promotion() {
    for arrives in [false, true] {
        let cluster =
            Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
        let mut sessions = Vec::new();
        let mut triggers = Vec::new();
        let mut proxies = Vec::new();
        for kind in 0..3 {
            let proxy = Proxy::to_server(cluster.server(0)).unwrap();
            let ports = [proxy.port(), cluster.server(1).port()];
            let conninfo = format!(
                "{} poll_interval_ms=100 poll_timeout_ms=300",
                cluster.conninfo_via(&ports)
            );
            let client = Client::connect(&conninfo).unwrap();
            let mut session = client.session().unwrap();
            if kind == 0 {
                session.execute("CREATE TABLE t (id int8)", &[]).unwrap();
            }
            let action = if arrives { Action::SwallowReply } else { Action::Drop };
            triggers.push(proxy.on_client_message(commits, action));
            sessions.push(session);
            proxies.push(proxy);
        }
        let threads: Vec<_> = sessions
            .into_iter()
            .enumerate()
            .map(|(kind, mut session)| {
                std::thread::spawn(move || -> Vec<Reported> {
                    let insert = "INSERT INTO t VALUES ($1)";
                    match kind {
                        0 => {
                            let result = session.execute(insert, &[&0i64]).map(drop);
                            vec![(vec![0], result)]
                        }
                        1 => {
                            let mut tx = session.transaction().unwrap();
                            tx.execute(insert, &[&1i64]).unwrap();
                            tx.execute(insert, &[&2i64]).unwrap();
                            vec![(vec![1, 2], tx.commit())]
                        }
                        _ => {
                            let mut pipeline = session.pipeline();
                            (10..20i64).for_each(|id| pipeline.add(insert, &[&id]).unwrap());
                            let results = pipeline.finish().unwrap();
                            (10..20i64)
                                .zip(results)
                                .map(|(id, result)| (vec![id], result.map(drop)))
                                .collect()
                        }
                    }
                })
            })
            .collect();
        for trigger in triggers {
            trigger.wait(LONG).unwrap();
        }
        proxies.iter().for_each(|proxy| proxy.set_flow_both(Flow::Drop));
        cluster.promote(1, LONG).unwrap();
        let reported: Vec<Reported> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        for (ids, result) in &reported {
            let fine = result.as_ref().err().is_none_or(|e| e.outcome() == Outcome::Committed);
            assert!(fine, "{ids:?} {result:?}");
        }
        judge(&format!("arrives {arrives}"), &content(cluster.server(1), "t"), &reported);
    }
}

/// The server is frozen with the commit in flight and goes on: nobody has moved, the reply comes.
#[test]
fn a_frozen_server_that_goes_on() {
    let cluster = Cluster::builder().standbys(0).replication(Replication::Async).start().unwrap();
    let proxy = Proxy::to_server(cluster.server(0)).unwrap();
    let conninfo = format!(
        "{} poll_interval_ms=50 poll_timeout_ms=100",
        cluster.conninfo_via(&[proxy.port()])
    );
    let client = Client::connect(&conninfo).unwrap();
    let mut session = client.session().unwrap();
    session.execute("CREATE TABLE t (id int8)", &[]).unwrap();
    let pid = session.status().backend_pid;
    let trigger = proxy.on_client_message(commits, Action::HoldReply);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let connection = trigger.wait(LONG).unwrap();
            cluster.server(0).pause().unwrap();
            std::thread::sleep(Duration::from_millis(600));
            cluster.server(0).resume().unwrap();
            connection.release();
        });
        session.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    });
    assert_eq!(session.status().backend_pid, pid);
    assert_eq!(content(cluster.server(0), "t").get(&1), Some(&1));
}

/// The reply is slow, and late; nothing else is wrong.
#[test]
fn a_late_reply() {
    let stand = Stand::new();
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    session.execute(&insert, &[&0i64]).unwrap();
    let cutter = after(stand.at_commit(Action::HoldReply), |connection| {
        std::thread::sleep(Duration::from_millis(200));
        connection.release();
    });
    session.execute(&insert, &[&1i64]).unwrap();
    cutter.join().unwrap();
    stand.proxy.set_delay(Direction::ToClient, Duration::from_millis(20));
    stand.proxy.set_delay(Direction::ToServer, Duration::from_millis(20));
    let mut pipeline = session.pipeline();
    (2..150i64).for_each(|id| pipeline.add(&insert, &[&id]).unwrap());
    assert!(pipeline.finish().unwrap().iter().all(Result::is_ok));
    let content = stand.content();
    assert!(content.len() == 150 && content.values().all(|count| *count == 1), "{content:?}");
}
