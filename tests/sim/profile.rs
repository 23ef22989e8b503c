//! What a seed makes likely. One mixture of everything hardly ever comes to a coincidence of four rare
//! things; runs that differ do, each of which leaves some statements and faults out and has others come
//! thick and fast ("Swarm Testing": Groce, Zhang, Eide, Chen, Regehr, ISSTA 2012).

use crate::figures::{FAULTS, Fault};
use crate::focus::{Focus, Moment};
use crate::rng::Rng;
use crate::workload::{Sort, USUAL};

/// Numbers without another unit are chances of a hundred.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// How often each of [`USUAL`] is asked for, relative to the others.
    pub statements: [usize; USUAL.len()],
    pub begins: usize,
    pub savepoints: usize,
    pub savepoint_names: usize,
    pub parameters: usize,
    pub streamed: usize,
    pub pipelined: usize,
    pub pipeline_max: usize,
    pub strings: usize,
    /// So many requests at most, outside transactions, from each client.
    pub requests_max: usize,
    pub keys: usize,

    pub faults_max: usize,
    /// How often each of the first of [`FAULTS`](crate::figures::FAULTS) is, relative to the others; where
    /// the detector is in the loop, `nemesis` has its own.
    pub faults: [usize; 6],
    /// In a thousand rounds, so that there are faults at the end of a run as well, behind whatever the
    /// applications have done by then.
    pub fault: usize,
    /// Of a hundred rounds in which a commit is on its way.
    pub fault_at_commit: usize,
    /// Of a hundred rounds in which a transaction is open.
    pub fault_in_transaction: usize,

    /// A backend whose link is lost does not end when it is told to, and how often it gets on.
    pub stubborn: usize,
    pub zombies: usize,
    /// A link to what is the primary no more is lost.
    pub deposed_links: usize,
    pub replication: usize,
    pub second_writer: usize,
    /// So often at most.
    pub second_writes_left: usize,
    /// What arrives at a client, arrives in small pieces, and how often.
    pub small_pieces: bool,
    pub replies: usize,

    /// Of a thousand statements, so many fail for no reason of their own; and of the ledger's.
    pub errors: usize,
    pub ledger_errors: usize,
    /// So many openings of a row in a thousand are, for there is no room left.
    pub openings_refused: usize,

    /// The coincidence that the run is made for, if there is one.
    pub focus: Option<Focus>,
    /// Faults that are likely at a moment: how likely, of a thousand rounds.
    pub moments: &'static [(Moment, usize, Fault)],
    /// What the second writer does; none: anything.
    pub second_writes: Option<Sort>,
}

impl Profile {
    /// One of the faults, as often as their weights say.
    pub fn fault_kind(&self, rng: &mut Rng) -> Fault {
        let weights = self.faults.into_iter().zip(FAULTS);
        let kinds: Vec<Fault> =
            weights.flat_map(|(weight, (kind, _))| std::iter::repeat_n(kind, weight)).collect();
        *rng.pick(&kinds)
    }

    pub fn new(mut rng: Rng) -> Self {
        let mut statements = USUAL.map(|(_, weight)| weight);
        if rng.chance(60) {
            let some = *rng.pick(&[25, 50, 75]);
            for weight in &mut statements {
                *weight *= if rng.chance(some) { *rng.pick(&[1, 1, 4]) } else { 0 };
            }
        }
        // Something there must be.
        statements[0] += 1;
        let mut faults = [2, 1, 1, 1, 1, 1];
        if rng.chance(60) {
            for weight in &mut faults {
                *weight *= *rng.pick(&[0, 1, 1, 3]);
            }
            faults[rng.below(6)] += 1;
        }
        let long = rng.chance(15);
        let small_pieces = rng.chance(25);
        let faults_max = if long { 40 } else { *rng.pick(&[3, 6, 12]) };
        let mut profile = Self {
            statements,
            begins: *rng.pick(&[5, 30, 60, 90]),
            savepoints: *rng.pick(&[0, 20, 20, 40]),
            savepoint_names: 2,
            parameters: *rng.pick(&[0, 60, 60, 100]),
            streamed: *rng.pick(&[0, 40, 40, 100]),
            pipelined: *rng.pick(&[0, 30, 30, 90]),
            pipeline_max: *rng.pick(&[5, 5, 10]),
            strings: *rng.pick(&[0, 8, 8, 20]),
            requests_max: if long { 100 } else { 20 },
            keys: *rng.pick(&[1, 3, 3]),
            faults_max,
            faults,
            fault: *rng.pick(&[2, 5, 20, 80]),
            fault_at_commit: *rng.pick(&[0, 0, 5, 20]),
            fault_in_transaction: *rng.pick(&[0, 0, 2, 5]),
            stubborn: *rng.pick(&[0, 30, 30, 100]),
            zombies: *rng.pick(&[2, 20, 100, 100]),
            deposed_links: 20,
            replication: *rng.pick(&[5, 100, 100]),
            second_writer: *rng.pick(&[0, 30, 30, 100]),
            second_writes_left: 200,
            small_pieces,
            replies: if small_pieces { 100 } else { *rng.pick(&[15, 100, 100]) },
            errors: *rng.pick(&[0, 0, 5, 20]),
            ledger_errors: *rng.pick(&[0, 0, 10, 50]),
            openings_refused: 0,
            focus: None,
            moments: &[],
            second_writes: None,
        };
        match rng.below(5) {
            0 => profile.leave_backends_behind(&mut rng),
            1 => profile.return_to_the_same_server(&mut rng),
            2 => profile.replay_transactions(&mut rng),
            _ => {}
        }
        profile
    }

    /// Commits are on their way on links that are lost, and their backends go on with them, slowly.
    fn leave_backends_behind(&mut self, rng: &mut Rng) {
        self.stubborn = 100;
        self.zombies = *rng.pick(&[1, 5, 20]);
        self.fault_at_commit = 20;
        self.faults_max = self.faults_max.max(12);
        self.faults = [6, 0, 0, *rng.pick(&[0, 1]), *rng.pick(&[0, 1]), 0];
    }

    /// Servers crash with commits that no standby has, are up again, and then are replaced.
    fn return_to_the_same_server(&mut self, rng: &mut Rng) {
        self.replication = *rng.pick(&[2, 5]);
        self.fault = 20;
        self.fault_at_commit = 20;
        self.faults_max = self.faults_max.max(12);
        self.faults = [1, 2, 2, 2, 0, 0];
    }

    /// Links are lost inside transactions that have savepoints, errors and settings in them, while others
    /// change what they read.
    fn replay_transactions(&mut self, rng: &mut Rng) {
        self.begins = 90;
        self.savepoints = 40;
        self.fault_in_transaction = 5;
        self.faults_max = self.faults_max.max(12);
        self.keys = 1;
        self.second_writer = 100;
        for ((sort, usual), weight) in USUAL.iter().zip(&mut self.statements) {
            if matches!(sort, Sort::Guard | Sort::Set | Sort::DivisionByZero | Sort::SelectAcct) {
                *weight = usual * *rng.pick(&[1, 4]);
            }
        }
    }

    /// So many accounts the second writer writes to.
    pub fn second_keys(&self) -> usize {
        if self.second_writes.is_some() { self.keys } else { 3 }
    }

    /// Nothing goes wrong any more, and nothing is slow.
    pub fn come_to_rest(&mut self) {
        self.zombies = 100;
        self.deposed_links = 20;
        self.replication = 100;
        self.replies = 100;
        self.errors = 0;
        self.ledger_errors = 0;
        self.openings_refused = 0;
    }
}
