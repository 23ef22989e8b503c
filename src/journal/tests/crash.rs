//! Crashes at every byte, syncs that fail one after the other, disks that are full or broken.
//!
//! Each time the same must hold: what was acknowledged is there, what has ended is not in flight, and
//! nothing is there that was not written.

use std::io::ErrorKind;
use std::sync::Arc;

use super::faulty::{Faulty, Op, Plan, State, View};
use super::script::{Account, Accounts, BYTES_MAX, Script, check, key, options, recover};
use crate::journal::{
    Fate, FoundKind, Journal, Key, OutcomeKnown, Reason, Record, Seal, SyncPolicy,
};

fn lived(sync: SyncPolicy, key: Option<Key>, seed: u64, steps: usize) -> Script {
    let (mut script, _) = Script::start(Faulty::default(), options(sync, key), seed).unwrap();
    script.keeps_history = true;
    for _ in 0..steps {
        script.step();
    }
    script
}

/// The accounts as they stood when the crash came: of what was acknowledged, the least; of what was
/// written, the most.
fn accounts_at(script: &Script, ops: usize) -> Accounts {
    let last = script.history.iter().rev().find(|(len, _)| *len <= ops);
    let mut accounts = last.map_or_else(Accounts::new, |(_, accounts)| accounts.clone());
    // What was handed in while the operation that the crash cut ran may be in it.
    let next = script.history.iter().find(|(len, _)| *len > ops);
    for (owner, later) in next.iter().flat_map(|(_, accounts)| accounts) {
        let account = accounts.entry(*owner).or_insert_with(Account::default);
        account.records = later.records.clone();
        account.ended |= later.ended;
    }
    accounts
}

fn cut_everywhere(sync: SyncPolicy, key: Option<Key>, views: &[View], every: usize) {
    let script = lived(sync, key.clone(), 11, 70);
    let trace = script.dir.trace();
    assert!(trace.iter().any(|op| matches!(op, Op::Remove { .. })), "nothing was compacted");
    assert!(script.journal.counts().copied > 0, "nothing was copied forward");
    let mut state = State::default();
    let mut cuts = 0;
    for (done, op) in trace.iter().enumerate() {
        let accounts = accounts_at(&script, done);
        let parts = match op {
            Op::Write { bytes, .. } => bytes.len(),
            _ => 0,
        };
        for cut in (0..=parts).step_by(every) {
            let mut state = state.clone();
            if let Op::Write { inode, position, bytes } = op {
                // The zeros that are written ahead are all alike.
                let zeros = bytes[cut..].iter().all(|byte| *byte == 0);
                if zeros && cut > 0 && cut < parts && cut % 64 != 0 {
                    continue;
                }
                let bytes = bytes[..cut].to_vec();
                state.apply(&Op::Write { inode: *inode, position: *position, bytes });
            }
            for view in views {
                if *view == View::Disk && cut > 0 {
                    // A write that has not been synced changes nothing on the disk.
                    continue;
                }
                let files = state.after(*view);
                let recovered = recover(&files, key.as_ref());
                check(&recovered, &accounts, false);
                cuts += 1;
                if cuts % 97 == 0 {
                    go_on(&files, sync, key.clone(), &accounts);
                }
            }
        }
        state.apply(op);
    }
    assert!(cuts > 1000, "{cuts}");
}

/// A journal that was opened after a crash must remember what it found, and what comes after.
fn go_on(
    files: &std::collections::BTreeMap<String, Vec<u8>>,
    sync: SyncPolicy,
    key: Option<Key>,
    accounts: &Accounts,
) {
    let dir = Faulty::of(files);
    let (mut script, recovered) =
        Script::start(dir.clone(), options(sync, key.clone()), 5).unwrap();
    let mut accounts = accounts.clone();
    // What was found is so for good; what was not found must never come back.
    accounts.retain(|owner, _| recovered.get(*owner).is_some());
    for found in recovered.in_flight() {
        let account = accounts.get_mut(&found.owner).unwrap();
        account.acknowledged = super::script::records(&recovered, found).len();
        account.records.truncate(account.acknowledged);
        account.ended = false;
    }
    drop(recovered);
    let first = script.journal.begin().number();
    assert!(accounts.keys().all(|owner| *owner < first), "an owner's number is given out again");
    for _ in 0..12 {
        script.step();
    }
    accounts.extend(script.accounts.clone());
    for view in [View::Process, View::Disk] {
        if sync != SyncPolicy::None || view == View::Process {
            check(&recover(&dir.after(view), key.as_ref()), &accounts, false);
        }
    }
}

