//! A link made ready for submissions: waits for a primary, and asks it what `opening` has to.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use uuid::Uuid;

use super::carrier::AtWork;
use super::opening::{Opening, Place, Site};
use super::pipe::Pipe;
use crate::client::question::{self, broken};
use crate::client::session_access;
use crate::cluster::{Cluster, Handover, LedgerAccess, Want};
use crate::config::{CommitAck, Config};
use crate::error::Result;
use crate::link::Link;
use crate::session::ledger;

/// An answer that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A link at work.
pub struct Station {
    pub link: Link,
    pub input: BytesMut,
}

/// The backends of one store's places, with their servers, lest one of them is taken for a former one.
#[derive(Default)]
pub struct Backends(Mutex<Vec<(usize, usize, i32)>>);

impl Backends {
    /// The backend of a place is lost.
    pub fn leave(&self, place: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, ..)| *other != place);
    }
}

impl Station {
    /// Waits for a primary and makes a link to it ready. The cluster is told of the link at once, and
    /// has to be told of its end, also after an error.
    pub fn open(
        (config, cluster): (&Config, &Cluster),
        (store, number, backends): (Uuid, usize, &Backends),
        want: &Want,
        stop: &Arc<AtomicBool>,
    ) -> Result<(Self, AtWork)> {
        let mut stops = || stop.load(Ordering::Acquire);
        let Handover { link, server, facts, .. } = cluster.acquire(want, &mut stops)?;
        cluster.register(want.session, server, link.waker());
        let pid = link.info().backend_pid;
        let mut it = Self { link, input: BytesMut::with_capacity(8 * 1024) };
        // From here on until it has the lock: two places must not end each other's backend.
        let mut backends = backends.0.lock().unwrap_or_else(PoisonError::into_inner);
        backends.retain(|(other, ..)| *other != number);
        let here = backends.iter().filter(|(_, at, _)| *at == server);
        let others = here.map(|(.., pid)| *pid).collect();
        let pipe = Pipe::new(config.limits.statement_cache_size, config.limits.message_bytes_max);
        let row = (config.ledger.commit_ack == CommitAck::Backup).then(Uuid::new_v4);
        let place = Place { store, number, others };
        let site = Site { server, timeline: facts.timeline, ledger: facts.ledger };
        let mut opening = Opening::new(place, site, pipe, row);
        while !opening.has_place() {
            it.ask(&mut opening, &mut stops)?;
        }
        backends.push((number, server, pid));
        drop(backends);
        while it.ask(&mut opening, &mut stops)? {}
        Ok((it, opening.finish()))
    }

    /// Which of these submissions are done.
    pub fn claimed(
        &mut self,
        access: LedgerAccess,
        ids: &[Uuid],
        stop: &AtomicBool,
    ) -> Result<HashSet<Uuid>> {
        let mut out = BytesMut::new();
        let sql = ledger::claimed_sql(session_access(access), ids);
        frontend::query(&sql, &mut out).map_err(broken)?;
        let (deadline, mut stops) = (Instant::now() + PATIENCE, || stop.load(Ordering::Acquire));
        let rows = question::exchange(&mut self.link, &mut self.input, &out, deadline, &mut stops)?;
        let id = |row: &Vec<Option<String>>| row.first()?.as_deref()?.parse().ok();
        Ok(rows.iter().filter_map(id).collect())
    }

    /// One question and its answer; false: there is none.
    fn ask(&mut self, opening: &mut Opening, stops: &mut dyn FnMut() -> bool) -> Result<bool> {
        let Some(out) = opening.next()? else { return Ok(false) };
        let deadline = Instant::now() + PATIENCE;
        let reply = question::exchange(&mut self.link, &mut self.input, &out, deadline, stops);
        opening.handle(reply)?;
        Ok(true)
    }
}
