//! The memory of a result's rows: blocks of a bounded size, and in each of them the places of its
//! values, found by row and column without walking. Every value has a NUL behind it.
//!
//! A row never moves once the next block has begun. What a large result has used is kept when it is
//! freed, up to [`SPARE_MAX`] in the whole process, and is used by the next: the page faults of fresh
//! memory cost more than all else that is done with a row. No unsafe code.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::wire::frame::HEADER;

/// The size of a block's bytes; a single piece that is larger has one to itself.
const BLOCK: usize = 128 * 1024;
/// Up to this size the first block is as small as it can be, and grows.
const FIRST_MAX: usize = 16 * 1024;
/// What is kept of blocks that are not in use.
const SPARE_MAX: usize = 4 * 1024 * 1024;

/// What a DataRow message has before its first value: tag, length, number of columns.
const ROW_HEADER: usize = HEADER + 2;
/// What a value has before it.
const LENGTH: usize = 4;

/// Blocks that are not in use, which any result may take.
static SPARE: Spare = Spare(Mutex::new(Vec::new()));

/// Rows, block by block.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Nearly always the only one.
    first: Block,
    more: Vec<Block>,
    rows: usize,
    /// Where in `more` the last row was found that was asked for: the next one is likely there too.
    recent: AtomicUsize,
}

#[derive(Debug, Default)]
struct Block {
    first_row: usize,
    rows: usize,
    memory: Memory,
}

#[derive(Debug, Default)]
struct Memory {
    /// DataRow messages as they have arrived, but for a NUL behind each value: it stands where the
    /// next length, or the next message, begins.
    bytes: Vec<u8>,
    /// Where each value begins and how long it is, row by row.
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    start: u32,
    /// [`NULL`] is NULL; a value cannot be as long.
    length: u32,
}

const NULL: u32 = u32::MAX;

impl Blocks {
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes DataRow messages that stand one behind the other in `messages`.
    pub fn add(&mut self, rows: usize, columns: usize, messages: &[u8]) {
        self.append([&[], messages], rows, columns);
    }

    /// Takes one row, without its header.
    pub fn push(&mut self, columns: usize, body: &[u8]) {
        self.append([&[0; HEADER], body], 1, columns);
    }

    fn append(&mut self, pieces: [&[u8]; 2], rows: usize, columns: usize) {
        let first_row = self.rows;
        // The NUL behind the last value has no length or message to stand on.
        let block = self.room(pieces[0].len() + pieces[1].len() + 1);
        if block.rows == 0 {
            block.first_row = first_row;
        }
        block.rows += rows;
        let memory = &mut block.memory;
        let start = memory.bytes.len();
        pieces.iter().for_each(|piece| memory.bytes.extend_from_slice(piece));
        memory.bytes.push(0);
        memory.index(rows, columns, start);
        self.rows += rows;
    }

    /// The block that takes so many bytes more.
    fn room(&mut self, bytes: usize) -> &mut Block {
        let used = self.first.memory.bytes.len();
        if self.more.is_empty() && used + bytes <= FIRST_MAX {
            self.first.memory.bytes.reserve(bytes);
            return &mut self.first;
        }
        if used == 0 {
            self.first.memory = Memory::take(bytes);
            return &mut self.first;
        }
        let last = &self.more.last().unwrap_or(&self.first).memory.bytes;
        if last.capacity() - last.len() < bytes {
            self.more.push(Block { memory: Memory::take(bytes), ..Block::default() });
        }
        self.more.last_mut().unwrap_or(&mut self.first)
    }

    /// A value as it was sent; the outer `None` is out of range, the inner one NULL. A NUL follows it.
    #[inline]
    pub fn find(&self, row: usize, column: usize, columns: usize) -> Option<Option<&[u8]>> {
        if column >= columns {
            return None;
        }
        let block = if row < self.first.rows { &self.first } else { self.block_of(row)? };
        let memory = &block.memory;
        let cell = (row - block.first_row).checked_mul(columns)?.checked_add(column)?;
        let Cell { start, length } = *memory.cells.get(cell)?;
        if length == NULL {
            return Some(None);
        }
        let start = start as usize;
        Some(memory.bytes.get(start..start + length as usize))
    }

    fn block_of(&self, row: usize) -> Option<&Block> {
        let has = |block: &&Block| row.wrapping_sub(block.first_row) < block.rows;
        let recent = self.recent.load(Ordering::Relaxed);
        if let Some(block) = self.more.get(recent).filter(has) {
            return Some(block);
        }
        let found = self.more.partition_point(|block| block.first_row <= row).checked_sub(1)?;
        self.recent.store(found, Ordering::Relaxed);
        self.more.get(found).filter(has)
    }
}

impl Memory {
    /// Finds the values of rows that stand one behind the other from `at` on. They were checked when
    /// they arrived; of those that lie all the same, the values beyond the end are NULL.
    fn index(&mut self, rows: usize, columns: usize, mut at: usize) {
        let Self { bytes, cells } = self;
        cells.reserve(rows * columns);
        for _ in 0..rows {
            terminate(bytes, at);
            at += ROW_HEADER;
            for _ in 0..columns {
                let field = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<LENGTH>);
                let length = field.map_or(-1, |field| {
                    let length = i32::from_be_bytes(*field);
                    field[0] = 0;
                    length
                });
                at += LENGTH;
                let place = u32::try_from(at).ok().zip(u32::try_from(length).ok());
                let (start, length) = place.unwrap_or((0, NULL));
                cells.push(Cell { start, length });
                if length != NULL {
                    at += length as usize;
                }
            }
        }
    }

    /// Room for so many bytes.
    fn take(bytes: usize) -> Self {
        let spare = if bytes <= BLOCK { SPARE.take() } else { None };
        spare.unwrap_or_else(|| Self {
            bytes: Vec::with_capacity(bytes.max(BLOCK)),
            cells: Vec::new(),
        })
    }

    fn size(&self) -> usize {
        self.bytes.capacity() + self.cells.capacity() * size_of::<Cell>()
    }
}

