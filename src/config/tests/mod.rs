//! Tests of the configuration. None touches the process's environment: each gives its own.

mod documentation;
mod files;
mod hosts;
mod journal;
mod options;
mod properties;
mod tls;

use super::{Config, Environment};
use crate::ErrorKind;

/// A user and nothing else.
pub(super) fn env() -> Environment {
    Environment { user_name: Some("ann".to_owned()), ..Environment::empty() }
}

pub(super) fn parse(conninfo: &str) -> Config {
    parse_in(conninfo, &env())
}

#[track_caller]
pub(super) fn parse_in(conninfo: &str, env: &Environment) -> Config {
    match Config::parse_with(conninfo, env) {
        Ok(config) => config,
        Err(error) => panic!("{conninfo}: {error}"),
    }
}

#[track_caller]
pub(super) fn error(conninfo: &str) -> String {
    error_in(conninfo, &env())
}

#[track_caller]
pub(super) fn error_in(conninfo: &str, env: &Environment) -> String {
    match Config::parse_with(conninfo, env) {
        Ok(config) => panic!("{conninfo} was accepted: {config:?}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            error.to_string()
        }
    }
}

/// Asserts that the error names all of these.
#[track_caller]
pub(super) fn assert_error(conninfo: &str, wanted: &[&str]) {
    let error = error(conninfo);
    for part in wanted {
        assert!(error.contains(part), "{conninfo}: {part:?} is not in: {error}");
    }
}
