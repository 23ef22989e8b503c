//! What the journal refuses, and takes later.

use std::io::ErrorKind::{Other, StorageFull};
use std::sync::Arc;

use uuid::Uuid;

use crate::client::journal::FileJournal;
use crate::client::submit::failure::unmet;
use crate::client::submit::store::{Death, Store};
use crate::client::submit::submission::Submission;
use crate::journal::tests::faulty::{Faulty, Plan};
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
            let take = |it: crate::client::submit::store::Unended| {
                found.push((it.payload.id, it.death.map(|death| death.statement)));
            };
            store.unended(&recovered, take).unwrap();
            assert_eq!(found, [(payload.id, Some(3))], "{sync:?} {kind:?}");
            assert!(!recovered.report().is_damaged());
        }
    }
}