fn terminate(bytes: &mut [u8], at: usize) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = 0;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes.capacity() == BLOCK {
            SPARE.give(self);
        }
    }
}

/// Memory that is not in use, all of it blocks. Nobody waits for its lock: whoever holds it may not
/// have come along into the child of a fork().
#[derive(Debug)]
struct Spare(Mutex<Vec<Memory>>);

impl Spare {
    fn take(&self) -> Option<Memory> {
        self.0.try_lock().ok()?.pop()
    }

    /// Takes the memory out of what is being dropped, if it is to be kept.
    fn give(&self, memory: &mut Memory) {
        let Ok(mut spare) = self.0.try_lock() else { return };
        if spare.iter().map(Memory::size).sum::<usize>() + memory.size() <= SPARE_MAX {
            memory.bytes.clear();
            memory.cells.clear();
            spare.push(std::mem::take(memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DataRow messages, one behind the other.
    fn messages(rows: &[&[Option<&[u8]>]]) -> Vec<u8> {
        let mut all = Vec::new();
        for values in rows {
            let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
            for value in *values {
                let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
                body.extend(length.to_be_bytes());
                body.extend(value.unwrap_or_default());
            }
            all.push(b'D');
            all.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            all.extend(body);
        }
        all
    }

    /// A value, which must have a NUL behind it.
    fn value(blocks: &Blocks, row: usize, column: usize, columns: usize) -> Vec<u8> {
        let value = blocks.find(row, column, columns).unwrap().unwrap();
        let all = std::iter::once(&blocks.first).chain(&blocks.more);
        let mut homes =
            all.filter(|block| block.memory.bytes.as_ptr_range().contains(&value.as_ptr()));
        let bytes = &homes.next().unwrap().memory.bytes;
        let end = value.as_ptr_range().end as usize - bytes.as_ptr() as usize;
        assert_eq!(bytes[end], 0);
        value.to_vec()
    }

    #[test]
    fn every_value_ends_with_a_nul_however_its_row_has_arrived() {
        let long = vec![b'x'; 70_000];
        let mut blocks = Blocks::default();
        blocks.add(2, 2, &messages(&[&[Some(b"a"), Some(&long)], &[None, Some(b"")]]));
        blocks.push(2, &messages(&[&[Some(b"bc"), None]])[HEADER..]);
        blocks.add(1, 2, &messages(&[&[Some(b""), Some(b"d")]]));
        assert_eq!(blocks.rows(), 4);
        assert_eq!(value(&blocks, 0, 0, 2), b"a");
        assert_eq!(value(&blocks, 0, 1, 2), long);
        assert_eq!(value(&blocks, 1, 1, 2), b"");
        assert_eq!(value(&blocks, 2, 0, 2), b"bc");
        assert_eq!(value(&blocks, 3, 0, 2), b"");
        assert_eq!(value(&blocks, 3, 1, 2), b"d");
        assert_eq!((blocks.find(1, 0, 2), blocks.find(2, 1, 2)), (Some(None), Some(None)));
        assert_eq!((blocks.find(4, 0, 2), blocks.find(0, 2, 2)), (None, None));
        assert_eq!(blocks.find(usize::MAX, 1, 2), None);
    }

    #[test]
    fn finds_every_row_of_many_blocks_in_any_order() {
        // Rows of all sizes: some fill what is left of a block, some have one to themselves.
        let sizes: Vec<usize> =
            (0..900).map(|i| if i % 97 == 5 { 150_000 } else { i * 7 }).collect();
        let row_of = |i: usize| vec![u8::try_from(i % 251).unwrap(); sizes[i]];
        let mut blocks = Blocks::default();
        for pair in (0..sizes.len()).collect::<Vec<_>>().chunks(2) {
            let values: Vec<_> = pair.iter().map(|i| row_of(*i)).collect();
            let rows: Vec<_> = values.iter().map(|v| [Some(&v[..]), None]).collect();
            let rows: Vec<_> = rows.iter().map(|row| &row[..]).collect();
            blocks.add(rows.len(), 2, &messages(&rows));
        }
        assert!(blocks.more.len() > 20);
        let forwards = 0..sizes.len();
        for i in
            forwards.clone().chain(forwards.clone().rev()).chain(forwards.map(|i| i * 37 % 900))
        {
            assert_eq!(value(&blocks, i, 0, 2), row_of(i));
            assert_eq!(blocks.find(i, 1, 2), Some(None));
        }
        assert_eq!(blocks.find(sizes.len(), 0, 2), None);
    }

    #[test]
    fn a_small_result_takes_little() {
        let mut blocks = Blocks::default();
        for _ in 0..10 {
            blocks.add(1, 1, &messages(&[&[Some(b"value")]]));
        }
        assert!(blocks.more.is_empty() && blocks.first.memory.size() < 1024);
    }

    #[test]
    fn what_is_kept_is_empty_and_bounded() {
        let spare = Spare(Mutex::new(Vec::new()));
        assert!(spare.take().is_none());
        for _ in 0..100 {
            let mut memory = Memory { bytes: vec![b'x'; BLOCK], cells: Vec::with_capacity(9) };
            spare.give(&mut memory);
        }
        let kept = std::iter::from_fn(|| spare.take()).collect::<Vec<_>>();
        assert_eq!(kept.len(), SPARE_MAX / (BLOCK + 9 * size_of::<Cell>()));
        assert!(kept.iter().all(|memory| memory.bytes.is_empty() && memory.cells.is_empty()));
    }
}
