//! The fields of an ErrorResponse or NoticeResponse.
//!
//! Every field is passed on as the server sent it. Text that is not UTF-8 (a server may complain
//! in its own encoding before the start-up has settled one) is shown with replacement characters
//! rather than refused: a garbled message is worth more than none.

use super::Malformed;
use crate::error::ServerError;

/// Reads the body of an ErrorResponse or a NoticeResponse.
pub fn parse(body: &[u8]) -> Result<ServerError, Malformed> {
    let mut error = ServerError::default();
    let mut severity_is_plain = false;
    let mut rest = body;
    loop {
        let (&tag, after) =
            rest.split_first().ok_or(Malformed("an error message without its end"))?;
        if tag == 0 {
            if !after.is_empty() {
                return Err(Malformed("an error message longer than its fields"));
            }
            break;
        }
        let end = after
            .iter()
            .position(|&b| b == 0)
            .ok_or(Malformed("an error field without its end"))?;
        let text = String::from_utf8_lossy(&after[..end]);
        // `V` is never localised; `S` stands in for servers and poolers that lack it.
        if tag != b'S' || !severity_is_plain {
            set(&mut error, tag, &text);
        }
        severity_is_plain |= tag == b'V';
        rest = &after[end + 1..];
    }
    Ok(error)
}

/// Sets one field. The protocol asks to ignore what later servers may add.
pub fn set(error: &mut ServerError, tag: u8, text: &str) {
    let some = || Some(text.to_owned());
    match tag {
        b'V' | b'S' => error.severity = text.to_owned(),
        b'C' => error.code = text.to_owned(),
        b'M' => error.message = text.to_owned(),
        b'D' => error.detail = some(),
        b'H' => error.hint = some(),
        b'P' => error.position = text.parse().ok(),
        b'p' => error.internal_position = text.parse().ok(),
        b'q' => error.internal_query = some(),
        b'W' => error.context = some(),
        b's' => error.schema = some(),
        b't' => error.table = some(),
        b'c' => error.column = some(),
        b'd' => error.datatype = some(),
        b'n' => error.constraint = some(),
        b'F' => error.file = some(),
        b'L' => error.line = text.parse().ok(),
        b'R' => error.routine = some(),
        _ => {}
    }
}

/// All fields that are there, by their letters: what [`set`] makes the same error of.
pub fn list(error: &ServerError) -> Vec<(u8, String)> {
    let text = |tag, text: &Option<String>| Some((tag, text.clone()?));
    let number = |tag, number: Option<u32>| Some((tag, number?.to_string()));
    let plain = |tag, text: &str| Some((tag, text.to_owned()));
    let fields = [
        plain(b'V', &error.severity),
        plain(b'C', &error.code),
        plain(b'M', &error.message),
        text(b'D', &error.detail),
        text(b'H', &error.hint),
        number(b'P', error.position),
        number(b'p', error.internal_position),
        text(b'q', &error.internal_query),
        text(b'W', &error.context),
        text(b's', &error.schema),
        text(b't', &error.table),
        text(b'c', &error.column),
        text(b'd', &error.datatype),
        text(b'n', &error.constraint),
        text(b'F', &error.file),
        number(b'L', error.line),
        text(b'R', &error.routine),
    ];
    fields.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_field() {
        let body =
            b"SFEHLER\0VERROR\0C23505\0Mdup\0Dkey\0Hgo\0P7\0p8\0qsel\0Wctx\0ssch\0ttab\0ccol\0\
                     dtyp\0ncon\0Ffile.c\0L42\0Rfn\0?new\0\0";
        let error = parse(body).unwrap();
        assert_eq!(error.severity, "ERROR");
        assert_eq!((error.code.as_str(), error.message.as_str()), ("23505", "dup"));
        assert_eq!(
            (error.position, error.internal_position, error.line),
            (Some(7), Some(8), Some(42))
        );
        let texts = [
            (&error.detail, "key"),
            (&error.hint, "go"),
            (&error.internal_query, "sel"),
            (&error.context, "ctx"),
            (&error.schema, "sch"),
            (&error.table, "tab"),
            (&error.column, "col"),
            (&error.datatype, "typ"),
            (&error.constraint, "con"),
            (&error.file, "file.c"),
            (&error.routine, "fn"),
        ];
        for (field, expected) in texts {
            assert_eq!(field.as_deref(), Some(expected));
        }
        let mut again = ServerError::default();
        for (tag, text) in list(&error) {
            set(&mut again, tag, &text);
        }
        assert_eq!(again, error);
    }

    #[test]
    fn the_plain_severity_wins_in_either_order() {
        assert_eq!(parse(b"VFATAL\0SFATAAL\0\0").unwrap().severity, "FATAL");
        assert_eq!(parse(b"SFATAAL\0VFATAL\0\0").unwrap().severity, "FATAL");
        assert_eq!(parse(b"SFATAL\0\0").unwrap().severity, "FATAL");
    }

    #[test]
    fn keeps_text_in_a_foreign_encoding() {
        assert_eq!(parse(b"Mgr\xfc\xdfe\0\0").unwrap().message, "gr\u{fffd}\u{fffd}e");
    }

    #[test]
    fn refuses_bodies_that_lie() {
        assert!(parse(b"").is_err());
        assert!(parse(b"Mtext").is_err());
        assert!(parse(b"Mtext\0").is_err());
        assert!(parse(b"Mtext\0\0x").is_err());
    }
}
