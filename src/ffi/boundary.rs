//! What every entry point of the C ABI goes through: arguments are checked, panics are caught,
//! outputs are written on success only.
//!
//! The `unsafe` functions here share one contract, the header's: a pointer that is not NULL points
//! to what its type says, alive for the whole call, and only those handles are used by several
//! threads at once that the header allows it for. What can be told is an error instead.

use std::ffi::{CStr, c_char};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::time::Duration;
use std::{ptr, slice};

use super::codes::{self, SEGUE_INTERNAL, SEGUE_INVALID_ARGUMENT, SEGUE_OK};
use super::error::segue_error;
use crate::error::{Error, Outcome};

/// Waiting for longer than this is waiting for ever.
const TIMEOUT_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a call has failed: an error of the core's, or one of the boundary's own.
#[derive(Debug)]
pub(super) enum Failure {
    Core(Error),
    Boundary { status: i32, message: String, outcome: Outcome },
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl Failure {
    pub fn new(status: i32, message: impl Into<String>) -> Self {
        Self::Boundary { status, message: message.into(), outcome: Outcome::NotCommitted }
    }

    /// An argument that cannot be meant.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(SEGUE_INVALID_ARGUMENT, message)
    }

    /// A failure to read what has been returned, which says nothing about the transaction.
    pub fn reading(status: i32, message: impl Into<String>) -> Self {
        Self::Boundary { status, message: message.into(), outcome: Outcome::Unknown }
    }

    pub fn status(&self) -> i32 {
        match self {
            Self::Core(error) => codes::of(error.kind()),
            Self::Boundary { status, .. } => *status,
        }
    }
}

/// Runs the body of an entry point that can fail, and reports how it went.
pub(super) fn boundary(error_out: *mut *mut segue_error, body: impl FnOnce() -> Result<()>) -> i32 {
    // A session that a panic leaves half-way is closed by the poison of its mutex.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return SEGUE_OK,
        Ok(Err(failure)) => failure,
        Err(_) => Failure::Boundary {
            status: SEGUE_INTERNAL,
            message: "internal error; the handle that was used is closed, a transaction that was \
                      open is not committed unless its COMMIT was under way: please report this"
                .to_owned(),
            outcome: Outcome::Unknown,
        },
    };
    let status = failure.status();
    if let Some(error_out) = NonNull::new(error_out) {
        // Building it must not be what panics across the boundary.
        if let Ok(error) = catch_unwind(AssertUnwindSafe(|| segue_error::new(failure))) {
            // SAFETY: not NULL, so by the contract above it is a place for a pointer.
            unsafe { error_out.write(Box::into_raw(Box::new(error))) };
        }
    }
    status
}

/// Runs the body of an accessor, which cannot fail; a panic gives `fallback`.
pub(super) fn accessor<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(fallback)
}

/// What an accessor gives for `handle`; `fallback` for NULL.
///
/// # Safety
/// The contract of this file.
pub(super) unsafe fn read<H, T>(
    handle: *const H,
    fallback: T,
    body: impl FnOnce(&H) -> Option<T>,
) -> T
where
    T: Copy,
{
    accessor(fallback, || {
        // SAFETY: NULL or, by the contract above, alive.
        unsafe { handle.as_ref() }.and_then(body).unwrap_or(fallback)
    })
}

/// The object behind a handle.
///
/// # Safety
/// The contract of this file.
pub(super) unsafe fn handle<'a, H>(handle: *const H, name: &str) -> Result<&'a H> {
    // SAFETY: NULL or, by the contract above, alive during the call.
    unsafe { handle.as_ref() }.ok_or_else(|| null(name))
}

/// A string.
///
/// # Safety
/// The contract of this file; the string ends with a NUL.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, so by the contract above it is a string with its NUL.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::argument(format!("{name} is not UTF-8")))
}

/// A string that may be NULL.
///
/// # Safety
/// As for [`text`].
pub(super) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    name: &str,
) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the contract is the same.
    unsafe { text(pointer, name) }.map(Some)
}

/// An array; NULL only where it is empty.
///
/// # Safety
/// The contract of this file; there are `length` elements.
pub(super) unsafe fn array<'a, T>(
    elements: *const T,
    length: usize,
    name: impl Display,
) -> Result<&'a [T]> {
    if length == 0 {
        return Ok(&[]);
    }
    if elements.is_null() {
        return Err(null(name));
    }
    if !elements.is_aligned() || length > isize::MAX.unsigned_abs() / size_of::<T>() {
        return Err(Failure::argument(format!("{name} is no array of {length} elements")));
    }
    // SAFETY: not NULL, aligned and of a possible size; by the contract above all elements are there.
    Ok(unsafe { slice::from_raw_parts(elements, length) })
}

/// A place for an output, checked before anything is done.
pub(super) struct Output<T>(NonNull<T>);

/// # Safety
/// The contract of this file.
pub(super) unsafe fn output<T>(place: *mut T, name: &str) -> Result<Output<T>> {
    NonNull::new(place).map(Output).ok_or_else(|| null(name))
}

impl<T> Output<T> {
    pub fn write(self, value: T) {
        // SAFETY: whoever made it has promised that the place is there, for the whole call.
        unsafe { self.0.write(value) };
    }
}

impl<H> Output<*mut H> {
    /// Hands a new object to the application, which frees it.
    pub fn give(self, object: H) {
        self.write(Box::into_raw(Box::new(object)));
    }

    pub fn give_null(self) {
        self.write(ptr::null_mut());
    }
}

/// Writes an output that may be NULL, where the application does not want it.
///
/// # Safety
/// The contract of this file.
pub(super) unsafe fn write_optional<T>(place: *mut T, value: T) {
    if let Some(place) = NonNull::new(place) {
        // SAFETY: not NULL, so by the contract above it is a place for a `T`.
        unsafe { place.write(value) };
    }
}

/// A time to wait: a negative number waits for ever, and so does one that nobody lives to see the end of.
pub(super) fn timeout(timeout_ms: i64) -> Duration {
    u64::try_from(timeout_ms).map_or(TIMEOUT_MAX, Duration::from_millis).min(TIMEOUT_MAX)
}

/// Copies `bytes` and a NUL into the application's buffer, and tells their number without the NUL. A
/// NULL buffer asks for the number alone.
///
/// # Safety
/// The contract of this file; the buffer has room for `capacity` bytes.
pub(super) unsafe fn copy_out(
    bytes: &[u8],
    terminate: bool,
    buffer: *mut u8,
    capacity: usize,
    length_out: Output<usize>,
) -> Result<()> {
    let needed = bytes.len() + usize::from(terminate);
    if let Some(buffer) = NonNull::new(buffer) {
        if capacity < needed {
            return Err(Failure::reading(
                codes::SEGUE_LIMIT,
                format!("the buffer has room for {capacity} bytes, {needed} are needed"),
            ));
        }
        // SAFETY: the buffer has room for `needed` bytes, and nothing of ours overlaps it.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.as_ptr(), bytes.len());
            if terminate {
                buffer.add(bytes.len()).write(0);
            }
        }
    }
    length_out.write(bytes.len());
    Ok(())
}

/// Frees an object of ours; NULL does nothing.
///
/// # Safety
/// The contract of this file; the handle is not used again.
pub(super) unsafe fn free<H>(handle: *mut H) {
    if handle.is_null() {
        return;
    }
    accessor((), || {
        // SAFETY: it came from `Output::give`, and by the contract above it is freed once.
        drop(unsafe { Box::from_raw(handle) });
    });
}

#[cold]
fn null(name: impl Display) -> Failure {
    Failure::argument(format!("{name} is NULL"))
}
