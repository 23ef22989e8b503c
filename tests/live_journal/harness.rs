//! What the tests share: one server, a directory and a table for each test, and what a journal says.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use segue::Client;
use segue::journal::{Disk, FoundKind, Record, Recovered, State, read};
use segue_testkit::{Cluster, Replication, Server};
use tempfile::TempDir;

/// Whatever is waited for must have happened by then, on a machine however busy.
pub const LONG: Duration = Duration::from_secs(60);

static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::builder()
        .standbys(0)
        .replication(Replication::Async)
        .max_connections(300)
        .start()
        .expect("a server")
});

static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn server() -> &'static Server {
    SHARED.server(0)
}

/// A journal's directory and a table of its own.
pub struct Stand {
    dir: TempDir,
    pub table: String,
}

impl Stand {
    pub fn new() -> Self {
        let table = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        make_table(server(), &table);
        Self { dir: tempfile::tempdir().expect("a directory"), table }
    }

    pub fn journal(&self) -> PathBuf {
        self.dir.path().join("j")
    }

    pub fn conninfo(&self, options: &str) -> String {
        let dir = self.journal();
        format!("{} journal=file journal_dir={} {options}", SHARED.conninfo(), dir.display())
    }

    pub fn conninfo_via(&self, port: u16, options: &str) -> String {
        let dir = self.journal();
        let servers = SHARED.conninfo_via(&[port]);
        format!("{servers} journal=file journal_dir={} {options}", dir.display())
    }

    pub fn client(&self, options: &str) -> Client {
        Client::connect(&self.conninfo(options)).expect("a client")
    }

    pub fn insert(&self, id: i64) -> String {
        format!("INSERT INTO {} VALUES ({id})", self.table)
    }

    pub fn ids(&self) -> Vec<i64> {
        ids_on(server(), &self.table)
    }
}

pub fn make_table(server: &Server, name: &str) {
    // No unique key: what is applied twice must show.
    let sql = format!("CREATE TABLE {name} (id int8, note text); GRANT ALL ON {name} TO PUBLIC");
    server.execute(&sql).expect("a table");
}

pub fn ids_on(server: &Server, table: &str) -> Vec<i64> {
    let rows = server.query(&format!("SELECT id FROM {table} ORDER BY id")).expect("the rows");
    rows.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect()
}

/// One transaction in flight, as a journal has it.
#[derive(Debug)]
pub struct InFlight {
    pub state: State,
    pub statements: Vec<String>,
    /// All requests, with their parameters, one after another.
    pub requests: Vec<u8>,
}

impl InFlight {
    /// Whether a request has this parameter; an int8 is sent as its eight bytes.
    pub fn has_parameter(&self, id: i64) -> bool {
        self.requests.windows(8).any(|bytes| bytes == id.to_be_bytes())
    }
}

pub fn look(dir: &Path) -> Recovered {
    read(Arc::new(Disk::look(dir).expect("the directory")), None).expect("the journal")
}

/// The transactions in flight.
pub fn in_flight(dir: &Path) -> Vec<InFlight> {
    let recovered = look(dir);
    assert!(!recovered.report().is_damaged(), "{:?}", recovered.report());
    let mut all = Vec::new();
    for found in recovered.in_flight() {
        let FoundKind::Transaction { session, .. } = found.what else { continue };
        let of = recovered.get(session).map(|found| found.what);
        assert!(matches!(of, Some(FoundKind::Session { .. })), "its session is there: {of:?}");
        assert!(!found.doubtful);
        let mut statements = Vec::new();
        let mut requests = Vec::new();
        recovered
            .records(found, |record| match record {
                Record::Statement(it) => {
                    assert!(it.executions().is_some());
                    statements.push(it.sql.to_owned());
                    requests.extend_from_slice(it.request);
                }
                Record::StatementData(data) => requests.extend_from_slice(data),
                _ => {}
            })
            .expect("its records");
        all.push(InFlight { state: found.state.clone(), statements, requests });
    }
    all
}

/// Whether the ledger has one of the numbers that the journal names.
pub fn is_committed(server: &Server, state: &State) -> bool {
    let State::Sent(seals) = state else { panic!("nothing was sent: {state:?}") };
    seals.iter().any(|seal| {
        let sql = format!("SELECT seq, recent FROM segue.look('{{{}}}'::uuid[])", seal.row);
        server.query(&sql).expect("the ledger").iter().any(|row| {
            let number = |index: usize| row[index].as_deref().unwrap().parse::<i64>().unwrap();
            match number(0) - seal.number as i64 {
                age @ 0..64 => number(1) >> age & 1 == 1,
                age => age > 0,
            }
        })
    })
}

/// Asks until it holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
