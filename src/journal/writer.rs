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

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use super::error::{JournalError, Reason, Result};
use super::frame::{self, Meta, frame_bytes};
use super::header::{COPIES, ENDS_MAX, End, Header, RECORDS_AT, Secrets};
use super::live::{Batch, Live};
use super::options::{Geometry, Options};
use super::record::{Checkpoint, Kind, Record};
use super::recovery::{File, Recovered, read_pinned};
use super::segment::name_of;
use super::storage::{Directory, Stored};
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

/// The segment that is written.
pub(super) struct Current {
    pub number: u64,
    secrets: Secrets,
    file: Box<dyn Stored>,
    /// Where the next record goes.
    pub end: u64,
    /// What is ahead of this has been acknowledged.
    acknowledged: u64,
    /// What is ahead of this is on the disk.
    synced: u64,
    /// Something may have been written up to here: behind the end it is what a write that failed has left.
    reached: u64,
    /// The file's length: zeros stand behind the end.
    size: u64,
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

    /// Puts all that has been written on the disk.
    pub fn sync(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.synced == current.end {
            return Ok(());
        }
        self.counts.syncs += 1;
        if mutation::on(Mutation::SyncLeftOut) {
            current.acknowledged = current.end;
            return Ok(());
        }
        match current.file.sync() {
            Ok(()) => {
                current.synced = current.end;
                current.acknowledged = current.end;
                Ok(())
            }
            Err(error) => Err(JournalError::sync(&self.dir.name(), error)),
        }
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

    /// A fresh segment, which is on the disk with its name.
    fn create(&mut self) -> Result<Current> {
        let directory = self.dir.name();
        let number = self.next_number;
        // Never used again, whatever becomes of it.
        self.next_number += 1;
        let header = Header {
            file_id: random(&directory)?,
            journal_id: self.journal_id,
            number,
            next_owner: self.next_owner,
            system_identifier: self.options.system_identifier,
            client: self.options.client,
            created_unix_ms: unix_ms(),
            cipher: self.options.key.as_ref().map(|_| self.options.cipher),
            ends: self.ends.iter().copied().collect(),
        };
        let encoded = header.encode(self.options.key.as_ref());
        let (bytes, secrets) = encoded.ok_or_else(|| {
            JournalError::new(Reason::WrongKey, "the journal's key cannot be used")
        })?;
        let name = name_of(number);
        let made = self.dir.create(&name).and_then(|mut file| {
            for copy in COPIES {
                file.write_at(copy, &bytes)?;
            }
            Ok(file)
        });
        let made = made.map_err(|error| JournalError::io(&directory, "making a file", error));
        let made = made.and_then(|mut file| {
            self.counts.syncs += 1;
            let synced = file.sync().and_then(|()| self.dir.sync());
            synced.map(|()| file).map_err(|error| JournalError::sync(&directory, error))
        });
        match made {
            Ok(file) => {
                self.total += RECORDS_AT;
                self.counts.segments += 1;
                Ok(Current {
                    number,
                    secrets,
                    file,
                    end: RECORDS_AT,
                    acknowledged: RECORDS_AT,
                    synced: RECORDS_AT,
                    reached: RECORDS_AT,
                    size: RECORDS_AT,
                })
            }
            Err(error) => {
                // If it stays, it is found to be unfinished or empty.
                let _ = self.dir.remove(&name);
                Err(error)
            }
        }
    }

    /// The current segment is full: the next record goes into another one.
    pub(super) fn finish(&mut self) -> Result<()> {
        let synced = self.sync();
        let Some(current) = self.current.take() else { return Ok(()) };
        let file = File {
            name: name_of(current.number),
            number: current.number,
            size: current.size,
            end: current.acknowledged,
            damaged: false,
            unfinished: false,
        };
        let lost = current.acknowledged < current.end;
        let unsure = synced.is_err() && current.acknowledged > current.synced;
        self.retire(current);
        match synced {
            Err(error) if lost => Err(error),
            Err(_) if unsure => {
                // With sync=none, written was enough. The kernel may now forget it at any time: what is
                // alive of it is written anew while it can still be read.
                self.copy_forward(&file)
            }
            _ => Ok(()),
        }
    }

    /// Something has failed: nothing is written to the current segment any more, and what it has not
    /// acknowledged is void.
    pub(super) fn abandon(&mut self) {
        if let Some(mut current) = self.current.take() {
            if current.acknowledged > current.synced {
                // With sync=none: the next segment's header is going to say that it is there.
                let _ = current.file.sync();
            }
            self.retire(current);
        }
    }

    fn retire(&mut self, mut current: Current) {
        let mut end = current.acknowledged;
        if mutation::on(Mutation::JournalTruncatedEarly) {
            end = RECORDS_AT + (end - RECORDS_AT) / 16 * 8;
        }
        // With sync=none, what is acknowledged may not be on the disk, and the next segment's header, which is,
        // says that it is there.
        let void = current.reached > end;
        let mut cut = true;
        if current.size > end {
            cut = current.file.truncate(end).is_ok();
        }
        if cut {
            self.total -= current.size - end;
            current.size = end;
        }
        if end > current.synced || (cut && void) {
            cut &= current.file.sync().is_ok();
        }
        let name = name_of(current.number);
        let removed = end == RECORDS_AT && self.dir.remove(&name).is_ok();
        // Until the next segment's header says it as well.
        self.uncut |= void && !cut && !(removed && self.dir.sync().is_ok());
        if removed {
            self.total -= current.size;
            return;
        }
        note_end(&mut self.ends, End { number: current.number, at: end });
        self.files.push_back(File {
            name,
            number: current.number,
            size: current.size,
            end,
            damaged: false,
            unfinished: false,
        });
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

/// Writes `out` at the end of what is written, and zeros behind it where that makes the file longer:
/// so the syncs that follow need not make it longer each time.
fn write_ahead(current: &mut Current, out: &mut Vec<u8>, ahead: u64) -> io::Result<()> {
    let len = out.len();
    let end = current.end + len as u64;
    if end > current.size && (len as u64) < ahead {
        let zeros = usize::try_from(ahead).unwrap_or_default();
        out.resize(len + zeros, 0);
        if current.file.write_at(current.end, out).is_ok() {
            current.size = end + ahead;
            return Ok(());
        }
        // There may be room for the records at least; the same bytes go to the same place.
        out.truncate(len);
    }
    let written = current.file.write_at(current.end, out);
    // After an error the file is as long as it happens to be: at most so long.
    current.size = current.size.max(end);
    written
}

/// Keeps the newest, as many as a header can say.
fn note_end(ends: &mut VecDeque<End>, end: End) {
    if ends.len() == ENDS_MAX {
        ends.pop_front();
    }
    ends.push_back(end);
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
