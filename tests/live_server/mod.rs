//! One PostgreSQL server for one test file, which dies with it. It never runs as root.

use std::process::{Command, Output};

use postgres::{Client, NoTls};
use tempfile::TempDir;

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// Of the socket in the server's directory.
pub const PORT: u16 = 5432;

pub struct Server {
    dir: TempDir,
}

impl Server {
    /// Starts a fresh server that listens on a Unix socket of its own only.
    pub fn start(settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("segue-live-").tempdir_in("/tmp").unwrap();
        let server = Self { dir };
        let path = server.path();
        if is_root() {
            check(Command::new("chown").args(["postgres", &path]).output().unwrap());
        }
        let data = format!("{path}/data");
        check(
            server
                .run("initdb", &["-D", &data, "-A", "trust", "-U", "postgres", "-N", "-E", "UTF8"]),
        );
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories={path} -c port={PORT} -c fsync=off \
             -c max_connections=40 {settings}"
        );
        let log = format!("{path}/log");
        check(server.run("pg_ctl", &["-D", &data, "-l", &log, "-o", &options, "-w", "start"]));
        server
    }

    pub fn connect(&self) -> Client {
        self.connect_as("postgres")
    }

    pub fn connect_as(&self, user: &str) -> Client {
        let config = format!("host={} port={PORT} user={user} dbname=postgres", self.path());
        Client::connect(&config, NoTls).unwrap()
    }

    /// The directory with the server's socket.
    pub fn path(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let program = format!("{BIN}/{program}");
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", &program]);
            command
        } else {
            Command::new(&program)
        };
        // pg_ctl's server inherits the pipes; the log file and -w say all that there is to know.
        if program.ends_with("pg_ctl") {
            let null = std::process::Stdio::null;
            command.stdin(null()).stdout(null()).stderr(null());
            let status = command.args(arguments).current_dir("/").status().unwrap();
            return Output { status, stdout: Vec::new(), stderr: Vec::new() };
        }
        command.args(arguments).current_dir("/").output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = format!("{}/data", self.path());
        self.run("pg_ctl", &["-D", &data, "-m", "immediate", "-w", "stop"]);
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn check(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
