//! Drives a peer that is a program in C: `libpq_peer.c` or `segue_peer.c`.
//!
//! They are programs of their own, because they must owe nothing to Rust, and this crate nothing to
//! libpq's headers: who only builds the workspace does not need them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Failure;
use crate::measure::{Contestant, Lap};

/// What the programs share.
const HEADER: &str = include_str!("../../peer.h");

/// Compiles a program into `dir`.
pub fn compile(
    dir: &Path,
    name: &str,
    source: &str,
    arguments: &[String],
) -> Result<PathBuf, Failure> {
    let (file, program) = (dir.join(name).with_extension("c"), dir.join(name));
    std::fs::write(dir.join("peer.h"), HEADER)?;
    std::fs::write(&file, source)?;
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-pthread", "-o"])
        .args([&program, &file])
        .args(arguments)
        .status()
        .map_err(|error| format!("cc is needed for {name}: {error}"))?;
    if !status.success() {
        return Err(format!("{name} does not compile").into());
    }
    Ok(program)
}

/// One running program.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    pub fn start(program: &Path, conninfo: &str) -> Result<Self, Failure> {
        Self::spawn(Command::new(program).arg(conninfo))
    }

    /// One that connects anew for each transaction, and prepares nothing.
    pub fn start_cold(program: &Path, conninfo: &str) -> Result<Self, Failure> {
        Self::spawn(Command::new(program).args([conninfo, "cold"]))
    }

    fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or("the peer has no output")?;
        let mut peer = Self { input: child.stdin.take(), output: BufReader::new(output), child };
        match peer.line()?.trim() {
            "ready" => Ok(peer),
            other => Err(format!("the peer did not get ready: {other:?}").into()),
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the peer has ended; its error stands above".into());
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
        let input = self.input.as_mut().ok_or("the peer has no input")?;
        writeln!(input, "{command} {count} {limit} {seed}")?;
        Ok(())
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u64; N], Failure> {
        let line = self.line()?;
        let numbers = line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
        let numbers = numbers.ok().and_then(|numbers| numbers.try_into().ok());
        numbers.ok_or_else(|| format!("the peer answered {line:?}").into())
    }

    /// The nanoseconds that something took, and how much was done.
    pub fn answer(&mut self) -> Result<(u64, u64), Failure> {
        self.numbers().map(|[elapsed, done]| (elapsed, done))
    }

    /// A batch, and the checksum of what was read.
    fn lap(
        &mut self,
        command: &str,
        count: u32,
        limit: u32,
        seed: u64,
    ) -> Result<(Lap, u64), Failure> {
        self.tell(command, count, limit, seed)?;
        let [elapsed, p50, checksum] = self.numbers()?;
        let lap = Lap { p50_ns: p50 as f64, mean_ns: elapsed as f64 / f64::from(count) };
        Ok((lap, checksum))
    }

    /// As many transactions as fit in `time`: starts them.
    pub fn start_tpcb_for(&mut self, time: Duration, scale: u32, seed: u64) -> Result<(), Failure> {
        self.tell("tpcb_for", u32::try_from(time.as_millis())?, scale, seed)
    }

    /// As many transactions as fit in `time`, from eight connections at once; how many a second.
    pub fn tpcb_many(&mut self, time: Duration, scale: u32, seed: u64) -> Result<f64, Failure> {
        self.tell("tpcb_many", u32::try_from(time.as_millis())?, scale, seed)?;
        let (elapsed, done) = self.answer()?;
        Ok(done as f64 * 1e9 / elapsed as f64)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The end of its input is the end of the peer.
        self.input = None;
        let _ = self.child.wait();
    }
}

/// Takes turns with one of a program's works.
pub struct Turn<'a> {
    pub name: &'static str,
    pub peer: &'a mut Program,
    pub command: &'static str,
    pub count: u32,
    /// Rows for `point`, branches for `tpcb`.
    pub limit: u32,
    /// What those who do the same have read: all must have read the same.
    pub checksums: Option<&'a Checksums>,
}

impl<'a> Turn<'a> {
    pub fn of_libpq(peer: &'a mut Program, command: &'static str, count: u32, limit: u32) -> Self {
        Self { name: "libpq", peer, command, count, limit, checksums: None }
    }
}

impl Contestant for Turn<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn lap(&mut self, seed: u64) -> Result<Lap, Failure> {
        let (lap, checksum) = self.peer.lap(self.command, self.count, self.limit, seed)?;
        if let Some(checksums) = self.checksums {
            checksums.check(seed, checksum)?;
        }
        Ok(lap)
    }
}

/// The checksum that the first has found, round by round.
#[derive(Default)]
pub struct Checksums(std::sync::Mutex<Option<(u64, u64)>>);

impl Checksums {
    fn check(&self, seed: u64, checksum: u64) -> Result<(), Failure> {
        let mut known = self.0.lock().map_err(|_| "a contestant has panicked")?;
        match *known {
            Some((of, first)) if of == seed && first != checksum => {
                Err("two contestants have read different values".into())
            }
            _ => {
                *known = Some((seed, checksum));
                Ok(())
            }
        }
    }
}
