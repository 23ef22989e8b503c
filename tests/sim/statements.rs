//! One statement on a backend: run, answered, and accounted for.

use crate::backend::{After, Backend, Copy, Step, Wait, columns_message, message, row_message};
use crate::data::Reply;
use crate::sql::Stmt;
use crate::world::{Exec, Session, World};

impl World {
    /// Runs one statement and sends what it returns, up to its command tag. False: it must wait.
    pub fn run(
        &mut self,
        me: usize,
        stmt: &Stmt,
        sql: &str,
        params: &[Vec<u8>],
        simple: bool,
    ) -> Step {
        let several = self.backends[me].query.as_ref().is_some_and(|(stmts, _)| stmts.len() > 1);
        let last =
            self.backends[me].query.as_ref().is_some_and(|(stmts, at)| at + 1 == stmts.len());
        let backend = &mut self.backends[me];
        let of_user = !stmt.is_internal();
        if backend.failed && !Backend::is_exit(stmt) {
            backend.fail("25P02", of_user);
            return Ok(true);
        }
        if *stmt == Stmt::Crash {
            self.crash_by(me);
            return Ok(true);
        }
        let mut silent = false;
        let done = match stmt {
            Stmt::Begin(isolation) => {
                if backend.explicit {
                    return Err("BEGIN inside a transaction".into());
                }
                backend.explicit = true;
                if let Some(tx) = &mut backend.tx {
                    tx.isolation = *isolation;
                }
                silent = true;
                "BEGIN".to_owned()
            }
            Stmt::Commit if !backend.explicit => return Err("COMMIT outside a transaction".into()),
            Stmt::Commit if backend.failed => {
                backend.abort();
                silent = true;
                "ROLLBACK".to_owned()
            }
            Stmt::Commit => {
                let after =
                    if simple { After::QueryTag("COMMIT".into()) } else { After::Tag("COMMIT") };
                match self.commit(me) {
                    Ok(visible) => {
                        let backend = &mut self.backends[me];
                        backend.explicit = false;
                        backend.after = after;
                        if visible {
                            return self.after_commit(me);
                        }
                        return Ok(true);
                    }
                    Err(code) => {
                        let backend = &mut self.backends[me];
                        backend.abort();
                        backend.fail(code, false);
                        return Ok(true);
                    }
                }
            }
            Stmt::Rollback => {
                backend.abort();
                silent = true;
                "ROLLBACK".to_owned()
            }
            Stmt::Savepoint(_) | Stmt::Release(_) | Stmt::RollbackTo(_) if !backend.explicit => {
                backend.fail("25P01", of_user);
                return Ok(true);
            }
            Stmt::Savepoint(name) => {
                let session = backend.session.clone();
                if let Some(tx) = &mut backend.tx {
                    tx.savepoints.push((name.clone(), tx.ops.len(), session));
                }
                "SAVEPOINT".to_owned()
            }
            Stmt::Release(name) | Stmt::RollbackTo(name) => {
                let release = matches!(stmt, Stmt::Release(_));
                let tx = backend.tx.get_or_insert_default();
                let Some(at) = tx.savepoints.iter().rposition(|(known, ..)| known == name) else {
                    backend.fail("3B001", of_user);
                    return Ok(true);
                };
                if release {
                    tx.savepoints.truncate(at);
                } else {
                    backend.session = tx.savepoints[at].2.clone();
                    tx.ops.truncate(tx.savepoints[at].1);
                    tx.savepoints.truncate(at + 1);
                    backend.failed = false;
                }
                if release { "RELEASE".to_owned() } else { "ROLLBACK".to_owned() }
            }
            Stmt::Set { name, value, local } => {
                if *local {
                    backend.session.local.insert(name.clone(), value.clone());
                } else {
                    backend.session.local.remove(name);
                    backend.session.settings.insert(name.clone(), value.clone());
                }
                "SET".to_owned()
            }
            Stmt::Reset(name) => {
                if name == "ALL" {
                    backend.session.local.clear();
                    backend.session.settings.clear();
                } else {
                    backend.session.local.remove(name);
                    backend.session.settings.remove(name);
                }
                "RESET".to_owned()
            }
            Stmt::Listen(channel) => {
                backend.session.channels.insert(channel.clone());
                "LISTEN".to_owned()
            }
            Stmt::Unlisten(channel) => {
                if channel == "*" {
                    backend.session.channels.clear();
                } else {
                    backend.session.channels.remove(channel);
                }
                "UNLISTEN".to_owned()
            }
            Stmt::DiscardAll => {
                let first = backend.tx.as_ref().is_none_or(|tx| tx.replies.is_empty());
                if backend.explicit || several || !first {
                    backend.fail("25001", of_user);
                    return Ok(true);
                }
                backend.session = Session::default();
                backend.last_value = None;
                backend.prepared.clear();
                "DISCARD ALL".to_owned()
            }
            Stmt::DeallocateAll => {
                backend.prepared.clear();
                "DEALLOCATE ALL".to_owned()
            }
            Stmt::SetConfig { name, value } => {
                backend.session.local.remove(name);
                backend.session.settings.insert(name.clone(), value.clone());
                let value = value.clone().into_bytes();
                return self.returned(
                    me,
                    stmt,
                    sql,
                    vec![vec![value]],
                    "SELECT 1".into(),
                    simple,
                    last,
                );
            }
            Stmt::CopyInLog | Stmt::CopyInT => {
                if self.is_read_only(me) {
                    self.backends[me].fail("25006", of_user);
                    return Ok(true);
                }
                let backend = &mut self.backends[me];
                backend.copy =
                    Some(Copy { stmt: stmt.clone(), sql: sql.to_owned(), simple, lines: 0 });
                backend.send(&message(b'G', &[0, 0, 1, 0, 0]));
                backend.flush();
                return Ok(true);
            }
            Stmt::CopyOutBig => {
                self.look(me, stmt);
                let rows: Vec<String> = self.sees_big(me).iter().map(ToString::to_string).collect();
                let backend = &mut self.backends[me];
                backend.send(&message(b'H', &[0, 0, 1, 0, 0]));
                for row in &rows {
                    backend.send(&message(b'd', row.as_bytes()));
                }
                backend.send(&message(b'c', b""));
                let tag = format!("COPY {}", rows.len());
                self.log(me, stmt, sql, rows, &tag);
                self.backends[me].complete(&tag);
                return Ok(true);
            }
            _ => match self.execute(me, stmt, params) {
                Exec::Blocked => return Ok(false),
                Exec::Error(code) => {
                    self.backends[me].wait = Wait::Nothing;
                    self.backends[me].fail(code, of_user);
                    return Ok(true);
                }
                Exec::Done { rows, tag } => {
                    return self.returned(me, stmt, sql, rows, tag, simple, last);
                }
            },
        };
        if !silent {
            self.log(me, stmt, sql, Vec::new(), &done);
        }
        self.end_statement(me, done, simple, last && !matches!(stmt, Stmt::Begin(_)));
        Ok(true)
    }

