//! What TLS accepts and what it refuses, mode by mode.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::certs::{Authority, Pair};
use super::server::Server;
use super::*;
use crate::error::ErrorKind;
use crate::link::tls_config;

const HBA: &str = "\
hostssl all scram 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostssl all trusted 127.0.0.1/32 trust";

fn server(pair: &Pair, authority: &Authority, more: &str) -> Server {
    let root = authority.root();
    let files: [(&str, &Path); 3] =
        [("server.crt", &pair.cert), ("server.key", &pair.key), ("root.crt", &root)];
    let server = Server::start(HBA, &format!("ssl=on\nssl_ca_file=root.crt{more}"), &files);
    for user in ["scram", "certified", "trusted"] {
        server.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'"));
    }
    server
}

fn tls(mode: SslMode, root: Option<&Path>) -> Config {
    let mut config = with_password("scram", "secret");
    config.tls.mode = mode;
    if let Some(root) = root {
        config.tls.root_cert = RootCert::File(root.to_owned());
    }
    config
}

fn tls_refused(config: &Config, host: &Host, what: &str) {
    let error = refused(config, host);
    assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
    assert!(error.to_string().contains(what), "{error}");
}

#[test]
fn modes() {
    let authority = Authority::new();
    let good = authority.issue("good", "server", None);
    let server = server(&good, &authority, "");
    let root = authority.root();
    let other = Authority::new();
    let stranger = other.root();
    let right = named("db.test", server.port);
    let wrong = named("other.test", server.port);

    // Without roots, anything goes that is encrypted.
    let mut link = dial(&tls(SslMode::Require, None), &wrong).unwrap();
    assert_eq!(link.info().tls_version, Some("TLSv1.3"));
    assert_eq!(link.info().auth_method, "SCRAM-SHA-256-PLUS");
    assert_eq!(
        query(&mut link, "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").unwrap(),
        ["TLSv1.3"]
    );

    // With roots, the chain; with verify-full, the name too.
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        dial(&tls(mode, Some(&root)), &right).unwrap();
        tls_refused(&tls(mode, Some(&stranger)), &right, "not trusted");
    }
    for mode in [SslMode::Require, SslMode::VerifyCa] {
        dial(&tls(mode, Some(&root)), &wrong).unwrap();
    }
    tls_refused(&tls(SslMode::VerifyFull, Some(&root)), &wrong, "another name");
    // An address is a name when the certificate says so.
    dial(&tls(SslMode::VerifyFull, Some(&root)), &server.tcp()).unwrap();
    // A name that no certificate can carry still does where it is not looked at.
    let odd = named("not a name", server.port);
    dial(&tls(SslMode::VerifyCa, Some(&root)), &odd).unwrap();
    tls_refused(&tls(SslMode::VerifyFull, Some(&root)), &odd, "cannot be a name");
    let mut silent = tls(SslMode::VerifyFull, Some(&root));
    silent.tls.sni = false;
    dial(&silent, &right).unwrap();

    // The server refuses what is not encrypted, and says so itself.
    assert_eq!(refused(&tls(SslMode::Disable, None), &right).server_error().unwrap().code, "28000");
    // Unix sockets are never encrypted.
    let over_unix = Config { user: "postgres".to_owned(), ..tls(SslMode::VerifyFull, Some(&root)) };
    assert_eq!(dial(&over_unix, &server.unix()).unwrap().info().tls_version, None);

    // Nothing to verify by, or nothing that the roots could prove.
    for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
        assert_eq!(refused(&tls(mode, None), &right).kind(), ErrorKind::Config);
    }
    let mut system = tls(SslMode::Require, None);
    system.tls.root_cert = RootCert::System;
    assert_eq!(refused(&system, &right).kind(), ErrorKind::Config);

    tls_refused(
        &tls(SslMode::VerifyCa, Some(Path::new("/nowhere/root.crt"))),
        &right,
        "/nowhere/root.crt",
    );
    tls_refused(&tls(SslMode::VerifyCa, Some(&good.key)), &right, "no certificate");
}

