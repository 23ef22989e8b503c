//! The command line: `demo`, `setup`, `check`, `watch`, `journal`, `options`.
//!
//! This file holds the arguments and the exit codes; each command is a file of its own, written on
//! the public API of the crate. A password is never printed: addresses and roles are, connection
//! strings are not.

mod check;
mod demo;
mod journal;
mod options;
mod output;
mod setup;
mod stop;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    all is well: the demo's verdict held, the setup is done, the check found nothing to mend,
       the journal is whole or all of it is decided
  1    the demo's verdict did not hold; the check has warnings; the journal is damaged, or something
       in it stays undecided
  2    the command could not be carried out; the check found no usable cluster; wrong usage
  130  interrupted by Ctrl-C

Connection strings are libpq's: postgresql://user@host1,host2/database or
\"host=host1,host2 user=... dbname=...\"; libpq's environment variables, password file and service
file count. Put passwords there and not on the command line, where other users can see them.";

/// Transactions that outlive their PostgreSQL server.
#[derive(Parser)]
#[command(name = "segue", version, after_help = EXIT_CODES, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill a real primary under a real workload, and see whether anything is lost
    Demo(demo::Options),
    /// Install, upgrade, remove or purge the ledger that makes commits exactly once
    Setup(setup::Options),
    /// Look at every server, and say what protection an application would have
    Check(check::Options),
    /// Show what a client knows of its servers, once a second, and events as they come
    Watch(watch::Options),
    /// Look at the journal that a client has left, ask the ledger what became of it, and clear up
    Journal(journal::Options),
    /// List the options of a connection string
    Options,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let done = match cli.command {
        Command::Demo(options) => demo::run(&options),
        Command::Setup(options) => setup::run(&options),
        Command::Check(options) => check::run(&options),
        Command::Watch(options) => watch::run(&options),
        Command::Journal(options) => journal::run(&options),
        Command::Options => {
            options::run();
            Ok(ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|failure| {
        output::failure(failure.as_ref());
        ExitCode::from(2)
    })
}

/// Help, the version, or what was wrong. That names the argument that was one too many, which may
/// be a connection string with a password in it.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let mut text = error.render().to_string();
    if !error.use_stderr() {
        output::out(text.trim_end());
        return ExitCode::SUCCESS;
    }
    for argument in std::env::args().skip(1) {
        if argument.contains("://") || argument.contains('=') {
            text = text.replace(&argument, "***");
            for (_, value) in argument.split_once('=').into_iter().filter(|(_, v)| v.len() > 2) {
                text = text.replace(value, "***");
            }
        }
    }
    output::err(text.trim_end());
    ExitCode::from(2)
}
