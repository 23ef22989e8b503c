//! What a journal says of each session, transaction and submission that had not ended.
//!
//! Pure: records go in, in the order in which they stand; copies that were made to free a segment stand behind
//! what was written since. Memory is in proportion to how many are alive, not to their size: what they say is
//! read again when it is asked for.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::frame::Frame;
use super::record::{Fate, Kind, OutcomeKnown, Record, Seal, SubmissionOutcome};

/// Something that was in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The number that its records carry; grows in the order of beginning.
    pub owner: u64,
    pub what: FoundKind,
    pub state: State,
    /// Records of it may be missing, because the journal is damaged: its statements are not to be run
    /// again without somebody's word, and "never sent" is not to be believed of it.
    pub doubtful: bool,
    /// That is on record.
    pub(super) marked: bool,
    /// The ordinal of the record that the state is of.
    decided: u32,
    pub(super) places: Places,
    pub(super) bytes: u64,
}

#[cfg(test)]
impl Found {
    /// One of which there are no records.
    pub fn of(what: FoundKind, state: State, doubtful: bool) -> Self {
        let places = Places::default();
        Self { owner: 1, what, state, doubtful, marked: false, decided: 0, places, bytes: 0 }
    }
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundKind {
    Session {
        session: Uuid,
        ledger_row: Uuid,
        number: u64,
    },
    Transaction {
        /// The owner number of its session.
        session: u64,
        autocommit: bool,
        began_unix_ms: u64,
    },
    Submission {
        id: Uuid,
        submitted_unix_ms: u64,
    },
    /// Its first record is missing.
    Unknown,
}

/// How far it had come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// No commit was ever about to be sent: nothing of it can be in the database.
    NeverSent,
    /// A commit was about to be sent, perhaps several times under different numbers: committed if the
    /// ledger has any of these, else not.
    Sent(Vec<Seal>),
    /// The server, or the ledger, has answered.
    Known(Fate),
    /// A submission that can never succeed.
    Dead,
}

/// Where a record stands: the segment's index and the position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub segment: u32,
    /// In units of 8 bytes.
    eighth: u32,
}

impl Place {
    pub fn new(segment: u32, position: u64) -> Self {
        // A segment never reaches 32 GiB: journal_dir_bytes_max forbids it, and the writer ends it before.
        Self { segment, eighth: u32::try_from(position / 8).unwrap_or(u32::MAX) }
    }

    pub fn position(self) -> u64 {
        u64::from(self.eighth) * 8
    }
}

/// The places of an owner's records by their ordinals. Most owners have few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<(u32, Place)>);

impl Places {
    fn with_room_for(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Whether it is the first of this ordinal. A copy takes the place of what it is a copy of.
    fn put(&mut self, ordinal: u32, place: Place) -> bool {
        match self.0.last() {
            Some((last, _)) if *last >= ordinal => {}
            _ => {
                self.0.push((ordinal, place));
                return true;
            }
        }
        match self.0.binary_search_by_key(&ordinal, |(ordinal, _)| *ordinal) {
            Ok(at) => {
                self.0[at].1 = place;
                false
            }
            Err(at) => {
                self.0.insert(at, (ordinal, place));
                true
            }
        }
    }

    /// In the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = Place> {
        self.0.iter().map(|(_, place)| *place)
    }

    /// Of the owner's first record.
    pub fn first(&self) -> Option<Place> {
        self.0.first().filter(|(ordinal, _)| *ordinal == 0).map(|(_, place)| *place)
    }

    pub fn next_ordinal(&self) -> u32 {
        self.0.last().map_or(0, |(last, _)| last.saturating_add(1))
    }

    /// Whether none is missing between the first and the last.
    fn has_all(&self) -> bool {
        usize::try_from(self.next_ordinal()) == Ok(self.0.len())
    }
}

/// All that is in flight.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub owners: BTreeMap<u64, Found>,
    /// Owner numbers below this have been given out.
    pub next_owner: u64,
}

impl Index {
    /// A whole record. Returns whether it was understood.
    pub fn take(&mut self, frame: &Frame, payload: &[u8], place: Place) -> bool {
        if frame.owner != 0 {
            self.next_owner = self.next_owner.max(frame.owner.saturating_add(1));
        }
        let version = frame.version;
        let known = |kind: &Kind| (1..=kind.version()).contains(&version);
        let kind = Kind::of(frame.kind).filter(known);
        let record = match kind {
            // What they say is not needed before somebody asks for it.
            Some(Kind::Statement | Kind::StatementData | Kind::Seen) => None,
            Some(kind) => Record::decode(kind, version, payload).ok(),
            None => None,
        };
        let content = matches!(kind, Some(Kind::Statement | Kind::StatementData | Kind::Seen));
        match &record {
            Some(Record::Checkpoint(checkpoint)) => {
                self.next_owner = self.next_owner.max(checkpoint.next_owner);
                return true;
            }
            Some(Record::Ended) => {
                self.owners.remove(&frame.owner);
                return true;
            }
            _ => {}
        }
        let found = self.owners.entry(frame.owner).or_insert_with(|| Found {
            owner: frame.owner,
            what: FoundKind::Unknown,
            state: State::NeverSent,
            doubtful: false,
            marked: false,
            decided: 0,
            // A submission is one record; a transaction is some.
            places: Places::with_room_for(if kind == Some(Kind::Submission) { 1 } else { 4 }),
            bytes: 0,
        });
        let first = found.places.put(frame.ordinal, place);
        match &record {
            Some(record) if first => found.note(record, frame.ordinal),
            Some(_) => {}
            None => found.doubtful |= !content,
        }
        if first {
            found.bytes += frame.frame_bytes();
        }
        record.is_some() || content
    }

