//! The rows of a result as C reads them: every value in one piece of memory, each with a NUL behind
//! it, found by row and column without walking. No unsafe code; the entry points are in `result`.

use std::ffi::CString;
use std::sync::{Arc, OnceLock};

use postgres_types::Type;

use super::boundary::{Failure, Result};
use super::codes::{SEGUE_CONVERSION, SEGUE_INVALID_ARGUMENT, SEGUE_NULL_VALUE};
use super::error::c_string;
use crate::client::{QueryResult, Row};
use crate::session::Column;

#[derive(Default)]
pub(super) struct Table {
    pub columns: Arc<[Column]>,
    pub text: bool,
    rows: usize,
    /// All values, each followed by a NUL.
    bytes: Vec<u8>,
    /// Where each value begins and how long it is, row by row.
    cells: Vec<Cell>,
    names: OnceLock<Vec<CString>>,
}

#[derive(Clone, Copy)]
struct Cell {
    start: usize,
    /// `None` is NULL.
    length: Option<u32>,
}

impl Table {
    pub fn new(result: &QueryResult, text: bool) -> Self {
        let mut table = Self::empty(Arc::clone(&result.columns), text);
        table.reserve(&result.rows);
        for row in &result.rows {
            table.push(row);
        }
        table
    }

    pub fn empty(columns: Arc<[Column]>, text: bool) -> Self {
        Self { columns, text, ..Self::default() }
    }

    fn reserve(&mut self, rows: &[Row]) {
        let values = rows.len() * self.columns.len();
        self.cells.reserve_exact(values);
        // The NUL of a value takes less than the length that came before it.
        self.bytes.reserve_exact(rows.iter().map(Row::byte_len).sum());
    }

    pub fn push(&mut self, row: &Row) {
        for value in row.values() {
            let start = self.bytes.len();
            let length = value.map(|value| {
                self.bytes.extend_from_slice(value);
                self.bytes.push(0);
                // The protocol's lengths are 31 bits wide.
                u32::try_from(value.len()).unwrap_or(u32::MAX)
            });
            self.cells.push(Cell { start, length });
        }
        self.rows += 1;
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn names(&self) -> &[CString] {
        self.names.get_or_init(|| {
            self.columns.iter().map(|column| c_string(column.name.as_str())).collect()
        })
    }

    /// A value as it was sent; `Err` out of range, `None` for NULL. A NUL follows it.
    pub fn value(&self, row: usize, column: usize) -> Result<Option<&[u8]>> {
        if row >= self.rows || column >= self.columns.len() {
            return Err(Failure::reading(
                SEGUE_INVALID_ARGUMENT,
                format!(
                    "there is no row {row}, column {column}: the result has {} rows of {} columns",
                    self.rows,
                    self.columns.len()
                ),
            ));
        }
        let Cell { start, length } = self.cells[row * self.columns.len() + column];
        Ok(length.map(|length| &self.bytes[start..start + length as usize]))
    }

    fn present(&self, row: usize, column: usize) -> Result<&[u8]> {
        self.value(row, column)?.ok_or_else(|| {
            let name = &self.columns[column].name;
            Failure::reading(SEGUE_NULL_VALUE, format!("column {name} of row {row} is NULL"))
        })
    }

    fn misfit(&self, column: usize, what: &str) -> Failure {
        let column = &self.columns[column];
        let ty = Type::from_oid(column.type_oid)
            .map_or_else(|| format!("of OID {}", column.type_oid), |ty| ty.name().to_owned());
        let format = if self.text { "text" } else { "binary" };
        Failure::reading(
            SEGUE_CONVERSION,
            format!(
                "column {} is of type {ty} and came in {format} format, which is not read as {what}, \
                 or the value is out of range",
                column.name
            ),
        )
    }

    fn type_of(&self, column: usize) -> u32 {
        self.columns[column].type_oid
    }

    pub fn bool(&self, row: usize, column: usize) -> Result<bool> {
        let value = self.present(row, column)?;
        match value {
            b"t" | b"true" if self.text => Ok(true),
            b"f" | b"false" if self.text => Ok(false),
            [byte] if !self.text && self.type_of(column) == Type::BOOL.oid() => Ok(*byte != 0),
            _ => Err(self.misfit(column, "a boolean")),
        }
    }

    pub fn int64(&self, row: usize, column: usize) -> Result<i64> {
        let value = self.present(row, column)?;
        if self.text {
            return parse(value).ok_or_else(|| self.misfit(column, "a 64-bit integer"));
        }
        self.binary_integer(column, value).ok_or_else(|| self.misfit(column, "a 64-bit integer"))
    }

    fn binary_integer(&self, column: usize, value: &[u8]) -> Option<i64> {
        match (Type::from_oid(self.type_of(column))?, value) {
            (Type::INT2, &[a, b]) => Some(i16::from_be_bytes([a, b]).into()),
            (Type::INT4, &[a, b, c, d]) => Some(i32::from_be_bytes([a, b, c, d]).into()),
            (Type::OID, &[a, b, c, d]) => Some(u32::from_be_bytes([a, b, c, d]).into()),
            (Type::INT8, value) => Some(i64::from_be_bytes(value.try_into().ok()?)),
            _ => None,
        }
    }

    pub fn double(&self, row: usize, column: usize) -> Result<f64> {
        let value = self.present(row, column)?;
        let number = if self.text {
            parse(value)
        } else {
            match self.type_of(column) {
                oid if oid == Type::FLOAT4.oid() => {
                    value.try_into().ok().map(|bytes| f32::from_be_bytes(bytes).into())
                }
                oid if oid == Type::FLOAT8.oid() => value.try_into().ok().map(f64::from_be_bytes),
                // Exact below 2^53, as where C converts an integer to a double.
                _ => self.binary_integer(column, value).map(|value| value as f64),
            }
        };
        number.ok_or_else(|| self.misfit(column, "a floating-point number"))
    }

    /// A text, or NULL.
    pub fn text(&self, row: usize, column: usize) -> Result<Option<&[u8]>> {
        let value = self.value(row, column)?;
        if self.text || value.is_none() || is_textual(self.type_of(column)) {
            return Ok(value);
        }
        Err(self.misfit(column, "text"))
    }

    /// The bytes of a bytea, decoded from its text forms where it came as text.
    pub fn bytea(&self, row: usize, column: usize) -> Result<Vec<u8>> {
        let value = self.present(row, column)?;
        if !self.text {
            return Ok(value.to_vec());
        }
        let bytes = match value.strip_prefix(b"\\x") {
            Some(hex) => decode_hex(hex),
            None => decode_escapes(value),
        };
        bytes.ok_or_else(|| self.misfit(column, "bytes"))
    }
}

fn parse<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Types whose binary format is their text.
fn is_textual(oid: u32) -> bool {
    Type::from_oid(oid).is_some_and(|ty| {
        matches!(
            ty,
            Type::TEXT
                | Type::VARCHAR
                | Type::BPCHAR
                | Type::NAME
                | Type::UNKNOWN
                | Type::JSON
                | Type::XML
                | Type::CHAR
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
    use super::*;

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
