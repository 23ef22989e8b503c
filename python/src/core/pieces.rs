//! Replies that are taken piece by piece, streams and COPY; and what is thrown away unread.

use bytes::Bytes;
use segue::client::Progress;
use segue::wire::frame::Status;
use segue::{Error, ErrorKind, Outcome, Result};

use super::{Core, Io, Received, Ticket};

/// Data of COPY is put on the wire once so many bytes have gathered.
const COPY_BATCH: usize = 64 * 1024;

impl Core {
    /// Rows of a streamed reply that have arrived, with their columns; `None` at its end.
    pub fn stream(&mut self, ticket: Ticket, io: Io) -> Result<Progress<Option<Received>>> {
        loop {
            if let Some(front) = self.queue.front_mut().filter(|front| front.ticket == ticket) {
                if let Some(last) = front.results.last_mut() {
                    last.split();
                }
                let rows = front.results.last_mut().filter(|last| !last.rows.is_empty());
                if let Some(last) = rows {
                    let decoders = last.decoders.clone();
                    let rows = std::mem::take(&mut last.rows);
                    let mut some = Received::default();
                    (some.decoders, some.rows) = (decoders, rows);
                    return Ok(Progress::Ready(Some(some)));
                }
            }
            if let Some(reply) = self.finished.remove(&ticket) {
                // The last piece may have no rows: a result without any has columns all the same.
                let last = reply?.pop();
                if last.is_some() {
                    // Its end is told by the next call.
                    self.finished.insert(ticket, Ok(Vec::new()));
                }
                return Ok(Progress::Ready(last));
            }
            ready!(self.pump(io)?);
            // What has arrived together is handed over together.
            self.take_received()?;
        }
    }

    /// Waits until a COPY takes data (true) or gives some (false).
    pub fn copy_begun(&mut self, ticket: Ticket, io: Io) -> Result<Progress<bool>> {
        loop {
            if let Some(reply) = self.finished.remove(&ticket) {
                reply?;
                let outcome = match self.status() {
                    Status::Idle => Outcome::Committed,
                    _ => Outcome::NotCommitted,
                };
                return Err(Error::new(
                    ErrorKind::Usage,
                    "copy() takes a COPY FROM STDIN or a COPY TO STDOUT; the statement was executed",
                )
                .with_outcome(outcome));
            }
            match self.queue.front().filter(|front| front.ticket == ticket) {
                Some(front) if front.copies_in => return Ok(Progress::Ready(true)),
                Some(front) if front.copies_out => return Ok(Progress::Ready(false)),
                _ => {}
            }
            ready!(self.pump(io)?);
        }
    }

    /// The next piece of data of COPY TO STDOUT; `None` at the end.
    pub fn copy_piece(&mut self, ticket: Ticket, io: Io) -> Result<Progress<Option<Bytes>>> {
        loop {
            if let Some(front) = self.queue.front_mut().filter(|front| front.ticket == ticket) {
                if let Some(piece) = front.pieces.pop_front() {
                    return Ok(Progress::Ready(Some(piece)));
                }
                // The last event of a reply takes the collector along: not before it is empty.
            } else if let Some(reply) = self.finished.remove(&ticket) {
                reply?;
                return Ok(Progress::Ready(None));
            }
            ready!(self.pump(io)?);
        }
    }

    /// There is a link, unless what was under way has ended without one.
    fn restored(&mut self, io: Io) -> Result<Progress<()>> {
        loop {
            match io {
                Io::Wait => self.session.restore()?,
                Io::Poll => ready!(self.session.poll_restored()),
            }
            // Polling stops at an event, be there a link or not.
            if !self.take_some()? {
                return Ok(Progress::Ready(()));
            }
        }
    }

    /// There is a link on which a COPY FROM STDIN can go on, if it has not ended.
    pub fn copy_ready(&mut self, ticket: Ticket, io: Io) -> Result<Progress<()>> {
        loop {
            ready!(self.restored(io)?);
            if self.session.copies_in() || self.finished.contains_key(&ticket) {
                return Ok(Progress::Ready(()));
            }
            // It has failed: its reply is on its way.
            ready!(self.pump(io)?);
        }
    }

    /// Adds a piece of data to a COPY FROM STDIN that is ready.
    pub fn copy_add(&mut self, ticket: Ticket, data: &[u8]) -> Result<()> {
        if self.session.copies_in() {
            return self.session.copy_data(data).map(drop);
        }
        let reply = self.finished.insert(ticket, Ok(Vec::new()));
        Err(reply.and_then(Result::err).unwrap_or_else(|| {
            Error::new(ErrorKind::Usage, "the COPY has ended and takes no more data")
        }))
    }

    /// Sends what has been added to a COPY, once it is much.
    pub fn copy_sent(&mut self, io: Io) -> Result<Progress<()>> {
        if self.session.unsent() < COPY_BATCH {
            return Ok(Progress::Ready(()));
        }
        match io {
            Io::Wait => self.session.send_requests()?,
            Io::Poll => ready!(self.session.poll_sent()),
        }
        self.take_received()?;
        Ok(Progress::Ready(()))
    }

    pub fn copy_send(&mut self, ticket: Ticket, data: &[u8], io: Io) -> Result<Progress<()>> {
        ready!(self.copy_ready(ticket, io)?);
        self.copy_add(ticket, data)?;
        self.copy_sent(io)
    }

    /// Ends COPY FROM STDIN; with a reason it fails. Its reply is then to be waited for.
    pub fn copy_end(&mut self, reason: Option<&str>) -> Result<()> {
        self.take_received()?;
        if self.session.copies_in() {
            self.session.copy_end(reason)?;
        }
        Ok(())
    }

    /// Reads the rest of a reply and throws it away.
    pub fn abandon(&mut self, ticket: Ticket, io: Io) -> Result<Progress<()>> {
        loop {
            if self.finished.remove(&ticket).is_some() || self.queue.is_empty() {
                return Ok(Progress::Ready(()));
            }
            let mut copies_in = false;
            if let Some(front) = self.queue.front_mut().filter(|front| front.ticket == ticket) {
                front.pieces.clear();
                front.results.clear();
                copies_in = front.copies_in;
            }
            if copies_in && self.session.copies_in() {
                // The link may have been lost since the last piece of data.
                ready!(self.restored(io)?);
                if self.session.copies_in() {
                    self.session.copy_end(Some("the application abandoned the COPY"))?;
                }
                continue;
            }
            ready!(self.pump(io)?);
        }
    }
}
