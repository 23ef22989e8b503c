//! The text of a statement as PostgreSQL takes it: `%s` and `%(name)s` become `$1`, `$2`, ...
//!
//! Without parameters a text is sent as it is. With parameters:
//! - a sequence for a text with `$1` outside quotes: it is in PostgreSQL's own format, `%` stands for
//!   itself;
//! - a text with `%s`, `%b`, `%t` or `%(name)s` is in Python's: `%%` stands for `%`;
//! - a text with neither takes no parameters: `%%` stands for `%`.
//!
//! As in psycopg, quotes do not protect a placeholder.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use segue::client::Prepared;
use segue::session::classify::{Effect, StatementKind, classify};

use crate::decode::Decoders;

/// How parameters were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Given {
    None,
    Sequence,
    Mapping,
}

/// What the parameters of a text are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    Count(usize),
    Names(Vec<String>),
}

/// A statement's text, converted and looked at once.
#[derive(Debug)]
pub struct Plan {
    pub sql: String,
    pub places: Places,
    pub several: bool,
    /// It may return rows, so that its columns have to be known before it is executed.
    pub may_return_rows: bool,
    /// It may be executed with several sets of parameters at once.
    pub repeatable: bool,
    pub copy_in: bool,
    pub copy_out: bool,
    pub controls_transaction: bool,
    /// BEGIN, COMMIT or ROLLBACK: no transaction is begun for it.
    pub bounds_transaction: bool,
    /// What the server has said of it, for each combination of parameter types.
    pub variants: Mutex<Vec<Arc<Variant>>>,
}

/// A statement with certain types of parameters, as a server has described it.
#[derive(Debug)]
pub struct Variant {
    pub oids: Box<[u32]>,
    pub prepared: Prepared,
    pub decoders: Arc<Decoders>,
}

impl Plan {
    /// An error's text is for a ProgrammingError.
    pub fn new(query: &str, given: Given) -> Result<Self, String> {
        let (sql, places) = convert(query, given)?;
        let class = classify(&sql);
        let kinds: &[_] = match &class.kind {
            StatementKind::Several(parts) => parts,
            _ => std::slice::from_ref(&class),
        };
        let copy_in = kinds.iter().any(|part| part.kind == StatementKind::CopyIn);
        let copy_out = kinds.iter().any(|part| part.kind == StatementKind::CopyOut);
        let several = matches!(class.kind, StatementKind::Several(_));
        let controls_transaction = class.kind.controls_transaction();
        Ok(Self {
            may_return_rows: !several
                && class.kind == StatementKind::Other
                && class.effect > Effect::None
                && may_return_rows(&sql),
            repeatable: class.kind == StatementKind::Other
                && !class.outside_transaction
                && class.effect > Effect::None,
            sql,
            places,
            several,
            copy_in,
            copy_out,
            controls_transaction,
            bounds_transaction: matches!(
                class.kind,
                StatementKind::Begin { .. }
                    | StatementKind::Commit { .. }
                    | StatementKind::Rollback { .. }
            ),
            variants: Mutex::default(),
        })
    }
}

/// Whether the first word leaves it open. A mistake here costs the fidelity of rare types only.
fn may_return_rows(sql: &str) -> bool {
    const NEVER: [&str; 11] = [
        "create", "drop", "alter", "truncate", "vacuum", "analyze", "grant", "revoke", "comment",
        "lock", "do",
    ];
    const RETURNING: [&str; 4] = ["insert", "update", "delete", "merge"];
    let trimmed = sql.trim_start();
    let end = trimmed.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let word = trimmed[..end].to_ascii_lowercase();
    if NEVER.contains(&word.as_str()) {
        return false;
    }
    if RETURNING.contains(&word.as_str()) {
        let bytes = sql.as_bytes();
        return bytes.windows(9).any(|window| window.eq_ignore_ascii_case(b"returning"));
    }
    true
}

