//! `segue options`: the table of options, from the very table that the parser uses.

use segue::Config;
use segue::config::{OptionGroup, OptionInfo, OptionValues};

use crate::output::out;

const SECTIONS: [(OptionGroup, &str); 6] = [
    (OptionGroup::Connection, "Connection"),
    (OptionGroup::Login, "Login"),
    (OptionGroup::Tls, "TLS"),
    (OptionGroup::Network, "Network"),
    (OptionGroup::Segue, "Segue's own"),
    (OptionGroup::Libpq, "Of libpq, accepted where they say what Segue does anyway"),
];

pub fn run() {
    for (group, title) in SECTIONS {
        out(&format!("{title}:"));
        for option in Config::options().iter().filter(|option| option.group == group) {
            out(&describe(option));
        }
        out("");
    }
}

fn describe(option: &OptionInfo) -> String {
    let mut text = format!("  {:<28} {}", option.name, option.summary);
    let mut add = |what: &str| text.push_str(&format!("\n{:31}{what}", ""));
    if let Some(values) = values(option) {
        add(&values);
    }
    let default = option.default.to_string();
    if !default.is_empty() {
        add(&format!("default: {}", without_links(&default)));
    }
    if let Some(env) = option.env {
        add(&format!("environment: {env}"));
    }
    text
}

fn values(option: &OptionInfo) -> Option<String> {
    Some(match option.values {
        OptionValues::Flag => "on, off".to_owned(),
        OptionValues::Integer { min, max } => {
            format!("{min} to {max} {}", option.unit).trim_end().to_owned()
        }
        OptionValues::Choice { allowed, .. } => allowed.join(", "),
        OptionValues::Fixed { accepted: [], reason } => format!("not supported: {reason}"),
        OptionValues::Fixed { accepted, .. } => format!("only {}", accepted.join(", ")),
        OptionValues::List => "a list, separated by commas".to_owned(),
        _ => return None,
    })
}

/// The table is written for a page, where `[Hosts](#hosts)` leads somewhere.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, (name, after))) =
        rest.split_once('[').and_then(|(before, link)| Some((before, link.split_once("](")?)))
    {
        plain.push_str(before);
        plain.push_str(name);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_their_names() {
        assert_eq!(without_links("see [Hosts](#hosts), then [b](c)."), "see Hosts, then b.");
        assert_eq!(without_links("port [5432]"), "port [5432]");
    }
}
