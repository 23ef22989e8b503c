//! Who is let in, and by which method.

use super::server::Server;
use super::*;
use crate::config::AuthMethods;
use crate::error::ErrorKind;

const HBA: &str = "\
host all trusted 127.0.0.1/32 trust
host all scram 127.0.0.1/32 scram-sha-256
host all md5 127.0.0.1/32 md5
host all clear 127.0.0.1/32 password
host all rejected 127.0.0.1/32 reject";

fn server() -> Server {
    let server = Server::start(HBA, "max_connections=20", &[]);
    for user in ["trusted", "scram", "clear", "rejected"] {
        server.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'"));
    }
    server.execute("SET password_encryption = md5; CREATE ROLE md5 LOGIN PASSWORD 'secret'");
    server
}

#[test]
fn methods() {
    let server = server();
    let tcp = server.tcp();

    let mut link = dial(&config("trusted"), &tcp).unwrap();
    assert_eq!(link.info().auth_method, "trust");
    assert_eq!(link.info().tls_version, None);
    assert_eq!(link.info().peer.unwrap().port(), server.port);
    assert_eq!(link.info().parameter("client_encoding"), Some("UTF8"));
    assert_eq!(link.info().parameter("application_name"), Some("segue-test"));
    assert_eq!(link.info().parameter("in_hot_standby"), Some("off"));
    let pid = query(&mut link, "SELECT pg_backend_pid()").unwrap();
    assert_eq!(pid, [link.info().backend_pid.to_string()]);

    let unix = dial(&config("postgres"), &server.unix()).unwrap();
    assert_eq!((unix.info().auth_method, unix.info().peer), ("trust", None));

    // An abstract socket; a name with perhaps several addresses, of which one answers.
    let directory = format!("@segue-link-{}", server.port).into();
    dial(&config("postgres"), &Host::new(Address::Unix { directory }, server.port)).unwrap();
    let name = Address::Tcp { name: "localhost".to_owned(), addr: None };
    let link = dial(&config("trusted"), &Host::new(name, server.port)).unwrap();
    assert_eq!(link.info().peer.unwrap().ip().to_string(), "127.0.0.1");

    // No TLS where it was asked for.
    let mut encrypted = config("trusted");
    encrypted.tls.mode = SslMode::Require;
    assert_eq!(refused(&encrypted, &tcp).kind(), ErrorKind::Tls);

    // The longest of time-outs is none, not a panic.
    let patient = Config { connect_timeout: Some(Duration::MAX), ..config("trusted") };
    dial(&patient, &tcp).unwrap();

    let scram = dial(&with_password("scram", "secret"), &tcp).unwrap();
    assert_eq!(scram.info().auth_method, "SCRAM-SHA-256");

    // The password of the host, from a password file, goes before the general one.
    let mut host = tcp.clone();
    host.password = Some(Secret::new("secret"));
    dial(&with_password("scram", "wrong"), &host).unwrap();

    for (user, method) in [("md5", "md5"), ("clear", "password")] {
        let strict = with_password(user, "secret");
        let error = refused(&strict, &tcp);
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains("allow_"), "{error}");
        let lenient = Config { allow_md5_password: true, allow_cleartext_password: true, ..strict };
        assert_eq!(dial(&lenient, &tcp).unwrap().info().auth_method, method);
        // One permission is not the other.
        let other = Config {
            allow_md5_password: user == "clear",
            allow_cleartext_password: user == "md5",
            ..lenient
        };
        assert_eq!(refused(&other, &tcp).kind(), ErrorKind::Authentication);
    }
}

#[test]
fn refusals_carry_the_servers_own_error() {
    let server = server();
    let tcp = server.tcp();

    let wrong = with_password("scram", "wrong-password");
    let error = refused(&wrong, &tcp);
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!(error.server_error().unwrap().code, "28P01");
    assert!(!format!("{error} {error:?} {wrong:?}").contains("wrong-password"));

    let error = refused(&config("scram"), &tcp);
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().contains("none was given"), "{error}");

    let error = refused(&config("rejected"), &tcp);
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert_eq!(error.server_error().unwrap().code, "28000");

    let nowhere = Config { database: "nowhere".to_owned(), ..config("trusted") };
    let error = refused(&nowhere, &tcp);
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert_eq!(error.server_error().unwrap().code, "3D000");
    assert_eq!(error.server_error().unwrap().severity, "FATAL");

    let unknown = Config {
        parameters: vec![("no_such_setting".to_owned(), "1".to_owned())],
        ..config("trusted")
    };
    assert_eq!(refused(&unknown, &tcp).server_error().unwrap().code, "42704");

    // Without TLS there is nothing to bind to, whatever the method.
    for user in ["scram", "md5", "clear", "trusted"] {
        let bound = Config {
            channel_binding: ChannelBinding::Require,
            allow_md5_password: true,
            allow_cleartext_password: true,
            ..with_password(user, "secret")
        };
        let error = refused(&bound, &tcp);
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains("channel_binding"), "{error}");
    }

    // An option that no server knows is named, not dropped.
    let option = Config {
        parameters: vec![("_pq_.no_such_option".to_owned(), "1".to_owned())],
        ..config("trusted")
    };
    let error = refused(&option, &tcp);
    assert!(error.to_string().contains("_pq_.no_such_option"), "{error}");
}

#[test]
fn start_up_parameters_arrive() {
    let server = server();
    let config = Config {
        options: Some("-c work_mem=7MB".to_owned()),
        parameters: vec![
            ("search_path".to_owned(), "a, b".to_owned()),
            ("client_encoding".to_owned(), "LATIN1".to_owned()),
        ],
        ..config("trusted")
    };
    let mut link = dial(&config, &server.tcp()).unwrap();
    assert_eq!(query(&mut link, "SHOW work_mem").unwrap(), ["7MB"]);
    assert_eq!(query(&mut link, "SHOW search_path").unwrap(), ["a, b"]);
    assert_eq!(query(&mut link, "SHOW client_encoding").unwrap(), ["UTF8"]);
}

/// `require_auth` was read and checked for contradictions, and then nobody asked for it.
#[test]
fn methods_that_are_not_required_are_refused() {
    let server = server();
    let tcp = server.tcp();
    let none = AuthMethods { none: false, password: false, md5: false, scram_sha_256: false };
    let cases = [
        ("trusted", AuthMethods { none: true, ..none }),
        ("clear", AuthMethods { password: true, ..none }),
        ("md5", AuthMethods { md5: true, ..none }),
        ("scram", AuthMethods { scram_sha_256: true, ..none }),
    ];
    for (user, methods) in &cases {
        for (_, required) in &cases {
            let config = Config {
                require_auth: Some(*required),
                allow_md5_password: true,
                allow_cleartext_password: true,
                ..with_password(user, "secret")
            };
            if required == methods {
                dial(&config, &tcp).unwrap();
                continue;
            }
            let error = refused(&config, &tcp);
            assert_eq!(error.kind(), ErrorKind::Authentication, "{user}");
            assert!(error.to_string().contains("require_auth"), "{error}");
        }
    }
}
