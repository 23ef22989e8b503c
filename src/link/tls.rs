//! A TLS session as pure bytes in and bytes out, so that the same one serves tokio first and an
//! application's own thread afterwards.
//!
//! All that has been decrypted is handed out at once and nothing is kept back, except what the
//! peer sent before it failed: that comes first, the failure with the next call.

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion};

/// How much plaintext is encrypted before it is written: few records per call, a bounded buffer.
pub(super) const ENCRYPT_SIZE: usize = 64 * 1024;

/// The TLS state of one link.
pub(super) struct TlsSession {
    connection: Box<ClientConnection>,
    /// What broke the session; nothing can be read after it.
    failed: Option<rustls::Error>,
    closed: bool,
}

impl TlsSession {
    pub(super) fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let mut connection = ClientConnection::new(config, name).map_err(broken)?;
        // The bound is ENCRYPT_SIZE, by the callers; rustls would cut records at its own.
        connection.set_buffer_limit(None);
        Ok(Self { connection: Box::new(connection), failed: None, closed: false })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn version(&self) -> Option<&'static str> {
        match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => Some("TLS"),
        }
    }

    /// The server's own certificate, in DER.
    pub(super) fn certificate(&self) -> Option<Vec<u8>> {
        Some(self.connection.peer_certificates()?.first()?.to_vec())
    }

    /// Takes bytes off the wire and appends what they decrypt to.
    pub(super) fn decrypt(&mut self, mut raw: &[u8], out: &mut BytesMut) -> io::Result<usize> {
        let mut total = 0;
        while !raw.is_empty() && self.failed.is_none() {
            if self.connection.read_tls(&mut raw)? == 0 {
                // Nothing counts that comes behind the peer's good-bye.
                break;
            }
            match self.connection.process_new_packets() {
                Ok(state) => self.closed |= state.peer_has_closed(),
                Err(e) => self.failed = Some(e),
            }
            total += self.drain(out)?;
        }
        match &self.failed {
            Some(e) if total == 0 => Err(broken(e.clone())),
            _ => Ok(total),
        }
    }

    /// What was decrypted, or went wrong, before anybody asked.
    pub(super) fn leftover(&mut self, out: &mut BytesMut) -> io::Result<usize> {
        match self.drain(out)? {
            0 => match &self.failed {
                Some(e) => Err(broken(e.clone())),
                None => Ok(0),
            },
            n => Ok(n),
        }
    }

    /// Whether the peer has said that nothing more will come.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    fn drain(&mut self, out: &mut BytesMut) -> io::Result<usize> {
        let mut reader = self.connection.reader();
        let mut total = 0;
        loop {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                // Nothing decrypted at the moment; or an end without a close_notify, which
                // the socket's own end tells just as well.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(total),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(total),
                Err(e) => return Err(e),
            };
            if chunk.is_empty() {
                return Ok(total);
            }
            let n = chunk.len();
            out.extend_from_slice(chunk);
            reader.consume(n);
            total += n;
        }
    }

    /// Encrypts all of `bytes`; they wait for [`write_to`](Self::write_to).
    pub(super) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(bytes)
    }

    pub(super) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes what waits, in as few calls as the writer takes it in.
    pub(super) fn write_to(&mut self, writer: &mut dyn Write) -> io::Result<usize> {
        self.connection.write_tls(writer)
    }

    /// Queues the close_notify.
    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession").field("version", &self.version()).finish_non_exhaustive()
    }
}

/// A failure of TLS in the clothes of an I/O error; [`rustls_error`] undresses it.
fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The failure of TLS that an I/O error stands for.
pub(super) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}
