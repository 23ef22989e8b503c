//! Tests of the journal.

mod crash;
mod damage;
mod disk;
pub(crate) mod faulty;
mod format;
mod script;

use super::{
    Directory, Form, Journal, Owner, Record, Result, Seal, SessionOpened, Statement, Stored,
    TransactionBegan,
};

fn script_session() -> Record<'static> {
    Record::SessionOpened(SessionOpened {
        session: uuid::Uuid::from_u128(1),
        ledger_row: uuid::Uuid::from_u128(2),
        number: 3,
        system_identifier: 4,
        opened_unix_ms: 5,
        database: "db",
        user: "user",
    })
}

/// A transaction with so many statements, up to its commit, which is awaited.
fn transaction(owner: &mut Owner, journal: &Journal, statements: usize) -> Result<()> {
    owner.append(
        journal,
        &Record::TransactionBegan(TransactionBegan {
            session: 1,
            began_unix_ms: 1,
            autocommit: false,
            read_only: false,
            begin: "",
        }),
    )?;
    for _ in 0..statements {
        owner.append(
            journal,
            &Record::Statement(Statement {
                form: Form::Extended,
                sql: "INSERT INTO t VALUES ($1)",
                param_oids: vec![23].into(),
                request: b"a request of some length",
            }),
        )?;
    }
    let row = uuid::Uuid::from_u128(9);
    owner.append(journal, &Record::CommitSent(Seal { row, number: 1, guarded: false }))?;
    owner.commit(journal, None)
}
