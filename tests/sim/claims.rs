//! The ledger of submissions on a model server: claims, and what a link is asked before it is given any
//! (`src/client/submit/opening.rs`), recognised by its text; and what crashes a server.

use segue::client::parts::LOOK_AT_SERVER;
use segue::session::ledger;
use uuid::Uuid;

use crate::backend::{Wait, error_message};
use crate::data::Op;
use crate::sql::Stmt;
use crate::world::{Exec, Lock, World};

type Done = Result<Exec, Exec>;

#[derive(Debug, Clone, PartialEq)]
pub enum Errand {
    /// Ends the backends that hold one of these locks, but for these.
    EndFormer {
        locks: Vec<i64>,
        but: Vec<i32>,
    },
    TakeLock(i64),
    LookAtServer,
    Access,
    Install,
    OpenRow(Uuid),
}

/// The whole of a simple query, if it is one of these.
pub fn parse(sql: &str) -> Option<Stmt> {
    let errand = if sql == LOOK_AT_SERVER {
        Errand::LookAtServer
    } else if sql.strip_prefix("SELECT ") == Some(ledger::SUBMISSION_ACCESS) {
        Errand::Access
    } else if sql == ledger::install_submissions_sql(false, None) {
        Errand::Install
    } else if let Some(key) = sql.strip_prefix("SELECT pg_catalog.pg_try_advisory_lock(") {
        Errand::TakeLock(key.strip_suffix(')')?.parse().ok()?)
    } else if let Some(rest) = sql.strip_prefix("SELECT segue.open('") {
        let (row, retired) = rest.split_once("', '")?;
        let none = retired.strip_suffix("')")?.parse::<Uuid>().ok()?.is_nil();
        Errand::OpenRow(row.parse().ok().filter(|_| none)?)
    } else if sql.starts_with("SELECT pg_catalog.pg_terminate_backend(l.pid, ") {
        Errand::EndFormer {
            locks: list(sql, "::pg_catalog.int8[]")?,
            but: list(sql, "::pg_catalog.int4[]")?,
        }
    } else {
        return None;
    };
    Some(Stmt::Errand(errand))
}

/// The elements of an array that is written out, of this type.
fn list<T: std::str::FromStr>(sql: &str, array: &str) -> Option<Vec<T>> {
    let (before, _) = sql.split_once(&format!("}}'{array}"))?;
    let (_, elements) = before.rsplit_once("'{")?;
    elements.split(',').filter(|it| !it.is_empty()).map(|it| it.parse().ok()).collect()
}

fn row(words: &[&str]) -> Done {
    let values = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    Ok(Exec::Done { rows: vec![values], tag: "SELECT 1".into() })
}

impl World {
    /// Waits for another attempt's end, as the unique index makes it; `ahead` has to be done.
    pub fn claim(&mut self, me: usize, id: Uuid, ahead: Option<Uuid>, function: bool) -> Done {
        if !self.committed(me).has_submissions {
            return Err(Exec::Error("42P01"));
        }
        if ahead.is_some_and(|ahead| !self.sees_claim(me, ahead)) {
            return Err(Exec::Error("SG003"));
        }
        self.lock(me, &[Lock::Claim(id)])?;
        if self.sees_claim(me, id) || self.committed(me).claims.contains(&id) {
            return Err(Exec::Error("23505"));
        }
        self.op(me, Op::Claim(id));
        Ok(match function {
            true => Exec::Done { rows: vec![vec![vec![0, 0, 0, 1]]], tag: "SELECT 1".into() },
            false => Exec::Done { rows: Vec::new(), tag: "INSERT 0 1".into() },
        })
    }

    pub fn run_errand(&mut self, me: usize, errand: &Errand) -> Done {
        let server = self.backends[me].server;
        match errand {
            Errand::EndFormer { locks, but } => self.end_former(me, locks, but),
            Errand::TakeLock(key) => {
                let taken = self.backends.iter().any(|other| {
                    let there = other.alive && other.server == server && other.id != me;
                    there && other.advisory.contains(key)
                });
                if !taken {
                    self.backends[me].advisory.push(*key);
                }
                row(&[if taken { "f" } else { "t" }])
            }
            Errand::LookAtServer => {
                let it = &self.servers[server];
                let started = format!("start {} of {server}", it.starts);
                let helpers = format!("{0}1,{0}2,{0}3", it.helpers + 1);
                row(&[&started, &helpers])
            }
            Errand::Access => {
                let there = self.committed(me).has_submissions;
                let granted = if self.claims_by_function { "function" } else { "table" };
                row(&[if there { granted } else { "none" }])
            }
            Errand::Install => {
                self.op(me, Op::SubmissionTable);
                Ok(Exec::Done { rows: Vec::new(), tag: "DO".into() })
            }
            Errand::OpenRow(id) => {
                self.open_row(me, *id, Uuid::nil())?;
                row(&["1"])
            }
        }
    }

    /// Not every one of them obeys.
    fn end_former(&mut self, me: usize, locks: &[i64], but: &[i32]) -> Done {
        let server = self.backends[me].server;
        let former = self.backends.iter_mut().filter(|other| {
            let there = other.alive && other.server == server && other.id != me;
            there && !but.contains(&other.pid) && other.advisory.iter().any(|it| locks.contains(it))
        });
        let (mut some, mut stubborn) = (false, true);
        for other in former {
            other.told_to_end = true;
            (some, stubborn) = (true, stubborn && other.stubborn);
        }
        if some && !(stubborn && self.rng.chance(20)) {
            self.backends[me].wait = Wait::Terminate;
            return Err(Exec::Blocked);
        }
        self.backends[me].wait = Wait::Nothing;
        row(&["t"])
    }

    /// A backend crashes: its postmaster ends all the others and begins anew.
    pub fn crash_by(&mut self, me: usize) {
        let server = self.backends[me].server;
        self.note(|| format!("backend {me} crashes, and server {server} begins anew"));
        self.end_backend(me, None);
        self.crash(server, Some(&error_message(b'N', "WARNING", "57P02")));
        let it = &mut self.servers[server];
        it.alive = true;
        it.helpers += 1;
        let read_only = it.read_only;
        it.rebuild();
        it.read_only = read_only;
    }
}
