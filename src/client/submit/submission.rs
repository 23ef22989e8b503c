//! What the application hands over: a transaction as a whole, its parameters encoded.
//!
//! A submission is checked when it is built: whatever could never run as one transaction is refused
//! here, with nothing kept. No Debug shows a statement or a value.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use postgres_protocol::IsNull;
use uuid::Uuid;

use crate::client::ToSql;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{self, Expect, Param, Submitted};
use crate::session::classify::{Classified, StatementKind, classify};

/// Names a submission by its key: the namespace of the UUIDs (version 5) made of keys.
const KEYS: Uuid = Uuid::from_u128(0x5e97_e0c4_3f5b_4d0a_9c61_7d9a_2f54_c0de);

/// A transaction that is handed over whole: statements with their parameters, and how they are to be
/// treated.
#[derive(Clone, Default)]
pub struct Submission {
    statements: Vec<SubmittedStatement>,
    lane: Option<String>,
    key: Option<String>,
    stop_on_failure: bool,
    /// Rows were expected of no statement.
    misplaced: bool,
}

/// One statement of a submission.
#[derive(Clone, PartialEq, Eq)]
pub struct SubmittedStatement {
    pub sql: Arc<str>,
    pub oids: Vec<u32>,
    pub params: Vec<Value>,
    /// How many rows it must affect or return.
    pub expect: Option<(u64, u64)>,
    /// Whether it may be prepared under a name.
    pub named: bool,
    /// It might commit by itself unless it stands between BEGIN and COMMIT.
    pub guarded: bool,
}

/// A parameter as Bind carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    pub text: bool,
    /// `None` is NULL.
    pub bytes: Option<Bytes>,
}

/// A submission as it is kept and run.
pub struct Payload {
    pub id: Uuid,
    pub lane: Option<Arc<str>>,
    pub key: Option<Arc<str>>,
    pub stop_on_failure: bool,
    pub submitted_unix_ms: u64,
    pub statements: Vec<SubmittedStatement>,
}

impl Submission {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a statement. Its parameters are encoded here and now; the types are the values' own.
    ///
    /// Refused is what cannot be a part of a transaction, or would leave something behind on the
    /// session that runs it: BEGIN, COMMIT, SAVEPOINT, COPY, VACUUM, SET without LOCAL, LISTEN,
    /// strings of several statements, temporary tables that outlive the transaction, and the like.
    pub fn statement(mut self, sql: &str, params: &[&dyn ToSql]) -> Result<Self> {
        self.add(sql, params)?;
        Ok(self)
    }

    /// As [`statement`](Self::statement); what is refused leaves the rest as it was.
    pub(crate) fn add(&mut self, sql: &str, params: &[&dyn ToSql]) -> Result<()> {
        let class = classify(sql);
        refuse(sql, &class)?;
        let mut oids = Vec::with_capacity(params.len());
        let mut values = Vec::with_capacity(params.len());
        for (index, param) in params.iter().enumerate() {
            let oid = param.type_oid();
            let mut out = BytesMut::new();
            let encoded = param.encode(oid, &mut out).map_err(|error| {
                let number = index + 1;
                let message =
                    format!("parameter {number} cannot be encoded; nothing was handed over");
                Error::new(ErrorKind::Conversion, message).with_source(error)
            })?;
            let bytes = matches!(encoded, IsNull::No).then(|| out.freeze());
            oids.push(oid);
            values.push(Value { text: param.is_text(), bytes });
        }
        if u16::try_from(values.len()).is_err() {
            return Err(usage("a statement takes at most 65535 parameters"));
        }
        self.statements.push(SubmittedStatement::new(sql.into(), oids, values, None, &class));
        Ok(())
    }

    /// So many rows must the statement added last affect or return, or nothing of the submission is
    /// committed and it becomes a dead letter. Ahead of any statement it is an error, which handing over
    /// tells.
    #[must_use]
    pub fn expect_rows(mut self, rows: impl RangeBounds<u64>) -> Self {
        let min = match rows.start_bound() {
            Bound::Included(min) => *min,
            Bound::Excluded(min) => min.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let max = match rows.end_bound() {
            Bound::Included(max) => *max,
            Bound::Excluded(max) => max.saturating_sub(1),
            Bound::Unbounded => u64::MAX,
        };
        match self.statements.last_mut() {
            Some(statement) => statement.expect = Some((min, max)),
            None => self.misplaced = true,
        }
        self
    }

    /// Submissions of one lane take effect in the order in which they were handed over. Without a lane
    /// a submission is ordered with nothing.
    #[must_use]
    pub fn lane(mut self, lane: impl Into<String>) -> Self {
        self.lane = Some(lane.into()).filter(|lane| !lane.is_empty());
        self
    }

    /// The application's own name for it: the same key is never executed twice, whichever process
    /// hands it over, for as long as the server's ledger remembers.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into()).filter(|key| !key.is_empty());
        self
    }