#[test]
fn a_machine_that_dies_at_any_byte_loses_nothing_acknowledged() {
    cut_everywhere(SyncPolicy::Batch, None, &[View::Process, View::Disk], 1);
}

#[test]
fn a_machine_that_dies_with_half_its_writes_done_loses_nothing_acknowledged() {
    let mut views: Vec<View> = (0..6).map(|n| View::Torn(n * 0x9e37_79b9 + n)).collect();
    views.extend((0..4).map(View::Cut));
    cut_everywhere(SyncPolicy::Batch, None, &views, 29);
}

#[test]
fn an_encrypted_journal_is_as_safe() {
    cut_everywhere(SyncPolicy::Batch, Some(key()), &[View::Process, View::Disk], 13);
}

#[test]
fn with_sync_always_a_record_is_safe_without_waiting() {
    cut_everywhere(SyncPolicy::Always, None, &[View::Disk, View::Torn(77)], 31);
}

#[test]
fn without_sync_a_process_that_dies_at_any_byte_loses_nothing_acknowledged() {
    cut_everywhere(SyncPolicy::None, None, &[View::Process], 7);
}

/// Lives with a fault and looks at what is left, as the process and as the disk have it.
fn with_fault(plan: Plan, sync: SyncPolicy) -> (Script, usize) {
    let (mut script, _) = Script::start(Faulty::with(plan), options(sync, None), 11).unwrap();
    for _ in 0..60 {
        script.step();
    }
    let views: &[View] =
        if sync == SyncPolicy::None { &[View::Process] } else { &[View::Process, View::Disk] };
    // The last transaction went well, so that what had been refused before is void.
    script.dir.plan(Plan::default());
    let voided = {
        let before = script.accounts.len();
        script.transaction();
        script.accounts.values().nth(before).is_some_and(|account| account.acknowledged > 0)
    };
    for view in views {
        check(&recover(&script.dir.after(*view), None), &script.accounts, voided);
    }
    let failed = script.accounts.values().filter(|account| account.failed).count();
    (script, failed)
}

#[test]
fn a_sync_that_fails_once_costs_nothing() {
    let syncs = with_fault(Plan::default(), SyncPolicy::Batch).0.dir.syncs();
    assert!(syncs > 50, "{syncs}");
    for nth in 0..syncs {
        for sync in [SyncPolicy::Batch, SyncPolicy::None] {
            let plan = Plan { fail_sync: Some((nth, 0)), ..Plan::default() };
            let (_, failed) = with_fault(plan, sync);
            assert_eq!(
                failed, 0,
                "sync {nth} {sync:?}: a fresh segment takes what the old one did not"
            );
        }
    }
}

#[test]
fn syncs_that_fail_several_times_lose_nothing_acknowledged() {
    let syncs = with_fault(Plan::default(), SyncPolicy::Batch).0.dir.syncs();
    let mut refused = 0;
    for nth in 0..syncs {
        for more in [1, 2, 3, 5, 1000] {
            let plan = Plan { fail_sync: Some((nth, more)), ..Plan::default() };
            refused += with_fault(plan, SyncPolicy::Batch).1;
        }
    }
    assert!(refused > 0, "some of it must have been refused");
}

#[test]
fn writes_that_fail_lose_nothing_acknowledged() {
    let writes = with_fault(Plan::default(), SyncPolicy::Batch).0.dir.writes();
    for nth in 0..writes {
        for more in [0, 1, 4, 1000] {
            for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
                let plan = Plan { fail_write: Some((nth, more, kind)), ..Plan::default() };
                for sync in [SyncPolicy::Batch, SyncPolicy::None] {
                    with_fault(plan, sync);
                }
            }
        }
    }
}

