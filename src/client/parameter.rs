//! Rust values as parameters of statements.
//!
//! A value says which PostgreSQL type it is, so that a statement's first execution needs no round
//! trip to ask the server. Text leaves the type open: the server then reads it as it would read a
//! literal in quotes, be it a date, a number or JSON.

use std::error::Error as StdError;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_types::Type;
use uuid::Uuid;

use crate::session::Parameters;

type Encoded = Result<IsNull, Box<dyn StdError + Send + Sync>>;

/// A value that can be a statement's parameter.
pub trait ToSql {
    /// The OID of its PostgreSQL type; 0 lets the server infer it.
    fn type_oid(&self) -> u32;

    /// Whether it is sent as text rather than binary.
    fn is_text(&self) -> bool {
        false
    }

    /// Appends the value in the form of type `oid`, which is its own, or what the server has
    /// inferred for a prepared statement. An error's text must not contain the value.
    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded;
}

fn mismatch(rust: &'static str, oid: u32) -> Box<dyn StdError + Send + Sync> {
    let name = Type::from_oid(oid).map_or_else(|| format!("of OID {oid}"), |t| t.name().to_owned());
    format!("a Rust {rust} does not fit the PostgreSQL type {name}").into()
}

const INT2: u32 = 21;
const INT4: u32 = 23;
const INT8: u32 = 20;
const OID: u32 = 26;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const BYTEA: u32 = 17;

fn encode_integer(value: i64, rust: &'static str, oid: u32, out: &mut BytesMut) -> Encoded {
    let misfit = |_| mismatch(rust, oid);
    match oid {
        INT2 => out.put_i16(i16::try_from(value).map_err(misfit)?),
        INT4 => out.put_i32(i32::try_from(value).map_err(misfit)?),
        INT8 => out.put_i64(value),
        OID => out.put_u32(u32::try_from(value).map_err(misfit)?),
        // Every integer below 2^53 is exact; beyond it the server itself would round.
        FLOAT8 => out.put_f64(value as f64),
        _ => return Err(mismatch(rust, oid)),
    }
    Ok(IsNull::No)
}

macro_rules! integers {
    ($($rust:ty => $oid:expr),*) => {$(
        impl ToSql for $rust {
            fn type_oid(&self) -> u32 {
                $oid
            }

            fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
                encode_integer(i64::from(*self), stringify!($rust), oid, out)
            }
        }
    )*};
}

integers!(i16 => INT2, i32 => INT4, i64 => INT8, u32 => OID);

impl ToSql for f32 {
    fn type_oid(&self) -> u32 {
        FLOAT4
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        match oid {
            FLOAT4 => out.put_f32(*self),
            FLOAT8 => out.put_f64(f64::from(*self)),
            _ => return Err(mismatch("f32", oid)),
        }
        Ok(IsNull::No)
    }
}

impl ToSql for f64 {
    fn type_oid(&self) -> u32 {
        FLOAT8
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        if oid != FLOAT8 {
            return Err(mismatch("f64", oid));
        }
        out.put_f64(*self);
        Ok(IsNull::No)
    }
}

impl ToSql for str {
    fn type_oid(&self) -> u32 {
        0
    }

    fn is_text(&self) -> bool {
        true
    }

    fn encode(&self, _: u32, out: &mut BytesMut) -> Encoded {
        if self.as_bytes().contains(&0) {
            return Err("text with a NUL character cannot be stored by PostgreSQL".into());
        }
        out.put_slice(self.as_bytes());
        Ok(IsNull::No)
    }
}

impl ToSql for String {
    fn type_oid(&self) -> u32 {
        self.as_str().type_oid()
    }

    fn is_text(&self) -> bool {
        true
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        self.as_str().encode(oid, out)
    }
}

/// Types that `postgres-types` encodes for one PostgreSQL type.
macro_rules! through_postgres_types {
    ($($rust:ty => $ty:ident),* $(,)?) => {$(
        impl ToSql for $rust {
            fn type_oid(&self) -> u32 {
                Type::$ty.oid()
            }

            fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
                encode_as(self, stringify!($rust), &Type::$ty, oid, out)
            }
        }
    )*};
}

fn encode_as<T: postgres_types::ToSql>(
    value: &T,
    rust: &'static str,
    own: &Type,
    oid: u32,
    out: &mut BytesMut,
) -> Encoded {
    let ty = if oid == own.oid() { Some(own.clone()) } else { Type::from_oid(oid) };
    match ty {
        Some(ty) if T::accepts(&ty) => match value.to_sql(&ty, out)? {
            postgres_types::IsNull::Yes => Ok(IsNull::Yes),
            postgres_types::IsNull::No => Ok(IsNull::No),
        },
        _ => Err(mismatch(rust, oid)),
    }
}

