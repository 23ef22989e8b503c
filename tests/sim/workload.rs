//! What applications ask for.

use crate::app::{App, Kind, Request, Transaction};
use crate::focus::Focus;
use crate::profile::Profile;
use crate::rng::Rng;

/// A sort of statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sort {
    InsertLog,
    InsertT,
    InsertKnownT,
    InsertD,
    InsertKnownD,
    UpdateAcct,
    Bump,
    Peek,
    Guard,
    SelectT,
    SelectLog,
    SelectBig,
    SelectAcct,
    Set,
    SetLocal,
    Reset,
    ResetAll,
    Show,
    SetConfig,
    DivisionByZero,
    Misspelt,
    CopyOut,
    Listen,
    Unlisten,
    UnlistenAll,
    Forget,
    Nextval,
    Currval,
    Lastval,
    Setval,
    CopyIn,
}

use Sort::*;

/// How often each is asked for where a seed does not say otherwise.
pub const USUAL: [(Sort, usize); 31] = [
    (InsertLog, 18),
    (InsertT, 8),
    (InsertKnownT, 3),
    (InsertD, 5),
    (InsertKnownD, 2),
    (UpdateAcct, 12),
    (Bump, 8),
    (Peek, 4),
    (Guard, 4),
    (SelectT, 3),
    (SelectLog, 3),
    (SelectBig, 5),
    (SelectAcct, 4),
    (Set, 6),
    (SetLocal, 2),
    (Reset, 1),
    (ResetAll, 1),
    (Show, 3),
    (SetConfig, 1),
    (DivisionByZero, 3),
    (Misspelt, 1),
    (CopyOut, 2),
    (Listen, 3),
    (Unlisten, 1),
    (UnlistenAll, 1),
    (Forget, 1),
    (Nextval, 3),
    (Currval, 1),
    (Lastval, 1),
    (Setval, 1),
    (CopyIn, 6),
];

impl Profile {
    fn sort(&self, rng: &mut Rng) -> Sort {
        let mut at = rng.below(self.statements.iter().sum());
        for ((sort, _), weight) in USUAL.iter().zip(self.statements) {
            if at < weight {
                return *sort;
            }
            at -= weight;
        }
        InsertLog
    }
}

