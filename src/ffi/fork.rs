//! Has the core told of every fork(), so that it need not ask the kernel at every call.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client::note_process;

type Handler = Option<extern "C" fn()>;

unsafe extern "C" {
    /// POSIX. The C library forgets the handlers of a library that it unloads.
    fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
}

extern "C" fn in_child() {
    note_process();
}

/// Once it is told of forks, the core remembers the process. A process made by other means than fork()
/// has no other threads, and must not use any library before it calls exec().
pub(super) fn watch() {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if WATCHED.swap(true, Ordering::Relaxed) {
        // Nobody waits for a thread that may not have come along into the child of a fork().
        return;
    }
    // SAFETY: the handler takes no locks and allocates nothing: it asks for the process's id and stores
    // it, which is allowed in the child of a fork() of a process with threads.
    let refused = unsafe { pthread_atfork(None, None, Some(in_child)) };
    if refused == 0 {
        note_process();
    }
}
