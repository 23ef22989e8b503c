//! No server at all, links that break, and the journal's directory.

use segue::{Client, ErrorKind, Submission};
use segue_testkit::Cluster;
use segue_testkit::proxy::{Proxy, Side};

use crate::harness::{
    committed, eventually, ids, ids_on, insert, make_table, refused, server, table, within,
};

/// Store and forward: what is handed over while every server is down is run when one is back, whatever
/// becomes of the client meanwhile.
#[test]
fn works_while_every_server_is_down() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    make_table(cluster.server(0), "t");
    let dir = tempfile::tempdir().unwrap();
    let conninfo = format!(
        "{} journal=file journal_dir={}",
        cluster.conninfo(),
        dir.path().join("j").display()
    );
    cluster.server(0).stop_fast().unwrap();
    let client = Client::connect(&conninfo).unwrap();
    let status = client.status();
    assert_eq!(status.journal.map(|journal| journal.dir), Some(dir.path().join("j")));
    let lane = |id: i64| insert("t", id).lane("till").key(format!("sale {id}"));
    let ids: Vec<_> = (0..100).map(|id| client.submit(lane(id)).unwrap().id()).collect();
    eventually("the problem is told", || client.submissions().unwrap().problem.is_some());
    assert_eq!(client.ticket(ids[0]).unwrap().unwrap().poll().unwrap(), None);
    within("closing", move || drop(client));
    let client = Client::connect(&conninfo).unwrap();
    assert_eq!(client.submissions().unwrap().recovered, 100);
    for id in 100..200 {
        client.submit(lane(id)).unwrap();
    }
    // Handed over again, for want of an answer.
    for id in 50..150 {
        client.submit(lane(id)).unwrap();
    }
    let last = client.ticket_for_key("sale 199").unwrap().unwrap();
    let first = client.ticket(ids[0]).unwrap().unwrap();
    assert_eq!(first.key(), Some("sale 0"));
    cluster.server(0).start().unwrap();
    committed(&last);
    committed(&first);
    assert_eq!(ids_on(cluster.server(0), "t"), (0..200).collect::<Vec<_>>());
    let status = client.submissions().unwrap();
    assert_eq!((status.waiting, status.in_flight, status.problem), (0, 0, None));
    assert!(status.journal_bytes.is_some_and(|bytes| bytes > 0));
}

/// A journal that is full refuses what is new, and nothing of what it has taken is lost.
#[test]
fn a_full_journal_refuses_and_loses_nothing() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    make_table(cluster.server(0), "t");
    cluster.server(0).stop_fast().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let conninfo = format!(
        "{} journal=file journal_dir={} journal_bytes_max=1048576 failover_timeout_ms=1000",
        cluster.conninfo(),
        dir.path().join("j").display()
    );
    let client = Client::connect(&conninfo).unwrap();
    let large = |id: i64| {
        let note = "x".repeat(10_000);
        let sql = "INSERT INTO t (id, note) VALUES ($1, $2)";
        Submission::new().statement(sql, &[&id, &note]).unwrap().lane("a")
    };
    let mut count = 0;
    let error = loop {
        match client.try_submit(large(count)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 1000, "it never is full");
    };
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    assert!(count > 30, "only {count} found room");
    assert_eq!(client.submit(large(count)).unwrap_err().kind(), ErrorKind::Limit);
    drop(client);
    let client = Client::connect(&conninfo).unwrap();
    assert_eq!(client.submissions().unwrap().recovered, u64::try_from(count).unwrap());
    cluster.server(0).start().unwrap();
    eventually("there is room again", || client.submit(large(count)).is_ok());
    eventually("all is run", || {
        let status = client.submissions().unwrap();
        status.waiting + status.in_flight == 0
    });
    assert_eq!(ids_on(cluster.server(0), "t"), (0..=count).collect::<Vec<_>>());
}