/// One statement at random: its text, and the numbers that it writes. `None` for what is more than one
/// statement's text.
fn statement(
    rng: &mut Rng,
    profile: &Profile,
    tx: Option<&Transaction>,
    next_id: &mut i64,
) -> Option<(String, Vec<i64>)> {
    let mut id = || {
        *next_id += 1;
        *next_id
    };
    let in_tx = tx.is_some();
    let (key, known) = (rng.below(profile.keys), 1 + rng.below(3));
    let names = ["app.x", "app.y", "application_name"];
    let name = names[rng.below(3)];
    let value = rng.below(5);
    let channel = rng.below(2);
    let savepoint = rng.below(profile.savepoint_names);
    if let Some(tx) = tx.filter(|_| profile.focus == Some(Focus::CaughtErrors)) {
        let text = match (tx.failed, tx.savepoints.is_empty()) {
            (true, _) => Some("ROLLBACK TO s0"),
            (false, true) => Some("SAVEPOINT s0"),
            _ => None,
        };
        if let Some(text) = text {
            return Some((text.into(), Vec::new()));
        }
    } else if in_tx && rng.chance(profile.savepoints) {
        // What has failed is mostly caught.
        let failed = tx.is_some_and(|tx| tx.failed) && rng.chance(80);
        let text = match if failed { 2 } else { rng.below(4) } {
            0 | 1 => format!("SAVEPOINT s{savepoint}"),
            2 => format!("ROLLBACK TO s{savepoint}"),
            _ => format!("RELEASE s{savepoint}"),
        };
        return Some((text, Vec::new()));
    }
    let mut write = |before: &str, after: &str| {
        let id = id();
        Some((format!("{before}{id}{after}"), vec![id]))
    };
    let text = match profile.sort(rng) {
        InsertLog => return write("INSERT INTO log VALUES (", ")"),
        InsertT => return write("INSERT INTO t VALUES (", ")"),
        InsertD => return write("INSERT INTO d VALUES (", ")"),
        UpdateAcct => {
            let after = format!(" WHERE k = {key} RETURNING k, n");
            return write("UPDATE acct SET ids = ids || ", &after);
        }
        Bump => return write("SELECT bump(", ")"),
        InsertKnownT => format!("INSERT INTO t VALUES ({known})"),
        InsertKnownD => format!("INSERT INTO d VALUES ({known})"),
        Peek => format!("SELECT peek({key})"),
        Guard => format!("SELECT guard({key})"),
        SelectT => "SELECT n FROM t".into(),
        SelectLog => "SELECT n FROM log".into(),
        SelectBig => "SELECT n FROM big".into(),
        SelectAcct => format!("SELECT k, n FROM acct WHERE k = {key}"),
        Set => format!("SET {name} = '{value}'"),
        SetLocal => format!("SET LOCAL {name} = '{value}'"),
        Reset => format!("RESET {name}"),
        ResetAll => "RESET ALL".into(),
        Show => format!("SHOW {name}"),
        SetConfig => format!("SELECT set_config('{name}', '{value}', false)"),
        DivisionByZero => "SELECT 1/0".into(),
        Misspelt => "SELEC".into(),
        CopyOut => "COPY big TO STDOUT".into(),
        Listen => format!("LISTEN c{channel}"),
        Unlisten => format!("UNLISTEN c{channel}"),
        UnlistenAll => "UNLISTEN *".into(),
        Nextval => "SELECT nextval('s')".into(),
        Currval => "SELECT currval('s')".into(),
        Lastval => "SELECT lastval()".into(),
        Setval => format!("SELECT setval('s', {})", 1 + 10 * value),
        Forget if !in_tx => ["DISCARD ALL", "DEALLOCATE ALL"][rng.below(2)].into(),
        Forget => "SELECT n FROM big".into(),
        CopyIn => return None,
    };
    Some((text, Vec::new()))
}

/// A request at random. `alone`: nothing else is on its way.
pub fn request(rng: &mut Rng, profile: &Profile, app: &mut App, alone: bool) -> Request {
    let mut request = Request::new(Kind::Execute, "");
    request.autocommit = app.tx.is_none();
    request.streamed = rng.chance(profile.streamed);
    if rng.chance(profile.strings) {
        let parts = 2 + rng.below(2);
        for part in 0..parts {
            let (text, ids) = loop {
                let made = statement(rng, profile, app.tx.as_ref(), &mut app.next_id);
                // Known gap: where a first string does not parse, what is pipelined behind it runs
                // outside the transaction.
                let fits = |text: &str| {
                    !text.contains("COPY") && !text.contains(" ALL") && text != "SELEC"
                };
                if let Some(made) = made.filter(|(text, _)| fits(text)) {
                    break made;
                }
            };
            request.sql.push_str(if part > 0 { "; " } else { "" });
            request.sql.push_str(&text);
            request.ids.extend(ids);
        }
        return request;
    }
    let made = loop {
        match statement(rng, profile, app.tx.as_ref(), &mut app.next_id) {
            None if alone => break None,
            None => {}
            some => break some,
        }
    };
    let Some((sql, ids)) = made else {
        copy_in(rng, app, &mut request);
        return request;
    };
    (request.sql, request.ids) = (sql, ids);
    request.parameter = request.ids.first().copied().filter(|_| rng.chance(profile.parameters));
    request
}

fn copy_in(rng: &mut Rng, app: &mut App, request: &mut Request) {
    request.sql = ["COPY log FROM STDIN", "COPY t FROM STDIN"][rng.below(2)].into();
    for _ in 0..rng.below(4) {
        app.next_id += 1;
        request.ids.push(app.next_id);
    }
    request.lines.clone_from(&request.ids);
    if request.sql.contains(" t ") && rng.chance(20) {
        request.lines.push(1);
    }
    request.copy_fails = rng.chance(15);
}
