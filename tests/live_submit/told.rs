//! Asynchronous replication: what was told to be committed dies with the primary. It is named, once, or
//! run again; and nothing else is.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use segue::client::{SetupOptions, SubmissionName, Subscription};
use segue::journal::Disk;
use segue::{Client, ClientEvent, ErrorKind, Outcome, Submission, Ticket};
use segue_testkit::{Cluster, Replication};

use crate::harness::{committed, eventually, ids_on, insert, make_table, refused};

const PATIENCE: Duration = Duration::from_secs(30);

/// What a client has told of losses.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<ClientEvent>>>);

impl Heard {
    fn subscribe(&self, client: &Client) -> Subscription {
        let events = Arc::clone(&self.0);
        client.on_event(move |event| events.lock().unwrap().push(event.clone()))
    }

    /// The keys of what was named as lost, in the order of naming.
    fn lost(&self) -> Vec<String> {
        self.names(|event| match event {
            ClientEvent::SubmissionsLost { submissions, others } => {
                assert!(!others, "all names are remembered");
                submissions.clone()
            }
            _ => Vec::new(),
        })
    }

    fn reapplied(&self) -> Vec<String> {
        self.names(|event| match event {
            ClientEvent::SubmissionReapplied { id, key } => {
                vec![SubmissionName { id: *id, key: key.clone() }]
            }
            _ => Vec::new(),
        })
    }

    fn died(&self) -> usize {
        let died = |event: &&ClientEvent| matches!(event, ClientEvent::SubmissionDied { .. });
        self.0.lock().unwrap().iter().filter(died).count()
    }

    fn names(&self, of: impl Fn(&ClientEvent) -> Vec<SubmissionName>) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events.iter().flat_map(of).map(|name| name.key.expect("all have keys")).collect()
    }
}

fn asynchronous() -> Cluster {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    make_table(cluster.primary(), "t");
    cluster
}

fn key(id: i64) -> String {
    format!("key {id}")
}

/// Each third in no lane, the others in two; some travel alone.
fn submission(id: i64) -> Submission {
    let mut it = insert("t", id).key(key(id));
    if id % 3 > 0 {
        it = it.lane(format!("lane {}", id % 3));
    }
    if id % 10 == 7 {
        it = it.expect_rows(1..=1);
    }
    it
}

/// Hands them over and waits until each is told to be committed.
fn tell(client: &Client, ids: std::ops::Range<i64>) -> Vec<Ticket> {
    let tickets: Vec<_> = ids.map(|id| client.submit(submission(id)).unwrap()).collect();
    tickets.iter().for_each(|ticket| assert!(!committed(ticket).found_done));
    tickets
}

/// The standby has so many, and nothing reaches it from here on.
fn cut_off(cluster: &Cluster, count: usize) {
    let has = format!("SELECT count(*) = {count} FROM t");
    cluster.server(1).wait_until(&has, PATIENCE).unwrap();
    cluster.server(1).set_config("primary_conninfo", "").unwrap();
    let gone = "SELECT count(*) = 0 FROM pg_stat_replication";
    cluster.primary().wait_until(gone, PATIENCE).unwrap();
}

fn fail_over(cluster: &Cluster) {
    cluster.server(0).kill_all().unwrap();
    cluster.promote(1, PATIENCE).unwrap();
}

fn keys(ids: std::ops::Range<i64>) -> BTreeSet<String> {
    ids.map(key).collect()
}

/// Each once, in the order of its lane.
fn assert_there(cluster: &Cluster, ids: std::ops::Range<i64>) {
    let there = ids_on(cluster.server(1), "t");
    for lane in [1, 2] {
        let of_lane: Vec<_> = there.iter().filter(|id| **id % 3 == lane).collect();
        assert!(of_lane.is_sorted(), "lane {lane}: {of_lane:?}");
    }
    let mut sorted = there;
    sorted.sort_unstable();
    assert_eq!(sorted, ids.collect::<Vec<_>>());
}

