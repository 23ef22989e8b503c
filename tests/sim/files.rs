//! What a session hands to the journal on disk, and whether a commit that is found in a server's log
//! had been announced there before. Behind it is the real journal (`disk`), or a model that keeps or
//! refuses at random.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use segue::client::parts::Keeper;
use segue::error::{Error, ErrorKind};
use segue::session::{Filing, Session};
use uuid::Uuid;

use crate::client::writer_of;
use crate::data::Record;
use crate::disk::{Disk, deadline};
use crate::rng::Rng;

#[derive(Debug, PartialEq)]
enum State {
    Began,
    Promised,
}

/// It has random numbers of its own, so that runs without it are what they were.
pub struct Files {
    rng: Rng,
    fails: bool,
    /// The entries that have not ended.
    entries: BTreeMap<u64, State>,
    seals: HashSet<(Uuid, i64)>,
    /// Something went on without the journal.
    lost: bool,
    /// The same, and what was announced without a seal, since the client's process began.
    pub lost_of_process: bool,
    pub unsealed_of_process: bool,
    problem: Option<String>,
    pub disk: Option<Disk>,
}

impl Files {
    pub fn new(mut rng: Rng, disk: Option<Disk>) -> Option<Self> {
        (rng.chance(50) || disk.is_some()).then(|| Self {
            fails: rng.chance(30),
            rng,
            entries: BTreeMap::new(),
            seals: HashSet::new(),
            lost: false,
            lost_of_process: false,
            unsealed_of_process: false,
            problem: None,
            disk,
        })
    }

    /// The process has died, and another one begins.
    pub fn begin_anew(&mut self) {
        self.entries.clear();
        (self.lost_of_process, self.unsealed_of_process) = (false, false);
    }

    fn take(&mut self, entry: u64, filing: &Filing<'_>) {
        let state = self.entries.get_mut(&entry);
        match (filing, state) {
            (Filing::Began { .. }, None) => drop(self.entries.insert(entry, State::Began)),
            (Filing::Statement { .. } | Filing::Data(_), Some(_)) => {}
            (Filing::Commit { ledger_row, number, .. }, Some(state)) => {
                *state = State::Promised;
                self.seals.insert((*ledger_row, number.cast_signed()));
            }
            (Filing::Unsealed, Some(state)) => {
                *state = State::Promised;
                // A COPY that is announced so may end on a server with a ledger, and be sealed.
                self.lost = true;
                self.unsealed_of_process = true;
            }
            (Filing::Ended, Some(_)) => drop(self.entries.remove(&entry)),
            (Filing::TooLarge, Some(state)) => *state = State::Promised,
            (_, state) => self.problem = Some(format!("{filing:?} of {entry}, which is {state:?}")),
        }
    }

    /// Hands over what is due, and lets go what waits for it.
    pub fn serve(&mut self, session: &mut Session) {
        if self.disk.is_some() {
            return self.serve_from_disk(session);
        }
        let mut too_large = Vec::new();
        session.file(&mut |entry, filing| {
            self.take(entry, &filing);
            if matches!(filing, Filing::TooLarge) {
                too_large.push(entry);
            }
        });
        for entry in &too_large {
            self.not_kept(session, *entry);
        }
        if !session.awaits_journal() {
            return;
        }
        let mut failed = !too_large.is_empty();
        if self.fails && self.rng.chance(20) {
            let waiting = self.entries.iter().filter(|(_, state)| **state == State::Promised);
            let waiting: Vec<u64> = waiting.map(|(entry, _)| *entry).collect();
            if !waiting.is_empty() {
                failed = true;
                let entry = *self.rng.pick(&waiting);
                self.not_kept(session, entry);
            }
        }
        session.handle_journal(!failed);
    }

    /// The thread does its work that writes what nobody waits for.
    pub fn flush_now_and_then(&mut self) {
        if let Some(disk) = &mut self.disk {
            if disk.rng.below(30) == 0 {
                disk.flush();
            }
        }
    }

    /// As the client's driver does it.
    fn serve_from_disk(&mut self, session: &mut Session) {
        self.hand_over(session);
        let awaits = session.awaits_journal();
        if let Some(keeper) = self.keeper().filter(|_| awaits) {
            keeper.commit(deadline());
        }
        let all_kept = self.hear_of_failures(session);
        if awaits {
            session.handle_journal(all_kept);
        }
    }

    /// The same up to where the journal has what it is given, and what it says of that is not heard any
    /// more.
    pub fn serve_last(&mut self, session: &mut Session) {
        self.hand_over(session);
        let awaits = session.awaits_journal();
        if let Some(keeper) = self.keeper().filter(|_| awaits) {
            keeper.commit(deadline());
        }
    }

    pub fn handle_timeline(&mut self, session: &mut Session, timeline: u32) {
        if let Some(keeper) = self.keeper() {
            keeper.handle_timeline(timeline, deadline());
        }
        self.hear_of_failures(session);
    }

    fn keeper(&mut self) -> Option<&mut Keeper> {
        self.disk.as_mut().and_then(|disk| disk.keeper.as_mut())
    }

    fn hand_over(&mut self, session: &mut Session) {
        if session.has_filings() {
            session.file(&mut |entry, filing| {
                self.take(entry, &filing);
                if let Some(keeper) = self.keeper() {
                    keeper.take(entry, &filing);
                }
            });
        }
    }

    /// Whether all is kept.
    fn hear_of_failures(&mut self, session: &mut Session) -> bool {
        let Some(keeper) = self.keeper().filter(|keeper| keeper.has_failures()) else {
            return true;
        };
        for it in keeper.failures(deadline()) {
            self.entries.remove(&it.entry);
            self.lost |= it.refused.is_none();
            self.lost_of_process |= it.refused.is_none();
            session.handle_not_kept(it.entry, it.reason, it.refused);
        }
        false
    }

    fn not_kept(&mut self, session: &mut Session, entry: u64) {
        self.entries.remove(&entry);
        let refused = self.rng.chance(50).then(|| Error::new(ErrorKind::ProtectionLost, "refused"));
        self.lost |= refused.is_none();
        session.handle_not_kept(entry, "the model's disk is full".to_owned(), refused);
    }

    /// All commits of the session's were announced, but for fences, which have done nothing else.
    pub fn check(&self, log: &[Rc<Record>], client: usize) -> Result<(), String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        let own = |record: &&Rc<Record>| record.ids().any(|id| writer_of(id) == Some(client));
        let mut sealed = log.iter().filter(own).filter_map(|record| record.sealed);
        match sealed.find(|seal| !self.seals.contains(seal)) {
            Some(seal) if !self.lost => {
                Err(format!("{seal:?} is committed, and the journal does not know of it"))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is in flight any more.
    pub fn check_empty(&self) -> Result<(), String> {
        if self.entries.is_empty() {
            return Ok(());
        }
        Err(format!("{:?} have not ended in the journal", self.entries))
    }
}
