//! The client has died, and so have servers.

use std::time::Duration;

use segue::Verdict::{Committed, NeverSent, NotCommitted, Unknown};
use segue_testkit::{Cluster, Replication};

use crate::harness::{
    INSERT, LONG, Past, commit, count, eventually, name, only, open_row, prepare, seal, verdicts,
};

#[test]
fn after_a_failover_the_new_primary_is_asked() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    prepare(&cluster);
    let mut past = Past::on(&cluster);
    let row = open_row(cluster.primary());
    let (done, lost) = (name(), name());
    commit(cluster.primary(), &done, row, 1);
    past.transaction(&done, row, 1);
    past.transaction(&lost, row, 2);
    past.leave();
    cluster.primary().kill_all().unwrap();
    cluster.promote(1, Duration::from_secs(30)).unwrap();
    let client = past.client("failover_timeout_ms=60000");
    assert_eq!(verdicts(&client.recover().unwrap()), [Committed, NotCommitted]);
    let server = cluster.server(1);
    assert_eq!((count(server, &done), count(server, &lost)), (1, 0));
}

/// The primary is lost while it is asked, and the standby takes over meanwhile.
#[test]
fn a_failover_in_the_middle_is_waited_for() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    prepare(&cluster);
    let mut past = Past::on(&cluster);
    let row = open_row(cluster.primary());
    let done = name();
    commit(cluster.primary(), &done, row, 1);
    past.transaction(&done, row, 1);
    past.transaction("no", row, 2);
    past.leave();
    cluster.primary().kill_all().unwrap();
    let client = past.client("failover_timeout_ms=60000");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| client.recover().unwrap());
        std::thread::sleep(Duration::from_millis(300));
        cluster.promote(1, Duration::from_secs(30)).unwrap();
        assert_eq!(verdicts(&asked.join().unwrap()), [Committed, NotCommitted]);
    });
}

#[test]
fn without_a_server_it_is_said_what_the_journal_knows() {
    let cluster = Cluster::builder().standbys(0).replication(Replication::Async).start().unwrap();
    prepare(&cluster);
    let mut past = Past::on(&cluster);
    let row = open_row(cluster.primary());
    let done = name();
    commit(cluster.primary(), &done, row, 1);
    past.transaction(&done, row, 1);
    past.statement(past.began(false), INSERT, &[Some(b"x")]);
    past.leave();
    cluster.primary().stop_fast().unwrap();
    let client = past.client("failover_timeout_ms=500");
    let found = client.recover().unwrap();
    assert_eq!(verdicts(&found), [Unknown, NeverSent]);
    let reason = found[0].reason().unwrap();
    assert!(reason.contains("could not be asked"), "{reason}");
    drop(found);
    cluster.primary().start().unwrap();
    // The same client may ask again.
    eventually("an answer", || verdicts(&client.recover().unwrap()) == [Committed, NeverSent]);
    drop(client);
    // What the ledger has said needs no server any more.
    cluster.primary().stop_fast().unwrap();
    let found = past.client("failover_timeout_ms=500").recover().unwrap();
    assert_eq!(verdicts(&found), [Committed, NeverSent]);
}

/// A commit that is visible, and that no standby has: it is told only when one has it.
#[test]
fn what_is_found_is_told_behind_a_wait_for_the_standbys() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    prepare(&cluster);
    let mut past = Past::on(&cluster);
    let primary = cluster.primary();
    let (row, id) = (open_row(primary), name());
    past.transaction(&id, row, 1);
    past.leave();
    cluster.standby().unwrap().pause().unwrap();
    let sql = format!("BEGIN; INSERT INTO t (id) VALUES ('{id}'); {}; COMMIT", seal(row, 1));
    let conninfo = primary.conninfo();
    let attempt = std::thread::spawn(move || {
        let mut client = postgres::Client::connect(&conninfo, postgres::NoTls).unwrap();
        client.simple_query(&sql)
    });
    // The wait is cut short, and the commit stands on the primary alone.
    eventually("the wait", || {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE wait_event = 'SyncRep'";
        primary.value(sql).unwrap() == "1"
    });
    let _ = attempt.join().unwrap();
    eventually("the commit", || count(primary, &id) == 1);

    let client = past.client("failover_timeout_ms=1500");
    let found = only(client.recover().unwrap());
    assert_eq!(found.verdict(), Unknown, "{found:?}");
    assert!(found.reason().unwrap().contains("standby"), "{found:?}");
    drop(found);
    cluster.standby().unwrap().resume().unwrap();
    eventually("an answer", || only(client.recover().unwrap()).verdict() == Committed);
    cluster.primary().kill_all().unwrap();
    cluster.promote(1, LONG).unwrap();
    assert_eq!(count(cluster.server(1), &id), 1);
}

/// With `commit_ack=backup` the same holds without synchronous replication.
#[test]
fn with_the_backups_word_it_is_told_when_the_backup_has_it() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    prepare(&cluster);
    let mut past = Past::on(&cluster);
    let (row, id) = (open_row(cluster.primary()), name());
    cluster.wait_for_standbys().unwrap();
    cluster.standby().unwrap().pause().unwrap();
    commit(cluster.primary(), &id, row, 1);
    past.transaction(&id, row, 1);
    past.leave();
    let client = past.client("failover_timeout_ms=1500 commit_ack=backup");
    let found = only(client.recover().unwrap());
    // Nobody else can have it if the standby is known to be down.
    let told = found.verdict();
    assert!([Unknown, Committed].contains(&told), "{found:?}");
    drop(found);
    cluster.standby().unwrap().resume().unwrap();
    eventually("an answer", || only(client.recover().unwrap()).verdict() == Committed);
    if told == Unknown {
        cluster.primary().kill_all().unwrap();
        cluster.promote(1, LONG).unwrap();
        assert_eq!(count(cluster.server(1), &id), 1);
    }
}
