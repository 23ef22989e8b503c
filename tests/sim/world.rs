//! The servers of the model: their content, replication, locks, deaths and promotions, and what one
//! statement does there. `backend` speaks the protocol.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use uuid::Uuid;

use crate::backend::{Backend, Wait};
use crate::data::{Op, Record, Reply, State};
use crate::isolation::{Isolation, Reads};
use crate::profile::Profile;
use crate::replication::OURS;
use crate::rng::Rng;
use crate::workload::Sort;

#[derive(Debug, Clone, PartialEq)]
pub enum Lock {
    T(i64),
    Acct(i64),
    Ledger(Uuid),
    Claim(Uuid),
}

/// A transaction that is open on a backend.
#[derive(Debug, Clone, Default)]
pub struct Tx {
    pub ops: Vec<Op>,
    pub locks: Vec<Lock>,
    /// The server was read-only when it began: that holds to its end, and so does the contrary.
    pub read_only: bool,
    pub savepoints: Vec<(String, usize, Session)>,
    /// It has a transaction id.
    pub has_xid: bool,
    pub replies: Vec<Reply>,
    pub sealed: Option<(Uuid, i64)>,
    pub isolation: Isolation,
    /// What was committed when it first looked, where its isolation holds to that.
    pub snapshot: Option<Rc<State>>,
    pub reads: Reads,
}

/// The part of a backend's state that a transaction can change and roll back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Session {
    pub settings: BTreeMap<String, String>,
    pub local: BTreeMap<String, String>,
    pub channels: BTreeSet<String>,
}

#[derive(Debug)]
pub struct Server {
    pub alive: bool,
    pub read_only: bool,
    pub in_recovery: bool,
    pub timeline: u32,
    /// Its system identifier.
    pub system: u64,
    /// What clients know it by; another server may have been there before.
    pub address: usize,
    /// So often it has died.
    pub crashes: usize,
    /// Its postmaster was started so often, and its helpers were.
    pub starts: usize,
    pub helpers: usize,
    pub wal: Vec<Rc<Record>>,
    pub state: Rc<State>,
    /// The last value of the sequence, which is logged some values ahead.
    pub sequence: i64,
    /// Commits that wait for the standby: the position behind them.
    pub unconfirmed: Vec<(usize, usize)>,
    /// Of a primary: up to here a standby had its transactions, so that somebody may have been told of them.
    pub acknowledged: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            alive: false,
            read_only: false,
            in_recovery: false,
            timeline: 0,
            system: OURS,
            address: 0,
            crashes: 0,
            starts: 0,
            helpers: 0,
            wal: Vec::new(),
            state: Rc::default(),
            sequence: 0,
            unconfirmed: Vec::new(),
            acknowledged: 0,
        }
    }
}

pub enum Exec {
    Done { rows: Vec<Vec<Vec<u8>>>, tag: String },
    Error(&'static str),
    Blocked,
}

pub struct World {
    pub rng: Rng,
    pub servers: Vec<Server>,
    pub backends: Vec<Backend>,
    pub primary: usize,
    pub standbys: Vec<usize>,
    /// Each server that there ever was has an address of its own.
    pub own_addresses: bool,
    /// The time since the run began, in microseconds.
    pub now: u64,
    pub sync: bool,
    /// Every execution of a statement of the user's: its text, and what it returned.
    pub executions: HashMap<String, Vec<Reply>>,
    pub trace: Option<Vec<String>>,
    /// Whose turn it is, for the trace.
    pub client: usize,
    pub profile: Profile,
    /// The transactions that were committed on whichever server, by the numbers that they have written.
    pub commits: HashMap<i64, Vec<Rc<Record>>>,
    /// The numbers that the second writer has written.
    second_ids: BTreeSet<i64>,
    /// The ledger of submissions is hardened.
    pub claims_by_function: bool,
}

impl World {
    /// `addresses`: so many servers there are; none: one and its standbys, with addresses of their own.
    pub fn new(
        rng: Rng,
        profile: Profile,
        sync: bool,
        big: usize,
        addresses: Option<usize>,
    ) -> Self {
        let mut ops = vec![Op::Big((0..big as i64).collect())];
        ops.extend((1..4).map(Op::T));
        ops.extend((1..4).map(Op::D));
        ops.extend((0..3).map(|key| Op::Acct(key, -1 - key)));
        let first = Rc::new(Record { ops, ..Record::default() });
        let mut servers = Vec::new();
        for address in 0..addresses.unwrap_or(2) {
            let standby = address > 0;
            let mut server = Server {
                alive: !standby || addresses.is_some(),
                in_recovery: standby,
                read_only: standby,
                timeline: 1,
                address,
                wal: vec![Rc::clone(&first)],
                ..Server::default()
            };
            server.rebuild();
            servers.push(server);
        }
        let standbys = (1..servers.len()).collect();
        Self {
            rng,
            servers,
            backends: Vec::new(),
            primary: 0,
            standbys,
            own_addresses: addresses.is_none(),
            now: 0,
            sync,
            executions: HashMap::new(),
            trace: None,
            client: 0,
            profile,
            commits: HashMap::new(),
            second_ids: BTreeSet::new(),
            claims_by_function: false,
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let (ms, us) = (self.now / 1000, self.now % 1000);
            let client = self.client;
            trace.push(format!("{ms:>6}.{us:03} [{client}] {}", text()));
        }
    }

