//! For the fuzz target alone: authentication without a socket.

use bytes::BytesMut;

use super::auth::Authenticator;
use crate::config::Config;
use crate::error::Result;
use crate::wire::frame::Frame;

/// Answers a server on the first host of `config`. `next` is given all that has been answered so far and says
/// what the server sends then; `None` is the end. Returns what has been answered, and the method that let the
/// user in, if one did.
pub fn authenticate(
    config: &Config,
    encrypted: bool,
    certificate: Option<&[u8]>,
    mut next: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> (BytesMut, Result<Option<&'static str>>) {
    let mut out = BytesMut::new();
    let Some(host) = config.hosts.first() else { return (out, Ok(None)) };
    let mut authenticator = Authenticator::new(config, host, encrypted, certificate);
    let mut messages = BytesMut::new();
    while let Some(sent) = next(&out) {
        messages.extend_from_slice(&sent);
        while let Ok(Some(frame)) = Frame::take(&mut messages, 1 << 16) {
            if let Err(error) = authenticator.handle(&frame, &mut out) {
                return (out, Err(error));
            }
        }
    }
    (out, Ok(authenticator.method()))
}
