//! The ledger's SQL on a real server: what fences, what seals, who may do what, how it is planned.

mod live_server;

use std::sync::{Arc, Barrier};
use std::thread;

use live_server::Server;
use postgres::Client;
use segue::session::ledger;

const ROW: &str = "00000000-0000-4000-8000-0000000000aa";
const OTHER: &str = "00000000-0000-4000-8000-0000000000bb";
const NIL: &str = "00000000-0000-0000-0000-000000000000";
const SEALS: [&str; 2] = [ledger::SEAL_TABLE, ledger::SEAL_FUNCTION];

/// A server with the ledger installed, and the role `app` that owns nothing.
fn server(hardened: bool) -> (Server, Client) {
    let server = Server::start("");
    let mut owner = server.connect();
    owner.batch_execute(&ledger::install_sql(hardened, None)).unwrap();
    owner.batch_execute("CREATE ROLE app LOGIN; CREATE TABLE public.t (a int)").unwrap();
    owner.batch_execute("GRANT ALL ON public.t TO app").unwrap();
    (server, owner)
}

/// Writes the seal's parameters into its text, each with the type that it has.
fn seal(client: &mut Client, sql: &str, row: &str, number: i64) -> Result<u64, postgres::Error> {
    let sql =
        sql.replace("$1", &format!("'{row}'::uuid")).replace("$2", &format!("{number}::int8"));
    client.execute(&sql, &[])
}

#[track_caller]
fn refused<T>(result: Result<T, postgres::Error>, sqlstate: &str) {
    let error = result.err().expect("it must fail");
    assert_eq!(error.code().map(|code| code.code()), Some(sqlstate), "{error:?}");
}

fn look(client: &mut Client, row: &str) -> Option<(i64, i64)> {
    let sql = ledger::LOOK.replace("$1", &format!("'{{{row}}}'::uuid[]"));
    client.query_opt(&sql, &[]).unwrap().map(|found| (found.get("seq"), found.get("recent")))
}

fn open(client: &mut Client, row: &str, retired: &str) {
    let sql =
        ledger::OPEN.replace("$1", &format!("'{row}'")).replace("$2", &format!("'{retired}'"));
    assert_eq!(client.query_one(&sql, &[]).unwrap().get::<_, i32>(0), 1);
}

fn access(client: &mut Client) -> String {
    client.query_one(&format!("SELECT {}", ledger::ACCESS), &[]).unwrap().get(0)
}

#[test]
fn a_taken_number_raises_and_takes_the_work_with_it() {
    let (server, _owner) = server(false);
    let mut app = server.connect_as("app");
    for (sql, row) in SEALS.into_iter().zip([ROW, OTHER]) {
        open(&mut app, row, NIL);
        assert_eq!(seal(&mut app, sql, row, 1).unwrap(), 1);
        refused(seal(&mut app, sql, row, 1), ledger::SQLSTATE_FENCED);
        seal(&mut app, sql, row, 5).unwrap();
        refused(seal(&mut app, sql, row, 4), ledger::SQLSTATE_FENCED);
        let mut transaction = app.transaction().unwrap();
        transaction.execute("INSERT INTO t VALUES (1)", &[]).unwrap();
        let taken = sql.replace("$1", &format!("'{row}'")).replace("$2", "5");
        refused(transaction.execute(&taken, &[]), ledger::SQLSTATE_FENCED);
        // A COMMIT behind a seal that has raised is a ROLLBACK.
        transaction.commit().unwrap();
        let count: i64 = app.query_one("SELECT count(*) FROM t", &[]).unwrap().get(0);
        assert_eq!(count, 0);
        assert_eq!(look(&mut app, row).unwrap().0, 5);
    }
}

#[test]
fn two_attempts_at_one_number_never_both_commit() {
    let (server, _owner) = server(false);
    for (sql, row) in SEALS.into_iter().zip([ROW, OTHER]) {
        let mut zombie = server.connect_as("app");
        let mut replay = server.connect_as("app");
        open(&mut zombie, row, NIL);
        zombie.batch_execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
        seal(&mut zombie, sql, row, 1).unwrap();
        let pid: i32 = replay.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let waiting = thread::spawn(move || seal(&mut replay, sql, row, 1));
        // Only once the replay waits for the zombie's row lock may the zombie commit.
        let blocked = format!("SELECT cardinality(pg_blocking_pids({pid})) > 0");
        while !zombie.query_one(&blocked, &[]).unwrap().get::<_, bool>(0) {
            assert!(!waiting.is_finished(), "the replay did not wait");
            thread::yield_now();
        }
        zombie.batch_execute("COMMIT").unwrap();
        refused(waiting.join().unwrap(), ledger::SQLSTATE_FENCED);
    }
}

