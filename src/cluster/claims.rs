//! Which submissions the standby is to be asked for, so that it is known what it has.
//!
//! Pure. Of one thread's submissions a few stand for all: a commit of its own vouches for what it has
//! told before. A standby that lags never has the newest, so that what is asked for is kept until it is there,
//! and the newest is asked for beside it.

use std::collections::HashSet;

use uuid::Uuid;

/// So many are asked for at once; others wait for one that vouches for them.
const ASKED_MAX: usize = 256;

/// A submission, and whether it vouches for all that was noted before it.
type Witness = (Uuid, bool);

/// What is asked for one thread, and what the standby is known to have of it.
#[derive(Debug, Default)]
pub struct Claims {
    asked: Vec<Witness>,
    newest: Vec<Witness>,
    has: Vec<Uuid>,
}

impl Claims {
    /// One more was told.
    pub fn note(&mut self, witness: Witness) {
        if witness.1 {
            self.newest.clear();
        }
        if self.newest.len() < ASKED_MAX {
            self.newest.push(witness);
        }
    }

    /// Nothing that was asked for is of any interest; these are.
    pub fn restart(&mut self, witnesses: Vec<Witness>) {
        *self = Self::default();
        witnesses.into_iter().for_each(|witness| self.note(witness));
    }

    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.newest.is_empty()
    }

    /// What the standby is to be asked for now.
    pub fn questions(&mut self) -> impl Iterator<Item = Uuid> {
        if self.asked.is_empty() {
            self.asked = std::mem::take(&mut self.newest);
        }
        self.asked.iter().chain(&self.newest).map(|(id, _)| *id)
    }

    /// It has these. Returns whether that is news.
    pub fn answer(&mut self, there: &HashSet<Uuid>) -> bool {
        let before = self.has.len();
        let is_there = |(id, _): &Witness| there.contains(id);
        let vouched = self.newest.iter().any(|it| it.1 && is_there(it));
        for list in [&mut self.asked, &mut self.newest] {
            self.has.extend(list.iter().filter(|it| is_there(it)).map(|(id, _)| *id));
            list.retain(|it| !is_there(it));
        }
        if vouched {
            self.asked.clear();
        }
        self.has.len() > before
    }

    pub fn has_news(&self) -> bool {
        !self.has.is_empty()
    }

    /// What the standby was found to have since.
    pub fn take_news(&mut self) -> Vec<Uuid> {
        std::mem::take(&mut self.has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn asked(it: &mut Claims) -> Vec<u128> {
        it.questions().map(|id| id.as_u128()).collect()
    }

    fn answer(it: &mut Claims, there: &[u128]) -> Vec<u128> {
        it.answer(&there.iter().copied().map(id).collect());
        it.take_news().iter().map(Uuid::as_u128).collect()
    }

    #[test]
    fn a_standby_that_lags_is_asked_for_the_same_until_it_has_it() {
        let mut it = Claims::default();
        assert!(it.is_idle());
        it.note((id(1), true));
        assert_eq!(asked(&mut it), [1]);
        for number in 2..9 {
            it.note((id(number), true));
            assert_eq!(asked(&mut it), [1, number], "the newest stands for the others");
            assert!(answer(&mut it, &[]).is_empty() && !it.has_news());
        }
        assert_eq!(answer(&mut it, &[1]), [1]);
        assert_eq!(asked(&mut it), [8]);
        assert_eq!(answer(&mut it, &[8]), [8]);
        assert!(it.is_idle());
    }

    #[test]
    fn what_was_found_done_is_asked_for_by_itself() {
        let mut it = Claims::default();
        it.note((id(1), true));
        it.note((id(2), false));
        it.note((id(3), false));
        assert_eq!(asked(&mut it), [1, 2, 3]);
        assert_eq!(answer(&mut it, &[2]), [2]);
        assert_eq!(asked(&mut it), [1, 3]);
        // Purged, or lost: nobody will ever have it. What is told later vouches for it all the same.
        it.note((id(4), true));
        assert_eq!(asked(&mut it), [1, 3, 4]);
        assert_eq!(answer(&mut it, &[4]), [4]);
        assert!(it.is_idle());
    }

    #[test]
    fn it_is_bounded_and_can_begin_anew() {
        let mut it = Claims::default();
        (0..1000).for_each(|number| it.note((id(number), false)));
        assert_eq!(asked(&mut it).len(), ASKED_MAX);
        it.restart(vec![(id(7), true), (id(8), false)]);
        assert_eq!(asked(&mut it), [7, 8]);
    }
}