    pub fn make_visible(&mut self, server: usize, position: usize) {
        let server = &mut self.servers[server];
        let state = Rc::make_mut(&mut server.state);
        server.wal[position - 1].ops.iter().for_each(|op| state.apply(op));
    }

    pub fn open_backend(&mut self, server: usize) -> usize {
        let id = self.backends.len();
        let buffer = *self.rng.pick(&[0, 40, 8192]);
        self.backends.push(Backend::new(id, server, buffer));
        id
    }

    /// A backend ends for whatever reason: what it has not committed is rolled back.
    pub fn end_backend(&mut self, id: usize, last_words: Option<&[u8]>) {
        let server = self.backends[id].server;
        if let Some(index) = self.servers[server].unconfirmed.iter().position(|(_, b)| *b == id) {
            let (position, _) = self.servers[server].unconfirmed.remove(index);
            // The wait is broken off; the commit stands on this server all the same.
            self.make_visible(server, position);
        }
        let backend = &mut self.backends[id];
        if !backend.alive {
            return;
        }
        backend.alive = false;
        backend.tx = None;
        backend.wait = Wait::Nothing;
        backend.input.clear();
        if let Some(words) = last_words {
            let mut out = std::mem::take(&mut backend.out);
            out.extend_from_slice(words);
            backend.wire.extend(out);
        }
        self.note(|| format!("backend {id} ends"));
    }

    pub fn end_backends(&mut self, server: usize, last_words: Option<&[u8]>) {
        for id in 0..self.backends.len() {
            if self.backends[id].server == server && self.backends[id].alive {
                self.end_backend(id, last_words);
            }
        }
    }

    fn holder(&self, me: usize, lock: &Lock) -> Option<usize> {
        let server = self.backends[me].server;
        self.backends.iter().position(|other| {
            other.id != me
                && other.server == server
                && other.alive
                && other.tx.as_ref().is_some_and(|tx| tx.locks.contains(lock))
        })
    }

    /// Takes the locks, or waits for their holder.
    pub fn lock(&mut self, me: usize, locks: &[Lock]) -> Result<(), Exec> {
        for lock in locks {
            let Some(holder) = self.holder(me, lock) else { continue };
            let mut next = holder;
            for _ in 0..self.backends.len() {
                match self.backends[next].wait {
                    Wait::Lock(other) if other == me => {
                        self.note(|| format!("backend {me} is the victim of a deadlock"));
                        return Err(Exec::Error("40P01"));
                    }
                    Wait::Lock(other) => next = other,
                    _ => break,
                }
            }
            self.note(|| format!("backend {me} waits for {holder}: {lock:?}"));
            self.backends[me].wait = Wait::Lock(holder);
            return Err(Exec::Blocked);
        }
        self.backends[me].wait = Wait::Nothing;
        let Some(tx) = &mut self.backends[me].tx else { return Ok(()) };
        tx.locks.extend_from_slice(locks);
        tx.has_xid = true;
        Ok(())
    }

