//! Links: physical, authenticated connections to one server.
//!
//! The background thread dials ([`dial`]) and keeps [`AsyncLink`]s; the application's own thread
//! gets a blocking [`Link`] made of one ([`AsyncLink::into_blocking`]) and does its own I/O on it:
//! one write, one read, nothing between.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::config::{Config, Host};
use crate::error::Result;

/// What a server said of itself and of this connection while it was being opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LinkInfo {
    pub backend_pid: i32,
    /// The key that a cancel request must carry (variable length since protocol 3.2).
    pub cancel_key: Vec<u8>,
    /// ParameterStatus, as last reported during the start-up.
    pub parameters: Vec<(String, String)>,
    /// For instance `TLSv1.3`; `None` where the link is not encrypted.
    pub tls_version: Option<&'static str>,
    /// For instance `SCRAM-SHA-256-PLUS`, `trust`.
    pub auth_method: &'static str,
}

/// A link driven by the background thread's tokio runtime.
pub struct AsyncLink {
    _todo: (),
}

impl AsyncLink {
    /// Dials, negotiates TLS, authenticates, and reads up to the first ReadyForQuery.
    pub async fn dial(config: &Config, host: &Host) -> Result<Self> {
        let _ = (config, host);
        todo!()
    }

    pub fn info(&self) -> &LinkInfo {
        todo!()
    }

    /// Sends all of `bytes`.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _ = bytes;
        todo!()
    }

    /// Appends what has arrived to `buf`; 0 means that the server closed. Cancel safe.
    pub async fn recv(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        let _ = buf;
        todo!()
    }

    /// The same link for a thread of the application's. Must be called inside the runtime.
    pub fn into_blocking(self) -> io::Result<Link> {
        todo!()
    }
}

/// A link that blocks the thread that uses it.
pub struct Link {
    _todo: (),
}

impl Link {
    pub fn info(&self) -> &LinkInfo {
        todo!()
    }

    /// Sends all of `bytes`. Only for what surely fits the socket's buffers while nothing is
    /// outstanding; see [`exchange`](Self::exchange).
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _ = bytes;
        todo!()
    }

    /// Sends all of `bytes` while reading whatever arrives into `buf`, so that two full socket
    /// buffers never wait for each other.
    pub fn exchange(&mut self, bytes: &[u8], buf: &mut BytesMut) -> io::Result<()> {
        let _ = (bytes, buf);
        todo!()
    }

    /// Blocks until something arrives, appends it to `buf`; 0 means that the server closed.
    pub fn recv(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        let _ = buf;
        todo!()
    }

    /// As `recv`, but gives up at `deadline` with `ErrorKind::TimedOut`.
    pub fn recv_deadline(&mut self, buf: &mut BytesMut, deadline: Instant) -> io::Result<usize> {
        let _ = (buf, deadline);
        todo!()
    }

    /// After a failure: appends what the server managed to say before the end, without waiting for
    /// longer than `patience`. A FATAL may stand there that tells one kind of death from another.
    pub fn drain(&mut self, buf: &mut BytesMut, patience: Duration) {
        let _ = (buf, patience);
        todo!()
    }

    /// Wakes a thread blocked on this link, from any other thread.
    pub fn waker(&self) -> LinkWaker {
        todo!()
    }
}

/// Shuts a link's socket down from any thread, which ends every wait on it.
#[derive(Clone)]
pub struct LinkWaker {
    _todo: Arc<()>,
}

impl LinkWaker {
    pub fn shut_down(&self) {
        let _ = Shutdown::Both;
        todo!()
    }
}

/// Sends a cancel request for the backend described by `info`, on a connection of its own.
pub async fn cancel(config: &Config, host: &Host, info: &LinkInfo) -> Result<()> {
    let _ = (config, host, info);
    todo!()
}
