//! What a record says: the payload of each kind, to bytes and back. `docs/journal.md` has the layout
//! byte by byte.
//!
//! Pure. No Debug of a record shows a statement, a parameter, a key or what a server said.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

use super::field::{
    Fields, Malformed, put_bytes, put_count, put_text, put_u16, put_u32, put_u64, put_uuid,
};
use super::letter::{self, DeadLetter};

/// The version of every record that this code writes, but for those of [`Kind::version`].
const VERSION: u8 = 1;

/// A record larger than this is refused: its length could not be written.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 31;

/// What a record is, as its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    SessionOpened = 1,
    TransactionBegan = 2,
    Statement = 3,
    StatementData = 4,
    Seen = 5,
    CommitSent = 6,
    OutcomeKnown = 7,
    Ended = 8,
    Submission = 9,
    SubmissionOutcome = 10,
    DeadLetter = 11,
    Checkpoint = 12,
    Doubted = 13,
    Timeline = 14,
}

impl Kind {
    pub(super) fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::SessionOpened,
            2 => Self::TransactionBegan,
            3 => Self::Statement,
            4 => Self::StatementData,
            5 => Self::Seen,
            6 => Self::CommitSent,
            7 => Self::OutcomeKnown,
            8 => Self::Ended,
            9 => Self::Submission,
            10 => Self::SubmissionOutcome,
            11 => Self::DeadLetter,
            12 => Self::Checkpoint,
            13 => Self::Doubted,
            14 => Self::Timeline,
            _ => return None,
        })
    }

    /// The version in which this code writes it. Those before are read too.
    pub(super) fn version(self) -> u8 {
        match self {
            Self::DeadLetter => letter::VERSION,
            _ => VERSION,
        }
    }

    /// Whether it is the first of its owner's records.
    pub(super) fn begins(self) -> bool {
        matches!(self, Self::SessionOpened | Self::TransactionBegan | Self::Submission)
    }
}

/// One record. What it belongs to, its *owner*, is a number given beside it: a session, a transaction
/// or a submission.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record<'a> {
    SessionOpened(SessionOpened<'a>),
    TransactionBegan(TransactionBegan<'a>),
    Statement(Statement<'a>),
    /// More bytes of the request in the last statement: COPY data.
    StatementData(&'a [u8]),
    Seen(Seen),
    /// COMMIT, or the sealed statement, is about to be sent: from here on the ledger knows.
    CommitSent(Seal),
    OutcomeKnown(OutcomeKnown<'a>),
    /// Nothing of the owner is needed any more.
    Ended,
    Submission(Submission<'a>),
    SubmissionOutcome(SubmissionOutcome<'a>),
    DeadLetter(DeadLetter<'a>),
    Checkpoint(Checkpoint),
    /// Records of the owner may be missing, because the journal was found damaged.
    Doubted,
    /// The session is about to send something to a server of this timeline of its cluster: no server of
    /// an older one can tell what becomes of that.
    Timeline(u32),
}

/// A session of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpened<'a> {
    /// The session, for as long as it lives.
    pub session: Uuid,
    /// Its first row in the ledger, and the number of its last commit there.
    pub ledger_row: Uuid,
    pub number: u64,
    /// The cluster's; 0 if no server has been reached yet.
    pub system_identifier: u64,
    pub opened_unix_ms: u64,
    pub database: &'a str,
    pub user: &'a str,
}

/// A transaction, or an autocommit statement.
#[derive(Clone, PartialEq, Eq)]
pub struct TransactionBegan<'a> {
    /// The owner number of its session.
    pub session: u64,
    pub began_unix_ms: u64,
    pub autocommit: bool,
    /// Declared READ ONLY.
    pub read_only: bool,
    /// The statement that begins it; empty for a plain BEGIN.
    pub begin: &'a str,
}

/// How a statement's request is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// `request` is Bind and Execute (and COPY data), with the parameters in it.
    Extended = 0,
    /// A simple query: `request` is the text again, or empty.
    Simple = 1,
}

/// A statement as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    pub form: Form,
    pub sql: &'a str,
    pub param_oids: Cow<'a, [u32]>,
    /// The frontend messages, without Parse, Sync, seal and COMMIT.
    pub request: &'a [u8],
}

/// How much of a statement's reply the application has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which statement of the transaction, from 0.
    pub statement: u32,
    pub count: u64,
    pub digest: u128,
}

/// Where in the ledger it stands whether a commit happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seal {
    pub row: Uuid,
    pub number: u64,
    /// Written only if the transaction has written anything itself.
    pub guarded: bool,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fate {
    NotCommitted = 0,
    Committed = 1,
    Unknown = 2,
}

/// The outcome of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeKnown<'a> {
    pub fate: Fate,
    pub at_unix_ms: u64,
    /// Of the error that ended it; empty if there was none.
    pub sqlstate: &'a str,
}

/// A transaction handed over whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Submission<'a> {
    pub id: Uuid,
    /// Submissions of one lane run in order.
    pub lane: &'a str,
    /// The application's own name for it; empty if it gave none.
    pub key: &'a str,
    pub submitted_unix_ms: u64,
    /// Whether what follows in the lane waits if it fails for good.
    pub blocks_lane: bool,
    pub statements: Vec<Submitted<'a>>,
}

