//! What was in flight when a client's process died, and what the verdicts of a later one make certain
//! of it. Knows nothing of how they are found.

use std::collections::{BTreeMap, BTreeSet};

use segue::{RecoveredTransaction, Verdict};

use crate::app::{App, Expect, Kind, Request};
use crate::client::Client;
use crate::run::Result;
use crate::sql;
use crate::world::World;

/// A transaction of which the application had not heard the end.
#[derive(Debug)]
pub struct Group {
    pub ids: Vec<i64>,
    /// Its commit was asked for.
    commits: bool,
    /// All of it, or nothing, whatever its statements were answered.
    whole: bool,
    /// The journal was to have it, if it could commit.
    promised: bool,
    /// It is a COPY outside a transaction.
    copies: bool,
    /// There was a verdict, or there need be none.
    known: bool,
}

#[derive(Debug, Default)]
pub struct Aftermath {
    pub groups: Vec<Group>,
    /// What was said of each transaction, by its number in the journal.
    verdicts: BTreeMap<u64, Verdict>,
    /// The journal was told that nobody needs them any more.
    done: BTreeSet<u64>,
    /// The newest timeline that sessions of dead processes have been on.
    pub timeline: u32,
}

/// What the application knows when its process dies, and what it expects of that.
pub fn of_crash(client: &mut Client) {
    let requests: Vec<Request> = client.requests.drain(..).collect();
    let promised = client.files.as_ref().is_some_and(|files| {
        !files.lost_of_process && files.disk.as_ref().is_some_and(|disk| !disk.forgets)
    });
    let mut groups = Vec::new();
    if let Some(tx) = client.app.tx.take() {
        let in_tx = || requests.iter().filter(|request| !request.autocommit);
        let ids = tx.ids.iter().chain(in_tx().flat_map(|request| &request.ids)).copied().collect();
        let savepoints =
            in_tx().any(|request| request.sql.contains("SAVEPOINT") || rolls_back_to(request));
        let fails = in_tx().any(|request| request.error.is_some());
        let commits = requests.iter().any(|request| request.kind == Kind::Commit);
        // What failed may come back with a savepoint of which no account is kept.
        for id in &tx.gone {
            let unsure = tx.unsure && commits;
            let expect = if unsure { client.app.maybe() } else { Expect::Never };
            client.app.mark(std::iter::once(id), expect);
        }
        let whole = !tx.unsure && !savepoints && !fails;
        groups.push(Group { ids, commits, whole, promised, copies: false, known: false });
    }
    for request in requests.into_iter().filter(|request| request.autocommit) {
        if request.kind == Kind::Execute {
            let copies = request.copies_in();
            let ids = request.ids;
            let (commits, whole, known) = (true, true, false);
            groups.push(Group { ids, commits, whole, promised, copies, known });
        }
    }
    for group in &groups {
        let maybe = client.app.maybe();
        for id in &group.ids {
            let expect = match (group.commits, group.whole) {
                (false, _) => Expect::Never,
                (true, true) => maybe,
                (true, false) => client.app.maybe(),
            };
            client.app.mark(std::iter::once(id), expect);
        }
    }
    groups.retain(|group| !group.ids.is_empty());
    client.aftermath.groups.extend(groups);
    let app = &mut client.app;
    // Nobody is left who could tell that a promotion has lost them.
    let told = app.expect.iter().filter(|(_, expect)| **expect == Expect::Once);
    app.orphaned.extend(told.map(|(id, _)| *id));
    app.session = crate::world::Session::default();
    app.settings_unknown = false;
}

fn rolls_back_to(request: &Request) -> bool {
    request.sql.contains("ROLLBACK TO")
}

