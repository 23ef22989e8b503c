//! Wakes the threads of submissions from without.
//!
//! Invariant: whoever has one holds neither the journal nor the cluster up. It rings on the cluster's own
//! thread, where the last owner of these must not end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use super::core::Core;

#[derive(Clone)]
pub struct Bell {
    core: Weak<Mutex<Core>>,
    work: Arc<[Condvar]>,
    /// For each thread: sessions may belong on another server than before.
    moved: Arc<[AtomicBool]>,
}

impl Bell {
    pub fn new(core: &Arc<Mutex<Core>>, work: &Arc<[Condvar]>) -> Self {
        let moved = work.iter().map(|_| AtomicBool::default()).collect();
        Self { core: Arc::downgrade(core), work: Arc::clone(work), moved }
    }

    /// Wakes one thread, which may be between looking and waiting.
    pub fn wake(&self, shard: usize) {
        let Some(core) = self.core.upgrade() else { return };
        let core = core.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = self.work.get(shard) {
            work.notify_all();
        }
        drop(core);
    }

    /// Sessions belong on another server from now on.
    pub fn handle_move(&self) {
        for (shard, moved) in self.moved.iter().enumerate() {
            moved.store(true, Ordering::Release);
            self.wake(shard);
        }
    }

    pub fn has_moved(&self, shard: usize) -> bool {
        self.moved.get(shard).is_some_and(|moved| moved.load(Ordering::Acquire))
    }

    /// The same, and not again before the next time.
    pub fn take_move(&self, shard: usize) -> bool {
        self.moved.get(shard).is_some_and(|moved| moved.swap(false, Ordering::AcqRel))
    }
}
