//! What fires, when, and how a test learns of it.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::connection::Connection;
use super::frames::Message;
use super::{Direction, lock};
use crate::error::{Error, Result};

/// What happens at the message (or byte) that a trigger waits for.
#[non_exhaustive]
pub enum Action {
    /// It and all that follows in its direction is thrown away: a COMMIT that never arrives. The
    /// connection stays open.
    Drop,
    /// It and all that follows in its direction waits until [`Connection::release`]: a COMMIT that
    /// arrives late.
    Hold,
    /// It goes on, and nothing comes back any more: a commit whose acknowledgement is lost. The
    /// connection stays open. Fires when the server's reply has been swallowed, so that the commit
    /// is known to have happened. (Replies that are still on their way are lost, too.)
    SwallowReply,
    /// It goes on, and what comes back waits until [`Connection::release`]. Fires when its request
    /// has been handed to the server's socket.
    HoldReply,
    /// It is thrown away and the connection is reset towards both sides.
    Reset,
    /// It and what follows up to the end of its request (Sync) goes on; then the server sees the
    /// end of the stream, and the client a reset instead of the reply.
    ForwardThenReset,
    /// It is thrown away and the stream ends (FIN) towards both sides.
    Close,
    /// The first of its bytes has all its bits flipped.
    Corrupt,
    /// Something of the caller's own is done, such as killing the server; then it goes on.
    Run(Box<dyn FnOnce(&Connection) + Send>),
}

impl Action {
    /// [`Action::Run`].
    pub fn run(work: impl FnOnce(&Connection) + Send + 'static) -> Self {
        Self::Run(Box::new(work))
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "Drop",
            Self::Hold => "Hold",
            Self::SwallowReply => "SwallowReply",
            Self::HoldReply => "HoldReply",
            Self::Reset => "Reset",
            Self::ForwardThenReset => "ForwardThenReset",
            Self::Close => "Close",
            Self::Corrupt => "Corrupt",
            Self::Run(_) => "Run",
        })
    }
}

/// A handle on an armed trigger. Dropping it does not disarm the trigger.
#[derive(Debug, Clone)]
pub struct Trigger {
    fired: Arc<Fired>,
}

impl Trigger {
    /// Waits until it has fired and the action is done, and returns the connection it met.
    ///
    /// # Errors
    /// When it has not by then.
    pub fn wait(&self, timeout: Duration) -> Result<Connection> {
        let guard = lock(&self.fired.connection);
        let waited = self.fired.changed.wait_timeout_while(guard, timeout, |fired| fired.is_none());
        let fired = match waited {
            Ok((guard, _)) => guard.clone(),
            Err(poisoned) => poisoned.into_inner().0.clone(),
        };
        fired.ok_or_else(|| Error::timeout("what a proxy's trigger waits for", timeout))
    }

    /// Whether it has fired and the action is done; a client may see the effect a moment earlier.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        lock(&self.fired.connection).is_some()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Fired {
    connection: Mutex<Option<Connection>>,
    changed: Condvar,
}

impl Fired {
    pub(crate) fn announce(&self, connection: &Connection) {
        *lock(&self.connection) = Some(connection.clone());
        self.changed.notify_all();
    }
}

pub(crate) enum Condition {
    Message(Box<dyn FnMut(&Message<'_>) -> bool + Send>),
    Bytes(usize),
}

impl Condition {
    pub(crate) fn message(predicate: impl FnMut(&Message<'_>) -> bool + Send + 'static) -> Self {
        Self::Message(Box::new(predicate))
    }

    pub(crate) fn bytes(count: usize) -> Self {
        Self::Bytes(count)
    }
}

pub(crate) struct Armed {
    direction: Direction,
    condition: Condition,
    pub(crate) action: Action,
    pub(crate) fired: Arc<Fired>,
}

impl fmt::Debug for Armed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Armed({:?}, {:?})", self.direction, self.action)
    }
}

impl Armed {
    /// Whether it fires within these bytes, and after how many of them.
    pub(crate) fn fires_at(
        &mut self,
        direction: Direction,
        message: Option<&Message<'_>>,
        count: usize,
    ) -> Option<usize> {
        if direction != self.direction {
            return None;
        }
        match &mut self.condition {
            Condition::Message(predicate) => message.is_some_and(predicate).then_some(0),
            Condition::Bytes(left) if *left < count => Some(*left),
            Condition::Bytes(left) => {
                *left -= count;
                None
            }
        }
    }
}

pub(crate) fn arm(direction: Direction, condition: Condition, action: Action) -> (Trigger, Armed) {
    let fired = Arc::new(Fired::default());
    let trigger = Trigger { fired: fired.clone() };
    (trigger, Armed { direction, condition, action, fired })
}
