//! All that a journal has in flight, up to the verdicts. What the ledger says is asked in between, by
//! whoever can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::RecoveredTransaction;
use super::case::{self, Case};
use super::inquiry::{Answers, Wanted};
use super::verdict::{self, Verdict};
use crate::client::journal::cannot_open;
use crate::client::process;
use crate::error::{Error, Result};
use crate::journal::{Fate, Found, Journal, OutcomeKnown, Record, Recovered, State};

/// What an earlier process had in flight, as its journal has it.
pub struct Survey {
    journal: Journal,
    recovered: Arc<Recovered>,
    cases: Vec<Case>,
}

impl Survey {
    pub fn take(journal: &Journal) -> Result<Self> {
        let recovered = Arc::new(journal.inherited().map_err(cannot_open)?);
        let cases = case::gather(&recovered).map_err(cannot_open)?;
        end_idle_sessions(journal, &recovered, &cases);
        Ok(Self { journal: journal.clone(), recovered, cases })
    }

    /// What has to be asked of the ledger; nothing, and no server is needed.
    pub fn wanted(&self) -> BTreeMap<Uuid, Wanted> {
        verdict::wanted(&self.cases)
    }

    /// The least timeline of the server that may be asked.
    pub fn timeline_floor(&self) -> u32 {
        verdict::timeline(&self.cases)
    }

    /// The verdicts, in the order in which the transactions began. What the ledger has decided is kept.
    pub fn conclude(self, answers: Result<&Answers, &Error>) -> Vec<RecoveredTransaction> {
        let Self { journal, recovered, cases } = self;
        let mut found = Vec::with_capacity(cases.len());
        for case in cases {
            let judgement = verdict::judge(&case, answers);
            tracing::debug!(
                owner = case.found.owner,
                verdict = judgement.verdict.name(),
                reason = judgement.reason.as_deref().unwrap_or_default(),
                "recovered"
            );
            keep_verdict(&journal, &case.found, judgement.verdict);
            let (journal, recovered) = (journal.clone(), Arc::clone(&recovered));
            let process = process::id();
            found.push(RecoveredTransaction { journal, recovered, case, judgement, process });
        }
        if let Err(error) = journal.flush(None) {
            tracing::warn!(%error, "what the ledger said is not in the journal; it will be asked again");
        }
        found
    }
}

/// A session is on record for the sake of its transactions.
fn end_idle_sessions(journal: &Journal, recovered: &Recovered, cases: &[Case]) {
    for found in recovered.in_flight().filter(|found| case::is_session(found)) {
        let used = |case: &Case| case.session.as_ref().is_some_and(|it| it.owner == found.owner);
        if !cases.iter().any(used) {
            // It is found once more if that cannot be written.
            let _ = journal.adopt(found).end(journal);
        }
    }
}

/// What the ledger has decided stays decided, also when the ledger has been purged.
fn keep_verdict(journal: &Journal, found: &Found, verdict: Verdict) {
    let fate = match verdict {
        Verdict::Committed => Fate::Committed,
        Verdict::NotCommitted => Fate::NotCommitted,
        Verdict::NeverSent | Verdict::Unknown => return,
    };
    if found.state == State::Known(fate) {
        return;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let known = Record::OutcomeKnown(OutcomeKnown { fate, at_unix_ms, sqlstate: "" });
    // Whether it is kept is seen when all have been handed in.
    let _ = journal.adopt(found).append(journal, &known);
}
