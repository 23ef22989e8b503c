//! Which journal, and how it is come by: read beside its owner, or taken over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use segue::journal::{Disk, Journal, JournalError, Key, Options, Recovered, SyncPolicy, read};
use uuid::Uuid;

use crate::output::Failure;

/// What is read while its owner writes may look damaged for a moment: it is believed when two looks
/// agree.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// The least that a journal is given which is taken over; more than its owner gave it does no harm.
const BYTES_MIN: u64 = 64 << 20;

#[derive(Args)]
pub struct Place {
    /// The journal's directory (journal_dir)
    directory: PathBuf,
    /// The file that holds the key of an encrypted journal
    #[arg(long, value_name = "FILE")]
    journal_key_file: Option<PathBuf>,
}

/// A journal that was looked at.
pub struct Seen {
    pub recovered: Arc<Recovered>,
    /// The process that owns it.
    pub holder: Option<u32>,
}

impl Place {
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn key_file(&self) -> Option<&Path> {
        self.journal_key_file.as_deref()
    }

    pub fn key(&self) -> Result<Option<Key>, Failure> {
        let key = self.key_file().map(Key::from_file).transpose();
        key.map_err(|error| named(&error))
    }

    /// Reads it and changes nothing.
    pub fn look(&self) -> Result<Seen, Failure> {
        let key = self.key()?;
        let disk = Arc::new(Disk::look(&self.directory).map_err(|error| named(&error))?);
        let mut before: Option<Recovered> = None;
        for last in (0..LOOKS).map(|look| look + 1 == LOOKS) {
            let holder = disk.holder();
            let seen = read(Arc::clone(&disk) as _, key.as_ref());
            match seen {
                Ok(seen) => {
                    let agrees =
                        |before: &Recovered| before.report().findings == seen.report().findings;
                    let sure = holder.is_none() || !seen.report().is_damaged();
                    if sure || before.as_ref().is_some_and(agrees) {
                        return Ok(Seen { recovered: Arc::new(seen), holder });
                    }
                    before = Some(seen);
                }
                // A file was removed between its name and its content.
                Err(error) if holder.is_none() || last => return Err(named(&error)),
                Err(_) => before = None,
            }
            std::thread::sleep(PAUSE);
        }
        Err("the journal changes too fast to be read beside its owner; end that one first".into())
    }

    /// Takes it over from an owner that is gone. `key` is the one to read it with.
    pub fn take_over(&self, key: Option<Key>) -> Result<(Journal, Recovered), Failure> {
        // A directory that is not there is not to be made.
        Disk::look(&self.directory).map_err(|error| named(&error))?;
        let disk = Arc::new(Disk::open(&self.directory).map_err(|error| named(&error))?);
        let seen = read(Arc::clone(&disk) as _, key.as_ref()).map_err(|error| named(&error))?;
        let bytes_max = (2 * seen.report().bytes).max(BYTES_MIN);
        drop(seen);
        let mut options = Options::new(SyncPolicy::Batch, bytes_max, Uuid::new_v4());
        options.key = key;
        Journal::open(disk, options).map_err(|error| named(&error))
    }
}

/// With the name of what went wrong.
pub fn named(error: &JournalError) -> Failure {
    let text = crate::output::chain(error);
    format!("{text} ({})", error.reason().name()).into()
}