/// Without any further call: the threads find out by themselves.
fn are_named_once(conninfo: &str, cluster: &Cluster) {
    let client = Client::connect(conninfo).unwrap();
    let heard = Heard::default();
    let _subscription = heard.subscribe(&client);
    let there = tell(&client, 0..100);
    cut_off(cluster, 100);
    let lost = tell(&client, 100..150);
    assert_eq!(heard.lost(), [] as [&str; 0]);
    fail_over(cluster);
    eventually("all that is lost is named", || heard.lost().len() >= 50);
    let named = heard.lost();
    assert_eq!(named.iter().cloned().collect::<BTreeSet<_>>(), keys(100..150));
    assert_eq!(named.len(), 50, "each once: {named:?}");
    for ticket in &lost {
        let error = refused(ticket);
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::ProtectionLost, Outcome::NotCommitted)
        );
    }
    there.iter().for_each(|ticket| drop(committed(ticket)));
    assert_there(cluster, 0..100);
    // A key whose submission is lost may be handed over again; one that is there is not done twice.
    let again: Vec<_> = (90..120).map(|id| client.submit(submission(id)).unwrap()).collect();
    again.iter().for_each(|ticket| drop(committed(ticket)));
    assert_there(cluster, 0..120);
    let status = client.submissions().unwrap();
    assert_eq!((status.lost, status.reapplied, status.dead_letters), (50, 0, 0), "{status:?}");
    assert_eq!(heard.lost().len(), 50, "nothing is told twice");
}

#[test]
fn what_was_told_and_is_lost_is_named_once() {
    let cluster = asynchronous();
    are_named_once(&cluster.conninfo(), &cluster);
}

/// A role that may not read the table of submissions asks by a function, on the standby too.
#[test]
fn a_hardened_ledger_can_be_asked_as_well() {
    let cluster = asynchronous();
    cluster.primary().execute("CREATE ROLE till LOGIN").unwrap();
    let owner = Client::connect(&format!("{} application_name=owner", cluster.conninfo())).unwrap();
    owner.setup(&SetupOptions::default().hardened(true)).unwrap();
    let conninfo = cluster.conninfo();
    let user = conninfo.split(' ').find(|it| it.starts_with("user=")).unwrap();
    let as_till = conninfo.replace(user, "user=till");
    are_named_once(&as_till, &cluster);
    let read =
        cluster.server(1).value("SELECT has_table_privilege('till', 'segue.submission', 'SELECT')");
    assert_eq!(read.unwrap(), "f");
}

/// What the standby had and a third server has not is lost as well, should that be promoted.
/// `wait`: until the standby was asked.
fn is_missed_where_another_takes_over(
    connect: impl FnOnce(&Cluster) -> (Client, Heard, Subscription),
    wait: impl FnOnce(&Cluster),
) {
    let cluster = Cluster::builder().standbys(2).replication(Replication::Async).start().unwrap();
    make_table(cluster.primary(), "t");
    let (client, heard, _subscription) = connect(&cluster);
    tell(&client, 0..20);
    cluster.wait_for_standbys().unwrap();
    let standby = || client.status().cluster.standby;
    eventually("a standby is chosen", || standby().is_some());
    let backup = standby().unwrap();
    let other = 3 - backup;
    cluster.server(other).set_config("primary_conninfo", "").unwrap();
    let one = "SELECT count(*) = 1 FROM pg_stat_replication";
    cluster.primary().wait_until(one, PATIENCE).unwrap();
    tell(&client, 20..40);
    cluster.server(backup).wait_until("SELECT count(*) = 40 FROM t", PATIENCE).unwrap();
    wait(&cluster);
    cluster.server(backup).kill_all().unwrap();
    cluster.server(0).kill_all().unwrap();
    cluster.promote(other, PATIENCE).unwrap();
    eventually("what is lost is named", || heard.lost().len() >= 20);
    assert_eq!(heard.lost().into_iter().collect::<BTreeSet<_>>(), keys(20..40));
    assert_eq!(heard.reapplied(), [] as [&str; 0]);
}

#[test]
fn what_the_backup_had_is_missed_where_another_takes_over() {
    let connect = |cluster: &Cluster| with_options(cluster, "journal=memory");
    is_missed_where_another_takes_over(connect, |_| {
        // It is asked about ten times a second; whether it has answered by now changes nothing here.
        std::thread::sleep(Duration::from_millis(300));
    });
}

/// The statements went when the standby was found to have it: it is named, and not run again.
#[test]
fn what_the_backup_had_is_named_with_reapply_too() {
    let dir = |cluster: &Cluster| cluster.dir().join("journal");
    let connect = |cluster: &Cluster| with_journal(cluster, &dir(cluster));
    is_missed_where_another_takes_over(connect, |cluster| {
        eventually("the journal is empty", || in_journal(&dir(cluster)) == 0);
    });
}

