//! Replication between the model's servers: who follows whom, crashes, promotions, and servers that are
//! made anew behind their old address.

use std::rc::Rc;

use crate::data::{Record, State};
use crate::world::{Server, World};

/// One record of the log, in bytes of WAL.
const RECORD_BYTES: u64 = 8 << 20;
/// The cluster's system identifier, and that of another one.
pub const OURS: u64 = 77;
pub const FOREIGN: u64 = 78;

impl Server {
    pub fn rebuild(&mut self) {
        let mut state = State::default();
        for record in &self.wal {
            record.ops.iter().for_each(|op| state.apply(op));
        }
        self.sequence = state.sequence;
        self.state = Rc::new(state);
        self.unconfirmed.clear();
    }

    pub fn lsn(&self) -> u64 {
        self.wal.len() as u64 * RECORD_BYTES
    }
}

impl World {
    /// One of the standbys receives up to `count` more transactions.
    pub fn replicate(&mut self, standby: usize, count: usize) {
        let at = self.servers[standby].wal.len();
        let all = &self.servers[self.primary].wal;
        let end = all.len().min(at.saturating_add(count));
        let more: Vec<Rc<Record>> = all[at.min(end)..end].to_vec();
        if more.is_empty() {
            return;
        }
        self.note(|| format!("standby {standby} has {end} transactions"));
        self.servers[standby].wal.extend(more);
        self.confirm(end);
    }

    pub fn lag(&self, standby: usize) -> usize {
        self.servers[self.primary].wal.len().saturating_sub(self.servers[standby].wal.len())
    }

    /// Ends the waits of commits that a standby has: any one of them will do.
    fn confirm(&mut self, end: usize) {
        let server = self.primary;
        self.servers[server].acknowledged = self.servers[server].acknowledged.max(end);
        let done: Vec<(usize, usize)> =
            self.servers[server].unconfirmed.iter().copied().filter(|(at, _)| *at <= end).collect();
        self.servers[server].unconfirmed.retain(|(at, _)| *at > end);
        for (position, backend) in done {
            self.make_visible(server, position);
            self.commit_is_visible(backend);
        }
    }

    /// The server dies at once: commits that wait for the standby are in its log and nowhere else.
    pub fn crash(&mut self, server: usize, last_words: Option<&[u8]>) {
        self.note(|| format!("server {server} dies"));
        self.servers[server].alive = false;
        self.servers[server].crashes += 1;
        self.end_backends(server, last_words);
        self.servers[server].unconfirmed.clear();
    }

    pub fn restart(&mut self, server: usize) {
        self.note(|| format!("server {server} is up again"));
        self.servers[server].alive = true;
        self.servers[server].starts += 1;
        self.servers[server].helpers += 1;
        self.servers[server].read_only = self.servers[server].in_recovery;
        self.servers[server].rebuild();
    }

    /// A standby takes over. Where every server has an address of its own, it gets a new standby;
    /// otherwise the others follow it, if they are not ahead of it.
    pub fn promote(&mut self, new: usize) {
        let timeline = self.servers[self.primary].timeline + 1;
        let server = &mut self.servers[new];
        server.alive = true;
        server.timeline = timeline;
        server.in_recovery = false;
        server.read_only = false;
        server.rebuild();
        let has = server.wal.len();
        server.acknowledged = has;
        self.primary = new;
        self.standbys.retain(|standby| *standby != new);
        if self.own_addresses {
            self.standbys.clear();
            let address = self.servers.len();
            self.add_standby(address, false);
        } else {
            for standby in std::mem::take(&mut self.standbys) {
                if self.servers[standby].wal.len() <= has {
                    self.servers[standby].timeline = timeline;
                    self.standbys.push(standby);
                } else {
                    // It would have to be rewound first.
                    self.crash(standby, None);
                }
            }
        }
        self.note(|| {
            format!("server {new} is promoted with {has} transactions, timeline {timeline}")
        });
    }

    fn add_standby(&mut self, address: usize, alive: bool) {
        let primary = &self.servers[self.primary];
        let mut standby = Server {
            alive,
            address,
            in_recovery: true,
            read_only: true,
            timeline: primary.timeline,
            wal: primary.wal.clone(),
            ..Server::default()
        };
        standby.rebuild();
        let has = standby.wal.len();
        self.servers.push(standby);
        self.standbys.push(self.servers.len() - 1);
        self.confirm(has);
    }

    /// Whatever was behind an address makes way for a standby, made anew from the primary.
    pub fn rejoin(&mut self, address: usize, old: usize, words: Option<&[u8]>) -> usize {
        if self.servers[old].alive {
            self.crash(old, words);
        }
        self.standbys.retain(|standby| *standby != old);
        self.add_standby(address, true);
        let new = self.servers.len() - 1;
        self.note(|| format!("server {old} is made anew as the standby {new}"));
        new
    }

    /// A server of another cluster takes the place of one that is down.
    pub fn add_foreign(&mut self, address: usize) -> usize {
        let (system, timeline) = (FOREIGN, 9);
        self.servers.push(Server { alive: true, address, system, timeline, ..Server::default() });
        let new = self.servers.len() - 1;
        self.note(|| format!("server {new} of another cluster is at address {address}"));
        new
    }
}
