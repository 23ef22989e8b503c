//! Arrays, ranges, composites, hstore and network addresses in binary form.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::Context;
use crate::errors;
use crate::types::{Composite, Kind};

/// Arrays have at most so many dimensions in PostgreSQL.
const DIMENSIONS_MAX: usize = 6;

/// Reads big-endian values off a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|value| value[0])
    }

    fn int(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(*self.take(4)?.first_chunk()?))
    }

    fn oid(&mut self) -> Option<u32> {
        self.int().map(i32::cast_unsigned)
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.int()?).ok()
    }

    /// A value with its length ahead; a negative length is NULL.
    fn value(&mut self) -> Option<Option<&'a [u8]>> {
        match usize::try_from(self.int()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Some(None),
        }
    }
}

impl<'py> Context<'py> {
    fn some<T>(&self, value: Option<T>) -> PyResult<T> {
        value.ok_or_else(|| self.malformed())
    }

    fn nullable(&self, kind: &Kind, value: Option<&[u8]>) -> PyResult<Bound<'py, PyAny>> {
        match value {
            Some(value) => self.binary(kind, value),
            None => Ok(self.none()),
        }
    }

    /// An array as nested lists.
    pub(super) fn array_value(&self, element: &Kind, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut reader = Reader(value);
        let dimensions = self.some(reader.size())?;
        if dimensions > DIMENSIONS_MAX {
            return Err(self.malformed());
        }
        self.some(reader.take(8))?;
        let mut lengths = [0; DIMENSIONS_MAX];
        for length in &mut lengths[..dimensions] {
            *length = self.some(reader.size())?;
            self.some(reader.take(4))?;
        }
        if dimensions == 0 {
            return Ok(PyList::empty(self.py).into_any());
        }
        self.elements(element, &mut reader, &lengths[..dimensions])
    }

    fn elements(
        &self,
        element: &Kind,
        reader: &mut Reader<'_>,
        lengths: &[usize],
    ) -> PyResult<Bound<'py, PyAny>> {
        let list = PyList::empty(self.py);
        let Some((length, inner)) = lengths.split_first() else {
            return Err(self.malformed());
        };
        for _ in 0..*length {
            let item = if inner.is_empty() {
                let value = self.some(reader.value())?;
                self.nullable(element, value)?
            } else {
                self.elements(element, reader, inner)?
            };
            list.append(item)?;
        }
        Ok(list.into_any())
    }

    pub(super) fn range(&self, bound: &Kind, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        const EMPTY: u8 = 1;
        const LOWER_INCLUSIVE: u8 = 2;
        const UPPER_INCLUSIVE: u8 = 4;
        const LOWER_INFINITE: u8 = 8;
        const UPPER_INFINITE: u8 = 16;
        let mut reader = Reader(value);
        let flags = self.some(reader.byte())?;
        let class = self.objects.range.bind(self.py);
        if flags & EMPTY != 0 {
            let options = PyDict::new(self.py);
            options.set_item("empty", true)?;
            return class.call((), Some(&options));
        }
        let mut limit = |infinite: u8| {
            if flags & infinite != 0 {
                return Ok(self.none());
            }
            let value = self.some(reader.value())?;
            self.nullable(bound, value)
        };
        let lower = limit(LOWER_INFINITE)?;
        let upper = limit(UPPER_INFINITE)?;
        let bounds = match (flags & LOWER_INCLUSIVE != 0, flags & UPPER_INCLUSIVE != 0) {
            (true, true) => "[]",
            (true, false) => "[)",
            (false, true) => "(]",
            (false, false) => "()",
        };
        class.call1((lower, upper, bounds))
    }

    pub(super) fn multirange(&self, bound: &Kind, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut reader = Reader(value);
        let ranges = PyList::empty(self.py);
        for _ in 0..self.some(reader.size())? {
            let range = self.some(self.some(reader.value())?)?;
            ranges.append(self.range(bound, range)?)?;
        }
        self.objects.multirange.bind(self.py).call1((ranges,))
    }

    /// A row value: a tuple, or what is registered for its type.
    pub(super) fn record(
        &self,
        composite: Option<&Arc<Composite>>,
        value: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut reader = Reader(value);
        let count = self.some(reader.size())?;
        let mut values = Vec::new();
        for _ in 0..count {
            let oid = self.some(reader.oid())?;
            let field = self.some(reader.value())?;
            let kind = self.types.kind(oid);
            values.push(match (&kind, field) {
                // Its binary form is not known here: it may still be text.
                (Kind::Unknown, Some(field)) => match std::str::from_utf8(field) {
                    Ok(text) => PyString::new(self.py, text).into_any(),
                    Err(_) => pyo3::types::PyBytes::new(self.py, field).into_any(),
                },
                _ => self.nullable(&kind, field)?,
            });
        }
        let tuple = pyo3::types::PyTuple::new(self.py, values)?;
        match composite {
            Some(composite) => composite.factory.bind(self.py).call1(tuple),
            None => Ok(tuple.into_any()),
        }
    }

    pub(super) fn hstore(&self, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let mut reader = Reader(value);
        let dict = PyDict::new(self.py);
        for _ in 0..self.some(reader.size())? {
            let key = self.some(self.some(reader.value())?)?;
            let value = match self.some(reader.value())? {
                Some(value) => self.string(value)?,
                None => self.none(),
            };
            dict.set_item(self.string(key)?, value)?;
        }
        Ok(dict.into_any())
    }

    /// As psycopg does it: an address without a network is an address, one with it an interface.
    pub(super) fn inet(&self, cidr: bool, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let [_, bits, _, length, address @ ..] = value else {
            return Err(self.malformed());
        };
        if usize::from(*length) != address.len() {
            return Err(self.malformed());
        }
        let (text, full) = if let Ok(octets) = <[u8; 4]>::try_from(address) {
            (Ipv4Addr::from(octets).to_string(), 32)
        } else if let Ok(octets) = <[u8; 16]>::try_from(address) {
            (Ipv6Addr::from(octets).to_string(), 128)
        } else {
            return Err(self.malformed());
        };
        let made = if cidr {
            self.objects.ip_network.bind(self.py).call1((format!("{text}/{bits}"),))
        } else if *bits == full {
            self.objects.ip_address.bind(self.py).call1((text,))
        } else {
            self.objects.ip_interface.bind(self.py).call1((format!("{text}/{bits}"),))
        };
        made.map_err(|_| errors::data(self.py, "a network address that Python does not know"))
    }
}
