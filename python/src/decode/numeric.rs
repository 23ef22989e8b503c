//! numeric to Decimal.
//!
//! Digits that fit 18 places become an int times a power of ten, which takes half the time that a text
//! does. The product is exact, whatever the application has set for its own arithmetic: where its
//! context could round it, one of Segue's own multiplies.

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};

use super::Context;
use crate::objects::Objects;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

impl<'py> Context<'py> {
    pub(super) fn numeric(&self, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        if let Some((digits, scale)) = small(value) {
            if let Some(unit) = self.objects.units.get(scale) {
                let unit = unit.bind(self.py);
                let digits = PyInt::new(self.py, digits);
                return if self.multiplies_exactly()? {
                    unit.mul(digits)
                } else {
                    self.objects.exact_multiply.bind(self.py).call1((unit, digits))
                };
            }
        }
        let text = numeric_text(value).ok_or_else(|| self.malformed())?;
        let text = PyString::new(self.py, &text);
        self.objects.decimal.bind(self.py).call1((text,))
    }

    /// Whether the application's decimal context leaves products of at most 18 digits as they are.
    fn multiplies_exactly(&self) -> PyResult<bool> {
        if let Some(known) = self.exact.get() {
            return Ok(known);
        }
        let exact = leaves_digits(self.py, self.objects)?;
        self.exact.set(Some(exact));
        Ok(exact)
    }
}

fn leaves_digits(py: Python<'_>, objects: &Objects) -> PyResult<bool> {
    let context = objects.decimal_context.bind(py).call0()?;
    let value = |name: &str| context.getattr(name)?.extract::<i64>();
    Ok(value("prec")? >= 28
        && value("Emax")? >= 1000
        && value("Emin")? <= -1000
        && value("clamp")? == 0)
}

/// A number of at most 18 digits, as an integer and how many of its digits are behind the point.
fn small(value: &[u8]) -> Option<(i64, usize)> {
    let (header, groups) = value.split_first_chunk::<8>()?;
    let [c0, c1, w0, w1, s0, s1, d0, d1] = *header;
    let count = u16::from_be_bytes([c0, c1]);
    let sign = u16::from_be_bytes([s0, s1]);
    if count > 4 || groups.len() != 2 * usize::from(count) || !matches!(sign, 0 | NEGATIVE) {
        return None;
    }
    let mut digits: i64 = 0;
    for group in groups.chunks_exact(2) {
        let group = u16::from_be_bytes(*group.first_chunk()?);
        digits = digits * 10_000 + i64::from(group.min(9_999));
    }
    let scale = u16::from_be_bytes([d0, d1]);
    let weight = i32::from(i16::from_be_bytes([w0, w1]));
    // What is left of the point in the last group, or missing on its right.
    let shift = 4 * (weight + 1 - i32::from(count)) + i32::from(scale);
    let power = |places: u32| 10_i64.checked_pow(places);
    digits = match u32::try_from(shift) {
        Ok(_) if digits == 0 => 0,
        Ok(places) => digits.checked_mul(power(places)?)?,
        Err(_) => digits / power(shift.unsigned_abs())?,
    };
    if digits >= 1_000_000_000_000_000_000 {
        return None;
    }
    Some((if sign == NEGATIVE { -digits } else { digits }, usize::from(scale)))
}

/// The decimal digits of a binary numeric, whose own are of base 10,000.
fn numeric_text(value: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes(*value.get(at..at + 2)?.first_chunk()?));
    let count = usize::from(word(0)?);
    let weight = i32::from(word(2)?.cast_signed());
    let scale = usize::from(word(6)?);
    match word(4)? {
        0 => {}
        NEGATIVE => {}
        NAN => return Some("NaN".into()),
        INFINITY => return Some("Infinity".into()),
        MINUS_INFINITY => return Some("-Infinity".into()),
        _ => return None,
    }
    if value.len() != 8 + 2 * count {
        return None;
    }
    let digit = |group: i32| -> u16 {
        // Groups count from the first that was sent; those before and behind it are zero.
        usize::try_from(group)
            .ok()
            .filter(|group| *group < count)
            .and_then(|group| word(8 + 2 * group))
            .unwrap_or(0)
    };
    let mut text = String::with_capacity(scale + 4 * count + 8);
    if word(4)? == NEGATIVE {
        text.push('-');
    }
    if weight < 0 {
        text.push('0');
    }
    for group in 0..=weight {
        push_group(&mut text, digit(group), group == 0);
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut group = weight + 1;
        while text.len() < end {
            push_group(&mut text, digit(group), false);
            group += 1;
        }
        text.truncate(end);
    }
    Some(text)
}

fn push_group(text: &mut String, digits: u16, first: bool) {
    let parts = [digits / 1000 % 10, digits / 100 % 10, digits / 10 % 10, digits % 10];
    let skip = if first { parts[..3].iter().take_while(|part| **part == 0).count() } else { 0 };
    text.extend(parts[skip..].iter().map(|part| char::from(b'0' + *part as u8)));
}

#[cfg(test)]
mod tests {
    use super::{numeric_text, small};

    /// As text, after making sure that the short way says the same.
    fn text(words: &[u16]) -> Option<String> {
        let value = words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        let text = numeric_text(&value);
        if let Some((digits, scale)) = small(&value) {
            let shown = text.as_deref().unwrap();
            assert_eq!(shown.replace('.', "").parse::<i64>().unwrap(), digits);
            assert_eq!(shown.split_once('.').map_or(0, |(_, behind)| behind.len()), scale);
        }
        text
    }

    #[test]
    fn reads_digits_of_base_10000() {
        assert_eq!(text(&[2, 0, 0, 2, 12, 3400]).as_deref(), Some("12.34"));
        assert_eq!(text(&[1, 1, 0x4000, 0, 1]).as_deref(), Some("-10000"));
        assert_eq!(text(&[1, 0xffff, 0, 6, 12]).as_deref(), Some("0.001200"));
        assert_eq!(text(&[1, 0xfffe, 0, 8, 12]).as_deref(), Some("0.00000012"));
        assert_eq!(text(&[0, 0, 0, 3]).as_deref(), Some("0.000"));
        assert_eq!(text(&[0, 0, 0xC000, 0]).as_deref(), Some("NaN"));
        assert_eq!(text(&[2, 0, 0, 2, 12]), None);
    }

    #[test]
    fn knows_small_numbers() {
        let known = |words: &[u16]| {
            text(words);
            small(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
        };
        assert_eq!(known(&[2, 0, 0, 2, 12, 3400]), Some((1234, 2)));
        assert_eq!(known(&[1, 1, 0x4000, 0, 1]), Some((-10_000, 0)));
        assert_eq!(known(&[1, 1, 0, 3, 1]), Some((10_000_000, 3)));
        assert_eq!(known(&[1, 0xffff, 0, 6, 12]), Some((1200, 6)));
        assert_eq!(known(&[0, 0, 0, 3]), Some((0, 3)));
        assert_eq!(known(&[4, 3, 0, 0, 9999, 9999, 9999, 9999]), Some((9_999_999_999_999_999, 0)));
        assert_eq!(known(&[1, 4, 0, 0, 99]), Some((990_000_000_000_000_000, 0)));
        assert_eq!(known(&[1, 4, 0, 0, 100]), None);
        assert_eq!(known(&[1, 0x7fff, 0, 0, 1]), None);
        assert_eq!(known(&[1, 0, 0xC000, 0, 1]), None);
        assert_eq!(small(&[0, 1, 0, 0, 0, 0, 0, 0]), None);
    }
}
