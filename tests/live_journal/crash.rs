//! The client is killed with transactions in every state; what its journal says is what is true.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use segue::Client;
use segue::journal::State;
use segue_testkit::proxy::{Action, Proxy};
use segue_testkit::{Cluster, Replication};

use crate::harness::{
    Stand, eventually, ids_on, in_flight, is_committed, look, make_table, server,
};

const CONNINFO: &str = "SEGUE_TEST_JOURNAL_CONNINFO";
const TABLE: &str = "SEGUE_TEST_JOURNAL_TABLE";

fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}

/// The client that is killed: run by the tests below, in a process of its own.
#[test]
#[ignore = "run by another test, in a process that is killed"]
fn the_child() {
    let conninfo = std::env::var(CONNINFO).expect("it is run by its parent");
    let table = std::env::var(TABLE).expect("a table");
    let client = Client::connect(&conninfo).expect("a client");
    let mut open = client.session().expect("a session");
    open.begin(&segue::TransactionOptions::default()).expect("BEGIN");
    open.execute(&format!("INSERT INTO {table} VALUES (1)"), &[]).expect("it is executed");
    std::thread::scope(|scope| {
        for thread in 1..=3_i64 {
            let (client, table) = (&client, &table);
            scope.spawn(move || {
                let mut session = client.session().expect("a session");
                for id in thread * 1_000_000.. {
                    let insert = format!("INSERT INTO {table} VALUES ($1)");
                    say(&format!("trying {id}"));
                    let done = match thread {
                        1 => session.execute(&insert, &[&id]).map(drop),
                        _ => session.transaction().and_then(|mut tx| {
                            tx.execute(&insert, &[&id])?;
                            tx.commit()
                        }),
                    };
                    done.expect("it is committed");
                    say(&format!("committed {id}"));
                }
            });
        }
    });
}

fn start(conninfo: &str, table: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "crash::the_child", "--nocapture"])
        .env(CONNINFO, conninfo)
        .env(TABLE, table)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills it after so many commits; the ids that it was told of.
fn kill_after(mut child: Child, commits: usize, pause: Duration) -> Vec<i64> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut told = lines.filter_map(|line| line.split_once("committed ")?.1.parse().ok());
    let mut ids: Vec<i64> = told.by_ref().take(commits).collect();
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap();
    ids.extend(told);
    ids
}

/// The ids in the text of a transaction's statements are not there: parameters are. Its seal tells.
#[test]
fn the_journal_says_what_is_true() {
    for round in 0..6_u64 {
        let stand = Stand::new();
        let sync = ["none", "batch"][round as usize % 2];
        let child = start(&stand.conninfo(&format!("journal_sync={sync}")), &stand.table);
        let told = kill_after(child, 40, Duration::from_millis(70 + 13 * round));
        let backends = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{}%' AND pid <> pg_backend_pid()",
            stand.table
        );
        eventually("its backends end", || server().value(&backends).unwrap() == "0");
        let there = stand.ids();
        for id in &told {
            assert_eq!(there.iter().filter(|other| *other == id).count(), 1, "told and not there");
        }
        // What the child was not told of stands in the journal, and the ledger decides.
        let found = in_flight(&stand.journal());
        let never: Vec<_> = found.iter().filter(|it| it.state == State::NeverSent).collect();
        let open = never.iter().any(|it| it.statements[0].ends_with("VALUES (1)"));
        assert!(open, "the open transaction is found: {found:?}");
        assert!(!there.contains(&1), "and it is not there");
        let sent = found.iter().filter(|it| matches!(it.state, State::Sent(_)));
        let committed = sent.filter(|it| is_committed(server(), &it.state)).count();
        let untold = there.len() - told.len();
        assert!(
            untold <= committed,
            "{untold} are there that were not told, and the journal knows of {committed}"
        );
        // The journal can be gone on with, and what was found stays until it is dealt with.
        let client = stand.client("journal_sync=none");
        client.session().unwrap().execute(&stand.insert(2), &[]).unwrap();
        drop(client);
        assert_eq!(in_flight(&stand.journal()).len(), found.len());
    }
}

/// COMMIT has been sent, and neither its acknowledgement nor anything else comes back.
#[test]
fn a_commit_in_flight_is_found_with_its_number() {
    for applied in [true, false] {
        let stand = Stand::new();
        let proxy = Proxy::to_server(server()).unwrap();
        let wanted = |message: &segue_testkit::proxy::Message<'_>| {
            message.runs("UPDATE segue.ledger SET") || message.runs("segue.seal($1, $2)")
        };
        let action = if applied { Action::SwallowReply } else { Action::Drop };
        let trigger = proxy.on_client_message(wanted, action);
        let conninfo = stand.conninfo_via(proxy.port(), "poll_interval_ms=30000");
        let child = start(&conninfo, &stand.table);
        trigger.wait(crate::harness::LONG).expect("a commit is sent");
        let told = kill_after(child, 0, Duration::from_millis(300));
        let found = in_flight(&stand.journal());
        let sent: Vec<_> = found.iter().filter(|it| matches!(it.state, State::Sent(_))).collect();
        assert!(!sent.is_empty(), "{found:?}");
        proxy.reset_all();
        // Of what is there, the client was told or its journal knows; of some, both: the journal
        // learns of an end a moment after the application.
        eventually("the server has done what it does", || {
            let committed: Vec<_> =
                sent.iter().filter(|it| is_committed(server(), &it.state)).collect();
            let there = stand.ids();
            let known =
                |id: &i64| told.contains(id) || committed.iter().any(|it| it.has_parameter(*id));
            there.iter().all(known)
                && told.iter().all(|id| there.contains(id))
                && committed.iter().all(|it| there.iter().any(|id| it.has_parameter(*id)))
        });
        let there = stand.ids();
        assert!(there.windows(2).all(|pair| pair[0] != pair[1]), "twice: {there:?}");
    }
}

#[test]
fn a_failover_with_the_journal_on_disk() {
    let cluster = Cluster::builder().standbys(1).replication(Replication::Sync).start().unwrap();
    make_table(cluster.primary(), "t");
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("j");
    let conninfo = format!(
        "{} journal=file journal_sync=batch journal_required=on journal_dir={}",
        cluster.conninfo(),
        journal.display()
    );
    let client = Client::connect(&conninfo).unwrap();
    let mut session = client.session().unwrap();
    let mut tx = session.transaction().unwrap();
    tx.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
    cluster.primary().kill_all().unwrap();
    cluster.promote(1, Duration::from_secs(30)).unwrap();
    tx.execute("INSERT INTO t VALUES (2)", &[]).unwrap();
    tx.commit().unwrap();
    session.execute("INSERT INTO t VALUES (3)", &[]).unwrap();
    assert_eq!(ids_on(cluster.server(1), "t"), [1, 2, 3]);
    drop(session);
    drop(client);
    assert_eq!(look(&journal).in_flight().count(), 0);
}
