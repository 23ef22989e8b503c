//! Servers that misbehave: silence, lies, and bytes where none belong.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::link::auth::Authenticator;

/// Plays one connection by a script, then closes.
fn fake(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> (Host, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        script(&mut stream);
    });
    (named("localhost", port), thread)
}

/// Reads a message without a tag: the start-up, or the request for TLS.
fn read_untagged(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).unwrap();
    body
}

fn read_tagged(stream: &mut TcpStream) -> Vec<u8> {
    stream.read_exact(&mut [0]).unwrap();
    read_untagged(stream)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn authentication(code: i32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], body].concat())
}

fn encrypted() -> Config {
    let mut config = config("somebody");
    config.tls.mode = SslMode::Require;
    config
}

#[test]
fn silence_ends_at_the_connect_timeout() {
    for mut config in [config("somebody"), encrypted()] {
        config.connect_timeout = Some(Duration::from_millis(200));
        // The kernel accepts, nobody answers.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = named("localhost", listener.local_addr().unwrap().port());
        let started = Instant::now();
        let error = refused(&config, &host);
        assert!(started.elapsed() >= Duration::from_millis(200));
        assert!(started.elapsed() < PATIENCE);
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.to_string().contains("connect_timeout"), "{error}");
    }
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = named("localhost", listener.local_addr().unwrap().port());
    drop(listener);
    let error = refused(&config("somebody"), &host);
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(std::error::Error::source(&error).is_some());
    assert!(error.server_error().is_none());
}

#[test]
fn bytes_behind_the_agreement_to_tls_are_refused() {
    let (host, server) = fake(|stream| {
        read_untagged(stream);
        stream.write_all(&[b"S".as_slice(), &authentication(0, b"")].concat()).unwrap();
    });
    let error = refused(&encrypted(), &host);
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.to_string().contains("unencrypted bytes"), "{error}");
    server.join().unwrap();
}

#[test]
fn a_server_without_tls_is_refused_and_told_nothing() {
    let (host, server) = fake(|stream| {
        read_untagged(stream);
        stream.write_all(b"N").unwrap();
        let mut more = Vec::new();
        stream.read_to_end(&mut more).unwrap();
        assert_eq!(more, b"", "nothing may follow in the clear");
    });
    assert_eq!(refused(&encrypted(), &host).kind(), ErrorKind::Tls);
    server.join().unwrap();
}

#[test]
fn an_unencrypted_error_is_not_believed() {
    let (host, server) = fake(|stream| {
        read_untagged(stream);
        stream.write_all(&message(b'E', b"SFATAL\0C28P01\0Mgive me your password\0\0")).unwrap();
    });
    let error = refused(&encrypted(), &host);
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.server_error().is_none());
    server.join().unwrap();
}

