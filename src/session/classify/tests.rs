//! The classifier held against tables of statements, and against noise.

use proptest::prelude::*;

use super::Discard as What;
use super::Effect::{MayWrite, None as Nothing, Reads, Writes};
use super::lexer::Lexer;
use super::{Classified, Effect, StatementKind, classify};

fn effect(sql: &str) -> Effect {
    classify(sql).effect
}

fn kind(sql: &str) -> StatementKind {
    classify(sql).kind
}

#[test]
fn effects() {
    let cases = [
        (Reads, "SELECT 1"),
        (Reads, "select a, b from t where id = $1 order by a limit 10 offset 5;"),
        (Reads, "(SELECT 1) UNION ALL (SELECT 2)"),
        (Reads, "VALUES (1), (2)"),
        (Reads, "TABLE t"),
        (Reads, "SHOW ALL"),
        (Reads, "WITH x(a) AS (SELECT 1), y AS MATERIALIZED (SELECT 2) SELECT * FROM x, y"),
        (
            Reads,
            "WITH RECURSIVE x(a) AS (VALUES (1) UNION ALL SELECT a + 1 FROM x) SELECT a FROM x",
        ),
        (Reads, "SELECT count(*) FILTER (WHERE a IN (1, 2)) OVER (PARTITION BY b) FROM t"),
        (Reads, "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FILTER (WHERE b) FROM t"),
        (
            Reads,
            "SELECT a FROM generate_series(1, 3) g(a) JOIN t USING (a) WHERE EXISTS (SELECT 1)",
        ),
        (Reads, "SELECT * FROM (VALUES (1)) AS v(a), LATERAL (SELECT a) AS w"),
        (Reads, "SELECT a::numeric(10, 2), CAST(b AS varchar(3)), c::character varying(9) FROM t"),
        (Reads, "SELECT pg_catalog.lower('A'), \"upper\"('a'), LOWER('A')"),
        (Reads, "SELECT now(), clock_timestamp(), random(), gen_random_uuid(), pg_sleep(0)"),
        (Reads, "SELECT coalesce(a, 1), substring(b from 1 for 2), extract(year from c) FROM t"),
        (Reads, "SELECT a FROM t GROUP BY ROLLUP (a), GROUPING SETS ((a), ())"),
        (Reads, "SELECT * FROM t TABLESAMPLE system (10)"),
        (Reads, "SELECT 1 AS into, t.into FROM t"),
        (Reads, "SELECT 'nextval(''s'')', $$f(1)$$, \"f(1)\" -- f(1)\n FROM t /* f(1) */"),
        (Reads, "EXPLAIN DELETE FROM t"),
        (Reads, "EXPLAIN (COSTS OFF) INSERT INTO t VALUES (1)"),
        (Reads, "EXPLAIN (ANALYZE, BUFFERS) SELECT count(*) FROM t"),
        (Reads, "COPY t TO STDOUT"),
        (Reads, "COPY (SELECT a FROM t) TO STDOUT WITH (FORMAT csv)"),
        (Reads, "DECLARE c CURSOR FOR SELECT 1"),
        (Reads, "FETCH 10 FROM c"),
        (MayWrite, "SELECT nextval('s')"),
        (MayWrite, "SELECT f(1)"),
        (MayWrite, "SELECT DISTINCT ON (a) f(b) FROM t"),
        (MayWrite, "SELECT lower(a) OPERATOR(pg_catalog.||) f(b) FROM t"),
        (MayWrite, "SELECT lower(a) IN (1) AND (f(b))"),
        (MayWrite, "SELECT s.lower(a)"),
        (MayWrite, "SELECT d.pg_catalog.lower(a)"),
        (MayWrite, "SELECT \"Lower\"(a), U&\"lower\"(a)"),
        (MayWrite, "SELECT txid_current()"),
        (MayWrite, "SELECT pg_current_xact_id()"),
        (MayWrite, "SELECT query_to_xml('delete from t', true, true, '')"),
        (MayWrite, "SELECT * FROM t FOR UPDATE"),
        (MayWrite, "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED"),
        (MayWrite, "SELECT * FROM (SELECT * FROM t FOR SHARE) AS x"),
        (MayWrite, "SELECT set_config('a.b', 'c', true)"),
        (MayWrite, "EXPLAIN ANALYZE SELECT f(1)"),
        (MayWrite, "EXPLAIN ANALYZE EXPLAIN ANALYZE SELECT 1"),
        (MayWrite, "COPY t TO '/tmp/x'"),
        (MayWrite, "COPY (SELECT f(1)) TO STDOUT"),
        (MayWrite, "DECLARE c CURSOR FOR SELECT nextval('s')"),
        (MayWrite, "LOCK TABLE t"),
        (MayWrite, "NOTIFY c, 'x'"),
        (MayWrite, "EXECUTE p(1)"),
        (MayWrite, "CALL p()"),
        (MayWrite, "DO $$begin null; end$$"),
        (MayWrite, "ANALYZE t"),
        (MayWrite, "VACUUM"),
        (MayWrite, "FROBNICATE t"),
        (MayWrite, "SELECT 'never ends"),
        (MayWrite, "$1"),
        (MayWrite, "WITH update AS (SELECT 1) (SELECT 2)"),
        (Writes, "INSERT INTO t(a) VALUES (1) RETURNING a"),
        (Writes, "UPDATE t SET a = 1"),
        (Writes, "DELETE FROM t"),
        (Writes, "MERGE INTO t USING u ON (t.a = u.a) WHEN MATCHED THEN DELETE"),
        (Writes, "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d"),
        (Writes, "WITH d AS NOT MATERIALIZED (UPDATE t SET a = 1 RETURNING *) SELECT * FROM d"),
        (Writes, "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x"),
        (Writes, "SELECT a INTO u FROM t"),
        (Writes, "EXPLAIN ANALYZE DELETE FROM t"),
        (Writes, "EXPLAIN (\"analyze\") DELETE FROM t"),
        (Writes, "EXPLAIN (ANALYZE TRUE) UPDATE t SET a = 1"),
        (Writes, "COPY t FROM STDIN"),
        (Writes, "COPY t(a, b) FROM STDIN WITH (FORMAT csv)"),
        (Writes, "COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT"),
        (Writes, "TRUNCATE t"),
        (Writes, "CREATE TABLE t(a int)"),
        (Writes, "REFRESH MATERIALIZED VIEW v"),
        (Nothing, "SET a TO 1"),
        (Nothing, "SAVEPOINT a"),
        (Nothing, "LISTEN a"),
        (Nothing, "CLOSE c"),
        (Nothing, ""),
        (Nothing, " ; -- nothing\n /* at all */ ;"),
    ];
    for (expected, sql) in cases {
        assert_eq!(effect(sql), expected, "{sql}");
    }
}

