//! The ledger's SQL: what seals, what asks, what installs. See `docs/ledger.md` for the reasons and
//! the figures.
//!
//! Every name and operator is qualified, so that no `search_path` can give it another meaning; in a
//! prepared statement that costs nothing. Nothing here may depend on a setting of the session.

use super::internals::LedgerAccess;

/// SQLSTATE of a seal whose number is taken: this attempt must not commit.
pub const SQLSTATE_FENCED: &str = "SG001";

/// SQLSTATE of a seal by function whose row is missing. The UPDATE says `UPDATE 0` instead.
pub const SQLSTATE_NO_ROW: &str = "SG002";

/// The version that [`install_sql`] installs and that [`ACCESS`] looks for.
pub const VERSION: i32 = 1;

/// Seals by a plain UPDATE: `$1` uuid the row, `$2` bigint the number. It raises
/// [`SQLSTATE_FENCED`] if the number is taken; its tag is `UPDATE 1`, or `UPDATE 0` where the row is
/// missing, which must be treated as a commit that was not sealed. For what surely writes.
pub const SEAL_TABLE: &str = "\
UPDATE segue.ledger SET \
recent = CASE WHEN ($2 OPERATOR(pg_catalog.-) seq) OPERATOR(pg_catalog.<=) 63 \
AND seq OPERATOR(pg_catalog.<) $2 \
THEN (recent OPERATOR(pg_catalog.<<) ($2 OPERATOR(pg_catalog.-) seq)::pg_catalog.int4) \
OPERATOR(pg_catalog.|) 1::pg_catalog.int8 ELSE 1 END, \
seq = CASE WHEN seq OPERATOR(pg_catalog.<) $2 THEN $2 ELSE segue.fenced(seq, $2) END \
WHERE session OPERATOR(pg_catalog.=) $1";

/// Seals where the transaction has written something: one row, the number or 0. It works in READ
/// ONLY transactions and on a standby, where it seals nothing: what a READ ONLY transaction may
/// write (temporary tables, statistics) is not worth a seal and could not have one.
pub const SEAL_TABLE_GUARDED: &str = SEAL_FUNCTION_GUARDED;

/// As [`SEAL_TABLE`], by the function: one row, the number. Raises [`SQLSTATE_FENCED`] or
/// [`SQLSTATE_NO_ROW`].
pub const SEAL_FUNCTION: &str = "SELECT segue.seal($1, $2)";

/// As [`SEAL_TABLE_GUARDED`]; by the function in both ways of granting, since an UPDATE is refused
/// in a READ ONLY transaction even where it would touch no row.
pub const SEAL_FUNCTION_GUARDED: &str = "\
SELECT CASE WHEN pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN 0::pg_catalog.int8 \
WHEN pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on' THEN 0::pg_catalog.int8 \
ELSE segue.seal($1, $2) END";

/// The rows of the given sessions (`$1` uuid[]): session uuid, seq bigint (the highest number
/// committed), recent bigint (bit k: number seq - k was committed).
pub const LOOK: &str = "SELECT session, seq, recent FROM segue.look($1)";

/// As [`LOOK`], as a simple query: the rows' names and numbers as text.
pub fn look_sql(rows: &[uuid::Uuid]) -> String {
    look_columns_sql("session, seq", rows)
}

/// As [`look_sql`], with what was committed below the number.
pub fn look_closely_sql(rows: &[uuid::Uuid]) -> String {
    look_columns_sql("session, seq, recent", rows)
}

fn look_columns_sql(columns: &str, rows: &[uuid::Uuid]) -> String {
    let list: Vec<String> = rows.iter().map(ToString::to_string).collect();
    format!("SELECT {columns} FROM segue.look('{{{}}}'::pg_catalog.uuid[])", list.join(","))
}

/// Those of the given submissions that are done, as a simple query: their ids as text.
pub fn claimed_sql(access: LedgerAccess, ids: &[uuid::Uuid]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let ids = format!("'{{{}}}'::pg_catalog.uuid[]", ids.join(","));
    match access {
        LedgerAccess::Function => format!("SELECT c.id FROM segue.claimed({ids}) AS c"),
        _ => format!(
            "SELECT s.id FROM segue.submission AS s WHERE s.id OPERATOR(pg_catalog.=) ANY ({ids})"
        ),
    }
}

/// Seals a number outside any transaction of the application's, as a simple query: once it has
/// committed, nothing that is sealed with a lower number of this row can commit any more.
pub fn fence_sql(row: uuid::Uuid, number: u64) -> String {
    format!("SELECT segue.seal('{row}'::pg_catalog.uuid, {number}::pg_catalog.int8)")
}

/// Ends the backends whose uncommitted work backend `waiting` waits for, so far as this role may.
pub fn end_blockers_sql(waiting: i32) -> String {
    format!(
        "SELECT pg_catalog.pg_terminate_backend(h.pid) FROM pg_catalog.pg_locks AS w \
         JOIN pg_catalog.pg_locks AS h ON h.locktype OPERATOR(pg_catalog.=) 'transactionid' \
         AND h.transactionid OPERATOR(pg_catalog.=) w.transactionid AND h.granted \
         AND h.pid OPERATOR(pg_catalog.<>) w.pid \
         WHERE w.pid OPERATOR(pg_catalog.=) {waiting} AND NOT w.granted \
         AND w.locktype OPERATOR(pg_catalog.=) 'transactionid'"
    )
}

