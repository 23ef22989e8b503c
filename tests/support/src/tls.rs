//! Certificates for a cluster, made by openssl when it is created: an authority, the servers'
//! certificate, and a client certificate for the application's role.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::USER;
use crate::error::{Error, Result};
use crate::owner::{Owner, run, tool};

/// Where a cluster's certificates lie.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The authority's certificate: what `sslrootcert` wants.
    pub ca: PathBuf,
    /// The servers' certificate, for 127.0.0.1, localhost and the addresses asked for.
    pub server_cert: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// A certificate whose common name is the application's role.
    pub client_cert: PathBuf,
    /// Its key, readable by the caller alone.
    pub client_key: PathBuf,
}

impl TlsFiles {
    /// Makes all of them in `dir`; `names` are further subject alternative names such as
    /// `DNS:db.example` or `IP:10.0.0.1`.
    ///
    /// # Errors
    /// When openssl is missing or fails.
    pub(crate) fn make(owner: &Owner, dir: &Path, names: &[String]) -> Result<Self> {
        let openssl =
            tool("openssl").ok_or(Error::MissingTool { tool: "openssl", package: "openssl" })?;
        owner.create_dir(dir)?;
        let file = |name: &str| dir.join(name);
        let ca_key = file("ca.key");
        let files = Self {
            ca: file("ca.crt"),
            server_cert: file("server.crt"),
            server_key: file("server.key"),
            client_cert: file("client.crt"),
            client_key: file("client.key"),
        };
        let mut san = "subjectAltName=IP:127.0.0.1,DNS:localhost".to_owned();
        for name in names {
            san.push(',');
            san.push_str(name);
        }
        let ca_usage = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
        certify(&openssl, "/CN=segue test authority", &files.ca, &ca_key, None, &ca_usage)?;
        let issuer = Some((files.ca.as_path(), ca_key.as_path()));
        let server = [san.as_str(), "basicConstraints=CA:FALSE", "extendedKeyUsage=serverAuth"];
        let (cert, key) = (&files.server_cert, &files.server_key);
        certify(&openssl, "/CN=localhost", cert, key, issuer, &server)?;
        let client = ["basicConstraints=CA:FALSE", "extendedKeyUsage=clientAuth"];
        let (cert, key) = (&files.client_cert, &files.client_key);
        certify(&openssl, &format!("/CN={USER}"), cert, key, issuer, &client)?;
        owner.hand_over(&files.ca, 0o644)?;
        owner.hand_over(&files.server_cert, 0o644)?;
        owner.hand_over(&files.server_key, 0o600)?;
        Ok(files)
    }
}

fn certify(
    openssl: &Path,
    subject: &str,
    cert: &Path,
    key: &Path,
    issuer: Option<(&Path, &Path)>,
    extensions: &[&str],
) -> Result<()> {
    let mut command = Command::new(openssl);
    // An empty configuration: the system's may add extensions that contradict ours.
    command.env("OPENSSL_CONF", "/dev/null");
    command
        .args(["req", "-x509", "-sha256", "-nodes", "-days", "30", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", subject, "-out"])
        .arg(cert)
        .arg("-keyout")
        .arg(key);
    if let Some((ca, ca_key)) = issuer {
        command.arg("-CA").arg(ca).arg("-CAkey").arg(ca_key);
    }
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    run("openssl req", &mut command).map(drop)
}
