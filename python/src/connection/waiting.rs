//! The lock around a connection's session, and waits without the GIL.
//!
//! The lock may be held while the GIL is taken, never the other way round: whoever has the GIL and
//! wants the lock gives the GIL up first. Python code never runs under the lock, save signal handlers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError, TryLockError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use segue::client::Progress;

use super::{Connection, Zone};
use crate::core::{Core, lock};
use crate::errors;
use crate::objects::{self, Objects};
use crate::signals;

/// Holds a connection's session.
pub struct Held<'a> {
    pub(super) guard: MutexGuard<'a, Option<Core>>,
    connection: &'a Connection,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.connection.owner.store(0, Ordering::Release);
    }
}

/// A number for each thread that is not zero.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static THREAD: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    THREAD.with(|thread| *thread)
}

impl Connection {
    pub fn hold(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        signals::note_thread(py);
        if self.owner.load(Ordering::Acquire) == thread() {
            return Err(errors::interface(
                py,
                "the connection is in use by this very thread: a signal handler cannot use it",
            ));
        }
        let guard = self.core.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
        self.owner.store(thread(), Ordering::Release);
        Ok(Held { guard, connection: self })
    }

    /// The session, unless somebody has it.
    pub(super) fn at_rest(&self) -> Option<MutexGuard<'_, Option<Core>>> {
        match self.core.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Works with the session, without the GIL; raises what a signal handler has raised meanwhile.
    pub fn wait<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Core) -> segue::Result<T> + Send,
    ) -> PyResult<T> {
        let mut held = self.hold(py)?;
        let Some(core) = held.guard.as_mut() else {
            return Err(errors::closed(py, "the connection is closed"));
        };
        let done = py.detach(|| work(core));
        self.note_zone(py, core)?;
        drop(held);
        self.raise_signal()?;
        self.tell_notices(py)?;
        done.map_err(|error| errors::from_core(py, &error))
    }

    /// Works with the session at once.
    pub fn at_once<T>(&self, py: Python<'_>, work: impl FnOnce(&mut Core) -> T) -> PyResult<T> {
        let mut held = self.hold(py)?;
        match held.guard.as_mut() {
            Some(core) => Ok(work(core)),
            None => Err(errors::closed(py, "the connection is closed")),
        }
    }

    /// Calls the handlers with the notices that have come.
    pub fn tell_notices(&self, py: Python<'_>) -> PyResult<()> {
        self.notices.get().map_or(Ok(()), |notices| notices.tell(py))
    }

    pub(super) fn raise_signal(&self) -> PyResult<()> {
        self.signals.take().map_or(Ok(()), Err)
    }

    /// The server has told of another time zone.
    pub(super) fn note_zone(&self, py: Python<'_>, core: &Core) -> PyResult<()> {
        let name = core.session.parameter("TimeZone").unwrap_or_default();
        if lock(&self.zone).name != name {
            // Not under the lock: Python may let another thread run meanwhile.
            let found = objects::time_zone(py, name)?;
            let utc = found.is(Objects::get(py)?.utc.bind(py));
            let new = Zone { name: name.to_owned(), zone: (!utc).then(|| found.unbind()) };
            let old = std::mem::replace(&mut *lock(&self.zone), new);
            drop(old);
        }
        Ok(())
    }

    /// Takes note of what the server has told of meanwhile.
    pub fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        let held = self.hold(py)?;
        held.guard.as_ref().map_or(Ok(()), |core| self.note_zone(py, core))
    }
}

/// What a wait has come to: with `Io::Wait` nothing else can be.
pub fn waited<T>(progress: Progress<T>) -> T {
    match progress {
        Progress::Ready(value) => value,
        _ => unreachable!("a wait that has not waited"),
    }
}
