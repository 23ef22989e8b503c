//! From Python objects to statement parameters.
//!
//! The PostgreSQL type follows from the Python type, so that a statement needs no question ahead:
//! int is int4 if it fits, else int8, else numeric; str has no type, so that the server reads it as a
//! literal in quotes. A value never shows in an error's message.

mod array;
mod text;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple,
    PyType,
};
use segue::Raw;
use smallvec::SmallVec;

use crate::errors;
use crate::objects::Objects;

pub const BOOL: u32 = 16;
pub const BYTEA: u32 = 17;
pub const INT8: u32 = 20;
pub const INT4: u32 = 23;
pub const FLOAT8: u32 = 701;
pub const NUMERIC: u32 = 1700;
const JSON: u32 = 114;
const JSONB: u32 = 3802;
const INET: u32 = 869;
const CIDR: u32 = 650;
const DATE: u32 = 1082;
const TIME: u32 = 1083;
const TIMETZ: u32 = 1266;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const INTERVAL: u32 = 1186;
const UUID: u32 = 2950;

/// How a value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Null,
    Text(u32),
    Binary(u32),
}

impl Form {
    pub fn oid(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Text(oid) | Self::Binary(oid) => oid,
        }
    }
}

/// The parameters of one execution, converted.
#[derive(Debug, Default)]
pub struct Args {
    buf: Vec<u8>,
    items: SmallVec<[(Form, usize); 8]>,
}

impl Args {
    pub fn push(&mut self, encoder: &Encoder<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let form = encoder.value(value, &mut self.buf)?;
        self.items.push((form, self.buf.len()));
        Ok(())
    }

    /// So many bytes the values take.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    pub fn same_types(&self, other: &Self) -> bool {
        self.items.len() == other.items.len()
            && self.items.iter().zip(&other.items).all(|((a, _), (b, _))| a.oid() == b.oid())
    }

    pub fn oids(&self) -> SmallVec<[u32; 8]> {
        self.items.iter().map(|(form, _)| form.oid()).collect()
    }

    pub fn has_oids(&self, oids: &[u32]) -> bool {
        self.items.len() == oids.len()
            && self.items.iter().zip(oids).all(|((form, _), oid)| form.oid() == *oid)
    }

    pub fn raw(&self) -> SmallVec<[Raw<'_>; 8]> {
        let mut start = 0;
        self.items
            .iter()
            .map(|(form, end)| {
                let value = &self.buf[start..*end];
                start = *end;
                match form {
                    Form::Null => Raw { type_oid: 0, text: true, value: None },
                    Form::Text(oid) => Raw { type_oid: *oid, text: true, value: Some(value) },
                    Form::Binary(oid) => Raw { type_oid: *oid, text: false, value: Some(value) },
                }
            })
            .collect()
    }
}

/// How the values of a Python class are written.
#[derive(Debug)]
enum Dumper {
    None,
    Bool,
    Int,
    Float,
    Str,
    Bytes,
    BytesLike,
    Decimal,
    Date,
    DateTime,
    Time,
    TimeDelta,
    Uuid,
    List,
    Tuple,
    Dict,
    /// segue.types.Json and Jsonb.
    Json(u32),
    Hstore,
    Range,
    Multirange,
    /// segue.types.Encoded.
    Encoded,
    /// What str() shows, as this type.
    Shown(u32),
    Enum,
    /// An enum that was registered: what each member is called by the server.
    Labels(u32, Py<PyDict>),
    /// A conversion in Python, which gives bytes in binary form, or a str.
    Custom(u32, Py<PyAny>),
}

type Table = RwLock<HashMap<usize, (Py<PyType>, Dumper)>>;

