//! Writes batches of records into segments, and answers for each whether it is kept.
//!
//! Invariants:
//! * A batch stands in one segment, written by one write. What follows the end that was acknowledged is
//!   void: the next segment's header says where that end is, and the file is cut there.
//! * A segment is written by the process that made it, and only behind what it has written: no nonce
//!   and no position is used twice.
//! * After a failed sync nothing more is believed of that file: what it did not acknowledge is written
//!   anew into a fresh one, or refused.
//! * What was refused is said to be void only once a crash cannot bring it back: the cut is on the disk,
//!   or the header of a later segment that stays.
//! * Segments go oldest first, each only when nothing in it is alive that does not also stand, on the
//!   disk, in a later one. So an end always outlives what it ends.

mod current;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use current::{Current, note_end, write_ahead};
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use super::error::{JournalError, Reason, Result};
use super::frame::{self, Meta, frame_bytes};
use super::header::{End, RECORDS_AT};
use super::live::{Batch, Live};
use super::options::{Geometry, Options};
use super::record::{Checkpoint, Kind, Record};
use super::recovery::{File, Recovered, read_pinned};
use super::storage::Directory;
use crate::mutation::{self, Mutation};

/// After so many batches in a row that the disk has failed to take, the journal is left alone.
const FAILURES_MAX: u32 = 3;
/// A checkpoint's payload.
const CHECKPOINT_BYTES: usize = 32;

/// How certain a batch must be before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    /// The kernel has it.
    Written,
    /// The disk has it.
    Synced,
    /// Nothing is acknowledged yet.
    Later,
}

pub(super) struct Writer {
    pub(super) dir: Arc<dyn Directory>,
    pub(super) options: Options,
    pub(super) geometry: Geometry,
    pub(super) journal_id: Uuid,
    /// Older segments, oldest first; they are read only.
    pub(super) files: VecDeque<File>,
    pub(super) current: Option<Current>,
    pub(super) live: Live,
    /// What all files take up.
    pub(super) total: u64,
    next_number: u64,
    next_owner: u64,
    ends: VecDeque<End>,
    failures: u32,
    /// Ends that were handed in with a batch that failed: they go with the next one.
    owed: Vec<u64>,
    /// What was refused may stand behind a segment's end after a crash, and no later segment says that it is
    /// void.
    uncut: bool,
    out: Vec<u8>,
    /// Held by whoever still reads what was recovered, from the files below this number.
    pub(super) pin: Arc<()>,
    pub(super) pinned_below: u64,
    /// A file was removed, and the directory's sync has failed since.
    pub(super) names_unsynced: bool,
    pub(super) counts: Counts,
}

/// What the writer has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    pub batches: u64,
    pub records: u64,
    pub bytes: u64,
    pub syncs: u64,
    /// Records that were copied forward to make room.
    pub copied: u64,
    pub segments: u64,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// None of it is kept.
    pub failed: Option<JournalError>,
    /// These owners, which began in it, found no room; the others' records are kept.
    pub refused: Option<(JournalError, Vec<u64>)>,
    /// What is not kept may be found after a crash all the same, or a part of it.
    pub may_be_found: bool,
}

impl Writer {
    /// Takes over the directory as it was found. Writes nothing yet.
    pub fn new(recovered: &Recovered, dir: Arc<dyn Directory>, options: Options) -> Result<Self> {
        let journal_id = match recovered.journal_id {
            Some(id) => id,
            None => Uuid::from_bytes(random(&dir.name())?),
        };
        let files: VecDeque<File> = recovered.files.iter().cloned().collect();
        let next_number = files.back().map_or(1, |file| file.number + 1);
        let mut ends = VecDeque::new();
        for file in files.iter().filter(|file| !file.unfinished) {
            note_end(&mut ends, End { number: file.number, at: file.end });
        }
        Ok(Self {
            geometry: Geometry::of(&options),
            live: Live::of(&recovered.index, &recovered.files),
            total: files.iter().map(|file| file.size).sum(),
            next_owner: match mutation::on(Mutation::OwnersHandedOutAgain) {
                true => 1,
                false => recovered.index.next_owner.max(1),
            },
            pin: Arc::clone(&recovered.pin),
            pinned_below: next_number,
            names_unsynced: false,
            dir,
            options,
            journal_id,
            files,
            current: None,
            next_number,
            ends,
            failures: 0,
            owed: Vec::new(),
            uncut: false,
            out: Vec::new(),
            counts: Counts::default(),
        })
    }

    /// Reads what has been written so far, and keeps all of its files for as long as that is of use.
    pub fn reread(&mut self) -> Result<Recovered> {
        let (dir, pin) = (Arc::clone(&self.dir), Arc::clone(&self.pin));
        self.pinned_below = self.next_number;
        read_pinned(dir, self.options.key.as_ref(), pin)
    }

    /// The first owner number that is free.
    pub fn next_owner(&self) -> u64 {
        self.next_owner
    }

    pub fn sealed(&self) -> bool {
        self.options.key.is_some()
    }

    /// Writes a batch. `next_owner` is the first owner number that has not been given out.
    pub fn write(&mut self, batch: &mut Batch, certainty: Certainty, next_owner: u64) -> Written {
        self.next_owner = self.next_owner.max(next_owner);
        for owner in self.owed.drain(..) {
            batch.push(owner, &Record::Ended);
        }
        self.live.number(batch);
        let uncut = std::mem::take(&mut self.uncut);
        if batch.is_empty() && !uncut {
            return Written::default();
        }
        let mut written = self.write_numbered(batch, certainty);
        written.may_be_found = self.uncut;
        if written.failed.is_some() {
            self.uncut |= uncut;
            let ends = batch.entries.iter().filter(|entry| entry.is(Kind::Ended));
            // What had begun in the same batch has ended by not being kept.
            self.owed.extend(ends.map(|entry| entry.owner).filter(|owner| self.live.has(*owner)));
        }
        written
    }

