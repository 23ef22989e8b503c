//! The handle to a cluster that application threads have, and the background thread behind it.
//!
//! Commands go to the thread through a channel that wakes it; answers come back through a channel
//! of the caller's, which ends when the thread does, so that nobody waits for ever.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use uuid::Uuid;

use super::confirm::{self, Backlog, Confirmed};
use super::hub::{Hub, Published};
use super::picture::Picture;
use super::status::{ClusterEvent, Status};
use super::{Handover, Preparations, Want, acquire, errand, promote, warm, watch};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::link::LinkWaker;

/// Where events go. Called on the background thread, which must not be blocked.
pub type EventSink = Arc<dyn Fn(ClusterEvent) + Send + Sync>;

/// The background thread keeps deadlines itself; a caller gives it this much longer before it
/// concludes that the thread is stuck in a callback.
const GRACE: Duration = Duration::from_secs(2);
/// A wait asks so often whether it has been interrupted.
const ATTENTION: Duration = Duration::from_millis(50);

/// How long closing waits for a thread that is stuck in a callback.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The servers of one cluster, watched by a background thread until this is closed or dropped.
pub struct Cluster {
    commands: mpsc::UnboundedSender<Command>,
    published: Published,
    backlog: Arc<Backlog>,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: ThreadId,
    process: u32,
    /// Ends when the thread has.
    ended: Receiver<()>,
}

enum Command {
    Acquire { want: Want, reply: Sender<Result<Handover>> },
    Run { sql: String, deadline: Instant, reply: Sender<Result<()>> },
    Register { session: u64, server: usize, waker: LinkWaker },
    Deregister { session: u64 },
    Confirm(confirm::Wait),
    StatementsChanged,
    Close,
}

impl Cluster {
    /// Starts watching the servers. Returns before any of them has answered.
    pub fn open(
        config: Arc<Config>,
        preparations: Arc<dyn Preparations>,
        events: EventSink,
    ) -> Result<Arc<Self>> {
        if config.hosts.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the configuration names no server"));
        }
        let cannot = |error: std::io::Error| {
            Error::new(ErrorKind::Connect, "the background thread could not be started")
                .with_source(error)
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let (commands, inbox) = mpsc::unbounded_channel();
        // Told from the start: what is not known yet is not known, but the servers are there.
        let published: Published = Arc::new(Mutex::new(Arc::new(Picture::new(&config).status())));
        let (alive, ended) = bounded(0);
        let backlog = Arc::<Backlog>::default();
        let for_thread = (published.clone(), Arc::clone(&backlog));
        let thread = thread::Builder::new()
            .name("segue-cluster".to_owned())
            .spawn(move || {
                run(runtime, config, preparations, events, for_thread, inbox);
                drop(alive);
            })
            .map_err(cannot)?;
        let thread_id = thread.thread().id();
        let thread = Mutex::new(Some(thread));
        Ok(Arc::new(Self {
            commands,
            published,
            backlog,
            thread,
            thread_id,
            process: std::process::id(),
            ended,
        }))
    }

    /// Blocks until there is a link that satisfies `want`, or its deadline has passed.
    ///
    /// `interrupted` is asked every now and then; once it says yes, the wait ends with an error.
    pub fn acquire(&self, want: &Want, interrupted: &mut dyn FnMut() -> bool) -> Result<Handover> {
        let (reply, answer) = bounded(1);
        let command = Command::Acquire { want: want.clone(), reply };
        self.ask_unless(command, &answer, want.deadline, interrupted)
    }

    /// Runs a string of statements on the primary, on a link of its own, and asks the server anew
    /// which ledger it has. An error with the outcome `Unknown` means that the link broke meanwhile.
    pub fn run_on_primary(&self, sql: String, timeout: Duration) -> Result<()> {
        let (reply, answer) = bounded(1);
        let deadline = Instant::now() + timeout;
        self.ask(Command::Run { sql, deadline, reply }, &answer, deadline)
    }

    /// Blocks until the backup has a commit that was made on `server` under this number of a row of
    /// the ledger, or `server` was left.
    pub fn confirm(
        &self,
        row: Uuid,
        number: u64,
        server: usize,
        deadline: Instant,
    ) -> Result<Confirmed> {
        let (sender, answer) = bounded(1);
        let reply: confirm::Reply = Box::new(move |word| drop(sender.send(word)));
        let wait = confirm::Wait { row, number, server, deadline, reply };
        self.ask(Command::Confirm(wait), &answer, deadline)
    }

    /// As [`confirm`](Self::confirm), without waiting: `reply` is called on the background thread, where it
    /// must not block; it is dropped uncalled if that ends.
    pub fn confirm_then(
        &self,
        row: Uuid,
        number: u64,
        server: usize,
        deadline: Instant,
        reply: impl FnOnce(Result<Confirmed>) + Send + 'static,
    ) {
        let reply: confirm::Reply = Box::new(reply);
        let wait = confirm::Wait { row, number, server, deadline, reply };
        let _ = self.commands.send(Command::Confirm(wait));
    }

