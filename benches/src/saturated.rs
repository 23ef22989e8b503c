//! TPC-B-like transactions from eight sessions at once: throughput where the processors are busy.
//!
//! Eight threads on one client against eight libpq programs; ten branches, so that locks on them are
//! not all that is measured.

use std::time::{Duration, Instant};

use ::segue::{Client, Session};
use segue_testkit::Cluster;

use crate::measure::{Choice, Random, Spread};
use crate::peer::program::Program;
use crate::peer::segue;
use crate::report::{Report, Target};
use crate::servers::{SCALE, Way, settle};
use crate::{Context, Failure};

const SESSIONS: u64 = 8;
const BATCH: Duration = Duration::from_millis(400);

pub fn run(context: &Context, cluster: &Cluster, report: &mut Report) -> Result<(), Failure> {
    for way in Way::ALL {
        settle(cluster)?;
        let all = way.conninfo_all(cluster);
        let client = Client::connect(&all)?;
        let unsealed_client = Client::connect(&format!("{all} ledger=off"))?;
        let mut sealed = Vec::new();
        let mut unsealed = Vec::new();
        let mut programs = Vec::new();
        for _ in 0..SESSIONS {
            sealed.push(client.session()?);
            unsealed.push(unsealed_client.session()?);
            programs.push(Program::start(&context.libpq, &way.conninfo(cluster.primary()))?);
        }
        let (mut ledger, mut off, mut tps) = (Vec::new(), Vec::new(), [const { Vec::new() }; 3]);
        for round in 0..=context.rounds(20) {
            let seed = round * 7919 + 1;
            let mut now = [0.0; 3];
            for turn in 0..3 {
                let who = (turn + usize::try_from(round)?) % 3;
                now[who] = match who {
                    0 => threads(&mut sealed, seed)?,
                    1 => threads(&mut unsealed, seed)?,
                    _ => processes(&mut programs, seed)?,
                };
            }
            // The first round only warms up.
            if round > 0 {
                ledger.push(now[0] / now[2]);
                off.push(now[1] / now[2]);
                now.iter().zip(&mut tps).for_each(|(now, all)| all.push(*now));
            }
        }
        let [ours, ours_off, theirs] = tps.map(|all| format!("{:.0} tps", Spread::of(all).median));
        let name = way.name();
        report.ratio(
            "saturated",
            format!("TPC-B, 8 sessions, {name}, tps against libpq"),
            (ours, theirs.clone()),
            Spread::of(ledger),
            Target::AtLeast(0.92),
        );
        report.ratio(
            "saturated",
            format!("TPC-B, 8 sessions, {name}, ledger=off, tps against libpq"),
            (ours_off, theirs),
            Spread::of(off),
            Target::AtLeast(1.0),
        );
    }
    Ok(())
}

/// Transactions per second, one thread a session.
pub fn threads(sessions: &mut [Session], seed: u64) -> Result<f64, Failure> {
    let start = Instant::now();
    let end = start + BATCH;
    let results: Vec<::segue::Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .zip(seed..)
            .map(|(session, seed)| {
                scope.spawn(move || {
                    let (mut random, mut done) = (Random(seed), 0);
                    while Instant::now() < end {
                        segue::tpcb(session, Choice::of(&mut random, SCALE))?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let done: u64 = results.into_iter().sum::<::segue::Result<u64>>()?;
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// Transactions per second, one program a session.
fn processes(programs: &mut [Program], seed: u64) -> Result<f64, Failure> {
    let start = Instant::now();
    for (program, seed) in programs.iter_mut().zip(seed..) {
        program.start_tpcb_for(BATCH, SCALE, seed)?;
    }
    let mut done = 0;
    for program in programs {
        done += program.answer()?.1;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
