//! A thousand sessions over one client: threads of the process, and memory of each session beside
//! the kernel's socket buffers. Measured in a process of its own, whose memory nobody else has used.

use std::process::Command;

use segue::Client;

use crate::Failure;
use crate::measure::Spread;
use crate::report::{Report, Target};
use crate::servers;

const SESSIONS: u32 = 1000;

pub fn run(report: &mut Report) -> Result<(), Failure> {
    let cluster = servers::builder(1).max_connections(SESSIONS + 200).start()?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--sessions-of", &cluster.conninfo()])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [threads, opened, used] = numbers[..] else {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the process with the sessions failed: {error}").into());
    };
    let single = |value| Spread::of(vec![value]);
    let what = "1,000 sessions: threads beside the main one".to_owned();
    report.value("sessions", what, single(threads - 1.0), "", Target::AtMost(1.0));
    let what = "1,000 sessions: memory of each, opened".to_owned();
    report.value("sessions", what, single(opened), "KiB", Target::AtMost(64.0));
    let what = "1,000 sessions: memory of each, after transactions".to_owned();
    report.value("sessions", what, single(used), "KiB", Target::AtMost(64.0));
    Ok(())
}

/// Opens the sessions and prints: threads, KiB a session once opened, and once used.
pub fn child(conninfo: &str) -> Result<(), Failure> {
    let client = Client::connect(conninfo)?;
    // What the client itself takes is not the sessions'.
    let mut first = client.session()?;
    first.execute("CREATE TABLE t (id int4 PRIMARY KEY, n int4)", &[])?;
    let before = resident_kib()?;
    let mut sessions = Vec::with_capacity(usize::try_from(SESSIONS)?);
    for _ in 0..SESSIONS {
        sessions.push(client.session()?);
    }
    let per_session = |now: f64| (now - before) / f64::from(SESSIONS);
    let opened = per_session(resident_kib()?);
    for (session, id) in sessions.iter_mut().zip(0i32..) {
        let mut tx = session.transaction()?;
        tx.execute("INSERT INTO t VALUES ($1, $2)", &[&id, &1])?;
        tx.query("SELECT n FROM t WHERE id = $1", &[&id])?;
        tx.commit()?;
        session.query_one("SELECT n FROM t WHERE id = $1", &[&id])?;
    }
    let used = per_session(resident_kib()?);
    println!("{} {opened} {used}", threads()?);
    Ok(())
}

fn status(key: &str) -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix(key)).ok_or("/proc has no such key")?;
    let number = line.trim_start_matches(':').split_whitespace().next().ok_or("no number")?;
    Ok(number.parse()?)
}

fn threads() -> Result<f64, Failure> {
    status("Threads")
}

pub fn resident_kib() -> Result<f64, Failure> {
    status("VmRSS")
}
