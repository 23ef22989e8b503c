//! Bits that flip, files that go, and somebody who changes things on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::faulty::{Faulty, View};
use super::script::{Accounts, Script, key, options, records, recover};
use crate::journal::options::Options;
use crate::journal::segment::{name_of, number_of};
use crate::journal::{Journal, Key, Reason, Recovered, SyncPolicy, What, read};

type Files = BTreeMap<String, Vec<u8>>;

/// A small journal of several files, at rest.
fn small(key: Option<Key>) -> (Files, Accounts) {
    lived(options(SyncPolicy::Batch, key), 24)
}

/// A smaller one, of which every bit can be tried.
fn tiny(key: Option<Key>) -> (Files, Accounts) {
    let mut options = options(SyncPolicy::Batch, key);
    options.geometry = Some((8192 + 700, 64));
    lived(options, 5)
}

fn lived(options: Options, steps: usize) -> (Files, Accounts) {
    let dir = Faulty::default();
    let (mut script, _) = Script::start(dir.clone(), options, 4).unwrap();
    for _ in 0..steps {
        script.step();
    }
    // The end that was handed in last is acknowledged as well.
    script.transaction();
    let files = dir.after(View::Disk);
    assert!(files.len() >= 2, "{}", files.len());
    (files, script.accounts)
}

/// What is handed out must have been written; what is missing must have been told.
fn nothing_invented(recovered: &Recovered, accounts: &Accounts) {
    let report = recovered.report();
    let told = !report.findings.is_empty();
    for found in recovered.in_flight() {
        let account = accounts.get(&found.owner).expect("an owner was invented");
        let records = records(recovered, found);
        let mut written = account.records.iter();
        for record in &records {
            if record == "Doubted" {
                continue;
            }
            assert!(written.any(|one| one == record), "{record} was invented or is out of order");
        }
        if records.len() < account.acknowledged {
            assert!(told, "{} has lost records in silence", found.owner);
            let torn = report.findings.iter().any(|f| matches!(f.what, What::TornTail { .. }));
            assert!(found.doubtful || torn, "{found:?}");
        }
        assert!(!account.end_acknowledged || told, "{} has come back in silence", found.owner);
    }
    for (owner, account) in accounts {
        let alive = account.acknowledged > 0 && !account.ended;
        assert!(!alive || told || recovered.get(*owner).is_some(), "{owner} is gone in silence");
    }
}

fn flip_bits(key: Option<Key>, step: usize) {
    let (files, accounts) = tiny(key.clone());
    nothing_invented(&recover(&files, key.as_ref()), &accounts);
    let mut told = 0;
    let mut flips = 0;
    for (index, (name, content)) in files.iter().enumerate() {
        // Between the copies of the header there is nothing, and one file's header is like another's.
        let is_used = |byte: usize| {
            byte >= 8192 || index == 0 && (byte < 256 || (4096..4352).contains(&byte))
        };
        let used = (0..content.len() * 8).filter(|bit| is_used(bit / 8)).step_by(step);
        for bit in used {
            let mut files = files.clone();
            files.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let recovered = recover(&files, key.as_ref());
            nothing_invented(&recovered, &accounts);
            flips += 1;
            let found = recovered.report().findings.iter().any(|finding| finding.file == *name);
            told += usize::from(found);
            // Only in the zeros ahead of the records to come may it go unnoticed, and even there it
            // does not, for they are zeros no more.
            assert!(found, "{name}, bit {bit} of {}", content.len() * 8);
        }
    }
    assert!(told == flips && flips > 1000, "{told} of {flips}");
}

#[test]
fn every_flipped_bit_is_told() {
    flip_bits(None, 1);
}

#[test]
fn every_flipped_bit_is_told_of_an_encrypted_journal() {
    flip_bits(Some(key()), 3);
}

/// Damage in the middle is told with file, place and length, and what follows is still there.
#[test]
fn damage_in_the_middle_does_not_hide_what_follows() {
    let (files, accounts) = small(None);
    let first = files.keys().next().unwrap().clone();
    let whole = recover(&files, None).report().records;
    let mut files = files;
    // The first record behind the checkpoint (40 + 32 bytes), in its body.
    files.get_mut(&first).unwrap()[8192 + 72 + 45] ^= 4;
    let recovered = recover(&files, None);
    let finding = &recovered.report().findings[0];
    assert_eq!((finding.file.as_str(), finding.position), (first.as_str(), 8192 + 72));
    assert!(matches!(finding.what, What::Damaged { owner: Some(1) }), "{finding:?}");
    assert!(finding.to_string().contains(&first) && recovered.report().is_damaged());
    assert_eq!(recovered.report().records, whole - 1);
    nothing_invented(&recovered, &accounts);
}

#[test]
fn a_file_that_is_gone_is_missed() {
    let (files, accounts) = small(None);
    assert!(files.len() >= 3);
    let names: Vec<String> = files.keys().cloned().collect();
    for name in &names[1..names.len() - 1] {
        let mut files = files.clone();
        files.remove(name);
        let recovered = recover(&files, None);
        let missing = recovered.report().findings.iter().any(|f| f.what == What::Missing);
        assert!(missing, "{name}");
        nothing_invented(&recovered, &accounts);
        // Whoever was in flight there may lack something.
        assert!(recovered.in_flight().any(|found| found.doubtful));
    }
}