/// Run again as they were handed over, each once; one that cannot be any more is a dead letter, and named.
fn are_run_again(cluster: &Cluster, (client, heard, _subscription): (Client, Heard, Subscription)) {
    let stock = "CREATE TABLE stock (article int8, pieces int8); GRANT ALL ON stock TO PUBLIC";
    cluster.primary().execute(stock).unwrap();
    tell(&client, 0..100);
    cut_off(cluster, 100);
    cluster.primary().execute("INSERT INTO stock VALUES (1, 10)").unwrap();
    let mut lost = tell(&client, 100..200);
    // What it builds on was not Segue's, and will not be there.
    let sql = "UPDATE stock SET pieces = pieces - 1 WHERE article = 1";
    let sale = Submission::new().statement(sql, &[]).unwrap().expect_rows(1..=1).key("sale");
    let sale = client.submit(sale).unwrap();
    committed(&sale);
    lost.extend(tell(&client, 200..230));
    fail_over(cluster);
    let more: Vec<_> = (230..240).map(|id| client.submit(submission(id)).unwrap()).collect();
    eventually("all are run again", || heard.reapplied().len() >= 130 && !heard.lost().is_empty());
    assert_eq!(heard.reapplied().into_iter().collect::<BTreeSet<_>>(), keys(100..230));
    assert_eq!(
        (heard.reapplied().len(), heard.lost(), heard.died()),
        (130, vec!["sale".to_owned()], 1)
    );
    assert_eq!(refused(&sale).outcome(), Outcome::NotCommitted);
    lost.iter().chain(&more).for_each(|ticket| drop(committed(ticket)));
    assert_there(cluster, 0..240);
    let status = client.submissions().unwrap();
    assert_eq!((status.lost, status.reapplied, status.dead_letters), (1, 130, 1), "{status:?}");
    let letter = client.dead_letters().unwrap().remove(0);
    assert_eq!(letter.key.as_deref(), Some("sale"));
    cluster.server(1).execute("INSERT INTO stock VALUES (1, 10)").unwrap();
    committed(&client.retry_dead_letter(letter.id).unwrap());
}

#[test]
fn what_was_told_and_is_lost_is_run_again() {
    let cluster = asynchronous();
    are_run_again(&cluster, with_options(&cluster, "on_commits_lost=reapply"));
}

/// The statements are in the files alone by then: the client that has written them reads them back.
#[test]
fn what_was_told_and_is_lost_is_run_again_from_the_journal() {
    let cluster = asynchronous();
    are_run_again(&cluster, with_journal(&cluster, &cluster.dir().join("journal")));
}

fn with_options(cluster: &Cluster, options: &str) -> (Client, Heard, Subscription) {
    let client = Client::connect(&format!("{} {options}", cluster.conninfo())).unwrap();
    let heard = Heard::default();
    let subscription = heard.subscribe(&client);
    (client, heard, subscription)
}

fn with_journal(cluster: &Cluster, dir: &Path) -> (Client, Heard, Subscription) {
    let dir = dir.display();
    with_options(cluster, &format!("on_commits_lost=reapply journal=file journal_dir={dir}"))
}

fn in_journal(dir: &Path) -> usize {
    let found = segue::journal::read(Arc::new(Disk::look(dir).unwrap()), None).unwrap();
    found.in_flight().count()
}

/// The journal keeps what was told until the backup has it, and so it outlives the client too.
#[test]
fn what_was_told_outlives_the_client_in_the_journal() {
    let cluster = asynchronous();
    let dir = cluster.dir().join("journal");
    let (client, _, subscription) = with_journal(&cluster, &dir);
    tell(&client, 0..100);
    cluster.server(1).wait_until("SELECT count(*) = 100 FROM t", PATIENCE).unwrap();
    // What the backup is found to have has ended, without another call.
    eventually("the journal is empty", || in_journal(&dir) == 0);
    drop((client, subscription));
    let (client, heard, subscription) = with_journal(&cluster, &dir);
    cut_off(&cluster, 100);
    assert_eq!(client.submissions().unwrap().recovered, 0);
    tell(&client, 100..150);
    drop((client, subscription, heard));
    assert_eq!(in_journal(&dir), 50);
    fail_over(&cluster);
    assert_eq!(ids_on(cluster.server(1), "t").len(), 100);
    let (client, heard, _subscription) = with_journal(&cluster, &dir);
    assert_eq!(client.submissions().unwrap().recovered, 50);
    eventually("all are run again", || ids_on(cluster.server(1), "t").len() >= 150);
    assert_there(&cluster, 0..150);
    eventually("it is told", || client.submissions().unwrap().reapplied >= 50);
    assert_eq!(heard.lost(), [] as [&str; 0]);
}
