//! The journal as sessions see it: records are handed in by many threads, and one of those that wait
//! writes for all of them, with one write and one sync.
//!
//! Invariants: nothing is acknowledged that the writer has not acknowledged; an owner one of whose
//! records was refused gets the same answer from then on, so that a gap is never taken for a journal,
//! unless it says that what follows does not build on that record.
//! Handing a record in does no I/O, except with `sync=always` or when much has gathered.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use uuid::Uuid;

use super::crypt::Key;
use super::error::{JournalError, Reason, Result};
use super::found::Found;
use super::live::Batch;
use super::options::{Options, SyncPolicy};
use super::record::{Kind, Record};
use super::recovery::{self, Recovered};
use super::segment::{OpenError, Opened, Segment, name_of};
use super::storage::Directory;
use super::writer::{Certainty, Counts, Writer, Written};

/// When so much has gathered, whoever hands in more writes it first.
const GATHER_BYTES: usize = 4 << 20;

/// So often others are let go ahead before a batch is written, at most.
const TURNS: usize = 8;

/// So often a record is looked for at the place where it should stand.
const FIRST_TRIES: usize = 4;
/// Behind what is read, so much is fetched from the disk ahead: the next are asked for soon.
const FIRST_AHEAD_BYTES: u64 = 256 << 10;

/// The journal of one client. Cloning is cheap; any thread may use it.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    next_owner: AtomicU64,
    /// What has a smaller number was found when the journal was opened.
    first_owner: u64,
    sync: SyncPolicy,
    gather_bytes: usize,
    directory: String,
}

struct Queue {
    batch: Batch,
    /// What will become of `batch`.
    fate: Arc<Gathered>,
    /// Somebody is writing the batch before.
    leading: bool,
    closed: bool,
    /// Buffers of a batch that has been written.
    spare: Batch,
}

/// A batch that several owners have records in.
#[derive(Default)]
struct Gathered {
    written: OnceLock<Written>,
    /// Its waiters; goes with the queue's mutex.
    changed: Condvar,
}

/// A session, a transaction or a submission: what records belong to. One thread at a time uses it.
///
/// Dropping it changes nothing: until [`end`](Self::end) it is in flight, and takes up room.
pub struct Owner {
    number: u64,
    /// Batches that hold records of it, and of which it has not heard.
    pending: Vec<Arc<Gathered>>,
    failed: Option<JournalError>,
    /// One of its records at least was acknowledged, or is not known to be void.
    kept: bool,
    /// One was refused, and is not known to be void.
    unvoided: bool,
}

impl Journal {
    /// Takes over the journal in `dir`, and says what was in flight in it. What was found stays where it
    /// is until it is ended by [`Owner::end`]; what is torn off is void from now on.
    pub fn open(dir: Arc<dyn Directory>, options: Options) -> Result<(Self, Recovered)> {
        let recovered = recovery::read(Arc::clone(&dir), options.key.as_ref())?;
        recovered.settle()?;
        let sync = options.sync;
        let directory = dir.name();
        let mut writer = Writer::new(&recovered, dir, options)?;
        mark_doubtful(&mut writer, &recovered);
        let gather_bytes = usize::try_from(writer.geometry.segment_bytes)
            .unwrap_or(GATHER_BYTES)
            .min(GATHER_BYTES);
        let shared = Shared {
            next_owner: AtomicU64::new(writer.next_owner()),
            first_owner: writer.next_owner(),
            queue: Mutex::new(Queue {
                batch: Batch::default(),
                fate: Arc::default(),
                leading: false,
                closed: false,
                spare: Batch::default(),
            }),
            writer: Mutex::new(writer),
            sync,
            gather_bytes,
            directory,
        };
        Ok((Self(Arc::new(shared)), recovered))
    }

