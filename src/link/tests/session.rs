//! The TLS session by itself, against rustls' own server in memory.

use std::io::Write;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ServerConfig, ServerConnection};

use super::certs::Authority;
use super::*;
use crate::link::tls::TlsSession;
use crate::link::tls_config;

/// A client and a server that have shaken hands.
fn pair() -> (TlsSession, ServerConnection) {
    let authority = Authority::new();
    let own = authority.issue("own", "server", None);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server_config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&own.cert).unwrap()],
            PrivateKeyDer::from_pem_file(&own.key).unwrap(),
        )
        .unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config)).unwrap();
    let mut tls = config("somebody").tls;
    tls.mode = SslMode::VerifyFull;
    tls.root_cert = RootCert::File(authority.root());
    let name = ServerName::try_from("db.test").unwrap();
    let mut client = TlsSession::new(tls_config::client_config(&tls).unwrap(), name).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut raw = Vec::new();
        while client.wants_write() {
            client.write_to(&mut raw).unwrap();
        }
        let mut rest = &raw[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        client.decrypt(&written(&mut server), &mut BytesMut::new()).unwrap();
    }
    (client, server)
}

fn written(server: &mut ServerConnection) -> Vec<u8> {
    let mut raw = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut raw).unwrap();
    }
    raw
}

#[test]
fn a_stream_in_any_pieces() {
    let (mut client, mut server) = pair();
    let text: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let mut raw = Vec::new();
    for chunk in text.chunks(30_000) {
        server.writer().write_all(chunk).unwrap();
        raw.extend(written(&mut server));
    }
    let mut out = BytesMut::new();
    let mut sizes = [1, 5, 16_384, 3, 100, 70_000].into_iter().cycle();
    let mut rest = &raw[..];
    let mut total = 0;
    while !rest.is_empty() {
        let piece;
        (piece, rest) = rest.split_at(sizes.next().unwrap().min(rest.len()));
        total += client.decrypt(piece, &mut out).unwrap();
    }
    assert_eq!((total, out[..] == text[..]), (text.len(), true));
    assert_eq!(client.leftover(&mut out).unwrap(), 0);
}

/// rustls takes no more bytes once the peer has said good-bye; feeding it the rest in a loop that
/// waits for all to be taken never ended.
#[test]
fn nothing_counts_behind_the_good_bye() {
    let (mut client, mut server) = pair();
    server.writer().write_all(b"last words").unwrap();
    server.send_close_notify();
    let mut raw = written(&mut server);
    raw.extend(b"and then some bytes of somebody else");
    let mut out = BytesMut::new();
    assert_eq!(client.decrypt(&raw, &mut out).unwrap(), 10);
    assert_eq!(&out[..], b"last words");
    assert!(client.is_closed());
    assert_eq!(client.decrypt(&raw, &mut out).unwrap(), 0);
}

#[test]
fn what_came_before_a_failure_comes_first() {
    let (mut client, mut server) = pair();
    server.writer().write_all(b"last words").unwrap();
    let mut raw = written(&mut server);
    server.writer().write_all(b"to be spoiled").unwrap();
    let mut spoiled = written(&mut server);
    *spoiled.last_mut().unwrap() ^= 1;
    raw.extend(spoiled);
    let mut out = BytesMut::new();
    assert_eq!(client.decrypt(&raw, &mut out).unwrap(), 10);
    assert_eq!(&out[..], b"last words");
    assert!(client.leftover(&mut out).is_err());
    assert!(client.decrypt(b"more", &mut out).is_err());
}
