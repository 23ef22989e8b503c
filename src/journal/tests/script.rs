//! A scripted life of a journal, and an account of what it must remember of it that shares no code
//! with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::faulty::Faulty;
use crate::journal::options::Options;
use crate::journal::{
    Expect, Fate, Form, Found, FoundKind, Journal, Key, OutcomeKnown, Owner, Param, Record,
    Recovered, Result, Seal, State, Statement, Submission, Submitted, SyncPolicy, TransactionBegan,
    read,
};

pub const SEGMENT: u64 = 8192 + 2000;
pub const BYTES_MAX: u64 = 8 * SEGMENT;

pub fn key() -> Key {
    Key::new([7; 32])
}

pub fn options(sync: SyncPolicy, key: Option<Key>) -> Options {
    let mut options = Options::new(sync, BYTES_MAX, Uuid::from_u128(5));
    options.geometry = Some((SEGMENT, 256));
    options.key = key;
    options
}

/// What a record says, in words of the test's own.
pub fn told(record: &Record<'_>) -> String {
    match record {
        Record::TransactionBegan(it) => format!("began {}", it.session),
        Record::Statement(it) => format!("statement {} {:?}", it.sql, it.request),
        Record::CommitSent(it) => format!("sent {}", it.number),
        Record::OutcomeKnown(it) => format!("known {:?}", it.fate),
        Record::Submission(it) => format!("submission {} {}", it.key, it.statements.len()),
        other => format!("{other:?}"),
    }
}

/// What is expected of one owner.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// In order; the first so many were acknowledged.
    pub records: Vec<String>,
    pub acknowledged: usize,
    pub ended: bool,
    pub end_acknowledged: bool,
    /// A batch with records of it was refused.
    pub failed: bool,
}

pub type Accounts = BTreeMap<u64, Account>;

pub struct Script {
    pub dir: Faulty,
    pub journal: Journal,
    pub accounts: Accounts,
    alive: VecDeque<Owner>,
    random: u64,
    /// After so many operations of the directory the accounts stood so.
    pub history: Vec<(usize, Accounts)>,
    pub keeps_history: bool,
}

impl Script {
    pub fn start(dir: Faulty, options: Options, seed: u64) -> Result<(Self, Recovered)> {
        let (journal, recovered) = Journal::open(Arc::new(dir.clone()), options)?;
        let script = Self {
            dir,
            journal,
            accounts: Accounts::new(),
            alive: VecDeque::new(),
            random: seed,
            history: Vec::new(),
            keeps_history: false,
        };
        Ok((script, recovered))
    }

