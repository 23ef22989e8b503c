//! Bind and Execute, which every statement costs: written in one pass, with no detour.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend::BindError;

/// Sync.
pub const SYNC: &[u8] = b"S\0\0\0\x04";

/// Appends Bind of a statement to the unnamed portal, and Execute of that portal to its end.
///
/// There is one format for each parameter, and `encode` appends the value of the one with the index
/// given. `results` has one format for all columns, or one for each. The statement's name must contain no NUL byte. After an error, what has been appended is
/// of no use.
pub fn write(
    statement: &str,
    formats: impl ExactSizeIterator<Item = i16>,
    mut encode: impl FnMut(usize, &mut BytesMut) -> Result<IsNull, Box<dyn Error + Send + Sync>>,
    results: &[i16],
    out: &mut BytesMut,
) -> Result<(), BindError> {
    let start = out.len();
    let count = u16::try_from(formats.len()).map_err(|_| too_large())?;
    // Tag, length, and the portal's empty name.
    out.put_slice(b"B\0\0\0\0\0");
    out.put_slice(statement.as_bytes());
    out.put_u8(0);
    out.put_u16(count);
    formats.for_each(|format| out.put_i16(format));
    out.put_u16(count);
    for index in 0..usize::from(count) {
        let at = out.len();
        out.put_i32(-1);
        if let IsNull::No = encode(index, out)? {
            set_length(at, out.len() - at - 4, out)?;
        }
    }
    out.put_u16(u16::try_from(results.len()).map_err(|_| too_large())?);
    results.iter().for_each(|format| out.put_i16(*format));
    set_length(start + 1, out.len() - start - 1, out)?;
    // Tag, length, the portal's empty name, no limit of rows.
    out.put_slice(b"E\0\0\0\x09\0\0\0\0\0");
    Ok(())
}

fn set_length(at: usize, length: usize, out: &mut BytesMut) -> Result<(), BindError> {
    let length = i32::try_from(length).map_err(|_| too_large())?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn too_large() -> BindError {
    let text = "more than a message can hold";
    BindError::Serialization(std::io::Error::new(std::io::ErrorKind::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use postgres_protocol::message::frontend;

    use super::*;

    /// Three values: text, binary, NULL.
    fn encode(index: usize, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Send + Sync>> {
        match index {
            0 => out.put_slice(b"text"),
            1 => out.put_slice(&[0; 300]),
            _ => return Ok(IsNull::Yes),
        }
        Ok(IsNull::No)
    }

    #[test]
    fn writes_what_postgres_protocol_writes() {
        for count in 0..=3 {
            for results in [&[0][..], &[1], &[1, 0, 1]] {
                let formats = || [0, 1, 1].into_iter().take(count);
                let (mut ours, mut theirs) = (BytesMut::from("x"), BytesMut::from("x"));
                write("segue_7", formats(), encode, results, &mut ours).ok().unwrap();
                let results = results.iter().copied();
                frontend::bind("", "segue_7", formats(), 0..count, encode, results, &mut theirs)
                    .ok()
                    .unwrap();
                frontend::execute("", 0, &mut theirs).unwrap();
                assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn tells_that_a_value_could_not_be_encoded() {
        let failing = |_: usize, _: &mut BytesMut| Err("no".into());
        let written = write("", [1].into_iter(), failing, &[1], &mut BytesMut::new());
        assert!(matches!(written, Err(BindError::Conversion(_))));
    }
}
