//! The work of one session: money transfers through Segue, and a record of what it was told of each.
//!
//! What a replay compares must not depend on what other sessions may do between the fault and the
//! replay, for they are replayed in any order. So exact balances are only read of the session's own
//! account, which nobody else touches; of the shared accounts, a transaction reads under its row lock
//! whether there is enough money. Locks are always taken in the order of the accounts' numbers, so
//! that no two transactions deadlock. That is not a trick: it is how one writes transactions that
//! can be retried at all.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use segue::{Client, Error, ErrorKind, Outcome, Session};

use super::random::Random;
use super::schema::{SHARED_ACCOUNTS, SHARED_FROM, START_BALANCE};

const READ_OWN: &str = "SELECT balance FROM account WHERE id = $1 FOR UPDATE";
const ENOUGH: &str = "SELECT balance >= $2 FROM account WHERE id = $1 FOR UPDATE";
const ADD: &str = "UPDATE account SET balance = balance + $2 WHERE id = $1";
const ADD_RETURNING: &str =
    "UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance";
const LOG: &str = "INSERT INTO transfer (id, low, high, amount) VALUES ($1, $2, $3, $4)";
/// One statement, no explicit transaction. Each part needs the one before it, which fixes the order
/// of the locks.
const ALL_IN_ONE: &str = "\
WITH first AS (UPDATE account SET balance = balance - $4 WHERE id = $2 RETURNING id), \
second AS (UPDATE account AS a SET balance = a.balance + $4 FROM first WHERE a.id = $3 \
RETURNING a.id) \
INSERT INTO transfer (id, low, high, amount) SELECT $1, $2, $3, $4 FROM second RETURNING id";
const MOST_ERRORS_IN_A_ROW: u32 = 20;
/// Money moved at once; far less than what an account holds.
const AMOUNT_MAX: u32 = 100;

/// What all sessions write on and the timeline reads.
#[derive(Default)]
pub struct Board {
    pub finished: AtomicBool,
    pub committed: AtomicU64,
    /// Transfers that have begun and not ended.
    pub open: AtomicUsize,
    /// The longest transfer since this was last reset, in microseconds.
    pub longest_us: AtomicU64,
}

/// What a session was told of one transfer.
pub struct Told {
    pub id: i64,
    pub outcome: Outcome,
}

/// What one session has seen.
#[derive(Default)]
pub struct Record {
    pub told: Vec<Told>,
    pub rolled_back: u64,
    pub errors: u64,
    pub divergences: u64,
    /// Reads of the own account that showed something else than the session was told.
    pub surprises: u64,
    /// The first few errors, in words.
    pub messages: Vec<String>,
}

struct Transfer {
    id: i64,
    low: i64,
    high: i64,
    /// From the low account to the high one; may be negative.
    amount: i64,
}

pub struct Worker<'a> {
    client: &'a Client,
    board: &'a Board,
    number: i64,
    random: Random,
    next: i64,
    /// What the own account must hold, unless an outcome was unknown.
    balance: Option<i64>,
    record: Record,
}

impl<'a> Worker<'a> {
    /// `number` counts from 1.
    pub fn new(client: &'a Client, board: &'a Board, number: i64, seed: u64) -> Self {
        Self {
            client,
            board,
            number,
            random: Random::new(seed ^ (number.unsigned_abs() << 32)),
            next: 0,
            balance: Some(START_BALANCE),
            record: Record::default(),
        }
    }

