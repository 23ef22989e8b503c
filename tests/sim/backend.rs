//! One backend of a model server: PostgreSQL's protocol, version 3, and its transaction blocks.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::data::Reply;
use crate::sql::{self, Stmt};
use crate::world::{Exec, Session, Tx, World};

#[derive(Debug, Clone, PartialEq)]
pub enum Wait {
    Nothing,
    Lock(usize),
    /// The standby has to confirm the commit.
    Standby,
    /// Another backend was told to end.
    Terminate,
}

/// What follows once a commit counts.
#[derive(Debug, Clone, PartialEq)]
enum After {
    Nothing,
    Ready,
    Tag(&'static str),
    QueryTag(String),
}

#[derive(Debug, Clone)]
struct Copy {
    stmt: Stmt,
    sql: String,
    simple: bool,
    lines: usize,
}

#[derive(Debug)]
pub struct Backend {
    pub id: usize,
    pub server: usize,
    pub pid: i32,
    pub start: String,
    pub alive: bool,
    /// It is told to end and does not.
    pub stubborn: bool,
    pub told_to_end: bool,
    /// Sent by the client, and not here yet.
    pub inflight: VecDeque<u8>,
    /// The client has gone: nothing comes behind `inflight`.
    pub eof: bool,
    pub input: Vec<u8>,
    pub out: Vec<u8>,
    /// Sent to the client, and not there yet.
    pub wire: VecDeque<u8>,
    pub tx: Option<Tx>,
    pub explicit: bool,
    pub failed: bool,
    skip: bool,
    before: Session,
    pub session: Session,
    pub prepared: HashMap<String, (Stmt, String)>,
    portal: Option<(Stmt, String, Vec<Vec<u8>>)>,
    copy: Option<Copy>,
    query: Option<(Vec<Stmt>, usize)>,
    after: After,
    pub wait: Wait,
    reported: String,
    pub notifications: BTreeSet<String>,
    /// So many bytes gather before they are sent without being asked for.
    buffer: usize,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

pub fn error_message(tag: u8, severity: &str, code: &str) -> Vec<u8> {
    message(tag, format!("S{severity}\0V{severity}\0C{code}\0Mno\0\0").as_bytes())
}

fn row_message(values: &[Vec<u8>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
    }
    message(b'D', &body)
}

fn columns_message(stmt: &Stmt) -> Vec<u8> {
    let columns = stmt.columns();
    if columns.is_empty() {
        return message(b'n', b"");
    }
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for name in columns {
        body.extend(name.as_bytes());
        body.extend([0; 7]);
        body.extend(25_u32.to_be_bytes());
        body.extend((-1_i16).to_be_bytes());
        body.extend((-1_i32).to_be_bytes());
        body.extend(1_i16.to_be_bytes());
    }
    message(b'T', &body)
}

/// Reads what a client has sent; `None` where it breaks off.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(self.take(end)?).ok()?;
        self.take(1)?;
        Some(text)
    }

    fn int16(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(self.take(2)?.try_into().ok()?)))
    }

    fn int32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

type Step = Result<bool, String>;

