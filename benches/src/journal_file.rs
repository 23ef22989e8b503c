//! The journal on disk: durable commits of many threads against the raw device, and the rate of
//! recovery against reading the same files. No server takes part.
//!
//! The raw device is measured in the same run, in turns: one thread that writes the same bytes and calls
//! fdatasync. Many threads share a sync, so that they may together be faster than it.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use segue::journal::{
    Disk, Form, Journal, Key, Options, Owner, Record, Seal, Statement, SyncPolicy,
    TransactionBegan, read,
};

use crate::measure::Spread;
use crate::report::{Report, Target};
use crate::{Context, Failure};

const THREADS: u64 = 16;
const LAP: Duration = Duration::from_millis(700);
/// Of the request of one statement.
const REQUEST: [u8; 200] = [7; 200];
const RECOVERED_BYTES: u64 = 1 << 30;

pub fn run(context: &Context, dir: &Path, report: &mut Report) -> Result<(), Failure> {
    let dir = dir.join("journal-file");
    std::fs::create_dir_all(&dir)?;
    commits(context, &dir, report)?;
    recovery(context, &dir, report)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn options(sync: SyncPolicy, bytes_max: u64, key: bool) -> Options {
    let mut options = Options::new(sync, bytes_max, uuid::Uuid::nil());
    options.key = key.then(|| Key::new([1; 32]));
    options
}

/// One transaction of a single statement, as a session would hand it in just before its commit.
fn transaction(journal: &Journal) -> Result<Owner, Failure> {
    let mut owner = journal.begin();
    let began = TransactionBegan {
        session: 1,
        began_unix_ms: 1,
        autocommit: false,
        read_only: false,
        begin: "",
    };
    owner.append(journal, &Record::TransactionBegan(began))?;
    let statement = Statement {
        form: Form::Extended,
        sql: "UPDATE accounts SET balance = balance + $1 WHERE id = $2",
        param_oids: (&[20, 23][..]).into(),
        request: &REQUEST,
    };
    owner.append(journal, &Record::Statement(statement))?;
    let seal = Seal { row: uuid::Uuid::nil(), number: 1, guarded: false };
    owner.append(journal, &Record::CommitSent(seal))?;
    owner.commit(journal, None)?;
    Ok(owner)
}

fn commits(context: &Context, dir: &Path, report: &mut Report) -> Result<(), Failure> {
    let policies = [
        ("sync=batch, 16 threads", SyncPolicy::Batch, THREADS, false),
        ("sync=batch, 16 threads, encrypted", SyncPolicy::Batch, THREADS, true),
        ("sync=batch, 1 thread", SyncPolicy::Batch, 1, false),
        ("sync=none, 1 thread", SyncPolicy::None, 1, false),
        ("sync=none, 1 thread, encrypted", SyncPolicy::None, 1, true),
    ];
    let mut raw = Vec::new();
    let mut rates = vec![Vec::new(); policies.len()];
    let mut shared = Vec::new();
    for _ in 0..context.rounds(5) {
        let device = raw_rate(dir)?;
        raw.push(device);
        for (rates, (_, sync, threads, key)) in rates.iter_mut().zip(policies) {
            let (rate, counts) = rate(dir, options(sync, 64 << 20, key), threads)?;
            rates.push(if sync == SyncPolicy::None { 1e9 / rate } else { rate / device });
            if threads > 1 && !key {
                shared.push(rate / counts);
            }
        }
    }
    let value = |report: &mut Report, what: &str, spread, unit, target| {
        report.value("journal_file", what.to_owned(), spread, unit, target);
    };
    value(
        report,
        "raw device: write of a transaction and fdatasync",
        Spread::of(raw),
        "/s",
        Target::None,
    );
    for (rates, (what, sync, threads, _)) in rates.into_iter().zip(policies) {
        let target = if threads > 1 { Target::AtLeast(1.0) } else { Target::None };
        let unit = if sync == SyncPolicy::None { "ns each" } else { "x raw" };
        value(report, &format!("commits, {what}"), Spread::of(rates), unit, target);
    }
    value(report, "commits that shared a sync, 16 threads", Spread::of(shared), "", Target::None);
    Ok(())
}

/// So many times a second one thread gets what a transaction takes up onto the disk, by overwriting, as
/// the journal does.
fn raw_rate(dir: &Path) -> Result<f64, Failure> {
    const BYTES: usize = 480;
    let path = dir.join("raw");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).open(&path)?;
    file.write_all_at(&vec![0; 16 << 20], 0)?;
    file.sync_all()?;
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < LAP {
        let position = u64::from(count) * BYTES as u64 % (15 << 20);
        file.write_all_at(&[9; BYTES], position)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Commits a second of so many threads, and batches a second.
fn rate(dir: &Path, options: Options, threads: u64) -> Result<(f64, f64), Failure> {
    let path = fresh(dir)?;
    let (journal, recovered) = Journal::open(Arc::new(Disk::open(&path)?), options)?;
    drop(recovered);
    let count = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    while start.elapsed() < LAP {
                        match transaction(&journal).and_then(|owner| Ok(owner.end(&journal)?)) {
                            Ok(()) => count.fetch_add(1, Ordering::Relaxed),
                            Err(failure) => return Err(failure.to_string()),
                        };
                    }
                    Ok(())
                })
            })
            .collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done.map_err(Failure::from),
            Err(_) => Err("a thread has panicked".into()),
        })
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let batches = journal.counts().batches as f64 / seconds;
    journal.close()?;
    std::fs::remove_dir_all(path)?;
    Ok((count.into_inner() as f64 / seconds, batches))
}

