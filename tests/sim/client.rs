//! One client of a run: an application and its session.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use segue::cluster;
use segue::cluster::seeking::Seeking;
use segue::session::{LedgerAccess, Options, Session, Statement};

use crate::app::{App, Request};
use crate::files::Files;
use crate::limits::Limits;
use crate::plan::{For, Plan};
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
    /// The journal on disk.
    pub files: Option<Files>,
    /// Whose picture of the cluster it shares.
    pub monitor: usize,
    pub seeking: Seeking,
    pub search: Option<Search>,
    pub waits: Waits,
    pub limits: Limits,
}

impl Client {
    pub fn new(number: usize, plan: &Plan, access: LedgerAccess, world: &mut World) -> Self {
        let files = Files::new(plan.rng(For::Files(number)));
        let mut rng = plan.rng(For::Client(number));
        let options = Options {
            journal_bytes_max: if rng.chance(8) { 200 } else { 1 << 20 },
            message_bytes_max: 1 << 20,
            statement_cache_size: *rng.pick(&[0, 1, 3, 64]),
            rotate_commits: *rng.pick(&[1, 2, 5, 100]),
            retry_conflicts: *rng.pick(&[0, 0, 2]),
            writes: true,
            backup_acknowledges: rng.chance(15),
            ledger_required: false,
            reapply: false,
            files: files.is_some(),
        };
        let limits =
            Limits { journal: options.journal_bytes_max, message: options.message_bytes_max };
        let app = App {
            ledger: access != LedgerAccess::None,
            backed: options.backup_acknowledges,
            rotates_fast: options.rotate_commits < 100,
            ..App::default()
        };
        world.note(|| format!("client {number}: {access:?}, {options:?}"));
        Self {
            number,
            session: Session::new(options, (u128::from(plan.seed) << 8) | (number as u128 + 1)),
            app,
            statements: HashMap::new(),
            link: None,
            input: BytesMut::new(),
            requests: VecDeque::new(),
            pipeline: 0,
            awaiting: None,
            access,
            actions: 0,
            steps_left: 3 + rng.below(20),
            highest_timeline: 0,
            files,
            monitor: 0,
            seeking: Seeking::default(),
            search: None,
            waits: Waits::default(),
            limits,
        }
    }

    pub fn is_over(&self) -> bool {
        self.steps_left == 0 && self.requests.is_empty() && self.app.tx.is_none()
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

/// The first of the numbers that an action may write.
pub fn ids_from(action_number: usize) -> i64 {
    1000 + 100 * action_number as i64
}

/// The client that writes a number; that of anybody else is none.
pub fn writer_of(id: i64) -> Option<usize> {
    let action = usize::try_from(id - 1000).ok()? / 100;
    Some(action % CLIENTS_MAX)
}
