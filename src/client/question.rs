//! Questions of Segue's own on a link that no session uses: simple queries, and their rows as text.

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::link::Link;
use crate::wire::frame::Frame;
use crate::wire::{error_fields, row};

/// While an answer is waited for, its asker is asked so often whether to go on waiting.
const ATTENTION: Duration = Duration::from_millis(50);

/// Rows of text; `None` is NULL.
pub(super) type Rows = Vec<Vec<Option<String>>>;

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
    let mut rows = Vec::new();
    let mut refused = None;
    loop {
        while let Some(frame) = Frame::take(input, 1 << 20).map_err(malformed)? {
            match frame.tag() {
                b'D' => {
                    let values = row::Values::new(frame.body()).map_err(malformed)?;
                    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                    let values = values.map(|value| value.map(|value| value.map(text)));
                    rows.push(values.collect::<Result<Vec<_>, _>>().map_err(malformed)?);
                }
                b'E' => refused = Some(error_fields::parse(frame.body()).map_err(malformed)?),
                b'Z' => {
                    return match refused {
                        None => Ok(rows),
                        Some(error) => Err(Error::server(error, Outcome::NotCommitted)),
                    };
                }
                _ => {}
            }
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
            return Err(refused.map_or(error.clone(), |it| error.with_server_error(it)));
        }
    }
}

pub(super) fn broken(error: io::Error) -> Error {
    Error::new(ErrorKind::Connect, "the link broke, or the server did not answer in time")
        .with_source(error)
}
