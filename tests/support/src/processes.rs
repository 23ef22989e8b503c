//! Processes of servers: starting them from one long-lived thread, finding them, signalling them.
//!
//! PostgreSQL's children call setsid(), and after the postmaster's death they belong to init, so
//! neither process group nor parent finds them all. Their working directory does: every process of
//! a server stands in its data directory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::error::{Error, Result};

type Order = (Command, Sender<std::io::Result<Child>>);

/// Spawns a child from a thread that lives as long as this process does. The kernel's
/// parent-death signal is bound to the thread that forked, and a test's own thread ends early.
pub(crate) fn spawn_from_nursery(what: &str, command: Command) -> Result<Child> {
    static NURSERY: OnceLock<Mutex<Option<Sender<Order>>>> = OnceLock::new();
    let gone = || Error::State("the thread that starts servers is gone".to_owned());
    let (answer_to, answer) = channel();
    {
        let mut nursery = match NURSERY.get_or_init(|| Mutex::new(None)).lock() {
            Ok(guard) => guard,
            Err(poisoned) => poisoned.into_inner(),
        };
        let orders = match &*nursery {
            Some(orders) => orders,
            None => {
                let (orders, inbox) = channel::<Order>();
                std::thread::Builder::new()
                    .name("segue-nursery".to_owned())
                    .spawn(move || {
                        for (mut command, answer_to) in inbox {
                            // Whoever asked may have given up; the child is then dropped, and
                            // dies with this process.
                            let _ = answer_to.send(command.spawn());
                        }
                    })
                    .map_err(Error::io("starting the thread that starts servers"))?;
                nursery.insert(orders)
            }
        };
        orders.send((command, answer_to)).map_err(|_| gone())?;
    }
    answer.recv().map_err(|_| gone())?.map_err(Error::io(format!("starting {what}")))
}

/// All processes that stand in the directory.
pub(crate) fn standing_in(dir: &Path) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
        .filter(|&pid| !is_zombie(pid))
        .collect()
}

/// Signals one process; one that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(Error::State(format!("{pid} is no process id")));
    };
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::Io {
            what: format!("sending {signal:?} to process {}", pid.as_raw_nonzero()),
            source: errno.into(),
        }),
    }
}

/// Signals every process that stands in the directory until no new one turns up.
pub(crate) fn signal_all(dir: &Path, first: Option<u32>, with: Signal) -> Result<()> {
    let mut done = Vec::new();
    if let Some(first) = first {
        signal(first, with)?;
        done.push(first);
    }
    loop {
        let fresh: Vec<_> =
            standing_in(dir).into_iter().filter(|pid| !done.contains(pid)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for pid in fresh {
            signal(pid, with)?;
            done.push(pid);
        }
    }
}

/// Waits until no process stands in the directory.
pub(crate) fn wait_until_gone(dir: &Path, timeout: Duration) -> bool {
    poll(timeout, || standing_in(dir).is_empty())
}

/// Asks again and again until the answer is yes or the time is up.
pub(crate) fn poll(timeout: Duration, mut question: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if question() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// When the process started, in clock ticks since boot: with its id this names it for good.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    stat_field(pid, 19)?.parse().ok()
}

fn is_zombie(pid: u32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state == "Z")
}

/// A field of /proc/PID/stat, counted from the one after the command's closing bracket.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(index).map(str::to_owned)
}
