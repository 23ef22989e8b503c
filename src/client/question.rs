//! Questions of Segue's own on a link that no session uses: simple queries, and their rows as text.

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::{Error, ErrorKind, Outcome, Result, ServerError};
use crate::link::Link;
use crate::wire::frame::Frame;
use crate::wire::{Malformed, error_fields, row};

/// While an answer is waited for, its asker is asked so often whether to go on waiting.
const ATTENTION: Duration = Duration::from_millis(50);

/// No answer to a question of Segue's own is larger.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Rows of text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Sends a simple query and waits for its end.
pub(super) fn ask(
    link: &mut Link,
    input: &mut BytesMut,
    sql: &str,
    deadline: Instant,
    stops: &mut dyn FnMut() -> bool,
) -> Result<Rows> {
    let mut out = BytesMut::new();
    frontend::query(sql, &mut out).map_err(broken)?;
    exchange(link, input, &out, deadline, stops)
}

/// Sends messages that end with a Sync, or are one simple query, and waits for the end of the answer:
/// until the deadline, and as long as `stops` says no. Then, and when the link has broken, the error's
/// kind is [`ErrorKind::Connect`] and the link is of no further use.
pub(super) fn exchange(
    link: &mut Link,
    input: &mut BytesMut,
    out: &[u8],
    deadline: Instant,
    stops: &mut dyn FnMut() -> bool,
) -> Result<Rows> {
    let malformed = |error| broken(io::Error::new(io::ErrorKind::InvalidData, error));
    link.exchange(out, input).map_err(broken)?;
    let mut reply = Reply::default();
    loop {
        if let Some(ended) = reply.feed(input).map_err(malformed)? {
            return ended;
        }
        let slice = deadline.min(Instant::now() + ATTENTION);
        let received = match link.recv_deadline(input, slice) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if stops() || Instant::now() >= deadline {
                    return Err(broken(error));
                }
                continue;
            }
            received => received.map_err(broken)?,
        };
        if received == 0 {
            let error = broken(io::ErrorKind::UnexpectedEof.into());
            return Err(reply.refused.map_or(error.clone(), |it| error.with_server_error(it)));
        }
    }
}

/// What has come of the answer to one question. Pure.
#[derive(Default)]
pub struct Reply {
    rows: Rows,
    refused: Option<ServerError>,
}

impl Reply {
    /// Takes in what has arrived, up to the end of the answer; `None` while that has not come.
    pub fn feed(&mut self, input: &mut BytesMut) -> Result<Option<Result<Rows>>, Malformed> {
        while let Some(frame) = Frame::take(input, MESSAGE_BYTES_MAX)? {
            match frame.tag() {
                b'D' => {
                    let values = row::Values::new(frame.body())?;
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    let values = values.map(|value| value.map(|value| value.map(text)));
                    self.rows.push(values.collect::<Result<Vec<_>, _>>()?);
                }
                b'E' => self.refused = Some(error_fields::parse(frame.body())?),
                b'Z' => {
                    return Ok(Some(match self.refused.take() {
                        None => Ok(std::mem::take(&mut self.rows)),
                        Some(error) => Err(Error::server(error, Outcome::NotCommitted)),
                    }));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

pub(super) fn broken(error: io::Error) -> Error {
    Error::new(ErrorKind::Connect, "the link broke, or the server did not answer in time")
        .with_source(error)
}