    /// What follows in the lane waits if this one becomes a dead letter, until that is retried or
    /// purged.
    #[must_use]
    pub fn stop_on_failure(mut self, stop: bool) -> Self {
        self.stop_on_failure = stop;
        self
    }

    /// What is kept, under the id that it has from now on.
    pub(super) fn into_payload(self, now_unix_ms: u64) -> Result<Payload> {
        if self.statements.is_empty() {
            return Err(usage("a submission needs a statement; nothing was handed over"));
        }
        if self.misplaced {
            return Err(usage(
                "expect_rows stands ahead of any statement; it belongs behind the one of which rows are \
                 expected; nothing was handed over",
            ));
        }
        if self.stop_on_failure && self.lane.is_none() {
            return Err(usage("stop_on_failure means nothing without a lane; give it one"));
        }
        let id = self.key.as_deref().map_or_else(Uuid::new_v4, id_of_key);
        Ok(Payload {
            id,
            lane: self.lane.map(Into::into),
            key: self.key.map(Into::into),
            stop_on_failure: self.stop_on_failure,
            submitted_unix_ms: now_unix_ms,
            statements: self.statements,
        })
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("statements", &self.statements.len())
            .field("lane", &self.lane)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The id of what is submitted under a key: a UUID of version 5.
pub fn id_of_key(key: &str) -> Uuid {
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(KEYS.as_bytes());
    context.update(key.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&context.finish().as_ref()[..16]);
    uuid::Builder::from_sha1_bytes(bytes).into_uuid()
}

impl SubmittedStatement {
    fn new(
        sql: Arc<str>,
        oids: Vec<u32>,
        params: Vec<Value>,
        expect: Option<(u64, u64)>,
        class: &Classified,
    ) -> Self {
        Self {
            sql,
            oids,
            params,
            expect,
            named: class.prepare && !class.sets_config,
            // CALL and DO, and whatever else may end a transaction where none was begun.
            guarded: class.outside_transaction,
        }
    }
}

impl Payload {
    /// What the journal keeps of it.
    pub fn record(&self) -> journal::Record<'_> {
        journal::Record::Submission(journal::Submission {
            id: self.id,
            lane: self.lane.as_deref().unwrap_or_default(),
            key: self.key.as_deref().unwrap_or_default(),
            submitted_unix_ms: self.submitted_unix_ms,
            blocks_lane: self.stop_on_failure,
            statements: self.statements.iter().map(submitted).collect(),
        })
    }

    pub fn from_record(record: &journal::Submission<'_>) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        Self {
            id: record.id,
            lane: some(record.lane),
            key: some(record.key),
            stop_on_failure: record.blocks_lane,
            submitted_unix_ms: record.submitted_unix_ms,
            statements: record.statements.iter().map(from_submitted).collect(),
        }
    }

    /// Whether it has to stand between BEGIN and COMMIT, with something to look at before the latter.
    pub fn is_solo(&self) -> bool {
        self.statements.iter().any(|it| it.expect.is_some() || it.guarded)
    }

    /// About so much memory does it take up.
    pub fn bytes(&self) -> usize {
        let value = |it: &Value| 48 + it.bytes.as_ref().map_or(0, Bytes::len);
        let statement = |it: &SubmittedStatement| {
            96 + it.sql.len() + it.params.iter().map(value).sum::<usize>()
        };
        256 + self.statements.iter().map(statement).sum::<usize>()
    }
}

fn submitted(it: &SubmittedStatement) -> Submitted<'_> {
    let params = it.params.iter().zip(&it.oids).map(|(value, oid)| Param {
        oid: *oid,
        format: u16::from(!value.text),
        value: value.bytes.as_deref(),
    });
    Submitted {
        sql: &it.sql,
        params: params.collect(),
        expect: it.expect.map_or(Expect::Nothing, |(min, max)| Expect::Rows { min, max }),
    }
}

