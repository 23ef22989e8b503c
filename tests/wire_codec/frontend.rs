//! What Segue sends, read by somebody else.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use proptest::prelude::*;
use segue::session::{
    BeginOptions, Execute, LedgerAccess, LinkReady, Options, Parameters, Session, Statement,
    internals,
};
use segue::wire::execution;

use crate::config;
use crate::reader::{Reader, messages};

#[derive(Debug, Clone, PartialEq)]
enum Message {
    Query(String),
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    Bind {
        portal: String,
        statement: String,
        formats: Vec<i16>,
        values: Vec<Option<Vec<u8>>>,
        results: Vec<i16>,
    },
    Execute {
        portal: String,
        rows_max: i32,
    },
    Describe {
        kind: u8,
        name: String,
    },
    Close {
        kind: u8,
        name: String,
    },
    Sync,
    Flush,
    CopyData(Vec<u8>),
    CopyDone,
    CopyFail(String),
    Password(String),
    SaslInitial {
        mechanism: String,
        data: Vec<u8>,
    },
    SaslResponse(Vec<u8>),
    Terminate,
}

impl Message {
    /// By the functions that Segue's core sends them with.
    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Query(sql) => frontend::query(sql, out).unwrap(),
            Self::Parse { name, sql, types } => {
                frontend::parse(name, sql, types.iter().copied(), out).unwrap();
            }
            Self::Bind { portal, statement, formats, values, results } => {
                assert!(portal.is_empty(), "Segue has but the unnamed portal");
                let mut both = BytesMut::new();
                let encode = |index: usize, out: &mut BytesMut| {
                    Ok(match &values[index] {
                        Some(value) => {
                            out.put_slice(value);
                            IsNull::No
                        }
                        None => IsNull::Yes,
                    })
                };
                let formats = formats.iter().copied();
                execution::write(statement, formats, encode, results, &mut both).ok().unwrap();
                // Execute is written along with it.
                let length = both.len() - 10;
                out.put_slice(&both[..length]);
                assert_eq!(&both[length..], b"E\0\0\0\x09\0\0\0\0\0");
            }
            Self::Execute { portal, rows_max } => {
                frontend::execute(portal, *rows_max, out).unwrap()
            }
            Self::Describe { kind, name } => frontend::describe(*kind, name, out).unwrap(),
            Self::Close { kind, name } => frontend::close(*kind, name, out).unwrap(),
            Self::Sync => out.put_slice(execution::SYNC),
            Self::Flush => frontend::flush(out),
            Self::CopyData(data) => frontend::CopyData::new(&data[..]).unwrap().write(out),
            Self::CopyDone => frontend::copy_done(out),
            Self::CopyFail(text) => frontend::copy_fail(text, out).unwrap(),
            Self::Password(text) => frontend::password_message(text.as_bytes(), out).unwrap(),
            Self::SaslInitial { mechanism, data } => {
                frontend::sasl_initial_response(mechanism, data, out).unwrap();
            }
            Self::SaslResponse(data) => frontend::sasl_response(data, out).unwrap(),
            Self::Terminate => frontend::terminate(out),
        }
    }

    /// After <https://www.postgresql.org/docs/current/protocol-message-formats.html>. What 'p' means
    /// depends on what the server has asked for.
    fn read(tag: u8, body: &[u8], asked: &Self) -> Self {
        let mut it = Reader(body);
        let message = match tag {
            b'Q' => Self::Query(it.string()),
            b'P' => Self::Parse {
                name: it.string(),
                sql: it.string(),
                types: it.list(|it| it.int32().cast_unsigned()),
            },
            b'B' => Self::Bind {
                portal: it.string(),
                statement: it.string(),
                formats: it.list(Reader::int16),
                values: it.list(Reader::value),
                results: it.list(Reader::int16),
            },
            b'E' => Self::Execute { portal: it.string(), rows_max: it.int32() },
            b'D' => Self::Describe { kind: it.byte(), name: it.string() },
            b'C' => Self::Close { kind: it.byte(), name: it.string() },
            b'S' => Self::Sync,
            b'H' => Self::Flush,
            b'd' => Self::CopyData(it.rest().to_vec()),
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail(it.string()),
            b'p' if matches!(asked, Self::SaslInitial { .. }) => Self::SaslInitial {
                mechanism: it.string(),
                data: it.value().expect("the client speaks first"),
            },
            b'p' if matches!(asked, Self::SaslResponse(_)) => {
                Self::SaslResponse(it.rest().to_vec())
            }
            b'p' => Self::Password(it.string()),
            b'X' => Self::Terminate,
            _ => panic!("a message of type {}", tag as char),
        };
        it.end();
        message
    }
}

/// What can be a text in the protocol.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[^\0]{0,40}", "[a-z]{1,9}"]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    prop::collection::vec(prop::option::weighted(0.8, data()), 0..9)
}

fn formats() -> impl Strategy<Value = Vec<i16>> {
    prop::collection::vec(0..=1_i16, 0..4)
}

fn message() -> impl Strategy<Value = Message> {
    use Message::*;
    let bind = (text(), values(), formats(), any::<bool>()).prop_map(
        |(statement, values, results, binary)| Bind {
            portal: String::new(),
            statement,
            formats: vec![i16::from(binary); values.len()],
            values,
            results,
        },
    );
    prop_oneof![
        text().prop_map(Query),
        (text(), text(), prop::collection::vec(any::<u32>(), 0..9))
            .prop_map(|(name, sql, types)| Parse { name, sql, types }),
        bind,
        (text(), any::<i32>()).prop_map(|(portal, rows_max)| Execute { portal, rows_max }),
        (prop::sample::select(&b"SP"[..]), text()).prop_map(|(kind, name)| Describe { kind, name }),
        (prop::sample::select(&b"SP"[..]), text()).prop_map(|(kind, name)| Close { kind, name }),
        Just(Sync),
        Just(Flush),
        data().prop_map(CopyData),
        Just(CopyDone),
        text().prop_map(CopyFail),
        text().prop_map(Password),
        (text(), data()).prop_map(|(mechanism, data)| SaslInitial { mechanism, data }),
        data().prop_map(SaslResponse),
        Just(Terminate),
    ]
}

