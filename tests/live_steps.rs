//! A session driven step by step against real servers: polled, through a failover too; several sets of
//! parameters in one request; columns in formats of their own.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use segue::client::Progress;
use segue::session::Event;
use segue::{Client, Session, ToSql};
use segue_testkit::Cluster;

/// Polls until something is ready, as an event loop would; counts what was wanted on the way.
struct Loop {
    reads: usize,
    helps: usize,
    deadline: Instant,
}

impl Loop {
    fn new() -> Self {
        Self { reads: 0, helps: 0, deadline: Instant::now() + Duration::from_secs(60) }
    }

    fn until<T>(
        &mut self,
        session: &mut Session,
        mut step: impl FnMut(&mut Session) -> segue::Result<Progress<T>>,
    ) -> segue::Result<T> {
        loop {
            assert!(Instant::now() < self.deadline, "it does not come to an end");
            let events = match step(session)? {
                Progress::Ready(value) => return Ok(value),
                Progress::WantsHelp => {
                    self.helps += 1;
                    session.help()?;
                    continue;
                }
                Progress::WantsRead => PollFlags::IN,
                Progress::WantsWrite => PollFlags::IN | PollFlags::OUT,
            };
            self.reads += 1;
            let socket = session.socket().expect("a link");
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            poll(&mut [PollFd::new(&socket.as_fd(), events)], Some(&second)).unwrap();
        }
    }

    /// The tags of a request's statements, and its rows.
    fn reply(&mut self, session: &mut Session) -> segue::Result<(Vec<String>, usize)> {
        let (mut tags, mut rows, mut failed) = (Vec::new(), 0, None);
        loop {
            rows += session.received_rows().map_or(0, Iterator::count);
            match self.until(session, |session| Ok(session.poll_event()))? {
                Event::Row(_) => rows += 1,
                Event::Complete(tag) => {
                    let tag = String::from_utf8_lossy(&tag);
                    tags.push(tag.trim_end_matches('\0').to_owned());
                }
                Event::Error(error) => failed = Some(error),
                Event::Ready(_) => return failed.map_or(Ok((tags, rows)), Err),
                _ => {}
            }
        }
    }

    fn run(&mut self, session: &mut Session, sql: &str) -> segue::Result<(Vec<String>, usize)> {
        self.until(session, Session::poll_ready)?;
        session.start(sql, &[], false, &[], false)?;
        self.reply(session)
    }
}

#[test]
fn polling_never_waits_and_comes_to_the_same() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let client = Client::connect(&cluster.conninfo()).expect("a client");
    let mut session = client.session().unwrap();
    let mut events = Loop::new();
    events.run(&mut session, "CREATE TABLE t (a int, b text)").unwrap();
    session.start_begin(&segue::TransactionOptions::default()).unwrap();
    assert_eq!(events.reply(&mut session).unwrap().0, ["BEGIN"]);
    let before = Instant::now();
    session.start("SELECT pg_sleep(0.5)", &[], false, &[], false).unwrap();
    assert!(matches!(session.poll_event(), Progress::WantsRead));
    assert!(before.elapsed() < Duration::from_millis(400), "the poll has waited");
    assert_eq!(events.reply(&mut session).unwrap(), (vec!["SELECT 1".to_owned()], 1));
    // More than the socket's buffers hold, both ways at once.
    let big = "x".repeat(20_000_000);
    session.start("SELECT $1::text", &[&big.as_str() as &dyn ToSql], false, &[], false).unwrap();
    assert_eq!(events.reply(&mut session).unwrap().1, 1);
    let error = events.run(&mut session, "SELECT 1/0").unwrap_err();
    assert_eq!(error.sqlstate(), "22012");
    session.start_rollback().unwrap();
    assert_eq!(events.reply(&mut session).unwrap().0, ["ROLLBACK"]);
    let (tags, rows) = events.run(&mut session, "SELECT generate_series(1, 100000)").unwrap();
    assert_eq!((tags, rows), (vec!["SELECT 100000".to_owned()], 100_000));
    assert!(events.reads > 0 && events.helps == 0);
}

#[test]
fn a_failover_wants_help_and_the_transaction_goes_on() {
    let cluster = Cluster::builder().standbys(1).start().expect("a cluster");
    let client = Client::connect(&cluster.conninfo()).expect("a client");
    let mut session = client.session().unwrap();
    let mut events = Loop::new();
    events.run(&mut session, "CREATE TABLE t (a int)").unwrap();
    session.start_begin(&segue::TransactionOptions::default()).unwrap();
    events.reply(&mut session).unwrap();
    events.run(&mut session, "INSERT INTO t VALUES (1)").unwrap();
    cluster.wait_for_standbys().unwrap();
    cluster.primary().kill_postmaster().unwrap();
    cluster.promote(1, Duration::from_secs(20)).unwrap();
    events.run(&mut session, "INSERT INTO t VALUES (2)").unwrap();
    session.start_commit().unwrap();
    assert_eq!(events.reply(&mut session).unwrap().0, ["COMMIT"]);
    assert!(events.helps > 0, "the link was not lost");
    assert_eq!(events.run(&mut session, "SELECT a FROM t").unwrap().1, 2);
}

#[test]
fn several_sets_of_parameters_in_one_request() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let client = Client::connect(&cluster.conninfo()).expect("a client");
    let mut session = client.session().unwrap();
    let mut events = Loop::new();
    events.run(&mut session, "CREATE TABLE t (a int PRIMARY KEY)").unwrap();
    let insert = "INSERT INTO t VALUES ($1)";
    let numbers: Vec<i32> = (0..500).collect();
    let sets: Vec<[&dyn ToSql; 1]> = numbers.iter().map(|n| [n as &dyn ToSql]).collect();
    let sets: Vec<&[&dyn ToSql]> = sets.iter().map(|set| &set[..]).collect();
    session.start_sets(insert, &sets).unwrap();
    let (tags, _) = events.reply(&mut session).unwrap();
    assert_eq!(tags, vec!["INSERT 0 1"; 500]);
    // One that fails takes all with it.
    let (new, old) = (1000, 7);
    session.start_sets(insert, &[&[&new], &[&old], &[&new]]).unwrap();
    assert_eq!(events.reply(&mut session).unwrap_err().sqlstate(), "23505");
    assert_eq!(session.query("SELECT a FROM t", &[]).unwrap().len(), 500);
    assert!(session.start_sets(insert, &[&[&new], &[&"8"]]).is_err(), "of different types");
    assert!(session.start_sets("COMMIT", &[&[]]).is_err());
    assert_eq!(session.query("SELECT a FROM t", &[]).unwrap().len(), 500);
}

#[test]
fn columns_in_formats_of_their_own() {
    let cluster = Cluster::builder().start().expect("a cluster");
    let client = Client::connect(&cluster.conninfo()).expect("a client");
    let mut session = client.session().unwrap();
    let prepared = session.prepare("SELECT 258, 258").unwrap();
    session.start(&prepared, &[], false, &[0, 1], false).unwrap();
    let mut body = None;
    loop {
        match session.wait_event().unwrap() {
            Event::Row(row) => body = Some(row),
            Event::Ready(_) => break,
            _ => {}
        }
    }
    assert_eq!(body.as_deref(), Some(&b"\0\x02\0\0\0\x03258\0\0\0\x04\0\0\x01\x02"[..]));
}
