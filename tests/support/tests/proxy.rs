//! Every fault of the proxy, seen by a real client on a real server.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use segue_testkit::proxy::{Accept, Action, Direction, Flow, Proxy, Side};
use segue_testkit::{Cluster, Server};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

/// A server, a proxy in front of it, and a client behind that.
fn stand() -> (Cluster, Proxy) {
    let cluster = Cluster::builder().standbys(0).fsync(false).start().unwrap();
    cluster.primary().execute("CREATE TABLE t (n int); GRANT ALL ON t TO app").unwrap();
    let proxy = Proxy::to_server(cluster.primary()).unwrap();
    (cluster, proxy)
}

fn connect(cluster: &Cluster, proxy: &Proxy) -> Client {
    Client::connect(&cluster.conninfo_via(&[proxy.port()]), NoTls).unwrap()
}

fn count(server: &Server) -> String {
    server.value("SELECT count(*) FROM t").unwrap()
}

/// Whether the query has an answer, be it an error, in time. The client goes with its thread.
fn answers(mut client: Client, sql: &'static str, within: Duration) -> Option<bool> {
    let (answer_to, answer) = channel();
    thread::spawn(move || {
        let result = client.simple_query(sql).is_ok();
        let _ = answer_to.send(result);
    });
    answer.recv_timeout(within).ok()
}

/// Inserts a row and commits, by the extended protocol, with the COMMIT prepared beforehand.
fn insert_and_commit(mut client: Client) -> thread::JoinHandle<Result<(), postgres::Error>> {
    thread::spawn(move || {
        let commit = client.prepare("COMMIT")?;
        client.batch_execute("BEGIN")?;
        client.execute("INSERT INTO t VALUES ($1)", &[&1i32])?;
        client.execute(&commit, &[]).map(drop)
    })
}

