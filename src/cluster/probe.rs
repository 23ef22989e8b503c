//! The question to which a server answers what it is, and the reading of that answer. Pure.

use std::time::Instant;

use super::picture::Observed;
use super::{Facts, LedgerAccess, Preparations};
use crate::wire::Malformed;

/// The text of one row's columns.
pub type Row = Vec<Option<String>>;

/// One string, one row, so that a probe is one round trip of the simple protocol. It begins a
/// transaction because on a standby nothing can be asked under the user's default isolation level
/// where that is serializable.
///
/// A primary's timeline is taken from the name of the WAL file that it writes, since its control
/// file still tells the old one right after a promotion. A standby's is the newer of its control
/// file's and its receiver's (which says nothing to a role without pg_read_all_stats).
pub fn sql(preparations: &dyn Preparations) -> String {
    question(
        "(SELECT c.system_identifier FROM pg_catalog.pg_control_system() AS c)",
        preparations.ledger_access_sql(),
        preparations.backend_start_sql(),
    )
}

/// As [`sql`], without what a link that has been asked before knows already: a promotion changes
/// neither the cluster, nor who may do what, nor the link's own backend. What is left out takes
/// longer to answer than all the rest, just when sessions wait for the answer.
pub fn brief_sql() -> String {
    question("NULL", "NULL", "NULL")
}

/// Fills what [`brief_sql`] has left out from the last full answer on the same link.
pub fn complete(row: &mut Row, full: &[Option<String>]) {
    for column in KNOWN_COLUMNS {
        if let (Some(value), Some(known)) = (row.get_mut(column), full.get(column)) {
            value.clone_from(known);
        }
    }
}

/// The columns of the system identifier, the ledger and the backend's start.
const KNOWN_COLUMNS: [usize; 3] = [2, 7, 8];

fn question(identifier: &str, ledger: &str, start: &str) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT r, pg_catalog.current_setting('transaction_read_only'), \
         {identifier}, \
         CASE WHEN r THEN NULL ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END, \
         CASE WHEN r THEN GREATEST((SELECT k.timeline_id FROM pg_catalog.pg_control_checkpoint() AS k), \
         (SELECT m.min_recovery_end_timeline FROM pg_catalog.pg_control_recovery() AS m), \
         (SELECT w.received_tli FROM pg_catalog.pg_stat_get_wal_receiver() AS w)) END, \
         CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, \
         CASE WHEN r THEN GREATEST(pg_catalog.pg_last_wal_receive_lsn(), \
         pg_catalog.pg_last_wal_replay_lsn()) END, \
         {ledger}, {start} \
         FROM (SELECT pg_catalog.pg_is_in_recovery() AS r OFFSET 0) AS segue_probe; COMMIT"
    )
}

/// Reads the row that [`sql`] gives.
pub fn read(row: &[Option<String>], asked: Instant) -> Result<Observed, Malformed> {
    let [recovery, read_only, identifier, walfile, timeline, lsn, received, ledger, start] = row
    else {
        return Err(Malformed("a probe's answer has another number of columns"));
    };
    let in_recovery = text(recovery)? == "t";
    let timeline = match in_recovery {
        true => text(timeline)?.parse().ok(),
        // The first eight digits of a WAL file's name are the timeline.
        false => text(walfile)?.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()),
    };
    let lsn = parse_lsn(text(lsn)?)?;
    // The identifier is unsigned, but shown as a signed number.
    let identifier: i64 =
        text(identifier)?.parse().map_err(|_| Malformed("a probe's system identifier"))?;
    Ok(Observed {
        received: received.as_deref().map_or(Ok(lsn), parse_lsn)?,
        asked,
        facts: Facts {
            in_recovery,
            read_only: text(read_only)? == "on",
            system_identifier: u64::from_ne_bytes(identifier.to_ne_bytes()),
            timeline: timeline.ok_or(Malformed("a probe's timeline"))?,
            lsn,
            ledger: match ledger.as_deref() {
                Some("table") => LedgerAccess::Table,
                Some("function") => LedgerAccess::Function,
                _ => LedgerAccess::None,
            },
            backend_start: start.clone().unwrap_or_default(),
        },
    })
}

fn text(value: &Option<String>) -> Result<&str, Malformed> {
    value.as_deref().ok_or(Malformed("a probe's answer lacks a value"))
}

fn parse_lsn(text: &str) -> Result<u64, Malformed> {
    let parsed = text.split_once('/').and_then(|(high, low)| {
        let high = u32::from_str_radix(high, 16).ok()?;
        let low = u32::from_str_radix(low, 16).ok()?;
        Some(u64::from(high) << 32 | u64::from(low))
    });
    parsed.ok_or(Malformed("a probe's position in the WAL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: [&str; 9]) -> Row {
        values.iter().map(|v| (*v != "-").then(|| (*v).to_owned())).collect()
    }

    #[test]
    fn reads_a_primary_and_a_standby() {
        let asked = Instant::now();
        let primary = row([
            "f",
            "off",
            "-5",
            "0000000C00000001000000A3",
            "-",
            "1/A3000060",
            "-",
            "table",
            "today",
        ]);
        let facts = read(&primary, asked).unwrap().facts;
        assert_eq!((facts.timeline, facts.lsn), (12, 0x1_A300_0060));
        assert_eq!(facts.system_identifier, u64::MAX - 4);
        assert_eq!(facts.ledger, LedgerAccess::Table);
        assert!(!facts.in_recovery && !facts.read_only);
        let standby = row(["t", "on", "5", "-", "7", "0/10", "0/20", "none", "today"]);
        let observed = read(&standby, asked).unwrap();
        assert_eq!((observed.facts.timeline, observed.received), (7, 0x20));
        assert!(observed.facts.in_recovery && observed.facts.read_only);
    }

    #[test]
    fn a_brief_answer_is_completed_by_the_full_one_before_it() {
        let standby = row(["t", "on", "5", "-", "7", "0/10", "0/20", "table", "today"]);
        let mut promoted =
            row(["f", "off", "-", "000000080000000000000001", "-", "0/30", "-", "-", "-"]);
        complete(&mut promoted, &standby);
        let facts = read(&promoted, Instant::now()).unwrap().facts;
        assert_eq!((facts.timeline, facts.system_identifier), (8, 5));
        assert_eq!((facts.ledger, facts.backend_start.as_str()), (LedgerAccess::Table, "today"));
    }

    #[test]
    fn refuses_answers_that_make_no_sense() {
        let asked = Instant::now();
        for bad in [
            row(["f", "off", "x", "0000000C", "-", "0/1", "-", "none", ""]),
            row(["f", "off", "1", "short", "-", "0/1", "-", "none", ""]),
            row(["f", "off", "1", "-", "1", "0/1", "-", "none", ""]),
            row(["t", "on", "1", "-", "1", "01", "-", "none", ""]),
            row(["-", "on", "1", "-", "1", "0/1", "-", "none", ""]),
        ] {
            assert!(read(&bad, asked).is_err(), "{bad:?}");
        }
        assert!(read(&[], asked).is_err());
    }
}
