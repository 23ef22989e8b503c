//! Servers die with submissions in flight.

use std::time::Duration;

use segue::{Client, Ticket};
use segue_testkit::{Cluster, Replication, Server};

use crate::harness::{committed, eventually, ids_on, insert, make_table};

const PROMOTION: Duration = Duration::from_secs(30);

/// Half of them in three lanes, the others in none; some travel alone.
fn submit(client: &Client, range: std::ops::Range<i64>) -> Vec<Ticket> {
    range
        .map(|id| {
            let mut it = insert("t", id);
            if id % 2 == 0 {
                it = it.lane(format!("lane {}", id % 6));
            }
            if id % 40 == 1 {
                it = it.expect_rows(1..=1);
            }
            client.submit(it).unwrap()
        })
        .collect()
}

/// Commits wait for the standby from now on, and for what was committed before.
fn keep_in_step(primary: &Server, standby: &str) {
    primary.set_config("synchronous_standby_names", standby).unwrap();
    let sync = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync' \
                AND flush_lsn >= pg_current_wal_insert_lsn()";
    primary.wait_until(sync, PROMOTION).unwrap();
}

/// Twice the primary is killed while submissions are in flight, and more are handed over meanwhile.
fn through_two_failovers(replication: Replication, options: &str) {
    let cluster = Cluster::builder().standbys(1).replication(replication).start().unwrap();
    make_table(cluster.primary(), "t");
    let client = Client::connect(&format!("{} {options}", cluster.conninfo())).unwrap();
    let mut tickets = submit(&client, 0..100);
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    tickets.extend(submit(&client, 100..350));
    cluster.primary().kill_all().unwrap();
    tickets.extend(submit(&client, 350..500));
    cluster.promote(1, PROMOTION).unwrap();
    tickets.extend(submit(&client, 500..600));
    cluster.rejoin(0).unwrap();
    if replication == Replication::Sync {
        keep_in_step(cluster.primary(), cluster.server(0).name());
    }
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    cluster.wait_for_standbys().unwrap();
    tickets.extend(submit(&client, 600..800));
    // Its backends live on for a moment, and acknowledge what nobody will see again.
    cluster.primary().kill_postmaster().unwrap();
    tickets.extend(submit(&client, 800..900));
    cluster.promote(0, PROMOTION).unwrap();
    tickets.extend(submit(&client, 900..1000));
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    let there = ids_on(cluster.primary(), "t");
    let mut sorted = there.clone();
    sorted.sort_unstable();
    let missing: Vec<_> = (0..1000).filter(|id| sorted.binary_search(id).is_err()).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!(sorted.len(), 1000, "something is there twice");
    for lane in [0, 2, 4] {
        let of_lane: Vec<_> = there.iter().filter(|id| **id % 6 == lane).collect();
        assert!(of_lane.is_sorted(), "lane {lane}: {of_lane:?}");
    }
    let status = client.submissions().unwrap();
    assert_eq!((status.committed, status.dead_letters, status.waiting), (1000, 0, 0));
    assert!(status.resubmitted > 0, "nothing was in flight: {status:?}");
}

#[test]
fn through_two_failovers_with_synchronous_replication() {
    through_two_failovers(Replication::Sync, "");
}

/// What a dying primary has acknowledged may be lost; the backup's word is not.
#[test]
fn through_two_failovers_with_the_backups_word() {
    through_two_failovers(Replication::Async, "commit_ack=backup");
}

