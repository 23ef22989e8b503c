//! Submissions as messages, and the server's answers to them, on one link.
//!
//! Pure: bytes out, bytes in. Many submissions travel one behind the other, each with a Sync of its
//! own and so an implicit transaction of its own, which begins with the claim of its id. One that has
//! something to be looked at before it may commit travels alone, between BEGIN and COMMIT. One that may
//! crash the server too, and its claim is answered before its statements are sent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use uuid::Uuid;

use super::messages;
use super::queue::Job;
use super::submission::{Payload, SubmittedStatement};
use crate::error::ServerError;
use crate::mutation::{self, Mutation};
use crate::session::ledger::SQLSTATE_OUT_OF_ORDER;
use crate::wire::execution::SYNC;
use crate::wire::frame::{Frame, Status, command_tag, rows_affected};
use crate::wire::{Malformed, error_fields};

/// Executions of Segue's own ahead of what travels alone: BEGIN and the claim.
const OWN_ALONE: usize = 2;
/// And of a suspect: a setting between them, without which the server might not say that it ends this
/// backend because of another one's crash.
const OWN_SUSPECT: usize = 3;
const LISTEN_TO_WARNINGS: &str = "SET LOCAL client_min_messages = warning";
/// A submission that names it may undo that, and is never accused.
const MIN_MESSAGES: &str = "client_min_messages";

/// A statement's text and the types of its parameters.
type Key = (Arc<str>, Vec<u32>);

/// What is in flight on one link.
pub struct Pipe {
    groups: VecDeque<Group>,
    /// Names of statements that are, or are about to be, prepared.
    names: HashMap<Key, String>,
    names_max: usize,
    next_name: u32,
    message_bytes_max: usize,
    jobs: usize,
    /// The suspect whose statements, or whose commit, are under way, unless it is never accused.
    exposed: Option<u64>,
    /// What the server said of its own end, or of the link's.
    words: Option<Box<ServerError>>,
}

/// What stands between two Syncs.
struct Group {
    what: What,
    /// Executions that have ended well.
    done: usize,
    rows: Vec<u64>,
    error: Option<Box<ServerError>>,
}

enum What {
    /// Of this statement, under a name.
    Parse(Key),
    /// BEGIN and the claim of a suspect, and what is to be sent once they are done; nothing if it is
    /// condemned.
    Claim {
        number: u64,
        statements: Option<BytesMut>,
        expect: Vec<Option<(u64, u64)>>,
        /// It may keep the server from saying why it ends.
        hushes: bool,
    },
    /// A submission, with so many executions of Segue's own ahead of its first statement.
    Job {
        number: u64,
        own: usize,
        expect: Vec<Option<(u64, u64)>>,
        solo: bool,
        /// Its statements that run under a name.
        named: Vec<Key>,
    },
    /// COMMIT of one that travels alone: it is committed if this succeeds.
    Commit {
        number: u64,
        rows: Vec<u64>,
    },
    /// ROLLBACK of it, for this reason.
    Rollback {
        number: u64,
        fate: Fate,
    },
    Seal,
}

/// What has become of a submission.
#[derive(Debug)]
pub enum Fate {
    Committed(Vec<u64>),
    /// It was done already.
    FoundDone,
    /// The one ahead of it is not done.
    OutOfOrder,
    /// The server has refused a statement, counted from 0; nothing of it is committed.
    Failed {
        statement: usize,
        error: Box<ServerError>,
    },
    /// The claim itself was refused: the ledger is missing, or may not be used.
    NoClaim(Box<ServerError>),
    /// A statement has affected another number of rows than was expected.
    Unmet {
        statement: usize,
        rows: u64,
    },
    /// It is not committed, and has crashed the server each time that it was run.
    Crashes,
}

/// An answer of the server's.
#[derive(Debug)]
pub enum Answer {
    Job(u64, Fate),
    /// The claim of a suspect was let through: no earlier attempt is committed or still at work.
    Claimed(u64),
    /// The seal or confirmation, and so all that was committed ahead of it, is in the log.
    Sealed,
    NotSealed(Box<ServerError>),
}

