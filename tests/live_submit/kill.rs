//! The client is killed at random points while it hands over, and so are servers; whatever was
//! acknowledged is in the database once, and nothing is there twice.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use segue::Client;
use segue_testkit::{Cluster, Replication};

use crate::harness::{eventually, ids_on, insert, make_table};

const CONNINFO: &str = "SEGUE_TEST_SUBMIT_CONNINFO";
const FROM: &str = "SEGUE_TEST_SUBMIT_FROM";

const THREADS: i64 = 4;
/// Ids of a thread, and of a child.
const OF_THREAD: i64 = 100_000;
const OF_CHILD: i64 = THREADS * OF_THREAD;

/// The client that is killed: run by the test below, in a process of its own.
#[test]
#[ignore = "run by another test, in a process that is killed"]
fn the_child() {
    let conninfo = std::env::var(CONNINFO).expect("it is run by its parent");
    let from: i64 = std::env::var(FROM).expect("the first id").parse().expect("a number");
    let client = Client::connect(&conninfo).expect("the journal is free again");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let client = &client;
            scope.spawn(move || {
                for id in (from + thread * OF_THREAD)..(from + (thread + 1) * OF_THREAD) {
                    let mut it = insert("t", id);
                    if thread > 0 {
                        it = it.lane(format!("{from} {thread}"));
                    }
                    if id % 50 == 0 {
                        it = it.expect_rows(1..=1);
                    }
                    client.submit(it).expect("it is accepted");
                    // In one write, so that no half of a number is ever read.
                    let line = format!("accepted {id}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
                }
            });
        }
    });
}

struct Random(AtomicU64);

impl Random {
    /// A number below `limit`; the seed is printed, should something go wrong.
    fn below(&self, limit: u64) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        x % limit
    }
}

fn children_are_killed(servers: &str) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {seed}");
    let random = Random(AtomicU64::new(seed));
    let cluster = Cluster::builder().standbys(1).replication(Replication::Async).start().unwrap();
    make_table(cluster.primary(), "t");
    let dir = tempfile::tempdir().unwrap();
    let conninfo = format!(
        "{} journal=file journal_dir={} commit_ack=backup",
        cluster.conninfo(),
        dir.path().join("j").display()
    );
    let over = AtomicBool::new(false);
    let mut accepted = BTreeSet::new();
    std::thread::scope(|scope| {
        // The servers die and come back, or another takes over.
        let killer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200 + random.below(500)));
                let (old, new) = if cluster.primary().name() == cluster.server(0).name() {
                    (0, 1)
                } else {
                    (1, 0)
                };
                cluster.primary().kill_all().unwrap();
                std::thread::sleep(Duration::from_millis(random.below(200)));
                if servers == "fail over" {
                    cluster.promote(new, Duration::from_secs(30)).unwrap();
                    cluster.rejoin(old).unwrap();
                    cluster.wait_for_standbys().unwrap();
                } else {
                    cluster.primary().start().unwrap();
                }
            }
        });
        for child in 0..10 {
            let mut process = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "kill::the_child", "--nocapture"])
                .env(CONNINFO, &conninfo)
                .env(FROM, (child * OF_CHILD).to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let stdout = process.stdout.take().unwrap();
            let reader = std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                let ids: BTreeSet<i64> =
                    lines.filter_map(|line| line.split_once("accepted ")?.1.parse().ok()).collect();
                ids
            });
            std::thread::sleep(Duration::from_millis(100 + random.below(500)));
            assert!(
                process.try_wait().unwrap().is_none(),
                "seed {seed}: the child has ended by itself"
            );
            process.kill().unwrap();
            process.wait().unwrap();
            accepted.extend(reader.join().unwrap());
        }
        over.store(true, Ordering::Relaxed);
        killer.join().unwrap();
    });
    assert!(accepted.len() > 20, "seed {seed}: only {} were accepted", accepted.len());
    let client = Client::connect(&conninfo).unwrap();
    eventually("the rest is run", || {
        let status = client.submissions().unwrap();
        status.waiting + status.in_flight == 0
    });
    assert!(client.dead_letters().unwrap().is_empty(), "seed {seed}");
    let there = ids_on(cluster.primary(), "t");
    let once: BTreeSet<i64> = there.iter().copied().collect();
    assert_eq!(once.len(), there.len(), "seed {seed}: something is there twice");
    let missing: Vec<_> = accepted.difference(&once).collect();
    assert!(missing.is_empty(), "seed {seed}: accepted and missing: {missing:?}");
    // What was not told to be accepted may be there: at most one of each thread of each child.
    let more = once.len() - accepted.len();
    assert!(more <= 40, "seed {seed}: {more} are there that were not accepted");
    for lane in (0..10 * THREADS).filter(|lane| lane % THREADS > 0) {
        let of_lane = there.iter().filter(|id| **id / OF_THREAD == lane);
        assert!(of_lane.is_sorted(), "seed {seed}: the order of lane {lane}");
    }
    println!("{} accepted, {} there", accepted.len(), there.len());
}

#[test]
fn clients_and_servers_are_killed_and_restarted() {
    children_are_killed("restart");
}

#[test]
fn clients_are_killed_and_servers_fail_over() {
    children_are_killed("fail over");
}
