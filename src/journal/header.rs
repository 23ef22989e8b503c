//! The header of a segment: which file this is, of which journal, under which key.
//!
//! Pure. It stands in the file twice, 4096 bytes apart, so that one damaged sector does not take the
//! whole segment with it.

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::crypt::{CHECK_BYTES, Cipher, FileKey, Key};
use super::field::{Fields, Malformed, put_u16, put_u64, put_uuid};

const MAGIC: &[u8; 8] = b"SEGUEJNL";
pub(super) const FORMAT_VERSION: u16 = 1;

pub(super) const HEADER_BYTES: usize = 256;
/// Where the two copies stand.
pub(super) const COPIES: [u64; 2] = [0, 4096];
/// Where records begin.
pub(super) const RECORDS_AT: u64 = 8192;

/// So many earlier segments' ends fit into a header.
pub(super) const ENDS_MAX: usize = 6;

/// What is derived from the key stands behind what it is derived over.
const CHECK_AT: usize = 208;
const CHECKSUM_AT: usize = 248;

/// One segment, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Random; what is derived from it makes checksums and keys this file's alone.
    pub file_id: [u8; 16],
    /// The same in all segments of one journal.
    pub journal_id: Uuid,
    /// Grows by at least one from each segment to the next.
    pub number: u64,
    /// Owner numbers below this may have been given out before.
    pub next_owner: u64,
    /// The cluster's; 0 if it was not known yet.
    pub system_identifier: u64,
    pub client: Uuid,
    pub created_unix_ms: u64,
    pub cipher: Option<Cipher>,
    /// Where the segments ahead of it end, newest last: what stands behind was never acknowledged, and
    /// is void for good.
    pub ends: Vec<End>,
}

/// Where an earlier segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub number: u64,
    pub at: u64,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It does not begin as one.
    NotAJournal,
    /// Its checksum, or a field, is wrong.
    Damaged,
    /// It is whole, and of a version that this code does not know.
    Version(u16),
    WrongKey,
    KeyNeeded,
    /// A key was given, and the file is in the clear.
    NotEncrypted,
}

/// What the records of one file are written and read with.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Goes into every checksum, so that a record of another file, or at another place, is none here.
    pub seed: u64,
    pub key: Option<FileKey>,
}

impl Header {
    /// The bytes of one copy, and what the file's records are to be written with. `None` if the key
    /// cannot be used, which ring leaves open and does not happen.
    pub fn encode(&self, key: Option<&Key>) -> Option<(Vec<u8>, Secrets)> {
        let mut out = self.front();
        let (file_key, check) = match (self.cipher, key) {
            (Some(cipher), Some(key)) => {
                let (file_key, check) = key.derive(cipher, &self.file_id, &out)?;
                (Some(file_key), check)
            }
            _ => (None, [0; CHECK_BYTES]),
        };
        out.extend_from_slice(&check);
        out.resize(CHECKSUM_AT, 0);
        let checksum = xxh3_64(&out);
        put_u64(&mut out, checksum);
        Some((out, Secrets { seed: xxh3_64(&self.file_id), key: file_key }))
    }

    /// What stands ahead of the check value.
    fn front(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        put_u16(&mut out, FORMAT_VERSION);
        put_u16(&mut out, HEADER_BYTES as u16);
        out.push(self.cipher.map_or(0, |cipher| cipher as u8));
        out.push(u8::try_from(self.ends.len().min(ENDS_MAX)).unwrap_or_default());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&self.file_id);
        put_uuid(&mut out, self.journal_id);
        put_uuid(&mut out, self.client);
        for value in [self.number, self.next_owner, self.system_identifier, self.created_unix_ms] {
            put_u64(&mut out, value);
        }
        let newest = self.ends.len().saturating_sub(ENDS_MAX);
        for end in &self.ends[newest..] {
            put_u64(&mut out, end.number);
            put_u64(&mut out, end.at);
        }
        out.resize(CHECK_AT, 0);
        out
    }

    /// Reads one copy.
    pub fn decode(bytes: &[u8]) -> Result<(Self, [u8; CHECK_BYTES]), HeaderError> {
        if bytes.len() < HEADER_BYTES {
            return Err(HeaderError::Damaged);
        }
        if &bytes[..8] != MAGIC {
            return Err(HeaderError::NotAJournal);
        }
        let checksum =
            u64::from_le_bytes(bytes[CHECKSUM_AT..HEADER_BYTES].try_into().unwrap_or([0; 8]));
        if checksum != xxh3_64(&bytes[..CHECKSUM_AT]) {
            return Err(HeaderError::Damaged);
        }
        let mut f = Fields::new(&bytes[8..CHECKSUM_AT]);
        let version = f.u16().map_err(|Malformed| HeaderError::Damaged)?;
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        Self::fields(&mut f).map_err(|Malformed| HeaderError::Damaged)
    }

    fn fields(f: &mut Fields<'_>) -> Result<(Self, [u8; CHECK_BYTES]), Malformed> {
        if usize::from(f.u16()?) != HEADER_BYTES {
            return Err(Malformed);
        }
        let cipher = match f.u8()? {
            0 => None,
            byte => Some(Cipher::of(byte).ok_or(Malformed)?),
        };
        let count = usize::from(f.u8()?);
        if count > ENDS_MAX || f.u16()? != 0 {
            return Err(Malformed);
        }
        let file_id = f.take(16)?.try_into().map_err(|_| Malformed)?;
        let journal_id = f.uuid()?;
        let client = f.uuid()?;
        let [number, next_owner, system_identifier, created_unix_ms] =
            [f.u64()?, f.u64()?, f.u64()?, f.u64()?];
        let mut ends = Vec::with_capacity(ENDS_MAX);
        for index in 0..ENDS_MAX {
            let end = End { number: f.u64()?, at: f.u64()? };
            if index < count {
                ends.push(end);
            }
        }
        f.take(CHECK_AT - 192)?;
        let check = f.take(CHECK_BYTES)?.try_into().map_err(|_| Malformed)?;
        let header = Self {
            file_id,
            journal_id,
            number,
            next_owner,
            system_identifier,
            client,
            created_unix_ms,
            cipher,
            ends,
        };
        Ok((header, check))
    }

    /// What the file's records are to be read with, if `key` is the right one.
    pub fn unlock(
        &self,
        check: [u8; CHECK_BYTES],
        key: Option<&Key>,
    ) -> Result<Secrets, HeaderError> {
        let seed = xxh3_64(&self.file_id);
        match (self.cipher, key) {
            (None, None) => Ok(Secrets { seed, key: None }),
            (None, Some(_)) => Err(HeaderError::NotEncrypted),
            (Some(_), None) => Err(HeaderError::KeyNeeded),
            (Some(cipher), Some(key)) => {
                let derived = key.derive(cipher, &self.file_id, &self.front());
                let (file_key, expected) = derived.ok_or(HeaderError::WrongKey)?;
                if expected != check {
                    return Err(HeaderError::WrongKey);
                }
                Ok(Secrets { seed, key: Some(file_key) })
            }
        }
    }
}
