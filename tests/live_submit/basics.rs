//! A server that stays up: what is handed over is run, in order, once.

use std::sync::mpsc::channel;
use std::time::Duration;

use segue::{Client, ErrorKind, Submission, Ticket};

use crate::harness::{client, committed, eventually, ids, insert, refused, server, table, within};

#[test]
fn what_is_handed_over_is_run_once() {
    let (client, table) = (client(""), table());
    let tickets: Vec<_> = (0..1000).map(|id| client.submit(insert(&table, id)).unwrap()).collect();
    for ticket in &tickets {
        let done = committed(ticket);
        assert_eq!(done.rows, [1]);
        assert!(!done.found_done);
    }
    let mut there = ids(&table);
    there.sort_unstable();
    assert_eq!(there, (0..1000).collect::<Vec<_>>());
    let status = client.submissions().unwrap();
    assert_eq!((status.submitted, status.committed, status.found_done), (1000, 1000, 0));
    assert_eq!((status.waiting, status.in_flight, status.bytes, status.lanes), (0, 0, 0, 0));
    assert_eq!(status.problem, None);
    assert_eq!(
        client.ticket(tickets[999].id()).unwrap().unwrap().poll().unwrap().unwrap().rows,
        [1]
    );
}

#[test]
fn all_statements_of_one_are_one_transaction() {
    let (client, table) = (client(""), table());
    let sql = format!("INSERT INTO {table} (id) VALUES ($1)");
    let both = Submission::new()
        .statement(&sql, &[&1i64])
        .unwrap()
        .statement(&format!("INSERT INTO {table} (id) SELECT id + $1::int8 FROM {table}"), &[&1i64])
        .unwrap()
        .statement(&format!("SELECT id FROM {table}"), &[])
        .unwrap();
    let done = committed(&client.submit(both).unwrap());
    assert_eq!(done.rows, [1, 1, 2]);
    let half = Submission::new()
        .statement(&sql, &[&3i64])
        .unwrap()
        .statement("SELECT 1 / $1::int4", &[&0i32])
        .unwrap();
    let error = refused(&client.submit(half).unwrap());
    assert_eq!(error.sqlstate(), "22012");
    assert_eq!(ids(&table), [1, 2]);
}

#[test]
fn a_lane_keeps_its_order() {
    let (client, table) = (client(""), table());
    let mut tickets = Vec::new();
    for id in 0..600i64 {
        let lane = format!("lane {}", id % 3);
        // Now and then one that travels alone.
        let mut it = insert(&table, id).lane(lane);
        if id % 50 == 7 {
            it = it.expect_rows(1..=1);
        }
        tickets.push(client.submit(it).unwrap());
    }
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    let there = ids(&table);
    assert_eq!(there.len(), 600);
    for lane in 0..3 {
        let of_lane: Vec<_> = there.iter().filter(|id| **id % 3 == lane).collect();
        assert!(of_lane.is_sorted(), "lane {lane}: {of_lane:?}");
    }
}

/// What makes a later one possible must have been done: a statement cannot be parsed ahead of the
/// table that it needs, and whoever comes behind it in the lane must wait for the second attempt.
#[test]
fn a_lane_keeps_its_order_where_a_statement_cannot_be_prepared_ahead() {
    let (client, name) = (client(""), table());
    let lane = |it: Submission| it.lane("one");
    let create = format!("CREATE TABLE {name}_b (at serial, id int8, note text)");
    let mut tickets =
        vec![client.submit(lane(Submission::new().statement(&create, &[]).unwrap())).unwrap()];
    for id in 0..100 {
        tickets.push(client.submit(lane(insert(&format!("{name}_b"), id))).unwrap());
    }
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    assert_eq!(ids(&format!("{name}_b")), (0..100).collect::<Vec<_>>());
}

#[test]
fn expectations_decide_whether_it_is_committed() {
    let (client, table) = (client(""), table());
    let insert = |id: i64| format!("INSERT INTO {table} (id) VALUES ({id})");
    let update = format!("UPDATE {table} SET note = 'seen' WHERE id = $1");
    let two = |id: i64| {
        Submission::new().statement(&insert(id), &[]).unwrap().statement(&update, &[&1i64]).unwrap()
    };
    let done = committed(&client.submit(two(1).expect_rows(1..=1)).unwrap());
    assert_eq!(done.rows, [1, 1]);
    let error = refused(&client.submit(two(2).expect_rows(2..)).unwrap());
    assert_eq!(error.kind(), ErrorKind::TransactionFailed);
    assert!(error.to_string().contains("statement 2 of the submission has affected 1 rows"));
    let letters = client.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].statement), (1, 1));
    let done = committed(&client.submit(two(3).expect_rows(..2)).unwrap());
    assert_eq!(done.rows, [1, 1]);
    assert_eq!(ids(&table), [1, 3]);
}

