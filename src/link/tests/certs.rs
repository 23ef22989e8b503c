//! Certificates made with the `openssl` command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::server::run;

/// A certificate and its key.
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// A certificate authority with a directory of its own.
pub(super) struct Authority(TempDir);

impl Authority {
    pub(super) fn new() -> Self {
        let authority = Self(TempDir::new().unwrap());
        let dir = authority.0.path();
        let conf = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={0}/index\nserial={0}/serial\nnew_certs_dir={0}\n\
             certificate={0}/ca.crt\nprivate_key={0}/ca.key\ndefault_md=sha256\n\
             default_days=30\ndefault_crl_days=30\ncrlnumber={0}/crlnumber\n\
             crl_extensions=crl\npolicy=p\nunique_subject=no\n\
             [p]\ncommonName=supplied\n\
             [crl]\nauthorityKeyIdentifier=keyid\n\
             [server]\nbasicConstraints=CA:FALSE\nsubjectAltName=DNS:db.test,IP:127.0.0.1\n\
             extendedKeyUsage=serverAuth\n\
             [client]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n",
            dir.display()
        );
        fs::write(dir.join("ca.conf"), conf).unwrap();
        fs::write(dir.join("index"), "").unwrap();
        fs::write(dir.join("serial"), "1000\n").unwrap();
        fs::write(dir.join("crlnumber"), "1000\n").unwrap();
        let pair =
            authority.self_signed("ca", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        assert_eq!(pair.cert, authority.root());
        authority
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.0.path().join(format!("{name}.{extension}"))
    }

    pub(super) fn root(&self) -> PathBuf {
        self.path("ca", "crt")
    }

    /// A certificate that vouches for itself, with the key and signature of `how`.
    pub(super) fn self_signed(&self, name: &str, how: &[&str]) -> Pair {
        let pair = Pair { cert: self.path(name, "crt"), key: self.path(name, "key") };
        openssl(|c| {
            c.args(["req", "-x509", "-nodes", "-days", "30", "-subj"])
                .arg(format!("/CN={name}"))
                .args(how)
                .arg("-keyout")
                .arg(&pair.key)
                .arg("-out")
                .arg(&pair.cert)
        });
        pair
    }

    /// A certificate of version 1, as PostgreSQL's manual has them made.
    pub(super) fn version_1(&self) -> Pair {
        let pair = self.self_signed("v1", &["-newkey", "rsa:2048"]);
        let request = self.path("v1", "csr");
        openssl(|c| {
            c.args(["req", "-new", "-subj", "/CN=db.test", "-key"]).arg(&pair.key);
            c.arg("-out").arg(&request)
        });
        openssl(|c| {
            c.args(["x509", "-req", "-days", "30", "-in"]).arg(&request).arg("-signkey");
            c.arg(&pair.key).arg("-out").arg(&pair.cert)
        });
        pair
    }

    /// A certificate signed by this authority. `extensions` is `server` or `client`.
    pub(super) fn issue(&self, name: &str, extensions: &str, dates: Option<[&str; 2]>) -> Pair {
        let pair = Pair { cert: self.path(name, "crt"), key: self.path(name, "key") };
        let request = self.path(name, "csr");
        openssl(|c| {
            c.args(["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj"])
                .arg(format!("/CN={name}"))
                .arg("-keyout")
                .arg(&pair.key)
                .arg("-out")
                .arg(&request)
        });
        openssl(|c| {
            c.args(["ca", "-batch", "-config"]).arg(self.path("ca", "conf"));
            if let Some([from, to]) = dates {
                c.args(["-startdate", from, "-enddate", to]);
            }
            c.args(["-extensions", extensions, "-in"]).arg(&request).arg("-out").arg(&pair.cert)
        });
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
        pair
    }

    /// A certificate that vouches for itself, valid between two dates.
    pub(super) fn self_made(&self, name: &str, dates: [&str; 2]) -> Pair {
        let pair = self.issue(name, "server", None);
        openssl(|c| {
            c.args(["ca", "-batch", "-selfsign", "-startdate", dates[0], "-enddate", dates[1]]);
            c.args(["-extensions", "server", "-config"]).arg(self.path("ca", "conf"));
            c.arg("-keyfile").arg(&pair.key).arg("-in").arg(self.path(name, "csr"));
            c.arg("-out").arg(&pair.cert)
        });
        pair
    }

    pub(super) fn revoke(&self, cert: &Path) {
        openssl(|c| {
            c.args(["ca", "-config"]).arg(self.path("ca", "conf")).arg("-revoke").arg(cert)
        });
    }

    /// The list of what has been revoked until now.
    pub(super) fn revocation_list(&self, name: &str) -> PathBuf {
        let list = self.path(name, "crl");
        openssl(|c| {
            c.args(["ca", "-gencrl", "-config"]).arg(self.path("ca", "conf"));
            c.arg("-out").arg(&list)
        });
        list
    }
}

fn openssl(arguments: impl FnOnce(&mut Command) -> &mut Command) {
    run(arguments(&mut Command::new("openssl")));
}
