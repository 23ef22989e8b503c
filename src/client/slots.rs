//! The clients of this process, one for each configuration.
//!
//! Invariant: the child of a fork() never asks for a lock that a thread of its parent may have held: that
//! thread has not come along, and would keep it for ever. So each process has slots of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::{Inner, process};
use crate::config::Config;
use crate::error::Result;

/// The client of one configuration. Locked while it is opened: others of the same wait for it, those of
/// another configuration do not.
type Slot = Arc<Mutex<Weak<Inner>>>;

/// The slots of one process, and those of a child that it has forked; as the child of a child has them,
/// the chain is as long as there are generations that have opened clients.
struct Slots {
    process: u32,
    clients: Mutex<HashMap<Config, Slot>>,
    child: OnceLock<Box<Slots>>,
}

/// Of the first process that has opened a client.
static SLOTS: OnceLock<Slots> = OnceLock::new();

impl Slots {
    fn new() -> Self {
        Self { process: process::id(), clients: Mutex::default(), child: OnceLock::new() }
    }

    /// Those of this process. They are the last: a number may be an ancestor's that is gone.
    fn of_process() -> &'static Self {
        let mut slots = SLOTS.get_or_init(Self::new);
        while let Some(child) = slots.child.get() {
            slots = child;
        }
        if slots.process == process::id() {
            return slots;
        }
        slots.child.get_or_init(|| Box::new(Self::new()))
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<Config, Slot>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client of a configuration, if this process has it; else `open` makes it.
pub(super) fn find_or_open(
    config: Config,
    open: impl FnOnce(Config) -> Result<Inner>,
) -> Result<Arc<Inner>> {
    let slots = Slots::of_process();
    let slot = {
        let mut clients = slots.clients();
        clients.retain(|_, slot| is_used(slot));
        Arc::clone(clients.entry(config.clone()).or_default())
    };
    let mut client = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(inner) = client.upgrade() {
        return Ok(inner);
    }
    match open(config) {
        Ok(inner) => {
            let inner = Arc::new(inner);
            *client = Arc::downgrade(&inner);
            Ok(inner)
        }
        Err(error) => {
            // Its configuration with the password must not stay behind.
            drop(client);
            drop(slot);
            slots.clients().retain(|_, slot| is_used(slot));
            Err(error)
        }
    }
}

/// A client that is gone leaves nothing behind, its configuration with the password least of all.
pub(super) fn forget_unused() {
    // Whoever holds the lock at this moment opens another client, which clears up as well.
    if let Ok(mut clients) = Slots::of_process().clients.try_lock() {
        clients.retain(|_, slot| is_used(slot));
        if clients.is_empty() {
            *clients = HashMap::new();
        }
    }
}

/// Whether somebody has its client, or is about to.
fn is_used(slot: &Slot) -> bool {
    Arc::strong_count(slot) > 1 || slot.try_lock().map_or(true, |it| it.strong_count() > 0)
}
