//! Many sessions at once through one failover, and sessions that are opened and closed meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use segue::ClientEvent;

use super::setup::Stage;
use super::workload::{PATIENCE, Workload};

#[test]
fn seventy_sessions_and_those_that_come_and_go() {
    let stage = Stage::new();
    let cluster = &stage.cluster;
    let load = Workload::start_with(&stage.client, 10, 20_000);
    load.arm();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also where an assertion fails, for the scope waits for them.
        let end = End(&over);
        let comers = (0..4).map(|comer| {
            let (stage, over) = (&stage, &over);
            scope.spawn(move || {
                let mut visits = 0;
                while !over.load(Ordering::SeqCst) {
                    let mut session = stage.client.session().unwrap();
                    let sql = "SELECT $1::int4";
                    assert_eq!(
                        session.query_one(sql, &[&comer]).unwrap().get::<i32>(0).unwrap(),
                        comer
                    );
                    // Some go without a word, and some in the middle of a transaction.
                    match visits % 3 {
                        0 => session.close(),
                        1 => drop(session),
                        _ => {
                            let mut tx = session.transaction().unwrap();
                            tx.execute("INSERT INTO done VALUES (-1)", &[]).unwrap();
                        }
                    }
                    visits += 1;
                }
                visits
            })
        });
        let comers: Vec<_> = comers.collect();
        std::thread::sleep(Duration::from_millis(200));
        cluster.server(0).kill_all().unwrap();
        cluster.promote(1, PATIENCE).unwrap();
        load.settle();
        drop(end);
        for comer in comers {
            assert!(comer.join().unwrap() > 1);
        }
    });
    let moved = stage.events.count(|e| matches!(e, ClientEvent::SessionMoved { server: 1, .. }));
    assert!(moved >= 70, "{moved}");
    stage.events.assert_in_order();
    load.finish().check(cluster.server(1));
    stage.wait("only those that are open are counted", |s| s.sessions == 0 && s.waiting == 0);
    assert_eq!(stage.client.status().sessions, 0);
}

/// Sends the comers and goers home.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