/// Doubt must not vanish with the damaged file, when its room is used again.
#[test]
fn doubt_outlives_the_damaged_file() {
    let (mut files, _) = small(None);
    let first = files.keys().next().unwrap().clone();
    let content = files.get_mut(&first).unwrap();
    let middle = 8192 + (content.len() - 8192) / 2;
    content[middle..middle + 80].fill(0xff);
    let dir = Faulty::of(&files);
    let (mut script, recovered) =
        Script::start(dir.clone(), options(SyncPolicy::Batch, None), 6).unwrap();
    let doubtful: Vec<u64> =
        recovered.in_flight().filter(|found| found.doubtful).map(|found| found.owner).collect();
    assert!(!doubtful.is_empty() && recovered.report().is_damaged());
    drop(recovered);
    let mut steps = 0;
    while dir.after(View::Disk).contains_key(&first) {
        script.step();
        steps += 1;
        assert!(steps < 2000, "its room is never used again");
    }
    let files = dir.after(View::Disk);
    assert!(
        files.contains_key(&format!("{first}.damaged")),
        "it is kept for whoever wants to look"
    );
    let recovered = recover(&files, None);
    assert!(!recovered.report().is_damaged(), "{:?}", recovered.report());
    for owner in doubtful {
        assert!(recovered.get(owner).is_some_and(|found| found.doubtful), "{owner}");
    }
}

#[test]
fn a_wrong_key_is_told_from_a_damaged_file() {
    let (files, _) = small(Some(key()));
    let dir = Arc::new(Faulty::of(&files));
    let reason = |key: Option<&Key>| read(dir.clone(), key).map(|_| ()).unwrap_err().reason();
    assert_eq!(reason(Some(&Key::new([8; 32]))), Reason::WrongKey);
    assert_eq!(reason(None), Reason::KeyNeeded);
    let (plain, _) = small(None);
    let error = read(Arc::new(Faulty::of(&plain)), Some(&key())).map(|_| ()).unwrap_err();
    assert_eq!(error.reason(), Reason::NotEncrypted);
    let opened = Journal::open(dir.clone(), options(SyncPolicy::Batch, Some(Key::new([8; 32]))));
    assert_eq!(opened.map(|_| ()).unwrap_err().reason(), Reason::WrongKey);
    assert_eq!(dir.trace_len(), 0, "nothing was touched");
}

#[test]
fn an_encrypted_journal_shows_no_statement() {
    let shows = |files: &Files| {
        let needles: [&[u8]; 2] = [b"UPDATE t", b"INSERT INTO"];
        files.values().any(|content| {
            needles.iter().any(|needle| content.windows(needle.len()).any(|w| w == *needle))
        })
    };
    assert!(shows(&small(None).0));
    assert!(!shows(&small(Some(key())).0));
}

/// A record whose ciphertext was changed, with its checksums made to fit, is not handed out.
#[test]
fn a_forged_record_is_told() {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
    let (mut files, accounts) = small(Some(key()));
    let content = files.values_mut().next().unwrap();
    let seed = xxh3_64(&content[16..32]);
    // The checkpoint: 32 bytes and a tag.
    let at = 8192 + 40 + 48;
    let len = usize::try_from(u32::from_le_bytes(content[at..at + 4].try_into().unwrap())).unwrap();
    content[at + 40] ^= 1;
    let seed = seed.wrapping_add(at as u64);
    let body = xxh3_64_with_seed(&content[at + 40..at + 40 + len.next_multiple_of(8)], seed);
    content[at + 24..at + 32].copy_from_slice(&body.to_le_bytes());
    let head = xxh3_64_with_seed(&content[at..at + 32], seed);
    content[at + 32..at + 40].copy_from_slice(&head.to_le_bytes());
    let recovered = recover(&files, Some(&key()));
    let findings = &recovered.report().findings;
    assert!(matches!(findings[0].what, What::Forged { owner: 1 }), "{findings:?}");
    nothing_invented(&recovered, &accounts);
}

/// A file of another journal, or under another's name, is never read as this one's.
#[test]
fn a_foreign_file_is_passed_over() {
    let (mut files, accounts) = small(None);
    let last = number_of(files.keys().next_back().unwrap()).unwrap();
    let content = files.values().next().unwrap().clone();
    files.insert(name_of(last + 1), content);
    let recovered = recover(&files, None);
    let foreign = |r: &Recovered| r.report().findings.iter().any(|f| f.what == What::Foreign);
    assert!(foreign(&recovered));
    nothing_invented(&recovered, &accounts);
    let (other, _) = small(None);
    let content = other.values().next().unwrap().clone();
    let number = number_of(other.keys().next().unwrap()).unwrap();
    let (mut mine, accounts) = small(None);
    mine.retain(|name, _| *name != name_of(number));
    let oldest = mine.len();
    mine.insert(name_of(number), content);
    assert_eq!(mine.len(), oldest + 1);
    let recovered = recover(&mine, None);
    assert!(foreign(&recovered));
    assert!(recovered.in_flight().all(|found| accounts.contains_key(&found.owner)));
}
