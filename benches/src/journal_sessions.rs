//! What the journal on disk costs interactive transactions: TPC-B-like ones with `journal=file` against the
//! same with `journal=memory`, by one session and by sixteen.
//!
//! The journal lies on the disk that the server's own log is flushed to.

use std::path::Path;

use ::segue::{Client, Session};
use segue_testkit::Cluster;

use crate::measure::{Contestant, Spread, take_turns};
use crate::peer::segue;
use crate::report::{Report, Target};
use crate::saturated::threads;
use crate::servers::{SCALE, Way, settle};
use crate::{Context, Failure};

const COUNT: u32 = 15;
const SESSIONS: usize = 16;
const POLICIES: [&str; 2] = ["none", "batch"];

pub fn run(
    context: &Context,
    dir: &Path,
    cluster: &Cluster,
    report: &mut Report,
) -> Result<(), Failure> {
    settle(cluster)?;
    let all = Way::Unix.conninfo_all(cluster);
    let mut clients = vec![Client::connect(&all)?];
    for sync in POLICIES {
        let dir = dir.join(format!("sessions-{sync}"));
        clients.push(Client::connect(&format!(
            "{all} journal=file journal_required=on journal_sync={sync} journal_dir={}",
            dir.display()
        ))?);
    }
    one(context, &clients, report)?;
    settle(cluster)?;
    many(context, &clients, report)
}

fn one(context: &Context, clients: &[Client], report: &mut Report) -> Result<(), Failure> {
    let mut sessions = clients.iter().map(Client::session).collect::<Result<Vec<_>, _>>()?;
    let names = ["memory", "file, none", "file, batch"];
    let mut contestants: Vec<Box<dyn Contestant + Send>> = Vec::new();
    for (session, name) in sessions.iter_mut().zip(names) {
        contestants.push(Box::new(segue::Tpcb { session, name, count: COUNT, scale: SCALE }));
    }
    let rounds = take_turns(&mut contestants, context.rounds(200))?;
    for (who, (sync, target)) in (1..).zip(POLICIES.into_iter().zip(targets(1))) {
        let each = |who| format!("{:.0} us", rounds.p50(who).median / 1e3);
        report.ratio(
            "journal_sessions",
            format!("TPC-B, one session, journal=file, sync={sync}, rate against memory"),
            (each(who), each(0)),
            rounds.ratio_p50(0, who),
            target,
        );
    }
    Ok(())
}

fn many(context: &Context, clients: &[Client], report: &mut Report) -> Result<(), Failure> {
    let mut all = Vec::new();
    for client in clients {
        let sessions: Result<Vec<Session>, _> = (0..SESSIONS).map(|_| client.session()).collect();
        all.push(sessions?);
    }
    let mut rates = vec![Vec::new(); all.len()];
    let mut ratios = vec![Vec::new(); POLICIES.len()];
    for round in 0..=context.rounds(30) {
        let mut now = vec![0.0; all.len()];
        for turn in 0..all.len() {
            let who = (turn + usize::try_from(round)?) % all.len();
            now[who] = threads(&mut all[who], round * 7919 + 1)?;
        }
        // The first round only warms up.
        if round > 0 {
            ratios.iter_mut().zip(&now[1..]).for_each(|(ratio, it)| ratio.push(it / now[0]));
            rates.iter_mut().zip(&now).for_each(|(rates, it)| rates.push(*it));
        }
    }
    let rate = |who: usize| format!("{:.0} tps", Spread::of(rates[who].clone()).median);
    let wanted = POLICIES.into_iter().zip(targets(SESSIONS));
    for ((who, ratio), (sync, target)) in (1..).zip(ratios).zip(wanted) {
        report.ratio(
            "journal_sessions",
            format!("TPC-B, {SESSIONS} sessions, journal=file, sync={sync}, tps against memory"),
            (rate(who), rate(0)),
            Spread::of(ratio),
            target,
        );
    }
    Ok(())
}

/// What is aimed at for each of the policies. One session has nobody to share its syncs with.
fn targets(sessions: usize) -> [Target; 2] {
    let batch = if sessions > 1 { Target::AtLeast(0.9) } else { Target::None };
    [Target::AtLeast(0.97), batch]
}
