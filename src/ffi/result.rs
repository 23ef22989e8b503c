//! `segue_result`: what a statement has returned, immutable, with typed and text access.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

use super::boundary::{
    Output, Result, accessor, boundary, copy_out, free, handle, output, read, write_optional,
};
use super::error::{c_string, segue_error};
use super::param::{SEGUE_FORMAT_BINARY, SEGUE_FORMAT_TEXT};
use super::table::Table;
use crate::client::QueryResult;

/// What a statement has returned. Immutable: any thread may read it; it outlives its session. Every
/// pointer into it is good until segue_result_free(). Rows and columns count from 0.
pub struct segue_result {
    result: QueryResult<Table>,
    tag: OnceLock<CString>,
    next: Option<Box<segue_result>>,
}

impl segue_result {
    /// The result of a statement that was asked for in this format.
    pub(super) fn new(mut result: QueryResult<Table>, text: bool) -> Self {
        result.rows.columns = Arc::clone(&result.columns);
        // The rows know better: several statements in one string always answer in text.
        result.rows.text |= text;
        Self { result, tag: OnceLock::new(), next: None }
    }

    pub(super) fn of_table(table: Table) -> Self {
        let result = QueryResult::default().with_rows(|()| table);
        Self { result, tag: OnceLock::new(), next: None }
    }

    pub(super) fn of_rows(result: QueryResult, text: bool) -> Self {
        let columns = Arc::clone(&result.columns);
        Self::new(result.with_rows(|rows| Table::of_rows(&columns, &rows)), text)
    }

    /// A chain of the results of several statements.
    pub(super) fn chain(results: Vec<QueryResult>, text: bool) -> Self {
        let mut next = None;
        for result in results.into_iter().rev() {
            let mut first = Self::of_rows(result, text);
            first.next = next.map(Box::new);
            next = Some(first);
        }
        next.unwrap_or_else(|| Self::new(QueryResult::default(), text))
    }

    fn table(&self) -> &Table {
        &self.result.rows
    }
}

/// Frees a long chain without recursion.
impl Drop for segue_result {
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut result) = next {
            next = result.next.take();
        }
    }
}

/// The number of rows.
///
/// @param[in] result  A result; NULL gives 0.
/// @return the number of rows
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_row_count(result: *const segue_result) -> usize {
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, 0, |result| Some(result.table().rows())) }
}

/// The number of columns; 0 for a statement that returns no rows.
///
/// @param[in] result  A result; NULL gives 0.
/// @return the number of columns
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_column_count(result: *const segue_result) -> usize {
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, 0, |result| Some(result.table().columns.len())) }
}

/// The name of a column.
///
/// @param[in] result  A result, or NULL.
/// @param[in] column  The column's position.
/// @return its name; NULL if there is no such column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_column_name(
    result: *const segue_result,
    column: usize,
) -> *const c_char {
    let name = |result: &segue_result| result.table().names().get(column).map(|name| name.as_ptr());
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, ptr::null(), name) }
}

/// The position of the first column with a name.
///
/// @param[in] result  A result, or NULL.
/// @param[in] name    The name, exactly as the server has it (SELECT a AS "B" makes "B"); or NULL.
/// @return its position; -1 if there is no such column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_column(
    result: *const segue_result,
    name: *const c_char,
) -> i32 {
    let find = |result: &segue_result| {
        // SAFETY: the header's contract: NULL or a string with its NUL.
        let name = unsafe { super::boundary::optional_text(name, "name") }.ok()??;
        let position = result.table().columns.iter().position(|column| column.name == name)?;
        i32::try_from(position).ok()
    };
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, -1, find) }
}

/// The OID of a column's type.
///
/// @param[in] result  A result, or NULL.
/// @param[in] column  The column's position.
/// @return the OID; 0 if there is no such column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_column_type(
    result: *const segue_result,
    column: usize,
) -> u32 {
    let oid = |result: &segue_result| Some(result.table().columns.get(column)?.type_oid);
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, 0, oid) }
}

/// The modifier of a column's type, such as the length of a varchar plus 4.
///
/// @param[in] result  A result, or NULL.
/// @param[in] column  The column's position.
/// @return the modifier; -1 if it has none, or there is no such column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_column_modifier(
    result: *const segue_result,
    column: usize,
) -> i32 {
    let modifier = |result: &segue_result| Some(result.table().columns.get(column)?.type_modifier);
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, -1, modifier) }
}

