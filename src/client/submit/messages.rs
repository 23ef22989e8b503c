//! What a link is sent for submissions: claims, statements with their parameters, seals.
//!
//! Pure. What is more than a message of the protocol can hold is refused; then a part of it may have been
//! appended.

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use uuid::Uuid;

use super::submission::SubmittedStatement;
use crate::session::ledger::CONFIRM;
use crate::wire::execution::{self, SYNC};

/// The names of the statements that every link is given before anything else.
pub const CLAIM: &str = "submit_claim";
pub const CLAIM_AFTER: &str = "submit_claim_after";
pub const SEAL: &str = "submit_seal";

pub type Written = Result<(), TooLarge>;

/// More than a message can hold.
pub struct TooLarge;

pub fn claim(id: Uuid, after: Option<Uuid>, out: &mut BytesMut) -> Written {
    let encode = |index: usize, out: &mut BytesMut| {
        let id = if index == 0 { id } else { after.unwrap_or_default() };
        out.put_slice(id.as_bytes());
        IsNull::No
    };
    match after {
        None => bind(CLAIM, &[1], encode, out),
        Some(_) => bind(CLAIM_AFTER, &[1, 1], encode, out),
    }
}

pub fn execute(name: &str, it: &SubmittedStatement, out: &mut BytesMut) -> Written {
    let formats: Vec<i16> = it.params.iter().map(|value| i16::from(!value.text)).collect();
    let encode = |index: usize, out: &mut BytesMut| match &it.params[index].bytes {
        Some(bytes) => {
            out.put_slice(bytes);
            IsNull::No
        }
        None => IsNull::Yes,
    };
    bind(name, &formats, encode, out)
}

/// Bind and Execute. Values come as text, if anybody looked: not every type has a binary form.
pub fn bind(
    name: &str,
    formats: &[i16],
    encode: impl Fn(usize, &mut BytesMut) -> IsNull,
    out: &mut BytesMut,
) -> Written {
    let encode = |index: usize, out: &mut BytesMut| Ok(encode(index, out));
    execution::write(name, formats.iter().copied(), encode, &[], out).map_err(|_| TooLarge)
}

pub fn plain_statement(sql: &str, oids: &[u32], out: &mut BytesMut) -> Written {
    frontend::parse("", sql, oids.iter().copied(), out).map_err(|_| TooLarge)
}

/// A statement without parameters that nobody needs a second time.
pub fn once(sql: &str, out: &mut BytesMut) -> Written {
    plain_statement(sql, &[], out).and_then(|()| bind("", &[], |_, _| IsNull::Yes, out))
}

/// The seal of a row with a number, and its Sync.
pub fn seal(row: Uuid, number: i64, out: &mut BytesMut) {
    let encode = |index: usize, out: &mut BytesMut| {
        match index {
            0 => out.put_slice(row.as_bytes()),
            _ => out.put_i64(number),
        }
        IsNull::No
    };
    // Two values of fixed size always fit.
    let _ = bind(SEAL, &[1, 1], encode, out);
    out.put_slice(SYNC);
}

/// A transaction that writes nothing but waits for what the server's commits wait for, and its Sync.
pub fn confirmation(out: &mut BytesMut) {
    let _ = once(CONFIRM, out);
    out.put_slice(SYNC);
}
