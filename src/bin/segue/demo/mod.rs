//! `segue demo`: a real primary and a real hot standby, money transfers through Segue, the primary
//! lost in the middle of them, and a verdict by the surviving server's own content.
//!
//! * `workload`: what one session does, and its record of what it was told.
//! * `failover`: the primary is lost, the standby promoted, the old primary made a standby.
//! * `schema`: the tables, and the comparison at the end, by a connection independent of Segue.
//! * `timeline`, `report`: what the user sees.
//!
//! The servers end with this process, however it ends.

mod failover;
mod random;
mod report;
mod schema;
mod timeline;
mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use segue::Client;
use segue_testkit::Cluster;

use crate::output::{Failure, out};
use crate::stop::Stop;
use failover::Director;
use report::Report;
use timeline::Timeline;
use workload::{Board, Record, Worker};

#[derive(Args)]
pub struct Options {
    /// How many sessions transfer money at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    sessions: u32,
    /// How long to run; longer if the failovers need it
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=86400))]
    seconds: u32,
    /// How often to lose the primary; in between the old one is made a standby of the new one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    failovers: u32,
    /// How the primary is lost
    #[arg(long, value_enum, default_value_t = Fault::Kill)]
    fault: Fault,
    /// Asynchronous replication may lose acknowledged commits; Segue then says so
    #[arg(long, value_enum, default_value_t = Replication::Sync)]
    replication: Replication,
    /// Repeats the same choice of transfers (not the same interleaving)
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object at the end, and nothing else, on stdout; the timeline goes to stderr
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Fault {
    /// SIGKILL of the postmaster
    Kill,
    /// pg_ctl stop -m fast
    StopFast,
    /// pg_ctl stop -m immediate
    StopImmediate,
    /// SIGSTOP of all its processes: it falls silent
    Freeze,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Replication {
    Sync,
    Async,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::StopFast => "stop-fast",
            Self::StopImmediate => "stop-immediate",
            Self::Freeze => "freeze",
        }
    }
}

impl Replication {
    fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
        }
    }
}

/// After the last failover the sessions go on for so long at least.
const SETTLE: Duration = Duration::from_secs(1);

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let stop = Stop::on_signals()?;
    let seed = options.seed.unwrap_or_else(any_seed);
    let timeline = Arc::new(Timeline::new(options.json));
    timeline.say("starting a primary and a hot standby");
    let cluster = Cluster::builder()
        .replication(match options.replication {
            Replication::Sync => segue_testkit::Replication::Sync,
            Replication::Async => segue_testkit::Replication::Async,
        })
        .start()?;
    schema::create(cluster.primary(), options.sessions)?;
    timeline.say(&format!(
        "primary on port {}, {}hronous standby on port {}; {} sessions, seed {seed}",
        cluster.primary().port(),
        if options.replication == Replication::Sync { "sync" } else { "async" },
        cluster.standby()?.port(),
        options.sessions,
    ));
    let client = Client::connect(&format!("{} application_name=demo", cluster.conninfo()))?;
    let events = Arc::clone(&timeline);
    let subscription = client.on_event(move |event| events.handle(event));

    let board = Board::default();
    let began = Instant::now();
    let mut director = Director::new(&cluster, options, &board, &timeline, &stop);
    let (records, directed) = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=i64::from(options.sessions))
            .map(|number| {
                let worker = Worker::new(&client, &board, number, seed);
                scope.spawn(move || worker.work())
            })
            .collect();
        let ticker = scope.spawn(|| tick(&board, &timeline));
        let directed = director.direct(began);
        if directed.is_ok() {
            let end = began + Duration::from_secs(u64::from(options.seconds));
            stop.sleep_until(end.max(director.last_failover() + SETTLE));
        }
        board.finished.store(true, Ordering::Relaxed);
        let records: Result<Vec<Record>, Failure> = workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| "a session's thread panicked".into()))
            .collect();
        let ticked = ticker.join().map_err(|_| "the timeline's thread panicked".into());
        (records, directed.and(ticked))
    });
    let took = began.elapsed();
    let (records, ()) = (records?, directed?);
    drop(subscription);
    drop(client);
    if stop.asked() {
        timeline.say("interrupted");
        return Ok(ExitCode::from(130));
    }
    timeline.say("comparing what the sessions were told with what the new primary has");
    let report = Report {
        options,
        seed,
        findings: schema::judge(cluster.primary(), options.sessions, &records)?,
        records: &records,
        counts: &timeline.counts,
        longest_pause: director.longest_pause(),
        failovers: director.failovers,
        took,
    };
    if options.json {
        crate::output::err(&report.text());
        out(&report.json());
    } else {
        out(&report.text());
    }
    Ok(ExitCode::from(u8::from(!report.held())))
}

/// Says the throughput once a second, and what sessions have reported soon after it happened.
fn tick(board: &Board, timeline: &Timeline) {
    let mut next = Instant::now() + Duration::from_secs(1);
    let mut before = 0;
    while !board.finished.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        timeline.flush(false);
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            let committed = board.committed.load(Ordering::Relaxed);
            timeline.throughput(committed - before);
            before = committed;
        }
    }
    timeline.flush(true);
}

fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed.
    u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
}