/// The OID of the table that a column comes from.
///
/// @param[in] result  A result, or NULL.
/// @param[in] column  The column's position.
/// @return the OID; 0 if it is no plain column of a table, or there is no such column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_column_table(
    result: *const segue_result,
    column: usize,
) -> u32 {
    let oid = |result: &segue_result| Some(result.table().columns.get(column)?.table_oid);
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, 0, oid) }
}

/// The format of all its values.
///
/// @param[in] result  A result; NULL gives SEGUE_FORMAT_TEXT.
/// @return SEGUE_FORMAT_TEXT or SEGUE_FORMAT_BINARY
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_format(result: *const segue_result) -> i32 {
    let format = |result: &segue_result| {
        Some(if result.table().text { SEGUE_FORMAT_TEXT } else { SEGUE_FORMAT_BINARY })
    };
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, SEGUE_FORMAT_TEXT, format) }
}

/// The server's command tag, such as "INSERT 0 5".
///
/// @param[in] result  A result; NULL gives "".
/// @return the tag; "" for an empty statement and for the rows of a stream; never NULL
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_tag(result: *const segue_result) -> *const c_char {
    let tag = |result: &segue_result| {
        Some(result.tag.get_or_init(|| c_string(result.result.tag())).as_ptr())
    };
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, c"".as_ptr(), tag) }
}

/// The number of rows that the statement has affected or returned, by its command tag.
///
/// @param[in] result  A result; NULL gives 0.
/// @return the number of rows; 0 for the rows of a stream
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_rows_affected(result: *const segue_result) -> u64 {
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, 0, |result| Some(result.result.rows_affected())) }
}

/// The result of the next statement of segue_session_batch().
///
/// @param[in] result  A result, or NULL.
/// @return the next one, which is freed with the first; NULL at the end
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_next(result: *const segue_result) -> *const segue_result {
    let next = |result: &segue_result| Some(ptr::from_ref(result.next.as_deref()?));
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, ptr::null(), next) }
}

/// Whether a value is NULL.
///
/// @param[in] result  A result, or NULL.
/// @param[in] row     The row's position.
/// @param[in] column  The column's position.
/// @return true if it is NULL, or there is no such row or column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_is_null(
    result: *const segue_result,
    row: usize,
    column: usize,
) -> bool {
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { read(result, true, |result| Some(result.table().find(row, column)?.is_none())) }
}

/// A value as the server has sent it, in text or binary as segue_result_format() says. A NUL stands
/// behind it that does not count.
///
/// @param[in]  result      A result, or NULL.
/// @param[in]  row         The row's position.
/// @param[in]  column      The column's position.
/// @param[out] length_out  Optional: the number of its bytes. Untouched where NULL is returned.
/// @return its first byte; NULL for SQL's NULL, or if there is no such row or column
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_value(
    result: *const segue_result,
    row: usize,
    column: usize,
    length_out: *mut usize,
) -> *const c_void {
    accessor(ptr::null(), || {
        // SAFETY: the header's contract: NULL or a result that has not been freed.
        let value = unsafe { result.as_ref() }
            .and_then(|result| result.table().find(row, column).flatten());
        let Some(value) = value else { return ptr::null() };
        // SAFETY: the header's contract: NULL or a place for the length.
        unsafe { write_optional(length_out, value.len()) };
        value.as_ptr().cast()
    })
}

/// Reads one value and writes it where the application wants it.
///
/// # Safety
/// The header's contract for `result` and `place`.
unsafe fn get<T>(
    result: *const segue_result,
    place: *mut T,
    error_out: *mut *mut segue_error,
    read: impl FnOnce(&Table) -> Result<T>,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the caller's promise.
        let (result, place) = unsafe { (handle(result, "result")?, output(place, "value_out")?) };
        place.write(read(result.table())?);
        Ok(())
    })
}

/// A value as a boolean.
///
/// @param[in]  result     The result.
/// @param[in]  row        The row's position.
/// @param[in]  column     The column's position.
/// @param[out] value_out  The value.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK          it is there
/// @return SEGUE_NULL_VALUE  it is NULL
/// @return SEGUE_CONVERSION  it is not of type bool
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_bool(
    result: *const segue_result,
    row: usize,
    column: usize,
    value_out: *mut bool,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the header's contract for the result and the place.
    unsafe { get(result, value_out, error_out, |table| table.bool(row, column)) }
}