    /// What was found when the journal was opened and has not ended since, read anew.
    ///
    /// Nothing is written meanwhile, so that nothing is read half written: this is for the time after the
    /// start. No file is removed for as long as the answer is alive.
    pub fn inherited(&self) -> Result<Recovered> {
        // What has ended may not have been written; if it cannot be, it is found once more.
        let _ = self.flush(None);
        let mut writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recovered = writer.reread()?;
        recovered.index.owners.split_off(&self.0.first_owner);
        Ok(recovered)
    }

    /// A number for something new. Its first record says what it is.
    pub fn begin(&self) -> Owner {
        Owner {
            number: self.0.next_owner.fetch_add(1, Ordering::Relaxed),
            pending: Vec::new(),
            failed: None,
            kept: false,
            unvoided: false,
        }
    }

    /// Goes on with something that was found in flight.
    pub fn adopt(&self, found: &Found) -> Owner {
        let (pending, number) = (Vec::new(), found.owner);
        Owner { number, pending, failed: None, kept: true, unvoided: false }
    }

    /// Hands the first record of each of `owners` to `take`, as it stands in the files; in the order in
    /// which they stand there. What has ended, has not been written, or cannot be read whole is left out.
    pub fn first_records(
        &self,
        owners: &[u64],
        mut take: impl FnMut(u64, &Record<'_>),
    ) -> Result<()> {
        let mut left = owners.to_vec();
        // A file may be removed between looking a place up and opening it: its records stand elsewhere
        // by then.
        for _ in 0..FIRST_TRIES {
            let (source, mut places) = {
                let writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
                let place = |owner: &u64| Some((writer.live.first(*owner)?, *owner));
                let places: Vec<_> = left.iter().filter_map(place).collect();
                (Source::of(&writer), places)
            };
            places.sort_unstable();
            left.clear();
            source.read(&places, &mut left, &mut take)?;
            if left.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Writes what has gathered, by the policy, and returns when that is done: for the background
    /// thread, so that records nobody waits for do not wait for ever.
    pub fn flush(&self, deadline: Option<Instant>) -> Result<()> {
        let fate = {
            let queue = self.lock();
            if queue.batch.is_empty() {
                return Ok(());
            }
            Arc::clone(&queue.fate)
        };
        let written = self.wait_for(&fate, deadline)?;
        written.failed.clone().map_or(Ok(()), Err)
    }

    /// Writes what has gathered, puts all on the disk whatever the policy, and refuses what comes
    /// after.
    pub fn close(&self) -> Result<()> {
        self.lock().closed = true;
        let flushed = self.flush(None);
        let closed = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).close();
        flushed.and(closed)
    }

    /// The journal's own name: the same in all of its files, and whenever it is opened.
    pub fn id(&self) -> Uuid {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).journal_id
    }

    /// So many bytes all files take up.
    pub fn disk_bytes(&self) -> u64 {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    pub fn counts(&self) -> Counts {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, owner: u64, record: &Record<'_>) -> Result<Arc<Gathered>> {
        loop {
            let mut queue = self.lock();
            if queue.closed {
                return Err(self.closed());
            }
            if queue.batch.bytes.len() < self.0.gather_bytes {
                if !queue.batch.push(owner, record) {
                    let message = "a record is larger than the journal can keep";
                    return Err(JournalError::new(Reason::TooLarge, message));
                }
                return Ok(Arc::clone(&queue.fate));
            }
            let fate = Arc::clone(&queue.fate);
            drop(queue);
            self.wait_for(&fate, None)?;
        }
    }

    /// Waits until a batch has been written; writes it if nobody else is writing.
    fn wait_for<'a>(
        &self,
        fate: &'a Arc<Gathered>,
        deadline: Option<Instant>,
    ) -> Result<&'a Written> {
        let mut queue = self.lock();
        loop {
            if let Some(written) = fate.written.get() {
                return Ok(written);
            }
            if !queue.leading {
                queue = self.lead(queue);
                continue;
            }
            let changed = &fate.changed;
            queue = match deadline {
                None => changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(self.too_slow());
                    }
                    let waited = changed.wait_timeout(queue, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Lets those who are about to hand something in do so first. Else whoever has just been told of one
    /// batch misses the next, and each sync serves half of them.
    fn gather<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        for _ in 0..TURNS {
            let before = queue.batch.entries.len();
            drop(queue);
            thread::yield_now();
            queue = self.lock();
            if queue.batch.entries.len() == before {
                break;
            }
        }
        queue
    }

    /// Writes what has gathered, for all who have a part in it.
    fn lead<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        queue.leading = true;
        if self.0.sync != SyncPolicy::None {
            queue = self.gather(queue);
        }
        let spare = std::mem::take(&mut queue.spare);
        let mut batch = std::mem::replace(&mut queue.batch, spare);
        let fate = std::mem::take(&mut queue.fate);
        drop(queue);
        // Whatever happens, the others must not wait for ever for a leader that is gone.
        let leader = Leader { journal: self, fate: &fate };
        let certainty = match self.0.sync {
            SyncPolicy::None => Certainty::Written,
            SyncPolicy::Batch | SyncPolicy::Always => Certainty::Synced,
        };
        let next_owner = self.0.next_owner.load(Ordering::Relaxed);
        let written = {
            let mut writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write(&mut batch, certainty, next_owner)
        };
        let _ = fate.written.set(written);
        drop(leader);
        let mut queue = self.lock();
        batch.clear();
        if batch.bytes.capacity() <= 2 * self.0.gather_bytes {
            queue.spare = batch;
        }
        queue
    }

    fn closed(&self) -> JournalError {
        let message = format!("the journal in {} has been closed", self.0.directory);
        JournalError::new(Reason::Closed, message)
    }

    fn too_slow(&self) -> JournalError {
        JournalError::new(
            Reason::Timeout,
            format!(
                "the disk under the journal in {} has not confirmed in time; what was handed over may \
                 yet be kept",
                self.0.directory
            ),
        )
    }
}

/// What records are read from while others write.
struct Source {
    dir: Arc<dyn Directory>,
    key: Option<Key>,
}

impl Source {
    fn of(writer: &Writer) -> Self {
        Self { dir: Arc::clone(&writer.dir), key: writer.options.key.clone() }
    }

