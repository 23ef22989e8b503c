//! Event loops: threads that hand over for them, since that may wait for the journal or for room, and the
//! inbox in which a loop finds what has happened.
//!
//! None of these threads ever has the GIL.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use pyo3::prelude::*;
use pyo3::types::PyList;
use segue::{Error, ErrorKind, Submission};

use crate::core::lock;
use crate::errors;
use crate::submit::{Ticket, hand_over};

/// So many can wait for the journal at once, which writes what waits together.
const HANDS: usize = 16;

/// Threads that hand over. What is of one lane goes through one of them, in its order.
#[derive(Default)]
pub struct Hands {
    hands: Mutex<[Option<Hand>; HANDS]>,
    next: AtomicUsize,
    /// What has been taken and not been handed over.
    unsettled: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

struct Hand {
    jobs: Sender<Job>,
    thread: JoinHandle<()>,
}

struct Job {
    submission: Submission,
    block: bool,
    inbox: Arc<Mailbox>,
    number: u64,
    cancelled: Arc<AtomicBool>,
}

impl Hands {
    /// Whether nothing waits to be handed over.
    pub fn are_idle(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) == 0
    }

    pub fn take(
        &self,
        client: &segue::Client,
        submission: Submission,
        lane: Option<&str>,
        block: bool,
        inbox: Arc<Mailbox>,
        number: u64,
    ) -> segue::Result<Handover> {
        let at = match lane {
            Some(lane) => {
                let mut hasher = DefaultHasher::new();
                lane.hash(&mut hasher);
                hasher.finish() as usize
            }
            None => self.next.fetch_add(1, Ordering::Relaxed),
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let handover = Handover { cancelled: Arc::clone(&cancelled) };
        let job = Job { submission, block, inbox, number, cancelled };
        let mut hands = lock(&self.hands);
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let place = &mut hands[at % HANDS];
        let hand = match place {
            Some(hand) => hand,
            None => place.insert(self.start(client.clone())?),
        };
        self.unsettled.fetch_add(1, Ordering::AcqRel);
        hand.jobs.send(job).map_err(|_| {
            self.unsettled.fetch_sub(1, Ordering::AcqRel);
            closed()
        })?;
        Ok(handover)
    }

    fn start(&self, client: segue::Client) -> segue::Result<Hand> {
        let (jobs, taken) = channel();
        let (closed, unsettled) = (Arc::clone(&self.closed), Arc::clone(&self.unsettled));
        let thread = thread::Builder::new()
            .name("segue-hand".to_owned())
            .spawn(move || work(&client, &taken, &closed, &unsettled))
            .map_err(|error| {
                let message = "no thread could be started; nothing was handed over";
                Error::new(ErrorKind::Limit, message).with_source(error)
            })?;
        Ok(Hand { jobs, thread })
    }

    /// Ends the threads, which hand over nothing more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let hands = std::mem::take(&mut *lock(&self.hands));
        for Hand { jobs, thread } in hands.into_iter().flatten() {
            drop(jobs);
            // It does not panic; and if it did, it would be over.
            let _ = thread.join();
        }
    }
}

fn work(
    client: &segue::Client,
    jobs: &Receiver<Job>,
    is_closed: &AtomicBool,
    unsettled: &AtomicUsize,
) {
    for job in jobs {
        let given_up =
            || job.cancelled.load(Ordering::Acquire) || is_closed.load(Ordering::Acquire);
        let handed = if given_up() {
            Err(closed())
        } else if job.block {
            hand_over(client, job.submission, || !given_up())
        } else {
            client.try_submit(job.submission)
        };
        unsettled.fetch_sub(1, Ordering::AcqRel);
        job.inbox.put(job.number, News::Handed(handed));
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed; nothing was handed over")
}

/// Something that is being handed over.
#[pyclass(frozen, module = "segue._segue", name = "Handover")]
pub struct Handover {
    cancelled: Arc<AtomicBool>,
}

#[pymethods]
impl Handover {
    /// Hands it over no more, unless that has begun.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

/// What an event loop is told.
pub enum News {
    Handed(segue::Result<segue::Ticket>),
    /// The outcome of a ticket is known.
    Done,
}

/// What has happened and is of interest to one event loop, which watches a socket for it.
#[pyclass(frozen, module = "segue._segue", name = "Inbox")]
pub struct Inbox(Arc<Mailbox>);

pub struct Mailbox {
    news: Mutex<Vec<(u64, News)>>,
    bell: UnixStream,
    door: UnixStream,
}

impl Mailbox {
    pub fn put(&self, number: u64, what: News) {
        let first = {
            let mut news = lock(&self.news);
            news.push((number, what));
            news.len() == 1
        };
        if first {
            // It never is full: a byte is in it for each time that there was nothing before.
            let _ = (&self.bell).write(&[0]);
        }
    }
}

impl Inbox {
    pub fn shared(&self) -> Arc<Mailbox> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl Inbox {
    #[new]
    fn new() -> PyResult<Self> {
        let (bell, door) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        door.set_nonblocking(true)?;
        Ok(Self(Arc::new(Mailbox { news: Mutex::default(), bell, door })))
    }

    /// Readable when there is something to take.
    fn fileno(&self) -> i32 {
        self.0.door.as_raw_fd()
    }

    /// What has come: (number, a ticket, an exception, or None for a known outcome) of each.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut bytes = [0; 64];
        // Before the news are taken: whatever comes later rings again.
        while (&self.0.door).read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
        let news = std::mem::take(&mut *lock(&self.0.news));
        let list = PyList::empty(py);
        for (number, what) in news {
            match what {
                News::Handed(Ok(ticket)) => list.append((number, Ticket::new(ticket)))?,
                News::Handed(Err(error)) => {
                    list.append((number, errors::from_core(py, &error).into_value(py)))?;
                }
                News::Done => list.append((number, py.None()))?,
            }
        }
        Ok(list)
    }
}
