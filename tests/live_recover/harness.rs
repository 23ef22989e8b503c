//! A client's past: a journal as an earlier process leaves it, with seals on a real server.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use segue::journal::{
    Disk, Fate, Form, Journal, Options, OutcomeKnown, Owner, Record, Seal, SessionOpened,
    Statement, SyncPolicy, TransactionBegan,
};
use segue::{Client, RecoveredTransaction, Verdict};
use segue_testkit::{Cluster, Replication, Server};
use tempfile::TempDir;
use uuid::Uuid;

/// Whatever is waited for must have happened by then, on a machine however busy.
pub const LONG: Duration = Duration::from_secs(60);

static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
    let builder = Cluster::builder().standbys(0).replication(Replication::Async);
    let cluster = builder.max_connections(200).start().expect("a server");
    prepare(&cluster);
    cluster
});

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Has the ledger installed, and a table for the tests.
pub fn prepare(cluster: &Cluster) {
    let client = Client::connect(&cluster.conninfo()).expect("a client");
    client.session().expect("a session installs the ledger");
    let sql = "CREATE TABLE t (id text, note bytea); GRANT ALL ON t TO PUBLIC";
    cluster.primary().execute(sql).expect("a table");
}

pub fn shared() -> &'static Cluster {
    &SHARED
}

pub fn server() -> &'static Server {
    SHARED.server(0)
}

pub fn system_identifier(server: &Server) -> u64 {
    let value = server.value("SELECT system_identifier FROM pg_control_system()");
    value.expect("a superuser's look").parse().expect("a number")
}

/// A journal that is written as a client does, and then left as if the process had died.
pub struct Past {
    pub dir: TempDir,
    pub conninfo: String,
    journal: Option<Journal>,
    system_identifier: u64,
    pub session: u64,
    session_owner: Option<Owner>,
    pub session_uuid: Uuid,
}

impl Past {
    pub fn new() -> Self {
        Self::on(shared())
    }

    pub fn on(cluster: &Cluster) -> Self {
        let conninfo = cluster.conninfo();
        Self::with(conninfo, system_identifier(cluster.primary()), None)
    }

    pub fn with(
        conninfo: String,
        system_identifier: u64,
        key: Option<segue::journal::Key>,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut past = Self {
            journal: None,
            dir,
            conninfo,
            system_identifier,
            session: 0,
            session_owner: None,
            session_uuid: Uuid::new_v4(),
        };
        let disk = Disk::open(&past.path()).expect("a journal's directory");
        let mut options = Options::new(SyncPolicy::Batch, 4 << 20, Uuid::new_v4());
        options.key = key;
        let (journal, _) = Journal::open(Arc::new(disk), options).expect("a journal");
        past.journal = Some(journal);
        let owner = past.write(
            None,
            &Record::SessionOpened(SessionOpened {
                session: past.session_uuid,
                ledger_row: Uuid::new_v4(),
                number: 0,
                system_identifier: past.system_identifier,
                opened_unix_ms: 1_700_000_000_000,
                database: "postgres",
                user: "somebody",
            }),
        );
        past.session = owner.number();
        past.session_owner = Some(owner);
        past
    }

