//! Any bytes as the files of a journal: reading them must not panic, hang, or use more memory than they
//! take up themselves.
//!
//! The first byte says whether a key is given and which checksums are made to fit, so that the fuzzer
//! gets behind them; the rest is cut into files.

#![no_main]

use std::io;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use segue::journal::{Directory, Key, Stored, read};

/// Files in memory, never written.
struct Files(Vec<(String, Arc<Vec<u8>>)>);

struct File(Arc<Vec<u8>>);

impl Directory for Files {
    fn name(&self) -> String {
        "fuzz".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn Stored>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let file = self.0.iter().find(|(other, _)| other == name);
        let (_, content) = file.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File(Arc::clone(content))))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Stored for File {
    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let at = usize::try_from(position).unwrap_or(usize::MAX).min(self.0.len());
        let len = into.len().min(self.0.len() - at);
        into[..len].copy_from_slice(&self.0[at..at + len]);
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// Lays a file out as the format wants it, with checksums that fit, around bytes of the fuzzer's.
fn fitted(number: u64, bytes: &[u8]) -> Vec<u8> {
    use segue::journal::fuzzing::{frame, header};
    let mut file = header(number);
    file.resize(8192, 0);
    let mut rest = bytes;
    while let [kind, owner, ordinal, len, tail @ ..] = rest {
        let (payload, behind) = tail.split_at(tail.len().min(usize::from(*len)));
        let position = file.len() as u64;
        file.extend(frame(position, *kind, u64::from(*owner), u32::from(*ordinal), payload));
        rest = behind;
    }
    file
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let files = rest.chunks(rest.len() / 3 + 1).zip(1u64..).map(|(bytes, number)| {
        let content = if mode & 1 == 0 { fitted(number, bytes) } else { bytes.to_vec() };
        (format!("segment-{number:016x}.journal"), Arc::new(content))
    });
    let files = Files(files.collect());
    let key = (mode & 2 != 0).then(|| Key::new([0; 32]));
    let Ok(recovered) = read(Arc::new(files), key.as_ref()) else { return };
    for found in recovered.in_flight() {
        recovered.records(found, |record| drop(format!("{record:?}"))).unwrap();
    }
    for finding in &recovered.report().findings {
        let _ = finding.to_string();
    }
});
