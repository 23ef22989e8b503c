//! The journal's options, and what they demand of each other. The key is shown nowhere.

use std::path::PathBuf;

use super::settings::{Settings, bad};
use super::{Journal, JournalMode, JournalSync, LedgerMode, Secret};
use crate::error::Result;

/// Those that mean nothing without a file.
const OF_FILES: [&str; 5] =
    ["journal_dir", "journal_sync", "journal_key", "journal_key_file", "journal_required"];

pub(super) fn journal(settings: &Settings, ledger: LedgerMode) -> Result<Journal> {
    let path = |name| settings.text(name).map(PathBuf::from);
    let journal = Journal {
        mode: match settings.choice("journal")? {
            Some("file") => JournalMode::File,
            _ => JournalMode::Memory,
        },
        dir: path("journal_dir"),
        sync: match settings.choice("journal_sync")? {
            Some("none") => JournalSync::None,
            Some("always") => JournalSync::Always,
            _ => JournalSync::Batch,
        },
        key: settings.text("journal_key").map(Secret::new),
        key_file: path("journal_key_file"),
        required: settings.flag("journal_required")?,
    };
    if journal.mode == JournalMode::Memory {
        let given = OF_FILES.iter().find(|name| settings.source(name).is_some());
        return match given {
            Some(name) => Err(bad(format!(
                "{} means nothing while the journal is in memory; write journal=file, or leave it out",
                settings.named(name)
            ))),
            None => Ok(journal),
        };
    }
    let file = settings.shown("journal");
    if journal.dir.is_none() {
        return Err(bad(format!(
            "{file} needs a directory of its own; write journal_dir=DIRECTORY"
        )));
    }
    if journal.key.is_some() && journal.key_file.is_some() {
        return Err(bad(format!(
            "{} and {} both give the journal's key; write one of them",
            settings.named("journal_key"),
            settings.named("journal_key_file")
        )));
    }
    if journal.key.as_ref().is_some_and(|key| !is_key(key.reveal())) {
        return Err(bad(format!(
            "{} is no key (it is not shown): write 64 hexadecimal digits, as `openssl rand -hex 32` \
             prints them",
            settings.named("journal_key")
        )));
    }
    if ledger == LedgerMode::Off {
        return Err(bad(format!(
            "{file} needs the ledger, which {} switches off: without it nobody can say after a crash \
             what became of a commit",
            settings.shown("ledger")
        )));
    }
    Ok(journal)
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
