//! The few statements that the model understands, read off their text.

use segue::session::ledger;
use uuid::Uuid;

use crate::claims::{self, Errand};
use crate::isolation::Isolation;
use crate::ledger_sql::{self, Ask};

#[derive(Debug, Clone, PartialEq)]
pub enum Stmt {
    Begin(Isolation),
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// Unique key, checked at once.
    InsertT(i64),
    /// Unique key, checked when the transaction commits.
    InsertD(i64),
    /// No key: a duplicate stays visible.
    InsertLog(i64),
    UpdateAcct {
        key: i64,
        id: i64,
    },
    SelectT,
    SelectLog,
    SelectBig,
    SelectAcct(i64),
    /// A function that writes, which its name does not tell.
    Bump(i64),
    /// A function that does not write, which its name does not tell either.
    Peek(i64),
    /// One that fails in one way or another, or does not, as an account has it.
    Guard(i64),
    Nextval,
    Currval,
    Lastval,
    Setval(i64),
    Set {
        name: String,
        value: String,
        local: bool,
    },
    SetConfig {
        name: String,
        value: String,
    },
    Reset(String),
    Show(String),
    CopyInLog,
    CopyInT,
    CopyOutBig,
    Listen(String),
    Unlisten(String),
    DiscardAll,
    DeallocateAll,
    DivisionByZero,
    SealTable,
    SealFunction,
    SealGuarded,
    SealSimple(Uuid, i64),
    Look,
    Open,
    Terminate,
    Confirm,
    Ask(Ask),
    /// Of a submission; its predecessor in the lane must be done; by a function.
    Claim {
        after: bool,
        function: bool,
    },
    Errand(Errand),
    /// A function that crashes its backend.
    Crash,
}

impl Stmt {
    pub fn is_internal(&self) -> bool {
        use Stmt::*;
        matches!(
            self,
            SealTable
                | SealFunction
                | SealGuarded
                | SealSimple(..)
                | Look
                | Open
                | Terminate
                | Confirm
                | Ask(_)
                | Claim { .. }
                | Errand(_)
        )
    }

    /// Whether it has columns: the names.
    pub fn columns(&self) -> &'static [&'static str] {
        use Stmt::*;
        match self {
            UpdateAcct { .. } | SelectAcct(_) => &["k", "n"],
            SelectT
            | SelectLog
            | SelectBig
            | Bump(_)
            | Peek(_)
            | Guard(_)
            | Nextval
            | Currval
            | Lastval
            | Setval(_)
            | SetConfig { .. }
            | Show(_)
            | DivisionByZero => &["n"],
            SealFunction | SealGuarded => &["seal"],
            SealSimple(..) => &["segue_seal_of_this_request"],
            Look | Ask(_) => &["session", "seq", "recent"],
            Open => &["open"],
            Terminate => &["pg_terminate_backend"],
            Confirm => &["pg_logical_emit_message"],
            Claim { function: true, .. } => &["claim"],
            Errand(_) => &["word"],
            _ => &[],
        }
    }

    /// Whether it is refused in a transaction that can only read.
    pub fn writes(&self) -> bool {
        use Stmt::*;
        matches!(
            self,
            InsertT(_)
                | InsertD(_)
                | InsertLog(_)
                | UpdateAcct { .. }
                | Bump(_)
                | Nextval
                | Setval(_)
                | CopyInLog
                | CopyInT
                | SealTable
                | SealFunction
                | Open
                | Ask(ledger_sql::Ask::Fence(..))
                | Claim { .. }
                | Errand(claims::Errand::Install | claims::Errand::OpenRow(_))
        )
    }
}

/// Stands for the one parameter that a statement may have, a bigint.
pub const PARAMETER: &str = "$1";

/// The text as if its parameter had been written into it.
pub fn bound(sql: &str, parameters: &[Vec<u8>]) -> Option<String> {
    let value = parameters.first()?.as_slice().try_into().ok().map(i64::from_be_bytes)?;
    Some(sql.replace(PARAMETER, &value.to_string()))
}

