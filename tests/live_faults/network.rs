//! Networks that swallow, cut, delay and garble, and servers that never come back.

use std::io::Write;
use std::time::{Duration, Instant};

use segue::{ErrorKind, Outcome};
use segue_testkit::proxy::{Accept, Action, Direction, Flow};

use crate::harness::{LONG, Stand, eventually, within};

/// What a server that has gone mad may send in place of a reply.
const GARBAGE: &[(&str, &[u8])] = &[
    ("no protocol at all", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ("an unknown message", b"~\0\0\0\x04"),
    ("a length below the least", b"D\0\0\0\x01"),
    ("a huge length", b"D\x7f\xff\xff\xff"),
    ("a negative length", b"D\xff\xff\xff\xff"),
    ("a row with more columns than bytes", b"D\0\0\0\x06\x00\x7f"),
    ("a row of another shape", b"D\0\0\0\x06\0\0"),
    ("ReadyForQuery without a status", b"Z\0\0\0\x04"),
    ("ReadyForQuery too early", b"Z\0\0\0\x05I"),
    ("a tag without an end", b"C\0\0\0\x05x"),
    ("an error without fields", b"E\0\0\0\x04"),
    ("a COPY that nobody began", b"d\0\0\0\x05x"),
    ("zeroes", &[0; 64]),
];

/// The reply to a statement is replaced by garbage: the link is closed, the statement repeated.
#[test]
fn garbage_is_the_loss_of_the_link() {
    let stand = Stand::new();
    let mut session = stand.session();
    let mut id = 0i64;
    for (what, bytes) in GARBAGE {
        for explicit in [false, true] {
            id += 1;
            let bytes = bytes.to_vec();
            stand.proxy.on_client_message(
                |message| message.runs("SELECT 4711"),
                Action::run(move |connection| {
                    connection.set_flow(Direction::ToClient, Some(Flow::Stall));
                    connection.inject(Direction::ToClient, &bytes);
                    // What hangs in mid-message is ended by the loss of the link.
                    let connection = connection.clone();
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(100));
                        connection.reset(segue_testkit::proxy::Side::Both);
                    });
                }),
            );
            let insert = stand.sql("INSERT INTO $T VALUES ($1)");
            if explicit {
                let mut tx = session.transaction().unwrap();
                tx.execute(&insert, &[&id]).unwrap();
                let row = tx.query_one("SELECT 4711", &[]).unwrap();
                assert_eq!(row.get::<i32>(0).unwrap(), 4711, "{what}");
                tx.commit().unwrap();
            } else {
                let row = session.query_one("SELECT 4711", &[]).unwrap();
                assert_eq!(row.get::<i32>(0).unwrap(), 4711, "{what}");
                session.execute(&insert, &[&id]).unwrap();
            }
            assert_eq!(stand.content().get(&id), Some(&1), "{what}, explicit {explicit}");
        }
    }
}

/// Any byte of a reply may be damaged: never a panic, never a hang, never applied twice. (A damaged
/// value cannot be told from a sound one without TLS.)
#[test]
fn any_byte_may_be_damaged() {
    within(LONG * 2, "the session", || {
        let stand =
            Stand::with("poll_interval_ms=30000 failover_timeout_ms=5000 tcp_user_timeout=2000");
        for offset in 0..60 {
            let mut session = stand.session();
            let insert = stand.sql("INSERT INTO $T VALUES ($1) RETURNING id");
            session.query(&insert, &[&(1000 + offset)]).unwrap();
            stand.proxy.on_client_message(
                |message| message.runs("RETURNING id"),
                Action::run(move |connection| {
                    connection.corrupt_next(Direction::ToClient, offset as usize);
                    let connection = connection.clone();
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(50));
                        connection.reset(segue_testkit::proxy::Side::Both);
                    });
                }),
            );
            let result = session.query(&insert, &[&offset]);
            let there = stand.content().get(&offset).copied().unwrap_or(0);
            assert!(there <= 1, "offset {offset}: applied {there} times, told {result:?}");
            if result.is_ok() {
                assert_eq!(there, 1, "offset {offset}: {result:?}");
            }
        }
    });
}

#[test]
fn half_closed_links() {
    let stand = Stand::new();
    let mut session = stand.session();
    let insert = stand.sql("INSERT INTO $T VALUES ($1)");
    let mut id = 0i64;
    for direction in [Direction::ToClient, Direction::ToServer] {
        for _ in 0..3 {
            session.execute(&insert, &[&id]).unwrap();
            id += 1;
            stand.proxy.connections().iter().for_each(|c| c.half_close(direction));
            // The statement may have arrived, and its reply not.
            let result = session.execute(&insert, &[&id]);
            assert!(result.as_ref().err().is_none_or(segue::Error::maybe_committed), "{result:?}");
            id += 1;
            let mut tx = session.transaction().unwrap();
            tx.execute(&insert, &[&id]).unwrap();
            stand.proxy.connections().iter().for_each(|c| c.half_close(direction));
            tx.execute(&insert, &[&(id + 1)]).unwrap();
            tx.commit().unwrap();
            id += 2;
        }
    }
    let content = stand.content();
    assert!(content.len() as i64 == id && content.values().all(|n| *n == 1), "{content:?}");
}

