//! From what the server sent to Python objects, without anything in between.
//!
//! A value that does not fit its Python type (infinity, the year 4713 BC) is a `DataError` that says
//! so. Nothing here may panic, whatever the bytes.

mod containers;
mod datetime;
mod numeric;
mod text;

use std::cell::Cell;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};
use segue::session::Column;

use crate::errors;
use crate::objects::{self, Objects};
use crate::types::{Kind, TypeMap};

/// How the columns of a result are converted.
#[derive(Debug)]
pub struct Decoders {
    pub columns: Arc<[Column]>,
    pub kinds: Box<[Kind]>,
    /// The state of the type map that `kinds` was made from.
    pub epoch: u64,
    /// Those columns that come as text, where not all come in binary.
    texts: Box<[bool]>,
    /// Converting a row runs no code written in Python.
    plain: bool,
}

impl Decoders {
    /// For a statement that is to be executed: what has no binary form that is known here comes as text.
    pub fn new(columns: Arc<[Column]>, types: &TypeMap) -> Self {
        let mut decoders = Self::of_received(columns, types, false);
        if decoders.kinds.iter().any(|kind| !kind.is_binary()) {
            decoders.texts = decoders.kinds.iter().map(|kind| !kind.is_binary()).collect();
        }
        decoders
    }

    /// For a result that has come as text, or in binary.
    pub fn of_received(columns: Arc<[Column]>, types: &TypeMap, text: bool) -> Self {
        let epoch = types.epoch();
        let kinds: Box<[Kind]> = columns.iter().map(|column| types.kind(column.type_oid)).collect();
        let texts = if text { vec![true; kinds.len()].into() } else { Box::default() };
        let plain = kinds.iter().all(Kind::is_plain);
        Self { columns, kinds, epoch, texts, plain }
    }

    /// Whether converting a row runs no code written in Python.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// How each column is to come; empty if all come in binary.
    pub fn formats(&self) -> Vec<i16> {
        self.texts.iter().map(|text| i16::from(!text)).collect()
    }
}

/// What a conversion has to know of its session.
pub struct Context<'py> {
    pub py: Python<'py>,
    pub objects: &'py Objects,
    pub types: &'py TypeMap,
    /// The session's time zone; `None` for UTC.
    pub time_zone: Option<Bound<'py, PyAny>>,
    pub json_loads: Option<Bound<'py, PyAny>>,
    /// Whether the application's decimal context multiplies exactly, once that is known.
    pub exact: Cell<Option<bool>>,
}

impl<'py> Context<'py> {
    /// One row as a tuple.
    pub fn row(&self, decoders: &Decoders, body: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
        if !decoders.plain {
            // Code of the application's may have changed it.
            self.exact.set(None);
        }
        // It was checked when it arrived: behind the count, each value's length and its bytes.
        let mut rest = body.get(2..).unwrap_or_default();
        let mut next = || {
            let (&length, behind) = rest.split_first_chunk::<4>()?;
            rest = behind;
            let length = usize::try_from(i32::from_be_bytes(length)).ok()?;
            let (value, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some(value)
        };
        if decoders.texts.is_empty() {
            let columns = decoders.kinds.iter().map(|kind| match next() {
                Some(value) => self.binary(kind, value),
                None => Ok(self.none()),
            });
            return objects::tuple(self.py, columns);
        }
        let columns = decoders.kinds.iter().zip(&decoders.texts).map(|(kind, text)| match next() {
            Some(value) if *text => self.text(kind, value),
            Some(value) => self.binary(kind, value),
            None => Ok(self.none()),
        });
        objects::tuple(self.py, columns)
    }

    pub fn none(&self) -> Bound<'py, PyAny> {
        self.py.None().into_bound(self.py)
    }

    fn string(&self, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        match PyString::from_bytes(self.py, value) {
            Ok(text) => Ok(text.into_any()),
            Err(_) => Err(errors::data(self.py, "text from the server that is not UTF-8")),
        }
    }

