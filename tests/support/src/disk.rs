//! A file system of its own, so small that it can be full, or read-only.
//!
//! Linux and root only. It is unmounted with this value.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::owner::{run, tool};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A tmpfs of its own.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    mount: PathBuf,
    umount: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many bytes.
    ///
    /// # Errors
    /// When this process is not root, or may not mount.
    pub fn create(bytes: usize) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Unsupported("mounting needs root".to_owned()));
        }
        let missing = |tool| Error::MissingTool { tool, package: "mount" };
        let mount = tool("mount").ok_or_else(|| missing("mount"))?;
        let umount = tool("umount").ok_or_else(|| missing("umount"))?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("segue-disk-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(Error::io(format!("making {}", path.display())))?;
        let options = format!("size={bytes},mode=0700");
        let mut command = Command::new(&mount);
        command.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path);
        if let Err(error) = run("mounting a small disk", &mut command) {
            let _ = fs::remove_dir(&path);
            return Err(Error::Unsupported(format!("this process may not mount: {error}")));
        }
        Ok(Self { path, mount, umount })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Takes up all of its room.
    ///
    /// # Errors
    /// When something other than the lack of room stops that.
    pub fn fill(&self) -> Result<()> {
        let failed = || Error::io("filling a small disk".to_owned());
        let mut file = File::create(self.ballast()).map_err(failed())?;
        let page = [0x5e; 4096];
        loop {
            match file.write_all(&page) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(failed()(error)),
            }
        }
    }

    /// Gives back what [`fill`](Self::fill) has taken.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.ballast()).map_err(Error::io("freeing a small disk".to_owned()))
    }

    /// Has it refuse every write, or take them again. No file in it may be open for writing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        let mut command = Command::new(&self.mount);
        command.args(["-o", options]).arg(&self.path);
        run("remounting a small disk", &mut command).map(drop)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Files that are still open go with whoever has them.
        let _ = Command::new(&self.umount).arg("-l").arg(&self.path).output();
        let _ = fs::remove_dir(&self.path);
    }
}
