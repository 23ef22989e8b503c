//! `segue journal purge`: has the journal forget. What is not decided goes only when that is said
//! explicitly.

use std::process::ExitCode;

use clap::Args;

use super::entry::{self, Entry};
use super::place::{Place, named};
use super::show::find;
use crate::output::{Failure, out};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Numbers, or ids of submissions; without any, all that is decided
    ids: Vec<String>,
    /// Everything, submissions that have not been run included
    #[arg(long, conflicts_with = "ids", requires = "yes")]
    all: bool,
    /// Also what is not decided: it is lost, whether it is committed or not
    #[arg(long)]
    yes: bool,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let (journal, recovered) = options.place.take_over(options.place.key()?)?;
    let entries = entry::all(&recovered)?;
    let chosen: Vec<&Entry> = if options.ids.is_empty() {
        entries.iter().filter(|entry| options.all || entry.is_decided()).collect()
    } else {
        options.ids.iter().map(|id| find(&entries, id)).collect::<Result<_, _>>()?
    };
    if let Some(entry) = chosen.iter().find(|entry| !entry.is_decided() && !options.yes) {
        return Err(format!(
            "{} {} is not decided ({}): `segue journal recover` asks the ledger; --yes forgets it all \
             the same. Nothing was forgotten",
            entry.kind(),
            entry.found.owner,
            entry.state()
        )
        .into());
    }
    let mut last = Ok(());
    for entry in &chosen {
        last = last.and(journal.adopt(&entry.found).end(&journal));
    }
    last.and_then(|()| journal.flush(None)).map_err(|error| named(&error))?;
    for entry in &chosen {
        out(&format!("Forgot {} {} ({}).", entry.kind(), entry.found.owner, entry.state()));
    }
    let left = entries.len() - chosen.len();
    drop((entries, recovered));
    journal.close().map_err(|error| named(&error))?;
    out(&match left {
        0 => "Nothing is left.".to_owned(),
        left => format!("{left} left: `segue journal recover` decides transactions."),
    });
    Ok(ExitCode::SUCCESS)
}
