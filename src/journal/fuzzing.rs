//! For tests and the fuzz target alone: headers and frames whose checksums fit, around any bytes.

use uuid::Uuid;

use super::frame::{self, Meta};
use super::header::{Header, RECORDS_AT};

fn plain(number: u64) -> Header {
    Header {
        file_id: [7; 16],
        journal_id: Uuid::nil(),
        number,
        next_owner: 1,
        system_identifier: 0,
        client: Uuid::nil(),
        created_unix_ms: 0,
        cipher: None,
        ends: Vec::new(),
    }
}

/// One copy of a segment's header.
pub fn header(number: u64) -> Vec<u8> {
    plain(number).encode(None).map(|(bytes, _)| bytes).unwrap_or_default()
}

/// A whole record at `position` of a file with such a header.
pub fn frame(position: u64, kind: u8, owner: u64, ordinal: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let meta = Meta { kind, version: 1, owner, ordinal, synced: RECORDS_AT };
    if let Some((_, secrets)) = plain(1).encode(None) {
        frame::write(&mut out, position, &meta, payload, &secrets);
    }
    out
}
