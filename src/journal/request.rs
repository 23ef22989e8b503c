//! Reads the parameters out of a statement's request, so that the application can be given what it had
//! executed.
//!
//! Pure. The bytes are frontend messages, big endian, as `session` wrote them; what does not fit ends the
//! reading.

use super::record::{Form, Param, Statement};

/// Bind.
const BIND: u8 = b'B';
/// CopyData, and what ends it: CopyDone or CopyFail.
const COPY_DATA: u8 = b'd';
const COPY_ENDS: [u8; 2] = [b'c', b'f'];

impl<'a> Statement<'a> {
    /// The parameters of each execution: one for each Bind, in order. Empty for a simple query. `None` if
    /// the request is not made of whole messages.
    pub fn executions(&self) -> Option<Vec<Vec<Param<'a>>>> {
        let mut executions = Vec::new();
        if self.form == Form::Simple {
            return Some(executions);
        }
        for message in messages(self.request) {
            let (tag, body) = message?;
            if tag == BIND {
                executions.push(self.bound(body)?);
            }
        }
        Some(executions)
    }

    /// The data of a COPY FROM STDIN, piece by piece as it was sent, as far as whole pieces are there.
    pub fn copy_data(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let of_simple = self.form == Form::Simple;
        messages(if of_simple { &[] } else { self.request })
            .map_while(|message| message)
            .filter(|(tag, _)| *tag == COPY_DATA)
            .map(|(_, data)| data)
    }

    /// Whether the data of a COPY FROM STDIN are all there.
    pub fn copy_has_ended(&self) -> bool {
        messages(self.request).flatten().any(|(tag, _)| COPY_ENDS.contains(&tag))
    }

    fn bound(&self, body: &'a [u8]) -> Option<Vec<Param<'a>>> {
        let mut body = Body(body);
        body.skip_text()?;
        body.skip_text()?;
        let count = body.u16()?;
        let formats: Vec<u16> = (0..count).map(|_| body.u16()).collect::<Option<_>>()?;
        let count = body.u16()?;
        (0..usize::from(count))
            .map(|index| {
                // One format may stand for all; none means text.
                let format = match formats.as_slice() {
                    [] => 0,
                    [format] => *format,
                    formats => *formats.get(index)?,
                };
                let oid = self.param_oids.get(index).copied().unwrap_or_default();
                Some(Param { oid, format, value: body.value()? })
            })
            .collect()
    }
}

/// Tag and body of each message; `None`, and then no more, for one that is not whole.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = Option<(u8, &[u8])>> {
    std::iter::from_fn(move || {
        let (tag, behind) = rest.split_first()?;
        rest = &[];
        let len =
            behind.first_chunk().and_then(|len| usize::try_from(u32::from_be_bytes(*len)).ok());
        let Some((message, next)) = len.and_then(|len| behind.split_at_checked(len)) else {
            return Some(None);
        };
        rest = next;
        Some(message.get(4..).map(|body| (*tag, body)))
    })
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn skip_text(&mut self) -> Option<()> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        self.0 = &self.0[end + 1..];
        Some(())
    }

    fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    fn value(&mut self) -> Option<Option<&'a [u8]>> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        let len = i32::from_be_bytes(*bytes);
        if len == -1 {
            return Some(None);
        }
        let (value, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use postgres_protocol::IsNull;
    use postgres_protocol::message::frontend;

    use super::*;

    fn request(formats: &[i16], executions: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for values in executions {
            let written = frontend::bind(
                "",
                "segue_1",
                formats.iter().copied(),
                values.iter(),
                |value, out| match value {
                    Some(value) => {
                        out.extend_from_slice(value);
                        Ok(IsNull::No)
                    }
                    None => Ok(IsNull::Yes),
                },
                [1],
                &mut out,
            );
            assert!(written.is_ok());
            frontend::execute("", 0, &mut out).unwrap();
        }
        out.to_vec()
    }

    fn statement<'a>(form: Form, request: &'a [u8]) -> Statement<'a> {
        Statement { form, sql: "", param_oids: vec![23, 25].into(), request }
    }

    #[test]
    fn parameters_come_back() {
        let values: [Option<&[u8]>; 2] = [Some(b"1"), None];
        let bytes = request(&[1, 0], &[&values, &[Some(b"2"), Some(b"")]]);
        let executions = statement(Form::Extended, &bytes).executions().unwrap();
        let param = |oid, format, value| Param { oid, format, value };
        assert!(executions[0] == [param(23, 1, Some(&b"1"[..])), param(25, 0, None)]);
        assert!(executions[1] == [param(23, 1, Some(&b"2"[..])), param(25, 0, Some(&b""[..]))]);
        assert_eq!(executions.len(), 2);
        let bytes = request(&[1], &[&values]);
        let executions = statement(Form::Extended, &bytes).executions().unwrap();
        assert!(executions[0][1].format == 1, "one format stands for all");
        let bytes = request(&[], &[&values]);
        assert!(statement(Form::Extended, &bytes).executions().unwrap()[0][1].format == 0);
        assert!(statement(Form::Simple, b"SELECT 1").executions().unwrap().is_empty());
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let bytes = request(&[1, 0], &[&[Some(b"1"), Some(b"22")]]);
        let whole = bytes.len() - 10;
        for len in (1..whole).chain(whole + 1..bytes.len()) {
            assert!(statement(Form::Extended, &bytes[..len]).executions().is_none(), "{len}");
        }
        // A length within the message that leads beyond it.
        let mut wrong = bytes.clone();
        let at = wrong.windows(4).position(|w| w == [0, 0, 0, 2]).unwrap();
        wrong[at + 3] = 200;
        assert!(statement(Form::Extended, &wrong).executions().is_none());
    }
}
