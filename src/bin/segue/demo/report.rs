//! The verdict: what the run has shown, for readers and as JSON.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;

use super::schema::Findings;
use super::timeline::{Counts, plural};
use super::workload::Record;
use super::{Options, Replication};
use crate::output::grouped;

pub struct Report<'a> {
    pub options: &'a Options,
    pub seed: u64,
    pub findings: Findings,
    pub records: &'a [Record],
    pub counts: &'a Counts,
    pub failovers: Vec<Failover>,
    pub longest_pause: Duration,
    /// How long the workload ran.
    pub took: Duration,
}

/// One failover as it went.
pub struct Failover {
    /// From the fault to the new primary's being writable.
    pub outage: Duration,
    /// From the first request for a promotion to the new primary's being writable.
    pub promotion: Duration,
    /// The longest transfer around it.
    pub pause: Duration,
}

impl Report<'_> {
    fn sum(&self, field: impl Fn(&Record) -> u64) -> u64 {
        self.records.iter().map(field).sum()
    }

    fn transactions(&self) -> u64 {
        use segue::Outcome::Committed;
        self.sum(|record| {
            record.told.iter().filter(|told| told.outcome == Committed).count() as u64
        })
    }

    fn is_sync(&self) -> bool {
        matches!(self.options.replication, Replication::Sync)
    }

    /// What speaks against it; nothing if it held.
    fn objections(&self) -> Vec<String> {
        let found = &self.findings;
        let mut objections = Vec::new();
        let mut object = |wrong: bool, text: String| {
            if wrong {
                objections.push(text);
            }
        };
        let wanted = u64::from(self.options.failovers);
        let failovers = self.failovers.len() as u64;
        object(failovers < wanted, format!("only {failovers} of {wanted} failovers took place"));
        object(self.transactions() == 0, "nothing was committed at all".to_owned());
        object(
            found.duplicated > 0,
            format!("{} applied more than once", plural(found.duplicated, "transfer")),
        );
        object(
            found.invented > 0,
            format!("{} there that were not to be", plural(found.invented, "transfer")),
        );
        object(
            found.wrong_balances > 0,
            format!("{} wrong by the log of transfers", plural(found.wrong_balances, "balance")),
        );
        object(
            found.total_before != found.total_after,
            format!("the total was {} and is {}", found.total_before, found.total_after),
        );
        object(
            found.unknown > 0,
            format!("{} without a known outcome", plural(found.unknown, "transfer")),
        );
        let errors = self.sum(|record| record.errors);
        object(errors > 0, format!("{} seen by the sessions", plural(errors, "error")));
        if self.is_sync() {
            object(found.lost > 0, format!("{} lost", plural(found.lost, "committed transfer")));
            let diverged = self.sum(|record| record.divergences);
            object(diverged > 0, plural(diverged, "replay") + " diverged");
            let surprises = self.sum(|record| record.surprises);
            object(
                surprises > 0,
                plural(surprises, "balance") + " other than the session was told",
            );
        } else {
            // Asynchronous replication loses commits; what Segue owes is to say so.
            let reported = self.counts.commits_lost.load(Ordering::Relaxed);
            object(
                found.lost > reported,
                format!("{} lost, only {reported} reported", plural(found.lost, "commit")),
            );
        }
        objections
    }

    pub fn held(&self) -> bool {
        self.objections().is_empty()
    }

    pub fn text(&self) -> String {
        let found = &self.findings;
        let mut lines = vec![String::new()];
        let transactions = self.transactions();
        lines.push(format!(
            "{} by {} in {:.1} s ({} per second), {} ({})",
            plural(transactions, "committed transfer"),
            plural(u64::from(self.options.sessions), "session"),
            self.took.as_secs_f64(),
            grouped(per_second(transactions, self.took)),
            plural(self.failovers.len() as u64, "failover"),
            self.options.fault.name(),
        ));
        for (at, failover) in self.failovers.iter().enumerate() {
            lines.push(format!(
                "  failover {}: new primary writable {} ms after the fault ({} ms of promotion); \
                 longest transfer {} ms",
                at + 1,
                failover.outage.as_millis(),
                failover.promotion.as_millis(),
                failover.pause.as_millis()
            ));
        }
        let rows = [
            ("errors seen by sessions", self.sum(|record| record.errors)),
            ("replays that diverged", self.sum(|record| record.divergences)),
            ("committed transfers lost", found.lost),
            ("transfers applied twice", found.duplicated),
            ("uncommitted transfers applied", found.invented),
            ("outcomes unknown", found.unknown),
            ("balances that are wrong", found.wrong_balances),
        ];
        for (what, count) in rows {
            lines.push(format!("  {what:<30} {}", grouped(count)));
        }
        lines.push(format!(
            "  {:<30} {} before, {} after",
            "all money together",
            grouped(found.total_before.unsigned_abs()),
            grouped(found.total_after.unsigned_abs())
        ));
        for message in self.records.iter().flat_map(|record| &record.messages).take(5) {
            lines.push(format!("  {message}"));
        }
        lines.push(String::new());
        let objections = self.objections();
        lines.push(match objections.is_empty() {
            true if self.is_sync() => {
                "VERDICT: held. No session saw an error, nothing is lost, nothing was applied twice."
                    .to_owned()
            }
            true => "VERDICT: held. Nothing was applied twice, and every commit that asynchronous \
                     replication lost was reported."
                .to_owned(),
            false => format!("VERDICT: DID NOT HOLD: {} (seed {})", objections.join("; "), self.seed),
        });
        lines.join("\n")
    }

    pub fn json(&self) -> String {
        let found = &self.findings;
        let counts = self.counts;
        let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        let messages: Vec<&String> =
            self.records.iter().flat_map(|record| &record.messages).take(20).collect();
        let promotions: Vec<u64> = self.failovers.iter().map(|f| ms(f.promotion)).collect();
        let transactions = self.transactions();
        json!({
            "held": self.held(),
            "objections": self.objections(),
            "failovers": self.failovers.len(),
            "transactions": transactions,
            "transactions_per_second": per_second(transactions, self.took),
            "rolled_back": self.sum(|record| record.rolled_back),
            "errors": self.sum(|record| record.errors),
            "error_messages": messages,
            "lost": found.lost,
            "duplicated": found.duplicated,
            "invented": found.invented,
            "unknown": found.unknown,
            "wrong_balances": found.wrong_balances,
            "total_before": found.total_before,
            "total_after": found.total_after,
            "divergences": self.sum(|record| record.divergences),
            "surprises": self.sum(|record| record.surprises),
            "longest_pause_ms": ms(self.longest_pause),
            "promotion_ms": promotions.iter().max(),
            "promotions_ms": promotions,
            "outages_ms": self.failovers.iter().map(|f| ms(f.outage)).collect::<Vec<_>>(),
            "pauses_ms": self.failovers.iter().map(|f| ms(f.pause)).collect::<Vec<_>>(),
            "sessions_moved": count(&counts.moves),
            "replays": count(&counts.replays),
            "replayed_statements": count(&counts.replayed_statements),
            "commits_lost_reported": count(&counts.commits_lost),
            "protection_lost": count(&counts.unprotected),
            "sessions": self.options.sessions,
            "seconds": self.took.as_secs_f64(),
            "replication": self.options.replication.name(),
            "fault": self.options.fault.name(),
            "seed": self.seed,
        })
        .to_string()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn per_second(count: u64, took: Duration) -> u64 {
    (count * 1000).checked_div(ms(took)).unwrap_or(0)
}
