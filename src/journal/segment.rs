//! Reads one segment: whole records in order, and what is wrong between them.
//!
//! Streaming, with a window of [`WINDOW_BYTES`], or of one record where that is larger. A record that
//! is not whole is never handed out.

use std::io;

use super::Key;
use super::frame::{ALIGNMENT, FRAME_BYTES, Frame};
use super::header::{COPIES, HEADER_BYTES, Header, HeaderError, RECORDS_AT, Secrets};
use super::report::{Finding, What};
use super::storage::{Directory, Stored};
use crate::mutation::{self, Mutation};

const WINDOW_BYTES: usize = 1 << 20;
/// So much is fetched from the disk ahead of it.
const AHEAD_BYTES: u64 = 4 << 20;

const PREFIX: &str = "segment-";
const SUFFIX: &str = ".journal";

pub(super) fn name_of(number: u64) -> String {
    format!("{PREFIX}{number:016x}{SUFFIX}")
}

/// The number of the segment that is called `name`.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (name_of(number) == name).then_some(number)
}

/// A segment that can be read.
pub(super) struct Segment {
    pub name: String,
    pub header: Header,
    pub secrets: Secrets,
    pub file: Box<dyn Stored>,
    pub size: u64,
}

/// What opening a file has come to.
pub(super) enum Opened {
    Segment(Box<Segment>),
    /// The same, with the file closed again.
    Known(Header),
    /// It was never finished, or its header is lost.
    Unusable {
        size: u64,
        what: What,
    },
}

/// Why opening a file has failed altogether.
pub(super) enum OpenError {
    Io(io::Error),
    /// A key or version that does not fit: true of the whole journal.
    Header(HeaderError),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Segment {
    pub fn open(
        dir: &dyn Directory,
        name: &str,
        key: Option<&Key>,
        findings: &mut Vec<Finding>,
    ) -> Result<Opened, OpenError> {
        let file = dir.open(name)?;
        let size = file.size()?;
        let mut found = None;
        let mut broken = Vec::new();
        for position in COPIES {
            let mut bytes = [0; HEADER_BYTES];
            let len = read_up_to(&*file, position, &mut bytes)?;
            match Header::decode(&bytes[..len]) {
                Ok(decoded) => found = found.or(Some(decoded)),
                Err(HeaderError::Damaged | HeaderError::NotAJournal) => broken.push(position),
                Err(error) => return Err(OpenError::Header(error)),
            }
        }
        let Some((header, check)) = found else {
            let unfinished = is_zero(&*file, RECORDS_AT, size)?;
            let what = if unfinished { What::Unfinished } else { What::HeaderLost };
            return Ok(Opened::Unusable { size, what });
        };
        for position in broken {
            findings.push(Finding {
                file: name.to_owned(),
                position,
                bytes: HEADER_BYTES as u64,
                what: What::HeaderCopy,
            });
        }
        let secrets = header.unlock(check, key).map_err(OpenError::Header)?;
        Ok(Opened::Segment(Box::new(Self { name: name.to_owned(), header, secrets, file, size })))
    }

    /// Walks over the records. `end` is where a later segment says that this one ends.
    pub fn walk(&self, end: Option<u64>) -> Walk<'_> {
        let holds = self.size.max(RECORDS_AT);
        let short = end
            .filter(|end| *end > holds)
            .map(|end| finding(self, holds, end - holds, What::Damaged { owner: None }));
        Walk {
            segment: self,
            window: Window { size: self.size, ..Window::default() },
            at: RECORDS_AT,
            end: end.unwrap_or(self.size).min(self.size),
            end_is_known: end.is_some(),
            short,
            last_synced: None,
            scratch: Vec::new(),
        }
    }

