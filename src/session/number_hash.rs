//! A hasher for keys that are numbers already: small ones handed out in order, or hashes.

use std::hash::{BuildHasherDefault, Hasher};

/// A map whose keys are such numbers. Nobody outside chooses them, so no flood of collisions needs to
/// be feared.
pub type NumberMap<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads one number over all bits by one multiplication (Fibonacci hashing).
#[derive(Debug, Default, Clone, Copy)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        let spread = number.wrapping_mul(GOLDEN_RATIO);
        self.0 = spread ^ (spread >> 32);
    }
}