    fn float(&self, value: f64) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyFloat::new(self.py, value).into_any())
    }

    fn boolean(&self, value: bool) -> Bound<'py, PyAny> {
        PyBool::new(self.py, value).to_owned().into_any()
    }

    fn int(&self, value: i64) -> Bound<'py, PyAny> {
        PyInt::new(self.py, value).into_any()
    }

    fn json(&self, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let loads = match &self.json_loads {
            Some(loads) => loads,
            None => self.objects.json_loads.bind(self.py),
        };
        loads.call1((self.string(text)?,))
    }

    /// A value in PostgreSQL's binary form.
    pub fn binary(&self, kind: &Kind, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        match kind {
            Kind::Text | Kind::Unknown => self.string(value),
            Kind::Int4 => Ok(self.int(i32::from_be_bytes(self.array(value)?).into())),
            Kind::Int8 => Ok(self.int(i64::from_be_bytes(self.array(value)?))),
            Kind::Int2 => Ok(self.int(i16::from_be_bytes(self.array(value)?).into())),
            Kind::Oid => Ok(self.int(u32::from_be_bytes(self.array(value)?).into())),
            Kind::Float8 => self.float(f64::from_be_bytes(self.array(value)?)),
            Kind::Float4 => self.float4(f32::from_be_bytes(self.array(value)?)),
            Kind::Bool => Ok(self.boolean(self.array::<1>(value)? != [0])),
            Kind::Bytea => Ok(PyBytes::new(self.py, value).into_any()),
            Kind::Numeric => self.numeric(value),
            Kind::Date => self.date(i32::from_be_bytes(self.array(value)?)),
            Kind::Time => self.time(i64::from_be_bytes(self.array(value)?)),
            Kind::TimeTz => {
                let (micros, zone) = value.split_at_checked(8).ok_or_else(|| self.malformed())?;
                let micros = i64::from_be_bytes(self.array(micros)?);
                self.time_tz(micros, i32::from_be_bytes(self.array(zone)?))
            }
            Kind::Timestamp => self.timestamp(i64::from_be_bytes(self.array(value)?)),
            Kind::TimestampTz => self.timestamp_tz(i64::from_be_bytes(self.array(value)?)),
            Kind::Interval => {
                let value: [u8; 16] = self.array(value)?;
                let [micros @ .., d0, d1, d2, d3, m0, m1, m2, m3] = value;
                self.interval(
                    i64::from_be_bytes(micros),
                    i32::from_be_bytes([d0, d1, d2, d3]),
                    i32::from_be_bytes([m0, m1, m2, m3]),
                )
            }
            Kind::Uuid => self.uuid(&self.array(value)?),
            Kind::Json => self.json(value),
            Kind::Jsonb => match value {
                [1, text @ ..] => self.json(text),
                _ => Err(self.malformed()),
            },
            Kind::Inet | Kind::Cidr => self.inet(matches!(kind, Kind::Cidr), value),
            Kind::Array(element) => self.array_value(element, value),
            Kind::Range(bound) => self.range(bound, value),
            Kind::Multirange(bound) => self.multirange(bound, value),
            Kind::Record => self.record(None, value),
            Kind::Composite(composite) => self.record(Some(composite), value),
            Kind::Hstore => self.hstore(value),
            Kind::Enum(members) => self.enumerated(members, value),
            Kind::Custom(custom) => self.custom(custom, value),
        }
    }

    fn array<const N: usize>(&self, value: &[u8]) -> PyResult<[u8; N]> {
        value.try_into().map_err(|_| self.malformed())
    }

    fn malformed(&self) -> PyErr {
        errors::data(self.py, "a value from the server that is not of its type's form")
    }

    /// A float4 is shown as the shortest text that gives it back, as everybody writes it.
    fn float4(&self, value: f32) -> PyResult<Bound<'py, PyAny>> {
        self.float(f64::from(value))
    }

    fn uuid(&self, value: &[u8; 16]) -> PyResult<Bound<'py, PyAny>> {
        let objects = self.objects;
        let bytes = PyBytes::new(self.py, value);
        let value = objects.int_from_bytes.bind(self.py).call1((bytes, intern!(self.py, "big")))?;
        // UUID's own constructor takes ten times as long, and a UUID cannot be written.
        let uuid = objects.uuid_blank.bind(self.py).call0()?;
        uuid.setattr(intern!(self.py, "int"), value)?;
        uuid.setattr(intern!(self.py, "is_safe"), &objects.uuid_unknown)?;
        uuid.setattr(intern!(self.py, "__class__"), &objects.uuid)?;
        Ok(uuid)
    }

    fn enumerated(
        &self,
        members: &[(String, Py<PyAny>)],
        value: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        match members.iter().find(|(label, _)| label.as_bytes() == value) {
            Some((_, member)) => Ok(member.bind(self.py).clone()),
            None => Err(errors::data(
                self.py,
                "an enum value from the server that has no member in the registered class",
            )),
        }
    }

    fn custom(&self, custom: &crate::types::Custom, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let value = if custom.binary {
            PyBytes::new(self.py, value).into_any()
        } else {
            self.string(value)?
        };
        custom.loads.bind(self.py).call1((value,))
    }
}