/// A value as a 64-bit integer: any integer type; in text format anything that reads as one.
///
/// @param[in]  result     The result.
/// @param[in]  row        The row's position.
/// @param[in]  column     The column's position.
/// @param[out] value_out  The value.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK          it is there
/// @return SEGUE_NULL_VALUE  it is NULL
/// @return SEGUE_CONVERSION  it is no integer, or out of range
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_int64(
    result: *const segue_result,
    row: usize,
    column: usize,
    value_out: *mut i64,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the header's contract for the result and the place.
    unsafe { get(result, value_out, error_out, |table| table.int64(row, column)) }
}

/// A value as a double: any floating-point or integer type; in text format anything that reads as a
/// number, numeric among it (rounded to the nearest double).
///
/// @param[in]  result     The result.
/// @param[in]  row        The row's position.
/// @param[in]  column     The column's position.
/// @param[out] value_out  The value.
/// @param[out] error_out  Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK          it is there
/// @return SEGUE_NULL_VALUE  it is NULL
/// @return SEGUE_CONVERSION  it is no number
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_double(
    result: *const segue_result,
    row: usize,
    column: usize,
    value_out: *mut f64,
    error_out: *mut *mut segue_error,
) -> i32 {
    // SAFETY: the header's contract for the result and the place.
    unsafe { get(result, value_out, error_out, |table| table.double(row, column)) }
}

/// A value as text: everything in text format; in binary format the types whose binary form is text.
///
/// @param[in]  result      The result.
/// @param[in]  row         The row's position.
/// @param[in]  column      The column's position.
/// @param[out] text_out    A string in UTF-8; NULL for SQL's NULL. Good until segue_result_free().
/// @param[out] length_out  Optional: the number of its bytes without the NUL; 0 for SQL's NULL.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK          it is there
/// @return SEGUE_CONVERSION  it came in a binary format that is not text
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_text(
    result: *const segue_result,
    row: usize,
    column: usize,
    text_out: *mut *const c_char,
    length_out: *mut usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract: NULL or a result that has not been freed.
        let result = unsafe { handle(result, "result") }?;
        // SAFETY: the header's contract: NULL or a place for a pointer.
        let text_out: Output<*const c_char> = unsafe { output(text_out, "text_out") }?;
        let text = result.table().text(row, column)?;
        // SAFETY: the header's contract: NULL or a place for the length.
        unsafe { write_optional(length_out, text.map_or(0, <[u8]>::len)) };
        text_out.write(text.map_or(ptr::null(), |text| text.as_ptr().cast()));
        Ok(())
    })
}

/// The bytes of a bytea, copied: decoded where it came in text format.
///
/// @param[in]  result      The result.
/// @param[in]  row         The row's position.
/// @param[in]  column      The column's position.
/// @param[out] buffer      Where the bytes go; NULL asks for their number alone.
/// @param[in]  capacity    The number of bytes that the buffer has room for.
/// @param[out] length_out  The number of bytes.
/// @param[out] error_out   Optional. Set only on failure; free with segue_error_free().
/// @return SEGUE_OK          they are there
/// @return SEGUE_NULL_VALUE  it is NULL
/// @return SEGUE_LIMIT       the buffer is too small; nothing was written
/// @return SEGUE_CONVERSION  it is no bytea
/// Threads: any.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_bytea(
    result: *const segue_result,
    row: usize,
    column: usize,
    buffer: *mut c_void,
    capacity: usize,
    length_out: *mut usize,
    error_out: *mut *mut segue_error,
) -> i32 {
    boundary(error_out, || {
        // SAFETY: the header's contract for the result and the place of the length.
        let (result, length_out) =
            unsafe { (handle(result, "result")?, output(length_out, "length_out")?) };
        let bytes = result.table().bytea(row, column)?;
        // SAFETY: the header's contract: NULL, or room for `capacity` bytes.
        unsafe { copy_out(&bytes, false, buffer.cast(), capacity, length_out) }
    })
}

/// Frees a result, and those chained to it.
///
/// @param[in] result  A result; NULL does nothing. Not one that segue_result_next() has returned.
/// Threads: any, once nobody else uses it.
/// @since ABI 1.0
#[unsafe(no_mangle)]
pub unsafe extern "C" fn segue_result_free(result: *mut segue_result) {
    // SAFETY: the header's contract: NULL or a result that has not been freed.
    unsafe { free(result) }
}
