//! One client of a run: an application and its session.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use segue::cluster;
use segue::cluster::seeking::Seeking;
use segue::session::{LedgerAccess, Options, Session, Statement};

use crate::aftermath::Aftermath;
use crate::app::{App, Request};
use crate::disk::Disk;
use crate::files::Files;
use crate::focus::Focus;
use crate::limits::Limits;
use crate::plan::{For, Plan};
use crate::recovering::Recovery;
use crate::search::{Search, Waits};
use crate::world::World;

/// More clients than this no run has.
pub const CLIENTS_MAX: usize = 4;

pub struct Client {
    pub number: usize,
    pub session: Session,
    pub app: App,
    pub statements: HashMap<String, Arc<Statement>>,
    pub link: Option<usize>,
    pub input: BytesMut,
    pub requests: VecDeque<Request>,
    /// So many requests follow without waiting for replies.
    pub pipeline: usize,
    pub awaiting: Option<(uuid::Uuid, u64)>,
    pub access: LedgerAccess,
    pub actions: usize,
    pub steps_left: usize,
    pub highest_timeline: u32,
    /// The session has gone on upon a newer timeline.
    pub has_moved: bool,
    /// The link is newer than what was asked for last.
    pub link_is_newer: bool,
    /// The journal on disk.
    pub files: Option<Files>,
    /// Whose picture of the cluster it shares.
    pub monitor: usize,
    pub seeking: Seeking,
    pub search: Option<Search>,
    pub waits: Waits,
    pub limits: Limits,
    /// Its process has died, and a later one is not at work yet.
    pub recovery: Option<Recovery>,
    pub aftermath: Aftermath,
    pub options: Options,
    run: u64,
    /// How many processes there were before this one.
    pub incarnation: u8,
}

impl Client {
    pub fn new(number: usize, plan: &Plan, access: LedgerAccess, world: &mut World) -> Self {
        let mut disk = plan.rng(For::Disk(number));
        let focus = world.profile.focus;
        let has_disk = disk.chance(35);
        let has_disk = focus.map_or(has_disk, Focus::disk);
        let disk = has_disk.then(|| Disk::new(disk, number, focus));
        let may_reapply = access != LedgerAccess::None;
        let files = Files::new(plan.rng(For::Files(number)), disk);
        let mut replies = plan.rng(For::Replies(number));
        let mut rng = plan.rng(For::Client(number));
        let mut options = Options {
            journal_bytes_max: if rng.chance(8) { 200 } else { 1 << 20 },
            message_bytes_max: 1 << 20,
            statement_cache_size: *rng.pick(&[0, 1, 3, 64]),
            rotate_commits: *rng.pick(&[1, 2, 5, 100]),
            retry_conflicts: *rng.pick(&[0, 0, 2]),
            writes: true,
            backup_acknowledges: rng.chance(15),
            reply_before_commit: replies.chance(20),
            ledger_required: access != LedgerAccess::None && replies.chance(20),
            reapply: may_reapply && rng.chance(40),
            files: files.is_some(),
        };
        if let Some(focus) = focus {
            focus.options(&mut options);
        }
        let limits =
            Limits { journal: options.journal_bytes_max, message: options.message_bytes_max };
        let app = App {
            ledger: access != LedgerAccess::None,
            backed: options.backup_acknowledges,
            ledger_required: options.ledger_required,
            reply_first: options.reply_before_commit,
            rotates_fast: options.rotate_commits < 100,
            ..App::default()
        };
        world.note(|| format!("client {number}: {access:?}, {options:?}"));
        if let Some(disk) = files.as_ref().and_then(|files| files.disk.as_ref()) {
            world.note(|| format!("its journal: {}", disk.told()));
        }
        let run = plan.seed;
        Self {
            number,
            session: Session::new(options.clone(), seed(run, number, 0)),
            app,
            statements: HashMap::new(),
            link: None,
            input: BytesMut::new(),
            requests: VecDeque::new(),
            pipeline: 0,
            awaiting: None,
            access,
            actions: 0,
            steps_left: 3 + rng.below(world.profile.requests_max),
            highest_timeline: 0,
            has_moved: false,
            link_is_newer: false,
            files,
            monitor: 0,
            seeking: Seeking::default(),
            search: None,
            waits: Waits::default(),
            limits,
            recovery: None,
            aftermath: Aftermath::default(),
            options,
            run,
            incarnation: 0,
        }
    }

    /// Of its session.
    pub fn seed(&self) -> u128 {
        seed(self.run, self.number, self.incarnation)
    }

    /// The backend that it has to do with.
    pub fn backend(&self) -> Option<usize> {
        self.link.or(self.recovery.as_ref().and_then(Recovery::backend))
    }

    pub fn is_over(&self) -> bool {
        let idle = self.requests.is_empty() && self.app.tx.is_none();
        self.steps_left == 0 && idle && self.recovery.is_none()
    }

    /// The number of an action in the whole run.
    pub fn action_number(&self, action: usize) -> usize {
        action * CLIENTS_MAX + self.number
    }

    pub fn action_numbers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.actions).map(|action| self.action_number(action))
    }
}

/// The same in the cluster's words.
pub fn access(access: LedgerAccess) -> cluster::LedgerAccess {
    match access {
        LedgerAccess::None => cluster::LedgerAccess::None,
        LedgerAccess::Table => cluster::LedgerAccess::Table,
        LedgerAccess::Function => cluster::LedgerAccess::Function,
    }
}

fn seed(run: u64, number: usize, incarnation: u8) -> u128 {
    (u128::from(run) << 8) | (number as u128 + 1) | (u128::from(incarnation) << 100)
}

/// The first of the numbers that an action may write.
pub fn ids_from(action_number: usize) -> i64 {
    1000 + 100 * action_number as i64
}

/// The client that writes a number; that of anybody else is none.
pub fn writer_of(id: i64) -> Option<usize> {
    let action = usize::try_from(id - 1000).ok()? / 100;
    Some(action % CLIENTS_MAX)
}
