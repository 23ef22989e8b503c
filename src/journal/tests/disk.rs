//! The real directory: locks between processes, permissions, and many sessions that share a sync.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::script_session;
use crate::journal::{
    Disk, FoundKind, Journal, Key, Options, Reason, Record, Submission, SyncPolicy,
    TransactionBegan, read,
};

const CHILD: &str = "SEGUE_TEST_JOURNAL_DIR";

fn options(sync: SyncPolicy, bytes_max: u64) -> Options {
    Options::new(sync, bytes_max, Uuid::from_u128(1))
}

fn open(path: &Path, options: Options) -> Journal {
    Journal::open(Arc::new(Disk::open(path).unwrap()), options).unwrap().0
}

/// Not a test by itself: what the next one runs in another process.
#[test]
fn child_owns_a_journal() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let journal = open(Path::new(&path), options(SyncPolicy::Batch, 1 << 20));
    let mut owner = journal.begin();
    owner.append(&journal, &script_session()).unwrap();
    owner.commit(&journal, None).unwrap();
    println!("\nowned");
    // Until the parent kills it, or has died itself.
    let mut line = String::new();
    let _ = std::io::stdin().read_line(&mut line);
}

#[test]
fn a_second_process_is_refused_until_the_first_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::tests::disk::child_owns_a_journal", "--nocapture"])
        .env(CHILD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "owned"), "the child did not get the journal");
    let error = Disk::open(&path).unwrap_err();
    assert_eq!(error.reason(), Reason::Locked);
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(message.contains(&format!("process {}", child.id())), "{message}");
    // Looking at it is allowed all the while.
    let looked = read(Arc::new(Disk::look(&path).unwrap()), None).unwrap();
    assert_eq!(looked.in_flight().count(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    let disk = Disk::open(&path).unwrap();
    let (_, recovered) =
        Journal::open(Arc::new(disk), options(SyncPolicy::Batch, 1 << 20)).unwrap();
    let found: Vec<_> = recovered.in_flight().collect();
    assert!(matches!(found[0].what, FoundKind::Session { number: 3, .. }), "{found:?}");
    assert_eq!(Disk::open(&path).unwrap_err().reason(), Reason::Locked, "nor twice in one process");
}

#[test]
fn files_are_its_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = open(&path, options(SyncPolicy::Always, 1 << 20));
    journal.begin().append(&journal, &script_session()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "a segment and the lock");
    assert!(files.iter().all(|file| mode(file) == 0o600));
    drop(journal);
    for wide in [0o750, 0o705, 0o701] {
        fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
        let error = Disk::open(&path).unwrap_err();
        assert_eq!(error.reason(), Reason::Permissions);
        assert!(error.to_string().contains("chmod 0700"), "{error}");
        assert_eq!(Disk::look(&path).unwrap_err().reason(), Reason::Permissions);
    }
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    Disk::open(&path).unwrap();
}

#[test]
fn other_places_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(Disk::open(&file).unwrap_err().reason(), Reason::Permissions);
    assert_eq!(Disk::open(&dir.path().join("no/parent")).unwrap_err().reason(), Reason::Io);
    if rustix::process::geteuid().is_root() {
        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(&theirs, Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65_534), None).unwrap();
        let error = Disk::open(&theirs).unwrap_err();
        assert!(error.to_string().contains("belongs to user 65534"), "{error}");
    }
}

/// Many threads commit; each finds its own when the journal is read again, and syncs are shared.
#[test]
fn many_sessions_share_a_sync() {
    const THREADS: u64 = 16;
    const EACH: u64 = 60;
    for key in [None, Some(Key::new([3; 32]))] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut options = options(SyncPolicy::Batch, 4 << 20);
        options.key = key.clone();
        let journal = open(&path, options);
        let start = Barrier::new(16);
        let kept: Vec<u64> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (journal, start) = (&journal, &start);
                    scope.spawn(move || {
                        start.wait();
                        let mut kept = Vec::new();
                        for round in 0..EACH {
                            let mut owner = journal.begin();
                            let began = TransactionBegan {
                                session: thread,
                                began_unix_ms: round,
                                autocommit: true,
                                read_only: false,
                                begin: "",
                            };
                            owner.append(journal, &Record::TransactionBegan(began)).unwrap();
                            owner.commit(journal, None).unwrap();
                            if round % 2 == 0 {
                                owner.end(journal).unwrap();
                            } else {
                                kept.push(owner.number());
                            }
                        }
                        kept
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let counts = journal.counts();
        assert_eq!(counts.records, THREADS * EACH * 3 / 2);
        assert!(counts.batches < THREADS * EACH, "no batch was shared: {counts:?}");
        journal.close().unwrap();
        let closed = journal.begin().append(&journal, &script_session()).unwrap_err();
        assert_eq!(closed.reason(), Reason::Closed);
        let recovered = read(Arc::new(Disk::look(&path).unwrap()), key.as_ref()).unwrap();
        let found: Vec<u64> = recovered.in_flight().map(|found| found.owner).collect();
        let mut kept = kept;
        kept.sort_unstable();
        assert_eq!(found, kept);
        assert!(recovered.report().findings.is_empty(), "{:?}", recovered.report());
    }
}

/// Whoever only waits is not kept waiting by one who has left.
#[test]
fn a_deadline_bounds_the_wait_for_another_thread() {
    use super::faulty::{Faulty, Plan};
    let dir = Faulty::with(Plan { stall_syncs: true, ..Plan::default() });
    let (journal, _) =
        Journal::open(Arc::new(dir.clone()), options(SyncPolicy::Batch, 1 << 20)).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            let mut owner = journal.begin();
            owner.append(&journal, &script_session()).unwrap();
            owner.commit(&journal, None).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        let limit = Instant::now() + Duration::from_secs(20);
        while !dir.is_stalled() {
            assert!(Instant::now() < limit, "nobody syncs");
            thread::yield_now();
        }
        let mut owner = journal.begin();
        owner.append(&journal, &script_session()).unwrap();
        let late = owner.commit(&journal, Some(Instant::now() + Duration::from_millis(20)));
        assert_eq!(late.unwrap_err().reason(), Reason::Timeout);
        assert!(!done.load(Ordering::SeqCst));
        dir.plan(Plan::default());
        leader.join().unwrap();
        owner.commit(&journal, None).unwrap();
    });
}

