//! Holds the classifier against PostgreSQL's own verdict: the transaction id it assigned, the
//! settings it changed, the status it left, the statements it refused inside a transaction.

mod generated;
#[path = "../live_server/mod.rs"]
mod live_server;
mod observed;
mod strings;

use std::collections::BTreeSet;

use live_server::Server;
use observed::{Connection, Way};
use postgres::{Client, SimpleQueryMessage};
use segue::session::classify::{Effect, StatementKind, classify};

const SCHEMA: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT g, g FROM generate_series(1, 9) g;
    CREATE TABLE u (id int PRIMARY KEY, a text); INSERT INTO u VALUES (1, 'u');
    CREATE SEQUENCE s; CREATE TYPE e AS ENUM ('x');
    CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'UPDATE u SET a = NULL RETURNING id';
    CREATE PROCEDURE p() LANGUAGE sql AS 'INSERT INTO u VALUES (78, NULL)';
    CREATE MATERIALIZED VIEW v AS SELECT 1 AS one;
";

const READING: &[&str] = &[
    "SELECT 1",
    "SELECT * FROM t WHERE id = 1",
    "TABLE t",
    "VALUES (1), (2)",
    "SHOW work_mem",
    "SELECT count(*), max(a), string_agg(a, ',' ORDER BY id), array_agg(id) FROM t",
    "SELECT row_number() OVER (ORDER BY id), lag(a) OVER w FROM t WINDOW w AS (ORDER BY id)",
    "SELECT count(*) FILTER (WHERE id IN (1, 2)) FROM t GROUP BY ROLLUP (a)",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM t",
    "WITH x(a) AS (SELECT 1), y AS MATERIALIZED (SELECT 2 AS b) SELECT * FROM x, y",
    "WITH RECURSIVE x(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT * FROM x",
    "SELECT * FROM generate_series(1, 3) g(a) JOIN t ON (g.a = t.id)",
    "SELECT * FROM t, LATERAL (SELECT upper(t.a)) AS l(b) WHERE EXISTS (SELECT FROM u)",
    "SELECT id::numeric(10, 2), CAST(a AS varchar(3)), a::character varying(2) FROM t",
    "SELECT now(), clock_timestamp(), random(), gen_random_uuid(), pg_sleep(0), version()",
    "SELECT coalesce(a, ''), nullif(a, ''), greatest(1, 2), substring(a from 1 for 2) FROM t",
    "SELECT extract(year from now()), date_trunc('day', now()), to_char(now(), 'YYYY'), age(now())",
    "SELECT jsonb_build_object('a', 1), '{\"a\":1}'::jsonb -> 'a', jsonb_agg(t) FROM t",
    "SELECT current_setting('work_mem'), pg_is_in_recovery(), pg_backend_pid(), current_user",
    "SELECT pg_current_wal_lsn(), pg_current_xact_id_if_assigned(), txid_current_if_assigned()",
    "SELECT pg_relation_size('t'), pg_table_size('t'), pg_database_size(current_database())",
    "SELECT pg_get_viewdef('v'::regclass), format_type(23, NULL), obj_description(1, 'pg_class')",
    "SELECT md5('a'), sha256('a'), encode('a', 'hex'), regexp_replace('a', 'b', 'c'), trim(' a ')",
    "SELECT xmlelement(name a, 1), xpath('/a', '<a/>'), to_tsvector('a') @@ to_tsquery('a')",
    "SELECT unnest(ARRAY[1, 2]), array_length(ARRAY[1], 1), row_to_json(ROW(1, 2))",
    "SELECT * FROM t TABLESAMPLE system (100)",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_locks",
    "SELECT * FROM information_schema.tables",
    "(SELECT 1) UNION (SELECT 2)",
    "SELECT DISTINCT ON (lower(a)) a FROM t",
    "SELECT (1) delete FROM t",
    "SELECT \"lower\"('A'), pg_catalog.upper('a'), overlay('abc' placing 'x' from 2)",
    "EXPLAIN DELETE FROM t",
    "EXPLAIN (COSTS OFF) SELECT f()",
    "EXPLAIN ANALYZE SELECT count(*) FROM t",
    "DECLARE c CURSOR FOR SELECT * FROM t",
];

