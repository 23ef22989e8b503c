//! The least that a blocking client can do for a point SELECT: one prebuilt message, one write, one
//! read, and a look at the answer. It protects nothing and checks hardly anything: it is the floor.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use segue_testkit::Server;

use super::{POINT, timed};
use crate::Failure;
use crate::measure::{Contestant, Lap, Random};
use crate::servers::{Way, identity};

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connection.
pub struct Minimal {
    socket: Socket,
    /// Bind, Execute and Sync of the point SELECT.
    request: Vec<u8>,
    /// Where the parameter stands in `request`.
    parameter: usize,
    input: Vec<u8>,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes());
    out.extend(body);
    out
}

impl Minimal {
    pub fn connect(server: &Server, way: Way) -> Result<Self, Failure> {
        let socket = match way {
            Way::Tcp => {
                let socket = TcpStream::connect((server.address(), server.port()))?;
                socket.set_nodelay(true)?;
                Socket::Tcp(socket)
            }
            Way::Unix => {
                let name = format!(".s.PGSQL.{}", server.port());
                Socket::Unix(UnixStream::connect(server.socket_dir().join(name))?)
            }
        };
        let bind = b"\0p\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\0\0\x01\0\x01";
        let mut request = message(b'B', bind);
        let parameter = request.len() - 8;
        request.extend(message(b'E', b"\0\0\0\0\0"));
        request.extend(message(b'S', b""));
        let mut client = Self { socket, request, parameter, input: vec![0; 8192] };
        let (user, database) = identity();
        let body = format!("\0\x03\0\0user\0{user}\0database\0{database}\0\0");
        let mut startup = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
        startup.extend(body.as_bytes());
        client.exchange(&startup)?;
        let mut parse = message(b'P', format!("p\0{POINT}\0\0\x01\0\0\0\x17").as_bytes());
        parse.extend(message(b'S', b""));
        client.exchange(&parse)?;
        Ok(client)
    }

    /// Sends, and reads up to ReadyForQuery; the length of what was read.
    fn exchange(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        self.write(bytes)?;
        self.read()
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.write_all(bytes),
            Socket::Unix(socket) => socket.write_all(bytes),
        }
    }

    fn read(&mut self) -> Result<usize, Failure> {
        let mut filled = 0;
        loop {
            let room = &mut self.input[filled..];
            let read = match &mut self.socket {
                Socket::Tcp(socket) => socket.read(room)?,
                Socket::Unix(socket) => socket.read(room)?,
            };
            if read == 0 {
                return Err("the server closed the minimal client's connection".into());
            }
            filled += read;
            let end = self.input[..filled].last_chunk::<6>();
            if end.is_some_and(|end| end.starts_with(b"Z\0\0\0\x05")) {
                return Ok(filled);
            }
        }
    }

    fn point(&mut self, aid: i32) -> Result<i32, Failure> {
        self.request[self.parameter..self.parameter + 4].copy_from_slice(&aid.to_be_bytes());
        let request = std::mem::take(&mut self.request);
        let filled = self.exchange(&request);
        self.request = request;
        let mut rest = &self.input[..filled?];
        while let [tag, a, b, c, d, body @ ..] = rest {
            let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d]))?;
            let (body, behind) = body.split_at(length - 4);
            if let (b'D', Some(value)) = (tag, body.last_chunk::<4>()) {
                return Ok(i32::from_be_bytes(*value));
            }
            rest = behind;
        }
        Err("the minimal client got no row".into())
    }
}

/// Takes turns with point SELECTs.
pub struct Point<'a> {
    pub client: &'a mut Minimal,
    pub count: u32,
    pub rows: u32,
}

impl Contestant for Point<'_> {
    fn name(&self) -> &str {
        "minimal"
    }

    fn lap(&mut self, seed: u64) -> Result<Lap, Failure> {
        let mut random = Random(seed);
        timed(self.count, || self.client.point(1 + random.below(self.rows)).map(drop)).map(Lap::of)
    }
}
