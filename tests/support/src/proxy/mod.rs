//! A TCP proxy in front of one server that does to a connection what networks and dying servers
//! do: stall, swallow, reset, half-close, delay, corrupt, at any time or at a chosen message.
//!
//! It follows PostgreSQL's messages where they are not encrypted, so that a fault can be put just
//! before or just after a COMMIT; TLS passes through unread, and only byte counts trigger there.
//! The kernel acknowledges what the proxy has not read: for packets that are really lost use
//! [`crate::netns`].

mod connection;
mod frames;
mod pump;
mod trigger;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::error::{Error, Result};
use crate::ports::PortLease;
use crate::server::Server;
pub use connection::{Connection, Side};
pub use frames::Message;
pub use trigger::{Action, Trigger};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_TICK: Duration = Duration::from_millis(20);

/// One of the two ways that bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn reverse(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They go on.
    #[default]
    Pass,
    /// They are neither read nor written, and the end of the stream is not seen: a network that
    /// may come back. Nothing is lost.
    Stall,
    /// They are read and thrown away, and neither end nor reset is passed on: a network that does
    /// not come back. After it a connection is out of step for good.
    Drop,
}

/// What becomes of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// They are joined to the server; reset where that refuses.
    #[default]
    Forward,
    /// Nobody listens: connection refused.
    Refuse,
    /// Accepted and left in silence.
    Silent,
    /// Accepted and reset.
    Reset,
}

/// How one direction behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lane {
    pub(crate) flow: Flow,
    pub(crate) delay: Duration,
    /// Bytes per second.
    pub(crate) bandwidth: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) accept: Accept,
    pub(crate) lanes: [Lane; 2],
    pub(crate) triggers: Vec<trigger::Armed>,
    pub(crate) connections: Vec<Connection>,
    silent: Vec<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    upstream: Mutex<SocketAddr>,
    listener: Mutex<Option<TcpListener>>,
    port: PortLease,
    stop: AtomicBool,
    accepted: AtomicU64,
    pub(crate) bytes: [AtomicU64; 2],
}

