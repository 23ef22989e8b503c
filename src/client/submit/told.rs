//! What was told to be committed, remembered until the backup has it and for a while longer: where a
//! promotion has lost some of it, this says which.
//!
//! Pure: no I/O, and no clock (`now` is an argument, in milliseconds). One thread's submissions are in
//! here, in the order in which they were told.
//!
//! Why one answer vouches for many: what one thread commits stands in the server's log in the order in
//! which it is told, whichever links it was sent on. Who has such a commit has all that this thread
//! has told before it. What was *found* done was committed by somebody else, at some time before; it
//! vouches for itself alone.
//!
//! Invariants: a name is let go of only by [`Told::take_lost`], or when there are too many, or when it
//! has grown old, and the last two are noted, so that no loss passes in silence; what is kept to be run
//! again is handed out exactly once, by [`Told::take_released`] or with its loss.

use std::collections::{HashSet, VecDeque};

use uuid::Uuid;

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names in all.
    pub names: usize,
    /// Names of what the backup has: another server may be promoted, which has less.
    pub confirmed: usize,
    /// Bytes of what is kept to be run again.
    pub bytes: usize,
    /// How old a name may grow. Its claim must not be purged before, or it would look lost.
    pub age_ms: u64,
    /// The same, of one that the backup has.
    pub confirmed_age_ms: u64,
}

/// The submissions of one thread that were told to be committed: of each a name `N` and, until the
/// backup has it, what is needed to run it again `W`.
#[derive(Debug)]
pub struct Told<N, W> {
    limits: Limits,
    /// In the order in which they were told.
    entries: VecDeque<Entry<N, W>>,
    /// All entries ahead of this one are confirmed.
    first_open: usize,
    /// No entry ahead of this one has anything to be run again.
    first_whole: usize,
    confirmed: usize,
    bytes: usize,
    /// Names were let go of.
    forgot: bool,
    /// The newest of these that vouches for others, and when it was told.
    forgotten: Option<(Uuid, u64)>,
    released: Vec<W>,
}

#[derive(Debug)]
struct Entry<N, W> {
    id: Uuid,
    /// This thread has committed it: it vouches for what was told before it.
    vouches: bool,
    confirmed: bool,
    told_at: u64,
    name: N,
    whole: Option<(usize, W)>,
}

/// What a server does not have.
#[derive(Debug)]
pub struct Losses<N, W> {
    /// In the order in which they were told.
    pub lost: Vec<(N, Option<W>)>,
    /// Earlier ones may be lost too, of which nothing is remembered any more.
    pub others: bool,
}

