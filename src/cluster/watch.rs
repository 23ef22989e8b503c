//! One task per server: a poll link of its own, dialled again whenever it breaks.
//!
//! Between polls the link is listened to, so that a server's last words are heard at once. A poll
//! that is not answered in time leaves the link open: an answer that comes late (a process that
//! was stopped and goes on) makes the server healthy again, while a redial is tried beside it.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::conn::Conn;
use super::detector::Failure;
use super::hub::Hub;
use super::picture::Observed;

/// How often a poll asks for everything, to keep positions and roles current.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the poll link is given up.
enum End {
    Broken(Failure),
    /// The link may still be open, but the server was found dead by other means.
    NeedsDial,
}

/// Watches one server for as long as the client lives.
pub async fn watch(hub: Rc<Hub>, server: usize) {
    loop {
        let conn = redial(&hub, server).await;
        match poll(&hub, server, conn).await {
            End::Broken(failure) => hub.handle_failure(server, failure, false),
            End::NeedsDial => {}
        }
    }
}

/// Feeds time to the picture while the first choice waits for servers that do not answer.
pub async fn end_opening(hub: Rc<Hub>) {
    let mut changes = hub.changes();
    loop {
        match hub.with(|p| p.opening_ends()) {
            Some(end) => {
                tokio::select! {
                    () = sleep_until(end.into()) => hub.apply(|p, now| p.handle_tick(now)),
                    _ = changes.changed() => {}
                }
            }
            None => {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn redial(hub: &Hub, server: usize) -> Conn {
    loop {
        loop {
            let now = Instant::now();
            let due = hub.with(|p| p.servers[server].detector.next_dial(now));
            if due <= now {
                break;
            }
            sleep_until(due.into()).await;
        }
        let mut dialling = pin!(hub.dial(server));
        let dialled = loop {
            let miss = Instant::now() + hub.config.failover.poll_timeout;
            tokio::select! {
                dialled = &mut dialling => break dialled,
                () = sleep_until(miss.into()) => hub.apply(|p, now| p.handle_miss(now, server)),
            }
        };
        match dialled {
            Ok((conn, _)) => return conn,
            Err(failure) => hub.handle_failure(server, failure, true),
        }
    }
}

async fn poll(hub: &Hub, server: usize, mut conn: Conn) -> End {
    let mut probed = Instant::now();
    hub.note(|p| p.servers[server].detector.handle_sent(probed));
    loop {
        if let Err(end) = rest(hub, server, &mut conn).await {
            return end;
        }
        let full =
            hub.take_probe_wanted(server) || conn.changed() || probed.elapsed() >= PROBE_INTERVAL;
        if full {
            probed = Instant::now();
        }
        match ask(hub, server, &mut conn, full).await {
            Ok(None) => {}
            Ok(Some(replacement)) => conn = replacement,
            Err(end) => return end,
        }
    }
}

/// Waits until the next poll is due, listening.
async fn rest(hub: &Hub, server: usize, conn: &mut Conn) -> Result<(), End> {
    loop {
        let now = Instant::now();
        let (needs_dial, due) = hub.with(|p| {
            let detector = &p.servers[server].detector;
            (detector.needs_dial(), detector.next_poll(now, p.urgent(now, server)))
        });
        if needs_dial {
            return Err(End::NeedsDial);
        }
        if due <= now {
            return Ok(());
        }
        tokio::select! {
            biased;
            heard = conn.listen() => return heard.map_err(End::Broken),
            () = hub.nudged(server) => {}
            () = sleep_until(due.into()) => return Ok(()),
        }
    }
}

type Dialling<'a> = Pin<Box<dyn Future<Output = Result<(Conn, Observed), Failure>> + 'a>>;

/// Waits for a link to be made, or for ever where none is being made.
async fn dialled(beside: &mut Option<Dialling<'_>>) -> Result<(Conn, Observed), Failure> {
    match beside {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

/// Asks, and waits for as long as it takes. Returns another link where that was made before the
/// answer came.
async fn ask(hub: &Hub, server: usize, conn: &mut Conn, full: bool) -> Result<Option<Conn>, End> {
    hub.note(|p| p.servers[server].detector.handle_sent(Instant::now()));
    let mut asking = pin!(async {
        match full {
            true => conn.probe(&hub.probe_sql).await.map(Some),
            false => conn.poll(&hub.probe_sql).await,
        }
    });
    let mut beside: Option<Dialling<'_>> = None;
    let mut miss = Instant::now() + hub.config.failover.poll_timeout;
    loop {
        tokio::select! {
            biased;
            answer = &mut asking => {
                match answer.map_err(End::Broken)? {
                    Some(observed) => {
                        hub.apply(|p, now| p.handle_facts(now, server, observed));
                        hub.publish();
                    }
                    None => hub.apply(|p, now| p.handle_answer(now, server)),
                }
                return Ok(None);
            }
            dialled = dialled(&mut beside) => {
                beside = None;
                match dialled {
                    Ok((conn, _)) => return Ok(Some(conn)),
                    Err(failure) => hub.handle_failure(server, failure, true),
                }
            }
            () = sleep_until(miss.into()) => {
                miss = Instant::now() + hub.config.failover.poll_timeout;
                hub.apply(|p, now| p.handle_miss(now, server));
                beside.get_or_insert_with(|| Box::pin(hub.dial(server)));
            }
            () = hub.nudged(server) => {}
        }
        if hub.with(|p| p.servers[server].detector.needs_dial()) {
            return Err(End::NeedsDial);
        }
    }
}
