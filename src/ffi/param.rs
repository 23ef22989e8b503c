//! `segue_param`: the value of one parameter, a plain struct that the application fills in.

use std::error::Error as StdError;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_types::Type;

use super::boundary::{Failure, Result, array};
use crate::client::ToSql;

/// SQL's NULL. A zeroed parameter is one.
pub const SEGUE_PARAM_NULL: i32 = 0;
/// A boolean: integer is 0 or not.
pub const SEGUE_PARAM_BOOL: i32 = 1;
/// An integer, of the width that type_oid has: int2, int4, int8 (also if it is 0), oid.
pub const SEGUE_PARAM_INT: i32 = 2;
/// A floating-point number: float4, or float8 (also if type_oid is 0).
pub const SEGUE_PARAM_FLOAT: i32 = 3;
/// data and length in text format; the server infers the type if type_oid is 0.
pub const SEGUE_PARAM_TEXT: i32 = 4;
/// data and length in the binary format of type_oid.
pub const SEGUE_PARAM_BINARY: i32 = 5;

/// Values as text, as PostgreSQL writes them.
pub const SEGUE_FORMAT_TEXT: i32 = 0;
/// Values in PostgreSQL's binary formats.
pub const SEGUE_FORMAT_BINARY: i32 = 1;

/// The value of a parameter. Zeroed it is SQL's NULL. The segue_param_... functions fill one in; what
/// data points to must stay there during the call that uses it, and no longer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct segue_param {
    /// SEGUE_PARAM_...: which of the fields below count.
    pub kind: i32,
    /// The OID of its PostgreSQL type; 0 leaves it open.
    pub type_oid: u32,
    /// The value of SEGUE_PARAM_BOOL and SEGUE_PARAM_INT.
    pub integer: i64,
    /// The value of SEGUE_PARAM_FLOAT.
    pub real: f64,
    /// The bytes of SEGUE_PARAM_TEXT and SEGUE_PARAM_BINARY.
    pub data: *const c_void,
    /// Their number, without a NUL.
    pub length: usize,
}

const NULL: segue_param = segue_param {
    kind: SEGUE_PARAM_NULL,
    type_oid: 0,
    integer: 0,
    real: 0.0,
    data: ptr::null(),
    length: 0,
};

/// A parameter that has been looked at.
#[derive(Clone, Copy)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Binary(&'a [u8]),
}

#[derive(Clone, Copy)]
pub(super) struct Param<'a> {
    type_oid: u32,
    value: Value<'a>,
}

/// So many parameters need no memory of their own.
const FEW: usize = 8;

impl<'a> Param<'a> {
    /// # Safety
    /// What the parameter points to stays there for `'a`.
    unsafe fn new(param: &segue_param, number: usize) -> Result<Self> {
        let bytes = || {
            // SAFETY: by the header's contract there are `length` bytes behind `data`.
            unsafe {
                array(
                    param.data.cast::<u8>(),
                    param.length,
                    format_args!("the data of parameter ${number}"),
                )
            }
        };
        let or = |default: Type| if param.type_oid == 0 { default.oid() } else { param.type_oid };
        let (type_oid, value) = match param.kind {
            SEGUE_PARAM_NULL => (param.type_oid, Value::Null),
            SEGUE_PARAM_BOOL => (or(Type::BOOL), Value::Bool(param.integer != 0)),
            SEGUE_PARAM_INT => (or(Type::INT8), Value::Int(param.integer)),
            SEGUE_PARAM_FLOAT => (or(Type::FLOAT8), Value::Float(param.real)),
            SEGUE_PARAM_TEXT => {
                let text = std::str::from_utf8(bytes()?).map_err(|_| {
                    Failure::argument(format!("the text of parameter ${number} is not UTF-8"))
                })?;
                (param.type_oid, Value::Text(text))
            }
            SEGUE_PARAM_BINARY => (param.type_oid, Value::Binary(bytes()?)),
            kind => {
                return Err(Failure::argument(format!(
                    "parameter ${number} is of kind {kind}, which there is not"
                )));
            }
        };
        Ok(Self { type_oid, value })
    }
}

fn mismatch(what: &str, oid: u32) -> Box<dyn StdError + Send + Sync> {
    let name = Type::from_oid(oid).map_or_else(|| format!("of OID {oid}"), |t| t.name().to_owned());
    format!("{what} does not fit the PostgreSQL type {name}").into()
}

impl ToSql for Param<'_> {
    fn type_oid(&self) -> u32 {
        self.type_oid
    }

    fn is_text(&self) -> bool {
        matches!(self.value, Value::Text(_) | Value::Null)
    }

    fn encode(
        &self,
        oid: u32,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn StdError + Send + Sync>> {
        match self.value {
            Value::Null => return Ok(IsNull::Yes),
            Value::Bool(value) if oid == Type::BOOL.oid() => out.put_u8(value.into()),
            Value::Bool(_) => return Err(mismatch("a boolean", oid)),
            Value::Int(value) => {
                return value.encode(oid, out).map_err(|_| mismatch("the integer", oid));
            }
            // As PostgreSQL rounds what is assigned to a float4.
            Value::Float(value) if oid == Type::FLOAT4.oid() => out.put_f32(value as f32),
            Value::Float(value) if oid == Type::FLOAT8.oid() => out.put_f64(value),
            Value::Float(_) => return Err(mismatch("a floating-point number", oid)),
            Value::Text(text) => return text.encode(oid, out),
            Value::Binary(bytes) => out.put_slice(bytes),
        }
        Ok(IsNull::No)
    }
}

