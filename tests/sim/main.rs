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
mod client;
mod clock;
mod data;
mod disk;
#[path = "../../src/journal/tests/faulty.rs"]
#[allow(dead_code)]
mod faulty;
mod figures;
mod files;
mod history;
mod isolation;
mod ledger_sql;
mod limits;
mod messages;
mod monitor;
mod mutations;
mod nemesis;
mod net;
mod network;
mod plan;
mod quiet;
mod recovering;
mod replication;
mod rng;
mod run;
mod search;
mod shrink;
mod sql;
mod statements;
mod sweep;
mod time;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use plan::Plan;
use segue::journal::{Directory, Stored};
use sweep::Sweep;

/// A plain `cargo test` runs so many seeds, the same everywhere, if the time suffices for them.
const PLAIN_SEEDS: u64 = 12_000;
const PLAIN_TIME: Duration = Duration::from_secs(40);

/// Seeds that have found a fault, and which it was. A change of the model takes them elsewhere: the
/// test beside the fault's own code is what holds it, and `src/mutation.rs` has several of them.
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
    (489, "a commit that was found in the ledger was told before the backup had it"),
    (296868, "a COPY that began without a ledger and ended with one was not sealed"),
];

#[test]
fn what_a_seed_has_found_stays_mended() {
    for (seed, story) in REGRESSIONS {
        let (result, _) = run::once(&Plan::of(*seed), false);
        assert!(result.is_ok(), "seed {seed} ({story}): {}", result.unwrap_err());
    }
}

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
    let happens = it.replays > 0 && it.divergences > 0 && it.commits_lost > 0 && it.failovers > 0;
    assert!(it.runs < 1000 || (happens && it.faults.iter().all(|count| *count > 0)));
}

/// One run, in full.
fn show(plan: &Plan) {
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