    #[allow(clippy::too_many_arguments)]
    fn returned(
        &mut self,
        me: usize,
        stmt: &Stmt,
        sql: &str,
        rows: Vec<Vec<Vec<u8>>>,
        tag: String,
        simple: bool,
        last: bool,
    ) -> Step {
        let backend = &mut self.backends[me];
        if simple && !stmt.columns().is_empty() {
            backend.send(&columns_message(stmt));
        }
        // The UPDATE of a seal and the like has no columns.
        if !stmt.columns().is_empty() {
            for row in &rows {
                backend.send(&row_message(row));
            }
        }
        let texts = rows
            .iter()
            .map(|row| {
                let texts: Vec<_> = row.iter().map(|v| String::from_utf8_lossy(v)).collect();
                texts.join("|")
            })
            .collect();
        self.log(me, stmt, sql, texts, &tag);
        self.end_statement(me, tag, simple, last);
        Ok(true)
    }

    /// Sends the tag; the last statement of a simple query is committed first.
    pub fn end_statement(&mut self, me: usize, tag: String, simple: bool, last: bool) {
        let backend = &mut self.backends[me];
        if !simple {
            return backend.complete(&tag);
        }
        backend.after = After::QueryTag(tag);
        if last && !backend.explicit && backend.tx.is_some() {
            if let Err(code) = self.commit(me) {
                let backend = &mut self.backends[me];
                backend.after = After::Nothing;
                backend.session = backend.before.clone();
                backend.fail(code, false);
            }
        }
    }

    pub fn log(&mut self, me: usize, stmt: &Stmt, sql: &str, rows: Vec<String>, tag: &str) {
        if stmt.is_internal() {
            return;
        }
        let reply = Reply { rows, end: tag.to_owned() };
        if let Some(tx) = &mut self.backends[me].tx {
            tx.replies.push(reply.clone());
        }
        self.executions.entry(sql.to_owned()).or_default().push(reply);
    }
}
