//! What somebody would write by hand to get many statements through: one connection, INSERTs prepared
//! once, each with a Sync of its own and so a transaction of its own, many on their way at a time.
//!
//! It keeps nothing: what is on its way when the connection breaks is lost or done, and it cannot tell.

use std::io::{Read, Write};
use std::net::TcpStream;

use segue_testkit::Server;

use crate::Failure;
use crate::servers::identity;

/// So many are unanswered at most; below half of that, more are sent. As `submit` does it.
const WINDOW: u64 = 128;

fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend(u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes());
    out.extend(body);
}

pub struct Pipelined {
    socket: TcpStream,
    input: Vec<u8>,
}

impl Pipelined {
    /// Connects and prepares a statement of two parameters, an int8 and a text.
    pub fn connect(server: &Server, sql: &str) -> Result<Self, Failure> {
        let socket = TcpStream::connect((server.address(), server.port()))?;
        socket.set_nodelay(true)?;
        let mut client = Self { socket, input: Vec::new() };
        let (user, database) = identity();
        let body = format!("\0\x03\0\0user\0{user}\0database\0{database}\0\0");
        let mut out = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
        out.extend(body.as_bytes());
        client.socket.write_all(&out)?;
        client.wait(1)?;
        out.clear();
        let parse = format!("p\0{sql}\0\0\x02\0\0\0\x14\0\0\0\x19");
        message(&mut out, b'P', parse.as_bytes());
        message(&mut out, b'S', b"");
        client.socket.write_all(&out)?;
        client.wait(1)?;
        Ok(client)
    }

    /// Runs the statement with each id.
    pub fn run(&mut self, ids: std::ops::Range<i64>, note: &str) -> Result<(), Failure> {
        let (mut out, mut body) = (Vec::new(), Vec::new());
        let mut ids = ids.into_iter();
        let mut unanswered = 0;
        loop {
            if unanswered <= WINDOW / 2 {
                for id in ids.by_ref().take(usize::try_from(WINDOW - unanswered)?) {
                    body.clear();
                    body.extend(b"\0p\0\0\x02\0\x01\0\x01\0\x02\0\0\0\x08");
                    body.extend(id.to_be_bytes());
                    body.extend(u32::try_from(note.len())?.to_be_bytes());
                    body.extend(note.as_bytes());
                    body.extend(b"\0\0");
                    message(&mut out, b'B', &body);
                    message(&mut out, b'E', b"\0\0\0\0\0");
                    message(&mut out, b'S', b"");
                    unanswered += 1;
                }
                self.socket.write_all(&out)?;
                out.clear();
            }
            if unanswered == 0 {
                return Ok(());
            }
            unanswered -= self.wait(1)?;
        }
    }

    /// Reads until so many ReadyForQuery have come at least; returns how many have.
    fn wait(&mut self, least: u64) -> Result<u64, Failure> {
        let mut ready = 0;
        let mut buffer = [0; 16 * 1024];
        while ready < least {
            let read = self.socket.read(&mut buffer)?;
            if read == 0 {
                return Err("the server closed the pipelined client's connection".into());
            }
            self.input.extend(&buffer[..read]);
            let mut at = 0;
            while let [tag, a, b, c, d, ..] = self.input[at..] {
                let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))? + 1;
                if self.input.len() < at + length {
                    break;
                }
                match tag {
                    b'Z' => ready += 1,
                    b'E' => return Err("the pipelined client's statement was refused".into()),
                    _ => {}
                }
                at += length;
            }
            self.input.drain(..at);
        }
        Ok(ready)
    }
}
