//! The rows of a result as C reads them, value by value, with a NUL behind each. Rows are copied as
//! they have arrived, many at once, into [`Blocks`]. No unsafe code; the entry points are in `result`.

use std::ffi::CString;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use postgres_types::Type;

use super::blocks::Blocks;
use super::boundary::{Failure, Result};
use super::codes::{SEGUE_CONVERSION, SEGUE_INVALID_ARGUMENT, SEGUE_NULL_VALUE};
use super::error::c_string;
use crate::client::{Row, RowSet};
use crate::session::Column;
use crate::wire::row::Rows;

#[derive(Debug, Default)]
pub(super) struct Table {
    pub columns: Arc<[Column]>,
    pub text: bool,
    rows: Blocks,
    names: OnceLock<Vec<CString>>,
}

impl RowSet for Table {
    fn add(&mut self, columns: &Arc<[Column]>, text: bool, body: Bytes) {
        self.text = text;
        self.push(columns.len(), &body);
    }

    fn add_all(&mut self, columns: &Arc<[Column]>, text: bool, rows: Rows) {
        self.text = text;
        self.rows.add(rows.len(), columns.len(), rows.messages());
    }
}

impl Table {
    pub fn of_rows(columns: &Arc<[Column]>, rows: &[Row]) -> Self {
        let text = rows.first().is_some_and(Row::is_text);
        let mut table = Self { columns: Arc::clone(columns), text, ..Self::default() };
        rows.iter().for_each(|row| table.push(columns.len(), row.body()));
        table
    }

    pub fn empty(columns: Arc<[Column]>, text: bool) -> Self {
        Self { columns, text, ..Self::default() }
    }

    /// Takes one row, without its header.
    pub fn push(&mut self, columns: usize, body: &[u8]) {
        self.rows.push(columns, body);
    }

    pub fn rows(&self) -> usize {
        self.rows.rows()
    }

    pub fn names(&self) -> &[CString] {
        self.names.get_or_init(|| {
            self.columns.iter().map(|column| c_string(column.name.as_str())).collect()
        })
    }

    /// A value as it was sent; the outer `None` is out of range, the inner one NULL. A NUL follows it.
    #[inline]
    pub fn find(&self, row: usize, column: usize) -> Option<Option<&[u8]>> {
        self.rows.find(row, column, self.columns.len())
    }

    /// Reads a value that is not NULL.
    #[inline]
    fn read<'a, T>(
        &'a self,
        row: usize,
        column: usize,
        what: &str,
        convert: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T> {
        let converted = self.find(row, column).flatten().and_then(convert);
        converted.ok_or_else(|| self.complaint(row, column, what))
    }

    /// Why a value could not be read.
    #[cold]
    fn complaint(&self, row: usize, column: usize, what: &str) -> Failure {
        let (status, message) = match self.find(row, column) {
            None => (
                SEGUE_INVALID_ARGUMENT,
                format!(
                    "there is no row {row}, column {column}: the result has {} rows of {} columns",
                    self.rows(),
                    self.columns.len()
                ),
            ),
            Some(None) => {
                let name = &self.columns[column].name;
                (SEGUE_NULL_VALUE, format!("column {name} of row {row} is NULL"))
            }
            Some(Some(_)) => {
                let Column { name, type_oid, .. } = &self.columns[column];
                let ty = Type::from_oid(*type_oid)
                    .map_or_else(|| format!("of OID {type_oid}"), |ty| ty.name().to_owned());
                let format = if self.text { "text" } else { "binary" };
                let message = format!(
                    "column {name} is of type {ty} and came in {format} format, which is not read \
                     as {what}, or the value is out of range"
                );
                (SEGUE_CONVERSION, message)
            }
        };
        Failure::reading(status, message)
    }

    fn type_of(&self, column: usize) -> u32 {
        self.columns[column].type_oid
    }

    #[inline]
    pub fn bool(&self, row: usize, column: usize) -> Result<bool> {
        self.read(row, column, "a boolean", |value| match value {
            b"t" | b"true" if self.text => Some(true),
            b"f" | b"false" if self.text => Some(false),
            [byte] if !self.text && self.type_of(column) == BOOL => Some(*byte != 0),
            _ => None,
        })
    }

    #[inline]
    pub fn int64(&self, row: usize, column: usize) -> Result<i64> {
        self.read(row, column, "a 64-bit integer", |value| match self.text {
            true => parse(value),
            false => binary_integer(self.type_of(column), value),
        })
    }

    #[inline]
    pub fn double(&self, row: usize, column: usize) -> Result<f64> {
        self.read(row, column, "a floating-point number", |value| match self.type_of(column) {
            _ if self.text => parse(value),
            FLOAT4 => value.try_into().ok().map(|bytes| f32::from_be_bytes(bytes).into()),
            FLOAT8 => value.try_into().ok().map(f64::from_be_bytes),
            // Exact below 2^53, as where C converts an integer to a double.
            integer => binary_integer(integer, value).map(|value| value as f64),
        })
    }

