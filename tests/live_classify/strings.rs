//! Makes strings of SQL: statements of every kind, put together at random, dressed up with comments,
//! quotes of all kinds and calls in unlikely places. Many are refused by the server, which is a verdict, too.

use proptest::prelude::*;
use proptest::sample::select;

const CONTROL: &[&str] = &[
    "BEGIN",
    "BEGIN READ WRITE",
    "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
    "BEGIN WORK ISOLATION LEVEL REPEATABLE READ NOT DEFERRABLE",
    "begin transaction read only, read write",
    "COMMIT",
    "END",
    "COMMIT WORK",
    "COMMIT AND CHAIN",
    "END TRANSACTION AND NO CHAIN",
    "ROLLBACK",
    "ABORT WORK",
    "ROLLBACK AND CHAIN",
    "ROLLBACK WORK AND NO CHAIN",
    "SAVEPOINT a",
    "SAVEPOINT \"A;\"",
    "ROLLBACK TO a",
    "ROLLBACK WORK TO SAVEPOINT \"A;\"",
    "ABORT TO a",
    "RELEASE a",
    "RELEASE SAVEPOINT \"A;\"",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "ROLLBACK PREPARED 'x'",
    "SET TRANSACTION READ ONLY",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET transaction_read_only = on",
    "SET CONSTRAINTS ALL DEFERRED",
];

const SESSION: &[&str] = &[
    "SET work_mem = '111kB'",
    "SET SESSION \"work_mem\" TO '222kB'",
    "SET LOCAL work_mem = '333kB'",
    "SET LOCAL a.b = 'local'",
    "SET a.b = 'x;y'",
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET LOCAL TIME ZONE 3",
    "SET SCHEMA 'public'",
    "SET search_path TO pg_catalog, public",
    "SET ROLE other",
    "SET LOCAL ROLE other",
    "SET ROLE NONE",
    "SET SESSION AUTHORIZATION other",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET XML OPTION DOCUMENT",
    "SET DateStyle = German, DMY",
    "RESET work_mem",
    "RESET ALL",
    "RESET ROLE",
    "RESET SESSION AUTHORIZATION",
    "RESET TIME ZONE",
    "SHOW work_mem",
    "LISTEN c",
    "LISTEN \"C;\"",
    "UNLISTEN c",
    "UNLISTEN *",
    "NOTIFY c, 'BEGIN; x'",
    "DISCARD ALL",
    "DISCARD PLANS",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
    "PREPARE q AS SELECT 1",
    "PREPARE w AS INSERT INTO u VALUES (78)",
    "PREPARE l AS SELECT pg_advisory_lock(3)",
    "EXECUTE q",
    "EXECUTE w",
    "EXECUTE l",
    "EXPLAIN EXECUTE w",
    "EXPLAIN ANALYZE EXECUTE w",
    "DEALLOCATE q",
    "DEALLOCATE PREPARE ALL",
    "LOAD 'plpgsql'",
    "DECLARE k CURSOR FOR SELECT * FROM t",
    "DECLARE k CURSOR FOR SELECT f() FROM t",
    "DECLARE k SCROLL CURSOR WITH HOLD FOR SELECT 1 AS hold",
    "DECLARE k CURSOR WITHOUT HOLD FOR SELECT 1",
    "FETCH 2 FROM k",
    "MOVE ALL IN k",
    "CLOSE k",
    "CLOSE ALL",
];

