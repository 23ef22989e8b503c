//! The password file: `host:port:database:user:password`, one line for each, first match wins.
//!
//! As libpq does, a file that others can read is not used at all. Its content goes nowhere but into
//! a [`Secret`].

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::{Secret, Warnings};

pub(super) struct PassFile(Zeroizing<String>);

impl PassFile {
    /// Reads the file. What keeps it from being used becomes a warning, except that a default
    /// file (`asked_for` is false) may be missing.
    pub(super) fn load(path: &Path, asked_for: bool, warnings: &mut Warnings) -> Option<Self> {
        let mut warn = |why: &str| {
            warnings.push(format!("the password file {} was not used: {why}", path.display()));
        };
        // Looked at before it is opened: opening a named pipe would wait for its writer.
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => {
                warn("it is not a plain file");
                return None;
            }
            Err(error) => {
                if asked_for || error.kind() != std::io::ErrorKind::NotFound {
                    warn(&error.to_string());
                }
                return None;
            }
        }
        let mut content = Zeroizing::new(Vec::new());
        let mut read = || {
            let mut file = File::open(path)?;
            let open_to_others = is_open_to_others(&file.metadata()?);
            if !open_to_others {
                file.read_to_end(&mut content)?;
            }
            std::io::Result::Ok(open_to_others)
        };
        match read() {
            Ok(true) => {
                warn(
                    "its group or others have access to it; its permissions must be u=rw (0600) or \
                     less",
                );
                return None;
            }
            Ok(false) => {}
            Err(error) => {
                warn(&error.to_string());
                return None;
            }
        }
        match std::str::from_utf8(&content) {
            Ok(text) => Some(Self(Zeroizing::new(text.to_owned()))),
            Err(_) => {
                warn("it is not UTF-8");
                None
            }
        }
    }

    /// The password of the first line that matches.
    pub(super) fn lookup(
        &self,
        host: &str,
        port: u16,
        database: &str,
        user: &str,
    ) -> Option<Secret> {
        let port = port.to_string();
        self.0
            .lines()
            .filter(|line| !line.starts_with('#'))
            .find_map(|line| {
                let line = line.strip_suffix('\r').unwrap_or(line);
                let rest = matching(line, host)?;
                let rest = matching(rest, &port)?;
                let rest = matching(rest, database)?;
                Some(unescape(matching(rest, user)?))
            })
            .filter(|password| !password.is_empty())
            .map(|password| Secret::new(password.as_str()))
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

#[cfg(unix)]
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &fs::Metadata) -> bool {
    false
}

/// What follows the first field, if it is `*` or, its escapes resolved, equals `wanted`.
fn matching<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = wanted.chars();
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        let c = match c {
            ':' => return wanted.next().is_none().then(|| &line[at + 1..]),
            '\\' => chars.next().map_or('\\', |(_, escaped)| escaped),
            c => c,
        };
        if wanted.next() != Some(c) {
            return None;
        }
    }
    None
}

/// The last field, its escapes resolved; like libpq's, it ends at a bare colon.
fn unescape(field: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(field.len()));
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => break,
            '\\' => text.push(chars.next().unwrap_or('\\')),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(file: &str, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        PassFile::of(file)
            .lookup(host, port, database, user)
            .map(|password| password.reveal().to_owned())
    }

    #[test]
    fn the_first_matching_line_wins() {
        let file =
            "# h:5432:db:u:comment\n\nshort:line\nh:5432:db:u:one\r\nh:*:*:u:two\n*:*:*:*:any";
        assert_eq!(lookup(file, "h", 5432, "db", "u").as_deref(), Some("one"));
        assert_eq!(lookup(file, "h", 5433, "db", "u").as_deref(), Some("two"));
        assert_eq!(lookup(file, "x", 1, "y", "z").as_deref(), Some("any"));
        assert_eq!(lookup("h:5432:db:u:one", "h", 5432, "db", "U"), None);
        assert_eq!(lookup("h:5432:db:u:one", "hh", 5432, "db", "u"), None);
        assert_eq!(lookup("hh:5432:db:u:one", "h", 5432, "db", "u"), None);
    }

    #[test]
    fn colons_and_backslashes_are_escaped() {
        let file = r"\:\:1:*:a\\b:u\:v:p\:q\\r\s:ignored";
        assert_eq!(lookup(file, "::1", 1, r"a\b", "u:v").as_deref(), Some(r"p:q\rs"));
    }
}