    /// Whether the backend's transaction can only read, as `transaction_read_only` says it.
    pub fn is_read_only(&self, me: usize) -> bool {
        let backend = &self.backends[me];
        let server = &self.servers[backend.server];
        backend.tx.as_ref().map_or(server.read_only, |tx| tx.read_only)
    }

    pub fn begin_implicitly(&mut self, me: usize) {
        let read_only = self.servers[self.backends[me].server].read_only;
        self.backends[me].begin_implicitly(read_only);
    }

    pub fn op(&mut self, me: usize, op: Op) {
        if let Some(tx) = &mut self.backends[me].tx {
            tx.ops.push(op);
            tx.has_xid = true;
        }
    }

    /// Writes the transaction into the log. False: it must wait for the standby before it counts.
    pub fn commit(&mut self, me: usize) -> Result<bool, &'static str> {
        let server = self.backends[me].server;
        let Some(tx) = self.backends[me].tx.clone() else { return Ok(true) };
        let mut deferred = BTreeSet::new();
        for op in &tx.ops {
            if let Op::D(id) = op {
                let unconfirmed = self.servers[server].unconfirmed.iter();
                let pending = unconfirmed
                    .flat_map(|(at, _)| &self.servers[server].wal[*at - 1].ops)
                    .any(|other| other == op);
                if pending || self.servers[server].state.d.contains(id) || !deferred.insert(*id) {
                    self.backends[me].tx = None;
                    return Err("23505");
                }
            }
        }
        if !tx.ops.is_empty() && !self.may_serialize(me) {
            self.backends[me].tx = None;
            return Err("40001");
        }
        if tx.ops.is_empty() {
            self.commit_is_visible(me);
            return Ok(true);
        }
        let record = Rc::new(Record { ops: tx.ops, replies: tx.replies, sealed: tx.sealed });
        for id in record.ids() {
            self.commits.entry(id).or_default().push(Rc::clone(&record));
        }
        self.servers[server].wal.push(record);
        let position = self.servers[server].wal.len();
        self.note(|| format!("backend {me} commits as transaction {position} of server {server}"));
        if self.sync {
            // Also on a primary that was deposed: there it waits for ever.
            self.servers[server].unconfirmed.push((position, me));
            self.backends[me].wait = Wait::Standby;
            return Ok(false);
        }
        self.make_visible(server, position);
        self.commit_is_visible(me);
        Ok(true)
    }

    pub fn commit_is_visible(&mut self, me: usize) {
        let backend = &mut self.backends[me];
        backend.tx = None;
        backend.session.local.clear();
        backend.wait = Wait::Nothing;
    }

    /// Somebody else changes rows on the primary.
    pub fn second_writer(&mut self) {
        let server = self.primary;
        let rests = self.profile.second_writes_left == 0;
        if rests || !self.servers[server].alive || self.servers[server].read_only {
            return;
        }
        let sort = match self.profile.second_writes {
            Some(Sort::SelectBig) => 0,
            Some(Sort::UpdateAcct) => 2,
            _ => self.rng.below(3),
        };
        let op = match sort {
            0 => {
                let rows =
                    (0..self.rng.below(9) as i64).map(|n| n + self.rng.below(2) as i64).collect();
                Op::Big(rows)
            }
            1 => Op::Log(self.second_id()),
            _ => Op::Acct(self.rng.below(self.profile.second_keys()) as i64, self.second_id()),
        };
        if let Op::Acct(key, _) = op {
            let lock = Lock::Acct(key);
            let held = self.backends.iter().any(|other| {
                other.server == server
                    && other.alive
                    && other.tx.as_ref().is_some_and(|tx| tx.locks.contains(&lock))
            });
            if held {
                return;
            }
        }
        self.profile.second_writes_left -= 1;
        self.note(|| format!("the second writer: {op:?}"));
        // Its commit waits for nobody, so that it needs no backend; that it is seen early harms none.
        let server = &mut self.servers[server];
        Rc::make_mut(&mut server.state).apply(&op);
        server.wal.push(Rc::new(Record { ops: vec![op], ..Record::default() }));
    }

    /// A number that the second writer has not written yet: what is appended to a list twice would say
    /// nothing of what came first.
    fn second_id(&mut self) -> i64 {
        let mut id = -100 - self.rng.below(1_000_000) as i64;
        while !self.second_ids.insert(id) {
            id -= 1;
        }
        id
    }
}
