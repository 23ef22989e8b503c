//! Warm links: authenticated, probed, with statements prepared, before anybody needs them.
//!
//! As many on the best standby as there are sessions (at most `standby_links_max`), and one or two
//! spare ones on the server in use. A task tends each link: it hears its death, keeps it alive,
//! and gives it away when asked. They are made slowly: a session's own dial comes first.
//!
//! A statement that a server has refused to prepare (its table is temporary, or gone) is not tried
//! again there: each try would be an ERROR in that server's log.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until, timeout};

use super::conn::Conn;
use super::detector::Failure;
use super::hub::Hub;
use super::status::ClusterEvent;

/// Warm links that are being made at the same time.
const AT_ONCE: usize = 4;
/// How often a warm link is asked for a sign of life, which also keeps firewalls from forgetting it.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Links that are no longer wanted are kept for so long: after a promotion sessions come for them.
const SURPLUS_KEPT: Duration = Duration::from_secs(30);
/// While sessions wait for links of their own, no warm ones are made, but not for longer than this.
const HOLD: Duration = Duration::from_secs(1);
/// After a failed dial, the next waits this long at most.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// So many refused statements are remembered of a server; beyond that, they are tried once more.
const REFUSED_MAX: usize = 4096;

/// The warm links of one server.
#[derive(Default)]
pub struct Pool {
    links: Vec<Warm>,
    dialling: usize,
    failures: u32,
    retry_at: Option<Instant>,
    surplus_since: Option<Instant>,
    held_since: Option<Instant>,
    next_id: u64,
    /// Statements that it has refused to prepare.
    refused: HashSet<u32>,
    /// The number that was last told of in an event.
    told: usize,
}

struct Warm {
    id: u64,
    orders: mpsc::UnboundedSender<Order>,
    busy: Rc<Cell<bool>>,
}

enum Order {
    Give(oneshot::Sender<Given>),
    /// New statements are known.
    TopUp,
}

/// A warm link that is given away.
pub struct Given {
    pub conn: Conn,
    pub backend_start: String,
    pub prepared: Vec<u32>,
}

/// Takes a live warm link to the server, if there is one.
pub async fn take(hub: &Rc<Hub>, server: usize) -> Option<Given> {
    loop {
        let warm = {
            let mut pools = hub.warm.borrow_mut();
            let links = &mut pools[server].links;
            // One that is just being asked something would have to be waited for.
            let idle = links.iter().position(|warm| !warm.busy.get());
            match idle {
                Some(at) => links.swap_remove(at),
                None => links.pop()?,
            }
        };
        count(hub, server);
        let (give, given) = oneshot::channel();
        if warm.orders.send(Order::Give(give)).is_err() {
            continue;
        }
        if let Ok(Ok(given)) = timeout(hub.config.failover.poll_timeout, given).await {
            return Some(given);
        }
    }
}

/// New statements are known: have them prepared on every warm link.
pub fn top_up(hub: &Hub) {
    for pool in hub.warm.borrow().iter() {
        for warm in &pool.links {
            // A link that is gone has removed itself, or is about to.
            let _ = warm.orders.send(Order::TopUp);
        }
    }
}

