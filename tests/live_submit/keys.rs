//! The same keys, handed over by two processes at once: each is executed once, and both are told so.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use segue::{Client, Submission};
use segue_testkit::{Cluster, Replication, Server};

use crate::harness::{committed, ids_on, make_table, refused};

const CONNINFO: &str = "SEGUE_TEST_KEYS_CONNINFO";
const NAME: &str = "SEGUE_TEST_KEYS_NAME";

const KEYS: i64 = 300;
/// This one can never succeed.
const POISON: i64 = 150;

fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}

/// One of the two: run by the tests below.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn the_child() {
    let conninfo = std::env::var(CONNINFO).expect("it is run by its parent");
    let name = std::env::var(NAME).expect("its name");
    let client = Client::connect(&conninfo).expect("a client");
    say("said ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent says when");
    let tickets: Vec<_> = (0..KEYS)
        .map(|id| {
            let insert = "INSERT INTO t (id, note) VALUES ($1, $2)";
            let it = Submission::new().statement(insert, &[&id, &name.as_str()]).unwrap();
            let it = match id {
                POISON => it.statement("SELECT 1 / 0", &[]).unwrap(),
                _ => it,
            };
            // In a lane or not, as the process likes: the key is the same.
            let it = if name == "first" && id % 2 == 0 { it.lane("a") } else { it };
            client.submit(it.key(format!("key {id}"))).unwrap()
        })
        .collect();
    for (id, ticket) in tickets.iter().enumerate() {
        if id as i64 == POISON {
            say(&format!("said {id} {}", refused(ticket).sqlstate()));
        } else {
            let found = committed(ticket).found_done;
            say(&format!("said {id} {}", if found { "found" } else { "done" }));
        }
    }
}

struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(name: &str, conninfo: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "keys::the_child", "--nocapture"])
            .env(CONNINFO, conninfo)
            .env(NAME, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut it = Self { child, stdout };
        assert_eq!(it.hear().as_deref(), Some("ready"));
        it
    }

    fn go(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    /// What it says next; `None` at its end.
    fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, said)) = line.split_once("said ") {
                return Some(said.trim().to_owned());
            }
        }
    }

    /// What became of each key.
    fn end(mut self, mut heard: Vec<String>) -> BTreeMap<i64, String> {
        while let Some(said) = self.hear() {
            heard.push(said);
        }
        assert!(self.child.wait().unwrap().success());
        let of = |said: &String| {
            let (id, word) = said.split_once(' ').unwrap();
            (id.parse().unwrap(), word.to_owned())
        };
        heard.iter().map(of).collect()
    }
}

/// `meanwhile` happens when the first outcomes have been told.
fn by_two_processes(cluster: &Cluster, meanwhile: impl FnOnce()) -> [BTreeMap<i64, String>; 2] {
    make_table(cluster.primary(), "t");
    cluster.wait_for_standbys().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let dir = dir.path().join(name);
        let journal = format!("journal=file journal_dir={}", dir.display());
        Process::start(name, &format!("{} {journal}", cluster.conninfo()))
    };
    let (mut first, mut second) = (start("first"), start("second"));
    first.go();
    second.go();
    let heard: Vec<String> = (0..20).map(|_| first.hear().expect("an outcome")).collect();
    meanwhile();
    [first.end(heard), second.end(Vec::new())]
}

/// Each is there once, and both processes have been told the same of it.
fn once(server: &Server, told: &[BTreeMap<i64, String>; 2]) {
    let mut there = ids_on(server, "t");
    there.sort_unstable();
    let expected: Vec<i64> = (0..KEYS).filter(|id| *id != POISON).collect();
    assert_eq!(there, expected);
    for told in told {
        assert_eq!(told.len() as i64, KEYS);
        for (id, word) in told {
            match *id {
                POISON => assert_eq!(word, "22012"),
                _ => assert!(word == "done" || word == "found", "{id}: {word}"),
            }
        }
    }
}

#[test]
fn two_processes_with_the_same_keys() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    let told = by_two_processes(&cluster, || {});
    once(cluster.server(0), &told);
    for id in (0..KEYS).filter(|id| *id != POISON) {
        let by: Vec<_> = told.iter().map(|told| told[&id].as_str()).collect();
        assert!(by == ["done", "found"] || by == ["found", "done"], "{id}: {by:?}");
    }
}

#[test]
fn two_processes_with_the_same_keys_through_a_failover() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    let told = by_two_processes(&cluster, || {
        cluster.primary().kill_all().unwrap();
        cluster.promote(1, Duration::from_secs(30)).unwrap();
    });
    once(cluster.server(1), &told);
    for id in (0..KEYS).filter(|id| *id != POISON) {
        let done = told.iter().filter(|told| told[&id] == "done").count();
        assert!(done <= 1, "{id} was done by both");
    }
}
