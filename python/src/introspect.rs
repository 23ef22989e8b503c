//! Types that a database has of its own: enums, composites, ranges, domains' and arrays of them.
//!
//! The catalogue is asked once for each type, in the session that has met it.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use pyo3::prelude::*;
use segue::wire::row::Values;

use crate::core::Received;
use crate::objects::Objects;
use crate::types::{Composite, Kind, TypeMap};

/// Asks for types and for whatever they are made of.
pub fn sql(oids: &[u32]) -> String {
    let mut list = String::new();
    for oid in oids {
        let _ = write!(list, "{}{oid}", if list.is_empty() { "" } else { "," });
    }
    format!(
        "WITH RECURSIVE known(oid) AS (\
           SELECT pg_catalog.unnest('{{{list}}}'::pg_catalog.oid[]) \
           UNION \
           SELECT part FROM known JOIN pg_catalog.pg_type t ON t.oid = known.oid \
             CROSS JOIN LATERAL (\
               SELECT t.typelem AS part WHERE t.typelem <> 0 AND t.typlen = -1 \
               UNION ALL SELECT t.typbasetype WHERE t.typtype = 'd' \
               UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r \
                 WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid \
               UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 \
                   AND NOT a.attisdropped) parts \
             WHERE part >= 16384) \
         SELECT t.oid, t.typname, t.typtype, \
           CASE WHEN t.typlen = -1 THEN t.typelem ELSE 0 END, t.typbasetype, \
           COALESCE((SELECT r.rngsubtype FROM pg_catalog.pg_range r \
             WHERE r.rngtypid = t.oid OR r.rngmultitypid = t.oid), 0), \
           pg_catalog.array_to_string(ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 \
               AND NOT a.attisdropped ORDER BY a.attnum), ','), \
           pg_catalog.array_to_string(ARRAY(\
             SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 \
               AND NOT a.attisdropped ORDER BY a.attnum), pg_catalog.chr(31)), \
           t.typsend::pg_catalog.text \
         FROM pg_catalog.pg_type t JOIN known ON known.oid = t.oid"
    )
}

struct Known {
    name: String,
    class: String,
    element: u32,
    base: u32,
    bound: u32,
    fields: Vec<u32>,
    names: String,
    send: String,
}

/// Takes what the catalogue said. What it does not say anything of stays text.
pub fn learn(types: &TypeMap, results: &[Received]) {
    let mut known = HashMap::new();
    for row in results.iter().flat_map(|result| &result.rows) {
        let texts: Vec<String> = Values::new(row)
            .into_iter()
            .flatten()
            .map(|value| {
                String::from_utf8_lossy(value.ok().flatten().unwrap_or_default()).into_owned()
            })
            .collect();
        let [oid, name, class, element, base, bound, fields, names, send] = &texts[..] else {
            continue;
        };
        let number = |text: &String| text.parse().unwrap_or(0);
        known.insert(
            number(oid),
            Known {
                name: name.clone(),
                class: class.clone(),
                element: number(element),
                base: number(base),
                bound: number(bound),
                fields: fields.split(',').filter_map(|field| field.parse().ok()).collect(),
                names: names.clone(),
                send: send.clone(),
            },
        );
    }
    Python::attach(|py| {
        for oid in known.keys() {
            let kind = kind(py, types, &known, *oid, 0);
            if types.is_strange(*oid) {
                types.set(*oid, kind);
            }
        }
    });
}

fn kind(
    py: Python<'_>,
    types: &TypeMap,
    known: &HashMap<u32, Known>,
    oid: u32,
    depth: usize,
) -> Kind {
    let Some(found) = known.get(&oid).filter(|_| types.is_strange(oid) && depth < 16) else {
        return types.kind(oid);
    };
    let part = |oid| Arc::new(kind(py, types, known, oid, depth + 1));
    match found.class.as_str() {
        "e" => Kind::Text,
        "d" => kind(py, types, known, found.base, depth + 1),
        "r" => Kind::Range(part(found.bound)),
        "m" => Kind::Multirange(part(found.bound)),
        "c" => match factory(py, found) {
            Ok(factory) => {
                // Its fields must be known before a value is read.
                Kind::Composite(Arc::new(Composite { fields: found.fields.clone(), factory }))
            }
            Err(_) => Kind::Record,
        },
        _ if found.element != 0 => Kind::Array(part(found.element)),
        // citext and the like.
        _ if matches!(found.send.as_str(), "textsend" | "citextsend" | "varcharsend") => Kind::Text,
        _ if found.name == "hstore" && found.send.ends_with("hstore_send") => Kind::Hstore,
        _ => Kind::Unknown,
    }
}

/// A named tuple of the type's name and fields.
fn factory(py: Python<'_>, found: &Known) -> PyResult<Py<PyAny>> {
    let types = Objects::get(py)?.types.bind(py);
    Ok(types.getattr("_row_type")?.call1((&found.name, &found.names))?.unbind())
}
