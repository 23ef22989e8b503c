//! Instructions of Segue's own code, counted by valgrind: repeatable where the machine is noisy.
//!
//! A process of its own runs `few` and `many` operations on one session under callgrind; what its
//! main thread has executed in the one run more than in the other, divided by the difference, is
//! one operation's share. The kernel's part of a system call is not seen by valgrind.

use std::path::Path;
use std::process::Command;

use ::segue::Client;

use crate::Failure;
use crate::measure::{Choice, Random, Spread};
use crate::peer::{POINT, segue};
use crate::report::{Report, Target};
use crate::servers::{SCALE, Way};

/// Rows of the large result.
const ROWS: u64 = 10_000;
const LARGE: &str = "SELECT n, n::int8 AS m, 'row ' || n AS name, n * 1.5::float8 AS x, NULL::text AS nothing, \
     n % 7 = 0 AS odd FROM generate_series(1, 10000) n";

pub fn run(cluster: &segue_testkit::Cluster, report: &mut Report) -> Result<(), Failure> {
    let conninfo = Way::Unix.conninfo_all(cluster);
    let dir = std::env::temp_dir().join(format!("segue-callgrind-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let per = |work: &str, few: u64, many: u64| -> Result<f64, Failure> {
        let counted = |count| counted(&dir, work, count, &conninfo);
        Ok((counted(many)? - counted(few)?) / (many - few) as f64)
    };
    let point = per("point", 500, 2500)?;
    let tpcb = per("tpcb", 50, 250)?;
    let row = per("large", 2, 12)? / ROWS as f64;
    std::fs::remove_dir_all(&dir)?;
    let mut tell = |what: &str, value, target| {
        let value = Spread::of(vec![value]);
        report.value("instructions", what.to_owned(), value, "instr.", target);
    };
    tell("a point SELECT", point, Target::AtMost(2800.0));
    tell("a TPC-B-like transaction, sealed", tpcb, Target::None);
    tell("one of 10,000 rows of six columns", row, Target::AtMost(150.0));
    Ok(())
}

/// The instructions that the main thread of a process takes to do `work` so many times.
fn counted(dir: &Path, work: &str, count: u64, conninfo: &str) -> Result<f64, Failure> {
    let out = dir.join(format!("{work}-{count}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["--instructions-of", work, &count.to_string(), conninfo])
        .output()
        .map_err(|error| format!("valgrind is needed to count instructions: {error}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("the process under valgrind failed: {error}").into());
    }
    let profile = std::fs::read_to_string(format!("{}-01", out.display()))?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind gave no total")?.trim().parse()?)
}

/// What runs under valgrind: `[work, count, conninfo]`.
pub fn child(arguments: &[String]) -> Result<(), Failure> {
    let [work, count, conninfo] = arguments else {
        return Err("three arguments are needed: what, how often, where".into());
    };
    let count: u32 = count.parse()?;
    let client = Client::connect(conninfo)?;
    let mut session = client.session()?;
    let mut random = Random(1);
    match work.as_str() {
        "point" => {
            let statement = session.prepare(POINT)?;
            for _ in 0..count {
                let aid = 1 + random.below(SCALE * 100_000);
                let _: i32 = session.query_one(&statement, &[&aid])?.get(0)?;
            }
        }
        "tpcb" => {
            for _ in 0..count {
                segue::tpcb(&mut session, Choice::of(&mut random, SCALE))?;
            }
        }
        "large" => {
            for _ in 0..count {
                session.query_result(LARGE, &[], false)?;
            }
        }
        _ => return Err("unknown work".into()),
    }
    Ok(())
}
