//! Clients that are killed with SIGKILL while their sessions work; the next process is told the truth of
//! everything that they had in flight.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use segue::{Client, Verdict};

use crate::harness::{INSERT, count, eventually, server, shared};

const CONNINFO: &str = "SEGUE_TEST_RECOVER_CONNINFO";
const CHILD: &str = "SEGUE_TEST_RECOVER_CHILD";
const SESSIONS: usize = 4;

/// The client that is killed: run by the test below, in a process of its own.
#[test]
#[ignore = "run by another test, in a process that is killed"]
fn the_child() {
    let conninfo = std::env::var(CONNINFO).expect("it is run by its parent");
    let child = std::env::var(CHILD).expect("its name");
    let client = Client::connect(&conninfo).expect("the journal is free again");
    std::thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (client, child) = (&client, &child);
            scope.spawn(move || {
                let mut session = client.session().expect("a session");
                for round in 0.. {
                    let id = format!("{child} {number} {round}");
                    if round % 3 == 0 {
                        session.execute(INSERT, &[&id.as_str()]).expect("it is committed");
                    } else {
                        let mut transaction = session.transaction().expect("a transaction");
                        transaction.execute(INSERT, &[&id.as_str()]).expect("a row");
                        transaction.execute("SELECT pg_sleep(0.001)", &[]).expect("a while");
                        transaction.commit().expect("it is committed");
                    }
                    let line = format!("committed {id}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
                }
            });
        }
    });
}

#[test]
fn what_a_killed_client_had_in_flight_is_told_right() {
    let dir = tempfile::tempdir().unwrap();
    let conninfo = format!(
        "{} application_name=killed journal=file journal_dir={}",
        shared().conninfo(),
        dir.path().join("journal").display()
    );
    let mut told = [0; 3];
    for round in 0..12_u64 {
        let child_name = format!("killed {round}");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "killed::the_child", "--nocapture"])
            .env(CONNINFO, &conninfo)
            .env(CHILD, &child_name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.find(|line| line.as_ref().unwrap().starts_with("committed "));
        assert!(first.is_some(), "the child has ended by itself");
        std::thread::sleep(Duration::from_millis(37 * (1 + round)));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut acknowledged: Vec<String> = vec![first.unwrap().unwrap()];
        acknowledged.extend(lines.map(Result::unwrap).filter(|it| it.starts_with("committed ")));

        let client = Client::connect(&conninfo).unwrap();
        let found = client.recover().unwrap();
        assert!(found.len() <= SESSIONS * 2, "{found:?}");
        for it in &found {
            let statement = it.statements().next().expect("a statement").unwrap();
            let id = statement.parameters[0].as_deref().expect("its id");
            let id = std::str::from_utf8(id).unwrap();
            assert!(id.starts_with(&child_name), "of another child: {id}");
            let expected = match it.verdict() {
                Verdict::Committed => 1,
                Verdict::NotCommitted | Verdict::NeverSent => 0,
                other => panic!("{other:?}: {it:?}"),
            };
            // A backend that never got its COMMIT notices in its own time that its client is gone; none
            // can change what has been told.
            assert_eq!(count(server(), id), expected, "{id}: {it:?}");
            told[it.verdict() as usize] += 1;
            it.done().unwrap();
        }
        drop(found);
        assert!(client.recover().unwrap().is_empty());
        for line in acknowledged {
            assert_eq!(count(server(), line.trim_start_matches("committed ")), 1, "{line}");
        }
        let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'killed' AND pid <> \
             pg_backend_pid() AND state <> 'idle'";
        eventually("the end of its backends", || server().value(gone).unwrap() == "0");
        let twice = "SELECT count(*) FROM (SELECT FROM t WHERE id LIKE 'killed %' GROUP BY id HAVING count(*) > 1) x";
        assert_eq!(server().value(twice).unwrap(), "0");
    }
    println!("committed, not committed, never sent: {told:?}");
    assert!(told.iter().sum::<usize>() > 0, "nothing was ever in flight");
}
