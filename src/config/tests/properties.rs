//! Properties that hold for every string.

use proptest::prelude::*;

use super::env;
use crate::config::{Config, keywords, uri};

fn value_of<'a>(pairs: &'a [crate::config::settings::Pair], keyword: &str) -> Option<&'a str> {
    pairs.iter().find(|pair| pair.keyword == keyword).map(|pair| pair.value.as_str())
}

/// Text that is rich in what the parsers look for.
fn tricky() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("postgresql://".to_owned()),
        "(user|password|host|port|sslmode|dbname|service|passfile|hostaddr|ssl)",
        "[=&?/:@,%'\\\\ \\[\\]]",
        "[a-z0-9%=]{0,4}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn quoting_survives(values in prop::collection::vec(any::<String>(), 1..4)) {
        let words: Vec<_> = values
            .iter()
            .map(|value| format!("user={}", keywords::quote(value)))
            .collect();
        let pairs = keywords::parse(&words.join(" ")).unwrap();
        let read: Vec<_> = pairs.iter().map(|pair| pair.value.as_str()).collect();
        prop_assert_eq!(read, values);
    }

    #[test]
    fn percent_encoding_survives(
        user in "[^\0]+", password in "[^\0]+", host in "[^\0,]+", dbname in "[^\0]+", port in 1u16..,
        name in "[^\0]+",
    ) {
        let uri = format!(
            "{}:{}@{}:{port}/{}?application_name={}",
            uri::encode(&user),
            uri::encode(&password),
            uri::encode(&host),
            uri::encode(&dbname),
            uri::encode(&name),
        );
        let pairs = uri::parse(&uri).unwrap();
        for (keyword, wanted) in [
            ("user", &user),
            ("password", &password),
            ("host", &host),
            ("dbname", &dbname),
            ("application_name", &name),
        ] {
            prop_assert_eq!(value_of(&pairs, keyword), Some(wanted.as_str()));
        }
        let port = port.to_string();
        prop_assert_eq!(value_of(&pairs, "port"), Some(port.as_str()));
    }

    #[test]
    fn no_string_panics(text in any::<String>(), more in tricky()) {
        let _ = Config::parse_with(&text, &env());
        let _ = Config::parse_with(&more, &env());
        let _ = Config::parse_with(&format!("postgresql://{text}"), &env());
        let _ = Config::parse_with(&format!("postgresql://{more}"), &env());
    }

    /// Whatever a password is made of, encoded or not, no error shows it.
    #[test]
    fn no_error_shows_the_password(
        before in "[a-z0-9@/:?=&%\\[\\], ]{0,6}", after in "[a-z0-9@/:?=&%\\[\\], ]{0,6}",
    ) {
        let password = format!("{before}Hunter{after}");
        for conninfo in [
            format!("postgresql://u:{password}@h:1/db?sslmode=disable"),
            format!("postgresql://u:{}@h:x/db", uri::encode(&password)),
            format!("host=h password={}  port=x", keywords::quote(&password)),
        ] {
            if let Err(error) = Config::parse_with(&conninfo, &env()) {
                prop_assert!(!error.to_string().contains("Hunter"), "{conninfo}: {error}");
            }
        }
    }

    #[test]
    fn no_password_file_panics(file in any::<String>(), host in any::<String>()) {
        let _ = crate::config::passfile::PassFile::of(&file).lookup(&host, 5432, "db", "user");
    }
}
