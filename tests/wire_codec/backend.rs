//! What a server sends, written by somebody else and read by Segue.

use bytes::{BufMut, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend;
use proptest::prelude::*;
use segue::wire::frame::{self, Frame, Status};
use segue::wire::row::{self, Values};
use segue::wire::{Malformed, error_fields};

use crate::config;

const LIMIT: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    name: String,
    table: u32,
    column: i16,
    type_oid: u32,
    size: i16,
    modifier: i32,
    format: i16,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// ParseComplete, BindComplete, CloseComplete, NoData, PortalSuspended, EmptyQueryResponse, CopyDone.
    Brief(u8),
    Row(Vec<Option<Vec<u8>>>),
    Description(Vec<Field>),
    Parameters(Vec<u32>),
    Complete(String),
    /// Whether it is an error rather than a notice; a letter and a text for each field.
    Complaint(bool, Vec<(u8, String)>),
    Ready(u8),
    Setting(String, String),
    Key(i32, i32),
    Notification(i32, String, String),
    /// CopyInResponse or CopyOutResponse, its format and those of its columns.
    Copy(u8, u8, Vec<i16>),
    CopyData(Vec<u8>),
}

impl Message {
    /// What is said of a result of so many columns; NoData of one that has none.
    pub fn description(columns: usize) -> Self {
        let field = |index: usize| Field {
            name: format!("c{index}"),
            table: 0,
            column: 0,
            type_oid: 17,
            size: -1,
            modifier: -1,
            format: 0,
        };
        match columns {
            0 => Self::Brief(b'n'),
            _ => Self::Description((0..columns).map(field).collect()),
        }
    }

    /// After <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
    pub fn write(&self, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let string = |body: &mut BytesMut, text: &str| {
            body.put_slice(text.as_bytes());
            body.put_u8(0);
        };
        let count = |body: &mut BytesMut, count: usize| body.put_u16(count.try_into().unwrap());
        let tag = match self {
            Self::Brief(tag) => *tag,
            Self::Row(values) => {
                count(&mut body, values.len());
                for value in values {
                    match value {
                        None => body.put_i32(-1),
                        Some(value) => {
                            body.put_i32(value.len().try_into().unwrap());
                            body.put_slice(value);
                        }
                    }
                }
                b'D'
            }
            Self::Description(fields) => {
                count(&mut body, fields.len());
                for field in fields {
                    string(&mut body, &field.name);
                    body.put_u32(field.table);
                    body.put_i16(field.column);
                    body.put_u32(field.type_oid);
                    body.put_i16(field.size);
                    body.put_i32(field.modifier);
                    body.put_i16(field.format);
                }
                b'T'
            }
            Self::Parameters(types) => {
                count(&mut body, types.len());
                types.iter().for_each(|oid| body.put_u32(*oid));
                b't'
            }
            Self::Complete(tag) => {
                string(&mut body, tag);
                b'C'
            }
            Self::Complaint(is_error, fields) => {
                for (letter, text) in fields {
                    body.put_u8(*letter);
                    string(&mut body, text);
                }
                body.put_u8(0);
                if *is_error { b'E' } else { b'N' }
            }
            Self::Ready(status) => {
                body.put_u8(*status);
                b'Z'
            }
            Self::Setting(name, value) => {
                string(&mut body, name);
                string(&mut body, value);
                b'S'
            }
            Self::Key(pid, key) => {
                body.put_i32(*pid);
                body.put_i32(*key);
                b'K'
            }
            Self::Notification(pid, channel, payload) => {
                body.put_i32(*pid);
                string(&mut body, channel);
                string(&mut body, payload);
                b'A'
            }
            Self::Copy(tag, format, columns) => {
                body.put_u8(*format);
                count(&mut body, columns.len());
                columns.iter().for_each(|format| body.put_i16(*format));
                *tag
            }
            Self::CopyData(data) => {
                body.put_slice(data);
                b'd'
            }
        };
        out.put_u8(tag);
        out.put_i32((body.len() + 4).try_into().unwrap());
        out.put_slice(&body);
    }

