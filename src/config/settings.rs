//! Which value of each option holds: explicit > service file > environment > default; and what
//! a single value may be.
//!
//! Rules that join options stand elsewhere. A value that may be secret is never shown.

use std::fmt::Write;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::options::{self, ENVIRONMENT_ONLY, OPTIONS, OptionDefault, OptionInfo, OptionValues};
use super::{Environment, Warnings, service};
use crate::error::{Error, ErrorKind, Result};

/// One keyword and its value, as it was written.
pub(super) struct Pair {
    pub(super) keyword: String,
    pub(super) value: Zeroizing<String>,
    /// The keyword may itself be a piece of a password that was not quoted, so it is not shown.
    pub(super) hide_keyword: bool,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.hide_keyword { "***" } else { &self.keyword })
    }
}

/// Where a value comes from; the first is the strongest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Explicit,
    Service { line: usize, file: PathBuf },
    Environment(&'static str),
}

impl Source {
    /// Smaller is stronger.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Explicit => 0,
            Self::Service { .. } => 1,
            Self::Environment(_) => 2,
        }
    }
}

struct Given {
    text: Zeroizing<String>,
    source: Source,
}

/// The options that were given, each with the strongest of its values.
pub(super) struct Settings {
    /// Parallel to [`OPTIONS`].
    given: Vec<Option<Given>>,
    pub(super) warnings: Warnings,
}

pub(super) fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

impl Settings {
    /// Joins the pairs of the connection string with the service file and the environment.
    pub(super) fn gather(pairs: Vec<Pair>, env: &Environment) -> Result<Self> {
        let mut settings =
            Self { given: OPTIONS.iter().map(|_| None).collect(), warnings: Warnings::default() };
        for pair in pairs {
            let Some(at) = options::position(&pair.keyword) else {
                return Err(unknown(&pair, ""));
            };
            refuse_environment_only(&pair.keyword)?;
            // As in libpq, the last of several wins.
            settings.given[at] = Some(Given { text: pair.value, source: Source::Explicit });
        }
        let service = settings
            .text("service")
            .map(str::to_owned)
            .or_else(|| non_empty(env.variable("PGSERVICE")));
        if let Some(service) = service {
            let file = settings
                .text("servicefile")
                .map(str::to_owned)
                .or_else(|| non_empty(env.variable("PGSERVICEFILE")));
            settings.add_service(&service, file.as_deref(), env)?;
        }
        settings.add_environment(env);
        settings.check_each()?;
        Ok(settings)
    }

    fn add_service(&mut self, service: &str, file: Option<&str>, env: &Environment) -> Result<()> {
        let (path, lines) = service::load(service, file, env)?;
        for line in lines {
            let source = Source::Service { line: line.line, file: path.clone() };
            let Some(at) = options::position(&line.pair.keyword) else {
                return Err(unknown(&line.pair, &from(&source)));
            };
            refuse_environment_only(&line.pair.keyword)?;
            // As in libpq, the first of several wins here.
            self.given[at].get_or_insert(Given { text: line.pair.value, source });
        }
        Ok(())
    }

    fn add_environment(&mut self, env: &Environment) {
        for (option, given) in OPTIONS.iter().zip(&mut self.given) {
            let Some(name) = option.env else { continue };
            if let (None, Some(value)) = (&given, env.variable(name)) {
                *given = Some(Given {
                    text: Zeroizing::new(value.to_owned()),
                    source: Source::Environment(name),
                });
            }
        }
        // Others may have variables of their own with this prefix, so only what looks like a
        // slip of the pen is worth a word.
        let known = || OPTIONS.iter().filter_map(|option| option.env);
        for name in env.variables.keys() {
            if !name.starts_with("SEGUE_") || known().any(|known| known == name) {
                continue;
            }
            let slip = known()
                .filter(|known| known.starts_with("SEGUE_"))
                .find(|known| strsim::damerau_levenshtein(known, name) <= 2);
            if let Some(meant) = slip {
                self.warnings.push(format!(
                    "the environment variable {name} is unknown and was ignored; did you mean {meant}?"
                ));
            }
        }
    }

    /// What can be said of one value alone.
    fn check_each(&self) -> Result<()> {
        for (option, given) in OPTIONS.iter().zip(&self.given) {
            let Some(given) = given else { continue };
            if given.text.contains('\0') {
                return Err(bad(format!(
                    "the value of {}{} contains a zero byte, which PostgreSQL's protocol cannot carry",
                    option.name,
                    from(&given.source)
                )));
            }
            if given.text.is_empty() {
                continue;
            }
            match option.values {
                OptionValues::Fixed { accepted, reason } => {
                    check_fixed(option, given, accepted, reason)?
                }
                OptionValues::Integer { .. } => {
                    self.integer(option.name)?;
                }
                OptionValues::Flag => {
                    self.flag(option.name)?;
                }
                OptionValues::Choice { .. } => {
                    self.choice(option.name)?;
                }
                OptionValues::Text | OptionValues::Secret | OptionValues::List => {}
            }
        }
        Ok(())
    }

    /// What was given for an option and where; as in libpq, an empty value counts as none, except
    /// that it hides weaker sources.
    fn given(&self, name: &str) -> Option<&Given> {
        self.given.get(options::position(name)?)?.as_ref().filter(|given| !given.text.is_empty())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given(name).map(|given| given.text.as_str())
    }

    pub(super) fn source(&self, name: &str) -> Option<&Source> {
        self.given(name).map(|given| &given.source)
    }

