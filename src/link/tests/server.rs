//! A PostgreSQL server that lives as long as a test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{PATIENCE, config, dial, named, query};
use crate::config::{Address, Config, Host};

const BIN: &str = "/usr/lib/postgresql/15/bin";

pub(super) struct Server {
    process: Child,
    pub(super) port: u16,
    dir: TempDir,
}

impl Server {
    /// Starts a server; users of the given names exist, each with the password `secret`.
    ///
    /// `local` connections are trusted, the `hba` lines hold for all others.
    pub(super) fn start(hba: &str, conf: &str, files: &[(&str, &Path)]) -> Self {
        let dir = tempfile::Builder::new().prefix("segue-link-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        own(dir.path());
        let data = dir.path().join("data");
        run(as_postgres("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"])
            .arg(&data));
        fs::write(data.join("pg_hba.conf"), format!("local all all trust\n{hba}\n")).unwrap();
        for (name, source) in files {
            install(source, &data.join(name));
        }
        let port = free_port();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = as_postgres("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-c"])
            .arg(format!("unix_socket_directories={},@segue-link-{port}", dir.path().display()))
            .args(["-c", "fsync=off"])
            .args(conf.lines().flat_map(|line| ["-c", line.trim()]))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { process, port, dir };
        server.await_start();
        server
    }

    fn await_start(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(e) = dial(&config("postgres"), &self.unix()) {
            assert!(Instant::now() < deadline, "the server does not start: {e}\n{}", self.log());
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Runs statements as the superuser.
    pub(super) fn execute(&self, sql: &str) -> Vec<String> {
        query(&mut dial(&config("postgres"), &self.unix()).unwrap(), sql).unwrap()
    }

    pub(super) fn unix(&self) -> Host {
        Host::new(Address::Unix { directory: self.dir.path().to_owned() }, self.port)
    }

    pub(super) fn tcp(&self) -> Host {
        named("127.0.0.1", self.port)
    }

    /// Presents another certificate from now on; returns when the server does.
    pub(super) fn present(&self, cert: &Path, key: &Path, probe: &Config) {
        let data = self.dir.path().join("data");
        install(cert, &data.join("server.crt"));
        install(key, &data.join("server.key"));
        self.signal("-HUP");
        let expected = certificate_der(cert);
        let deadline = Instant::now() + PATIENCE;
        while presented(probe, &self.tcp()).as_ref() != Some(&expected) {
            assert!(Instant::now() < deadline, "the certificate does not change\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: &str) {
        run(Command::new("kill").args([signal, &self.process.id().to_string()]));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Immediate shutdown: nothing of it is worth a checkpoint.
        let _ = Command::new("kill").args(["-QUIT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

/// The certificate that a server shows, in DER.
fn presented(config: &Config, host: &Host) -> Option<Vec<u8>> {
    use crate::link::dial::Transport;
    let transport = super::block_on(Transport::connect(config, host, true, None)).ok()?;
    transport.tls?.certificate()
}

fn certificate_der(path: &Path) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let program = PathBuf::from(BIN).join(program);
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    // A test that is killed takes its servers along.
    command
        .args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"])
        .args(["--pdeathsig", "QUIT", "--"])
        .arg(program)
        .current_dir("/");
    command
}

fn install(source: &Path, target: &Path) {
    let _ = fs::remove_file(target);
    fs::copy(source, target).unwrap();
    fs::set_permissions(target, fs::Permissions::from_mode(0o600)).unwrap();
    own(target);
}

/// Gives a file to the user that the server runs as.
fn own(path: &Path) {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return;
    }
    let id = |flag: &str| -> u32 {
        let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    chown(path, Some(id("-u")), Some(id("-g"))).unwrap();
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
