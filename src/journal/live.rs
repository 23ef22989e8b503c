//! Which owners are alive, and in which segments their records stand: what says which segments can go.
//!
//! Pure. Takes part in no I/O and knows no record's content. Some 100 bytes for each owner alive.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::found::Index;
use super::frame::frame_bytes;
use super::record::{Kind, PAYLOAD_BYTES_MAX, Record};
use super::recovery::File;

/// Records on their way into one segment.
#[derive(Default)]
pub(super) struct Batch {
    pub entries: Vec<Entry>,
    pub bytes: Vec<u8>,
}

/// One record of a batch; its payload stands in the batch's bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub owner: u64,
    pub kind: u8,
    pub version: u8,
    pub ordinal: u32,
    pub at: usize,
    pub len: usize,
}

impl Entry {
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }

    pub fn begins(&self) -> bool {
        Kind::of(self.kind).is_some_and(Kind::begins)
    }
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes.clear();
    }

    /// `false`, and nothing is added, if the record is too large to be written.
    pub fn push(&mut self, owner: u64, record: &Record<'_>) -> bool {
        let at = self.bytes.len();
        record.encode(&mut self.bytes);
        let len = self.bytes.len() - at;
        if len > PAYLOAD_BYTES_MAX {
            self.bytes.truncate(at);
            return false;
        }
        let (kind, version) = (record.kind() as u8, record.kind().version());
        self.entries.push(Entry { owner, kind, version, ordinal: 0, at, len });
        true
    }

    /// A record as it was read, whatever it says.
    pub fn push_copy(&mut self, entry: Entry, payload: &[u8]) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.entries.push(Entry { at, len: payload.len(), ..entry });
    }

    pub fn payload(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.at..entry.at + entry.len]
    }

    /// Takes out all records of those that begin in it.
    pub fn split_beginners(&mut self) -> Self {
        let begun = self.entries.iter().filter(|entry| entry.begins());
        let begun: HashSet<u64> = begun.map(|entry| entry.owner).collect();
        let mut beginners = Self::default();
        let Self { entries, bytes } = self;
        entries.retain(|entry| {
            let goes = begun.contains(&entry.owner);
            if goes {
                beginners.push_copy(*entry, &bytes[entry.at..entry.at + entry.len]);
            }
            !goes
        });
        beginners
    }

    /// What it takes up in a file.
    pub fn file_bytes(&self, sealed: bool) -> u64 {
        self.entries.iter().map(|entry| frame_bytes(entry.len, sealed) as u64).sum()
    }
}

#[derive(Debug, Clone, Default)]
struct Owner {
    next_ordinal: u32,
    /// Where its first record stands: the segment's number, and the position in it.
    first: (u64, u64),
    bytes: u64,
    segments: Vec<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Live {
    owners: HashMap<u64, Owner>,
    /// How many owners have records in each segment.
    segments: BTreeMap<u64, u32>,
    bytes: u64,
    /// The owners of the batch that is being numbered, and their next ordinals.
    numbering: HashMap<u64, u32>,
}

impl Live {
    /// Of what a journal was found to hold.
    pub fn of(index: &Index, files: &[File]) -> Self {
        let mut live = Self::default();
        for found in index.owners.values() {
            let mut owner = Owner {
                next_ordinal: found.places.next_ordinal(),
                first: (0, 0),
                bytes: found.bytes,
                segments: Vec::new(),
            };
            if let Some(place) = found.places.first() {
                let index = usize::try_from(place.segment).unwrap_or(usize::MAX);
                owner.first = (files.get(index).map_or(0, |it| it.number), place.position());
            }
            for place in found.places.iter() {
                let index = usize::try_from(place.segment).unwrap_or(usize::MAX);
                if let Some(file) = files.get(index) {
                    owner.stands_in(file.number, &mut live.segments);
                }
            }
            live.bytes += found.bytes;
            live.owners.insert(found.owner, owner);
        }
        live
    }

    pub fn has(&self, owner: u64) -> bool {
        self.owners.contains_key(&owner)
    }

    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// What the records of all that is alive take up, without copies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many owners alive have records in a segment.
    pub fn in_segment(&self, number: u64) -> u32 {
        self.segments.get(&number).copied().unwrap_or_default()
    }

    /// The segment is gone.
    pub fn forget_segment(&mut self, number: u64) {
        self.segments.remove(&number);
    }

    /// Gives the batch's records their ordinals, and leaves out those of owners that are not alive:
    /// these have been refused before, and whoever wrote them has been told.
    pub fn number(&mut self, batch: &mut Batch) {
        let Self { owners, numbering, .. } = self;
        numbering.clear();
        batch.entries.retain_mut(|entry| {
            let next = match numbering.get_mut(&entry.owner) {
                Some(next) => next,
                None => {
                    let known = owners.get(&entry.owner).map(|owner| owner.next_ordinal);
                    let Some(next) = known.or(entry.begins().then_some(0)) else { return false };
                    numbering.entry(entry.owner).or_insert(next)
                }
            };
            entry.ordinal = *next;
            *next = next.saturating_add(1);
            true
        });
    }

    /// Where the first record of an owner stands, if it is alive: the segment's number, and the
    /// position in it.
    pub fn first(&self, owner: u64) -> Option<(u64, u64)> {
        self.owners.get(&owner).map(|owner| owner.first).filter(|(segment, _)| *segment > 0)
    }

    /// The batch stands in a segment, from `position` on.
    pub fn note(&mut self, batch: &Batch, number: u64, mut position: u64, sealed: bool) {
        for entry in &batch.entries {
            let at = position;
            position += frame_bytes(entry.len, sealed) as u64;
            if entry.is(Kind::Ended) {
                self.end(entry.owner);
                continue;
            }
            let owner = self.owners.entry(entry.owner).or_default();
            owner.stands_in(number, &mut self.segments);
            if entry.ordinal == 0 {
                owner.first = (number, at);
            }
            // A copy has been counted before.
            if entry.ordinal >= owner.next_ordinal {
                owner.next_ordinal = entry.ordinal.saturating_add(1);
                let bytes = frame_bytes(entry.len, sealed) as u64;
                owner.bytes += bytes;
                self.bytes += bytes;
            }
        }
    }

    fn end(&mut self, number: u64) {
        let Some(owner) = self.owners.remove(&number) else { return };
        self.bytes = self.bytes.saturating_sub(owner.bytes);
        for segment in owner.segments {
            if let Some(count) = self.segments.get_mut(&segment) {
                *count = count.saturating_sub(1);
            }
        }
    }
}

impl Owner {
    fn stands_in(&mut self, number: u64, segments: &mut BTreeMap<u64, u32>) {
        // The last one first: a record follows the one before it, as a rule.
        if !self.segments.iter().rev().any(|segment| *segment == number) {
            self.segments.reserve_exact(usize::from(self.segments.is_empty()));
            self.segments.push(number);
            *segments.entry(number).or_default() += 1;
        }
    }
}
