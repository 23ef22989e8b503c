//! Python's signal handlers while this side waits without the GIL.
//!
//! A signal interrupts the wait in the kernel; the handlers then run, and if one raises (Ctrl-C:
//! KeyboardInterrupt), the server is asked to cancel the statement, and the exception is raised once
//! the server has ended it. The connection stays usable.
//!
//! An event loop's waits are on other threads, where no handler runs: a task that is cancelled says so
//! with an `Interrupt`.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use segue::client;

use crate::core::lock;

thread_local! {
    /// Whether this is the thread that runs Python's signal handlers, once that is known.
    static RUNS_HANDLERS: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Finds out, with the GIL, whether the present thread runs signal handlers. The others then need not ask
/// for the GIL in the middle of a wait: while the interpreter ends, whoever does is ended where it stands.
pub fn note_thread(py: Python<'_>) {
    if RUNS_HANDLERS.get().is_none() {
        let is_main = || -> PyResult<bool> {
            let threading = py.import("threading")?;
            let main = threading.call_method0("main_thread")?.getattr("ident")?;
            main.eq(threading.call_method0("get_ident")?)
        };
        RUNS_HANDLERS.set(is_main().ok());
    }
}

/// Whether this thread runs signal handlers, or may.
pub fn are_handled_here() -> bool {
    RUNS_HANDLERS.get() != Some(false)
}

/// Runs the handlers of signals that have come, if this is the thread for that, without the GIL before
/// and after; what they raise.
pub fn check() -> PyResult<()> {
    if !are_handled_here() {
        return Ok(());
    }
    Python::attach(|py| py.check_signals())
}

/// Ends searches for a server, on whatever thread, for as long as it is set.
#[pyclass(frozen, module = "segue._segue", name = "Interrupt")]
#[derive(Default)]
pub struct Interrupt {
    given_up: Arc<AtomicBool>,
}

#[pymethods]
impl Interrupt {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn set(&self, given_up: bool) {
        self.given_up.store(given_up, Ordering::Release);
    }
}

/// What a signal handler has raised.
#[derive(Default)]
pub struct Signals {
    raised: AtomicBool,
    error: Mutex<Option<PyErr>>,
    given_up: Arc<AtomicBool>,
}

impl Signals {
    pub fn new(interrupt: Option<&Interrupt>) -> Self {
        let given_up = interrupt.map(|interrupt| Arc::clone(&interrupt.given_up));
        Self { given_up: given_up.unwrap_or_default(), ..Self::default() }
    }

    /// Asked by the core when a wait was interrupted. Only Python's main thread runs handlers.
    pub fn interrupt(self: &Arc<Self>) -> client::Interrupt {
        let signals = Arc::clone(self);
        Arc::new(move || {
            if signals.given_up.load(Ordering::Acquire) {
                return true;
            }
            match check() {
                Ok(()) => false,
                Err(error) => {
                    *lock(&signals.error) = Some(error);
                    signals.raised.store(true, Ordering::Release);
                    true
                }
            }
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
