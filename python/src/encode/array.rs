//! Lists as arrays: in binary where the elements have one binary type, else as a literal.

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::text::quote;
use super::{Encoder, FLOAT8, Form, INT4, INT8, NUMERIC};
use crate::errors;
use crate::types::array_of;

/// Arrays have at most so many dimensions in PostgreSQL.
const DIMENSIONS_MAX: usize = 6;

/// The elements of nested lists, flat, with the lengths of the dimensions.
struct Leaves<'py> {
    lengths: Vec<usize>,
    values: Vec<Bound<'py, PyAny>>,
}

impl<'py> Encoder<'py> {
    pub(super) fn array(&self, list: &Bound<'py, PyAny>, out: &mut Vec<u8>) -> PyResult<Form> {
        let leaves = self.leaves(list)?;
        let mut elements = Vec::new();
        let mut forms = Vec::with_capacity(leaves.values.len());
        for value in &leaves.values {
            let start = elements.len();
            let form = self.value(value, &mut elements)?;
            forms.push((form, start..elements.len()));
        }
        let mut known = forms.iter().map(|(form, _)| *form).filter(|form| *form != Form::Null);
        let Some(first) = known.next() else {
            self.array_literal(list, out)?;
            return Ok(Form::Text(0));
        };
        let mut unified = first;
        for form in known {
            unified = self.unify(unified, form)?;
        }
        let array_oid = array_of(unified.oid());
        if !matches!(unified, Form::Binary(_)) || array_oid == 0 {
            self.array_literal(list, out)?;
            return Ok(Form::Text(array_oid));
        }
        let int = |number: usize| i32::try_from(number).unwrap_or(i32::MAX).to_be_bytes();
        let has_null = forms.iter().any(|(form, _)| *form == Form::Null);
        out.extend_from_slice(&int(leaves.lengths.len()));
        out.extend_from_slice(&int(usize::from(has_null)));
        out.extend_from_slice(&unified.oid().to_be_bytes());
        for length in &leaves.lengths {
            out.extend_from_slice(&int(*length));
            out.extend_from_slice(&int(1));
        }
        for (form, at) in forms {
            let value = &elements[at];
            match (form, unified) {
                (Form::Null, _) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                (Form::Binary(INT4), Form::Binary(INT8)) => {
                    let value = <[u8; 4]>::try_from(value).map_or(0, i32::from_be_bytes);
                    out.extend_from_slice(&int(8));
                    out.extend_from_slice(&i64::from(value).to_be_bytes());
                }
                _ => {
                    out.extend_from_slice(&int(value.len()));
                    out.extend_from_slice(value);
                }
            }
        }
        Ok(Form::Binary(array_oid))
    }

    /// The form that both fit.
    fn unify(&self, one: Form, other: Form) -> PyResult<Form> {
        let number = |oid| matches!(oid, INT4 | INT8 | NUMERIC | FLOAT8);
        Ok(match (one, other) {
            (a, b) if a == b => a,
            (Form::Binary(INT4 | INT8), Form::Binary(INT4 | INT8)) => Form::Binary(INT8),
            (a, b) if number(a.oid()) && number(b.oid()) => {
                let float = a.oid() == FLOAT8 || b.oid() == FLOAT8;
                Form::Text(if float { FLOAT8 } else { NUMERIC })
            }
            (Form::Text(a), Form::Text(b)) if a == b => Form::Text(a),
            _ => {
                return Err(errors::data(
                    self.py,
                    "the elements of a list are of different PostgreSQL types; nothing was sent",
                ));
            }
        })
    }

    fn leaves(&self, list: &Bound<'py, PyAny>) -> PyResult<Leaves<'py>> {
        let mut lengths = Vec::new();
        let mut inner = list.clone();
        while let Ok(list) = inner.clone().cast::<PyList>() {
            if list.is_empty() && !lengths.is_empty() {
                break;
            }
            lengths.push(list.len());
            if lengths.len() > DIMENSIONS_MAX || list.is_empty() {
                break;
            }
            inner = list.get_item(0)?;
        }
        if lengths.len() > DIMENSIONS_MAX {
            return Err(errors::data(
                self.py,
                "a list of more than 6 dimensions; nothing was sent",
            ));
        }
        let mut values = Vec::new();
        self.flatten(list, &lengths, &mut values)?;
        Ok(Leaves { lengths, values })
    }

    fn flatten(
        &self,
        value: &Bound<'py, PyAny>,
        lengths: &[usize],
        values: &mut Vec<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let list = value.cast::<PyList>();
        match (lengths.split_first(), list) {
            (None, Err(_)) => {
                values.push(value.clone());
                Ok(())
            }
            (Some((length, inner)), Ok(list)) if list.len() == *length => {
                list.iter().try_for_each(|item| self.flatten(&item, inner, values))
            }
            _ => Err(errors::data(
                self.py,
                "nested lists must have the same lengths at the same depth; nothing was sent",
            )),
        }
    }

    pub(super) fn array_literal(
        &self,
        list: &Bound<'py, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        out.push(b'{');
        for (index, item) in list.try_iter()?.enumerate() {
            let item = item?;
            if index > 0 {
                out.push(b',');
            }
            if item.cast::<PyList>().is_ok() {
                self.array_literal(&item, out)?;
                continue;
            }
            let mut text = Vec::new();
            if self.any_text(&item, &mut text)? {
                quote(&text, out);
            } else {
                out.extend_from_slice(b"NULL");
            }
        }
        out.push(b'}');
        Ok(())
    }
}
