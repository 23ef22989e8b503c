//! Connection strings of the form `keyword=value keyword='a value'`, with libpq's quoting.
//!
//! Knows no option by name except those that hold secrets: an unquoted password with a blank in it
//! falls apart into words, and these must not turn up in an error.

use std::fmt::Write;

use zeroize::Zeroizing;

use super::options::is_secret;
use super::settings::{Pair, bad};
use crate::error::Result;

/// Splits a connection string into its pairs, in order.
pub(super) fn parse(conninfo: &str) -> Result<Vec<Pair>> {
    let mut reader = Reader { rest: conninfo, total: conninfo.chars().count() };
    let mut pairs: Vec<Pair> = Vec::new();
    loop {
        reader.skip_spaces();
        if reader.rest.is_empty() {
            return Ok(pairs);
        }
        let position = reader.position();
        let keyword = reader.keyword();
        reader.skip_spaces();
        if reader.peek() != Some('=') {
            return Err(missing_equals(position, pairs.last()));
        }
        reader.next();
        reader.skip_spaces();
        let value = match reader.peek() {
            Some('\'') => reader.quoted()?,
            _ => reader.unquoted(),
        };
        let after_secret = pairs.last().is_some_and(|pair| is_secret(&pair.keyword));
        pairs.push(Pair { keyword: keyword.to_owned(), value, hide_keyword: after_secret });
    }
}

fn missing_equals(position: usize, previous: Option<&Pair>) -> crate::Error {
    let mut message = format!(
        "the connection string has a word without \"=\" at character {position}; it must be a URI \
         (postgresql://...) or pairs of keyword=value"
    );
    if let Some(pair) = previous {
        let shown = if pair.hide_keyword { "the pair" } else { &pair.keyword };
        let _ = write!(
            message,
            ". The word follows the value of {shown}: a value with blanks in it is written \
             keyword='the value'"
        );
    }
    bad(message)
}

/// Writes a value so that [`parse`] reads the same back.
pub(super) fn quote(value: &str) -> String {
    let plain = !value.is_empty() && !value.chars().any(|c| is_space(c) || c == '\'' || c == '\\');
    if plain {
        return value.to_owned();
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        if c == '\'' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('\'');
    quoted
}

/// C's isspace(), which knows a vertical tab that Rust's does not.
pub(super) fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

struct Reader<'a> {
    rest: &'a str,
    total: usize,
}

impl<'a> Reader<'a> {
    /// The number of the next character, from 1.
    fn position(&self) -> usize {
        self.total - self.rest.chars().count() + 1
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(is_space);
    }

    fn keyword(&mut self) -> &'a str {
        let end = self.rest.find(|c| c == '=' || is_space(c)).unwrap_or(self.rest.len());
        let (keyword, rest) = self.rest.split_at(end);
        self.rest = rest;
        keyword
    }

    /// Up to the next blank; a backslash takes the next character as it is.
    fn unquoted(&mut self) -> Zeroizing<String> {
        let mut value = Zeroizing::new(String::with_capacity(self.rest.len()));
        while let Some(c) = self.peek().filter(|c| !is_space(*c)) {
            self.next();
            match c {
                '\\' => value.extend(self.next()),
                c => value.push(c),
            }
        }
        value
    }

    /// Between quotes; a backslash takes the next character as it is.
    fn quoted(&mut self) -> Result<Zeroizing<String>> {
        let position = self.position();
        self.next();
        let mut value = Zeroizing::new(String::with_capacity(self.rest.len()));
        while let Some(c) = self.next() {
            match c {
                '\'' => return Ok(value),
                '\\' => value.extend(self.next()),
                c => value.push(c),
            }
        }
        Err(bad(format!(
            "the connection string has a quote at character {position} that is never closed; \
             within a value, a quote is written \\' and a backslash \\\\"
        )))
    }
}
