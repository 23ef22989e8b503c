//! What the tests share: one server for all that it survives, and a table for each test.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use segue::{Client, Submission, Ticket};
use segue_testkit::{Cluster, Replication, Server};

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

/// A client of the shared server, which is nobody else's: two with the same configuration would be one.
pub fn client(options: &str) -> Client {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let conninfo = format!("{} application_name=submit{number} {options}", SHARED.conninfo());
    Client::connect(&conninfo).expect("a client")
}

/// A table of its own. No unique key: what is applied twice must show.
pub fn table() -> String {
    let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    make_table(server(), &name);
    name
}

pub fn make_table(server: &Server, name: &str) {
    server
        .execute(&format!(
            "CREATE TABLE {name} (at serial, id int8, note text); GRANT ALL ON {name} TO PUBLIC; \
             GRANT ALL ON SEQUENCE {name}_at_seq TO PUBLIC"
        ))
        .expect("a table");
}

pub fn insert(table: &str, id: i64) -> Submission {
    let sql = format!("INSERT INTO {table} (id, note) VALUES ($1, $2)");
    Submission::new().statement(&sql, &[&id, &"a note"]).expect("a submission")
}

/// The ids in the table, in the order of their insertion.
pub fn ids_on(server: &Server, table: &str) -> Vec<i64> {
    let rows = server.query(&format!("SELECT id FROM {table} ORDER BY at")).expect("the rows");
    rows.iter().map(|row| row[0].as_deref().unwrap().parse().unwrap()).collect()
}

pub fn ids(table: &str) -> Vec<i64> {
    ids_on(server(), table)
}

/// Waits until it is committed.
#[track_caller]
pub fn committed(ticket: &Ticket) -> segue::Executed {
    ticket.wait(LONG).expect("it is committed").expect("its outcome is known in time")
}

/// Waits until it is a dead letter.
#[track_caller]
pub fn refused(ticket: &Ticket) -> segue::Error {
    match ticket.wait(LONG) {
        Err(error) => error,
        Ok(outcome) => panic!("not refused: {outcome:?}"),
    }
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

/// Does it in a thread of its own and fails if it takes longer: a hang must not hang the tests.
#[track_caller]
pub fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(work())));
    match receiver.recv_timeout(2 * LONG) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it was sent"),
        },
    }
}