/// A write failed, and its segment was left as it was; the header of the next one said how far it was acknowledged. With
/// sync=none that was not on the disk, and a machine that died then left what looked like damage (simulation,
/// seed 311 of its time).
#[test]
fn without_sync_a_write_that_fails_looks_like_no_damage_once_the_machine_has_died() {
    let writes = with_fault(Plan::default(), SyncPolicy::None).0.dir.writes();
    for nth in (0..writes).step_by(3) {
        let plan = Plan { fail_write: Some((nth, 0, ErrorKind::Other)), ..Plan::default() };
        let dir = Faulty::with(plan);
        let (mut script, _) = Script::start(dir, options(SyncPolicy::None, None), 11).unwrap();
        for _ in 0..60 {
            script.step();
            let recovered = recover(&script.dir.after(View::Disk), None);
            assert!(!recovered.report().is_damaged(), "write {nth}: {:?}", recovered.report());
        }
    }
}

#[test]
fn a_disk_that_fills_up_at_any_byte_loses_nothing_acknowledged() {
    let most = usize::try_from(BYTES_MAX).unwrap();
    let mut refused = 0;
    for space in (0..most).step_by(331) {
        let plan = Plan { space: Some(space), ..Plan::default() };
        refused += with_fault(plan, SyncPolicy::Batch).1;
    }
    assert!(refused > 0);
}

#[test]
fn faults_have_names() {
    let reason = |plan| {
        let dir = Faulty::with(plan);
        let (mut script, _) = Script::start(dir, options(SyncPolicy::Batch, None), 1).unwrap();
        let mut owner = script.journal.begin();
        script.transaction();
        owner
            .append(&script.journal, &super::script_session())
            .and_then(|()| owner.commit(&script.journal, None))
            .unwrap_err()
            .reason()
    };
    assert_eq!(reason(Plan { space: Some(8300), ..Plan::default() }), Reason::NoSpace);
    assert_eq!(reason(Plan { read_only: true, ..Plan::default() }), Reason::ReadOnly);
    let broken = Some((0, usize::MAX >> 1, ErrorKind::Other));
    assert_eq!(reason(Plan { fail_write: broken, ..Plan::default() }), Reason::Io);
    let unsure = Some((0, usize::MAX >> 1));
    assert_eq!(reason(Plan { fail_sync: unsure, ..Plan::default() }), Reason::SyncFailed);
}

/// A disk that takes nothing any more must not be asked for ever, nor be littered with files.
#[test]
fn a_disk_that_keeps_failing_is_left_alone() {
    let plan = Plan { fail_sync: Some((6, usize::MAX >> 1)), ..Plan::default() };
    let (mut script, _) =
        Script::start(Faulty::with(plan), options(SyncPolicy::Batch, None), 3).unwrap();
    for _ in 0..20 {
        script.transaction();
    }
    let ops = script.dir.trace_len();
    let mut owner = script.journal.begin();
    owner.append(&script.journal, &super::script_session()).unwrap();
    let error = owner.commit(&script.journal, None).unwrap_err();
    assert_eq!(error.reason(), Reason::Failed);
    assert_eq!(script.dir.trace_len(), ops);
    assert!(script.dir.after(View::Process).len() <= 2);
    let again = owner.append(&script.journal, &super::script_session()).unwrap_err();
    assert_eq!(again.reason(), Reason::Failed, "an owner that has failed goes on failing");
}

#[test]
fn room_is_used_again_and_never_exceeded() {
    for key in [None, Some(key())] {
        let (mut script, _) =
            Script::start(Faulty::default(), options(SyncPolicy::Batch, key), 17).unwrap();
        for _ in 0..2000 {
            script.step();
            let files = script.dir.after(View::Process);
            let used: usize = files.values().map(Vec::len).sum();
            assert!(used as u64 <= BYTES_MAX, "{used}");
            assert_eq!(used as u64, script.journal.disk_bytes());
        }
        assert!(script.accounts.values().all(|account| !account.failed));
        assert!(script.journal.counts().segments > 20, "{:?}", script.journal.counts());
    }
}

