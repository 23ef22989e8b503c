//! `segue journal`, as it was built.

use std::path::Path;
use std::process::{Command, Output};

use segue::journal::{Expect, Fate, Key, Param, Record, Submission as Handed, Submitted, read};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{
    INSERT, Past, commit, count, eventually, flip, name, open_row, server, shared,
    system_identifier,
};

fn segue(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segue"));
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("PG") || name.starts_with("SEGUE_"))
    {
        command.env_remove(name);
    }
    let command = command.env("HOME", "/nonexistent").arg("journal").args(arguments);
    command.output().expect("the program runs")
}

fn all(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[track_caller]
fn run(exit: i32, arguments: &[&str]) -> String {
    let output = segue(arguments);
    assert_eq!(output.status.code(), Some(exit), "{}", all(&output));
    all(&output)
}

#[track_caller]
fn json(exit: i32, arguments: &[&str]) -> Value {
    let output = segue(arguments);
    assert_eq!(output.status.code(), Some(exit), "{}", all(&output));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", all(&output)))
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn submission(past: &Past, id: &str) -> Uuid {
    let uuid = Uuid::new_v4();
    let value = Some(id.as_bytes());
    let statement = Submitted {
        sql: INSERT,
        params: vec![Param { oid: 25, format: 0, value }],
        expect: Expect::Nothing,
    };
    past.write(
        None,
        &Record::Submission(Handed {
            id: uuid,
            lane: "a lane",
            key: "a key",
            submitted_unix_ms: 1_700_000_000_000,
            blocks_lane: false,
            statements: vec![statement],
        }),
    );
    uuid
}

#[test]
fn a_journal_is_listed_shown_recovered_and_purged() {
    let mut past = Past::new();
    let (row, done) = (open_row(server()), name());
    commit(server(), &done, row, 1);
    let never = past.statement(past.began(false), INSERT, &[Some(b"a secret value")]).number();
    let sent = past.transaction(&done, row, 1);
    let missing = past.transaction("x", Uuid::new_v4(), 1);
    let handed = name();
    let id = submission(&past, &handed);
    let dir = text(&past.path());
    let conninfo = past.conninfo.clone();

    // Beside the process that owns it, which is this one.
    let value = json(0, &["list", &dir, "--json"]);
    assert_eq!(value["in_use_by"], std::process::id());
    assert_eq!(value["entries"].as_array().unwrap().len(), 4);
    for arguments in [vec!["purge", &*dir], vec!["recover", &*dir, &*conninfo]] {
        assert!(run(2, &arguments).contains("journal_locked"));
    }
    past.leave();

    let value = json(0, &["list", &dir, "--json"]);
    let entries = value["entries"].as_array().unwrap();
    let states: Vec<&str> = entries.iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["never sent", "sent", "sent", "to be run"]);
    assert_eq!((&value["in_use_by"], &value["damaged"]), (&Value::Null, &Value::Bool(false)));
    assert_eq!((&entries[0]["number"], &entries[0]["user"]), (&never.into(), &"somebody".into()));
    assert_eq!(entries[3]["id"], id.to_string());
    let listed = run(0, &["list", &dir]);
    assert!(listed.contains("never sent") && listed.contains("(a key)"), "{listed}");
    assert!(run(0, &["verify", &dir]).contains("whole"));

    let number = never.to_string();
    let shown = run(0, &["show", &dir, &number]);
    assert!(shown.contains(INSERT) && shown.contains("14 bytes"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    assert!(run(0, &["show", &dir, &number, "--values"]).contains("a secret value"));
    assert!(run(0, &["show", &dir, &id.to_string(), "--values"]).contains(&handed));
    assert!(run(2, &["show", &dir, "999"]).contains("nothing in the journal is called 999"));

    // Undecided work is not thrown away by accident.
    let refused = run(2, &["purge", &dir, &sent.to_string()]);
    assert!(
        refused.contains("not decided") && refused.contains("Nothing was forgotten"),
        "{refused}"
    );
    run(2, &["purge", &dir, "--all"]);

    let value = json(1, &["recover", &dir, &conninfo, "--json"]);
    let told = value["transactions"].as_array().unwrap();
    let told: Vec<&str> = told.iter().map(|it| it["verdict"].as_str().unwrap()).collect();
    assert_eq!(told, ["never sent", "committed", "unknown"]);
    assert!(!value.to_string().contains(&row.to_string()), "a row's name is a capability");
    assert_eq!(
        (&value["submissions"][0]["id"], &value["ran"]),
        (&id.to_string().into(), &Value::Null)
    );
    assert_eq!(count(server(), &handed), 0, "it was not asked for");
    let again = run(1, &["recover", &dir, &conninfo]);
    assert!(
        again.contains("no row for its session") && again.contains("--run-submissions"),
        "{again}"
    );

    let purged = run(0, &["purge", &dir]);
    assert!(purged.contains("2 left"), "{purged}");
    let value = json(1, &["recover", &dir, &conninfo, "--json", "--run-submissions"]);
    assert_eq!(
        (&value["transactions"][0]["number"], &value["ran"]["committed"]),
        (&missing.into(), &1.into())
    );
    assert_eq!(count(server(), &handed), 1);
    run(0, &["purge", &dir, &missing.to_string(), "--yes"]);
    assert!(run(0, &["list", &dir]).contains("Nothing is in flight"));
    let value = json(0, &["recover", &dir, &conninfo, "--json"]);
    assert_eq!(value["transactions"], Value::Array(vec![]));
}

#[test]
fn everything_goes_if_that_is_said_twice() {
    let mut past = Past::new();
    past.transaction("x", Uuid::new_v4(), 1);
    submission(&past, "x");
    past.known(past.began(true), Fate::Unknown);
    past.leave();
    let dir = text(&past.path());
    let purged = run(0, &["purge", &dir, "--all", "--yes"]);
    assert!(purged.contains("Nothing is left"), "{purged}");
    assert_eq!(json(0, &["list", &dir, "--json"])["entries"], Value::Array(vec![]));
}

#[test]
fn damage_is_told_with_its_place() {
    let mut past = Past::new();
    let number = past.statement(past.began(false), INSERT, &[Some(b"to be damaged")]).number();
    past.began(false);
    past.leave();
    flip(&past, b"to be damaged");
    let dir = text(&past.path());
    let value = json(1, &["verify", &dir, "--json"]);
    assert_eq!((&value["exit"], &value["damaged"]), (&1.into(), &true.into()));
    let finding = &value["findings"][0];
    assert!(finding["file"].as_str().unwrap().starts_with("segment-"), "{value}");
    assert!(
        finding["position"].as_u64().unwrap() >= 8192 && finding["bytes"].as_u64().unwrap() > 0
    );
    let told = run(1, &["verify", &dir]);
    assert!(
        told.contains("damage: ") && told.contains(&format!("of transaction {number}")),
        "{told}"
    );
    let listed = run(0, &["list", &dir]);
    assert!(listed.contains("(doubtful)") && listed.contains("is damaged"), "{listed}");
    let refused = run(2, &["purge", &dir, &number.to_string()]);
    assert!(refused.contains("not decided"), "{refused}");
}

#[test]
fn an_encrypted_journal_wants_its_key() {
    use std::os::unix::fs::PermissionsExt;
    let digits = "0c".repeat(32);
    let key = Key::from_hex(&digits);
    let mut past = Past::with(shared().conninfo(), system_identifier(server()), key);
    past.statement(past.began(false), INSERT, &[Some(b"x")]);
    past.leave();
    let dir = text(&past.path());
    let file = |name: &str, digits: &str| {
        let path = past.dir.path().join(name);
        std::fs::write(&path, digits).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        text(&path)
    };
    let (right, wrong) = (file("right", &digits), file("wrong", &"0d".repeat(32)));
    assert!(run(2, &["list", &dir]).contains("journal_key_needed"));
    let told = run(2, &["verify", &dir, "--journal-key-file", &wrong]);
    assert!(told.contains("journal_wrong_key"), "{told}");
    let value = json(0, &["list", &dir, "--json", "--journal-key-file", &right]);
    assert_eq!(value["entries"][0]["state"], "never sent");
    let arguments = ["recover", &dir, &past.conninfo, "--journal-key-file", &right];
    assert!(run(0, &arguments).contains("never sent"));
    // The key may stand in the connection string of the application, as it is.
    let uri = format!("{} journal=file journal_dir={dir} journal_key_file={right}", past.conninfo);
    assert!(run(0, &["recover", &dir, &uri]).contains("never sent"));
}

#[test]
fn what_is_not_there_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(&dir.path().join("none"));
    for arguments in
        [vec!["list", &*path], vec!["purge", &*path], vec!["recover", &*path, "host=h user=u"]]
    {
        run(2, &arguments);
    }
    assert!(!Path::new(&path).exists());
}

/// Read beside a client that writes all the time: never taken for damaged, never an error.
#[test]
fn it_is_read_beside_its_owner() {
    let mut past = Past::new();
    past.statement(past.began(false), INSERT, &[Some(b"kept")]);
    past.leave();
    let client = past.client("journal_bytes_max=1048576");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let dir = text(&past.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let note = "n".repeat(5_000);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let it = segue::Submission::new();
                let it = it.statement("SELECT $1::text, $2::int8", &[&note.as_str(), &1_i64]);
                client.submit(it.unwrap()).unwrap();
            }
        });
        let mut seen = 0;
        eventually("twenty looks", || {
            let value = json(0, &["verify", &dir, "--json"]);
            assert_eq!(value["damaged"], false, "{value}");
            assert_eq!(value["in_use_by"], std::process::id());
            seen += 1;
            seen == 20
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let disk = segue::journal::Disk::look(&past.path()).unwrap();
    assert!(read(std::sync::Arc::new(disk), None).is_ok());
}
