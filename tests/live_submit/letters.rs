//! Dead letters: what can never succeed ends there, and only there.

use std::sync::mpsc::channel;

use segue::{Client, ClientEvent, ErrorKind, Outcome, Submission};

use crate::harness::{LONG, client, committed, ids, insert, refused, server, table};

fn unique(table: &str) {
    server().execute(&format!("ALTER TABLE {table} ADD UNIQUE (id)")).unwrap();
}

#[test]
fn poison_ends_as_a_dead_letter_and_its_lane_goes_on() {
    let (client, table) = (client(""), table());
    unique(&table);
    let mut tickets = Vec::new();
    for id in 0..100 {
        tickets.push(client.submit(insert(&table, id).lane("a")).unwrap());
        if id == 50 {
            tickets.push(client.submit(insert(&table, 20).lane("a")).unwrap());
        }
    }
    let poison = tickets.remove(51);
    tickets.iter().for_each(|ticket| drop(committed(ticket)));
    let error = refused(&poison);
    assert_eq!((error.sqlstate(), error.outcome()), ("23505", Outcome::NotCommitted));
    assert_eq!(ids(&table), (0..100).collect::<Vec<_>>());
    let letters = client.dead_letters().unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.id, letter.sqlstate.as_str(), letter.statement), (poison.id(), "23505", 0));
    assert_eq!(letter.lane.as_deref(), Some("a"));
    assert!(letter.detail.as_deref().unwrap().contains("20"), "{:?}", letter.detail);
    assert!(!format!("{letter:?}").contains("(20)"), "values are not shown");
    // Once its cause is gone it succeeds.
    server().execute(&format!("DELETE FROM {table} WHERE id = 20")).unwrap();
    let again = client.retry_dead_letter(poison.id()).unwrap();
    assert_eq!(committed(&again).rows, [1]);
    assert_eq!(committed(&poison).rows, [1], "it is the same ticket");
    assert!(client.dead_letters().unwrap().is_empty());
    let error = client.retry_dead_letter(poison.id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn a_dead_letter_is_told_of() {
    let (client, table) = (client(""), table());
    unique(&table);
    let (sender, receiver) = channel();
    let subscription = client.on_event(move |event| {
        if let ClientEvent::SubmissionDied { .. } = event {
            drop(sender.send(event.clone()));
        }
    });
    committed(&client.submit(insert(&table, 1)).unwrap());
    let poison = client.submit(insert(&table, 1).key(format!("{table} poison"))).unwrap();
    refused(&poison);
    let Ok(ClientEvent::SubmissionDied { id, key, sqlstate, message }) =
        receiver.recv_timeout(LONG)
    else {
        panic!("nothing is told");
    };
    assert_eq!((id, key.as_deref(), sqlstate.as_str()), (poison.id(), poison.key(), "23505"));
    assert!(message.contains("duplicate key"), "{message}");
    drop(subscription);
    assert!(receiver.recv().is_err(), "only once, and nothing of what was committed");
}

#[test]
fn a_lane_that_is_to_stop_stops() {
    let (client, table) = (client(""), table());
    unique(&table);
    let lane = |id| insert(&table, id).lane("a").stop_on_failure(true);
    let first: Vec<_> = (0..10).map(|id| client.submit(lane(id)).unwrap()).collect();
    let poison = client.submit(lane(5)).unwrap();
    let behind: Vec<_> = (10..20).map(|id| client.submit(lane(id)).unwrap()).collect();
    first.iter().for_each(|ticket| drop(committed(ticket)));
    assert_eq!(refused(&poison).sqlstate(), "23505");
    // Another lane is not held up.
    committed(&client.submit(insert(&table, 100).lane("b")).unwrap());
    assert!(behind.iter().all(|ticket| ticket.poll().unwrap().is_none()));
    let status = client.submissions().unwrap();
    assert_eq!((status.lanes_stopped, status.waiting, status.dead_letters), (1, 10, 1));
    // Retried in vain, it stops the lane again.
    client.retry_dead_letter(poison.id()).unwrap();
    assert_eq!(refused(&poison).sqlstate(), "23505");
    assert!(behind.iter().all(|ticket| ticket.poll().unwrap().is_none()));
    client.purge_dead_letter(poison.id()).unwrap();
    behind.iter().for_each(|ticket| drop(committed(ticket)));
    let mut expected: Vec<i64> = (0..10).collect();
    expected.push(100);
    expected.extend(10..20);
    assert_eq!(ids(&table), expected);
    assert_eq!(client.submissions().unwrap().lanes, 0);
}

/// What no server takes is a dead letter too: it must not be tried for ever.
#[test]
fn every_refusal_of_a_server_ends_as_a_dead_letter() {
    let client = client("");
    let cases: [(&str, &str); 6] = [
        ("SELEC 1", "42601"),
        ("SELECT * FROM no_such_table", "42P01"),
        ("SELECT $1::int4 + $2::int4", "08P01"),
        ("VACUUM", "25001"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'SG003'; END $$", "SG003"),
        ("UPDATE pg_catalog.pg_class SET relname = 'a'", "42501"),
    ];
    for (sql, expected) in cases.iter().take(5) {
        let Ok(it) = Submission::new().statement(sql, &[]) else {
            panic!("{sql} is refused here");
        };
        let error = refused(&client.submit(it.lane("a")).unwrap());
        assert_eq!(error.sqlstate(), *expected, "{sql}");
    }
    // A deferred constraint speaks up last.
    let table = table();
    server()
        .execute(&format!("ALTER TABLE {table} ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED"))
        .unwrap();
    for alone in [false, true] {
        let mut it = insert(&table, 1)
            .statement(&format!("INSERT INTO {table} (id) VALUES (1)"), &[])
            .unwrap();
        if alone {
            it = it.expect_rows(1..);
        }
        assert_eq!(refused(&client.submit(it).unwrap()).sqlstate(), "23505");
    }
    assert_eq!(client.dead_letters().unwrap().len(), 7);
    assert_eq!(ids(&table), []);
}

#[test]
fn rows_that_are_expected_of_no_statement_are_refused() {
    let (client, table) = (client(""), table());
    let insert = format!("INSERT INTO {table} (id) VALUES (1)");
    let early = Submission::new().expect_rows(1..=1).statement(&insert, &[]).unwrap();
    let error = client.submit(early).unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Usage, Outcome::NotCommitted));
    assert!(error.to_string().contains("ahead of any statement"), "{error}");
    assert_eq!(client.submissions().unwrap().submitted, 0);
}

