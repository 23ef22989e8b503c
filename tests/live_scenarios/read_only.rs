//! The primary is turned read-only under the sessions' feet: nobody sees that. What the application
//! itself has made read-only still refuses to write, in the server's own words.

use segue::cluster::Role;
use segue::{Session, TransactionOptions};
use segue_testkit::Server;

use super::setup::Stage;
use super::workload::{PATIENCE, Workload};

#[test]
fn a_primary_turned_read_only_and_back_then_for_good() {
    let stage = Stage::new();
    let (old, new) = (stage.cluster.server(0), stage.cluster.server(1));
    let load = Workload::start(&stage.client);
    load.arm();
    turn_read_only(old);
    stage.wait("it is known to be read only", |s| s.servers[0].role == Role::ReadOnlyPrimary);
    stage.wait("writers wait", |s| s.waiting > 0);
    assert_eq!(stage.status().chosen, None);
    old.reset_config("default_transaction_read_only").unwrap();
    load.settle();
    assert_eq!(stage.status().chosen, Some(0));

    load.arm();
    turn_read_only(old);
    stage.wait("writers wait", |s| s.waiting > 0);
    stage.cluster.promote(1, PATIENCE).unwrap();
    load.settle();
    assert_eq!(stage.status().chosen, Some(1));
    stage.events.assert_in_order();
    let record = load.finish();
    record.check(new);
    record.check_left_behind(old);
}

fn turn_read_only(server: &Server) {
    server.set_config("default_transaction_read_only", "on").unwrap();
}

#[test]
fn read_only_by_the_applications_own_wish() {
    let stage = Stage::new();
    let mut session = stage.client.session().unwrap();
    let mut tx = session.transaction_with(&TransactionOptions::default().read_only()).unwrap();
    assert_refused(&mut tx);
    tx.rollback().unwrap();

    let mut tx = session.transaction().unwrap();
    tx.execute("SET TRANSACTION READ ONLY", &[]).unwrap();
    assert_refused(&mut tx);
    tx.rollback().unwrap();

    session.execute("BEGIN READ ONLY", &[]).unwrap();
    assert_refused(&mut session);
    session.execute("ROLLBACK", &[]).unwrap();

    for (on, off) in [
        ("SET default_transaction_read_only = on", "SET default_transaction_read_only = off"),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        ),
    ] {
        session.execute(on, &[]).unwrap();
        assert_refused(&mut session);
        let mut tx = session.transaction().unwrap();
        assert_refused(&mut tx);
        tx.rollback().unwrap();
        session.execute(off, &[]).unwrap();
        session.execute("INSERT INTO done VALUES (1)", &[]).unwrap();
    }
    let set = "SELECT set_config('default_transaction_read_only', 'on', false)";
    session.query(set, &[]).unwrap();
    assert_refused(&mut session);
    assert_eq!(stage.cluster.server(0).value("SELECT count(*) FROM done").unwrap(), "2");
    let moved = |e: &segue::ClientEvent| matches!(e, segue::ClientEvent::SessionMoved { .. });
    assert_eq!(stage.events.count(moved), 0, "{:#?}", stage.events.all());
}

fn assert_refused(session: &mut Session) {
    let error = session.execute("INSERT INTO done VALUES (0)", &[]).unwrap_err();
    assert_eq!(error.sqlstate(), "25006", "{error}");
}
