//! Which acknowledged commits a server lacks, against a model: histories of which each server has a beginning.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use uuid::Uuid;

use crate::session::seals::{LedgerRow, Seals};
use crate::session::unit::Seal;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    Opened { row: Uuid, retired: Uuid },
    Committed { row: Uuid, number: u64 },
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Commits,
    Fails,
    /// It commits, and its link is lost with the reply.
    CommitsUnheard,
    LinkLost,
    /// The link is lost with the reply to the next opening, which the server has carried out or not.
    OpeningLost(bool),
    /// So many commits are numbered before the reply to an opening is here.
    Behind(u8),
    /// The opening of this row, which was sent on a link that was lost, is carried out after all.
    OpenedLate(u8),
    /// A server takes over that has this much of this history.
    FailsOver(u8, u8),
}

struct Model {
    seals: Seals,
    here: Vec<Entry>,
    histories: Vec<Vec<Entry>>,
    /// Acknowledged, and not told to be lost.
    stands: BTreeSet<(Uuid, u64)>,
    opening_lost: Option<bool>,
    behind: u8,
    /// Rows that this server was asked to open on a link that was lost.
    late: Vec<Uuid>,
}

impl Model {
    fn new(rotate_commits: u32) -> Self {
        let mut seals = Seals::new(1, rotate_commits);
        seals.enabled = true;
        Self {
            seals,
            here: Vec::new(),
            histories: Vec::new(),
            stands: BTreeSet::new(),
            opening_lost: None,
            behind: 0,
            late: Vec::new(),
        }
    }

    fn ledger(&self) -> HashMap<Uuid, u64> {
        let mut ledger = HashMap::new();
        for entry in &self.here {
            match *entry {
                Entry::Opened { row, retired } => {
                    ledger.entry(row).or_insert(0);
                    ledger.remove(&retired);
                }
                Entry::Committed { row, number } => {
                    ledger.insert(row, number);
                }
            }
        }
        ledger
    }

    /// A link is lost, and this server is asked on the next one.
    fn adopt(&mut self) {
        self.seals.unconfirm(false);
        if !self.seals.is_confirmed() && !self.seals.has_acknowledged() {
            return;
        }
        let ledger = self.ledger();
        let row = |id| ledger.get(&id).map(|seq| LedgerRow { id, seq: *seq, recent: 1 });
        let rows: Vec<_> = self.seals.rows().filter_map(row).collect();
        let lost = self.seals.lost(&rows);
        let told = |(row, number): &(Uuid, u64)| {
            lost.iter().any(|lost| lost.row == *row && (lost.from..=lost.to).contains(number))
        };
        for commit in &self.stands {
            let (row, number) = *commit;
            let is_lost = !self.here.contains(&Entry::Committed { row, number });
            assert_eq!(told(commit), is_lost, "{row} {number}: {lost:?} of {rows:?}");
        }
        self.stands.retain(|commit| !told(commit));
        self.seals.forget_lost(&lost);
        if self.seals.is_confirmed() && !self.seals.is_present(&rows) {
            self.seals.unconfirm(true);
        }
    }

    fn commit(&mut self, Seal { row, number, .. }: Seal) {
        self.here.push(Entry::Committed { row, number });
    }

    fn acknowledge(&mut self, seal: Seal) {
        self.seals.acknowledge(seal);
        self.stands.insert((seal.row, seal.number));
    }

    /// Whether the next number can be had on this link.
    fn open_if_due(&mut self) -> bool {
        if !self.seals.rotation_is_due() {
            return true;
        }
        let first = !self.seals.is_confirmed();
        let (row, retired) = self.seals.open(false);
        let lost = self.opening_lost.take();
        if lost == Some(false) {
            self.late.push(row);
        } else {
            self.here.push(Entry::Opened { row, retired });
        }
        if lost == Some(true) {
            // With both accidents, and a server that has nothing since, a commit that stands is told to be lost.
            self.late.clear();
        }
        if lost.is_some() {
            self.adopt();
            return false;
        }
        // What is numbered before the reply is here stands in the row before.
        let behind = if first { 0 } else { std::mem::take(&mut self.behind) };
        let seals: Vec<_> = (0..behind).map(|_| self.seals.allot(false)).collect();
        for seal in &seals {
            self.commit(*seal);
        }
        self.seals.opened();
        for seal in seals {
            self.acknowledge(seal);
        }
        true
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Commits | Step::Fails | Step::CommitsUnheard => {
                if !self.open_if_due() {
                    return;
                }
                let seal = self.seals.allot(false);
                match step {
                    Step::Commits => {
                        self.commit(seal);
                        self.acknowledge(seal);
                    }
                    Step::CommitsUnheard => {
                        self.commit(seal);
                        self.adopt();
                        // It was found.
                        self.acknowledge(seal);
                    }
                    _ => {}
                }
            }
            Step::LinkLost => self.adopt(),
            Step::OpeningLost(carried_out) => self.opening_lost = Some(carried_out),
            Step::Behind(count) => self.behind = count,
            Step::OpenedLate(which) => {
                if let Some(row) = self.late.get(usize::from(which)).copied() {
                    self.here.push(Entry::Opened { row, retired: Uuid::nil() });
                }
            }
            Step::FailsOver(which, how_much) => {
                self.late.clear();
                let left = std::mem::take(&mut self.here);
                self.histories.push(left);
                let last = self.histories.len() - 1;
                let history = &self.histories[last - usize::from(which).min(last)];
                // Mostly not far behind.
                let missing = usize::from(how_much) * usize::from(how_much) / 64;
                self.here = history[..history.len().saturating_sub(missing)].to_vec();
                self.adopt();
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Commits),
        5 => Just(Step::Fails),
        1 => Just(Step::CommitsUnheard),
        1 => Just(Step::LinkLost),
        1 => any::<bool>().prop_map(Step::OpeningLost),
        1 => (0..4u8).prop_map(Step::Behind),
        1 => (0..2u8).prop_map(Step::OpenedLate),
        2 => (prop_oneof![4 => Just(0u8), 1 => 0..4u8], 0..40u8)
            .prop_map(|(which, missing)| Step::FailsOver(which, missing)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is lost is told, and nothing else; as long as no more rows are in use than are remembered.
    #[test]
    fn just_what_a_server_lacks_is_told(
        rotate_commits in 1..4u32,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new(rotate_commits);
        for step in steps {
            model.take(step);
        }
    }
}
