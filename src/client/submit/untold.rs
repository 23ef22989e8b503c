//! What is committed and not told yet: until what was sent behind it is answered and, with
//! `commit_ack=backup`, the backup has it.
//!
//! One question at a time is asked of the backup, for the newest seal: it has all that stands ahead
//! of that too. Nobody blocks for the answer. Invariant: what is told leaves in the order in which it
//! came in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use uuid::Uuid;

use super::shared::Shared;
use super::ticket::Executed;
use crate::cluster::Confirmed;
use crate::error::{Error, ErrorKind, Result};

/// So many wait on one link at most; then nothing more is sent.
const UNTOLD_MAX: usize = 1024;
/// The backup is asked for so long before somebody is told that it does not answer.
const CONFIRM: Duration = Duration::from_millis(500);

/// The submissions of one link that are committed and not told.
#[derive(Default)]
pub struct Untold {
    entries: VecDeque<(u64, Executed)>,
    /// Seals that are in the log, the oldest first: their numbers, and how many entries stand between
    /// each and the one before.
    seals: VecDeque<(u64, usize)>,
    /// So many entries stand behind the last seal.
    open: usize,
    asked: Option<Asked>,
}

/// A question to the backup that is unanswered.
struct Asked {
    number: u64,
    answer: Receiver<Result<Confirmed>>,
}

/// Whom the backup is asked for: the ledger's row, and the server that it was sealed on.
#[derive(Clone, Copy)]
pub struct Sealed {
    pub row: Uuid,
    pub server: usize,
    /// Which thread waits for the answer.
    pub shard: usize,
}

/// What the backup has said.
pub enum Word {
    /// It has these.
    Has(Vec<(u64, Executed)>),
    Nothing,
    /// It does not answer; it is asked again.
    Silent(Error),
    /// The server has been left, and nobody will answer.
    Moved,
}

impl Untold {
    pub fn push(&mut self, number: u64, executed: Executed) {
        self.entries.push_back((number, executed));
        self.open += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.entries.len() >= UNTOLD_MAX
    }

    /// All of them can be told: the server itself has confirmed them, and nobody else is to.
    pub fn all(&mut self) -> Vec<(u64, Executed)> {
        self.open = 0;
        self.entries.drain(..).collect()
    }

    /// The seal with this number is in the log, behind all that is here.
    pub fn seal(&mut self, number: u64) {
        self.seals.push_back((number, std::mem::take(&mut self.open)));
    }

    /// Asks the backup, unless it has been or there is nothing to ask for. Its answer wakes the thread.
    pub fn ask(&mut self, shared: &Arc<Shared>, of: Sealed) {
        let Some((number, _)) = self.seals.back().filter(|_| self.asked.is_none()) else { return };
        let number = *number;
        let (sender, answer) = bounded(1);
        let waiting = Arc::clone(shared);
        let reply = move |word| {
            let _ = sender.send(word);
            waiting.wake(of.shard);
        };
        let deadline = Instant::now() + CONFIRM;
        shared.cluster.confirm_then(of.row, number, of.server, deadline, reply);
        self.asked = Some(Asked { number, answer });
    }

    /// Whether a question is unanswered.
    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether [`poll`](Self::poll) has something to say.
    pub fn is_answered(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| !asked.answer.is_empty())
    }

    /// What the backup has said since, without waiting for it.
    pub fn poll(&mut self) -> Word {
        let Some(asked) = &self.asked else { return Word::Nothing };
        let number = asked.number;
        let word = match asked.answer.try_recv() {
            Ok(word) => word,
            Err(TryRecvError::Empty) => return Word::Nothing,
            Err(TryRecvError::Disconnected) => Ok(Confirmed::Moved),
        };
        self.asked = None;
        match word {
            Ok(Confirmed::ByBackup | Confirmed::NoBackup) => Word::Has(self.take(number)),
            Ok(Confirmed::Moved) => Word::Moved,
            Err(error) if error.kind() == ErrorKind::FailoverTimeout => Word::Silent(error),
            Err(_) => Word::Moved,
        }
    }

    /// The entries ahead of this seal.
    fn take(&mut self, number: u64) -> Vec<(u64, Executed)> {
        let mut count = 0;
        while let Some((_, between)) = self.seals.front().filter(|(seal, _)| *seal <= number) {
            count += between;
            self.seals.pop_front();
        }
        self.entries.drain(..count.min(self.entries.len())).collect()
    }

    /// The link is lost: all of them are to be asked about on the next one.
    pub fn lose(&mut self) -> Vec<u64> {
        let entries = std::mem::take(self).entries;
        entries.into_iter().map(|(number, _)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untold(numbers: std::ops::Range<u64>) -> Untold {
        let mut it = Untold::default();
        numbers.for_each(|number| push(&mut it, number));
        it
    }

    fn push(it: &mut Untold, number: u64) {
        it.push(number, Executed { rows: Vec::new(), found_done: false });
    }

    fn numbers(told: &[(u64, Executed)]) -> Vec<u64> {
        told.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn a_seal_vouches_for_what_stands_ahead_of_it() {
        let mut it = untold(0..2);
        it.seal(1);
        push(&mut it, 2);
        it.seal(2);
        it.seal(3);
        push(&mut it, 3);
        assert_eq!(numbers(&it.take(1)), [0, 1]);
        assert_eq!(numbers(&it.take(1)), [] as [u64; 0]);
        assert_eq!(numbers(&it.take(3)), [2]);
        it.seal(4);
        assert_eq!(numbers(&it.take(9)), [3]);
        push(&mut it, 4);
        assert_eq!(it.lose(), [4]);
        assert!(it.is_empty() && !it.is_asking());
    }

    #[test]
    fn the_backup_is_heard_once_it_speaks() {
        let mut it = untold(0..2);
        it.seal(1);
        let (sender, answer) = bounded(1);
        it.asked = Some(Asked { number: 1, answer });
        assert!(matches!(it.poll(), Word::Nothing) && it.is_asking());
        sender.send(Ok(Confirmed::ByBackup)).unwrap();
        assert!(it.is_answered());
        assert!(matches!(it.poll(), Word::Has(told) if numbers(&told) == [0, 1]));
        let (sender, answer) = bounded(1);
        it.asked = Some(Asked { number: 2, answer });
        drop(sender);
        assert!(matches!(it.poll(), Word::Moved), "nobody is there to answer any more");
    }
}