#[test]
fn a_reading_main_statement_may_name_columns_like_verbs() {
    // `delete` and `update` are no reserved words, and so may be aliases and columns.
    assert_eq!(effect("WITH a AS (SELECT 1) SELECT (1) delete FROM a"), Reads);
    assert_eq!(effect("WITH a AS (SELECT 1 AS update) SELECT a.update FROM a"), Reads);
    assert!(effect("SELECT 1 FROM (SELECT 1) AS x WHERE (update) = 1") < Writes);
}

#[test]
fn kinds() {
    use StatementKind::*;
    let set = |name: &str, local| Set { name: name.to_owned(), local };
    let cases = [
        ("BEGIN", Begin { read_only: false }),
        ("begin work isolation level read committed, read only", Begin { read_only: true }),
        ("START TRANSACTION READ ONLY, READ WRITE", Begin { read_only: false }),
        ("BEGIN TRANSACTION READ WRITE READ ONLY DEFERRABLE", Begin { read_only: true }),
        ("COMMIT", Commit { chain: false }),
        ("END WORK", Commit { chain: false }),
        ("COMMIT TRANSACTION AND CHAIN", Commit { chain: true }),
        ("COMMIT AND NO CHAIN", Commit { chain: false }),
        ("ROLLBACK", Rollback { chain: false }),
        ("ABORT WORK AND CHAIN", Rollback { chain: true }),
        ("ROLLBACK TO a", RollbackTo("a".into())),
        ("ROLLBACK WORK TO SAVEPOINT \"A\"", RollbackTo("A".into())),
        ("SAVEPOINT Ab", Savepoint("ab".into())),
        ("RELEASE SAVEPOINT a", Release("a".into())),
        ("RELEASE a", Release("a".into())),
        ("RELEASE savepoint", Release("savepoint".into())),
        ("COMMIT PREPARED 'x'", Other),
        ("ROLLBACK PREPARED 'x'", Other),
        ("PREPARE TRANSACTION 'x'", Other),
        ("SET a = 1", set("a", false)),
        ("SET SESSION Search_Path TO x, y", set("search_path", false)),
        ("SET LOCAL a.b.c = 'x'", set("a.b.c", true)),
        ("SET \"TimeZone\" TO DEFAULT", set("timezone", false)),
        ("SET TIME ZONE 'UTC'", set("timezone", false)),
        ("SET LOCAL TIME ZONE LOCAL", set("timezone", true)),
        ("SET time = 1", set("time", false)),
        ("SET NAMES 'utf8'", set("client_encoding", false)),
        ("SET SCHEMA 'x'", set("search_path", false)),
        ("SET SEED TO 0.5", set("seed", false)),
        ("SET XML OPTION DOCUMENT", set("xmloption", false)),
        ("SET ROLE x", set("role", false)),
        ("SET LOCAL ROLE NONE", set("role", true)),
        ("SET SESSION AUTHORIZATION x", set("session_authorization", false)),
        ("SET LOCAL SESSION AUTHORIZATION DEFAULT", set("session_authorization", true)),
        ("SET SESSION SESSION AUTHORIZATION x", set("session_authorization", false)),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            set("session characteristics", false),
        ),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", set("transaction", true)),
        ("SET transaction_read_only = on", set("transaction_read_only", true)),
        ("SET CONSTRAINTS ALL DEFERRED", set("constraints", true)),
        ("RESET a.B", Reset("a.b".into())),
        ("RESET ALL", Reset("all".into())),
        ("RESET TIME ZONE", Reset("timezone".into())),
        ("RESET SESSION AUTHORIZATION", Reset("session_authorization".into())),
        ("RESET TRANSACTION ISOLATION LEVEL", Reset("transaction_isolation".into())),
        ("LISTEN \"Chan\"", Listen("Chan".into())),
        ("UNLISTEN *", Unlisten("*".into())),
        ("UNLISTEN chan", Unlisten("chan".into())),
        ("DISCARD ALL", Discard(What::All)),
        ("DISCARD TEMPORARY", Discard(What::Temp)),
        ("DISCARD PLANS", Discard(What::Plans)),
        ("DISCARD SEQUENCES", Discard(What::Sequences)),
        ("DEALLOCATE ALL", Deallocate(None)),
        ("DEALLOCATE PREPARE ALL", Deallocate(None)),
        ("DEALLOCATE p", Deallocate(Some("p".into()))),
        ("DEALLOCATE PREPARE p", Deallocate(Some("p".into()))),
        ("COPY t FROM STDIN", CopyIn),
        ("COPY s.\"from\"(\"to\") FROM stdin WHERE a > 1", CopyIn),
        ("COPY BINARY t FROM STDIN", CopyIn),
        ("COPY t FROM '/x'", Other),
        ("COPY (SELECT a FROM t) TO STDOUT", CopyOut),
        ("COPY t TO STDOUT", CopyOut),
        ("COPY t TO PROGRAM 'cat'", Other),
        ("", Empty),
        (";;", Empty),
        ("SELECT 1;", Other),
    ];
    for (sql, expected) in cases {
        assert_eq!(kind(sql), expected, "{sql}");
    }
}

