//! TLS and authentication: never less than was asked for.

use std::path::Path;

use super::{assert_error, env, error_in, parse, parse_in};
use crate::config::{AuthMethods, ChannelBinding, Environment, RootCert, SslMode, TlsVersion};

fn home_with(files: &[&str]) -> (tempfile::TempDir, Environment) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    for file in files {
        std::fs::write(home.path().join(".postgresql").join(file), "").unwrap();
    }
    let env = Environment { home: Some(home.path().to_owned()), ..env() };
    (home, env)
}

#[test]
fn without_a_word_tls_is_off_only_where_nothing_leaves_the_machine() {
    let (_home, env) = home_with(&["root.crt"]);
    for (conninfo, wanted) in [
        ("", SslMode::Disable),
        ("host=/run/pg", SslMode::Disable),
        ("host=LocalHost,127.3.2.1,::1", SslMode::Disable),
        ("host=db.example.com hostaddr=127.0.0.1", SslMode::Disable),
        ("postgresql://[::1]/db", SslMode::Disable),
        ("host=db.example.com", SslMode::VerifyFull),
        ("host=localhost,10.0.0.1", SslMode::VerifyFull),
        ("host=localhost hostaddr=10.0.0.1", SslMode::VerifyFull),
        ("host=localhost.example.com", SslMode::VerifyFull),
        ("host=127.0.0.1.example.com", SslMode::VerifyFull),
        // Whatever speaks of TLS asks for it.
        ("host=localhost sslrootcert=system", SslMode::VerifyFull),
        ("host=localhost sslsni=0", SslMode::VerifyFull),
        ("host=localhost ssl_min_protocol_version=TLSv1.3", SslMode::VerifyFull),
        ("host=localhost channel_binding=require", SslMode::VerifyFull),
        ("postgresql://localhost?ssl=true", SslMode::VerifyFull),
        ("host=localhost channel_binding=prefer", SslMode::Disable),
        // A word is a word.
        ("host=db.example.com sslmode=disable", SslMode::Disable),
        ("host=db.example.com sslmode=require", SslMode::Require),
        ("host=localhost sslmode=verify-ca", SslMode::VerifyCa),
        ("host=localhost sslmode=verify-full", SslMode::VerifyFull),
    ] {
        assert_eq!(parse_in(conninfo, &env).tls.mode, wanted, "{conninfo}");
    }
    let asked = env.clone().with("PGSSLMODE", "require");
    assert_eq!(parse_in("host=localhost", &asked).tls.mode, SslMode::Require);
}

#[test]
fn modes_that_may_fall_back_are_refused_with_advice() {
    for mode in ["prefer", "allow"] {
        let conninfo = format!("host=h sslmode={mode}");
        let asked = format!("sslmode={mode}");
        assert_error(&conninfo, &[&asked, "silently", "sslmode=verify-full", "sslmode=disable"]);
    }
    let error = error_in("", &env().with("PGSSLMODE", "prefer"));
    assert!(error.contains("PGSSLMODE") && error.contains("silently"), "{error}");
    assert_error("sslmode=verify_full", &["verify_full", "did you mean verify-full?"]);
    assert_error("requiressl=1", &["requiressl", "sslmode=verify-full"]);
}

#[test]
fn verifying_needs_a_root() {
    assert_error(
        "host=h sslmode=verify-full",
        &["sslmode=verify-full", "sslrootcert=system", "sslmode=require"],
    );
    assert_error("host=h sslmode=verify-ca", &["sslmode=verify-ca", "sslrootcert"]);
    assert_error("host=h", &["h:5432", "without sslmode", "sslrootcert", "sslmode=disable"]);
    assert_error("host=h sslmode=require sslcrl=/tmp", &["sslcrl=/tmp", "sslrootcert"]);
    assert_error(
        "host=h sslmode=require sslrootcert=/nonexistent/x",
        &["sslrootcert=/nonexistent/x", "does not exist"],
    );
    // A Unix socket has no TLS, so nothing is missing.
    assert_eq!(parse("host=/run/pg sslmode=verify-full").tls.root_cert, RootCert::None);
    assert_eq!(parse("host=h sslmode=require").tls.root_cert, RootCert::None);
}

#[test]
fn the_systems_roots_need_the_full_check() {
    let config = parse("host=h sslrootcert=system");
    assert_eq!(config.tls.mode, SslMode::VerifyFull);
    assert_eq!(config.tls.root_cert, RootCert::System);
    for mode in ["disable", "require", "verify-ca"] {
        assert_error(
            &format!("host=h sslrootcert=system sslmode={mode}"),
            &["sslrootcert=system", &format!("sslmode={mode}"), "verify-full"],
        );
    }
}

