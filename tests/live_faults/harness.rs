//! What the tests share: one server for all that it survives, a proxy and a table for each test, and
//! the oracle.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use segue::client::Subscription;
use segue::{Client, ClientEvent, Error, Outcome, Session};
use segue_testkit::proxy::{Action, Connection, Message, Proxy, Side, Trigger};
use segue_testkit::{Cluster, Replication, Server};

/// Whatever is waited for must have happened by then, on a machine however busy.
pub const LONG: Duration = Duration::from_secs(30);

/// The server of all tests whose faults lie between it and the client.
static SHARED: LazyLock<Cluster> = LazyLock::new(|| {
    Cluster::builder()
        .standbys(0)
        .replication(Replication::Async)
        .max_connections(300)
        .start()
        .expect("a server")
});

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A client of the shared server behind a proxy of its own, and a table of its own.
pub struct Stand {
    pub proxy: Proxy,
    pub client: Client,
    pub table: String,
    events: Arc<Mutex<Vec<ClientEvent>>>,
    _subscription: Subscription,
}

/// No poll of the detector's may be taken for a message of the session's.
const QUIET: &str = "poll_interval_ms=30000 failover_timeout_ms=20000";

impl Stand {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With further options for the client.
    pub fn with(options: &str) -> Self {
        Self::on(server(), options)
    }

    pub fn on(server: &Server, options: &str) -> Self {
        let proxy = Proxy::to_server(server).expect("a proxy");
        let quiet = QUIET
            .split(' ')
            .filter(|option| !options.contains(option.split('=').next().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" ");
        let conninfo = format!("{} {quiet} {options}", SHARED.conninfo_via(&[proxy.port()]));
        let client = Client::connect(&conninfo).expect("a client");
        let events: Arc<Mutex<Vec<ClientEvent>>> = Arc::default();
        let sink = Arc::clone(&events);
        let subscription = client.on_event(move |event| sink.lock().unwrap().push(event.clone()));
        let table = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // No unique key: what is applied twice must show.
        server
            .execute(&format!(
                "CREATE TABLE {table} (id int8, note text); GRANT ALL ON {table} TO PUBLIC"
            ))
            .expect("a table");
        Self { proxy, client, table, events, _subscription: subscription }
    }

    pub fn session(&self) -> Session {
        self.client.session().expect("a session")
    }

    /// The SQL with `$T` for the table's name.
    pub fn sql(&self, sql: &str) -> String {
        sql.replace("$T", &self.table)
    }

    /// How often each id is in the table.
    pub fn content(&self) -> BTreeMap<i64, i64> {
        content(server(), &self.table)
    }

    pub fn control(&self, sql: &str) -> String {
        server().value(&self.sql(sql)).expect("the control connection")
    }

    pub fn control_execute(&self, sql: &str) {
        server().execute(&self.sql(sql)).expect("the control connection");
    }

    pub fn events(&self) -> Vec<ClientEvent> {
        self.events.lock().unwrap().clone()
    }

    pub fn has_event(&self, wanted: impl Fn(&ClientEvent) -> bool) -> bool {
        self.events().iter().any(wanted)
    }

    /// Fires at the next message of the session's that seals or commits.
    pub fn at_commit(&self, action: Action) -> Trigger {
        self.proxy.on_client_message(commits, action)
    }

    /// Resets the client's side only, so that the server goes on, unaware.
    pub fn cut_client_side(&self) {
        for connection in self.proxy.connections() {
            connection.reset(Side::Client);
        }
    }

    /// Resets every connection, and waits until the server has noticed.
    pub fn cut(&self) {
        self.proxy.reset_all();
    }
}

pub fn server() -> &'static Server {
    SHARED.server(0)
}

pub fn content(server: &Server, table: &str) -> BTreeMap<i64, i64> {
    server
        .query(&format!("SELECT id, count(*) FROM {table} GROUP BY id ORDER BY id"))
        .expect("the control connection")
        .iter()
        .map(|row| {
            let number = |index: usize| row[index].as_deref().unwrap().parse().unwrap();
            (number(0), number(1))
        })
        .collect()
}

/// Whether a message of the client's is a seal or COMMIT.
pub fn commits(message: &Message<'_>) -> bool {
    message.runs("UPDATE segue.ledger SET")
        || message.runs("segue.seal($1, $2)")
        || message.runs("segue.seal('")
        || message.runs("COMMIT")
}

/// The ids that one commit writes, and what was reported of it.
pub type Reported = (Vec<i64>, Result<(), Error>);

/// Compares what was reported with what is there. `unknown` is allowed nowhere with a ledger.
#[track_caller]
pub fn judge(case: &str, content: &BTreeMap<i64, i64>, reported: &[Reported]) {
    for (ids, result) in reported {
        let outcome = match result {
            Ok(()) => Outcome::Committed,
            Err(error) => error.outcome(),
        };
        let expected = match outcome {
            Outcome::Committed => 1,
            Outcome::NotCommitted => 0,
            _ => panic!("{case}: outcome unknown of {ids:?}: {result:?}"),
        };
        for id in ids {
            let there = content.get(id).copied().unwrap_or(0);
            assert_eq!(there, expected, "{case}: id {id} reported {result:?}, found {there} times");
        }
    }
}

/// Waits for a trigger in a thread of its own, then does something with its connection.
pub fn after(
    trigger: Trigger,
    work: impl FnOnce(Connection) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let connection = trigger.wait(LONG).expect("the trigger fires");
        work(connection);
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

/// Does it in a thread of its own and fails if it takes longer: a hang must not hang the tests.
#[track_caller]
pub fn within<T: Send + 'static>(
    time: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || drop(sender.send(work())));
    match receiver.recv_timeout(time) {
        Ok(value) => {
            thread.join().expect("the thread's end");
            value
        }
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(_) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it was sent"),
        },
    }
}
