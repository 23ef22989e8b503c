//! How much TLS is asked for, and whose word is trusted.
//!
//! Must never end with less than was asked for: where the answer is not clear, it is
//! `verify-full` or an error that says what to write.

use std::path::{Path, PathBuf};

use super::hosts::is_local;
use super::settings::{Settings, bad};
use super::{Address, ChannelBinding, Environment, Host, RootCert, SslMode, Tls, TlsVersion};
use crate::error::Result;

/// Any of these asks for TLS even where `sslmode` is silent.
const ASKS_FOR_TLS: [&str; 7] = [
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
];

pub(super) fn tls(
    settings: &Settings,
    env: &Environment,
    hosts: &[Host],
    channel_binding: ChannelBinding,
) -> Result<Tls> {
    let mode = mode(settings, hosts, channel_binding)?;
    check_channel_binding(settings, hosts, channel_binding, mode)?;
    let (min_version, max_version) = versions(settings)?;
    let mut tls = Tls {
        mode,
        root_cert: RootCert::None,
        client_cert: None,
        client_key: None,
        crl: None,
        sni: settings.flag("sslsni")?,
        min_version,
        max_version,
    };
    if mode == SslMode::Disable {
        return Ok(tls);
    }
    tls.root_cert = match settings.text("sslrootcert") {
        Some("system") => RootCert::System,
        Some(_) => {
            file(settings, env, "sslrootcert", "root.crt")?.map_or(RootCert::None, RootCert::File)
        }
        None => default_file(env, "root.crt").map_or(RootCert::None, RootCert::File),
    };
    check_root(settings, env, hosts, &tls)?;
    tls.crl = match (&tls.root_cert, settings.text("sslcrl")) {
        (RootCert::None, Some(_)) => {
            return Err(bad(format!(
                "{} says which certificates are revoked, but without sslrootcert none is checked; \
                 write sslrootcert=FILE or sslrootcert=system too",
                settings.shown("sslcrl")
            )));
        }
        (_, Some(_)) => file(settings, env, "sslcrl", "root.crl")?,
        (RootCert::File(_), None) => default_file(env, "root.crl"),
        (_, None) => None,
    };
    tls.client_cert = file(settings, env, "sslcert", "postgresql.crt")?;
    tls.client_key = file(settings, env, "sslkey", "postgresql.key")?;
    match (&tls.client_cert, &tls.client_key) {
        (Some(cert), None) => Err(bad(format!(
            "the client certificate {} (sslcert) has no key: sslkey is not given and the default \
             ~/.postgresql/postgresql.key does not exist",
            cert.display()
        ))),
        (None, Some(_)) if settings.text("sslkey").is_some() => Err(bad(format!(
            "{} has no certificate: sslcert is not given and the default \
             ~/.postgresql/postgresql.crt does not exist",
            settings.shown("sslkey")
        ))),
        (None, _) => {
            tls.client_key = None;
            Ok(tls)
        }
        (Some(_), Some(_)) => Ok(tls),
    }
}

fn mode(settings: &Settings, hosts: &[Host], binding: ChannelBinding) -> Result<SslMode> {
    let system = settings.text("sslrootcert") == Some("system");
    let mode = match settings.choice("sslmode")? {
        Some("disable") => SslMode::Disable,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some(_) => return Ok(SslMode::VerifyFull),
        None => {
            let asked = binding == ChannelBinding::Require
                || ASKS_FOR_TLS.iter().any(|name| settings.text(name).is_some());
            return Ok(match !asked && hosts.iter().all(is_local) {
                true => SslMode::Disable,
                false => SslMode::VerifyFull,
            });
        }
    };
    if system {
        // Anybody can get a certificate that the system trusts; only the name tells them apart.
        return Err(bad(format!(
            "{} is too weak for {}: any public authority's certificate would do; write \
             sslmode=verify-full",
            settings.shown("sslmode"),
            settings.shown("sslrootcert")
        )));
    }
    Ok(mode)
}

fn check_channel_binding(
    settings: &Settings,
    hosts: &[Host],
    binding: ChannelBinding,
    mode: SslMode,
) -> Result<()> {
    if binding != ChannelBinding::Require {
        return Ok(());
    }
    let shown = settings.shown("channel_binding");
    if mode == SslMode::Disable {
        return Err(bad(format!(
            "{shown} needs TLS, which {} switches off",
            settings.shown("sslmode")
        )));
    }
    let unix = |host: &&Host| matches!(host.address, Address::Unix { .. });
    match hosts.iter().find(unix) {
        Some(host) => {
            Err(bad(format!("{shown} needs TLS, which the Unix socket {host} (host) never has")))
        }
        None => Ok(()),
    }
}

fn versions(settings: &Settings) -> Result<(TlsVersion, TlsVersion)> {
    let version = |name| {
        settings.choice(name).map(|word| match word {
            Some("TLSv1.3") => Some(TlsVersion::V1_3),
            Some(_) => Some(TlsVersion::V1_2),
            None => None,
        })
    };
    let min = version("ssl_min_protocol_version")?.unwrap_or(TlsVersion::V1_2);
    let max = version("ssl_max_protocol_version")?.unwrap_or(TlsVersion::V1_3);
    if min > max {
        return Err(bad(format!(
            "{} is above {}",
            settings.shown("ssl_min_protocol_version"),
            settings.shown("ssl_max_protocol_version")
        )));
    }
    Ok((min, max))
}

/// Verifying needs somebody to trust.
fn check_root(settings: &Settings, env: &Environment, hosts: &[Host], tls: &Tls) -> Result<()> {
    let verifies = matches!(tls.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    let tcp = |host: &&Host| matches!(host.address, Address::Tcp { .. });
    let remote = hosts.iter().find(|host| !is_local(host));
    let (true, Some(host), RootCert::None) =
        (verifies, remote.or_else(|| hosts.iter().find(tcp)), &tls.root_cert)
    else {
        return Ok(());
    };
    let why = match settings.text("sslmode") {
        Some(_) => format!("{} checks the server's certificate", settings.shown("sslmode")),
        None => format!(
            "without sslmode, a link to {host} is made with sslmode=verify-full, which checks the \
             server's certificate"
        ),
    };
    let default = env.in_home(".postgresql/root.crt").map_or_else(
        || "no home directory is known".to_owned(),
        |path| format!("{} does not exist", path.display()),
    );
    Err(bad(format!(
        "{why}, but there is no root certificate to check it against: sslrootcert is not given and \
         {default}. Write sslrootcert=FILE; sslrootcert=system for the authorities that the operating \
         system trusts; or sslmode=require to encrypt without knowing who answers, or sslmode=disable \
         for plain text"
    )))
}

/// A file that was named must exist; a default one may.
fn file(
    settings: &Settings,
    env: &Environment,
    name: &str,
    default: &str,
) -> Result<Option<PathBuf>> {
    let Some(path) = settings.text(name) else {
        return Ok(default_file(env, default));
    };
    // libpq goes on without a root certificate that it was told to use, and so without checking.
    match Path::new(path).exists() {
        true => Ok(Some(PathBuf::from(path))),
        false => Err(bad(format!("{} does not exist or cannot be reached", settings.shown(name)))),
    }
}

fn default_file(env: &Environment, name: &str) -> Option<PathBuf> {
    env.in_home(".postgresql").map(|directory| directory.join(name)).filter(|path| path.exists())
}
