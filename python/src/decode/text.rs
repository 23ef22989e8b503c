//! Values in text form: of strings of several statements, and beside columns that have no binary form
//! known here.
//!
//! Dates and times are read in the ISO style. What cannot be read so (another `DateStyle`) is a
//! `DataError`, never a guess.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::Context;
use crate::errors;
use crate::types::Kind;

impl<'py> Context<'py> {
    /// A value in PostgreSQL's text form.
    pub fn text(&self, kind: &Kind, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let Ok(text) = std::str::from_utf8(value) else {
            return self.string(value);
        };
        match kind {
            Kind::Text | Kind::Unknown => Ok(PyString::new(self.py, text).into_any()),
            Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid => match text.parse() {
                Ok(value) => Ok(self.int(value)),
                Err(_) => Err(self.malformed()),
            },
            Kind::Float4 | Kind::Float8 => match text.parse() {
                Ok(value) => self.float(value),
                Err(_) => Err(self.malformed()),
            },
            Kind::Bool => Ok(self.boolean(text == "t")),
            Kind::Bytea => Ok(PyBytes::new(self.py, &self.bytea_text(text)?).into_any()),
            Kind::Numeric => self.objects.decimal.bind(self.py).call1((text,)),
            Kind::Json | Kind::Jsonb => self.json(value),
            Kind::Uuid => self.objects.uuid.bind(self.py).call1((text,)),
            Kind::Inet if !text.contains('/') => {
                self.objects.ip_address.bind(self.py).call1((text,))
            }
            Kind::Inet => self.objects.ip_interface.bind(self.py).call1((text,)),
            Kind::Cidr => self.objects.ip_network.bind(self.py).call1((text,)),
            Kind::Date => self.date_text(text),
            Kind::Timestamp | Kind::TimestampTz => self.timestamp_text(kind, text),
            Kind::Time | Kind::TimeTz => self.time_text(text),
            Kind::Interval => self.interval_text(text),
            Kind::Enum(members) => self.enumerated(members, value),
            Kind::Custom(custom) if !custom.binary => self.custom(custom, value),
            // One that reads binary cannot read this.
            Kind::Custom(_) => Ok(PyString::new(self.py, text).into_any()),
            Kind::Array(element) => {
                let text = text.find('{').map_or(text, |at| &text[at..]);
                let mut rest = Literal { rest: text, delimiter: ',' };
                rest.array(self, element)
            }
            Kind::Range(bound) => {
                let mut literal = Literal { rest: text, delimiter: ',' };
                literal.range(self, bound)
            }
            Kind::Multirange(bound) => {
                let mut literal = Literal { rest: text, delimiter: ',' };
                let ranges = PyList::empty(self.py);
                self.expect(literal.eat('{'))?;
                while !literal.eat('}') {
                    ranges.append(literal.range(self, bound)?)?;
                    literal.eat(',');
                }
                self.objects.multirange.bind(self.py).call1((ranges,))
            }
            Kind::Record | Kind::Composite(_) => {
                let fields = match kind {
                    Kind::Composite(composite) => &composite.fields[..],
                    _ => &[],
                };
                let mut literal = Literal { rest: text, delimiter: ',' };
                let values = literal.record(self, fields)?;
                let tuple = pyo3::types::PyTuple::new(self.py, values)?;
                match kind {
                    Kind::Composite(composite) => composite.factory.bind(self.py).call1(tuple),
                    _ => Ok(tuple.into_any()),
                }
            }
            Kind::Hstore => {
                let dict = PyDict::new(self.py);
                let mut literal = Literal { rest: text, delimiter: ',' };
                while !literal.rest.is_empty() {
                    let key = literal.hstore_item().ok_or_else(|| self.malformed())?;
                    literal.rest =
                        literal.rest.strip_prefix("=>").ok_or_else(|| self.malformed())?;
                    let value = literal.hstore_item().ok_or_else(|| self.malformed())?;
                    dict.set_item(key.0, value.1.then_some(value.0))?;
                    literal.eat(',');
                    literal.rest = literal.rest.trim_start();
                }
                Ok(dict.into_any())
            }
        }
    }

    fn expect(&self, found: bool) -> PyResult<()> {
        if found { Ok(()) } else { Err(self.malformed()) }
    }

