//! A link of the background thread's with the little protocol that the cluster needs: ask, and
//! read to ReadyForQuery; listen for a server's last words while nothing is asked.
//!
//! What is read is never more than what was asked for, so that a link which is handed to a session
//! starts clean.

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::detector::Failure;
use super::picture::Observed;
use super::probe::{self, Row};
use crate::config::{Config, Host};
use crate::error::{Error, Result, ServerError};
use crate::link::{AsyncLink, Link};
use crate::wire::frame::{self, Frame};
use crate::wire::row::Values;
use crate::wire::{Malformed, error_fields};

/// How long a broken link is still read for the server's last words.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// The cluster asks for little; no answer may be larger.
const ANSWER_MAX: usize = 1 << 20;

/// Prepared statements are sent so many at a time, so that their answers always fit the socket's
/// buffers while nobody reads them.
const BATCH: usize = 32;

/// What tells that a server may have become another one.
const TELLING: [&[u8]; 2] = [b"in_hot_standby", b"default_transaction_read_only"];

pub struct Conn {
    link: AsyncLink,
    buf: BytesMut,
    /// A telling parameter has changed since the last probe.
    changed: bool,
    /// The last full answer to a probe.
    known: Option<Row>,
}

/// Everything up to one ReadyForQuery.
#[derive(Debug, Default)]
pub struct Reply {
    pub rows: Vec<Row>,
    pub error: Option<ServerError>,
}

impl Conn {
    pub async fn dial(config: &Config, host: &Host) -> Result<Self, Failure> {
        match AsyncLink::dial(config, host).await {
            Ok(link) => Ok(Self { link, buf: BytesMut::new(), changed: false, known: None }),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Whether a telling parameter has changed since the last probe.
    pub fn changed(&self) -> bool {
        self.changed
    }

    /// A bare Sync: five bytes, starts no transaction. Returns what a probe told, which is sent
    /// right after where a telling parameter has changed.
    pub async fn poll(&mut self, probe_sql: &str) -> Result<Option<Observed>, Failure> {
        let mut out = BytesMut::new();
        frontend::sync(&mut out);
        let reply = self.request(&out).await?;
        if let Some(error) = reply.error {
            return Err(Failure::of_last_words(&error, None));
        }
        match (self.changed, self.known.take()) {
            (false, known) => {
                self.known = known;
                Ok(None)
            }
            (true, None) => self.probe(probe_sql).await.map(Some),
            (true, Some(known)) => {
                let (mut row, asked) = self.ask(&probe::brief_sql()).await?;
                probe::complete(&mut row, &known);
                self.known = Some(known);
                probe::read(&row, asked).map(Some).map_err(malformed)
            }
        }
    }

    /// Asks the server what it is.
    pub async fn probe(&mut self, sql: &str) -> Result<Observed, Failure> {
        let (row, asked) = self.ask(sql).await?;
        let observed = probe::read(&row, asked).map_err(malformed)?;
        self.known = Some(row);
        Ok(observed)
    }

    async fn ask(&mut self, sql: &str) -> Result<(Row, Instant), Failure> {
        let asked = Instant::now();
        self.changed = false;
        let mut reply = self.query(sql).await?;
        if let Some(error) = reply.error {
            return Err(Failure::of_last_words(&error, None));
        }
        match reply.rows.is_empty() {
            true => Err(malformed(Malformed("a probe's answer has no row"))),
            false => Ok((reply.rows.swap_remove(0), asked)),
        }
    }

    /// Runs a string of statements by the simple protocol.
    pub async fn query(&mut self, sql: &str) -> Result<Reply, Failure> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|e| Failure::Gone(e.to_string()))?;
        self.request(&out).await
    }

    /// Sends Parse messages, each with a Sync of its own so that a failure spoils no other.
    /// Returns which of them succeeded, in order.
    pub async fn prepare(&mut self, messages: &[u8]) -> Result<Vec<bool>, Failure> {
        let groups = split_at_parses(messages).map_err(malformed)?;
        let mut succeeded = Vec::with_capacity(groups.len());
        for batch in groups.chunks(BATCH) {
            let mut out = BytesMut::new();
            for group in batch {
                out.extend_from_slice(group);
                frontend::sync(&mut out);
            }
            self.send(&out).await?;
            for _ in batch {
                succeeded.push(self.reply().await?.error.is_none());
            }
        }
        Ok(succeeded)
    }

    /// Waits until the link breaks, or until a telling parameter has changed. Cancel safe.
    pub async fn listen(&mut self) -> Result<(), Failure> {
        loop {
            while let Some(frame) = self.take()? {
                self.aside(&frame)?;
            }
            if self.changed {
                return Ok(());
            }
            self.receive().await?;
        }
    }

    /// Whether the link has broken, as far as is known without waiting.
    pub async fn is_alive(&mut self) -> bool {
        if self.changed {
            return self.buf.is_empty();
        }
        tokio::select! {
            biased;
            end = self.listen() => end.is_ok() && self.buf.is_empty(),
            () = std::future::ready(()) => self.buf.is_empty(),
        }
    }

