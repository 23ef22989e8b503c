//! What a submission that was not executed is told, and whether it is tried again.
//!
//! Pure. Whatever is not final is sent again, for ever: the claim sees to it that nothing is done twice.

use super::suspects::STRIKES;
use crate::error::{Error, ErrorKind, Outcome, ServerError};

/// After a conflict with other transactions.
const CONFLICT_MIN_MS: u64 = 5;
const CONFLICT_MAX_MS: u64 = 1000;
/// After a server, or the journal, has run out of something.
pub const SHORTAGE_MS: u64 = 500;

/// What follows from a server's refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is sent again; without statements prepared ahead if `plain`.
    Again { delay_ms: u64, plain: bool },
    /// The same, and nothing else may succeed at present.
    Shortage,
    /// It can never succeed.
    Dead,
}

/// What follows from this error of a submission that was tried so often before; `plain`: without statements
/// prepared ahead.
pub fn after(error: &ServerError, attempts: u32, plain: bool) -> After {
    let class = error.code.get(..2).unwrap_or_default();
    match (error.code.as_str(), class) {
        ("40001" | "40P01", _) => {
            let delay_ms = (CONFLICT_MIN_MS << attempts.min(16)).min(CONFLICT_MAX_MS);
            After::Again { delay_ms, plain: false }
        }
        // What was prepared ahead is gone, was never there, or no longer fits.
        ("26000" | "0A000", _) if !plain => After::Again { delay_ms: 0, plain: true },
        // Parameters that do not fit the statement.
        ("08P01", _) => After::Dead,
        // The server is out of something, its disks fail, or it cannot reach another one: nothing that is
        // wrong with the submission.
        (_, "08" | "53" | "58") => After::Shortage,
        _ => After::Dead,
    }
}

pub fn refusal(error: ServerError) -> Error {
    Error::server(error, Outcome::NotCommitted)
}

fn own(code: &str, message: &str) -> ServerError {
    ServerError {
        severity: "ERROR".to_owned(),
        code: code.to_owned(),
        message: message.to_owned(),
        ..ServerError::default()
    }
}

pub fn too_large() -> ServerError {
    own("54000", "the submission is larger than a message of the protocol can be")
}

pub fn unreadable() -> ServerError {
    own(
        "XX001",
        "the journal is damaged where this submission stands; an earlier attempt may have committed it: look \
         at the journal, then retry or purge it",
    )
}

pub fn unmet(statement: usize, rows: u64) -> Error {
    let number = statement + 1;
    Error::new(
        ErrorKind::TransactionFailed,
        format!(
            "statement {number} of the submission has affected {rows} rows, which is not what was \
             expected; all of it was rolled back and nothing is committed"
        ),
    )
}

pub fn crashes() -> Error {
    Error::new(
        ErrorKind::ServerCrash,
        format!(
            "the server has crashed {STRIKES} times while it ran this submission with no other beside it; \
             nothing of it is committed, and it is not run again by itself: look for the backend's end in \
             the server's log, mend what crashes it, then retry or purge the dead letter"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_tried_again_and_the_rest_is_dead() {
        let of = |code: &str, attempts, plain| after(&own(code, "no"), attempts, plain);
        let again = |delay_ms, plain| After::Again { delay_ms, plain };
        assert_eq!(of("40001", 0, false), again(5, false));
        assert_eq!(of("40P01", 3, true), again(40, false));
        assert_eq!(of("40001", u32::MAX, false), again(1000, false));
        assert_eq!(of("26000", 0, false), again(0, true));
        assert_eq!(of("0A000", 1, false), again(0, true));
        for code in ["53100", "58030", "08006"] {
            assert_eq!(of(code, 0, false), After::Shortage, "{code}");
        }
        for (code, plain) in [("26000", true), ("08P01", false), ("23505", false), ("", false)] {
            assert_eq!(of(code, 0, plain), After::Dead, "{code}");
        }
    }
}