#[test]
fn only_queries_are_prepared() {
    for sql in [
        "SELECT 1",
        "(SELECT 1)",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "TABLE t",
        "DELETE FROM t",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
        "VALUES (1)",
        "WITH a AS (SELECT 1) SELECT 1",
    ] {
        assert!(classify(sql).prepare, "{sql}");
    }
    for sql in [
        "SET a = 1",
        "BEGIN",
        "CREATE TABLE t(a int)",
        "COPY t FROM STDIN",
        "EXPLAIN SELECT 1",
        "SELECT 1 INTO t",
        "SELECT 1; SELECT 2",
        "",
        "CALL p()",
        "SHOW a",
        "LISTEN a",
    ] {
        assert!(!classify(sql).prepare, "{sql}");
    }
}

#[test]
fn set_config_is_noticed_and_never_repeated_together_with_a_write() {
    let noticed = |sql| classify(sql).sets_config;
    assert!(noticed("SELECT set_config('a.b', $1, false)"));
    assert!(noticed("SELECT pg_catalog.set_config('a.b', format('(%s,', 1), $1)"));
    assert!(noticed("SELECT set_config('a.b', 'c', not true)"));
    assert!(!noticed("SELECT set_config('a.b', coalesce(a, ','), true) FROM t"));
    assert!(!noticed("SELECT 'set_config(1, 2, false)'"));
    // Running it once more to restore the setting would also insert the row once more.
    for sql in [
        "INSERT INTO t VALUES (1) RETURNING set_config('a.b', 'c', false)",
        "SELECT set_config('a.b', nextval('s')::text, false)",
    ] {
        assert!(!noticed(sql), "{sql}");
        assert!(classify(sql).unrestorable.is_some(), "{sql}");
    }
    assert_eq!(classify("CREATE VIEW v AS SELECT set_config('a', 'b', false)").unrestorable, None);
}