const WRITING: &[&str] = &[
    "INSERT INTO u VALUES (2, 'x') RETURNING id",
    "UPDATE t SET a = 'b' WHERE id = 1",
    "DELETE FROM t WHERE id = 1",
    "INSERT INTO u VALUES (1, 'y') ON CONFLICT (id) DO UPDATE SET a = 'z'",
    "MERGE INTO u USING t ON (t.id = u.id) WHEN MATCHED THEN UPDATE SET a = 'm'",
    "WITH d AS (DELETE FROM t WHERE id = 2 RETURNING *) SELECT * FROM d",
    "WITH d(i) AS MATERIALIZED (UPDATE t SET a = 'c' RETURNING id) SELECT count(*) FROM d",
    "WITH x AS (SELECT 99 AS id) INSERT INTO u SELECT id FROM x",
    "SELECT id INTO w FROM t",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN (\"analyze\") DELETE FROM t",
    "EXPLAIN (ANALYZE, COSTS OFF) UPDATE t SET a = 'q'",
    "TRUNCATE t",
    "CREATE TABLE w (a int)",
    "CREATE TABLE w AS SELECT 1 AS a",
    "ALTER TABLE t ADD b int",
    "DROP TABLE u",
    "CREATE INDEX ON t (a)",
    "COMMENT ON TABLE t IS 'x'",
    "GRANT SELECT ON t TO PUBLIC",
    "REVOKE ALL ON t FROM PUBLIC",
    "REFRESH MATERIALIZED VIEW v",
    "ALTER TYPE e ADD VALUE 'y'",
    "CREATE TEMP TABLE w (a int)",
    "CREATE VIEW w AS SELECT 1 AS a",
    "CREATE SCHEMA w",
    "CREATE ROLE w",
    "DROP SEQUENCE s",
];

/// Neither reading nor surely writing: the guarded seal has to tell.
const DOUBTFUL: &[&str] = &[
    "SELECT nextval('s')",
    "SELECT f()",
    "SELECT DISTINCT ON (a) f() FROM t",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR KEY SHARE",
    "SELECT pg_current_xact_id()",
    "SELECT txid_current()",
    "SELECT query_to_xml('SELECT nextval(''s'')', true, true, '')",
    "CALL p()",
    "NOTIFY n",
    "DO 'BEGIN INSERT INTO u VALUES (79); END'",
    "LOCK TABLE t IN ACCESS EXCLUSIVE MODE",
    "ANALYZE t",
    "SELECT pg_notify('a', 'b')",
    "SELECT lo_create(0)",
    "SELECT setval('s', 5)",
    "REINDEX TABLE t",
    "SELECT lower(a) OPERATOR(pg_catalog.||) f()::text FROM t WHERE id = 1",
    "CHECKPOINT",
    "EXPLAIN ANALYZE SELECT f()",
    "SELECT set_config('a.b', 'c', false)",
];

fn has_transaction_id(client: &mut Client) -> bool {
    let row = client.query_one("SELECT pg_current_xact_id_if_assigned() IS NOT NULL", &[]).unwrap();
    row.get(0)
}

#[test]
fn what_it_says_of_effects_agrees_with_the_transaction_ids_that_were_assigned() {
    let server = Server::start("");
    let mut client = server.connect();
    client.batch_execute(SCHEMA).unwrap();
    for (statements, effect) in
        [(READING, Effect::Reads), (WRITING, Effect::Writes), (DOUBTFUL, Effect::MayWrite)]
    {
        for sql in statements {
            assert_eq!(classify(sql).effect, effect, "{sql}");
            client.batch_execute("BEGIN").unwrap();
            client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let wrote = has_transaction_id(&mut client);
            match effect {
                Effect::Reads => assert!(!wrote, "{sql} assigned a transaction id"),
                Effect::Writes => assert!(wrote, "{sql} assigned no transaction id"),
                _ => {}
            }
            client.batch_execute("ROLLBACK").unwrap();
        }
    }
}

#[test]
fn what_refuses_to_run_in_a_transaction_is_known() {
    let server = Server::start("");
    let mut client = server.connect();
    client.batch_execute(SCHEMA).unwrap();
    for sql in [
        "VACUUM",
        "VACUUM (ANALYZE) t",
        "CREATE DATABASE d",
        "DROP DATABASE template1",
        "CLUSTER",
        "CREATE TABLESPACE x LOCATION '/tmp'",
        "DROP TABLESPACE pg_default",
        "DISCARD ALL",
        "ALTER SYSTEM SET work_mem = '4MB'",
        "CREATE INDEX CONCURRENTLY ON t (a)",
        "DROP INDEX CONCURRENTLY t_pkey",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX SYSTEM postgres",
        "REINDEX (CONCURRENTLY) INDEX t_pkey",
        "REINDEX SCHEMA public",
        "REINDEX DATABASE postgres",
        "ALTER DATABASE template1 SET TABLESPACE pg_default",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "CREATE SUBSCRIPTION x CONNECTION 'dbname=x' PUBLICATION y",
    ] {
        assert!(classify(sql).outside_transaction, "{sql}");
        client.batch_execute("BEGIN").unwrap();
        let error = client.batch_execute(sql).expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("25001"), "{sql}: {error:?}");
        client.batch_execute("ROLLBACK").unwrap();
    }
    for sql in READING.iter().chain(WRITING) {
        assert!(!classify(sql).outside_transaction, "{sql}");
    }
}

