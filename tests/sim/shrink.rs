//! Makes a failing run smaller: leaves out actions and faults for as long as some order of what is left
//! still fails in the same way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::run;

/// So many orders are tried for each smaller run.
const ORDERS: u64 = 30;
/// It need not be the smallest.
const TIME: Duration = Duration::from_secs(30);

/// What two runs have in common that fail alike: how a problem begins, up to what it is about, which
/// stands behind a colon or in brackets.
fn kind(problem: &str) -> &str {
    let (panic, problem) = match problem.strip_prefix("panic: ") {
        Some(words) => (true, words),
        None => (false, problem),
    };
    let about = |c: char| ":[{(".contains(c) || (panic && c.is_ascii_digit());
    problem.split(about).next().unwrap_or_default()
}

pub fn shrink(found: &Plan, problem: &str) -> (Plan, String) {
    let kind_of_found = kind(problem);
    let fails = |plan: &Plan| {
        let problem = run::once(plan, false).0.err()?;
        (kind(&problem) == kind_of_found).then_some(problem)
    };
    let mut best = (found.clone(), problem.to_owned());
    let began = Instant::now();
    loop {
        let before = best.0.clone();
        let (actions, faults) = run::parts(&best.0);
        for (all, of) in [(actions, Part::Actions), (faults, Part::Faults)] {
            let mut length = all.len().div_ceil(2).max(1);
            loop {
                for some in all.chunks(length) {
                    let smaller = without(&best.0, of, some);
                    if smaller != best.0 && began.elapsed() < TIME {
                        if let Some(found) = some_order(&smaller, &fails) {
                            best = found;
                        }
                    }
                }
                if length == 1 {
                    break;
                }
                length = length.div_ceil(2);
            }
        }
        if best.0 == before {
            return best;
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Actions,
    Faults,
}

fn without(plan: &Plan, part: Part, some: &[usize]) -> Plan {
    let mut smaller = plan.clone();
    let left_out: &mut BTreeSet<usize> = match part {
        Part::Actions => &mut smaller.without_actions,
        Part::Faults => &mut smaller.without_faults,
    };
    left_out.extend(some);
    smaller
}

fn some_order(plan: &Plan, fails: &dyn Fn(&Plan) -> Option<String>) -> Option<(Plan, String)> {
    (plan.salt..plan.salt + ORDERS).find_map(|salt| {
        let plan = Plan { salt, ..plan.clone() };
        fails(&plan).map(|problem| (plan, problem))
    })
}
