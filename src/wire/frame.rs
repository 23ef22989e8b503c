//! Cuts a stream of bytes into a server's messages.
//!
//! The messages of the hot path are told apart by their tag alone and never copied; the seldom
//! ones are handed to `postgres-protocol` ([`Frame::parse`]).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;

use super::Malformed;

/// The tag, and the length that counts itself but not the tag.
pub const HEADER: usize = 5;

/// One whole message of a server.
#[derive(Debug, Clone)]
pub struct Frame {
    tag: u8,
    body: Bytes,
}

impl Frame {
    /// Takes the next whole message off the front of `buf`, or `None` until it has arrived.
    ///
    /// A message longer than `limit` is refused before it is awaited, so that a hostile length
    /// cannot make the buffer grow without bound.
    pub fn take(buf: &mut BytesMut, limit: usize) -> Result<Option<Self>, Malformed> {
        let found = peek_whole(buf, limit)?;
        Ok(found.map(|(tag, total)| Self::cut(tag, total, buf)))
    }

    /// Takes off the message that [`peek_whole`] has found.
    pub fn cut(tag: u8, total: usize, buf: &mut BytesMut) -> Self {
        let mut body = buf.split_to(total).freeze();
        body.advance(HEADER);
        Self { tag, body }
    }

    pub fn tag(&self) -> u8 {
        self.tag
    }

    /// What follows the header.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// What follows the header.
    pub fn into_body(self) -> Bytes {
        self.body
    }

    /// The message in full, by `postgres-protocol`: for what is seldom and has structure.
    pub fn parse(&self) -> Result<Message, Malformed> {
        let length = u32::try_from(self.body.len() + HEADER - 1);
        let mut copy = BytesMut::with_capacity(HEADER + self.body.len());
        copy.put_u8(self.tag);
        copy.put_u32(length.map_err(|_| Malformed("a length that does not fit"))?);
        copy.put_slice(&self.body);
        Message::parse(&mut copy)?.ok_or(Malformed("a message ends before its body does"))
    }
}

/// The tag and total length of the message at the front, once its header has arrived.
pub fn peek(buf: &[u8], limit: usize) -> Result<Option<(u8, usize)>, Malformed> {
    let Some((&[tag, a, b, c, d], _)) = buf.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length < HEADER - 1 {
        return Err(Malformed("a length that does not cover itself"));
    }
    if length > limit {
        return Err(Malformed("a message longer than message_bytes_max"));
    }
    Ok(Some((tag, length + 1)))
}

/// As [`peek`], but only once the message is there in full.
pub fn peek_whole(buf: &[u8], limit: usize) -> Result<Option<(u8, usize)>, Malformed> {
    Ok(peek(buf, limit)?.filter(|(_, total)| buf.len() >= *total))
}

/// The text of a CommandComplete's body.
pub fn command_tag(body: &[u8]) -> Result<&str, Malformed> {
    let text = body.strip_suffix(&[0]).ok_or(Malformed("a command tag without its end"))?;
    std::str::from_utf8(text).map_err(|_| Malformed("a command tag that is not text"))
}

/// The number of rows that a command tag tells of: the last word of `INSERT 0 5` or `SELECT 5`.
pub fn rows_affected(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// A transaction's status as ReadyForQuery reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Idle,
    Open,
    Failed,
}

impl Status {
    pub fn from_body(body: &[u8]) -> Result<Self, Malformed> {
        match body {
            b"I" => Ok(Self::Idle),
            b"T" => Ok(Self::Open),
            b"E" => Ok(Self::Failed),
            _ => Err(Malformed("an unknown transaction status")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_the_whole_message() {
        let mut buf = BytesMut::from(&b"Z\0\0\0\x05"[..]);
        assert!(Frame::take(&mut buf, 100).unwrap().is_none());
        buf.extend_from_slice(b"I2");
        let frame = Frame::take(&mut buf, 100).unwrap().unwrap();
        assert_eq!((frame.tag(), frame.body()), (b'Z', &b"I"[..]));
        assert_eq!(&buf[..], b"2");
    }

    #[test]
    fn refuses_lengths_that_lie() {
        assert!(peek(b"D\0\0\0\x03", 100).is_err());
        assert!(peek(b"D\x7f\xff\xff\xff", 1 << 20).is_err());
        assert!(peek(b"D\xff\xff\xff\xff", usize::MAX - 1).unwrap().is_some());
    }

    #[test]
    fn counts_rows() {
        assert_eq!(rows_affected("INSERT 0 5"), 5);
        assert_eq!(rows_affected("SELECT 12"), 12);
        assert_eq!(rows_affected("CREATE TABLE"), 0);
    }
}