#[test]
fn bytes_and_connections_are_counted() {
    let (cluster, proxy) = stand();
    let mut client = connect(&cluster, &proxy);
    client.simple_query("SELECT 1").unwrap();
    assert_eq!(proxy.accepted(), 1);
    assert_eq!(proxy.connections().len(), 1);
    assert!(proxy.bytes(Direction::ToServer) > 20 && proxy.bytes(Direction::ToClient) > 100);
    drop(client);
    let deadline = Instant::now() + LONG;
    while !proxy.connections().is_empty() {
        assert!(Instant::now() < deadline, "a closed connection stays");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn large_results_pass_unchanged() {
    let (cluster, proxy) = stand();
    let mut client = connect(&cluster, &proxy);
    let row = client.query_one("SELECT repeat('x', 3000000)", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0).len(), 3_000_000);
    assert_eq!(client.query("SELECT generate_series(1, 50000)", &[]).unwrap().len(), 50_000);
}

#[test]
fn a_stall_delays_and_loses_nothing() {
    let (cluster, proxy) = stand();
    for direction in [Direction::ToServer, Direction::ToClient] {
        let mut client = connect(&cluster, &proxy);
        proxy.set_flow(direction, Flow::Stall);
        let query = thread::spawn(move || client.simple_query("INSERT INTO t VALUES (1)").is_ok());
        thread::sleep(SHORT);
        assert!(!query.is_finished());
        let arrived = if direction == Direction::ToClient { "2" } else { "0" };
        assert_eq!(count(cluster.primary()), arrived);
        proxy.set_flow(direction, Flow::Pass);
        assert!(query.join().unwrap());
    }
    assert_eq!(count(cluster.primary()), "2");
}

#[test]
fn what_is_dropped_never_arrives() {
    let (cluster, proxy) = stand();
    let client = connect(&cluster, &proxy);
    proxy.set_flow(Direction::ToServer, Flow::Drop);
    assert_eq!(answers(client, "INSERT INTO t VALUES (1)", SHORT), None);
    assert_eq!(count(cluster.primary()), "0");

    let proxy = Proxy::to_server(cluster.primary()).unwrap();
    let client = connect(&cluster, &proxy);
    proxy.set_flow(Direction::ToClient, Flow::Drop);
    assert_eq!(answers(client, "INSERT INTO t VALUES (1)", SHORT), None);
    assert_eq!(count(cluster.primary()), "1");
}

#[test]
fn a_reset_is_seen_as_one() {
    let (cluster, proxy) = stand();
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    // Something must have passed before the connection stands on both sides.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    proxy.reset_all();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut client = connect(&cluster, &proxy);
    client.simple_query("SELECT 1").unwrap();
    // Reset towards the client only: the server's session stays.
    proxy.connections()[0].reset(Side::Client);
    assert!(client.simple_query("SELECT 1").is_err());
    thread::sleep(SHORT);
    assert_eq!(cluster.primary().backend_pids().unwrap().len(), 1);
    proxy.reset_all();
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'app'";
    cluster.primary().wait_until(gone, LONG).unwrap();
}

#[test]
fn streams_end_in_one_direction() {
    let (_cluster, proxy) = stand();
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    proxy.connections()[0].half_close(Direction::ToClient);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    stream.write_all(&[0]).unwrap();
}

#[test]
fn new_connections_are_refused_silent_or_reset() {
    let (cluster, proxy) = stand();
    let connect_plainly = || TcpStream::connect(("127.0.0.1", proxy.port()));
    proxy.set_accept(Accept::Refuse).unwrap();
    assert_eq!(connect_plainly().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.set_accept(Accept::Silent).unwrap();
    let mut silent = connect_plainly().unwrap();
    silent.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.set_accept(Accept::Reset).unwrap();
    let mut reset = connect_plainly().unwrap();
    assert_eq!(reset.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.set_accept(Accept::Forward).unwrap();
    connect(&cluster, &proxy).simple_query("SELECT 1").unwrap();
}

#[test]
fn delays_add_up_to_a_round_trip() {
    let (cluster, proxy) = stand();
    let mut client = connect(&cluster, &proxy);
    proxy.set_delay(Direction::ToServer, Duration::from_millis(100));
    proxy.set_delay(Direction::ToClient, Duration::from_millis(100));
    let start = Instant::now();
    client.simple_query("SELECT 1").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[test]
fn bandwidth_is_limited() {
    let (cluster, proxy) = stand();
    let mut client = connect(&cluster, &proxy);
    proxy.set_bandwidth(Direction::ToClient, Some(100_000));
    let start = Instant::now();
    client.simple_query("SELECT repeat('x', 30000)").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(250));
}

#[test]
fn a_link_with_corrupt_or_foreign_bytes_fails() {
    let (cluster, proxy) = stand();
    let mut client = connect(&cluster, &proxy);
    proxy.connections()[0].corrupt_next(Direction::ToClient, 0);
    assert!(client.simple_query("SELECT 1").is_err());

    let proxy = Proxy::to_server(cluster.primary()).unwrap();
    let client = connect(&cluster, &proxy);
    proxy.connections()[0].inject(Direction::ToClient, b"\xff\0\0\0\x04rubbish");
    assert_eq!(answers(client, "SELECT 1", LONG), Some(false));
}

#[test]
fn a_commit_can_be_kept_from_arriving() {
    let (cluster, proxy) = stand();
    let trigger = proxy.on_client_message(|message| message.runs("commit"), Action::Drop);
    let work = insert_and_commit(connect(&cluster, &proxy));
    let connection = trigger.wait(LONG).unwrap();
    thread::sleep(SHORT);
    assert!(!work.is_finished());
    assert_eq!(count(cluster.primary()), "0");
    connection.reset(Side::Both);
    assert!(work.join().unwrap().is_err());
    cluster.primary().wait_until("SELECT count(*) = 0 FROM t", LONG).unwrap();
}

#[test]
fn an_acknowledgement_can_be_swallowed() {
    let (cluster, proxy) = stand();
    let trigger = proxy.on_client_message(|message| message.runs("commit"), Action::SwallowReply);
    let work = insert_and_commit(connect(&cluster, &proxy));
    let connection = trigger.wait(LONG).unwrap();
    assert_eq!(count(cluster.primary()), "1", "it fires when the commit has happened");
    assert!(!work.is_finished());
    connection.reset(Side::Both);
    assert!(work.join().unwrap().is_err());
}

#[test]
fn a_commit_can_arrive_late() {
    let (cluster, proxy) = stand();
    let trigger = proxy.on_client_message(|message| message.runs("COMMIT"), Action::Hold);
    let work = insert_and_commit(connect(&cluster, &proxy));
    let connection = trigger.wait(LONG).unwrap();
    connection.reset(Side::Client);
    assert!(work.join().unwrap().is_err());
    assert_eq!(count(cluster.primary()), "0");
    // The zombie: nobody waits for it any more, and it commits all the same.
    connection.release();
    cluster.primary().wait_until("SELECT count(*) = 1 FROM t", LONG).unwrap();
}

#[test]
fn an_acknowledgement_can_arrive_late() {
    let (cluster, proxy) = stand();
    let trigger = proxy.on_client_message(|message| message.runs("COMMIT"), Action::HoldReply);
    let work = insert_and_commit(connect(&cluster, &proxy));
    let connection = trigger.wait(LONG).unwrap();
    cluster.primary().wait_until("SELECT count(*) = 1 FROM t", LONG).unwrap();
    assert!(!work.is_finished());
    connection.release();
    work.join().unwrap().unwrap();
}

#[test]
fn a_connection_is_reset_around_a_commit() {
    let (cluster, proxy) = stand();
    let trigger = proxy.on_client_message(|message| message.runs("COMMIT"), Action::Reset);
    assert!(insert_and_commit(connect(&cluster, &proxy)).join().unwrap().is_err());
    trigger.wait(LONG).unwrap();
    assert_eq!(count(cluster.primary()), "0");

    proxy.on_client_message(|message| message.runs("COMMIT"), Action::ForwardThenReset);
    assert!(insert_and_commit(connect(&cluster, &proxy)).join().unwrap().is_err());
    cluster.primary().wait_until("SELECT count(*) = 1 FROM t", LONG).unwrap();
}

#[test]
fn a_stream_ends_in_the_middle_of_a_result() {
    let (_cluster, proxy) = stand();
    let trigger = proxy.on_server_tag(b'D', 100, Action::Close);
    // By hand, because a client library may throw away rows in front of a broken stream.
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    stream.write_all(b"\0\0\0\x1f\0\x03\0\0user\0app\0database\0app\0\0").unwrap();
    let sql = b"SELECT generate_series(1, 1000)\0";
    stream.write_all(&[b"Q\0\0\0", &[sql.len() as u8 + 4][..], sql].concat()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut rest = &bytes[..];
    let mut rows = 0;
    while let [tag, a, b, c, d, ..] = *rest {
        rows += usize::from(tag == b'D');
        rest = &rest[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    assert_eq!((rows, rest.len()), (99, 0));
    trigger.wait(LONG).unwrap();
}

#[test]
fn a_stream_is_cut_after_some_bytes() {
    let (cluster, proxy) = stand();
    let client = connect(&cluster, &proxy);
    let before = proxy.bytes(Direction::ToClient);
    let trigger = proxy.after_bytes(Direction::ToClient, 12_345, Action::Reset);
    assert_eq!(answers(client, "SELECT generate_series(1, 10000)", LONG), Some(false));
    trigger.wait(LONG).unwrap();
    assert_eq!(proxy.bytes(Direction::ToClient) - before, 12_345);
}

#[test]
fn a_server_is_killed_with_a_commit_on_its_doorstep() {
    let (cluster, proxy) = stand();
    let server = cluster.primary().clone();
    let kill = Action::run(move |_| server.kill_all().unwrap());
    let trigger = proxy.on_client_message(|message| message.runs("COMMIT"), kill);
    assert!(insert_and_commit(connect(&cluster, &proxy)).join().unwrap().is_err());
    trigger.wait(LONG).unwrap();
    cluster.primary().start().unwrap();
    assert_eq!(count(cluster.primary()), "0");
}

#[test]
fn a_message_is_corrupted() {
    let (cluster, proxy) = stand();
    let client = connect(&cluster, &proxy);
    proxy.on_server_message(|message| message.tag == b'C', Action::Corrupt);
    assert_eq!(answers(client, "SELECT 1", LONG), Some(false));
}

#[test]
fn a_trigger_that_does_not_fire_says_so() {
    let (_cluster, proxy) = stand();
    let trigger = proxy.on_client_message(|_| true, Action::Drop);
    assert!(trigger.wait(Duration::from_millis(20)).is_err());
}

#[test]
fn encrypted_connections_pass_unread() {
    let cluster = Cluster::builder().standbys(0).tls(true).start().unwrap();
    let proxy = Proxy::to_server(cluster.primary()).unwrap();
    let psql = || {
        let program = segue_testkit::Binaries::find().unwrap().path("psql");
        let mut command = std::process::Command::new(program);
        command.args(["-Atc", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "-d"]);
        command.arg(cluster.conninfo_via(&[proxy.port()])).output().unwrap()
    };
    let output = psql();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "t\n", "{output:?}");
    let trigger = proxy.after_bytes(Direction::ToClient, 1_500, Action::Reset);
    assert!(!psql().status.success());
    trigger.wait(LONG).unwrap();
}

#[test]
fn a_dead_upstream_is_a_reset_and_a_new_one_can_be_set() {
    let vacant = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::to_address(vacant).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (cluster, _) = stand();
    proxy.set_upstream((cluster.primary().address(), cluster.primary().port())).unwrap();
    connect(&cluster, &proxy).simple_query("SELECT 1").unwrap();
}
