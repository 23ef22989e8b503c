//! A session that reads: the sum of all balances never changes, and a stream has every row once.

use segue::{Client, Result, Session};

use crate::worker::Worker;

const SUM: &str = "SELECT sum(balance)::bigint FROM account";
const STREAM: &str = "SELECT n FROM generate_series(1, 2000) AS n";

pub fn run(client: &Client, worker: Worker) {
    let mut options = client.session_options();
    options.writes = false;
    let Some(mut session) = worker.until_connected(|| client.session_with(&options)) else {
        return;
    };
    while !worker.stops() {
        if worker.below(5) > 0 {
            let id = worker.begin("read");
            let total = session.query_one(SUM, &[]).and_then(|row| row.get::<i64>(0));
            worker.log.end(id, total.as_ref());
            if let Ok(total) = total {
                if total != worker.total {
                    let must = worker.total;
                    worker.log.finding(&format!("the sum is {total}, and must be {must}"));
                }
            }
        } else {
            let id = worker.begin("stream");
            let count = stream(&mut session, &worker);
            worker.log.end(id, count.as_ref());
            if count.is_ok_and(|count| count != 2000) {
                worker.log.finding("a stream had another number of rows");
            }
        }
        worker.rest();
    }
    worker.log.write('Q', "");
}

fn stream(session: &mut Session, worker: &Worker) -> Result<i32> {
    let mut count = 0;
    for row in session.query_stream(STREAM, &[])? {
        count += 1;
        let number: i32 = row?.get(0)?;
        if number != count {
            worker.log.finding(&format!("row {count} of a stream is {number}"));
        }
    }
    Ok(count)
}
