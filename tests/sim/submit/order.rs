//! What is handed over: transactions that can be told apart by the numbers that they write, and some that
//! can never succeed.

use segue::Submission;

use crate::rng::Rng;

/// Lanes of one client.
const LANES: usize = 3;
/// Keys that several clients use.
const KEYS: usize = 6;

/// What becomes of it if nothing else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    Sound,
    /// Refused with this SQLSTATE, always.
    Refused(&'static str),
    /// It crashes its server.
    Crashes,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub number: usize,
    pub lane: Option<usize>,
    pub key: Option<String>,
    pub blocks: bool,
    pub nature: Nature,
    /// The numbers that it writes, each once: into accounts of everybody's, the log and, with a lane, the last
    /// of them into the lane's account.
    pub ids: Vec<i64>,
    pub solo: bool,
    params: bool,
    /// Accounts that others change as well: two of them may come to wait for each other.
    accounts: Vec<i64>,
}

impl Order {
    /// The order with this number in the run. Without a lane it has a key, so that chance has no part in
    /// whose it is to send.
    pub fn draw(number: usize, till: usize, rng: &mut Rng) -> Self {
        let lane = rng.chance(70).then(|| till * LANES + rng.below(LANES));
        let shared = rng.chance(15).then(|| format!("key {}", rng.below(KEYS)));
        let key =
            shared.or_else(|| (lane.is_none() || rng.chance(20)).then(|| format!("own {number}")));
        let nature = match rng.below(20) {
            0 => Nature::Refused("22012"),
            1 => Nature::Refused("42601"),
            2 => Nature::Refused("23505"),
            // A deferred constraint.
            3 => Nature::Refused("23505 D"),
            // An expectation that is not met.
            4 => Nature::Refused("25P02"),
            5 => Nature::Crashes,
            _ => Nature::Sound,
        };
        let first = 1000 + 10 * number as i64;
        let accounts = match rng.below(8) {
            0 => vec![0, 1],
            1 => vec![1, 0],
            _ => Vec::new(),
        };
        let count = 1 + rng.below(2) + accounts.len() + usize::from(lane.is_some());
        Self {
            number,
            lane,
            key,
            blocks: lane.is_some() && rng.chance(20),
            nature,
            ids: (first..first + count as i64).collect(),
            solo: rng.chance(30),
            params: rng.chance(60),
            accounts,
        }
    }

    /// Whether others may hand over its key too.
    pub fn shares_key(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.starts_with("key"))
    }

    pub fn account(lane: usize) -> i64 {
        10 + lane as i64
    }

    pub fn submission(&self) -> Submission {
        let mut it = Submission::new();
        let of_lane = self.ids.len() - usize::from(self.lane.is_some());
        let of_log = self.accounts.len();
        for (key, id) in self.accounts.iter().zip(&self.ids) {
            it = self.append(it, *key, *id);
        }
        for id in &self.ids[of_log..of_lane] {
            it = self.write(it, "INSERT INTO log VALUES (", ")", *id);
        }
        if self.solo {
            it = it.expect_rows(1..=1);
        }
        if let Some(lane) = self.lane {
            it = self.append(it, Self::account(lane), self.ids[of_lane]);
        }
        let more = match self.nature {
            Nature::Sound => None,
            Nature::Refused("22012") => Some("SELECT 1/0"),
            Nature::Refused("42601") => Some("SELEC 1"),
            Nature::Refused("23505") => Some("INSERT INTO t VALUES (1)"),
            Nature::Refused("23505 D") => Some("INSERT INTO d VALUES (1)"),
            Nature::Refused(_) => Some("SELECT n FROM t"),
            Nature::Crashes => Some("SELECT crash()"),
        };
        if let Some(sql) = more {
            it = it.statement(sql, &[]).unwrap_or_else(|error| panic!("{error}"));
        }
        if self.nature == Nature::Refused("25P02") {
            it = it.expect_rows(1000..);
        }
        if let Some(lane) = self.lane {
            it = it.lane(format!("lane {lane}")).stop_on_failure(self.blocks);
        }
        match &self.key {
            Some(key) => it.key(key),
            None => it,
        }
    }

    fn append(&self, it: Submission, account: i64, id: i64) -> Submission {
        let behind = format!(" WHERE k = {account} RETURNING k, n");
        self.write(it, "UPDATE acct SET ids = ids || ", &behind, id)
    }

    fn write(&self, it: Submission, before: &str, behind: &str, id: i64) -> Submission {
        let (value, params): (String, Vec<&dyn segue::ToSql>) = match self.params {
            true => ("$1".to_owned(), vec![&id]),
            false => (id.to_string(), Vec::new()),
        };
        let it = it.statement(&format!("{before}{value}{behind}"), &params);
        it.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether it may die with this SQLSTATE.
    pub fn may_die_of(&self, code: &str) -> bool {
        let own = match self.nature {
            Nature::Sound => None,
            Nature::Refused(code) => code.split(' ').next(),
            Nature::Crashes => Some("57P02"),
        };
        // A statement may be cancelled at any time.
        code == "57014" || own == Some(code)
    }
}
