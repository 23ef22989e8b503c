//! For the fuzz target alone: authentication without a socket.

use bytes::BytesMut;

use super::auth::Authenticator;
use crate::config::Config;
use crate::error::Result;
use crate::wire::frame::Frame;

/// Answers a server's messages as far as they are taken, on the first host of `config`. Returns what
/// has been answered, and the method that let the user in, if one did.
pub fn authenticate(
    config: &Config,
    encrypted: bool,
    certificate: Option<&[u8]>,
    messages: &mut BytesMut,
) -> (BytesMut, Result<Option<&'static str>>) {
    let mut out = BytesMut::new();
    let Some(host) = config.hosts.first() else { return (out, Ok(None)) };
    let mut authenticator = Authenticator::new(config, host, encrypted, certificate);
    while let Ok(Some(frame)) = Frame::take(messages, 1 << 16) {
        if let Err(error) = authenticator.handle(&frame, &mut out) {
            return (out, Err(error));
        }
    }
    (out, Ok(authenticator.method()))
}
