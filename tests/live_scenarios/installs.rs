//! The link breaks under the very first session while it installs the ledger. The client went on
//! without one for the rest of its life, and `status()` hung for as long as the installation did.

use std::time::{Duration, Instant};

use segue::Client;
use segue_testkit::Cluster;

use super::workload::PATIENCE;

#[test]
fn an_installation_whose_link_breaks_is_begun_again() {
    let cluster = Cluster::builder().start().unwrap();
    let server = cluster.server(0);
    let client = Client::connect(&cluster.conninfo()).unwrap();
    // What every installation takes first.
    let superuser = server.conninfo_superuser();
    let mut blocker = postgres::Client::connect(&superuser, postgres::NoTls).unwrap();
    blocker.batch_execute("SELECT pg_advisory_lock(7310022437264650033)").unwrap();
    let waiting = "wait_event_type = 'Lock' AND wait_event = 'advisory'";
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| client.session().unwrap());
        let one = format!("SELECT count(*) = 1 FROM pg_stat_activity WHERE {waiting}");
        server.wait_until(&one, PATIENCE).unwrap();
        let asked = Instant::now();
        assert_eq!(client.status().ledger_problem, None);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        let end =
            format!("SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {waiting}");
        let ended = server.value(&end).unwrap();
        server.wait_until(&format!("{one} AND pid <> {ended}"), PATIENCE).unwrap();
        drop(blocker);
        let session = opening.join().unwrap();
        assert!(session.status().ledger, "{:?}", client.status());
        assert_eq!(client.status().ledger_problem, None);
    });
}
