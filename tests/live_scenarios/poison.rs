//! A statement that ends its own backend whenever it is run: replaying it for ever would keep a
//! session, and with a statement that crashes its server everybody else, busy until the end of time.

use std::sync::mpsc::channel;

use segue::{ErrorKind, Outcome};

use super::setup::Stage;
use super::workload::PATIENCE;

const POISON: &str = "SELECT pg_terminate_backend(pg_backend_pid())";

#[test]
fn a_statement_that_always_loses_its_link_is_given_up() {
    let stage = Stage::new();
    let mut session = stage.client.session().unwrap();
    let (told, hear) = channel();
    std::thread::spawn(move || {
        let alone = session.execute(POISON, &[]);
        let mut tx = session.transaction().unwrap();
        tx.execute("INSERT INTO done VALUES (1)", &[]).unwrap();
        let inside = tx.execute(POISON, &[]);
        drop(tx);
        session.execute("INSERT INTO done VALUES (2)", &[]).unwrap();
        told.send((alone, inside)).unwrap();
    });
    let (alone, inside) = hear.recv_timeout(PATIENCE).expect("it is tried for ever");
    for error in [alone.unwrap_err(), inside.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ProtectionLost, "{error}");
        assert_eq!(error.outcome(), Outcome::NotCommitted, "{error}");
    }
    let ids = stage.cluster.server(0).value("SELECT string_agg(id::text, ',') FROM done").unwrap();
    assert_eq!(ids, "2");
}
