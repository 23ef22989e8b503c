//! The application of the model: what it asks for at random, what it is told, and what must
//! therefore be true of the servers. Knows nothing of how a session keeps its promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use segue::error::{Error, ErrorKind, Outcome};
use uuid::Uuid;

use crate::data::{Record, Reply};
use crate::isolation::Isolation;
use crate::sql::{self, Stmt};
use crate::world::{Session, World};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Execute,
    Begin,
    Commit,
    Rollback,
}

/// One request of the application, and what it was told of it so far.
#[derive(Debug)]
pub struct Request {
    pub kind: Kind,
    pub sql: String,
    pub streamed: bool,
    pub autocommit: bool,
    /// The numbers that it writes.
    pub ids: Vec<i64>,
    /// The one of them that it passes as a parameter.
    pub parameter: Option<i64>,
    pub rows: Vec<String>,
    pub results: Vec<Reply>,
    pub error: Option<Error>,
    /// What COPY FROM STDIN is yet to send.
    pub lines: Vec<i64>,
    pub copy_fails: bool,
    pub copy_ready: bool,
    /// So many links had been lost when it was made.
    pub links_lost: u32,
}

impl Request {
    pub fn new(kind: Kind, sql: &str) -> Self {
        Self {
            kind,
            sql: sql.to_owned(),
            streamed: false,
            autocommit: true,
            ids: Vec::new(),
            parameter: None,
            rows: Vec::new(),
            results: Vec::new(),
            error: None,
            lines: Vec::new(),
            copy_fails: false,
            copy_ready: false,
            links_lost: 0,
        }
    }

    /// The text that is sent.
    pub fn template(&self) -> String {
        let Some(value) = self.parameter else { return self.sql.clone() };
        self.sql.replace(&value.to_string(), sql::PARAMETER)
    }

    pub fn copies_in(&self) -> bool {
        self.sql.starts_with("COPY") && self.sql.ends_with("STDIN")
    }
}

/// What must be true of a number at the end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expect {
    Once,
    Never,
    /// Together with all of the same group, or none of them.
    Maybe(usize),
}

/// The transaction as the application knows it.
#[derive(Debug, Default)]
pub struct Transaction {
    /// The numbers written by statements that succeeded, and those of which nothing was said.
    pub ids: Vec<i64>,
    pub gone: Vec<i64>,
    pub seen: Vec<Reply>,
    /// What the last statements returned is lost.
    pub reply_lost: bool,
    /// A statement failed, and nothing has been rolled back since.
    pub failed: bool,
    /// A string failed that had made a savepoint, so that rolling back to one may bring back more, or
    /// less, than is kept account of here: if it commits, nothing is expected of what it wrote.
    pub unsure: bool,
    /// It was ended by something else than the server.
    pub doomed: bool,
    pub savepoints: Vec<(String, usize, Session)>,
    before: Session,
    isolation: Isolation,
}

/// A transaction that was told to be committed, and what it was told before.
#[derive(Debug)]
pub struct Committed {
    pub ids: Vec<i64>,
    pub seen: Vec<Reply>,
    /// Something of what it returned was lost.
    pub in_part: bool,
    pub isolation: Isolation,
}

#[derive(Debug, Default)]
pub struct App {
    pub next_id: i64,
    pub tx: Option<Transaction>,
    pub expect: BTreeMap<i64, Expect>,
    /// Of these nothing is expected.
    pub unsure: BTreeSet<i64>,
    pub groups: usize,
    pub session: Session,
    /// It cannot know which settings are in force.
    pub settings_unknown: bool,
    pub ledger: bool,
    /// `handle_no_link` was called: an outcome may be unknown.
    pub no_link: bool,
    /// It is being told that no server, or no backup, was found in time.
    pub time_is_over: bool,
    pub read_only_seen: bool,
    pub lost: Vec<(Uuid, u64, u64)>,
    pub unknowns: usize,
    pub committed: Vec<Committed>,
    /// `ledger=require`.
    pub ledger_required: bool,
    /// `autocommit_reply=before_commit`.
    pub reply_first: bool,
    pub links_lost: u32,
    /// `commit_ack=backup`: what is told to be committed is on another server as well.
    pub backed: bool,
    /// The ledger's rows are given up so soon that a session may have more of them than it remembers.
    pub rotates_fast: bool,
    /// Told before the process died: that a promotion has lost them, nobody is left to tell.
    pub orphaned: BTreeSet<i64>,
    /// The journal was told of a commit without a seal.
    pub unsealed: bool,
}

