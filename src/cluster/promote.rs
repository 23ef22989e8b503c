//! `on_primary_loss = promote`: promotes a standby where no operator does.
//!
//! Never while the primary can be reached, and never more than one standby at a time. The risk of
//! two primaries remains where the primary lives on and only this client cannot see it; that is
//! why it is off by default.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::hub::Hub;
use super::status::ClusterEvent;
use crate::config::OnPrimaryLoss;

/// A single call right after a primary's death often stalls for five seconds; repeated calls do not
/// (measured on PostgreSQL 15: the walreceiver's restart swallows the wake-up).
const REPEAT: Duration = Duration::from_millis(10);
/// How often to look whether it has come to that, beside every change.
const LOOK: Duration = Duration::from_millis(100);
/// After a promotion that did not work.
const RETRY: Duration = Duration::from_secs(1);

const UNPROVEN: &str = "it was never seen to follow the primary that is lost, and may have another \
                        history; promote it yourself if it has followed";

pub async fn keep(hub: Rc<Hub>) {
    if hub.config.failover.on_primary_loss != OnPrimaryLoss::Promote {
        return;
    }
    let mut changes = hub.changes();
    // The lost primary of which it was told that the standby that is left is not promoted.
    let mut told = None;
    loop {
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(LOOK) => {}
        }
        let Some(before) = hub.with(|p| p.succession(Instant::now())) else {
            tell_of_unproven(&hub, &mut told).await;
            continue;
        };
        tokio::join!(ask_for_positions(&hub), ask_the_lost(&hub, before.lost));
        // Each answer counts, the one of the primary above all.
        let Some(now) = hub.with(|p| p.succession(Instant::now())) else {
            continue;
        };
        if now.lost != before.lost {
            continue;
        }
        let server = now.heir;
        let address = hub.with(|p| p.servers[server].address.clone());
        hub.emit(ClusterEvent::Promoting { server, address: address.clone() });
        if let Err(reason) = promote(&hub, server).await {
            hub.emit(ClusterEvent::PromotionFailed { server, address, reason });
            sleep(RETRY).await;
        }
    }
}

/// Says once of each loss that the standby that is left is not promoted.
async fn tell_of_unproven(hub: &Hub, told: &mut Option<usize>) {
    let unproven = || {
        hub.with(|p| {
            let lost = p.lost_without_successor(Instant::now());
            (lost, lost.and_then(|lost| p.unproven_heir(lost)))
        })
    };
    let (lost, heir) = unproven();
    if lost != *told {
        *told = None;
    }
    if heir.is_none() || told.is_some() {
        return;
    }
    // It may have begun to follow since it was asked last.
    ask_for_positions(hub).await;
    if let (lost, Some(server)) = unproven() {
        *told = lost;
        let address = hub.with(|p| p.servers[server].address.clone());
        hub.emit(ClusterEvent::PromotionFailed { server, address, reason: UNPROVEN.to_owned() });
    }
}

/// A link that was made and then ended looks like a dial that failed. Only a primary that cannot
/// be reached now is one that nobody can reach.
async fn ask_the_lost(hub: &Hub, lost: usize) {
    match timeout(hub.config.failover.poll_timeout, hub.dial(lost)).await {
        // What it said of itself is in the picture, and ends the succession.
        Ok(Ok(_)) => {}
        Ok(Err(failure)) => hub.handle_failure(lost, failure, true),
        // It is as silent as it was.
        Err(_) => {}
    }
}

/// The standby that has received most has to be known as of now, not as of a second ago.
async fn ask_for_positions(hub: &Hub) {
    let asked = Instant::now();
    let mut changes = hub.changes();
    for server in 0..hub.servers() {
        hub.want_probe(server);
    }
    let all_fresh = || {
        hub.with(|p| {
            p.servers.iter().filter(|s| !s.detector.in_doubt()).all(|s| {
                s.observed.as_ref().is_none_or(|o| !o.facts.in_recovery || o.asked >= asked)
            })
        })
    };
    let waiting = async {
        while !all_fresh() {
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep(Duration::from_millis(2)) => {}
            }
        }
    };
    // One that does not answer in time is judged by what it said last.
    let _ = timeout(hub.config.failover.poll_timeout, waiting).await;
}

async fn promote(hub: &Hub, server: usize) -> Result<(), String> {
    let lost = hub.with(|p| p.chosen());
    let (mut conn, _) = hub.dial(server).await.map_err(|failure| failure.text())?;
    let limit = hub.config.failover.timeout;
    let calling = async {
        loop {
            let reply = conn.query("SELECT pg_catalog.pg_promote(false)").await;
            let reply = reply.map_err(|failure| failure.text())?;
            match reply.error {
                // Recovery is not in progress: it has been promoted.
                Some(error) if error.code == "55000" => hub.want_probe(server),
                Some(error) => return Err(format!("{} ({})", error.message, error.code)),
                None => {}
            }
            sleep(REPEAT).await;
            // A silent primary stays chosen until there is a better one.
            if hub.with(|p| p.chosen().is_some() && p.chosen() != lost) {
                return Ok(());
            }
        }
    };
    match timeout(limit, calling).await {
        Ok(result) => result,
        Err(_) => Err(format!("it did not become writable within {} ms", limit.as_millis())),
    }
}
