//! The ledger's own statements.

use uuid::Uuid;

use crate::backend::Wait;
use crate::data::Op;
use crate::mutations;
use crate::sql::Stmt;
use crate::world::{Exec, Lock, World};

type Done = Result<Exec, Exec>;

/// What a server may refuse for reasons that pass: its disk is full, it is out of memory, or somebody
/// has cancelled what it was at.
pub const REFUSALS: [&str; 3] = ["53100", "53200", "57014"];

fn uuid(params: &[Vec<u8>], index: usize) -> Result<Uuid, Exec> {
    params.get(index).and_then(|p| Uuid::from_slice(p).ok()).ok_or(Exec::Error("22P03"))
}

fn int8(params: &[Vec<u8>], index: usize) -> Result<i64, Exec> {
    let bytes = params.get(index).and_then(|p| p.as_slice().try_into().ok());
    bytes.map(i64::from_be_bytes).ok_or(Exec::Error("22P03"))
}

impl World {
    pub fn execute_internal(&mut self, me: usize, stmt: &Stmt, params: &[Vec<u8>]) -> Done {
        let fresh = self.backends[me].wait == Wait::Nothing;
        if fresh && self.rng.below(1000) < self.profile.ledger_errors {
            return Err(Exec::Error(self.rng.pick::<&str>(&REFUSALS)));
        }
        let refused = if *stmt == Stmt::Open { self.profile.openings_refused } else { 0 };
        if fresh && refused > 0 && self.rng.below(1000) < refused {
            return Err(Exec::Error("53100"));
        }
        match stmt {
            Stmt::SealTable => {
                let sealed = self.seal(me, uuid(params, 0)?, int8(params, 1)?)?;
                let tag = if sealed { "UPDATE 1" } else { "UPDATE 0" };
                Ok(Exec::Done { rows: Vec::new(), tag: tag.into() })
            }
            Stmt::SealFunction | Stmt::SealGuarded => {
                let (session, number) = (uuid(params, 0)?, int8(params, 1)?);
                let value = self.seal_by_function(me, stmt, session, number)?;
                let rows = vec![vec![value.to_be_bytes().to_vec()]];
                Ok(Exec::Done { rows, tag: "SELECT 1".into() })
            }
            Stmt::SealSimple(session, number) => {
                let value = self.seal_by_function(me, &Stmt::SealGuarded, *session, *number)?;
                let rows = vec![vec![value.to_string().into_bytes()]];
                Ok(Exec::Done { rows, tag: "SELECT 1".into() })
            }
            Stmt::Look => self.look_into_ledger(me, params),
            Stmt::Open => self.open_row(me, uuid(params, 0)?, uuid(params, 1)?),
            Stmt::Terminate => self.terminate(me, params),
            Stmt::Ask(ask) => self.ask(me, ask),
            Stmt::Claim { after, function } => {
                let id = uuid(params, 0)?;
                let ahead = after.then(|| uuid(params, 1)).transpose()?;
                self.claim(me, id, ahead, *function)
            }
            Stmt::Errand(errand) => self.run_errand(me, errand),
            _ => {
                self.op(me, Op::Message);
                Ok(Exec::Done { rows: vec![vec![b"0/0".to_vec()]], tag: "SELECT 1".into() })
            }
        }
    }

    /// The argument is an array of uuid.
    fn look_into_ledger(&mut self, me: usize, params: &[Vec<u8>]) -> Done {
        let array = params.first().ok_or(Exec::Error("22P03"))?;
        let ids = array.get(20..).unwrap_or_default().chunks(20);
        let rows: Vec<Vec<Vec<u8>>> = ids
            .filter_map(|element| Uuid::from_slice(element.get(4..)?).ok())
            .filter_map(|id| self.sees_ledger(me, id).map(|found| (id, found)))
            .map(|(id, (seq, recent))| {
                vec![
                    id.as_bytes().to_vec(),
                    seq.to_be_bytes().to_vec(),
                    recent.to_be_bytes().to_vec(),
                ]
            })
            .collect();
        let tag = format!("SELECT {}", rows.len());
        Ok(Exec::Done { rows, tag })
    }

