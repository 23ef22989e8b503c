//! A TPC-B-like transaction, one session, everything on, against libpq without any protection.
//!
//! Segue saves the round trip of BEGIN and pays for the seal; the commit's flush is the same.

use ::segue::Client;
use segue_testkit::Cluster;

use crate::measure::{Contestant, take_turns};
use crate::peer::program::{Program, Turn};
use crate::peer::segue;
use crate::report::{Report, Target};
use crate::servers::{SCALE, Way, settle};
use crate::{Context, Failure};

const COUNT: u32 = 15;

/// `what` says what kind of cluster it is.
pub fn run(
    context: &Context,
    cluster: &Cluster,
    what: &str,
    report: &mut Report,
) -> Result<(), Failure> {
    for way in Way::ALL {
        settle(cluster)?;
        let mut libpq = Program::start(&context.libpq, &way.conninfo(cluster.primary()))?;
        let all = way.conninfo_all(cluster);
        let client = Client::connect(&all)?;
        let mut session = client.session()?;
        let unsealed = Client::connect(&format!("{all} ledger=off"))?;
        let mut unsealed = unsealed.session()?;
        if !session.status().ledger {
            return Err("the ledger is not in use, so there is nothing to measure".into());
        }
        let (count, scale) = (COUNT, SCALE);
        let mut contestants: Vec<Box<dyn Contestant + Send>> = vec![
            Box::new(segue::Tpcb { session: &mut session, name: "segue", count, scale }),
            Box::new(Turn::of_libpq(&mut libpq, "tpcb", count, scale)),
            Box::new(segue::Tpcb { session: &mut unsealed, name: "ledger=off", count, scale }),
        ];
        let rounds = take_turns(&mut contestants, context.rounds(200))?;
        let name = way.name();
        let line = format!("TPC-B, {name}, {what}, against libpq");
        report.latency("tpcb", line, &rounds, (0, 1), Target::AtMost(0.95));
        let line = format!("TPC-B, {name}, {what}, ledger=off, against libpq");
        report.latency("tpcb", line, &rounds, (2, 1), Target::None);
    }
    Ok(())
}
