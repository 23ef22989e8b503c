//! Finds a link for one session: waits for a server that satisfies it, takes a warm link or dials.
//!
//! A session that has just lost a server is given no warm link to it until a dial begun after the
//! report has succeeded: the backends of a dead postmaster live on for a while, and would accept
//! commits that nobody ever sees again.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout_at};

use super::conn::Conn;
use super::detector::Failure;
use super::hub::Hub;
use super::picture::Next;
use super::{Facts, Handover, Want, warm};
use crate::error::{Error, Result};

/// How long to wait before trying a server again that could not be used although it is chosen.
const RETRY: Duration = Duration::from_millis(20);

pub async fn serve(hub: &Rc<Hub>, want: &Want) -> Result<Handover> {
    let asked = Instant::now();
    let want = Want { lost: want.lost.filter(|lost| *lost < hub.servers()), ..want.clone() };
    if let Some(lost) = want.lost {
        hub.handle_report(lost);
    }
    let _waiting = hub.waiting();
    match timeout_at(want.deadline.into(), find(hub, &want, asked)).await {
        Ok(found) => found,
        Err(_) => Err(hub.with(|p| p.deadline_error(&want, asked))),
    }
}

/// What became of one attempt.
enum Attempt {
    Done(Box<Handover>),
    /// The server will not have this client, and trying again is no use.
    Refused(Error),
    Again(Duration),
}

async fn find(hub: &Rc<Hub>, want: &Want, asked: Instant) -> Result<Handover> {
    let mut changes = hub.changes();
    loop {
        changes.borrow_and_update();
        let (server, warm) = match hub.with(|p| p.next(want, asked)) {
            Next::Refused(error) => return Err(error),
            Next::Wait => {
                // The sender lives as long as the hub, so this can only mean a change.
                let _ = changes.changed().await;
                continue;
            }
            Next::Take { server, warm } => (server, warm),
        };
        match attempt(hub, want, server, warm).await {
            Attempt::Done(handover) => return Ok(*handover),
            Attempt::Refused(error) => return Err(error),
            Attempt::Again(delay) => tokio::select! {
                () = sleep(delay) => {}
                _ = changes.changed() => {}
            },
        }
    }
}

async fn attempt(hub: &Rc<Hub>, want: &Want, server: usize, warm: bool) -> Attempt {
    if warm {
        while let Some(given) = warm::take(hub, server).await {
            let Some(facts) = hub.facts(server, given.backend_start) else {
                continue;
            };
            if let Some(handover) = hand_over(hub, want, server, given.conn, facts, given.prepared)
            {
                hub.note(|p| p.servers[server].warm_links_used += 1);
                return Attempt::Done(Box::new(handover));
            }
        }
    }
    tokio::select! {
        biased;
        attempt = dial(hub, want, server) => attempt,
        () = moved(hub, want, server) => Attempt::Again(Duration::ZERO),
    }
}

async fn dial(hub: &Rc<Hub>, want: &Want, server: usize) -> Attempt {
    let _permit = hub.pacer.enter().await;
    match hub.dial(server).await {
        Ok((mut conn, observed)) => {
            // Bytes that are left over would be missing from what the session reads.
            if !conn.is_alive().await {
                return Attempt::Again(RETRY);
            }
            match hand_over(hub, want, server, conn, observed.facts, Vec::new()) {
                Some(handover) => Attempt::Done(Box::new(handover)),
                None => Attempt::Again(RETRY),
            }
        }
        Err(Failure::Refuses(error)) => Attempt::Refused(error),
        Err(failure) => {
            hub.handle_failure(server, failure, true);
            Attempt::Again(RETRY)
        }
    }
}

/// Waits until this server is no longer the one for this want.
async fn moved(hub: &Hub, want: &Want, server: usize) {
    let mut changes = hub.changes();
    while hub.with(|p| p.pick(want)) == Some(server) {
        let _ = changes.changed().await;
    }
}

fn hand_over(
    hub: &Hub,
    want: &Want,
    server: usize,
    conn: Conn,
    facts: Facts,
    prepared: Vec<u32>,
) -> Option<Handover> {
    if !hub.with(|p| p.satisfies(server, &facts, want)) {
        return None;
    }
    let link = conn.into_blocking().ok()?;
    hub.note(|p| p.handle_handover(server));
    Some(Handover { link, server, facts, prepared })
}