#[test]
fn default_files_are_used_where_they_exist() {
    let (home, env) = home_with(&["root.crt", "root.crl", "postgresql.crt", "postgresql.key"]);
    let file = |name: &str| home.path().join(".postgresql").join(name);
    let tls = parse_in("host=h", &env).tls;
    assert_eq!(tls.root_cert, RootCert::File(file("root.crt")));
    assert_eq!(tls.crl, Some(file("root.crl")));
    assert_eq!(tls.client_cert, Some(file("postgresql.crt")));
    assert_eq!(tls.client_key, Some(file("postgresql.key")));
    assert!(tls.sni);
    assert_eq!((tls.min_version, tls.max_version), (TlsVersion::V1_2, TlsVersion::V1_3));

    let off = parse_in("host=h sslmode=disable", &env).tls;
    assert_eq!((off.root_cert, off.client_cert), (RootCert::None, None));

    let (home, env) = home_with(&["root.crt", "postgresql.crt"]);
    let error = error_in("host=h", &env);
    assert!(error.contains("sslcert") && error.contains("sslkey"), "{error}");
    let key = home.path().join("key");
    std::fs::write(&key, "").unwrap();
    let with_key = parse_in(&format!("host=h sslkey={}", key.display()), &env).tls;
    assert_eq!(with_key.client_key.as_deref(), Some(Path::new(&key)));

    let (_home, env) = home_with(&["root.crt"]);
    let error = error_in(&format!("host=h sslkey={}", key.display()), &env);
    assert!(error.contains("sslkey") && error.contains("sslcert"), "{error}");
    // A key without a certificate that nobody spoke of is of no use, and no error.
    let (_home, env) = home_with(&["root.crt", "postgresql.key"]);
    assert_eq!(parse_in("host=h", &env).tls.client_key, None);
}

#[test]
fn versions_are_ordered() {
    let versions = |conninfo: &str| {
        let tls = parse(&format!("host=h sslmode=require {conninfo}")).tls;
        (tls.min_version, tls.max_version)
    };
    use TlsVersion::{V1_2, V1_3};
    assert_eq!(versions("ssl_min_protocol_version=tlsv1.3"), (V1_3, V1_3));
    assert_eq!(versions("ssl_max_protocol_version=TLSv1.2"), (V1_2, V1_2));
    // What is asked for at least is given: nothing older than 1.2 is ever spoken.
    assert_eq!(versions("ssl_min_protocol_version=TLSv1"), (V1_2, V1_3));
    assert_error(
        "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        &["ssl_min_protocol_version=TLSv1.3", "ssl_max_protocol_version=TLSv1.2"],
    );
    assert_error("ssl_max_protocol_version=TLSv1.1", &["ssl_max_protocol_version=TLSv1.1"]);
    assert_error("ssl_min_protocol_version=SSLv3", &["SSLv3", "TLSv1.2"]);
}

#[test]
fn channel_binding_needs_tls() {
    let config = parse("host=h sslmode=require channel_binding=require");
    assert_eq!(config.channel_binding, ChannelBinding::Require);
    assert_error(
        "host=h sslmode=disable channel_binding=require",
        &["sslmode=disable", "channel_binding=require"],
    );
    assert_error(
        "host=h,/run/pg sslmode=require channel_binding=require",
        &["channel_binding=require", "/run/pg"],
    );
    assert_error(
        "host=h sslmode=require channel_binding=require require_auth=none",
        &["channel_binding=require", "require_auth=none"],
    );
}

#[test]
fn required_methods() {
    let methods = |text: &str| {
        let config = parse(&format!("require_auth='{text}' allow_md5_password=1"));
        config.require_auth.unwrap()
    };
    let nothing = AuthMethods { none: false, password: false, md5: false, scram_sha_256: false };
    let scram = AuthMethods { scram_sha_256: true, ..nothing };
    assert_eq!(parse("").require_auth, None);
    assert_eq!(methods("scram-sha-256"), scram);
    assert_eq!(methods("scram-sha-256,gss"), scram);
    assert_eq!(methods("md5,none"), AuthMethods { md5: true, none: true, ..nothing });
    assert_eq!(methods("!password,!md5,!none,!sspi"), scram);
    for (text, wanted) in [
        ("md5", &["require_auth=md5", "allow_md5_password=off"] as &[_]),
        ("password", &["require_auth=password", "allow_cleartext_password=off"]),
        ("gss", &["require_auth=gss", "no method"]),
        ("!none,md5", &["mixes"]),
        ("md5,!none", &["mixes"]),
        ("scram", &["\"scram\"", "scram-sha-256"]),
        ("md5,md5", &["twice"]),
        ("scram-sha-256,", &["\"\""]),
    ] {
        assert_error(&format!("require_auth={text}"), wanted);
    }
}

#[test]
fn a_password_in_the_clear_over_a_bare_network_is_warned_of() {
    let warnings = |conninfo: &str| parse(conninfo).warnings.len();
    assert_eq!(warnings("host=h sslmode=disable allow_cleartext_password=on"), 1);
    assert_eq!(warnings("host=localhost allow_cleartext_password=on"), 0);
    assert_eq!(warnings("host=h sslmode=require allow_cleartext_password=on"), 0);
}
