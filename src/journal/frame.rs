//! A record's frame: 40 bytes that say what follows and how to tell that it is whole, then the payload,
//! sealed where the journal is encrypted, padded to a multiple of 8.
//!
//! Pure. Whatever bytes it is given, it answers with a frame that is whole or with what is wrong.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::crypt::TAG_BYTES;
use super::field::{put_u32, put_u64};
use super::header::Secrets;
use crate::mutation::{self, Mutation};

pub(super) const FRAME_BYTES: usize = 40;
pub(super) const ALIGNMENT: usize = 8;

/// What is authenticated with the payload: all of the header ahead of the checksums.
const AAD_BYTES: usize = 24;
const BODY_SUM_AT: usize = 24;
const HEAD_SUM_AT: usize = 32;

const SEALED: u8 = 1;

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// The payload in the file, with the AEAD's tag, without padding.
    pub len: usize,
    pub kind: u8,
    pub version: u8,
    pub sealed: bool,
    pub owner: u64,
    /// Counts the owner's records from 0; a copy keeps its number.
    pub ordinal: u32,
    /// All of the file ahead of this position was on disk when the frame was written.
    pub synced: u64,
    body_sum: u64,
}

/// What a record is written with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub kind: u8,
    pub version: u8,
    pub owner: u64,
    pub ordinal: u32,
    pub synced: u64,
}

/// The frame, its header included, takes up so many bytes of the file.
pub(super) fn frame_bytes(payload: usize, sealed: bool) -> usize {
    let body = payload + if sealed { TAG_BYTES } else { 0 };
    FRAME_BYTES + body.next_multiple_of(ALIGNMENT)
}

/// Checksums depend on the file and the place: a record of another file, or moved, is none.
fn checksum(bytes: &[u8], secrets: &Secrets, position: u64) -> u64 {
    xxh3_64_with_seed(bytes, secrets.seed.wrapping_add(position))
}

/// Appends a frame that will stand at `position`. `None` if the payload is too long, and then nothing
/// is appended.
pub(super) fn write(
    out: &mut Vec<u8>,
    position: u64,
    meta: &Meta,
    payload: &[u8],
    secrets: &Secrets,
) -> Option<()> {
    let start = out.len();
    let tag = if secrets.key.is_some() { TAG_BYTES } else { 0 };
    let len = u32::try_from(payload.len() + tag).ok()?;
    put_u32(out, len);
    out.extend_from_slice(&[meta.kind, meta.version, u8::from(secrets.key.is_some()), 0]);
    put_u64(out, meta.owner);
    put_u32(out, meta.ordinal);
    // Positions are multiples of 8, so that this reaches 32 GiB.
    put_u32(out, u32::try_from(meta.synced / ALIGNMENT as u64).unwrap_or(u32::MAX));
    put_u64(out, 0);
    put_u64(out, 0);
    let body = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = &secrets.key {
        let (head, payload) = out[start..].split_at_mut(FRAME_BYTES);
        let Some(tag) = key.seal(position, &head[..AAD_BYTES], payload) else {
            out.truncate(start);
            return None;
        };
        out.extend_from_slice(&tag);
    }
    let padded = (out.len() - body).next_multiple_of(ALIGNMENT);
    out.resize(body + padded, 0);
    let body_sum = checksum(&out[body..], secrets, position);
    out[start + BODY_SUM_AT..start + HEAD_SUM_AT].copy_from_slice(&body_sum.to_le_bytes());
    let head_sum = checksum(&out[start..start + HEAD_SUM_AT], secrets, position);
    out[start + HEAD_SUM_AT..body].copy_from_slice(&head_sum.to_le_bytes());
    Some(())
}

impl Frame {
    /// Reads a frame's header at `position`; `None` if none stands there.
    pub fn read(head: &[u8; FRAME_BYTES], position: u64, secrets: &Secrets) -> Option<Self> {
        let u64_at = |at: usize| head[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let u32_at = |at: usize| head[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
        if u64_at(HEAD_SUM_AT) != checksum(&head[..HEAD_SUM_AT], secrets, position) {
            return None;
        }
        let len = usize::try_from(u32_at(0)).ok()?;
        let sealed = head[6] == SEALED;
        if head[6] > SEALED || head[7] != 0 || (sealed && len < TAG_BYTES) {
            return None;
        }
        Some(Self {
            len,
            kind: head[4],
            version: head[5],
            sealed,
            owner: u64_at(8),
            ordinal: u32_at(16),
            synced: u64::from(u32_at(20)) * ALIGNMENT as u64,
            body_sum: u64_at(BODY_SUM_AT),
        })
    }

    /// The payload and its padding take up so many bytes.
    pub fn body_bytes(&self) -> usize {
        self.len.next_multiple_of(ALIGNMENT)
    }

    pub fn frame_bytes(&self) -> u64 {
        (FRAME_BYTES + self.body_bytes()) as u64
    }

    /// Whether the body, padding included, is what was written.
    pub fn is_whole(&self, body: &[u8], position: u64, secrets: &Secrets) -> bool {
        let intact = || self.body_sum == checksum(body, secrets, position);
        body.len() == self.body_bytes() && (mutation::on(Mutation::ChecksumNotChecked) || intact())
    }

    /// The payload in the clear, from a body that is whole; `None` if it does not open, which means
    /// that it was changed on purpose. `scratch` holds what was decrypted.
    pub fn payload<'a>(
        &self,
        head: &[u8; FRAME_BYTES],
        body: &'a [u8],
        position: u64,
        secrets: &Secrets,
        scratch: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        let stored = body.get(..self.len)?;
        match (&secrets.key, self.sealed) {
            (None, false) => Some(stored),
            (Some(key), true) => {
                scratch.clear();
                scratch.extend_from_slice(stored);
                key.open(position, &head[..AAD_BYTES], scratch)
            }
            // A record in the clear in a sealed file is nobody's: it was put there.
            _ => None,
        }
    }
}
