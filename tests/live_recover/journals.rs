//! What is kept, what is forgotten, and journals that cannot be read as they were written.

use segue::Verdict::{Committed, NeverSent, NotCommitted, Unknown};
use segue::journal::{Fate, Key};
use segue::{Client, ClientEvent, ErrorKind};

use crate::harness::{
    INSERT, Past, commit, flip, name, only, open_row, server, shared, system_identifier, verdicts,
};

/// How many transactions a callback that is put in place now is told of.
fn told(client: &Client) -> Vec<usize> {
    let (sender, receiver) = std::sync::mpsc::channel();
    drop(client.on_event(move |event| {
        if let ClientEvent::TransactionsFound { count } = event {
            let _ = sender.send(*count);
        }
    }));
    receiver.iter().collect()
}

#[test]
fn what_is_done_is_forgotten_and_the_rest_is_found_again() {
    let mut past = Past::new();
    let row = open_row(server());
    commit(server(), &name(), row, 1);
    let first = past.sent(past.began(false), row, 1).number();
    past.sent(past.began(false), row, 2);
    let third = past.statement(past.began(false), INSERT, &[Some(b"x")]).number();
    past.leave();

    let client = past.client("");
    assert_eq!((told(&client), told(&client)), (vec![3], vec![]), "told once");
    let found = client.recover().unwrap();
    assert_eq!(verdicts(&found), [Committed, NotCommitted, NeverSent]);
    found[1].done().unwrap();
    found[1].done().unwrap();
    drop(found);
    let numbers = |client: &Client| -> Vec<u64> {
        client.recover().unwrap().iter().map(|it| it.number()).collect()
    };
    assert_eq!(numbers(&client), [first, third], "within the same process");
    drop(client);
    let client = past.client("");
    assert_eq!(told(&client), [2]);
    assert_eq!(numbers(&client), [first, third], "by the next one");
    for it in client.recover().unwrap() {
        it.done().unwrap();
    }
    assert!(numbers(&client).is_empty());
    drop(client);
    let client = past.client("");
    assert!(numbers(&client).is_empty() && told(&client).is_empty());
}

/// What is found while the client works on is what the earlier process has left, and nothing else; and
/// its files stay readable while the journal goes on.
#[test]
fn the_journal_goes_on_meanwhile() {
    let mut past = Past::new();
    let owner = past.statement(past.began(false), INSERT, &[Some(b"kept")]);
    let number = owner.number();
    past.leave();
    server()
        .execute("CREATE TABLE IF NOT EXISTS busy (id int8); GRANT ALL ON busy TO PUBLIC")
        .unwrap();
    let client = past.client("journal_bytes_max=1048576");
    let found = client.recover().unwrap();
    let note = "n".repeat(20_000);
    let submit = |ids: std::ops::Range<i64>| {
        for id in ids {
            let sql = "INSERT INTO busy SELECT $1 WHERE $2 <> ''";
            let it = segue::Submission::new().statement(sql, &[&id, &note.as_str()]).unwrap();
            client.submit(it).unwrap();
        }
    };
    submit(0..15);
    let text = only(found).statements().next().unwrap().unwrap();
    assert_eq!(text.parameters[0].as_deref(), Some(&b"kept"[..]));
    // Nothing is read from the files any more: they are copied forward and removed.
    submit(15..150);
    let found = only(client.recover().unwrap());
    assert_eq!(found.number(), number);
    let text = found.statements().next().unwrap().unwrap();
    assert_eq!(text.parameters[0].as_deref(), Some(&b"kept"[..]));
}

#[test]
fn a_wrong_key_is_told_and_the_right_one_opens() {
    let hex = |byte: &str| byte.repeat(32);
    let key = Key::from_hex(&hex("0a")).unwrap();
    let mut past = Past::with(shared().conninfo(), system_identifier(server()), Some(key));
    let row = open_row(server());
    past.sent(past.began(false), row, 1);
    past.leave();
    let connect = |key: &str| {
        Client::connect(&format!(
            "{} journal=file journal_dir={} {key}",
            past.conninfo,
            past.path().display()
        ))
    };
    for (key, reason) in [
        (format!("journal_key={}", hex("0b")), "journal_wrong_key"),
        (String::new(), "journal_key_needed"),
    ] {
        let error = connect(&key).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(reason), "{error}");
    }
    let client = connect(&format!("journal_key={}", hex("0a"))).unwrap();
    assert_eq!(only(client.recover().unwrap()).verdict(), NotCommitted);
}

#[test]
fn one_process_at_a_time() {
    let mut past = Past::new();
    past.sent(past.began(false), open_row(server()), 1);
    past.leave();
    let client = past.client("");
    let second = Client::connect(&format!(
        "{} application_name=second journal=file journal_dir={}",
        past.conninfo,
        past.path().display()
    ));
    let error = second.map(drop).unwrap_err();
    assert!(error.to_string().contains("journal_locked"), "{error}");
    drop(client);
    assert_eq!(only(past.client("").recover().unwrap()).verdict(), NotCommitted);
}

/// Flips a bit of a record in the middle: what may be missing there is not believed to be whole.
#[test]
fn damage_makes_doubtful_what_it_concerns() {
    let mut past = Past::new();
    let row = open_row(server());
    let id = name();
    commit(server(), &id, row, 1);
    let mark = b"to be damaged";
    let never = past.statement(past.began(false), INSERT, &[Some(mark)]);
    let never = past.statement(never, INSERT, &[Some(b"whole")]);
    let committed = past.statement(past.began(false), INSERT, &[Some(mark)]);
    let committed = past.sent(committed, row, 1);
    let lost = past.sent(past.statement(past.began(false), INSERT, &[Some(mark)]), row, 2);
    let known =
        past.known(past.statement(past.began(false), INSERT, &[Some(mark)]), Fate::Committed);
    let failed =
        past.known(past.statement(past.began(false), INSERT, &[Some(mark)]), Fate::NotCommitted);
    let whole = past.statement(past.began(false), INSERT, &[Some(b"whole")]);
    // Whoever is behind it on the disk proves that it was there.
    let numbers = [never, committed, lost, known, failed, whole].map(|owner| owner.number());
    past.leave();
    flip(&past, mark);

    let found = past.client("").recover().unwrap();
    let told: Vec<u64> = found.iter().map(|it| it.number()).collect();
    assert_eq!(told, numbers);
    let expected = [Unknown, Committed, Unknown, Committed, Unknown, NeverSent];
    assert_eq!(verdicts(&found), expected, "{found:?}");
    for it in &found[..5] {
        assert!(it.is_doubtful());
    }
    assert!(!found[5].is_doubtful());
    assert!(found[0].reason().unwrap().contains("damaged"));
    // The rest of it can be read.
    let left: Vec<_> = found[0].statements().map(Result::unwrap).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].parameters[0].as_deref(), Some(&b"whole"[..]));
    drop(found);
    let again = past.client("").recover().unwrap();
    assert_eq!(verdicts(&again), expected, "the doubt is on record");
}
