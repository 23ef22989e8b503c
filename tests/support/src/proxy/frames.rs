//! Follows PostgreSQL's messages in a stream, so that faults can be put at their edges. Never
//! changes a byte, and gives up (everything passes as it comes) on what it does not understand.

use std::sync::atomic::Ordering;

use super::connection::Inner;
use super::{Direction, lock};

/// How much of a message is looked at; the rest of a longer one passes unread.
const PREFIX_MAX: usize = 64 * 1024;
/// PostgreSQL's own limit for startup packets.
const STARTUP_MAX: usize = 10_000;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
const TLS_HANDSHAKE: u8 = 0x16;

/// A message as a trigger's predicate sees it.
#[derive(Debug)]
pub struct Message<'a> {
    /// Its type; 0 for the startup packet.
    pub tag: u8,
    /// What follows the length, at most the first 64 KiB of the message.
    pub body: &'a [u8],
    sql: Option<String>,
}

impl Message<'_> {
    /// The SQL that a Query or Parse carries, or that the statement of a Bind was parsed from.
    #[must_use]
    pub fn sql(&self) -> Option<&str> {
        self.sql.as_deref()
    }

    /// Whether it runs SQL that contains the text, by Query or by Bind; case does not matter.
    #[must_use]
    pub fn runs(&self, text: &str) -> bool {
        matches!(self.tag, b'Q' | b'B')
            && self
                .sql()
                .is_some_and(|sql| sql.to_ascii_uppercase().contains(&text.to_ascii_uppercase()))
    }

    /// Whether the body contains the bytes.
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.body.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// Bytes that belong together: one message (or its first 64 KiB), or some of no known structure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_message: bool,
    pub(crate) is_startup: bool,
}

#[derive(Debug)]
pub(crate) struct Framer {
    direction: Direction,
    pending: Vec<u8>,
    /// How much of a long message is still to pass.
    passing: usize,
    in_startup: bool,
}

impl Framer {
    pub(crate) fn new(direction: Direction) -> Self {
        let in_startup = direction == Direction::ToServer;
        Self { direction, pending: Vec::new(), passing: 0, in_startup }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next frame, if one is complete.
    pub(crate) fn poll(&mut self, connection: &Inner) -> Option<Frame> {
        if self.pending.is_empty() {
            return None;
        }
        if connection.opaque.load(Ordering::Acquire) {
            return Some(self.take(self.pending.len(), false));
        }
        if self.passing > 0 {
            let count = self.passing.min(self.pending.len());
            self.passing -= count;
            return Some(self.take(count, false));
        }
        if self.in_startup {
            return self.poll_startup(connection);
        }
        if self.direction == Direction::ToClient && self.answers_request(connection) {
            return Some(self.take(1, false));
        }
        let length = be32(self.pending.get(1..5)?) as usize;
        if length < 4 {
            return self.give_up(connection);
        }
        let total = length + 1;
        let seen = total.min(PREFIX_MAX);
        if self.pending.len() < seen {
            return None;
        }
        self.passing = total - seen;
        Some(self.take(seen, true))
    }

    /// What is left at the end of the stream.
    pub(crate) fn rest(&mut self) -> Option<Frame> {
        (!self.pending.is_empty()).then(|| self.take(self.pending.len(), false))
    }

    fn poll_startup(&mut self, connection: &Inner) -> Option<Frame> {
        if self.pending[0] == TLS_HANDSHAKE {
            return self.give_up(connection);
        }
        let length = be32(self.pending.get(..4)?) as usize;
        if !(8..=STARTUP_MAX).contains(&length) {
            return self.give_up(connection);
        }
        if self.pending.len() < length {
            return None;
        }
        match be32(&self.pending[4..8]) {
            SSL_REQUEST | GSSENC_REQUEST => {
                connection.single_bytes_due.fetch_add(1, Ordering::AcqRel);
                Some(self.take(length, false))
            }
            CANCEL_REQUEST => Some(self.take(length, false)),
            _ => {
                self.in_startup = false;
                let mut frame = self.take(length, true);
                frame.is_startup = true;
                Some(frame)
            }
        }
    }

    /// Whether the next byte answers a request for encryption; an ErrorResponse is no such byte.
    fn answers_request(&self, connection: &Inner) -> bool {
        if connection.single_bytes_due.load(Ordering::Acquire) == 0 {
            return false;
        }
        connection.single_bytes_due.fetch_sub(1, Ordering::AcqRel);
        let byte = self.pending[0];
        if matches!(byte, b'S' | b'G') {
            connection.opaque.store(true, Ordering::Release);
        }
        byte != b'E'
    }

    fn give_up(&mut self, connection: &Inner) -> Option<Frame> {
        connection.opaque.store(true, Ordering::Release);
        self.rest()
    }

    fn take(&mut self, count: usize, is_message: bool) -> Frame {
        let bytes = self.pending.drain(..count).collect();
        Frame { bytes, is_message, is_startup: false }
    }
}

impl Frame {
    /// The message in it. A client's Parse is remembered on the way, for the Binds to come.
    pub(crate) fn message(&self, connection: &Inner, direction: Direction) -> Option<Message<'_>> {
        if !self.is_message {
            return None;
        }
        if self.is_startup {
            return Some(Message { tag: 0, body: &self.bytes[4..], sql: None });
        }
        let (tag, body) = (self.bytes[0], &self.bytes[5..]);
        let sql = match (direction, tag) {
            (Direction::ToServer, b'Q') => Some(text(body)),
            (Direction::ToServer, b'P') => {
                let name = until_zero(body);
                let sql = text(body.get(name.len() + 1..).unwrap_or_default());
                lock(&connection.statements).insert(name.to_vec(), sql.clone());
                Some(sql)
            }
            (Direction::ToServer, b'B') => {
                let portal = until_zero(body);
                let name = until_zero(body.get(portal.len() + 1..).unwrap_or_default());
                lock(&connection.statements).get(name).cloned()
            }
            _ => None,
        };
        Some(Message { tag, body, sql })
    }

    /// Whether it is part of a request that a later Sync ends: Parse, Bind, Describe, Execute, Close.
    pub(crate) fn awaits_sync(&self) -> bool {
        self.is_message
            && !self.is_startup
            && matches!(self.bytes.first(), Some(b'P' | b'B' | b'D' | b'E' | b'C'))
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(until_zero(bytes)).into_owned()
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |value, &byte| value << 8 | u32::from(byte))
}