/// A backend whose client is gone goes on with what it has received: it is ended before the same is
/// sent once more, else a refusal of the second attempt could be followed by the first one's success.
#[test]
fn a_lost_backend_is_ended_before_another_attempt() {
    let table = table();
    let proxy = Proxy::to_server(server()).unwrap();
    let port = server().port().to_string();
    let conninfo = server().conninfo().replace(&port, &proxy.port().to_string());
    let client =
        Client::connect(&format!("{conninfo} application_name=zombie poll_interval_ms=30000"))
            .unwrap();
    committed(&client.submit(insert(&table, 0)).unwrap());
    let sleeping = "state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    let backend = format!(
        "SELECT pid FROM pg_stat_activity WHERE {sleeping} AND application_name = 'zombie'"
    );
    let slow = Submission::new()
        .statement(
            "SELECT pg_sleep(60) FROM (SELECT count(*) FROM segue.submission) s \
                    WHERE current_setting('application_name') = 'zombie' \
                    AND NOT EXISTS (SELECT FROM pg_class WHERE relname = $1)",
            &[&format!("{table}_go")],
        )
        .unwrap()
        .statement(&format!("INSERT INTO {table} (id) VALUES (1)"), &[])
        .unwrap();
    let ticket = client.submit(slow).unwrap();
    let is_there = || !server().query(&backend).unwrap().is_empty();
    eventually("the first attempt", is_there);
    let first = server().value(&backend).unwrap();
    server().execute(&format!("CREATE TABLE {table}_go ()")).unwrap();
    // The server does not hear of it: its side of the connections stays.
    for connection in proxy.connections() {
        connection.reset(Side::Client);
    }
    assert_eq!(committed(&ticket).rows, [0, 1]);
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {first}");
    assert_eq!(server().value(&left).unwrap(), "0", "the first backend is gone");
    assert_eq!(ids(&table), [0, 1]);
}

#[test]
fn links_that_break_lose_and_repeat_nothing() {
    let table = table();
    let proxy = Proxy::to_server(server()).unwrap();
    let port = server().port().to_string();
    let conninfo = server().conninfo().replace(&port, &proxy.port().to_string());
    let client = Client::connect(&format!("{conninfo} application_name=breaks")).unwrap();
    let tickets: Vec<_> = (0..3000i64)
        .map(|id| {
            if id % 300 == 250 {
                proxy.reset_all();
            }
            client.submit(insert(&table, id).lane(format!("{}", id % 2))).unwrap()
        })
        .collect();
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    let there = ids(&table);
    let mut sorted = there.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..3000).collect::<Vec<_>>());
    for lane in 0..2 {
        assert!(there.iter().filter(|id| **id % 2 == lane).is_sorted());
    }
}

#[test]
fn a_journal_belongs_to_one_client() {
    let dir = tempfile::tempdir().unwrap();
    let journal = format!("journal=file journal_dir={}", dir.path().join("j").display());
    let conninfo = |options: &str| format!("{} {journal} {options}", server().conninfo());
    let client = Client::connect(&conninfo("application_name=owner")).unwrap();
    let error = Client::connect(&conninfo("application_name=other")).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let pid = std::process::id();
    assert!(error.to_string().contains("journal_locked"), "{error}");
    assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
    drop(client);
    let client = Client::connect(&conninfo("application_name=other")).unwrap();
    // Something that stays.
    let poison = Submission::new().statement("SELECT 1 / 0", &[]).unwrap();
    refused(&client.submit(poison).unwrap());
    drop(client);
    let key = "0".repeat(64);
    let error = Client::connect(&conninfo(&format!("journal_key={key}"))).map(drop).unwrap_err();
    assert!(error.to_string().contains("journal_not_encrypted"), "{error}");
}

/// With the journal encrypted nothing of a submission stands in its files in the clear.
#[test]
fn an_encrypted_journal_shows_nothing() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    make_table(cluster.server(0), "t");
    cluster.server(0).stop_fast().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let key = "5e".repeat(32);
    let conninfo = format!(
        "{} journal=file journal_dir={} journal_key={key}",
        cluster.conninfo(),
        path.display()
    );
    let client = Client::connect(&conninfo).unwrap();
    let secret = Submission::new()
        .statement("INSERT INTO t (note) VALUES ($1)", &[&"a well kept secret"])
        .unwrap();
    client.submit(secret).unwrap();
    drop(client);
    let mut files = 0;
    for file in std::fs::read_dir(&path).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        files += usize::from(!bytes.is_empty());
        assert!(!bytes.windows(9).any(|it| it == b"well kept"));
    }
    assert!(files > 0);
    cluster.server(0).start().unwrap();
    let client = Client::connect(&conninfo).unwrap();
    eventually("it is run", || client.submissions().unwrap().committed == 1);
    let note = "SELECT note FROM t";
    assert_eq!(cluster.server(0).value(note).unwrap(), "a well kept secret");
}