#[test]
fn dates_revocation_and_reload() {
    let authority = Authority::new();
    let root = authority.root();
    let good = authority.issue("good", "server", None);
    let bad = authority.issue("bad", "server", None);
    let expired =
        authority.issue("expired", "server", Some(["20200101000000Z", "20200201000000Z"]));
    let future = authority.issue("future", "server", Some(["20990101000000Z", "20990201000000Z"]));
    authority.revoke(&bad.cert);
    let list = authority.revocation_list("list");
    let server = server(&good, &authority, "");
    let right = named("db.test", server.port);
    let probe = tls(SslMode::Require, None);

    let mut checked = tls(SslMode::VerifyFull, Some(&root));
    checked.tls.crl = Some(list);
    dial(&checked, &right).unwrap();
    // A list of another authority says nothing of this one.
    let other = Authority::new();
    let mut foreign = checked.clone();
    foreign.tls.crl = Some(other.revocation_list("list"));
    tls_refused(&foreign, &right, "sslcrl");

    server.present(&bad.cert, &bad.key, &probe);
    dial(&tls(SslMode::VerifyFull, Some(&root)), &right).unwrap();
    tls_refused(&checked, &right, "revoked");
    checked.tls.mode = SslMode::VerifyCa;
    tls_refused(&checked, &right, "revoked");

    for (pair, what) in [(&expired, "expired"), (&future, "not valid yet")] {
        server.present(&pair.cert, &pair.key, &probe);
        for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
            tls_refused(&tls(mode, Some(&root)), &right, what);
        }
    }
}

#[test]
fn versions() {
    let authority = Authority::new();
    let good = authority.issue("good", "server", None);
    let root = authority.root();
    let server = server(&good, &authority, "\nssl_min_protocol_version=TLSv1.2");
    let right = named("db.test", server.port);
    let between = |min, max| {
        let mut config = tls(SslMode::VerifyFull, Some(&root));
        (config.tls.min_version, config.tls.max_version) = (min, max);
        config
    };
    let only_12 = between(TlsVersion::V1_2, TlsVersion::V1_2);
    let only_13 = between(TlsVersion::V1_3, TlsVersion::V1_3);
    for (config, version) in [(&only_12, "TLSv1.2"), (&only_13, "TLSv1.3")] {
        let mut link = dial(config, &right).unwrap();
        assert_eq!(link.info().tls_version, Some(version));
        assert_eq!(link.info().auth_method, "SCRAM-SHA-256-PLUS");
        assert_eq!(query(&mut link, "SELECT 1").unwrap(), ["1"]);
    }
    assert_eq!(
        refused(&between(TlsVersion::V1_3, TlsVersion::V1_2), &right).kind(),
        ErrorKind::Config
    );
    drop(server);
    let old = self::server(&good, &authority, "\nssl_max_protocol_version=TLSv1.2");
    let right = named("db.test", old.port);
    dial(&only_12, &right).unwrap();
    tls_refused(&only_13, &right, "");
}

#[test]
fn client_certificates() {
    let authority = Authority::new();
    let good = authority.issue("good", "server", None);
    let client = authority.issue("certified", "client", None);
    let server = server(&good, &authority, "");
    let root = authority.root();
    let right = named("db.test", server.port);
    let mut config = tls(SslMode::VerifyFull, Some(&root));
    config.user = "certified".to_owned();

    // The server's own refusal where the certificate is missing.
    let error = refused(&config, &right);
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error:?}");
    assert_eq!(error.server_error().unwrap().code, "28000");

    config.tls.client_cert = Some(client.cert.clone());
    assert_eq!(refused(&config, &right).kind(), ErrorKind::Config);
    config.tls.client_key = Some(client.key.clone());
    dial(&config, &right).unwrap();

    // One of another authority is refused, by the server, in TLS itself.
    let other = Authority::new();
    let stranger = other.issue("certified", "client", None);
    let mut foreign = config.clone();
    foreign.tls.client_cert = Some(stranger.cert.clone());
    foreign.tls.client_key = Some(stranger.key.clone());
    tls_refused(&foreign, &right, "");

    // A key that others can read is no secret; a key of another certificate does not fit.
    config.tls.client_key = Some(good.key.clone());
    tls_refused(&config, &right, "do not fit");
    fs::set_permissions(&client.key, fs::Permissions::from_mode(0o644)).unwrap();
    config.tls.client_key = Some(client.key.clone());
    tls_refused(&config, &right, "read by others");
}

