//! What the journal refuses, and takes later.

use std::io::ErrorKind::{Other, StorageFull};
use std::sync::Arc;

use uuid::Uuid;

use crate::client::event::Events;
use crate::client::journal::FileJournal;
use crate::client::submit::carrier::Deed;
use crate::client::submit::desk::Desk;
use crate::client::submit::failure::{SHORTAGE_MS, unmet};
use crate::client::submit::losses::Losses;
use crate::client::submit::store::{Death, Store, Unended};
use crate::client::submit::submission::Submission;
use crate::client::submit::ticket::Executed;
use crate::config::Config;
use crate::journal::tests::faulty::{Faulty, Plan, View};
use crate::journal::{Options, Recovered, SyncPolicy};

fn open(dir: &Faulty, sync: SyncPolicy) -> (Store, Recovered) {
    let options = Options::new(sync, 1 << 20, Uuid::from_u128(1));
    let (file, recovered) = FileJournal::take_over(Arc::new(dir.clone()), options).unwrap();
    (Store::new(Some(Arc::new(file))), recovered)
}

/// A disk was full for a moment when a submission that the server refuses was to become a dead letter. The
/// journal gave the same answer from then on, also when there was room: the submission was sent again every
/// half second, and its lane stood still, until the client was opened again.
#[test]
fn a_dead_letter_that_was_refused_once_is_kept_later() {
    for sync in [SyncPolicy::None, SyncPolicy::Batch, SyncPolicy::Always] {
        for kind in [StorageFull, Other] {
            let dir = Faulty::default();
            let (store, _) = open(&dir, sync);
            let payload = Submission::new().statement("SELECT 1/0", &[]).unwrap();
            let payload = payload.into_payload(0).unwrap();
            let mut keep = store.begin();
            store.keep(&mut keep, &payload).unwrap();
            let fails =
                || dir.plan(Plan { fail_write: Some((dir.writes(), 5, kind)), ..Plan::default() });
            let death = |statement| Death { at_unix_ms: 1, statement, error: unmet(0, 7) };

            fails();
            store.bury(&mut keep, &death(1)).unwrap_err();
            dir.plan(Plan::default());
            store.bury(&mut keep, &death(2)).unwrap();

            fails();
            store.revive(&mut keep).unwrap_err();
            dir.plan(Plan::default());
            store.revive(&mut keep).unwrap();

            store.bury(&mut keep, &death(3)).unwrap();
            drop(store);
            let (store, recovered) = open(&dir, sync);
            let mut found = Vec::new();
            let take = |it: Unended| {
                found.push((it.payload.id, it.death.map(|death| death.statement)));
            };
            store.unended(&recovered, take).unwrap();
            assert_eq!(found, [(payload.id, Some(3))], "{sync:?} {kind:?}");
            assert!(!recovered.report().is_damaged());
        }
    }
}

/// The disk failed when a submission was to become a dead letter, and what it had taken of that could not be cut off.
/// The submission was run again, with success this time, and was told to be done. The process died before its end was
/// written: the next one found the dead letter, and told that nothing of it was committed. Found by reading.
#[test]
fn a_dead_letter_that_was_refused_is_not_found_by_whoever_comes_after_it_is_done() {
    for sync in [SyncPolicy::Batch, SyncPolicy::Always] {
        let dir = Faulty::default();
        let options = Options::new(sync, 1 << 20, Uuid::from_u128(1));
        let (file, recovered) = FileJournal::take_over(Arc::new(dir.clone()), options).unwrap();
        let config =
            "host=nowhere sslmode=disable user=till dbname=sales journal=file journal_dir=/nowhere";
        let config = Arc::new(Config::parse(config).unwrap());
        let mut losses = Losses::new(&config, true);
        let journal = Some((Arc::new(file), &recovered));
        let desk = Desk::open(config, Arc::new(Events::default()), 1, journal).unwrap();
        let submission = Submission::new().statement("SELECT 1/n FROM t", &[]).unwrap();
        let ticket = desk.submit(submission, None).unwrap();
        let number = desk.take(0, 1, true, 0)[0].job.number;

        // As a file system that becomes read only when it fails.
        dir.plan(Plan { fail_sync: Some((dir.syncs(), 9)), cannot_cut: true, ..Plan::default() });
        let bury = Deed::Bury { number, statement: 0, error: unmet(0, 7) };
        desk.carry_out(vec![bury], &mut losses, 0);
        assert!(ticket.poll().unwrap().is_none(), "nobody is told before it is kept");
        let dead = |view| {
            let left = Faulty::of(&dir.after(view));
            let (store, recovered) = open(&left, sync);
            let mut dead = 0;
            store.unended(&recovered, |it| dead += usize::from(it.death.is_some())).unwrap();
            dead
        };
        assert_eq!(dead(View::Process), 1);
        assert!(desk.take(0, 1, true, SHORTAGE_MS).is_empty(), "it is not void yet");
        assert!(desk.take(0, 1, true, SHORTAGE_MS + 1).is_empty());
        assert_eq!(dead(View::Process), 1);

        dir.plan(Plan::default());
        assert_eq!(desk.take(0, 1, true, 2 * SHORTAGE_MS)[0].job.number, number);
        let done = Executed { rows: vec![1], found_done: false };
        desk.carry_out(vec![Deed::Tell(vec![(number, done)])], &mut losses, 2 * SHORTAGE_MS);
        assert!(ticket.poll().unwrap().is_some());
        for view in [View::Process, View::Disk] {
            assert_eq!(dead(view), 0, "{sync:?} {view:?}");
        }
    }
}
