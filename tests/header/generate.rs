//! Writes the text of `include/segue.h` out of `src/ffi`, with cbindgen. It renders file by file, so
//! that what belongs to one handle stands together; cbindgen alone would put all constants first.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use cbindgen::{Builder, Config, ItemType};

/// The files of `src/ffi` in the order of the header's sections. A type that is no opaque handle has
/// to come before its first use.
const ORDER: [&str; 24] = [
    "version",
    "codes",
    "error",
    "options",
    "event",
    "client",
    "status",
    "statistics",
    "param",
    "session",
    "session_state",
    "result",
    "statement",
    "stream",
    "copy",
    "pipeline",
    "notification",
    "cancel",
    "submission",
    "ticket",
    "dead_letter",
    "submission_status",
    "recovery",
    "recovered_statement",
];

/// Files that declare nothing for C.
const INTERNAL: [&str; 6] = ["mod", "blocks", "boundary", "fork", "lease", "table"];

/// The header as it has to be.
pub fn header(root: &Path) -> String {
    let config = Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml is valid");
    let ffi = root.join("src/ffi");
    let all: Vec<_> = ORDER.iter().map(|name| ffi.join(format!("{name}.rs"))).collect();
    every_file_is_known(&ffi);

    let mut out = String::new();
    let conventions = config.header.as_deref().expect("cbindgen.toml has the conventions page");
    let version = env!("CARGO_PKG_VERSION");
    write!(
        out,
        "{}\n\n\
         #ifndef SEGUE_H\n\
         #define SEGUE_H\n\n\
         #include <stdbool.h>\n\
         #include <stddef.h>\n\
         #include <stdint.h>\n\n\
         /**\n * The version of the library that this header came with.\n */\n\
         #define SEGUE_VERSION \"{version}\"\n\n\
         #ifdef __cplusplus\n\
         extern \"C\" {{\n\
         #endif\n",
        conventions.trim(),
    )
    .expect("a String takes everything");

    section(&mut out, "Handles: opaque, and only ever used by pointer.");
    let files: Vec<&Path> = all.iter().map(AsRef::as_ref).collect();
    out.push_str(&render(&config, &files, &[ItemType::OpaqueItems]));
    let declared =
        [ItemType::Constants, ItemType::Structs, ItemType::Typedefs, ItemType::Functions];
    for file in files {
        section(&mut out, &heading(file));
        out.push_str(&render(&config, &[file], &declared));
    }
    out.push_str("\n#ifdef __cplusplus\n} /* extern \"C\" */\n#endif\n\n#endif /* SEGUE_H */\n");
    out
}

fn every_file_is_known(ffi: &Path) {
    for entry in fs::read_dir(ffi).expect("src/ffi is there") {
        let path = entry.expect("a directory entry").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name in UTF-8");
        assert!(
            ORDER.contains(&name) || INTERNAL.contains(&name),
            "src/ffi/{name}.rs has no place yet: name it in ORDER or INTERNAL of {}",
            file!()
        );
        let text = fs::read_to_string(&path).expect("a source file");
        assert!(
            !INTERNAL.contains(&name) || !text.contains("no_mangle"),
            "src/ffi/{name}.rs exports functions: move it from INTERNAL to ORDER in {}",
            file!()
        );
    }
}

/// The first sentences of a file's `//!` comment.
fn heading(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source file");
    let lines: Vec<&str> = text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    assert!(!lines.is_empty(), "{} does not begin with //!", file.display());
    lines.join(" ").replace('`', "")
}

fn section(out: &mut String, heading: &str) {
    let rule = "-".repeat(96);
    write!(out, "\n/* {rule}\n").expect("a String takes everything");
    let mut line = String::from(" *");
    for word in heading.split_whitespace() {
        if line.len() + 1 + word.len() > 100 {
            writeln!(out, "{line}").expect("a String takes everything");
            line = String::from(" *");
        }
        line.push(' ');
        line.push_str(word);
    }
    write!(out, "{line}\n * {rule} */\n\n").expect("a String takes everything");
}

/// What cbindgen makes of some files, without anything around it.
fn render(config: &Config, files: &[&Path], items: &[ItemType]) -> String {
    let mut config = config.clone();
    config.header = None;
    config.no_includes = true;
    config.export.item_types = items.to_vec();
    let builder = files.iter().fold(Builder::new().with_config(config), Builder::with_src);
    let mut bytes = Vec::new();
    builder.generate().expect("cbindgen reads src/ffi").write(&mut bytes);
    let text = String::from_utf8(bytes).expect("cbindgen writes UTF-8");
    format!("{}\n", text.trim())
}
