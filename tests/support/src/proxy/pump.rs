//! Carries the bytes of one direction, through whatever stands in their way.
//!
//! Everything is decided when bytes are about to go on, not when they arrive: a delay or a stall
//! must not let a later fault miss them.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::connection::{Connection, Side};
use super::frames::{Frame, Framer};
use super::trigger::{Action, Armed, Fired};
use super::{Direction, Flow, Shared, lock, readable};

/// How often a pump looks for a change while it stalls, and while nothing comes.
const STALL_TICK: Duration = Duration::from_millis(2);
const IDLE_TICK: Duration = Duration::from_millis(100);
const QUEUE_MAX: usize = 256 * 1024;
const WRITE_MAX: usize = 64 * 1024;
/// ReadyForQuery: type, length, status.
const READY_LENGTH: usize = 6;

struct Piece {
    due: Instant,
    frame: Frame,
}

pub(crate) struct Pump {
    shared: Arc<Shared>,
    connection: Connection,
    direction: Direction,
    framer: Framer,
    queue: VecDeque<Piece>,
    queued: usize,
    /// What the source has come to.
    end: Option<End>,
    /// What follows once the request that is being forwarded is complete.
    after_request: Option<AfterRequest>,
    /// The last bytes swallowed.
    swallowed: Vec<u8>,
}

