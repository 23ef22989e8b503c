//! The C ABI against libpq: the same work by a program on `segue.h` with everything on (two servers
//! watched, a warm link, the ledger), and by one on libpq, which protects nothing.

use std::path::Path;
use std::time::Duration;

use segue_testkit::Cluster;

use crate::measure::{Contestant, Spread, take_turns};
use crate::peer::program::{Checksums, Program, Turn};
use crate::peer::segue_c;
use crate::report::{Report, Target};
use crate::servers::{SCALE, Way, load_large, settle};
use crate::{Context, Failure};

/// How long a batch of the saturated transactions takes.
const BATCH: Duration = Duration::from_millis(400);

/// One line of the report: what Segue's program does, what libpq's does, how often in a batch.
struct Work {
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    count: u32,
    limit: u32,
    rounds: u32,
    measure: Measure,
}

#[derive(Clone, Copy)]
enum Measure {
    /// The time of one, which is to be no longer than libpq's. What was read is compared.
    Latency,
    /// The same for what leaves nothing to compare.
    LatencyAlone,
    /// So many rows in that time, which are to be no fewer a second than libpq's.
    Rows(u32),
}

const WORKS: [Work; 7] = [
    Work {
        what: "point SELECT, statement",
        ours: "point",
        theirs: "point",
        count: 250,
        limit: SCALE * 100_000,
        rounds: 200,
        measure: Measure::Latency,
    },
    Work {
        what: "point SELECT, by text",
        ours: "point_by_text",
        theirs: "point",
        count: 250,
        limit: SCALE * 100_000,
        rounds: 200,
        measure: Measure::Latency,
    },
    Work {
        what: "10,000 rows, text",
        ours: "large_text",
        theirs: "large_text",
        count: 3,
        limit: 0,
        rounds: 100,
        measure: Measure::Rows(10_000),
    },
    Work {
        what: "10,000 rows, binary",
        ours: "large_binary",
        theirs: "large_binary",
        count: 5,
        limit: 0,
        rounds: 100,
        measure: Measure::Rows(10_000),
    },
    Work {
        what: "TPC-B",
        ours: "tpcb",
        theirs: "tpcb",
        count: 15,
        limit: SCALE,
        rounds: 200,
        measure: Measure::LatencyAlone,
    },
    Work {
        what: "100 pipelined INSERTs, one transaction",
        ours: "inserts",
        theirs: "inserts",
        count: 10,
        limit: 0,
        rounds: 100,
        measure: Measure::Rows(100),
    },
    Work {
        what: "100 pipelined INSERTs, each its own",
        ours: "inserts_apart",
        theirs: "inserts_apart",
        count: 2,
        limit: 0,
        rounds: 100,
        measure: Measure::Rows(100),
    },
];

pub fn run(
    context: &Context,
    dir: &Path,
    cluster: &Cluster,
    report: &mut Report,
) -> Result<(), Failure> {
    let program = segue_c::compile(dir)?;
    load_large(cluster)?;
    for way in Way::ALL {
        for work in &WORKS {
            settle(cluster)?;
            let mut segue = Program::start(&program, &way.conninfo_all(cluster))?;
            let mut libpq = Program::start(&context.libpq, &way.conninfo(cluster.primary()))?;
            compare(context, work, way, (&mut segue, &mut libpq), report)?;
        }
        saturate(context, &program, way, cluster, report)?;
    }
    Ok(())
}

fn compare(
    context: &Context,
    work: &Work,
    way: Way,
    (segue, libpq): (&mut Program, &mut Program),
    report: &mut Report,
) -> Result<(), Failure> {
    let Work { count, limit, .. } = *work;
    let checksums = Checksums::default();
    let same = match work.measure {
        Measure::LatencyAlone => None,
        Measure::Latency | Measure::Rows(_) => Some(&checksums),
    };
    let turn = |name, peer, command| {
        let turn = Turn { name, peer, command, count, limit, checksums: same };
        Box::new(turn) as Box<dyn Contestant + Send>
    };
    let mut contestants = vec![turn("segue", segue, work.ours), turn("libpq", libpq, work.theirs)];
    let rounds = take_turns(&mut contestants, context.rounds(work.rounds))?;
    let what = format!("{}, {}", work.what, way.name());
    match work.measure {
        Measure::Latency | Measure::LatencyAlone => {
            report.latency("c", what, &rounds, (0, 1), Target::AtMost(1.0));
        }
        Measure::Rows(rows) => {
            report.throughput("c", what, &rounds, (0, 1), rows, Target::AtLeast(1.0));
        }
    }
    Ok(())
}

/// TPC-B-like transactions from eight threads of each program.
fn saturate(
    context: &Context,
    program: &Path,
    way: Way,
    cluster: &Cluster,
    report: &mut Report,
) -> Result<(), Failure> {
    settle(cluster)?;
    let segue = Program::start(program, &way.conninfo_all(cluster))?;
    let libpq = Program::start(&context.libpq, &way.conninfo(cluster.primary()))?;
    let mut programs = [segue, libpq];
    let (mut ratios, mut tps) = (Vec::new(), [const { Vec::new() }; 2]);
    for round in 0..=context.rounds(20) {
        let mut now = [0.0; 2];
        for turn in 0..2 {
            let who = (turn + usize::try_from(round)?) % 2;
            now[who] = programs[who].tpcb_many(BATCH, SCALE, round * 7919 + 1)?;
        }
        // The first round connects and warms up.
        if round > 0 {
            ratios.push(now[0] / now[1]);
            now.iter().zip(&mut tps).for_each(|(now, all)| all.push(*now));
        }
    }
    let [ours, theirs] = tps.map(|all| format!("{:.0} tps", Spread::of(all).median));
    let what = format!("TPC-B, 8 threads, tps, {}", way.name());
    report.ratio("c", what, (ours, theirs), Spread::of(ratios), Target::AtLeast(0.90));
    Ok(())
}