/// Calls `body` with the parameters of a statement.
///
/// # Safety
/// The header's contract: there are `length` parameters, and what they point to stays there.
pub(super) unsafe fn with_params<T>(
    params: *const segue_param,
    length: usize,
    body: impl FnOnce(&[&dyn ToSql]) -> Result<T>,
) -> Result<T> {
    // SAFETY: the caller's promise.
    let params = unsafe { array(params, length, "params") }?;
    // SAFETY: the caller's promise.
    let numbered =
        params.iter().zip(1..).map(|(param, number)| unsafe { Param::new(param, number) });
    if length <= FEW {
        let mut values = [Param { type_oid: 0, value: Value::Null }; FEW];
        for (value, param) in values.iter_mut().zip(numbered) {
            *value = param?;
        }
        let references: [&dyn ToSql; FEW] = std::array::from_fn(|index| &values[index] as _);
        return body(&references[..length]);
    }
    let values = numbered.collect::<Result<Vec<Param<'_>>>>()?;
    let references: Vec<&dyn ToSql> = values.iter().map(|value| value as _).collect();
    body(&references)
}

/// Whether a format is the text format.
pub(super) fn is_text(format: i32) -> Result<bool> {
    match format {
        SEGUE_FORMAT_TEXT => Ok(true),
        SEGUE_FORMAT_BINARY => Ok(false),
        _ => Err(Failure::argument(format!("there is no format {format}"))),
    }
}

/// SQL's NULL as a parameter, without a type.
///
/// @return the parameter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_null() -> segue_param {
    NULL
}

/// A boolean as a parameter.
///
/// @param[in] value  The value.
/// @return the parameter, of type bool
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_bool(value: bool) -> segue_param {
    typed(SEGUE_PARAM_BOOL, &Type::BOOL, value.into())
}

/// A 16-bit integer as a parameter.
///
/// @param[in] value  The value.
/// @return the parameter, of type int2
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_int2(value: i16) -> segue_param {
    typed(SEGUE_PARAM_INT, &Type::INT2, value.into())
}

/// A 32-bit integer as a parameter.
///
/// @param[in] value  The value.
/// @return the parameter, of type int4
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_int4(value: i32) -> segue_param {
    typed(SEGUE_PARAM_INT, &Type::INT4, value.into())
}

/// A 64-bit integer as a parameter.
///
/// @param[in] value  The value.
/// @return the parameter, of type int8
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_int8(value: i64) -> segue_param {
    typed(SEGUE_PARAM_INT, &Type::INT8, value)
}

fn typed(kind: i32, ty: &Type, integer: i64) -> segue_param {
    segue_param { kind, type_oid: ty.oid(), integer, ..NULL }
}

/// A single-precision number as a parameter.
///
/// @param[in] value  The value.
/// @return the parameter, of type float4
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_float4(value: f32) -> segue_param {
    let real = value.into();
    segue_param { kind: SEGUE_PARAM_FLOAT, type_oid: Type::FLOAT4.oid(), real, ..NULL }
}

/// A double-precision number as a parameter.
///
/// @param[in] value  The value.
/// @return the parameter, of type float8
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_float8(value: f64) -> segue_param {
    let type_oid = Type::FLOAT8.oid();
    segue_param { kind: SEGUE_PARAM_FLOAT, type_oid, real: value, ..NULL }
}

/// A text as a parameter. Its type is left open: the server reads it as it would read a literal in
/// quotes, be it a text, a date, a number or JSON.
///
/// @param[in] text  A string in UTF-8, which must stay there until the call that uses the parameter
///                  has returned; NULL makes SQL's NULL.
/// @return the parameter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_param_text(text: *const c_char) -> segue_param {
    if text.is_null() {
        return NULL;
    }
    // SAFETY: the header's contract: it is a string with its NUL.
    let length = unsafe { CStr::from_ptr(text) }.count_bytes();
    segue_param { kind: SEGUE_PARAM_TEXT, data: text.cast(), length, ..NULL }
}

/// A text of known length as a parameter; as segue_param_text().
///
/// @param[in] text    Bytes in UTF-8, none of them NUL; NULL makes SQL's NULL.
/// @param[in] length  Their number.
/// @return the parameter
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_text_sized(text: *const c_char, length: usize) -> segue_param {
    segue_param_value(0, SEGUE_FORMAT_TEXT, text.cast(), length)
}

/// Bytes as a parameter.
///
/// @param[in] data    Any bytes, which must stay there until the call that uses the parameter has
///                    returned; NULL makes SQL's NULL.
/// @param[in] length  Their number.
/// @return the parameter, of type bytea
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_bytea(data: *const c_void, length: usize) -> segue_param {
    segue_param_value(Type::BYTEA.oid(), SEGUE_FORMAT_BINARY, data, length)
}

/// A value that is encoded already as a parameter.
///
/// @param[in] type_oid  The OID of its type; 0 lets the server infer it.
/// @param[in] format    SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY.
/// @param[in] data      The encoded value, which must stay there until the call that uses the
///                      parameter has returned; NULL makes SQL's NULL of that type.
/// @param[in] length    The number of its bytes.
/// @return the parameter; with an unknown format one that every statement refuses
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub extern "C" fn segue_param_value(
    type_oid: u32,
    format: i32,
    data: *const c_void,
    length: usize,
) -> segue_param {
    let kind = match format {
        _ if data.is_null() => return segue_param { type_oid, ..NULL },
        SEGUE_FORMAT_TEXT => SEGUE_PARAM_TEXT,
        SEGUE_FORMAT_BINARY => SEGUE_PARAM_BINARY,
        _ => -1,
    };
    segue_param { kind, type_oid, data, length, ..NULL }
}
