//! What one statement does on its server.

use crate::backend::Wait;
use crate::data::Op;
use crate::sql::Stmt;
use crate::world::{Exec, Lock, World};

/// What may befall any statement: conflicts with others, a lack of memory or room, a cancellation.
const MISHAPS: [&str; 5] = ["40001", "40P01", "53100", "53200", "57014"];

fn tag(tag: &str) -> Result<Exec, Exec> {
    Ok(Exec::Done { rows: Vec::new(), tag: tag.to_owned() })
}

fn column(values: impl IntoIterator<Item = impl ToString>) -> Result<Exec, Exec> {
    let rows: Vec<_> =
        values.into_iter().map(|value| vec![value.to_string().into_bytes()]).collect();
    let tag = format!("SELECT {}", rows.len());
    Ok(Exec::Done { rows, tag })
}

impl World {
    pub fn execute(&mut self, me: usize, stmt: &Stmt, params: &[Vec<u8>]) -> Exec {
        match self.try_execute(me, stmt, params) {
            Ok(done) | Err(done) => done,
        }
    }

    fn try_execute(&mut self, me: usize, stmt: &Stmt, params: &[Vec<u8>]) -> Result<Exec, Exec> {
        if self.is_read_only(me) && stmt.writes() {
            return Err(Exec::Error("25006"));
        }
        self.look(me, stmt);
        if stmt.is_internal() {
            return self.execute_internal(me, stmt, params);
        }
        let waits = self.backends[me].wait != Wait::Nothing;
        if !waits && self.rng.below(1000) < self.profile.errors {
            let code = *self.rng.pick(&MISHAPS);
            return Err(Exec::Error(code));
        }
        match stmt {
            Stmt::InsertT(id) => {
                self.insert_t(me, *id)?;
                tag("INSERT 0 1")
            }
            Stmt::InsertD(id) => {
                self.op(me, Op::D(*id));
                tag("INSERT 0 1")
            }
            Stmt::InsertLog(id) => {
                self.op(me, Op::Log(*id));
                tag("INSERT 0 1")
            }
            Stmt::UpdateAcct { key, id } => {
                self.lock(me, &[Lock::Acct(*key)])?;
                self.check_unchanged(me, |state| state.acct.get(key).cloned())?;
                self.op(me, Op::Acct(*key, *id));
                let rows = vec![self.account(me, *key)];
                Ok(Exec::Done { rows, tag: "UPDATE 1".into() })
            }
            Stmt::SelectT => column(self.sees_t(me)),
            Stmt::SelectLog => {
                let mut log = self.sees_log(me);
                log.sort_unstable();
                column(log)
            }
            Stmt::SelectBig => column(self.sees_big(me)),
            Stmt::SelectAcct(key) => {
                let rows = vec![self.account(me, *key)];
                Ok(Exec::Done { rows, tag: "SELECT 1".into() })
            }
            Stmt::Peek(key) => column([self.sees_account(me, *key).len()]),
            Stmt::Guard(key) => match self.sees_account(me, *key).len() {
                length if length % 3 == 0 => Err(Exec::Error("22003")),
                length if length % 3 == 1 => Err(Exec::Error("23514")),
                length => column([length]),
            },
            Stmt::Bump(id) => {
                self.op(me, Op::Log(*id));
                column([self.sees_log(me).len()])
            }
            Stmt::Nextval => column([self.nextval(me)]),
            Stmt::Setval(value) => column([self.setval(me, *value)]),
            Stmt::Currval | Stmt::Lastval => {
                column([self.backends[me].last_value.ok_or(Exec::Error("55000"))?])
            }
            Stmt::DivisionByZero => Err(Exec::Error("22012")),
            Stmt::Show(name) => {
                let session = &self.backends[me].session;
                let value = session.local.get(name).or_else(|| session.settings.get(name));
                let value = value.cloned().unwrap_or_default();
                Ok(Exec::Done { rows: vec![vec![value.into_bytes()]], tag: "SHOW".into() })
            }
            // What touches the backend alone is done there.
            _ => Err(Exec::Error("XX000")),
        }
    }

    /// An account's key, and the numbers that were appended to it.
    fn account(&self, me: usize, key: i64) -> Vec<Vec<u8>> {
        let ids: Vec<String> = self.sees_account(me, key).iter().map(ToString::to_string).collect();
        vec![key.to_string().into_bytes(), ids.join(" ").into_bytes()]
    }

    pub fn insert_t(&mut self, me: usize, id: i64) -> Result<(), Exec> {
        self.lock(me, &[Lock::T(id)])?;
        if self.sees_in_t(me, id) || self.committed(me).t.contains(&id) {
            return Err(Exec::Error("23505"));
        }
        self.op(me, Op::T(id));
        Ok(())
    }
}
