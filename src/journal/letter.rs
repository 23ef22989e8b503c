//! What a dead letter's record says: kind 11 in its versions 1 and 2. `docs/journal.md` has the layout.
//!
//! Pure. No Debug shows what a server said.

use std::fmt;

use super::field::{Fields, Malformed, put_count, put_text, put_u32, put_u64};

/// The version that this code writes.
pub(super) const VERSION: u8 = 2;

/// Who found that a submission can never succeed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The server has refused it: the fields are the server's own.
    Server = 0,
    /// A statement has affected another number of rows than was expected.
    Unmet = 1,
    /// The server has crashed each time that it ran it.
    Crash = 2,
}

/// A submission that can never succeed, and why.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    pub at_unix_ms: u64,
    /// The statement that failed, from 0.
    pub statement: u32,
    pub origin: Origin,
    /// The fields of the error under the letters of PostgreSQL's ErrorResponse: `C` the SQLSTATE, `M`
    /// the message, and so on.
    pub fields: Vec<(u8, &'a str)>,
}

impl<'a> DeadLetter<'a> {
    /// A field of the error, if it has that.
    pub fn field(&self, tag: u8) -> Option<&'a str> {
        self.fields.iter().find(|(known, _)| *known == tag).map(|(_, text)| *text)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.at_unix_ms);
        put_u32(out, self.statement);
        out.push(self.origin as u8);
        put_count(out, self.fields.len());
        for (tag, text) in &self.fields {
            out.push(*tag);
            put_text(out, text);
        }
    }

    pub(super) fn decode(version: u8, f: &mut Fields<'a>) -> Result<Self, Malformed> {
        let (at_unix_ms, statement) = (f.u64()?, f.u32()?);
        if version == 1 {
            return Self::decode_first(at_unix_ms, statement, f);
        }
        let origin = match f.u8()? {
            0 => Origin::Server,
            1 => Origin::Unmet,
            2 => Origin::Crash,
            _ => return Err(Malformed),
        };
        let count = f.count(5)?;
        let fields = (0..count).map(|_| Ok((f.u8()?, f.text()?))).collect::<Result<_, _>>()?;
        Ok(Self { at_unix_ms, statement, origin, fields })
    }

    /// Version 1 had three fields, the severity ahead of the message in one text, and told an
    /// expectation that was not met by its SQLSTATE.
    fn decode_first(
        at_unix_ms: u64,
        statement: u32,
        f: &mut Fields<'a>,
    ) -> Result<Self, Malformed> {
        let (sqlstate, message, detail) = (f.text()?, f.text()?, f.text()?);
        let origin = if sqlstate == "25P02" { Origin::Unmet } else { Origin::Server };
        let message = message.strip_prefix("ERROR: ").unwrap_or(message);
        let mut fields = vec![(b'V', "ERROR"), (b'C', sqlstate), (b'M', message)];
        fields.extend((!detail.is_empty()).then_some((b'D', detail)));
        Ok(Self { at_unix_ms, statement, origin, fields })
    }
}

/// What a server says may hold values of the application's.
impl fmt::Debug for DeadLetter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter").field("origin", &self.origin).finish_non_exhaustive()
    }
}