    fn bytea_text(&self, text: &str) -> PyResult<Vec<u8>> {
        if let Some(hex) = text.strip_prefix("\\x") {
            let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            return hex
                .as_bytes()
                .chunks(2)
                .map(pair)
                .collect::<Option<_>>()
                .ok_or_else(|| self.malformed());
        }
        // bytea_output = escape
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let [first, behind @ ..] = rest {
            rest = match behind {
                [b'\\', behind @ ..] if *first == b'\\' => {
                    bytes.push(b'\\');
                    behind
                }
                [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', behind @ ..]
                    if *first == b'\\' =>
                {
                    bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                    behind
                }
                _ => {
                    bytes.push(*first);
                    behind
                }
            };
        }
        Ok(bytes)
    }

    fn date_text(&self, text: &str) -> PyResult<Bound<'py, PyAny>> {
        self.check_span("date", text)?;
        self.iso(&self.objects.date, "date", text)
    }

    fn check_span(&self, name: &str, text: &str) -> PyResult<()> {
        if matches!(text, "infinity" | "-infinity") {
            return Err(self.infinite(name, text));
        }
        let year = text.bytes().take_while(u8::is_ascii_digit).count();
        if text.ends_with(" BC") || year > 4 {
            return Err(self.out_of_range(name));
        }
        Ok(())
    }

    fn iso(
        &self,
        class: &Py<pyo3::types::PyType>,
        name: &str,
        text: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        class.bind(self.py).call_method1("fromisoformat", (text,)).map_err(|_| {
            errors::data(
                self.py,
                format!("a {name} as text is only read in the ISO style; see DateStyle"),
            )
        })
    }

    fn timestamp_text(&self, kind: &Kind, text: &str) -> PyResult<Bound<'py, PyAny>> {
        let name = if matches!(kind, Kind::Timestamp) { "timestamp" } else { "timestamptz" };
        self.check_span(name, text)?;
        let value = self.iso(&self.objects.datetime, name, &padded(text))?;
        if matches!(kind, Kind::Timestamp) {
            return Ok(value);
        }
        let zone = self.time_zone.as_ref().unwrap_or(self.objects.utc.bind(self.py));
        value.call_method1("astimezone", (zone,)).map_err(|_| self.out_of_range(name))
    }

    fn time_text(&self, text: &str) -> PyResult<Bound<'py, PyAny>> {
        if text.starts_with("24:") {
            return Err(errors::data(
                self.py,
                "time 24:00:00 cannot be a Python time; select it as text",
            ));
        }
        let value = self.iso(&self.objects.time, "time", &padded(text))?;
        Ok(value)
    }

    /// In the style `postgres`: `1 year 2 mons -3 days 04:05:06.789`.
    fn interval_text(&self, text: &str) -> PyResult<Bound<'py, PyAny>> {
        if matches!(text, "infinity" | "-infinity") {
            return Err(self.infinite("interval", text));
        }
        let (mut micros, mut days, mut months) = (0, 0, 0);
        let mut words = text.split(' ').peekable();
        while let Some(word) = words.next() {
            if word.contains(':') {
                micros = interval_clock(word).ok_or_else(|| self.interval_style())?;
                continue;
            }
            let count: i32 = word.parse().map_err(|_| self.interval_style())?;
            match words.next() {
                Some("year" | "years") => months += count * 12,
                Some("mon" | "mons") => months += count,
                Some("day" | "days") => days += count,
                _ => return Err(self.interval_style()),
            }
        }
        self.interval(micros, days, months)
    }

    fn interval_style(&self) -> PyErr {
        errors::data(self.py, "an interval as text is only read in IntervalStyle postgres")
    }
}

fn interval_clock(text: &str) -> Option<i64> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, rest) = text.split_once(':')?;
    let (minutes, seconds) = rest.split_once(':')?;
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    let (hours, minutes, seconds): (i64, i64, i64) =
        (hours.parse().ok()?, minutes.parse().ok()?, seconds.parse().ok()?);
    let micros = hours
        .checked_mul(3600)?
        .checked_add(minutes * 60 + seconds)?
        .checked_mul(1_000_000)?
        .checked_add(fraction)?;
    Some(if negative { -micros } else { micros })
}

/// With six digits of fraction and minutes in the zone, as Python before 3.11 wants them.
fn padded(text: &str) -> String {
    let (head, zone) = match text.rfind(['+', '-']).filter(|at| text[..*at].contains(':')) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let mut padded = head.to_owned();
    if let Some((_, fraction)) = head.rsplit_once('.') {
        padded.extend(std::iter::repeat_n('0', 6_usize.saturating_sub(fraction.len())));
    }
    padded.push_str(zone);
    if zone.len() == 3 {
        padded.push_str(":00");
    }
    padded
}

