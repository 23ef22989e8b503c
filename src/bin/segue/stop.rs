//! Ctrl-C, SIGTERM and SIGHUP: the first one asks the command to end in an orderly way (servers
//! stopped, directories removed), the second one ends it at once.

use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::output::Failure;

/// Whether the user wants the command to end.
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on signals set this instead of ending the process.
    pub fn on_signals() -> Result<Self, Failure> {
        let stop = Self::default();
        let asked = Arc::clone(&stop.0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new().name("segue-signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = signals.0.recv() => {}
                        _ = signals.1.recv() => {}
                        _ = signals.2.recv() => {}
                    }
                    if asked.swap(true, Ordering::Relaxed) {
                        // The servers die with this process, by the kernel's hand.
                        exit(130);
                    }
                }
            });
        })?;
        Ok(stop)
    }

    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until then, or until the user wants an end; whether the time has come.
    pub fn sleep_until(&self, then: Instant) -> bool {
        while !self.asked() {
            let left = then.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
        false
    }
}
