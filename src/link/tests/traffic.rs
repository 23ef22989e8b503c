//! Traffic once the link stands: large exchanges, deadlines, waking, cancelling, ends.

use std::io;
use std::sync::mpsc;

use super::certs::Authority;
use super::server::Server;
use super::*;
use crate::link::{cancel, cancel_blocking};

/// A server, and the ways to reach it: Unix socket, TCP, TLS.
fn everywhere() -> (Server, Authority, Vec<(&'static str, Config, Host)>) {
    let authority = Authority::new();
    let pair = authority.issue("good", "server", None);
    let files = [("server.crt", pair.cert.as_path()), ("server.key", pair.key.as_path())];
    let server = Server::start("host all all 127.0.0.1/32 trust", "ssl=on", &files);
    let mut encrypted = config("postgres");
    encrypted.tls.mode = SslMode::VerifyFull;
    encrypted.tls.root_cert = RootCert::File(authority.root());
    let ways = vec![
        ("unix", config("postgres"), server.unix()),
        ("tcp", config("postgres"), server.tcp()),
        ("tls", encrypted, named("db.test", server.port)),
    ];
    (server, authority, ways)
}

/// Runs `work` in a thread of its own and fails where it hangs.
fn bounded<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = work();
        let _ = sender.send(());
        result
    });
    // A panic in the thread drops the sender; joining then shows the panic.
    if let Err(mpsc::RecvTimeoutError::Timeout) = receiver.recv_timeout(2 * PATIENCE) {
        panic!("{what} hangs");
    }
    thread.join().unwrap()
}

#[test]
fn fifty_megabytes_each_way_do_not_lock_up() {
    let (_server, _authority, ways) = everywhere();
    for (way, config, host) in ways {
        bounded(way, move || {
            let mut link = dial(&config, &host).unwrap();
            // 50 statements of 1 MB, each with a result of 1 MB, sent before any is read.
            let payload = "x".repeat(1 << 20);
            let mut bytes = BytesMut::new();
            for _ in 0..50 {
                bytes.extend_from_slice(&query_bytes(&format!("SELECT '{payload}'")));
            }
            let mut buf = BytesMut::new();
            link.exchange(&bytes, &mut buf).unwrap();
            for i in 0..50 {
                let rows = reply(&mut buf, |buf| link.recv(buf).unwrap()).unwrap();
                assert!(rows == [payload.as_str()], "{way}: result {i}");
            }
            assert!(buf.is_empty());
            // And back to small ones.
            let mut buf = BytesMut::new();
            link.exchange(&query_bytes("SELECT 7"), &mut buf).unwrap();
            assert_eq!(reply(&mut buf, |buf| link.recv(buf).unwrap()).unwrap(), ["7"]);
            link.close();
        });
    }
}

#[test]
fn the_asynchronous_side_talks_too_and_hands_over_mid_reply() {
    let (_server, _authority, ways) = everywhere();
    for (way, config, host) in ways {
        let mut buf = BytesMut::new();
        let mut link = block_on(async {
            let mut link = AsyncLink::dial(&config, &host).await.unwrap();
            link.send(&query_bytes("SELECT 1")).await.unwrap();
            loop {
                assert!(link.recv(&mut buf).await.unwrap() > 0);
                if buf.ends_with(b"Z\0\0\0\x05I") {
                    break;
                }
            }
            assert_eq!(reply(&mut buf, |_| 0).unwrap(), ["1"]);
            // A receive that is given up loses nothing.
            let sql = "SELECT repeat('y', 3000000) FROM pg_sleep(0.05)";
            link.send(&query_bytes(sql)).await.unwrap();
            while buf.is_empty() {
                let short = Duration::from_millis(1);
                let _ = tokio::time::timeout(short, link.recv(&mut buf)).await;
            }
            link.into_blocking().unwrap()
        });
        let rows = reply(&mut buf, |buf| link.recv(buf).unwrap()).unwrap();
        assert!(rows == ["y".repeat(3_000_000)], "{way}");
        assert_eq!(query(&mut link, "SELECT 2").unwrap(), ["2"]);
    }
}

