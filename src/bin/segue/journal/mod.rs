//! `segue journal`: looks at the journal that a client has left, and clears it up.
//!
//! * `place`: which journal, and how it is read or taken over;
//! * `entry`: what is in it, in words; `show`: the statements of one;
//! * `recover`: asks the ledger; `purge`: forgets.
//!
//! `list`, `show` and `verify` change nothing, need no server, and may be used beside the process that
//! owns the journal. Values of parameters are shown only where they were asked for.

mod entry;
mod place;
mod purge;
mod recover;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::output::{Failure, err, grouped, out};
use entry::Entry;
use place::{Place, Seen};

#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List every transaction and submission in the journal
    List(Look),
    /// Show the statements of one
    Show(show::Options),
    /// Read all of the journal, and tell what is damaged
    Verify(Look),
    /// Ask the ledger what became of each transaction; nothing is forgotten
    Recover(recover::Options),
    /// Forget what is decided, or what is named
    Purge(purge::Options),
}

#[derive(Args)]
struct Look {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    match &options.command {
        Command::List(options) => list(options),
        Command::Show(options) => show::run(options),
        Command::Verify(options) => verify(options),
        Command::Recover(options) => recover::run(options),
        Command::Purge(options) => purge::run(options),
    }
}

fn list(options: &Look) -> Result<ExitCode, Failure> {
    let seen = options.place.look()?;
    let entries = entry::all(&seen.recovered)?;
    if options.json {
        let entries: Vec<_> = entries.iter().map(Entry::json).collect();
        let damaged = seen.recovered.report().is_damaged();
        let all = json!({ "in_use_by": seen.holder, "damaged": damaged, "entries": entries });
        out(&all.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    tell_holder(&seen);
    tell_damage(&seen);
    out(&entry::table(&entries));
    Ok(ExitCode::SUCCESS)
}

fn tell_holder(seen: &Seen) {
    if let Some(pid) = seen.holder {
        err(&format!("in use by process {pid}: what is in flight there is among what follows"));
    }
}

fn tell_damage(seen: &Seen) {
    if seen.recovered.report().is_damaged() {
        err("warning: the journal is damaged; `segue journal verify` says where");
    }
}

fn verify(options: &Look) -> Result<ExitCode, Failure> {
    let seen = options.place.look()?;
    let report = seen.recovered.report();
    let damaged = report.is_damaged();
    let exit = u8::from(damaged);
    if options.json {
        let findings = report.findings.iter().map(|finding| {
            json!({
                "file": finding.file, "position": finding.position, "bytes": finding.bytes,
                "damage": finding.what.is_damage(), "what": finding.to_string(),
            })
        });
        let all = json!({
            "exit": exit, "damaged": damaged, "in_use_by": seen.holder, "files": report.files,
            "bytes": report.bytes, "records": report.records,
            "in_flight": seen.recovered.in_flight().count(),
            "findings": findings.collect::<Vec<_>>(),
        });
        out(&all.to_string());
        return Ok(ExitCode::from(exit));
    }
    tell_holder(&seen);
    for finding in &report.findings {
        let severity = if finding.what.is_damage() { "damage" } else { "note" };
        out(&format!("{severity}: {finding}"));
    }
    let doubtful = seen.recovered.in_flight().filter(|found| found.doubtful).count();
    out(&format!(
        "{} files, {} bytes, {} records: {}",
        report.files,
        grouped(report.bytes),
        grouped(report.records),
        match (damaged, doubtful) {
            (false, 0) => "all of it is whole".to_owned(),
            (true, 0) => "damaged; nothing that is in flight is concerned".to_owned(),
            (_, doubtful) => format!("of {doubtful} in flight, records may be missing"),
        }
    ));
    Ok(ExitCode::from(exit))
}
