//! What a client sends to a backend, message by message.

use crate::backend::{After, Backend, Reader, Step, Wait, columns_message, error_message, message};
use crate::sql::{self, Stmt};
use crate::world::{Exec, World};

impl World {
    /// Lets a backend do one thing; whether it did anything.
    pub fn step(&mut self, me: usize) -> Step {
        let backend = &mut self.backends[me];
        if !backend.alive {
            return Ok(false);
        }
        if backend.told_to_end && !backend.stubborn {
            self.end_backend(me, Some(&error_message(b'E', "FATAL", "57P01")));
            return Ok(true);
        }
        if backend.wait == Wait::Standby {
            return Ok(false);
        }
        if backend.after != After::Nothing {
            return self.after_commit(me);
        }
        if backend.query.is_some() && backend.copy.is_none() {
            return self.continue_query(me);
        }
        let Some((&tag, rest)) = backend.input.split_first() else { return self.starve(me) };
        let Some(length) = rest.first_chunk::<4>() else { return self.starve(me) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(4..100_000).contains(&length) {
            return Err(format!("a message of {length} bytes"));
        }
        let Some(body) = rest.get(4..length) else { return self.starve(me) };
        let body = body.to_vec();
        let waited = backend.wait.clone();
        let done = self.process(me, tag, &body)?;
        if done {
            let backend = &mut self.backends[me];
            if backend.alive {
                backend.input.drain(..=length);
            }
        }
        Ok(done || waited != self.backends[me].wait)
    }

    /// There is no whole message: the backend waits, or finds that its client has gone.
    fn starve(&mut self, me: usize) -> Step {
        let backend = &self.backends[me];
        if backend.eof && backend.inflight.is_empty() {
            self.end_backend(me, None);
            return Ok(true);
        }
        Ok(false)
    }

    fn process(&mut self, me: usize, tag: u8, body: &[u8]) -> Step {
        let backend = &mut self.backends[me];
        if backend.skip && tag != b'S' && tag != b'X' {
            return Ok(true);
        }
        if backend.copy.is_some() {
            return self.copy_message(me, tag, body);
        }
        let malformed = || format!("malformed {:?} message", char::from(tag));
        let mut reader = Reader(body);
        match tag {
            b'P' => {
                let name = reader.text().ok_or_else(malformed)?.to_owned();
                let sql = reader.text().ok_or_else(malformed)?.to_owned();
                let types = reader.int16().ok_or_else(malformed)?;
                if reader.take(types * 4).is_none() || !reader.0.is_empty() {
                    return Err(malformed());
                }
                self.parse_message(me, name, sql);
            }
            b'B' => {
                let _portal = reader.text().ok_or_else(malformed)?;
                let name = reader.text().ok_or_else(malformed)?.to_owned();
                let formats = reader.int16().ok_or_else(malformed)?;
                reader.take(formats * 2).ok_or_else(malformed)?;
                let mut params = Vec::new();
                for _ in 0..reader.int16().ok_or_else(malformed)? {
                    let length = reader.int32().ok_or_else(malformed)?;
                    let length = usize::try_from(length).unwrap_or(0);
                    params.push(reader.take(length).ok_or_else(malformed)?.to_vec());
                }
                let formats = reader.int16().ok_or_else(malformed)?;
                reader.take(formats * 2).ok_or_else(malformed)?;
                if !reader.0.is_empty() {
                    return Err(malformed());
                }
                self.bind_message(me, &name, params);
            }
            b'D' => {
                if body.first() != Some(&b'S') {
                    return Err("Describe of a portal".into());
                }
                reader.take(1);
                let name = reader.text().ok_or_else(malformed)?;
                self.begin_implicitly(me);
                let backend = &mut self.backends[me];
                match backend.prepared.get(name).cloned() {
                    None => backend.fail("26000", true),
                    Some((stmt, _)) if backend.failed && !stmt.columns().is_empty() => {
                        backend.fail("25P02", true);
                    }
                    Some((stmt, _)) => {
                        backend.send(&message(b't', &[0, 0]));
                        backend.send(&columns_message(&stmt));
                    }
                }
            }
            b'C' => {
                reader.take(1).filter(|kind| *kind == b"S").ok_or_else(malformed)?;
                let name = reader.text().ok_or_else(malformed)?;
                backend.prepared.remove(name);
                backend.send(&message(b'3', b""));
            }
            b'E' => {
                let name = reader.text().ok_or_else(malformed)?;
                if !name.is_empty() || reader.int32() != Some(0) {
                    return Err(malformed());
                }
                return self.execute_message(me);
            }
            b'H' => backend.flush(),
            b'S' => {
                backend.skip = false;
                if backend.tx.is_some() && !backend.explicit {
                    match self.commit(me) {
                        Ok(true) => {}
                        Ok(false) => {
                            self.backends[me].after = After::Ready;
                            return Ok(true);
                        }
                        Err(code) => {
                            let backend = &mut self.backends[me];
                            backend.session = backend.before.clone();
                            backend.send(&error_message(b'E', "ERROR", code));
                        }
                    }
                }
                self.backends[me].ready();
            }
            b'Q' => {
                let sql = reader.text().ok_or_else(malformed)?.to_owned();
                backend.query = Some((Vec::new(), 0));
                match sql::parse_several(&sql) {
                    None => backend.fail("42601", true),
                    Some(stmts) => backend.query = Some((stmts, 0)),
                }
            }
            b'X' => self.end_backend(me, None),
            // What is left of a COPY that has failed is accepted and ignored.
            b'd' | b'c' | b'f' => {}
            _ => return Err(format!("a message {:?} where none is expected", char::from(tag))),
        }
        Ok(true)
    }

    pub fn parse_message(&mut self, me: usize, name: String, sql: String) {
        self.begin_implicitly(me);
        let backend = &mut self.backends[me];
        let Some(stmt) = sql::parse(&sql) else { return backend.fail("42601", true) };
        if backend.failed && !Backend::is_exit(&stmt) {
            return backend.fail("25P02", !stmt.is_internal());
        }
        if !name.is_empty() && backend.prepared.contains_key(&name) {
            return backend.fail("42P05", !stmt.is_internal());
        }
        backend.prepared.insert(name, (stmt, sql));
        backend.send(&message(b'1', b""));
    }

    fn bind_message(&mut self, me: usize, name: &str, params: Vec<Vec<u8>>) {
        self.begin_implicitly(me);
        let backend = &mut self.backends[me];
        let Some((stmt, sql)) = backend.prepared.get(name).cloned() else {
            return backend.fail("26000", true);
        };
        if backend.failed && !Backend::is_exit(&stmt) {
            return backend.fail("25P02", !stmt.is_internal());
        }
        let (stmt, sql) = if sql.contains(sql::PARAMETER) && !stmt.is_internal() {
            let bound = sql::bound(&sql, &params);
            match bound.and_then(|sql| sql::parse(&sql).map(|stmt| (stmt, sql))) {
                Some(bound) => bound,
                None => return backend.fail("08P01", true),
            }
        } else {
            (stmt, sql)
        };
        backend.portal = Some((stmt, sql, params));
        backend.send(&message(b'2', b""));
    }

    fn execute_message(&mut self, me: usize) -> Step {
        let Some((stmt, sql, params)) = self.backends[me].portal.clone() else {
            self.backends[me].fail("34000", true);
            return Ok(true);
        };
        self.begin_implicitly(me);
        let done = self.run(me, &stmt, &sql, &params, false)?;
        if done {
            self.backends[me].portal = None;
        }
        Ok(done)
    }

    pub fn after_commit(&mut self, me: usize) -> Step {
        let backend = &mut self.backends[me];
        match std::mem::replace(&mut backend.after, After::Nothing) {
            After::Nothing => {}
            After::Ready => backend.ready(),
            After::Tag(tag) => backend.complete(tag),
            After::QueryTag(tag) => {
                backend.complete(&tag);
                if let Some((_, at)) = &mut backend.query {
                    *at += 1;
                }
            }
        }
        Ok(true)
    }

    fn continue_query(&mut self, me: usize) -> Step {
        let Some((stmts, at)) = self.backends[me].query.clone() else { return Ok(false) };
        let Some(stmt) = stmts.get(at) else {
            let backend = &mut self.backends[me];
            backend.query = None;
            if !backend.explicit {
                backend.tx = None;
            }
            backend.ready();
            return Ok(true);
        };
        self.begin_implicitly(me);
        self.run(me, stmt, "", &[], true)
    }

    fn copy_message(&mut self, me: usize, tag: u8, body: &[u8]) -> Step {
        let Some(copy) = self.backends[me].copy.clone() else { return Ok(true) };
        match tag {
            b'd' => {
                let line = std::str::from_utf8(body).ok().and_then(|line| line.trim().parse().ok());
                let Some(id) = line else {
                    self.backends[me].fail("22P02", true);
                    return Ok(true);
                };
                let done = match copy.stmt {
                    Stmt::CopyInT => self.insert_t(me, id).err(),
                    _ => match self.execute(me, &Stmt::InsertLog(id), &[]) {
                        Exec::Done { .. } => None,
                        other => Some(other),
                    },
                };
                match done {
                    Some(Exec::Blocked) => return Ok(false),
                    Some(Exec::Error(code)) => {
                        self.backends[me].wait = Wait::Nothing;
                        self.backends[me].fail(code, true);
                    }
                    _ => {
                        if let Some(copy) = &mut self.backends[me].copy {
                            copy.lines += 1;
                        }
                    }
                }
            }
            b'c' => {
                let tag = format!("COPY {}", copy.lines);
                self.log(me, &copy.stmt, &copy.sql, Vec::new(), &tag);
                let backend = &mut self.backends[me];
                backend.copy = None;
                if copy.simple {
                    backend.after = After::QueryTag(tag);
                } else {
                    backend.complete(&tag);
                }
            }
            b'f' => self.backends[me].fail("57014", true),
            b'H' | b'S' => {}
            b'X' => self.end_backend(me, None),
            _ => return Err(format!("a message {:?} during COPY FROM STDIN", char::from(tag))),
        }
        Ok(true)
    }
}