#[test]
fn the_names_of_settings_are_those_that_the_server_changes() {
    let server = Server::start("");
    let mut client = server.connect();
    client.batch_execute("CREATE ROLE other").unwrap();
    for sql in [
        "SET work_mem = '5MB'",
        "SET SESSION \"DateStyle\" TO 'German'",
        "SET TIME ZONE 'Asia/Tokyo'",
        "SET timezone TO 'Asia/Seoul'",
        "SET NAMES 'LATIN1'",
        "SET SCHEMA 'pg_catalog'",
        "SET ROLE other",
        "SET XML OPTION DOCUMENT",
        "SET Search_Path TO a, b",
        "SET LOCAL work_mem = '6MB'",
        "SET SESSION AUTHORIZATION other",
        "SET TRANSACTION READ ONLY",
    ] {
        let StatementKind::Set { name, local } = classify(sql).kind else { panic!("{sql}") };
        let before = settings(&mut client);
        client.batch_execute("BEGIN").unwrap();
        client.batch_execute(sql).unwrap();
        let changed: BTreeSet<String> = settings(&mut client)
            .difference(&before)
            .map(|(name, _)| name.to_lowercase())
            .collect();
        client.batch_execute("COMMIT").unwrap();
        let kept: BTreeSet<String> = settings(&mut client)
            .difference(&before)
            .map(|(name, _)| name.to_lowercase())
            .collect();
        client.batch_execute("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL").unwrap();
        let shown = match name.as_str() {
            "transaction" => "transaction_read_only",
            other => other,
        };
        assert!(changed.contains(shown), "{sql}: {name}, the server changed {changed:?}");
        assert_eq!(kept.contains(shown), !local, "{sql}: kept {kept:?}");
    }
}

fn settings(client: &mut Client) -> BTreeSet<(String, String)> {
    let listed = "SELECT name, setting FROM pg_settings UNION ALL
        SELECT n, current_setting(n) FROM unnest('{role,session_authorization}'::text[]) n";
    let messages = client.simple_query(listed).unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((row.get(0)?.to_owned(), row.get(1).unwrap_or_default().to_owned()))
        }
        _ => None,
    });
    rows.collect()
}

/// Whether a transaction block is open: two questions in a row share their now() within one.
fn in_block(client: &mut Client) -> bool {
    let now = "SELECT now()::text";
    let mut ask = || -> String { client.query_one(now, &[]).unwrap().get(0) };
    let (first, second) = (ask(), ask());
    first == second
}