    fn next(&mut self, below: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.random >> 33) % below
    }

    fn put(&mut self, owner: &mut Owner, record: &Record<'_>) {
        let account = self.accounts.entry(owner.number()).or_default();
        // After an error the owner must go on failing, and nothing more of it may be kept.
        if owner.append(&self.journal, record).is_ok() {
            account.records.push(told(record));
        } else {
            account.failed = true;
        }
        self.remember();
    }

    fn commit(&mut self, owner: &mut Owner) {
        let committed = owner.commit(&self.journal, None);
        self.remember_after(|accounts| {
            let account = accounts.get_mut(&owner.number()).unwrap();
            match committed {
                Ok(()) => account.acknowledged = account.records.len(),
                Err(_) => account.failed = true,
            }
            // Its batch carried all that was handed in before.
            if committed.is_ok() {
                accounts.values_mut().for_each(|account| account.end_acknowledged = account.ended);
            }
        });
    }

    fn remember(&mut self) {
        self.remember_after(|_| {});
    }

    fn remember_after(&mut self, change: impl FnOnce(&mut Accounts)) {
        change(&mut self.accounts);
        if self.keeps_history {
            self.history.push((self.dir.trace_len(), self.accounts.clone()));
        }
    }

    pub fn transaction(&mut self) {
        let mut owner = self.journal.begin();
        let session = self.next(100);
        let began = TransactionBegan {
            session,
            began_unix_ms: 1,
            autocommit: false,
            read_only: false,
            begin: "",
        };
        self.put(&mut owner, &Record::TransactionBegan(began));
        for _ in 0..=self.next(3) {
            let len = usize::try_from(self.next(120)).unwrap();
            let request = vec![u8::try_from(self.next(256)).unwrap(); len];
            let sql = format!("UPDATE t SET n = n + {}", self.next(1000));
            self.put(
                &mut owner,
                &Record::Statement(Statement {
                    form: Form::Extended,
                    sql: &sql,
                    param_oids: vec![23].into(),
                    request: &request,
                }),
            );
        }
        let number = self.next(1 << 30);
        let seal = Seal { row: Uuid::from_u128(9), number, guarded: false };
        self.put(&mut owner, &Record::CommitSent(seal));
        self.commit(&mut owner);
        self.alive.push_back(owner);
    }

    pub fn submission(&mut self) {
        let mut owner = self.journal.begin();
        let submission = Submission {
            id: Uuid::from_u128(u128::from(owner.number())),
            lane: "till",
            key: "key",
            submitted_unix_ms: 2,
            blocks_lane: false,
            statements: vec![Submitted {
                sql: "INSERT INTO t VALUES ($1)",
                params: vec![
                    Param { oid: 23, format: 0, value: Some(b"1") },
                    Param { oid: 0, format: 1, value: None },
                ],
                expect: Expect::Rows { min: 1, max: 1 },
            }],
        };
        self.put(&mut owner, &Record::Submission(submission));
        self.commit(&mut owner);
        self.alive.push_back(owner);
    }

    /// Ends what has lived longest, or, now and then, another one.
    pub fn end(&mut self) {
        // Two of them live long, so that they have to be copied forward.
        let index = match self.next(30) {
            0 => 0,
            1..10 => self.alive.len() / 2,
            _ => 2.min(self.alive.len().saturating_sub(1)),
        };
        let Some(mut owner) = self.alive.remove(index) else { return };
        let known = OutcomeKnown { fate: Fate::Committed, at_unix_ms: 3, sqlstate: "" };
        self.put(&mut owner, &Record::OutcomeKnown(known));
        let number = owner.number();
        if owner.end(&self.journal).is_ok() {
            self.accounts.get_mut(&number).unwrap().ended = true;
        }
        self.remember();
    }

    pub fn step(&mut self) {
        match self.next(10) {
            0..5 => self.transaction(),
            5..7 => self.submission(),
            _ => self.end(),
        }
        while self.alive.len() > 8 {
            self.end();
        }
    }
}

/// Whether what was recovered is what the accounts allow. `voided` says that records that were refused
/// can no longer be there.
pub fn check(recovered: &Recovered, accounts: &Accounts, voided: bool) {
    assert!(!recovered.report().is_damaged(), "{:?}", recovered.report());
    for found in recovered.in_flight() {
        assert!(accounts.contains_key(&found.owner), "{} was invented", found.owner);
        assert!(!found.doubtful, "{found:?}");
    }
    for (owner, account) in accounts {
        let Some(found) = recovered.get(*owner) else {
            assert!(
                account.acknowledged == 0 || account.ended,
                "{owner} was acknowledged, is not ended, and is gone: {account:?}"
            );
            continue;
        };
        assert!(!account.end_acknowledged, "{owner} has ended, and is in flight: {account:?}");
        let records = records(recovered, found);
        assert!(records.len() >= account.acknowledged, "{owner}: {records:?} {account:?}");
        let most =
            if voided && account.failed { account.acknowledged } else { account.records.len() };
        assert!(records.len() <= most, "{owner} {voided}: {records:?} {account:?}");
        assert_eq!(records[..], account.records[..records.len()], "{owner}");
        check_state(found, &records);
    }
}

fn check_state(found: &Found, records: &[String]) {
    let sent = records.iter().any(|record| record.starts_with("sent"));
    let known = records.iter().any(|record| record.starts_with("known"));
    match &found.state {
        State::Known(Fate::Committed) => assert!(known),
        State::Sent(seals) => assert!(sent && !known && seals.len() == 1),
        State::NeverSent => assert!(!sent && !known),
        other => panic!("{other:?}"),
    }
    match found.what {
        FoundKind::Transaction { session, .. } => {
            assert_eq!(records[0], format!("began {session}"))
        }
        FoundKind::Submission { id, .. } => assert_eq!(id.as_u128(), u128::from(found.owner)),
        other => panic!("{other:?}"),
    }
}

pub fn records(recovered: &Recovered, found: &Found) -> Vec<String> {
    let mut records = Vec::new();
    recovered.records(found, |record| records.push(told(record))).unwrap();
    records
}

/// Reads a directory as a crash left it.
pub fn recover(files: &BTreeMap<String, Vec<u8>>, key: Option<&Key>) -> Recovered {
    read(Arc::new(Faulty::of(files)), key).unwrap()
}
