//! Builds `libsegue.so` as it is installed, and compiles `segue_peer.c` against it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program;
use crate::Failure;

const SOURCE: &str = include_str!("../../segue_peer.c");
/// As `build.rs` sets it.
const SONAME: &str = "libsegue.so.1";

/// Compiles the peer into `dir`. The library is built here and not as this crate's dependency,
/// which is made without the C ABI.
pub fn compile(dir: &Path) -> Result<PathBuf, Failure> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("the benchmark is in no target directory")?;
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--lib", "--package", "segue"])
        .args(["--no-default-features", "--features", "c-abi", "--target-dir"])
        .arg(target)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo is needed to build libsegue.so: {error}"))?;
    if !status.success() {
        return Err("libsegue.so does not build".into());
    }
    // A copy, which nobody builds anew while it is being measured, under the name it is loaded by.
    let library = dir.join(SONAME);
    std::fs::copy(target.join("release/libsegue.so"), &library)?;
    let arguments = [
        format!("-I{}", root.join("include").display()),
        library.display().to_string(),
        format!("-Wl,-rpath,{}", dir.display()),
    ];
    program::compile(dir, "segue_peer", SOURCE, &arguments)
}
