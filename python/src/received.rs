//! What one statement returned: its rows as they came, or made already.
//!
//! A large result is made while the rest of it is on its way, so that it takes the longer of the server's
//! time and ours, not the sum. Its rows then wait in the pieces in which they arrived; those of a small
//! result, and whatever cannot be made ahead, are kept one by one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pyo3::Py;
use pyo3::types::PyTuple;
use segue::wire::frame::{command_tag, rows_affected};
use segue::wire::row::Rows;

use crate::decode::Decoders;

/// Once so many rows wait they are made, if more are expected.
const EAGER: usize = 512;
/// The most that wait where others want the GIL too.
const EAGER_MAX: usize = 64 * EAGER;
/// Getting the GIL takes longer than this only where others have it.
const GIL_PATIENCE: Duration = Duration::from_millis(1);

/// Makes a row out of the body of a DataRow; `None` leaves it to whoever fetches it.
pub type Make<'a> = &'a mut dyn FnMut(&[u8]) -> Option<Py<PyTuple>>;

#[derive(Debug)]
pub struct Received {
    /// `None` for a statement that returns no rows.
    pub decoders: Option<Arc<Decoders>>,
    /// The first rows, made while the rest was on its way.
    pub made: Vec<Py<PyTuple>>,
    /// Those behind them.
    pub rows: Vec<Bytes>,
    /// Those behind these.
    pieces: Vec<Piece>,
    /// So many are in `pieces`.
    in_pieces: usize,
    /// Rows are made once so many wait.
    eager: usize,
    pub tag: Bytes,
}

/// Rows that arrived together.
#[derive(Debug)]
enum Piece {
    One(Bytes),
    Many(Rows),
}

impl Default for Received {
    fn default() -> Self {
        Self {
            decoders: None,
            made: Vec::new(),
            rows: Vec::new(),
            pieces: Vec::new(),
            in_pieces: 0,
            eager: EAGER,
            tag: Bytes::new(),
        }
    }
}

impl Received {
    pub fn tag(&self) -> &str {
        command_tag(&self.tag).unwrap_or_default()
    }

    /// What the DB-API calls rowcount: -1 where the tag has no number.
    pub fn row_count(&self) -> i64 {
        let tag = self.tag();
        if tag.bytes().last().is_some_and(|last| last.is_ascii_digit()) {
            i64::try_from(rows_affected(tag)).unwrap_or(i64::MAX)
        } else {
            -1
        }
    }

    /// How many rows there are. Of a result that is complete: its rows are in no pieces any more.
    pub fn len(&self) -> usize {
        self.made.len() + self.rows.len()
    }

    /// What came of a row that is not made; nothing for one that there is not.
    pub fn body(&self, at: usize) -> &[u8] {
        let at = at.checked_sub(self.made.len());
        at.and_then(|at| self.rows.get(at)).map_or(&[], |body| &body[..])
    }

    pub fn add(&mut self, body: Bytes) {
        if self.is_small() && self.rows.len() < EAGER {
            self.rows.push(body);
        } else {
            self.in_pieces += 1;
            self.pieces.push(Piece::One(body));
        }
    }

    pub fn add_all(&mut self, rows: Rows) {
        if self.is_small() && self.rows.len() + rows.len() < EAGER {
            self.rows.extend(rows);
        } else {
            self.in_pieces += rows.len();
            self.pieces.push(Piece::Many(rows));
        }
    }

    /// As far as is known by now.
    fn is_small(&self) -> bool {
        self.made.is_empty() && self.pieces.is_empty()
    }

    /// Takes the pieces apart.
    pub fn split(&mut self) {
        self.rows.reserve(self.in_pieces);
        self.in_pieces = 0;
        for piece in self.pieces.drain(..) {
            match piece {
                Piece::One(body) => self.rows.push(body),
                Piece::Many(rows) => self.rows.extend(rows),
            }
        }
    }

    /// Whether so much waits that it is time to make rows of it.
    pub fn is_much(&self) -> bool {
        self.rows.len() + self.in_pieces >= self.eager
            && self.decoders.as_ref().is_some_and(|decoders| decoders.is_plain())
    }

    /// The GIL was asked for at this time, and is there now: where it had to be waited for, the next
    /// rows come in larger lots.
    pub fn got_gil(&mut self, asked: Instant) {
        if asked.elapsed() > GIL_PATIENCE {
            self.eager = (self.eager * 2).min(EAGER_MAX);
        }
    }

    /// Makes rows of what has arrived, as far as that can be done; the rest is not tried again.
    pub fn make(&mut self, make: Make<'_>) {
        if !self.make_all(make) {
            self.eager = usize::MAX;
            self.split();
        }
    }

    fn make_all(&mut self, make: Make<'_>) -> bool {
        self.made.reserve(self.rows.len() + self.in_pieces);
        let before = self.made.len();
        self.made.extend(self.rows.iter().map_while(|body| make(body)));
        let done = self.made.len() - before;
        if done < self.rows.len() {
            self.rows.drain(..done);
            return false;
        }
        self.rows.clear();
        let mut pieces = std::mem::take(&mut self.pieces).into_iter();
        for piece in pieces.by_ref() {
            let left = match piece {
                Piece::One(body) => match make(&body) {
                    Some(row) => {
                        self.made.push(row);
                        None
                    }
                    None => Some(Piece::One(body)),
                },
                Piece::Many(rows) => {
                    let before = self.made.len();
                    self.made.extend(rows.bodies().map_while(&mut *make));
                    let done = self.made.len() - before;
                    let mut rows = rows;
                    (done < rows.len()).then(|| {
                        rows.by_ref().take(done).for_each(drop);
                        Piece::Many(rows)
                    })
                }
            };
            if let Some(left) = left {
                self.pieces = std::iter::once(left).chain(pieces).collect();
                return false;
            }
        }
        self.in_pieces = 0;
        true
    }
}