    /// A text, or NULL.
    #[inline]
    pub fn text(&self, row: usize, column: usize) -> Result<Option<&[u8]>> {
        match self.find(row, column) {
            Some(value) if self.text || value.is_none() || is_textual(self.type_of(column)) => {
                Ok(value)
            }
            _ => Err(self.complaint(row, column, "text")),
        }
    }

    /// The bytes of a bytea, decoded from its text forms where it came as text.
    pub fn bytea(&self, row: usize, column: usize) -> Result<Vec<u8>> {
        self.read(row, column, "bytes", |value| match value.strip_prefix(b"\\x") {
            _ if !self.text => Some(value.to_vec()),
            Some(hex) => decode_hex(hex),
            None => decode_escapes(value),
        })
    }
}

const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const VARCHAR: u32 = 1043;

#[inline]
fn binary_integer(oid: u32, value: &[u8]) -> Option<i64> {
    match (oid, value) {
        (INT2, &[a, b]) => Some(i16::from_be_bytes([a, b]).into()),
        (INT4, &[a, b, c, d]) => Some(i32::from_be_bytes([a, b, c, d]).into()),
        (OID, &[a, b, c, d]) => Some(u32::from_be_bytes([a, b, c, d]).into()),
        (INT8, value) => Some(i64::from_be_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

fn parse<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Types whose binary format is their text.
fn is_textual(oid: u32) -> bool {
    // Nearly always one of these.
    matches!(oid, TEXT | VARCHAR)
        || Type::from_oid(oid).is_some_and(|ty| {
            matches!(
                ty,
                Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::JSON | Type::XML | Type::CHAR
            )
        })
}

fn decode_hex(hex: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok())
        .collect()
}

/// `bytea_output = escape`: a backslash is doubled, or begins three octal digits.
fn decode_escapes(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                tail
            }
            (b'\\', [a, b, c, tail @ ..]) => {
                let octal = std::str::from_utf8(&[*a, *b, *c]).ok().map(str::to_owned)?;
                out.push(u8::from_str_radix(&octal, 8).ok()?);
                tail
            }
            (b'\\', _) => return None,
            (byte, tail) => {
                out.push(*byte);
                tail
            }
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn columns(oids: &[u32]) -> Arc<[Column]> {
        let column = |&type_oid: &u32| Column {
            name: "c".into(),
            type_oid,
            type_modifier: -1,
            type_size: 4,
            table_oid: 0,
            column_id: 0,
        };
        oids.iter().map(column).collect()
    }

    /// DataRow messages, one behind the other.
    fn rows(rows: &[&[Option<&[u8]>]]) -> Rows {
        let mut buf = BytesMut::new();
        for values in rows {
            let body = body(values);
            buf.put_u8(b'D');
            buf.put_u32(u32::try_from(body.len() + 4).unwrap());
            buf.put_slice(&body);
        }
        let length = buf.len();
        Rows::cut(rows.len(), length, &mut buf)
    }

    fn body(values: &[Option<&[u8]>]) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u16(u16::try_from(values.len()).unwrap());
        for value in values {
            body.put_i32(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()));
            body.put_slice(value.unwrap_or_default());
        }
        body.freeze()
    }

    #[test]
    fn a_value_that_cannot_be_read_says_why() {
        let columns = columns(&[INT8, FLOAT4]);
        let mut table = Table::empty(Arc::clone(&columns), false);
        table.add_all(&columns, false, rows(&[&[Some(&7i64.to_be_bytes()), None]]));
        let status = |result: Result<i64>| result.unwrap_err().status();
        assert_eq!(table.int64(0, 0).unwrap(), 7);
        assert_eq!(table.double(0, 0).unwrap(), 7.0);
        assert_eq!(status(table.int64(0, 1)), SEGUE_NULL_VALUE);
        assert_eq!(status(table.int64(1, 0)), SEGUE_INVALID_ARGUMENT);
        assert_eq!(table.bool(0, 0).unwrap_err().status(), SEGUE_CONVERSION);
        assert_eq!(table.text(0, 0).unwrap_err().status(), SEGUE_CONVERSION);
        assert_eq!(table.text(0, 1).unwrap(), None);
    }

    #[test]
    fn bytea_is_read_in_both_text_forms() {
        assert_eq!(decode_hex(b"00ffAb"), Some(vec![0, 0xff, 0xab]));
        assert_eq!(decode_hex(b"0"), None);
        assert_eq!(decode_hex(b"0g"), None);
        assert_eq!(decode_escapes(br"a\\b\000\377"), Some(b"a\\b\x00\xff".to_vec()));
        assert_eq!(decode_escapes(br"a\9"), None);
        assert_eq!(decode_escapes(br"\400"), None);
    }
}