const DATA: &[&str] = &[
    "INSERT INTO t (a) VALUES ('x;y') RETURNING id",
    "INSERT INTO d VALUES (1), (1)",
    "UPDATE t SET a = 'COMMIT;' WHERE id < 3",
    "UPDATE t SET a = a WHERE false",
    "DELETE FROM t WHERE id = -1",
    "MERGE INTO u USING t ON t.id = u.id WHEN MATCHED THEN UPDATE SET a = 'm'",
    "WITH x AS (DELETE FROM t WHERE id = 2 RETURNING *) SELECT count(*) FROM x",
    "WITH x AS (SELECT 1 AS id) INSERT INTO u SELECT id + 200 FROM x ON CONFLICT DO NOTHING",
    "WITH update AS (SELECT 1) SELECT * FROM update",
    "SELECT id INTO TEMP w2 FROM t",
    "SELECT id INTO w FROM t",
    "CREATE TABLE w AS SELECT 1 AS a",
    "CREATE TABLE IF NOT EXISTS w (a int)",
    "CREATE TEMP TABLE w1 (a int)",
    "CREATE TEMPORARY TABLE IF NOT EXISTS w1 (a int) ON COMMIT DELETE ROWS",
    "CREATE TEMP TABLE w3 (a int) ON COMMIT DROP",
    "CREATE TABLE pg_temp.w4 (a int)",
    "CREATE OR REPLACE TEMP VIEW w5 AS SELECT 1 AS one",
    "CREATE FUNCTION pg_temp.w6() RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2'",
    "CREATE OR REPLACE FUNCTION g2() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END",
    "DROP TABLE IF EXISTS w, w1",
    "DROP TABLE IF EXISTS w3, w4",
    "TRUNCATE u",
    "ALTER TABLE t ADD IF NOT EXISTS b int",
    "CREATE INDEX IF NOT EXISTS i ON t (a)",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS j ON t (a)",
    "DROP INDEX CONCURRENTLY IF EXISTS j",
    "REINDEX TABLE t",
    "REINDEX (CONCURRENTLY) TABLE t",
    "VACUUM t",
    "ANALYZE t",
    "CLUSTER",
    "CREATE DATABASE template1",
    "ALTER SYSTEM RESET a.c",
    "COMMENT ON TABLE t IS 'SELECT 1; SELECT 2'",
    "GRANT SELECT ON t TO other",
    "LOCK TABLE t IN SHARE MODE",
    "REFRESH MATERIALIZED VIEW v",
    "CALL p()",
    "CALL pc()",
    "DO 'BEGIN INSERT INTO u VALUES (79); END'",
    "DO $do$ BEGIN COMMIT; PERFORM 1; END $do$",
    "DO LANGUAGE plpgsql $$BEGIN NULL; END$$",
    "COPY t TO STDOUT",
    "COPY (SELECT id FROM t) TO STDOUT (FORMAT csv)",
    "COPY (SELECT f()) TO STDOUT",
    "COPY (DELETE FROM t WHERE id = 5 RETURNING id) TO STDOUT",
    "COPY u FROM STDIN",
    "COPY u (id) FROM STDIN (FORMAT csv)",
    "EXPLAIN DELETE FROM t",
    "EXPLAIN (COSTS OFF) SELECT f()",
    "EXPLAIN ANALYZE DELETE FROM t WHERE id = 4",
    "EXPLAIN (ANALYZE, COSTS OFF) UPDATE t SET a = 'q'",
    "EXPLAIN (ANALYZE off) UPDATE t SET a = 'q'",
    "EXPLAIN ANALYZE VERBOSE SELECT count(*) FROM t",
    "EXPLAIN ANALYZE CREATE TABLE w AS SELECT 1 AS a",
    "SELECT * FROM t WHERE id = 1 FOR UPDATE",
    "SELECT * FROM (SELECT * FROM t FOR KEY SHARE) x",
    "SELECT DISTINCT ON (a) f() FROM t",
    "SELECT 1/0",
    "SELECT * FROM nowhere",
    "SELECT",
    "TABLE t",
    "VALUES (1), (2)",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "SELECT count(*) FILTER (WHERE id IN (1, 2)) OVER (PARTITION BY a) FROM t",
    "SELECT 1 AS into, 2 AS commit, 3 \"update\" FROM t",
    "SELECT U&'d\\0061t;\\+000061', E'it\\'s; BEGIN', 'it''s;', $$;$$, $a$ $$;$$ $a$, B'1', X'1F'",
    "SELECT 1 -- ; COMMIT\n + 1",
    "SELECT /* /* ; */ COMMIT; */ 1",
    "FROBNICATE t",
    "SELECT 'never ends",
    "SELECT $x$ never ends $$",
    "/* never ends",
];

/// Functions that only read, of one argument.
const READERS: &[&str] = &[
    "abs(@)",
    "lower(@::text)",
    "pg_catalog.upper(@::text)",
    "\"length\"(@::text)",
    "coalesce(@, 1)",
    "md5(@::text)",
    "to_char(@, '9')",
    "now() + @ * interval '1 s'",
    "pg_typeof(@)",
    "jsonb_build_object('a', @)",
    "(SELECT max(id) FROM t WHERE id > @)",
    "CASE WHEN random() < 2 THEN @ END",
    "ARRAY[@, 1]",
    "CAST(@ AS text)",
    "@::text::varchar(3)",
    "EXISTS (SELECT FROM t WHERE id = @)",
    "lower(@::text) OPERATOR(pg_catalog.||) 'x'",
    "1 + - @",
];

