//! The real journal of a client, on a disk in memory that fails on purpose, and what a crash leaves
//! of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use segue::Config;
use segue::client::parts::{FileJournal, Keeper};
use segue::journal::{Key, Options, Recovered, SyncPolicy};
use uuid::Uuid;

use crate::faulty::{Faulty, Plan, State, View};
use crate::focus::Focus;
use crate::rng::Rng;

/// Where its segments begin to hold records.
const RECORDS_AT: u64 = 8192;

pub struct Disk {
    pub rng: Rng,
    dir: Faulty,
    options: Options,
    config: Arc<Config>,
    pub file: Option<Arc<FileJournal>>,
    pub keeper: Option<Keeper>,
    pub crashes_left: usize,
    /// The crash before was one of the machine, and nothing had been awaited of the disk: what the
    /// journal says may be too little.
    pub forgets: bool,
    /// A sync may have failed, and with it what was written before.
    syncs_fail: bool,
    /// Something may have been refused by it, or by a journal of so many bytes for lack of room.
    refuses: bool,
    nearly_full: u64,
    number: usize,
    focus: Option<Focus>,
}

/// Nobody else writes, so that nobody waits until then.
pub fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(1 << 20)
}

impl Disk {
    pub fn new(rng: Rng, number: usize, focus: Option<Focus>) -> Self {
        Self::sized(rng, number, 500, focus)
    }

    /// `least`: so many bytes of records there is room for in a segment, or a few thousand more.
    pub fn sized(mut rng: Rng, number: usize, least: u64, focus: Option<Focus>) -> Self {
        let sync = *rng.pick(&[
            SyncPolicy::Batch,
            SyncPolicy::Batch,
            SyncPolicy::Always,
            SyncPolicy::None,
        ]);
        // A few records fill a segment, and a few of these the journal.
        let segment = RECORDS_AT + least + 400 * rng.below(10) as u64;
        let segments = 6 + rng.below(8) as u64;
        let client = Uuid::from_u128(number as u128 + 1);
        let mut options = Options::new(sync, segments * segment, client)
            .with_geometry(segment, *rng.pick(&[64, 256, 1024]));
        options.key = rng.chance(25).then(|| Key::new([7; 32]));
        let required = rng.chance(50) && focus != Some(Focus::HalfKept);
        let required = if required { "on" } else { "off" };
        let config = format!(
            "host=nowhere sslmode=disable user=till dbname=sales journal=file journal_dir=/nowhere \
             journal_required={required}"
        );
        let config = Config::parse(&config).unwrap_or_else(|error| panic!("{error}"));
        let crashes_left = *rng.pick(&[0, 1, 1, 2, 4]);
        let crashes_left = if focus.is_some() { 4 } else { crashes_left };
        let mut disk = Self {
            rng,
            dir: Faulty::default(),
            options,
            config: Arc::new(config),
            file: None,
            keeper: None,
            crashes_left,
            forgets: false,
            syncs_fail: false,
            refuses: false,
            nearly_full: (segments - 2) * segment,
            number,
            focus,
        };
        disk.open();
        disk.attend();
        disk.goes_wrong();
        disk
    }

    /// What it is like, for the trace.
    pub fn told(&self) -> String {
        let Self { options, config, .. } = self;
        format!(
            "{:?}, {} bytes at most, required: {}, encrypted: {}",
            options.sync,
            options.bytes_max,
            config.journal.required,
            options.key.is_some()
        )
    }

    pub fn waits(&self) -> bool {
        self.options.sync != SyncPolicy::None
    }

    /// `journal_sync=none` acknowledges what the kernel alone has. If a sync at the end of a segment fails
    /// then, and the machine dies, what is missing had been acknowledged, which is told as damage.
    pub fn may_be_damaged(&self) -> bool {
        self.forgets && self.syncs_fail
    }

    /// Whether what some later process has found out may not have been kept.
    pub fn may_have_refused(&mut self) -> bool {
        let bytes = self.file.as_ref().map_or(0, |file| file.journal.disk_bytes());
        self.refuses |= bytes >= self.nearly_full;
        self.refuses
    }

    /// Takes over what is on the disk; says what was found there.
    pub fn open(&mut self) -> Recovered {
        let opened = FileJournal::take_over(Arc::new(self.dir.clone()), self.options.clone());
        let (file, recovered) = opened.unwrap_or_else(|error| panic!("{error}"));
        let report = recovered.report();
        assert!(
            !report.is_damaged() || self.may_be_damaged(),
            "the journal of {} is damaged: {report:?}",
            self.number
        );
        self.file = Some(Arc::new(file));
        recovered
    }

    /// A session begins.
    pub fn attend(&mut self) {
        let Some(file) = &self.file else { return };
        let mut keeper = Keeper::new(Arc::clone(file), Arc::clone(&self.config));
        keeper.system_identifier = CLUSTER;
        self.keeper = Some(keeper);
    }

    /// Something may go wrong with the disk from now on.
    pub fn goes_wrong(&mut self) {
        let mut plan = Plan::default();
        let (syncs, writes) = (self.dir.syncs(), self.dir.writes());
        let of = if self.focus == Some(Focus::HalfKept) { 2 } else { 12 };
        match self.rng.below(of) {
            0 => plan.fail_sync = Some((syncs + self.rng.below(20), self.rng.below(5))),
            1 => {
                let kind =
                    *self.rng.pick(&[std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other]);
                plan.fail_write = Some((writes + self.rng.below(20), self.rng.below(5), kind));
            }
            2 => plan.space = Some(20_000 + self.rng.below(40_000)),
            _ => {}
        }
        self.syncs_fail |= plan.fail_sync.is_some();
        self.refuses |=
            plan.fail_sync.is_some() || plan.fail_write.is_some() || plan.space.is_some();
        self.dir.plan(plan);
    }

    /// Nothing goes wrong with it any more.
    pub fn heal(&mut self) {
        self.dir.plan(Plan::default());
    }

    /// The thread that writes what nobody waits for.
    pub fn flush(&self) {
        if let Some(file) = &self.file {
            // Whose records were refused finds out.
            let _ = file.journal.flush(None);
        }
    }

    /// What a crash now goes back to.
    pub fn mark(&self) -> (State, usize) {
        (self.dir.state(), self.dir.trace_len())
    }

    /// The process ends, or the machine does. What was done since the mark is cut at some operation and
    /// some byte of it.
    pub fn crash(&mut self, (mut state, before): (State, usize)) -> String {
        let ops = self.dir.trace_from(before);
        let whole = self.rng.below(ops.len() + 1);
        ops[..whole].iter().for_each(|op| state.apply(op));
        if let Some(op) = ops.get(whole).and_then(|op| op.cut(self.rng.next())) {
            state.apply(&op);
        }
        let view = match self.rng.below(6) {
            0..3 => View::Process,
            3 => View::Disk,
            4 => View::Torn(self.rng.next()),
            _ => View::Cut(self.rng.next()),
        };
        let of_machine = view != View::Process;
        self.forgets |= of_machine && !self.waits();
        (self.file, self.keeper) = (None, None);
        self.dir = Faulty::of(&state.after(view));
        format!("{whole} of {} operations, {view:?}", ops.len())
    }
}

/// The model's servers are one cluster.
pub const CLUSTER: u64 = 42;
