//! What the journal says of each transaction that was in flight.

use std::collections::HashMap;

use uuid::Uuid;

use crate::journal::{Found, FoundKind, JournalError, Record, Recovered, Seal, State};
use crate::session::classify;

/// One transaction, without its statements' content.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub found: Found,
    pub session: Option<SessionOf>,
    pub session_owner: Option<u64>,
    pub began_unix_ms: Option<u64>,
    pub autocommit: bool,
    pub read_only: bool,
    pub begin: String,
    pub statements: usize,
    /// The attempts that the ledger has to be asked about.
    pub seals: Vec<Seal>,
    /// One of its statements commits by itself, so that no seal shares its transaction.
    pub commits_by_itself: bool,
}

/// The session that ran it.
#[derive(Debug, Clone)]
pub(super) struct SessionOf {
    pub owner: u64,
    pub session: Uuid,
    pub system_identifier: u64,
    /// The newest of its cluster that it has sent anything to; 0 if that is not known.
    pub timeline: u32,
    pub database: String,
    pub user: String,
}

pub(super) fn is_session(found: &Found) -> bool {
    matches!(found.what, FoundKind::Session { .. })
}

/// All transactions, in the order in which they began.
pub(super) fn gather(recovered: &Recovered) -> Result<Vec<Case>, JournalError> {
    let mut sessions = HashMap::new();
    for found in recovered.in_flight().filter(|found| is_session(found)) {
        recovered.records(found, |record| match record {
            Record::SessionOpened(it) => {
                let session = SessionOf {
                    owner: found.owner,
                    session: it.session,
                    system_identifier: it.system_identifier,
                    timeline: 0,
                    database: it.database.to_owned(),
                    user: it.user.to_owned(),
                };
                sessions.insert(found.owner, session);
            }
            Record::Timeline(timeline) => {
                if let Some(session) = sessions.get_mut(&found.owner) {
                    session.timeline = session.timeline.max(*timeline);
                }
            }
            _ => {}
        })?;
    }
    let mut cases = Vec::new();
    for found in recovered.in_flight() {
        if matches!(found.what, FoundKind::Transaction { .. } | FoundKind::Unknown) {
            cases.extend(read(recovered, found, &sessions)?);
        }
    }
    Ok(cases)
}

/// `None` for what turns out to be no transaction.
fn read(
    recovered: &Recovered,
    found: &Found,
    sessions: &HashMap<u64, SessionOf>,
) -> Result<Option<Case>, JournalError> {
    let mut case = Case {
        found: found.clone(),
        session: None,
        session_owner: None,
        began_unix_ms: None,
        autocommit: false,
        read_only: false,
        begin: String::new(),
        statements: 0,
        seals: Vec::new(),
        commits_by_itself: false,
    };
    let mut is_submission = false;
    recovered.records(found, |record| match record {
        Record::TransactionBegan(it) => {
            case.session_owner = Some(it.session);
            case.began_unix_ms = Some(it.began_unix_ms);
            (case.autocommit, case.read_only) = (it.autocommit, it.read_only);
            it.begin.clone_into(&mut case.begin);
        }
        Record::Statement(it) => {
            case.statements += 1;
            case.commits_by_itself |= classify::classify(it.sql).commits_by_itself();
        }
        Record::CommitSent(seal) if !case.seals.contains(seal) => case.seals.push(*seal),
        // Its first record is lost.
        Record::DeadLetter(_) | Record::SubmissionOutcome(_) => is_submission = true,
        _ => {}
    })?;
    match &found.state {
        _ if is_submission => return Ok(None),
        // Those before the last failure are known.
        State::Sent(seals) if !found.doubtful => case.seals.clone_from(seals),
        State::Sent(_) => {}
        _ if found.doubtful => {}
        _ => case.seals.clear(),
    }
    case.session = case.session_owner.and_then(|owner| sessions.get(&owner)).cloned();
    Ok(Some(case))
}
