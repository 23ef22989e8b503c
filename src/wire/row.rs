//! The values of one DataRow, without copying them.

use super::Malformed;

/// Walks the values of a DataRow's body, in the order of its columns.
///
/// Yields `Err` once and then ends where the body lies about its lengths.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Values<'a> {
    pub fn new(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&[a, b], rest) =
            body.split_first_chunk::<2>().ok_or(Malformed("a row without a column count"))?;
        Ok(Self { rest, left: u16::from_be_bytes([a, b]) })
    }

    fn value(&mut self) -> Option<Option<&'a [u8]>> {
        let (&length, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        let Ok(length) = usize::try_from(i32::from_be_bytes(length)) else {
            return Some(None);
        };
        let value = rest.get(..length)?;
        self.rest = &rest[length..];
        Some(Some(value))
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<Option<&'a [u8]>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let value = self.value();
        if value.is_none() {
            self.left = 0;
        }
        Some(value.ok_or(Malformed("a row shorter than its lengths say")))
    }
}

/// Checks that a DataRow's body is whole and has as many values as there are columns, so that
/// whoever reads it later need not.
pub fn check(body: &[u8], columns: Option<usize>) -> Result<(), Malformed> {
    let mut values = Values::new(body)?;
    if columns.is_some_and(|n| n != usize::from(values.left)) {
        return Err(Malformed("a row with another number of columns than described"));
    }
    for value in values.by_ref() {
        value?;
    }
    if !values.rest.is_empty() {
        return Err(Malformed("a row longer than its lengths say"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_and_nulls() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        check(body, Some(3)).unwrap();
        let values: Vec<_> = Values::new(body).unwrap().map(Result::unwrap).collect();
        assert_eq!(values, [Some(&b"ab"[..]), None, Some(&b""[..])]);
    }

    #[test]
    fn refuses_rows_that_lie() {
        assert!(check(b"\0\x01\0\0\0\x05ab", None).is_err());
        assert!(check(b"\0\x01\0\0\0\x02abc", None).is_err());
        assert!(check(b"\0\x02\0\0\0\x02ab", None).is_err());
        assert!(check(b"\0\x01\0\0\0\x02ab", Some(2)).is_err());
        assert!(check(b"\0", None).is_err());
    }
}
