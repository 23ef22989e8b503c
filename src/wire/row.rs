//! The rows of a result and the values of one of them, without copying them.

use bytes::{Buf, Bytes, BytesMut};

use super::Malformed;
use super::frame::HEADER;

/// Rows that have arrived together: DataRow messages one behind the other, each of them checked.
#[derive(Debug)]
pub struct Rows {
    messages: Bytes,
    count: usize,
}

impl Rows {
    /// Takes off the front of `buf` what are `count` whole messages of so many bytes in all.
    pub fn cut(count: usize, length: usize, buf: &mut BytesMut) -> Self {
        Self { messages: buf.split_to(length).freeze(), count }
    }

    /// What has not been taken yet, as it has arrived: whole messages with their headers.
    #[cfg(feature = "c-abi")]
    pub fn messages(&self) -> &[u8] {
        &self.messages
    }

    /// The bodies of what has not been taken yet, without taking it.
    pub fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.messages[..];
        std::iter::from_fn(move || {
            let (&[_, a, b, c, d], _) = rest.split_first_chunk::<HEADER>()?;
            let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
            let (message, behind) = rest.split_at_checked(length)?;
            rest = behind;
            message.get(HEADER..)
        })
    }
}

/// Gives the bodies of the messages.
impl Iterator for Rows {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let (&[_, a, b, c, d], _) = self.messages.split_first_chunk::<HEADER>()?;
        let length = u32::from_be_bytes([a, b, c, d]) as usize + 1;
        let mut message = self.messages.split_to(length);
        message.advance(HEADER);
        self.count -= 1;
        Some(message)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Rows {}

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
    let Values { mut rest, left } = Values::new(body)?;
    if columns.is_some_and(|n| n != usize::from(left)) {
        return Err(Malformed("a row with another number of columns than described"));
    }
    for _ in 0..left {
        let value = rest.split_first_chunk::<4>().and_then(|(&length, behind)| {
            // NULL has a negative length, and no bytes.
            let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
            behind.get(length..)
        });
        rest = value.ok_or(Malformed("a row shorter than its lengths say"))?;
    }
    if !rest.is_empty() {
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
    fn takes_rows_that_arrived_together_apart() {
        let mut buf = BytesMut::from(&b"D\0\0\0\x06\0\0D\0\0\0\x0a\0\x01\xff\xff\xff\xffC"[..]);
        let mut rows = Rows::cut(2, 18, &mut buf);
        assert_eq!(&buf[..], b"C");
        assert_eq!(rows.len(), 2);
        let bodies: Vec<_> = rows.bodies().collect();
        assert_eq!(bodies, [&b"\0\0"[..], b"\0\x01\xff\xff\xff\xff"]);
        assert_eq!(rows.next().as_deref(), Some(&b"\0\0"[..]));
        assert_eq!(rows.next().as_deref(), Some(&b"\0\x01\xff\xff\xff\xff"[..]));
        assert_eq!((rows.next(), rows.len()), (None, 0));
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
