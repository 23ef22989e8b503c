//! The blocking link: one write and one read per exchange on the application's own thread.
//!
//! Nothing here allocates per exchange, or clears a buffer that the kernel is about to fill. A TCP
//! socket is read without asking first whether there is anything. A write never waits for room without reading at the same time, so that a
//! server that is itself waiting to be read cannot lock both up. No call raises SIGPIPE.

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use super::LinkInfo;
use super::socket::READ_SIZE;
use super::tls::{ENCRYPT_SIZE, TlsSession};

/// What [`Link::drain`] takes at most: more than both kernels' buffers hold.
const DRAIN_MAX: usize = 16 * 1024 * 1024;

/// What stands for a patience that the clock cannot express.
const DRAIN_PATIENCE_MAX: Duration = Duration::from_secs(3600);

/// A link that blocks the thread that uses it.
///
/// One caller at a time; [`waker`](Self::waker) and cancel requests are for the other threads.
pub struct Link {
    /// Shared so that a [`LinkWaker`] can hold it open for the moment that it needs it.
    fd: Arc<OwnedFd>,
    tls: Option<TlsSession>,
    info: LinkInfo,
    /// What had arrived before this link was made of an asynchronous one.
    pending: BytesMut,
    /// Where the kernel puts what it has; empty between calls. Made at the first read, so that
    /// a link that only waits costs nothing.
    scratch: Vec<u8>,
    /// Whether a signal ends a wait to receive, instead of being passed over.
    interruptible: bool,
}

/// What a read came to.
enum Read {
    /// Plaintext was appended.
    Some(usize),
    /// Nothing there, or nothing but TLS's own messages.
    Nothing,
    End,
}

impl Link {
    pub(super) fn new(
        fd: OwnedFd,
        tls: Option<TlsSession>,
        info: LinkInfo,
        pending: BytesMut,
    ) -> Self {
        Self { fd: Arc::new(fd), tls, info, pending, scratch: Vec::new(), interruptible: false }
    }

    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// Has [`recv`](Self::recv) and [`recv_deadline`](Self::recv_deadline) end with
    /// `ErrorKind::Interrupted` when a signal handler has run meanwhile; the link is as good as before.
    pub fn set_interruptible(&mut self, interruptible: bool) {
        self.interruptible = interruptible;
    }

