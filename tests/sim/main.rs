//! A deterministic simulation: the pure session against a model of PostgreSQL with replication, on a
//! network that loses links at any byte, under an application that does everything at random. One
//! seed is one run. The oracle looks only at what the application was told and at what the model's
//! surviving server has committed. `docs/simulation.md` says what is modelled and what is not.
//!
//! `SEGUE_SIM_SEED=n cargo test --test sim` runs one seed and prints its trace; a failing one is made
//! smaller first and printed as a plan, which goes into the same variable. `SEGUE_SIM_SEEDS=n` runs so
//! many, from `SEGUE_SIM_FROM=n` on; `SEGUE_SIM_KEEP_GOING=1` goes on behind a failure.

mod aftermath;
mod app;
mod application;
mod backend;
mod claims;
mod client;
mod clock;
mod data;
mod disk;
mod execute;
#[path = "../../src/journal/tests/faulty.rs"]
#[allow(dead_code)]
mod faulty;
mod figures;
mod files;
mod focus;
mod history;
mod isolation;
mod ledger;
mod ledger_sql;
mod limits;
mod messages;
mod monitor;
mod mutations;
mod nemesis;
mod net;
mod network;
mod plan;
mod profile;
mod quiet;
mod recovering;
mod replication;
mod rng;
mod run;
mod search;
mod sequences;
mod shrink;
mod sql;
mod statements;
mod submit;
mod sweep;
mod time;
mod view;
mod workload;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use plan::Plan;
use segue::journal::{Directory, Stored};
use sweep::Sweep;

/// A plain `cargo test` runs so many seeds, the same everywhere, if the time suffices for them.
const PLAIN_SEEDS: u64 = 1500;
const PLAIN_TIME: Duration = Duration::from_secs(40);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_promise_holds_whatever_happens() {
    if let Ok(text) = std::env::var("SEGUE_SIM_SEED") {
        show(&text.parse().unwrap());
        return;
    }
    let asked_for = number("SEGUE_SIM_SEEDS");
    let sweep = Sweep {
        from: number("SEGUE_SIM_FROM").unwrap_or(0),
        seeds: asked_for.unwrap_or(PLAIN_SEEDS),
        time: asked_for.is_none().then_some(PLAIN_TIME),
        keep_going: number("SEGUE_SIM_KEEP_GOING").is_some(),
        submissions: number("SEGUE_SIM_SUBMISSIONS").map(|number| number > 0),
    };
    let done = sweep.run();
    println!("{}", done.figures.report(done.took, done.threads));
    for (plan, problem) in &done.failures {
        println!("seed {plan}: {}", problem.chars().take(200).collect::<String>());
    }
    if let Some((plan, problem)) = done.failures.first() {
        explain(plan, problem);
        panic!("{} seeds have failed, of {}", done.failures.len(), done.figures.runs);
    }
    // A simulation in which nothing happens would prove nothing.
    let it = &done.figures;
    let happens = it.commits_lost > 0 && it.failovers > 0;
    // Of submissions alone there are the first faults alone, and deaths of processes.
    let of_sessions =
        it.replays > 0 && it.divergences > 0 && it.faults.iter().all(|count| *count > 0);
    let submissions_alone = sweep.submissions == Some(true);
    assert!(it.runs < 1000 || (happens && (of_sessions || submissions_alone)));
}

/// One run, in full.
fn show(plan: &Plan) {
    mutations::switch_on_asked_for();
    let (result, trace) = run::once(plan, true);
    trace.iter().for_each(|line| println!("{line}"));
    println!("{result:?}");
    assert!(result.is_ok(), "{plan}: {}", result.unwrap_err());
}

/// A failing run, made smaller, and how to see more of it.
fn explain(plan: &Plan, problem: &str) {
    let (small, small_problem) = shrink::shrink(plan, problem);
    let (_, trace) = run::once(&small, true);
    let (actions, faults) = run::parts(&small);
    let left = |all: &[usize], without: &BTreeSet<usize>| {
        all.iter().filter(|number| !without.contains(number)).count()
    };
    println!("seed {plan}: {problem}");
    println!(
        "made smaller, to {} actions of applications and {} faults; it ends so:",
        left(&actions, &small.without_actions),
        left(&faults, &small.without_faults),
    );
    trace[trace.len().saturating_sub(100)..].iter().for_each(|line| println!("{line}"));
    println!("{small}: {small_problem}");
    println!("to see all of it: SEGUE_SIM_SEED={small} cargo test --test sim every -- --nocapture");
    println!("as it was found:  SEGUE_SIM_SEED={plan} cargo test --test sim every -- --nocapture");
}
