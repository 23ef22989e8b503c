//! What is committed and not told yet: until what was sent behind it is answered and, with
//! `commit_ack=backup`, the backup has it.
//!
//! Pure. One question at a time is asked of the backup, for the newest seal: it has all that stands ahead
//! of that too. Nobody blocks for the answer. Invariant: what is told leaves in the order in which it
//! came in.

use std::collections::VecDeque;

use super::ticket::Executed;
use crate::cluster::Confirmed;
use crate::error::{Error, ErrorKind, Result};

/// So many wait on one link at most; then nothing more is sent.
const UNTOLD_MAX: usize = 1024;

/// The submissions of one link that are committed and not told.
#[derive(Default)]
pub struct Untold {
    entries: VecDeque<(u64, Executed)>,
    /// Seals that are in the log, the oldest first: their numbers, and how many entries stand between
    /// each and the one before.
    seals: VecDeque<(u64, usize)>,
    /// So many entries stand behind the last seal.
    open: usize,
    /// The seal that the backup was asked for, and has not answered.
    asked: Option<u64>,
}

/// What the backup has said.
pub enum Word {
    /// It has these.
    Has(Vec<(u64, Executed)>),
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

    /// The seal that the backup is to be asked for now, unless it has been asked or there is none.
    pub fn poll_question(&mut self) -> Option<u64> {
        let (number, _) = self.seals.back().filter(|_| self.asked.is_none())?;
        self.asked = Some(*number);
        self.asked
    }

    /// Whether a question is unanswered.
    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// The backup's answer to the question.
    pub fn handle_word(&mut self, word: Result<Confirmed>) -> Word {
        let number = self.asked.take().unwrap_or_default();
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
    fn the_backup_is_asked_for_the_newest_seal_and_once_at_a_time() {
        let mut it = untold(0..2);
        assert_eq!(it.poll_question(), None, "nothing is sealed yet");
        it.seal(1);
        assert_eq!(it.poll_question(), Some(1));
        push(&mut it, 2);
        it.seal(2);
        assert_eq!(it.poll_question(), None, "it is asked one thing at a time");
        let word = it.handle_word(Ok(Confirmed::ByBackup));
        assert!(matches!(word, Word::Has(told) if numbers(&told) == [0, 1]));
        assert_eq!(it.poll_question(), Some(2));
        let silence = Error::new(ErrorKind::FailoverTimeout, "no answer");
        assert!(matches!(it.handle_word(Err(silence)), Word::Silent(_)) && !it.is_asking());
        assert_eq!(it.poll_question(), Some(2), "it is asked again");
        assert!(matches!(it.handle_word(Ok(Confirmed::Moved)), Word::Moved));
    }
}