#[test]
fn a_full_journal_refuses_what_is_new_and_keeps_what_goes_on() {
    let mut options = options(SyncPolicy::Batch, None);
    options.geometry = Some((40_000, 256));
    options.bytes_max = 400_000;
    let (mut script, _) = Script::start(Faulty::default(), options, 23).unwrap();
    let full = loop {
        script.submission();
        if script.accounts.values().any(|account| account.failed) {
            break script.accounts.values().filter(|account| !account.failed).count();
        }
    };
    assert!(full > 100, "{full}");
    // Those that were accepted can be ended, which makes room for others.
    for _ in 0..full {
        script.end();
    }
    script.transaction();
    let last = script.accounts.values().last().unwrap();
    assert!(!last.failed && last.acknowledged > 0);
    check(&recover(&script.dir.after(View::Disk), None), &script.accounts, true);
}

/// A process was killed between a write and its sync; another one read the records out of the kernel and
/// went on with them. Then the machine died: what had been built upon was gone, and what was built on it
/// was there.
#[test]
fn what_was_found_is_on_the_disk_before_it_is_built_upon() {
    let dir = Faulty::default();
    let (mut script, _) = Script::start(dir.clone(), options(SyncPolicy::None, None), 3).unwrap();
    script.submission();
    let number = *script.accounts.keys().next().unwrap();
    assert!(recover(&dir.after(View::Disk), None).get(number).is_none());
    drop(script);
    let (journal, recovered) =
        Journal::open(Arc::new(dir.clone()), options(SyncPolicy::Batch, None)).unwrap();
    let mut owner = journal.adopt(recovered.get(number).unwrap());
    let seal = Seal { row: uuid::Uuid::nil(), number: 1, guarded: false };
    owner.append(&journal, &Record::CommitSent(seal)).unwrap();
    owner.commit(&journal, None).unwrap();
    let recovered = recover(&dir.after(View::Disk), None);
    let found = recovered.get(number).unwrap();
    assert!(!found.doubtful && matches!(found.what, FoundKind::Submission { .. }), "{found:?}");
}

/// A write failed, and with `journal_sync=none` what had been acknowledged of its segment was in the kernel alone.
/// The next segment's header said that it was there, and when the machine died it was missed as damage
/// (simulation, seed 502822).
#[test]
fn what_a_later_segment_names_is_on_the_disk_after_a_write_that_failed() {
    for nth in 0..40 {
        let plan = Plan { fail_write: Some((nth, 0, ErrorKind::Other)), ..Plan::default() };
        let options = options(SyncPolicy::None, None);
        let Ok((mut script, _)) = Script::start(Faulty::with(plan), options, 11) else { continue };
        for _ in 0..30 {
            script.step();
        }
        let recovered = recover(&script.dir.after(View::Disk), None);
        assert!(!recovered.report().is_damaged(), "write {nth}: {:?}", recovered.report());
    }
}

/// A disk was full: of a batch the first half was written, and was cut off again. That was not put on the disk,
/// and the owners heard that nothing of them was there; their transactions went on without the journal and
/// committed. The machine died before another segment could be begun, and what had been cut off stood there again: a
/// transaction without its commit, which was told as never sent (simulation, seed 1106617).
#[test]
fn what_was_refused_is_not_found_after_any_crash_once_it_is_said_to_be_void() {
    let (mut void, mut ended, mut open) = (0, 0, 0);
    for nth in 0..24 {
        for more in [0, 1, 2, 3, 1000] {
            for kind in [None, Some(ErrorKind::StorageFull), Some(ErrorKind::Other)] {
                for sync in [SyncPolicy::Batch, SyncPolicy::Always, SyncPolicy::None] {
                    let dir = Faulty::with(match kind {
                        None => Plan { fail_sync: Some((nth, more)), ..Plan::default() },
                        Some(kind) => {
                            Plan { fail_write: Some((nth, more, kind)), ..Plan::default() }
                        }
                    });
                    let (journal, _) =
                        Journal::open(Arc::new(dir.clone()), options(sync, None)).unwrap();
                    for _ in 0..12 {
                        let mut owner = journal.begin();
                        let kept = super::transaction(&mut owner, &journal, 3);
                        if kept.is_ok() {
                            continue;
                        }
                        let number = owner.number();
                        if owner.may_be_found() {
                            let end = owner.end(&journal).and_then(|()| journal.flush(None));
                            if end.is_err() {
                                open += 1;
                                continue;
                            }
                            ended += 1;
                        } else {
                            void += 1;
                        }
                        let of_machine = (0..16).flat_map(|n| [View::Torn(n), View::Cut(n)]);
                        let of_machine = of_machine.chain([View::Disk]);
                        let of_machine = of_machine.filter(|_| sync != SyncPolicy::None);
                        for view in of_machine.chain([View::Process]) {
                            let found = recover(&dir.after(view), None);
                            assert!(
                                found.get(number).is_none(),
                                "{kind:?} {nth} {more} {sync:?} {view:?}"
                            );
                        }
                    }
                }
            }
        }
    }
    assert!(void > 50 && ended > 10 && open > 10, "{void} {ended} {open}");
}

