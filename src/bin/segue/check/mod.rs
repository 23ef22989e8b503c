//! `segue check`: a doctor. Looks at every server by itself, so that it works when some are down,
//! and says what protection an application would have. It changes nothing on any server.
//!
//! * `ask`: one link and simple questions.
//! * `probe`: which questions, and what was answered.
//! * `judge`: what the answers mean; pure.
//! * `show`: words and JSON.

mod ask;
mod judge;
mod probe;
mod show;

use std::process::ExitCode;

use clap::Args;
use segue::Config;

use crate::output::{Failure, err, out};
use judge::Severity;

#[derive(Args)]
pub struct Options {
    /// The cluster, as a URI or a keyword string, as the application would have it
    uri: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let config = Config::parse(&options.uri)?;
    for warning in config.warnings.iter() {
        err(&format!("warning: {warning}"));
    }
    // All at once: each server that swallows packets takes the whole of its timeout.
    let servers: Result<Vec<_>, Failure> = std::thread::scope(|scope| {
        let looks: Vec<_> =
            config.hosts.iter().map(|host| scope.spawn(|| probe::look(&config, host))).collect();
        looks
            .into_iter()
            .map(|look| look.join().map_err(|_| "a thread that looked at a server panicked".into()))
            .collect()
    });
    let servers = servers?;
    let judgement = judge::judge(&config, &servers);
    let exit = match judgement.findings.iter().map(|finding| finding.severity).max() {
        None | Some(Severity::Hint) => 0,
        Some(Severity::Warning) => 1,
        Some(Severity::Unusable) => 2,
    };
    out(&match options.json {
        true => show::json(&servers, &judgement, exit),
        false => show::text(&servers, &judgement),
    });
    Ok(ExitCode::from(exit))
}
