//! What a server may ask of the user: `require_auth` and its agreement with the options beside it.

use super::settings::{Settings, bad};
use super::{AuthMethods, ChannelBinding, Config, SslMode};
use crate::error::Result;

/// Parses `require_auth`: methods, or methods each with `!`.
pub(super) fn require_auth(settings: &Settings) -> Result<Option<AuthMethods>> {
    let Some(text) = settings.text("require_auth") else {
        return Ok(None);
    };
    let negated = text.starts_with('!');
    let mut methods =
        AuthMethods { none: negated, password: negated, md5: negated, scram_sha_256: negated };
    let mut seen = Vec::new();
    for entry in text.split(',') {
        let word = match (negated, entry.strip_prefix('!')) {
            (true, Some(word)) => word,
            (false, None) => entry,
            _ => {
                return Err(bad(format!(
                    "{} mixes methods with and without \"!\"",
                    settings.shown("require_auth")
                )));
            }
        };
        let method = match word {
            "none" => Some(&mut methods.none),
            "password" => Some(&mut methods.password),
            "md5" => Some(&mut methods.md5),
            "scram-sha-256" => Some(&mut methods.scram_sha_256),
            // Segue never does these, so forbidding them changes nothing and allowing them neither.
            "gss" | "sspi" | "oauth" => None,
            _ => {
                return Err(bad(format!(
                    "{} has the entry {entry:?}; allowed are password, md5, scram-sha-256 and none, \
                     or each of them with \"!\"",
                    settings.named("require_auth")
                )));
            }
        };
        if seen.contains(&word) {
            return Err(bad(format!("{} names {word} twice", settings.shown("require_auth"))));
        }
        seen.push(word);
        if let Some(method) = method {
            *method = !negated;
        }
    }
    Ok(Some(methods))
}

/// Whether any method is left by all options together.
pub(super) fn check(config: &Config, settings: &Settings) -> Result<()> {
    let Some(methods) = config.require_auth else {
        return Ok(());
    };
    let required = || settings.shown("require_auth");
    if config.channel_binding == ChannelBinding::Require && !methods.scram_sha_256 {
        return Err(bad(format!(
            "{} needs scram-sha-256, which {} excludes",
            settings.shown("channel_binding"),
            required()
        )));
    }
    let possible = methods.none
        || methods.scram_sha_256
        || (methods.md5 && config.allow_md5_password)
        || (methods.password && config.allow_cleartext_password);
    if possible {
        return Ok(());
    }
    let switch = match (methods.md5, methods.password) {
        (true, _) => "allow_md5_password",
        (_, true) => "allow_cleartext_password",
        _ => {
            return Err(bad(format!(
                "{} leaves no method that Segue knows; they are password, md5, scram-sha-256 and none",
                required()
            )));
        }
    };
    Err(bad(format!(
        "{} leaves only what {} forbids; add scram-sha-256, or write {switch}=on",
        required(),
        settings.shown(switch)
    )))
}

/// A password in the clear over a network in the clear is allowed where both were asked for, but not
/// in silence.
pub(super) fn warn_of_plain_passwords(config: &mut Config) {
    let exposed = config.tls.mode == SslMode::Disable
        && config.hosts.iter().any(|host| !super::hosts::is_local(host));
    if exposed && config.allow_cleartext_password {
        config.warnings.push(
            "allow_cleartext_password=on with sslmode=disable: whoever sees the network sees the \
             password"
                .to_owned(),
        );
    }
}
