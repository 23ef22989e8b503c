//! What TLS is to accept and to present: rustls' configuration, built from [`Tls`].
//!
//! Building one reads files and parses every trusted root, so they are kept, and built anew only
//! when one of those files has changed. The cryptography is named explicitly: the process-wide
//! default belongs to the application.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use super::verifier::{Trusting, Unverified};
use crate::config::{Address, Host, RootCert, SslMode, Tls, TlsVersion};
use crate::error::{Error, ErrorKind, Result};

/// Configurations kept at once; a process with more than that many builds some of them again.
const KEPT_MAX: usize = 16;

static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

struct Kept {
    tls: Tls,
    stamps: Vec<Stamp>,
    config: Arc<ClientConfig>,
}

/// Tells whether a file is still the one that was read: device, inode, length, time of change (of its
/// rights as well as its content).
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// The configuration for `tls`, built once and shared until one of its files changes.
pub(super) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>> {
    let stamps = stamps(tls);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = kept.iter().find(|k| k.tls == *tls && k.stamps == stamps) {
        return Ok(Arc::clone(&found.config));
    }
    let config = Arc::new(build(tls)?);
    kept.retain(|k| k.tls != *tls);
    if kept.len() >= KEPT_MAX {
        kept.remove(0);
    }
    kept.push(Kept { tls: tls.clone(), stamps, config: Arc::clone(&config) });
    Ok(config)
}

fn stamps(tls: &Tls) -> Vec<Stamp> {
    let root = match &tls.root_cert {
        RootCert::File(path) => Some(path),
        RootCert::None | RootCert::System => None,
    };
    [root, tls.client_cert.as_ref(), tls.client_key.as_ref(), tls.crl.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| {
            let m = fs::metadata(path).ok()?;
            Some((m.dev(), m.ino(), m.len(), m.ctime(), m.ctime_nsec()))
        })
        .collect()
}

/// The name to check the certificate against and to send as SNI.
pub(super) fn server_name(tls: &Tls, host: &Host) -> Result<ServerName<'static>> {
    let Address::Tcp { name, addr } = &host.address else {
        return Err(Error::new(ErrorKind::Config, "TLS is not used on Unix sockets"));
    };
    let by_address = addr.map(|ip| ServerName::IpAddress(ip.into()));
    if name.is_empty() {
        return by_address.ok_or_else(|| Error::new(ErrorKind::Config, "a server without a name"));
    }
    match ServerName::try_from(name.clone()) {
        Ok(name) => Ok(name),
        Err(e) if tls.mode == SslMode::VerifyFull => Err(Error::new(
            ErrorKind::Tls,
            format!("{name:?} cannot be a name in a certificate; sslmode=verify-full needs one"),
        )
        .with_source(e)),
        // Nothing is checked against the name: any address will do, and none is sent as SNI.
        Err(_) => {
            Ok(by_address.unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())))
        }
    }
}

