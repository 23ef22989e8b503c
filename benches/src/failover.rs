//! The client's share of a failover: from the moment at which the standby accepts writes to the
//! commit of a transaction of five statements that was open when the primary was killed. TLS and
//! SCRAM are on.
//!
//! Against it: what an application on libpq does then, a new connection and the transaction from
//! its start, measured right afterwards on the same server, when nothing else disturbs it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use segue::cluster::ClusterEvent;
use segue::{Client, ClientEvent, Session};
use segue_testkit::{Auth, Cluster, Server};
use tokio_postgres::NoTls;

use crate::measure::{Choice, Spread};
use crate::peer::program::Program;
use crate::peer::{ACCOUNTS, HISTORY, POINT};
use crate::report::{Report, Target};
use crate::{Context, Failure, servers};

const SESSIONS: usize = 40;
/// Small tables: the old primary is copied or rewound after each failover.
const SCALE: u32 = 1;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let cluster = servers::builder(1).auth(Auth::Scram).tls(true).start()?;
    servers::load(&cluster, SCALE)?;
    let client = Client::connect(&cluster.conninfo())?;
    let mut alone = vec![client.session()?];
    let mut primary = 0;
    let repetitions = context.rounds(15);
    let mut one = Series::default();
    for number in 0..repetitions {
        one.add(fail_over(context, &cluster, &client, &mut alone, &mut primary, number)?);
    }
    drop(alone);
    let mut together = Vec::new();
    for _ in 0..SESSIONS {
        together.push(client.session()?);
    }
    let mut many = Series::default();
    for number in 0..repetitions {
        many.add(fail_over(context, &cluster, &client, &mut together, &mut primary, number)?);
    }
    one.tell("1 session", report);
    many.tell("40 sessions", report);
    let (one, many) = (Spread::of(one.shares), Spread::of(many.shares));
    let times = many.over(one.median);
    report.ratio(
        "failover",
        "40 sessions at once, against one".to_owned(),
        (format!("{:.2} ms", many.median), format!("{:.2} ms", one.median)),
        times,
        Target::AtMost(4.0),
    );
    Ok(())
}

/// One failover, in milliseconds after the standby accepted writes.
struct Failover {
    /// The median of the sessions.
    share: f64,
    /// A cold reconnect and the transaction again, the median too.
    cold: f64,
    /// When Segue knew of the promotion, when the first replay began, and when it had matched.
    promoted: Option<f64>,
    replay_started: Option<f64>,
    replay_finished: Option<f64>,
}

#[derive(Default)]
struct Series {
    shares: Vec<f64>,
    colds: Vec<f64>,
    faster: Vec<f64>,
    parts: [Vec<f64>; 3],
}

impl Series {
    fn add(&mut self, failover: Failover) {
        self.shares.push(failover.share);
        self.colds.push(failover.cold);
        self.faster.push(failover.cold / failover.share);
        let parts = [failover.promoted, failover.replay_started, failover.replay_finished];
        for (all, part) in self.parts.iter_mut().zip(parts) {
            all.extend(part);
        }
    }

    fn tell(&self, who: &str, report: &mut Report) {
        let ms = |values: &[f64]| format!("{:.2} ms", Spread::of(values.to_vec()).median);
        report.ratio(
            "failover",
            format!("{who}: how much faster than a cold reconnect"),
            (ms(&self.shares), ms(&self.colds)),
            Spread::of(self.faster.clone()),
            Target::AtLeast(5.0),
        );
        let what = format!("{who}: writable to commit");
        report.value("failover", what, Spread::of(self.shares.clone()), "ms", Target::None);
        for (part, name) in
            self.parts.iter().zip(["promotion known", "first replay begun", "first replay matched"])
        {
            let what = format!("{who}: writable to {name}");
            report.value("failover", what, Spread::of(part.clone()), "ms", Target::None);
        }
    }
}

/// What Segue told, and when.
#[derive(Default)]
struct Told {
    promoted: Option<Instant>,
    replay_started: Option<Instant>,
    replay_finished: Option<Instant>,
}

