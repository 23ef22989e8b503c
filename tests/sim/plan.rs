//! Which run it is: a seed, and what of it is left out to make it smaller.
//!
//! What the application asks for and which faults happen is drawn from generators of their own, one for
//! each, so that leaving one out does not change the others. Only the order in which everything
//! happens changes with it, and with `salt`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::rng::Rng;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    /// The seed's run of submissions; else that of sessions.
    pub submissions: bool,
    pub salt: u64,
    /// The actions of the application that it does not do, by their number in the run.
    pub without_actions: BTreeSet<usize>,
    /// The faults that do not happen.
    pub without_faults: BTreeSet<usize>,
}

/// What a generator is for.
#[derive(Debug, Clone, Copy)]
pub enum For {
    Options,
    Order,
    Action(usize),
    Fault(usize),
    Client(usize),
    Files(usize),
    Profile,
    Cluster,
    Disk(usize),
    Replies(usize),
    Focus,
    /// Of a run of submissions.
    Submissions,
    FocusOfSubmissions,
    Till(usize),
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The seed's run of submissions.
    pub fn of_submissions(seed: u64) -> Self {
        Self { seed, submissions: true, ..Self::default() }
    }

    /// All runs of a seed: every fourth has one of submissions too.
    pub fn all_of(seed: u64) -> impl Iterator<Item = Self> {
        let more = seed.is_multiple_of(4).then(|| Self::of_submissions(seed));
        std::iter::once(Self::of(seed)).chain(more)
    }

    pub fn rng(&self, purpose: For) -> Rng {
        let (kind, number) = match purpose {
            For::Options => (1, 0),
            For::Order => (2, self.salt),
            For::Action(number) => (3, number as u64),
            For::Fault(number) => (4, number as u64),
            For::Client(number) => (5, number as u64),
            For::Files(number) => (6, number as u64),
            For::Profile => (20, 0),
            For::Cluster => (8, 0),
            For::Disk(number) => (7, number as u64),
            For::Replies(number) => (12, number as u64),
            // A run has one of them.
            For::Focus | For::Submissions => (9, 0),
            For::Till(number) => (10, number as u64),
            For::FocusOfSubmissions => (11, 0),
        };
        Rng::new(Rng::new(self.seed).next() ^ Rng::new((kind << 32) | number).next())
    }
}

/// `seed`, or `seed:salt:actions left out:faults left out`, which are numbers between commas; with an `s`
/// behind the seed for its run of submissions.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.seed, if self.submissions { "s" } else { "" })?;
        if [Self::of(self.seed), Self::of_submissions(self.seed)].contains(self) {
            return Ok(());
        }
        let list = |numbers: &BTreeSet<usize>| {
            numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let (actions, faults) = (list(&self.without_actions), list(&self.without_faults));
        write!(f, ":{}:{actions}:{faults}", self.salt)
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |_| format!("{text} is neither a seed nor seed:salt:actions:faults");
        let list = |text: &str| {
            let parts = text.split(',').filter(|part| !part.is_empty());
            parts.map(str::parse).collect::<Result<BTreeSet<usize>, _>>().map_err(bad)
        };
        let mut parts = text.split(':');
        let mut next = || parts.next().unwrap_or_default();
        let seed = next();
        let submissions = seed.ends_with('s');
        let seed = seed.trim_end_matches('s').parse().map_err(bad)?;
        let salt = next();
        Ok(Self {
            seed,
            submissions,
            salt: if salt.is_empty() { 0 } else { salt.parse().map_err(bad)? },
            without_actions: list(next())?,
            without_faults: list(next())?,
        })
    }
}

#[test]
fn a_plan_is_what_it_is_printed_as() {
    let mut plan = Plan::of(7);
    assert_eq!(plan.to_string(), "7");
    plan.without_actions.extend([1, 3]);
    assert_eq!(plan.to_string(), "7:0:1,3:");
    assert_eq!(plan.to_string().parse(), Ok(plan.clone()));
    plan.submissions = true;
    assert_eq!(plan.to_string(), "7s:0:1,3:");
    assert_eq!(plan.to_string().parse(), Ok(plan));
    assert_eq!("7s".parse(), Ok(Plan::of_submissions(7)));
    assert!("7:x".parse::<Plan>().is_err());
}