/// A statement with a large parameter may be larger than a segment is otherwise.
#[test]
fn a_record_may_be_larger_than_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = open(&path, options(SyncPolicy::Batch, 4 << 20));
    let large = vec![7; 1 << 20];
    let mut owner = journal.begin();
    owner.append(&journal, &script_session()).unwrap();
    owner.append(&journal, &Record::StatementData(&large)).unwrap();
    owner.commit(&journal, None).unwrap();
    let mut other = journal.begin();
    other.append(&journal, &script_session()).unwrap();
    other.append(&journal, &Record::StatementData(&vec![8; 4 << 20])).unwrap();
    assert_eq!(other.commit(&journal, None).unwrap_err().reason(), Reason::Full);
    // Room is made by copying the large one forward.
    for _ in 0..20_000 {
        let mut small = journal.begin();
        small.append(&journal, &script_session()).unwrap();
        small.end(&journal).unwrap();
        journal.flush(None).unwrap();
        if journal.counts().copied > 0 {
            break;
        }
    }
    assert!(journal.counts().copied > 0, "{:?}", journal.counts());
    assert!(journal.disk_bytes() <= 4 << 20);
    let recovered = read(Arc::new(Disk::look(&path).unwrap()), None).unwrap();
    let found = recovered.get(owner.number()).unwrap();
    let mut len = 0;
    recovered
        .records(found, |record| {
            if let Record::StatementData(bytes) = record {
                assert!(bytes.iter().all(|byte| *byte == 7));
                len = bytes.len();
            }
        })
        .unwrap();
    assert_eq!((len, recovered.in_flight().count()), (large.len(), 1));
}

/// The first record of what is alive can be read back at any time, also where it was copied forward,
/// while others write, and after the journal was opened again.
#[test]
fn first_records_are_read_wherever_they_stand() {
    for key in [None, Some(Key::new([3; 32]))] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut options = options(SyncPolicy::None, 1 << 20);
        options.geometry = Some((20_000, 256));
        options.bytes_max = 200_000;
        options.key = key;
        let journal = open(&path, options.clone());
        let record = |number: u64| format!("reason {number}");
        let begin = |journal: &Journal| {
            let mut owner = journal.begin();
            let text = record(owner.number());
            let submission = Submission {
                id: Uuid::nil(),
                lane: "",
                key: &text,
                submitted_unix_ms: 1,
                blocks_lane: false,
                statements: Vec::new(),
            };
            owner.append(journal, &Record::Submission(submission)).unwrap();
            owner.commit(journal, None).unwrap();
            owner
        };
        let check = |journal: &Journal, owners: &[u64]| {
            let mut seen = Vec::new();
            let take = |owner: u64, it: &Record<'_>| {
                let Record::Submission(it) = it else { panic!("another record") };
                assert_eq!(it.key, record(owner));
                seen.push(owner);
            };
            journal.first_records(owners, take).unwrap();
            seen.sort_unstable();
            assert_eq!(seen, owners);
        };
        let mut kept = Vec::new();
        for round in 0..8000 {
            let owner = begin(&journal);
            if round % 300 == 0 {
                kept.push(owner.number());
                check(&journal, &kept);
            } else {
                owner.end(&journal).unwrap();
            }
        }
        assert!(journal.counts().copied > 0, "{:?}", journal.counts());
        thread::scope(|scope| {
            scope.spawn(|| (0..2000).for_each(|_| begin(&journal).end(&journal).unwrap()));
            (0..50).for_each(|_| check(&journal, &kept));
        });
        let ended = begin(&journal);
        let number = ended.number();
        ended.end(&journal).unwrap();
        journal.flush(None).unwrap();
        let none = |owner, _: &Record<'_>| panic!("{owner} has ended");
        journal.first_records(&[number], none).unwrap();
        journal.close().unwrap();
        drop(journal);
        let journal = open(&path, options);
        check(&journal, &kept);
    }
}

/// As long as the application still reads what was recovered, its files stay.
#[test]
fn what_was_recovered_can_be_read_for_as_long_as_it_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut long_options = options(SyncPolicy::None, 1 << 20);
    long_options.geometry = Some((20_000, 256));
    long_options.bytes_max = 200_000;
    let journal = open(&path, long_options.clone());
    let mut owner = journal.begin();
    owner.append(&journal, &script_session()).unwrap();
    owner.commit(&journal, None).unwrap();
    drop(journal);
    let disk = Arc::new(Disk::open(&path).unwrap());
    let (journal, recovered) = Journal::open(disk, long_options).unwrap();
    let refused = (0..20_000).find_map(|_| {
        let mut small = journal.begin();
        small.append(&journal, &script_session()).unwrap();
        let kept = small.commit(&journal, None);
        small.end(&journal).ok();
        kept.err()
    });
    assert_eq!(refused.map(|error| error.reason()), Some(Reason::Full), "room that is pinned");
    let found = recovered.in_flight().next().unwrap();
    let mut seen = 0;
    recovered.records(found, |_| seen += 1).unwrap();
    assert_eq!(seen, 1);
    drop(recovered);
    let mut small = journal.begin();
    small.append(&journal, &script_session()).unwrap();
    small.commit(&journal, None).unwrap();
}
