//! What the journal and the ledger say together. Pure.
//!
//! Invariants: "never sent" and "not committed" are only said if nothing of the transaction can be in
//! the database, now or later; "committed" only if the ledger has one of its numbers, or the journal
//! has the server's own answer. Whatever is less than that is unknown, with a reason.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::case::Case;
use super::inquiry::{Answers, Wanted};
use crate::error::Error;
use crate::journal::{Fate, Seal, State};
use crate::mutation::{self, Mutation};

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

/// No server of an older timeline can say what became of all of them: it may lack what they were sent to.
pub(super) fn timeline(cases: &[Case]) -> u32 {
    let asked = cases.iter().filter(|case| asks_ledger(case));
    let newest = asked.filter_map(|case| case.session.as_ref()).map(|it| it.timeline).max();
    newest.filter(|_| !mutation::on(Mutation::OlderTimelineAsked)).unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::super::case::SessionOf;
    use super::super::inquiry::Answer;
    use super::*;
    use crate::error::ErrorKind;
    use crate::journal::{Found, FoundKind};
    use crate::session::LedgerRow;

    const ROW: Uuid = Uuid::from_u128(7);
    const CLUSTER: u64 = 42;

    fn seal(number: u64) -> Seal {
        Seal { row: ROW, number, guarded: false }
    }

    fn case(state: State, doubtful: bool) -> Case {
        let seals = match &state {
            State::Sent(seals) => seals.clone(),
            _ => Vec::new(),
        };
        let what = FoundKind::Transaction { session: 2, autocommit: false, began_unix_ms: 0 };
        let session = SessionOf {
            owner: 2,
            session: Uuid::nil(),
            system_identifier: CLUSTER,
            timeline: 3,
            database: "sales".to_owned(),
            user: "till".to_owned(),
        };
        Case {
            found: Found::of(what, state, doubtful),
            session: Some(session),
            session_owner: Some(2),
            began_unix_ms: Some(0),
            autocommit: false,
            read_only: false,
            begin: String::new(),
            statements: 1,
            seals,
            commits_by_itself: false,
        }
    }

    /// A ledger that had these numbers before the fence with the number `fence`.
    fn ledger(numbers: &[u64], fence: u64) -> Answers {
        let row = |numbers: &[u64]| {
            let seq = numbers.iter().copied().max().unwrap_or(0);
            let bit = |number: &u64| 1u64.checked_shl((seq - number) as u32).unwrap_or(0);
            LedgerRow { id: ROW, seq, recent: numbers.iter().map(bit).sum() }
        };
        let behind = [numbers, &[fence]].concat();
        let answer = Answer { before: row(numbers), behind: row(&behind) };
        Answers { system_identifier: CLUSTER, rows: [(ROW, answer)].into() }
    }

    fn verdict(case: &Case, answers: &Answers) -> Verdict {
        let judgement = judge(case, Ok(answers));
        let unknown = judgement.verdict == Verdict::Unknown;
        assert_eq!(
            judgement.reason.is_some(),
            unknown,
            "a reason for what is unknown, and only that"
        );
        judgement.verdict
    }

    #[test]
    fn the_ledger_decides_what_was_sent() {
        let sent =
            |numbers: &[u64]| case(State::Sent(numbers.iter().copied().map(seal).collect()), false);
        assert_eq!(verdict(&sent(&[5]), &ledger(&[4, 5], 6)), Verdict::Committed);
        assert_eq!(verdict(&sent(&[5]), &ledger(&[4], 6)), Verdict::NotCommitted);
        assert_eq!(
            verdict(&sent(&[5, 9]), &ledger(&[4, 9], 10)),
            Verdict::Committed,
            "any attempt"
        );
        // Without a number at or above it a zombie may commit yet.
        assert_eq!(verdict(&sent(&[5]), &ledger(&[3], 4)), Verdict::Unknown);
        assert_eq!(verdict(&sent(&[5]), &ledger(&[4], 500)), Verdict::Unknown, "not remembered");
        assert_eq!(verdict(&sent(&[5]), &Answers::default()), Verdict::Unknown, "another cluster");
        let none = Answers { system_identifier: CLUSTER, ..Answers::default() };
        assert_eq!(verdict(&sent(&[5]), &none), Verdict::Unknown, "no such row");
        let unsealed = case(State::Sent(vec![Seal { row: Uuid::nil(), ..seal(0) }]), false);
        assert_eq!(verdict(&unsealed, &ledger(&[5], 6)), Verdict::Unknown);
        let failed = Error::new(ErrorKind::Connect, "no server");
        let judgement = judge(&sent(&[5]), Err(&failed));
        assert_eq!(judgement.verdict, Verdict::Unknown);
        assert!(judgement.reason.is_some_and(|reason| reason.contains("no server")));
    }

    #[test]
    fn what_the_journal_knows_needs_no_ledger() {
        let nothing = Answers::default();
        let known = |fate| case(State::Known(fate), false);
        assert_eq!(verdict(&known(Fate::Committed), &nothing), Verdict::Committed);
        assert_eq!(verdict(&known(Fate::NotCommitted), &nothing), Verdict::NotCommitted);
        assert_eq!(verdict(&known(Fate::Unknown), &nothing), Verdict::Unknown);
        assert_eq!(verdict(&case(State::NeverSent, false), &nothing), Verdict::NeverSent);
        assert!(wanted(&[known(Fate::Committed), case(State::NeverSent, false)]).is_empty());
    }

    /// Of what may be incomplete neither "never sent" nor "not committed" is said.
    #[test]
    fn a_doubtful_one_is_committed_or_unknown() {
        let nothing = ledger(&[], 9);
        for state in [
            State::NeverSent,
            State::Sent(vec![seal(5)]),
            State::Known(Fate::NotCommitted),
            State::Known(Fate::Unknown),
        ] {
            assert_eq!(
                verdict(&case(state.clone(), true), &nothing),
                Verdict::Unknown,
                "{state:?}"
            );
        }
        let sent = case(State::Sent(vec![seal(5)]), true);
        assert_eq!(verdict(&sent, &ledger(&[5], 9)), Verdict::Committed);
        assert_eq!(
            verdict(&case(State::Known(Fate::Committed), true), &nothing),
            Verdict::Committed
        );
    }

    #[test]
    fn what_commits_by_itself_is_not_the_ledgers_to_know() {
        let by_itself = |state, autocommit| {
            let mut case = case(state, false);
            (case.commits_by_itself, case.autocommit) = (true, autocommit);
            verdict(&case, &ledger(&[4], 6))
        };
        assert_eq!(by_itself(State::Sent(vec![seal(5)]), false), Verdict::Unknown);
        assert_eq!(by_itself(State::NeverSent, false), Verdict::Unknown);
        // An autocommit statement leaves together with what is on record as sent.
        assert_eq!(by_itself(State::NeverSent, true), Verdict::NeverSent);
    }

    /// A later process knew nothing of timelines. Where only the primary could be reached that had been
    /// deposed, it asked that one, fenced off the number there, and said "not committed" of what the
    /// promoted server had committed.
    #[test]
    fn no_older_timeline_is_asked_than_the_session_has_been_on() {
        let sent = case(State::Sent(vec![seal(5)]), false);
        let mut earlier = case(State::Sent(vec![seal(4)]), false);
        earlier.session.as_mut().unwrap().timeline = 2;
        let mut known = case(State::Known(Fate::Committed), false);
        known.session.as_mut().unwrap().timeline = 9;
        assert_eq!(timeline(&[sent, earlier.clone(), known.clone()]), 3);
        earlier.session = None;
        assert_eq!(timeline(&[earlier, known]), 0, "what need not be asked about does not count");
    }

    #[test]
    fn each_row_is_asked_for_once_with_all_of_its_numbers() {
        let sent =
            |numbers: &[u64]| case(State::Sent(numbers.iter().copied().map(seal).collect()), false);
        let wanted = wanted(&[sent(&[5, 9]), sent(&[3])]);
        assert_eq!(wanted.len(), 1);
        let row = &wanted[&ROW];
        assert_eq!((row.lowest, row.highest, row.system_identifier), (3, 9, CLUSTER));
    }
}
