//! A primary whose packets vanish, in both directions and for new connections too, while the
//! candidate is promoted already: from the fault to the commit of the open transaction, at default
//! settings. Nothing tells the client but silence.

use std::time::{Duration, Instant};

use segue::Client;
use segue_testkit::proxy::{Accept, Flow, Proxy};

use crate::failover::rejoin;
use crate::measure::Spread;
use crate::report::{Report, Target};
use crate::{Context, Failure, servers};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let cluster = servers::builder(1).start()?;
    let proxies = [Proxy::to_server(cluster.server(0))?, Proxy::to_server(cluster.server(1))?];
    let ports = proxies.each_ref().map(Proxy::port);
    let client = Client::connect(&cluster.conninfo_via(&ports))?;
    let mut session = client.session()?;
    session.execute("CREATE TABLE t (id int8 PRIMARY KEY)", &[])?;
    let mut took = Vec::new();
    let mut primary = 0;
    for number in 0..i64::try_from(context.rounds(10))? {
        wait_for_warm_link(&client, 1 - primary)?;
        session.begin(&Default::default())?;
        session.execute("INSERT INTO t VALUES ($1)", &[&number])?;
        // What the session writes would wait for nothing here: the standby has all of it or, as
        // the transaction is open, needs none.
        cluster.promote(1 - primary, PATIENCE)?;
        let fault = Instant::now();
        proxies[primary].set_flow_both(Flow::Drop);
        proxies[primary].set_accept(Accept::Silent)?;
        session.commit()?;
        took.push(fault.elapsed().as_secs_f64() * 1e3);
        let server = session.status().server;
        if server == primary {
            return Err("the session is still on the primary that was cut off".into());
        }
        let there =
            cluster.primary().value(&format!("SELECT count(*) FROM t WHERE id = {number}"))?;
        if there != "1" {
            return Err("the transaction is not on the new primary".into());
        }
        let old = primary;
        primary = 1 - primary;
        rejoin(&cluster, primary)?;
        proxies[old].close_all();
        proxies[old].set_flow_both(Flow::Pass);
        proxies[old].set_accept(Accept::Forward)?;
    }
    let slowest = took.iter().copied().fold(0.0, f64::max);
    let what = "black-holed primary: from the fault to the commit".to_owned();
    report.value("blackhole", what, Spread::of(took), "ms", Target::AtMost(1500.0));
    let what = "the same, the slowest".to_owned();
    report.value("blackhole", what, Spread::of(vec![slowest]), "ms", Target::AtMost(1500.0));
    Ok(())
}

fn wait_for_warm_link(client: &Client, standby: usize) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let status = client.status();
        if status.cluster.servers.get(standby).is_some_and(|server| server.warm_links > 0) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err("no link to the standby became warm".into())
}