/// Parameters as an application gives them.
#[derive(Debug)]
struct Given<'a> {
    values: &'a [Option<Vec<u8>>],
    format: i16,
}

impl Parameters for Given<'_> {
    fn count(&self) -> usize {
        self.values.len()
    }

    fn format(&self, _: usize) -> i16 {
        self.format
    }

    fn encode(
        &self,
        index: usize,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match &self.values[index] {
            Some(value) => {
                out.put_slice(value);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }
}

/// On its first link, with nothing to say.
pub fn live_session() -> Session {
    let mut session = Session::new(
        Options {
            journal_bytes_max: 1 << 20,
            message_bytes_max: 1 << 20,
            statement_cache_size: 16,
            rotate_commits: 100,
            retry_conflicts: 0,
            writes: true,
            backup_acknowledges: false,
            reply_before_commit: false,
            ledger_required: false,
            reapply: false,
            files: false,
        },
        1,
    );
    // Without a ledger nothing of Segue's own stands between the application's messages.
    session
        .handle_link_ready(LinkReady {
            timeline: 1,
            // Segue's own statements are prepared already.
            prepared: (0..internals::FIRST_STATEMENT).collect(),
            ledger: LedgerAccess::None,
            ..LinkReady::default()
        })
        .unwrap();
    assert!(session.is_live() && !session.has_output());
    session
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_frontend_message_is_read_as_it_was_meant(
        sent in prop::collection::vec(message(), 1..9),
    ) {
        let mut out = BytesMut::new();
        sent.iter().for_each(|message| message.write(&mut out));
        let read = messages(&out);
        prop_assert_eq!(read.len(), sent.len());
        for ((tag, body), sent) in read.into_iter().zip(&sent) {
            prop_assert_eq!(&Message::read(tag, body, sent), sent);
        }
    }

    #[test]
    fn a_startup_packet_says_who_comes_and_with_what(
        settings in prop::collection::vec(("[a-z_]{1,12}", "[^\0]{0,30}"), 0..6),
    ) {
        let mut out = BytesMut::new();
        let pairs = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        frontend::startup_message(pairs, &mut out).unwrap();
        let mut it = Reader(&out);
        prop_assert_eq!(usize::try_from(it.int32()).unwrap(), out.len());
        prop_assert_eq!(it.int32(), 3 << 16);
        for (name, value) in &settings {
            prop_assert_eq!((&it.string(), &it.string()), (name, value));
        }
        prop_assert_eq!(it.byte(), 0);
        it.end();
    }

    /// What an application asks of a session arrives at the server as it was asked: the text, the types, the
    /// values bit by bit, whatever the session makes of them on the way (journal, names, batches).
    #[test]
    fn what_a_session_is_asked_is_what_a_server_reads(
        asked in prop::collection::vec((0_usize..4, values(), any::<bool>()), 1..6),
        in_transaction in any::<bool>(),
    ) {
        let texts = ["SELECT $1", "INSERT INTO t VALUES ($1)", "SHOW a", "CALL p($1)"];
        let mut session = live_session();
        if in_transaction {
            let options = BeginOptions { sql: "BEGIN READ WRITE".to_owned(), read_only: false };
            session.begin(options).unwrap();
        }
        let mut expected = Vec::new();
        for ((text, values, binary), id) in asked.iter().zip(100..) {
            let statement = Arc::new(Statement::new(id, texts[*text], &[17], true).unwrap());
            let given = Given { values, format: i16::from(*binary) };
            session
                .execute(Execute {
                    statement: &statement,
                    parameters: &given,
                    text_results: *binary,
                    streamed: false,
                })
                .unwrap();
            expected.push((texts[*text], given));
        }
        let sent = messages(session.output())
            .into_iter()
            .map(|(tag, body)| Message::read(tag, body, &Message::Sync))
            .collect::<Vec<_>>();
        session.handle_sent();

        // As a server keeps it: the last text under each name; a Bind runs what its name says.
        let mut prepared = std::collections::HashMap::new();
        let mut ran = Vec::new();
        for message in &sent {
            match message {
                Message::Parse { name, sql, types } => {
                    prepared.insert(name.clone(), (sql.clone(), types.clone()));
                }
                Message::Bind { statement, formats, values, results, .. } => {
                    let (sql, types) = prepared.get(statement).expect("it was parsed before");
                    ran.push((sql.clone(), types.clone(), formats.clone(), values.clone(), results.clone()));
                }
                _ => {}
            }
        }
        if in_transaction {
            let (begin, ..) = ran.remove(0);
            prop_assert_eq!(begin, "BEGIN READ WRITE");
        }
        prop_assert_eq!(ran.len(), expected.len());
        for ((sql, types, formats, values, results), (text, given)) in ran.iter().zip(&expected) {
            prop_assert_eq!(sql, text);
            prop_assert_eq!(&types[..], &[17]);
            prop_assert_eq!(&values[..], given.values);
            prop_assert!(formats.iter().all(|format| *format == given.format));
            prop_assert_eq!(&results[..], &[1 - given.format]);
        }
        prop_assert_eq!(sent.last(), Some(&Message::Sync));
        let executes = sent.iter().filter(|message| matches!(message, Message::Execute { .. }));
        prop_assert_eq!(executes.count(), expected.len() + usize::from(in_transaction));
    }
}
