//! What the tasks of the background thread share: the picture, and the means to act on it.
//!
//! Single-threaded on purpose (`RefCell`, no locks). No borrow lives across an await, nor while a
//! callback of the client's runs: every input goes through [`Hub::apply`], which sees to that.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::conn::Conn;
use super::detector::Failure;
use super::handle::EventSink;
use super::pacer::Pacer;
use super::picture::{Effects, Observed, Picture, dial_limit};
use super::status::{ClusterEvent, Status};
use super::{Facts, Preparations, probe, warm};
use crate::config::Config;
use crate::link::LinkWaker;

/// The latest snapshot, for `status()` on any thread.
pub type Published = Arc<Mutex<Arc<Status>>>;

pub struct Hub {
    pub config: Arc<Config>,
    pub preparations: Arc<dyn Preparations>,
    pub probe_sql: String,
    pub pacer: Rc<Pacer>,
    pub warm: RefCell<Vec<warm::Pool>>,
    picture: RefCell<Picture>,
    events: EventSink,
    wakers: RefCell<HashMap<u64, LinkWaker>>,
    published: Published,
    changes: watch::Sender<u64>,
    nudges: Vec<Notify>,
    /// The warm links are to be looked at.
    pools_changed: Notify,
    probe_wanted: Vec<Cell<bool>>,
}

impl Hub {
    pub fn new(
        config: Arc<Config>,
        preparations: Arc<dyn Preparations>,
        events: EventSink,
        published: Published,
        seed: u64,
    ) -> Rc<Self> {
        let servers = config.hosts.len();
        let at_once = usize::try_from(config.failover.recovery_concurrency).unwrap_or(usize::MAX);
        let hub = Self {
            probe_sql: probe::sql(&*preparations),
            pacer: Pacer::new(at_once, seed),
            warm: RefCell::new((0..servers).map(|_| warm::Pool::default()).collect()),
            picture: RefCell::new(Picture::new(&config)),
            wakers: RefCell::default(),
            changes: watch::channel(0).0,
            nudges: (0..servers).map(|_| Notify::new()).collect(),
            pools_changed: Notify::new(),
            probe_wanted: vec![Cell::new(false); servers],
            config,
            preparations,
            events,
            published,
        };
        hub.publish();
        Rc::new(hub)
    }

    pub fn servers(&self) -> usize {
        self.nudges.len()
    }

    /// Reads the picture.
    pub fn with<T>(&self, read: impl FnOnce(&Picture) -> T) -> T {
        read(&self.picture.borrow())
    }

    /// Changes what has no effects.
    pub fn note(&self, change: impl FnOnce(&mut Picture)) {
        change(&mut self.picture.borrow_mut());
    }

    /// Feeds an input to the picture and carries out what follows.
    pub fn apply(&self, input: impl FnOnce(&mut Picture, Instant) -> Effects) {
        let effects = input(&mut self.picture.borrow_mut(), Instant::now());
        if effects.changed {
            self.publish();
            self.changes.send_modify(|version| *version = version.wrapping_add(1));
            for nudge in &self.nudges {
                nudge.notify_one();
            }
        }
        for session in effects.wake {
            let waker = self.wakers.borrow().get(&session).cloned();
            if let Some(waker) = waker {
                waker.shut_down();
            }
        }
        for event in effects.events {
            self.emit(event);
        }
    }

    pub fn emit(&self, event: ClusterEvent) {
        event.trace();
        // A callback that panics must not take the background thread with it.
        if catch_unwind(AssertUnwindSafe(|| (self.events)(event))).is_err() {
            tracing::error!("the callback for events of the cluster has panicked");
        }
    }

    /// Makes `status()` current: also without a change, when positions have moved.
    pub fn publish(&self) {
        let status = Arc::new(self.picture.borrow().status());
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Tells of every change that a waiting session or task may care about.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub async fn nudged(&self, server: usize) {
        self.nudges[server].notified().await;
    }

    /// Has the server asked what it is, now.
    pub fn want_probe(&self, server: usize) {
        self.probe_wanted[server].set(true);
        self.note(|p| p.servers[server].detector.handle_report());
        self.nudges[server].notify_one();
    }

    pub fn take_probe_wanted(&self, server: usize) -> bool {
        self.probe_wanted[server].take()
    }

    /// A session's link to this server broke: ask it at once.
    pub fn handle_report(&self, server: usize) {
        self.note(|p| p.servers[server].detector.handle_report());
        self.nudges[server].notify_one();
    }

    pub fn handle_failure(&self, server: usize, failure: Failure, dial: bool) {
        self.apply(|p, now| p.handle_failure(now, server, failure, dial));
    }

    pub fn register(&self, session: u64, server: usize, waker: LinkWaker) {
        if server >= self.servers() {
            return;
        }
        self.wakers.borrow_mut().insert(session, waker);
        self.apply(|p, _| p.handle_register(session, server));
        self.handle_pools_changed();
    }

    pub fn deregister(&self, session: u64) {
        self.wakers.borrow_mut().remove(&session);
        self.note(|p| p.handle_deregister(session));
        self.handle_pools_changed();
    }

    /// The number of sessions or of warm links has changed. Waiting sessions need not know.
    pub fn handle_pools_changed(&self) {
        self.publish();
        self.pools_changed.notify_one();
    }

    pub async fn pools_changed(&self) {
        self.pools_changed.notified().await;
    }

    /// Dials and asks the server what it is. What it says is in the picture when this returns;
    /// a failure is for the caller to judge.
    pub async fn dial(&self, server: usize) -> Result<(Conn, Observed), Failure> {
        let began = Instant::now();
        let dialling = async {
            let mut conn = Conn::dial(&self.config, &self.config.hosts[server]).await?;
            let observed = conn.probe(&self.probe_sql).await?;
            Ok((conn, observed))
        };
        let limit = dial_limit(&self.config);
        let (conn, observed) =
            tokio::time::timeout(limit, dialling).await.unwrap_or_else(|_| {
                Err(Failure::Silent(format!("no connection within {} ms", limit.as_millis())))
            })?;
        let copy = observed.clone();
        self.apply(|p, now| {
            p.servers[server].links_dialled += 1;
            p.servers[server].proved = Some(began);
            p.handle_facts(now, server, copy)
        });
        Ok((conn, observed))
    }

    /// What is known of the server, for a link whose own backend started at `backend_start`.
    pub fn facts(&self, server: usize, backend_start: String) -> Option<Facts> {
        self.with(|p| {
            let observed = p.servers[server].observed.as_ref()?;
            Some(Facts { backend_start, ..observed.facts.clone() })
        })
    }

    /// Counts a waiting session for as long as the guard lives.
    pub fn waiting(self: &Rc<Self>) -> Waiting {
        self.note(|p| p.waiting += 1);
        if self.with(|p| p.waiting) == 1 {
            // Without a usable server it is the waiting that makes the polls urgent.
            for nudge in &self.nudges {
                nudge.notify_one();
            }
        }
        self.publish();
        Waiting(self.clone())
    }
}

/// Counts one waiting session.
pub struct Waiting(Rc<Hub>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.note(|p| p.waiting = p.waiting.saturating_sub(1));
        // Warm links are made without haste while somebody waits.
        self.0.handle_pools_changed();
    }
}
