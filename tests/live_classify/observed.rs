//! A session as PostgreSQL sees it: what it answers, message by message, and what it keeps between transactions.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::live_server::{PORT, Server};

/// How a string of statements is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Simple,
    /// Parse, Bind, Execute, under this name.
    Extended(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    No,
    In,
    Out,
}

/// What the server said, up to its ReadyForQuery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The command tag of each statement that has succeeded, and whether it was a COPY.
    pub done: Vec<(String, Copying)>,
    /// The first column of each row.
    pub values: Vec<Option<String>>,
    /// Its SQLSTATE and its text.
    pub error: Option<(String, String)>,
    /// `I`, `T` or `E`.
    pub status: char,
}

/// A connection of which every message is looked at.
pub struct Connection {
    stream: UnixStream,
    input: BytesMut,
}

impl Connection {
    pub fn open(server: &Server) -> Self {
        let path = format!("{}/.s.PGSQL.{PORT}", server.path());
        let stream = UnixStream::connect(path).unwrap();
        let mut connection = Self { stream, input: BytesMut::new() };
        let mut out = BytesMut::new();
        let settings =
            [("user", "postgres"), ("database", "postgres"), ("client_encoding", "UTF8")];
        frontend::startup_message(settings, &mut out).unwrap();
        connection.send(&out);
        connection.reply();
        connection
    }

    pub fn ask(&mut self, sql: &str, way: Way) -> Reply {
        let mut out = BytesMut::new();
        match way {
            Way::Simple => frontend::query(sql, &mut out).unwrap(),
            Way::Extended(name) => {
                frontend::parse(name, sql, [], &mut out).unwrap();
                let none = || std::iter::empty::<i16>();
                let encode = |(): (), _: &mut BytesMut| unreachable!("there are no parameters");
                frontend::bind("", name, none(), std::iter::empty(), encode, none(), &mut out)
                    .ok()
                    .unwrap();
                frontend::execute("", 0, &mut out).unwrap();
                frontend::sync(&mut out);
            }
        }
        self.send(&out);
        self.reply()
    }

    /// Drops the statement of that name, if there is one.
    pub fn close(&mut self, name: &str) {
        let mut out = BytesMut::new();
        frontend::close(b'S', name, &mut out).unwrap();
        frontend::sync(&mut out);
        self.send(&out);
        self.reply();
    }

    /// One value, as text.
    pub fn value(&mut self, sql: &str) -> Option<String> {
        let reply = self.ask(sql, Way::Simple);
        assert_eq!(reply.error, None, "{sql}");
        reply.values.into_iter().next().flatten()
    }

    /// What this session would lose with its connection: a line for each thing.
    pub fn kept(&mut self) -> BTreeSet<String> {
        let reply = self.ask(KEPT, Way::Simple);
        assert_eq!(reply.error, None);
        reply.values.into_iter().flatten().collect()
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn reply(&mut self) -> Reply {
        let mut reply = Reply { done: Vec::new(), values: Vec::new(), error: None, status: '?' };
        let mut copying = Copying::No;
        loop {
            let Some(message) = Message::parse(&mut self.input).unwrap() else {
                let mut buffer = [0; 1 << 16];
                let count = self.stream.read(&mut buffer).unwrap();
                assert!(count > 0, "the server has closed the connection");
                self.input.extend_from_slice(&buffer[..count]);
                continue;
            };
            match message {
                Message::CommandComplete(body) => {
                    reply.done.push((body.tag().unwrap().to_owned(), copying));
                    copying = Copying::No;
                }
                Message::DataRow(body) => {
                    let value = body.ranges().next().unwrap().flatten();
                    let value = value.map(|range| String::from_utf8_lossy(&body.buffer()[range]));
                    reply.values.push(value.map(std::borrow::Cow::into_owned));
                }
                Message::CopyInResponse(_) => {
                    copying = Copying::In;
                    let mut out = BytesMut::new();
                    frontend::copy_done(&mut out);
                    self.send(&out);
                }
                Message::CopyOutResponse(_) => copying = Copying::Out,
                Message::ErrorResponse(body) => {
                    let mut fields = body.fields();
                    let (mut code, mut text) = (String::new(), String::new());
                    while let Some(field) = fields.next().unwrap() {
                        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
                        match field.type_() {
                            b'C' => code = value,
                            b'M' => text = value,
                            _ => {}
                        }
                    }
                    reply.error = Some((code, text));
                }
                Message::ReadyForQuery(body) => {
                    reply.status = body.status() as char;
                    return reply;
                }
                _ => {}
            }
        }
    }
}

/// Settings of the session, prepared statements, cursors, temporary objects, locks, channels.
const KEPT: &str = "
SELECT 'setting ' || name || '=' || setting FROM pg_settings
  WHERE context IN ('user', 'superuser') AND name NOT LIKE 'transaction%' AND name NOT LIKE '%.%'
UNION ALL SELECT 'setting ' || n || '=' || coalesce(current_setting(n, true), '')
  FROM unnest('{role,session_authorization,a.b}'::text[]) n
UNION ALL SELECT 'prepared ' || name FROM pg_prepared_statements WHERE from_sql
UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
UNION ALL SELECT 'temporary ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'temporary ' || proname FROM pg_proc WHERE pronamespace = pg_my_temp_schema()
UNION ALL SELECT 'lock ' || classid || ' ' || objid || ' ' || mode FROM pg_locks
  WHERE locktype = 'advisory' AND pid = pg_backend_pid()
UNION ALL SELECT 'channel ' || c FROM pg_listening_channels() c";
