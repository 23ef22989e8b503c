//! Installs the ledger: at the first session where the role may, or when asked to.

use std::sync::atomic::Ordering;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use super::Inner;
use super::status::{ClientStatus, JournalStatus};
use crate::config::LedgerMode;
use crate::error::{Error, ErrorKind, Result};
use crate::session::ledger;

/// How the ledger is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetupOptions {
    /// Applications may use the ledger through functions alone: slower, and proof against a hostile
    /// role in the same database.
    pub hardened: bool,
    /// The role that may use it; everybody if none is given.
    pub role: Option<String>,
}

impl SetupOptions {
    #[must_use]
    pub fn hardened(mut self, hardened: bool) -> Self {
        self.hardened = hardened;
        self
    }

    #[must_use]
    pub fn role(mut self, role: Option<String>) -> Self {
        self.role = role;
        self
    }
}

/// Whether the first session has tried to install the ledger, and what came of it.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The server and timeline on which it was tried last.
    tried: Option<(usize, u32)>,
    problem: Option<String>,
}

/// The installation takes locks for a moment only.
const TIMEOUT: Duration = Duration::from_secs(30);

impl Inner {
    pub(super) fn install(&self, options: &SetupOptions) -> Result<()> {
        self.check_process()?;
        let (hardened, role) = (options.hardened, options.role.as_deref());
        let sql = format!(
            "{};\n{}",
            ledger::install_sql(hardened, role),
            ledger::install_submissions_sql(hardened, role)
        );
        self.cluster.run_on_primary(sql, TIMEOUT)?;
        let mut state = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { tried: state.tried, problem: None };
        Ok(())
    }

    pub(super) fn remove_ledger(&self) -> Result<()> {
        self.check_process()?;
        self.cluster.run_on_primary(ledger::remove_sql().to_owned(), TIMEOUT)
    }

    /// A primary, given by server and timeline, has no ledger that could be used: installs it, once.
    /// Whether it can be used now.
    pub(super) fn install_once(&self, primary: (usize, u32)) -> Result<bool> {
        if self.config.ledger.mode == LedgerMode::Off {
            return Ok(false);
        }
        let mut state = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tried != Some(primary) {
            state.tried = Some(primary);
            let sql = ledger::install_sql(false, None);
            let mut installed = self.cluster.run_on_primary(sql.clone(), TIMEOUT);
            if installed.as_ref().is_err_and(Error::maybe_committed) {
                // The link was lost meanwhile. It may be installed any number of times.
                installed = self.cluster.run_on_primary(sql, TIMEOUT);
            }
            match installed {
                Ok(()) => state.problem = None,
                Err(error) => {
                    tracing::warn!(%error, "the ledger could not be installed");
                    // Only what the server itself refuses would be refused again.
                    state.tried = error.server_error().is_some().then_some(primary);
                    state.problem = Some(error.to_string());
                }
            }
        }
        match &state.problem {
            None => Ok(true),
            Some(problem) if self.config.ledger.mode == LedgerMode::Require => Err(Error::new(
                ErrorKind::Ledger,
                format!(
                    "ledger=require, and the ledger could not be installed: {problem}; have an \
                     owner of the database run `segue setup`, or set ledger=prefer"
                ),
            )),
            Some(_) => Ok(false),
        }
    }

    pub(super) fn status(&self) -> ClientStatus {
        // An installation that is under way may take its time, and has no problem so far.
        let ledger_problem = match self.setup.try_lock() {
            Ok(state) => state.problem.clone(),
            Err(TryLockError::Poisoned(state)) => state.into_inner().problem.clone(),
            Err(TryLockError::WouldBlock) => None,
        };
        ClientStatus {
            cluster: self.cluster.status(),
            sessions: self.sessions.load(Ordering::Relaxed),
            ledger_problem,
            journal: self.file_journal.as_ref().map(|file| JournalStatus {
                dir: self.config.journal.dir.clone().unwrap_or_default(),
                bytes: file.journal.disk_bytes(),
            }),
        }
    }
}