enum AfterRequest {
    Announce(Arc<Fired>),
    Reset(Arc<Fired>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Broken,
}

impl Pump {
    pub(crate) fn new(shared: Arc<Shared>, connection: Connection, direction: Direction) -> Self {
        Self {
            shared,
            connection,
            direction,
            framer: Framer::new(direction),
            queue: VecDeque::new(),
            queued: 0,
            end: None,
            after_request: None,
            swallowed: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        while self.connection.is_open() && self.step() {}
        self.connection.direction_ended(&self.shared);
    }

    /// Moves on a little; false when this direction has ended.
    fn step(&mut self) -> bool {
        let lane = self.connection.lane(&self.shared, self.direction);
        match lane.flow {
            Flow::Stall => {
                std::thread::sleep(STALL_TICK);
                return true;
            }
            Flow::Drop => {
                self.queue.clear();
                self.queued = 0;
            }
            Flow::Pass => {
                let now = Instant::now();
                if self.queue.front().is_some_and(|piece| piece.due <= now) {
                    return self.forward_next(lane.bandwidth);
                }
                if self.queue.is_empty() && self.end.is_some() {
                    return self.pass_on_the_end();
                }
            }
        }
        let severed = self.connection.is_severed(self.direction);
        if severed || self.end.is_some() || self.queued > QUEUE_MAX {
            std::thread::sleep(STALL_TICK);
            return true;
        }
        let until_due = self.queue.front().map(|piece| piece.due - Instant::now());
        let wait = until_due.unwrap_or(IDLE_TICK).min(IDLE_TICK);
        if !readable(self.connection.source(self.direction), wait) {
            return true;
        }
        // What is true now counts, not what was before the wait.
        let lane = self.connection.lane(&self.shared, self.direction);
        if lane.flow != Flow::Stall && !self.connection.is_severed(self.direction) {
            self.read(lane.flow, lane.delay);
        }
        true
    }

    fn read(&mut self, flow: Flow, delay: Duration) {
        let mut buffer = [0; 16 * 1024];
        match self.connection.source(self.direction).read(&mut buffer) {
            Ok(0) => self.end = Some(End::Closed),
            Ok(count) if flow == Flow::Drop => self.swallow(&buffer[..count]),
            Ok(count) => {
                self.framer.push(&buffer[..count]);
                while let Some(frame) = self.framer.poll(&self.connection.inner) {
                    self.enqueue(frame, delay);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => self.end = Some(End::Broken),
        }
        if self.end.is_some() && flow != Flow::Drop {
            if let Some(frame) = self.framer.rest() {
                self.enqueue(frame, delay);
            }
        }
    }

    /// Throws bytes away, and tells whoever waits for a whole reply to be gone: one up to its
    /// ReadyForQuery, or any, where nothing can be read in it.
    fn swallow(&mut self, bytes: &[u8]) {
        self.swallowed.extend_from_slice(bytes);
        let ready = |bytes: &[u8]| bytes.starts_with(&[b'Z', 0, 0, 0, 5]);
        let opaque = self.connection.inner.opaque.load(Ordering::Acquire);
        let whole = opaque
            || self.direction == Direction::ToServer
            || self.swallowed.windows(READY_LENGTH).any(ready);
        let surplus = self.swallowed.len().saturating_sub(READY_LENGTH);
        self.swallowed.drain(..surplus);
        if whole {
            let fired = self.connection.own(self.direction, |own| own.on_swallowed.take());
            if let Some(fired) = fired {
                fired.announce(&self.connection);
            }
        }
    }

    fn enqueue(&mut self, frame: Frame, delay: Duration) {
        self.queued += frame.bytes.len();
        self.queue.push_back(Piece { due: Instant::now() + delay, frame });
    }

    fn pass_on_the_end(&self) -> bool {
        match self.end {
            Some(End::Broken) => self.connection.reset(Side::Both),
            _ => self.connection.half_close(self.direction),
        }
        false
    }

    /// Forwards what is due, in as few writes as the triggers allow.
    fn forward_next(&mut self, bandwidth: Option<u64>) -> bool {
        let now = Instant::now();
        let mut out = Vec::new();
        while self.queue.front().is_some_and(|piece| piece.due <= now) && out.len() < WRITE_MAX {
            let Some(Piece { due, mut frame }) = self.queue.pop_front() else {
                break;
            };
            self.queued -= frame.bytes.len();
            if let Some((armed, at)) = self.armed_for(&frame) {
                // What stands before goes on; the rest meets the action.
                let rest = frame.bytes.split_off(at);
                frame.is_message &= at == 0;
                out.extend(std::mem::replace(&mut frame.bytes, rest));
                if !self.write(&out, bandwidth) {
                    return false;
                }
                out.clear();
                match self.act(armed, &mut frame) {
                    Next::Forward => {}
                    Next::Forget => return true,
                    Next::End => return false,
                    Next::Keep => {
                        self.queued += frame.bytes.len();
                        self.queue.push_front(Piece { due, frame });
                        return true;
                    }
                }
            }
            let corrupt = self.connection.own(self.direction, |own| own.corrupt.take());
            if let Some(offset) = corrupt {
                let last = frame.bytes.len().saturating_sub(1);
                if let Some(byte) = frame.bytes.get_mut(offset.min(last)) {
                    *byte = !*byte;
                }
            }
            out.extend_from_slice(&frame.bytes);
            let request_ends = self.direction == Direction::ToClient || !frame.awaits_sync();
            if request_ends && self.after_request.is_some() {
                if !self.write(&out, bandwidth) {
                    return false;
                }
                out.clear();
                self.finish_request();
            }
        }
        self.write(&out, bandwidth)
    }

    fn finish_request(&mut self) {
        match self.after_request.take() {
            None => {}
            Some(AfterRequest::Announce(fired)) => fired.announce(&self.connection),
            Some(AfterRequest::Reset(fired)) => {
                self.connection.half_close(self.direction);
                self.connection.reset(match self.direction {
                    Direction::ToServer => Side::Client,
                    Direction::ToClient => Side::Server,
                });
                fired.announce(&self.connection);
            }
        }
    }

    /// Takes the first trigger that fires within the frame.
    fn armed_for(&self, frame: &Frame) -> Option<(Armed, usize)> {
        let message = frame.message(&self.connection.inner, self.direction);
        let mut state = self.shared.state();
        let count = frame.bytes.len();
        let (index, at) = state.triggers.iter_mut().enumerate().find_map(|(index, armed)| {
            Some((index, armed.fires_at(self.direction, message.as_ref(), count)?))
        })?;
        Some((state.triggers.remove(index), at))
    }

    fn act(&mut self, armed: Armed, frame: &mut Frame) -> Next {
        let Armed { action, fired, .. } = armed;
        let connection = &self.connection;
        let reply = self.direction.reverse();
        let next = match action {
            Action::Drop => {
                connection.set_flow(self.direction, Some(Flow::Drop));
                Next::Forget
            }
            Action::Hold => {
                connection.own(self.direction, |own| own.held = true);
                Next::Keep
            }
            Action::SwallowReply => {
                // Before it goes on: afterwards the reply might be faster than we are.
                connection.own(reply, |own| {
                    own.flow = Some(Flow::Drop);
                    own.on_swallowed = Some(fired);
                });
                return Next::Forward;
            }
            Action::HoldReply => {
                connection.own(reply, |own| own.held = true);
                self.after_request = Some(AfterRequest::Announce(fired));
                return Next::Forward;
            }
            Action::Reset => {
                connection.reset(Side::Both);
                Next::Forget
            }
            Action::ForwardThenReset => {
                connection.set_flow(reply, Some(Flow::Drop));
                self.after_request = Some(AfterRequest::Reset(fired));
                return Next::Forward;
            }
            Action::Close => {
                connection.half_close(self.direction);
                connection.half_close(reply);
                Next::End
            }
            Action::Corrupt => {
                if let Some(byte) = frame.bytes.first_mut() {
                    *byte = !*byte;
                }
                Next::Forward
            }
            Action::Run(work) => {
                work(connection);
                Next::Forward
            }
        };
        fired.announce(connection);
        next
    }

    fn write(&self, bytes: &[u8], bandwidth: Option<u64>) -> bool {
        let slice = bandwidth.map_or(usize::MAX, |rate| (rate / 100).max(1) as usize);
        for part in bytes.chunks(slice.min(bytes.len().max(1))) {
            if !self.connection.is_open() {
                return false;
            }
            // Counted first: whoever has seen the bytes must see them counted.
            let count = part.len() as u64;
            self.shared.bytes[self.direction.index()].fetch_add(count, Ordering::Relaxed);
            self.connection.inner.bytes[self.direction.index()].fetch_add(count, Ordering::Relaxed);
            let written = {
                let _writing = lock(&self.connection.inner.writing[self.direction.index()]);
                self.connection.target(self.direction).write_all(part)
            };
            if written.is_err() {
                // The other direction sees the same end and says so to the source.
                return false;
            }
            if let Some(rate) = bandwidth {
                std::thread::sleep(Duration::from_secs_f64(part.len() as f64 / rate.max(1) as f64));
            }
        }
        true
    }
}

enum Next {
    Forward,
    /// The frame is not forwarded.
    Forget,
    /// The frame waits.
    Keep,
    /// The frame is not forwarded, and neither is anything after it.
    End,
}
