//! Connection URIs: `postgresql://user:password@host:port,host:port/database?keyword=value`.
//!
//! Splits where libpq splits. No error shows a piece of the URI unless it surely is not part of a
//! password: one that was not percent-encoded may end up in any of them.

use zeroize::Zeroizing;

use super::options::is_secret;
use super::settings::{Pair, bad};
use crate::error::Result;

/// What comes after the scheme, if this is a URI.
pub(super) fn strip_scheme(conninfo: &str) -> Option<&str> {
    ["postgresql://", "postgres://"].iter().find_map(|scheme| conninfo.strip_prefix(scheme))
}

/// Splits what comes after the scheme into pairs of keyword and value.
pub(super) fn parse(uri: &str) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut rest = uri;
    // Like libpq: a `?` does not end the search, so a password may contain one.
    if let Some(end) = uri.find(['@', '/']).filter(|end| uri[*end..].starts_with('@')) {
        let (user, password) = split_at_char(&uri[..end], ':');
        push(&mut pairs, "user", decode(user, "user name")?);
        if let Some(password) = password {
            push(&mut pairs, "password", decode(password, "password")?);
        }
        rest = &uri[end + 1..];
    }

    let (authority, path, query) = split_authority(rest);
    check_for_stray_password(authority, path)?;
    let (hosts, ports) = split_hosts(authority)?;
    push(&mut pairs, "host", decode(&hosts, "host")?);
    let ports = decode(&ports, "port")?;
    check_ports(&ports)?;
    push(&mut pairs, "port", ports);
    if let Some(path) = path {
        push(&mut pairs, "dbname", decode(path, "database name")?);
    }
    if let Some(query) = query {
        // With an `@` in it, this may be the tail of a password.
        let hide = query.contains('@');
        parse_query(query, hide, &mut pairs)?;
    }
    Ok(pairs)
}

fn push(pairs: &mut Vec<Pair>, keyword: &str, value: Zeroizing<String>) {
    if !value.is_empty() {
        pairs.push(Pair { keyword: keyword.to_owned(), value, hide_keyword: false });
    }
}

fn split_at_char(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Host list, path and query. A bracketed address contains none of the characters looked for.
fn split_authority(rest: &str) -> (&str, Option<&str>, Option<&str>) {
    let (before_query, query) = split_at_char(rest, '?');
    let (authority, path) = split_at_char(before_query, '/');
    (authority, path, query)
}

const HOW_TO_ENCODE: &str = "write : / ? @ % [ ] in a user name or password as %3A %2F %3F %40 %25 \
                             %5B %5D";

/// `u:p/w@host` and `u:p@w@host` split in the wrong places; what would then be taken for a host, a
/// port or a database is a piece of the password, to be shown in every later message. libpq would
/// allow a bare `@` in the database's name; here it must be encoded.
fn check_for_stray_password(authority: &str, path: Option<&str>) -> Result<()> {
    if authority.contains('@') || path.is_some_and(|path| path.contains('@')) {
        return Err(bad(format!(
            "the URI has an \"@\" where none can stand; {HOW_TO_ENCODE}, and @ in a database's name \
             as %40"
        )));
    }
    Ok(())
}

/// `h1:p1,[::1]:p2` becomes the lists `h1,::1` and `p1,p2`.
fn split_hosts(authority: &str) -> Result<(String, String)> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for entry in authority.split(',') {
        let (host, port) = match entry.strip_prefix('[') {
            Some(bracketed) => {
                let Some((address, after)) = bracketed.split_once(']') else {
                    return Err(bad(
                        "the URI has a \"[\" without \"]\"; an IPv6 address is written [::1]",
                    ));
                };
                if address.is_empty() {
                    return Err(bad("the URI has no address between \"[\" and \"]\""));
                }
                match after.strip_prefix(':') {
                    Some(port) => (address, port),
                    None if after.is_empty() => (address, ""),
                    None => {
                        return Err(bad("the URI has neither a port nor an end after \"]\""));
                    }
                }
            }
            None => entry.split_once(':').unwrap_or((entry, "")),
        };
        hosts.push(host);
        ports.push(port);
    }
    // A lone comma would turn one absent list into a list of absent entries.
    let join = |list: &[&str]| match list.iter().all(|entry| entry.is_empty()) {
        true if list.len() == 1 => String::new(),
        _ => list.join(","),
    };
    Ok((join(&hosts), join(&ports)))
}

/// A port is checked before anything else sees it, because it may be a piece of a password.
fn check_ports(ports: &str) -> Result<()> {
    if ports.bytes().all(|b| b.is_ascii_digit() || b == b',') {
        return Ok(());
    }
    Err(bad(format!(
        "a port in the URI is not a number (it is not shown, for it may be part of a password); \
         {HOW_TO_ENCODE}; an IPv6 address stands in brackets"
    )))
}

fn parse_query(query: &str, hide: bool, pairs: &mut Vec<Pair>) -> Result<()> {
    if query.is_empty() {
        return Ok(());
    }
    for parameter in query.split('&') {
        let (keyword, value) = split_at_char(parameter, '=');
        let keyword = decode(keyword, "name of a query parameter")?;
        let shown = if hide { "(not shown)" } else { keyword.as_str() };
        let Some(value) = value else {
            return Err(bad(format!(
                "the URI's query parameter {shown} has no \"=\"; write keyword=value, and & between \
                 parameters"
            )));
        };
        if value.contains('=') {
            return Err(bad(format!(
                "the URI's query parameter {shown} has a second \"=\"; within a value it is written \
                 %3D"
            )));
        }
        let what = match is_secret(&keyword) {
            true => "password",
            false => "value of a query parameter",
        };
        let value = decode(value, what)?;
        // JDBC's way to ask for TLS, which libpq reads as `require`. It does not say how, and
        // then Segue's answer is always the same.
        let (keyword, value) = match (keyword.as_str(), value.as_str()) {
            ("ssl", "true") => ("sslmode", Zeroizing::new("verify-full".to_owned())),
            (keyword, _) => (keyword, value),
        };
        pairs.push(Pair { keyword: keyword.to_owned(), value, hide_keyword: hide });
    }
    Ok(())
}

/// Resolves `%XX`. The error names the piece, never its text.
fn decode(text: &str, what: &str) -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let digit = |i: usize| after.get(i).and_then(|b| char::from(*b).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(bad(format!(
                "the {what} in the URI has a \"%\" without two hexadecimal digits; a percent sign is \
                 written %25"
            )));
        };
        let decoded = (high * 16 + low) as u8;
        if decoded == 0 {
            return Err(bad(format!("the {what} in the URI contains %00")));
        }
        bytes.push(decoded);
        rest = &after[2..];
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(bad(format!(
            "the {what} in the URI is not UTF-8 once its percent-encoding is resolved"
        ))),
    }
}

/// Writes a piece of a URI so that [`parse`] reads the same back.
#[cfg(test)]
pub(super) fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}
