//! What the journal is told about itself once and for all.

use uuid::Uuid;

use super::crypt::{Cipher, Key};
use super::header::RECORDS_AT;

/// When a record counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// When the kernel has it: it survives the process, not the machine.
    None,
    /// When the disk has it; one sync serves all that wait.
    Batch,
    /// When the disk has it, for each record by itself, awaited or not.
    Always,
}

/// See `docs/configuration.md` for the options that these come from.
#[derive(Debug, Clone)]
pub struct Options {
    pub sync: SyncPolicy,
    /// All files together are never larger.
    pub bytes_max: u64,
    /// Encrypts what is written, and opens what was.
    pub key: Option<Key>,
    pub cipher: Cipher,
    /// The cluster's; 0 if it is not known.
    pub system_identifier: u64,
    /// A name for the client, told to whoever looks at the journal.
    pub client: Uuid,
    /// For tests: another size of segments, and of the zeros ahead of the records.
    pub(super) geometry: Option<(u64, u64)>,
}

impl Options {
    pub fn new(sync: SyncPolicy, bytes_max: u64, client: Uuid) -> Self {
        Self {
            sync,
            bytes_max,
            key: None,
            cipher: Cipher::preferred(),
            system_identifier: 0,
            client,
            geometry: None,
        }
    }

    /// For tests: another size of segments, and of the zeros ahead of the records, in bytes.
    #[doc(hidden)]
    #[must_use]
    pub fn with_geometry(mut self, segment: u64, ahead: u64) -> Self {
        self.geometry = Some((segment, ahead));
        self
    }
}

/// How `bytes_max` is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub bytes_max: u64,
    /// A segment is ended when the next batch would make it larger.
    pub segment_bytes: u64,
    /// Zeros written ahead of the records when the file grows.
    pub ahead_bytes: u64,
    /// What is alive may take up so much before what is new is refused. The rest is what copying lives
    /// on: with less of it, each byte would be copied more often.
    pub live_max: u64,
}

/// The least that a journal can live on.
pub const BYTES_MIN: u64 = 1 << 20;

impl Geometry {
    pub fn of(options: &Options) -> Self {
        let bytes_max = options.bytes_max.max(BYTES_MIN);
        let usual = (bytes_max / 32).clamp(64 << 10, 64 << 20);
        let (segment_bytes, ahead_bytes) =
            options.geometry.unwrap_or((usual, (usual / 4).clamp(16 << 10, 256 << 10)));
        let bytes_max = if options.geometry.is_some() { options.bytes_max } else { bytes_max };
        // A segment's header holds no records.
        let room = segment_bytes.saturating_sub(RECORDS_AT);
        let all = bytes_max / segment_bytes.max(1) * room;
        let live_max = (all - all / 4).saturating_sub(2 * room);
        Self { bytes_max, segment_bytes, ahead_bytes, live_max }
    }
}