/// Keeps the pools filled for as long as the client lives.
pub async fn keep(hub: Rc<Hub>) {
    let mut changes = hub.changes();
    loop {
        changes.borrow_and_update();
        let mut next = Instant::now() + KEEP_ALIVE;
        for server in 0..hub.servers() {
            if let Some(due) = level(&hub, server) {
                next = next.min(due);
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = hub.pools_changed() => {}
            () = sleep_until(next.into()) => {}
        }
    }
}

/// Brings one pool nearer to its level. Returns when it should be looked at again.
fn level(hub: &Rc<Hub>, server: usize) -> Option<Instant> {
    let wanted = hub.with(|p| p.warm_links_wanted(server));
    let now = Instant::now();
    let waiting = hub.with(|p| p.waiting);
    let mut pools = hub.warm.borrow_mut();
    let pool = &mut pools[server];
    let have = pool.links.len() + pool.dialling;
    if have > wanted {
        let since = *pool.surplus_since.get_or_insert(now);
        if now.saturating_duration_since(since) < SURPLUS_KEPT {
            return Some(since + SURPLUS_KEPT);
        }
        // A task whose orders end lets its link go.
        pool.links.truncate(wanted);
        pool.surplus_since = None;
        drop(pools);
        count(hub, server);
        return None;
    }
    pool.surplus_since = None;
    if have < wanted {
        pool.told = 0;
    }
    if let Some(retry) = pool.retry_at.filter(|retry| *retry > now) {
        return Some(retry);
    }
    if waiting == 0 {
        pool.held_since = None;
    } else if have < wanted {
        let held = *pool.held_since.get_or_insert(now);
        if now.saturating_duration_since(held) < HOLD {
            return Some(held + HOLD);
        }
    }
    while pool.dialling < AT_ONCE && pool.links.len() + pool.dialling < wanted {
        pool.dialling += 1;
        spawn_local(make(hub.clone(), server));
    }
    if wanted > 0 && have == wanted && pool.dialling == 0 && pool.told != wanted {
        pool.told = wanted;
        drop(pools);
        let address = hub.with(|p| p.servers[server].address.clone());
        hub.emit(ClusterEvent::Warm { server, address, links: wanted });
    }
    None
}

async fn make(hub: Rc<Hub>, server: usize) {
    let made = prepare_link(&hub, server).await;
    let (orders, mailbox) = mpsc::unbounded_channel();
    let busy = Rc::new(Cell::new(false));
    let id = {
        let mut pools = hub.warm.borrow_mut();
        let pool = &mut pools[server];
        pool.dialling -= 1;
        if made.is_err() {
            pool.failures = pool.failures.saturating_add(1);
            let delay = hub.config.failover.poll_interval * (1 << pool.failures.min(8));
            pool.retry_at = Some(Instant::now() + delay.min(BACKOFF_MAX));
        } else {
            pool.failures = 0;
            pool.retry_at = None;
            pool.links.push(Warm { id: pool.next_id, orders, busy: busy.clone() });
        }
        pool.next_id += 1;
        pool.next_id - 1
    };
    match made {
        Ok(given) => {
            count(&hub, server);
            let died = tend(&hub, server, given, mailbox, &busy).await;
            hub.warm.borrow_mut()[server].links.retain(|warm| warm.id != id);
            count(&hub, server);
            if died {
                // Its death may be the server's.
                hub.handle_report(server);
            }
        }
        Err(failure) => {
            tracing::debug!(server, reason = failure.text(), "a warm link could not be made");
            // Whether that is the server's death is for its poll link to say.
            hub.handle_report(server);
        }
    }
}

async fn prepare_link(hub: &Hub, server: usize) -> Result<Given, Failure> {
    let (conn, observed) = hub.dial(server).await?;
    let backend_start = observed.facts.backend_start;
    let mut given = Given { conn, backend_start, prepared: Vec::new() };
    let limit = hub.config.failover.poll_timeout.saturating_mul(10);
    match timeout(limit, prepare(hub, server, &mut given)).await {
        Ok(prepared) => prepared.map(|()| given),
        Err(_) => Err(Failure::Silent("no answer while statements were prepared".to_owned())),
    }
}

/// Prepares what is known and not prepared yet.
async fn prepare(hub: &Hub, server: usize, given: &mut Given) -> Result<(), Failure> {
    let Some(facts) = hub.facts(server, given.backend_start.clone()) else {
        return Ok(());
    };
    let mut already = given.prepared.clone();
    already.extend(hub.warm.borrow()[server].refused.iter());
    let mut messages = BytesMut::new();
    let numbers = hub.preparations.prepare(&facts, &already, &mut messages);
    if numbers.is_empty() {
        return Ok(());
    }
    let succeeded = given.conn.prepare(&messages).await?;
    if succeeded.len() != numbers.len() {
        return Err(Failure::Gone("the statements to prepare do not match their numbers".into()));
    }
    let mut pools = hub.warm.borrow_mut();
    let refused = &mut pools[server].refused;
    if refused.len() > REFUSED_MAX {
        refused.clear();
    }
    for (number, succeeded) in numbers.into_iter().zip(succeeded) {
        if succeeded {
            given.prepared.push(number);
        } else {
            refused.insert(number);
        }
    }
    Ok(())
}

/// Tends a link until it is given away, no longer wanted, or dead, which is when this is true.
async fn tend(
    hub: &Hub,
    server: usize,
    mut given: Given,
    mut mailbox: mpsc::UnboundedReceiver<Order>,
    busy: &Cell<bool>,
) -> bool {
    let patience = hub.config.failover.poll_timeout;
    loop {
        let order = tokio::select! {
            biased;
            order = mailbox.recv() => match order {
                Some(order) => Some(order),
                None => return false,
            },
            heard = given.conn.listen(), if !given.conn.changed() => match heard {
                Ok(()) => continue,
                Err(_) => return true,
            },
            () = sleep(KEEP_ALIVE) => None,
        };
        match order {
            Some(Order::Give(to)) => {
                if !given.conn.is_alive().await {
                    return true;
                }
                // Whoever asked may have gone; the link is then closed.
                let _ = to.send(given);
                return false;
            }
            Some(Order::TopUp) => {
                busy.set(true);
                let prepared = timeout(patience * 10, prepare(hub, server, &mut given)).await;
                busy.set(false);
                if !matches!(prepared, Ok(Ok(()))) {
                    return true;
                }
            }
            None => {
                busy.set(true);
                let answered = timeout(patience, given.conn.poll(&hub.probe_sql)).await;
                busy.set(false);
                if !matches!(answered, Ok(Ok(_))) {
                    return true;
                }
            }
        }
    }
}

/// Keeps the number in `status()` current, and has the pools looked at.
fn count(hub: &Hub, server: usize) {
    let links = hub.warm.borrow()[server].links.len();
    hub.note(|p| p.servers[server].warm_links = links);
    hub.handle_pools_changed();
}