/// No server at all: every call ends within the time that was allowed, and says what stands.
#[test]
fn no_server_comes_back() {
    for (what, accept) in [("refused", Accept::Refuse), ("silent", Accept::Silent)] {
        for state in ["idle", "open", "commit", "autocommit", "stream", "pipeline"] {
            within(LONG, &format!("{what}, {state}"), move || {
                let stand = Stand::with("failover_timeout_ms=600 connect_timeout_ms=300");
                let mut session = stand.session();
                let insert = stand.sql("INSERT INTO $T VALUES ($1)");
                session.execute(&insert, &[&0i64]).unwrap();
                let vanish = |stand: &Stand| {
                    stand.proxy.set_accept(accept).unwrap();
                    stand.cut();
                };
                let mut began = Instant::now();
                let mut unknown = false;
                let result = match state {
                    "idle" => {
                        vanish(&stand);
                        session.query("SELECT 1", &[]).map(drop)
                    }
                    "open" => {
                        let mut tx = session.transaction().unwrap();
                        tx.execute(&insert, &[&1i64]).unwrap();
                        vanish(&stand);
                        began = Instant::now();
                        let result = tx.execute(&insert, &[&2i64]).map(drop);
                        let error = tx.commit().unwrap_err();
                        assert_eq!(error.outcome(), Outcome::NotCommitted);
                        assert!(!session.status().in_transaction);
                        result
                    }
                    "stream" => {
                        let sql = "SELECT g FROM generate_series(1, 300000) g";
                        let mut stream = session.query_stream(sql, &[]).unwrap();
                        stream.next_row().unwrap();
                        vanish(&stand);
                        loop {
                            match stream.next_row() {
                                Ok(Some(_)) => {}
                                Ok(None) => panic!("the stream ended as if all were well"),
                                Err(error) => break Err(error),
                            }
                        }
                    }
                    "pipeline" => {
                        let mut pipeline = session.pipeline();
                        vanish(&stand);
                        let added = (3..300i64).try_for_each(|id| pipeline.add(&insert, &[&id]));
                        match (added, pipeline.finish()) {
                            (Err(error), _) => Err(error),
                            (_, Err(error)) => Err(error),
                            (_, Ok(mut results)) => results.remove(0).map(drop),
                        }
                    }
                    _ => {
                        unknown = true;
                        let proxy_accept = accept;
                        stand.proxy.set_accept(proxy_accept).unwrap();
                        stand.at_commit(Action::ForwardThenReset);
                        if state == "commit" {
                            let mut tx = session.transaction().unwrap();
                            tx.execute(&insert, &[&1i64]).unwrap();
                            began = Instant::now();
                            tx.commit()
                        } else {
                            session.execute(&insert, &[&1i64]).map(drop)
                        }
                    }
                };
                let took = began.elapsed();
                let error = result.unwrap_err();
                assert!(took < Duration::from_secs(6), "{what}, {state}: took {took:?}");
                if unknown {
                    assert_eq!(error.outcome(), Outcome::Unknown, "{what}, {state}: {error:?}");
                } else if state != "pipeline" {
                    assert_eq!(
                        error.outcome(),
                        Outcome::NotCommitted,
                        "{what}, {state}: {error:?}"
                    );
                    assert_eq!(error.kind(), ErrorKind::FailoverTimeout, "{what}, {state}");
                }
                stand.proxy.set_accept(Accept::Forward).unwrap();
                eventually("another server", || session.execute(&insert, &[&9i64]).is_ok());
                assert_eq!(stand.content().get(&9), Some(&1), "{what}, {state}");
                assert_eq!(stand.content().get(&2), None, "{what}, {state}");
            });
        }
    }
}

/// A session dropped in any state leaves nothing behind on the server but what was committed.
#[test]
fn sessions_dropped_in_any_state() {
    within(LONG, "dropping", || {
        let stand = Stand::with("failover_timeout_ms=500");
        for lost in [false, true] {
            for state in 0..6 {
                let mut session = stand.session();
                let insert = stand.sql("INSERT INTO $T VALUES ($1)");
                if state > 0 {
                    session.execute("BEGIN", &[]).unwrap();
                }
                if state > 1 {
                    session.execute(&insert, &[&1i64]).unwrap();
                }
                if lost {
                    stand.cut();
                }
                match state {
                    3 => {
                        let mut copy = session.copy_in(&stand.sql("COPY $T FROM STDIN")).unwrap();
                        let _ = copy.write_all(b"2\tx\n");
                        if lost {
                            stand.cut();
                        }
                    }
                    4 => {
                        let mut pipeline = session.pipeline();
                        pipeline.add(&insert, &[&3i64]).unwrap();
                        if lost {
                            stand.cut();
                        }
                    }
                    5 => {
                        let sql = "SELECT g FROM generate_series(1, 20000) g";
                        let mut stream = session.query_stream(sql, &[]).unwrap();
                        stream.next_row().unwrap();
                        if lost {
                            stand.cut();
                        }
                    }
                    _ => {}
                }
                drop(session);
            }
        }
        assert!(stand.content().is_empty(), "{:?}", stand.content());
        let table = stand.table.clone();
        let locks =
            format!("SELECT count(*) = 0 FROM pg_locks WHERE relation = '{table}'::regclass");
        crate::harness::server().wait_until(&locks, LONG).unwrap();
    });
}
