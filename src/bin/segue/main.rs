//! The command line: `demo`, `setup`, `check`, `watch`, `options`.
//!
//! This file holds the arguments and the exit codes; each command is a file of its own, written on
//! the public API of the crate. A password is never printed: addresses and roles are, connection
//! strings are not.

mod demo;
mod output;
mod stop;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0    all is well: the demo's verdict held, the setup is done, the check found nothing to mend
  1    the demo's verdict did not hold; the check has warnings
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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Demo(options) => demo::run(&options),
    };
    done.unwrap_or_else(|failure| {
        output::failure(failure.as_ref());
        ExitCode::from(2)
    })
}
