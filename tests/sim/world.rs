//! The servers of the model: their content, replication, locks, deaths and promotions, and what one
//! statement does there. `backend` speaks the protocol.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::backend::{Backend, Wait};
use crate::data::{Op, Record, Reply, State};
use crate::isolation::{Isolation, Reads};
use crate::mutations;
use crate::replication::OURS;
use crate::rng::Rng;
use crate::sql::Stmt;

#[derive(Debug, Clone, PartialEq)]
pub enum Lock {
    T(i64),
    Acct(i64),
    Ledger(Uuid),
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
    pub snapshot: Option<Box<State>>,
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
    pub wal: Vec<Record>,
    pub state: State,
    /// Commits that wait for the standby: the position behind them.
    pub unconfirmed: Vec<(usize, usize)>,
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
            wal: Vec::new(),
            state: State::default(),
            unconfirmed: Vec::new(),
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
}

impl World {
    /// `addresses`: so many servers there are; none: one and its standbys, with addresses of their own.
    pub fn new(rng: Rng, sync: bool, big: usize, addresses: Option<usize>) -> Self {
        let mut ops = vec![Op::Big((0..big as i64).collect())];
        ops.extend((1..4).map(Op::T));
        ops.extend((1..4).map(Op::D));
        ops.extend((0..3).map(|key| Op::Acct(key, -1 - key)));
        let first = Record { ops, replies: Vec::new(), sealed: None };
        let mut servers = Vec::new();
        for address in 0..addresses.unwrap_or(2) {
            let standby = address > 0;
            let mut server = Server {
                alive: !standby || addresses.is_some(),
                in_recovery: standby,
                read_only: standby,
                timeline: 1,
                address,
                wal: vec![first.clone()],
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
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let (ms, us) = (self.now / 1000, self.now % 1000);
            trace.push(format!("{ms:>6}.{us:03} {}", text()));
        }
    }

    pub fn make_visible(&mut self, server: usize, position: usize) {
        let server = &mut self.servers[server];
        for op in &server.wal[position - 1].ops {
            server.state.apply(op);
        }
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
    fn lock(&mut self, me: usize, locks: &[Lock]) -> Result<(), Exec> {
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

    /// What the backend sees: what is committed, and its own.
    pub fn view(&self, me: usize) -> State {
        let backend = &self.backends[me];
        let snapshot = backend.tx.as_ref().and_then(|tx| tx.snapshot.as_deref());
        let mut state = snapshot.unwrap_or(&self.servers[backend.server].state).clone();
        if let Some(tx) = &backend.tx {
            tx.ops.iter().for_each(|op| state.apply(op));
        }
        state
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

    fn op(&mut self, me: usize, op: Op) {
        if let Some(tx) = &mut self.backends[me].tx {
            tx.ops.push(op);
            tx.has_xid = true;
        }
    }

    pub fn execute(&mut self, me: usize, stmt: &Stmt, params: &[Vec<u8>]) -> Exec {
        match self.try_execute(me, stmt, params) {
            Ok(done) | Err(done) => done,
        }
    }

    fn try_execute(&mut self, me: usize, stmt: &Stmt, params: &[Vec<u8>]) -> Result<Exec, Exec> {
        if self.is_read_only(me) && stmt.writes() {
            return Err(Exec::Error("25006"));
        }
        self.look(me, stmt);
        let uuid = |index: usize| {
            params.get(index).and_then(|p| Uuid::from_slice(p).ok()).ok_or(Exec::Error("22P03"))
        };
        let int = |index: usize| {
            let bytes = params.get(index).and_then(|p| p.as_slice().try_into().ok());
            bytes.map(i64::from_be_bytes).ok_or(Exec::Error("22P03"))
        };
        let tag = |tag: &str| Ok(Exec::Done { rows: Vec::new(), tag: tag.to_owned() });
        let row = |values: Vec<String>| {
            let tag = format!("SELECT {}", values.len());
            let rows = values.into_iter().map(|value| vec![value.into_bytes()]).collect();
            Ok(Exec::Done { rows, tag })
        };
        let texts = |values: &mut dyn Iterator<Item = i64>| values.map(|n| n.to_string()).collect();
        match stmt {
            Stmt::InsertT(id) => {
                self.insert_t(me, *id)?;
                tag("INSERT 0 1")
            }
            Stmt::InsertD(id) => {
                self.op(me, Op::D(*id));
                tag("INSERT 0 1")
            }
            Stmt::InsertLog(id) => {
                self.op(me, Op::Log(*id));
                tag("INSERT 0 1")
            }
            Stmt::UpdateAcct { key, id } => {
                self.lock(me, &[Lock::Acct(*key)])?;
                self.check_unchanged(me, |state| state.acct.get(key).cloned())?;
                self.op(me, Op::Acct(*key, *id));
                let rows = vec![self.account(me, *key)];
                Ok(Exec::Done { rows, tag: "UPDATE 1".into() })
            }
            Stmt::SelectT => row(texts(&mut self.view(me).t.into_iter())),
            Stmt::SelectLog => {
                let mut log = self.view(me).log;
                log.sort_unstable();
                row(texts(&mut log.into_iter()))
            }
            Stmt::SelectBig => row(texts(&mut self.view(me).big.into_iter())),
            Stmt::SelectAcct(key) => {
                let rows = vec![self.account(me, *key)];
                Ok(Exec::Done { rows, tag: "SELECT 1".into() })
            }
            Stmt::Peek(key) => {
                row(vec![self.view(me).acct.get(key).map_or(0, Vec::len).to_string()])
            }
            Stmt::Bump(id) => {
                self.op(me, Op::Log(*id));
                row(vec![self.view(me).log.len().to_string()])
            }
            Stmt::DivisionByZero => Err(Exec::Error("22012")),
            Stmt::Show(name) => {
                let session = &self.backends[me].session;
                let value = session.local.get(name).or_else(|| session.settings.get(name));
                let value = value.cloned().unwrap_or_default();
                Ok(Exec::Done { rows: vec![vec![value.into_bytes()]], tag: "SHOW".into() })
            }
            Stmt::CopyOutBig => tag("COPY"),
            Stmt::SealTable => {
                let (session, number) = (uuid(0)?, int(1)?);
                let sealed = self.seal(me, session, number)?;
                tag(if sealed { "UPDATE 1" } else { "UPDATE 0" })
            }
            Stmt::SealFunction | Stmt::SealGuarded => {
                let (session, number) = (uuid(0)?, int(1)?);
                let value = self.seal_by_function(me, stmt, session, number)?;
                Ok(Exec::Done {
                    rows: vec![vec![value.to_be_bytes().to_vec()]],
                    tag: "SELECT 1".into(),
                })
            }
            Stmt::SealSimple(session, number) => {
                let value = self.seal_by_function(me, &Stmt::SealGuarded, *session, *number)?;
                row(vec![value.to_string()])
            }
            Stmt::Look => {
                let array = params.first().ok_or(Exec::Error("22P03"))?;
                let state = self.view(me);
                let ids = array.get(20..).unwrap_or_default().chunks(20);
                let rows: Vec<Vec<Vec<u8>>> = ids
                    .filter_map(|element| Uuid::from_slice(element.get(4..)?).ok())
                    .filter_map(|id| state.ledger.get(&id).map(|found| (id, *found)))
                    .map(|(id, (seq, recent))| {
                        let numbers = [seq.to_be_bytes().to_vec(), recent.to_be_bytes().to_vec()];
                        [vec![id.as_bytes().to_vec()], numbers.to_vec()].concat()
                    })
                    .collect();
                let tag = format!("SELECT {}", rows.len());
                Ok(Exec::Done { rows, tag })
            }
            Stmt::Open => {
                let (opened, retired) = (uuid(0)?, uuid(1)?);
                let mut locks = vec![Lock::Ledger(opened)];
                let exists = |state: &State, id: &Uuid| state.ledger.contains_key(id);
                let retires = retired != opened && exists(&self.view(me), &retired);
                if retires {
                    locks.push(Lock::Ledger(retired));
                }
                self.lock(me, &locks)?;
                let state = self.view(me);
                if !exists(&state, &opened) {
                    self.op(me, Op::Ledger(opened, 0, 0));
                }
                if retires && exists(&state, &retired) {
                    self.op(me, Op::LedgerDelete(retired));
                }
                Ok(Exec::Done { rows: vec![vec![vec![0, 0, 0, 1]]], tag: "SELECT 1".into() })
            }
            Stmt::Terminate => self.terminate(me, params),
            Stmt::Ask(ask) => self.ask(me, ask),
            Stmt::Confirm => {
                self.op(me, Op::Message);
                row(vec!["0/0".into()])
            }
            // What touches the backend alone is done there.
            _ => Err(Exec::Error("XX000")),
        }
    }

    /// An account's key, and the numbers that were appended to it.
    fn account(&self, me: usize, key: i64) -> Vec<Vec<u8>> {
        let ids = self.view(me).acct.remove(&key).unwrap_or_default();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        vec![key.to_string().into_bytes(), ids.join(" ").into_bytes()]
    }

    pub fn insert_t(&mut self, me: usize, id: i64) -> Result<(), Exec> {
        self.lock(me, &[Lock::T(id)])?;
        if self.view(me).t.contains(&id) || self.committed(me).t.contains(&id) {
            return Err(Exec::Error("23505"));
        }
        self.op(me, Op::T(id));
        Ok(())
    }

    /// Whether the row was there.
    fn seal(&mut self, me: usize, session: Uuid, number: i64) -> Result<bool, Exec> {
        if !self.view(me).ledger.contains_key(&session) {
            return Ok(false);
        }
        self.lock(me, &[Lock::Ledger(session)])?;
        self.check_unchanged(me, |state| state.ledger.get(&session).copied())?;
        let Some((seq, recent)) = self.view(me).ledger.get(&session).copied() else {
            return Ok(false);
        };
        if seq >= number && !mutations::seal_never_raises() {
            return Err(Exec::Error("SG001"));
        }
        let recent = if number - seq <= 63 {
            recent.checked_shl(u32::try_from(number - seq).unwrap()).unwrap_or(0) | 1
        } else {
            1
        };
        self.op(me, Op::Ledger(session, number, recent));
        if let Some(tx) = &mut self.backends[me].tx {
            tx.sealed = Some((session, number));
        }
        Ok(true)
    }

    pub fn seal_by_function(
        &mut self,
        me: usize,
        stmt: &Stmt,
        session: Uuid,
        number: i64,
    ) -> Result<i64, Exec> {
        let has_xid = self.backends[me].tx.as_ref().is_some_and(|tx| tx.has_xid);
        if *stmt == Stmt::SealGuarded && (!has_xid || self.is_read_only(me)) {
            return Ok(0);
        }
        match self.seal(me, session, number)? {
            true => Ok(number),
            false => Err(Exec::Error("SG002")),
        }
    }

    /// Tells another backend to end, and waits for that; now and then in vain.
    fn terminate(&mut self, me: usize, params: &[Vec<u8>]) -> Result<Exec, Exec> {
        let pid = params.first().and_then(|p| p.as_slice().try_into().ok()).map(i32::from_be_bytes);
        let start = params.get(1).map(|text| String::from_utf8_lossy(text).into_owned());
        let server = self.backends[me].server;
        let target = self.backends.iter().position(|other| {
            other.server == server
                && Some(other.pid) == pid
                && Some(&other.start) == start.as_ref()
                && other.alive
        });
        let value = match (target, &self.backends[me].wait) {
            (None, Wait::Terminate) => Some(1),
            (None, _) => None,
            (Some(target), Wait::Terminate) if self.backends[target].stubborn => {
                if !self.rng.chance(20) {
                    return Err(Exec::Blocked);
                }
                self.note(|| format!("backend {me} gives up waiting for the end of {target}"));
                Some(0)
            }
            (Some(target), _) => {
                self.backends[target].told_to_end = true;
                self.backends[me].wait = Wait::Terminate;
                return Err(Exec::Blocked);
            }
        };
        self.backends[me].wait = Wait::Nothing;
        let rows: Vec<Vec<Vec<u8>>> = value.map(|value| vec![vec![value]]).into_iter().collect();
        let tag = format!("SELECT {}", rows.len());
        Ok(Exec::Done { rows, tag })
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
        let record = Record { ops: tx.ops, replies: tx.replies, sealed: tx.sealed };
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
        if !self.servers[server].alive || self.servers[server].read_only {
            return;
        }
        let op = match self.rng.below(3) {
            0 => {
                let rows =
                    (0..self.rng.below(9) as i64).map(|n| n + self.rng.below(2) as i64).collect();
                Op::Big(rows)
            }
            1 => Op::Log(-100 - self.rng.below(1_000_000) as i64),
            _ => Op::Acct(self.rng.below(3) as i64, -100 - self.rng.below(1_000_000) as i64),
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
        self.note(|| format!("the second writer: {op:?}"));
        // Its commit waits for nobody, so that it needs no backend; that it is seen early harms none.
        self.servers[server].state.apply(&op);
        self.servers[server].wal.push(Record { ops: vec![op], replies: Vec::new(), sealed: None });
    }
}
