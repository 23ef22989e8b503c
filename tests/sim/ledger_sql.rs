//! The statements by which a later process asks the ledger, as simple queries, and what they do on a
//! model server.

use segue::client::parts::SETTINGS;
use segue::session::ledger;
use uuid::Uuid;

use crate::backend::Wait;
use crate::sql::Stmt;
use crate::world::{Exec, World};

#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    Settings,
    Look(Vec<Uuid>),
    Fence(Uuid, i64),
}

/// The whole of a simple query, if it is one of these.
pub fn parse(sql: &str) -> Option<Stmt> {
    if sql == SETTINGS {
        return Some(Stmt::Ask(Ask::Settings));
    }
    if let Some(rows) = between(sql, "SELECT session, seq, recent FROM segue.look('{", "}'::") {
        let rows: Option<Vec<Uuid>> = rows.split(',').map(|row| row.parse().ok()).collect();
        let rows = rows?;
        return (sql == ledger::look_closely_sql(&rows)).then_some(Stmt::Ask(Ask::Look(rows)));
    }
    let row = between(sql, "SELECT segue.seal('", "'::")?.parse().ok()?;
    let number = between(sql, "'::pg_catalog.uuid, ", "::pg_catalog.int8)")?.parse().ok()?;
    let known = sql == ledger::fence_sql(row, number);
    known.then_some(Stmt::Ask(Ask::Fence(row, number.cast_signed())))
}

fn between<'a>(text: &'a str, before: &str, behind: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(behind).map(|(between, _)| between)
}

impl World {
    pub fn ask(&mut self, me: usize, ask: &Ask) -> Result<Exec, Exec> {
        let texts = match ask {
            Ask::Settings => vec![vec![self.backends[me].pid.to_string(), String::new()]],
            Ask::Look(rows) => {
                let ledger = self.view(me).ledger;
                let found = rows.iter().filter_map(|row| Some((row, ledger.get(row)?)));
                found
                    .map(|(row, (seq, recent))| {
                        vec![row.to_string(), seq.to_string(), recent.to_string()]
                    })
                    .collect()
            }
            Ask::Fence(row, number) => {
                let sealed = self.seal_by_function(me, &Stmt::SealFunction, *row, *number)?;
                vec![vec![sealed.to_string()]]
            }
        };
        let tag = format!("SELECT {}", texts.len());
        let bytes = |row: Vec<String>| row.into_iter().map(String::into_bytes).collect();
        Ok(Exec::Done { rows: texts.into_iter().map(bytes).collect(), tag })
    }

    /// Ends the backend whose uncommitted work this one waits for; not every one obeys.
    pub fn end_blocker(&mut self, me: usize) {
        if let Wait::Lock(holder) = self.backends[me].wait {
            self.note(|| format!("backend {holder} is told to end, for {me} waits for it"));
            self.backends[holder].told_to_end = true;
        }
    }
}