#[test]
fn scram_that_proves_nothing_is_refused() {
    // Ok in place of a proof, at once and after the challenge; a false proof; a challenge from nowhere.
    let offer = || authentication(10, b"SCRAM-SHA-256\0\0");
    for trick in 0..4 {
        let (host, server) = fake(move |stream| {
            read_untagged(stream);
            if trick == 3 {
                stream.write_all(&authentication(11, b"r=x,s=AAAA,i=1")).unwrap();
                return;
            }
            stream.write_all(&offer()).unwrap();
            let first = read_tagged(stream);
            if trick == 0 {
                stream.write_all(&authentication(0, b"")).unwrap();
                return;
            }
            let first = String::from_utf8_lossy(&first).into_owned();
            let nonce = first.rsplit("r=").next().unwrap();
            let challenge = format!("r={nonce}more,s=c2FsdHNhbHQ=,i=4096");
            stream.write_all(&authentication(11, challenge.as_bytes())).unwrap();
            read_tagged(stream);
            let end = match trick {
                1 => authentication(0, b""),
                _ => authentication(12, b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            };
            stream.write_all(&end).unwrap();
        });
        let error = refused(&with_password("somebody", "secret"), &host);
        assert_eq!(error.kind(), ErrorKind::Authentication, "trick {trick}: {error}");
        server.join().unwrap();
    }
}

#[test]
fn methods_nobody_speaks_are_refused() {
    let lenient = Config {
        allow_md5_password: true,
        allow_cleartext_password: true,
        ..with_password("somebody", "secret")
    };
    for (reply, what) in [
        (authentication(2, b""), "Kerberos"),
        (authentication(7, b""), "GSSAPI"),
        (authentication(9, b""), "SSPI"),
        (authentication(99, b""), "not known"),
        (authentication(10, b"SCRAM-SHA-1\0\0"), "no SASL mechanism"),
        (authentication(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), "not encrypted"),
        (authentication(12, b"v=AAAA"), "out of turn"),
    ] {
        let (host, server) = fake(move |stream| {
            read_untagged(stream);
            stream.write_all(&reply).unwrap();
        });
        let error = refused(&lenient, &host);
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains(what), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn garbage_is_the_end_and_never_a_panic() {
    let ready = [authentication(0, b""), message(b'K', b"\0\0")].concat();
    for (reply, kind) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), ErrorKind::Protocol),
        (b"R\0\0\0\x02".to_vec(), ErrorKind::Protocol),
        (b"R\x7f\0\0\0".to_vec(), ErrorKind::Protocol),
        // Ready before anybody was let in.
        (message(b'Z', b"I"), ErrorKind::Protocol),
        (message(b'E', b"SFATAL\0C53300"), ErrorKind::Protocol),
        (message(b'S', b"name"), ErrorKind::Protocol),
        (ready, ErrorKind::Protocol),
        ([authentication(0, b""), message(b'S', b"name")].concat(), ErrorKind::Protocol),
        ([authentication(0, b""), authentication(0, b"")].concat(), ErrorKind::Authentication),
        (message(b'v', b"\0"), ErrorKind::Connect),
        (b"".to_vec(), ErrorKind::Connect),
        (b"R\0\0".to_vec(), ErrorKind::Connect),
    ] {
        let script = reply.clone();
        let (host, server) = fake(move |stream| {
            read_untagged(stream);
            stream.write_all(&script).unwrap();
        });
        let error = refused(&config("somebody"), &host);
        assert_eq!(error.kind(), kind, "{}: {error}", reply.escape_ascii());
        server.join().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is sent in whatever order, there is an answer or an error, and nobody is let in who
    /// has not been asked for the password that the exchange under way is about.
    #[test]
    fn no_order_of_messages_is_a_panic_or_a_way_in(
        messages in proptest::collection::vec((0..14i32, proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
        scram in any::<bool>(),
        require in any::<bool>(),
    ) {
        let host = named("localhost", 5432);
        let mut config = with_password("somebody", "secret");
        config.allow_md5_password = true;
        config.allow_cleartext_password = true;
        if require {
            config.channel_binding = ChannelBinding::Require;
        }
        let mut auth = Authenticator::new(&config, &host, false, None);
        let first = (10, b"SCRAM-SHA-256\0\0".to_vec());
        for (code, body) in scram.then_some(first).into_iter().chain(messages) {
            let mut bytes = BytesMut::from(&authentication(code, &body)[..]);
            let frame = Frame::take(&mut bytes, 1 << 20).unwrap().unwrap();
            let mut out = BytesMut::new();
            if auth.handle(&frame, &mut out).is_err() {
                return Ok(());
            }
        }
        if let Some(method) = auth.method() {
            prop_assert!(!require && !scram, "let in by {method}");
        }
    }
}

#[test]
fn what_follows_the_first_ready_is_not_lost() {
    let (host, server) = fake(|stream| {
        read_untagged(stream);
        let notice = message(b'N', b"SNOTICE\0C00000\0Mlater\0\0");
        let all = [authentication(0, b""), message(b'Z', b"I"), notice].concat();
        stream.write_all(&all).unwrap();
    });
    let mut link = dial(&config("somebody"), &host).unwrap();
    server.join().unwrap();
    let mut buf = BytesMut::new();
    while link.recv(&mut buf).unwrap() > 0 {}
    assert_eq!(&buf[..], &message(b'N', b"SNOTICE\0C00000\0Mlater\0\0")[..]);
}
