//! The check of the simulation itself: each deliberate fault of `src/mutation.rs`, one at a time, must
//! be noticed. Only in builds with the feature `mutations`: `make sim-mutations`.

#[cfg(not(feature = "mutations"))]
pub use absent::*;
#[cfg(feature = "mutations")]
pub use present::*;

#[cfg(not(feature = "mutations"))]
mod absent {
    pub fn seal_never_raises() -> bool {
        false
    }

    pub fn switch_on_asked_for() {}
}

#[cfg(feature = "mutations")]
mod present {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use segue::mutation::{ALL, Mutation, on, switch_on};

    use crate::focus::Focus;
    use crate::plan::Plan;
    use crate::run;

    /// Whether the ledger's SQL, which the model stands for, lacks the condition of its fence.
    pub fn seal_never_raises() -> bool {
        on(Mutation::SealNeverRaises)
    }

    /// For the one run that is shown.
    pub fn switch_on_asked_for() {
        let name = std::env::var("SEGUE_SIM_MUTATION").ok();
        let asked_for =
            |it: &&Mutation| name.as_ref().is_some_and(|name| *name == format!("{it:?}"));
        switch_on(ALL.iter().find(asked_for).copied());
    }

    /// What a seed says with the fault, or without any.
    fn complaint(mutation: Option<Mutation>, seed: u64) -> Option<String> {
        switch_on(mutation);
        let plans = match crate::number("SEGUE_SIM_SUBMISSIONS") {
            None => Plan::all_of(seed).collect(),
            Some(0) => vec![Plan::of(seed)],
            Some(_) => vec![Plan::of_submissions(seed)],
        };
        let mut plans = plans.iter().filter(|plan| Focus::is_asked_for(plan));
        let complaint = plans.find_map(|plan| run::once(plan, false).0.err());
        switch_on(None);
        complaint
    }

    /// The seeds that notice the fault, and what they say. One that fails without it as well has noticed
    /// something else.
    fn noticed(mutation: Mutation, seeds: u64) -> impl Iterator<Item = (u64, String)> {
        (0..seeds).filter_map(move |seed| {
            let found = complaint(Some(mutation), seed)?;
            complaint(None, seed).is_none().then_some((seed, found))
        })
    }

    #[test]
    fn every_deliberate_fault_is_noticed() {
        let seeds = crate::number("SEGUE_SIM_SEEDS").unwrap_or(4_000);
        let only = std::env::var("SEGUE_SIM_MUTATION").ok();
        let wanted = |it: &Mutation| only.as_ref().is_none_or(|name| *name == format!("{it:?}"));
        // Those of submissions stand last; runs of one kind alone cannot show the other's.
        let shown = |it: &Mutation| match crate::number("SEGUE_SIM_SUBMISSIONS") {
            None => true,
            Some(number) => (number > 0) == (*it as usize >= Mutation::ClaimLeftOut as usize),
        };
        let all: Vec<Mutation> = ALL.iter().copied().filter(|it| wanted(it) && shown(it)).collect();
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while let Some(it) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut all = noticed(*it, seeds);
                        let found = all.next();
                        eprintln!("{it:?}: {found:?}");
                        if crate::number("SEGUE_SIM_KEEP_GOING").is_some() {
                            eprintln!("{it:?}: and {} more seeds", all.count());
                        }
                        results.lock().unwrap().push((*it, found));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap();
        results.sort_by_key(|(mutation, _)| *mutation as usize);
        println!("| fault | found after seeds | the first complaint |\n|---|---:|---|");
        for (mutation, found) in &results {
            let (seeds, problem) = match found {
                Some((seed, problem)) => ((seed + 1).to_string(), problem.as_str()),
                None => ("never".to_owned(), ""),
            };
            let problem: String = problem.chars().take(90).collect();
            println!("| `{mutation:?}` | {seeds} | {problem} |");
        }
        let missed: Vec<_> = results.iter().filter(|(_, found)| found.is_none()).collect();
        assert!(missed.is_empty(), "not noticed within {seeds} seeds: {missed:?}");
    }
}