#[test]
fn the_status_after_each_kind_is_what_the_kind_says() {
    let server = Server::start("-c max_prepared_transactions=2");
    let mut client = server.connect();
    client.batch_execute(SCHEMA).unwrap();
    for begin in ["BEGIN", "START TRANSACTION READ ONLY", "begin work isolation level serializable"]
    {
        assert!(matches!(classify(begin).kind, StatementKind::Begin { .. }), "{begin}");
        for sql in [
            "COMMIT",
            "END WORK",
            "COMMIT AND CHAIN",
            "COMMIT AND NO CHAIN",
            "ROLLBACK",
            "ABORT",
            "ROLLBACK TRANSACTION AND CHAIN",
            "SAVEPOINT a",
            "ROLLBACK TO SAVEPOINT \"A\"",
            "RELEASE x",
            "ROLLBACK WORK TO x",
            "PREPARE q AS SELECT 1",
            "SELECT 1",
            "SET CONSTRAINTS ALL DEFERRED",
        ] {
            client.batch_execute(begin).unwrap();
            client.batch_execute("SAVEPOINT x; SAVEPOINT \"A\"").unwrap();
            client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            let ends = match classify(sql).kind {
                StatementKind::Commit { chain } | StatementKind::Rollback { chain } => !chain,
                _ => false,
            };
            assert_eq!(in_block(&mut client), !ends, "{begin}, {sql}");
            client.batch_execute("ROLLBACK; DEALLOCATE ALL").unwrap();
        }
        let StatementKind::Begin { read_only } = classify(begin).kind else { unreachable!() };
        client.batch_execute(begin).unwrap();
        let shown: String = client.query_one("SHOW transaction_read_only", &[]).unwrap().get(0);
        assert_eq!(shown == "on", read_only, "{begin}");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

/// What is there although its transaction was rolled back, or its statement failed, was named so.
#[test]
fn what_outlives_a_rollback_is_known() {
    let server = Server::start("");
    server.connect().batch_execute(SCHEMA).unwrap();
    for (outlives, sql) in [
        (true, "SELECT pg_advisory_lock(1)"),
        (true, "SELECT pg_try_advisory_lock_shared(1, 2) FROM t"),
        (true, "WITH x AS (SELECT pg_catalog.pg_advisory_lock(id) FROM t) SELECT count(*) FROM x"),
        (true, "INSERT INTO u SELECT 7 WHERE pg_advisory_lock(1) IS NULL"),
        (true, "CREATE TEMP TABLE w AS SELECT pg_try_advisory_lock(1)"),
        (true, "DECLARE k CURSOR WITH HOLD FOR SELECT pg_advisory_lock(1)"),
        (true, "EXPLAIN ANALYZE SELECT pg_advisory_lock(1)"),
        (true, "COPY (SELECT pg_advisory_lock(1)) TO STDOUT"),
        (true, "PREPARE q AS SELECT 1"),
        (false, "SELECT pg_advisory_xact_lock(1)"),
        (false, "CREATE TEMP TABLE w (a int)"),
        (false, "DECLARE k CURSOR WITH HOLD FOR SELECT 1"),
        (false, "SET work_mem = '111kB'"),
        (false, "SELECT set_config('work_mem', '111kB', false)"),
        (false, "LISTEN c"),
    ] {
        let mut session = Connection::open(&server);
        let before = session.kept();
        for sql in ["BEGIN", sql, "FETCH ALL FROM k"] {
            session.ask(sql, Way::Simple);
        }
        session.ask("ROLLBACK", Way::Simple);
        assert_eq!(session.kept() != before, outlives, "{sql}");
        assert_eq!(classify(sql).outlives_rollback(), outlives, "{sql}");
    }
    for sql in [
        "SELECT pg_advisory_lock(id), 1 / (id - 5) FROM t",
        "INSERT INTO t SELECT 1 FROM pg_advisory_lock(2)",
        "SELECT pg_advisory_lock(3), query_to_xml('SELECT * FROM nowhere', true, true, '')",
    ] {
        let mut session = Connection::open(&server);
        let before = session.kept();
        assert!(session.ask(sql, Way::Simple).error.is_some(), "{sql}");
        assert_ne!(session.kept(), before, "{sql}");
        assert!(classify(sql).outlives_failure(), "{sql}");
    }
}