/// Where a file cannot be cut, what was refused stands in it for whoever comes next, until the journal says that it
/// is void.
#[test]
fn what_cannot_be_cut_off_may_be_found_until_it_is_ended() {
    for sync in [SyncPolicy::Batch, SyncPolicy::Always] {
        let dir = Faulty::default();
        let (journal, _) = Journal::open(Arc::new(dir.clone()), options(sync, None)).unwrap();
        super::transaction(&mut journal.begin(), &journal, 1).unwrap();
        // As a file system that becomes read only when it fails.
        dir.plan(Plan { fail_sync: Some((dir.syncs(), 9)), cannot_cut: true, ..Plan::default() });
        let mut owner = journal.begin();
        super::transaction(&mut owner, &journal, 1).unwrap_err();
        assert!(owner.may_be_found());
        let number = owner.number();
        let is_found = |view| recover(&dir.after(view), None).get(number).is_some();
        assert!(is_found(View::Process));
        // Nobody but the end has anything to write, and the end of what is not there would not be written.
        dir.plan(Plan::default());
        owner.end(&journal).unwrap();
        journal.flush(None).unwrap();
        assert!(!is_found(View::Process) && !is_found(View::Disk));
    }
}

/// With sync=none the end of a transaction was in the kernel alone when the segment that it began in was removed;
/// what was known of its outcome stood in a later one, which stayed. The machine died, and a record was found that
/// nothing had begun: the transaction was doubted, although nothing was damaged (simulation, seed 1009600).
#[test]
fn without_sync_an_end_is_on_the_disk_before_what_it_ends_is_removed() {
    let mut ended = 0;
    for ends_after in 0..60 {
        let dir = Faulty::default();
        let (journal, _) =
            Journal::open(Arc::new(dir.clone()), options(SyncPolicy::None, None)).unwrap();
        let another = || {
            let mut owner = journal.begin();
            super::transaction(&mut owner, &journal, 1).unwrap();
            owner
        };
        let mut early = another();
        let number = early.number();
        while journal.counts().segments < 2 {
            another().end(&journal).unwrap();
        }
        let known = OutcomeKnown { fate: Fate::Committed, at_unix_ms: 3, sqlstate: "" };
        early.append(&journal, &Record::OutcomeKnown(known)).unwrap();
        // It goes on.
        drop(another());
        (0..ends_after).for_each(|_| another().end(&journal).unwrap());
        early.end(&journal).unwrap();
        (0..60).for_each(|_| another().end(&journal).unwrap());
        let mut state = State::default();
        for (done, op) in dir.trace().iter().enumerate() {
            state.apply(op);
            let recovered = recover(&state.after(View::Disk), None);
            let at = format!("{ends_after} {done}");
            assert!(!recovered.report().is_damaged(), "{at}: {:?}", recovered.report());
            recovered.in_flight().for_each(|found| assert!(!found.doubtful, "{at}: {found:?}"));
        }
        ended += usize::from(recover(&dir.after(View::Disk), None).get(number).is_none());
    }
    assert_eq!(ended, 60);
}