/// The literal of an array, a range or a row.
struct Literal<'a> {
    rest: &'a str,
    delimiter: char,
}

impl Literal<'_> {
    fn eat(&mut self, what: char) -> bool {
        let found = self.rest.strip_prefix(what);
        if let Some(rest) = found {
            self.rest = rest;
        }
        found.is_some()
    }

    fn array<'py>(
        &mut self,
        context: &Context<'py>,
        element: &Kind,
    ) -> PyResult<Bound<'py, PyAny>> {
        let list = PyList::empty(context.py);
        context.expect(self.eat('{'))?;
        while !self.eat('}') {
            if self.rest.starts_with('{') {
                list.append(self.array(context, element)?)?;
            } else {
                let (item, quoted) =
                    self.item(&[self.delimiter, '}']).ok_or_else(|| context.malformed())?;
                if !quoted && item == "NULL" {
                    list.append(context.none())?;
                } else {
                    list.append(context.text(element, item.as_bytes())?)?;
                }
            }
            if !self.eat(self.delimiter) && !self.rest.starts_with('}') {
                return Err(context.malformed());
            }
        }
        Ok(list.into_any())
    }

    /// An item up to one of `ends`, and whether it was in quotes.
    fn item(&mut self, ends: &[char]) -> Option<(String, bool)> {
        let mut item = String::new();
        let mut quoted = false;
        let mut inside = false;
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => item.push(chars.next()?.1),
                '"' if inside && chars.peek().is_some_and(|(_, next)| *next == '"') => {
                    chars.next();
                    item.push('"');
                }
                '"' => {
                    inside = !inside;
                    quoted = true;
                }
                c if !inside && ends.contains(&c) => {
                    self.rest = &self.rest[at..];
                    return Some((item, quoted));
                }
                c => item.push(c),
            }
        }
        None
    }

    fn range<'py>(&mut self, context: &Context<'py>, bound: &Kind) -> PyResult<Bound<'py, PyAny>> {
        let class = context.objects.range.bind(context.py);
        if let Some(rest) = self.rest.strip_prefix("empty") {
            self.rest = rest;
            let options = PyDict::new(context.py);
            options.set_item("empty", true)?;
            return class.call((), Some(&options));
        }
        let mut bounds = String::with_capacity(2);
        bounds.push(if self.eat('[') { '[' } else { '(' });
        if bounds == "(" {
            context.expect(self.eat('('))?;
        }
        let limit = |literal: &mut Self, ends: &[char]| match literal.item(ends) {
            Some((item, false)) if item.is_empty() => Ok(context.none()),
            Some((item, _)) => context.text(bound, item.as_bytes()),
            None => Err(context.malformed()),
        };
        let lower = limit(self, &[','])?;
        context.expect(self.eat(','))?;
        let upper = limit(self, &[']', ')'])?;
        bounds.push(if self.eat(']') { ']' } else { ')' });
        if bounds.ends_with(')') {
            self.eat(')');
        }
        class.call1((lower, upper, bounds))
    }

    fn record<'py>(
        &mut self,
        context: &Context<'py>,
        fields: &[u32],
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut values = Vec::new();
        context.expect(self.eat('('))?;
        if self.eat(')') {
            return Ok(values);
        }
        loop {
            let (item, quoted) = self.item(&[',', ')']).ok_or_else(|| context.malformed())?;
            let kind = fields.get(values.len()).map_or(Kind::Text, |oid| context.types.kind(*oid));
            values.push(if item.is_empty() && !quoted {
                context.none()
            } else {
                context.text(&kind, item.as_bytes())?
            });
            if self.eat(')') {
                return Ok(values);
            }
            self.eat(',');
        }
    }

    /// A key or a value of hstore, and whether it was in quotes: NULL is not.
    fn hstore_item(&mut self) -> Option<(String, bool)> {
        if let Some(rest) = self.rest.strip_prefix("NULL") {
            self.rest = rest;
            return Some((String::new(), false));
        }
        self.rest.strip_prefix('"')?;
        let mut chars = self.rest.char_indices().skip(1);
        let mut item = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => item.push(chars.next()?.1),
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some((item, true));
                }
                c => item.push(c),
            }
        }
        None
    }
}
