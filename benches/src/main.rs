//! Segue's benchmarks. Each figure has a subcommand that reproduces it; `all` runs every one.
//!
//! Figures are ratios within one run, taken in turns with the peer: see `docs/benchmarks.md`.

mod blackhole;
mod c;
mod failover;
mod instructions;
mod journal;
mod journal_file;
mod journal_sessions;
mod measure;
mod peer;
mod point;
mod report;
mod saturated;
mod servers;
mod sessions;
mod submit_file;
mod tpcb;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use report::Report;
use segue_bench::Failure;
use servers::SCALE;

/// What all benchmarks share.
pub struct Context {
    /// The compiled libpq peer.
    libpq: PathBuf,
    factor: f64,
    /// Submissions that `submit-file` queues.
    queued: u64,
}

impl Context {
    /// How many rounds to run where `usual` is the usual number.
    fn rounds(&self, usual: u32) -> u64 {
        (f64::from(usual) * self.factor).round().max(3.0) as u64
    }
}

#[derive(Parser)]
#[command(about = "Segue's benchmarks, against libpq, tokio-postgres and a minimal client")]
struct Options {
    /// Which ones to run.
    #[arg(value_enum, required_unless_present_any = ["sessions_of", "instructions_of"])]
    benchmarks: Vec<Benchmark>,
    /// Writes the figures to a file as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Multiplies the number of rounds: 0.2 for a glance, 3 for a quiet night.
    #[arg(long, default_value_t = 1.0)]
    rounds: f64,
    /// How many submissions `submit-file` queues; the figure that counts is of 1000000.
    #[arg(long, default_value_t = 50_000, value_name = "N")]
    queued: u64,
    /// What `sessions` runs in a process of its own.
    #[arg(long, hide = true, value_name = "CONNINFO")]
    sessions_of: Option<String>,
    /// What `instructions` runs under valgrind: what, how often, where.
    #[arg(long, hide = true, num_args = 3)]
    instructions_of: Option<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Every one of the others but `instructions`, which needs valgrind.
    All,
    /// Point SELECTs against libpq, tokio-postgres and a minimal client.
    Point,
    /// TPC-B-like transactions of one session against libpq.
    Tpcb,
    /// The same from eight sessions at once.
    Saturated,
    /// What it costs to keep a statement in the journal.
    Journal,
    /// The journal on disk: durable commits against the raw device, recovery against reading.
    JournalFile,
    /// TPC-B-like transactions with the journal on disk against the same with it in memory.
    JournalSessions,
    /// Submissions on disk: accepted against the raw device, drained against pipelining by hand.
    SubmitFile,
    /// The C ABI against libpq: point SELECTs, large results, transactions, pipelines.
    C,
    /// From a standby's first write to the commit of a replayed transaction.
    Failover,
    /// A primary that swallows packets while another is promoted already.
    Blackhole,
    /// A thousand sessions over one client: threads and memory.
    Sessions,
    /// Instructions of a point SELECT, a transaction and a row, counted by valgrind.
    Instructions,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match (&options.sessions_of, &options.instructions_of) {
        (Some(conninfo), _) => sessions::child(conninfo),
        (_, Some(arguments)) => instructions::child(arguments),
        _ => run(&options).map(|report| print!("{}", report.table())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("segue-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report, Failure> {
    let wanted = |benchmark| {
        let by_all = benchmark != Benchmark::Instructions;
        let mut named = options.benchmarks.iter();
        named.any(|one| *one == benchmark || (*one == Benchmark::All && by_all))
    };
    let dir = std::env::temp_dir().join(format!("segue-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let context = Context {
        libpq: peer::libpq::compile(&dir)?,
        factor: options.rounds,
        queued: options.queued,
    };
    let mut report = Report::default();
    let result = measure_all(&context, &dir, wanted, &mut report);
    std::fs::remove_dir_all(&dir)?;
    result?;
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(report)
}

fn measure_all(
    context: &Context,
    dir: &Path,
    wanted: impl Fn(Benchmark) -> bool,
    report: &mut Report,
) -> Result<(), Failure> {
    if wanted(Benchmark::Journal) {
        journal::run(context, report)?;
    }
    if wanted(Benchmark::JournalFile) {
        journal_file::run(context, dir, report)?;
    }
    if wanted(Benchmark::SubmitFile) {
        submit_file::run(context, dir, report)?;
    }
    let shared = [
        Benchmark::Point,
        Benchmark::Tpcb,
        Benchmark::Saturated,
        Benchmark::Instructions,
        Benchmark::C,
        Benchmark::JournalSessions,
    ];
    if shared.into_iter().any(&wanted) {
        let cluster = servers::builder(1).start()?;
        servers::load(&cluster, SCALE)?;
        if wanted(Benchmark::Point) {
            point::run(context, &cluster, report)?;
        }
        if wanted(Benchmark::Tpcb) {
            tpcb::run(context, &cluster, "standby", report)?;
        }
        if wanted(Benchmark::JournalSessions) {
            journal_sessions::run(context, dir, &cluster, report)?;
        }
        if wanted(Benchmark::Instructions) {
            instructions::run(&cluster, report)?;
        }
        if wanted(Benchmark::Saturated) {
            saturated::run(context, &cluster, report)?;
        }
        if wanted(Benchmark::C) {
            c::run(context, dir, &cluster, report)?;
        }
    }
    if wanted(Benchmark::Tpcb) {
        let cluster = servers::builder(0).start()?;
        servers::load(&cluster, SCALE)?;
        tpcb::run(context, &cluster, "no standby", report)?;
    }
    if wanted(Benchmark::Failover) {
        failover::run(context, report)?;
    }
    if wanted(Benchmark::Blackhole) {
        blackhole::run(context, report)?;
    }
    if wanted(Benchmark::Sessions) {
        sessions::run(report)?;
    }
    Ok(())
}
