//! Dialling: a socket, TLS where it was asked for, the start-up and the authentication, up to
//! the first ReadyForQuery; all of it within `connect_timeout`.
//!
//! A server that offers less than was asked for is refused, never settled for.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::time::Instant;
use zeroize::Zeroize;

use super::auth::Authenticator;
use super::socket::Socket;
use super::tls::{self, ENCRYPT_SIZE, TlsSession};
use super::{LinkInfo, tls_config};
use crate::config::{Address, Config, Host, SslMode};
use crate::error::{Error, ErrorKind, Result, ServerError};
use crate::wire::error_fields;
use crate::wire::frame::Frame;

/// Nothing that a server says while a connection is opened is longer.
const STARTUP_MESSAGE_MAX: usize = 64 * 1024;

/// Servers report about fifteen parameters; one that reports without end is none of ours.
const PARAMETERS_MAX: usize = 1000;

/// A socket, with TLS where that was agreed upon.
pub(super) struct Transport {
    pub(super) socket: Socket,
    pub(super) tls: Option<TlsSession>,
    pub(super) peer: Option<SocketAddr>,
    /// What has come off the wire on its way through TLS; empty between calls.
    raw: BytesMut,
}

impl Transport {
    /// Connects, and encrypts if `encrypt`.
    pub(super) async fn connect(
        config: &Config,
        host: &Host,
        encrypt: bool,
        deadline: Option<Instant>,
    ) -> Result<Self> {
        let (socket, peer) = Socket::connect(config, host, deadline).await.map_err(|e| {
            Error::new(
                ErrorKind::Connect,
                format!(
                    "the server at {host} cannot be reached; check that it runs and listens there"
                ),
            )
            .with_source(e)
        })?;
        let mut transport = Self { socket, tls: None, peer, raw: BytesMut::new() };
        if encrypt {
            transport.negotiate_tls(config, host).await?;
        }
        Ok(transport)
    }

    async fn negotiate_tls(&mut self, config: &Config, host: &Host) -> Result<()> {
        // What the configuration alone can get wrong is said before the server is bothered.
        let client_config = tls_config::client_config(&config.tls)?;
        let name = tls_config::server_name(&config.tls, host)?;
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        self.send(&request).await.map_err(|e| lost(host, e))?;
        let mut answer = BytesMut::new();
        if self.recv(&mut answer).await.map_err(|e| lost(host, e))? == 0 {
            return Err(closed(host));
        }
        match answer[..] {
            [b'S'] => {}
            // CVE-2021-23222: whoever put bytes there wants them taken for the server's own.
            [b'S', ..] => {
                return Err(refusal(
                    host,
                    "sent unencrypted bytes after agreeing to TLS; somebody \
                     may be tampering with the connection",
                ));
            }
            [b'N', ..] => {
                return Err(refusal(
                    host,
                    "does not offer TLS, and sslmode asks for it; switch ssl \
                     on there, or use sslmode=disable",
                ));
            }
            // CVE-2024-10977: an error that comes unencrypted proves nothing and is not shown.
            [b'E', ..] => {
                return Err(refusal(host, "answered the request for TLS with an error"));
            }
            _ => return Err(refusal(host, "does not answer like PostgreSQL")),
        }
        let session = TlsSession::new(client_config, name).map_err(|e| lost(host, e))?;
        let session = self.tls.insert(session);
        let mut plain = BytesMut::new();
        loop {
            // After a failure this sends the alert that tells the server why.
            flush(&self.socket, session).await.map_err(|e| lost(host, e))?;
            if !session.is_handshaking() {
                // A server speaks only when spoken to; what is here already belongs to the reply.
                self.raw.clear();
                return Ok(());
            }
            self.raw.clear();
            if self.socket.recv(&mut self.raw).await.map_err(|e| lost(host, e))? == 0 {
                return Err(refusal(
                    host,
                    "closed the connection during the TLS handshake; its log \
                     tells why",
                ));
            }
            if let Err(e) = session.decrypt(&self.raw, &mut plain) {
                let _ = flush(&self.socket, session).await;
                return Err(lost(host, e));
            }
            if !plain.is_empty() {
                return Err(refusal(host, "spoke before it was spoken to"));
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return self.socket.send(bytes).await;
        };
        for chunk in bytes.chunks(ENCRYPT_SIZE) {
            tls.encrypt(chunk)?;
            flush(&self.socket, tls).await?;
        }
        Ok(())
    }

    /// Appends what has arrived; 0 means that the server closed. Cancel safe.
    ///
    /// What TLS itself has to answer (to a change of keys, say) travels with the next request.
    pub(super) async fn recv(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.recv(buf).await;
        };
        loop {
            let n = tls.leftover(buf)?;
            if n > 0 || tls.is_closed() {
                return Ok(n);
            }
            // The one await: what it has read is decrypted before anything else can be awaited.
            if self.socket.recv(&mut self.raw).await? == 0 {
                return Ok(0);
            }
            let decrypted = tls.decrypt(&self.raw, buf);
            self.raw.clear();
            let n = decrypted?;
            if n > 0 {
                return Ok(n);
            }
        }
    }