fn fail_over(
    context: &Context,
    cluster: &Cluster,
    client: &Client,
    sessions: &mut [Session],
    primary: &mut usize,
    number: u64,
) -> Result<Failover, Failure> {
    let (old, next) = (cluster.server(*primary), cluster.server(1 - *primary));
    let choices: Vec<Choice> = (1..)
        .take(sessions.len())
        .map(|aid| Choice { bid: 1, tid: 1, aid: aid * 100, delta: 1 })
        .collect();
    wait_for_warm_links(client, sessions, 1 - *primary)?;
    for (session, choice) in sessions.iter_mut().zip(&choices) {
        open_transaction(session, *choice)?;
    }
    let told = Arc::new(Mutex::new(Told::default()));
    let note = Arc::clone(&told);
    let _subscription = client.on_event(move |event| {
        let mut told = note.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match event {
            ClientEvent::Cluster(ClusterEvent::Promoted { .. }) => &mut told.promoted,
            ClientEvent::ReplayStarted { .. } => &mut told.replay_started,
            ClientEvent::ReplayFinished { .. } => &mut told.replay_finished,
            _ => return,
        };
        at.get_or_insert_with(Instant::now);
    });
    old.kill_all()?;
    let (writable, committed) = std::thread::scope(|scope| {
        let promotion = scope.spawn(|| promote(next));
        let commits: Vec<_> = sessions
            .iter_mut()
            .map(|session| scope.spawn(|| session.commit().map(|()| Instant::now())))
            .collect();
        let committed: Vec<_> = commits.into_iter().map(join).collect();
        (join(promotion), committed)
    });
    let writable = writable??;
    let since = |at: Instant| {
        let late = at.saturating_duration_since(writable).as_secs_f64();
        (late - writable.saturating_duration_since(at).as_secs_f64()) * 1e3
    };
    let mut shares = Vec::new();
    for at in committed {
        shares.push(since(at??));
    }
    *primary = 1 - *primary;
    // The kit takes note of what has happened.
    cluster.promote(*primary, PATIENCE)?;
    let cold = cold(context, next, sessions.len(), number)?;
    rejoin(cluster, *primary)?;
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Failover {
        share: Spread::of(shares).median,
        cold,
        promoted: told.promoted.map(since),
        replay_started: told.replay_started.map(since),
        replay_finished: told.replay_finished.map(since),
    })
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> Result<T, Failure> {
    thread.join().map_err(|_| "a thread of the benchmark has panicked".into())
}

/// Five statements, as in TPC-B, on rows that no other session touches: sessions must not wait for
/// each other's locks.
fn open_transaction(session: &mut Session, choice: Choice) -> segue::Result<()> {
    let Choice { bid, aid, delta, .. } = choice;
    session.begin(&Default::default())?;
    session.execute(ACCOUNTS, &[&delta, &aid])?;
    session.query_one(POINT, &[&aid])?;
    session.execute(ACCOUNTS, &[&delta, &(aid + 1)])?;
    session.execute(ACCOUNTS, &[&delta, &(aid + 2)])?;
    session.execute(HISTORY, &[&1, &bid, &aid, &delta])?;
    Ok(())
}

/// A link to the standby for each session, with the statements on it: that is the normal state.
fn wait_for_warm_links(
    client: &Client,
    sessions: &mut [Session],
    standby: usize,
) -> Result<(), Failure> {
    for session in sessions.iter_mut() {
        open_transaction(session, Choice { bid: 1, tid: 1, aid: 90_000, delta: 0 })?;
        session.rollback()?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = client.status();
        let warm = status.cluster.servers.get(standby).map_or(0, |server| server.warm_links);
        if warm >= sessions.len() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("only {warm} links to the standby became warm").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks for the promotion every 10 ms, and notes when the server first says that it is writable.
fn promote(server: &Server) -> Result<Instant, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (control, connection) =
            tokio_postgres::connect(&server.conninfo_superuser(), NoTls).await?;
        tokio::spawn(async move { drop(connection.await) });
        let ask = control.prepare("SELECT pg_is_in_recovery()").await?;
        let start = Instant::now();
        let mut next = start;
        while start.elapsed() < PATIENCE {
            if Instant::now() >= next {
                // A late repeat is refused, because an earlier request has succeeded.
                let _ = control.simple_query("SELECT pg_promote(false)").await;
                next += Duration::from_millis(10);
            }
            if !control.query_one(&ask, &[]).await?.try_get::<_, bool>(0)? {
                return Ok(Instant::now());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Err("the standby was not promoted in time".into())
    })
}

/// So many cold reconnects at once, and the median in milliseconds.
fn cold(context: &Context, server: &Server, count: usize, number: u64) -> Result<f64, Failure> {
    let mut programs = Vec::new();
    for _ in 0..count {
        programs.push(Program::start_cold(&context.libpq, &server.conninfo())?);
    }
    for (program, seed) in programs.iter_mut().zip(number * 1000..) {
        program.tell("cold", 1, SCALE, seed)?;
    }
    let mut took = Vec::new();
    for program in &mut programs {
        took.push(program.answer()?.0 as f64 / 1e6);
    }
    Ok(Spread::of(took).median)
}

/// Makes the lost server a standby again.
pub fn rejoin(cluster: &Cluster, primary: usize) -> Result<(), Failure> {
    cluster.rejoin(1 - primary)?;
    cluster.wait_for_standbys()?;
    Ok(())
}
