//! Tests of the journal.

mod crash;
mod damage;
mod disk;
pub(crate) mod faulty;
mod format;
mod script;

use super::{Directory, Record, SessionOpened, Stored};

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