/// A dead letter, and a lane that it has stopped, outlive the client.
#[test]
fn dead_letters_outlive_the_client() {
    let table = table();
    unique(&table);
    let dir = tempfile::tempdir().unwrap();
    let journal = format!("journal=file journal_dir={}", dir.path().join("j").display());
    let lane = |id| insert(&table, id).lane("a").stop_on_failure(true);
    let conninfo = |_: ()| format!("{} {journal}", server().conninfo());
    let client = Client::connect(&conninfo(())).unwrap();
    committed(&client.submit(lane(1)).unwrap());
    let poison = client.submit(lane(1)).unwrap();
    let behind = client.submit(lane(2).key(format!("behind {table}"))).unwrap();
    let told = refused(&poison);
    let id = poison.id();
    drop(client);
    assert_eq!(refused(&poison).sqlstate(), "23505", "what is known stays known");
    assert_eq!(refused(&behind).kind(), ErrorKind::Closed);
    let client = Client::connect(&conninfo(())).unwrap();
    let letters = client.dead_letters().unwrap();
    assert_eq!((letters.len(), letters[0].id, letters[0].sqlstate.as_str()), (1, id, "23505"));
    assert_eq!(letters[0].statements.len(), 1);
    // Field by field as the server has sent it.
    assert_eq!(letters[0].error.server_error(), told.server_error());
    let server_error = letters[0].error.server_error().unwrap();
    let names = (&server_error.table, &server_error.constraint, &server_error.schema);
    assert_eq!(names.0.as_deref(), Some(&*table));
    assert!(names.1.is_some() && names.2.as_deref() == Some("public"), "{names:?}");
    assert!(server_error.routine.is_some() && server_error.line.is_some());
    assert_eq!(refused(&client.ticket(id).unwrap().unwrap()).sqlstate(), "23505");
    let behind = client.ticket_for_key(&format!("behind {table}")).unwrap().unwrap();
    assert_eq!(behind.poll().unwrap(), None);
    server().execute(&format!("DELETE FROM {table}")).unwrap();
    committed(&client.retry_dead_letter(id).unwrap());
    committed(&behind);
    assert_eq!(ids(&table), [1, 2]);
    drop(client);
    let client = Client::connect(&conninfo(())).unwrap();
    assert!(client.dead_letters().unwrap().is_empty());
    assert_eq!(client.submissions().unwrap().recovered, 0, "what has ended is forgotten");
}