    /// The session has gone on upon a server of this timeline.
    pub fn reached(&mut self, timeline: u32) {
        let owner = self.session_owner.take().expect("the session's records");
        self.session_owner = Some(self.write(Some(owner), &Record::Timeline(timeline)));
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    /// Hands in a record and has it kept.
    pub fn write(&self, owner: Option<Owner>, record: &Record<'_>) -> Owner {
        let journal = self.journal.as_ref().expect("it has not been left");
        let mut owner = owner.unwrap_or_else(|| journal.begin());
        owner.append(journal, record).expect("it is handed in");
        owner.commit(journal, None).expect("it is kept");
        owner
    }

    pub fn began(&self, autocommit: bool) -> Owner {
        self.write(
            None,
            &Record::TransactionBegan(TransactionBegan {
                session: self.session,
                began_unix_ms: 1_700_000_001_000,
                autocommit,
                read_only: false,
                begin: "",
            }),
        )
    }

    pub fn statement(&self, owner: Owner, sql: &str, values: &[Option<&[u8]>]) -> Owner {
        let request = request(&[], &[values]);
        let types = vec![0; values.len()];
        let form = Form::Extended;
        let record = Statement { form, sql, param_oids: types.into(), request: &request };
        self.write(Some(owner), &Record::Statement(record))
    }

    pub fn sent(&self, owner: Owner, row: Uuid, number: u64) -> Owner {
        self.write(Some(owner), &Record::CommitSent(Seal { row, number, guarded: false }))
    }

    pub fn known(&self, owner: Owner, fate: Fate) -> Owner {
        let known = OutcomeKnown { fate, at_unix_ms: 1_700_000_002_000, sqlstate: "" };
        self.write(Some(owner), &Record::OutcomeKnown(known))
    }

    /// A transaction that inserts `id`, of which the commit has been sent under this number.
    pub fn transaction(&self, id: &str, row: Uuid, number: u64) -> u64 {
        let owner = self.began(false);
        let owner = self.statement(owner, INSERT, &[Some(id.as_bytes())]);
        self.sent(owner, row, number).number()
    }

    /// The process dies.
    pub fn leave(&mut self) {
        self.journal = None;
    }

    /// Another process begins with the same journal. Its client is nobody else's.
    pub fn client(&self, options: &str) -> Client {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let text = format!(
            "{} application_name=recover{number} journal=file journal_dir={} {options}",
            self.conninfo,
            self.path().display(),
        );
        Client::connect(&text).expect("a client")
    }
}

pub const INSERT: &str = "INSERT INTO t (id) VALUES ($1)";

/// Bind and Execute for each set of values.
pub fn request(formats: &[i16], executions: &[&[Option<&[u8]>]]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for values in executions {
        let written = frontend::bind(
            "",
            "segue_1",
            formats.iter().copied(),
            values.iter(),
            |value, out| {
                value.map_or(Ok(IsNull::Yes), |value| {
                    out.extend_from_slice(value);
                    Ok(IsNull::No)
                })
            },
            [1],
            &mut out,
        );
        assert!(written.is_ok());
        frontend::execute("", 0, &mut out).unwrap();
    }
    out.to_vec()
}

/// A fresh row in the ledger.
pub fn open_row(server: &Server) -> Uuid {
    let row = Uuid::new_v4();
    let sql = format!("SELECT segue.open('{row}', '{}')", Uuid::nil());
    server.execute(&sql).expect("a row");
    row
}

/// Commits the insertion of `id` under this number, as a session does.
pub fn commit(server: &Server, id: &str, row: Uuid, number: u64) {
    let sql = format!("BEGIN; INSERT INTO t (id) VALUES ('{id}'); {}; COMMIT", seal(row, number));
    server.execute(&sql).expect("it is committed");
}

/// The seal's plain UPDATE, as a simple query.
pub fn seal(row: Uuid, number: u64) -> String {
    let update = segue::session::ledger::SEAL_TABLE;
    update.replace("$2", &format!("{number}::int8")).replace("$1", &format!("'{row}'::uuid"))
}

pub fn count(server: &Server, id: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM t WHERE id = '{id}'");
    server.value(&sql).expect("a count").parse().expect("a number")
}

/// The highest number of the row.
pub fn seq(server: &Server, row: Uuid) -> u64 {
    let sql = format!("SELECT seq FROM segue.ledger WHERE session = '{row}'");
    server.value(&sql).expect("the row").parse().expect("a number")
}

/// A name that no other test uses.
pub fn name() -> String {
    format!("id{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
pub fn verdicts(found: &[RecoveredTransaction]) -> Vec<Verdict> {
    found.iter().map(RecoveredTransaction::verdict).collect()
}

#[track_caller]
pub fn only(mut found: Vec<RecoveredTransaction>) -> RecoveredTransaction {
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Flips a bit wherever `mark` stands in the journal's files.
pub fn flip(past: &Past, mark: &[u8]) {
    let mut flipped = 0;
    for entry in std::fs::read_dir(past.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(mark)) {
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            flipped += 1;
        }
    }
    assert!(flipped > 0);
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
