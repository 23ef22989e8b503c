//! The demo's tables, laid out and judged by the test kit's own connection: nothing of Segue takes
//! part in finding out whether Segue did what it says.

use std::collections::HashMap;

use segue::Outcome;
use segue_testkit::{Server, USER};

use super::workload::Record;
use crate::output::Failure;

/// The number of the first account that all sessions share; each session's own is its number.
pub const SHARED_FROM: i64 = 1001;
pub const SHARED_ACCOUNTS: u32 = 16;
pub const START_BALANCE: i64 = 10_000_000;

/// Creates the accounts. The log of transfers has no unique index on purpose: a transfer that was
/// applied twice shall be seen, not refused.
pub fn create(server: &Server, sessions: u32) -> Result<(), Failure> {
    let last_shared = SHARED_FROM + i64::from(SHARED_ACCOUNTS) - 1;
    server.execute(&format!(
        "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL); \
         CREATE TABLE transfer (id bigint NOT NULL, low bigint NOT NULL, high bigint NOT NULL, \
         amount bigint NOT NULL); \
         INSERT INTO account SELECT i, {START_BALANCE} FROM generate_series(1, {sessions}) i; \
         INSERT INTO account SELECT i, {START_BALANCE} \
         FROM generate_series({SHARED_FROM}, {last_shared}) i; \
         ANALYZE account; \
         GRANT SELECT, INSERT, UPDATE ON account, transfer TO {USER}"
    ))?;
    Ok(())
}

/// What the surviving server's content says of what the sessions were told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Told "committed", and absent.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// There, though told "not committed" or rolled back to a savepoint.
    pub invented: u64,
    /// Told "unknown".
    pub unknown: u64,
    /// Accounts whose balance is not what the log of transfers makes it.
    pub wrong_balances: u64,
    pub total_before: i64,
    pub total_after: i64,
}

/// Compares the sessions' records with the database.
pub fn judge(server: &Server, sessions: u32, records: &[Record]) -> Result<Findings, Failure> {
    let mut there: HashMap<i64, u64> = HashMap::new();
    for row in server.query("SELECT id, count(*) FROM transfer GROUP BY id")? {
        let [id, count] = numbers(&row)?;
        there.insert(id, count.unsigned_abs());
    }
    let mut findings = compare(there, records);
    findings.total_before = START_BALANCE * (i64::from(sessions) + i64::from(SHARED_ACCOUNTS));
    let total = server.query("SELECT sum(balance)::bigint, 0 FROM account")?;
    if let Some(row) = total.first() {
        [findings.total_after, _] = numbers(row)?;
    }
    let wrong = server.query(&format!(
        "SELECT count(*), 0 FROM account AS a WHERE balance <> {START_BALANCE} \
         - coalesce((SELECT sum(amount) FROM transfer WHERE low = a.id), 0) \
         + coalesce((SELECT sum(amount) FROM transfer WHERE high = a.id), 0)"
    ))?;
    if let Some(row) = wrong.first() {
        findings.wrong_balances = numbers(row)?[0].unsigned_abs();
    }
    Ok(findings)
}

fn compare(mut there: HashMap<i64, u64>, records: &[Record]) -> Findings {
    let mut findings = Findings::default();
    for told in records.iter().flat_map(|record| &record.told) {
        let count = there.remove(&told.id).unwrap_or(0);
        if count > 1 {
            findings.duplicated += 1;
        }
        match told.outcome {
            Outcome::Committed => findings.lost += u64::from(count == 0),
            Outcome::NotCommitted => findings.invented += u64::from(count > 0),
            _ => findings.unknown += 1,
        }
    }
    // What is left was never told at all: decoys that were rolled back to a savepoint.
    findings.invented += there.len() as u64;
    findings
}

fn numbers(row: &[Option<String>]) -> Result<[i64; 2], Failure> {
    let number = |at: usize| -> Result<i64, Failure> {
        let text = row.get(at).and_then(Option::as_deref).ok_or("the server gave no number")?;
        Ok(text.parse()?)
    };
    Ok([number(0)?, number(1)?])
}

#[cfg(test)]
mod tests {
    use super::super::workload::Told;
    use super::*;

    fn record(told: &[(i64, Outcome)]) -> Record {
        let told = told.iter().map(|&(id, outcome)| Told { id, outcome }).collect();
        Record { told, ..Record::default() }
    }

    #[test]
    fn sees_every_way_of_being_wrong() {
        use Outcome::{Committed, NotCommitted, Unknown};
        let records = [
            record(&[(1, Committed), (2, Committed), (3, Committed), (4, NotCommitted)]),
            record(&[(5, NotCommitted), (6, Unknown), (7, Unknown)]),
        ];
        // 2 is lost, 3 is there twice, 5 was denied, 6 is there, 7 is not, -9 is a decoy.
        let there = HashMap::from([(1, 1), (3, 2), (5, 1), (6, 1), (-9, 1)]);
        let findings = compare(there, &records);
        let expected =
            Findings { lost: 1, duplicated: 1, invented: 2, unknown: 2, ..Findings::default() };
        assert_eq!(findings, expected);
    }
}
