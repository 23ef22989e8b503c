//! One proxied connection: its two sockets, and what can be done to it from outside at any time.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::pump::Pump;
use super::trigger::Fired;
use super::{Accept, Direction, Flow, Lane, Shared, lock};

/// Which of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// That of the client.
    Client,
    /// That of the server.
    Server,
    /// The two of them.
    Both,
}

/// A handle on one connection; it stays valid, without effect, after the connection's end.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    id: u64,
    client: TcpStream,
    server: TcpStream,
    lanes: [Mutex<Own>; 2],
    /// Held while bytes are written, so that injected ones do not end up inside others.
    pub(crate) writing: [Mutex<()>; 2],
    pub(crate) bytes: [AtomicU64; 2],
    pub(crate) over: AtomicBool,
    pub(crate) opaque: AtomicBool,
    /// How many one-byte answers to SSLRequest and GSSENCRequest are due.
    pub(crate) single_bytes_due: AtomicUsize,
    /// What the prepared statements of the connection say.
    pub(crate) statements: Mutex<HashMap<Vec<u8>, String>>,
    directions_left: AtomicUsize,
    /// Whether the client's, the server's socket was reset alone.
    severed: [AtomicBool; 2],
}

/// What one connection does beyond what all of them do.
#[derive(Debug, Default)]
pub(crate) struct Own {
    pub(crate) flow: Option<Flow>,
    pub(crate) held: bool,
    pub(crate) corrupt: Option<usize>,
    /// To be told when a whole reply has been swallowed.
    pub(crate) on_swallowed: Option<Arc<Fired>>,
}

impl Connection {
    /// Joins two sockets, and starts the two threads that carry bytes. If connections are no longer
    /// joined by now, it is reset: whoever has said so, and has reset those there were, did not see it.
    pub(crate) fn join(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let connection = Self {
            inner: Arc::new(Inner {
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                client,
                server,
                lanes: Default::default(),
                writing: Default::default(),
                bytes: Default::default(),
                over: AtomicBool::new(false),
                opaque: AtomicBool::new(false),
                single_bytes_due: AtomicUsize::new(0),
                statements: Mutex::default(),
                directions_left: AtomicUsize::new(2),
                severed: Default::default(),
            }),
        };
        {
            let mut state = shared.state();
            if state.accept != Accept::Forward {
                drop(state);
                connection.reset(Side::Both);
                return;
            }
            state.connections.push(connection.clone());
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            let pump = Pump::new(shared.clone(), connection.clone(), direction);
            let thread = std::thread::Builder::new().name("segue-proxy-pump".to_owned());
            if thread.spawn(move || pump.run()).is_err() {
                connection.reset(Side::Both);
                shared.state().connections.retain(|other| other.id() != connection.id());
            }
        }
    }

    /// Its number, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Whether bytes may still flow.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.inner.over.load(Ordering::Relaxed)
    }

    /// How many bytes were passed on in a direction.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.inner.bytes[direction.index()].load(Ordering::Relaxed)
    }

    /// What becomes of this connection's bytes; `None`: what becomes of everybody's.
    pub fn set_flow(&self, direction: Direction, flow: Option<Flow>) {
        self.own(direction, |own| own.flow = flow);
    }

    /// Lets go of what [`super::Action::Hold`] or [`super::Action::HoldReply`] holds.
    pub fn release(&self) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            self.own(direction, |own| own.held = false);
        }
    }

    /// Sends a TCP reset now. With one side only, the other side's connection stays open and
    /// silent: the server goes on with what it was doing, and gets what is held once it is released.
    pub fn reset(&self, side: Side) {
        // Said first: the pumps must not pass on to the other side what they are about to see.
        match side {
            Side::Client => self.inner.severed[0].store(true, Ordering::Release),
            Side::Server => self.inner.severed[1].store(true, Ordering::Release),
            Side::Both => self.inner.over.store(true, Ordering::Release),
        }
        if side != Side::Server {
            reset(&self.inner.client);
        }
        if side != Side::Client {
            reset(&self.inner.server);
        }
    }

    /// Ends the stream in one direction (FIN) now; the other direction stays open.
    pub fn half_close(&self, direction: Direction) {
        let _ = self.target(direction).shutdown(Shutdown::Write);
    }

    /// Flips all bits of one byte of the next bytes that pass: the byte at that offset, or the
    /// last one.
    pub fn corrupt_next(&self, direction: Direction, offset: usize) {
        self.own(direction, |own| own.corrupt = Some(offset));
    }

    /// Puts bytes of one's own into the stream now.
    pub fn inject(&self, direction: Direction, bytes: &[u8]) {
        let _writing = lock(&self.inner.writing[direction.index()]);
        let _ = self.target(direction).write_all(bytes);
    }

    pub(crate) fn source(&self, direction: Direction) -> &TcpStream {
        match direction {
            Direction::ToServer => &self.inner.client,
            Direction::ToClient => &self.inner.server,
        }
    }

    pub(crate) fn target(&self, direction: Direction) -> &TcpStream {
        self.source(direction.reverse())
    }

    pub(crate) fn own<T>(&self, direction: Direction, with: impl FnOnce(&mut Own) -> T) -> T {
        with(&mut lock(&self.inner.lanes[direction.index()]))
    }

    /// Whether the socket that a direction reads from was reset alone.
    pub(crate) fn is_severed(&self, direction: Direction) -> bool {
        self.inner.severed[direction.index()].load(Ordering::Acquire)
    }

    /// How a direction behaves, all things considered.
    pub(crate) fn lane(&self, shared: &Shared, direction: Direction) -> Lane {
        let mut lane = shared.state().lanes[direction.index()];
        self.own(direction, |own| {
            lane.flow = own.flow.unwrap_or(lane.flow);
            if self.is_severed(direction.reverse()) {
                lane.flow = Flow::Drop;
            }
            if own.held {
                lane.flow = Flow::Stall;
            }
        });
        lane
    }

    /// One direction has ended; with the second the connection is over.
    pub(crate) fn direction_ended(&self, shared: &Shared) {
        if self.inner.directions_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.over.store(true, Ordering::Relaxed);
            shared.state().connections.retain(|other| other.id() != self.id());
            let _ = self.inner.client.shutdown(Shutdown::Both);
            let _ = self.inner.server.shutdown(Shutdown::Both);
        }
    }
}

/// Resets a TCP connection. Dissolving the socket's association does so at once, while SO_LINGER
/// would wait until every thread has let go of the socket.
pub(crate) fn reset(socket: &TcpStream) {
    if rustix::net::connect_unspec(socket).is_err() {
        let _ = socket.shutdown(Shutdown::Both);
    }
}
