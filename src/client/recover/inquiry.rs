//! The questions to the ledger and what follows from their answers, one after the other. Pure: `asker`
//! puts them to a server.
//!
//! An attempt whose client is gone may still be at work on the server, and commit later. Therefore the
//! number is *taken*: recovery itself seals a higher number in the same row, in a transaction of its
//! own. Once that has committed, every seal of a lower number raises, so that what it belongs to rolls
//! back; what had sealed before has committed or rolled back by then, for the row's lock is held
//! until the end. What the ledger says behind that is final. `docs/recovery.md` has the whole argument.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::client::question::Rows;
use crate::error::{Error, ErrorKind, Result};
use crate::mutation::{self, Mutation};
use crate::session::{LedgerRow, ledger};

/// So many rows are asked for at once.
const ROWS: usize = 500;

/// Nothing of the role's or the database's settings may get in the way: no limit but our own, a fence
/// that waits for the row and then looks at it, and a commit that waits for the standbys if any does.
pub const SETTINGS: &str = "\
SET statement_timeout = 0; SET lock_timeout = 0; \
SET default_transaction_isolation = 'read committed'; \
SELECT pg_catalog.pg_backend_pid(), CASE WHEN pg_catalog.current_setting('synchronous_commit') \
OPERATOR(pg_catalog.=) ANY ('{off,local}'::pg_catalog.text[]) \
THEN pg_catalog.set_config('synchronous_commit', 'on', false) END";

/// What is to be known of one row.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The numbers in question.
    pub lowest: u64,
    pub highest: u64,
    /// Of the cluster on which they were handed out; 0 if that is not known.
    pub system_identifier: u64,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { lowest: u64::MAX, highest: 0, system_identifier: 0 }
    }
}

/// What the ledger says.
#[derive(Debug, Default)]
pub struct Answers {
    pub system_identifier: u64,
    /// Those that are there.
    pub rows: HashMap<Uuid, Answer>,
}

impl Answers {
    pub fn is_of_another_cluster(&self, system_identifier: u64) -> bool {
        system_identifier != 0 && system_identifier != self.system_identifier
    }
}

/// A row, before and behind the fence.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub before: LedgerRow,
    pub behind: LedgerRow,
}

impl Answer {
    /// Whether the number was committed, for good; `None` if that is not remembered.
    pub fn says(&self, number: u64) -> Option<bool> {
        // A fence far ahead leaves nothing of what was remembered before it.
        if self.before.seq >= number && self.before.says(number) == Some(true) {
            return Some(true);
        }
        if mutation::on(Mutation::RecoveryWithoutFence) && self.behind.seq < number {
            return Some(false);
        }
        // Without a number at or above it there would be no fence.
        (self.behind.seq >= number).then(|| self.behind.says(number)).flatten()
    }
}

/// One question: a simple query.
#[derive(Debug)]
pub struct Question {
    pub sql: String,
    pub kind: Asks,
}

/// What a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// For settings, and the backend's process id.
    Settings,
    /// Which numbers there are.
    Look,
    /// A number above all that were handed out in a row. It waits for whoever has sealed in the row and
    /// has not ended.
    Fence,
    /// Whether what was found is as safe as the server makes its commits.
    Confirmation,
}

/// See the module. [`next`](Self::next), then [`handle`](Self::handle) with what the server said, until
/// there is no next one; then [`answers`](Self::answers).
#[derive(Debug)]
pub struct Inquiry {
    system_identifier: u64,
    wanted: Vec<(Uuid, Wanted)>,
    stage: Stage,
    backend_pid: Option<i32>,
    before: HashMap<Uuid, LedgerRow>,
    fenced: Vec<Uuid>,
    behind: HashMap<Uuid, LedgerRow>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Settings,
    /// Of all rows, from this one on.
    Before(usize),
    /// The row whose turn it is.
    Fence(usize),
    /// Of those that were fenced, from this one on.
    Behind(usize),
    Confirmation,
    Ended,
}

