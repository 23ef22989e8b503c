//! Opens a cluster on real servers, and waits for what is expected of it, with deadlines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use segue::Error;
use segue::cluster::{
    Cluster, ClusterEvent, Facts, Handover, Preparations, ServerStatus, Status, Want,
};
use segue::config::Config;
use segue::link::Link;

/// No wait of these tests takes longer on a sound build, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Nothing;

impl Preparations for Nothing {
    fn prepare(&self, _: &Facts, _: &[u32], _: &mut BytesMut) -> Vec<u32> {
        Vec::new()
    }
}

pub struct Client {
    pub cluster: Arc<Cluster>,
    events: Arc<Mutex<Vec<ClusterEvent>>>,
    sessions: AtomicU64,
}

/// A session's link.
pub struct Session {
    pub id: u64,
    pub server: usize,
    pub facts: Facts,
    pub prepared: Vec<u32>,
    pub link: Link,
}

impl Client {
    pub fn open(conninfo: &str) -> Self {
        Self::open_with(conninfo, Arc::new(Nothing))
    }

    pub fn open_with(conninfo: &str, preparations: Arc<dyn Preparations>) -> Self {
        let config = Config::parse(conninfo).expect("the test's own configuration");
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let cluster = Cluster::open(
            Arc::new(config),
            preparations,
            Arc::new(move |event| sink.lock().unwrap().push(event)),
        );
        Self { cluster: cluster.unwrap(), events, sessions: AtomicU64::new(1) }
    }

    pub fn want(&self, lost: Option<usize>, patience: Duration) -> Want {
        Want {
            session: self.sessions.fetch_add(1, Ordering::Relaxed),
            timeline_floor: 0,
            writes: true,
            lost,
            deadline: Instant::now() + patience,
        }
    }

    /// Acquires a link and registers it, as a session does.
    pub fn session(&self, lost: Option<usize>) -> Session {
        self.try_session(&self.want(lost, PATIENCE)).unwrap()
    }

    pub fn try_session(&self, want: &Want) -> Result<Session, Error> {
        let Handover { link, server, facts, prepared, .. } =
            self.cluster.acquire(want, &mut || false)?;
        self.cluster.register(want.session, server, link.waker());
        Ok(Session { id: want.session, server, facts, prepared, link })
    }

    pub fn status(&self) -> Arc<Status> {
        self.cluster.status()
    }

    pub fn server(&self, index: usize) -> ServerStatus {
        self.status().servers[index].clone()
    }

    pub fn wait(&self, what: &str, mut condition: impl FnMut(&Status) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.status()) {
            assert!(
                Instant::now() < deadline,
                "waited in vain until {what}: {:#?} after {:#?}",
                self.status(),
                self.events()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn wait_for_event(&self, what: &str, condition: impl Fn(&ClusterEvent) -> bool) {
        self.wait(what, |_| self.saw(&condition));
    }

    pub fn saw(&self, condition: impl Fn(&ClusterEvent) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(condition)
    }

    pub fn events(&self) -> Vec<ClusterEvent> {
        self.events.lock().unwrap().clone()
    }
}

/// Sends a simple query and reads to ReadyForQuery. Returns the rest of the conversation as text,
/// in which a value or a SQLSTATE can be looked for; or what went wrong with the link.
pub fn ask(link: &mut Link, sql: &str) -> std::io::Result<String> {
    let mut out = BytesMut::new();
    postgres_protocol::message::frontend::query(sql, &mut out)?;
    link.send(&out)?;
    let mut buf = BytesMut::new();
    while !buf.ends_with(b"Z\0\0\0\x05I") {
        if link.recv_deadline(&mut buf, Instant::now() + PATIENCE)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&buf).into_owned())
}

/// Writes something, so that there is no doubt that it may.
pub fn assert_writes(session: &mut Session) {
    let sql = "CREATE TABLE IF NOT EXISTS written (); DROP TABLE written";
    let reply = ask(&mut session.link, sql).unwrap();
    assert!(reply.contains("DROP TABLE"), "not writable: {reply}");
}
