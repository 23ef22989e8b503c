//! The directory of one cluster: made where the servers' user can reach it, removed with the
//! cluster; what dead runs have left behind is removed at the next start.
//!
//! Its name carries the process that made it (id and start time), so that a directory is only ever
//! taken for a leftover when that very process is gone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::processes;

const PREFIX: &str = "segue-pg-";
pub(crate) const TEMPLATE_PREFIX: &str = "segue-template-";
/// What a Unix socket's path may measure, without its closing zero.
const SOCKET_PATH_MAX: usize = 107;
const TEMPLATE_AGE_MAX: Duration = Duration::from_secs(2 * 24 * 3600);

/// A directory that goes away when this value does.
#[derive(Debug)]
pub(crate) struct Workdir {
    path: PathBuf,
}

impl Workdir {
    pub(crate) fn create(owner: &Owner) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        let base = base(owner)?;
        SWEEP.call_once(|| sweep(&base));
        let pid = std::process::id();
        let started = processes::start_time(pid).unwrap_or_default();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{PREFIX}{pid}-{started}-{number}"));
        owner.create_dir(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        // A process that is just dying may still write into it, hence the second try.
        if fs::remove_dir_all(&self.path).is_err() {
            end_all_below(&self.path);
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// TMPDIR, or /tmp where the servers' user cannot reach that or socket paths would grow too long.
pub(crate) fn base(owner: &Owner) -> Result<PathBuf> {
    let longest = format!("/{PREFIX}4194304-18446744073709551615-999/s99/.s.PGSQL.65535");
    let candidates = [std::env::temp_dir(), PathBuf::from("/tmp")];
    candidates
        .iter()
        .filter_map(|dir| dir.canonicalize().ok())
        .find(|dir| {
            dir.as_os_str().len() + longest.len() <= SOCKET_PATH_MAX && reachable(dir, owner)
        })
        .ok_or_else(|| {
            Error::Unsupported(
                "no temporary directory that the servers' user can reach: neither TMPDIR nor /tmp"
                    .to_owned(),
            )
        })
}

fn reachable(dir: &Path, owner: &Owner) -> bool {
    dir.ancestors().all(|ancestor| {
        fs::metadata(ancestor).is_ok_and(|meta| {
            let bit = if meta.uid() == owner.uid { 0o100 } else { 0o001 };
            meta.mode() & bit != 0
        })
    })
}

/// Removes directories of processes that are gone, and templates of days past.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // Not following links: what carries our name may be somebody else's trap.
        let Ok(meta) = entry.path().symlink_metadata() else {
            continue;
        };
        if !meta.is_dir() {
            continue;
        }
        let stale = match name.strip_prefix(PREFIX) {
            Some(rest) => maker_is_gone(rest),
            None => name.starts_with(TEMPLATE_PREFIX) && is_old(&meta),
        };
        if stale {
            end_all_below(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// `rest` is PID-START-NUMBER.
fn maker_is_gone(rest: &str) -> bool {
    let mut parts = rest.split('-').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started))) = (parts.next(), parts.next()) else {
        return false;
    };
    u32::try_from(pid).is_ok_and(|pid| processes::start_time(pid) != Some(started))
}

fn is_old(meta: &fs::Metadata) -> bool {
    let age = meta.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age > TEMPLATE_AGE_MAX)
}

/// Ends the servers of a cluster directory and frees their shared memory.
fn end_all_below(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let data = entry.path().join("data");
        if data.is_dir() {
            end_processes(&data);
        }
    }
}

/// Kills whatever stands in a data directory, and frees the shared memory that a killed
/// postmaster leaves behind (its id is in line 7 of postmaster.pid).
pub(crate) fn end_processes(data: &Path) {
    let _ = processes::signal_all(data, None, Signal::KILL);
    processes::wait_until_gone(data, Duration::from_secs(5));
    let Ok(pid_file) = fs::read_to_string(data.join("postmaster.pid")) else {
        return;
    };
    let segment = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
    if let Some(id) = segment.filter(|id| id.chars().all(|c| c.is_ascii_digit())) {
        let _ = std::process::Command::new("ipcrm").args(["-m", id]).output();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_directories_of_dead_processes_are_leftovers() {
        let pid = std::process::id();
        let started = processes::start_time(pid).unwrap();
        assert!(!maker_is_gone(&format!("{pid}-{started}-0")));
        assert!(maker_is_gone(&format!("{pid}-{}-0", started + 1)), "the id was handed out again");
        assert!(!maker_is_gone("not-ours"));
    }
}