/// Between BEGIN and COMMIT a procedure cannot end the transaction that its claim stands in.
#[test]
fn a_procedure_that_commits_inside_is_refused_as_a_whole() {
    let (client, table) = (client(""), table());
    server()
        .execute(&format!(
            "CREATE PROCEDURE p_{table}(early bool) LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO {table} (id) VALUES (1); IF early THEN COMMIT; END IF; \
             INSERT INTO {table} (id) VALUES (2); END $$; \
             GRANT EXECUTE ON PROCEDURE p_{table} TO PUBLIC"
        ))
        .unwrap();
    let call = |early: bool| {
        let sql = format!("CALL p_{table}($1)");
        client.submit(Submission::new().statement(&sql, &[&early]).unwrap()).unwrap()
    };
    assert_eq!(refused(&call(true)).sqlstate(), "2D000");
    assert_eq!(ids(&table), []);
    committed(&call(false));
    assert_eq!(ids(&table), [1, 2]);
}

#[test]
fn a_key_is_executed_once_whoever_hands_it_over() {
    let table = table();
    let (one, other) = (client(""), client(""));
    let first = one.submit(insert(&table, 1).key("order-1")).unwrap();
    let again = one.submit(insert(&table, 1).key("order-1")).unwrap();
    assert_eq!(first.id(), again.id());
    let elsewhere = other.submit(insert(&table, 1).key("order-1")).unwrap();
    assert_eq!(elsewhere.id(), first.id());
    let found: Vec<_> =
        [&first, &again, &elsewhere].iter().map(|ticket| committed(ticket).found_done).collect();
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], found[2], "one of the two clients has executed it");
    assert_eq!(ids(&table), [1]);
    assert_eq!(one.ticket_for_key("order-1").unwrap().unwrap().key(), Some("order-1"));
    assert!(one.ticket_for_key("order-2").unwrap().is_none());
}

/// Two clients at once with the same keys, so that each finds the other's attempt under way.
#[test]
fn the_same_keys_from_two_clients_at_once() {
    let table = table();
    let clients = [client("submit_sessions=4"), client("submit_sessions=4")];
    let prefix = &table;
    std::thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| {
                let tickets: Vec<_> = (0..500)
                    .map(|id| {
                        client.submit(insert(prefix, id).key(format!("{prefix}-{id}"))).unwrap()
                    })
                    .collect();
                tickets.iter().for_each(|ticket| drop(committed(ticket)));
            });
        }
    });
    let mut there = ids(&table);
    there.sort_unstable();
    assert_eq!(there, (0..500).collect::<Vec<_>>());
    let found: u64 = clients.iter().map(|it| it.submissions().unwrap().found_done).sum();
    assert_eq!(found, 500);
}

#[test]
fn conflicts_are_settled_by_trying_again() {
    let (client, table) = (client("submit_sessions=4"), table());
    server().execute(&format!("INSERT INTO {table} (id) VALUES (0)")).unwrap();
    let sql = format!("UPDATE {table} SET id = id + 1");
    let tickets: Vec<_> = (0..200)
        .map(|_| {
            let it = Submission::new()
                .statement("SET LOCAL transaction_isolation = 'read committed'", &[])
                .and_then(|it| it.statement(&sql, &[]))
                .unwrap();
            client.submit(it).unwrap()
        })
        .collect();
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    assert_eq!(ids(&table), [200]);
}

#[test]
fn callbacks_and_waits_hear_of_it() {
    let (client, table) = (client(""), table());
    let (sender, receiver) = channel();
    let ticket = client.submit(insert(&table, 1)).unwrap();
    ticket.on_done(move |outcome| sender.send(outcome.as_ref().unwrap().rows.clone()).unwrap());
    assert_eq!(receiver.recv_timeout(crate::harness::LONG).unwrap(), [1]);
    assert_eq!(ticket.wait(Duration::ZERO).unwrap().unwrap().rows, [1]);
}

/// A callback may hold the last handle of its client.
#[test]
fn a_client_may_end_in_a_callback() {
    let (client, table) = (client(""), table());
    let ticket = client.submit(insert(&table, 1)).unwrap();
    let waiting = ticket.clone();
    let (sender, receiver) = channel::<()>();
    ticket.on_done(move |_| drop((client, sender)));
    committed(&waiting);
    within("closing", move || receiver.recv().unwrap_err());
}

