//! A network that swallows, delays or garbles, and servers that could be reached all the same.

use std::time::{Duration, Instant};

use segue::cluster::{ClusterEvent, Health};
use segue_testkit::proxy::{Accept, Direction, Flow, Proxy};
use segue_testkit::{Cluster, Replication};

use super::setup::{Client, PATIENCE, ask, assert_writes};

fn proxied(servers: &Cluster) -> Vec<Proxy> {
    servers.servers().iter().map(|server| Proxy::to_server(server).unwrap()).collect()
}

fn conninfo(servers: &Cluster, proxies: &[Proxy]) -> String {
    servers.conninfo_via(&proxies.iter().map(Proxy::port).collect::<Vec<_>>())
}

#[test]
fn a_black_holed_primary_is_left_for_the_promoted_standby() {
    let servers = Cluster::builder().replication(Replication::Async).start().unwrap();
    let proxies = proxied(&servers);
    let client = Client::open(&conninfo(&servers, &proxies));
    let mut session = client.session(None);
    client.wait("the standby is warm", |s| s.servers[1].warm_links == 1);
    proxies[0].set_flow_both(Flow::Drop);
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| ask(&mut session.link, "SELECT 1"));
        servers.promote(1, PATIENCE).unwrap();
        let promoted = Instant::now();
        assert!(blocked.join().unwrap().is_err(), "nothing can have come through");
        let mut session = client.session(Some(0));
        assert_eq!(session.server, 1);
        assert!(promoted.elapsed() < Duration::from_millis(1500), "{:?}", promoted.elapsed());
        assert_writes(&mut session);
    });
}

#[test]
fn a_slow_network_raises_no_suspicion() {
    let servers = Cluster::builder().standbys(0).start().unwrap();
    let proxies = proxied(&servers);
    let options = "poll_interval_ms=50 poll_timeout_ms=2000";
    let client = Client::open(&format!("{} {options}", conninfo(&servers, &proxies)));
    drop(client.session(None));
    proxies[0].set_delay(Direction::ToClient, Duration::from_millis(300));
    let polled = proxies[0].connections()[0].clone();
    let before = polled.bytes(Direction::ToClient);
    client.wait("several polls are answered", |_| polled.bytes(Direction::ToClient) > before + 20);
    assert_eq!(client.server(0).health, Health::Healthy);
    let unrest = |e: &ClusterEvent| {
        matches!(
            e,
            ClusterEvent::Suspect { .. }
                | ClusterEvent::Lost { .. }
                | ClusterEvent::NoServer { .. }
        )
    };
    assert!(!client.saw(unrest), "{:?}", client.events());
}

#[test]
fn garbage_from_a_server_ends_the_link_and_is_got_over() {
    let servers = Cluster::builder().standbys(0).start().unwrap();
    let proxies = proxied(&servers);
    let client = Client::open(&conninfo(&servers, &proxies));
    drop(client.session(None));
    for connection in proxies[0].connections() {
        connection.inject(Direction::ToClient, b"?\xff\xff\xff\xffgarbage");
    }
    client.wait_for_event("the link is lost", |e| {
        matches!(e, ClusterEvent::Lost { server: 0, reason, .. } if reason.contains("malformed"))
    });
    assert_writes(&mut client.session(Some(0)));
}

#[test]
fn a_server_that_accepts_and_says_nothing_holds_nobody_up() {
    let servers = Cluster::builder().start().unwrap();
    let proxies = proxied(&servers);
    // The standby is first in the list and never answers.
    proxies[1].set_accept(Accept::Silent).unwrap();
    let ports = [proxies[1].port(), proxies[0].port()];
    let client = Client::open(&servers.conninfo_via(&ports));
    let began = Instant::now();
    assert_eq!(client.session(None).server, 1);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    client.wait("it is suspect", |s| s.servers[0].health == Health::Suspect);
    proxies[1].set_accept(Accept::Forward).unwrap();
    client.wait("it is the standby", |s| s.standby == Some(0));
}
