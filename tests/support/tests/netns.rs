//! A server in a network of its own, black-holed and healed.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use segue_testkit::netns::{Namespace, Packets};
use segue_testkit::{Cluster, Error};

const SHORT: Duration = Duration::from_millis(500);

#[test]
fn packets_of_a_server_are_dropped_and_rejected() {
    let namespace = match Namespace::create() {
        Ok(namespace) => namespace,
        // Only root can; whoever runs the tests otherwise learns why this one has nothing to say.
        Err(Error::Unsupported(reason)) if reason.contains("need root") => return,
        Err(error) => panic!("{error}"),
    };
    let cluster = Cluster::builder().in_namespace(0, &namespace).start().unwrap();
    let primary = cluster.primary();
    assert_eq!(primary.address(), namespace.address());
    let address = format!("{}:{}", primary.address(), primary.port()).parse().unwrap();
    let connect = || TcpStream::connect_timeout(&address, SHORT);

    let mut client = postgres::Client::connect(&primary.conninfo(), postgres::NoTls).unwrap();
    client.simple_query("SELECT 1").unwrap();
    let mut idle = connect().unwrap();

    namespace.drop_packets(Packets::Both).unwrap();
    assert_eq!(connect().unwrap_err().kind(), ErrorKind::TimedOut);
    idle.set_read_timeout(Some(SHORT)).unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // The kit itself still reaches it, and the standby can be promoted.
    assert!(!primary.is_in_recovery().unwrap());
    cluster.promote(1, Duration::from_secs(30)).unwrap();

    namespace.heal().unwrap();
    client.simple_query("SELECT 1").unwrap();

    namespace.reject_packets().unwrap();
    assert_eq!(connect().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    namespace.heal().unwrap();

    namespace.set_link(false).unwrap();
    assert!(connect().is_err());
    namespace.set_link(true).unwrap();
    // The kernel repeats its question for the address once a second.
    TcpStream::connect_timeout(&address, Duration::from_secs(20)).unwrap();
}