fn convert(query: &str, given: Given) -> Result<(String, Places), String> {
    if given == Given::None {
        return Ok((query.to_owned(), Places::Count(0)));
    }
    let count = native_count(query);
    if given == Given::Sequence && count > 0 {
        return Ok((query.to_owned(), Places::Count(count)));
    }
    let bytes = query.as_bytes();
    let formatted = bytes.windows(2).enumerate().any(|(at, pair)| {
        pair[0] == b'%' && matches!(pair[1], b's' | b'b' | b't' | b'(') && !escaped(bytes, at)
    });
    if !formatted && count > 0 {
        return Err("the statement has $1, which takes a sequence, and a mapping was given".into());
    }
    let mut sql = String::with_capacity(query.len() + 8);
    let mut names: Vec<String> = Vec::new();
    let mut count = 0;
    let mut rest = query;
    while let Some(at) = rest.find('%') {
        sql.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let number = match rest.as_bytes().first() {
            Some(b'%') => {
                sql.push('%');
                rest = &rest[1..];
                continue;
            }
            Some(b's' | b'b' | b't') => {
                rest = &rest[1..];
                count += 1;
                count
            }
            Some(b'(') => {
                let Some(end) = rest.find(')') else {
                    return Err("a placeholder %( is not closed".into());
                };
                let name = &rest[1..end];
                rest = &rest[end + 1..];
                if !matches!(rest.as_bytes().first(), Some(b's' | b'b' | b't')) {
                    return Err(format!("the placeholder %({name}) must end in s"));
                }
                rest = &rest[1..];
                match names.iter().position(|known| known == name) {
                    Some(known) => known + 1,
                    None => {
                        names.push(name.to_owned());
                        names.len()
                    }
                }
            }
            Some(_) => {
                let found = rest.chars().next().unwrap_or_default();
                return Err(format!(
                    "only %s, %(name)s and %% may stand in a statement with parameters, not %{found}"
                ));
            }
            None => return Err("a statement with parameters ends in a single %: write %%".into()),
        };
        let _ = write!(sql, "${number}");
    }
    sql.push_str(rest);
    match (count, names.is_empty(), given) {
        (1.., false, _) => Err("%s and %(name)s cannot be mixed in one statement".into()),
        (1.., true, Given::Mapping) => Err("%s takes a sequence, and a mapping was given".into()),
        (_, false, Given::Sequence) => {
            Err("%(name)s takes a mapping, and a sequence was given".into())
        }
        (_, false, _) => Ok((sql, Places::Names(names))),
        (0, true, Given::Mapping) => Ok((sql, Places::Names(Vec::new()))),
        _ => Ok((sql, Places::Count(count))),
    }
}

/// Whether the `%` at this position is the second of a pair.
fn escaped(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'%').count() % 2 == 1
}

/// The highest `$n` outside strings, names and comments.
pub fn native_count(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let mut highest = 0;
    let mut at = 0;
    let skip_to = |from: usize, end: &[u8]| {
        bytes[from.min(bytes.len())..]
            .windows(end.len())
            .position(|window| window == end)
            .map_or(bytes.len(), |found| from + found + end.len())
    };
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"') => at = skip_to(at + 1, &[quote]),
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = skip_to(at + 2, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = skip_to(at + 2, b"*/"),
            b'$' => {
                let rest = &bytes[at + 1..];
                let in_name =
                    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits > 0 && !in_name {
                    let number = sql[at + 1..at + 1 + digits].parse().unwrap_or(0);
                    highest = highest.max(number);
                    at += digits + 1;
                } else if let Some(tag) = rest.iter().position(|byte| *byte == b'$').filter(|tag| {
                    !in_name && rest[..*tag].iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
                }) {
                    let tag = &bytes[at..at + tag + 2];
                    at = skip_to(at + tag.len(), tag);
                } else {
                    at += 1;
                }
            }
            _ => at += 1,
        }
    }
    highest
}