    fn write_numbered(&mut self, batch: &mut Batch, certainty: Certainty) -> Written {
        let mut written = Written::default();
        let Err(full) = self.write_whole(batch, certainty) else { return written };
        if full.reason() != Reason::Full {
            written.failed = Some(full);
            return written;
        }
        // What has begun before goes on, and perhaps ends, which makes room.
        let beginners = batch.split_beginners();
        if !batch.is_empty() {
            written.failed = self.write_whole(batch, certainty).err();
        }
        if beginners.is_empty() || written.failed.is_some() {
            written.failed.get_or_insert(full);
            return written;
        }
        if let Err(error) = self.write_whole(&beginners, certainty) {
            let mut owners: Vec<u64> = beginners.entries.iter().map(|entry| entry.owner).collect();
            owners.dedup();
            written.refused = Some((error, owners));
        }
        written
    }

    /// All of a batch or nothing of it. What the disk has refused once is tried once more, in a fresh
    /// segment. An empty one voids what was refused before.
    fn write_whole(&mut self, batch: &Batch, certainty: Certainty) -> Result<()> {
        if self.failures >= FAILURES_MAX {
            return Err(self.given_up());
        }
        let mut again = true;
        loop {
            let room = self.make_room(batch);
            let Err(error) = room.and_then(|()| self.attempt(batch, certainty)) else { break };
            let disk = matches!(error.reason(), Reason::SyncFailed | Reason::Io);
            if error.reason() != Reason::Full {
                self.abandon();
            }
            if !(disk && std::mem::take(&mut again)) {
                self.failures += u32::from(disk);
                return Err(error);
            }
        }
        // Where something was refused, this is a later segment, which stays.
        self.uncut = false;
        self.failures = 0;
        self.counts.batches += 1;
        self.counts.records += batch.entries.len() as u64;
        Ok(())
    }

    /// Writes a batch into one segment and notes where it stands.
    pub(super) fn attempt(&mut self, batch: &Batch, certainty: Certainty) -> Result<()> {
        let need = batch.file_bytes(self.sealed());
        let full = self.current.as_ref().is_some_and(|current| {
            current.end > RECORDS_AT && current.end + need > self.geometry.segment_bytes
        });
        if full {
            self.finish()?;
        }
        if self.current.is_none() {
            self.current = Some(self.create()?);
        }
        let checkpoint = self.checkpoint();
        let Some(current) = &mut self.current else { return Ok(()) };
        self.out.clear();
        let mut position = current.end;
        let too_large =
            || JournalError::new(Reason::TooLarge, "a record is larger than the journal can keep");
        if position == RECORDS_AT {
            let meta = Meta {
                kind: Kind::Checkpoint as u8,
                version: Kind::Checkpoint.version(),
                owner: 0,
                ordinal: 0,
                synced: current.synced,
            };
            frame::write(&mut self.out, position, &meta, &checkpoint, &current.secrets)
                .ok_or_else(too_large)?;
            position = current.end + self.out.len() as u64;
        }
        let first = position;
        for entry in &batch.entries {
            let meta = Meta {
                kind: entry.kind,
                version: entry.version,
                owner: entry.owner,
                ordinal: entry.ordinal,
                synced: current.synced,
            };
            frame::write(&mut self.out, position, &meta, batch.payload(entry), &current.secrets)
                .ok_or_else(too_large)?;
            position = current.end + self.out.len() as u64;
        }
        let before = current.size;
        let len = self.out.len();
        current.reached = position;
        let written = write_ahead(current, &mut self.out, self.geometry.ahead_bytes);
        self.total += current.size - before;
        written.map_err(|error| JournalError::io(&self.dir.name(), "writing", error))?;
        self.counts.bytes += len as u64;
        current.end = position;
        let number = current.number;
        match certainty {
            Certainty::Synced => self.sync()?,
            Certainty::Written => current.acknowledged = position,
            Certainty::Later => {}
        }
        self.live.note(batch, number, first, self.options.key.is_some());
        Ok(())
    }

    fn checkpoint(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(CHECKPOINT_BYTES);
        let checkpoint = Record::Checkpoint(Checkpoint {
            next_owner: self.next_owner,
            live_owners: self.live.len() as u64,
            live_bytes: self.live.bytes(),
            at_unix_ms: unix_ms(),
        });
        checkpoint.encode(&mut payload);
        payload
    }

    /// Closes in an orderly way: all is on the disk, and no room is taken up ahead.
    pub fn close(&mut self) -> Result<()> {
        let synced = self.sync();
        self.abandon();
        let _ = self.remove_dead();
        synced
    }

    fn given_up(&self) -> JournalError {
        JournalError::new(
            Reason::Failed,
            format!(
                "the journal in {} has failed {FAILURES_MAX} times in a row and is left alone: what was \
                 acknowledged is kept, nothing new is; look at the disk, then open the client again",
                self.dir.name()
            ),
        )
    }
}

fn random(directory: &str) -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        let error = io::Error::other("the operating system gave no random bytes");
        JournalError::io(directory, "making a file", error)
    })?;
    Ok(bytes)
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a checkpoint and the zeros ahead may add to a batch.
pub(super) fn overhead(geometry: &Geometry, sealed: bool) -> u64 {
    RECORDS_AT + frame_bytes(CHECKPOINT_BYTES, sealed) as u64 + geometry.ahead_bytes
}
