//! The journal's options and what they demand of each other.

use super::{assert_error, env, error, error_in, parse, parse_in};
use crate::config::{JournalMode, JournalSync};

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn the_journal_is_in_memory_unless_asked_otherwise() {
    let journal = parse("").journal;
    assert_eq!((journal.mode, journal.sync), (JournalMode::Memory, JournalSync::Batch));
    assert!(!journal.required && journal.dir.is_none() && journal.key.is_none());
    let text = format!(
        "journal=file journal_dir=/var/j journal_sync=none journal_key={KEY} journal_required=on"
    );
    let journal = parse(&text).journal;
    assert_eq!((journal.mode, journal.sync), (JournalMode::File, JournalSync::None));
    assert_eq!(journal.dir.as_deref(), Some(std::path::Path::new("/var/j")));
    assert_eq!(journal.key.as_ref().map(|key| key.reveal()), Some(KEY));
    assert!(journal.required);
    let journal =
        parse("journal=file journal_dir=j journal_sync=always journal_key_file=k").journal;
    assert_eq!(journal.sync, JournalSync::Always);
    assert_eq!(journal.key_file.as_deref(), Some(std::path::Path::new("k")));
    let env = env()
        .with("SEGUE_JOURNAL", "file")
        .with("SEGUE_JOURNAL_DIR", "/d")
        .with("SEGUE_JOURNAL_SYNC", "none")
        .with("SEGUE_JOURNAL_KEY", KEY)
        .with("SEGUE_JOURNAL_REQUIRED", "on");
    let journal = parse_in("", &env).journal;
    assert!(journal.mode == JournalMode::File && journal.key.is_some() && journal.required);
}

#[test]
fn what_contradicts_itself_is_refused() {
    assert_error("journal=file", &["journal=file", "journal_dir"]);
    for option in
        ["journal_dir=d", "journal_sync=none", "journal_key_file=k", "journal_required=on"]
    {
        let name = option.split('=').next().unwrap();
        assert_error(option, &[name, "journal=file"]);
    }
    let file = "journal=file journal_dir=d";
    assert_error(
        &format!("{file} journal_key={KEY} journal_key_file=k"),
        &["journal_key", "journal_key_file"],
    );
    assert_error(&format!("{file} journal_dir_bytes_max=1000"), &["journal_dir_bytes_max", "1000"]);
    assert_error(&format!("{file} ledger=off"), &["journal=file", "ledger=off"]);
    assert_error("journal=files", &["journal", "did you mean file?"]);
}

#[test]
fn the_key_is_shown_nowhere() {
    let secret = &KEY[..40];
    for text in [
        format!("journal_key={secret}"),
        format!("journal=file journal_dir=d journal_key={secret}"),
        format!("journal=file journal_dir=d journal_key={secret} stray"),
        format!("postgresql://h/?journal=file&journal_dir=d&journal_key={secret}%zz"),
    ] {
        let error = error(&text);
        assert!(!error.contains(secret), "{error}");
    }
    let environment = env().with("SEGUE_JOURNAL_KEY", secret);
    let error = error_in("journal=file journal_dir=d", &environment);
    assert!(!error.contains(secret) && error.contains("SEGUE_JOURNAL_KEY"), "{error}");
    let config = parse(&format!("journal=file journal_dir=d journal_key={KEY}"));
    assert!(!format!("{config:?} {config}").contains(KEY));
}