/// A statement of a submission.
#[derive(Clone, PartialEq, Eq)]
pub struct Submitted<'a> {
    pub sql: &'a str,
    pub params: Vec<Param<'a>>,
    pub expect: Expect,
}

/// A parameter in the form in which Bind carries it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Param<'a> {
    /// 0 leaves the type to the server.
    pub oid: u32,
    /// 0 is text, 1 is binary.
    pub format: u16,
    /// `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// What must hold of a submitted statement, lest all of it be rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expect {
    Nothing,
    /// So many rows, affected or returned.
    Rows {
        min: u64,
        max: u64,
    },
}

/// The end of a submission.
#[derive(Clone, PartialEq, Eq)]
pub struct SubmissionOutcome<'a> {
    pub fate: Fate,
    pub at_unix_ms: u64,
    /// How many rows each statement has affected.
    pub affected: Cow<'a, [u64]>,
    /// Of the error that ended it; empty if there was none.
    pub sqlstate: &'a str,
    pub message: &'a str,
}

/// Written first into each segment: what the writer knew at that point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Owner numbers below this have been given out.
    pub next_owner: u64,
    pub live_owners: u64,
    pub live_bytes: u64,
    pub at_unix_ms: u64,
}

impl<'a> Record<'a> {
    pub fn kind(&self) -> Kind {
        match self {
            Self::SessionOpened(_) => Kind::SessionOpened,
            Self::TransactionBegan(_) => Kind::TransactionBegan,
            Self::Statement(_) => Kind::Statement,
            Self::StatementData(_) => Kind::StatementData,
            Self::Seen(_) => Kind::Seen,
            Self::CommitSent(_) => Kind::CommitSent,
            Self::OutcomeKnown(_) => Kind::OutcomeKnown,
            Self::Ended => Kind::Ended,
            Self::Submission(_) => Kind::Submission,
            Self::SubmissionOutcome(_) => Kind::SubmissionOutcome,
            Self::DeadLetter(_) => Kind::DeadLetter,
            Self::Checkpoint(_) => Kind::Checkpoint,
            Self::Doubted => Kind::Doubted,
            Self::Timeline(_) => Kind::Timeline,
        }
    }

    /// Appends the payload.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::SessionOpened(it) => {
                put_uuid(out, it.session);
                put_uuid(out, it.ledger_row);
                put_u64(out, it.number);
                put_u64(out, it.system_identifier);
                put_u64(out, it.opened_unix_ms);
                put_text(out, it.database);
                put_text(out, it.user);
            }
            Self::TransactionBegan(it) => {
                put_u64(out, it.session);
                put_u64(out, it.began_unix_ms);
                out.extend_from_slice(&[u8::from(it.autocommit), u8::from(it.read_only)]);
                put_text(out, it.begin);
            }
            Self::Statement(it) => {
                out.push(it.form as u8);
                put_text(out, it.sql);
                put_count(out, it.param_oids.len());
                it.param_oids.iter().for_each(|oid| put_u32(out, *oid));
                put_bytes(out, it.request);
            }
            Self::StatementData(bytes) => out.extend_from_slice(bytes),
            Self::Seen(it) => {
                put_u32(out, it.statement);
                put_u64(out, it.count);
                out.extend_from_slice(&it.digest.to_le_bytes());
            }
            Self::CommitSent(it) => {
                put_uuid(out, it.row);
                put_u64(out, it.number);
                out.push(u8::from(it.guarded));
            }
            Self::OutcomeKnown(it) => {
                out.push(it.fate as u8);
                put_u64(out, it.at_unix_ms);
                put_text(out, it.sqlstate);
            }
            Self::Ended | Self::Doubted => {}
            Self::Timeline(timeline) => put_u32(out, *timeline),
            Self::Submission(it) => it.encode(out),
            Self::SubmissionOutcome(it) => {
                out.push(it.fate as u8);
                put_u64(out, it.at_unix_ms);
                put_count(out, it.affected.len());
                it.affected.iter().for_each(|rows| put_u64(out, *rows));
                put_text(out, it.sqlstate);
                put_text(out, it.message);
            }
            Self::DeadLetter(it) => it.encode(out),
            Self::Checkpoint(it) => {
                for value in [it.next_owner, it.live_owners, it.live_bytes, it.at_unix_ms] {
                    put_u64(out, value);
                }
            }
        }
    }

    pub(super) fn decode(kind: Kind, version: u8, payload: &'a [u8]) -> Result<Self, Malformed> {
        if version == 0 || version > kind.version() {
            return Err(Malformed);
        }
        let mut f = Fields::new(payload);
        let record = match kind {
            Kind::SessionOpened => Self::SessionOpened(SessionOpened {
                session: f.uuid()?,
                ledger_row: f.uuid()?,
                number: f.u64()?,
                system_identifier: f.u64()?,
                opened_unix_ms: f.u64()?,
                database: f.text()?,
                user: f.text()?,
            }),
            Kind::TransactionBegan => Self::TransactionBegan(TransactionBegan {
                session: f.u64()?,
                began_unix_ms: f.u64()?,
                autocommit: f.flag()?,
                read_only: f.flag()?,
                begin: f.text()?,
            }),
            Kind::Statement => Self::Statement(Statement {
                form: match f.u8()? {
                    0 => Form::Extended,
                    1 => Form::Simple,
                    _ => return Err(Malformed),
                },
                sql: f.text()?,
                param_oids: {
                    let count = f.count(4)?;
                    (0..count).map(|_| f.u32()).collect::<Result<_, _>>()?
                },
                request: f.bytes()?,
            }),
            Kind::StatementData => return Ok(Self::StatementData(payload)),
            Kind::Seen => {
                Self::Seen(Seen { statement: f.u32()?, count: f.u64()?, digest: f.u128()? })
            }
            Kind::CommitSent => {
                Self::CommitSent(Seal { row: f.uuid()?, number: f.u64()?, guarded: f.flag()? })
            }
            Kind::OutcomeKnown => Self::OutcomeKnown(OutcomeKnown {
                fate: Fate::decode(&mut f)?,
                at_unix_ms: f.u64()?,
                sqlstate: f.text()?,
            }),
            Kind::Ended => Self::Ended,
            Kind::Doubted => Self::Doubted,
            Kind::Timeline => Self::Timeline(f.u32()?),
            Kind::Submission => Self::Submission(Submission::decode(&mut f)?),
            Kind::SubmissionOutcome => Self::SubmissionOutcome(SubmissionOutcome {
                fate: Fate::decode(&mut f)?,
                at_unix_ms: f.u64()?,
                affected: {
                    let count = f.count(8)?;
                    (0..count).map(|_| f.u64()).collect::<Result<_, _>>()?
                },
                sqlstate: f.text()?,
                message: f.text()?,
            }),
            Kind::DeadLetter => Self::DeadLetter(DeadLetter::decode(version, &mut f)?),
            Kind::Checkpoint => Self::Checkpoint(Checkpoint {
                next_owner: f.u64()?,
                live_owners: f.u64()?,
                live_bytes: f.u64()?,
                at_unix_ms: f.u64()?,
            }),
        };
        f.end()?;
        Ok(record)
    }
}