fn recovery(context: &Context, dir: &Path, report: &mut Report) -> Result<(), Failure> {
    for key in [false, true] {
        let path = fresh(dir)?;
        let options = options(SyncPolicy::None, 2 * RECOVERED_BYTES, key);
        let opened_with = options.key.clone();
        let (journal, recovered) = Journal::open(Arc::new(Disk::open(&path)?), options)?;
        drop(recovered);
        while journal.disk_bytes() < RECOVERED_BYTES {
            // A journal of many small transactions and some large ones, nearly all of them ended.
            for _ in 0..1000 {
                transaction(&journal)?.end(&journal)?;
            }
            transaction(&journal)?;
        }
        journal.close()?;
        drop(journal);
        let mut ratios = Vec::new();
        let mut rates = Vec::new();
        for _ in 0..context.rounds(3) {
            let sequential = read_sequentially(&path)?;
            forget(&path)?;
            let start = Instant::now();
            let recovered = read(Arc::new(Disk::look(&path)?), opened_with.as_ref())?;
            let rate = recovered.report().bytes as f64 / start.elapsed().as_secs_f64();
            if !recovered.report().findings.is_empty() {
                return Err("the journal was damaged".into());
            }
            ratios.push(rate / sequential);
            rates.push(rate / f64::from(1 << 20));
        }
        let what = if key { "encrypted" } else { "in the clear" };
        let target = Target::AtLeast(0.5);
        let label = format!("recovery of 1 GiB, {what}, to reading its files");
        report.value("journal_file", label, Spread::of(ratios), "x", target);
        let label = format!("recovery of 1 GiB, {what}");
        report.value("journal_file", label, Spread::of(rates), "MiB/s", Target::None);
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

/// Bytes a second of reading all files once, from the disk.
fn read_sequentially(path: &Path) -> Result<f64, Failure> {
    forget(path)?;
    let mut buffer = vec![0; 1 << 20];
    let (start, mut bytes) = (Instant::now(), 0_u64);
    for entry in std::fs::read_dir(path)? {
        let mut file = File::open(entry?.path())?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                len => bytes += len as u64,
            }
        }
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// Has the kernel forget what it holds of the files.
fn forget(path: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(path)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

fn fresh(dir: &Path) -> Result<std::path::PathBuf, Failure> {
    let path = dir.join("journal");
    if path.exists() {
        std::fs::remove_dir_all(&path)?;
    }
    std::fs::create_dir(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    Ok(path)
}
