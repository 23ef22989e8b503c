//! A configuration as a connection string, without its passwords: for logs and for people.

use std::fmt;

use super::keywords::quote;
use super::{Address, Config, SslMode, TargetSessionAttrs};

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}

impl fmt::Display for TargetSessionAttrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadWrite => "read-write",
            Self::Any => "any",
            Self::ReadOnly => "read-only",
        })
    }
}

/// Says where the sessions go, and how; not every limit.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Vec::new();
        let mut addrs = Vec::new();
        let mut ports = Vec::new();
        for host in &self.hosts {
            let (name, addr) = match &host.address {
                Address::Tcp { name, addr } => (name.clone(), addr.map(|addr| addr.to_string())),
                Address::Unix { directory } => (directory.to_string_lossy().into_owned(), None),
            };
            names.push(name);
            addrs.push(addr.unwrap_or_default());
            ports.push(host.port.to_string());
        }
        write!(f, "host={}", quote(&names.join(",")))?;
        if addrs.iter().any(|addr| !addr.is_empty()) {
            write!(f, " hostaddr={}", quote(&addrs.join(",")))?;
        }
        write!(
            f,
            " port={} dbname={} user={} application_name={} sslmode={} target_session_attrs={}",
            ports.join(","),
            quote(&self.database),
            quote(&self.user),
            quote(&self.application_name),
            self.tls.mode,
            self.target_session_attrs
        )
    }
}