    /// The option's name and, where it was not in the connection string, its source; for errors.
    pub(super) fn named(&self, name: &str) -> String {
        let source = self.source(name).map(from).unwrap_or_default();
        format!("{name}{source}")
    }

    /// As [`named`](Self::named), with the value. Not for secrets.
    pub(super) fn shown(&self, name: &str) -> String {
        let source = self.source(name).map(from).unwrap_or_default();
        let value = self.text_or_default(name).unwrap_or_default();
        format!("{name}={value}{source}")
    }

    /// What was given, else the table's default.
    pub(super) fn text_or_default(&self, name: &str) -> Option<&str> {
        self.text(name).or_else(|| match default_of(name) {
            OptionDefault::Value(text) => Some(text),
            OptionDefault::Unset | OptionDefault::Computed(_) => None,
        })
    }

    /// A number within the option's range; `None` where there is neither a value nor a default.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.text_or_default(name) else {
            return Ok(None);
        };
        let (min, max) = match values_of(name) {
            OptionValues::Integer { min, max } => (min, max),
            _ => (i64::MIN, i64::MAX),
        };
        match text.trim_matches(super::keywords::is_space).parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => {
                let unit = unit_of(name);
                let space = if unit.is_empty() { "" } else { " " };
                Err(self.not_allowed(name, &format!("{min} to {max}{space}{unit}")))
            }
        }
    }

    /// A switch. `on`, `true`, `yes`, `1` and their opposites, whatever their case.
    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        let Some(text) = self.text_or_default(name) else {
            return Ok(false);
        };
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Ok(true),
            "off" | "false" | "no" | "0" => Ok(false),
            _ => Err(self.not_allowed(name, "on (true, yes, 1) and off (false, no, 0)")),
        }
    }

    /// One of the option's words, as the table spells it; `None` where there is neither a value
    /// nor a default.
    pub(super) fn choice(&self, name: &str) -> Result<Option<&'static str>> {
        let Some(text) = self.text_or_default(name) else {
            return Ok(None);
        };
        let OptionValues::Choice { allowed, refused } = values_of(name) else {
            return Ok(None);
        };
        // TLS versions may be written in any case, as in libpq; so may the rest.
        if let Some(word) = allowed.iter().find(|word| word.eq_ignore_ascii_case(text)) {
            return Ok(Some(word));
        }
        if let Some((_, why)) = refused.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
            return Err(bad(format!("{} is refused: {why}", self.shown(name))));
        }
        let mut wanted = allowed.join(", ");
        if let Some(near) = options::closest(text, allowed.iter().copied()) {
            let _ = write!(wanted, "; did you mean {near}?");
        }
        Err(self.not_allowed(name, &wanted))
    }

    fn not_allowed(&self, name: &str, allowed: &str) -> Error {
        let value = self.text_or_default(name).unwrap_or_default();
        bad(format!("{} is {value:?}; allowed are {allowed}", self.named(name)))
    }
}

fn check_fixed(option: &OptionInfo, given: &Given, accepted: &[&str], reason: &str) -> Result<()> {
    let text = given.text.as_str();
    if accepted.iter().any(|word| word.eq_ignore_ascii_case(text)) {
        return Ok(());
    }
    // The value is not shown: several of these options are secrets.
    let mut message = format!(
        "Segue does not support this value of libpq's option {}{}: {reason}.",
        option.name,
        from(&given.source)
    );
    if accepted.is_empty() {
        message = format!(
            "Segue does not support libpq's option {}{}: {reason}.",
            option.name,
            from(&given.source)
        );
    } else {
        let _ = write!(message, " Leave it out, or write {}", accepted.join(" or "));
    }
    Err(bad(message))
}

/// These have no keyword in libpq either.
fn refuse_environment_only(keyword: &str) -> Result<()> {
    if !ENVIRONMENT_ONLY.contains(&keyword) {
        return Ok(());
    }
    let variable = options::position(keyword).and_then(|at| OPTIONS[at].env).unwrap_or_default();
    Err(bad(format!(
        "{keyword} is not an option of a connection string. Write options='-c {keyword}=VALUE', or \
         set the environment variable {variable}"
    )))
}

fn unknown(pair: &Pair, place: &str) -> Error {
    if pair.hide_keyword {
        return bad(
            "the connection string has an unknown option (it is not shown, for it may be part of a \
             password): a value with blanks in it is written keyword='the value', and in a URI an @ \
             is written %40",
        );
    }
    let suggestion = options::nearest(&pair.keyword)
        .map(|known| format!("; did you mean {known}?"))
        .unwrap_or_default();
    bad(format!("unknown option {:?}{place}{suggestion}", pair.keyword))
}

fn from(source: &Source) -> String {
    match source {
        Source::Explicit => String::new(),
        Source::Service { line, file } => {
            format!(" (line {line} of the service file {})", file.display())
        }
        Source::Environment(name) => format!(" (environment variable {name})"),
    }
}

fn non_empty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

fn info(name: &str) -> Option<&'static OptionInfo> {
    options::position(name).map(|at| &OPTIONS[at])
}

fn default_of(name: &str) -> OptionDefault {
    info(name).map_or(OptionDefault::Unset, |option| option.default)
}

fn values_of(name: &str) -> OptionValues {
    info(name).map_or(OptionValues::Text, |option| option.values)
}

fn unit_of(name: &str) -> &'static str {
    info(name).map_or("", |option| option.unit)
}
