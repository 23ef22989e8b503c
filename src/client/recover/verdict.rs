//! What the journal and the ledger say together. Pure.
//!
//! Invariants: "never sent" and "not committed" are only said if nothing of the transaction can be in
//! the database, now or later; "committed" only if the ledger has one of its numbers, or the journal
//! has the server's own answer. Whatever is less than that is unknown, with a reason.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::asker::{Answers, Wanted};
use super::case::Case;
use crate::error::Error;
use crate::journal::{Fate, Seal, State};

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It is in the database, exactly once.
    Committed,
    /// Its commit was sent and has failed. Nothing of it is in the database, and nothing of it will be:
    /// whatever may still be running of it cannot commit any more.
    NotCommitted,
    /// Its commit was never sent. Nothing of it is in the database.
    NeverSent,
    /// It may be committed or not.
    Unknown,
}

impl Verdict {
    /// In words, for messages and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::NotCommitted => "not committed",
            Self::NeverSent => "never sent",
            Self::Unknown => "unknown",
        }
    }
}

/// One attempt to commit: where in the ledger it was to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealEvidence {
    /// A row's name is what allows its holder to seal: do not print it where strangers read.
    pub row: Uuid,
    pub number: u64,
    /// It would have been written only if the transaction had written anything itself.
    pub guarded: bool,
    /// What the ledger says; `None` if it cannot say, or was not asked.
    pub committed: Option<bool>,
}

/// A verdict and what it rests on.
#[derive(Debug, Clone)]
pub(super) struct Judgement {
    pub verdict: Verdict,
    pub reason: Option<String>,
    pub seals: Vec<SealEvidence>,
}

const DAMAGED: &str = "the journal was found damaged, and records of this transaction may be missing: \
     look for its effects in the database before running it again";
const BY_ITSELF: &str = "it contains a statement that commits by itself (VACUUM, CALL, PREPARE \
     TRANSACTION and the like), of which the ledger knows nothing: look for its effects in the database";
const NO_SEAL: &str = "its commit was sent without a number in the ledger: look for its effects in the \
     database before running it again";
const NOT_TOLD: &str = "its commit was sent without a number in the ledger, or the answer left it open: look for \
     its effects in the database before running it again";

/// The rows of the ledger that have to be asked for.
pub(super) fn wanted(cases: &[Case]) -> BTreeMap<Uuid, Wanted> {
    let mut wanted = BTreeMap::<Uuid, Wanted>::new();
    for case in cases.iter().filter(|case| asks_ledger(case)) {
        let cluster = case.session.as_ref().map_or(0, |session| session.system_identifier);
        for seal in case.seals.iter().filter(|seal| !seal.row.is_nil()) {
            let row = wanted.entry(seal.row).or_default();
            row.highest = row.highest.max(seal.number);
            row.lowest = row.lowest.min(seal.number);
            row.system_identifier = row.system_identifier.max(cluster);
        }
    }
    wanted
}

fn asks_ledger(case: &Case) -> bool {
    match case.found.state {
        State::Known(Fate::Committed) => false,
        State::Sent(_) => true,
        _ => case.found.doubtful,
    }
}

pub(super) fn judge(case: &Case, answers: Result<&Answers, &Error>) -> Judgement {
    let asks = asks_ledger(case);
    let mut unsaid = None;
    let mut seals = Vec::with_capacity(case.seals.len());
    for seal in &case.seals {
        let Seal { row, number, guarded } = *seal;
        let said = if asks { says(case, *seal, answers) } else { Err(None) };
        let committed = said.as_ref().ok().copied();
        unsaid = unsaid.or(said.err().flatten());
        seals.push(SealEvidence { row, number, guarded, committed });
    }
    let found = seals.iter().any(|seal| seal.committed == Some(true));
    let unknown = |reason: &str| (Verdict::Unknown, Some(reason.to_owned()));
    let (verdict, reason) = match &case.found.state {
        State::Known(Fate::Committed) => (Verdict::Committed, None),
        _ if found => (Verdict::Committed, None),
        _ if case.found.doubtful => unknown(DAMAGED),
        State::Known(Fate::NotCommitted) => (Verdict::NotCommitted, None),
        State::Known(_) | State::Dead => unknown(NOT_TOLD),
        // An autocommit statement is sent together with its commit.
        State::NeverSent if case.commits_by_itself && !case.autocommit => unknown(BY_ITSELF),
        State::NeverSent => (Verdict::NeverSent, None),
        State::Sent(_) if case.commits_by_itself => unknown(BY_ITSELF),
        State::Sent(_) => match unsaid {
            Some(reason) => (Verdict::Unknown, Some(reason)),
            None => (Verdict::NotCommitted, None),
        },
    };
    Judgement { verdict, reason, seals }
}

/// Whether the ledger has the seal, for good; else why it cannot be said.
fn says(
    case: &Case,
    seal: Seal,
    answers: Result<&Answers, &Error>,
) -> Result<bool, Option<String>> {
    if seal.row.is_nil() {
        return Err(Some(NO_SEAL.to_owned()));
    }
    let answers = answers.map_err(|error| {
        Some(format!("the ledger could not be asked: {error}; once that is mended, recover again"))
    })?;
    let ran_on = case.session.as_ref().map_or(0, |session| session.system_identifier);
    if answers.is_of_another_cluster(ran_on) {
        return Err(Some(format!(
            "it was run on the cluster with the system identifier {ran_on}, and the server that was \
             asked has {}: recover with a connection to the cluster that it was run on",
            answers.system_identifier
        )));
    }
    let Some(row) = answers.rows.get(&seal.row) else {
        let database = case.session.as_ref().map_or("its database", |session| &session.database);
        return Err(Some(format!(
            "the ledger has no row for its session: the client is connected to another database than \
             {database}, or the row was purged, or it is not on this server, because it never came \
             here before a promotion; look for the transaction's effects in the database"
        )));
    };
    row.says(seal.number).ok_or_else(|| {
        Some(
            "so many commits of its session came later that the ledger does not remember it: look for \
             its effects in the database"
                .to_owned(),
        )
    })
}
