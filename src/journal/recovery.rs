//! Reads a directory: what was in flight, how far it had come, and what is wrong with the files.
//!
//! Streaming: a record's bytes are looked at once, and read again only when the application asks for
//! what is in them. It changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::error::{JournalError, Reason, Result};
use super::found::{Found, Index, Place};
use super::header::{End, HeaderError, RECORDS_AT};
use super::record::{Kind, Record};
use super::report::{Finding, Report, What};
use super::segment::{OpenError, Opened, Segment, Step, name_of, number_of};
use super::storage::Directory;
use super::{Key, crypt::Cipher};

/// What a journal holds.
///
/// As long as this is alive, the journal that it came from keeps the files that it reads from: drop it
/// when all has been dealt with.
pub struct Recovered {
    dir: Arc<dyn Directory>,
    key: Option<Key>,
    pub(super) files: Vec<File>,
    pub(super) index: Index,
    report: Report,
    pub(super) journal_id: Option<Uuid>,
    client: Option<Uuid>,
    cipher: Option<Cipher>,
    /// Held by the journal as well.
    pub(super) pin: Arc<()>,
    /// The file that was read from last: owners follow one another in it.
    opened: Mutex<Cursor>,
}

/// One file of the journal.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub name: String,
    pub number: u64,
    pub size: u64,
    /// Where its records end.
    pub end: u64,
    /// It is kept for whoever wants to look at it.
    pub damaged: bool,
    /// Never finished: it can go.
    pub unfinished: bool,
}

/// Reads the journal in `dir`, which another process may be writing: for looking at it only.
pub fn read(dir: Arc<dyn Directory>, key: Option<&Key>) -> Result<Recovered> {
    read_pinned(dir, key, Arc::new(()))
}

/// As [`read`]; as long as `pin` is held by more than the journal, no file is removed.
pub(super) fn read_pinned(
    dir: Arc<dyn Directory>,
    key: Option<&Key>,
    pin: Arc<()>,
) -> Result<Recovered> {
    let mut recovered = Recovered {
        dir,
        key: key.cloned(),
        files: Vec::new(),
        index: Index::default(),
        report: Report::default(),
        journal_id: None,
        client: None,
        cipher: None,
        pin,
        opened: Mutex::default(),
    };
    recovered.read_all()?;
    Ok(recovered)
}

impl Recovered {
    /// What is wrong with the files.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The journal's own name, the same for all of its files; `None` if it is empty.
    pub fn journal_id(&self) -> Option<Uuid> {
        self.journal_id
    }

    /// The client that wrote it last.
    pub fn client(&self) -> Option<Uuid> {
        self.client
    }

    /// How its newest file is encrypted.
    pub fn cipher(&self) -> Option<Cipher> {
        self.cipher
    }

    /// What was in flight, in the order in which it began.
    pub fn in_flight(&self) -> impl Iterator<Item = &Found> {
        self.index.owners.values()
    }

    pub fn get(&self, owner: u64) -> Option<&Found> {
        self.index.owners.get(&owner)
    }

