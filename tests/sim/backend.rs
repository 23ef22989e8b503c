//! One backend of a model server: PostgreSQL's protocol, version 3, and its transaction blocks.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::clock::Flight;
use crate::data::Reply;
use crate::rng::Rng;
use crate::sql::Stmt;
use crate::world::{Session, Tx};

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
pub enum After {
    Nothing,
    Ready,
    Tag(&'static str),
    QueryTag(String),
}

#[derive(Debug, Clone)]
pub struct Copy {
    pub stmt: Stmt,
    pub sql: String,
    pub simple: bool,
    pub lines: usize,
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
    pub skip: bool,
    pub before: Session,
    pub session: Session,
    /// What a sequence gave it last, which no rollback changes.
    pub last_value: Option<i64>,
    pub prepared: HashMap<String, (Stmt, String)>,
    pub portal: Option<(Stmt, String, Vec<Vec<u8>>)>,
    pub copy: Option<Copy>,
    pub query: Option<(Vec<Stmt>, usize)>,
    pub after: After,
    pub wait: Wait,
    reported: String,
    pub notifications: BTreeSet<String>,
    /// So many bytes gather before they are sent without being asked for.
    buffer: usize,
    /// The advisory locks that it holds as long as it lives.
    pub advisory: Vec<i64>,
    /// No session has it yet.
    pub warm: bool,
    /// When `inflight` and `wire` arrive.
    pub up: Flight,
    pub down: Flight,
}

pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

pub fn error_message(tag: u8, severity: &str, code: &str) -> Vec<u8> {
    message(tag, format!("S{severity}\0V{severity}\0C{code}\0Mno\0\0").as_bytes())
}

pub fn row_message(values: &[Vec<u8>]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
    }
    message(b'D', &body)
}

pub fn columns_message(stmt: &Stmt) -> Vec<u8> {
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
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(self.take(end)?).ok()?;
        self.take(1)?;
        Some(text)
    }

    pub fn int16(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(self.take(2)?.try_into().ok()?)))
    }

    pub fn int32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }
}

pub type Step = Result<bool, String>;

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
            last_value: None,
            prepared: HashMap::new(),
            portal: None,
            copy: None,
            query: None,
            after: After::Nothing,
            wait: Wait::Nothing,
            reported: String::new(),
            notifications: BTreeSet::new(),
            buffer,
            advisory: Vec::new(),
            warm: false,
            up: Flight::default(),
            down: Flight::default(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        if self.out.len() > self.buffer {
            self.flush();
        }
    }

    pub fn flush(&mut self) {
        self.wire.extend(self.out.drain(..));
    }

    pub fn complete(&mut self, tag: &str) {
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

    pub fn abort(&mut self) {
        if self.tx.take().is_some() || self.explicit {
            self.session = self.before.clone();
            self.session.local.clear();
        }
        self.explicit = false;
        self.failed = false;
    }

    /// The statement in hand has failed.
    pub fn fail(&mut self, code: &str, of_user: bool) {
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

    pub fn ready(&mut self) {
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
    pub fn notify(&mut self) {
        for channel in std::mem::take(&mut self.notifications) {
            if self.session.channels.contains(&channel) {
                let mut body = 7_u32.to_be_bytes().to_vec();
                body.extend(format!("{channel}\0hello\0").as_bytes());
                self.out.extend(message(b'A', &body));
            }
        }
    }

    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.inflight.is_empty() && self.has_nothing_to_do()
    }

    /// Whether nothing is left to do, whatever comes that answers a COPY which has ended: that is passed over.
    pub fn is_quiet(&self) -> bool {
        let mut left = self.input.iter().chain(&self.inflight).copied();
        let mut of_copy = || -> Option<bool> {
            let tag = left.next()?;
            let length = std::array::from_fn(|_| left.next().unwrap_or_default());
            let body = u32::from_be_bytes(length).saturating_sub(4) as usize;
            left.by_ref().take(body).for_each(drop);
            Some(matches!(tag, b'd' | b'c' | b'f'))
        };
        std::iter::from_fn(&mut of_copy).all(|is| is) && self.has_nothing_to_do()
    }

    fn has_nothing_to_do(&self) -> bool {
        self.tx.is_none()
            && !self.explicit
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

    pub fn is_exit(stmt: &Stmt) -> bool {
        matches!(stmt, Stmt::Commit | Stmt::Rollback | Stmt::RollbackTo(_))
    }
}

/// What a backend says when it is ended: that somebody stops it, that another one crashed, or nothing.
pub fn last_words(rng: &mut Rng) -> Option<Vec<u8>> {
    match rng.below(3) {
        0 => Some(error_message(b'E', "FATAL", "57P01")),
        1 => Some(error_message(b'N', "WARNING", "57P02")),
        _ => None,
    }
}