    /// One record by its position, if it is whole.
    pub fn read(&self, position: u64, buffer: &mut Vec<u8>) -> io::Result<Option<Frame>> {
        let mut head = [0; FRAME_BYTES];
        if read_up_to(&*self.file, position, &mut head)? < FRAME_BYTES {
            return Ok(None);
        }
        let Some(frame) = Frame::read(&head, position, &self.secrets) else { return Ok(None) };
        if position + frame.frame_bytes() > self.size {
            return Ok(None);
        }
        let mut body = vec![0; frame.body_bytes()];
        let len = read_up_to(&*self.file, position + FRAME_BYTES as u64, &mut body)?;
        if len < body.len() || !frame.is_whole(&body, position, &self.secrets) {
            return Ok(None);
        }
        let mut scratch = Vec::new();
        let payload = frame.payload(&head, &body, position, &self.secrets, &mut scratch);
        buffer.clear();
        Ok(payload.map(|payload| {
            buffer.extend_from_slice(payload);
            frame
        }))
    }
}

/// What a walk comes upon.
pub(super) enum Step<'a> {
    Record {
        position: u64,
        frame: Frame,
        payload: &'a [u8],
    },
    /// Something is wrong; the walk goes on behind it.
    Found(Finding),
    /// All is read; appended records would stand here.
    End {
        at: u64,
    },
}

pub(super) struct Walk<'a> {
    segment: &'a Segment,
    window: Window,
    at: u64,
    end: u64,
    end_is_known: bool,
    /// The file ends before it should.
    short: Option<Finding>,
    /// What the last whole record in the file says was on disk when it was written; looked up when
    /// something is wrong for the first time.
    last_synced: Option<u64>,
    scratch: Vec<u8>,
}

/// What stands at a position.
enum There {
    Whole(Frame),
    /// A header that is whole, before a body that is not.
    Broken(Frame),
    Nothing,
}

impl Walk<'_> {
    pub fn next(&mut self) -> io::Result<Step<'_>> {
        let at = self.at;
        if at >= self.end {
            if let Some(short) = self.short.take() {
                return Ok(Step::Found(short));
            }
            return Ok(Step::End { at: self.end.max(RECORDS_AT) });
        }
        let frame = match self.look(at)? {
            There::Whole(frame) => frame,
            There::Broken(frame) => return self.trouble(at, Some(frame)),
            There::Nothing => return self.trouble(at, None),
        };
        self.at = at + frame.frame_bytes();
        let file = &*self.segment.file;
        let bytes = self.window.bytes(file, at, FRAME_BYTES + frame.body_bytes())?;
        let opened = bytes.and_then(|bytes| {
            let (head, body) = bytes.split_first_chunk()?;
            frame.payload(head, body, at, &self.segment.secrets, &mut self.scratch)
        });
        Ok(match opened {
            Some(payload) => Step::Record { position: at, frame, payload },
            None => {
                let what = What::Forged { owner: frame.owner };
                Step::Found(finding(self.segment, at, frame.frame_bytes(), what))
            }
        })
    }

    fn look(&mut self, at: u64) -> io::Result<There> {
        let file = &*self.segment.file;
        let secrets = &self.segment.secrets;
        if at + FRAME_BYTES as u64 > self.end {
            return Ok(There::Nothing);
        }
        let Some(head) = self.window.bytes(file, at, FRAME_BYTES)?.and_then(|b| b.first_chunk())
        else {
            return Ok(There::Nothing);
        };
        let Some(frame) = Frame::read(head, at, secrets) else { return Ok(There::Nothing) };
        if at + frame.frame_bytes() > self.end {
            return Ok(There::Broken(frame));
        }
        let bytes = self.window.bytes(file, at, FRAME_BYTES + frame.body_bytes())?;
        let whole = bytes.is_some_and(|bytes| frame.is_whole(&bytes[FRAME_BYTES..], at, secrets));
        Ok(if whole { There::Whole(frame) } else { There::Broken(frame) })
    }

    /// There is no whole record at `at`.
    fn trouble(&mut self, at: u64, frame: Option<Frame>) -> io::Result<Step<'_>> {
        if !self.end_is_known && is_zero(&*self.segment.file, at, self.end)? {
            // Room that was prepared for records to come.
            self.end = at;
            return Ok(Step::End { at });
        }
        let behind = match &frame {
            Some(frame) if at + frame.frame_bytes() <= self.end => at + frame.frame_bytes(),
            _ => at + ALIGNMENT as u64,
        };
        if mutation::on(Mutation::TornTailNotCut) {
            self.at = self.find(behind)?.unwrap_or(self.end);
            return self.next();
        }
        let damaged = self.end_is_known || at < self.last_synced(behind)?;
        if damaged {
            let next = self.find(behind)?.unwrap_or(self.end);
            self.at = next;
            let what = What::Damaged { owner: frame.map(|frame| frame.owner) };
            return Ok(Step::Found(finding(self.segment, at, next - at, what)));
        }
        let end = self.end;
        let mut records = 0;
        let mut from = behind;
        while let Some(next) = self.find(from)? {
            records += 1;
            from = match self.look(next)? {
                There::Whole(frame) => next + frame.frame_bytes(),
                _ => next + ALIGNMENT as u64,
            };
        }
        self.end = at;
        Ok(Step::Found(finding(self.segment, at, end - at, What::TornTail { records })))
    }

    /// The next whole record at or behind `from`.
    fn find(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from;
        while at + FRAME_BYTES as u64 <= self.end {
            if let There::Whole(_) = self.look(at)? {
                return Ok(Some(at));
            }
            at += ALIGNMENT as u64;
        }
        Ok(None)
    }

    fn last_synced(&mut self, behind: u64) -> io::Result<u64> {
        if let Some(synced) = self.last_synced {
            return Ok(synced);
        }
        let mut synced = 0;
        let mut from = behind;
        while let Some(next) = self.find(from)? {
            from = next + ALIGNMENT as u64;
            if let There::Whole(frame) = self.look(next)? {
                synced = synced.max(frame.synced);
                from = next + frame.frame_bytes();
            }
        }
        self.last_synced = Some(synced);
        Ok(synced)
    }
}

