//! `segue journal show`: the statements of one transaction or submission.

use std::process::ExitCode;

use clap::Args;
use segue::RecoveredStatements;
use segue::journal::{Record, Recovered};

use super::entry::{self, Entry, age};
use super::place::{Place, named};
use crate::output::{Failure, out};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Its number, or a submission's id
    id: String,
    /// Show the parameters' values and COPY data too
    #[arg(long)]
    values: bool,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let seen = options.place.look()?;
    let entries = entry::all(&seen.recovered)?;
    let entry = find(&entries, &options.id)?;
    out(&format!(
        "{} {}: {}{}, {} bytes{}",
        entry.kind(),
        entry.found.owner,
        entry.state(),
        if entry.found.doubtful { ", doubtful: records of it may be missing" } else { "" },
        entry.found.bytes(),
        entry.began_unix_ms.map_or_else(String::new, |at| format!(", began {} ago", age(at)))
    ));
    if entry.submission.is_some() {
        return submission(&seen.recovered, entry, options.values);
    }
    for (number, statement) in RecoveredStatements::read(&seen.recovered, &entry.found).enumerate()
    {
        let statement = statement?;
        out(&format!("{:>4}  {}", number + 1, statement.sql));
        for (at, value) in statement.values().iter().enumerate() {
            out(&parameter(at, value.type_oid, value.text, value.value, options.values));
        }
        match (statement.copy_data.as_ref(), options.values) {
            ([], _) => {}
            (data, true) => out(&String::from_utf8_lossy(data)),
            (data, false) => out(&format!("      COPY data: {} bytes", data.len())),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// By number or by id.
pub fn find<'a>(entries: &'a [Entry], id: &str) -> Result<&'a Entry, Failure> {
    let number = id.parse().ok();
    let named = id.parse().ok();
    let is = |entry: &&Entry| {
        Some(entry.found.owner) == number || (named.is_some() && entry.submission == named)
    };
    entries.iter().find(is).ok_or_else(|| {
        format!("nothing in the journal is called {id}; `segue journal list` shows what there is")
            .into()
    })
}

fn submission(recovered: &Recovered, entry: &Entry, values: bool) -> Result<ExitCode, Failure> {
    let read = recovered.records(&entry.found, |record| match record {
        Record::Submission(it) => {
            for (number, statement) in it.statements.iter().enumerate() {
                out(&format!("{:>4}  {}", number + 1, statement.sql));
                for (at, param) in statement.params.iter().enumerate() {
                    out(&parameter(at, param.oid, param.format == 0, param.value, values));
                }
            }
        }
        // The server's message may quote values.
        Record::DeadLetter(it) if values => {
            for (_, text) in it.fields.iter().filter(|(tag, _)| b"CMDHW".contains(tag)) {
                out(&format!("      {text}"));
            }
        }
        Record::DeadLetter(it) => {
            out(&format!(
                "      dead letter: SQLSTATE {}, statement {}",
                it.field(b'C').unwrap_or_default(),
                it.statement + 1
            ));
        }
        _ => {}
    });
    read.map_err(|error| named(&error))?;
    Ok(ExitCode::SUCCESS)
}

fn parameter(at: usize, oid: u32, text: bool, value: Option<&[u8]>, shown: bool) -> String {
    let form = if text { "text" } else { "binary" };
    let what = match (value, shown) {
        (None, _) => "NULL".to_owned(),
        (Some(value), false) => format!("{} bytes", value.len()),
        (Some(value), true) if text => format!("{:?}", String::from_utf8_lossy(value)),
        (Some(value), true) => {
            let digits: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{digits}")
        }
    };
    format!("      ${} ({form}, type {oid}): {what}", at + 1)
}