#[test]
fn outside_transaction() {
    for sql in [
        "VACUUM t",
        "CREATE DATABASE d",
        "DROP DATABASE d",
        "CREATE TABLESPACE s LOCATION '/x'",
        "DROP TABLESPACE s",
        "ALTER SYSTEM SET a = 1",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX (CONCURRENTLY) TABLE t",
        "REINDEX (VERBOSE) DATABASE d",
        "REINDEX SYSTEM d",
        "CREATE INDEX CONCURRENTLY ON t(a)",
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t(a)",
        "DROP INDEX CONCURRENTLY i",
        "CLUSTER",
        "CLUSTER VERBOSE",
        "CALL p()",
        "DO 'begin end'",
        "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p",
        "DROP SUBSCRIPTION s",
        "DISCARD ALL",
        "ALTER DATABASE d SET TABLESPACE s",
        "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "SELECT 1; VACUUM",
    ] {
        assert!(classify(sql).outside_transaction, "{sql}");
    }
    for sql in [
        "CREATE INDEX ON t(a)",
        "REINDEX TABLE t",
        "CLUSTER t",
        "CLUSTER t USING i",
        "CHECKPOINT",
        "ALTER TYPE e ADD VALUE 'x'",
        "DROP INDEX i",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
        "ALTER DATABASE d SET a = 1",
        "ANALYZE",
        "CREATE INDEX \"concurrently\" ON t(a)",
    ] {
        assert!(!classify(sql).outside_transaction, "{sql}");
    }
}

#[test]
fn what_cannot_be_restored_or_replayed_is_named() {
    for sql in [
        "CREATE TEMP TABLE t(a int)",
        "CREATE LOCAL TEMPORARY TABLE t(a int) ON COMMIT DELETE ROWS",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
        "CREATE TEMPORARY SEQUENCE s",
        "CREATE TABLE pg_temp.t(a int)",
        "SELECT 1 INTO TEMP t",
        "SELECT 1 INTO LOCAL TEMPORARY TABLE t",
        "SELECT 1 INTO pg_temp.t",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'select 1'",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1, 2)",
        "INSERT INTO t SELECT pg_advisory_lock(1)",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE p(int) AS SELECT $1",
        "LOAD 'x'",
        "SELECT setseed(0.1)",
        "SET seed TO 0.1",
        "BEGIN; CREATE TEMP TABLE t(a int)",
        "EXPLAIN ANALYZE SELECT pg_advisory_lock(1)",
    ] {
        assert!(classify(sql).unrestorable.is_some(), "{sql}");
    }
    for sql in [
        "CREATE TEMP TABLE t(a int) ON COMMIT DROP",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_xact_lock(1)",
        "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
        "CREATE TABLE temp(a int)",
        "SELECT 'pg_advisory_lock(1)'",
        "SELECT s.pg_advisory_lock(1)",
        "PREPARE TRANSACTION 'x'",
        "CREATE TABLE t AS SELECT 1",
        "DECLARE c CURSOR FOR SELECT 'with hold'",
    ] {
        assert_eq!(classify(sql).unrestorable, None, "{sql}");
    }
    for sql in [
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "SELECT pg_export_snapshot()",
        "SET TRANSACTION SNAPSHOT '1'",
        "SAVEPOINT U&\"a\"",
    ] {
        assert!(classify(sql).unprotected.is_some(), "{sql}");
    }
    for sql in
        ["COMMIT", "ROLLBACK TO a", "SET TRANSACTION READ ONLY", "DECLARE c CURSOR FOR SELECT 1"]
    {
        assert_eq!(classify(sql).unprotected, None, "{sql}");
    }
}

