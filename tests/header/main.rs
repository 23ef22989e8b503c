//! `include/segue.h` and `exports.txt` are what `src/ffi` says, and the library exports just that.
//! `SEGUE_BLESS=1 cargo test --test header` (`make header`) writes the header anew, and appends to
//! `exports.txt`; see docs/abi.md.

#[cfg(feature = "c-abi")]
mod declarations;
#[cfg(feature = "c-abi")]
mod generate;
#[cfg(all(feature = "c-abi", target_os = "linux"))]
mod library;

#[cfg(feature = "c-abi")]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;
    use std::sync::LazyLock;

    use super::{declarations, generate};

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// The header as it has to be; where that is asked for, the files are made anew before any test
    /// looks at them.
    static HEADER: LazyLock<String> = LazyLock::new(|| {
        let wanted = generate::header(root());
        if std::env::var_os("SEGUE_BLESS").is_some_and(|value| value == "1") {
            fs::write(root().join("include/segue.h"), &wanted).expect("include/ can be written");
            append_exports(&wanted);
        }
        wanted
    });

    fn exports() -> String {
        LazyLock::force(&HEADER);
        read("exports.txt")
    }

    fn read(name: &str) -> String {
        fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names in `exports.txt`, with the ABI version that each came with.
    fn listed(text: &str) -> Vec<(String, String)> {
        let mut version = String::new();
        let mut names = Vec::new();
        for line in text.lines() {
            if let Some(of) = line.strip_prefix("# ABI ") {
                version = of.to_owned();
            } else if !line.starts_with('#') && !line.is_empty() {
                names.push((line.to_owned(), version.clone()));
            }
        }
        names
    }

    fn listed_names(text: &str) -> BTreeSet<String> {
        listed(text).into_iter().map(|(name, _)| name).collect()
    }

    /// What is declared only in the one set and only in the other.
    fn difference(one: &BTreeSet<String>, other: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
        (one.difference(other).cloned().collect(), other.difference(one).cloned().collect())
    }

    #[test]
    fn the_committed_header_is_what_the_sources_say() {
        let wanted = &*HEADER;
        let committed = fs::read_to_string(root().join("include/segue.h")).unwrap_or_default();
        if let Some((number, (have, want))) =
            committed.lines().zip(wanted.lines()).enumerate().find(|(_, (have, want))| have != want)
        {
            panic!(
                "include/segue.h has drifted from src/ffi at line {}:\n  committed: {have}\n  \
                 generated: {want}\nRun `make header` and commit the result.",
                number + 1
            );
        }
        assert!(
            committed == *wanted,
            "include/segue.h has {} lines, src/ffi makes {}: run `make header` and commit the result",
            committed.lines().count(),
            wanted.lines().count()
        );
    }

    /// Adds functions that are new to the section of the ABI's present version. Never takes one away.
    fn append_exports(header: &str) {
        let macro_of = |name| declarations::definition(header, name).expect("the ABI's version");
        let section = format!(
            "# ABI {}.{}",
            macro_of("SEGUE_ABI_VERSION_MAJOR"),
            macro_of("SEGUE_ABI_VERSION_MINOR")
        );
        let text = read("exports.txt");
        let (declared, known) = (names_of(header), listed_names(&text));
        let (new, _) = difference(&declared, &known);
        let (before, last) = match text.split_once(&format!("{section}\n")) {
            Some((before, last)) => (before.to_owned(), last.to_owned()),
            None => (format!("{text}\n"), String::new()),
        };
        assert!(!last.contains('#'), "the section {section} is not the last one");
        let mut names: Vec<&str> = last.lines().chain(new.iter().map(String::as_str)).collect();
        names.sort_unstable();
        let text = format!("{before}{section}\n{}\n", names.join("\n"));
        fs::write(root().join("exports.txt"), text).expect("exports.txt can be written");
    }

    fn names_of(header: &str) -> BTreeSet<String> {
        declarations::functions(header).into_iter().map(|function| function.name).collect()
    }

    #[test]
    fn the_versions_in_the_header_are_those_of_the_crate() {
        let header = &*HEADER;
        let value = |name| declarations::definition(header, name);
        assert_eq!(value("SEGUE_VERSION"), Some(&*format!("\"{}\"", env!("CARGO_PKG_VERSION"))));
        let major = value("SEGUE_ABI_VERSION_MAJOR").expect("the ABI's major version");
        let minor = value("SEGUE_ABI_VERSION_MINOR").expect("the ABI's minor version");
        let versions = listed(&exports());
        let (_, newest) = versions.last().expect("exports.txt lists functions");
        assert_eq!(*newest, format!("{major}.{minor}"), "exports.txt ends with another ABI");
    }

    #[test]
    fn every_function_is_documented() {
        let header = &*HEADER;
        let functions = declarations::functions(header);
        let attributes = fs::read_dir(root().join("src/ffi")).expect("src/ffi").map(|entry| {
            let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source file");
            text.matches("#[unsafe(no_mangle)]").count()
        });
        assert_eq!(
            functions.len(),
            attributes.sum::<usize>(),
            "functions in the header and in src/ffi"
        );

        let listed = listed(&exports());
        let mut wrong = Vec::new();
        for function in &functions {
            let mut check = |right: bool, what: &str| {
                if !right {
                    wrong.push(format!("{}: {what}", function.name));
                }
            };
            check(
                function
                    .comment
                    .get(1)
                    .is_some_and(|line| !line.is_empty() && !line.starts_with('@')),
                "no description",
            );
            check(function.has_line("Threads: "), "no \"Threads:\"");
            let since = listed.iter().find(|(name, _)| *name == function.name);
            let since = since.map(|(_, version)| format!("@since ABI {version}"));
            check(
                since.is_some_and(|since| function.comment.contains(&since)),
                "\"@since ABI\" is not that of its section in exports.txt",
            );
            check(
                function.described() == function.parameters,
                &format!("describes {:?}, has {:?}", function.described(), function.parameters),
            );
            check(
                function.has_line("@return ") != function.returns_void,
                "\"@return\" exactly where something is returned",
            );
        }
        assert!(wrong.is_empty(), "in src/ffi:\n  {}", wrong.join("\n  "));
    }

    #[test]
    fn exports_are_listed_sorted_and_declared() {
        let text = exports();
        let listed = listed(&text);
        assert!(!listed.is_empty());
        for pair in listed.windows(2) {
            let [(first, of), (second, also)] = pair else { unreachable!("windows of two") };
            assert!(of != also || first < second, "{second} is not at its place in exports.txt");
        }
        let (header, names) = (names_of(&HEADER), listed_names(&text));
        assert_eq!(names.len(), listed.len(), "exports.txt has a name twice");
        let (new, gone) = difference(&header, &names);
        assert!(gone.is_empty(), "gone, although exports.txt promises them for ever: {gone:?}");
        assert!(new.is_empty(), "not in exports.txt yet; run `make header`: {new:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_library_exports_what_is_listed_and_nothing_else() {
        let library = super::library::path(root());
        let exported: BTreeSet<String> = super::library::exports(&library).into_iter().collect();
        // Cargo takes the one file for fresh whatever set of features it was made with last.
        assert!(
            exported.contains("segue_version"),
            "{} was made without the feature c-abi, by another build: `touch src/lib.rs` and try again",
            library.display()
        );
        let (odd, missing) = difference(&exported, &listed_names(&exports()));
        assert!(odd.is_empty(), "exported, but not in exports.txt: {odd:?}");
        assert!(missing.is_empty(), "in exports.txt, but not exported: {missing:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_soname_carries_the_abi_s_major_version() {
        let header = &*HEADER;
        let major = declarations::definition(header, "SEGUE_ABI_VERSION_MAJOR");
        let major = major.expect("the ABI's major version");
        let soname = super::library::soname(&super::library::path(root()));
        assert_eq!(soname, Some(format!("libsegue.so.{major}")), "build.rs sets it");
    }
}