    /// By the functions that Segue's core reads it with; by `postgres-protocol` where that does.
    fn read(frame: &Frame) -> Result<Self, Malformed> {
        let body = frame.body();
        Ok(match frame.tag() {
            tag @ (b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c') => {
                assert!(body.is_empty());
                Self::Brief(tag)
            }
            b'D' => {
                let values = Values::new(body)?
                    .map(|value| Ok(value?.map(<[u8]>::to_vec)))
                    .collect::<Result<Vec<_>, Malformed>>()?;
                row::check(body, Some(values.len()))?;
                Self::Row(values)
            }
            b'C' => Self::Complete(frame::command_tag(body)?.to_owned()),
            tag @ (b'E' | b'N') => Self::Complaint(tag == b'E', complaint(body)?),
            b'Z' => Self::Ready(match Status::from_body(body)? {
                Status::Idle => b'I',
                Status::Open => b'T',
                Status::Failed => b'E',
            }),
            tag @ (b'G' | b'H') => match frame.parse()? {
                backend::Message::CopyInResponse(body) => {
                    Self::Copy(tag, body.format(), formats(body.column_formats())?)
                }
                backend::Message::CopyOutResponse(body) => {
                    Self::Copy(tag, body.format(), formats(body.column_formats())?)
                }
                _ => unreachable!("of that tag"),
            },
            b'd' => Self::CopyData(body.to_vec()),
            _ => match frame.parse()? {
                backend::Message::RowDescription(body) => {
                    let field = |field: backend::Field<'_>| {
                        Ok(Field {
                            name: field.name().to_owned(),
                            table: field.table_oid(),
                            column: field.column_id(),
                            type_oid: field.type_oid(),
                            size: field.type_size(),
                            modifier: field.type_modifier(),
                            format: field.format(),
                        })
                    };
                    Self::Description(body.fields().map(field).collect()?)
                }
                backend::Message::ParameterDescription(body) => {
                    Self::Parameters(body.parameters().collect()?)
                }
                backend::Message::ParameterStatus(body) => {
                    Self::Setting(body.name()?.to_owned(), body.value()?.to_owned())
                }
                backend::Message::BackendKeyData(body) => {
                    Self::Key(body.process_id(), body.secret_key())
                }
                backend::Message::NotificationResponse(body) => Self::Notification(
                    body.process_id(),
                    body.channel()?.to_owned(),
                    body.message()?.to_owned(),
                ),
                _ => panic!("a message of type {}", frame.tag() as char),
            },
        })
    }
}

fn formats(
    formats: impl FallibleIterator<Item = u16, Error = std::io::Error>,
) -> Result<Vec<i16>, Malformed> {
    Ok(formats.map(|format| Ok(format.cast_signed())).collect()?)
}

/// The letter and the text of each field, in the order of [`FIELDS`].
fn complaint(body: &[u8]) -> Result<Vec<(u8, String)>, Malformed> {
    let error = error_fields::parse(body)?;
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    let texts = [
        (!error.severity.is_empty()).then(|| error.severity.clone()),
        (!error.code.is_empty()).then(|| error.code.clone()),
        (!error.message.is_empty()).then(|| error.message.clone()),
        error.detail.clone(),
        error.hint.clone(),
        number(error.position),
        number(error.internal_position),
        error.internal_query.clone(),
        error.context.clone(),
        error.schema.clone(),
        error.table.clone(),
        error.column.clone(),
        error.datatype.clone(),
        error.constraint.clone(),
        error.file.clone(),
        number(error.line),
        error.routine.clone(),
    ];
    Ok(FIELDS.iter().zip(texts).filter_map(|(letter, text)| Some((*letter, text?))).collect())
}

const FIELDS: &[u8; 17] = b"VCMDHPpqWstcdnFLR";

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[^\0]{0,30}", "[a-z]{1,9}"]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..60)
}

