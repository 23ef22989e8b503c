//! Precedence, service files and password files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{env, error_in, parse_in};
use crate::config::{Config, Environment};

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn at_home(directory: &Path) -> Environment {
    Environment { home: Some(directory.to_owned()), ..env() }
}

fn passwords(config: &Config) -> Vec<Option<&str>> {
    config
        .hosts
        .iter()
        .map(|host| host.password.as_ref().map(|password| password.reveal()))
        .collect()
}

#[test]
fn explicit_beats_service_beats_environment_beats_default() {
    let home = tempfile::tempdir().unwrap();
    write(
        home.path(),
        ".pg_service.conf",
        "# comment\n[other]\nuser=wrong\n\n[s]\n  user=service user \ndbname=service\nuser=second\n\
         [s]\ndbname=later\n",
    );
    let env = at_home(home.path())
        .with("PGUSER", "environment")
        .with("PGDATABASE", "environment")
        .with("PGAPPNAME", "environment");
    let of = |conninfo: &str| {
        let config = parse_in(conninfo, &env);
        (config.user, config.database, config.application_name)
    };
    let all = |user: &str, database: &str| (user.into(), database.into(), "environment".into());
    assert_eq!(of("service=s dbname=mine"), all("service user", "mine"));
    assert_eq!(of("service=s"), all("service user", "service"));
    assert_eq!(of(""), all("environment", "environment"));
    // An empty value hides what is weaker.
    assert_eq!(of("service=s dbname=''"), all("service user", "service user"));
    let env = env.clone().with("PGSERVICE", "s");
    assert_eq!(parse_in("", &env).database, "service");
    // As options one by one, it does not: PQconnectdbParams ignores it.
    let config = Config::from_pairs([("dbname", ""), ("user", "u")], &env).unwrap();
    assert_eq!((config.user.as_str(), config.database.as_str()), ("u", "service"));
    let config = Config::parse_and("user=a dbname=b", [("user", "u")], &env).unwrap();
    assert_eq!((config.user.as_str(), config.database.as_str()), ("u", "b"));
}

#[test]
fn service_files_are_found_where_libpq_looks() {
    let home = tempfile::tempdir().unwrap();
    let system = tempfile::tempdir().unwrap();
    write(system.path(), "pg_service.conf", "[s]\ndbname=system\n[both]\ndbname=system\n");
    write(home.path(), ".pg_service.conf", "[both]\ndbname=home\n");
    let other = write(home.path(), "other", "[s]\ndbname=other");
    let env =
        Environment { system_service_dir: Some(system.path().to_owned()), ..at_home(home.path()) };
    assert_eq!(parse_in("service=s", &env).database, "system");
    assert_eq!(parse_in("service=both", &env).database, "home");
    let named = env.clone().with("PGSERVICEFILE", other.clone());
    assert_eq!(parse_in("service=s", &named).database, "other");
    let moved = env.clone().with("PGSYSCONFDIR", "/nonexistent");
    assert!(error_in("service=s", &moved).contains(".pg_service.conf"));
    let missing = env.clone().with("PGSERVICEFILE", "/nonexistent/file");
    assert!(error_in("service=s", &missing).contains("/nonexistent/file"));
    assert!(error_in("service=t", &env).contains("\"t\" is unknown"));
}

#[test]
fn mistakes_in_a_service_file_are_named_with_their_line() {
    let home = tempfile::tempdir().unwrap();
    for (line, wanted) in [
        ("usr=x", "did you mean user?"),
        ("user", "not keyword=value"),
        ("service=t", "do not nest"),
        ("ldap://x/y", "LDAP"),
        ("port=0", "port"),
        ("sslmode=prefer", "silently"),
        ("timezone=UTC", "PGTZ"),
    ] {
        write(home.path(), ".pg_service.conf", &format!("[s]\n#\n{line}\n"));
        let error = error_in("service=s", &at_home(home.path()));
        assert!(error.contains(wanted), "{line}: {error}");
        if !line.starts_with("timezone") {
            assert!(error.contains("line 3"), "{line}: {error}");
            assert!(error.contains(".pg_service.conf"), "{line}: {error}");
        }
    }
}

#[test]
fn the_password_file_is_asked_for_each_host() {
    let home = tempfile::tempdir().unwrap();
    write(
        home.path(),
        ".pgpass",
        "a:1:db:u:one\nb:*:*:u:two\nlocalhost:*:*:*:local\n/run/own:*:*:*:own\n1.1.1.1:*:*:*:addr\n",
    );
    let env = at_home(home.path()).with("PGSSLMODE", "disable");
    let config = parse_in("host=a,b,c,/tmp,/run/own,localhost port=1 user=u dbname=db", &env);
    assert_eq!(
        passwords(&config),
        [Some("one"), Some("two"), None, Some("local"), Some("own"), Some("local")]
    );
    assert_eq!(passwords(&parse_in("hostaddr=1.1.1.1", &env)), [Some("addr")]);
    assert_eq!(passwords(&parse_in("host=b hostaddr=1.1.1.1 user=u", &env)), [Some("two")]);
    // A password that was given is for all.
    let config = parse_in("host=a port=1 user=u dbname=db password=given", &env);
    assert_eq!(passwords(&config), [None]);
    assert!(config.warnings.is_empty());
}

#[test]
fn a_password_file_open_to_others_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    let path = write(home.path(), ".pgpass", "*:*:*:*:pw");
    let env = at_home(home.path());
    let closed = parse_in("host=localhost", &env);
    assert_eq!(passwords(&closed), [Some("pw")]);
    assert!(closed.warnings.is_empty());
    for mode in [0o640, 0o604, 0o610] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let open = parse_in("host=localhost", &env);
        assert_eq!(passwords(&open), [None], "{mode:o}");
        assert!(open.warnings[0].contains("0600"), "{:?}", open.warnings);
        assert!(open.warnings[0].contains(&path));
    }
}

#[test]
fn a_password_file_that_was_asked_for_is_missed() {
    let home = tempfile::tempdir().unwrap();
    let env = at_home(home.path());
    assert!(parse_in("host=localhost", &env).warnings.is_empty());
    let named = env.clone().with("PGPASSFILE", "/nonexistent/pw");
    let missing = parse_in("host=localhost", &named);
    assert!(missing.warnings[0].contains("/nonexistent/pw"));
    let directory = parse_in(&format!("host=localhost passfile={}", home.path().display()), &env);
    assert!(directory.warnings[0].contains("plain file"));
    // Warnings do not tell configurations apart: both clients would be the same.
    assert_eq!(missing, parse_in("host=localhost", &env));
}
