//! Payments handed over whole. The journal outlives this program: what it has accepted is done by its next
//! life, and is missing in the end only if Segue has broken its word.

use std::time::Duration;

use segue::{Client, Result, Submission, Ticket};

use crate::worker::Worker;

const TRANSFER: &str = "UPDATE account SET balance = balance + $2 WHERE id = $1";
const INSERT: &str = "INSERT INTO payment (id, kind, src, dst, amount) VALUES ($1, $2, $3, $4, $5)";
const NONE: Option<i32> = None;

pub fn run(client: &Client, worker: Worker) {
    while !worker.stops() {
        let id = worker.begin("submit");
        match hand_over(client, &worker, id) {
            Ok(ticket) => {
                worker.log.write('A', &id.to_string());
                let log = worker.log.try_clone().expect("a file can be duplicated");
                ticket.on_done(move |result| log.end(id, result.as_ref()));
            }
            Err(error) => worker.log.end(id, Err::<(), _>(&error)),
        }
        worker.rest();
    }
    drain(client, &worker);
    worker.log.write('Q', "");
}

fn hand_over(client: &Client, worker: &Worker, id: i64) -> Result<Ticket> {
    let mut submission = Submission::new();
    if worker.below(2) == 0 {
        let (source, target) = worker.two_accounts();
        let amount = worker.amount();
        let mut changes = [(source, -amount), (target, amount)];
        changes.sort_unstable();
        for (account, change) in changes {
            submission = submission.statement(TRANSFER, &[&account, &change])?.expect_rows(1..=1);
        }
        let payment: [&dyn segue::ToSql; 5] =
            [&id, &"submit", &Some(source), &Some(target), &amount];
        submission = submission.statement(INSERT, &payment)?;
    } else {
        submission = submission.statement(INSERT, &[&id, &"submit", &NONE, &NONE, &1i64])?;
    }
    let submission = submission.key(format!("payment {id}"));
    let submission = match worker.below(3) {
        0 => submission,
        lane => submission.lane(format!("{} {lane}", worker.number)),
    };
    // An application that is not sure hands it over once more; a key is executed once.
    if worker.below(10) == 0 {
        client.submit(submission.clone())?;
    }
    client.submit(submission)
}

/// All that was ever accepted is to be done before the program ends, also by an earlier life.
fn drain(client: &Client, worker: &Worker) {
    loop {
        match client.submissions() {
            Ok(status) if status.waiting + status.in_flight == 0 => break,
            Ok(_) => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => {
                worker.log.finding(&format!("the submissions do not answer: {error}"));
                break;
            }
        }
    }
    for letter in client.dead_letters().unwrap_or_default() {
        worker.log.finding(&format!("a dead letter: {letter:?}"));
    }
}
