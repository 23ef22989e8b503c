//! The workload of `tests/chaos` through the Rust face: two sessions that pay, one that reads, and two
//! threads that hand payments over whole, to a journal in files.
//!
//! Nothing is ever tried again: an application on Segue need not, and every error is to be seen. What the
//! lines of the logs mean is said in `tests/chaos/clientlog.py`.

mod pay;
mod read;
mod submit;
mod worker;

use std::error::Error;

use segue::{Client, ClientEvent};

use crate::worker::{Arguments, Worker};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::from_command_line()?;
    let mut workers = (0..5).map(|index| Worker::new(&arguments, index));
    let mut next = || workers.next().ok_or("five workers")?.map_err(Box::<dyn Error>::from);
    let (first, second, reader) = (next()?, next()?, next()?);
    let (third, fourth) = (next()?, next()?);

    let client = Client::connect(&arguments.conninfo)?;
    let log = first.log.try_clone()?;
    let _subscription = client.on_event(move |event| log.event(event));

    let conninfo = format!(
        "{} journal=file journal_dir={} {}",
        arguments.conninfo,
        arguments.journal_dir.display(),
        arguments.submit_options
    );
    let handing = Client::connect(&conninfo)?;
    let log = third.log.try_clone()?;
    let _handing_subscription = handing.on_event(move |event| log.event(event));

    std::thread::scope(|scope| {
        scope.spawn(|| pay::run(&client, first));
        scope.spawn(|| pay::run(&client, second));
        scope.spawn(|| read::run(&client, reader));
        scope.spawn(|| submit::run(&handing, third));
        scope.spawn(|| submit::run(&handing, fourth));
    });
    Ok(())
}

/// An event's name as the C face has it, its session, its two numbers, its pause in microseconds.
fn described(event: &ClientEvent) -> (&'static str, u64, u64, u64, u128) {
    match event {
        ClientEvent::ReplayStarted { session, .. } => ("replay_started", *session, 0, 0, 0),
        ClientEvent::ReplayFinished { session } => ("replay_finished", *session, 0, 0, 0),
        ClientEvent::ReplayDiverged { session, .. } => ("replay_diverged", *session, 0, 0, 0),
        ClientEvent::SessionMoved { session, pause, .. } => {
            ("session_moved", *session, 0, 0, pause.as_micros())
        }
        ClientEvent::ProtectionLost { session, .. } => ("protection_lost", *session, 0, 0, 0),
        ClientEvent::CommitsLost { session, from, to, .. } => {
            ("commits_lost", *session, *from, *to, 0)
        }
        ClientEvent::CommitReapplied { session, number, .. } => {
            ("commit_reapplied", *session, *number, *number, 0)
        }
        ClientEvent::SubmissionsLost { .. } => ("submissions_lost", 0, 0, 0, 0),
        ClientEvent::SubmissionReapplied { .. } => ("submission_reapplied", 0, 0, 0, 0),
        ClientEvent::SubmissionDied { .. } => ("submission_died", 0, 0, 0, 0),
        ClientEvent::TransactionsFound { .. } => ("transactions_found", 0, 0, 0, 0),
        ClientEvent::Notice { session, .. } => ("notice", *session, 0, 0, 0),
        _ => ("cluster", 0, 0, 0, 0),
    }
}
