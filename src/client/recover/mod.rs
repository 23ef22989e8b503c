//! What became of the transactions that an earlier process had in flight.
//!
//! * `verdict` (pure): what the journal and the ledger say together; `case`: what the journal says of
//!   one transaction; `survey`: of all of them, up to their verdicts;
//! * `inquiry` (pure): what the ledger has to be asked, lest its answer become untrue later; `asker`:
//!   asks it;
//! * `statement`: the transaction's statements, for an application that runs them again.
//!
//! `docs/recovery.md` says what each verdict means and why it holds. Nothing here runs a statement of
//! the application's. What is found is kept in the journal until the application says that it is done
//! with it.

mod asker;
mod case;
pub(super) mod inquiry;
mod statement;
mod survey;
mod verdict;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

pub use statement::{RecoveredStatement, RecoveredStatements};
pub use survey::Survey;
pub use verdict::{SealEvidence, Verdict};

use super::Inner;
use super::process;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, Recovered};
use case::Case;
use inquiry::Answers;
use verdict::Judgement;

/// A transaction, or an autocommit statement, that an earlier process with the same journal had in
/// flight, and what became of it.
///
/// It stays in the journal, and is found again, until [`done`](Self::done). While any of these is
/// alive the journal's files are kept, so that statements can be read from them: do not keep them for
/// longer than it takes to deal with them.
pub struct RecoveredTransaction {
    journal: Journal,
    recovered: Arc<Recovered>,
    case: Case,
    judgement: Judgement,
    process: u32,
}

impl Inner {
    /// What an earlier process left in `journal`, in the order in which it began.
    pub(super) fn recover(&self, journal: &Journal) -> Result<Vec<RecoveredTransaction>> {
        self.check_process()?;
        let survey = Survey::take(journal)?;
        let wanted = survey.wanted();
        let answers = match wanted.is_empty() {
            true => Ok(Answers::default()),
            false => self.ask_ledger(&wanted, survey.timeline_floor()),
        };
        Ok(survey.conclude(answers.as_ref()))
    }
}

impl RecoveredTransaction {
    /// Its number in the journal; `segue journal` calls it by the same. Grows in the order of beginning.
    pub fn number(&self) -> u64 {
        self.case.found.owner
    }

    pub fn verdict(&self) -> Verdict {
        self.judgement.verdict
    }

    /// Why the verdict is [`Verdict::Unknown`], and what can be done about it.
    pub fn reason(&self) -> Option<&str> {
        self.judgement.reason.as_deref()
    }

    /// Records of it may be missing, because the journal was found damaged: do not run its statements
    /// again without having looked at them.
    pub fn is_doubtful(&self) -> bool {
        self.case.found.doubtful
    }

    /// The session that ran it; `None` if that record is lost.
    pub fn session(&self) -> Option<Uuid> {
        self.case.session.as_ref().map(|it| it.session)
    }

    /// The number of that session in the journal.
    pub fn session_number(&self) -> Option<u64> {
        self.case.session_owner
    }

    pub fn database(&self) -> Option<&str> {
        self.case.session.as_ref().map(|it| &*it.database)
    }

    pub fn user(&self) -> Option<&str> {
        self.case.session.as_ref().map(|it| &*it.user)
    }

    /// When it began, by the clock of the machine that ran it; `None` if that record is lost.
    pub fn began_at(&self) -> Option<SystemTime> {
        self.case.began_unix_ms.map(|at| UNIX_EPOCH + Duration::from_millis(at))
    }

    /// Whether it was one statement outside a transaction block.
    pub fn is_autocommit(&self) -> bool {
        self.case.autocommit
    }

    /// Whether it was declared READ ONLY.
    pub fn is_read_only(&self) -> bool {
        self.case.read_only
    }

    /// The statement that began it; empty for a plain BEGIN.
    pub fn begin(&self) -> &str {
        &self.case.begin
    }

    /// Where in the ledger its commits were to stand, one for each attempt, and what the ledger says.
    pub fn seals(&self) -> &[SealEvidence] {
        &self.judgement.seals
    }

    /// How many statements were recorded, and what they take up in the journal, in bytes.
    pub fn size(&self) -> (usize, u64) {
        (self.case.statements, self.case.found.bytes())
    }

    /// What it had executed, in order, read from the journal's files as it is asked for.
    pub fn statements(&self) -> RecoveredStatements {
        RecoveredStatements::read(&self.recovered, &self.case.found)
    }

    /// The application is done with it: the journal forgets it. Returns once that is kept. May be
    /// repeated.
    pub fn done(&self) -> Result<()> {
        if self.process != process::id() {
            return Err(Error::new(
                ErrorKind::Forked,
                "it was recovered before fork(): the journal is the parent process's",
            ));
        }
        let journal = &self.journal;
        let ended = journal.adopt(&self.case.found).end(journal);
        ended.and_then(|()| journal.flush(None)).map_err(|error| {
            Error::new(
                ErrorKind::ProtectionLost,
                format!(
                    "{error} ({}): it is found again when the journal is opened",
                    error.reason().name()
                ),
            )
            .with_source(error)
        })
    }
}

impl fmt::Debug for RecoveredTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveredTransaction")
            .field("number", &self.number())
            .field("verdict", &self.verdict())
            .field("reason", &self.reason())
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}
