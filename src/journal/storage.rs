//! The little that the journal wants of a file system, so that one that fails on purpose can stand in.

use std::io;

/// A directory that holds one journal.
pub trait Directory: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> String;

    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file that must not exist.
    fn create(&self, name: &str) -> io::Result<Box<dyn Stored>>;

    /// Opens a file for reading.
    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>>;

    fn remove(&self, name: &str) -> io::Result<()>;

    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Returns once names that were made, changed or removed are so on the disk too.
    fn sync(&self) -> io::Result<()>;
}

/// One file.
pub trait Stored: Send {
    /// All of `bytes`, or an error; then part of them may have been written.
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()>;

    /// As many bytes as there are, up to `into.len()`; 0 at the end.
    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Bytes from `position` on will be read soon: they may be fetched while others are looked at.
    fn will_read(&self, position: u64, len: u64) {
        let _ = (position, len);
    }

    /// Returns once what was written is on the disk. After an error nothing may be concluded from a
    /// later success: the kernel may have forgotten what it could not write.
    fn sync(&mut self) -> io::Result<()>;

    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Of its length.
    fn size(&self) -> io::Result<u64>;
}