fn from_submitted(it: &Submitted<'_>) -> SubmittedStatement {
    let expect = match it.expect {
        Expect::Rows { min, max } => Some((min, max)),
        _ => None,
    };
    let value = |param: &Param<'_>| Value {
        text: param.format == 0,
        bytes: param.value.map(Bytes::copy_from_slice),
    };
    let oids = it.params.iter().map(|param| param.oid).collect();
    let params = it.params.iter().map(value).collect();
    SubmittedStatement::new(it.sql.into(), oids, params, expect, &classify(it.sql))
}

/// Why a statement can be no part of a submission.
fn refuse(sql: &str, class: &Classified) -> Result<()> {
    if sql.contains('\0') {
        return Err(usage("the statement contains a NUL byte; nothing was handed over"));
    }
    let why = match &class.kind {
        StatementKind::Empty => "it is empty",
        StatementKind::Several(_) => "it is a string of several: add them one by one",
        kind if kind.controls_transaction() => {
            "it begins, ends or divides a transaction: a submission is one by itself"
        }
        StatementKind::CopyIn | StatementKind::CopyOut => "COPY needs somebody at the other end",
        StatementKind::Set { local: true, .. } => return Ok(()),
        StatementKind::Set { .. }
        | StatementKind::Reset(_)
        | StatementKind::Listen(_)
        | StatementKind::Unlisten(_)
        | StatementKind::Discard(_)
        | StatementKind::Deallocate(_) => {
            "it changes the session, which submissions share: only SET LOCAL ends with its transaction"
        }
        // The session holds a lock of Segue's own.
        _ if sql.to_ascii_lowercase().contains("pg_advisory_unlock_all") => {
            "it lets go of the session's locks, which submissions share"
        }
        _ if class.sets_config => "it changes a setting of the session, which submissions share",
        _ => match class.unrestorable {
            Some(reason) => reason,
            None => return Ok(()),
        },
    };
    Err(usage(&format!(
        "this statement can be no part of a submission: {why}; nothing was handed over"
    )))
}

fn usage(message: &str) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_one_transaction_is_refused() {
        for sql in [
            "",
            "COMMIT",
            "SAVEPOINT a",
            "SELECT 1; SELECT 2",
            "SET search_path = a",
            "LISTEN a",
            "COPY t FROM STDIN",
            "CREATE TEMP TABLE t (a int)",
            "SELECT pg_advisory_lock(1)",
            "SELECT PG_advisory_unlock_all()",
            "SELECT '\0'",
        ] {
            let error = Submission::new().statement(sql, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{sql}");
        }
        for sql in ["INSERT INTO t VALUES (1)", "SET LOCAL a.b = 'c'", "CALL p()", "SELECT f()"] {
            assert!(Submission::new().statement(sql, &[]).is_ok(), "{sql}");
        }
    }

    #[test]
    fn rows_are_expected_of_a_statement() {
        let early = Submission::new().expect_rows(1..=1).statement("SELECT 1", &[]).unwrap();
        let error = early.into_payload(0).err().expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("expect_rows"), "{error}");
    }

    #[test]
    fn a_key_always_names_the_same_submission() {
        assert_eq!(id_of_key("order-4711"), id_of_key("order-4711"));
        assert_ne!(id_of_key("order-4711"), id_of_key("order-4712"));
        assert_eq!(id_of_key("order-4711").get_version_num(), 5);
    }

    #[test]
    fn the_journal_gives_back_what_it_was_given() {
        let submission = Submission::new()
            .statement("INSERT INTO t VALUES ($1, $2, $3)", &[&7i64, &"seven", &None::<i32>])
            .unwrap()
            .expect_rows(1..=1)
            .statement("CALL p()", &[])
            .unwrap()
            .lane("a")
            .key("k")
            .stop_on_failure(true);
        let payload = submission.into_payload(5).unwrap();
        assert!(payload.is_solo());
        let record = payload.record();
        let journal::Record::Submission(record) = &record else { panic!("another record") };
        let back = Payload::from_record(record);
        assert!(back.statements == payload.statements);
        assert_eq!((back.id, &back.lane, &back.key), (payload.id, &payload.lane, &payload.key));
        assert!(back.stop_on_failure);
    }
}
