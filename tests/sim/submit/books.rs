//! What an application knows of what it has handed over, and what must follow from that. Knows nothing of how
//! submissions are kept and run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use segue::{DeadLetter, Error, Executed, Ticket};
use uuid::Uuid;

use super::order::{Nature, Order};
use crate::data::Op;
use crate::world::World;

type Result<T = ()> = std::result::Result<T, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Yes,
    /// The process died meanwhile, or the journal has said no and may have it nevertheless.
    Perhaps,
    No,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Done,
    /// A dead letter, of this SQLSTATE.
    Dead(String),
    /// It was told to be done, and a promotion has lost it.
    Lost,
}

/// One order that was handed over.
#[derive(Debug)]
pub struct Entry {
    pub order: Order,
    pub kept: Kept,
    pub id: Option<Uuid>,
    pub ticket: Option<Ticket>,
    pub told: Option<Told>,
    /// It has been a dead letter once, and so has no place in its lane's order.
    pub was_dead: bool,
    /// Its dead letter was purged.
    pub purged: bool,
    /// What it was told may have been forgotten: a machine died on which nothing was awaited of the disk,
    /// or the journal has not said whether a dead letter is to be run again.
    pub unsure: bool,
    /// An earlier process had it, and may have known that it is done.
    pub ended_unheard: bool,
    /// An event has named it as lost. What its ticket tells may change once.
    pub named: bool,
    /// It may be lost without being named: others were, which nobody remembered, or the process that had told
    /// it has died.
    pub forgotten: bool,
}

impl Entry {
    /// It is told to be a dead letter of this SQLSTATE.
    fn dies_of(&mut self, code: &str) -> Result {
        let same_key = self.order.key.is_some();
        let doubtful = self.unsure && code == "XX001";
        if !self.order.may_die_of(code) && !same_key && !doubtful {
            return Err(format!("a dead letter of {code}: {:?}", self.order));
        }
        self.was_dead = true;
        Ok(())
    }
}

#[derive(Debug, Default)]
pub struct Books {
    /// What is told to be done may not be lost, whichever server is.
    pub keeps: bool,
    /// What is lost is run again; by a later process as well.
    pub reapplies: bool,
    pub reapplies_later: bool,
    pub entries: Vec<Entry>,
    pub looks: usize,
}

fn fate(outcome: &std::result::Result<Executed, Error>) -> Told {
    match outcome {
        Ok(_) => Told::Done,
        Err(error) if error.kind() == segue::ErrorKind::ProtectionLost => Told::Lost,
        Err(error) => Told::Dead(error.sqlstate().to_owned()),
    }
}

impl Books {
    /// It was handed over, and this was the answer.
    pub fn handed(
        &mut self,
        order: Order,
        answer: std::result::Result<Ticket, &Error>,
        died: bool,
    ) {
        let kept = match &answer {
            _ if died => Kept::Perhaps,
            Ok(_) => Kept::Yes,
            Err(error) if error.kind() == segue::ErrorKind::ProtectionLost => Kept::Perhaps,
            Err(_) => Kept::No,
        };
        let ticket = answer.ok();
        let id = ticket.as_ref().map(Ticket::id);
        self.entries.push(Entry {
            order,
            kept,
            id,
            ticket: ticket.filter(|_| !died),
            told: None,
            was_dead: false,
            purged: false,
            unsure: false,
            ended_unheard: false,
            named: false,
            forgotten: false,
        });
    }

    /// An event has named it as lost.
    pub fn lost(&mut self, id: Uuid) -> Result {
        if self.keeps {
            return Err(format!("named as lost, and nothing can be: {id}"));
        }
        let mut known = false;
        for entry in self.entries.iter_mut().filter(|entry| entry.id == Some(id)) {
            (known, entry.named, entry.told) = (true, true, None);
        }
        if known {
            Ok(())
        } else {
            Err(format!("named as lost, and nobody has handed it over: {id}"))
        }
    }

