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
    /// What each transaction has written, to name it by.
    ids: Vec<Vec<i64>>,
    /// Write-write and write-read, from each transaction.
    follows: Vec<Vec<usize>>,
    /// Read-write.
    overwritten: Vec<Vec<usize>>,
}

impl Graph {
    fn add(&mut self, isolation: Isolation, ids: &[i64]) -> usize {
        self.levels.push(isolation);
        self.ids.push(ids.to_vec());
        self.follows.push(Vec::new());
        self.overwritten.push(Vec::new());
        self.levels.len() - 1
    }

    /// The way from `from` to `to` over edges that `edges` gives, if there is one.
    fn way(
        &self,
        from: usize,
        to: usize,
        edges: &dyn Fn(usize) -> Vec<usize>,
    ) -> Option<Vec<usize>> {
        let mut came_from = vec![None; self.levels.len()];
        let mut open = vec![(from, from)];
        while let Some((at, before)) = open.pop() {
            if came_from[at].is_some() {
                continue;
            }
            came_from[at] = Some(before);
            if at == to {
                let back = |at: &usize| came_from[*at].filter(|before| before != at);
                let mut way: Vec<usize> = std::iter::successors(Some(to), back).collect();
                way.reverse();
                return Some(way);
            }
            open.extend(edges(at).into_iter().map(|next| (next, at)));
        }
        None
    }

    /// Complains of a way that leads from one of `starts` to `end`, which precedes them.
    fn no_way(
        &self,
        starts: &[usize],
        end: usize,
        edges: &dyn Fn(usize) -> Vec<usize>,
        what: &str,
    ) -> Result<(), String> {
        match starts.iter().find_map(|start| self.way(*start, end, edges)) {
            None => Ok(()),
            Some(way) => {
                let names: Vec<_> =
                    way.iter().map(|at| (&self.ids[*at], self.levels[*at])).collect();
                Err(format!("{what}: {names:?}"))
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let follows = |at: usize| self.follows[at].clone();
        let serializable = |at: usize| -> Vec<usize> {
            let all = self.follows[at].iter().chain(&self.overwritten[at]);
            all.copied().filter(|to| self.levels[*to] == Isolation::Serializable).collect()
        };
        for at in 0..self.levels.len() {
            let cycle = "what transactions have read and written forms a cycle (G1c)";
            self.no_way(&self.follows[at], at, &follows, cycle)?;
            if self.levels[at] >= Isolation::RepeatableRead {
                let single = "a snapshot is not one (G-single)";
                self.no_way(&self.overwritten[at], at, &follows, single)?;
            }
            if self.levels[at] == Isolation::Serializable {
                let cycle = "SERIALIZABLE transactions form a cycle (G2)";
                self.no_way(&serializable(at), at, &serializable, cycle)?;
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
        let node = graph.add(transaction.isolation, &transaction.ids);
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
            writers.entry(*id).or_insert_with(|| graph.add(Isolation::ReadCommitted, &[*id]));
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