through_postgres_types! {
    bool => BOOL,
    Vec<bool> => BOOL_ARRAY,
    Vec<i16> => INT2_ARRAY,
    Vec<i32> => INT4_ARRAY,
    Vec<i64> => INT8_ARRAY,
    Vec<f32> => FLOAT4_ARRAY,
    Vec<f64> => FLOAT8_ARRAY,
    Vec<String> => TEXT_ARRAY,
    Vec<&str> => TEXT_ARRAY,
    Vec<Vec<u8>> => BYTEA_ARRAY,
    Vec<Uuid> => UUID_ARRAY,
    std::time::SystemTime => TIMESTAMPTZ,
}

impl ToSql for Uuid {
    fn type_oid(&self) -> u32 {
        Type::UUID.oid()
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        if oid != Type::UUID.oid() {
            return Err(mismatch("Uuid", oid));
        }
        out.put_slice(self.as_bytes());
        Ok(IsNull::No)
    }
}

impl ToSql for [u8] {
    fn type_oid(&self) -> u32 {
        BYTEA
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        if oid != BYTEA {
            return Err(mismatch("[u8]", oid));
        }
        out.put_slice(self);
        Ok(IsNull::No)
    }
}

impl ToSql for Vec<u8> {
    fn type_oid(&self) -> u32 {
        BYTEA
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        self.as_slice().encode(oid, out)
    }
}

impl<T: ToSql + ?Sized> ToSql for &T {
    fn type_oid(&self) -> u32 {
        (**self).type_oid()
    }

    fn is_text(&self) -> bool {
        (**self).is_text()
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        (**self).encode(oid, out)
    }
}

/// NULL is sent without a type: a missing value says nothing of the type that it would have.
impl<T: ToSql> ToSql for Option<T> {
    fn type_oid(&self) -> u32 {
        self.as_ref().map_or(0, T::type_oid)
    }

    fn is_text(&self) -> bool {
        self.as_ref().is_none_or(T::is_text)
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        match self {
            Some(value) => value.encode(oid, out),
            None => Ok(IsNull::Yes),
        }
    }
}

/// A value that `postgres-types` can encode, as the PostgreSQL type given.
#[derive(Debug, Clone)]
pub struct Typed<T>(pub T, pub Type);

impl<T: postgres_types::ToSql> ToSql for Typed<T> {
    fn type_oid(&self) -> u32 {
        self.1.oid()
    }

    fn encode(&self, oid: u32, out: &mut BytesMut) -> Encoded {
        encode_as(&self.0, std::any::type_name::<T>(), &self.1, oid, out)
    }
}

/// A value that is encoded already, in text or in PostgreSQL's binary format.
#[derive(Clone, Copy)]
pub struct Raw<'a> {
    /// The OID of its type; 0 lets the server infer it.
    pub type_oid: u32,
    pub text: bool,
    /// `None` is NULL.
    pub value: Option<&'a [u8]>,
}

impl ToSql for Raw<'_> {
    fn type_oid(&self) -> u32 {
        self.type_oid
    }

    fn is_text(&self) -> bool {
        self.text
    }

    fn encode(&self, _: u32, out: &mut BytesMut) -> Encoded {
        match self.value {
            Some(value) => {
                out.put_slice(value);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }
}

/// The parameters of one execution, encoded for the types that the server expects.
pub(super) struct Encoder<'a> {
    pub values: &'a [&'a dyn ToSql],
    /// The types of the statement's parameters.
    pub oids: &'a [u32],
    /// How each column is to come; empty where all come alike.
    pub result_formats: &'a [i16],
}

impl Parameters for Encoder<'_> {
    fn count(&self) -> usize {
        self.values.len()
    }

    fn format(&self, index: usize) -> i16 {
        i16::from(!self.values[index].is_text())
    }

    fn encode(&self, index: usize, out: &mut BytesMut) -> Encoded {
        let value = self.values[index];
        let oid = match self.oids.get(index) {
            Some(0) | None => value.type_oid(),
            Some(oid) => *oid,
        };
        value.encode(oid, out)
    }

    fn result_formats(&self) -> &[i16] {
        self.result_formats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &dyn ToSql, oid: u32) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        value.encode(oid, &mut out).ok().map(|_| out.to_vec())
    }

    #[test]
    fn integers_fit_what_the_server_has_inferred() {
        assert_eq!(encoded(&7i64, INT2), Some(vec![0, 7]));
        assert_eq!(encoded(&7i16, INT8), Some(vec![0, 0, 0, 0, 0, 0, 0, 7]));
        assert_eq!(encoded(&70_000i64, INT2), None);
        assert_eq!(encoded(&-1i32, OID), None);
        assert_eq!(encoded(&1i32, 25), None);
    }

    #[test]
    fn null_has_no_type() {
        assert_eq!(None::<i64>.type_oid(), 0);
        assert_eq!(Some(1i64).type_oid(), INT8);
    }

    #[test]
    fn errors_do_not_show_the_value() {
        let encoded = 123_456i64.encode(INT2, &mut BytesMut::new());
        let error = encoded.err().unwrap();
        assert!(!error.to_string().contains("123456"));
    }
}