/// What may do more.
const ACTORS: &[&str] = &[
    "f()",
    "public.f()",
    "\"f\"()",
    "F ()",
    "f/* ; */()",
    "U&\"\\0066\"()",
    "nextval('s')",
    "setval('s', 7)",
    "pg_catalog.nextval('s')",
    "txid_current()",
    "pg_notify('c', 'x')",
    "pg_advisory_lock(1)",
    "pg_catalog.pg_try_advisory_lock(2)",
    "\"pg_advisory_lock_shared\"(3, 4)",
    "pg_advisory_xact_lock(5)",
    "pg_advisory_unlock_all()",
    "lo_create(0)",
    "set_config('work_mem', '444kB', false)",
    "set_config('a.b', 'function', false)",
    "set_config('a.b', 'function', true)",
    "query_to_xml('INSERT INTO u VALUES (77)', true, true, '')",
    "currval('s')",
];

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        1 => select(&["1", "id", "NULL::int", "'7'::int", "$$8$$::int", "(2)"][..])
            .prop_map(str::to_owned),
        1 => select(ACTORS).prop_map(|call| format!("length({call}::text)")),
    ];
    leaf.prop_recursive(3, 6, 2, |inner| {
        (select(READERS), inner).prop_map(|(call, inner)| call.replace('@', &inner))
    })
}

fn query() -> impl Strategy<Value = String> {
    let shape = select(
        &[
            "SELECT @ FROM t",
            "SELECT @ AS x, 1 FROM t WHERE id = 1",
            "SELECT id FROM t ORDER BY @ LIMIT 1",
            "SELECT 1 FROM t GROUP BY id HAVING @ IS NOT NULL",
            "WITH x AS (SELECT @ AS y FROM t) SELECT y FROM x",
            "WITH x AS MATERIALIZED (SELECT @ FROM t) SELECT 1",
            "SELECT * FROM t JOIN LATERAL (SELECT @) AS l(b) ON true",
            "SELECT count(*) FROM t WHERE @ IS NULL",
            "INSERT INTO u SELECT 500 + id FROM t WHERE @ IS NULL AND id < 0",
            "UPDATE t SET a = a WHERE id = 1 AND @ IS NOT NULL",
            "EXPLAIN ANALYZE SELECT @ FROM t",
            "EXPLAIN SELECT @ FROM t",
            "COPY (SELECT @ FROM t) TO STDOUT",
            "CREATE TEMP TABLE w1 ON COMMIT DROP AS SELECT @ FROM t",
            "DECLARE k CURSOR FOR SELECT @ FROM t",
            "(SELECT @ FROM t)",
            "VALUES ((SELECT @ FROM t LIMIT 1))",
            "SELECT @, 1/0 FROM t",
        ][..],
    );
    (shape, expression()).prop_map(|(shape, expression)| shape.replace('@', &expression))
}

fn statement() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(CONTROL).prop_map(str::to_owned),
        3 => select(SESSION).prop_map(str::to_owned),
        3 => select(DATA).prop_map(str::to_owned),
        6 => query(),
    ]
}

/// Puts something else where a blank is, and changes the case of what it can.
fn dressed() -> impl Strategy<Value = String> {
    let blank =
        select(&["  ", "\n", "\t", " -- ' ; $$ \" /*\n", "/* ; ' /* \" */ $a$ */", "\r\n"][..]);
    (statement(), prop::collection::vec((blank, any::<bool>()), 1..6), 0_u8..4).prop_map(
        |(statement, how, whether)| {
            if whether > 0 {
                return statement;
            }
            let mut dressed = String::new();
            for (index, word) in statement.split(' ').enumerate() {
                let (blank, upper) = &how[index % how.len()];
                if index > 0 {
                    dressed.push_str(blank);
                }
                let plain = word.bytes().all(|byte| byte.is_ascii_alphabetic());
                match (plain, upper) {
                    (true, true) => dressed.push_str(&word.to_ascii_uppercase()),
                    (true, false) => dressed.push_str(&word.to_ascii_lowercase()),
                    _ => dressed.push_str(word),
                }
            }
            dressed
        },
    )
}

/// One string as it is sent: mostly one statement, at times several.
pub fn string() -> impl Strategy<Value = String> {
    let several = prop::collection::vec(dressed(), 0..5).prop_map(|statements| {
        let mut string = statements.join(";");
        if statements.len() % 2 == 0 {
            string.push_str(" ; ;\n");
        }
        string
    });
    prop_oneof![4 => dressed(), 1 => several]
}
