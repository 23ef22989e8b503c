//! Compiles and drives `libpq_peer.c`.
//!
//! It is a program of its own, because it must owe nothing to Rust, and this crate nothing to
//! libpq's headers: who only builds the workspace does not need them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Failure;
use crate::measure::{Contestant, Lap};

const SOURCE: &str = include_str!("../../libpq_peer.c");

/// Compiles the peer into `dir`.
pub fn compile(dir: &Path) -> Result<PathBuf, Failure> {
    let (source, program) = (dir.join("libpq_peer.c"), dir.join("libpq_peer"));
    std::fs::write(&source, SOURCE)?;
    let pg_config = |option: &str| -> Result<String, Failure> {
        let output = Command::new("pg_config").arg(option).output().map_err(|error| {
            format!("pg_config (package libpq-dev) is needed for the libpq peer: {error}")
        })?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-o"])
        .args([&program, &source])
        .arg(format!("-I{}", pg_config("--includedir")?))
        .arg(format!("-L{}", pg_config("--libdir")?))
        .arg("-lpq")
        .status()
        .map_err(|error| format!("cc is needed for the libpq peer: {error}"))?;
    if !status.success() {
        return Err("the libpq peer does not compile".into());
    }
    Ok(program)
}

/// One libpq program with one connection.
pub struct Libpq {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Libpq {
    pub fn start(program: &Path, conninfo: &str) -> Result<Self, Failure> {
        Self::spawn(Command::new(program).arg(conninfo))
    }

    /// One that connects anew for each transaction, and prepares nothing.
    pub fn start_cold(program: &Path, conninfo: &str) -> Result<Self, Failure> {
        Self::spawn(Command::new(program).args([conninfo, "cold"]))
    }

    fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("the libpq peer has no output")?;
        let mut peer = Self { input: child.stdin.take(), output: BufReader::new(output), child };
        match peer.line()?.trim() {
            "ready" => Ok(peer),
            other => Err(format!("the libpq peer did not get ready: {other:?}").into()),
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the libpq peer has ended; its error stands above".into());
        }
        Ok(line)
    }

    pub fn tell(
        &mut self,
        command: &str,
        count: u32,
        limit: u32,
        seed: u64,
    ) -> Result<(), Failure> {
        let input = self.input.as_mut().ok_or("the libpq peer has no input")?;
        writeln!(input, "{command} {count} {limit} {seed}")?;
        Ok(())
    }

    pub fn answer(&mut self) -> Result<(u64, u64), Failure> {
        let line = self.line()?;
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(Ok(second))) => Ok((first, second)),
            _ => Err(format!("the libpq peer answered {line:?}").into()),
        }
    }

    pub fn lap(
        &mut self,
        command: &str,
        count: u32,
        limit: u32,
        seed: u64,
    ) -> Result<Lap, Failure> {
        self.tell(command, count, limit, seed)?;
        let (elapsed, p50) = self.answer()?;
        Ok(Lap { p50_ns: p50 as f64, mean_ns: elapsed as f64 / f64::from(count) })
    }

    /// As many transactions as fit in `time`: starts them.
    pub fn start_tpcb_for(&mut self, time: Duration, scale: u32, seed: u64) -> Result<(), Failure> {
        self.tell("tpcb_for", u32::try_from(time.as_millis())?, scale, seed)
    }
}

impl Drop for Libpq {
    fn drop(&mut self) {
        // The end of its input is the end of the peer.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// Takes turns with one of the peer's commands.
pub struct Turn<'a> {
    pub peer: &'a mut Libpq,
    pub command: &'static str,
    pub count: u32,
    /// Rows for `point`, branches for `tpcb`.
    pub limit: u32,
}

impl Contestant for Turn<'_> {
    fn name(&self) -> &str {
        "libpq"
    }

    fn lap(&mut self, seed: u64) -> Result<Lap, Failure> {
        self.peer.lap(self.command, self.count, self.limit, seed)
    }
}