    /// Bytes are gone: of one owner, or nobody knows of which.
    pub fn lose(&mut self, owner: Option<u64>) {
        match owner {
            Some(owner) => {
                if let Some(found) = self.owners.get_mut(&owner) {
                    found.doubtful = true;
                }
            }
            None => self.owners.values_mut().for_each(|found| found.doubtful = true),
        }
    }

    /// All is read: whatever has a gap is doubtful.
    pub fn finish(&mut self) {
        for found in self.owners.values_mut() {
            found.doubtful |= !found.places.has_all() || found.what == FoundKind::Unknown;
        }
    }
}

impl Found {
    /// What its records take up in the files, without copies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn note(&mut self, record: &Record<'_>, ordinal: u32) {
        // An earlier one may stand behind it, as a copy.
        let last = ordinal >= self.decided;
        match record {
            Record::SessionOpened(it) => {
                self.what = FoundKind::Session {
                    session: it.session,
                    ledger_row: it.ledger_row,
                    number: it.number,
                };
            }
            Record::TransactionBegan(it) => {
                self.what = FoundKind::Transaction {
                    session: it.session,
                    autocommit: it.autocommit,
                    began_unix_ms: it.began_unix_ms,
                };
            }
            Record::Submission(it) => {
                self.what =
                    FoundKind::Submission { id: it.id, submitted_unix_ms: it.submitted_unix_ms };
            }
            Record::CommitSent(seal) => {
                match &mut self.state {
                    State::Sent(seals) if seals.contains(seal) => {}
                    State::Sent(seals) => seals.push(*seal),
                    // It was tried again after an attempt that failed.
                    State::NeverSent | State::Known(Fate::NotCommitted) if last => {
                        self.state = State::Sent(vec![*seal]);
                    }
                    State::NeverSent | State::Known(_) | State::Dead => {}
                }
                self.decided = self.decided.max(ordinal);
            }
            Record::OutcomeKnown(OutcomeKnown { fate, .. })
            | Record::SubmissionOutcome(SubmissionOutcome { fate, .. }) => {
                let stands = match fate {
                    Fate::Committed => true,
                    // A later attempt changes nothing about it, a later outcome does.
                    Fate::Unknown => last || !matches!(self.state, State::Known(_)),
                    // An attempt that failed says nothing of a later one.
                    Fate::NotCommitted => last,
                };
                if stands && self.state != State::Dead {
                    self.state = State::Known(*fate);
                }
                self.decided = self.decided.max(ordinal);
            }
            Record::DeadLetter(_) => self.state = State::Dead,
            Record::Doubted => (self.doubtful, self.marked) = (true, true),
            Record::Statement(_)
            | Record::StatementData(_)
            | Record::Seen(_)
            | Record::Timeline(_)
            | Record::Ended
            | Record::Checkpoint(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(number: u64) -> Seal {
        Seal { row: Uuid::nil(), number, guarded: false }
    }

    fn known(fate: Fate) -> Record<'static> {
        Record::OutcomeKnown(OutcomeKnown { fate, at_unix_ms: 0, sqlstate: "" })
    }

    fn in_order(records: &[Record<'_>], order: &[usize]) -> State {
        let mut found = Found::of(FoundKind::Unknown, State::NeverSent, false);
        for &at in order {
            found.note(&records[at], u32::try_from(at).unwrap());
        }
        found.state
    }

    fn orders(count: usize) -> Vec<Vec<usize>> {
        if count == 0 {
            return vec![Vec::new()];
        }
        let with = |order: Vec<usize>| {
            (0..count).map(move |at| {
                let mut order = order.clone();
                order.insert(at, count - 1);
                order
            })
        };
        orders(count - 1).into_iter().flat_map(with).collect()
    }

    /// A segment was freed: what began in it was copied behind the verdict of a later process, and its commit was taken
    /// for an attempt after that; the verdict was forgotten (simulation, seed 9114223).
    #[test]
    fn it_does_not_matter_where_copies_stand() {
        let sent = |number| Record::CommitSent(seal(number));
        for records in [
            vec![sent(1), known(Fate::NotCommitted)],
            vec![sent(1), known(Fate::Committed)],
            vec![sent(1), sent(2), known(Fate::NotCommitted)],
            vec![known(Fate::Unknown), sent(1)],
            vec![sent(1), known(Fate::Unknown), known(Fate::NotCommitted)],
            vec![sent(1), known(Fate::NotCommitted), sent(2), known(Fate::Committed)],
        ] {
            let all: Vec<_> = (0..records.len()).collect();
            let expected = in_order(&records, &all);
            for order in orders(records.len()) {
                assert_eq!(in_order(&records, &order), expected, "{order:?} of {records:?}");
            }
        }
        // That the ledger is without the first, which has failed, does no harm.
        let tried_again = [sent(1), known(Fate::NotCommitted), sent(2)];
        for order in orders(3) {
            let state = in_order(&tried_again, &order);
            assert!(matches!(&state, State::Sent(seals) if seals.contains(&seal(2))), "{order:?}");
        }
    }
}
