//! The tables in `docs/configuration.md` are generated from the table of options.
//! `SEGUE_BLESS=1 cargo test documentation` writes them anew.

use std::fmt::Write;
use std::path::Path;

use crate::config::{Config, OptionDefault, OptionGroup, OptionInfo, OptionValues};

const SECTIONS: [(&str, OptionGroup); 6] = [
    ("connection", OptionGroup::Connection),
    ("login", OptionGroup::Login),
    ("tls", OptionGroup::Tls),
    ("network", OptionGroup::Network),
    ("segue", OptionGroup::Segue),
    ("libpq", OptionGroup::Libpq),
];

fn table(group: OptionGroup) -> String {
    let mut text = String::new();
    let options = || Config::options().iter().filter(|option| option.group == group);
    if group == OptionGroup::Libpq {
        text.push_str(
            "| option | environment | accepted values | why |\n| --- | --- | --- | --- |\n",
        );
    } else {
        text.push_str(
            "| option | environment | default | values | what it does |\n\
             | --- | --- | --- | --- | --- |\n",
        );
    }
    for option in options() {
        let env = option.env.map(|env| format!("`{env}`")).unwrap_or_default();
        let default = match option.default {
            OptionDefault::Unset => String::new(),
            OptionDefault::Value(value) => format!("`{value}`"),
            OptionDefault::Computed(how) => how.to_owned(),
        };
        let values = values(option);
        let _ = match group {
            OptionGroup::Libpq => {
                writeln!(text, "| `{}` | {env} | {values} | {} |", option.name, option.summary)
            }
            _ => writeln!(
                text,
                "| `{}` | {env} | {default} | {values} | {} |",
                option.name, option.summary
            ),
        };
    }
    text
}

fn values(option: &OptionInfo) -> String {
    let words = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
        words.join(", ")
    };
    match option.values {
        OptionValues::Text => "text".to_owned(),
        OptionValues::Secret => "secret".to_owned(),
        OptionValues::List => "list".to_owned(),
        OptionValues::Flag => "`on`, `off`".to_owned(),
        OptionValues::Integer { min, max } => {
            let unit = match option.unit {
                "" => "",
                "s" => " s",
                "ms" => " ms",
                _ => " bytes",
            };
            format!("{min} to {max}{unit}")
        }
        OptionValues::Choice { allowed, .. } => words(allowed),
        OptionValues::Fixed { accepted: [], .. } => "none".to_owned(),
        OptionValues::Fixed { accepted, .. } => words(accepted),
    }
}

#[test]
fn the_page_shows_the_table_of_options() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut fresh = String::new();
    let mut rest = page.as_str();
    for (name, group) in SECTIONS {
        let begin = format!("<!-- generated: {name} -->\n");
        let end = "<!-- end -->";
        let (before, after) = rest.split_once(&begin).unwrap_or_else(|| {
            panic!("docs/configuration.md has no line {begin}");
        });
        let (_, after) = after.split_once(end).unwrap_or_else(|| {
            panic!("docs/configuration.md has no {end} after {begin}");
        });
        let _ = write!(fresh, "{before}{begin}\n{}\n{end}", table(group));
        rest = after;
    }
    fresh.push_str(rest);
    if std::env::var_os("SEGUE_BLESS").is_some() {
        std::fs::write(&path, fresh).unwrap();
        return;
    }
    assert!(
        page == fresh,
        "docs/configuration.md is older than the table of options; run \
         SEGUE_BLESS=1 cargo test documentation"
    );
}
