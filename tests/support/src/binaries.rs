//! Finds PostgreSQL's programs. Never installs anything.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

const OLDEST: u32 = 14;

/// The directory with `postgres`, `initdb` and their like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// Looks in `SEGUE_PG_BIN`, then where `pg_config` points, then in Debian's directories, the
    /// newest first. `SEGUE_PG_BIN` alone counts where it is set.
    ///
    /// # Errors
    /// [`Error::NoPostgres`] when there is none of version 14 or later.
    pub fn find() -> Result<Self> {
        if let Some(dir) = std::env::var_os("SEGUE_PG_BIN") {
            let dir = PathBuf::from(dir);
            let searched = format!("SEGUE_PG_BIN={}", dir.display());
            return Self::probe(dir).ok_or(Error::NoPostgres { searched });
        }
        let mut candidates = Vec::new();
        if let Some(dir) = first_line(Command::new("pg_config").arg("--bindir")) {
            candidates.push(PathBuf::from(dir));
        }
        candidates.extend(debian_dirs());
        let searched: Vec<_> = candidates.iter().map(|dir| dir.display().to_string()).collect();
        candidates.into_iter().find_map(Self::probe).ok_or_else(|| Error::NoPostgres {
            searched: match searched.is_empty() {
                true => "pg_config, /usr/lib/postgresql".to_owned(),
                false => searched.join(", "),
            },
        })
    }

    /// The bin directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The major version, such as 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// What `postgres --version` says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The path of one program.
    #[must_use]
    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }

    fn probe(dir: PathBuf) -> Option<Self> {
        // pg_config of a client-only installation points to a directory without a server.
        if !dir.join("initdb").exists() {
            return None;
        }
        let version = first_line(Command::new(dir.join("postgres")).arg("--version"))?;
        let major = major_of(&version)?;
        (major >= OLDEST).then_some(Self { dir, version, major })
    }
}

fn debian_dirs() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, OsString)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            Some((name.to_str()?.parse().ok()?, name))
        })
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions
        .into_iter()
        .map(|(_, name)| Path::new("/usr/lib/postgresql").join(name).join("bin"))
        .collect()
}

/// Reads 15 out of "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)" and of "... 18beta1".
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read_from_released_and_beta_servers() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_no_candidate() {
        assert_eq!(Binaries::probe(PathBuf::from("/nonexistent")), None);
    }
}
