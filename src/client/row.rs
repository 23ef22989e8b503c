//! Rows with typed access.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use postgres_types::{FromSql, Kind, Type};

use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::session::Column;
use crate::wire::row::Values;

/// One row of a result. Cloning is cheap: rows share what was received.
#[derive(Clone)]
pub struct Row {
    columns: Arc<[Column]>,
    /// The body of a DataRow that was checked when it arrived.
    body: Bytes,
    text: bool,
}

/// Names a column of a row: by its position from 0, or by its name.
pub trait RowIndex: fmt::Display {
    fn find(&self, columns: &[Column]) -> Option<usize>;
}

impl RowIndex for usize {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }
}

impl RowIndex for str {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        columns.iter().position(|column| column.name == self)
    }
}

impl<T: RowIndex + ?Sized> RowIndex for &T {
    fn find(&self, columns: &[Column]) -> Option<usize> {
        (**self).find(columns)
    }
}

impl Row {
    pub(super) fn new(columns: Arc<[Column]>, body: Bytes, text: bool) -> Self {
        Self { columns, body, text }
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    #[cfg(feature = "c-abi")]
    pub(crate) fn shared_columns(&self) -> Arc<[Column]> {
        Arc::clone(&self.columns)
    }

    /// The body of the DataRow, which was checked when it arrived.
    #[cfg(feature = "c-abi")]
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether the values came as text rather than binary.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// The value as the server sent it; `None` is NULL, and so is a column that does not exist.
    pub fn raw(&self, index: usize) -> Option<&[u8]> {
        self.values().nth(index).flatten()
    }

    /// All values as the server sent them, in the order of the columns.
    pub fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        Values::new(&self.body).into_iter().flatten().map_while(Result::ok)
    }

    /// The value of a column as a Rust type that fits its PostgreSQL type. An error's outcome is
    /// `Unknown`: a row cannot tell what became of the transaction that returned it.
    pub fn get<'a, T: FromSql<'a>>(&'a self, index: impl RowIndex) -> Result<T> {
        let Some(position) = index.find(&self.columns) else {
            let error = Error::new(ErrorKind::Usage, format!("the row has no column {index}"));
            return Err(error.with_outcome(Outcome::Unknown));
        };
        let column = &self.columns[position];
        // Text is read as text whatever its type: binary readers would misread it.
        let ty = if self.text { Type::TEXT } else { type_of(column.type_oid) };
        if !T::accepts(&ty) {
            return Err(Error::new(
                ErrorKind::Conversion,
                format!(
                    "column {} is of type {}{}, which is not read as a Rust {}",
                    column.name,
                    type_of(column.type_oid).name(),
                    if self.text { " and came as text" } else { "" },
                    std::any::type_name::<T>()
                ),
            )
            .with_outcome(Outcome::Unknown));
        }
        T::from_sql_nullable(&ty, self.raw(position)).map_err(|source| {
            Error::new(
                ErrorKind::Conversion,
                format!(
                    "column {} could not be read as a Rust {}",
                    column.name,
                    std::any::type_name::<T>()
                ),
            )
            .with_source(source)
            .with_outcome(Outcome::Unknown)
        })
    }
}

/// A type of the server's catalogue that is built in, or one without a name.
fn type_of(oid: u32) -> Type {
    Type::from_oid(oid)
        .unwrap_or_else(|| Type::new("unknown".into(), oid, Kind::Simple, "public".into()))
}

/// Values are left out: they may be secrets.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        f.debug_struct("Row").field("columns", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(oid: u32, value: &[u8], text: bool) -> Row {
        let column = Column {
            name: "n".into(),
            type_oid: oid,
            type_modifier: -1,
            type_size: 4,
            table_oid: 0,
            column_id: 0,
        };
        let mut body = vec![0, 1];
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value);
        Row::new(Arc::new([column]), body.into(), text)
    }

    #[test]
    fn reads_by_position_and_by_name() {
        let row = row(23, &[0, 0, 0, 5], false);
        assert_eq!(row.get::<i32>(0).unwrap(), 5);
        assert_eq!(row.get::<Option<i32>>("n").unwrap(), Some(5));
        assert_eq!(row.get::<i32>("m").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(row.get::<i64>(0).unwrap_err().kind(), ErrorKind::Conversion);
    }

    #[test]
    fn text_is_never_misread_as_binary() {
        let row = row(23, b"1234", true);
        assert_eq!(row.get::<i32>(0).unwrap_err().kind(), ErrorKind::Conversion);
        assert_eq!(row.get::<&str>(0).unwrap(), "1234");
    }
}
