//! Python's signal handlers while this side waits without the GIL.
//!
//! A signal interrupts the wait in the kernel; the handlers then run, and if one raises (Ctrl-C:
//! KeyboardInterrupt), the server is asked to cancel the statement, and the exception is raised once
//! the server has ended it. The connection stays usable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use segue::client::Interrupt;

use crate::core::lock;

/// What a signal handler has raised.
#[derive(Default)]
pub struct Signals {
    raised: AtomicBool,
    error: Mutex<Option<PyErr>>,
}

impl Signals {
    /// Asked by the core when a wait was interrupted. Only Python's main thread runs handlers.
    pub fn interrupt(self: &Arc<Self>) -> Interrupt {
        let signals = Arc::clone(self);
        Arc::new(move || {
            Python::attach(|py| match py.check_signals() {
                Ok(()) => false,
                Err(error) => {
                    *lock(&signals.error) = Some(error);
                    signals.raised.store(true, Ordering::Release);
                    true
                }
            })
        })
    }

    pub fn take(&self) -> Option<PyErr> {
        if !self.raised.load(Ordering::Acquire) {
            return None;
        }
        self.raised.store(false, Ordering::Release);
        lock(&self.error).take()
    }
}