/// Opens row `$1` and retires row `$2` (the nil UUID retires none); gives one row with integer 1.
pub const OPEN: &str = "SELECT segue.open($1, $2)";

/// A transaction that writes WAL and nothing else: where commits wait for standbys, its commit does,
/// and so for all that was committed before it.
pub const CONFIRM: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'segue', '')";

/// An expression that names the present backend's start, so that [`TERMINATE`] hits no stranger to
/// whom its process id was handed on. Text, whatever DateStyle and TimeZone are.
pub const BACKEND_START: &str = "\
(SELECT extract(epoch FROM a.backend_start)::pg_catalog.text FROM pg_catalog.pg_stat_activity AS a \
WHERE a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

/// Ends a backend and waits for its end: `$1` integer its process id, `$2` text its
/// [`BACKEND_START`], `$3` bigint how many milliseconds to wait. No row: it is gone. A row with
/// false: it was still there after that time. Needs the same role, or `pg_signal_backend`.
pub const TERMINATE: &str = "\
SELECT pg_catalog.pg_terminate_backend(a.pid, $3) FROM pg_catalog.pg_stat_activity AS a \
WHERE a.pid OPERATOR(pg_catalog.=) $1 \
AND extract(epoch FROM a.backend_start)::pg_catalog.text OPERATOR(pg_catalog.=) $2";

/// An expression that says how the present role may use the ledger: `none`, `table` (by
/// [`SEAL_TABLE`]) or `function`. It raises nothing, whatever is missing. A ledger of another
/// version counts as none, and so does one whose schema belongs to somebody who is neither a
/// superuser, nor the database's owner, nor a role of which the present one is a member: its
/// functions run with the caller's rights, and so nobody else may be their author.
pub const ACCESS: &str = "\
coalesce((SELECT CASE \
WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN 'none' \
WHEN NOT (o.rolsuper OR pg_catalog.pg_has_role(n.nspowner, 'MEMBER') OR EXISTS (SELECT FROM \
pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
AND d.datdba OPERATOR(pg_catalog.=) n.nspowner)) THEN 'none' \
WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc AS p \
WHERE p.pronamespace OPERATOR(pg_catalog.=) n.oid \
AND p.proowner OPERATOR(pg_catalog.=) n.nspowner \
AND (p.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{seal,fenced,look,open}') \
OR (p.proname::pg_catalog.text OPERATOR(pg_catalog.=) 'version' \
AND p.prosrc OPERATOR(pg_catalog.=) 'SELECT 1')) \
AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) OPERATOR(pg_catalog.<>) 5 THEN 'none' \
WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute AS a \
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
WHERE c.relnamespace OPERATOR(pg_catalog.=) n.oid \
AND c.relname::pg_catalog.text OPERATOR(pg_catalog.=) 'ledger' \
AND ((a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{session,seq,recent}') \
AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') \
AND (a.attname::pg_catalog.text OPERATOR(pg_catalog.=) 'session' \
OR pg_catalog.has_column_privilege(c.oid, a.attnum, 'UPDATE'))))) \
OPERATOR(pg_catalog.=) 3 THEN 'table' \
ELSE 'function' END \
FROM pg_catalog.pg_namespace AS n \
JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) n.nspowner \
WHERE n.nspname::pg_catalog.text OPERATOR(pg_catalog.=) 'segue'), 'none')";

/// Installs the ledger, upgrades an older one, or changes who may use it how. One statement and one
/// transaction; may be repeated, and run by several sessions at once.
///
/// `hardened` grants the functions alone, and takes back what was granted on the table to `role`
/// and to PUBLIC; else the seal's UPDATE is granted as well. `role` is PUBLIC if none is given.
pub fn install_sql(hardened: bool, role: Option<&str>) -> String {
    let role = role.map_or_else(|| "PUBLIC".to_owned(), quote_identifier);
    let table = if hardened {
        format!(
            "REVOKE ALL ON TABLE segue.ledger FROM PUBLIC;\n  \
             REVOKE ALL ON TABLE segue.ledger FROM {role};"
        )
    } else {
        format!(
            "GRANT SELECT (session, seq, recent), UPDATE (seq, recent) ON segue.ledger TO {role};"
        )
    };
    let grants = format!(
        "GRANT USAGE ON SCHEMA segue TO {role};\n  \
         GRANT EXECUTE ON FUNCTION segue.version(), segue.fenced(bigint, bigint), \
         segue.seal(uuid, bigint), segue.look(uuid[]), segue.open(uuid, uuid) TO {role};\n  {table}"
    );
    do_block(include_str!("ledger/install.sql"), &grants)
}

