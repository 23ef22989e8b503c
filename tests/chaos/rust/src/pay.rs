//! Payments by a session.

use segue::{Client, Result, Session};

use crate::worker::Worker;

const TRANSFER: &str = "UPDATE account SET balance = balance + $2 WHERE id = $1";
const INSERT: &str = "INSERT INTO payment (id, kind, src, dst, amount) VALUES ($1, $2, $3, $4, $5)";
const RETURNING: &str = "INSERT INTO payment (id, kind, src, dst, amount) VALUES ($1, $2, $3, $4, $5) \
     RETURNING id, amount";
const OWN: &str = "SELECT balance FROM account WHERE id IN ($1, $2) ORDER BY id FOR UPDATE";
const NONE: Option<i32> = None;

/// What the worker's own two accounts must hold, unless an error has left that open.
type Expected = Option<[i64; 2]>;

pub fn run(client: &Client, worker: Worker) {
    let Some(mut session) = worker.until_connected(|| client.session()) else { return };
    let mut expected: Expected = None;
    while !worker.stops() {
        match worker.below(7) {
            0 | 1 => {
                let id = worker.begin("transfer");
                worker.log.end(id, transfer(&mut session, &worker, id).as_ref());
            }
            2 => own(&mut session, &worker, &mut expected),
            3 => {
                let decoy = worker.next_id();
                worker.log.write('D', &decoy.to_string());
                let id = worker.begin("savepoint");
                worker.log.end(id, savepoint(&mut session, id, decoy).as_ref());
            }
            4 | 5 => insert(&mut session, &worker),
            _ => pipeline(&mut session, &worker),
        }
        worker.rest();
    }
    worker.log.write('Q', "");
}

/// Between shared accounts, locked in order.
fn transfer(session: &mut Session, worker: &Worker, id: i64) -> Result<()> {
    let (source, target) = worker.two_accounts();
    let amount = worker.amount();
    let mut changes = [(source, -amount), (target, amount)];
    changes.sort_unstable();
    let mut tx = session.transaction()?;
    for (account, change) in changes {
        let changed = tx.execute(TRANSFER, &[&account, &change])?;
        if changed != 1 {
            worker.log.finding(&format!("{changed} rows for account {account}"));
        }
    }
    tx.execute(INSERT, &[&id, &"transfer", &Some(source), &Some(target), &amount])?;
    tx.commit()
}

/// Between the worker's own accounts, whose balances it knows.
fn own(session: &mut Session, worker: &Worker, expected: &mut Expected) {
    let id = worker.begin("own");
    let amount = worker.amount() - 50;
    let result = own_transaction(session, worker, *expected, id, amount);
    *expected = match &result {
        Ok([source, target]) => Some([source - amount, target + amount]),
        Err(_) => None,
    };
    worker.log.end(id, result.as_ref());
}

fn own_transaction(
    session: &mut Session,
    worker: &Worker,
    expected: Expected,
    id: i64,
    amount: i64,
) -> Result<[i64; 2]> {
    let (source, target) = worker.own_accounts();
    let mut tx = session.transaction()?;
    let rows = tx.query(OWN, &[&source, &target])?;
    let mut seen = [0, 0];
    for (place, row) in seen.iter_mut().zip(&rows) {
        *place = row.get(0)?;
    }
    if rows.len() != 2 || expected.is_some_and(|expected| expected != seen) {
        worker.log.finding(&format!("own balances are {seen:?}, and must be {expected:?}"));
    }
    tx.execute(TRANSFER, &[&source, &-amount])?;
    tx.execute(TRANSFER, &[&target, &amount])?;
    let row = tx.query_one(RETURNING, &[&id, &"own", &Some(source), &Some(target), &amount])?;
    if row.get::<i64>(0)? != id {
        worker.log.finding(&format!("{id} has come back as another"));
    }
    tx.commit()?;
    Ok(seen)
}

/// A payment, and one inside a savepoint that is rolled back.
fn savepoint(session: &mut Session, id: i64, decoy: i64) -> Result<()> {
    let mut tx = session.transaction()?;
    tx.execute(INSERT, &[&id, &"savepoint", &NONE, &NONE, &0i64])?;
    let mut inner = tx.transaction()?;
    inner.execute(INSERT, &[&decoy, &"decoy", &NONE, &NONE, &0i64])?;
    inner.rollback()?;
    tx.commit()
}

/// One statement in autocommit, whose row is read back.
fn insert(session: &mut Session, worker: &Worker) {
    let id = worker.begin("insert");
    let amount = worker.amount();
    let result = session.query_one(RETURNING, &[&id, &"insert", &NONE, &NONE, &amount]);
    worker.log.end(id, result.as_ref());
    if let Ok(row) = result {
        let back = (row.get::<i64>(0).ok(), row.get::<i64>(1).ok());
        if back != (Some(id), Some(amount)) {
            worker.log.finding(&format!("{id}, {amount} returned {back:?}"));
        }
    }
}

/// Statements that do not wait for each other, each committed by itself.
fn pipeline(session: &mut Session, worker: &Worker) {
    let ids: Vec<i64> = (0..5).map(|_| worker.begin("pipeline")).collect();
    let mut pipeline = session.pipeline();
    let added: Result<()> =
        ids.iter().try_for_each(|id| pipeline.add(INSERT, &[id, &"pipeline", &NONE, &NONE, &1i64]));
    match added.and_then(|()| pipeline.finish()) {
        Ok(results) => {
            for (id, result) in ids.iter().zip(results) {
                worker.log.end(*id, result.as_ref());
                if result.is_ok_and(|result| result.rows_affected() != 1) {
                    worker.log.finding(&format!("{id} was not one row"));
                }
            }
        }
        Err(error) => ids.iter().for_each(|id| worker.log.end(*id, Err::<(), _>(&error))),
    }
}
