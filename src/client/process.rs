//! Which process this is. A system call tells, unless somebody has every fork() told here; it costs as
//! much as a tenth of what a point query runs on this side. Never a cause of an error by itself.

use std::sync::atomic::{AtomicU32, Ordering};

/// The present process, if its forks are told of; else 0.
static KNOWN: AtomicU32 = AtomicU32::new(0);

pub(crate) fn id() -> u32 {
    match KNOWN.load(Ordering::Relaxed) {
        0 => std::process::id(),
        known => known,
    }
}

/// Takes note of the present process. Whoever calls this calls it again in the child of every fork(),
/// where it is safe before anything else.
#[cfg(feature = "c-abi")]
pub(crate) fn note() {
    KNOWN.store(std::process::id(), Ordering::Relaxed);
}