impl Inquiry {
    /// Into the rows that were handed out on the cluster with this identifier.
    pub fn new(system_identifier: u64, wanted: &BTreeMap<Uuid, Wanted>) -> Self {
        let answers = Answers { system_identifier, rows: HashMap::new() };
        let here = |wanted: &Wanted| !answers.is_of_another_cluster(wanted.system_identifier);
        let wanted: Vec<(Uuid, Wanted)> = wanted
            .iter()
            .filter(|(_, wanted)| here(wanted))
            .map(|(row, wanted)| (*row, *wanted))
            .collect();
        Self {
            system_identifier,
            stage: if wanted.is_empty() { Stage::Ended } else { Stage::Settings },
            wanted,
            backend_pid: None,
            before: HashMap::new(),
            fenced: Vec::new(),
            behind: HashMap::new(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Of the backend that answers, once it has said so.
    pub fn backend_pid(&self) -> Option<i32> {
        self.backend_pid
    }

    pub fn next(&self) -> Option<Question> {
        let look = |rows: &[Uuid]| ledger::look_closely_sql(&rows[..rows.len().min(ROWS)]);
        let (kind, sql) = match self.stage {
            Stage::Settings => (Asks::Settings, SETTINGS.to_owned()),
            Stage::Before(from) => {
                let rows: Vec<Uuid> = self.wanted[from..].iter().map(|(row, _)| *row).collect();
                (Asks::Look, look(&rows))
            }
            Stage::Fence(at) => {
                let (row, wanted) = self.wanted[at];
                (Asks::Fence, ledger::fence_sql(row, wanted.highest.saturating_add(1)))
            }
            Stage::Behind(from) => (Asks::Look, look(&self.fenced[from..])),
            Stage::Confirmation if mutation::on(Mutation::VerdictNotConfirmed) => return None,
            Stage::Confirmation => (Asks::Confirmation, ledger::CONFIRM.to_owned()),
            Stage::Ended => return None,
        };
        Some(Question { sql, kind })
    }

    /// What the server has said to the question that was next. An error ends the inquiry: another one
    /// may be made on another link.
    pub fn handle(&mut self, reply: Result<Rows>) -> Result<()> {
        self.stage = match self.stage {
            Stage::Settings => {
                let rows = reply?;
                let pid = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
                self.backend_pid = pid;
                Stage::Before(0)
            }
            Stage::Before(from) => {
                read(&reply?, &mut self.before)?;
                match from + ROWS {
                    next if next < self.wanted.len() => Stage::Before(next),
                    _ => self.fence_from(0),
                }
            }
            Stage::Fence(at) => {
                match reply.as_ref().err().and_then(Error::server_error) {
                    // Passed by another one meanwhile, which is as good; or gone, which the look behind
                    // shows.
                    Some(it)
                        if [ledger::SQLSTATE_FENCED, ledger::SQLSTATE_NO_ROW]
                            .contains(&it.code.as_str()) => {}
                    _ => drop(reply?),
                }
                self.fenced.push(self.wanted[at].0);
                self.fence_from(at + 1)
            }
            Stage::Behind(from) => {
                read(&reply?, &mut self.behind)?;
                match from + ROWS {
                    next if next < self.fenced.len() => Stage::Behind(next),
                    _ => Stage::Confirmation,
                }
            }
            Stage::Confirmation => {
                reply?;
                Stage::Ended
            }
            Stage::Ended => Stage::Ended,
        };
        Ok(())
    }

    /// Where a number at or above all of a row's has been committed, that is the fence; the next row
    /// where there is none.
    fn fence_from(&self, from: usize) -> Stage {
        let lacks = |(id, wanted): &(Uuid, Wanted)| {
            !mutation::on(Mutation::RecoveryWithoutFence)
                && self.before.get(id).is_some_and(|row| row.seq < wanted.highest)
        };
        match self.wanted[from..].iter().position(lacks) {
            Some(at) => Stage::Fence(from + at),
            None if self.fenced.is_empty() => Stage::Confirmation,
            None => Stage::Behind(0),
        }
    }

    /// What it has come to.
    pub fn answers(mut self) -> Answers {
        let mut answers =
            Answers { system_identifier: self.system_identifier, rows: HashMap::new() };
        for (id, before) in self.before {
            let behind = match self.fenced.contains(&id) {
                true => self.behind.remove(&id),
                false => Some(before),
            };
            if let Some(behind) = behind {
                answers.rows.insert(id, Answer { before, behind });
            }
        }
        answers
    }
}

/// Whether it may go better with another link.
pub fn is_passing(error: &Error) -> bool {
    let code = error.server_error().map(|it| it.code.as_str()).unwrap_or_default();
    error.kind() == ErrorKind::Connect
        || ["25006", "40001", "40P01", "57P01", "57P02", "57P03"].contains(&code)
}

fn read(rows: &Rows, into: &mut HashMap<Uuid, LedgerRow>) -> Result<()> {
    for row in rows {
        let row = ledger_row(row).ok_or_else(|| {
            Error::new(ErrorKind::Protocol, "the ledger's reply is not of its own shape")
        })?;
        into.insert(row.id, row);
    }
    Ok(())
}

fn ledger_row(row: &[Option<String>]) -> Option<LedgerRow> {
    let text = |at: usize| row.get(at)?.as_deref();
    let seq: i64 = text(1)?.parse().ok()?;
    let recent: i64 = text(2)?.parse().ok()?;
    Some(LedgerRow {
        id: text(0)?.parse().ok()?,
        seq: u64::try_from(seq).unwrap_or(0),
        recent: recent.cast_unsigned(),
    })
}
