//! Drives one pure session: sends what it wants sent, reads what answers, and finds it another link
//! when it has lost one. All of it on the application's own thread.

mod events;
mod link;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use uuid::Uuid;

use super::Inner;
use super::cancel::{CancelHandle, Whereabouts};
use super::keeper::Keeper;
use crate::cluster::seeking::Seeking;
use crate::error::{Error, ErrorKind, Result};
use crate::link::{Link, LinkInfo};
use crate::session::{self, Event};

/// More than this is sent while reading, lest both sides wait for each other.
const SEND_ALONE: usize = 8 * 1024;

/// Asked, on the thread that waits, whether what it waits for is to be cancelled: whenever a signal
/// has interrupted a wait for a reply, and now and then while a server is sought.
pub type Interrupt = Arc<dyn Fn() -> bool + Send + Sync>;

/// What a session that is driven step by step has come to.
#[derive(Debug)]
pub enum Progress<T> {
    Ready(T),
    /// Go on when the link's socket can be read.
    WantsRead,
    /// Go on when it can be read or written.
    WantsWrite,
    /// Call [`Session::help`](super::Session::help), which blocks, on a thread that may wait.
    WantsHelp,
}

/// A message of NOTIFY.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notification {
    /// The backend that sent it.
    pub process_id: i32,
    pub channel: String,
    pub payload: String,
}

pub(super) struct Driver {
    pub inner: Arc<Inner>,
    pub core: session::Session,
    pub id: u64,
    link: Option<Link>,
    input: BytesMut,
    /// So much of the session's output is on the wire.
    sent: usize,
    /// The commit whose arrival on the backup has to be waited for.
    awaited: Option<(Uuid, u64)>,
    interrupt: Option<Interrupt>,
    pub notifications: VecDeque<Notification>,
    /// When the link was lost that has not been replaced yet.
    lost_at: Option<Instant>,
    /// Its search for a link on which it can go on.
    seeking: Seeking,
    whereabouts: Whereabouts,
    timeout: Duration,
    writes: bool,
    /// It was told that there is no backup to confirm commits.
    told_no_backup: bool,
    /// Statements were used that warm links may not have.
    pub new_statements: bool,
    /// The row of the ledger that the backup is being asked for.
    backlog_row: Option<Uuid>,
    /// Where what is in flight is kept on disk.
    keeper: Option<Keeper>,
}

