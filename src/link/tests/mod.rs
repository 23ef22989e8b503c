//! Links against real PostgreSQL servers, and against servers that misbehave on purpose.
//!
//! Every test starts the server it needs and takes it down again; one that cannot start its
//! server fails.

mod auth;
mod certs;
mod hostile;
mod server;
mod session;
mod tls;
mod traffic;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::{AsyncLink, Link};
use crate::config::*;
use crate::error::{Error, Result, ServerError};
use crate::wire::error_fields;
use crate::wire::frame::Frame;
use crate::wire::row::Values;

/// Long enough for a loaded machine; nothing waits for it unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration for one user on no server yet, whatever the environment says.
fn config(user: &str) -> Config {
    let conninfo = format!("host=127.0.0.1 user={user} dbname=postgres sslmode=disable ledger=off");
    let mut config = Config::parse_with(&conninfo, &Environment::empty()).unwrap();
    config.hosts.clear();
    config.application_name = "segue-test".to_owned();
    config.connect_timeout = Some(PATIENCE);
    config.target_session_attrs = TargetSessionAttrs::Any;
    config
}

fn with_password(user: &str, password: &str) -> Config {
    Config { password: Some(Secret::new(password)), ..config(user) }
}

/// A server on this machine under a name of the test's choice.
fn named(name: &str, port: u16) -> Host {
    let addr = Some(IpAddr::from([127, 0, 0, 1]));
    Host::new(Address::Tcp { name: name.to_owned(), addr }, port)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Dials as the background thread does and hands the link over as it does.
fn dial(config: &Config, host: &Host) -> Result<Link> {
    block_on(async { Ok(AsyncLink::dial(config, host).await?.into_blocking().unwrap()) })
}

fn refused(config: &Config, host: &Host) -> Error {
    match dial(config, host) {
        Ok(link) => panic!("let in by {}: {link:?}", link.info().auth_method),
        Err(e) => e,
    }
}

fn query_bytes(sql: &str) -> BytesMut {
    let mut out = BytesMut::new();
    frontend::query(sql, &mut out).unwrap();
    out
}

/// The first column of what a statement gives.
fn query(link: &mut Link, sql: &str) -> Result<Vec<String>, Box<ServerError>> {
    link.send(&query_bytes(sql)).unwrap();
    let mut buf = BytesMut::new();
    reply(&mut buf, |buf| link.recv_deadline(buf, Instant::now() + PATIENCE).unwrap())
}

fn reply(
    buf: &mut BytesMut,
    mut more: impl FnMut(&mut BytesMut) -> usize,
) -> Result<Vec<String>, Box<ServerError>> {
    let mut rows = Vec::new();
    let mut error = None;
    loop {
        let Some(frame) = Frame::take(buf, 1 << 30).unwrap() else {
            assert_ne!(more(buf), 0, "the server closed");
            continue;
        };
        match frame.tag() {
            b'D' => {
                let value = Values::new(frame.body()).unwrap().next().unwrap().unwrap();
                rows.push(String::from_utf8(value.unwrap_or(b"NULL").to_vec()).unwrap());
            }
            b'E' => error = Some(Box::new(error_fields::parse(frame.body()).unwrap())),
            b'Z' => return error.map_or(Ok(rows), Err),
            _ => {}
        }
    }
}
