//! Values in text form: where PostgreSQL has no better one, and inside literals of arrays, ranges and
//! rows.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyString};

use super::{Dumper, Encoder, INT4, INT8, NUMERIC};
use crate::errors;

impl<'py> Encoder<'py> {
    /// Appends what str() shows.
    pub(super) fn shown(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        out.extend_from_slice(value.str()?.to_str()?.as_bytes());
        Ok(())
    }

    /// Appends the digits of an int, of whatever subclass.
    pub(super) fn int_text(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        // Not str(): an IntEnum shows its name.
        let plain = self.py.get_type::<PyInt>().getattr("__repr__")?.call1((value,))?;
        out.extend_from_slice(plain.cast::<PyString>()?.to_str()?.as_bytes());
        Ok(())
    }

    /// Appends the text form of any value; false for NULL, which has none.
    pub(super) fn any_text(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        if value.is_none() {
            return Ok(false);
        }
        self.with_dumper(value, |dumper| self.text(dumper, value, out))
    }

    pub(super) fn text(
        &self,
        dumper: &Dumper,
        value: &Bound<'py, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<bool> {
        match dumper {
            Dumper::None => return Ok(false),
            Dumper::Bool => out.push(if value.is_truthy()? { b't' } else { b'f' }),
            Dumper::Int => self.int_text(value, out)?,
            Dumper::Float => {
                let value: f64 = value.extract()?;
                out.extend_from_slice(
                    if value.is_nan() {
                        "NaN".to_owned()
                    } else if value.is_infinite() {
                        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
                    } else {
                        format!("{value:e}")
                    }
                    .as_bytes(),
                );
            }
            Dumper::Str => {
                self.string(value.cast::<PyString>()?, out)?;
            }
            Dumper::Bytes | Dumper::BytesLike => {
                let bytes = self.py.get_type::<PyBytes>().call1((value,))?;
                out.extend_from_slice(b"\\x");
                for byte in bytes.cast::<PyBytes>()?.as_bytes() {
                    out.extend_from_slice(format!("{byte:02x}").as_bytes());
                }
            }
            Dumper::Date | Dumper::DateTime | Dumper::Time => {
                let text = value.call_method0("isoformat")?;
                out.extend_from_slice(text.cast::<PyString>()?.to_str()?.as_bytes());
            }
            Dumper::TimeDelta => {
                let (days, micros) = self.delta(value)?;
                out.extend_from_slice(
                    format!("{days} days {}.{:06} seconds", micros / 1_000_000, micros % 1_000_000)
                        .as_bytes(),
                );
            }
            Dumper::Decimal | Dumper::Uuid | Dumper::Shown(_) => self.shown(value, out)?,
            Dumper::List => self.array_literal(value, out)?,
            Dumper::Tuple => self.row_literal(value, out)?,
            Dumper::Dict | Dumper::Json(_) => {
                let text = self.json(dumper, value)?;
                self.string(text.cast::<PyString>()?, out)?;
            }
            Dumper::Hstore => self.hstore_literal(value, out)?,
            Dumper::Range => self.range_literal(value, out)?,
            Dumper::Multirange => {
                out.push(b'{');
                for (index, range) in value.try_iter()?.enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.range_literal(&range?, out)?;
                }
                out.push(b'}');
            }
            Dumper::Enum => {
                let name = value.getattr("name")?;
                self.string(name.cast::<PyString>()?, out)?;
            }
            Dumper::Labels(_, labels) => match labels.bind(self.py).get_item(value)? {
                Some(label) => {
                    self.string(label.cast::<PyString>()?, out)?;
                }
                None => {
                    return Err(errors::data(
                        self.py,
                        "a member that was not registered with its enum; nothing was sent",
                    ));
                }
            },
            Dumper::Encoded => {
                if value.getattr("binary")?.is_truthy()? {
                    return Err(errors::not_supported(
                        self.py,
                        "a value that is encoded in binary cannot stand inside an array, a range or a \
                         row, nor in a text; nothing was sent",
                    ));
                }
                let data = value.getattr("data")?;
                out.extend_from_slice(data.cast::<PyBytes>()?.as_bytes());
            }
            Dumper::Custom(_, dumps) => {
                let made = dumps.bind(self.py).call1((value,))?;
                let Ok(text) = made.cast::<PyString>() else {
                    return Err(errors::not_supported(
                        self.py,
                        "a type that is registered with a binary form cannot stand inside an array, a \
                         range or a row; nothing was sent",
                    ));
                };
                self.string(text, out)?;
            }
        }
        Ok(true)
    }

    /// Appends a value in quotes, whose own quotes are escaped.
    pub(super) fn quoted(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        let mut text = Vec::new();
        self.any_text(value, &mut text)?;
        quote(&text, out);
        Ok(())
    }

    /// A row in the text format of COPY, with its end.
    pub fn copy_row(&self, row: &Bound<'py, PyAny>) -> PyResult<Vec<u8>> {
        let mut line = Vec::new();
        let mut text = Vec::new();
        for (index, value) in row.try_iter()?.enumerate() {
            if index > 0 {
                line.push(b'\t');
            }
            text.clear();
            if !self.any_text(&value?, &mut text)? {
                line.extend_from_slice(b"\\N");
                continue;
            }
            for byte in &text {
                match byte {
                    b'\\' => line.extend_from_slice(b"\\\\"),
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    b'\t' => line.extend_from_slice(b"\\t"),
                    byte => line.push(*byte),
                }
            }
        }
        line.push(b'\n');
        Ok(line)
    }

    fn row_literal(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        out.push(b'(');
        for (index, field) in value.try_iter()?.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let field = field?;
            if !field.is_none() {
                self.quoted(&field, out)?;
            }
        }
        out.push(b')');
        Ok(())
    }

    fn hstore_literal(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        for (index, (key, value)) in value.cast::<PyDict>()?.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if !key.is_instance_of::<PyString>()
                || !(value.is_none() || value.is_instance_of::<PyString>())
            {
                return Err(errors::data(
                    self.py,
                    "hstore takes keys of type str, and values of type str or None; nothing was sent",
                ));
            }
            self.quoted(&key, out)?;
            out.extend_from_slice(b"=>");
            if value.is_none() {
                out.extend_from_slice(b"NULL");
            } else {
                self.quoted(&value, out)?;
            }
        }
        Ok(())
    }

    fn range_literal(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
        if value.getattr("isempty")?.is_truthy()? {
            out.extend_from_slice(b"empty");
            return Ok(());
        }
        let bounds: String = value.getattr("bounds")?.extract()?;
        let mut brackets = bounds.bytes();
        out.push(brackets.next().unwrap_or(b'['));
        for (name, end) in [("lower", b','), ("upper", brackets.next().unwrap_or(b')'))] {
            let bound = value.getattr(name)?;
            if !bound.is_none() {
                self.quoted(&bound, out)?;
            }
            out.push(end);
        }
        Ok(())
    }

    /// The type of a range, or of a multirange, by its bounds. 0 leaves it to the server: ints may be
    /// meant for any of three, and there is no cast from one to another.
    pub(super) fn range_oid(&self, value: &Bound<'py, PyAny>) -> PyResult<u32> {
        let multi = value.is_instance(self.objects.multirange.bind(self.py))?;
        let mut widest = 0;
        let mut bound_seen = false;
        let mut look = |range: &Bound<'py, PyAny>| -> PyResult<()> {
            for name in ["lower", "upper"] {
                let bound = range.getattr(name)?;
                if bound.is_none() {
                    continue;
                }
                let oid = self.value(&bound, &mut Vec::new())?.oid();
                widest = match (widest, oid) {
                    (_, INT4 | INT8) => 0,
                    (0, NUMERIC) if bound_seen => 0,
                    _ => oid,
                };
                bound_seen = true;
            }
            Ok(())
        };
        if multi {
            for range in value.try_iter()? {
                look(&range?)?;
            }
        } else {
            look(value)?;
        }
        let found = crate::types::RANGES.iter().find(|(.., bound)| *bound == widest);
        Ok(found.map_or(0, |(range, _, multirange, ..)| if multi { *multirange } else { *range }))
    }
}

/// Appends text in quotes.
pub(super) fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
