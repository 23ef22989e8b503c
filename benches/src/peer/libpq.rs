//! Compiles `libpq_peer.c`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program;
use crate::Failure;

const SOURCE: &str = include_str!("../../libpq_peer.c");

/// Compiles the peer into `dir`.
pub fn compile(dir: &Path) -> Result<PathBuf, Failure> {
    let pg_config = |option: &str| -> Result<String, Failure> {
        let output = Command::new("pg_config").arg(option).output().map_err(|error| {
            format!("pg_config (package libpq-dev) is needed for the libpq peer: {error}")
        })?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let arguments = [
        format!("-I{}", pg_config("--includedir")?),
        format!("-L{}", pg_config("--libdir")?),
        "-lpq".to_owned(),
    ];
    program::compile(dir, "libpq_peer", SOURCE, &arguments)
}
