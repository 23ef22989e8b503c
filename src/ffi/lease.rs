//! Who uses a session at the moment: one caller, or one child handle that is still open. No unsafe
//! code: what C may do wrong here ends in an error.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::boundary::{Failure, Result};
use super::codes::{SEGUE_BUSY, SEGUE_CLOSED, SEGUE_USAGE};
use crate::client::{CancelHandle, Session};
use crate::error::Outcome;

/// A session that several handles refer to, so that they can be freed in any order.
pub(super) struct SessionCell {
    slot: Mutex<Slot>,
    pub cancel: CancelHandle,
}

enum Slot {
    Here(Box<Session>),
    Lent(&'static str),
}

/// Nothing that was under way is touched by a refused call, so its outcome is not known here.
fn busy(message: impl Into<String>) -> Failure {
    Failure::Boundary { status: SEGUE_BUSY, message: message.into(), outcome: Outcome::Unknown }
}

fn closed() -> Failure {
    let message = "the session was closed by an internal error in an earlier call";
    Failure::Boundary {
        status: SEGUE_CLOSED,
        message: message.to_owned(),
        outcome: Outcome::Unknown,
    }
}

fn enter<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            busy("another thread is using the session; the call did nothing")
        }
        TryLockError::Poisoned(_) => closed(),
    })
}

impl SessionCell {
    pub fn new(session: Session) -> Self {
        let cancel = session.cancel_handle();
        Self { slot: Mutex::new(Slot::Here(Box::new(session))), cancel }
    }

    /// Uses the session for one call.
    pub fn with<T>(&self, body: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        match &mut *enter(&self.slot)? {
            Slot::Here(session) => body(session),
            Slot::Lent(to) => Err(lent(to)),
        }
    }

    fn lend(&self, to: &'static str) -> Result<Box<Session>> {
        let mut slot = enter(&self.slot)?;
        match std::mem::replace(&mut *slot, Slot::Lent(to)) {
            Slot::Here(session) => Ok(session),
            Slot::Lent(earlier) => {
                *slot = Slot::Lent(earlier);
                Err(lent(earlier))
            }
        }
    }

    fn take_back(&self, session: Box<Session>) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Here(session);
    }
}

fn lent(to: &str) -> Failure {
    busy(format!("a {to} of the session is open: end it or free it first; the call did nothing"))
}

/// A session lent to a child handle until that has come to its end.
pub(super) struct Lease<S> {
    cell: Arc<SessionCell>,
    held: Mutex<Option<(Box<Session>, S)>>,
}

/// Whether a child goes on or has come to its end.
pub(super) enum Then<T> {
    GoOn(T),
    End(T),
}

impl<S> Lease<S> {
    /// Lends the session to the child that `start` makes.
    pub fn start(
        cell: &Arc<SessionCell>,
        to: &'static str,
        start: impl FnOnce(&mut Session) -> Result<S>,
    ) -> Result<Self> {
        let mut session = cell.lend(to)?;
        match start(&mut session) {
            Ok(state) => {
                Ok(Self { cell: Arc::clone(cell), held: Mutex::new(Some((session, state))) })
            }
            Err(failure) => {
                cell.take_back(session);
                Err(failure)
            }
        }
    }

    /// Uses the child; `None` once it has come to its end.
    pub fn with<T>(
        &self,
        body: impl FnOnce(&mut Session, &mut S) -> Result<Then<T>>,
    ) -> Result<Option<T>> {
        let mut held = enter(&self.held)?;
        let Some((session, state)) = &mut *held else { return Ok(None) };
        match body(session, state)? {
            Then::GoOn(value) => Ok(Some(value)),
            Then::End(value) => {
                self.give_back(&mut held);
                Ok(Some(value))
            }
        }
    }

    /// Uses the child for the last time, whatever comes of it.
    pub fn end<T>(&self, body: impl FnOnce(&mut Session, &mut S) -> Result<T>) -> Result<T> {
        let mut held = enter(&self.held)?;
        let Some((session, state)) = &mut *held else {
            return Err(Failure::new(SEGUE_USAGE, "it has come to its end already"));
        };
        let value = body(session, state);
        self.give_back(&mut held);
        value
    }

    fn give_back(&self, held: &mut Option<(Box<Session>, S)>) {
        if let Some((session, _)) = held.take() {
            self.cell.take_back(session);
        }
    }
}
