//! The server's notices on their way to the handlers of one connection.
//!
//! They arise while its session is at work, where its lock is held and the GIL is not. So they are put
//! into an inbox, and handlers are called when the wait is over. An inbox holds no more than so many
//! notices; what comes beyond is still an event of the client's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use pyo3::prelude::*;
use pyo3::types::{PyWeakref, PyWeakrefMethods, PyWeakrefReference};
use segue::client::ClientEvent;
use segue::error::ServerError;

use crate::connection::Connection;
use crate::core::lock;
use crate::errors;

const WAITING_MAX: usize = 10_000;

#[derive(Default)]
struct Inbox {
    any: AtomicBool,
    notices: Mutex<Vec<ServerError>>,
}

impl Inbox {
    fn put(&self, notice: &ServerError) {
        let mut notices = lock(&self.notices);
        if notices.len() < WAITING_MAX {
            notices.push(notice.clone());
            self.any.store(true, Ordering::Release);
        }
    }

    fn take(&self) -> Vec<ServerError> {
        let mut notices = lock(&self.notices);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *notices)
    }
}

/// The inboxes of a client's sessions, of those that have one.
#[derive(Default)]
pub struct Inboxes(Mutex<HashMap<u64, Weak<Inbox>>>);

impl Inboxes {
    pub fn note(&self, event: &ClientEvent) {
        let ClientEvent::Notice { session, notice } = event else { return };
        let inbox = lock(&self.0).get(session).and_then(Weak::upgrade);
        if let Some(inbox) = inbox {
            inbox.put(notice);
        }
    }

    fn open(&self, session: u64) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        let mut inboxes = lock(&self.0);
        inboxes.retain(|_, inbox| inbox.strong_count() > 0);
        inboxes.insert(session, Arc::downgrade(&inbox));
        inbox
    }
}

/// What a connection that has handlers keeps.
pub struct Notices {
    inbox: Arc<Inbox>,
    /// Itself; weak, or it would never end.
    connection: Py<PyWeakref>,
}

impl Notices {
    pub fn new(
        connection: &Bound<'_, Connection>,
        inboxes: &Inboxes,
        session: u64,
    ) -> PyResult<Self> {
        let weak = PyWeakrefReference::new(connection)?;
        Ok(Self {
            inbox: inboxes.open(session),
            connection: weak.cast_into::<PyWeakref>()?.unbind(),
        })
    }

    /// Calls the handlers with what has come.
    pub fn tell(&self, py: Python<'_>) -> PyResult<()> {
        if !self.inbox.any.load(Ordering::Acquire) {
            return Ok(());
        }
        for notice in self.inbox.take() {
            let Some(connection) = self.connection.bind(py).upgrade() else { return Ok(()) };
            connection.call_method1("_noticed", (errors::fields(py, &notice)?,))?;
        }
        Ok(())
    }
}