    /// Hands every record of something in flight to `take`, in the order in which they were written.
    /// One that is damaged is left out; it is then `doubtful`.
    pub fn records(&self, found: &Found, mut take: impl FnMut(&Record<'_>)) -> Result<()> {
        let mut cursor = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        for place in found.places.iter() {
            self.read_at(place, found.owner, &mut cursor, &mut take)?;
        }
        Ok(())
    }

    /// The same, one by one, for whoever does not want them all at once.
    pub fn records_one_by_one(self: &Arc<Self>, found: &Found) -> Records {
        Records {
            recovered: Arc::clone(self),
            owner: found.owner,
            places: found.places.iter().collect::<Vec<_>>().into_iter(),
            cursor: Cursor::default(),
        }
    }

    fn read_at(
        &self,
        place: Place,
        owner: u64,
        cursor: &mut Cursor,
        take: impl FnOnce(&Record<'_>),
    ) -> Result<()> {
        let Cursor { open, buffer } = cursor;
        if open.as_ref().is_none_or(|(index, _)| *index != place.segment) {
            *open = self.open(place)?;
        }
        let Some((_, segment)) = open else { return Ok(()) };
        let frame = segment.read(place.position(), buffer);
        let frame = frame.map_err(|error| self.failed(&segment.name, error))?;
        let Some(frame) = frame.filter(|frame| frame.owner == owner) else { return Ok(()) };
        let record =
            Kind::of(frame.kind).and_then(|kind| Record::decode(kind, frame.version, buffer).ok());
        if let Some(record) = record {
            take(&record);
        }
        Ok(())
    }

    /// Puts what was read on the disk. After a crash of the process alone the newest file may be whole
    /// in the kernel only: what is decided and written on the strength of it must not outlive it.
    pub(super) fn settle(&self) -> Result<()> {
        let Some(newest) = self.files.iter().rev().find(|file| !file.unfinished) else {
            return Ok(());
        };
        let failed = |error| self.failed(&newest.name, error);
        let mut stored = self.dir.open(&newest.name).map_err(failed)?;
        let synced = stored.sync().and_then(|()| self.dir.sync());
        synced.map_err(|error| JournalError::sync(&self.dir.name(), error))
    }

    fn open(&self, place: Place) -> Result<Option<(u32, Box<Segment>)>> {
        let file = usize::try_from(place.segment).ok().and_then(|index| self.files.get(index));
        let Some(file) = file else { return Ok(None) };
        match Segment::open(&*self.dir, &file.name, self.key.as_ref(), &mut Vec::new()) {
            Ok(Opened::Segment(segment)) => Ok(Some((place.segment, segment))),
            Ok(Opened::Known(_) | Opened::Unusable { .. }) => Ok(None),
            Err(error) => Err(self.refused(&file.name, error)),
        }
    }

    fn read_all(&mut self) -> Result<()> {
        let dir = Arc::clone(&self.dir);
        let names = dir.list().map_err(|error| self.failed("the directory", error))?;
        let numbers = names.iter().filter_map(|name| number_of(name));
        let mut files: BTreeMap<u64, Option<Opened>> =
            numbers.map(|number| (number, None)).collect();
        for (number, opened) in &mut files {
            let name = name_of(*number);
            let findings = &mut self.report.findings;
            match Segment::open(&*dir, &name, self.key.as_ref(), findings) {
                // Only the header for now: thousands of files are not held open.
                Ok(it) => *opened = Some(it.without_file()),
                Err(error) => return Err(self.refused(&name, error)),
            }
        }
        let ends = self.ends(&mut files);
        for (number, opened) in files {
            self.read_one(number, opened, ends.get(&number).copied())?;
        }
        self.index.finish();
        Ok(())
    }

    /// Where segments end, as later ones say; a segment that one of them knows and that is not there
    /// is put among `files`.
    fn ends(&mut self, files: &mut BTreeMap<u64, Option<Opened>>) -> BTreeMap<u64, u64> {
        let mut ends = BTreeMap::new();
        let headers = files.values().filter_map(|opened| match opened {
            Some(Opened::Known(header)) => Some(header),
            _ => None,
        });
        for header in headers {
            self.journal_id.get_or_insert(header.journal_id);
            if self.journal_id == Some(header.journal_id) {
                ends.extend(header.ends.iter().map(|End { number, at }| (*number, *at)));
            }
        }
        let oldest = files.keys().next().copied().unwrap_or_default();
        for number in ends.keys().filter(|number| **number > oldest) {
            files.entry(*number).or_insert(None);
        }
        ends
    }

    fn read_one(&mut self, number: u64, opened: Option<Opened>, end: Option<u64>) -> Result<()> {
        let name = name_of(number);
        let mut file =
            File { name, number, size: 0, end: RECORDS_AT, damaged: false, unfinished: false };
        match opened {
            Some(Opened::Known(header)) => {
                if header.number != number || Some(header.journal_id) != self.journal_id {
                    self.find(&mut file, What::Foreign);
                } else {
                    self.client = Some(header.client);
                    self.cipher = header.cipher;
                    self.index.next_owner = self.index.next_owner.max(header.next_owner);
                    self.read_records(&mut file, end)?;
                }
            }
            Some(Opened::Unusable { size, what }) => {
                file.size = size;
                // What had records is no unfinished file, even if they are gone.
                let held = end.is_some_and(|end| end > RECORDS_AT);
                let what = if held { What::HeaderLost } else { what };
                file.unfinished = what == What::Unfinished;
                self.find(&mut file, what);
            }
            Some(Opened::Segment(_)) => {}
            None => {
                self.find(&mut file, What::Missing);
                return Ok(());
            }
        }
        self.report.files += 1;
        self.report.bytes += file.size;
        self.files.push(file);
        Ok(())
    }

    /// Something is wrong with a file as a whole.
    fn find(&mut self, file: &mut File, what: What) {
        if what.is_damage() {
            file.damaged = true;
            // What is foreign was never part of it.
            if what != What::Foreign {
                self.index.lose(None);
            }
        }
        self.report.findings.push(Finding {
            file: file.name.clone(),
            position: 0,
            bytes: file.size,
            what,
        });
    }

    fn read_records(&mut self, file: &mut File, end: Option<u64>) -> Result<()> {
        let index = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let opened = Segment::open(&*self.dir, &file.name, self.key.as_ref(), &mut Vec::new());
        let segment = match opened {
            Ok(Opened::Segment(segment)) => segment,
            Ok(_) => return Ok(()),
            Err(error) => return Err(self.refused(&file.name, error)),
        };
        file.size = segment.size;
        let mut walk = segment.walk(end);
        loop {
            match walk.next().map_err(|error| self.failed(&file.name, error))? {
                Step::Record { position, frame, payload } => {
                    self.report.records += 1;
                    if !self.index.take(&frame, payload, Place::new(index, position)) {
                        self.report.findings.push(Finding {
                            file: file.name.clone(),
                            position,
                            bytes: frame.frame_bytes(),
                            what: What::NotUnderstood { owner: frame.owner, kind: frame.kind },
                        });
                    }
                }
                Step::Found(finding) => {
                    match finding.what {
                        What::Damaged { owner } => self.index.lose(owner),
                        What::Forged { owner } => self.index.lose(Some(owner)),
                        _ => {}
                    }
                    file.damaged |= finding.what.is_damage();
                    self.report.findings.push(finding);
                }
                Step::End { at } => {
                    file.end = at;
                    return Ok(());
                }
            }
        }
    }

    fn failed(&self, what: &str, error: io::Error) -> JournalError {
        JournalError::io(&self.dir.name(), &format!("reading {what}"), error)
    }

    fn refused(&self, file: &str, error: OpenError) -> JournalError {
        let place = self.dir.name();
        let (reason, why) = match error {
            OpenError::Io(error) => return self.failed(file, error),
            OpenError::Header(HeaderError::WrongKey) => (
                Reason::WrongKey,
                "was written with another key (the file is not damaged): give journal_key or \
                 journal_key_file the key that it was written with"
                    .to_owned(),
            ),
            OpenError::Header(HeaderError::KeyNeeded) => (
                Reason::KeyNeeded,
                "is encrypted: give journal_key or journal_key_file its key".to_owned(),
            ),
            OpenError::Header(HeaderError::NotEncrypted) => (
                Reason::NotEncrypted,
                "is not encrypted, and a key was given: recover and purge it without the key first, \
                 or give journal_dir another place"
                    .to_owned(),
            ),
            OpenError::Header(HeaderError::Version(version)) => (
                Reason::Version,
                format!("has format version {version}, which this version of Segue cannot read"),
            ),
            OpenError::Header(HeaderError::NotAJournal | HeaderError::Damaged) => {
                (Reason::Io, "has no header that can be read".to_owned())
            }
        };
        JournalError::new(reason, format!("{file} of the journal in {place} {why}"))
    }
}

impl std::fmt::Debug for Recovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recovered")
            .field("directory", &self.dir.name())
            .field("in_flight", &self.index.owners.len())
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// The file that was read from last, and the record.
#[derive(Default)]
struct Cursor {
    open: Option<(u32, Box<Segment>)>,
    buffer: Vec<u8>,
}

/// The records of something in flight, read as they are asked for: see
/// [`Recovered::records_one_by_one`].
pub struct Records {
    recovered: Arc<Recovered>,
    owner: u64,
    places: std::vec::IntoIter<Place>,
    cursor: Cursor,
}

impl Records {
    /// Hands the next record to `take`, unless it cannot be read; `false` if there is none left.
    pub fn next_to(&mut self, take: impl FnOnce(&Record<'_>)) -> Result<bool> {
        let Some(place) = self.places.next() else { return Ok(false) };
        self.recovered.read_at(place, self.owner, &mut self.cursor, take)?;
        Ok(true)
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl Opened {
    fn without_file(self) -> Self {
        match self {
            Self::Segment(segment) => Self::Known(segment.header),
            other => other,
        }
    }
}
