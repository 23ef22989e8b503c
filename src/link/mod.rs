//! Links: physical, authenticated connections to one server.
//!
//! The background thread dials ([`AsyncLink::dial`]) and keeps [`AsyncLink`]s; the application's
//! own thread gets a blocking [`Link`] made of one ([`AsyncLink::into_blocking`]) and does its own
//! I/O on it: one write, one read, nothing between.
//!
//! | file | what it does |
//! | --- | --- |
//! | `dial` | socket, TLS, start-up, authentication; within `connect_timeout` |
//! | `socket` | connecting and socket options |
//! | `tls`, `tls_config`, `verifier` | the TLS session as bytes; what it accepts; how it judges |
//! | `auth`, `channel_binding` | SCRAM and the weak methods, as bytes |
//! | `blocking` | the application's side: send, receive, both at once, being woken |
//! | `cancel` | cancel requests |

mod auth;
mod blocking;
mod cancel;
mod channel_binding;
mod dial;
#[cfg(fuzzing)]
pub mod fuzzing;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod tls_config;
mod verifier;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;

use crate::config::{Config, Host};
use crate::error::Result;
use dial::Transport;

pub use blocking::{Link, LinkWaker};
pub use cancel::{cancel, cancel_blocking};

/// What a server said of itself and of this connection while it was being opened.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct LinkInfo {
    pub backend_pid: i32,
    /// The key that a cancel request must carry (variable length since protocol 3.2).
    pub cancel_key: Vec<u8>,
    /// ParameterStatus, as last reported during the start-up.
    pub parameters: Vec<(String, String)>,
    /// For instance `TLSv1.3`; `None` where the link is not encrypted.
    pub tls_version: Option<&'static str>,
    /// `SCRAM-SHA-256-PLUS`, `SCRAM-SHA-256`, `md5`, `password`; `trust` where the server asked for
    /// nothing (which is also how `peer` and `cert` look from here).
    pub auth_method: &'static str,
    /// The address that answered; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
}

impl LinkInfo {
    /// The value of a parameter that the server reported.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for LinkInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkInfo")
            .field("backend_pid", &self.backend_pid)
            .field("cancel_key", &"***")
            .field("parameters", &self.parameters)
            .field("tls_version", &self.tls_version)
            .field("auth_method", &self.auth_method)
            .field("peer", &self.peer)
            .finish()
    }
}

/// A link driven by the background thread's tokio runtime.
pub struct AsyncLink {
    transport: Transport,
    info: LinkInfo,
    /// What had arrived behind the first ReadyForQuery.
    pending: BytesMut,
}

impl AsyncLink {
    /// Dials, negotiates TLS, authenticates, and reads up to the first ReadyForQuery.
    pub async fn dial(config: &Config, host: &Host) -> Result<Self> {
        let (transport, info, pending) = dial::dial(config, host).await?;
        Ok(Self { transport, info, pending })
    }

    pub fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// Sends all of `bytes`. Not cancel safe: a link whose send was given up can only be dropped.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transport.send(bytes).await
    }

    /// Appends what has arrived to `buf`; 0 means that the server closed. Cancel safe.
    pub async fn recv(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        if !self.pending.is_empty() {
            let n = self.pending.len();
            buf.unsplit(std::mem::take(&mut self.pending));
            return Ok(n);
        }
        self.transport.recv(buf).await
    }

    /// The same link for a thread of the application's. Must be called inside the runtime.
    pub fn into_blocking(self) -> io::Result<Link> {
        let fd = self.transport.socket.into_blocking()?;
        Ok(Link::new(fd, self.transport.tls, self.info, self.pending))
    }

    /// Says good-bye to the server and closes. Only between requests, like [`Link::close`], which
    /// it shares the work with. Must be called inside the runtime.
    pub fn close(self) {
        if let Ok(link) = self.into_blocking() {
            link.close();
        }
    }
}

impl fmt::Debug for AsyncLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncLink")
            .field("transport", &self.transport)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