#[test]
fn a_missing_row_is_never_silent() {
    let (server, _owner) = server(false);
    let mut app = server.connect_as("app");
    assert_eq!(seal(&mut app, ledger::SEAL_TABLE, ROW, 1).unwrap(), 0, "the tag must be UPDATE 0");
    refused(seal(&mut app, ledger::SEAL_FUNCTION, ROW, 1), ledger::SQLSTATE_NO_ROW);
    refused(app.execute("SELECT segue.seal(NULL, 1)", &[]), ledger::SQLSTATE_NO_ROW);
    assert_eq!(look(&mut app, ROW), None);
}

#[test]
fn the_bitmap_tells_which_of_the_last_numbers_were_committed() {
    let (server, _owner) = server(false);
    let mut app = server.connect_as("app");
    for sql in SEALS {
        open(&mut app, ROW, NIL);
        let mut expected = (0_i64, 0_u64);
        // Gaps are failed statements of a pipeline; 63 is the longest that the bitmap can show.
        for number in [1, 2, 5, 68, 69, 132, 133, 196, 260, 1000] {
            seal(&mut app, sql, ROW, number).unwrap();
            let gap = number - expected.0;
            expected.1 = if gap > 63 { 1 } else { expected.1 << gap | 1 };
            expected.0 = number;
            let (seq, recent) = look(&mut app, ROW).unwrap();
            assert_eq!((seq, recent as u64), expected, "{sql}: {number}");
        }
        open(&mut app, OTHER, ROW);
        assert_eq!(look(&mut app, ROW), None);
    }
}