fn build(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: Vec<&'static SupportedProtocolVersion> =
        [(TlsVersion::V1_2, &rustls::version::TLS12), (TlsVersion::V1_3, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(version, _)| (tls.min_version..=tls.max_version).contains(version))
            .map(|(_, supported)| supported)
            .collect();
    if versions.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "ssl_min_protocol_version is above ssl_max_protocol_version",
        ));
    }
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|e| Error::new(ErrorKind::Tls, "TLS cannot be set up").with_source(e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(tls, provider)?);
    let mut config = match (&tls.client_cert, &tls.client_key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert, "sslcert")?, private_key(key)?)
            .map_err(|e| {
                Error::new(
                    ErrorKind::Tls,
                    format!("sslcert {} and sslkey {} do not fit", cert.display(), key.display()),
                )
                .with_source(e)
            })?,
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => {
            return Err(Error::new(ErrorKind::Config, "sslcert is given without its sslkey"));
        }
        (None, Some(_)) => {
            return Err(Error::new(ErrorKind::Config, "sslkey is given without its sslcert"));
        }
    };
    config.enable_sni = tls.sni;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    // PostgreSQL resumes no sessions; keeping tickets would only cost memory.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn verifier(tls: &Tls, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let mut pinned = Vec::new();
    let roots = match (&tls.root_cert, tls.mode) {
        (RootCert::None, SslMode::Disable | SslMode::Require) => {
            return Ok(Arc::new(Unverified::new(&provider)));
        }
        (RootCert::None, SslMode::VerifyCa | SslMode::VerifyFull) => {
            return Err(Error::new(
                ErrorKind::Config,
                "sslmode asks to verify the server's certificate and there are no roots to verify \
                 it by; give the authority's certificate with sslrootcert=FILE, or use \
                 sslrootcert=system for the operating system's",
            ));
        }
        // Anybody can get a certificate from a public authority: without the name it proves nothing.
        (RootCert::System, SslMode::Require | SslMode::VerifyCa) => {
            return Err(Error::new(
                ErrorKind::Config,
                "sslrootcert=system needs sslmode=verify-full: a certificate of a public authority \
                 proves nothing without the host name",
            ));
        }
        (RootCert::System, _) => system_roots()?,
        (RootCert::File(path), _) => {
            pinned = certificates(path, "sslrootcert")?;
            root_store(path, &pinned)?
        }
    };
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &tls.crl {
        let crls = CertificateRevocationListDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| unreadable(path, "sslcrl", e))?;
        if crls.is_empty() {
            return Err(empty(path, "sslcrl", "revocation list"));
        }
        builder = builder.with_crls(crls).enforce_revocation_expiration();
    }
    let verifier = builder.build().map_err(|e| {
        let message = match e {
            VerifierBuilderError::InvalidCrl(_) => {
                "sslcrl cannot be used; it must be a revocation list of version 2"
            }
            _ => "sslrootcert cannot be used",
        };
        Error::new(ErrorKind::Tls, message).with_source(e)
    })?;
    let check_name = tls.mode == SslMode::VerifyFull;
    Ok(Arc::new(Trusting { webpki: verifier, pinned, check_name }))
}

fn system_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    // Stores carry certificates that rustls cannot read; the others are good.
    roots.add_parsable_certificates(loaded.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let error = Error::new(
        ErrorKind::Tls,
        "sslrootcert=system, but the operating system has no trusted roots; install its package \
         of CA certificates or name a file",
    );
    Err(match loaded.errors.into_iter().next() {
        Some(e) => error.with_source(e),
        None => error,
    })
}

fn root_store(path: &Path, certificates: &[CertificateDer<'static>]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|e| {
            Error::new(
                ErrorKind::Tls,
                format!("sslrootcert {} holds a certificate that cannot be used", path.display()),
            )
            .with_source(e)
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path, option: &str) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable(path, option, e))?;
    if certificates.is_empty() {
        return Err(empty(path, option, "certificate"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let metadata = fs::metadata(path).map_err(|e| unreadable(path, "sslkey", pem::Error::Io(e)))?;
    if is_exposed(&metadata) {
        return Err(Error::new(
            ErrorKind::Tls,
            format!(
                "sslkey {} can be read by others; take their rights away (chmod 600, or 640 where \
                 root owns it)",
                path.display()
            ),
        ));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|e| match e {
        pem::Error::NoItemsFound => Error::new(
            ErrorKind::Tls,
            format!(
                "sslkey {} holds no private key in PEM; one that is encrypted cannot be used",
                path.display()
            ),
        ),
        e => unreadable(path, "sslkey", e),
    })
}

/// libpq's rule: nobody but the owner, except that root's may be read by its group.
fn is_exposed(metadata: &Metadata) -> bool {
    let forbidden = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    metadata.is_file() && metadata.mode() & forbidden != 0
}

fn unreadable(path: &Path, option: &str, error: pem::Error) -> Error {
    let message = format!("{option} {} cannot be read", path.display());
    Error::new(ErrorKind::Tls, message).with_source(error)
}

fn empty(path: &Path, option: &str, what: &str) -> Error {
    let message = format!("{option} {} holds no {what} in PEM", path.display());
    Error::new(ErrorKind::Tls, message)
}
