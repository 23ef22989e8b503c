//! Segue itself, through its public API only.

use segue::{Prepared, Session};

use super::{ACCOUNTS, BRANCHES, HISTORY, POINT, TELLERS, timed};
use crate::Failure;
use crate::measure::{Choice, Contestant, Lap, Random};

/// Point SELECTs by a prepared statement.
pub struct Point<'a> {
    pub session: &'a mut Session,
    pub statement: Prepared,
    pub count: u32,
    pub rows: u32,
}

impl Contestant for Point<'_> {
    fn name(&self) -> &str {
        "segue"
    }

    fn lap(&mut self, seed: u64) -> Result<Lap, Failure> {
        let mut random = Random(seed);
        timed(self.count, || {
            let aid = 1 + random.below(self.rows);
            let row = self.session.query_one(&self.statement, &[&aid])?;
            row.get::<i32>(0).map(drop)
        })
        .map(Lap::of)
        .map_err(Failure::from)
    }
}

/// Point SELECTs by their text, which the session keeps prepared by itself.
pub struct PointByText<'a> {
    pub session: &'a mut Session,
    pub count: u32,
    pub rows: u32,
}

impl Contestant for PointByText<'_> {
    fn name(&self) -> &str {
        "segue, by text"
    }

    fn lap(&mut self, seed: u64) -> Result<Lap, Failure> {
        let mut random = Random(seed);
        timed(self.count, || {
            let aid = 1 + random.below(self.rows);
            let row = self.session.query_one(POINT, &[&aid])?;
            row.get::<i32>(0).map(drop)
        })
        .map(Lap::of)
        .map_err(Failure::from)
    }
}

/// One TPC-B-like transaction.
pub fn tpcb(session: &mut Session, choice: Choice) -> segue::Result<()> {
    let Choice { bid, tid, aid, delta } = choice;
    let mut tx = session.transaction()?;
    tx.execute(ACCOUNTS, &[&delta, &aid])?;
    let _: i32 = tx.query_one(POINT, &[&aid])?.get(0)?;
    tx.execute(TELLERS, &[&delta, &tid])?;
    tx.execute(BRANCHES, &[&delta, &bid])?;
    tx.execute(HISTORY, &[&tid, &bid, &aid, &delta])?;
    tx.commit()
}

/// TPC-B-like transactions.
pub struct Tpcb<'a> {
    pub session: &'a mut Session,
    pub name: &'static str,
    pub count: u32,
    pub scale: u32,
}

impl Contestant for Tpcb<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn lap(&mut self, seed: u64) -> Result<Lap, Failure> {
        let mut random = Random(seed);
        timed(self.count, || tpcb(self.session, Choice::of(&mut random, self.scale)))
            .map(Lap::of)
            .map_err(Failure::from)
    }
}
