//! Loopback ports for servers and proxies, leased so that nobody else takes one while its server
//! is down.
//!
//! A lease is an abstract Unix socket whose name has the port in it: the kernel gives it up when
//! the process dies, so no stale lease survives. It binds other users of this crate; strangers are
//! kept away by choosing outside the kernel's ephemeral range and by trying to bind first.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::error::{Error, Result};

const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;

/// A port that is ours for as long as this value lives.
#[derive(Debug)]
pub(crate) struct PortLease {
    pub(crate) port: u16,
    _lock: UnixListener,
}

impl PortLease {
    pub(crate) fn take() -> Result<Self> {
        for _ in 0..200 {
            let port = FIRST + (random() % u64::from(COUNT)) as u16;
            let Some(lock) = lock(&format!("segue-testkit-port-{port}")) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(Self { port, _lock: lock });
            }
        }
        Err(Error::Unsupported(format!(
            "no free TCP port found between {FIRST} and {}",
            FIRST + COUNT - 1
        )))
    }
}

/// Takes a machine-wide lock (per network namespace) that the kernel frees with the process.
pub(crate) fn lock(name: &str) -> Option<UnixListener> {
    let address = SocketAddr::from_abstract_name(name.as_bytes()).ok()?;
    UnixListener::bind_addr(&address).ok()
}

/// A random number from the standard library's seeds; good enough to spread choices.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leased_port_is_not_leased_twice() {
        let first = PortLease::take().unwrap();
        assert!(lock(&format!("segue-testkit-port-{}", first.port)).is_none());
        let port = first.port;
        drop(first);
        assert!(lock(&format!("segue-testkit-port-{port}")).is_some());
    }
}
