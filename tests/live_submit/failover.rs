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