impl Backend {
    pub fn new(id: usize, server: usize, buffer: usize) -> Self {
        Self {
            id,
            server,
            // Process ids come round again: only the start tells backends apart.
            pid: 100 + i32::try_from(id % 3).unwrap(),
            start: format!("start {id}"),
            alive: true,
            stubborn: false,
            told_to_end: false,
            inflight: VecDeque::new(),
            eof: false,
            input: Vec::new(),
            out: Vec::new(),
            wire: VecDeque::new(),
            tx: None,
            explicit: false,
            failed: false,
            skip: false,
            before: Session::default(),
            session: Session::default(),
            prepared: HashMap::new(),
            portal: None,
            copy: None,
            query: None,
            after: After::Nothing,
            wait: Wait::Nothing,
            reported: String::new(),
            notifications: BTreeSet::new(),
            buffer,
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        if self.out.len() > self.buffer {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.wire.extend(self.out.drain(..));
    }

    fn complete(&mut self, tag: &str) {
        let mut body = tag.as_bytes().to_vec();
        body.push(0);
        self.send(&message(b'C', &body));
    }

    pub fn begin_implicitly(&mut self, read_only: bool) {
        if self.tx.is_none() {
            self.tx = Some(Tx { read_only, ..Tx::default() });
            self.before = self.session.clone();
            self.explicit = false;
        }
    }

    fn abort(&mut self) {
        if self.tx.take().is_some() || self.explicit {
            self.session = self.before.clone();
            self.session.local.clear();
        }
        self.explicit = false;
        self.failed = false;
    }

    /// The statement in hand has failed.
    fn fail(&mut self, code: &str, of_user: bool) {
        // An error is sent at once, whatever has gathered behind it.
        self.send(&error_message(b'E', "ERROR", code));
        self.flush();
        self.copy = None;
        if self.explicit {
            self.failed = true;
            if let Some(tx) = self.tx.as_mut().filter(|_| of_user) {
                tx.replies.push(Reply { rows: Vec::new(), end: code.to_owned() });
            }
        } else {
            self.abort();
        }
        if self.query.take().is_some() {
            self.ready();
        } else {
            self.skip = true;
        }
    }

    fn ready(&mut self) {
        let now = self.session.settings.get("application_name").cloned().unwrap_or_default();
        if now != self.reported {
            self.out.extend(message(b'S', format!("application_name\0{now}\0").as_bytes()));
            self.reported = now;
        }
        let status = match (self.explicit, self.failed) {
            (true, true) => b'E',
            (true, false) => b'T',
            _ => b'I',
        };
        if status == b'I' {
            self.notify();
        }
        self.out.extend(message(b'Z', &[status]));
        self.flush();
    }

    /// Sends the notifications that have gathered.
    fn notify(&mut self) {
        for channel in std::mem::take(&mut self.notifications) {
            if self.session.channels.contains(&channel) {
                let mut body = 7_u32.to_be_bytes().to_vec();
                body.extend(format!("{channel}\0hello\0").as_bytes());
                self.out.extend(message(b'A', &body));
            }
        }
    }

    pub fn is_idle(&self) -> bool {
        self.tx.is_none()
            && !self.explicit
            && self.input.is_empty()
            && self.inflight.is_empty()
            && self.query.is_none()
            && self.after == After::Nothing
            && !self.skip
    }

    pub fn notify_if_idle(&mut self) {
        if self.is_idle() {
            self.notify();
            self.flush();
        }
    }

    fn is_exit(stmt: &Stmt) -> bool {
        matches!(stmt, Stmt::Commit | Stmt::Rollback | Stmt::RollbackTo(_))
    }
}

impl World {
    /// Lets a backend do one thing; whether it did anything.
    pub fn step(&mut self, me: usize) -> Step {
        let backend = &mut self.backends[me];
        if !backend.alive {
            return Ok(false);
        }
        if backend.told_to_end && !backend.stubborn {
            self.end_backend(me, Some(&error_message(b'E', "FATAL", "57P01")));
            return Ok(true);
        }
        if backend.wait == Wait::Standby {
            return Ok(false);
        }
        if backend.after != After::Nothing {
            return self.after_commit(me);
        }
        if backend.query.is_some() && backend.copy.is_none() {
            return self.continue_query(me);
        }
        let Some((&tag, rest)) = backend.input.split_first() else { return self.starve(me) };
        let Some(length) = rest.first_chunk::<4>() else { return self.starve(me) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(4..100_000).contains(&length) {
            return Err(format!("a message of {length} bytes"));
        }
        let Some(body) = rest.get(4..length) else { return self.starve(me) };
        let body = body.to_vec();
        let waited = backend.wait.clone();
        let done = self.process(me, tag, &body)?;
        if done {
            let backend = &mut self.backends[me];
            if backend.alive {
                backend.input.drain(..=length);
            }
        }
        Ok(done || waited != self.backends[me].wait)
    }

    /// There is no whole message: the backend waits, or finds that its client has gone.
    fn starve(&mut self, me: usize) -> Step {
        let backend = &self.backends[me];
        if backend.eof && backend.inflight.is_empty() {
            self.end_backend(me, None);
            return Ok(true);
        }
        Ok(false)
    }

    fn process(&mut self, me: usize, tag: u8, body: &[u8]) -> Step {
        let backend = &mut self.backends[me];
        if backend.skip && tag != b'S' && tag != b'X' {
            return Ok(true);
        }
        if backend.copy.is_some() {
            return self.copy_message(me, tag, body);
        }
        let malformed = || format!("malformed {:?} message", char::from(tag));
        let mut reader = Reader(body);
        match tag {
            b'P' => {
                let name = reader.text().ok_or_else(malformed)?.to_owned();
                let sql = reader.text().ok_or_else(malformed)?.to_owned();
                let types = reader.int16().ok_or_else(malformed)?;
                if reader.take(types * 4).is_none() || !reader.0.is_empty() {
                    return Err(malformed());
                }
                self.parse_message(me, name, sql);
            }
            b'B' => {
                let _portal = reader.text().ok_or_else(malformed)?;
                let name = reader.text().ok_or_else(malformed)?.to_owned();
                let formats = reader.int16().ok_or_else(malformed)?;
                reader.take(formats * 2).ok_or_else(malformed)?;
                let mut params = Vec::new();
                for _ in 0..reader.int16().ok_or_else(malformed)? {
                    let length = reader.int32().ok_or_else(malformed)?;
                    let length = usize::try_from(length).unwrap_or(0);
                    params.push(reader.take(length).ok_or_else(malformed)?.to_vec());
                }
                let formats = reader.int16().ok_or_else(malformed)?;
                reader.take(formats * 2).ok_or_else(malformed)?;
                if !reader.0.is_empty() {
                    return Err(malformed());
                }
                self.bind_message(me, &name, params);
            }
            b'D' => {
                if body.first() != Some(&b'S') {
                    return Err("Describe of a portal".into());
                }
                reader.take(1);
                let name = reader.text().ok_or_else(malformed)?;
                self.begin_implicitly(me);
                let backend = &mut self.backends[me];
                match backend.prepared.get(name).cloned() {
                    None => backend.fail("26000", true),
                    Some((stmt, _)) if backend.failed && !stmt.columns().is_empty() => {
                        backend.fail("25P02", true);
                    }
                    Some((stmt, _)) => {
                        backend.send(&message(b't', &[0, 0]));
                        backend.send(&columns_message(&stmt));
                    }
                }
            }
            b'C' => {
                reader.take(1).filter(|kind| *kind == b"S").ok_or_else(malformed)?;
                let name = reader.text().ok_or_else(malformed)?;
                backend.prepared.remove(name);
                backend.send(&message(b'3', b""));
            }
            b'E' => {
                let name = reader.text().ok_or_else(malformed)?;
                if !name.is_empty() || reader.int32() != Some(0) {
                    return Err(malformed());
                }
                return self.execute_message(me);
            }
            b'H' => backend.flush(),
            b'S' => {
                backend.skip = false;
                if backend.tx.is_some() && !backend.explicit {
                    match self.commit(me) {
                        Ok(true) => {}
                        Ok(false) => {
                            self.backends[me].after = After::Ready;
                            return Ok(true);
                        }
                        Err(code) => {
                            let backend = &mut self.backends[me];
                            backend.session = backend.before.clone();
                            backend.send(&error_message(b'E', "ERROR", code));
                        }
                    }
                }
                self.backends[me].ready();
            }
            b'Q' => {
                let sql = reader.text().ok_or_else(malformed)?.to_owned();
                backend.query = Some((Vec::new(), 0));
                match sql::parse_several(&sql) {
                    None => backend.fail("42601", true),
                    Some(stmts) => backend.query = Some((stmts, 0)),
                }
            }
            b'X' => self.end_backend(me, None),
            // What is left of a COPY that has failed is accepted and ignored.
            b'd' | b'c' | b'f' => {}
            _ => return Err(format!("a message {:?} where none is expected", char::from(tag))),
        }
        Ok(true)
    }

    pub fn parse_message(&mut self, me: usize, name: String, sql: String) {
        self.begin_implicitly(me);
        let backend = &mut self.backends[me];
        let Some(stmt) = sql::parse(&sql) else { return backend.fail("42601", true) };
        if backend.failed && !Backend::is_exit(&stmt) {
            return backend.fail("25P02", !stmt.is_internal());
        }
        if !name.is_empty() && backend.prepared.contains_key(&name) {
            return backend.fail("42P05", !stmt.is_internal());
        }
        backend.prepared.insert(name, (stmt, sql));
        backend.send(&message(b'1', b""));
    }

    fn bind_message(&mut self, me: usize, name: &str, params: Vec<Vec<u8>>) {
        self.begin_implicitly(me);
        let backend = &mut self.backends[me];
        let Some((stmt, sql)) = backend.prepared.get(name).cloned() else {
            return backend.fail("26000", true);
        };
        if backend.failed && !Backend::is_exit(&stmt) {
            return backend.fail("25P02", !stmt.is_internal());
        }
        backend.portal = Some((stmt, sql, params));
        backend.send(&message(b'2', b""));
    }

    fn execute_message(&mut self, me: usize) -> Step {
        let Some((stmt, sql, params)) = self.backends[me].portal.clone() else {
            self.backends[me].fail("34000", true);
            return Ok(true);
        };
        self.begin_implicitly(me);
        let done = self.run(me, &stmt, &sql, &params, false)?;
        if done {
            self.backends[me].portal = None;
        }
        Ok(done)
    }

    /// Runs one statement and sends what it returns, up to its command tag. False: it must wait.
    fn run(&mut self, me: usize, stmt: &Stmt, sql: &str, params: &[Vec<u8>], simple: bool) -> Step {
        let several = self.backends[me].query.as_ref().is_some_and(|(stmts, _)| stmts.len() > 1);
        let last =
            self.backends[me].query.as_ref().is_some_and(|(stmts, at)| at + 1 == stmts.len());
        let backend = &mut self.backends[me];
        let of_user = !stmt.is_internal();
        if backend.failed && !Backend::is_exit(stmt) {
            backend.fail("25P02", of_user);
            return Ok(true);
        }
        let mut silent = false;
        let done = match stmt {
            Stmt::Begin => {
                if backend.explicit {
                    return Err("BEGIN inside a transaction".into());
                }
                backend.explicit = true;
                silent = true;
                "BEGIN".to_owned()
            }
            Stmt::Commit if !backend.explicit => return Err("COMMIT outside a transaction".into()),
            Stmt::Commit if backend.failed => {
                backend.abort();
                silent = true;
                "ROLLBACK".to_owned()
            }
            Stmt::Commit => {
                let after =
                    if simple { After::QueryTag("COMMIT".into()) } else { After::Tag("COMMIT") };
                match self.commit(me) {
                    Ok(visible) => {
                        let backend = &mut self.backends[me];
                        backend.explicit = false;
                        backend.after = after;
                        if visible {
                            return self.after_commit(me);
                        }
                        return Ok(true);
                    }
                    Err(code) => {
                        let backend = &mut self.backends[me];
                        backend.abort();
                        backend.fail(code, false);
                        return Ok(true);
                    }
                }
            }
            Stmt::Rollback => {
                backend.abort();
                silent = true;
                "ROLLBACK".to_owned()
            }
            Stmt::Savepoint(_) | Stmt::Release(_) | Stmt::RollbackTo(_) if !backend.explicit => {
                backend.fail("25P01", of_user);
                return Ok(true);
            }
            Stmt::Savepoint(name) => {
                let session = backend.session.clone();
                if let Some(tx) = &mut backend.tx {
                    tx.savepoints.push((name.clone(), tx.ops.len(), session));
                }
                "SAVEPOINT".to_owned()
            }
            Stmt::Release(name) | Stmt::RollbackTo(name) => {
                let release = matches!(stmt, Stmt::Release(_));
                let tx = backend.tx.get_or_insert_default();
                let Some(at) = tx.savepoints.iter().rposition(|(known, ..)| known == name) else {
                    backend.fail("3B001", of_user);
                    return Ok(true);
                };
                if release {
                    tx.savepoints.truncate(at);
                } else {
                    backend.session = tx.savepoints[at].2.clone();
                    tx.ops.truncate(tx.savepoints[at].1);
                    tx.savepoints.truncate(at + 1);
                    backend.failed = false;
                }
                if release { "RELEASE".to_owned() } else { "ROLLBACK".to_owned() }
            }
            Stmt::Set { name, value, local } => {
                if *local {
                    backend.session.local.insert(name.clone(), value.clone());
                } else {
                    backend.session.local.remove(name);
                    backend.session.settings.insert(name.clone(), value.clone());
                }
                "SET".to_owned()
            }
            Stmt::Reset(name) => {
                if name == "ALL" {
                    backend.session.local.clear();
                    backend.session.settings.clear();
                } else {
                    backend.session.local.remove(name);
                    backend.session.settings.remove(name);
                }
                "RESET".to_owned()
            }
            Stmt::Listen(channel) => {
                backend.session.channels.insert(channel.clone());
                "LISTEN".to_owned()
            }
            Stmt::Unlisten(channel) => {
                if channel == "*" {
                    backend.session.channels.clear();
                } else {
                    backend.session.channels.remove(channel);
                }
                "UNLISTEN".to_owned()
            }
            Stmt::DiscardAll => {
                let first = backend.tx.as_ref().is_none_or(|tx| tx.replies.is_empty());
                if backend.explicit || several || !first {
                    backend.fail("25001", of_user);
                    return Ok(true);
                }
                backend.session = Session::default();
                backend.prepared.clear();
                "DISCARD ALL".to_owned()
            }
            Stmt::DeallocateAll => {
                backend.prepared.clear();
                "DEALLOCATE ALL".to_owned()
            }
            Stmt::SetConfig { name, value } => {
                backend.session.local.remove(name);
                backend.session.settings.insert(name.clone(), value.clone());
                let value = value.clone().into_bytes();
                return self.returned(
                    me,
                    stmt,
                    sql,
                    vec![vec![value]],
                    "SELECT 1".into(),
                    simple,
                    last,
                );
            }
            Stmt::CopyInLog | Stmt::CopyInT => {
                if self.is_read_only(me) {
                    self.backends[me].fail("25006", of_user);
                    return Ok(true);
                }
                let backend = &mut self.backends[me];
                backend.copy =
                    Some(Copy { stmt: stmt.clone(), sql: sql.to_owned(), simple, lines: 0 });
                backend.send(&message(b'G', &[0, 0, 1, 0, 0]));
                backend.flush();
                return Ok(true);
            }
            Stmt::CopyOutBig => {
                let rows: Vec<String> = self.servers[backend.server]
                    .state
                    .big
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let backend = &mut self.backends[me];
                backend.send(&message(b'H', &[0, 0, 1, 0, 0]));
                for row in &rows {
                    backend.send(&message(b'd', row.as_bytes()));
                }
                backend.send(&message(b'c', b""));
                let tag = format!("COPY {}", rows.len());
                self.log(me, stmt, sql, rows, &tag);
                self.backends[me].complete(&tag);
                return Ok(true);
            }
            _ => match self.execute(me, stmt, params) {
                Exec::Blocked => return Ok(false),
                Exec::Error(code) => {
                    self.backends[me].wait = Wait::Nothing;
                    self.backends[me].fail(code, of_user);
                    return Ok(true);
                }
                Exec::Done { rows, tag } => {
                    return self.returned(me, stmt, sql, rows, tag, simple, last);
                }
            },
        };
        if !silent {
            self.log(me, stmt, sql, Vec::new(), &done);
        }
        self.end_statement(me, done, simple, last && stmt != &Stmt::Begin);
        Ok(true)
    }

    #[allow(clippy::too_many_arguments)]
    fn returned(
        &mut self,
        me: usize,
        stmt: &Stmt,
        sql: &str,
        rows: Vec<Vec<Vec<u8>>>,
        tag: String,
        simple: bool,
        last: bool,
    ) -> Step {
        let backend = &mut self.backends[me];
        if simple && !stmt.columns().is_empty() {
            backend.send(&columns_message(stmt));
        }
        // The UPDATE of a seal and the like has no columns.
        if !stmt.columns().is_empty() {
            for row in &rows {
                backend.send(&row_message(row));
            }
        }
        let texts = rows
            .iter()
            .map(|row| {
                String::from_utf8_lossy(row.first().map_or(&[][..], Vec::as_slice)).into_owned()
            })
            .collect();
        self.log(me, stmt, sql, texts, &tag);
        self.end_statement(me, tag, simple, last);
        Ok(true)
    }

    /// Sends the tag; the last statement of a simple query is committed first.
    fn end_statement(&mut self, me: usize, tag: String, simple: bool, last: bool) {
        let backend = &mut self.backends[me];
        if !simple {
            return backend.complete(&tag);
        }
        backend.after = After::QueryTag(tag);
        if last && !backend.explicit && backend.tx.is_some() {
            if let Err(code) = self.commit(me) {
                let backend = &mut self.backends[me];
                backend.after = After::Nothing;
                backend.session = backend.before.clone();
                backend.fail(code, false);
            }
        }
    }

    fn log(&mut self, me: usize, stmt: &Stmt, sql: &str, rows: Vec<String>, tag: &str) {
        if stmt.is_internal() {
            return;
        }
        let reply = Reply { rows, end: tag.to_owned() };
        if let Some(tx) = &mut self.backends[me].tx {
            tx.replies.push(reply.clone());
        }
        self.executions.entry(sql.to_owned()).or_default().push(reply);
    }

    fn after_commit(&mut self, me: usize) -> Step {
        let backend = &mut self.backends[me];
        match std::mem::replace(&mut backend.after, After::Nothing) {
            After::Nothing => {}
            After::Ready => backend.ready(),
            After::Tag(tag) => backend.complete(tag),
            After::QueryTag(tag) => {
                backend.complete(&tag);
                if let Some((_, at)) = &mut backend.query {
                    *at += 1;
                }
            }
        }
        Ok(true)
    }

    fn continue_query(&mut self, me: usize) -> Step {
        let Some((stmts, at)) = self.backends[me].query.clone() else { return Ok(false) };
        let Some(stmt) = stmts.get(at) else {
            let backend = &mut self.backends[me];
            backend.query = None;
            if !backend.explicit {
                backend.tx = None;
            }
            backend.ready();
            return Ok(true);
        };
        self.begin_implicitly(me);
        self.run(me, stmt, "", &[], true)
    }

    fn copy_message(&mut self, me: usize, tag: u8, body: &[u8]) -> Step {
        let Some(copy) = self.backends[me].copy.clone() else { return Ok(true) };
        match tag {
            b'd' => {
                let line = std::str::from_utf8(body).ok().and_then(|line| line.trim().parse().ok());
                let Some(id) = line else {
                    self.backends[me].fail("22P02", true);
                    return Ok(true);
                };
                let done = match copy.stmt {
                    Stmt::CopyInT => self.insert_t(me, id).err(),
                    _ => match self.execute(me, &Stmt::InsertLog(id), &[]) {
                        Exec::Done { .. } => None,
                        other => Some(other),
                    },
                };
                match done {
                    Some(Exec::Blocked) => return Ok(false),
                    Some(Exec::Error(code)) => {
                        self.backends[me].wait = Wait::Nothing;
                        self.backends[me].fail(code, true);
                    }
                    _ => {
                        if let Some(copy) = &mut self.backends[me].copy {
                            copy.lines += 1;
                        }
                    }
                }
            }
            b'c' => {
                let tag = format!("COPY {}", copy.lines);
                self.log(me, &copy.stmt, &copy.sql, Vec::new(), &tag);
                let backend = &mut self.backends[me];
                backend.copy = None;
                if copy.simple {
                    backend.after = After::QueryTag(tag);
                } else {
                    backend.complete(&tag);
                }
            }
            b'f' => self.backends[me].fail("57014", true),
            b'H' | b'S' => {}
            b'X' => self.end_backend(me, None),
            _ => return Err(format!("a message {:?} during COPY FROM STDIN", char::from(tag))),
        }
        Ok(true)
    }
}
