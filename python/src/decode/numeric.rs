//! numeric to Decimal.

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::Context;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

impl<'py> Context<'py> {
    pub(super) fn numeric(&self, value: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let text = numeric_text(value).ok_or_else(|| self.malformed())?;
        let text = PyString::new(self.py, &text);
        self.objects.decimal.bind(self.py).call1((text,))
    }
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
    use super::numeric_text;

    fn text(words: &[u16]) -> Option<String> {
        numeric_text(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
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
}
