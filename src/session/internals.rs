//! The statements that Segue itself runs on a link, as messages: BEGIN, COMMIT, ROLLBACK, the seals,
//! the questions to the ledger. They are prepared under fixed names on every link.

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use uuid::Uuid;

use super::ledger;
use super::seals::LedgerRow;
use super::unit::Seal;
use crate::wire::row::Values;
use crate::wire::{Malformed, execution};

/// What may be sealed with on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LedgerAccess {
    /// Not installed, or of another version, or not permitted, or not wanted.
    #[default]
    None,
    /// The table may be updated directly: the fast form.
    Table,
    /// Only through the SECURITY DEFINER function.
    Function,
}

/// The numbers below this one are those of the internal statements.
pub const FIRST_STATEMENT: u32 = 6;

pub(super) const BEGIN: &str = "segue_begin";
pub(super) const COMMIT: &str = "segue_commit";
pub(super) const ROLLBACK: &str = "segue_rollback";
const SEAL: &str = "segue_seal";
const SEAL_GUARDED: &str = "segue_seal_guarded";
const LOOK: &str = "segue_look";
const NAMES: [&str; 6] = [BEGIN, COMMIT, ROLLBACK, SEAL, SEAL_GUARDED, LOOK];

const UUID: u32 = 2950;
const UUID_ARRAY: u32 = 2951;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;

/// By this column the seal's result is told from the application's in a simple query.
pub(super) const SIMPLE_SEAL_COLUMN: &str = "segue_seal_of_this_request";

/// How long a reconnected session waits for its former backend to end, in milliseconds.
const TERMINATE_TIMEOUT_MS: i64 = 5000;

/// The internal statements that `access` allows: name, text, types of the parameters.
fn statements(
    access: LedgerAccess,
) -> impl Iterator<Item = (u32, &'static str, &'static str, &'static [u32])> {
    let (seal, guarded) = match access {
        LedgerAccess::None => ("", ""),
        LedgerAccess::Table => (ledger::SEAL_TABLE, ledger::SEAL_TABLE_GUARDED),
        LedgerAccess::Function => (ledger::SEAL_FUNCTION, ledger::SEAL_FUNCTION_GUARDED),
    };
    let seal_types: &[u32] = &[UUID, INT8];
    let look = if access == LedgerAccess::None { "" } else { ledger::LOOK };
    [
        (BEGIN, "BEGIN", &[][..]),
        (COMMIT, "COMMIT", &[]),
        (ROLLBACK, "ROLLBACK", &[]),
        (SEAL, seal, seal_types),
        (SEAL_GUARDED, guarded, seal_types),
        (LOOK, look, &[UUID_ARRAY]),
    ]
    .into_iter()
    .zip(0..)
    .filter(|((_, sql, _), _)| !sql.is_empty())
    .map(|((name, sql, types), number)| (number, name, sql, types))
}

/// Prepares every internal statement anew, whatever has become of it; the Sync is the caller's.
pub(super) fn write_internals(access: LedgerAccess, out: &mut BytesMut) {
    for name in NAMES {
        // Closing what does not exist is no error.
        let written = frontend::close(b'S', name, out);
        debug_assert!(written.is_ok());
    }
    for (_, name, sql, types) in statements(access) {
        parse(name, sql, types, out);
    }
}

/// Appends Parse for the internal statements that are not among `already`, for a link that is
/// prepared ahead of time; returns their numbers.
pub fn prepare(access: LedgerAccess, already: &[u32], out: &mut BytesMut) -> Vec<u32> {
    let missing = statements(access).filter(|(number, ..)| !already.contains(number));
    missing
        .map(|(number, name, sql, types)| {
            parse(name, sql, types, out);
            if name == LOOK {
                // Run once, so that the server has compiled its function before it is needed.
                write_look(std::iter::empty(), out);
            }
            number
        })
        .collect()
}

/// Whether all internal statements are among those that are prepared on a link.
pub(super) fn are_prepared(access: LedgerAccess, prepared: &[u32]) -> bool {
    statements(access).all(|(number, ..)| prepared.contains(&number))
}

/// Bind and Execute of a prepared statement without parameters; of the unnamed one if `name` is empty.
pub(super) fn write_call(name: &str, out: &mut BytesMut) {
    bind(name, &[], out);
}

pub(super) fn write_seal(seal: Seal, out: &mut BytesMut) {
    let name = if seal.guarded { SEAL_GUARDED } else { SEAL };
    let number = seal.number.cast_signed().to_be_bytes();
    bind(name, &[seal.row.as_bytes(), &number], out);
}