    /// Works until the board says that it is over.
    pub fn work(mut self) -> Record {
        let mut session = match self.client.session() {
            Ok(session) => session,
            Err(error) => {
                self.note(&error);
                return self.record;
            }
        };
        let mut errors_in_a_row = 0;
        while !self.board.finished.load(Ordering::Relaxed) {
            self.board.open.fetch_add(1, Ordering::Relaxed);
            let began = Instant::now();
            let went_well = self.transfer(&mut session);
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.board.open.fetch_sub(1, Ordering::Relaxed);
            self.board.longest_us.fetch_max(took, Ordering::Relaxed);
            errors_in_a_row = if went_well { 0 } else { errors_in_a_row + 1 };
            if errors_in_a_row == MOST_ERRORS_IN_A_ROW {
                break;
            }
            if errors_in_a_row > 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        session.close();
        self.record
    }

    /// One transfer of a random kind; whether it went well.
    fn transfer(&mut self, session: &mut Session) -> bool {
        self.next += 1;
        let id = (self.number << 40) | self.next;
        let kind = self.random.below(20);
        let shared = SHARED_FROM + self.random.below(SHARED_ACCOUNTS);
        let mut transfer = Transfer { id, low: self.number, high: shared, amount: self.amount() };
        let done = match kind {
            0..=7 => self.with_own(session, &transfer, false),
            8..=10 => self.with_own(session, &transfer, true),
            11..=14 => {
                let other = SHARED_FROM + self.random.below(SHARED_ACCOUNTS);
                transfer.low = shared.min(other);
                transfer.high = shared.max(other);
                between_shared(session, &transfer)
            }
            15..=18 => all_in_one(session, &transfer),
            _ => {
                let done = rolled_back(session, &transfer);
                self.record.rolled_back += 1;
                self.tell(id, Outcome::NotCommitted);
                if let Err(error) = &done {
                    self.note(error);
                }
                return done.is_ok();
            }
        };
        let outcome = match &done {
            Ok(()) => Outcome::Committed,
            Err(error) => {
                self.note(error);
                error.outcome()
            }
        };
        match outcome {
            Outcome::Committed => {
                self.board.committed.fetch_add(1, Ordering::Relaxed);
                if transfer.low == self.number {
                    self.balance = self.balance.map(|balance| balance - transfer.amount);
                }
            }
            Outcome::NotCommitted => {}
            _ => self.balance = None,
        }
        self.tell(id, outcome);
        done.is_ok()
    }

    /// Reads and moves the own account's money, exactly; with a detour into a savepoint that is
    /// rolled back, if asked for.
    fn with_own(
        &mut self,
        session: &mut Session,
        transfer: &Transfer,
        detour: bool,
    ) -> Result<(), Error> {
        let mut tx = session.transaction()?;
        let seen: i64 = tx.query_one(READ_OWN, &[&transfer.low])?.get(0)?;
        if self.balance.is_some_and(|balance| balance != seen) {
            self.record.surprises += 1;
        }
        self.balance = Some(seen);
        if detour {
            let mut inner = tx.transaction()?;
            inner.execute(ADD, &[&transfer.low, &1_000_000i64])?;
            inner.execute(LOG, &[&-transfer.id, &transfer.low, &transfer.high, &0i64])?;
            inner.rollback()?;
        }
        let enough: bool = tx.query_one(ENOUGH, &[&transfer.high, &-transfer.amount])?.get(0)?;
        if !enough {
            return Err(poor());
        }
        let left: i64 = tx.query_one(ADD_RETURNING, &[&transfer.low, &-transfer.amount])?.get(0)?;
        if left != seen - transfer.amount {
            self.record.surprises += 1;
        }
        tx.execute(ADD, &[&transfer.high, &transfer.amount])?;
        log(&mut tx, transfer)?;
        tx.commit()
    }

    fn amount(&mut self) -> i64 {
        let amount = 1 + self.random.below(AMOUNT_MAX);
        if self.random.below(2) == 0 { amount } else { -amount }
    }

    fn tell(&mut self, id: i64, outcome: Outcome) {
        self.record.told.push(Told { id, outcome });
    }

    fn note(&mut self, error: &Error) {
        match error.kind() {
            ErrorKind::ReplayDiverged => self.record.divergences += 1,
            _ => self.record.errors += 1,
        }
        if self.record.messages.len() < 3 {
            self.record.messages.push(format!(
                "session {}: {} ({}, {:?})",
                self.number,
                crate::output::chain(error),
                error.sqlstate(),
                error.outcome()
            ));
        }
    }
}

fn between_shared(session: &mut Session, transfer: &Transfer) -> Result<(), Error> {
    let mut tx = session.transaction()?;
    let low: bool = tx.query_one(ENOUGH, &[&transfer.low, &transfer.amount])?.get(0)?;
    let high: bool = tx.query_one(ENOUGH, &[&transfer.high, &-transfer.amount])?.get(0)?;
    if !(low && high) {
        return Err(poor());
    }
    tx.execute(ADD, &[&transfer.low, &-transfer.amount])?;
    tx.execute(ADD, &[&transfer.high, &transfer.amount])?;
    log(&mut tx, transfer)?;
    tx.commit()
}

fn all_in_one(session: &mut Session, transfer: &Transfer) -> Result<(), Error> {
    let Transfer { id, low, high, amount } = transfer;
    session.query_one(ALL_IN_ONE, &[id, low, high, amount]).map(drop)
}

/// A transfer that the application thinks better of.
fn rolled_back(session: &mut Session, transfer: &Transfer) -> Result<(), Error> {
    let mut tx = session.transaction()?;
    tx.execute(ADD, &[&transfer.low, &-transfer.amount])?;
    tx.execute(ADD, &[&transfer.high, &transfer.amount])?;
    log(&mut tx, transfer)?;
    tx.rollback()
}

fn log(session: &mut Session, transfer: &Transfer) -> Result<(), Error> {
    let Transfer { id, low, high, amount } = transfer;
    session.execute(LOG, &[id, low, high, amount]).map(drop)
}

/// An account is empty: with the amounts of this demo that cannot happen.
fn poor() -> Error {
    Error::new(ErrorKind::Usage, "an account of the demo has run out of money")
}
