//! The command line, as it was built, against real servers.
#![cfg(feature = "cli")]

use std::process::{Command, Output};
use std::time::Duration;

use segue_testkit::{APP_PASSWORD, Auth, Cluster, Replication};
use serde_json::Value;

/// Runs the program without any of the surroundings that it would read.
fn segue(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segue"));
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("PG") || name.starts_with("SEGUE_"))
    {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent").args(arguments).output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Both, for what must not be in either.
fn all(output: &Output) -> String {
    stdout(output) + &stderr(output)
}

fn check(conninfo: &str) -> (Option<i32>, Value) {
    let output = segue(&["check", "--json", conninfo]);
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", all(&output)));
    (output.status.code(), value)
}

fn findings(value: &Value) -> String {
    value["findings"].to_string()
}

#[test]
fn the_demo_holds_and_says_so_in_json() {
    let arguments = ["demo", "--json", "--sessions", "4", "--seconds", "4", "--failovers", "2"];
    let output = segue(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 1, "nothing but the object: {text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    for name in ["errors", "lost", "duplicated", "unknown", "divergences", "invented"] {
        assert_eq!(value[name], 0, "{name}: {}", all(&output));
    }
    assert_eq!(value["failovers"], 2);
    assert_eq!(value["held"], true);
    assert!(value["transactions"].as_u64().unwrap() > 20, "{value}");
    assert!(value["sessions_moved"].as_u64().unwrap() >= 8, "{value}");
    assert!(value["promotion_ms"].as_u64().is_some(), "{value}");
    let pause = value["longest_pause_ms"].as_u64().unwrap();
    assert!(pause > 0 && pause < 60_000, "{value}");
    assert_eq!(value["total_before"], value["total_after"]);
    let timeline = stderr(&output);
    assert!(timeline.contains("SIGKILL") && timeline.contains("was promoted"), "{timeline}");
    assert!(timeline.contains("VERDICT: held"), "{timeline}");
}

#[test]
fn an_interrupted_demo_takes_its_servers_with_it() {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_segue"))
        .args(["demo", "--seconds", "600", "--failovers", "0", "--sessions", "2"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().unwrap().contains("transfers/s"));
    assert!(line.is_some(), "the demo ended before it was interrupted");
    let data_of = format!("segue-pg-{}-", child.id());
    assert!(servers_in(&data_of) > 0, "no server stands in a directory of the demo's");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert_eq!(servers_in(&data_of), 0);
}

/// How many processes stand in a directory of that name.
fn servers_in(name: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stands = |path: &std::path::Path| {
        std::fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy().contains(name))
    };
    processes.filter(|process| stands(&process.path())).count()
}

#[test]
fn setup_installs_hardens_and_removes() {
    let cluster = Cluster::builder().standbys(0).start().unwrap();
    let conninfo = cluster.conninfo();
    let server = cluster.primary();
    server.execute("CREATE ROLE other LOGIN").unwrap();
    let run = |more: &[&str]| {
        let arguments: Vec<&str> =
            ["setup"].iter().chain(more).chain([&&*conninfo]).copied().collect();
        let output = segue(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", all(&output));
        stdout(&output)
    };
    let may_update = || {
        let sql = "SELECT has_column_privilege('other', 'segue.ledger', 'seq', 'UPDATE')";
        server.value(sql).unwrap() == "t"
    };
    let text = run(&["--remove"]);
    assert!(text.contains("no ledger"), "{text}");
    let text = run(&[]);
    assert!(text.contains("Installed the ledger (version 1)"), "{text}");
    assert!(text.contains("PUBLIC") && may_update(), "{text}");
    let text = run(&["--hardened", "--role", "other"]);
    assert!(text.contains("version 1 already"), "{text}");
    assert!(text.contains("other") && !may_update(), "{text}");
    let text = run(&["--purge", "2 days"]);
    assert!(text.contains("Purged 0 rows"), "{text}");
    let text = run(&["--remove"]);
    assert!(text.contains("Removed the ledger (version 1)"), "{text}");
    assert_eq!(server.value("SELECT to_regnamespace('segue') IS NULL").unwrap(), "t");

    // What is printed is what is installed.
    let printed = stdout(&segue(&["setup", "--print", "--hardened"]));
    server.execute(&printed).unwrap();
    assert_eq!(server.value("SELECT segue.version()").unwrap(), "1");
    server.execute(&stdout(&segue(&["setup", "--print", "--remove"]))).unwrap();

    let fails = |arguments: &[&str], words: &str| {
        let output = segue(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(words) && text.lines().count() == 1, "{text}");
        assert_eq!(stdout(&output), "");
    };
    fails(&["setup", "--role", "nobody_at_all", &conninfo], "create the role first");
    let other = server.uri("other", "app") + "?sslmode=disable";
    fails(&["setup", &other], "database's owner");
    run(&[]);
    fails(&["setup", "--purge", "1 hour", &conninfo], "a day at least");
    fails(&["setup", "host=localhost nonsense=1"], "unknown option");
}

#[test]
fn check_knows_a_good_cluster_and_changes_nothing() {
    let cluster = Cluster::builder().auth(Auth::Scram).start().unwrap();
    let conninfo = cluster.conninfo();
    let (code, value) = check(&conninfo);
    assert_eq!(code, Some(0), "{value}");
    assert!(findings(&value).contains("first session"), "{value}");
    assert!(findings(&value).contains("pg_monitor"), "{value}");
    let server = cluster.primary();
    server.execute("GRANT pg_monitor TO app").unwrap();
    assert_eq!(server.value("SELECT to_regnamespace('segue') IS NULL").unwrap(), "t");

    assert_eq!(segue(&["setup", &conninfo]).status.code(), Some(0));
    let caught_up = "SELECT to_regnamespace('segue') IS NOT NULL";
    cluster.standby().unwrap().wait_until(caught_up, Duration::from_secs(20)).unwrap();
    let (code, value) = check(&conninfo);
    assert_eq!((code, findings(&value)), (Some(0), "[]".to_owned()), "{value}");
    assert_eq!(value["protection"]["exactly_once"], true);
    assert_eq!(value["protection"]["acknowledged_commits_can_be_lost"], false);
    assert_eq!(value["protection"]["detection_ms"], 2500);
    let [first, second] = [&value["servers"][0], &value["servers"][1]];
    assert_eq!((&first["role"], &second["role"]), (&"primary".into(), &"standby".into()));
    assert_eq!(first["system_identifier"], second["system_identifier"]);
    assert_eq!(first["authentication"], "SCRAM-SHA-256");
    assert_eq!((&first["timeline"], &first["pooled"]), (&1.into(), &false.into()));
    assert_eq!(first["ledger_access"], "table");
    let standby = &first["standbys"][0];
    assert_eq!(
        (&standby["state"], &standby["sync_state"]),
        (&"streaming".into(), &"quorum".into())
    );

    let output = segue(&["check", &conninfo]);
    let text = all(&output);
    assert!(
        text.contains("Nothing to mend") && text.contains("exactly once:         yes"),
        "{text}"
    );
    assert!(!text.contains(APP_PASSWORD), "{text}");

    // A wrong password is refused by every server, and repeated by nobody.
    let wrong = conninfo.replace(APP_PASSWORD, "open-sesame");
    let output = segue(&["check", &wrong]);
    let text = all(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("password authentication failed") && text.contains("pg_hba.conf"),
        "{text}"
    );
    assert!(!text.contains("open-sesame"), "{text}");
    let output = segue(&["setup", &wrong]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!all(&output).contains("open-sesame"), "{}", all(&output));
    let output = segue(&["check", &conninfo, &wrong]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!all(&output).contains("open-sesame"), "{}", all(&output));
}

#[test]
fn check_names_what_is_to_be_mended() {
    let cluster = Cluster::builder().replication(Replication::Async).start().unwrap();
    let server = cluster.primary();
    server.execute("CREATE ROLE other LOGIN; REVOKE CREATE ON DATABASE app FROM PUBLIC").unwrap();
    let (code, value) = check(&cluster.conninfo().replace("user=app", "user=other"));
    assert_eq!(code, Some(1), "{value}");
    assert_eq!(value["protection"]["exactly_once"], false);
    assert!(findings(&value).contains("may not install it"), "{value}");

    let (code, value) = check(&cluster.conninfo());
    assert_eq!(code, Some(1), "{value}");
    assert!(findings(&value).contains("asynchronous"), "{value}");
    assert_eq!(value["protection"]["acknowledged_commits_can_be_lost"], true);

    let text = cluster.conninfo() + " on_primary_loss=promote";
    server.execute("REVOKE EXECUTE ON FUNCTION pg_promote(boolean, integer) FROM app").unwrap();
    let (_, value) = check(&text);
    assert!(findings(&value).contains("may not call pg_promote()"), "{value}");

    cluster.standby().unwrap().stop_fast().unwrap();
    let (code, value) = check(&cluster.conninfo());
    assert_eq!(code, Some(1), "{value}");
    assert_eq!(value["servers"][1]["reachable"], false);
    assert!(findings(&value).contains("no standby is there"), "{value}");

    server.stop_fast().unwrap();
    let (code, value) = check(&cluster.conninfo());
    assert_eq!(code, Some(2), "{value}");
    assert!(findings(&value).contains("no server can be used"), "{value}");
}

#[test]
fn check_says_what_tls_verifies() {
    let cluster = Cluster::builder().standbys(0).tls(true).start().unwrap();
    let conninfo = cluster.conninfo();
    let (code, value) = check(&conninfo);
    assert_eq!(code, Some(1), "{value}");
    assert!(findings(&value).contains("only one server is named"), "{value}");
    assert_eq!(value["servers"][0]["tls"], "TLSv1.3, certificate and name verified");
    let (_, value) = check(&conninfo.replace("verify-full", "verify-ca"));
    assert_eq!(value["servers"][0]["tls"], "TLSv1.3, certificate verified, its name not");
    let (code, value) = check(&conninfo.replace("verify-full", "disable"));
    assert_eq!((code, &value["servers"][0]["reachable"]), (Some(2), &false.into()), "{value}");
}

#[test]
fn watch_shows_servers_and_options_lists_them() {
    let cluster = Cluster::builder().start().unwrap();
    let output = segue(&["watch", "--seconds", "2", &cluster.conninfo()]);
    assert_eq!(output.status.code(), Some(0), "{}", all(&output));
    let text = stdout(&output);
    assert!(text.contains("> 127.0.0.1") && text.contains("primary"), "{text}");
    assert!(text.contains("standby") && text.contains("bytes behind"), "{text}");
    let text = stdout(&segue(&["options"]));
    assert!(text.contains("poll_interval_ms") && text.contains("PGHOST"), "{text}");
    let output = segue(&["--version"]);
    assert_eq!(stdout(&output).trim(), concat!("segue ", env!("CARGO_PKG_VERSION")));
    assert_eq!(segue(&["dance"]).status.code(), Some(2));
}
