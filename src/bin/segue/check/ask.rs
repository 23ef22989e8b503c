//! One link to one server, and simple questions on it. Everything has a deadline; nothing is ever
//! changed: questions are asked inside READ ONLY transactions.

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;
use segue::config::Host;
use segue::link::{AsyncLink, Link, LinkInfo};
use segue::{Config, Error, ErrorKind};

/// A server that is reachable answers within this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Where the configuration waits for longer, or for ever, a doctor does not.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

pub type Row = Vec<Option<String>>;

pub struct Asker {
    link: Link,
    buffer: BytesMut,
    /// The link is out of step, or gone.
    broken: bool,
}

impl Asker {
    pub fn dial(config: &Config, host: &Host) -> Result<Self, Error> {
        let mut config = config.clone();
        let timeout = config.connect_timeout.unwrap_or(CONNECT_TIMEOUT_MAX);
        config.connect_timeout = Some(timeout.min(CONNECT_TIMEOUT_MAX));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::new(ErrorKind::Connect, "no runtime").with_source(error))?;
        let link = runtime.block_on(async {
            let link = AsyncLink::dial(&config, host).await?;
            link.into_blocking().map_err(|error| {
                Error::new(ErrorKind::Connect, "the socket could not be used").with_source(error)
            })
        })?;
        Ok(Self { link, buffer: BytesMut::new(), broken: false })
    }

    pub fn info(&self) -> &LinkInfo {
        self.link.info()
    }

    /// The rows of one SELECT, as text; an error in words.
    pub fn ask(&mut self, question: &str) -> Result<Vec<Row>, String> {
        if self.broken {
            return Err("the link was lost".to_owned());
        }
        // On a standby nothing can be asked where the default isolation level is serializable.
        let sql = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {question}; COMMIT");
        let answer = self.exchange(&sql);
        if answer.is_err() && !self.broken {
            // The transaction is open and failed.
            let _ = self.exchange("ROLLBACK");
        }
        answer
    }

    /// The first row of the answer.
    pub fn row(&mut self, question: &str) -> Result<Row, String> {
        self.ask(question)?
            .into_iter()
            .next()
            .ok_or_else(|| "the server returned no row".to_owned())
    }

    fn exchange(&mut self, sql: &str) -> Result<Vec<Row>, String> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|error| error.to_string())?;
        let done = self.link.send(&out).and_then(|()| self.read());
        match done {
            Ok(answer) => answer,
            Err(error) => {
                self.broken = true;
                Err(error.to_string())
            }
        }
    }

    /// Reads up to ReadyForQuery; the outer error is the link's, the inner one the server's.
    fn read(&mut self) -> io::Result<Result<Vec<Row>, String>> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut answer = Ok(Vec::new());
        loop {
            match Message::parse(&mut self.buffer)? {
                None => {
                    if self.link.recv_deadline(&mut self.buffer, deadline)? == 0 {
                        return Err(io::Error::other("the server closed the connection"));
                    }
                }
                Some(Message::DataRow(body)) => {
                    if let Ok(rows) = &mut answer {
                        rows.push(row(&body)?);
                    }
                }
                Some(Message::ErrorResponse(body)) => {
                    let mut message = String::new();
                    let mut code = String::new();
                    let mut fields = body.fields();
                    while let Some(field) = fields.next()? {
                        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
                        match field.type_() {
                            b'M' => message = value,
                            b'C' => code = value,
                            _ => {}
                        }
                    }
                    answer = Err(format!("{message} ({code})"));
                }
                Some(Message::ReadyForQuery(_)) => return Ok(answer),
                Some(_) => {}
            }
        }
    }

    pub fn close(self) {
        if !self.broken {
            self.link.close();
        }
    }
}

fn row(body: &DataRowBody) -> io::Result<Row> {
    let buffer = body.buffer();
    body.ranges()
        .map(|range| {
            Ok(range
                .and_then(|range| buffer.get(range))
                .map(|value| String::from_utf8_lossy(value).into_owned()))
        })
        .collect()
}