    /// Reads owners' first records at their places, which are sorted; those that do not stand there
    /// are put among `left`.
    fn read(
        &self,
        places: &[((u64, u64), u64)],
        left: &mut Vec<u64>,
        take: &mut impl FnMut(u64, &Record<'_>),
    ) -> Result<()> {
        let failed = |error| JournalError::io(&self.dir.name(), "reading a record", error);
        let mut buffer = Vec::new();
        for of_file in places.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let Some(((number, from), _)) = of_file.first().copied() else { continue };
            let name = name_of(number);
            let segment = match Segment::open(&*self.dir, &name, self.key.as_ref(), &mut Vec::new())
            {
                Ok(Opened::Segment(segment)) => segment,
                Err(OpenError::Io(error)) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(error));
                }
                _ => {
                    left.extend(of_file.iter().map(|(_, owner)| *owner));
                    continue;
                }
            };
            let to = of_file.last().map_or(from, |((_, at), _)| *at);
            segment.file.will_read(from, to - from + FIRST_AHEAD_BYTES);
            for ((_, at), owner) in of_file {
                let frame = segment.read(*at, &mut buffer).map_err(failed)?;
                let frame = frame.filter(|it| it.owner == *owner && it.ordinal == 0);
                let record = frame
                    .and_then(|frame| Some((Kind::of(frame.kind)?, frame.version)))
                    .and_then(|(kind, version)| Record::decode(kind, version, &buffer).ok());
                match record {
                    Some(record) => take(*owner, &record),
                    None => left.push(*owner),
                }
            }
        }
        Ok(())
    }
}

/// Ends the leading of the one who writes, and wakes whom it concerns.
struct Leader<'a> {
    journal: &'a Journal,
    fate: &'a Gathered,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let mut queue = self.journal.lock();
        queue.leading = false;
        // Only if the writer has panicked is there nothing yet.
        self.fate.written.get_or_init(|| Written {
            failed: Some(JournalError::new(Reason::Failed, "the journal's writer has failed")),
            refused: None,
            may_be_found: true,
        });
        self.fate.changed.notify_all();
        // One of those who wait for the next batch writes it.
        queue.fate.changed.notify_one();
    }
}