    pub(super) fn tls_version(&self) -> Option<&'static str> {
        self.tls.as_ref()?.version()
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("socket", &self.socket)
            .field("tls", &self.tls)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Sends what TLS has to send.
async fn flush(socket: &Socket, tls: &mut TlsSession) -> io::Result<()> {
    while tls.wants_write() {
        let mut out = Vec::new();
        tls.write_to(&mut out)?;
        socket.send(&out).await?;
    }
    Ok(())
}

/// Whether the configuration asks for TLS with this host; never on a Unix socket, as in libpq.
pub(super) fn wants_tls(config: &Config, host: &Host) -> bool {
    matches!(host.address, Address::Tcp { .. }) && config.tls.mode != SslMode::Disable
}

/// Dials within `connect_timeout`. Returns the transport, what the server said of itself, and the
/// bytes that have arrived behind the first ReadyForQuery.
pub(super) async fn dial(config: &Config, host: &Host) -> Result<(Transport, LinkInfo, BytesMut)> {
    // A time-out beyond the end of time is none.
    let deadline = config.connect_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    within(deadline, host, async {
        let mut transport =
            Transport::connect(config, host, wants_tls(config, host), deadline).await?;
        let (info, rest) = start_up(&mut transport, config, host).await?;
        Ok((transport, info, rest))
    })
    .await
}

/// Runs `work` up to the deadline.
pub(super) async fn within<T>(
    deadline: Option<Instant>,
    host: &Host,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(deadline) = deadline else {
        return work.await;
    };
    tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| {
        let message = format!("the server at {host} did not answer within connect_timeout");
        Err(Error::new(ErrorKind::Connect, message)
            .with_source(io::Error::from(io::ErrorKind::TimedOut)))
    })
}

async fn start_up(
    transport: &mut Transport,
    config: &Config,
    host: &Host,
) -> Result<(LinkInfo, BytesMut)> {
    let mut info = LinkInfo {
        tls_version: transport.tls_version(),
        peer: transport.peer,
        ..LinkInfo::default()
    };
    let certificate = transport.tls.as_ref().and_then(TlsSession::certificate);
    let encrypted = transport.tls.is_some();
    let mut auth = Authenticator::new(config, host, encrypted, certificate.as_deref());

    let mut out = BytesMut::new();
    put_startup_message(config, &mut out)?;
    let mut buf = BytesMut::new();
    loop {
        if !out.is_empty() {
            let sent = transport.send(&out).await;
            // It may hold a password.
            out.as_mut().zeroize();
            out.clear();
            if let Err(e) = sent {
                return Err(last_words(transport, &mut buf, config, host, lost(host, e)).await);
            }
        }
        let frame = match Frame::take(&mut buf, STARTUP_MESSAGE_MAX) {
            Ok(Some(frame)) => frame,
            Ok(None) => match transport.recv(&mut buf).await {
                Ok(0) => return Err(closed(host)),
                Ok(_) => continue,
                Err(e) => return Err(lost(host, e)),
            },
            Err(e) => return Err(protocol(host).with_source(e)),
        };
        match frame.tag() {
            b'R' => auth.handle(&frame, &mut out)?,
            b'E' => return Err(server_error(config, host, &frame)),
            // Notices are for whoever reads the server's log.
            b'N' => {}
            b'v' => return Err(negotiated_down(host, frame.body())),
            _ if auth.method().is_none() => return Err(protocol(host)),
            b'S' => match frame.parse() {
                Ok(Message::ParameterStatus(body)) => {
                    let text = body.name().and_then(|name| Ok((name, body.value()?)));
                    let (name, value) = text.map_err(|e| protocol(host).with_source(e))?;
                    info.parameters.retain(|(known, _)| known != name);
                    if info.parameters.len() == PARAMETERS_MAX {
                        return Err(protocol(host));
                    }
                    info.parameters.push((name.to_owned(), value.to_owned()));
                }
                _ => return Err(protocol(host)),
            },
            b'K' => {
                let (&pid, key) =
                    frame.body().split_first_chunk::<4>().ok_or_else(|| protocol(host))?;
                info.backend_pid = i32::from_be_bytes(pid);
                info.cancel_key = key.to_vec();
            }
            b'Z' => {
                info.auth_method = auth.method().unwrap_or_default();
                return Ok((info, buf));
            }
            _ => return Err(protocol(host)),
        }
    }
}

fn put_startup_message(config: &Config, out: &mut BytesMut) -> Result<()> {
    let fixed = [
        ("user", config.user.as_str()),
        ("database", config.database.as_str()),
        ("application_name", config.application_name.as_str()),
        ("options", config.options.as_deref().unwrap_or_default()),
    ];
    let more = config.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // An empty name would end the list early; an empty value of the fixed ones asks for nothing.
    let all = fixed
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .chain(more.filter(|(name, _)| !name.is_empty() && *name != "client_encoding"))
        // Everything here is text in UTF-8; another encoding would be told in garbage.
        .chain([("client_encoding", "UTF8")]);
    frontend::startup_message(all, out).map_err(|e| {
        Error::new(ErrorKind::Config, "a startup parameter contains a zero byte").with_source(e)
    })
}

