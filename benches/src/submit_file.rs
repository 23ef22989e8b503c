//! Submissions kept on disk: how fast they are accepted, against the raw device; how fast a long queue
//! of them is drained, against a client that pipelines the same INSERTs by hand; and in what memory.
//!
//! The queue is filled while the server is down. The peer keeps nothing and claims nothing.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use segue::{Client, Submission};
use segue_testkit::{Cluster, USER};

use crate::measure::Spread;
use crate::peer::pipelined::Pipelined;
use crate::report::{Report, Target};
use crate::sessions::resident_kib;
use crate::{Context, Failure, servers};

const THREADS: u64 = 16;
const SESSIONS: u64 = 2;
const LAP: Duration = Duration::from_millis(700);
const INSERT: &str = "INSERT INTO bench_queue (id, note) VALUES ($1, $2)";
const NOTE: &str = "one piece of article 4711, paid in cash at till 7, receipt printed";
/// What such a submission takes up in the journal, about.
const RECORD_BYTES: usize = 280;

pub fn run(context: &Context, dir: &Path, report: &mut Report) -> Result<(), Failure> {
    let cluster = servers::builder(0).start()?;
    cluster
        .primary()
        .execute(&format!("SET ROLE {USER}; CREATE TABLE bench_queue (id int8, note text)"))?;
    let [mut accepted, mut drained, mut memory_full, mut memory_most] = [const { Vec::new() }; 4];
    let (mut rates, mut ours, mut theirs, mut singles) = (vec![], vec![], vec![], vec![]);
    // A long queue is a measurement of its own.
    let rounds = if context.queued >= 500_000 { 1 } else { context.rounds(3) };
    for _ in 0..rounds {
        let raw = raw_rate(dir, THREADS)?;
        let single = raw_rate(dir, 1)?;
        let lap = lap(&cluster, dir, context.queued)?;
        accepted.push(lap.accepted / (raw * THREADS as f64));
        singles.push(lap.accepted / single);
        rates.push(lap.accepted);
        memory_full.push(lap.full_kib / 1024.0);
        memory_most.push(lap.most_kib / 1024.0);
        let peer = peer(&cluster, context.queued)?;
        drained.push(lap.drained / peer);
        ours.push(lap.drained);
        theirs.push(peer);
    }
    let value = |report: &mut Report, what: &str, values, unit, target| {
        report.value("submit_file", what.to_owned(), Spread::of(values), unit, target);
    };
    value(report, "submit, sync=batch, 16 threads", rates, "/s", Target::None);
    let what = "the same, to fdatasync of 16 at a time, raw";
    value(report, what, accepted, "x", Target::AtLeast(1.0));
    let what = "the same, to fdatasync of one at a time, raw";
    value(report, what, singles, "x", Target::None);
    let each = |rates: Vec<f64>| format!("{:.0}/s", Spread::of(rates).median);
    report.ratio(
        "submit_file",
        format!("{} queued, drained, against pipelining", context.queued),
        (each(ours), each(theirs)),
        Spread::of(drained),
        Target::AtLeast(0.8),
    );
    value(report, "memory that the queue takes up, full", memory_full, "MiB", Target::None);
    value(report, "the same, most while it is drained", memory_most, "MiB", Target::None);
    Ok(())
}

struct Lap {
    /// A second.
    accepted: f64,
    drained: f64,
    /// Resident memory beyond that before.
    full_kib: f64,
    most_kib: f64,
}

fn lap(cluster: &Cluster, dir: &Path, queued: u64) -> Result<Lap, Failure> {
    reset(cluster)?;
    cluster.primary().stop_fast()?;
    let dir = dir.join("submit-file");
    let client = Client::connect(&format!(
        "{} application_name=queue{} journal=file journal_dir={} submit_sessions={SESSIONS} \
         submit_queue_max=1000000000 journal_dir_bytes_max=17179869184",
        cluster.conninfo(),
        std::process::id(),
        dir.display()
    ))?;
    let before = resident_kib()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS)
            .map(|thread| {
                let client = &client;
                scope.spawn(move || {
                    let ids = (0..queued).filter(|id| id % THREADS == thread);
                    for id in ids {
                        let id = i64::try_from(id).unwrap_or_default();
                        let it = Submission::new().statement(INSERT, &[&id, &NOTE]);
                        let done = it.and_then(|it| client.submit(it));
                        done.map_err(|error| error.to_string())?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done.map_err(Failure::from),
            Err(_) => Err("a thread has panicked".into()),
        })
    })?;
    let accepted = queued as f64 / start.elapsed().as_secs_f64();
    let full_kib = resident_kib()? - before;
    cluster.primary().start()?;
    let mut began = None;
    let mut most_kib = full_kib;
    let drained = loop {
        let status = client.submissions()?;
        if began.is_none() && status.committed > 0 {
            began = Some((Instant::now(), status.committed));
        }
        most_kib = most_kib.max(resident_kib()? - before);
        if let Some((at, first)) = began.filter(|_| status.committed == queued) {
            break (queued - first) as f64 / at.elapsed().as_secs_f64();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    drop(client);
    std::fs::remove_dir_all(dir)?;
    check(cluster, queued)?;
    Ok(Lap { accepted, drained, full_kib, most_kib })
}

/// The same INSERTs on as many connections, a second.
fn peer(cluster: &Cluster, queued: u64) -> Result<f64, Failure> {
    reset(cluster)?;
    let mut peers = Vec::new();
    for _ in 0..SESSIONS {
        peers.push(Pipelined::connect(cluster.primary(), INSERT)?);
    }
    let each = i64::try_from(queued / SESSIONS)?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..)
            .zip(&mut peers)
            .map(|(at, peer)| {
                let ids = each * at..each * (at + 1);
                scope.spawn(move || peer.run(ids, NOTE).map_err(|failure| failure.to_string()))
            })
            .collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done.map_err(Failure::from),
            Err(_) => Err("a thread has panicked".into()),
        })
    })?;
    let rate = queued as f64 / start.elapsed().as_secs_f64();
    check(cluster, queued / SESSIONS * SESSIONS)?;
    Ok(rate)
}

/// Nothing is left of the lap before.
fn reset(cluster: &Cluster) -> Result<(), Failure> {
    cluster.primary().execute("TRUNCATE bench_queue")?;
    cluster.primary().execute("CHECKPOINT")?;
    Ok(())
}

fn check(cluster: &Cluster, queued: u64) -> Result<(), Failure> {
    let rows = cluster.primary().query("SELECT count(DISTINCT id), count(*) FROM bench_queue")?;
    let both = rows.first().ok_or("no row")?;
    if both.iter().all(|count| count.as_deref() == Some(&queued.to_string())) {
        return Ok(());
    }
    Err(format!("{queued} were to be there once, and {both:?} are").into())
}

/// So many times a second the bytes of so many submissions get onto the disk, by overwriting.
fn raw_rate(dir: &Path, of: u64) -> Result<f64, Failure> {
    let bytes = vec![9; RECORD_BYTES * usize::try_from(of)?];
    let path = dir.join("raw");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    file.write_all_at(&vec![0; 16 << 20], 0)?;
    file.sync_all()?;
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < LAP {
        let position = u64::from(count) * bytes.len() as u64 % (15 << 20);
        file.write_all_at(&bytes, position)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