/// A DO block around `body`, with its grants.
fn do_block(body: &str, grants: &str) -> String {
    let body = body.replace("{GRANTS}", grants);
    // A role may be called anything, the very quote around the body included.
    let mut tag = "$segue$".to_owned();
    while body.contains(&tag) {
        tag.insert(1, '_');
    }
    format!("DO {tag}\n{body}{tag}")
}

/// SQLSTATE of a claim whose predecessor in its lane is not done.
pub const SQLSTATE_OUT_OF_ORDER: &str = "SG003";

/// Claims submission `$1` uuid for this transaction: 23505 if it is done already. Where another
/// attempt is under way, it waits for that one's end.
pub const CLAIM_TABLE: &str = "INSERT INTO segue.submission (id) VALUES ($1)";

/// As [`CLAIM_TABLE`]; raises [`SQLSTATE_OUT_OF_ORDER`] if submission `$2` uuid is not done.
pub const CLAIM_AFTER_TABLE: &str = "\
INSERT INTO segue.submission (id) SELECT CASE WHEN EXISTS (SELECT FROM segue.submission AS s \
WHERE s.id OPERATOR(pg_catalog.=) $2) THEN $1 ELSE segue.out_of_order($2) END";

/// As [`CLAIM_TABLE`], for who may not write to the table.
pub const CLAIM_FUNCTION: &str = "SELECT segue.claim($1)";

/// As [`CLAIM_AFTER_TABLE`], for who may not write to the table.
pub const CLAIM_AFTER_FUNCTION: &str = "SELECT segue.claim_after($1, $2)";

/// An expression that says how the present role may claim submissions: `none`, `table` or `function`.
/// As [`ACCESS`], it raises nothing and trusts nobody's schema who might be a stranger.
pub const SUBMISSION_ACCESS: &str = "\
coalesce((SELECT CASE \
WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN 'none' \
WHEN NOT (o.rolsuper OR pg_catalog.pg_has_role(n.nspowner, 'MEMBER') OR EXISTS (SELECT FROM \
pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() \
AND d.datdba OPERATOR(pg_catalog.=) n.nspowner)) THEN 'none' \
WHEN c.relowner OPERATOR(pg_catalog.<>) n.nspowner THEN 'none' \
WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc AS p \
WHERE p.pronamespace OPERATOR(pg_catalog.=) n.oid \
AND p.proowner OPERATOR(pg_catalog.=) n.nspowner \
AND p.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ('{out_of_order,claim,claim_after}') \
AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')) OPERATOR(pg_catalog.<>) 3 THEN 'none' \
WHEN pg_catalog.has_column_privilege(c.oid, 'id', 'INSERT') \
AND pg_catalog.has_column_privilege(c.oid, 'id', 'SELECT') THEN 'table' \
ELSE 'function' END \
FROM pg_catalog.pg_namespace AS n \
JOIN pg_catalog.pg_roles AS o ON o.oid OPERATOR(pg_catalog.=) n.nspowner \
JOIN pg_catalog.pg_class AS c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid \
AND c.relname::pg_catalog.text OPERATOR(pg_catalog.=) 'submission' \
WHERE n.nspname::pg_catalog.text OPERATOR(pg_catalog.=) 'segue'), 'none')";

/// Installs what submissions need, or changes who may use it how; as [`install_sql`].
pub fn install_submissions_sql(hardened: bool, role: Option<&str>) -> String {
    let role = role.map_or_else(|| "PUBLIC".to_owned(), quote_identifier);
    let table = if hardened {
        format!(
            "REVOKE ALL ON TABLE segue.submission FROM PUBLIC;\n  \
             REVOKE ALL ON TABLE segue.submission FROM {role};"
        )
    } else {
        format!("GRANT SELECT (id), INSERT (id) ON segue.submission TO {role};")
    };
    let grants = format!(
        "GRANT USAGE ON SCHEMA segue TO {role};\n  \
         GRANT EXECUTE ON FUNCTION segue.out_of_order(uuid), segue.claim(uuid), \
         segue.claim_after(uuid, uuid), segue.claimed(uuid[]) TO {role};\n  {table}"
    );
    do_block(include_str!("ledger/submissions.sql"), &grants)
}

/// Removes the ledger. Fails, and changes nothing, where other objects depend on it or live in its
/// schema. One statement.
pub fn remove_sql() -> &'static str {
    include_str!("ledger/remove.sql")
}

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_cannot_break_out_of_its_quotes() {
        let sql = install_sql(false, Some("a\"; DROP TABLE t; --$segue$"));
        assert!(sql.contains("TO \"a\"\"; DROP TABLE t; --$segue$\";"));
        assert!(sql.starts_with("DO $_segue$\n") && sql.ends_with("END\n$_segue$"));
        assert!(!sql.contains("{GRANTS}"));
    }

    #[test]
    fn both_installation_and_removal_are_one_statement() {
        use crate::session::classify::{StatementKind, classify};
        let submissions = install_submissions_sql(true, None);
        for sql in [&install_sql(true, None), &submissions, remove_sql()] {
            assert_eq!(classify(sql).kind, StatementKind::Other);
        }
    }
}