/// Opens a row of the ledger and deletes another; nil is no row.
pub(super) fn write_open(open: Uuid, retire: Uuid, out: &mut BytesMut) {
    parse("", ledger::OPEN, &[UUID, UUID], out);
    bind("", &[open.as_bytes(), retire.as_bytes()], out);
}

/// Fails, and with it the implicit transaction that it is a part of.
pub(super) fn write_failure(out: &mut BytesMut) {
    bind("segue_nothing", &[], out);
}

/// Asks what the ledger says of `rows`.
pub(super) fn write_look(rows: impl Iterator<Item = Uuid>, out: &mut BytesMut) {
    let rows: Vec<Uuid> = rows.collect();
    let mut array = BytesMut::new();
    array.put_i32(i32::from(!rows.is_empty()));
    array.put_i32(0);
    array.put_u32(UUID);
    if !rows.is_empty() {
        array.put_i32(i32::try_from(rows.len()).unwrap_or(0));
        array.put_i32(1);
    }
    for row in &rows {
        array.put_i32(16);
        array.put_slice(row.as_bytes());
    }
    bind(LOOK, &[&array], out);
}

/// Reads one row of the reply to [`write_look`].
pub(super) fn read_look(body: &[u8]) -> Result<LedgerRow, Malformed> {
    const BAD: Malformed = Malformed("the ledger's reply is not of its own shape");
    let mut values = Values::new(body)?;
    let mut next = || values.next().and_then(Result::ok).flatten().ok_or(BAD);
    let id = Uuid::from_slice(next()?).map_err(|_| BAD)?;
    let seq = i64::from_be_bytes(next()?.try_into().map_err(|_| BAD)?);
    let recent = i64::from_be_bytes(next()?.try_into().map_err(|_| BAD)?);
    Ok(LedgerRow { id, seq: u64::try_from(seq).unwrap_or(0), recent: recent.cast_unsigned() })
}

/// Ends the backend that a session has left behind, and waits until it is gone.
pub(super) fn write_terminate(pid: i32, backend_start: &str, out: &mut BytesMut) {
    parse("", ledger::TERMINATE, &[INT4, TEXT, INT8], out);
    let timeout = TERMINATE_TIMEOUT_MS.to_be_bytes();
    bind("", &[&pid.to_be_bytes(), backend_start.as_bytes(), &timeout], out);
}

/// Commits something that changes nothing, so that what was committed before is as safe afterwards as
/// the server makes its commits.
pub(super) fn write_confirm(out: &mut BytesMut) {
    parse("", ledger::CONFIRM, &[], out);
    bind("", &[], out);
}

/// A simple query: BEGIN where one is due (`Some`, empty for a plain one), the application's string,
/// and the seal where there is one.
pub(super) fn write_simple(
    begin: Option<&str>,
    sql: &[u8],
    seal: Option<Seal>,
    out: &mut BytesMut,
) {
    let start = out.len();
    out.put_u8(b'Q');
    out.put_i32(0);
    if let Some(begin) = begin {
        let begin = begin.trim_end_matches([';', ' ', '\n', '\t', '\r']);
        out.put_slice(if begin.is_empty() { b"BEGIN" } else { begin.as_bytes() });
        out.put_slice(b"\n;");
    }
    out.put_slice(sql);
    if let Some(seal) = seal {
        let text = format!(
            "\n;SELECT CASE WHEN pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN \
             0::pg_catalog.int8 ELSE segue.seal('{}'::pg_catalog.uuid, {}::pg_catalog.int8) \
             END AS {SIMPLE_SEAL_COLUMN}",
            seal.row, seal.number
        );
        out.put_slice(text.as_bytes());
    }
    out.put_u8(0);
    // A message's length fits: the string was limited when it was recorded.
    let length = i32::try_from(out.len() - start - 1).unwrap_or(i32::MAX);
    out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
}

/// The names and texts here are constants without NUL bytes, which is all that can go wrong.
fn parse(name: &str, sql: &str, types: &[u32], out: &mut BytesMut) {
    let written = frontend::parse(name, sql, types.iter().copied(), out);
    debug_assert!(written.is_ok());
}

fn bind(name: &str, values: &[&[u8]], out: &mut BytesMut) {
    let encode = |index: usize, out: &mut BytesMut| {
        out.put_slice(values[index]);
        Ok(IsNull::No)
    };
    let written = execution::write(name, values.iter().map(|_| 1), encode, &[1], out);
    debug_assert!(written.is_ok());
}