/// A proxy on a loopback port of its own; dropping it resets its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy in front of a server.
    ///
    /// # Errors
    /// When no port or thread is to be had.
    pub fn to_server(server: &Server) -> Result<Self> {
        Self::to_address((server.address(), server.port()))
    }

    /// A proxy in front of any address.
    ///
    /// # Errors
    /// When the address cannot be resolved, or no port or thread is to be had.
    pub fn to_address(upstream: impl ToSocketAddrs) -> Result<Self> {
        let port = PortLease::take()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.port))
            .map_err(Error::io("listening for the proxy"))?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            upstream: Mutex::new(resolve(upstream)?),
            listener: Mutex::new(Some(listener)),
            port,
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            bytes: Default::default(),
        });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("segue-proxy".to_owned())
            .spawn(move || accept_loop(&of_thread))
            .map_err(Error::io("starting the proxy's thread"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.port.port
    }

    /// Sends new connections elsewhere; those that stand stay.
    ///
    /// # Errors
    /// When the address cannot be resolved.
    pub fn set_upstream(&self, upstream: impl ToSocketAddrs) -> Result<()> {
        *lock(&self.shared.upstream) = resolve(upstream)?;
        Ok(())
    }

    /// What becomes of new connections, from the return of this call on.
    ///
    /// # Errors
    /// When the port cannot be listened on again.
    pub fn set_accept(&self, accept: Accept) -> Result<()> {
        let mut listener = lock(&self.shared.listener);
        self.shared.state().accept = accept;
        match (accept, listener.is_some()) {
            (Accept::Refuse, _) => *listener = None,
            (_, false) => {
                let fresh = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port()))
                    .map_err(Error::io("listening for the proxy again"))?;
                *listener = Some(fresh);
            }
            (_, true) => {}
        }
        Ok(())
    }

    /// What becomes of the bytes of all connections, present and to come, in one direction.
    pub fn set_flow(&self, direction: Direction, flow: Flow) {
        self.shared.state().lanes[direction.index()].flow = flow;
    }

    /// The same in both directions.
    pub fn set_flow_both(&self, flow: Flow) {
        self.set_flow(Direction::ToServer, flow);
        self.set_flow(Direction::ToClient, flow);
    }

    /// Delivers bytes so much later; order and throughput stay.
    pub fn set_delay(&self, direction: Direction, delay: Duration) {
        self.shared.state().lanes[direction.index()].delay = delay;
    }

    /// Delivers at most so many bytes a second on each connection.
    pub fn set_bandwidth(&self, direction: Direction, bytes_per_second: Option<u64>) {
        self.shared.state().lanes[direction.index()].bandwidth = bytes_per_second;
    }

    /// The connections that stand, the oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.state().connections.clone()
    }

    /// Resets all connections now, towards both sides.
    pub fn reset_all(&self) {
        for connection in self.connections() {
            connection.reset(Side::Both);
        }
        self.shared.state().silent.clear();
    }

    /// Ends all connections in an orderly way, towards both sides.
    pub fn close_all(&self) {
        for connection in self.connections() {
            connection.half_close(Direction::ToClient);
            connection.half_close(Direction::ToServer);
        }
        self.shared.state().silent.clear();
    }

    /// How many connections were accepted so far, whatever became of them.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many bytes were passed on so far.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.shared.bytes[direction.index()].load(Ordering::Relaxed)
    }

    /// Does something at the first message from a client, on any connection, for which the
    /// predicate holds. Several triggers may be armed; each fires once.
    pub fn on_client_message(
        &self,
        predicate: impl FnMut(&Message<'_>) -> bool + Send + 'static,
        action: Action,
    ) -> Trigger {
        self.shared.arm(Direction::ToServer, trigger::Condition::message(predicate), action)
    }

    /// The same for a message from the server.
    pub fn on_server_message(
        &self,
        predicate: impl FnMut(&Message<'_>) -> bool + Send + 'static,
        action: Action,
    ) -> Trigger {
        self.shared.arm(Direction::ToClient, trigger::Condition::message(predicate), action)
    }

    /// Does something at the `count`th message of a type (such as `b'D'`, DataRow) that the server
    /// sends from now on, all connections counted together.
    pub fn on_server_tag(&self, tag: u8, count: usize, action: Action) -> Trigger {
        let mut left = count;
        let predicate = move |message: &Message<'_>| {
            left -= usize::from(message.tag == tag && left > 0);
            message.tag == tag && left == 0
        };
        self.on_server_message(predicate, action)
    }

    /// Does something once so many more bytes have passed in a direction, all connections counted
    /// together: what came before that byte is forwarded, the action meets the rest. The only
    /// trigger that works on encrypted connections.
    pub fn after_bytes(&self, direction: Direction, count: usize, action: Action) -> Trigger {
        self.shared.arm(direction, trigger::Condition::bytes(count), action)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.reset_all();
        // What is armed may hold handles of the caller's.
        self.shared.state().triggers.clear();
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn arm(&self, at: Direction, condition: trigger::Condition, action: Action) -> Trigger {
        let (trigger, armed) = trigger::arm(at, condition, action);
        self.state().triggers.push(armed);
        trigger
    }
}

fn accept_loop(shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        if let Some(client) = accept_one(shared) {
            let of_thread = shared.clone();
            let joined = std::thread::Builder::new()
                .name("segue-proxy-join".to_owned())
                .spawn(move || welcome(&of_thread, client));
            // Without a thread the client is dropped, which it sees as the end of the stream.
            drop(joined);
        }
    }
    *lock(&shared.listener) = None;
}

fn accept_one(shared: &Shared) -> Option<TcpStream> {
    let accepted = {
        let listener = lock(&shared.listener);
        let listener = listener.as_ref().filter(|listener| readable(*listener, ACCEPT_TICK));
        listener.and_then(|listener| listener.accept().ok())
    };
    let Some((client, _)) = accepted else {
        // Lets set_accept have the listener.
        std::thread::sleep(Duration::from_millis(1));
        return None;
    };
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    Some(client)
}

fn welcome(shared: &Arc<Shared>, client: TcpStream) {
    let accept = shared.state().accept;
    match accept {
        Accept::Forward => {
            let upstream = *lock(&shared.upstream);
            match TcpStream::connect_timeout(&upstream, CONNECT_TIMEOUT) {
                Ok(server) => Connection::join(shared, client, server),
                Err(_) => connection::reset(&client),
            }
        }
        Accept::Silent => shared.state().silent.push(client),
        Accept::Refuse | Accept::Reset => connection::reset(&client),
    }
}

/// Waits until there is something to read, or an end.
pub(crate) fn readable(socket: &impl std::os::fd::AsFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP)];
    let timeout = Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(1),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    rustix::event::poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

fn resolve(upstream: impl ToSocketAddrs) -> Result<SocketAddr> {
    let mut addresses =
        upstream.to_socket_addrs().map_err(Error::io("resolving the proxy's upstream"))?;
    addresses.next().ok_or_else(|| Error::State("the proxy's upstream has no address".to_owned()))
}