    pub fn open_row(&mut self, me: usize, opened: Uuid, retired: Uuid) -> Done {
        let mut locks = vec![Lock::Ledger(opened)];
        let retires = retired != opened && self.sees_ledger(me, retired).is_some();
        if retires {
            locks.push(Lock::Ledger(retired));
        }
        self.lock(me, &locks)?;
        if self.sees_ledger(me, opened).is_none() {
            self.op(me, Op::Ledger(opened, 0, 0));
        }
        if retires && self.sees_ledger(me, retired).is_some() {
            self.op(me, Op::LedgerDelete(retired));
        }
        Ok(Exec::Done { rows: vec![vec![vec![0, 0, 0, 1]]], tag: "SELECT 1".into() })
    }

    /// Whether the row was there.
    fn seal(&mut self, me: usize, session: Uuid, number: i64) -> Result<bool, Exec> {
        if self.sees_ledger(me, session).is_none() {
            return Ok(false);
        }
        self.lock(me, &[Lock::Ledger(session)])?;
        self.check_unchanged(me, |state| state.ledger.get(&session).copied())?;
        let Some((seq, recent)) = self.sees_ledger(me, session) else {
            return Ok(false);
        };
        if seq >= number && !mutations::seal_never_raises() {
            return Err(Exec::Error("SG001"));
        }
        let recent = match number - seq {
            distance @ 1..=63 => recent << distance | 1,
            _ => 1,
        };
        self.op(me, Op::Ledger(session, number, recent));
        if let Some(tx) = &mut self.backends[me].tx {
            tx.sealed = Some((session, number));
        }
        Ok(true)
    }

    pub fn seal_by_function(
        &mut self,
        me: usize,
        stmt: &Stmt,
        session: Uuid,
        number: i64,
    ) -> Result<i64, Exec> {
        let has_xid = self.backends[me].tx.as_ref().is_some_and(|tx| tx.has_xid);
        if *stmt == Stmt::SealGuarded && (!has_xid || self.is_read_only(me)) {
            return Ok(0);
        }
        match self.seal(me, session, number)? {
            true => Ok(number),
            false => Err(Exec::Error("SG002")),
        }
    }

    /// Tells another backend to end, and waits for that; now and then in vain.
    fn terminate(&mut self, me: usize, params: &[Vec<u8>]) -> Result<Exec, Exec> {
        let pid = params.first().and_then(|p| p.as_slice().try_into().ok()).map(i32::from_be_bytes);
        let start = params.get(1).map(|text| String::from_utf8_lossy(text).into_owned());
        let server = self.backends[me].server;
        let target = self.backends.iter().position(|other| {
            other.server == server
                && Some(other.pid) == pid
                && Some(&other.start) == start.as_ref()
                && other.alive
        });
        let value = match (target, &self.backends[me].wait) {
            (None, Wait::Terminate) => Some(1),
            (None, _) => None,
            (Some(target), Wait::Terminate) if self.backends[target].stubborn => {
                if !self.rng.chance(20) {
                    return Err(Exec::Blocked);
                }
                self.note(|| format!("backend {me} gives up waiting for the end of {target}"));
                Some(0)
            }
            (Some(target), _) => {
                self.backends[target].told_to_end = true;
                self.backends[me].wait = Wait::Terminate;
                return Err(Exec::Blocked);
            }
        };
        self.backends[me].wait = Wait::Nothing;
        let rows: Vec<Vec<Vec<u8>>> = value.map(|value| vec![vec![value]]).into_iter().collect();
        let tag = format!("SELECT {}", rows.len());
        Ok(Exec::Done { rows, tag })
    }
}