    /// Sends all of `bytes`. Only for what surely fits the socket's buffers while nothing is
    /// outstanding; see [`exchange`](Self::exchange).
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = Writer { fd: self.fd.as_fd(), flags: SendFlags::NOSIGNAL };
        let Some(tls) = &mut self.tls else {
            return writer.write_all(bytes);
        };
        for chunk in bytes.chunks(ENCRYPT_SIZE) {
            tls.encrypt(chunk)?;
            while tls.wants_write() {
                retry(|| tls.write_to(&mut writer))?;
            }
        }
        Ok(())
    }

    /// Sends all of `bytes` while reading whatever arrives into `buf`, so that two full socket
    /// buffers never wait for each other.
    ///
    /// Costs no more than [`send`](Self::send) where there is room. After an error, what the server
    /// managed to say is in `buf` or can still be [drained](Self::drain).
    pub fn exchange(&mut self, bytes: &[u8], buf: &mut BytesMut) -> io::Result<()> {
        let mut rest = bytes;
        loop {
            if self.push(&mut rest)? {
                return Ok(());
            }
            let ready = match self.wait(PollFlags::IN | PollFlags::OUT, None) {
                // Half a message cannot be left at that.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                ready => ready?,
            };
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                && matches!(self.read(buf, RecvFlags::DONTWAIT)?, Read::End)
            {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the server closed the connection before it had taken the whole request",
                ));
            }
        }
    }

    /// Sends of `rest` what there is room for, without waiting; true when all is on its way. With TLS
    /// nothing may be left of `rest` and something to send all the same: call again when there is room.
    pub fn try_send(&mut self, rest: &mut &[u8]) -> io::Result<bool> {
        self.push(rest)
    }

    /// Writes of `rest` what there is room for; true when all is written.
    fn push(&mut self, rest: &mut &[u8]) -> io::Result<bool> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut writer = Writer { fd: self.fd.as_fd(), flags };
        loop {
            let written = match &mut self.tls {
                None if rest.is_empty() => return Ok(true),
                None => retry(|| writer.write(rest)).map(|n| *rest = &rest[n..]),
                Some(tls) => {
                    if !tls.wants_write() {
                        if rest.is_empty() {
                            return Ok(true);
                        }
                        let chunk;
                        (chunk, *rest) = rest.split_at(rest.len().min(ENCRYPT_SIZE));
                        tls.encrypt(chunk)?;
                    }
                    retry(|| tls.write_to(&mut writer)).map(drop)
                }
            };
            match written {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// Blocks until something arrives, appends it to `buf`; 0 means that the server closed.
    pub fn recv(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        if let Some(n) = self.take_ready(buf)? {
            return Ok(n);
        }
        if self.info.peer.is_none() {
            // Measured: a wait in poll() ends about a tenth of a round trip sooner than one in recv()
            // on a Unix socket, whose lock the reader would hold; on TCP it is the other way round.
            self.wait(PollFlags::IN, None)?;
        }
        loop {
            match self.read(buf, RecvFlags::empty())? {
                Read::Some(n) => return Ok(n),
                Read::Nothing => {}
                Read::End => return Ok(0),
            }
        }
    }

    /// As `recv`, but gives up at `deadline` with `ErrorKind::TimedOut`.
    pub fn recv_deadline(&mut self, buf: &mut BytesMut, deadline: Instant) -> io::Result<usize> {
        if let Some(n) = self.take_ready(buf)? {
            return Ok(n);
        }
        loop {
            if self.wait(PollFlags::IN, Some(deadline))?.is_empty() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.read(buf, RecvFlags::DONTWAIT)? {
                Read::Some(n) => return Ok(n),
                Read::Nothing => {}
                Read::End => return Ok(0),
            }
        }
    }

    /// As `recv`, but never waits: `None` means that nothing is there.
    pub fn try_recv(&mut self, buf: &mut BytesMut) -> io::Result<Option<usize>> {
        if let Some(n) = self.take_ready(buf)? {
            return Ok(Some(n));
        }
        match self.read(buf, RecvFlags::DONTWAIT)? {
            Read::Some(n) => Ok(Some(n)),
            Read::Nothing => Ok(None),
            Read::End => Ok(Some(0)),
        }
    }

    /// After a failure: appends what the server managed to say before the end, without waiting for
    /// longer than `patience`. A FATAL may stand there that tells one kind of death from another.
    pub fn drain(&mut self, buf: &mut BytesMut, patience: Duration) {
        let now = Instant::now();
        let deadline = now.checked_add(patience).unwrap_or(now + DRAIN_PATIENCE_MAX);
        let mut left = DRAIN_MAX;
        self.interruptible = false;
        while let Ok(n @ 1..) = self.recv_deadline(buf, deadline) {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    }

    /// Wakes a thread blocked on this link, from any other thread.
    pub fn waker(&self) -> LinkWaker {
        LinkWaker(Arc::downgrade(&self.fd))
    }

    /// Closes a link that is given up with a reset instead of the usual end. Whatever the server has
    /// not read yet is then not carried out any more; and a backend that is still sending hears of it
    /// at once, where it would else have waited with its locks for the kernel's patience to run out.
    pub fn abandon(self) {
        // Over a Unix socket there is nothing to linger; it is closed all the same.
        let _ = rustix::net::sockopt::set_socket_linger(&self.fd, Some(Duration::ZERO));
    }

    /// Says good-bye to the server and closes. Only between requests: behind half a message the
    /// good-bye would be taken for its other half. Dropping a link closes it without a word.
    pub fn close(mut self) {
        // Neither a full buffer nor a dead server may hold the caller up.
        let mut terminate = &b"X\0\0\0\x04"[..];
        if self.push(&mut terminate).is_ok_and(|all| all) {
            if let Some(tls) = &mut self.tls {
                tls.close();
                let _ = self.push(&mut &[][..]);
            }
        }
    }

    /// Whether something may be received although the socket shows nothing.
    pub fn may_hold_input(&self) -> bool {
        self.tls.is_some() || !self.pending.is_empty()
    }

    /// What has arrived but was not asked for yet; `Some(0)` for an end that TLS has announced.
    fn take_ready(&mut self, buf: &mut BytesMut) -> io::Result<Option<usize>> {
        if !self.pending.is_empty() {
            let n = self.pending.len();
            buf.extend_from_slice(&self.pending);
            self.pending = BytesMut::new();
            return Ok(Some(n));
        }
        let Some(tls) = &mut self.tls else {
            return Ok(None);
        };
        match tls.leftover(buf)? {
            0 if tls.is_closed() => Ok(Some(0)),
            0 => Ok(None),
            n => Ok(Some(n)),
        }
    }

    /// One read of the socket.
    fn read(&mut self, buf: &mut BytesMut, flags: RecvFlags) -> io::Result<Read> {
        self.scratch.reserve(READ_SIZE);
        let received = loop {
            match rustix::net::recv(&self.fd, spare_capacity(&mut self.scratch), flags) {
                Ok((n, _)) => break n,
                Err(Errno::INTR) if !self.interruptible => {}
                Err(Errno::AGAIN) => return Ok(Read::Nothing),
                Err(e) => return Err(e.into()),
            }
        };
        if received == 0 {
            return Ok(Read::End);
        }
        let appended = match &mut self.tls {
            None => {
                buf.extend_from_slice(&self.scratch);
                Ok(received)
            }
            Some(tls) => tls.decrypt(&self.scratch, buf),
        };
        self.scratch.clear();
        match appended? {
            0 if self.tls.as_ref().is_some_and(TlsSession::is_closed) => Ok(Read::End),
            0 => Ok(Read::Nothing),
            n => Ok(Read::Some(n)),
        }
    }

    /// Waits for the socket; empty when the deadline has passed.
    fn wait(&self, events: PollFlags, deadline: Option<Instant>) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(&self.fd, events)];
        loop {
            let timeout = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            match rustix::event::poll(&mut fds, timeout.as_ref()) {
                Ok(_) => return Ok(fds[0].revents()),
                Err(Errno::INTR) if !self.interruptible => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("fd", &self.fd)
            .field("tls", &self.tls)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Shuts a link's socket down from any thread, which ends every wait on it.
///
/// Does not keep the link open: once that is closed, the waker does nothing. The descriptor's
/// number can never be another socket's by then, because it is held while it is used.
#[derive(Clone)]
pub struct LinkWaker(Weak<OwnedFd>);

impl LinkWaker {
    pub fn shut_down(&self) {
        if let Some(fd) = self.0.upgrade() {
            // A socket that is down already needs no shutting down.
            let _ = rustix::net::shutdown(&fd, Shutdown::Both);
        }
    }

    /// The link's socket, to watch for hang-ups; `None` once the link is closed. Holding it keeps
    /// the connection open.
    pub fn hold(&self) -> Option<Arc<OwnedFd>> {
        self.0.upgrade()
    }
}

impl fmt::Debug for LinkWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkWaker").field("open", &(self.0.strong_count() > 0)).finish()
    }
}

/// Writes to the socket without SIGPIPE.
struct Writer<'a> {
    fd: BorrowedFd<'a>,
    flags: SendFlags,
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.fd, bytes, self.flags)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [slice] = slices {
            return self.write(slice);
        }
        let mut nothing = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(self.fd, slices, &mut nothing, self.flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Repeats what a signal interrupts.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