/// What the server may say and the application may hear.
/// 26000: where a Parse has failed, the same statement later in the pipeline is missing.
const CODES: [&str; 17] = [
    "26000", "23505", "22012", "42601", "25P02", "40P01", "57014", "25001", "25P01", "3B001",
    "22P02", "40001", "22003", "23514", "55000", "53100", "53200",
];

impl App {
    pub fn begin(&mut self, isolation: Isolation) {
        let before = self.session.clone();
        self.tx = Some(Transaction { before, isolation, ..Transaction::default() });
    }

    /// A request has been answered in full.
    pub fn finish(&mut self, request: Request, world: &World) -> Result<(), String> {
        if let Some(error) = &request.error {
            self.check_error(&request, error)?;
        }
        let readable = request.error.is_none() && !request.sql.contains(';');
        if readable && request.kind == Kind::Execute {
            let known = world.executions.get(&request.sql);
            let [result] = request.results.as_slice() else {
                return Err(format!(
                    "a request has not just one result: {} of {}",
                    request.results.len(),
                    request.sql
                ));
            };
            if !known.is_some_and(|known| known.contains(result)) {
                return Err(format!(
                    "no server has ever answered so: {} with {result:?}",
                    request.sql
                ));
            }
        }
        if request.error.is_some() && !request.sql.contains(';') {
            check_part(&request, world)?;
        }
        match request.kind {
            Kind::Begin => Ok(()),
            Kind::Execute if request.autocommit => self.finish_autocommit(&request, world),
            Kind::Execute => self.finish_in_transaction(request),
            Kind::Commit => self.finish_commit(&request, world),
            Kind::Rollback => {
                let tx = self.tx.take().unwrap_or_default();
                self.mark(tx.ids.iter().chain(&tx.gone), Expect::Never);
                self.session = tx.before;
                Ok(())
            }
        }
    }

    fn check_error(&mut self, request: &Request, error: &Error) -> Result<(), String> {
        if error.kind() == ErrorKind::Server {
            let code = error.sqlstate();
            let may_be = match code {
                "25006" => self.read_only_seen,
                _ => CODES.contains(&code),
            };
            if !may_be {
                return Err(format!("the application hears {code}: {}", request.sql));
            }
        }
        let late = error.kind() == ErrorKind::FailoverTimeout;
        if late && error.outcome() == Outcome::Committed && !self.time_is_over {
            return Err(format!("told as if its time were over, and it is not: {}", request.sql));
        }
        if error.kind() == ErrorKind::Usage {
            return Err(format!("a usage error: {}: {error}", request.sql));
        }
        if error.outcome() == Outcome::Unknown {
            self.unknowns += 1;
            if (self.ledger || self.ledger_required) && !self.no_link && !self.read_only_seen {
                return Err(format!("an outcome is unknown, and need not be: {}", request.sql));
            }
        }
        Ok(())
    }

