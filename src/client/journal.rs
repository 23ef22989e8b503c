//! The client's journal on disk: one for its submissions and for the transactions of its sessions.
//!
//! Here it is opened and closed, and here is the thread that writes what nobody waits for. Invariant:
//! a child of fork() neither writes to it nor closes it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::process;
use crate::config::{Config, JournalMode, JournalSync};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{
    Directory, Disk, FoundKind, Journal, JournalError, Key, Options, Recovered, SyncPolicy,
};

/// What nobody waits for is written after so long.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// The journal on disk. Whoever lets go of it last closes it.
pub struct FileJournal {
    pub journal: Journal,
    /// Whether a commit waits for the disk, and not for the kernel alone.
    pub waits: bool,
    flusher: Arc<Flusher>,
    thread: Mutex<Option<JoinHandle<()>>>,
    process: u32,
}

/// What the thread and those who hand something in share.
#[derive(Default)]
struct Flusher {
    /// Something was handed in since it has last written.
    waiting: AtomicBool,
    stop: AtomicBool,
}

impl FileJournal {
    /// Opens what the configuration names, if it names files, and says what was found in them.
    pub fn open(config: &Config) -> Result<Option<(Arc<Self>, Recovered)>> {
        if config.journal.mode == JournalMode::Memory {
            return Ok(None);
        }
        let dir = config.journal.dir.as_deref().unwrap_or_else(|| Path::new("."));
        let disk = Arc::new(Disk::open(dir).map_err(cannot_open)?);
        let sync = match config.journal.sync {
            JournalSync::None => SyncPolicy::None,
            JournalSync::Batch => SyncPolicy::Batch,
            JournalSync::Always => SyncPolicy::Always,
        };
        let bytes_max = u64::try_from(config.limits.journal_dir_bytes_max).unwrap_or(u64::MAX);
        let mut options = Options::new(sync, bytes_max, Uuid::new_v4());
        options.key = key(config)?;
        let (file, recovered) = Self::take_over(disk, options)?;
        Ok(Some((Arc::new(file.attended()?), recovered)))
    }

    /// Takes over the journal in `dir`. There is no thread yet that writes what nobody waits for.
    pub fn take_over(dir: Arc<dyn Directory>, options: Options) -> Result<(Self, Recovered)> {
        let waits = options.sync != SyncPolicy::None;
        let (journal, recovered) = Journal::open(dir, options).map_err(cannot_open)?;
        for finding in &recovered.report().findings {
            tracing::warn!(%finding, "the journal");
        }
        end_idle_sessions(&journal, &recovered);
        let (flusher, thread, process) = (Arc::default(), Mutex::default(), process::id());
        Ok((Self { journal, waits, flusher, thread, process }, recovered))
    }

    /// Starts the thread.
    fn attended(mut self) -> Result<Self> {
        let (shared, writer) = (Arc::clone(&self.flusher), self.journal.clone());
        let thread = thread::Builder::new()
            .name("segue-journal".to_owned())
            .spawn(move || shared.run(&writer))
            .map_err(|error| {
                let message = "the thread that writes the journal could not be started";
                Error::new(ErrorKind::Limit, message).with_source(error)
            })?;
        self.thread = Mutex::new(Some(thread));
        Ok(self)
    }

    /// Something was handed in that nobody may come to wait for.
    pub fn flush_soon(&self) {
        if self.flusher.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = &*thread {
            thread.thread().unpark();
        }
    }
}

impl Flusher {
    fn run(&self, journal: &Journal) {
        let mut told = None;
        while !self.stop.load(Ordering::Acquire) {
            if !self.waiting.load(Ordering::Acquire) {
                thread::park();
                continue;
            }
            // What comes meanwhile goes with it.
            thread::park_timeout(FLUSH_AFTER);
            self.waiting.store(false, Ordering::Release);
            let reason = journal.flush(None).err().map(|error| {
                if told != Some(error.reason()) {
                    tracing::warn!(%error, reason = error.reason().name(), "the journal");
                }
                error.reason()
            });
            told = reason;
        }
    }

    fn stop(&self, thread: &Thread) {
        self.stop.store(true, Ordering::Release);
        thread.unpark();
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        if self.process != process::id() {
            // The files are the parent's, and so is the thread.
            return;
        }
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.flusher.stop(thread.thread());
            if thread.thread().id() != thread::current().id() {
                drop(thread.join());
            }
        }
        if let Err(error) = self.journal.close() {
            tracing::warn!(%error, "the journal could not be closed in an orderly way");
        }
    }
}

/// A session that had no transaction in flight when its client died is of no use to anybody.
fn end_idle_sessions(journal: &Journal, recovered: &Recovered) {
    let busy: HashSet<u64> = recovered
        .in_flight()
        .filter_map(|found| match found.what {
            FoundKind::Transaction { session, .. } => Some(session),
            _ => None,
        })
        .collect();
    let doubtful = recovered.in_flight().any(|found| found.doubtful);
    for found in recovered.in_flight() {
        let session = matches!(found.what, FoundKind::Session { .. });
        if session && !doubtful && !busy.contains(&found.owner) {
            if let Err(error) = journal.adopt(found).end(journal) {
                tracing::warn!(%error, "the end of a session is not in the journal");
            }
        }
    }
}

/// How many transactions wait for somebody to ask what became of them.
pub(super) fn transactions(recovered: &Recovered) -> usize {
    let is_one = |what: &FoundKind| matches!(what, FoundKind::Transaction { .. });
    recovered.in_flight().filter(|found| is_one(&found.what)).count()
}

pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn cannot_open(error: JournalError) -> Error {
    Error::new(ErrorKind::Config, format!("{error} ({})", error.reason().name())).with_source(error)
}

fn key(config: &Config) -> Result<Option<Key>> {
    if let Some(key) = &config.journal.key {
        // Its form was checked with the configuration.
        let key = Key::from_hex(key.reveal());
        let none = || Error::new(ErrorKind::Config, "journal_key is no key (it is not shown)");
        return key.map(Some).ok_or_else(none);
    }
    let Some(path) = &config.journal.key_file else { return Ok(None) };
    Key::from_file(path).map(Some).map_err(cannot_open)
}
