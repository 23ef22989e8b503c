//! Sockets as tokio sees them: connecting, the options of [`KeepAlive`](crate::config::KeepAlive),
//! and plain reads and writes.
//!
//! Nothing here knows TLS or the protocol. A socket is connected with every option already set,
//! so that the time-outs hold for the connecting itself as well.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::Instant;

use crate::config::{Address, Config, Host};

/// How much room is made for one read.
pub(super) const READ_SIZE: usize = 32 * 1024;

/// A connected socket, registered with the runtime.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to `host`, trying all its addresses in turn, and says which one answered.
    ///
    /// Up to `deadline` every address gets an equal share of what is left, so that a first one
    /// that swallows packets does not keep the others from being tried.
    pub(super) async fn connect(
        config: &Config,
        host: &Host,
        deadline: Option<Instant>,
    ) -> io::Result<(Self, Option<SocketAddr>)> {
        match &host.address {
            Address::Unix { directory } => {
                let stream = connect_unix(&unix_path(directory, host.port)).await?;
                Ok((Self::Unix(stream), None))
            }
            Address::Tcp { name, addr } => {
                let addresses = resolve(name, *addr, host.port).await?;
                let (stream, peer) = connect_tcp(config, &addresses, deadline).await?;
                Ok((Self::Tcp(stream), Some(peer)))
            }
        }
    }

    /// Sends all of `bytes`.
    pub(super) async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = match self {
                Self::Tcp(stream) => stream.try_write(bytes),
                Self::Unix(stream) => stream.try_write(bytes),
            };
            match sent {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self {
                    Self::Tcp(stream) => stream.writable().await?,
                    Self::Unix(stream) => stream.writable().await?,
                },
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Appends what has arrived; 0 means that the server closed. Cancel safe.
    pub(super) async fn recv(&self, buf: &mut BytesMut) -> io::Result<usize> {
        buf.reserve(READ_SIZE);
        loop {
            let received = match self {
                Self::Tcp(stream) => stream.try_read_buf(buf),
                Self::Unix(stream) => stream.try_read_buf(buf),
            };
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match self {
                    Self::Tcp(stream) => stream.readable().await?,
                    Self::Unix(stream) => stream.readable().await?,
                },
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Gives the socket back to the kernel's blocking mode. Must be called inside the runtime.
    pub(super) fn into_blocking(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
            Self::Unix(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => stream.fmt(f),
            Self::Unix(stream) => stream.fmt(f),
        }
    }
}

/// The socket's path; a directory that starts with `@` lies in Linux's abstract namespace.
fn unix_path(directory: &Path, port: u16) -> PathBuf {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    match path.to_str().and_then(|text| text.strip_prefix('@')) {
        Some(name) => PathBuf::from(format!("\0{name}")),
        None => path,
    }
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            // A full backlog, as in a storm of reconnects: a blocking connect would wait here, a
            // non-blocking one has to ask again. The caller's deadline ends it.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            done => return done,
        }
    }
}

/// The addresses to try. The resolver's thread is used only for what has to be resolved.
async fn resolve(name: &str, addr: Option<IpAddr>, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(ip) = addr.or_else(|| name.parse().ok()) {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let unknown = |error| io::Error::new(io::ErrorKind::NotFound, error);
    let addresses: Vec<_> = tokio::net::lookup_host((name, port)).await.map_err(unknown)?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

async fn connect_tcp(
    config: &Config,
    addresses: &[SocketAddr],
    deadline: Option<Instant>,
) -> io::Result<(TcpStream, SocketAddr)> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address to try");
    for (i, &address) in addresses.iter().enumerate() {
        let attempt = connect_address(config, address);
        let tried = match deadline {
            None => attempt.await,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let share = left / u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
                tokio::time::timeout(share, attempt)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            }
        };
        match tried {
            Ok(stream) => return Ok((stream, address)),
            Err(e) => failure = io::Error::new(e.kind(), format!("{address}: {e}")),
        }
    }
    Err(failure)
}

async fn connect_address(config: &Config, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    if config.keepalive.enabled {
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = config.keepalive.idle {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = config.keepalive.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = config.keepalive.count {
            keepalive = keepalive.with_retries(count);
        }
        options.set_tcp_keepalive(&keepalive)?;
        options.set_keepalive(true)?;
    }
    if config.keepalive.tcp_user_timeout.is_some() {
        options.set_tcp_user_timeout(config.keepalive.tcp_user_timeout)?;
    }
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_paths() {
        assert_eq!(unix_path(Path::new("/run/pg"), 5432), Path::new("/run/pg/.s.PGSQL.5432"));
        assert_eq!(unix_path(Path::new("@pg"), 5433), Path::new("\0pg/.s.PGSQL.5433"));
    }
}
