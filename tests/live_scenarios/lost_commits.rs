//! Asynchronous replication: commits that were acknowledged die with the primary. They are told of,
//! by number, once; the sessions go on.

use segue::{Client, ClientEvent, Session};
use segue_testkit::{Cluster, Replication};

use super::setup::Stage;
use super::workload::PATIENCE;

#[test]
fn acknowledged_commits_that_are_lost_are_told_of_once() {
    let stage = Stage::on(Cluster::builder().replication(Replication::Async));
    let (old, new) = (stage.cluster.server(0), stage.cluster.server(1));
    let mut known = stage.client.session().unwrap();
    for id in 1..=3 {
        insert(&mut known, id);
    }
    let mut behind_by_none = stage.client.session().unwrap();
    insert(&mut behind_by_none, 4);
    new.wait_until("SELECT count(*) = 4 FROM done", PATIENCE).unwrap();

    cut_off(&stage);
    for id in 5..=8 {
        insert(&mut known, id);
    }
    // Its row in the ledger is lost altogether.
    let other = format!("{} application_name=other", stage.cluster.conninfo());
    let other = Client::connect(&other).unwrap();
    let others_events = super::setup::Events::default();
    let _subscription = others_events.subscribe(&other);
    let mut unknown = other.session().unwrap();
    insert(&mut unknown, 9);
    insert(&mut unknown, 10);
    let mut tx = known.transaction().unwrap();
    tx.execute("INSERT INTO done VALUES (11)", &[]).unwrap();
    old.kill_all().unwrap();
    stage.cluster.promote(1, PATIENCE).unwrap();
    // In flight at the failure: goes on, whatever became of what was committed before it.
    tx.execute("INSERT INTO done VALUES (12)", &[]).unwrap();
    tx.commit().unwrap();
    for id in 13..=14 {
        insert(&mut known, id);
        insert(&mut unknown, id + 10);
        insert(&mut behind_by_none, id + 20);
    }
    let ids = new.query("SELECT id FROM done ORDER BY id").unwrap();
    let ids: Vec<&str> = ids.iter().map(|row| row[0].as_deref().unwrap()).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "11", "12", "13", "14", "23", "24", "33", "34"]);
    assert_eq!(lost(&stage.events.all()), [(known.status().session, 4, 7)]);
    assert_eq!(lost(&others_events.all()), [(unknown.status().session, 1, 2)]);
    assert!(known.status().ledger && unknown.status().ledger);
}

/// What a promotion lost in rows of the ledger before the previous one was told by nobody (simulation, seed 5008074).
#[test]
fn commits_that_are_lost_in_several_rows_of_the_ledger_are_told_of() {
    let stage = Stage::with(Cluster::builder().replication(Replication::Async), |cluster| {
        format!("{} ledger_rotate_commits=2", cluster.conninfo())
    });
    let (old, new) = (stage.cluster.server(0), stage.cluster.server(1));
    let mut session = stage.client.session().unwrap();
    for id in 1..=3 {
        insert(&mut session, id);
    }
    new.wait_until("SELECT count(*) = 3 FROM done", PATIENCE).unwrap();
    cut_off(&stage);
    for id in 4..=12 {
        insert(&mut session, id);
    }
    old.kill_all().unwrap();
    stage.cluster.promote(1, PATIENCE).unwrap();
    insert(&mut session, 13);
    assert_eq!(new.value("SELECT count(*) FROM done").unwrap(), "4");
    let lost = lost(&stage.events.all());
    assert_eq!(lost.iter().map(|(_, from, to)| to - from + 1).sum::<u64>(), 9, "{lost:?}");
    assert!(lost.len() > 2, "{lost:?}");
}

/// The standby hears nothing from here on. (One that is only paused would still take in what has reached its
/// socket by then.)
fn cut_off(stage: &Stage) {
    let (old, new) = (stage.cluster.server(0), stage.cluster.server(1));
    new.set_config("primary_conninfo", "").unwrap();
    old.wait_until("SELECT count(*) = 0 FROM pg_stat_replication", PATIENCE).unwrap();
}

fn insert(session: &mut Session, id: i64) {
    session.execute("INSERT INTO done VALUES ($1)", &[&id]).unwrap();
}

/// Session, first and last number of each report.
fn lost(events: &[ClientEvent]) -> Vec<(u64, u64, u64)> {
    let lost = |event: &ClientEvent| match event {
        ClientEvent::CommitsLost { session, from, to, .. } => Some((*session, *from, *to)),
        _ => None,
    };
    events.iter().filter_map(lost).collect()
}