    /// Earlier ones may be lost too.
    pub fn others_are_lost(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.forgotten = true);
    }

    /// What was lost was run again.
    pub fn reapplied(&mut self, id: Uuid) -> Result {
        if self.keeps {
            return Err(format!("run again, and nothing can be lost: {id}"));
        }
        Ok(())
    }

    /// The application has purged a dead letter, and had read it: it need not have looked at its ticket.
    pub fn purged(&mut self, letter: &DeadLetter) -> Result {
        for entry in self.of_id(letter.id) {
            if entry.told.is_none() {
                entry.dies_of(&letter.sqlstate)?;
                entry.told = Some(Told::Dead(letter.sqlstate.clone()));
            }
            entry.purged = true;
        }
        Ok(())
    }

    /// The application looks at its tickets; now and then also at those that have told. `holds`: whether all
    /// that is told must be had by a backup.
    pub fn look(&mut self, world: &World, holds: bool) -> Result {
        self.looks += 1;
        for at in 0..self.entries.len() {
            let entry = &mut self.entries[at];
            if entry.told.is_some() && !self.looks.is_multiple_of(10) {
                continue;
            }
            let Some(outcome) = entry.ticket.as_ref().and_then(|ticket| ticket.poll().transpose())
            else {
                continue;
            };
            let now = fate(&outcome);
            if entry.told.as_ref() == Some(&now) {
                continue;
            }
            let what = format!("{:?}", entry.order);
            if let Some(before) = entry.told.replace(now.clone()) {
                if !entry.unsure {
                    return Err(format!("what was told changes: {before:?}, then {now:?}: {what}"));
                }
            }
            entry.ended_unheard = false;
            match &now {
                Told::Dead(code) => {
                    entry.dies_of(code).map_err(|problem| format!("{problem}: {outcome:?}"))?;
                    if outcome
                        .as_ref()
                        .err()
                        .is_some_and(|it| it.outcome() != segue::Outcome::NotCommitted)
                    {
                        return Err(format!("a dead letter may be committed: {outcome:?}: {what}"));
                    }
                }
                Told::Lost if !entry.named => {
                    return Err(format!(
                        "its ticket calls it lost, and no event has named it: {what}"
                    ));
                }
                // The one standby that there is has not had it.
                Told::Lost if self.reapplies && entry.order.key.is_none() => {
                    return Err(format!("it is lost, and was to be run again: {what}"));
                }
                Told::Lost => {}
                Told::Done => self.told_done(at, world, holds)?,
            }
        }
        Ok(())
    }

    fn told_done(&self, at: usize, world: &World, holds: bool) -> Result {
        let entry = &self.entries[at];
        let what = format!("{:?}", entry.order);
        if entry.order.key.is_some() {
            return Ok(());
        }
        if entry.order.nature != Nature::Sound {
            return Err(format!("told to be done, and can never be: {what}"));
        }
        let ids = &entry.order.ids;
        if holds {
            let has = |server: &usize| {
                let mut log = world.servers[*server].wal.iter();
                log.any(|record| record.ids().any(|id| id == ids[0]))
            };
            if !world.standbys.iter().any(has) {
                return Err(format!("told to be committed, and no backup has it: {what}"));
            }
        }
        let Some(lane) = entry.order.lane else { return Ok(()) };
        let stops = |it: &&Entry| {
            let before = it.order.lane == Some(lane) && it.order.number < entry.order.number;
            let dead = matches!(it.told, Some(Told::Dead(_))) && !it.purged && !it.unsure;
            before && dead && it.order.blocks && it.order.key.is_none()
        };
        // The same known gap as in `in_order`: one between them that was done elsewhere lets this one pass.
        let passes = |stop: &Entry| {
            let between = stop.order.number + 1..entry.order.number;
            self.entries.iter().any(|it| {
                let ahead = it.order.lane == Some(lane) && between.contains(&it.order.number);
                ahead && it.order.shares_key() && is_done_by_others(it, world)
            })
        };
        match self.entries.iter().filter(stops).find(|it| !passes(it)) {
            Some(it) if !entry.was_dead => {
                Err(format!("{what} is done, and its lane was stopped by {:?}", it.order))
            }
            _ => Ok(()),
        }
    }

    /// A later process has opened the journal: `find` gives the tickets that it has. `forgets`: what was
    /// kept may be gone.
    pub fn reopened(
        &mut self,
        find: impl Fn(&Entry) -> Option<Ticket>,
        forgets: bool,
        refused: bool,
    ) -> Result {
        for entry in &mut self.entries {
            // An end that the disk would not have is found again, and what was lost with it is run again.
            entry.unsure |= forgets || (refused && entry.told == Some(Told::Lost));
            // Names are in memory only.
            entry.forgotten |= !self.reapplies_later || forgets;
            entry.ticket = find(entry);
            if entry.kept == Kept::No && entry.ticket.is_none() {
                continue;
            }
            let outcome = entry.ticket.as_ref().map(Ticket::poll);
            match (&entry.ticket, &entry.told) {
                (Some(ticket), _) => {
                    if entry.kept == Kept::No && entry.order.key.is_none() {
                        return Err(format!("found, and was not handed over: {:?}", entry.order));
                    }
                    entry.id = Some(ticket.id());
                    if !forgets {
                        entry.kept = Kept::Yes;
                    }
                    let dead = matches!(outcome, Some(Err(_)));
                    let was = matches!(entry.told, Some(Told::Dead(_)));
                    let sure = !entry.unsure && entry.order.key.is_none();
                    if was && !dead && sure {
                        return Err(format!(
                            "a dead letter is run again unasked: {:?}",
                            entry.order
                        ));
                    }
                }
                (None, None) if forgets => entry.kept = Kept::Perhaps,
                (None, None) if entry.kept == Kept::Yes => entry.ended_unheard = true,
                // It was never written, and nobody has it.
                (None, None) if entry.id.is_some() && entry.order.key.is_none() => {
                    entry.kept = Kept::No
                }
                (None, Some(Told::Dead(_))) if !entry.purged && !entry.unsure => {
                    return Err(format!("a dead letter is gone: {:?}", entry.order));
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    pub fn of_id(&mut self, id: Uuid) -> impl Iterator<Item = &mut Entry> {
        self.entries.iter_mut().filter(move |entry| entry.id == Some(id))
    }
}

/// Whether a server has its key with the content of another order.
fn is_done_by_others(entry: &Entry, world: &World) -> bool {
    let Some(claim) = entry.id.map(Op::Claim) else { return false };
    let mut logs = world.servers.iter().flat_map(|server| &server.wal);
    logs.any(|record| {
        record.ops.contains(&claim) && !record.ids().any(|id| id == entry.order.ids[0])
    })
}

/// All is at rest: what was handed over, against what the surviving server has.
pub fn judge(books: &[Books], world: &World) -> Result {
    let state = &world.servers[world.primary].state;
    let counts = state.counts();
    let mut groups: BTreeMap<String, Vec<(&Entry, bool)>> = BTreeMap::new();
    let all = || books.iter().flat_map(|books| books.entries.iter().map(|it| (it, books.keeps)));
    for (entry, keeps) in all() {
        let own = || format!("order {}", entry.order.number);
        groups.entry(entry.order.key.clone().unwrap_or_else(own)).or_default().push((entry, keeps));
    }
    for (name, group) in &groups {
        let mut there = 0;
        for (entry, _) in group {
            let ids = entry.order.ids.iter().map(|id| counts.get(id).copied().unwrap_or(0));
            let ids: Vec<usize> = ids.collect();
            if ids.iter().any(|count| *count != ids[0]) {
                return Err(format!("a part of it is there: {ids:?} of {:?}", entry.order));
            }
            if ids[0] > 1 {
                return Err(format!("executed {} times: {:?}", ids[0], entry.order));
            }
            if ids[0] > 0 && entry.kept == Kept::No && group.len() == 1 {
                return Err(format!("executed, and was not handed over: {:?}", entry.order));
            }
            there += ids[0];
        }
        let orders =
            || group.iter().map(|(it, _)| (&it.order, &it.told, it.kept)).collect::<Vec<_>>();
        if there > 1 {
            return Err(format!("the same key is executed {there} times: {name}: {:?}", orders()));
        }
        let done = |it: &Entry| it.told == Some(Told::Done) || it.ended_unheard;
        if there == 0 && group.iter().any(|(it, keeps)| *keeps && !it.unsure && done(it)) {
            return Err(format!("told to be done, and is not there: {:?}", orders()));
        }
        let lost = |it: &Entry| done(it) && !it.named && !it.forgotten && !it.unsure;
        if there == 0 && group.iter().any(|(it, _)| lost(it)) {
            return Err(format!("told to be done, lost, and nobody was told: {:?}", orders()));
        }
        let dead = |it: &Entry| {
            it.told == Some(Told::Lost)
                || matches!(it.told, Some(Told::Dead(_))) && !it.unsure
                || it.kept == Kept::No
        };
        if there > 0 && group.iter().all(|(it, _)| dead(it)) {
            return Err(format!("a dead letter, and it is there: {:?}", orders()));
        }
        let waits = |it: &Entry| it.kept == Kept::Yes && it.told.is_none() && !it.ended_unheard;
        if let Some((entry, _)) = group.iter().find(|(it, _)| waits(it) && !it.unsure) {
            return Err(format!("it has not ended: {:?}", entry.order));
        }
    }
    in_order(books, &state.acct)
}

/// Lanes keep the order of handing over, but for what has been a dead letter. Known gap: one whose key others
/// have handed over too may be done by them, and lets pass what stands behind it while something ahead of it is
/// sent again.
fn in_order(books: &[Books], accounts: &BTreeMap<i64, Vec<i64>>) -> Result {
    let mut numbers: HashMap<i64, &Order> = HashMap::new();
    let all = || books.iter().flat_map(|books| &books.entries);
    let shared = |it: &&Entry| it.order.shares_key();
    let gaps: BTreeSet<Option<usize>> = all().filter(shared).map(|it| it.order.lane).collect();
    for entry in all().filter(|it| !gaps.contains(&it.order.lane)) {
        let steady = !entry.was_dead && !entry.unsure && entry.order.key.is_none();
        for id in entry.order.ids.iter().filter(|_| steady) {
            numbers.insert(*id, &entry.order);
        }
    }
    for ids in accounts.range(Order::account(0)..).map(|(_, ids)| ids) {
        let orders: Vec<&&Order> = ids.iter().filter_map(|id| numbers.get(id)).collect();
        let wrong = orders.windows(2).find(|pair| pair[0].number > pair[1].number);
        if let Some(pair) = wrong {
            return Err(format!("a lane is out of order: {:?}, then {:?}", pair[0], pair[1]));
        }
    }
    Ok(())
}

/// Seed 1017548s: of a lane three are in flight, each on the condition that the one ahead of it is done. The first
/// is refused, and stops its lane; the second has been done by another client, under the same key; so the third is
/// done. For any other reason that would be a fault.
#[test]
fn a_stopped_lane_is_passed_only_behind_what_others_have_done() {
    use crate::data::Record;
    use crate::profile::Profile;
    use crate::rng::Rng;

    let refusal = segue::Config::parse("=").unwrap_err();
    let id = Uuid::from_u128(5);
    // The key of the one between, and what there is in the log with its claim: is the third one let pass?
    let cases = [
        (Some("key 5"), Some(9000), true),
        (Some("key 5"), Some(1010), false),
        (Some("key 5"), None, false),
        (Some("own 1"), Some(9000), false),
        (None, None, false),
    ];
    for (key, executed, passes) in cases {
        let mut world = World::new(Rng::new(1), Profile::new(Rng::new(1)), true, 0, None);
        if let Some(executed) = executed {
            let ops = vec![Op::Claim(id), Op::Log(executed)];
            world.servers[0].wal.push(std::rc::Rc::new(Record { ops, ..Record::default() }));
        }
        let mut books = Books::default();
        for number in 0..3 {
            let mut order = Order::draw(number, 0, &mut Rng::new(number as u64));
            (order.lane, order.key, order.nature) = (Some(1), None, Nature::Sound);
            order.blocks = number == 0;
            books.handed(order, Err(&refusal), false);
        }
        books.entries[0].order.nature = Nature::Refused("23505");
        books.entries[0].told = Some(Told::Dead("23505".into()));
        books.entries[1].order.key = key.map(str::to_owned);
        books.entries[1].id = Some(id);
        let heard = books.told_done(2, &world, false);
        assert_eq!(heard.is_ok(), passes, "{key:?} {executed:?}: {heard:?}");
        // In another lane the same says nothing.
        books.entries[1].order.lane = Some(2);
        assert!(books.told_done(2, &world, false).is_err());
        books.entries[0].purged = true;
        assert_eq!(books.told_done(2, &world, false), Ok(()));
    }
}