impl Pipe {
    pub fn new(names_max: usize, message_bytes_max: usize) -> Self {
        Self {
            groups: VecDeque::new(),
            names: HashMap::new(),
            names_max,
            next_name: 0,
            message_bytes_max,
            jobs: 0,
            exposed: None,
            words: None,
        }
    }

    /// So many submissions are unanswered.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether what travels alone is under way.
    pub fn is_alone(&self) -> bool {
        self.groups.iter().any(|group| match &group.what {
            What::Job { solo, .. } => *solo,
            What::Claim { .. } | What::Commit { .. } | What::Rollback { .. } => true,
            What::Parse(_) | What::Seal => false,
        })
    }

    /// The submissions that are unanswered.
    pub fn unanswered(&self) -> Vec<u64> {
        let number = |group: &Group| match &group.what {
            What::Job { number, .. }
            | What::Claim { number, .. }
            | What::Commit { number, .. }
            | What::Rollback { number, .. } => Some(*number),
            What::Parse(_) | What::Seal => None,
        };
        self.groups.iter().filter_map(number).collect()
    }

    /// The suspect whose statements or commit are under way; its claim was let through.
    pub fn exposed(&self) -> Option<u64> {
        self.exposed
    }

    /// The link is lost, and this came last on it: what the server said of that. A backend that
    /// crashes says nothing.
    pub fn last_words(&mut self, input: &mut BytesMut) -> Option<ServerError> {
        while let Ok(Some(frame)) = Frame::take(input, self.message_bytes_max) {
            if let (b'E' | b'N', Ok(said)) = (frame.tag(), error_fields::parse(frame.body())) {
                self.note(&said);
            }
        }
        self.words.take().map(|words| *words)
    }

    /// Servers that are stopped, or crash, may say so in a mere notice.
    fn note(&mut self, said: &ServerError) {
        let of_an_end = matches!(said.code.as_str(), "57P01" | "57P02" | "57P03");
        if of_an_end || matches!(said.severity.as_str(), "FATAL" | "PANIC") {
            self.words = Some(Box::new(said.clone()));
        }
    }

    /// Appends a submission. `plain`: without statements prepared under a name. False, and nothing is
    /// appended, if it is more than messages can hold.
    #[must_use]
    pub fn push(&mut self, job: &Job, payload: &Payload, plain: bool, out: &mut BytesMut) -> bool {
        // What may crash the server is not even parsed before its claim is answered.
        let plain = plain || job.suspect;
        let mut named = Vec::new();
        let mut names = Vec::with_capacity(payload.statements.len());
        for it in &payload.statements {
            let name = (!plain && it.named).then(|| self.name(it, out)).flatten();
            names.push(name.map_or_else(String::new, |(key, name)| {
                named.push(key);
                name
            }));
        }
        let start = out.len();
        let mut later = BytesMut::new();
        let mut own = 1;
        let mut written = Ok(());
        if job.solo {
            own = OWN_ALONE;
            written = messages::once("BEGIN", out);
        }
        if job.suspect {
            written = written.and_then(|()| messages::once(LISTEN_TO_WARNINGS, out));
        }
        let id = match mutation::on(Mutation::ClaimLeftOut) {
            true => Uuid::new_v4(),
            false => payload.id,
        };
        written = written.and_then(|()| messages::claim(id, job.after, out));
        let rest = if job.suspect { &mut later } else { &mut *out };
        for (it, name) in payload.statements.iter().zip(&names) {
            if name.is_empty() {
                written = written.and_then(|()| messages::plain_statement(&it.sql, &it.oids, rest));
            }
            written = written.and_then(|()| messages::execute(name, it, rest));
        }
        if written.is_err() {
            out.truncate(start);
            return false;
        }
        out.put_slice(SYNC);
        self.jobs += 1;
        let (number, solo) = (job.number, job.solo);
        let expect = payload.statements.iter().map(|it| it.expect).collect();
        self.group(match job.suspect {
            false => What::Job { number, own, expect, solo, named },
            true => {
                later.put_slice(SYNC);
                let hushes = payload
                    .statements
                    .iter()
                    .any(|it| it.sql.to_ascii_lowercase().contains(MIN_MESSAGES));
                let statements = (!job.condemned).then_some(later);
                What::Claim { number, statements, expect, hushes }
            }
        });
        true
    }

