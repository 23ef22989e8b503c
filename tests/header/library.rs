//! The library as cargo has built it for this very run: what it exports, and its SONAME.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The cdylib. One call of rustc makes it together with the rlib that this test is linked with, so it
/// is there, and as new; both are checked nevertheless, for a stale one would make the test worthless.
pub fn path(root: &Path) -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let deps = test.parent().expect("a directory");
    let library = deps.join("libsegue.so");
    let built = modified(&library);
    let source = newest(&root.join("src")).max(modified(&root.join("Cargo.toml")));
    let source = source.max(modified(&root.join("build.rs")));
    assert!(
        built >= source,
        "{} is older than the sources: was it built with another set of features? Run \
         `cargo test` as a whole, or `touch src/lib.rs` first.",
        library.display()
    );
    library
}

fn modified(path: &Path) -> SystemTime {
    let metadata = fs::metadata(path);
    let modified = metadata.and_then(|metadata| metadata.modified());
    modified.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The newest file that the library is made of; the command line is not in it.
fn newest(directory: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("a directory entry").path();
        let is_program = path.ends_with("src/bin");
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !is_program && !is_test {
            newest = newest.max(self::newest(&path));
        } else if path.is_file() && !is_test {
            newest = newest.max(modified(&path));
        }
    }
    newest
}

/// The names of all dynamic symbols that it defines.
pub fn exports(library: &Path) -> Vec<String> {
    let text = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    names.map(str::to_owned).collect()
}

pub fn soname(library: &Path) -> Option<String> {
    let text = run(Command::new("readelf").arg("-d").arg(library));
    let line = text.lines().find(|line| line.contains("(SONAME)"))?;
    let (_, rest) = line.split_once('[')?;
    rest.split_once(']').map(|(name, _)| name.to_owned())
}

fn run(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("names in ASCII")
}