    /// The link for a session. Nothing may be outstanding on it.
    pub fn into_blocking(self) -> io::Result<Link> {
        self.link.into_blocking()
    }

    async fn request(&mut self, bytes: &[u8]) -> Result<Reply, Failure> {
        self.send(bytes).await?;
        self.reply().await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.link.send(bytes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_words(&error).await),
        }
    }

    /// Reads up to and including the next ReadyForQuery.
    async fn reply(&mut self) -> Result<Reply, Failure> {
        let mut reply = Reply::default();
        loop {
            let Some(frame) = self.take()? else {
                self.receive().await?;
                continue;
            };
            match frame.tag() {
                b'Z' => return Ok(reply),
                b'D' => reply.rows.push(row(frame.body()).map_err(malformed)?),
                b'E' => {
                    let error = error_fields::parse(frame.body()).map_err(malformed)?;
                    if is_fatal(&error) {
                        return Err(Failure::of_last_words(&error, None));
                    }
                    reply.error.get_or_insert(error);
                }
                // Nothing that the cluster asks for starts a COPY.
                b'G' | b'H' | b'W' => return Err(malformed(Malformed("COPY begins unasked"))),
                b'S' | b'N' => self.aside(&frame)?,
                _ => {}
            }
        }
    }

    /// A message that the server may send at any time.
    fn aside(&mut self, frame: &Frame) -> Result<(), Failure> {
        match frame.tag() {
            b'S' => {
                let name = frame.body().split(|byte| *byte == 0).next().unwrap_or_default();
                self.changed |= TELLING.contains(&name);
                Ok(())
            }
            b'A' => Ok(()),
            b'E' | b'N' => {
                let words = error_fields::parse(frame.body()).map_err(malformed)?;
                // A server that is stopped or crashes says so in a mere Notice.
                let deadly =
                    frame.tag() == b'E' || matches!(words.code.as_str(), "57P01" | "57P02");
                match deadly {
                    true => Err(Failure::of_last_words(&words, None)),
                    false => Ok(()),
                }
            }
            _ => Err(malformed(Malformed("an answer that nobody has asked for"))),
        }
    }

    fn take(&mut self) -> Result<Option<Frame>, Failure> {
        Frame::take(&mut self.buf, ANSWER_MAX).map_err(malformed)
    }

    async fn receive(&mut self) -> Result<(), Failure> {
        match self.link.recv(&mut self.buf).await {
            Ok(0) => Err(Failure::Gone("the server closed the connection".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::Gone(error.to_string())),
        }
    }

    /// Sending has failed: what the server managed to say before the end tells more.
    async fn last_words(&mut self, error: &io::Error) -> Failure {
        let listening = async {
            loop {
                let Ok(frame) = self.take() else { return None };
                let Some(frame) = frame else {
                    self.receive().await.ok()?;
                    continue;
                };
                if let (b'E' | b'N', Err(failure)) = (frame.tag(), self.aside(&frame)) {
                    return Some(failure);
                }
            }
        };
        let words = tokio::time::timeout(LAST_WORDS, listening).await.ok().flatten();
        words.unwrap_or_else(|| Failure::Gone(error.to_string()))
    }
}

/// The error for a caller whose own statement the server refused.
pub fn refused(error: ServerError) -> Error {
    Error::server(error, crate::Outcome::NotCommitted)
}

fn is_fatal(error: &ServerError) -> bool {
    matches!(error.severity.as_str(), "FATAL" | "PANIC")
}

fn malformed(error: Malformed) -> Failure {
    Failure::Gone(error.to_string())
}

fn row(body: &[u8]) -> Result<Row, Malformed> {
    let text = |value: Option<&[u8]>| value.map(|v| String::from_utf8_lossy(v).into_owned());
    Values::new(body)?.map(|value| value.map(text)).collect()
}

/// Cuts frontend messages into groups, each of which begins with a Parse.
fn split_at_parses(messages: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < messages.len() {
        let Some((tag, length)) = frame::peek(&messages[at..], messages.len())? else {
            return Err(Malformed("a message to prepare ends before its header does"));
        };
        if tag == b'P' {
            starts.push(at);
        }
        at += length;
    }
    if at != messages.len() || (at > 0 && starts.first() != Some(&0)) {
        return Err(Malformed("what is to be prepared is not a sequence of Parse messages"));
    }
    let ends = starts.iter().skip(1).copied().chain([messages.len()]);
    Ok(starts.iter().zip(ends).map(|(start, end)| &messages[*start..end]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_a_statement_begins() {
        let mut out = BytesMut::new();
        frontend::parse("a", "SELECT 1", [], &mut out).unwrap();
        let first = out.len();
        frontend::describe(b'S', "a", &mut out).unwrap();
        let second = out.len();
        frontend::parse("b", "SELECT 2", [], &mut out).unwrap();
        let groups = split_at_parses(&out).unwrap();
        assert_eq!(groups, [&out[..second], &out[second..]]);
        assert!(split_at_parses(&out[first..]).is_err(), "it begins with a Describe");
        assert!(split_at_parses(&out[..out.len() - 1]).is_err(), "it is cut short");
        assert!(split_at_parses(b"").unwrap().is_empty());
    }
}