/// What the text of one statement means; `None` is a syntax error.
pub fn parse(sql: &str) -> Option<Stmt> {
    match sql {
        ledger::SEAL_TABLE => return Some(Stmt::SealTable),
        ledger::SEAL_FUNCTION => return Some(Stmt::SealFunction),
        ledger::SEAL_FUNCTION_GUARDED => return Some(Stmt::SealGuarded),
        ledger::LOOK => return Some(Stmt::Look),
        ledger::OPEN => return Some(Stmt::Open),
        ledger::TERMINATE => return Some(Stmt::Terminate),
        ledger::CONFIRM => return Some(Stmt::Confirm),
        ledger::CLAIM_TABLE => return Some(Stmt::Claim { after: false, function: false }),
        ledger::CLAIM_AFTER_TABLE => return Some(Stmt::Claim { after: true, function: false }),
        ledger::CLAIM_FUNCTION => return Some(Stmt::Claim { after: false, function: true }),
        ledger::CLAIM_AFTER_FUNCTION => return Some(Stmt::Claim { after: true, function: true }),
        _ => {}
    }
    if let Some((_, rest)) = sql.split_once("segue.seal('") {
        if sql.contains("pg_current_xact_id_if_assigned() IS NULL THEN") {
            let (row, rest) = rest.split_once('\'')?;
            let (_, rest) = rest.split_once(", ")?;
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            return Some(Stmt::SealSimple(row.parse().ok()?, digits.parse().ok()?));
        }
    }
    let words: Vec<&str> =
        sql.split([' ', '(', ')', ',', '\'', '=', ';']).filter(|word| !word.is_empty()).collect();
    // A parameter's place is taken when it is bound.
    let int = |index: usize| match words.get(index) {
        Some(&PARAMETER) => Some(0),
        word => word.and_then(|word| word.parse::<i64>().ok()),
    };
    let text = |index: usize| words.get(index).map(|word| (*word).to_owned());
    Some(match words.as_slice() {
        ["BEGIN"] => Stmt::Begin(Isolation::default()),
        ["BEGIN", "ISOLATION", "LEVEL", name @ ..] => {
            let name = name.join(" ");
            Stmt::Begin(Isolation::ALL.into_iter().find(|level| level.name() == name)?)
        }
        ["COMMIT"] => Stmt::Commit,
        ["ROLLBACK"] => Stmt::Rollback,
        ["SAVEPOINT", _] => Stmt::Savepoint(text(1)?),
        ["ROLLBACK", "TO", _] => Stmt::RollbackTo(text(2)?),
        ["RELEASE", _] => Stmt::Release(text(1)?),
        ["INSERT", "INTO", "t", "VALUES", _] => Stmt::InsertT(int(4)?),
        ["INSERT", "INTO", "d", "VALUES", _] => Stmt::InsertD(int(4)?),
        ["INSERT", "INTO", "log", "VALUES", _] => Stmt::InsertLog(int(4)?),
        [
            "UPDATE",
            "acct",
            "SET",
            "ids",
            "ids",
            "||",
            _,
            "WHERE",
            "k",
            _,
            "RETURNING",
            "k",
            "n",
        ] => Stmt::UpdateAcct { id: int(6)?, key: int(9)? },
        ["SELECT", "n", "FROM", "t"] => Stmt::SelectT,
        ["SELECT", "n", "FROM", "log"] => Stmt::SelectLog,
        ["SELECT", "n", "FROM", "big"] => Stmt::SelectBig,
        ["SELECT", "k", "n", "FROM", "acct", "WHERE", "k", _] => Stmt::SelectAcct(int(7)?),
        ["SELECT", "bump", _] => Stmt::Bump(int(2)?),
        ["SELECT", "peek", _] => Stmt::Peek(int(2)?),
        ["SELECT", "guard", _] => Stmt::Guard(int(2)?),
        ["SELECT", "nextval", "s"] => Stmt::Nextval,
        ["SELECT", "currval", "s"] => Stmt::Currval,
        ["SELECT", "lastval"] => Stmt::Lastval,
        ["SELECT", "setval", "s", _] => Stmt::Setval(int(3)?),
        ["SELECT", "set_config", _, _, "false"] => {
            Stmt::SetConfig { name: text(2)?, value: text(3)? }
        }
        ["SELECT", "crash"] => Stmt::Crash,
        ["SELECT", "1/0"] => Stmt::DivisionByZero,
        ["SET", "LOCAL", _, _] => Stmt::Set { name: text(2)?, value: text(3)?, local: true },
        ["SET", _, _] => Stmt::Set { name: text(1)?, value: text(2)?, local: false },
        ["RESET", _] => Stmt::Reset(text(1)?),
        ["SHOW", _] => Stmt::Show(text(1)?),
        ["COPY", "log", "FROM", "STDIN"] => Stmt::CopyInLog,
        ["COPY", "t", "FROM", "STDIN"] => Stmt::CopyInT,
        ["COPY", "big", "TO", "STDOUT"] => Stmt::CopyOutBig,
        ["LISTEN", _] => Stmt::Listen(text(1)?),
        ["UNLISTEN", _] => Stmt::Unlisten(text(1)?),
        ["DISCARD", "ALL"] => Stmt::DiscardAll,
        ["DEALLOCATE", "ALL"] => Stmt::DeallocateAll,
        _ => return None,
    })
}

/// The statements of a simple query; `None` if any of them is a syntax error.
pub fn parse_several(sql: &str) -> Option<Vec<Stmt>> {
    if let Some(ask) = ledger_sql::parse(sql).or_else(|| claims::parse(sql)) {
        return Some(vec![ask]);
    }
    sql.split(';').map(str::trim).filter(|part| !part.is_empty()).map(parse).collect()
}
