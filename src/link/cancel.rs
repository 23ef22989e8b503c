//! Cancel requests: each on a connection of its own, to the very address that the link reached,
//! and encrypted if the link is, because the key that it carries is a secret.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::time::Instant;

use super::LinkInfo;
use super::dial::{Transport, within};
use crate::config::{Address, Config, Host};
use crate::error::{Error, ErrorKind, Result};

/// The bound where `connect_timeout` sets none: a cancel request must not wait for ever.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The "version" that stands for a cancel request.
const CANCEL_REQUEST: i32 = 80_877_102;

/// Sends a cancel request for the backend described by `info`, on a connection of its own.
///
/// Returns when the server has taken note. Whether anything was cancelled shows only on the link
/// itself. Cancelling is a wish: what arrives too late hits the backend's next statement.
pub async fn cancel(config: &Config, host: &Host, info: &LinkInfo) -> Result<()> {
    if info.cancel_key.is_empty() {
        let message = format!("the server at {host} gave no key to cancel statements with");
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let host = same_address(host, info);
    let deadline = Instant::now().checked_add(config.connect_timeout.unwrap_or(TIMEOUT_DEFAULT));
    within(deadline, &host, async {
        let encrypt = info.tls_version.is_some();
        let mut transport = Transport::connect(config, &host, encrypt, deadline).await?;
        transport.send(&request(info)).await.map_err(|e| {
            Error::new(ErrorKind::Connect, format!("the cancel request to {host} was cut off"))
                .with_source(e)
        })?;
        // The server closes when it has passed the signal on. However the connection ends, it ends.
        let mut nothing = BytesMut::new();
        while transport.recv(&mut nothing).await.is_ok_and(|n| n > 0) {
            nothing.clear();
        }
        Ok(())
    })
    .await
}

/// As [`cancel`], from any thread, whether or not a runtime runs there.
pub fn cancel_blocking(config: &Config, host: &Host, info: &LinkInfo) -> Result<()> {
    let failed = |e| {
        Error::new(ErrorKind::Connect, "the cancel request could not be started").with_source(e)
    };
    // A thread of its own, because a thread that belongs to the application's tokio may not
    // start a second runtime.
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("segue-cancel".to_owned()).spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(failed)?;
                let result = runtime.block_on(cancel(config, host, info));
                // A resolver that hangs must not hold the caller beyond the deadline.
                runtime.shutdown_background();
                result
            });
        match thread.map_err(failed)?.join() {
            Ok(result) => result,
            Err(_) => Err(Error::new(ErrorKind::Connect, "the cancel request failed unexpectedly")),
        }
    })
}

/// A name may have several addresses; the backend lives behind the one that the link reached.
fn same_address(host: &Host, info: &LinkInfo) -> Host {
    let mut host = host.clone();
    if let (Address::Tcp { addr, .. }, Some(peer)) = (&mut host.address, info.peer) {
        *addr = Some(peer.ip());
    }
    host
}

fn request(info: &LinkInfo) -> BytesMut {
    let mut out = BytesMut::new();
    // Length, code, process and key; the key's length varies since protocol 3.2.
    out.put_u32(u32::try_from(12 + info.cancel_key.len()).unwrap_or(u32::MAX));
    out.put_i32(CANCEL_REQUEST);
    out.put_i32(info.backend_pid);
    out.put_slice(&info.cancel_key);
    out
}
