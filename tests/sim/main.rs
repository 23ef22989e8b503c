//! A deterministic simulation: the pure session against a model of PostgreSQL with replication, on a
//! network that loses links at any byte, under an application that does everything at random. One
//! seed is one run. The oracle looks only at what the application was told and at what the model's
//! surviving server has committed.
//!
//! `SEGUE_SIM_SEED=n cargo test --test sim` runs one seed and prints its trace;
//! `SEGUE_SIM_SEEDS=n` runs so many; `SEGUE_SIM_FROM=n` starts at another one than 0.

mod app;
mod backend;
mod data;
mod files;
mod rng;
mod run;
mod sql;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use run::{Figures, Run};

/// Runs one seed; gives what went wrong, and the trace.
fn run(seed: u64, traced: bool) -> (Result<Figures, String>, Vec<String>) {
    let mut run = Run::new(seed, traced);
    let done = catch_unwind(AssertUnwindSafe(|| run.run()));
    let result = match done {
        Ok(Ok(())) => Ok(run.figures),
        Ok(Err(problem)) => Err(problem),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    };
    (result, run.trace().to_vec())
}

/// A plain `cargo test` runs so many seeds, the same everywhere, if 15 seconds suffice for them.
const PLAIN_SEEDS: u64 = 8000;

/// Seeds that have found a fault, and which it was. A change of the model can take them elsewhere: the
/// test beside the fault's own code is what holds it.
const REGRESSIONS: &[(u64, &str)] = &[
    (567, "the Close of a statement was passed over together with what had made it necessary"),
    (9975, "the reply of a fenced attempt was taken for that of the committed one"),
    (15542, "a COPY that waited for the journal on disk was ended on the wire before it was sent"),
    (18641, "the model made a running transaction read-only, and its commit went unsealed"),
    (19607, "a COPY that was run again was sealed in a row that the new server did not have"),
    (11831, "a statement that was passed over had an error of syntax, and was told another one"),
    (28861, "a backend that could not be ended was forgotten before the fence against it stood"),
    (34253, "a row of the ledger was retired with a fence in it"),
    (88558, "a COMMIT overtook the comparison of what was run again"),
    (112956, "replies were awaited to what an earlier link had been sent"),
    (131510, "data were asked for a COPY that had been told to have failed"),
    (142108, "a fence in a row that the server never had turned the ledger off"),
    (156094, "a commit that one lost server's ledger had was told without asking the next one's"),
    (264933, "the model took what a failed string had made savepoints of for gone"),
    (296868, "a COPY that began without a ledger and ended with one was not sealed"),
];

#[test]
fn what_a_seed_has_found_stays_mended() {
    for (seed, story) in REGRESSIONS {
        let (result, _) = run(*seed, false);
        assert!(result.is_ok(), "seed {seed} ({story}): {}", result.unwrap_err());
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_promise_holds_whatever_happens() {
    if let Some(seed) = number("SEGUE_SIM_SEED") {
        let (result, trace) = run(seed, true);
        trace.iter().for_each(|line| println!("{line}"));
        println!("{result:?}");
        assert!(result.is_ok(), "seed {seed}: {}", result.unwrap_err());
        return;
    }
    let from = number("SEGUE_SIM_FROM").unwrap_or(0);
    let asked_for = number("SEGUE_SIM_SEEDS");
    let seeds = asked_for.unwrap_or(PLAIN_SEEDS);
    let keep_going = number("SEGUE_SIM_KEEP_GOING").is_some();
    let limit = asked_for.is_none().then(|| Instant::now() + Duration::from_secs(15));
    let mut total = Figures::default();
    let mut failures = 0_u64;
    let mut done = 0_u64;
    for seed in from..from + seeds {
        if limit.is_some_and(|limit| Instant::now() > limit) {
            break;
        }
        done += 1;
        match run(seed, false).0 {
            Ok(figures) => {
                total.requests += figures.requests;
                total.faults += figures.faults;
                total.replays += figures.replays;
                total.divergences += figures.divergences;
                total.commits_lost += figures.commits_lost;
                total.unknown += figures.unknown;
            }
            Err(problem) if keep_going => {
                failures += 1;
                println!("seed {seed}: {}", problem.chars().take(200).collect::<String>());
            }
            Err(problem) => {
                let (_, trace) = run(seed, true);
                for line in &trace[trace.len().saturating_sub(60)..] {
                    println!("{line}");
                }
                panic!(
                    "seed {seed}, after {done}: {problem}\nto see all of it: SEGUE_SIM_SEED={seed} cargo test --test sim -- --nocapture"
                );
            }
        }
    }
    println!("{done} seeds: {total:?}");
    assert_eq!(failures, 0, "of {done} seeds");
    // A simulation in which nothing happens would prove nothing.
    assert!(seeds < 1000 || (total.replays > 0 && total.divergences > 0 && total.commits_lost > 0));
}