#[test]
fn deadlines_and_looking_without_waiting() {
    let (_server, _authority, ways) = everywhere();
    for (_, config, host) in ways {
        let mut link = dial(&config, &host).unwrap();
        let mut buf = BytesMut::new();
        assert_eq!(link.try_recv(&mut buf).unwrap(), None);
        let started = Instant::now();
        let error = link.recv_deadline(&mut buf, started + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= Duration::from_millis(50));
        // A deadline that has passed still takes what is there.
        link.send(&query_bytes("SELECT 3")).unwrap();
        let rows = reply(&mut buf, |buf| {
            loop {
                match link.recv_deadline(buf, started) {
                    Ok(n) => return n,
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::TimedOut),
                }
                assert!(started.elapsed() < PATIENCE);
            }
        });
        assert_eq!(rows.unwrap(), ["3"]);
    }
}

#[test]
fn waking_ends_a_blocked_read() {
    let (_server, _authority, ways) = everywhere();
    for (way, config, host) in ways {
        let mut link = dial(&config, &host).unwrap();
        let waker = link.waker();
        link.send(&query_bytes("SELECT pg_sleep(3600)")).unwrap();
        let (started, blocked) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            started.send(()).unwrap();
            let mut buf = BytesMut::new();
            let end = link.recv(&mut buf);
            (link, end)
        });
        blocked.recv().unwrap();
        // Whether it blocks already or is about to, the read must end.
        waker.shut_down();
        let (link, end) = bounded(way, move || reader.join().unwrap());
        assert_eq!(end.unwrap(), 0, "{way}");
        assert!(waker.hold().is_some());
        drop(link);
        assert!(waker.hold().is_none(), "a waker does not keep a link open");
        waker.clone().shut_down();
    }
}

#[test]
fn cancelling_ends_a_statement() {
    let (server, _authority, ways) = everywhere();
    for (way, config, host) in ways {
        for blocking in [true, false] {
            let mut link = dial(&config, &host).unwrap();
            let info = link.info().clone();
            assert!(!format!("{info:?} {link:?}").contains(&format!("{:?}", info.cancel_key)));
            link.send(&query_bytes("SELECT pg_sleep(3600)")).unwrap();
            let asleep = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'",
                info.backend_pid
            );
            let deadline = Instant::now() + PATIENCE;
            while server.execute(&asleep) != ["1"] {
                assert!(Instant::now() < deadline, "{way}: not asleep");
            }
            if blocking {
                // Also where a runtime is at work already.
                block_on(async { cancel_blocking(&config, &host, &info) }).unwrap();
            } else {
                block_on(cancel(&config, &host, &info)).unwrap();
            }
            let deadline = Instant::now() + PATIENCE;
            let mut buf = BytesMut::new();
            let error =
                reply(&mut buf, |buf| link.recv_deadline(buf, deadline).unwrap()).unwrap_err();
            assert_eq!(error.code, "57014", "{way}");
            assert_eq!(query(&mut link, "SELECT 4").unwrap(), ["4"]);
        }
    }
}

#[test]
fn the_last_words_of_a_server_are_heard() {
    let (server, _authority, ways) = everywhere();
    for (way, config, host) in ways {
        let mut link = dial(&config, &host).unwrap();
        server.execute(&format!("SELECT pg_terminate_backend({}, 10000)", link.info().backend_pid));
        // Writing to it may fail or not; reading first is what tells.
        let _ = link.send(&query_bytes("SELECT 1"));
        let mut buf = BytesMut::new();
        link.drain(&mut buf, PATIENCE);
        let frame = Frame::take(&mut buf, 1 << 20).unwrap().unwrap_or_else(|| panic!("{way}"));
        assert_eq!(frame.tag(), b'E');
        assert_eq!(error_fields::parse(frame.body()).unwrap().code, "57P01", "{way}");
    }
}

#[test]
fn a_link_that_is_closed_ends_its_backend_quietly() {
    let (server, _authority, ways) = everywhere();
    for (way, config, host) in ways {
        let link = dial(&config, &host).unwrap();
        let gone = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {}",
            link.info().backend_pid
        );
        assert_eq!(server.execute(&gone), ["1"]);
        link.close();
        let deadline = Instant::now() + PATIENCE;
        while server.execute(&gone) != ["0"] {
            assert!(Instant::now() < deadline, "{way}: still there");
        }
        assert!(!server.log().contains("unexpected EOF"), "{way}: {}", server.log());
    }
}
