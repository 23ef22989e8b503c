//! What the threads of submissions and their callers share: the desk, the cluster, and when to stop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bell::Bell;
use super::core::Core;
use super::desk::Desk;
use super::station::Backends;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::link::LinkWaker;

/// One client's submissions, for as long as one of its threads or handles lives.
pub(super) struct Shared {
    pub config: Arc<Config>,
    pub cluster: Arc<Cluster>,
    pub desk: Desk,
    pub stop: Arc<AtomicBool>,
    /// Ends pauses; goes with the desk's lock.
    stopping: Condvar,
    pub running: AtomicUsize,
    pub backends: Backends,
    wakers: Mutex<HashMap<usize, LinkWaker>>,
    started: Instant,
    pub bell: Bell,
}

impl Shared {
    pub fn new(config: Arc<Config>, cluster: Arc<Cluster>, desk: Desk) -> Self {
        let bell = desk.bell();
        Self {
            config,
            cluster,
            desk,
            stop: Arc::default(),
            stopping: Condvar::new(),
            running: AtomicUsize::new(0),
            backends: Backends::default(),
            wakers: Mutex::default(),
            started: Instant::now(),
            bell,
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.desk.close();
        self.stopping.notify_all();
    }

    pub fn stops(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Milliseconds since the client was opened: the queue's clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Sleeps, unless the client is closed meanwhile.
    pub fn pause(&self, time: Duration) {
        let core = self.desk.lock();
        let stopped = |_: &mut Core| !self.stops();
        drop(self.stopping.wait_timeout_while(core, time, stopped));
    }

    /// By which each thread's link can be shut down.
    pub fn wakers(&self) -> MutexGuard<'_, HashMap<usize, LinkWaker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
