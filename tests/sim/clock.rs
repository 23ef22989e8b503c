//! The time of a run: virtual microseconds, which move by what happens. A run takes one instant from the
//! machine's clock, as the origin of those that the code under test is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A time that never comes.
pub const NEVER: u64 = u64::MAX;

pub const MS: u64 = 1000;

#[derive(Debug, Clone, Copy)]
pub struct Origin(Instant);

impl Origin {
    pub fn new() -> Self {
        // So far from the origin of the machine's clock that times before it exist.
        Self(Instant::now() + Duration::from_secs(3600))
    }

    pub fn at(self, us: u64) -> Instant {
        self.0 + Duration::from_micros(us)
    }

    pub fn us(self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.0).as_micros()).unwrap_or(NEVER)
    }
}

/// When the bytes that are under way in one direction of a link arrive: in the order in which they were
/// sent.
#[derive(Debug, Default)]
pub struct Flight {
    marks: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Flight {
    /// `bytes` are under way now; those that are new arrive at `at`, or behind what was sent before.
    pub fn note(&mut self, bytes: usize, at: u64) {
        if bytes > self.bytes {
            let last = self.marks.back().map_or(0, |(at, _)| *at);
            self.marks.push_back((at.max(last), bytes - self.bytes));
        }
        // Some of the last are lost.
        let mut gone = self.bytes.saturating_sub(bytes);
        while let Some((_, last)) = self.marks.back_mut().filter(|_| gone > 0) {
            let some = gone.min(*last);
            *last -= some;
            gone -= some;
            if *last == 0 {
                self.marks.pop_back();
            }
        }
        self.bytes = bytes;
    }

    /// So many have arrived.
    pub fn arrived(&self, now: u64) -> usize {
        self.marks.iter().take_while(|(at, _)| *at <= now).map(|(_, count)| count).sum()
    }

    /// When more arrive than are there.
    pub fn next(&self, now: u64) -> u64 {
        self.marks.iter().map(|(at, _)| *at).find(|at| *at > now).unwrap_or(NEVER)
    }

    /// So many were taken out.
    pub fn take(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some((_, first)) = self.marks.front_mut().filter(|_| count > 0) {
            let some = count.min(*first);
            *first -= some;
            count -= some;
            if *first == 0 {
                self.marks.pop_front();
            }
        }
    }
}

#[test]
fn bytes_arrive_in_order_and_the_last_may_be_lost() {
    let mut flight = Flight::default();
    flight.note(10, 100);
    flight.note(15, 50);
    assert_eq!((flight.arrived(99), flight.arrived(100), flight.next(99)), (0, 15, 100));
    flight.note(12, 0);
    assert_eq!(flight.arrived(100), 12);
    flight.take(11);
    flight.note(4, 200);
    assert_eq!((flight.arrived(100), flight.arrived(200), flight.next(100)), (1, 4, 200));
}
