//! Segue and those that it is compared with. All run the same statements on the same rows.

pub mod libpq;
pub mod minimal;
pub mod pipelined;
pub mod program;
pub mod segue;
pub mod segue_c;
pub mod tokio;

pub const POINT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
pub const ACCOUNTS: &str = "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2";
pub const TELLERS: &str = "UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2";
pub const BRANCHES: &str = "UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2";
pub const HISTORY: &str =
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, now())";

/// Times `count` operations one by one.
pub fn timed<E>(count: u32, mut work: impl FnMut() -> Result<(), E>) -> Result<Vec<u64>, E> {
    let mut took = Vec::with_capacity(usize::try_from(count).unwrap_or_default());
    let mut last = std::time::Instant::now();
    for _ in 0..count {
        work()?;
        let now = std::time::Instant::now();
        took.push(u64::try_from(now.duration_since(last).as_nanos()).unwrap_or(u64::MAX));
        last = now;
    }
    Ok(took)
}
