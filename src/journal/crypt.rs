//! Keys and sealing, on the same provider of cryptography as TLS (ring).
//!
//! Invariants: a nonce is used once for one key, because each file has a key of its own, derived from
//! its random id, and a record's nonce is its position in a file that is only ever appended to, by the
//! process that made it. The user's key and what is derived from it are overwritten when dropped (ring
//! keeps the expanded AEAD key to itself and does not), and shown nowhere.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use zeroize::Zeroizing;

use super::error::{JournalError, Reason, Result};

/// What the AEAD appends to each record.
pub(super) const TAG_BYTES: usize = 16;
pub(super) const CHECK_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// How records are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cipher {
    Aes256Gcm = 1,
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    pub(super) fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The faster one: these processors have instructions for AES.
    pub(super) fn preferred() -> Self {
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }
}

/// The key that the user gave: 256 bits. Overwritten when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From 64 hexadecimal digits, as `openssl rand -hex 32` prints them; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * KEY_BYTES {
            return None;
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? << 4 | low?).ok()?;
        }
        Some(Self(bytes))
    }

    /// From a file that holds 32 bytes, or 64 hexadecimal digits and perhaps a line's end. One that
    /// others can read, or that is somebody else's, is refused.
    pub fn from_file(path: &Path) -> Result<Self> {
        let shown = path.display();
        let bad = |reason, what: String| {
            JournalError::new(reason, format!("the journal's key file {shown} {what}"))
        };
        let unreadable = |error: io::Error| bad(Reason::BadKey, format!("cannot be read: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            let what = format!("has mode {mode:04o}: others could read it; chmod 0600 it");
            return Err(bad(Reason::Permissions, what));
        }
        // One byte more than any key, so that what is too long is seen to be.
        let mut bytes = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES + 3));
        file.take(2 * KEY_BYTES as u64 + 3).read_to_end(&mut bytes).map_err(unreadable)?;
        if let Ok(raw) = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
            return Ok(Self::new(raw));
        }
        let text = std::str::from_utf8(&bytes).ok();
        text.and_then(|text| Self::from_hex(text.trim_end())).ok_or_else(|| {
            let what = "holds no key: 32 bytes, or 64 hexadecimal digits as `openssl rand -hex 32` \
                        prints them";
            bad(Reason::BadKey, what.to_owned())
        })
    }

    /// What one file is sealed with, and the value in its header that tells a wrong key from a damaged
    /// file. `header` is what stands ahead of that value: it goes into both, so that a header that was
    /// changed opens nothing.
    pub(super) fn derive(
        &self,
        cipher: Cipher,
        file_id: &[u8; 16],
        header: &[u8],
    ) -> Option<(FileKey, [u8; CHECK_BYTES])> {
        let prk = Salt::new(HKDF_SHA256, file_id).extract(&*self.0);
        let key = expand::<KEY_BYTES>(&prk, b"segue journal 1 record", header)?;
        let check = expand::<CHECK_BYTES>(&prk, b"segue journal 1 check", header)?;
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &*key).ok()?);
        Some((FileKey(key), *check))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, label: &[u8], header: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    prk.expand(&[label, header], Length(N)).ok()?.fill(&mut *bytes).ok()?;
    Some(bytes)
}

/// What the records of one file are sealed with.
pub(super) struct FileKey(LessSafeKey);

impl FileKey {
    /// Encrypts `payload` in place and returns its tag. `None` only beyond the AEAD's own limit of
    /// length, which is far above a record's.
    pub fn seal(&self, position: u64, aad: &[u8], payload: &mut [u8]) -> Option<[u8; TAG_BYTES]> {
        let tag =
            self.0.seal_in_place_separate_tag(nonce(position), Aad::from(aad), payload).ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Decrypts in place what [`seal`](Self::seal) and its tag left; `None` if any bit of it, or of
    /// `aad`, or its position, is another.
    pub fn open<'a>(&self, position: u64, aad: &[u8], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        self.0.open_in_place(nonce(position), Aad::from(aad), sealed).ok().map(|opened| &*opened)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn nonce(position: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&position.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}
