//! `segue journal recover`: asks the ledger what became of each transaction, and, if told to, runs the
//! submissions that have not been.

use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use clap::Args;
use segue::config::JournalMode;
use segue::journal::Key;
use segue::{Client, Config, RecoveredTransaction, Verdict};
use serde_json::{Value, json};

use super::entry::{self, Entry, age};
use super::place::{Place, named};
use crate::output::{Failure, err, out};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// The cluster, as a URI or a keyword string, as the application has it
    uri: String,
    /// Run the submissions that have not been run, for at most failover_timeout_ms
    #[arg(long)]
    run_submissions: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What became of the submissions.
struct Ran {
    committed: u64,
    left: usize,
    dead_letters: usize,
}

pub fn run(options: &Options) -> Result<ExitCode, Failure> {
    let mut config = Config::parse(&options.uri)?;
    for warning in config.warnings.iter() {
        err(&format!("warning: {warning}"));
    }
    let given = std::mem::replace(&mut config.journal.mode, JournalMode::Memory);
    let key = match options.place.key()? {
        Some(key) => Some(key),
        None if given == JournalMode::File => key_of(&config)?,
        None => None,
    };
    let (journal, recovered) = options.place.take_over(key)?;
    let entries = entry::all(&recovered)?;
    let submissions: Vec<Entry> =
        entries.into_iter().filter(|entry| entry.submission.is_some()).collect();
    drop(recovered);
    let client = Client::open(config.clone())?;
    let found = client.recover_from(&journal)?;
    let unknown = found.iter().filter(|it| it.verdict() == Verdict::Unknown).count();
    let transactions: Vec<Value> = found.iter().map(transaction).collect();
    let text: Vec<String> = found.iter().map(line).collect();
    // The journal is free again, for whoever goes on with it.
    drop(found);
    journal.close().map_err(|error| named(&error))?;
    drop((journal, client));

    let ran = match options.run_submissions && !submissions.is_empty() {
        true => Some(run_submissions(options, config)?),
        false => None,
    };
    let undone = ran.as_ref().is_some_and(|ran| ran.left + ran.dead_letters > 0);
    let exit = u8::from(unknown > 0 || undone);
    if options.json {
        let submissions: Vec<Value> = submissions.iter().map(Entry::json).collect();
        let ran = ran.map(|ran| {
            json!({ "committed": ran.committed, "left": ran.left, "dead_letters": ran.dead_letters })
        });
        let all = json!({
            "exit": exit, "transactions": transactions, "submissions": submissions, "ran": ran,
        });
        out(&all.to_string());
        return Ok(ExitCode::from(exit));
    }
    if text.is_empty() {
        out("No transaction was in flight.");
    }
    text.iter().for_each(|line| out(line));
    if !submissions.is_empty() {
        out("Submissions that had not ended:");
        out(&entry::table(&submissions));
    }
    match ran {
        Some(ran) => out(&format!(
            "Run: {} committed, {} dead letters, {} left.",
            ran.committed, ran.dead_letters, ran.left
        )),
        None if submissions.is_empty() => {}
        None => out("The application runs them when it starts, and so does --run-submissions."),
    }
    Ok(ExitCode::from(exit))
}

fn key_of(config: &Config) -> Result<Option<Key>, Failure> {
    if let Some(key) = &config.journal.key {
        let key = Key::from_hex(key.reveal());
        return key.map(Some).ok_or_else(|| "journal_key is no key (it is not shown)".into());
    }
    let key = config.journal.key_file.as_deref().map(Key::from_file).transpose();
    key.map_err(|error| named(&error))
}

/// The client goes on with them by itself.
fn run_submissions(options: &Options, mut config: Config) -> Result<Ran, Failure> {
    config.journal.mode = JournalMode::File;
    config.journal.dir = Some(options.place.directory().to_owned());
    if let Some(file) = options.place.key_file() {
        config.journal.key = None;
        config.journal.key_file = Some(file.to_owned());
    }
    let deadline = Instant::now() + config.failover.timeout;
    let client = Client::open(config)?;
    loop {
        let status = client.submissions()?;
        let left = status.waiting + status.in_flight;
        if left == 0 || Instant::now() >= deadline {
            if let Some(problem) = status.problem.filter(|_| left > 0) {
                err(&format!("submissions cannot be run at present: {problem}"));
            }
            let (committed, dead_letters) = (status.committed, status.dead_letters);
            return Ok(Ran { committed, left, dead_letters });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn began_unix_ms(it: &RecoveredTransaction) -> Option<u64> {
    let since = it.began_at()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

fn line(it: &RecoveredTransaction) -> String {
    let (statements, _) = it.size();
    let mut text = format!(
        "{:>8}  {:<13}  {statements} statements{}",
        it.number(),
        it.verdict().name(),
        began_unix_ms(it).map_or_else(String::new, |at| format!(", began {} ago", age(at)))
    );
    if let Some(reason) = it.reason() {
        text.push_str(&format!("\n{:10}{reason}", ""));
    }
    text
}

/// The rows of the ledger are left out: their names are what allows to seal.
fn transaction(it: &RecoveredTransaction) -> Value {
    let (statements, bytes) = it.size();
    let seals = it.seals().iter().map(|seal| {
        json!({ "number": seal.number, "guarded": seal.guarded, "committed": seal.committed })
    });
    json!({
        "number": it.number(),
        "verdict": it.verdict().name(),
        "reason": it.reason(),
        "doubtful": it.is_doubtful(),
        "session": it.session().map(|id| id.to_string()),
        "database": it.database(),
        "user": it.user(),
        "began_unix_ms": began_unix_ms(it),
        "autocommit": it.is_autocommit(),
        "statements": statements,
        "bytes": bytes,
        "seals": seals.collect::<Vec<_>>(),
    })
}