#[test]
fn with_little_room_handing_over_waits() {
    let table = table();
    let client = client("submit_queue_max=10 failover_timeout_ms=30000");
    // Nothing moves while somebody holds this lock.
    let mut holder = crate::harness::client("").session().unwrap();
    holder.batch(&format!("BEGIN; LOCK TABLE {table}")).unwrap();
    let mut tickets = Vec::new();
    let error = loop {
        match client.try_submit(insert(&table, tickets.len() as i64)) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), tickets.len()), (ErrorKind::Limit, 10));
    // Not for the half minute that is the client's own patience.
    let refused = within("waiting a little", {
        let (client, table) = (client.clone(), table.clone());
        move || client.submit_within(insert(&table, 10), Duration::from_millis(20))
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Limit);
    let waiting = {
        let (client, table) = (client.clone(), table.clone());
        std::thread::spawn(move || client.submit(insert(&table, 10)).unwrap())
    };
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished(), "there is no room");
    holder.batch("COMMIT").unwrap();
    tickets.push(waiting.join().unwrap());
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    let mut there = ids(&table);
    there.sort_unstable();
    assert_eq!(there, (0..=10).collect::<Vec<_>>());
}

#[test]
fn handing_over_more_than_there_can_be_room_for_is_refused() {
    let (client, table) = (client("journal_bytes_max=4096"), table());
    let large = Submission::new()
        .statement(&format!("INSERT INTO {table} (note) VALUES ($1)"), &[&"x".repeat(5000)])
        .unwrap();
    assert_eq!(client.submit(large).unwrap_err().kind(), ErrorKind::Limit);
    committed(&client.submit(insert(&table, 1)).unwrap());
}

#[test]
fn the_backups_word_is_waited_for_where_that_is_asked_for() {
    let (client, table) = (client("commit_ack=backup"), table());
    let tickets: Vec<_> = (0..300)
        .map(|id| {
            let mut it = insert(&table, id).lane("a");
            if id % 100 == 50 {
                it = it.expect_rows(1..=1);
            }
            client.submit(it).unwrap()
        })
        .collect();
    // There is no backup: as for sessions, the primary's word is enough then.
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    assert_eq!(ids(&table), (0..300).collect::<Vec<_>>());
}

/// The hardened ledger grants functions alone; a role without rights makes submissions wait, and says
/// why.
#[test]
fn the_ledger_of_submissions_is_set_up_as_the_ledger_is() {
    let cluster = segue_testkit::Cluster::builder().standbys(0).start().unwrap();
    let server = cluster.server(0);
    crate::harness::make_table(server, "t");
    server.execute("CREATE ROLE plain LOGIN").unwrap();
    server.execute("REVOKE CREATE ON DATABASE postgres FROM PUBLIC").unwrap();
    let conninfo = cluster.conninfo();
    let user = conninfo.split(' ').find(|it| it.starts_with("user=")).unwrap().to_owned();
    let plain = Client::connect(&conninfo.replace(&user, "user=plain")).unwrap();
    let ticket = plain.submit(insert("t", 1)).unwrap();
    eventually("the problem", || plain.submissions().unwrap().problem.is_some());
    let problem = plain.submissions().unwrap().problem.unwrap();
    assert!(problem.contains("segue setup"), "{problem}");
    assert_eq!(ticket.poll().unwrap(), None);
    let owner = Client::connect(&conninfo).unwrap();
    let hardened = segue::client::SetupOptions::default().hardened(true);
    owner.setup(&hardened).unwrap();
    assert_eq!(committed(&ticket).rows, [1]);
    assert_eq!(plain.submissions().unwrap().problem, None);
    let error = plain
        .session()
        .unwrap()
        .execute("INSERT INTO segue.submission VALUES ($1)", &[&ticket.id()]);
    assert_eq!(error.unwrap_err().sqlstate(), "42501");
    // In a lane the claim goes through the other function.
    let tickets: Vec<_> =
        (2..50).map(|id| plain.submit(insert("t", id).lane("a")).unwrap()).collect();
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    assert_eq!(crate::harness::ids_on(server, "t"), (1..50).collect::<Vec<_>>());
    assert_eq!(server.value("SELECT segue.purge_submissions('1 day')").unwrap(), "0");
    assert_eq!(server.value("SELECT segue.purge_submissions('-1 day')").unwrap(), "49");
    drop(plain);
    owner.remove_ledger().unwrap();
    let left = server.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'segue'").unwrap();
    assert_eq!(left, "0");
}

/// A row that came in two pieces was waited for without reading on: its session spun, and everything
/// behind it stood still.
#[test]
fn rows_larger_than_one_read_do_not_stop_the_session() {
    let client = client("submit_sessions=1");
    let long = "x".repeat(300_000);
    let tickets: Vec<Ticket> = (0..40)
        .map(|_| {
            let it = Submission::new().statement("SELECT $1::text", &[&long.as_str()]).unwrap();
            client.submit(it).unwrap()
        })
        .collect();
    for ticket in &tickets {
        assert_eq!(committed(ticket).rows, [1]);
    }
}