fn finding(segment: &Segment, position: u64, bytes: u64, what: What) -> Finding {
    Finding { file: segment.name.clone(), position, bytes, what }
}

/// A piece of a file.
#[derive(Default)]
struct Window {
    /// The file's size: there is no use in room for more.
    size: u64,
    start: u64,
    buffer: Vec<u8>,
    len: usize,
}

impl Window {
    /// `len` bytes at `position`; `None` if the file ends before.
    fn bytes(&mut self, file: &dyn Stored, position: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let inside = |start: u64, held: usize| {
            let offset = usize::try_from(position.checked_sub(start)?).ok()?;
            (offset.checked_add(len)? <= held).then_some(offset)
        };
        if inside(self.start, self.len).is_none() {
            let left = self.size.saturating_sub(position);
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            if left < len {
                return Ok(None);
            }
            if self.buffer.len() < len.max(left.min(WINDOW_BYTES)) {
                self.buffer = vec![0; len.max(left.min(WINDOW_BYTES))];
            }
            self.len = 0;
            // Reading and looking go on at the same time.
            file.will_read(position + self.buffer.len() as u64, AHEAD_BYTES);
            self.len = read_up_to(file, position, &mut self.buffer)?;
            self.start = position;
        }
        let Some(offset) = inside(self.start, self.len) else { return Ok(None) };
        Ok(self.buffer.get(offset..offset + len))
    }
}

/// Fills `into`, or as much of it as the file has.
fn read_up_to(file: &dyn Stored, position: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(position + filled as u64, &mut into[filled..])? {
            0 => break,
            len => filled += len,
        }
    }
    Ok(filled)
}

fn is_zero(file: &dyn Stored, from: u64, to: u64) -> io::Result<bool> {
    let mut buffer = [0; 8192];
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        let len = read_up_to(file, at, &mut buffer[..wanted])?;
        if len == 0 {
            return Ok(true);
        }
        if buffer[..len].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}