/// The numbers that a recovered transaction's statements write, and whether all can be read: the data
/// of a COPY may be cut anywhere.
fn ids_of(found: &RecoveredTransaction) -> Result<(Vec<i64>, bool)> {
    let mut ids = Vec::new();
    for statement in found.statements() {
        let Ok(statement) = statement else { return Ok((ids, false)) };
        let values: Vec<Vec<u8>> =
            statement.parameters.iter().flatten().map(|value| value.to_vec()).collect();
        let text = match statement.sql.contains(sql::PARAMETER) {
            true => sql::bound(&statement.sql, &values).ok_or("a parameter is missing")?,
            false => statement.sql.clone(),
        };
        let data = String::from_utf8_lossy(&statement.copy_data).into_owned();
        ids.extend(numbers(&text).chain(numbers(&data)).filter(|id| *id > 1000));
    }
    Ok((ids, true))
}

fn numbers(text: &str) -> impl Iterator<Item = i64> + '_ {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

/// What a journal's disk has done, and may have lost by that.
struct Trust {
    forgets: bool,
    refuses: bool,
    damaged: bool,
}

/// A later process was told these; `server` is the one that it has asked.
pub fn told(
    client: &mut Client,
    world: &World,
    found: &[RecoveredTransaction],
    server: Option<usize>,
) -> Result {
    let mut disk = client.files.as_mut().and_then(|files| files.disk.as_mut());
    let refuses = disk.as_mut().is_some_and(|disk| disk.may_have_refused());
    let forgets = disk.as_ref().is_some_and(|disk| disk.forgets);
    let damaged = disk.is_some_and(|disk| disk.may_be_damaged());
    for it in found {
        if it.is_doubtful() && !damaged {
            return Err(format!("transaction {} is doubted, and nothing was damaged", it.number()));
        }
        told_one(client, world, it, server, Trust { forgets, refuses, damaged })?;
    }
    let Client { aftermath, app, .. } = client;
    let kept = |number: &&u64| !aftermath.done.contains(number);
    for number in aftermath.verdicts.keys().filter(kept).filter(|_| !forgets) {
        if !found.iter().any(|it| it.number() == *number) {
            return Err(format!("transaction {number} is gone, and nobody is done with it"));
        }
    }
    for group in aftermath.groups.iter_mut().filter(|group| !group.known) {
        // What the journal does not have was never on its way.
        group.known = true;
        if group.promised {
            app.mark(group.ids.iter(), Expect::Never);
        }
    }
    Ok(())
}