/// A server that refuses somebody may say why and reset the connection while this side still
/// writes: what it said is the better error.
async fn last_words(
    transport: &mut Transport,
    buf: &mut BytesMut,
    config: &Config,
    host: &Host,
    otherwise: Error,
) -> Error {
    while buf.len() < STARTUP_MESSAGE_MAX && transport.recv(buf).await.is_ok_and(|n| n > 0) {}
    while let Ok(Some(frame)) = Frame::take(buf, STARTUP_MESSAGE_MAX) {
        if frame.tag() == b'E' {
            return server_error(config, host, &frame);
        }
    }
    otherwise
}

/// Only what was asked for can be refused by name, and Segue asks for version 3.0 and nothing more
/// than the configuration's own parameters.
fn negotiated_down(host: &Host, body: &[u8]) -> Error {
    let names: Vec<_> = body
        .get(8..)
        .unwrap_or_default()
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    let what = if names.is_empty() {
        "does not speak protocol 3.0".to_owned()
    } else {
        format!("does not know the protocol options {}; leave them out", names.join(", "))
    };
    Error::new(ErrorKind::Connect, format!("the server at {host} {what}"))
}

fn server_error(config: &Config, host: &Host, frame: &Frame) -> Error {
    let error = match error_fields::parse(frame.body()) {
        Ok(error) => error,
        Err(e) => return protocol(host).with_source(e),
    };
    let (kind, what) = explain(config, &error);
    Error::new(kind, format!("the server at {host} {what}")).with_server_error(error)
}

fn explain(config: &Config, error: &ServerError) -> (ErrorKind, String) {
    let ServerError { code, .. } = error;
    let user = &config.user;
    match code.as_str() {
        "28P01" => (
            ErrorKind::Authentication,
            format!("refused the password of user {user:?}; check user and password"),
        ),
        code if code.starts_with("28") => (
            ErrorKind::Authentication,
            format!("refused user {user:?}; its pg_hba.conf and its log tell why"),
        ),
        "3D000" => (ErrorKind::Connect, format!("has no database {:?}", config.database)),
        "53300" => (ErrorKind::Connect, "has no connection left".to_owned()),
        "57P03" => (ErrorKind::Connect, "is not accepting connections at the moment".to_owned()),
        _ => (ErrorKind::Connect, "refused the connection".to_owned()),
    }
}

fn refusal(host: &Host, what: &str) -> Error {
    Error::new(ErrorKind::Tls, format!("the server at {host} {what}"))
}

fn protocol(host: &Host) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the server at {host} does not speak PostgreSQL's protocol"),
    )
}

fn closed(host: &Host) -> Error {
    Error::new(
        ErrorKind::Connect,
        format!("the server at {host} closed the connection while it was being opened"),
    )
}

/// An I/O error while dialling; where TLS is behind it, with what can be done.
fn lost(host: &Host, error: io::Error) -> Error {
    let Some(cause) = tls::rustls_error(&error) else {
        let message =
            format!("the connection to the server at {host} broke while it was being opened");
        return Error::new(ErrorKind::Connect, message).with_source(error);
    };
    let cause = cause.clone();
    refusal(host, tls_advice(&cause)).with_source(cause)
}

fn tls_advice(error: &rustls::Error) -> &'static str {
    use rustls::CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(e) => match e {
            C::UnknownIssuer | C::BadSignature => {
                "has a certificate of an authority that is not trusted; give the right one with \
                 sslrootcert"
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "has a certificate for another name (only subjectAltName counts); use the name in \
                 the certificate, or sslmode=verify-ca if any certificate of that authority will do"
            }
            C::Expired | C::ExpiredContext { .. } => "has a certificate that has expired",
            C::NotValidYet | C::NotValidYetContext { .. } => {
                "has a certificate that is not valid yet; check the clocks"
            }
            C::Revoked => "has a certificate that was revoked",
            C::UnknownRevocationStatus
            | C::ExpiredRevocationList
            | C::ExpiredRevocationListContext { .. } => {
                "has a certificate that sslcrl says nothing valid about; renew the revocation list"
            }
            _ => "has a certificate that cannot be accepted",
        },
        rustls::Error::InvalidCertRevocationList(_) => {
            "has a certificate that sslcrl cannot be used for; is the list of the same authority?"
        }
        rustls::Error::AlertReceived(_) => {
            "broke the TLS connection off; a client certificate may be missing or not trusted \
             there, or the versions do not meet"
        }
        rustls::Error::PeerIncompatible(_) => {
            "offers no version or cipher of TLS that is acceptable here"
        }
        _ => "failed the TLS handshake",
    }
}