impl Owner {
    /// The number under which it is found again after a crash.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Hands in a record. It is kept once [`commit`](Self::commit) has returned; with `sync=always`,
    /// once this has. After an error all that follows gets the same error.
    pub fn append(&mut self, journal: &Journal, record: &Record<'_>) -> Result<()> {
        self.check()?;
        let fate = journal.append(self.number, record)?;
        if !self.pending.last().is_some_and(|last| Arc::ptr_eq(last, &fate)) {
            self.pending.push(fate);
        }
        if journal.0.sync == SyncPolicy::Always {
            return self.commit(journal, None);
        }
        Ok(())
    }

    /// Returns once all that was handed in is kept, as the policy understands that.
    ///
    /// If nobody else is writing, the caller's thread does it, for all who have handed in something; a
    /// deadline bounds the wait for others, not the disk's own answer.
    pub fn commit(&mut self, journal: &Journal, deadline: Option<Instant>) -> Result<()> {
        while let Some(fate) = self.pending.last().map(Arc::clone) {
            // A later batch is written after an earlier one, so that waiting for the last is enough.
            journal.wait_for(&fate, deadline)?;
            self.check()?;
        }
        self.check()
    }

    /// What comes next does not build on what was refused: that is not held against it any more.
    pub fn overlook_refusal(&mut self) {
        // What is known so far.
        let _ = self.check();
        (self.failed, self.unvoided) = (None, false);
    }

    /// Whether what was refused, since a refusal was overlooked, may be found after a crash all the same. Once a
    /// later record is kept, it is not.
    pub fn refusal_may_be_found(&self) -> bool {
        self.unvoided
    }

    /// Nothing of it is needed any more: its room is free again. Nobody has to wait for it; after a
    /// crash ahead of it the ledger is asked once more.
    pub fn end(self, journal: &Journal) -> Result<()> {
        let fate = journal.append(self.number, &Record::Ended)?;
        if journal.0.sync == SyncPolicy::Always {
            // Whatever became of the records before it.
            return journal.wait_for(&fate, None)?.failed.clone().map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// Whether a record of it may be found after a crash, whatever became of the others: one was
    /// acknowledged, or of one it is not known, or one was refused and is not known to be void.
    pub fn may_be_found(&mut self) -> bool {
        // Known or not, it has been asked for.
        let _ = self.check();
        self.kept || !self.pending.is_empty()
    }

    /// Why its records are not kept, as far as is known without waiting.
    pub fn check(&mut self) -> Result<()> {
        let Self { number, pending, failed, kept, unvoided } = self;
        pending.retain(|fate| {
            let Some(written) = fate.written.get() else { return true };
            let refused = written.refused.as_ref().filter(|(_, owners)| owners.contains(number));
            let error = written.failed.as_ref().or(refused.map(|(error, _)| error));
            *kept |= error.is_none() || written.may_be_found;
            *unvoided |= error.is_some() && written.may_be_found;
            if failed.is_none() {
                *failed = error.cloned();
            }
            false
        });
        failed.clone().map_or(Ok(()), Err)
    }
}

/// That the journal was found damaged must be known for as long as what it concerns is alive, even when
/// the damaged file has gone.
fn mark_doubtful(writer: &mut Writer, recovered: &Recovered) {
    let mut batch = Batch::default();
    for found in recovered.in_flight().filter(|found| found.doubtful && !found.marked) {
        batch.push(found.owner, &Record::Doubted);
    }
    // If it cannot be written now, it will be when the journal is opened the next time: the damaged file
    // stays until something can be written.
    let next_owner = writer.next_owner();
    writer.write(&mut batch, Certainty::Synced, next_owner);
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").field("number", &self.number).finish_non_exhaustive()
    }
}
