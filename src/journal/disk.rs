//! The real directory: std::fs, a lock, and permissions that keep others out.
//!
//! Files are made 0600 in a directory of 0700 that belongs to the process's own user; anything wider
//! is refused, for statements and parameters stand in there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation, OFlags, fadvise, flock};

use super::error::{JournalError, Reason, Result};
use super::storage::{Directory, Stored};

const LOCK: &str = "lock";

/// A directory of the file system, owned by this process for as long as this lives.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// Held open for the lock on it; none for one who only looks.
    lock: Option<File>,
}

impl Disk {
    /// Takes the directory, which is made if it is missing (its parent is not).
    ///
    /// The lock is the open file's: it ends with the process however that ends, but a child that it
    /// forked and that has not called exec keeps it as well.
    pub fn open(path: &Path) -> Result<Self> {
        make(path)?;
        check(path)?;
        let lock = take_lock(path)?;
        Ok(Self { path: path.to_owned(), lock: Some(lock) })
    }

    /// For reading alone, beside the process that owns it.
    pub fn look(path: &Path) -> Result<Self> {
        check(path)?;
        Ok(Self { path: path.to_owned(), lock: None })
    }

    /// The process that owns the directory, as far as can be seen without taking part in its lock.
    pub fn holder(&self) -> Option<u32> {
        let lock = fs::metadata(self.path.join(LOCK)).ok()?;
        let pid: u32 = fs::read_to_string(self.path.join(LOCK)).ok()?.trim().parse().ok()?;
        let same =
            |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == (lock.dev(), lock.ino());
        let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        files.any(|file| fs::metadata(file.path()).is_ok_and(same)).then_some(pid)
    }

    fn writable(&self) -> io::Result<()> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(ErrorKind::PermissionDenied.into()),
        }
    }
}

fn make(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let synced =
                File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
            synced.map_err(|error| failed(path, "making the directory", error))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(path, "making the directory", error)),
    }
}

fn check(path: &Path) -> Result<()> {
    let metadata =
        fs::metadata(path).map_err(|error| failed(path, "looking at the directory", error))?;
    let refuse = |what: String| {
        let message = format!("the journal's directory {} {what}", path.display());
        Err(JournalError::new(Reason::Permissions, message))
    };
    if !metadata.is_dir() {
        return refuse("is no directory: give journal_dir another path".to_owned());
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return refuse(format!(
            "belongs to user {}, and this process runs as user {user}: it holds statements with \
             their parameters, and may be nobody else's; give journal_dir a directory of its own",
            metadata.uid()
        ));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return refuse(format!(
            "has mode {mode:04o}: others could read statements with their parameters in it; \
             chmod 0700 it"
        ));
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path.join(LOCK));
    let mut file = file.map_err(|error| failed(path, "opening its lock", error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(locked(path, &file)),
        Err(error) => return Err(failed(path, "locking", error.into())),
    }
    // Only for the message that another one gets.
    let noted = file.set_len(0).and_then(|()| file.rewind());
    let noted = noted.and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(|error| failed(path, "writing its lock", error))?;
    Ok(file)
}

fn locked(path: &Path, lock: &File) -> JournalError {
    let mut text = String::new();
    let holder =
        lock.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    let holder = holder.map_or_else(String::new, |pid: u32| format!(" (process {pid})"));
    JournalError::new(
        Reason::Locked,
        format!(
            "the journal in {} belongs to another client{holder}, in this process or another one, \
             or to a child that it forked: end it, or give each client a journal_dir of its own",
            path.display()
        ),
    )
}

fn failed(path: &Path, what: &str, error: io::Error) -> JournalError {
    JournalError::io(&path.display().to_string(), what, error)
}

impl Directory for Disk {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        // A name that is not UTF-8 is none of ours.
        Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        self.writable()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(DiskFile(options.open(self.path.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        Ok(Box::new(DiskFile(options.open(self.path.join(name))?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.writable()?;
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.writable()?;
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[derive(Debug)]
struct DiskFile(File);

impl Stored for DiskFile {
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read_at(into, position) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn will_read(&self, position: u64, len: u64) {
        // Advice only: whether it is taken changes nothing but the speed.
        let _ = fadvise(&self.0, position, NonZeroU64::new(len), Advice::WillNeed);
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
