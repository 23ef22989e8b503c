//! `docs/guarantees.md` names the tests that would notice the loss of each guarantee: they exist, where it says.

use std::path::Path;

const PAGE: &str = "docs/guarantees.md";
const HEADING: &str = "### Which tests would notice";
/// Where a path of this repository begins.
const PLACES: [&str; 7] = ["src/", "tests/", "fuzz/", "docs/", "scripts/", "benches/", "bindings/"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_path(word: &str) -> bool {
    PLACES.iter().any(|place| word.starts_with(place))
}

fn is_name(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether a file has a test of that name; of the verdict of chaos, what it counts under that name.
fn has(place: &str, name: &str) -> bool {
    if place == "fuzz/fuzz_targets" {
        return Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{place}/{name}.rs")).is_file();
    }
    let source = read(place);
    if place.ends_with(".py") {
        return source.contains(&format!("\ndef {name}("))
            || source.contains(&format!("\n    {name}: "));
    }
    source.match_indices(&format!("fn {name}(")).any(|(at, _)| {
        let before = source[..at].trim_end();
        before.ends_with("#[test]")
    })
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let page = read(PAGE);
    let (mut sections, mut missing) = (0, Vec::new());
    for section in page.split(HEADING).skip(1) {
        sections += 1;
        let section = section.split("\n#").next().unwrap_or_default();
        let (mut place, mut names) = (None, 0);
        for word in quoted(section) {
            if is_path(word) {
                place = Some(word);
            } else if is_name(word) {
                names += 1;
                let place = place.unwrap_or_else(|| panic!("{word} stands nowhere"));
                if !has(place, word) {
                    missing.push(format!("{place}: {word}"));
                }
            }
        }
        assert!(names > 0, "a section without a test: {section}");
    }
    assert!(sections >= 6, "one for each guarantee and one for asynchronous replication");
    assert!(missing.is_empty(), "{PAGE} names what is not there:\n{}", missing.join("\n"));
}

#[test]
fn every_path_that_the_guarantees_name_exists() {
    let page = read(PAGE);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let gone: Vec<_> =
        quoted(&page).filter(|word| is_path(word) && !root.join(word).exists()).collect();
    assert!(gone.is_empty(), "{PAGE} names what is not there: {gone:?}");
}
