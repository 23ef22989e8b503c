//! Many seeds on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::focus::Focus;
use crate::plan::Plan;
use crate::run;

pub struct Sweep {
    pub from: u64,
    pub seeds: u64,
    /// It ends after so long, however many there were.
    pub time: Option<Duration>,
    pub keep_going: bool,
    /// Runs of one kind only: of submissions, or of sessions.
    pub submissions: Option<bool>,
}

pub struct Done {
    pub figures: Figures,
    pub failures: Vec<(Plan, String)>,
    pub took: Duration,
    pub threads: usize,
}

impl Sweep {
    fn plans(&self, seed: u64) -> Vec<Plan> {
        match self.submissions {
            None => Plan::all_of(seed).collect(),
            Some(false) => vec![Plan::of(seed)],
            Some(true) => vec![Plan::of_submissions(seed)],
        }
    }

    pub fn run(&self) -> Done {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let began = Instant::now();
        let (next, stop) = (AtomicU64::new(self.from), AtomicBool::new(false));
        let all = Mutex::new((Figures::default(), Vec::new()));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let (mut figures, mut failures) = (Figures::default(), Vec::new());
                    let over = || {
                        stop.load(Ordering::Relaxed)
                            || self.time.is_some_and(|time| began.elapsed() > time)
                    };
                    while !over() {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.from + self.seeds {
                            break;
                        }
                        for plan in self.plans(seed).iter().filter(|it| Focus::is_asked_for(it)) {
                            match run::once(plan, false).0 {
                                Ok(run) => figures.add(&run),
                                Err(problem) => {
                                    figures.runs += 1;
                                    failures.push((plan.clone(), problem));
                                    stop.fetch_or(!self.keep_going, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                    let mut all = all.lock().unwrap();
                    all.0.add(&figures);
                    all.1.extend(failures);
                });
            }
        });
        let (figures, mut failures) = all.into_inner().unwrap();
        failures.sort_by_key(|(plan, _)| plan.seed);
        Done { figures, failures, took: began.elapsed(), threads }
    }
}
