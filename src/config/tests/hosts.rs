//! Both forms of a connection string, and the lists of hosts in them.

use super::{assert_error, env, error, error_in, parse, parse_in};
use crate::config::{Address, Config, Environment};

/// `name[=addr]:port` or the directory, one word for each host.
fn hosts(config: &Config) -> String {
    let show = |host: &crate::config::Host| match &host.address {
        Address::Tcp { name, addr: None } => format!("{name}:{}", host.port),
        Address::Tcp { name, addr: Some(addr) } => format!("{name}={addr}:{}", host.port),
        Address::Unix { directory } => format!("{}:{}", directory.display(), host.port),
    };
    config.hosts.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// As [`hosts`], of a string that says nothing of TLS.
fn hosts_of(conninfo: &str) -> String {
    let off = env().with("PGSSLMODE", "disable");
    hosts(&parse_in(conninfo, &off))
}

#[test]
fn uris_split_as_in_libpq() {
    for (uri, wanted) in [
        ("postgresql://", "localhost:5432"),
        ("postgres://h", "h:5432"),
        ("postgresql://h:1/", "h:1"),
        ("postgresql://:1", "localhost:1"),
        ("postgresql://h1:1,h2:2,h3/db", "h1:1 h2:2 h3:5432"),
        ("postgresql://h1,h2?port=7", "h1:7 h2:7"),
        ("postgresql://[::1]:1,[2001:db8::2]/db", "::1:1 2001:db8::2:5432"),
        ("postgresql://%2Frun%2Fpg:1/db", "/run/pg:1"),
        ("postgresql:///db?host=/run/pg&port=2", "/run/pg:2"),
        ("postgresql://h1,/db", "h1:5432 localhost:5432"),
        ("postgresql://u@%68", "h:5432"),
        ("postgresql://?host=a,b&hostaddr=1.1.1.1,::2", "a=1.1.1.1:5432 b=::2:5432"),
    ] {
        assert_eq!(hosts_of(uri), wanted, "{uri}");
    }
}

#[test]
fn a_uri_gives_user_password_and_database() {
    let config = parse("postgresql://b%6Fb:p%40%2F%3A%25@localhost/d%20b?application_name=a%26b");
    assert_eq!(config.user, "bob");
    assert_eq!(config.database, "d b");
    assert_eq!(config.application_name, "a&b");
    assert_eq!(config.password.as_ref().map(|p| p.reveal()), Some("p@/:%"));
    // As in libpq, a question mark needs no encoding there.
    let config = parse("postgresql://bob:p?w@localhost");
    assert_eq!(config.password.as_ref().map(|p| p.reveal()), Some("p?w"));
    assert_eq!(config.database, "bob");
    // An empty user is none.
    assert_eq!(parse("postgresql://:pw@localhost").user, "ann");
}

#[test]
fn keyword_strings_are_quoted_as_in_libpq() {
    let config = parse(
        "  user = 'a \\'b\\\\c'dbname=x\\ y\\'z\n\tapplication_name=''  password='p w'host=localhost ",
    );
    assert_eq!(config.user, r"a 'b\c");
    assert_eq!(config.database, "x y'z");
    assert_eq!(config.application_name, "segue");
    assert_eq!(config.password.as_ref().map(|p| p.reveal()), Some("p w"));
    // The last one wins.
    assert_eq!(parse("user=a user=b").user, "b");
    assert_error("user", &["without \"=\"", "character 1"]);
    assert_error("user=a b c=d", &["character 8", "follows the value of user", "blanks"]);
    assert_error("user='a", &["character 6", "never closed"]);
    assert_error("mysql://h", &["URI"]);
}

#[test]
fn keyword_lists_match_as_in_libpq() {
    for (conninfo, wanted) in [
        ("", "localhost:5432"),
        ("host=a", "a:5432"),
        ("host=a,b port=1", "a:1 b:1"),
        ("host=a,b port=1,2", "a:1 b:2"),
        ("host=a,b port=,2", "a:5432 b:2"),
        ("host=a,,b", "a:5432 localhost:5432 b:5432"),
        ("hostaddr=1.1.1.1,2.2.2.2 port=1,2", "1.1.1.1=1.1.1.1:1 2.2.2.2=2.2.2.2:2"),
        ("host=a,b hostaddr=,::1", "a:5432 b=::1:5432"),
        ("host=/run/pg,@abstract,c", "/run/pg:5432 @abstract:5432 c:5432"),
    ] {
        assert_eq!(hosts_of(conninfo), wanted, "{conninfo}");
    }
    assert_error("host=a,b port=1,2,3", &["port has 3", "host has 2"]);
    assert_error("port=1,2", &["port has 2", "host has 1"]);
    assert_error("hostaddr=1.1.1.1 port=1,2", &["port has 2", "hostaddr has 1"]);
    assert_error("host=a,b hostaddr=1.1.1.1", &["host has 2", "hostaddr has 1"]);
    assert_error("hostaddr=name", &["hostaddr", "name", "not an IP address"]);
    assert_error("host=/run hostaddr=::1", &["host ", "hostaddr", "same server"]);
    assert_error("host='a, b'", &["host", "\" b\"", "without blanks"]);
    assert_error(&format!("host=/{}", "x".repeat(120)), &["host", "107"]);
    for port in ["0", "65536", "-1", "x", "1.5"] {
        assert_error(&format!("port={port}"), &["port", port, "1 to 65535"]);
    }
}

#[test]
fn a_host_named_twice_counts_once() {
    let config = parse("host=localhost,localhost port=1,1");
    assert_eq!(hosts(&config), "localhost:1");
    assert!(config.warnings[0].contains("localhost:1"), "{:?}", config.warnings);
    assert_eq!(hosts_of("host=a,a port=1,2"), "a:1 a:2");
}

#[test]
fn without_a_host_the_usual_sockets_come_first() {
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    let env = Environment {
        socket_directories: vec![first.path().into(), second.path().into()],
        ..env()
    };
    assert_eq!(hosts(&parse_in("", &env)), "localhost:5432");
    std::fs::write(second.path().join(".s.PGSQL.5433"), "").unwrap();
    assert_eq!(hosts(&parse_in("", &env)), "localhost:5432");
    let in_second = format!("{}:5433", second.path().display());
    assert_eq!(hosts(&parse_in("port=5433", &env)), in_second);
    std::fs::write(first.path().join(".s.PGSQL.5433"), "").unwrap();
    let in_first = format!("{}:5433", first.path().display());
    assert_eq!(hosts(&parse_in("port=5433", &env)), in_first);
}

#[test]
fn malformed_uris_are_named() {
    for (uri, wanted) in [
        ("postgresql://[::1", "\"[\" without \"]\""),
        ("postgresql://[]", "no address"),
        ("postgresql://[::1]x", "neither a port"),
        ("postgresql://u%zz@h", "user name"),
        ("postgresql://u:%4@h", "password"),
        ("postgresql://h%", "host"),
        ("postgresql://h/%00", "database name"),
        ("postgresql://h/%ff", "not UTF-8"),
        ("postgresql://h?user", "user has no \"=\""),
        ("postgresql://h?user=a=b", "user has a second \"=\""),
        ("postgresql://h?usr=a", "did you mean user?"),
        ("postgresql://h?ssl=false", "did you mean sslmode?"),
        ("postgresql://h:1:2", "not a number"),
        ("postgresql://::1/db", "brackets"),
    ] {
        let error = error(uri);
        assert!(error.contains(wanted), "{uri}: {error}");
    }
}

/// A password that was not encoded or quoted falls apart, and its pieces land in other places. None
/// of them may be shown.
#[test]
fn no_error_shows_a_piece_of_a_password() {
    let env = env().with("PGSSLMODE", "disable");
    for conninfo in [
        "postgresql://u:hunter/hunter@h/db",
        "postgresql://u:hunter@hunter@h/db",
        "postgresql://u:123/hunter@h/db",
        "postgresql://u:@hunter/@h/db",
        "postgresql://u:@x?hunter@h/db?user=u",
        "postgresql://u:hunter%zz@h/db",
        "postgresql://u:hunter%ff@h/db",
        "postgresql://u:1/2?hunter=x@h/db",
        "postgresql://u:1/2?hunter@h/db",
        "postgresql://u:1/2?hunter=x=@h/db",
        "postgresql://u:%68unter/h",
        "postgresql://h?password=hunter=hunter",
        "postgresql://h?password=hunter%zz",
        "postgresql://u:[hunter/x@h",
        "password=my hunter",
        "password=my hunter=x",
        "password=my hunter=x hunter",
        "password='hunter",
        "sslpassword=hunter",
        "scram_client_key=hunter",
        "oauth_client_secret=hunter",
        "password='hunter' port=x",
    ] {
        let error = error_in(conninfo, &env);
        assert!(!error.contains("hunter"), "{conninfo}: {error}");
    }
    let config = parse_in("host=h password=hunter passfile=/nonexistent", &env);
    for shown in [format!("{config:?}"), format!("{config:#?}"), config.to_string()] {
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn display_parses_back_to_the_same() {
    let config = parse(
        "host=a,/run/x,b hostaddr=1.1.1.1,,::2 port=1,2,3 user='a b' dbname=\"'\\\\ sslmode=disable",
    );
    let again = parse(&config.to_string());
    assert_eq!(config, again);
}
