//! The figures: one table for people, one JSON object for machines.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;
use crate::measure::{Rounds, Spread};

/// Which values of a figure are good.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for its own sake.
    None,
}

impl Target {
    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::None => String::new(),
        }
    }

    fn verdict(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::None => None,
        }
    }
}

struct Figure {
    bench: &'static str,
    what: String,
    ours: String,
    theirs: String,
    value: Spread,
    mean: Option<Spread>,
    unit: &'static str,
    target: Target,
}

/// All figures of one run.
#[derive(Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// A latency compared round by round.
    pub fn latency(
        &mut self,
        bench: &'static str,
        what: String,
        rounds: &Rounds,
        (ours, theirs): (usize, usize),
        target: Target,
    ) {
        self.add(Figure {
            bench,
            what,
            ours: micros(rounds.p50(ours).median),
            theirs: micros(rounds.p50(theirs).median),
            value: rounds.ratio_p50(ours, theirs),
            mean: Some(rounds.ratio_mean(ours, theirs)),
            unit: "x",
            target,
        });
    }

    /// The same times as `rows` in each of them, a second.
    pub fn throughput(
        &mut self,
        bench: &'static str,
        what: String,
        rounds: &Rounds,
        (ours, theirs): (usize, usize),
        rows: u32,
        target: Target,
    ) {
        let a_second = |who| format!("{:.0}/s", f64::from(rows) * 1e9 / rounds.p50(who).median);
        self.add(Figure {
            bench,
            what,
            ours: a_second(ours),
            theirs: a_second(theirs),
            value: rounds.ratio_p50(theirs, ours),
            mean: Some(rounds.ratio_mean(theirs, ours)),
            unit: "x",
            target,
        });
    }

    /// A ratio made elsewhere.
    pub fn ratio(
        &mut self,
        bench: &'static str,
        what: String,
        (ours, theirs): (String, String),
        value: Spread,
        target: Target,
    ) {
        self.add(Figure { bench, what, ours, theirs, value, mean: None, unit: "x", target });
    }

    /// A figure by itself.
    pub fn value(
        &mut self,
        bench: &'static str,
        what: String,
        value: Spread,
        unit: &'static str,
        target: Target,
    ) {
        let (ours, theirs) = (String::new(), String::new());
        self.add(Figure { bench, what, ours, theirs, value, mean: None, unit, target });
    }

    /// Told at once, for whoever is watching.
    fn add(&mut self, figure: Figure) {
        eprintln!("{}", figure.line());
        self.figures.push(figure);
    }

    pub fn table(&self) -> String {
        let mut out = format!(
            "{:<10} {:<52} {:>10} {:>10} {:>9} {:>19} {:>7} {:>9}\n",
            "benchmark", "what", "segue", "peer", "figure", "quartiles", "means", "target"
        );
        for figure in &self.figures {
            let _ = writeln!(out, "{}", figure.line());
        }
        out
    }

    pub fn write_json(&self, path: &Path) -> Result<(), Failure> {
        let figures: Vec<Value> = self.figures.iter().map(Figure::json).collect();
        let text = serde_json::to_string_pretty(&json!({ "figures": figures }))?;
        std::fs::write(path, text + "\n")?;
        Ok(())
    }
}

impl Figure {
    fn line(&self) -> String {
        let Spread { q1, median, q3 } = self.value;
        let number = |value: f64| {
            if self.unit == "x" { format!("{value:.3}") } else { short(value) }
        };
        let verdict = match self.target.verdict(median) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        format!(
            "{:<10} {:<52} {:>10} {:>10} {:>9} {:>19} {:>7} {:>9} {verdict}",
            self.bench,
            self.what,
            self.ours,
            self.theirs,
            format!("{} {}", number(median), self.unit),
            format!("{} .. {}", number(q1), number(q3)),
            self.mean.map(|mean| format!("{:.3}", mean.median)).unwrap_or_default(),
            self.target.text(),
        )
    }

    fn json(&self) -> Value {
        json!({
            "benchmark": self.bench,
            "what": self.what,
            "segue": self.ours,
            "peer": self.theirs,
            "unit": if self.unit == "x" { "ratio" } else { self.unit },
            "median": self.value.median,
            "q1": self.value.q1,
            "q3": self.value.q3,
            "ratio_of_means": self.mean.map(|mean| mean.median),
            "target": self.target.text(),
            "met": self.target.verdict(self.value.median),
        })
    }
}

pub fn micros(ns: f64) -> String {
    if ns < 10_000_000.0 { format!("{:.1} us", ns / 1e3) } else { format!("{:.1} ms", ns / 1e6) }
}

fn short(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}
