//! Histories of appended lists, checked in the manner of Elle (Kingsbury, Alvaro 2020): the order of each
//! final list gives the order of versions, from which follow the edges between transactions. A cycle of
//! them is an anomaly, and which kinds are allowed depends on the declared isolation.
//!
//! * write-write and write-read edges never form a cycle, at any level (G0, G1c);
//! * what a REPEATABLE READ transaction has read and another then changed does not lead back to it
//!   over such edges (G-single);
//! * SERIALIZABLE transactions among themselves form no cycle at all (G2).

use std::collections::{BTreeMap, HashMap};

use crate::client::Client;
use crate::isolation::Isolation;
use crate::world::World;

/// The lists that a transaction has read, by their keys.
type Reads = BTreeMap<i64, Vec<Vec<i64>>>;

#[derive(Default)]
struct Graph {
    levels: Vec<Isolation>,
    /// Write-write and write-read, from each transaction.
    follows: Vec<Vec<usize>>,
    /// Read-write.
    overwritten: Vec<Vec<usize>>,
}

impl Graph {
    fn add(&mut self, isolation: Isolation) -> usize {
        self.levels.push(isolation);
        self.follows.push(Vec::new());
        self.overwritten.push(Vec::new());
        self.levels.len() - 1
    }

    /// Whether a way leads from `from` to `to` over edges that `edges` gives.
    fn leads(&self, from: usize, to: usize, edges: &dyn Fn(usize) -> Vec<usize>) -> bool {
        let mut seen = vec![false; self.levels.len()];
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            if at == to {
                return true;
            }
            if !std::mem::replace(&mut seen[at], true) {
                open.extend(edges(at));
            }
        }
        false
    }

    fn check(&self) -> Result<(), String> {
        let follows = |at: usize| self.follows[at].clone();
        let serializable = |at: usize| -> Vec<usize> {
            let all = self.follows[at].iter().chain(&self.overwritten[at]);
            all.copied().filter(|to| self.levels[*to] == Isolation::Serializable).collect()
        };
        for at in 0..self.levels.len() {
            if self.follows[at].iter().any(|next| self.leads(*next, at, &follows)) {
                return Err("what transactions have read and written forms a cycle (G1c)".into());
            }
            if self.levels[at] >= Isolation::RepeatableRead
                && self.overwritten[at].iter().any(|next| self.leads(*next, at, &follows))
            {
                return Err("a snapshot is not one (G-single)".into());
            }
            if self.levels[at] == Isolation::Serializable
                && serializable(at).iter().any(|next| self.leads(*next, at, &serializable))
            {
                return Err("SERIALIZABLE transactions form a cycle (G2)".into());
            }
        }
        Ok(())
    }
}

/// The lists among the replies that a transaction was told.
fn lists(seen: &[crate::data::Reply]) -> impl Iterator<Item = (i64, Vec<i64>)> + '_ {
    let rows = seen.iter().flat_map(|reply| &reply.rows);
    rows.filter_map(|row| {
        let (key, list) = row.split_once('|')?;
        let list = list.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some((key.parse().ok()?, list))
    })
}

pub fn check<'a>(world: &World, clients: impl Iterator<Item = &'a Client>) -> Result<(), String> {
    let lists_of_all = &world.servers[world.primary].state.acct;
    let mut graph = Graph::default();
    let mut writers: HashMap<i64, usize> = HashMap::new();
    let mut readers: Vec<(usize, &[i64], Reads)> = Vec::new();
    for transaction in clients.flat_map(|client| &client.app.committed) {
        let node = graph.add(transaction.isolation);
        writers.extend(transaction.ids.iter().map(|id| (*id, node)));
        let mut reads = Reads::new();
        for (key, list) in lists(&transaction.seen) {
            reads.entry(key).or_default().push(list);
        }
        readers.push((node, &transaction.ids, reads));
    }
    for list in lists_of_all.values() {
        for id in list {
            // Written by the second writer, or by a transaction whose outcome was not known.
            writers.entry(*id).or_insert_with(|| graph.add(Isolation::ReadCommitted));
        }
        for pair in list.windows(2) {
            let (one, other) = (writers[&pair[0]], writers[&pair[1]]);
            if one != other {
                graph.follows[one].push(other);
            }
        }
    }
    for (node, own, reads) in readers {
        for (key, lists) in reads {
            let all = &lists_of_all[&key];
            for read in lists {
                // What it wrote and rolled back to a savepoint is gone for everybody.
                let read: Vec<i64> =
                    read.into_iter().filter(|id| all.contains(id) || !is_own(*id, own)).collect();
                if !all.starts_with(&read) {
                    return Err(format!(
                        "what was read of a list is not how it begins: {read:?} of {key}, {all:?}"
                    ));
                }
                let others = |id: &&i64| writers[*id] != node;
                if let Some(last) = read.iter().rev().find(others) {
                    graph.follows[writers[last]].push(node);
                }
                if let Some(next) = all[read.len()..].first().filter(others) {
                    graph.overwritten[node].push(writers[next]);
                }
            }
        }
    }
    graph.check()
}

/// Whether the transaction that wrote `own` may have written `id` too.
fn is_own(id: i64, own: &[i64]) -> bool {
    if id < 0 {
        // The second writer waits for no standby: what it has committed may be lost.
        return true;
    }
    let writer = crate::client::writer_of(id);
    writer.is_some() && own.first().is_none_or(|first| crate::client::writer_of(*first) == writer)
}