impl Fate {
    fn decode(f: &mut Fields<'_>) -> Result<Self, Malformed> {
        match f.u8()? {
            0 => Ok(Self::NotCommitted),
            1 => Ok(Self::Committed),
            2 => Ok(Self::Unknown),
            _ => Err(Malformed),
        }
    }
}

/// The length of NULL, as in Bind.
const NULL: u32 = u32::MAX;

impl<'a> Submission<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_uuid(out, self.id);
        put_u64(out, self.submitted_unix_ms);
        out.push(u8::from(self.blocks_lane));
        put_text(out, self.lane);
        put_text(out, self.key);
        put_count(out, self.statements.len());
        for statement in &self.statements {
            put_text(out, statement.sql);
            match statement.expect {
                Expect::Nothing => out.push(0),
                Expect::Rows { min, max } => {
                    out.push(1);
                    put_u64(out, min);
                    put_u64(out, max);
                }
            }
            put_count(out, statement.params.len());
            for param in &statement.params {
                put_u32(out, param.oid);
                put_u16(out, param.format);
                match param.value {
                    Some(value) => put_bytes(out, value),
                    None => put_u32(out, NULL),
                }
            }
        }
    }

    fn decode(f: &mut Fields<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            id: f.uuid()?,
            submitted_unix_ms: f.u64()?,
            blocks_lane: f.flag()?,
            lane: f.text()?,
            key: f.text()?,
            statements: {
                let count = f.count(Submitted::BYTES_MIN)?;
                (0..count).map(|_| Submitted::decode(f)).collect::<Result<_, _>>()?
            },
        })
    }
}

impl<'a> Submitted<'a> {
    const BYTES_MIN: usize = 9;

    fn decode(f: &mut Fields<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            sql: f.text()?,
            expect: match f.u8()? {
                0 => Expect::Nothing,
                1 => Expect::Rows { min: f.u64()?, max: f.u64()? },
                _ => return Err(Malformed),
            },
            params: {
                let count = f.count(Param::BYTES_MIN)?;
                (0..count).map(|_| Param::decode(f)).collect::<Result<_, _>>()?
            },
        })
    }
}

impl<'a> Param<'a> {
    const BYTES_MIN: usize = 10;

    fn decode(f: &mut Fields<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            oid: f.u32()?,
            format: f.u16()?,
            value: match f.u32()? {
                NULL => None,
                len => Some(f.take(usize::try_from(len).map_err(|_| Malformed)?)?),
            },
        })
    }
}

/// The kind alone: statements and parameters are nobody's business.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

macro_rules! keep_to_itself {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

keep_to_itself!(TransactionBegan, Statement, Submission, Submitted, Param, SubmissionOutcome);