    pub fn mark<'a>(&mut self, ids: impl Iterator<Item = &'a i64>, expect: Expect) {
        for id in ids {
            self.expect.insert(*id, expect);
        }
    }

    pub fn maybe(&mut self) -> Expect {
        self.groups += 1;
        self.settings_unknown = true;
        Expect::Maybe(self.groups)
    }

    fn finish_autocommit(&mut self, request: &Request, world: &World) -> Result<(), String> {
        let outcome = request.error.as_ref().map_or(Outcome::Committed, Error::outcome);
        match outcome {
            Outcome::NotCommitted => self.mark(request.ids.iter(), Expect::Never),
            Outcome::Committed => {
                self.mark(request.ids.iter(), Expect::Once);
                self.change_session(&request.sql);
                self.session.local.clear();
                // Something may be missing of what it returned; of a result that is taken as a whole, all of it.
                let lost = request.error.is_some();
                let reply_lost =
                    request.error.as_ref().is_some_and(|it| it.kind() == ErrorKind::ReplyLost);
                // The commit of one of several attempts may be another's than the reply that is at hand.
                let attempts = self.links_lost - request.links_lost;
                if reply_lost && self.reply_first && attempts < 2 && !request.sql.contains(';') {
                    return Err(format!(
                        "a reply is lost that was to come before its commit: {}",
                        request.sql
                    ));
                }
                let seen =
                    if lost && !request.streamed { Vec::new() } else { request.results.clone() };
                compare(&request.ids, &seen, lost, world)?;
                if !lost {
                    self.check_backed(&request.ids, world)?;
                }
                let (ids, isolation) = (request.ids.clone(), Isolation::ReadCommitted);
                self.committed.push(Committed { ids, seen, in_part: lost, isolation });
            }
            _ => {
                let maybe = self.maybe();
                self.mark(request.ids.iter(), maybe);
            }
        }
        Ok(())
    }

    fn finish_in_transaction(&mut self, request: Request) -> Result<(), String> {
        let mut tx = self.tx.take().unwrap_or_default();
        tx.seen.extend(request.results);
        match &request.error {
            None if tx.failed && !request.sql.starts_with("ROLLBACK TO") => {
                return Err(format!(
                    "a statement succeeds in a failed transaction: {}",
                    request.sql
                ));
            }
            None => {
                if request.sql.starts_with("COPY") {
                    tx.ids.extend(&request.ids);
                }
                self.change_in_transaction(&request.sql, &mut tx);
            }
            Some(error) if error.kind() == ErrorKind::ReplyLost => {
                tx.reply_lost = true;
                if request.sql.starts_with("COPY") {
                    tx.ids.extend(&request.ids);
                }
                self.change_in_transaction(&request.sql, &mut tx);
            }
            Some(error) => {
                tx.failed = true;
                tx.gone.extend(&request.ids);
                let parts = || request.sql.split("; ");
                if parts().count() > 1 && parts().any(controls_savepoints) {
                    // What a string has done up to a savepoint of its own stands if that is rolled
                    // back to, and so does what an older one of that name had been made for; and which
                    // that is depends on how many of its own it has released.
                    self.settings_unknown = true;
                    tx.unsure = true;
                }
                if error.kind() == ErrorKind::Server {
                    let end = error.sqlstate().to_owned();
                    tx.seen.push(Reply { rows: Vec::new(), end });
                } else if error.outcome() == Outcome::NotCommitted {
                    tx.doomed = true;
                } else {
                    // The commit behind it is unknown, and so is this.
                    tx.ids.extend(&request.ids);
                    tx.gone.retain(|id| !request.ids.contains(id));
                    tx.reply_lost = true;
                }
            }
        }
        self.tx = Some(tx);
        Ok(())
    }

    fn finish_commit(&mut self, request: &Request, world: &World) -> Result<(), String> {
        let mut tx = self.tx.take().unwrap_or_default();
        let tag = request.results.last().map(|reply| reply.end.as_str());
        let outcome = match (&request.error, tag) {
            (Some(error), _) => error.outcome(),
            (None, Some("COMMIT")) => Outcome::Committed,
            (None, Some("ROLLBACK")) => Outcome::NotCommitted,
            _ => return Err(format!("COMMIT is answered with {tag:?}")),
        };
        if outcome == Outcome::NotCommitted || !tx.unsure {
            self.mark(tx.gone.iter(), Expect::Never);
        }
        match outcome {
            _ if tx.unsure && outcome != Outcome::NotCommitted => {
                self.session.local.clear();
                self.unsure.extend(tx.ids.iter().chain(&tx.gone));
            }
            Outcome::Committed => {
                if tx.doomed || (tx.failed && !tx.reply_lost) {
                    return Err("a transaction that has failed is committed".into());
                }
                self.mark(tx.ids.iter(), Expect::Once);
                self.session.local.clear();
                tx.reply_lost |= request.error.is_some();
                compare(&tx.ids, &tx.seen, tx.reply_lost, world)?;
                if request.error.is_none() {
                    self.check_backed(&tx.ids, world)?;
                }
                let Transaction { ids, seen, isolation, reply_lost: in_part, .. } = tx;
                self.committed.push(Committed { ids, seen, in_part, isolation });
            }
            Outcome::NotCommitted => {
                if tx.reply_lost && request.error.is_none() {
                    return Err(
                        "a statement is reported committed, its transaction rolled back".into()
                    );
                }
                self.mark(tx.ids.iter(), Expect::Never);
                self.session = tx.before;
            }
            _ => {
                let maybe = self.maybe();
                self.mark(tx.ids.iter(), maybe);
            }
        }
        Ok(())
    }

    /// A sealed commit that is told without an error must not be on one server alone.
    fn check_backed(&self, ids: &[i64], world: &World) -> Result<(), String> {
        let (true, Some(id)) = (self.backed, ids.first()) else { return Ok(()) };
        let has = |record: &Rc<Record>| record.sealed.is_some() && record.ids().any(|n| n == *id);
        let sealed = world.servers.iter().filter(|server| server.wal.iter().any(has)).count();
        if sealed == 1 {
            return Err(format!("told to be committed, and no backup has it: {id}"));
        }
        Ok(())
    }

    fn change_in_transaction(&mut self, sql: &str, tx: &mut Transaction) {
        for text in sql.split("; ") {
            match sql::parse(text) {
                Some(Stmt::Savepoint(name)) => {
                    tx.savepoints.push((name, tx.ids.len(), self.session.clone()));
                }
                Some(Stmt::Release(name)) => {
                    if let Some(at) = tx.savepoints.iter().rposition(|(known, ..)| *known == name) {
                        tx.savepoints.truncate(at);
                    }
                }
                Some(Stmt::RollbackTo(name)) => {
                    tx.failed = false;
                    if let Some(at) = tx.savepoints.iter().rposition(|(known, ..)| *known == name) {
                        self.session = tx.savepoints[at].2.clone();
                        let ids = tx.ids.split_off(tx.savepoints[at].1.min(tx.ids.len()));
                        tx.gone.extend(ids);
                        tx.savepoints.truncate(at + 1);
                    }
                }
                Some(
                    Stmt::InsertT(id)
                    | Stmt::InsertD(id)
                    | Stmt::InsertLog(id)
                    | Stmt::Bump(id)
                    | Stmt::UpdateAcct { id, .. },
                ) if id > 1000 => tx.ids.push(id),
                _ => self.change_session(text),
            }
        }
    }

    fn change_session(&mut self, sql: &str) {
        let session = &mut self.session;
        for text in sql.split("; ") {
            match sql::parse(text) {
                Some(Stmt::Set { name, value, local: true }) => {
                    drop(session.local.insert(name, value))
                }
                Some(Stmt::Set { name, value, .. } | Stmt::SetConfig { name, value }) => {
                    session.settings.insert(name, value);
                }
                Some(Stmt::Reset(name)) if name == "ALL" => session.settings.clear(),
                Some(Stmt::Reset(name)) => drop(session.settings.remove(&name)),
                Some(Stmt::Listen(channel)) => drop(session.channels.insert(channel)),
                Some(Stmt::Unlisten(channel)) if channel == "*" => session.channels.clear(),
                Some(Stmt::Unlisten(channel)) => drop(session.channels.remove(&channel)),
                Some(Stmt::DiscardAll) => *session = Session::default(),
                _ => {}
            }
        }
    }

    /// Compares what was promised with what the surviving server has.
    pub fn judge(&self, world: &World) -> Result<(), String> {
        let server = &world.servers[world.primary];
        let counts = server.state.counts();
        let mut groups: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (id, expect) in &self.expect {
            let count = counts.get(id).copied().unwrap_or(0);
            match (expect, count) {
                (Expect::Once, 1) | (Expect::Never, 0) => {}
                (Expect::Once, 0) => match self.lost_number(*id, world) {
                    Some(true) if world.sync => {
                        return Err(format!("lost although replication is synchronous: {id}"));
                    }
                    Some(true) => {}
                    _ if !self.ledger && !world.sync => {}
                    Some(false) if self.orphaned.contains(id) && !world.sync => {}
                    Some(false) if self.has_forgotten(*id, world) && !world.sync => {}
                    Some(false) => {
                        return Err(format!("reported committed, and lost in silence: {id}"));
                    }
                    None => return Err(format!("reported committed, and never was: {id}")),
                },
                (Expect::Maybe(group), 0 | 1) => {
                    let (absent, present) = groups.entry(*group).or_default();
                    *[absent, present][count] += 1;
                }
                _ => {
                    let expected = if *expect == Expect::Never { "never" } else { "once" };
                    return Err(format!("there {count} times, expected {expected}: {id}"));
                }
            }
        }
        if groups.values().any(|(absent, present)| *absent > 0 && *present > 0) {
            return Err("a transaction is committed in part".into());
        }
        // Whichever attempt it is that has survived, it is the one that the application knows.
        let writers: HashMap<i64, &Rc<Record>> =
            server.wal.iter().flat_map(|record| record.ids().map(move |id| (id, record))).collect();
        for told in &self.committed {
            let Some(record) = told.ids.first().and_then(|id| writers.get(id)) else { continue };
            if !returned(record, &told.seen, told.in_part) {
                let (seen, replies) = (&told.seen, &record.replies);
                return Err(format!(
                    "what stands is not what the application has seen: {replies:?}, {seen:?}"
                ));
            }
        }
        Ok(())
    }

    /// Whether a commit may stand in a row of the ledger that its session does not remember any more: there are 64 before
    /// the present two, and in two of three something was committed.
    fn has_forgotten(&self, id: i64, world: &World) -> bool {
        let records = self.expect.range(id..).filter_map(|(id, _)| world.commits.get(id));
        let seals = records.flatten().filter_map(|record| record.sealed);
        let rows_since: BTreeSet<_> = seals.map(|(row, _)| row).collect();
        self.rotates_fast && rows_since.len() > 40
    }

    /// Whether the loss of a commit was reported; `None` if no server ever committed it.
    fn lost_number(&self, id: i64, world: &World) -> Option<bool> {
        let records = world.commits.get(&id)?;
        let covered = |sealed: Option<(Uuid, i64)>| {
            sealed.is_some_and(|(row, number)| {
                let number = number.cast_unsigned();
                self.lost
                    .iter()
                    .any(|(lost, from, to)| *lost == row && (*from..=*to).contains(&number))
            })
        };
        Some(records.iter().any(|record| covered(record.sealed)))
    }
}