/// A commit whose wait for the standby was cut short is there for all to see and would yet be lost with
/// its server: who finds it done says so only when the standby has it.
#[test]
fn what_is_found_done_is_told_once_the_standby_has_it() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    make_table(cluster.primary(), "t");
    let client = Client::connect(&cluster.conninfo()).unwrap();
    committed(&client.submit(insert("t", 0)).unwrap());
    cluster.server(1).pause().unwrap();
    let ticket = client.submit(insert("t", 1)).unwrap();
    let primary = cluster.primary();
    let waiting = |other: &str| {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid <> {other}"
        );
        let mut pid = None;
        eventually("a commit waits for the standby", || {
            pid = primary.query(&sql).unwrap().first().and_then(|row| row[0].clone());
            pid.is_some()
        });
        pid.unwrap()
    };
    let first = waiting("0");
    primary.execute(&format!("SELECT pg_terminate_backend({first})")).unwrap();
    eventually("it is there", || ids_on(primary, "t") == [0, 1]);
    waiting(&first);
    assert_eq!(ticket.poll().unwrap(), None);
    cluster.server(1).resume().unwrap();
    assert!(committed(&ticket).found_done);
    assert_eq!(ids_on(primary, "t"), [0, 1]);
}

/// While the backup does not confirm, submissions are sent all the same, up to a bound; nobody is told.
#[test]
fn the_backups_silence_holds_up_tickets_and_not_submissions() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    let (primary, standby) = (cluster.primary(), cluster.server(1));
    make_table(primary, "t");
    let conninfo = format!("{} commit_ack=backup submit_sessions=1", cluster.conninfo());
    let client = Client::connect(&conninfo).unwrap();
    committed(&client.submit(insert("t", 0).lane("lane 0")).unwrap());
    standby.execute("SELECT pg_wal_replay_pause()").unwrap();
    let is_paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'";
    standby.wait_until(is_paused, PROMOTION).unwrap();
    let mut tickets = submit(&client, 1..600);
    // Far more than what is sent at once.
    eventually("all of them are sent", || ids_on(primary, "t").len() == 600);
    let told = |tickets: &[Ticket]| {
        tickets.iter().filter(|ticket| ticket.poll().unwrap().is_some()).count()
    };
    eventually("the backup's silence is told", || {
        let problem = client.submissions().unwrap().problem;
        problem.is_some_and(|problem| problem.contains("backup did not confirm"))
    });
    assert_eq!(told(&tickets), 0);
    // Bounded: no more than 1024 wait for the backup, with a window behind them.
    tickets.extend(submit(&client, 600..3000));
    eventually("the bound is reached", || ids_on(primary, "t").len() >= 1024);
    let status = client.submissions().unwrap();
    assert!(status.in_flight <= 1024 + 2 * 128 && status.waiting > 1000, "{status:?}");
    assert_eq!(told(&tickets), 0);
    standby.execute("SELECT pg_wal_replay_resume()").unwrap();
    tickets.iter().for_each(|ticket| assert!(!committed(ticket).found_done));
    assert_eq!(client.submissions().unwrap().problem, None);
    let mut there = ids_on(primary, "t");
    assert!(there.iter().filter(|id| **id % 6 == 4 && **id > 0).is_sorted());
    there.sort_unstable();
    assert_eq!(there, (0..3000).collect::<Vec<_>>());
}

/// What was committed where the backup did not get it has been told to nobody, and is run again.
#[test]
fn what_the_backup_never_got_is_run_again() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    make_table(cluster.primary(), "t");
    let conninfo = format!("{} commit_ack=backup", cluster.conninfo());
    let client = Client::connect(&conninfo).unwrap();
    let mut tickets = submit(&client, 0..100);
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    // It receives nothing more.
    cluster.server(1).set_config("primary_conninfo", "").unwrap();
    let alone = "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)";
    cluster.server(1).wait_until(alone, PROMOTION).unwrap();
    tickets.extend(submit(&client, 100..500));
    eventually("they are committed", || ids_on(cluster.server(0), "t").len() == 500);
    assert!(tickets[100..].iter().all(|ticket| ticket.poll().unwrap().is_none()));
    cluster.primary().kill_all().unwrap();
    tickets.extend(submit(&client, 500..600));
    cluster.promote(1, PROMOTION).unwrap();
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    let there = ids_on(cluster.server(1), "t");
    for lane in [0, 2, 4] {
        assert!(there.iter().filter(|id| **id % 6 == lane).is_sorted(), "lane {lane}");
    }
    let mut sorted = there;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..600).collect::<Vec<_>>());
    assert!(client.submissions().unwrap().resubmitted >= 400);
}