    /// What the standby is known to have of rows of the ledger.
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// The session uses a link to this server from now on, and wants to be woken when it has to
    /// leave it. Replaces what was registered for the session before.
    pub fn register(&self, session: u64, server: usize, waker: LinkWaker) {
        let _ = self.commands.send(Command::Register { session, server, waker });
    }

    /// The session uses no link any more.
    pub fn deregister(&self, session: u64) {
        let _ = self.commands.send(Command::Deregister { session });
    }

    /// [`Preparations::prepare`] may have more to give: the warm links are topped up.
    pub fn statements_changed(&self) {
        let _ = self.commands.send(Command::StatementsChanged);
    }

    /// What is known of the servers.
    pub fn status(&self) -> Arc<Status> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the background thread and everybody's waiting. Links that were handed over live on.
    pub fn close(&self) {
        if std::process::id() != self.process {
            // The thread stayed behind in the process that forked this one.
            return;
        }
        let _ = self.commands.send(Command::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle may be dropped by a callback on the thread itself.
        let Some(thread) = thread.filter(|_| thread::current().id() != self.thread_id) else {
            return;
        };
        match self.ended.recv_timeout(CLOSE_LIMIT) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!("a callback blocks the background thread; it is left behind");
            }
            _ => drop(thread.join()),
        }
    }

    fn ask<T>(
        &self,
        command: Command,
        answer: &Receiver<Result<T>>,
        deadline: Instant,
    ) -> Result<T> {
        self.ask_unless(command, answer, deadline, &mut || false)
    }

    fn ask_unless<T>(
        &self,
        command: Command,
        answer: &Receiver<Result<T>>,
        deadline: Instant,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<T> {
        let closed = || Error::new(ErrorKind::Closed, "the client was closed");
        if thread::current().id() == self.thread_id {
            return Err(Error::new(
                ErrorKind::Usage,
                "a callback must not wait for the thread that it runs on",
            ));
        }
        self.commands.send(command).map_err(|_| closed())?;
        let deadline = deadline + GRACE;
        loop {
            match answer.recv_deadline(deadline.min(Instant::now() + ATTENTION)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err(closed()),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    return Err(Error::new(
                        ErrorKind::FailoverTimeout,
                        "the background thread does not answer; a callback seems to block it",
                    ));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if interrupted() {
                return Err(Error::new(
                    ErrorKind::FailoverTimeout,
                    "the wait for a server was interrupted",
                ));
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.close();
    }
}

/// The background thread.
fn run(
    runtime: Runtime,
    config: Arc<Config>,
    preparations: Arc<dyn Preparations>,
    events: EventSink,
    (published, backlog): (Published, Arc<Backlog>),
    inbox: mpsc::UnboundedReceiver<Command>,
) {
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let seed = Uuid::new_v4().as_u64_pair().0;
        let hub = Hub::new(config, preparations, events, published, seed);
        for server in 0..hub.servers() {
            spawn_local(watch::watch(hub.clone(), server));
        }
        spawn_local(watch::end_opening(hub.clone()));
        spawn_local(warm::keep(hub.clone()));
        spawn_local(promote::keep(hub.clone()));
        let (confirm, waits) = mpsc::unbounded_channel();
        spawn_local(confirm::keep(hub.clone(), backlog, waits));
        obey(&hub, inbox, &confirm).await;
    });
    {
        // Sockets and timers are let go while their runtime is still there.
        let _inside = runtime.enter();
        drop(local);
    }
    // A name look-up that hangs must not keep the thread from ending.
    runtime.shutdown_background();
}

/// Carries out commands until one of them says to close, or the handle is gone.
async fn obey(
    hub: &Rc<Hub>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
    confirm: &mpsc::UnboundedSender<confirm::Wait>,
) {
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Acquire { want, reply } => {
                let hub = hub.clone();
                spawn_local(async move {
                    // Whoever asked may have given up; a link is then closed by being dropped.
                    let _ = reply.send(acquire::serve(&hub, &want).await);
                });
            }
            Command::Run { sql, deadline, reply } => {
                let hub = hub.clone();
                spawn_local(async move {
                    let _ = reply.send(errand::run(&hub, &sql, deadline).await);
                });
            }
            Command::Register { session, server, waker } => hub.register(session, server, waker),
            Command::Deregister { session } => hub.deregister(session),
            Command::Confirm(wait) => drop(confirm.send(wait)),
            Command::StatementsChanged => warm::top_up(hub),
            Command::Close => return,
        }
    }
}
