//! The service file: sections of `keyword=value` lines, one section for each service.
//!
//! Reads what libpq reads: no quoting, `#` only at a line's start, the first section of the name
//! counts. Knows no option; an error shows the place, never a value.

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::Environment;
use super::settings::{Pair, bad};
use crate::error::Result;

/// One option of a service and the line it stands in.
pub(super) struct ServiceLine {
    pub(super) pair: Pair,
    pub(super) line: usize,
}

/// The service's options and the file that has them.
pub(super) fn load(
    service: &str,
    file: Option<&str>,
    env: &Environment,
) -> Result<(PathBuf, Vec<ServiceLine>)> {
    let mut looked_in = Vec::new();
    // A file that was asked for must be there; the default ones may be missing.
    let own = match file {
        Some(file) => Some((PathBuf::from(file), true)),
        None => env.in_home(".pg_service.conf").map(|path| (path, false)),
    };
    let system = env
        .variable("PGSYSCONFDIR")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| env.system_service_dir.clone())
        .map(|dir| (dir.join("pg_service.conf"), false));
    for (path, must_exist) in own.into_iter().chain(system) {
        let content = match fs::read(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => continue,
            Err(error) => {
                return Err(bad(format!(
                    "the service file {} could not be read: {error}",
                    path.display()
                )));
            }
        };
        let Ok(text) = std::str::from_utf8(&content) else {
            return Err(bad(format!("the service file {} is not UTF-8", path.display())));
        };
        if let Some(lines) = section(text, service, &path)? {
            return Ok((path, lines));
        }
        looked_in.push(path.display().to_string());
    }
    let place = match looked_in.is_empty() {
        true => "no service file was found".to_owned(),
        false => format!("it is not in {}", looked_in.join(" or ")),
    };
    Err(bad(format!("the service {service:?} is unknown: {place}")))
}

fn section(text: &str, service: &str, path: &Path) -> Result<Option<Vec<ServiceLine>>> {
    let mut found: Option<Vec<ServiceLine>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if header.split_once(']').map(|(name, _)| name) == Some(service) {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(lines) = &mut found else { continue };
        let place = || format!("line {number} of the service file {}", path.display());
        if line.starts_with("ldap") {
            return Err(bad(format!(
                "{} asks an LDAP server, which Segue does not support",
                place()
            )));
        }
        let Some((keyword, value)) = line.split_once('=') else {
            return Err(bad(format!("{} is not keyword=value", place())));
        };
        if matches!(keyword, "service" | "servicefile") {
            return Err(bad(format!("{} names a further service; services do not nest", place())));
        }
        lines.push(ServiceLine {
            pair: Pair {
                keyword: keyword.to_owned(),
                value: Zeroizing::new(value.to_owned()),
                hide_keyword: false,
            },
            line: number,
        });
    }
    Ok(found)
}