/// The classes that can be written. They are kept alive, so that no other can have their address.
fn table(py: Python<'_>) -> PyResult<&Table> {
    static TABLE: PyOnceLock<Table> = PyOnceLock::new();
    TABLE.get_or_try_init(py, || {
        let objects = Objects::get(py)?;
        let types = objects.types.bind(py);
        let ipaddress = py.import("ipaddress")?;
        let class = |module: &Bound<'_, PyModule>, name: &str| -> PyResult<Py<PyType>> {
            Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        let known = [
            (py.None().bind(py).get_type().unbind(), Dumper::None),
            (py.get_type::<PyBool>().unbind(), Dumper::Bool),
            (py.get_type::<PyInt>().unbind(), Dumper::Int),
            (py.get_type::<PyFloat>().unbind(), Dumper::Float),
            (py.get_type::<PyString>().unbind(), Dumper::Str),
            (py.get_type::<PyBytes>().unbind(), Dumper::Bytes),
            (py.get_type::<PyByteArray>().unbind(), Dumper::BytesLike),
            (py.get_type::<PyMemoryView>().unbind(), Dumper::BytesLike),
            (py.get_type::<PyList>().unbind(), Dumper::List),
            (py.get_type::<PyTuple>().unbind(), Dumper::Tuple),
            (py.get_type::<PyDict>().unbind(), Dumper::Dict),
            (objects.decimal.clone_ref(py), Dumper::Decimal),
            (objects.date.clone_ref(py), Dumper::Date),
            (objects.datetime.clone_ref(py), Dumper::DateTime),
            (objects.time.clone_ref(py), Dumper::Time),
            (objects.timedelta.clone_ref(py), Dumper::TimeDelta),
            (objects.uuid.clone_ref(py), Dumper::Uuid),
            (objects.enumeration.clone_ref(py), Dumper::Enum),
            (objects.range.clone_ref(py), Dumper::Range),
            (objects.multirange.clone_ref(py), Dumper::Multirange),
            (class(types, "Json")?, Dumper::Json(JSON)),
            (class(types, "Jsonb")?, Dumper::Json(JSONB)),
            (class(types, "Hstore")?, Dumper::Hstore),
            (class(types, "Encoded")?, Dumper::Encoded),
            (class(&ipaddress, "IPv4Address")?, Dumper::Shown(INET)),
            (class(&ipaddress, "IPv6Address")?, Dumper::Shown(INET)),
            (class(&ipaddress, "IPv4Interface")?, Dumper::Shown(INET)),
            (class(&ipaddress, "IPv6Interface")?, Dumper::Shown(INET)),
            (class(&ipaddress, "IPv4Network")?, Dumper::Shown(CIDR)),
            (class(&ipaddress, "IPv6Network")?, Dumper::Shown(CIDR)),
        ];
        let entries =
            known.into_iter().map(|(class, dumper)| (address(class.bind(py)), (class, dumper)));
        Ok(RwLock::new(entries.collect()))
    })
}

fn address(class: &Bound<'_, PyType>) -> usize {
    class.as_ptr() as usize
}

/// Registers how the values of a class are written.
pub fn register(class: &Bound<'_, PyType>, oid: u32, dumps: Py<PyAny>) -> PyResult<()> {
    let dumper = match dumps.bind(class.py()).cast::<PyDict>() {
        Ok(labels) => Dumper::Labels(oid, labels.clone().unbind()),
        Err(_) => Dumper::Custom(oid, dumps),
    };
    let mut table = table(class.py())?.write().unwrap_or_else(PoisonError::into_inner);
    table.insert(address(class), (class.clone().unbind(), dumper));
    Ok(())
}

/// A value in text form, and the OID of its type (0 where the server infers it); `None` for NULL.
#[pyfunction]
pub fn text_form(value: &Bound<'_, PyAny>) -> PyResult<Option<(String, u32)>> {
    let py = value.py();
    let encoder = Encoder { py, objects: Objects::get(py)?, json_dumps: None };
    let form = encoder.value(value, &mut Vec::new())?;
    let mut text = Vec::new();
    if form == Form::Null || !encoder.any_text(value, &mut text)? {
        return Ok(None);
    }
    let text = String::from_utf8(text).map_err(|_| errors::data(py, "text that is not UTF-8"))?;
    Ok(Some((text, form.oid())))
}

/// Converts values.
pub struct Encoder<'py> {
    pub py: Python<'py>,
    pub objects: &'py Objects,
    pub json_dumps: Option<Bound<'py, PyAny>>,
}

