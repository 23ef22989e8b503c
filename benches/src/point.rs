//! A point SELECT by primary key, prepared, one session: what the protection costs where there is
//! nothing to protect but everything is on: two servers watched, a warm link, the ledger.

use ::segue::Client;
use segue_testkit::Cluster;

use crate::measure::{Contestant, take_turns};
use crate::peer::minimal::{self, Minimal};
use crate::peer::program::{Program, Turn};
use crate::peer::tokio::{self, TokioPostgres};
use crate::peer::{POINT, segue};
use crate::report::{Report, Target};
use crate::servers::{SCALE, Way};
use crate::{Context, Failure};

const COUNT: u32 = 250;

pub fn run(context: &Context, cluster: &Cluster, report: &mut Report) -> Result<(), Failure> {
    for way in Way::ALL {
        let primary = cluster.primary();
        let one = way.conninfo(primary);
        let mut libpq = Program::start(&context.libpq, &one)?;
        let tokio = TokioPostgres::connect(&one)?;
        let mut minimal = Minimal::connect(primary, way)?;
        let client = Client::connect(&way.conninfo_all(cluster))?;
        let mut session = client.session()?;
        let mut by_text = client.session()?;
        let statement = session.prepare(POINT)?;
        let (count, rows) = (COUNT, SCALE * 100_000);
        let mut contestants: Vec<Box<dyn Contestant + Send>> = vec![
            Box::new(segue::Point { session: &mut session, statement, count, rows }),
            Box::new(Turn::of_libpq(&mut libpq, "point", count, rows)),
            Box::new(tokio::Point { peer: &tokio, count, rows }),
            Box::new(minimal::Point { client: &mut minimal, count, rows }),
            Box::new(segue::PointByText { session: &mut by_text, count, rows }),
        ];
        let rounds = take_turns(&mut contestants, context.rounds(200))?;
        let name = way.name();
        for (who, target) in
            [(1, Target::AtMost(0.85)), (2, Target::AtMost(0.95)), (3, Target::AtMost(1.10))]
        {
            let what = format!("point SELECT, {name}, against {}", contestants[who].name());
            report.latency("point", what, &rounds, (0, who), target);
        }
        let what = format!("point SELECT, {name}, by text, against prepared");
        report.latency("point", what, &rounds, (4, 0), Target::None);
    }
    Ok(())
}