/// What the application was given of a statement that has failed, or whose reply is lost, is the beginning of what a server
/// has answered.
fn check_part(request: &Request, world: &World) -> Result<(), String> {
    let (rows, results) = (&request.rows, &request.results);
    if request.kind != Kind::Execute || (rows.is_empty() && results.is_empty()) {
        return Ok(());
    }
    let known = world.executions.get(&request.sql).map_or(&[][..], Vec::as_slice);
    let begins = |reply: &Reply| match results.as_slice() {
        [] => reply.rows.starts_with(rows),
        [result] => rows.is_empty() && reply == result,
        _ => false,
    };
    if known.iter().any(begins) {
        return Ok(());
    }
    Err(format!("no server has begun to answer so: {} with {rows:?}, {results:?}", request.sql))
}

fn controls_savepoints(sql: &str) -> bool {
    ["SAVEPOINT", "RELEASE", "ROLLBACK TO"].iter().any(|word| sql.starts_with(word))
}

/// What the application has seen must be what the committed attempt has returned.
fn compare(ids: &[i64], seen: &[Reply], in_part: bool, world: &World) -> Result<(), String> {
    let Some(id) = ids.first() else { return Ok(()) };
    let Some(all) = world.commits.get(id) else {
        return Err(format!("reported committed, and no server has committed it: {id}"));
    };
    if all.iter().any(|record| returned(record, seen, in_part)) {
        return Ok(());
    }
    let replies = &all[0].replies;
    Err(format!("what was committed is not what the application has seen: {replies:?}, {seen:?}"))
}

/// Whether a transaction has returned what the application has seen, or has seen of it.
fn returned(record: &Record, seen: &[Reply], in_part: bool) -> bool {
    // Statements that share a Sync are passed over together when one of them fails, and each is told
    // what the server would have said: that the transaction has failed. Nothing was executed, whether
    // the server said so itself or not.
    let executed = |reply: &&Reply| reply.end != "25P02";
    let mut told = seen.iter().filter(executed);
    let mut given = record.replies.iter().filter(executed);
    let begins = told.by_ref().all(|reply| given.next() == Some(reply));
    begins && (in_part || given.next().is_none())
}