fn field() -> impl Strategy<Value = Field> {
    (text(), any::<u32>(), any::<i16>(), any::<u32>(), any::<i16>(), any::<i32>(), 0..=1_i16)
        .prop_map(|(name, table, column, type_oid, size, modifier, format)| Field {
            name,
            table,
            column,
            type_oid,
            size,
            modifier,
            format,
        })
}

/// Some of the fields, each once; numbers where numbers belong.
fn fields() -> impl Strategy<Value = Vec<(u8, String)>> {
    let text_of = |letter: u8| match letter {
        b'P' | b'p' | b'L' => any::<u32>().prop_map(|number| number.to_string()).boxed(),
        b'V' | b'C' | b'M' => "[^\0]{1,20}".boxed(),
        _ => text().boxed(),
    };
    let each: Vec<_> =
        FIELDS.iter().map(|letter| prop::option::of(text_of(*letter)).boxed()).collect();
    each.prop_map(|texts| {
        FIELDS.iter().zip(texts).filter_map(|(letter, text)| Some((*letter, text?))).collect()
    })
}

pub fn message() -> impl Strategy<Value = Message> {
    use Message::*;
    let row = prop::collection::vec(prop::option::weighted(0.8, data()), 0..6).prop_map(Row);
    prop_oneof![
        prop::sample::select(&b"123nsIc"[..]).prop_map(Brief),
        row,
        prop::collection::vec(field(), 0..5).prop_map(Description),
        prop::collection::vec(any::<u32>(), 0..6).prop_map(Parameters),
        text().prop_map(Complete),
        (any::<bool>(), fields()).prop_map(|(is_error, fields)| Complaint(is_error, fields)),
        prop::sample::select(&b"ITE"[..]).prop_map(Ready),
        (text(), text()).prop_map(|(name, value)| Setting(name, value)),
        (any::<i32>(), any::<i32>()).prop_map(|(pid, key)| Key(pid, key)),
        (any::<i32>(), text(), text())
            .prop_map(|(pid, channel, payload)| Notification(pid, channel, payload)),
        (prop::sample::select(&b"GH"[..]), 0..=1_u8, prop::collection::vec(0..=1_i16, 0..4))
            .prop_map(|(tag, format, columns)| Copy(tag, format, columns)),
        data().prop_map(CopyData),
    ]
}

/// All that can be read off `buf`.
fn take_all(buf: &mut BytesMut) -> Vec<Message> {
    let mut taken = Vec::new();
    while let Some(frame) = Frame::take(buf, LIMIT).expect("well-formed") {
        taken.push(Message::read(&frame).expect("well-formed"));
    }
    taken
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_backend_message_is_read_as_it_was_meant_wherever_it_is_cut(
        sent in prop::collection::vec(message(), 1..5),
    ) {
        let mut stream = BytesMut::new();
        let mut ends = Vec::new();
        for message in &sent {
            message.write(&mut stream);
            ends.push(stream.len());
        }
        for cut in 0..=stream.len() {
            let (front, back) = stream.split_at(cut);
            let mut buf = BytesMut::from(front);
            let mut read = take_all(&mut buf);
            // A message is taken once it has arrived in full, and not before.
            prop_assert_eq!(read.len(), ends.iter().filter(|end| **end <= cut).count());
            buf.extend_from_slice(back);
            read.extend(take_all(&mut buf));
            prop_assert_eq!(&read, &sent, "cut at {}", cut);
            prop_assert!(buf.is_empty());
        }
    }

    /// A body that is a byte short or long is refused, never read as something else.
    #[test]
    fn a_row_of_another_length_than_it_says_is_refused(
        values in prop::collection::vec(prop::option::weighted(0.8, data()), 0..6),
        columns in 0_usize..7,
    ) {
        let mut message = BytesMut::new();
        let count = values.len();
        Message::Row(values).write(&mut message);
        let body = &message[frame::HEADER..];
        prop_assert_eq!(row::check(body, Some(columns)).is_ok(), columns == count);
        for short in 0..body.len() {
            prop_assert!(row::check(&body[..short], None).is_err(), "cut at {}", short);
        }
        let longer = [body, &[0]].concat();
        prop_assert!(row::check(&longer, None).is_err());
    }
}