impl<N, W> Told<N, W> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: VecDeque::new(),
            first_open: 0,
            first_whole: 0,
            confirmed: 0,
            bytes: 0,
            forgot: false,
            forgotten: None,
            released: Vec::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// It is told. `vouches`: this thread has committed it, and has not found it done. `whole`: what is
    /// needed to run it again, and how many bytes that takes up.
    pub fn push(&mut self, id: Uuid, vouches: bool, now: u64, name: N, whole: Option<(usize, W)>) {
        self.bytes += whole.as_ref().map_or(0, |(bytes, _)| *bytes);
        self.entries.push_back(Entry { id, vouches, confirmed: false, told_at: now, name, whole });
        self.trim(now);
        while self.bytes > self.limits.bytes && self.first_whole < self.entries.len() {
            self.release(self.first_whole);
            self.first_whole += 1;
        }
    }

    /// Lets go of what is too much, or too old.
    fn trim(&mut self, now: u64) {
        while let Some(oldest) = self.entries.front() {
            let age = now.saturating_sub(oldest.told_at);
            let many = self.entries.len() > self.limits.names
                || oldest.confirmed && self.confirmed > self.limits.confirmed;
            let old =
                age > self.limits.age_ms || oldest.confirmed && age > self.limits.confirmed_age_ms;
            if !many && !old {
                return;
            }
            self.release(0);
            let Some(oldest) = self.entries.pop_front() else { return };
            self.first_open = self.first_open.saturating_sub(1);
            self.first_whole = self.first_whole.saturating_sub(1);
            self.confirmed -= usize::from(oldest.confirmed);
            self.forgot = true;
            if oldest.vouches {
                self.forgotten = Some((oldest.id, oldest.told_at));
            }
        }
    }

    fn release(&mut self, at: usize) {
        let whole = self.entries.get_mut(at).and_then(|entry| entry.whole.take());
        if let Some((bytes, whole)) = whole {
            self.bytes -= bytes;
            self.released.push(whole);
        }
    }

    /// What need not be run again, whatever happens.
    pub fn take_released(&mut self) -> Vec<W> {
        std::mem::take(&mut self.released)
    }

    /// The backup has this one.
    pub fn handle_backup_has(&mut self, id: Uuid) {
        let open = self.entries.range(self.first_open..);
        let Some(at) = open.rev().position(|entry| entry.id == id) else { return };
        let at = self.entries.len() - 1 - at;
        let from = if self.entries[at].vouches { self.first_open } else { at };
        for at in from..=at {
            self.release(at);
            let entry = &mut self.entries[at];
            self.confirmed += usize::from(!std::mem::replace(&mut entry.confirmed, true));
        }
        while self.entries.get(self.first_open).is_some_and(|entry| entry.confirmed) {
            self.first_open += 1;
        }
        self.first_whole = self.first_whole.max(self.first_open);
    }

    /// What to ask a server for to learn whether it has all of them: the newest that vouches, and what
    /// was found done since.
    pub fn witnesses(&self) -> Vec<Uuid> {
        let mut witnesses: Vec<Uuid> = self.since_vouched().map(|entry| entry.id).collect();
        if !self.entries.iter().any(|entry| entry.vouches) {
            witnesses.extend(self.forgotten.map(|(id, _)| id));
        }
        witnesses
    }

    /// Of these, what the backup is not known to have, each with whether it vouches, the oldest first.
    pub fn open_witnesses(&self) -> Vec<(Uuid, bool)> {
        let open = self.since_vouched().filter(|entry| !entry.confirmed);
        let mut witnesses: Vec<_> = open.map(|entry| (entry.id, entry.vouches)).collect();
        witnesses.reverse();
        witnesses
    }

    /// The newest entries, up to the first that vouches for all before it.
    fn since_vouched(&self) -> impl Iterator<Item = &Entry<N, W>> {
        let mut vouched = false;
        let open = move |entry: &&Entry<N, W>| !std::mem::replace(&mut vouched, entry.vouches);
        self.entries.iter().rev().take_while(open)
    }

    /// All that a server has to be asked for, once a witness is missing there.
    pub fn ids(&mut self, now: u64) -> Vec<Uuid> {
        self.trim(now);
        let forgotten = self.asked_forgotten(now);
        forgotten.into_iter().chain(self.entries.iter().map(|entry| entry.id)).collect()
    }

    /// The newest that was let go of and vouches for others, unless it is old.
    fn asked_forgotten(&self, now: u64) -> Option<Uuid> {
        let young = |told_at: u64| now.saturating_sub(told_at) <= self.limits.age_ms;
        self.forgotten.filter(|(_, told_at)| young(*told_at)).map(|(id, _)| id)
    }

    /// Of [`ids`](Self::ids), a server that has taken over has these alone. What is lost is given once.
    pub fn take_lost(&mut self, there: &HashSet<Uuid>, now: u64) -> Losses<N, W> {
        let forgotten_is_lost = match self.asked_forgotten(now) {
            Some(id) => !there.contains(&id),
            // Nothing is known of it but that it was told before these.
            None => {
                let oldest = self.entries.iter().find(|entry| entry.vouches);
                oldest.is_some_and(|entry| !there.contains(&entry.id))
            }
        };
        let others = self.forgot && forgotten_is_lost;
        if others {
            (self.forgot, self.forgotten) = (false, None);
        }
        let mut lost = Vec::new();
        let mut named = HashSet::new();
        for entry in std::mem::take(&mut self.entries) {
            if there.contains(&entry.id) {
                self.entries.push_back(entry);
                continue;
            }
            self.confirmed -= usize::from(entry.confirmed);
            let whole = entry.whole.map(|(bytes, whole)| {
                self.bytes -= bytes;
                whole
            });
            if named.insert(entry.id) {
                lost.push((entry.name, whole));
            } else {
                // Told twice: it was handed over again under its key.
                self.released.extend(whole);
            }
        }
        let is_open = |entry: &Entry<N, W>| !entry.confirmed;
        self.first_open = self.entries.iter().position(is_open).unwrap_or(self.entries.len());
        self.first_whole = self.first_open;
        Losses { lost, others }
    }
}
