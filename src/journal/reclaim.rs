//! Makes room: removes segments in which nothing is alive, and copies forward what is alive in the
//! oldest one, so that it can go too.
//!
//! A crash at any point loses nothing: a copy has the owner and the ordinal of its original, so that
//! two of them are one; and the original goes only when the copy is on the disk.

use std::io::ErrorKind;
use std::sync::Arc;

use super::error::{JournalError, Reason, Result};
use super::live::{Batch, Entry};
use super::record::Kind;
use super::recovery::File;
use super::segment::{OpenError, Opened, Segment, Step};
use super::writer::{Certainty, Writer, overhead};
use crate::mutation::{self, Mutation};

/// So much is copied by one write.
const COPY_BYTES: usize = 256 << 10;
/// What a damaged file is called once it is no longer a part of the journal.
const DAMAGED: &str = ".damaged";

impl Writer {
    /// For a whole batch. What begins is held to a lower limit than what goes on, so that there is
    /// always room for an outcome, and for copying.
    pub(super) fn make_room(&mut self, batch: &Batch) -> Result<()> {
        let need = batch.file_bytes(self.sealed());
        let begins = batch.entries.iter().any(Entry::begins);
        if begins && self.live.bytes() + need > self.geometry.live_max {
            return Err(self.full(need));
        }
        self.make_room_for(need)
    }

    fn make_room_for(&mut self, need: u64) -> Result<()> {
        let extra = overhead(&self.geometry, self.sealed());
        // Room to copy one segment into stays free.
        let limit = self.geometry.bytes_max.saturating_sub(self.geometry.segment_bytes);
        if self.total + need + extra <= limit {
            return Ok(());
        }
        self.remove_dead()?;
        let mut tries = self.files.len() + 2;
        while self.total + need + extra > limit && tries > 0 {
            tries -= 1;
            if self.files.is_empty() {
                // What is dead may all be in the segment that is being written.
                self.finish()?;
            }
            if !self.reclaim_oldest()? {
                break;
            }
        }
        if self.total + need + extra > limit {
            return Err(self.full(need));
        }
        Ok(())
    }

    fn full(&self, need: u64) -> JournalError {
        JournalError::new(
            Reason::Full,
            format!(
                "the journal in {} is full: {} of at most {} bytes are in use, {} of them by what is \
                 in flight, and {need} more are needed; wait for what is in flight, or raise \
                 journal_dir_bytes_max",
                self.dir.name(),
                self.total,
                self.geometry.bytes_max,
                self.live.bytes()
            ),
        )
    }

    /// Removes segments from the oldest on, as long as nothing in them is alive.
    pub(super) fn remove_dead(&mut self) -> Result<()> {
        while let Some(oldest) = self.files.front() {
            if self.is_pinned(oldest) || self.live.in_segment(oldest.number) > 0 {
                break;
            }
            self.remove_oldest()?;
        }
        Ok(())
    }

    /// Whether what was recovered is still being read from it.
    fn is_pinned(&self, file: &File) -> bool {
        file.number < self.pinned_below && Arc::strong_count(&self.pin) > 1
    }

    /// Frees the oldest segment; `false` if there is none, or it must stay.
    fn reclaim_oldest(&mut self) -> Result<bool> {
        let Some(oldest) = self.files.front().cloned() else { return Ok(false) };
        if self.is_pinned(&oldest) {
            return Ok(false);
        }
        let spares = mutation::on(Mutation::SegmentReclaimedAlive);
        if self.live.in_segment(oldest.number) > 0 && !spares {
            if let Err(error) = self.copy_forward(&oldest) {
                self.abandon();
                return Err(error);
            }
        }
        self.remove_oldest()?;
        Ok(true)
    }

    /// All that has been written is on the disk first: copies, and with sync=none the ends of what it holds,
    /// of which later segments may have more.
    fn remove_oldest(&mut self) -> Result<()> {
        if let Err(error) = self.sync() {
            self.abandon();
            return Err(error);
        }
        let directory = self.dir.name();
        let failed = |error| JournalError::io(&directory, "removing a file", error);
        // The next one must not go before the one before it has.
        if self.names_unsynced {
            self.dir.sync().map_err(failed)?;
            self.names_unsynced = false;
        }
        let Some(oldest) = self.files.front() else { return Ok(()) };
        let gone = if oldest.damaged {
            self.dir.rename(&oldest.name, &format!("{}{DAMAGED}", oldest.name))
        } else {
            self.dir.remove(&oldest.name)
        };
        match gone {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        if let Some(oldest) = self.files.pop_front() {
            self.total = self.total.saturating_sub(oldest.size);
            self.live.forget_segment(oldest.number);
        }
        self.names_unsynced = true;
        self.dir.sync().map_err(failed)?;
        self.names_unsynced = false;
        Ok(())
    }

    /// Writes what is alive of a segment anew, without acknowledging it.
    pub(super) fn copy_forward(&mut self, file: &File) -> Result<()> {
        let opened =
            Segment::open(&*self.dir, &file.name, self.options.key.as_ref(), &mut Vec::new());
        let failed = |error| JournalError::io(&self.dir.name(), "copying what is alive", error);
        let segment = match opened {
            Ok(Opened::Segment(segment)) => segment,
            // It was told when the journal was opened; nothing of it can be copied.
            Ok(_) => return Ok(()),
            Err(OpenError::Io(error)) => return Err(failed(error)),
            Err(OpenError::Header(_)) => return Err(failed(ErrorKind::InvalidData.into())),
        };
        let mut walk = segment.walk(Some(file.end));
        let mut batch = Batch::default();
        loop {
            let step = walk.next().map_err(|error| {
                JournalError::io(&self.dir.name(), "copying what is alive", error)
            })?;
            match step {
                Step::Record { frame, payload, .. } => {
                    let entry = Entry {
                        owner: frame.owner,
                        kind: frame.kind,
                        version: frame.version,
                        ordinal: frame.ordinal,
                        at: 0,
                        len: 0,
                    };
                    let goes = entry.is(Kind::Ended) || entry.is(Kind::Checkpoint);
                    if !goes && self.live.has(frame.owner) {
                        batch.push_copy(entry, payload);
                    }
                }
                Step::Found(finding) => {
                    // Found here for the first time, or known: it is kept for whoever wants to look.
                    if let Some(file) = self.files.iter_mut().find(|it| it.number == file.number) {
                        file.damaged |= finding.what.is_damage();
                    }
                }
                Step::End { .. } => break,
            }
            if batch.bytes.len() >= COPY_BYTES {
                self.copy(&mut batch)?;
            }
        }
        self.copy(&mut batch)
    }

    fn copy(&mut self, batch: &mut Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.counts.copied += batch.entries.len() as u64;
        let copied = self.attempt(batch, Certainty::Later);
        batch.clear();
        if copied.is_err() {
            self.abandon();
        }
        copied
    }
}