impl Driver {
    pub fn new(inner: Arc<Inner>, core: session::Session, id: u64, writes: bool) -> Self {
        let timeout = inner.config.failover.timeout;
        inner.sessions.fetch_add(1, Ordering::Relaxed);
        inner.statistics.enter(id, core.counters());
        let file = inner.file_journal.as_ref().map(Arc::clone);
        let keeper = file.map(|file| Keeper::new(file, Arc::clone(&inner.config)));
        Self {
            inner,
            core,
            id,
            link: None,
            input: BytesMut::with_capacity(8 * 1024),
            sent: 0,
            awaited: None,
            interrupt: None,
            notifications: VecDeque::new(),
            lost_at: None,
            seeking: Seeking::default(),
            whereabouts: Whereabouts::default(),
            timeout,
            writes,
            told_no_backup: false,
            new_statements: false,
            backlog_row: None,
            keeper,
        }
    }

    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { inner: Arc::clone(&self.inner), whereabouts: Arc::clone(&self.whereabouts) }
    }

    fn set_whereabouts(&self, at: Option<(usize, LinkInfo)>) {
        *self.whereabouts.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    pub fn link_info(&self) -> Option<&LinkInfo> {
        self.link.as_ref().map(Link::info)
    }

    /// The next event that concerns the request in hand; waits for it.
    pub fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.poll() {
                return Ok(event);
            }
            self.step(None)?;
        }
    }

    /// The next event that concerns the request in hand, if there is one already.
    pub fn poll(&mut self) -> Option<Event> {
        while let Some(event) = self.core.poll_event() {
            if event.is_reply() {
                return Some(event);
            }
            self.pass_on(event);
        }
        None
    }

    /// Gets ready for a request: there is a link, and earlier requests leave room.
    pub fn ready(&mut self) -> Result<()> {
        self.inner.check_process()?;
        while !self.core.is_live() {
            self.pass_events();
            self.step(None)?;
        }
        if std::mem::take(&mut self.new_statements) && self.core.is_quiet() {
            // Those executed so far have been described, and warm links can be given them.
            self.inner.cluster.statements_changed();
        }
        if self.core.keeps_commits() {
            self.trim_kept_commits();
        }
        Ok(())
    }

    /// Lets go of the commits that the backup has got meanwhile.
    fn trim_kept_commits(&mut self) {
        let row = self.core.ledger_row();
        let backlog = self.inner.cluster.backlog();
        if let Some(old) = self.backlog_row.replace(row).filter(|old| *old != row) {
            backlog.forget(old);
        }
        self.core.handle_backup_has(row, backlog.number(row));
    }

    /// Waits until `deadline` for something to arrive, NOTIFY for instance.
    pub fn wait(&mut self, deadline: Instant) -> Result<()> {
        self.step(Some(deadline))?;
        self.pass_events();
        Ok(())
    }

    /// Hands over what can be handed over without a request waiting for it.
    fn pass_events(&mut self) {
        while self.poll().is_some() {}
    }

    /// One step nearer to the next event: a link, a write, or a read.
    fn step(&mut self, deadline: Option<Instant>) -> Result<()> {
        if self.core.is_live() {
            self.seeking.handle_live();
        }
        if let Some((ledger_row, number)) = self.awaited.take() {
            self.await_backup(ledger_row, number);
            return Ok(());
        }
        if self.core.gives_up_link() {
            self.lose_link();
            return Ok(());
        }
        if self.core.wants_link() {
            return self.find_link();
        }
        if self.core.awaits_journal() {
            self.await_journal();
            return Ok(());
        }
        let Some(link) = self.link.as_mut() else {
            self.core.handle_link_lost();
            return Ok(());
        };
        if !self.core.output().is_empty() {
            let output = &self.core.output()[self.sent..];
            let sent = if output.len() <= SEND_ALONE {
                link.send(output)
            } else {
                link.exchange(output, &mut self.input)
            };
            match sent {
                Ok(()) => {
                    self.sent = 0;
                    self.core.handle_sent();
                }
                Err(_) => {
                    self.lose_link();
                    return Ok(());
                }
            }
            // The server is at work meanwhile.
            file(&mut self.core, self.keeper.as_mut());
            if !self.input.is_empty() {
                self.take_input();
                return Ok(());
            }
        }
        let received = match deadline {
            None => link.recv(&mut self.input),
            Some(deadline) => match link.recv_deadline(&mut self.input, deadline) {
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => return Ok(()),
                received => received,
            },
        };
        match received {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.interrupted(),
            Ok(0) | Err(_) => self.lose_link(),
            Ok(_) => self.take_input(),
        }
        Ok(())
    }

    /// A signal has interrupted the wait for a reply. It goes on in any case: the statement is over
    /// when the server says so.
    fn interrupted(&self) {
        if self.interrupt.as_ref().is_some_and(|interrupt| interrupt()) {
            // If the server cannot be asked, it is lost, and that is found out by others.
            let _ = self.cancel_handle().cancel();
        }
    }

    pub fn set_interrupt(&mut self, interrupt: Option<Interrupt>) {
        if let Some(link) = self.link.as_mut() {
            link.set_interruptible(interrupt.is_some());
        }
        self.interrupt = interrupt;
    }

    pub fn is_live(&self) -> bool {
        self.core.is_live()
    }

    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// The next event that concerns the request in hand, without waiting for it.
    pub fn try_next(&mut self) -> Progress<Event> {
        loop {
            if let Some(event) = self.poll() {
                return Progress::Ready(event);
            }
            if let Some(wants) = self.try_step() {
                return wants;
            }
        }
    }

    /// As `step`, but waits for nothing: what it would have to wait for.
    pub fn try_step<T>(&mut self) -> Option<Progress<T>> {
        if self.core.is_live() {
            self.seeking.handle_live();
        }
        if self.awaited.is_some() {
            return Some(Progress::WantsHelp);
        }
        if self.core.gives_up_link() {
            self.lose_link();
            return None;
        }
        if self.core.wants_link() {
            return Some(Progress::WantsHelp);
        }
        if self.core.awaits_journal() {
            if self.keeper.as_ref().is_some_and(Keeper::waits) {
                return Some(Progress::WantsHelp);
            }
            self.await_journal();
            return None;
        }
        let Some(link) = self.link.as_mut() else {
            self.core.handle_link_lost();
            return None;
        };
        let mut wants = Progress::WantsRead;
        if !self.core.output().is_empty() {
            let output = self.core.output();
            let mut rest = &output[self.sent..];
            let sent = link.try_send(&mut rest);
            self.sent = output.len() - rest.len();
            match sent {
                Ok(true) => {
                    self.sent = 0;
                    self.core.handle_sent();
                    file(&mut self.core, self.keeper.as_mut());
                    // The answer takes its time: asking the socket at once would be in vain.
                    if !link.may_hold_input() {
                        return Some(wants);
                    }
                }
                Ok(false) => wants = Progress::WantsWrite,
                Err(_) => {
                    self.lose_link();
                    return None;
                }
            }
        }
        match link.try_recv(&mut self.input) {
            Ok(None) => return Some(wants),
            // Whoever does not wait asks about signals himself.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Some(wants),
            Ok(Some(0)) | Err(_) => self.lose_link(),
            Ok(Some(_)) => self.take_input(),
        }
        None
    }

    /// Takes the step that has to be waited for.
    pub fn help(&mut self) -> Result<()> {
        let waits = self.awaited.is_some() || self.core.wants_link() || self.core.awaits_journal();
        if waits { self.step(None) } else { Ok(()) }
    }

    /// Sends what there is without waiting for a reply, for data that the server only takes in.
    pub fn flush(&mut self) -> Result<()> {
        while self.core.has_output() && self.link.is_some() {
            self.send_while_reading();
            self.restore()?;
        }
        Ok(())
    }

    /// Puts what has gathered on the wire, and takes in what has arrived meanwhile.
    pub fn send_while_reading(&mut self) {
        if self.core.awaits_journal() {
            self.await_journal();
        }
        // Nothing follows at once: a Sync that is still owed becomes a part of it.
        self.core.output();
        self.send_ahead();
    }

    /// Puts what has gathered on the wire ahead of what follows at once, which may share its Sync.
    pub fn send_ahead(&mut self) {
        if self.core.awaits_journal() {
            self.await_journal();
        }
        let Some(link) = self.link.as_mut() else { return };
        match link.exchange(&self.core.output_so_far()[self.sent..], &mut self.input) {
            Ok(()) => {
                self.sent = 0;
                self.core.handle_sent();
                file(&mut self.core, self.keeper.as_mut());
                if !self.input.is_empty() {
                    self.take_input();
                }
            }
            Err(_) => self.lose_link(),
        }
    }

    /// Finds another link if the session has lost its own, and brings it to where it was. If none can
    /// be had, the events of the request in hand tell of it.
    pub fn restore(&mut self) -> Result<()> {
        while !self.core.is_live() && !self.core.is_settled() {
            self.step(None)?;
        }
        Ok(())
    }

    fn take_input(&mut self) {
        if let Err(malformed) = self.core.handle_input(&mut self.input) {
            tracing::warn!(session = self.id, server = self.core.server(), %malformed, "link closed");
            self.input.clear();
            self.drop_link();
        }
        // What has ended.
        file(&mut self.core, self.keeper.as_mut());
        self.hear_of_failures();
    }

    /// Commits leave once the journal on disk has them.
    fn await_journal(&mut self) {
        file(&mut self.core, self.keeper.as_mut());
        let Some(keeper) = &mut self.keeper else { return self.core.handle_journal(true) };
        keeper.commit(Instant::now() + self.timeout);
        let all_kept = self.hear_of_failures();
        self.core.handle_journal(all_kept);
    }

    /// Tells the session what the journal does not keep. Whether that is nothing.
    fn hear_of_failures(&mut self) -> bool {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.has_failures()) else {
            return true;
        };
        for it in keeper.failures(Instant::now() + self.timeout) {
            self.core.handle_not_kept(it.entry, it.reason, it.refused);
        }
        false
    }

    /// Ends the session on the server in an orderly way.
    pub fn close(&mut self) {
        if let Some(link) = self.link.take() {
            self.inner.cluster.deregister(self.id);
            if self.inner.check_process().is_ok() {
                link.close();
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.close();
        // In a child of fork() the journal is the parent's.
        let keeper = self.keeper.as_mut().filter(|_| self.inner.check_process().is_ok());
        if let Some(keeper) = keeper {
            self.core.file_end(&mut |entry, filing| keeper.take(entry, &filing));
            keeper.close();
        }
        if let Some(row) = self.backlog_row {
            self.inner.cluster.backlog().forget(row);
        }
        self.inner.statistics.leave(self.id);
        self.inner.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hands what is in flight over to the journal on disk.
fn file(core: &mut session::Session, keeper: Option<&mut Keeper>) {
    if let Some(keeper) = keeper.filter(|_| core.has_filings()) {
        core.file(&mut |entry, filing| keeper.take(entry, &filing));
    }
}

/// The error of a call on a handle in a state that the call does not fit.
pub(super) fn usage(message: &str) -> Error {
    Error::new(ErrorKind::Usage, message)
}