    /// Appends the seal of all that was appended so far.
    pub fn push_seal(&mut self, row: Uuid, number: i64, out: &mut BytesMut) {
        messages::seal(row, number, out);
        self.group(What::Seal);
    }

    /// Appends a transaction that writes nothing but waits for what the server's commits wait for. What
    /// is found done may be a commit whose wait for a synchronous standby was cut short: behind this
    /// one it has been waited for.
    pub fn push_confirmation(&mut self, out: &mut BytesMut) {
        messages::confirmation(out);
        self.group(What::Seal);
    }

    /// Whether a seal or a confirmation is unanswered.
    pub fn is_sealing(&self) -> bool {
        self.groups.iter().any(|group| matches!(group.what, What::Seal))
    }

    /// Takes in what has arrived; appends to `out` what has to be sent in reply.
    pub fn feed(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Malformed> {
        while let Some(frame) = Frame::take(input, self.message_bytes_max)? {
            match frame.tag() {
                // Rows are counted by the command's tag; what they say is nobody's concern.
                b'1' | b'2' | b'3' | b'D' | b'n' | b'S' | b'A' => {}
                b'N' => self.note(&error_fields::parse(frame.body())?),
                b'C' => {
                    let rows = rows_affected(command_tag(frame.body())?);
                    self.executed(rows)?;
                }
                b'I' => self.executed(0)?,
                b'E' => {
                    let error = error_fields::parse(frame.body())?;
                    self.note(&error);
                    let group = self.groups.front_mut().ok_or(Malformed("an error unasked for"))?;
                    group.error = Some(Box::new(error));
                }
                b'Z' => {
                    let status = Status::from_body(frame.body())?;
                    let group =
                        self.groups.pop_front().ok_or(Malformed("a ReadyForQuery unasked for"))?;
                    self.finish(group, status, out, answers)?;
                }
                _ => return Err(Malformed("a message that no submission asks for")),
            }
        }
        Ok(())
    }

    fn executed(&mut self, rows: u64) -> Result<(), Malformed> {
        let group = self.groups.front_mut().ok_or(Malformed("a result unasked for"))?;
        if let What::Job { own, .. } = group.what {
            if group.done >= own {
                group.rows.push(rows);
            }
        }
        group.done += 1;
        Ok(())
    }

    fn finish(
        &mut self,
        group: Group,
        status: Status,
        out: &mut BytesMut,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Malformed> {
        let Group { what, done, rows, error } = group;
        match what {
            What::Parse(key) => {
                // A statement that does not parse is parsed once more in its submission, whose error
                // it then is.
                if error.is_some() {
                    self.names.remove(&key);
                }
            }
            What::Seal => answers.push(match error {
                None if done == 1 => Answer::Sealed,
                None => return Err(Malformed("a seal without its result")),
                Some(error) => Answer::NotSealed(error),
            }),
            What::Claim { number, statements, expect, hushes } => match (error, status) {
                (None, Status::Open) if done == OWN_SUSPECT => {
                    answers.push(Answer::Claimed(number));
                    match statements {
                        Some(statements) => {
                            self.exposed = (!hushes).then_some(number);
                            out.extend_from_slice(&statements);
                            let (own, named) = (0, Vec::new());
                            self.next(What::Job { number, own, expect, solo: true, named });
                        }
                        None => self.end(
                            "ROLLBACK",
                            What::Rollback { number, fate: Fate::Crashes },
                            out,
                        ),
                    }
                }
                (Some(error), Status::Failed) => {
                    let fate = failed(done, OWN_SUSPECT, 0, error);
                    self.end("ROLLBACK", What::Rollback { number, fate }, out);
                }
                (Some(error), Status::Idle) => {
                    self.jobs -= 1;
                    answers.push(Answer::Job(number, failed(done, OWN_SUSPECT, 0, error)));
                }
                _ => return Err(Malformed("a claim without its result")),
            },
            What::Job { number, own, expect, solo, named } => {
                let fate = match error {
                    Some(error) => {
                        // What was prepared ahead is gone, was never there, or no longer fits.
                        if matches!(error.code.as_str(), "26000" | "0A000") {
                            named.iter().for_each(|key| drop(self.names.remove(key)));
                        }
                        failed(done, own, expect.len(), error)
                    }
                    None if rows.len() != expect.len() => {
                        return Err(Malformed("another number of results than of statements"));
                    }
                    None => judge(&expect, rows),
                };
                match (fate, status) {
                    (fate, Status::Idle) if !solo || !matches!(fate, Fate::Committed(_)) => {
                        self.jobs -= 1;
                        answers.push(Answer::Job(number, fate));
                    }
                    (Fate::Committed(rows), Status::Open) if solo => {
                        self.end("COMMIT", What::Commit { number, rows }, out);
                    }
                    (fate, Status::Open | Status::Failed) if solo => {
                        self.exposed = None;
                        self.end("ROLLBACK", What::Rollback { number, fate }, out);
                    }
                    _ => return Err(Malformed("a transaction in another state than it should be")),
                }
            }
            What::Commit { number, rows } => {
                self.exposed = None;
                self.jobs -= 1;
                let statement = rows.len().saturating_sub(1);
                answers.push(Answer::Job(
                    number,
                    match error {
                        None => Fate::Committed(rows),
                        Some(error) => Fate::Failed { statement, error },
                    },
                ));
            }
            What::Rollback { number, fate } => {
                self.jobs -= 1;
                answers.push(Answer::Job(number, fate));
            }
        }
        Ok(())
    }

    /// Ends the transaction of what travels alone.
    fn end(&mut self, sql: &str, what: What, out: &mut BytesMut) {
        let _ = messages::once(sql, out);
        out.put_slice(SYNC);
        self.next(what);
    }

    fn next(&mut self, what: What) {
        self.groups.push_front(Group { what, done: 0, rows: Vec::new(), error: None });
    }

    fn group(&mut self, what: What) {
        self.groups.push_back(Group { what, done: 0, rows: Vec::new(), error: None });
    }

    /// The name under which a statement is prepared; it is, if need be and there is room.
    fn name(&mut self, it: &SubmittedStatement, out: &mut BytesMut) -> Option<(Key, String)> {
        let key = (Arc::clone(&it.sql), it.oids.clone());
        if let Some(name) = self.names.get(&key) {
            return Some((key, name.clone()));
        }
        if self.names.len() >= self.names_max {
            return None;
        }
        let name = format!("submit_{}", self.next_name);
        self.next_name = self.next_name.wrapping_add(1);
        let start = out.len();
        if frontend::parse(&name, &it.sql, it.oids.iter().copied(), out).is_err() {
            out.truncate(start);
            return None;
        }
        out.put_slice(SYNC);
        self.group(What::Parse(key.clone()));
        self.names.insert(key.clone(), name.clone());
        Some((key, name))
    }
}

/// What an error means, `done` executions having ended well before it.
fn failed(done: usize, own: usize, statements: usize, error: Box<ServerError>) -> Fate {
    let blind = error.code == "23505" && mutation::on(Mutation::FoundDoneTakenForRefused);
    if done >= own || blind {
        // A deferred constraint speaks up after the last statement.
        let statement = done.saturating_sub(own).min(statements.saturating_sub(1));
        return Fate::Failed { statement, error };
    }
    match error.code.as_str() {
        "23505" if !mutation::on(Mutation::FoundDoneTakenForRefused) => Fate::FoundDone,
        SQLSTATE_OUT_OF_ORDER => Fate::OutOfOrder,
        "40001" | "40P01" => Fate::Failed { statement: 0, error },
        // No table, no privilege, no patience: none of it is the submission's fault.
        _ => Fate::NoClaim(error),
    }
}

/// Whether all expectations are met.
fn judge(expect: &[Option<(u64, u64)>], rows: Vec<u64>) -> Fate {
    let unmet = expect
        .iter()
        .zip(&rows)
        .position(|(expect, rows)| expect.is_some_and(|(min, max)| *rows < min || *rows > max));
    match unmet {
        Some(_) if mutation::on(Mutation::ExpectationIgnored) => Fate::Committed(rows),
        Some(statement) => Fate::Unmet { statement, rows: rows[statement] },
        None => Fate::Committed(rows),
    }
}