fn told_one(
    client: &mut Client,
    world: &World,
    found: &RecoveredTransaction,
    server: Option<usize>,
    disk: Trust,
) -> Result {
    let Trust { forgets, refuses, damaged } = disk;
    let (number, verdict) = (found.number(), found.verdict());
    let (ids, all_complete) = ids_of(found)?;
    let Client { aftermath, app, .. } = client;
    let of = |what: &str| format!("transaction {number} of {ids:?} {what}");
    if aftermath.done.contains(&number) && !forgets {
        return Err(of("is found again, although somebody is done with it"));
    }
    let before = aftermath.verdicts.insert(number, verdict);
    match before {
        // What the disk refused to keep, or the journal had no room for, is asked for again; without synchronous
        // replication a promotion may have lost the commit by then.
        Some(_) if refuses && (verdict == Verdict::Unknown || !world.sync) => {}
        Some(before) if before != verdict && before != Verdict::Unknown && !forgets => {
            return Err(of(&format!("was {}, and is {} now", before.name(), verdict.name())));
        }
        _ => {}
    }
    let asked_for = |id: &i64| app.expect.contains_key(id) || app.unsure.contains(id);
    if let Some(stranger) = ids.iter().find(|id| !asked_for(id)) {
        return Err(of(&format!("has written {stranger}, which nobody asked for")));
    }
    // A COPY of which nothing has come is known by its being one, and by its seal if that has committed: it may be an
    // earlier one without rows, whose end the application had heard of.
    let sealed_so = |id: &i64| {
        let records = world.commits.get(id).into_iter().flatten();
        let mut seals = records.filter_map(|record| record.sealed);
        seals.any(|(row, number)| {
            found.seals().iter().any(|it| it.row == row && it.number == number.cast_unsigned())
        })
    };
    let shares = |group: &&mut Group| {
        let may_be_it = verdict != Verdict::Committed
            || found.seals().is_empty()
            || group.ids.iter().any(sealed_so);
        group.ids.iter().any(|id| ids.contains(id))
            || (!all_complete && ids.is_empty() && group.copies && !group.known && may_be_it)
    };
    let mut group = aftermath.groups.iter_mut().find(shares);
    if let Some(group) = &mut group {
        group.known = true;
    }
    match verdict {
        Verdict::Committed => {
            let Some(group) = group else {
                // That it had gone on to a newer timeline may not be on the disk. Then a deposed primary may be
                // asked, where a commit stands that the newer one has never had, and the verdict is kept.
                let misses = (forgets || refuses) && !world.sync;
                let older = |it: usize| world.servers[it].timeline < aftermath.timeline;
                if before == Some(Verdict::Committed) || (misses && server.is_some_and(older)) {
                    return Ok(());
                }
                // The application had heard of it.
                let told = |expect| ids.iter().all(|id| app.expect.get(id) == Some(&expect));
                let wrong = !ids.is_empty() && told(Expect::Never);
                let there =
                    ids.iter().any(|id| world.servers.iter().any(|it| it.state.count(*id) > 0));
                return if wrong && there { Err(of("was told to be rolled back")) } else { Ok(()) };
            };
            if !group.commits {
                return Err(of("is committed, and nobody has asked for that"));
            }
            if group.whole {
                let missing = group.ids.iter().find(|id| !ids.contains(id));
                if let Some(id) = missing.filter(|_| all_complete) {
                    return Err(of(&format!("is committed, and the journal lacks {id}")));
                }
                app.orphaned.extend(&group.ids);
                app.mark(group.ids.iter(), Expect::Once);
            }
        }
        Verdict::NotCommitted | Verdict::NeverSent => {
            if forgets {
                return Ok(());
            }
            for id in &ids {
                let told = app.expect.get(id) == Some(&Expect::Once);
                let here = server.is_some_and(|it| world.servers[it].state.count(*id) > 0);
                if told && (world.sync || here) {
                    return Err(of(&format!(
                        "is {}, and {id} was told to be there",
                        verdict.name()
                    )));
                }
            }
            app.mark(ids.iter(), Expect::Never);
            if let Some(group) = group.filter(|group| group.whole) {
                app.mark(group.ids.iter(), Expect::Never);
            }
        }
        // The end of an entry was not kept, and the ledger remembers no more than 64 commits of each row.
        _ if refuses && found.reason().is_some_and(|reason| reason.contains("came later")) => {}
        _ if damaged && found.reason().is_some_and(|reason| reason.contains("damaged")) => {}
        _ => check_unknown(app, world, found, server)?,
    }
    Ok(())
}

/// An outcome is unknown only where it has to be.
fn check_unknown(
    app: &mut App,
    world: &World,
    found: &RecoveredTransaction,
    server: Option<usize>,
) -> Result {
    app.unknowns += 1;
    let reason = found.reason().unwrap_or_default();
    // Nobody could be asked; or there is no ledger.
    let Some(server) = server.filter(|_| app.ledger) else { return Ok(()) };
    let unsealed = reason.contains("without a number in the ledger");
    let seals = found.seals();
    if unsealed && (seals.is_empty() || seals.iter().any(|seal| seal.row.is_nil())) {
        return if app.unsealed { Ok(()) } else { Err(format!("nothing is unsealed: {reason}")) };
    }
    let gone = |row| {
        let retires = |op: &crate::data::Op| *op == crate::data::Op::LedgerDelete(row);
        world.servers[server].wal.iter().flat_map(|record| &record.ops).any(retires)
    };
    let missing = seals.iter().any(|seal| {
        seal.committed.is_none()
            && !world.servers[server].state.ledger.contains_key(&seal.row)
            && !gone(seal.row)
    });
    if missing {
        // It never came to this server.
        return Ok(());
    }
    Err(format!("transaction {} is unknown, and need not be: {reason}; {seals:?}", found.number()))
}

impl Aftermath {
    /// The journal has forgotten it; or may have, if it could not say so.
    pub fn done(&mut self, number: u64, certainly: bool) {
        match certainly {
            true => drop(self.done.insert(number)),
            false => drop(self.verdicts.remove(&number)),
        }
    }
}
