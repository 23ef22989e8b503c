//! The segment that is written: how it is begun, put on the disk and retired, and what is void of it then.

use std::collections::VecDeque;
use std::io;

use super::{Writer, random, unix_ms};
use crate::journal::error::{JournalError, Reason, Result};
use crate::journal::header::{COPIES, ENDS_MAX, End, Header, RECORDS_AT, Secrets};
use crate::journal::recovery::File;
use crate::journal::segment::name_of;
use crate::journal::storage::Stored;
use crate::mutation::{self, Mutation};

/// The segment that is written.
pub(in crate::journal) struct Current {
    pub number: u64,
    pub(super) secrets: Secrets,
    pub(super) file: Box<dyn Stored>,
    /// Where the next record goes.
    pub end: u64,
    /// What is ahead of this has been acknowledged.
    pub(super) acknowledged: u64,
    /// What is ahead of this is on the disk.
    pub(super) synced: u64,
    /// Something may have been written up to here: behind the end it is what a write that failed has left.
    pub(super) reached: u64,
    /// The file's length: zeros stand behind the end.
    pub(super) size: u64,
}

impl Writer {
    /// A fresh segment, which is on the disk with its name.
    pub(super) fn create(&mut self) -> Result<Current> {
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

    /// The current segment is full: the next record goes into another one.
    pub(in crate::journal) fn finish(&mut self) -> Result<()> {
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
    pub(in crate::journal) fn abandon(&mut self) {
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
}

/// Writes `out` at the end of what is written, and zeros behind it where that makes the file longer:
/// so the syncs that follow need not make it longer each time.
pub(super) fn write_ahead(current: &mut Current, out: &mut Vec<u8>, ahead: u64) -> io::Result<()> {
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
pub(super) fn note_end(ends: &mut VecDeque<End>, end: End) {
    if ends.len() == ENDS_MAX {
        ends.pop_front();
    }
    ends.push_back(end);
}
