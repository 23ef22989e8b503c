//! Taking turns, medians, and ratios within a round.
//!
//! The machine is noisy, so nothing is compared across time: all peers run a short batch in every
//! round, each round begins with another of them, and a ratio is taken within its round.

use std::sync::mpsc;
use std::thread;

use crate::Failure;

/// One batch of one peer.
#[derive(Debug, Clone, Copy)]
pub struct Lap {
    /// The median time of one operation, in nanoseconds.
    pub p50_ns: f64,
    /// The mean time of one operation, in nanoseconds.
    pub mean_ns: f64,
}

impl Lap {
    /// From the times of single operations.
    pub fn of(mut took_ns: Vec<u64>) -> Self {
        took_ns.sort_unstable();
        let total: u64 = took_ns.iter().sum();
        let count = took_ns.len().max(1);
        Self {
            p50_ns: took_ns.get(count / 2).copied().unwrap_or_default() as f64,
            mean_ns: total as f64 / count as f64,
        }
    }
}

/// Middle, and the quartiles around it.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub q1: f64,
    pub median: f64,
    pub q3: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let position = (values.len().saturating_sub(1)) as f64 * share;
            let (low, high) = (position.floor() as usize, position.ceil() as usize);
            match (values.get(low), values.get(high)) {
                (Some(low), Some(high)) => low + (high - low) * position.fract(),
                _ => f64::NAN,
            }
        };
        Self { q1: at(0.25), median: at(0.5), q3: at(0.75) }
    }

    pub fn over(self, divisor: f64) -> Self {
        Self { q1: self.q1 / divisor, median: self.median / divisor, q3: self.q3 / divisor }
    }
}

/// One taker of turns.
pub trait Contestant {
    fn name(&self) -> &str;
    /// Runs a batch; `seed` is the same for all within a round.
    fn lap(&mut self, seed: u64) -> Result<Lap, Failure>;
}

/// What all rounds came to: `laps[contestant][round]`.
pub struct Rounds {
    laps: Vec<Vec<Lap>>,
}

/// Lets the contestants take turns for so many rounds, after one that does not count.
///
/// Each works on a thread of its own: the scheduler keeps a thread beside the server process that it
/// always talks to, but spreads one that talks to many, and the peer that is a process of its own
/// would have that advantage alone.
pub fn take_turns(
    contestants: &mut [Box<dyn Contestant + Send + '_>],
    rounds: u64,
) -> Result<Rounds, Failure> {
    let count = contestants.len();
    let mut laps = vec![Vec::new(); count];
    thread::scope(|scope| {
        let workers: Vec<_> = contestants
            .iter_mut()
            .map(|contestant| {
                let (ask, asked) = mpsc::channel::<u64>();
                let (answer, answered) = mpsc::channel();
                scope.spawn(move || {
                    for seed in asked {
                        let lap = contestant.lap(seed).map_err(|failure| failure.to_string());
                        if answer.send(lap).is_err() {
                            return;
                        }
                    }
                });
                (ask, answered)
            })
            .collect();
        for round in 0..=rounds {
            for turn in 0..count {
                let who = (turn + usize::try_from(round)?) % count;
                let (ask, answered) = &workers[who];
                ask.send(round * 7919 + 1)?;
                let lap = answered.recv()??;
                if round > 0 {
                    laps[who].push(lap);
                }
            }
        }
        Ok(Rounds { laps })
    })
}

impl Rounds {
    pub fn p50(&self, who: usize) -> Spread {
        Spread::of(self.laps[who].iter().map(|lap| lap.p50_ns).collect())
    }

    /// The ratio of the medians, round by round.
    pub fn ratio_p50(&self, ours: usize, theirs: usize) -> Spread {
        self.ratio(ours, theirs, |lap| lap.p50_ns)
    }

    /// The ratio of the means, round by round.
    pub fn ratio_mean(&self, ours: usize, theirs: usize) -> Spread {
        self.ratio(ours, theirs, |lap| lap.mean_ns)
    }

    fn ratio(&self, ours: usize, theirs: usize, of: impl Fn(&Lap) -> f64) -> Spread {
        let pairs = self.laps[ours].iter().zip(&self.laps[theirs]);
        Spread::of(pairs.map(|(ours, theirs)| of(ours) / of(theirs)).collect())
    }
}

/// The generator that the libpq peer uses too, so that all ask for the same rows.
#[derive(Debug, Clone, Copy)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u32) -> i32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i32::try_from((self.0 >> 33) % u64::from(limit)).unwrap_or_default()
    }
}

/// The choices of one TPC-B-like transaction.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub bid: i32,
    pub tid: i32,
    pub aid: i32,
    pub delta: i32,
}

impl Choice {
    pub fn of(random: &mut Random, scale: u32) -> Self {
        Self {
            bid: 1 + random.below(scale),
            tid: 1 + random.below(scale * 10),
            aid: 1 + random.below(scale * 100_000),
            delta: random.below(10_000) - 5000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let spread = Spread::of(vec![4.0, 1.0, 2.0, 3.0]);
        assert_eq!((spread.q1, spread.median, spread.q3), (1.75, 2.5, 3.25));
    }

    #[test]
    fn a_lap_tells_the_median_from_the_mean() {
        let lap = Lap::of(vec![100, 1, 2]);
        assert_eq!((lap.p50_ns, lap.mean_ns), (2.0, 103.0 / 3.0));
    }
}
