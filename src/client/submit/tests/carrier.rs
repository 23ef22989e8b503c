//! The carrier against answers written by hand: what is told, held back, and sent again.

use std::sync::Arc;

use bytes::BytesMut;
use uuid::Uuid;

use super::pipe::{answers, job, payload};
use crate::client::submit::carrier::{AtWork, Carrier, Deed, Lost, Seals, Taken};
use crate::client::submit::pipe::Pipe;
use crate::cluster::{Confirmed, LedgerAccess};

/// Of a submission with one statement.
const DONE: &str = "2 C 1 2 C Z";

fn at_work(backup: bool) -> Carrier {
    let mut it = Carrier::default();
    let seals = backup.then(|| Seals::of(Uuid::from_u128(1)));
    let pipe = Pipe::new(0, 1 << 20);
    let access = LedgerAccess::Table;
    it.handle_link(AtWork { pipe, server: 0, timeline: 3, access, seals, incarnation: None });
    it.poll_deeds();
    it
}

/// Sends these, and takes in what is said to it.
fn send(it: &mut Carrier, numbers: &[u64], script: &str) -> Result<Vec<Deed>, Lost> {
    let taken = |number: &u64| {
        let payload = Some(Arc::new(payload(1)));
        Taken { job: job(*number), payload, plain: true }
    };
    let mut out = BytesMut::new();
    it.send(numbers.iter().map(taken).collect(), &mut out);
    it.handle_input(&mut answers(script), &mut out)?;
    Ok(it.poll_deeds())
}

fn told(deeds: &[Deed]) -> Vec<u64> {
    let of = |deed: &Deed| match deed {
        Deed::Tell(told) => told.iter().map(|(number, _)| *number).collect(),
        _ => Vec::new(),
    };
    deeds.iter().flat_map(of).collect()
}

#[test]
fn what_is_found_done_waits_for_the_server_to_confirm_it() {
    let mut it = at_work(false);
    let deeds = send(&mut it, &[1, 2], &format!("2 23505 Z {DONE}")).unwrap();
    assert_eq!(told(&deeds), [2], "what this attempt has committed is told at once");
    assert!(it.has_untold() && !it.is_idle());
    let deeds = send(&mut it, &[], "1 2 C Z").unwrap();
    assert_eq!(told(&deeds), [1]);
    assert!(!it.has_untold() && it.is_idle());
}

#[test]
fn with_a_backup_nothing_is_told_before_it_has_it() {
    let mut it = at_work(true);
    assert_eq!(told(&send(&mut it, &[1, 2], &format!("{DONE} {DONE}")).unwrap()), [] as [u64; 0]);
    assert_eq!(it.poll_question(), None, "the seal is not in the log yet");
    assert_eq!(told(&send(&mut it, &[], "2 C Z").unwrap()), [] as [u64; 0]);
    let question = it.poll_question().expect("the backup is asked");
    assert_eq!((question.number, question.server), (1, 0));
    it.handle_backup(Ok(Confirmed::ByBackup)).unwrap();
    assert_eq!(told(&it.poll_deeds()), [1, 2]);
}

#[test]
fn what_is_not_told_when_the_link_is_lost_is_sent_again() {
    let mut it = at_work(true);
    send(&mut it, &[1], DONE).unwrap();
    send(&mut it, &[], "2 C Z").unwrap();
    send(&mut it, &[2], "").unwrap();
    assert!(it.poll_question().is_some());
    it.handle_lost(Lost(None), &mut BytesMut::new());
    let again = it.poll_deeds().into_iter().find_map(|deed| match deed {
        Deed::Again(numbers) => Some(numbers),
        _ => None,
    });
    assert_eq!(again, Some(vec![2, 1]), "unanswered, and committed on a server that may be lost");
    assert!(it.is_idle() && !it.has_untold() && it.room() == 0);
    assert_eq!((it.lost, it.timeline_floor), (Some(0), 3));
}

#[test]
fn a_server_is_left_behind_where_sessions_belong_elsewhere_or_a_newer_timeline_is() {
    let it = at_work(false);
    assert!(!it.is_left_behind(None, 3) && !it.is_left_behind(Some(0), 3));
    assert!(it.is_left_behind(Some(1), 3) && it.is_left_behind(Some(0), 4));
    assert!(!Carrier::default().is_left_behind(Some(1), 4), "it is on none");
}

/// A server without a ledger is none that is lost; one that has become read-only is.
#[test]
fn a_claim_that_is_refused_gives_up_the_link_and_not_the_submission() {
    for (code, lost) in [("42P01", None), ("25006", Some(0))] {
        let mut it = at_work(false);
        let why = send(&mut it, &[1], &format!("2 {code} Z")).unwrap_err();
        assert!(matches!(&it.poll_deeds()[..], [Deed::Again(numbers)] if numbers == &[1]));
        it.handle_lost(why, &mut BytesMut::new());
        assert_eq!(it.lost, lost, "{code}");
    }
}