#[test]
fn channel_binding() {
    let authority = Authority::new();
    let good = authority.issue("good", "server", None);
    let server = server(&good, &authority, "");
    let host = server.tcp();
    let with = |binding| Config { channel_binding: binding, ..tls(SslMode::Require, None) };
    let (plus, plain) = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256");

    assert_eq!(dial(&with(ChannelBinding::Disable), &host).unwrap().info().auth_method, plain);
    let trusted = Config { user: "trusted".to_owned(), ..with(ChannelBinding::Require) };
    assert_eq!(refused(&trusted, &host).kind(), ErrorKind::Authentication);
    assert_eq!(
        dial(&Config { channel_binding: ChannelBinding::Prefer, ..trusted }, &host)
            .unwrap()
            .info()
            .auth_method,
        "trust"
    );

    // The hash follows the certificate's signature; the server computes it for itself.
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    let rsa = ["-newkey", "rsa:2048"];
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"];
    for (name, how) in [
        ("rsa-sha1", [&rsa[..], &["-sha1"]].concat()),
        ("rsa-sha384", [&rsa[..], &["-sha384"]].concat()),
        ("rsa-sha512", [&rsa[..], &["-sha512"]].concat()),
        ("ec-sha384", [&ec[..], &["-sha384"]].concat()),
        ("ec-sha224", [&ec[..], &["-sha224"]].concat()),
        ("pss-sha384", [&rsa[..], &pss[..], &["-sha384"]].concat()),
    ] {
        let pair = authority.self_signed(name, &how);
        server.present(&pair.cert, &pair.key, &with(ChannelBinding::Disable));
        let link = dial(&with(ChannelBinding::Require), &host)
            .unwrap_or_else(|e| panic!("{name}: {e:?} {:?}", e.server_error()));
        assert_eq!(link.info().auth_method, plus, "{name}");
    }

    // One that has no such hash.
    let pair = authority.self_signed("ed25519", &["-newkey", "ed25519"]);
    server.present(&pair.cert, &pair.key, &with(ChannelBinding::Disable));
    assert_eq!(dial(&with(ChannelBinding::Prefer), &host).unwrap().info().auth_method, plain);
    assert_eq!(refused(&with(ChannelBinding::Require), &host).kind(), ErrorKind::Authentication);

    // webpki cannot read version 1; without verification nobody needs to.
    let pair = authority.version_1();
    server.present(&pair.cert, &pair.key, &with(ChannelBinding::Disable));
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let mut config = with(ChannelBinding::Require);
        (config.tls.min_version, config.tls.max_version) = (version, version);
        assert_eq!(dial(&config, &host).unwrap().info().auth_method, plus);
    }
}

#[test]
fn a_self_made_certificate_may_be_its_own_root() {
    let authority = Authority::new();
    let how = ["-newkey", "rsa:2048", "-addext", "subjectAltName=DNS:db.test"];
    let own = authority.self_signed("own", &how);
    let server = server(&own, &authority, "");
    let right = named("db.test", server.port);
    let wrong = named("other.test", server.port);
    dial(&tls(SslMode::VerifyFull, Some(&own.cert)), &right).unwrap();
    dial(&tls(SslMode::VerifyCa, Some(&own.cert)), &wrong).unwrap();
    tls_refused(&tls(SslMode::VerifyFull, Some(&own.cert)), &wrong, "another name");
    let other = authority.self_signed("other", &how);
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        tls_refused(&tls(mode, Some(&other.cert)), &right, "");
    }
    // Trusting it for itself does not lift its dates.
    let old = authority.self_made("old", ["20200101000000Z", "20200201000000Z"]);
    server.present(&old.cert, &old.key, &tls(SslMode::Require, None));
    tls_refused(&tls(SslMode::VerifyCa, Some(&old.cert)), &right, "expired");
}

#[test]
fn configurations_are_shared_until_a_file_changes() {
    let authority = Authority::new();
    let root = authority.root();
    let config = tls(SslMode::VerifyFull, Some(&root));
    let first = tls_config::client_config(&config.tls).unwrap();
    let second = tls_config::client_config(&config.tls).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    let mut text = fs::read_to_string(&root).unwrap();
    text.push('\n');
    fs::write(&root, text).unwrap();
    let third = tls_config::client_config(&config.tls).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&first, &third));
}