#[test]
fn the_guarded_seal_seals_what_wrote_and_nothing_else() {
    let (server, _owner) = server(false);
    let mut app = server.connect_as("app");
    open(&mut app, ROW, NIL);
    let guarded = |app: &mut Client, number: i64| -> i64 {
        let sql = ledger::SEAL_TABLE_GUARDED.replace("$1", &format!("'{ROW}'"));
        app.query_one(&sql.replace("$2", &number.to_string()), &[]).unwrap().get(0)
    };
    assert_eq!(guarded(&mut app, 1), 0);
    assert_eq!(look(&mut app, ROW), Some((0, 0)));
    app.batch_execute("BEGIN READ ONLY; SELECT * FROM t").unwrap();
    assert_eq!(guarded(&mut app, 1), 0);
    // A transaction id of its own does not make it seal, which would only fail with 25006.
    app.batch_execute("SELECT pg_current_xact_id()").unwrap();
    assert_eq!(guarded(&mut app, 1), 0);
    app.batch_execute("COMMIT; BEGIN; INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(guarded(&mut app, 1), 1);
    app.batch_execute("COMMIT").unwrap();
    assert_eq!(look(&mut app, ROW), Some((1, 1)));
    app.batch_execute("BEGIN; SAVEPOINT a; INSERT INTO t VALUES (2); RELEASE a").unwrap();
    assert_eq!(guarded(&mut app, 2), 2);
    app.batch_execute("COMMIT").unwrap();
    assert_eq!(ledger::SEAL_TABLE_GUARDED, ledger::SEAL_FUNCTION_GUARDED);
}

#[test]
fn opening_twice_keeps_the_number_and_retiring_spares_padding_and_itself() {
    let (server, mut owner) = server(true);
    let mut app = server.connect_as("app");
    open(&mut app, ROW, NIL);
    seal(&mut app, ledger::SEAL_FUNCTION, ROW, 7).unwrap();
    open(&mut app, ROW, ROW);
    assert_eq!(look(&mut app, ROW).unwrap().0, 7);
    let padding: String =
        owner.query_one("SELECT md5('segue padding 1')::uuid::text", &[]).unwrap().get(0);
    open(&mut app, OTHER, &padding);
    let rows = "SELECT count(*) FROM segue.ledger";
    assert_eq!(owner.query_one(rows, &[]).unwrap().get::<_, i64>(0), 1002);
    refused(app.execute("SELECT segue.purge('1 day')", &[]), "42501");
    owner
        .execute(
            "UPDATE segue.ledger SET opened_at = now() - '2 days'::interval WHERE seq = 7",
            &[],
        )
        .unwrap();
    assert_eq!(owner.query_one("SELECT segue.purge('1 day')", &[]).unwrap().get::<_, i64>(0), 1);
    assert_eq!(look(&mut app, ROW), None);
    assert_eq!(look(&mut app, OTHER), Some((0, 0)));
}

#[test]
fn a_hostile_role_gets_no_further_than_the_functions_in_hardened_mode() {
    let (server, mut owner) = server(true);
    let mut app = server.connect_as("app");
    assert_eq!(access(&mut app), "function");
    open(&mut app, ROW, NIL);
    for sql in [
        "SELECT * FROM segue.ledger",
        "SELECT count(*) FROM segue.ledger",
        "SELECT session FROM segue.ledger",
        "UPDATE segue.ledger SET seq = 0",
        "DELETE FROM segue.ledger",
        "INSERT INTO segue.ledger VALUES (gen_random_uuid())",
        "TRUNCATE segue.ledger",
        "DROP TABLE segue.ledger",
        "CREATE TABLE segue.x (a int)",
        "CREATE OR REPLACE FUNCTION segue.version() RETURNS int LANGUAGE sql AS 'SELECT 2'",
    ] {
        refused(app.batch_execute(sql), "42501");
    }
    // Its own operators, types and functions in front of the built-in ones do not reach the
    // functions that run as the owner.
    owner.batch_execute("CREATE SCHEMA evil AUTHORIZATION app").unwrap();
    app.batch_execute(
        "CREATE FUNCTION evil.boom(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
            $$BEGIN RAISE 'as %', current_user; END$$;
         CREATE FUNCTION evil.boom(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS
            $$BEGIN RAISE 'as %', current_user; END$$;
         CREATE OPERATOR evil.< (leftarg = bigint, rightarg = bigint, function = evil.boom);
         CREATE OPERATOR evil.<= (leftarg = bigint, rightarg = bigint, function = evil.boom);
         CREATE OPERATOR evil.= (leftarg = uuid, rightarg = uuid, function = evil.boom);
         CREATE OPERATOR evil.<> (leftarg = uuid, rightarg = uuid, function = evil.boom);
         CREATE DOMAIN evil.int4 AS text; CREATE DOMAIN evil.int8 AS text;
         CREATE DOMAIN evil.uuid AS text; CREATE DOMAIN evil.timestamptz AS text;
         CREATE FUNCTION evil.now() RETURNS text LANGUAGE sql AS $$SELECT 'evil'$$;
         CREATE TEMP TABLE int8 (a int); CREATE TEMP TABLE ledger (session int);
         SET search_path = evil, pg_temp, pg_catalog",
    )
    .unwrap();
    let mut call = |sql: &str| app.batch_execute(sql).unwrap();
    call(&format!("SELECT segue.seal('{ROW}', 1)"));
    call(&format!("SELECT * FROM segue.look('{{{ROW}}}')"));
    call(&format!("SELECT segue.open('{OTHER}', '{NIL}')"));
    let taken = format!("SELECT segue.seal('{ROW}', 1)");
    refused(app.batch_execute(&taken), ledger::SQLSTATE_FENCED);
    assert_eq!(access(&mut app), "function");
}

#[test]
fn access_tells_what_the_role_may_do_and_never_raises() {
    let server = Server::start("");
    let mut owner = server.connect();
    owner.batch_execute("CREATE ROLE app LOGIN; CREATE ROLE nobody LOGIN").unwrap();
    assert_eq!(access(&mut owner), "none");
    owner.batch_execute("CREATE SCHEMA segue").unwrap();
    assert_eq!(access(&mut owner), "none");
    owner.batch_execute(&ledger::install_sql(false, Some("app"))).unwrap();
    let mut app = server.connect_as("app");
    let mut nobody = server.connect_as("nobody");
    let mut seen = |owner: &mut Client| [access(owner), access(&mut app), access(&mut nobody)];
    assert_eq!(seen(&mut owner), ["table", "table", "none"]);
    // The privileges change in place, both ways.
    owner.batch_execute(&ledger::install_sql(true, Some("app"))).unwrap();
    assert_eq!(seen(&mut owner), ["table", "function", "none"]);
    owner.batch_execute(&ledger::install_sql(false, None)).unwrap();
    assert_eq!(seen(&mut owner), ["table", "table", "table"]);
    // Functions of somebody else's run with the caller's rights, and so are not to be called.
    owner.batch_execute("ALTER FUNCTION segue.fenced(bigint, bigint) OWNER TO nobody").unwrap();
    assert_eq!(seen(&mut owner), ["none", "none", "none"]);
    owner.batch_execute("ALTER FUNCTION segue.fenced(bigint, bigint) OWNER TO postgres").unwrap();
    // A newer ledger is left alone, and not used.
    let newer = "CREATE OR REPLACE FUNCTION segue.version() RETURNS int LANGUAGE sql IMMUTABLE
        PARALLEL SAFE AS 'SELECT 2'";
    owner.batch_execute(newer).unwrap();
    owner.batch_execute(&ledger::install_sql(false, None)).unwrap();
    assert_eq!(owner.query_one("SELECT segue.version()", &[]).unwrap().get::<_, i32>(0), 2);
    assert_eq!(seen(&mut owner), ["none", "none", "none"]);
}

#[test]
fn the_generic_plan_stays_with_the_index() {
    let (server, mut owner) = server(false);
    let mut app = server.connect_as("app");
    open(&mut app, ROW, NIL);
    app.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
    app.batch_execute(&format!("PREPARE seal(uuid, bigint) AS {}", ledger::SEAL_TABLE)).unwrap();
    let explain = format!("EXPLAIN EXECUTE seal('{ROW}', 0)");
    let check = |app: &mut Client, when: &str| {
        let rows = app.query(&explain, &[]).unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(
            plan.iter().any(|line| line.contains("Index Scan using ledger_pkey")),
            "{when}: {plan:?}"
        );
    };
    check(&mut app, "freshly installed");
    app.batch_execute(
        "DO $$BEGIN FOR i IN 1..10000 LOOP
            PERFORM segue.seal('00000000-0000-4000-8000-0000000000aa', i);
            IF i % 100 = 0 THEN COMMIT; END IF;
         END LOOP; END$$",
    )
    .unwrap();
    owner.batch_execute("ANALYZE segue.ledger").unwrap();
    check(&mut app, "after 10,000 seals");
    owner.batch_execute("VACUUM ANALYZE segue.ledger").unwrap();
    check(&mut app, "after a vacuum");
}

#[test]
fn eight_connections_install_at_once() {
    let server = Server::start("");
    let mut owner = server.connect();
    let barrier = Arc::new(Barrier::new(8));
    let installing: Vec<_> = (0..8)
        .map(|index| {
            let mut client = server.connect();
            let barrier = Arc::clone(&barrier);
            thread::spawn(move || {
                barrier.wait();
                client.batch_execute(&ledger::install_sql(index % 2 == 0, None))
            })
        })
        .collect();
    for one in installing {
        one.join().unwrap().unwrap();
    }
    let rows = "SELECT count(*) FROM segue.ledger";
    assert_eq!(owner.query_one(rows, &[]).unwrap().get::<_, i64>(0), 1000);
    let path: String = owner.query_one("SHOW search_path", &[]).unwrap().get(0);
    assert_eq!(path, "\"$user\", public");
}

#[test]
fn removal_spares_what_is_not_its_own() {
    let (_server, mut owner) = server(false);
    for (make, unmake) in [
        ("CREATE TABLE segue.mine (a int)", "DROP TABLE segue.mine"),
        ("CREATE VIEW public.v AS SELECT seq FROM segue.ledger", "DROP VIEW public.v"),
    ] {
        owner.batch_execute(make).unwrap();
        refused(owner.batch_execute(ledger::remove_sql()), "2BP01");
        assert_eq!(access(&mut owner), "table", "nothing may be gone");
        owner.batch_execute(unmake).unwrap();
    }
    owner.batch_execute(ledger::remove_sql()).unwrap();
    owner.batch_execute(ledger::remove_sql()).unwrap();
    assert_eq!(access(&mut owner), "none");
}

#[test]
fn a_zombie_is_ended_and_its_namesake_is_spared() {
    let (server, _owner) = server(false);
    let mut app = server.connect_as("app");
    let mut zombie = server.connect_as("app");
    // Neither DateStyle nor TimeZone may change the name of a backend's start.
    zombie.batch_execute("SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'").unwrap();
    let sql = format!("SELECT pg_backend_pid(), {}", ledger::BACKEND_START);
    let row = zombie.query_one(&sql, &[]).unwrap();
    let (pid, start): (i32, String) = (row.get(0), row.get(1));
    let mut end = |start: &str| {
        let sql = ledger::TERMINATE.replace("$1", &pid.to_string());
        let sql = sql.replace("$2", &format!("'{start}'")).replace("$3", "10000");
        app.query_opt(&sql, &[]).unwrap().map(|row| row.get::<_, bool>(0))
    };
    assert_eq!(end("1.5"), None);
    zombie.batch_execute("SELECT 1").unwrap();
    assert_eq!(end(&start), Some(true));
    zombie.batch_execute("SELECT 1").unwrap_err();
    assert_eq!(end(&start), None);
}