#[test]
fn several_statements_in_one_string() {
    let class = classify("BEGIN; SELECT f(1); ; INSERT INTO t VALUES (';'); COMMIT;");
    let StatementKind::Several(parts) = &class.kind else { panic!("{class:?}") };
    let effects: Vec<_> = parts.iter().map(|part| part.effect).collect();
    assert_eq!(effects, [Nothing, MayWrite, Writes, Nothing]);
    assert_eq!((class.effect, class.prepare), (Writes, false));
    assert_eq!(parts[0].kind, StatementKind::Begin { read_only: false });
    assert_eq!(parts[3].kind, StatementKind::Commit { chain: false });
    assert_eq!(kind("SELECT 1;;"), StatementKind::Other);
    // Semicolons in a rule and in a function's body end nothing.
    let one = [
        "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
    ];
    for sql in one {
        assert_eq!(kind(sql), StatementKind::Other, "{sql}");
        let two = format!("{sql}; SELECT 1");
        assert!(matches!(kind(&two), StatementKind::Several(parts) if parts.len() == 2), "{sql}");
    }
}

/// Statements that, with other white space and another case, must stay what they are.
const SHAPES: &[&str] = &[
    "SELECT set_config ( 'a' , E'b\\'' , true ) , lower ( 'X' ) :: varchar ( 10 ) FROM t FOR UPDATE",
    "WITH d ( a ) AS ( DELETE FROM t WHERE b = $1 RETURNING * ) SELECT count ( * ) FROM d ; COMMIT",
    "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE , READ ONLY",
    "COPY s . t ( a , b ) FROM STDIN WITH ( FORMAT csv )",
    "EXPLAIN ( ANALYZE , COSTS off ) INSERT INTO t VALUES ( 1.5 , $$x;y$$ , \"Q;\"\"x\" )",
    "CREATE TEMP TABLE x AS SELECT * FROM generate_series ( 1 , 2 ) AS g ( a )",
    "SET SESSION search_path TO 'a' , b",
    "ROLLBACK TO SAVEPOINT s1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT pg_advisory_lock ( 1 )",
    "CREATE FUNCTION f ( ) RETURNS int BEGIN ATOMIC SELECT 1 ; END",
];

fn separator() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(" ".to_owned()),
        Just("\t\n".to_owned()),
        Just(" -- ' ; $$ \" /* \n".to_owned()),
        Just("/* ; ' /* \" */ $a$ */".to_owned()),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(sql in any::<String>()) {
        classify(&sql);
    }

    #[test]
    fn no_heap_of_fragments_makes_it_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "select", "with", "as", "(", ")", ";", "'", "\"", "$$", "$a$", "E'", "\\", "/*",
                "*/", "--", "\n", "copy", "explain", "analyze", "set", "session", ".", "::", "into",
                "insert", "begin", "atomic", "end", "case", "declare", "for", "U&\"", "set_config(",
                "0x", "1e", "é", "to", "from", ",", "create", "temp", "group", "within", "operator",
            ]),
            0..40,
        ),
        separated in any::<bool>(),
    ) {
        let sql = parts.join(if separated { " " } else { "" });
        classify(&sql);
        for (len, _) in sql.char_indices() {
            classify(&sql[..len]);
        }
        // Every token takes the lexer further, so that it ends.
        let mut lexer = Lexer::new(sql.as_bytes());
        let mut position = 0;
        while lexer.next().is_some() {
            prop_assert!(lexer.position() > position && lexer.position() <= sql.len());
            position = lexer.position();
        }
    }

    #[test]
    fn white_space_comments_and_case_change_nothing(
        shape in prop::sample::select(SHAPES),
        separators in prop::collection::vec(separator(), 40),
        upper in prop::collection::vec(any::<bool>(), 40),
    ) {
        let expected: Classified = classify(shape);
        let mut changed = separators[0].clone();
        for (index, token) in shape.split(' ').enumerate() {
            let is_word = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            changed.push_str(&match (is_word, upper[index % 40]) {
                (true, true) => token.to_ascii_uppercase(),
                (true, false) => token.to_ascii_lowercase(),
                _ => token.to_owned(),
            });
            changed.push_str(&separators[(index + 1) % 40]);
        }
        prop_assert_eq!(classify(&changed), expected, "{}", changed);
    }
}

/// A string with savepoints was taken for one that commits, so that what had never been sent was told to be
/// unknown after a crash. Found by the simulation.
#[test]
fn savepoints_in_a_string_commit_nothing() {
    assert!(!classify("INSERT INTO t VALUES (1); SAVEPOINT s").commits_by_itself());
    assert!(!classify("ROLLBACK TO s; RELEASE s").commits_by_itself());
    for sql in ["INSERT INTO t VALUES (1); COMMIT", "ROLLBACK; SELECT 1", "SELECT 1; BEGIN"] {
        assert!(classify(sql).commits_by_itself(), "{sql}");
    }
}
