//! `segue watch`: what a client knows of its servers, once a second, and events as they come.
//! It opens no session, so that nothing is installed and nothing waits.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use segue::client::ClientStatus;
use segue::cluster::Verdict;
use segue::{Client, ClientEvent, Config};

use crate::output::{Failure, err, grouped, out};
use crate::stop::Stop;

#[derive(Args)]
pub struct Options {
    /// The cluster, as a URI or a keyword string
    uri: String,
    /// End after so many seconds; 0 goes on until Ctrl-C
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let config = Config::parse(&options.uri)?;
    for warning in config.warnings.iter() {
        err(&format!("warning: {warning}"));
    }
    let stop = Stop::on_signals()?;
    let client = Client::open(config)?;
    let start = Instant::now();
    let _subscription = client.on_event(move |event| {
        let at = start.elapsed().as_secs_f64();
        match event {
            ClientEvent::Cluster(event) => out(&format!("{at:8.3} s  ** {event}")),
            // Without sessions there is nothing else; what a later version adds is shown as it is.
            event => out(&format!("{at:8.3} s  ** {event:?}")),
        }
    });
    let mut seconds = 0;
    while stop.sleep_until(start + Duration::from_secs(seconds)) {
        if options.seconds > 0 && seconds >= options.seconds {
            break;
        }
        if seconds > 0 {
            show(start, &client.status());
        }
        seconds += 1;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(start: Instant, status: &ClientStatus) {
    let at = start.elapsed().as_secs_f64();
    let cluster = &status.cluster;
    for (number, server) in cluster.servers.iter().enumerate() {
        let mark = if cluster.chosen == Some(number) { '>' } else { ' ' };
        let mut line = format!("{at:8.3} s {mark} {server}");
        // Of a server that is not of this cluster the rest would mislead.
        if server.verdict == Verdict::Member {
            if let Some(timeline) = server.timeline {
                line.push_str(&format!(", timeline {timeline}"));
            }
            if let Some(lsn) = server.lsn {
                line.push_str(&format!(", at {:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF));
            }
            if let Some(lag) = server.lag_bytes {
                line.push_str(&format!(", {} bytes behind", grouped(lag)));
            }
        }
        if server.warm_links > 0 {
            line.push_str(&format!(", {} warm links", server.warm_links));
        }
        out(&line);
    }
    if cluster.chosen.is_none() {
        out(&format!("{at:8.3} s   no server can be used"));
    }
}