impl<'py> Encoder<'py> {
    /// Appends a value; how it was written.
    pub fn value(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<Form> {
        // The commonest first, without a look at the table.
        if let Ok(text) = value.cast_exact::<PyString>() {
            return self.string(text, out);
        }
        if value.is_exact_instance_of::<PyInt>() {
            return self.int(value, out);
        }
        if value.is_none() {
            return Ok(Form::Null);
        }
        if let Ok(value) = value.cast_exact::<PyFloat>() {
            out.extend_from_slice(&value.value().to_be_bytes());
            return Ok(Form::Binary(FLOAT8));
        }
        self.with_dumper(value, |dumper| self.dump(dumper, value, out))
    }

    /// Calls `then` with how the values of a class are written.
    fn with_dumper<T>(
        &self,
        value: &Bound<'py, PyAny>,
        then: impl FnOnce(&Dumper) -> PyResult<T>,
    ) -> PyResult<T> {
        let class = value.get_type();
        let table = table(self.py)?;
        let exact = address(&class);
        {
            // Held while Python code may run, but only ever by readers of it, and by `register`.
            let known = table.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, dumper)) = known.get(&exact) {
                let dumper = dumper.shared(self.py);
                drop(known);
                return then(&dumper);
            }
        }
        let base = {
            let known = table.read().unwrap_or_else(PoisonError::into_inner);
            let mro = class.mro();
            mro.iter().find_map(|base| {
                let base = base.cast::<PyType>().ok()?;
                known.get(&address(base)).map(|(_, dumper)| dumper.shared(self.py))
            })
        };
        let Some(base) = base else {
            let name = class.name()?;
            return Err(errors::programming(
                self.py,
                format!("a parameter of type {name} cannot be converted; nothing was sent"),
            ));
        };
        then(&base)
    }

    fn dump(
        &self,
        dumper: &Dumper,
        value: &Bound<'py, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<Form> {
        let py = self.py;
        Ok(match dumper {
            Dumper::None => Form::Null,
            Dumper::Bool => {
                out.push(u8::from(value.is_truthy()?));
                Form::Binary(BOOL)
            }
            Dumper::Int => self.int(value, out)?,
            Dumper::Float => {
                out.extend_from_slice(&value.extract::<f64>()?.to_be_bytes());
                Form::Binary(FLOAT8)
            }
            Dumper::Str => self.string(value.cast::<PyString>()?, out)?,
            Dumper::Bytes => {
                out.extend_from_slice(value.cast::<PyBytes>()?.as_bytes());
                Form::Binary(BYTEA)
            }
            Dumper::BytesLike => {
                let bytes = py.get_type::<PyBytes>().call1((value,))?;
                out.extend_from_slice(bytes.cast::<PyBytes>()?.as_bytes());
                Form::Binary(BYTEA)
            }
            Dumper::Decimal => {
                self.shown(value, out)?;
                Form::Text(NUMERIC)
            }
            Dumper::Date => {
                let days: i32 = value.call_method0("toordinal")?.extract()?;
                out.extend_from_slice(&(days - 730_120).to_be_bytes());
                Form::Binary(DATE)
            }
            Dumper::DateTime => self.datetime(value, out)?,
            Dumper::Time => self.time(value, out)?,
            Dumper::TimeDelta => {
                let (days, micros) = self.delta(value)?;
                out.extend_from_slice(&micros.to_be_bytes());
                out.extend_from_slice(&days.to_be_bytes());
                out.extend_from_slice(&0_i32.to_be_bytes());
                Form::Binary(INTERVAL)
            }
            Dumper::Uuid => {
                let number: u128 = value.getattr("int")?.extract()?;
                out.extend_from_slice(&number.to_be_bytes());
                Form::Binary(UUID)
            }
            Dumper::List => self.array(value, out)?,
            Dumper::Dict | Dumper::Json(_) => {
                let text = self.json(dumper, value)?;
                self.string(text.cast::<PyString>()?, out)?;
                Form::Text(if let Dumper::Json(oid) = dumper { *oid } else { JSONB })
            }
            Dumper::Range | Dumper::Multirange => {
                let oid = self.range_oid(value)?;
                self.text(dumper, value, out)?;
                Form::Text(oid)
            }
            Dumper::Tuple | Dumper::Hstore | Dumper::Enum => {
                self.text(dumper, value, out)?;
                Form::Text(0)
            }
            Dumper::Encoded => {
                let data = value.getattr("data")?;
                out.extend_from_slice(data.cast::<PyBytes>()?.as_bytes());
                let oid = value.getattr("oid")?.extract()?;
                if value.getattr("binary")?.is_truthy()? {
                    Form::Binary(oid)
                } else {
                    Form::Text(oid)
                }
            }
            Dumper::Labels(oid, _) => {
                self.text(dumper, value, out)?;
                Form::Text(*oid)
            }
            Dumper::Shown(oid) => {
                self.shown(value, out)?;
                Form::Text(*oid)
            }
            Dumper::Custom(oid, dumps) => {
                let made = dumps.bind(py).call1((value,))?;
                if let Ok(bytes) = made.cast::<PyBytes>() {
                    out.extend_from_slice(bytes.as_bytes());
                    Form::Binary(*oid)
                } else if made.is_none() {
                    Form::Null
                } else {
                    self.string(made.cast::<PyString>()?, out)?;
                    Form::Text(*oid)
                }
            }
        })
    }

    fn string(&self, value: &Bound<'py, PyString>, out: &mut Vec<u8>) -> PyResult<Form> {
        let Ok(text) = value.to_str() else {
            return Err(errors::data(
                self.py,
                "a str with surrogates is not text; nothing was sent",
            ));
        };
        if text.as_bytes().contains(&0) {
            return Err(errors::data(
                self.py,
                "text with a NUL character cannot be stored by PostgreSQL; nothing was sent",
            ));
        }
        out.extend_from_slice(text.as_bytes());
        Ok(Form::Text(0))
    }

    fn int(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<Form> {
        match value.extract::<i64>() {
            Ok(value) => match i32::try_from(value) {
                Ok(value) => {
                    out.extend_from_slice(&value.to_be_bytes());
                    Ok(Form::Binary(INT4))
                }
                Err(_) => {
                    out.extend_from_slice(&value.to_be_bytes());
                    Ok(Form::Binary(INT8))
                }
            },
            Err(_) => {
                self.int_text(value, out)?;
                Ok(Form::Text(NUMERIC))
            }
        }
    }

    /// Seconds and smaller of a time, and of its offset.
    fn time(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<Form> {
        let part = |name: &str| -> PyResult<i64> { value.getattr(name)?.extract() };
        let seconds = part("hour")? * 3600 + part("minute")? * 60 + part("second")?;
        out.extend_from_slice(&(seconds * 1_000_000 + part("microsecond")?).to_be_bytes());
        if value.getattr("tzinfo")?.is_none() {
            return Ok(Form::Binary(TIME));
        }
        let offset = value.call_method0("utcoffset")?;
        if offset.is_none() {
            return Err(errors::data(
                self.py,
                "a time in a zone without a fixed offset has no PostgreSQL form; nothing was sent",
            ));
        }
        let (days, micros) = self.delta(&offset)?;
        let seconds = i64::from(days) * 86_400 + micros / 1_000_000;
        let west = i32::try_from(-seconds).unwrap_or_default();
        out.extend_from_slice(&west.to_be_bytes());
        Ok(Form::Binary(TIMETZ))
    }

    fn datetime(&self, value: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<Form> {
        let (epoch, form) = if value.call_method0("utcoffset")?.is_none() {
            (&self.objects.epoch, Form::Binary(TIMESTAMP))
        } else {
            (&self.objects.epoch_utc, Form::Binary(TIMESTAMPTZ))
        };
        let epoch = epoch.bind(self.py);
        // An aware time in year 1 or 9999 may be out of Python's range in UTC, not in PostgreSQL's.
        let value = if form == Form::Binary(TIMESTAMP) && !value.getattr("tzinfo")?.is_none() {
            let options = PyDict::new(self.py);
            options.set_item("tzinfo", self.py.None())?;
            value.call_method("replace", (), Some(&options))?
        } else {
            value.clone()
        };
        let (days, micros) = self.delta(&value.sub(epoch)?)?;
        let total = i64::from(days) * 86_400_000_000 + micros;
        out.extend_from_slice(&total.to_be_bytes());
        Ok(form)
    }

    /// Days, and microseconds of the day.
    fn delta(&self, value: &Bound<'py, PyAny>) -> PyResult<(i32, i64)> {
        let seconds: i64 = value.getattr("seconds")?.extract()?;
        let micros: i64 = value.getattr("microseconds")?.extract()?;
        Ok((value.getattr("days")?.extract()?, seconds * 1_000_000 + micros))
    }

    /// The text of JSON.
    fn json(&self, dumper: &Dumper, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let own = self.json_dumps.as_ref().unwrap_or(self.objects.json_dumps.bind(self.py));
        let made = match dumper {
            Dumper::Json(_) => {
                let dumps = value.getattr("dumps")?;
                let dumps = if dumps.is_none() { own } else { &dumps };
                dumps.call1((value.getattr("obj")?,))?
            }
            _ => own.call1((value,))?,
        };
        match made.cast::<PyBytes>() {
            Ok(bytes) => bytes.call_method1("decode", ("utf-8",)),
            Err(_) => Ok(made),
        }
    }
}

impl Dumper {
    /// The same, for use without the table.
    fn shared(&self, py: Python<'_>) -> Self {
        match self {
            Self::None => Self::None,
            Self::Bool => Self::Bool,
            Self::Int => Self::Int,
            Self::Float => Self::Float,
            Self::Str => Self::Str,
            Self::Bytes => Self::Bytes,
            Self::BytesLike => Self::BytesLike,
            Self::Decimal => Self::Decimal,
            Self::Date => Self::Date,
            Self::DateTime => Self::DateTime,
            Self::Time => Self::Time,
            Self::TimeDelta => Self::TimeDelta,
            Self::Uuid => Self::Uuid,
            Self::List => Self::List,
            Self::Tuple => Self::Tuple,
            Self::Dict => Self::Dict,
            Self::Json(oid) => Self::Json(*oid),
            Self::Hstore => Self::Hstore,
            Self::Range => Self::Range,
            Self::Multirange => Self::Multirange,
            Self::Encoded => Self::Encoded,
            Self::Shown(oid) => Self::Shown(*oid),
            Self::Enum => Self::Enum,
            Self::Labels(oid, labels) => Self::Labels(*oid, labels.clone_ref(py)),
            Self::Custom(oid, dumps) => Self::Custom(*oid, dumps.clone_ref(py)),
        }
    }
}
