//! Runs a string of statements on the primary, on a link of its own: for what the client installs.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};

use super::Want;
use super::conn::refused;
use super::detector::Failure;
use super::hub::Hub;
use crate::error::{Error, ErrorKind, Outcome, Result};

/// Runs `sql` once. When this returns, what is known of the server's ledger is current.
///
/// It is never sent twice: whether it was executed is unknown where the link breaks meanwhile.
pub async fn run(hub: &Rc<Hub>, sql: &str, deadline: Instant) -> Result<()> {
    let asked = Instant::now();
    let want = Want { session: 0, timeline_floor: 0, writes: true, lost: None, deadline };
    let mut sent = false;
    match timeout_at(deadline.into(), attempt(hub, &want, sql, &mut sent)).await {
        Ok(done) => done,
        Err(_) if sent => Err(unknown("no answer before the deadline")),
        Err(_) => Err(hub.with(|p| p.deadline_error(&want, asked))),
    }
}

async fn attempt(hub: &Rc<Hub>, want: &Want, sql: &str, sent: &mut bool) -> Result<()> {
    let mut changes = hub.changes();
    loop {
        changes.borrow_and_update();
        if let Some(error) = hub.with(|p| p.refusal()) {
            return Err(error);
        }
        let Some(server) = hub.with(|p| p.pick(want)) else {
            let _ = changes.changed().await;
            continue;
        };
        let (mut conn, observed) = match hub.dial(server).await {
            Ok(dialled) => dialled,
            Err(Failure::Refuses(error)) => return Err(error),
            Err(failure) => {
                hub.handle_failure(server, failure, true);
                sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        if !hub.with(|p| p.satisfies(server, &observed.facts, want)) {
            continue;
        }
        *sent = true;
        let reply = conn.query(sql).await.map_err(|failure| unknown(&failure.text()))?;
        if let Some(error) = reply.error {
            return Err(refused(error));
        }
        // The statements stand by now; a link that breaks here changes nothing about that.
        if let Ok(observed) = conn.probe(&hub.probe_sql).await {
            hub.apply(|p, now| p.handle_facts(now, server, observed));
        }
        return Ok(());
    }
}

fn unknown(reason: &str) -> Error {
    Error::new(
        ErrorKind::Connect,
        format!(
            "the link was lost while statements ran on the primary ({reason}); look whether they \
             were executed before running them again"
        ),
    )
    .with_outcome(Outcome::Unknown)
}
