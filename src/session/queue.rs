//! What is still to be told to the driver, in the order in which it happened.
//!
//! Rows that have arrived together stay together for whoever wants them so: a large result then
//! costs one entry for each read of the socket instead of one for each row.

use std::collections::VecDeque;

use super::Event;
use crate::wire::row::Rows;

#[derive(Debug)]
enum Entry {
    Event(Event),
    /// Never empty.
    Rows(Rows),
}

#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Entry>);

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub fn push(&mut self, event: Event) {
        self.0.push_back(Entry::Event(event));
    }

    pub fn push_rows(&mut self, rows: Rows) {
        if rows.len() > 0 {
            self.0.push_back(Entry::Rows(rows));
        }
    }

    /// The next event; rows come one by one.
    #[inline]
    pub fn pop(&mut self) -> Option<Event> {
        if let Some(Entry::Rows(rows)) = self.0.front_mut() {
            let row = rows.next().map(Event::Row);
            if rows.len() == 0 {
                self.0.pop_front();
            }
            return row;
        }
        match self.0.pop_front()? {
            Entry::Event(event) => Some(event),
            Entry::Rows(mut rows) => rows.next().map(Event::Row),
        }
    }

    /// The rows that come next, if rows come next.
    pub fn pop_rows(&mut self) -> Option<Rows> {
        match self.0.front()? {
            Entry::Event(_) => None,
            Entry::Rows(_) => match self.0.pop_front()? {
                Entry::Rows(rows) => Some(rows),
                Entry::Event(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::frame::Status;

    fn filled() -> Queue {
        let mut queue = Queue::default();
        let mut buf = BytesMut::from(&b"D\0\0\0\x05aD\0\0\0\x05b"[..]);
        queue.push(Event::Restarted);
        queue.push_rows(Rows::cut(2, 12, &mut buf));
        queue.push(Event::Ready(Status::Idle));
        queue
    }

    #[test]
    fn gives_rows_one_by_one() {
        let mut queue = filled();
        assert!(matches!(queue.pop(), Some(Event::Restarted)));
        assert!(matches!(queue.pop(), Some(Event::Row(row)) if &row[..] == b"a"));
        assert!(matches!(queue.pop(), Some(Event::Row(row)) if &row[..] == b"b"));
        assert!(matches!(queue.pop(), Some(Event::Ready(_))));
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    fn gives_rows_together_only_in_their_turn() {
        let mut queue = filled();
        assert!(queue.pop_rows().is_none());
        queue.pop();
        assert_eq!(queue.pop_rows().map(|rows| rows.len()), Some(2));
        assert!(queue.pop_rows().is_none());
        assert!(matches!(queue.pop(), Some(Event::Ready(_))));
    }

    #[test]
    fn gives_the_rest_of_rows_together() {
        let mut queue = filled();
        queue.pop();
        queue.pop();
        assert_eq!(queue.pop_rows().map(|rows| rows.len()), Some(1));
    }
}
