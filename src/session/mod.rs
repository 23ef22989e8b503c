//! One logical connection, as a pure state machine: it outlives the servers that it uses.
//!
//! No socket, no thread, no clock: requests go in and bytes come out, a server's bytes go in and
//! [`Event`]s come out. That is what lets one code serve blocking callers, asyncio and the simulator.
//!
//! A driver does this, in this order, until it has the event that it waits for:
//!
//! 1. [`Session::poll_event`] until it gives nothing more;
//! 2. if [`Session::wants_link`], fetch one and give it to [`Session::handle_link_ready`];
//! 3. send [`Session::output`] and say so with [`Session::handle_sent`];
//! 4. read, and give what came to [`Session::handle_input`]. If the link is lost or the bytes are
//!    malformed, read what is still buffered first, then call [`Session::handle_link_lost`].
//!
//! The parts: `request` turns requests into units, which `send` records and sends; `reply` turns a
//! server's messages into events, and `settle` decides what a unit has done when it ends. `loss`,
//! `adoption`, `replay` and `verdict` bring a session to another link, `reapply` what was lost after
//! it had been acknowledged. `seals` numbers the commits, `settings` keeps what a new link has to be
//! told, `unit` is what stands between two Syncs. `filing` says what a journal on disk is handed.

mod adoption;
pub mod classify;
mod copy;
mod counters;
pub mod event;
mod filing;
pub mod internals;
pub mod ledger;
mod loss;
mod number_hash;
mod prepared;
mod queue;
mod reapply;
mod replay;
mod reply;
mod request;
mod seals;
mod send;
mod settings;
mod settle;
pub mod statement;
mod transaction;
mod unit;
mod verdict;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use uuid::Uuid;

pub use counters::{Counter, Counters};
pub use event::Event;
pub use filing::Filing;
pub use internals::LedgerAccess;
pub(crate) use number_hash::NumberMap;
pub use request::{Execute, NoParameters, Parameters};
pub use seals::LedgerRow;
pub use statement::{Column, Description, Statement};
pub use transaction::BeginOptions;

use crate::error::{Error, ErrorKind, Outcome, Result, ServerError};
use crate::mutation::{self, Mutation};
use crate::wire::frame::Status;
use crate::wire::row::Rows;
use adoption::Adoption;
use filing::Files;
use loss::Zombie;
use prepared::Prepared;
use queue::Queue;
use reapply::Reapply;
use replay::Finish;
use seals::Seals;
use settings::Settings;
use settle::Awaiting;
use transaction::Transaction;
use unit::Unit;

/// What a session is told about its limits once and for all.
#[derive(Debug, Clone)]
pub struct Options {
    /// A transaction whose requests are larger than this loses its protection.
    pub journal_bytes_max: usize,
    /// A message of the server larger than this is malformed.
    pub message_bytes_max: usize,
    /// So many statements stay prepared on a link; 0 prepares none.
    pub statement_cache_size: usize,
    /// After so many commits a fresh row of the ledger is taken.
    pub rotate_commits: u32,
    /// A transaction ended by a conflict is replayed so often before the application is told.
    pub retry_conflicts: u32,
    /// Whether the session belongs on a server that can be written to.
    pub writes: bool,
    /// Whether a commit is acknowledged only once the backup has it.
    pub backup_acknowledges: bool,
    /// Whether a statement outside transactions is sealed and committed only once its reply is here.
    pub reply_before_commit: bool,
    /// Whether what may write is refused where it cannot be sealed.
    pub ledger_required: bool,
    /// Whether commits that a promotion has lost are run again.
    pub reapply: bool,
    /// Whether what is in flight is kept on disk as well: see [`Session::file`].
    pub files: bool,
}

impl Options {
    /// Whether the end of a unit with this seal, the seal and its Sync, follows its reply.
    fn ends_behind_reply(&self, seal: Option<unit::Seal>) -> bool {
        self.reply_before_commit && seal.is_some() && !mutation::on(Mutation::ReplyNotAwaited)
    }
}

/// What a session has to know of the link that it is given.
#[derive(Debug, Clone, Default)]
pub struct LinkReady {
    pub server: usize,
    pub timeline: u32,
    pub backend_pid: i32,
    /// When that backend started, in the server's own words; names it together with the pid.
    pub backend_start: String,
    /// The numbers of the statements that are prepared on it.
    pub prepared: Vec<u32>,
    /// What the server reported of its settings.
    pub parameters: Vec<(String, String)>,
    /// What may be sealed with on that server; `None` also where the ledger is not wanted.
    pub ledger: LedgerAccess,
}

/// Where the session stands.
#[derive(Debug)]
enum Phase {
    /// No link.
    Lost,
    /// A new link is being given what it needs, and the ledger is being asked.
    Adopting(Adoption),
    /// The in-flight units are being run again and compared.
    Replaying,
    /// A replay has failed; its remaining replies are passed over.
    Discarding(Finish),
    /// ROLLBACK is on its way; then this is to be done.
    RollingBack(Finish),
    /// As the application sees it.
    Live,
}

/// One logical connection. See the module's documentation for how to drive it.
#[derive(Debug)]
pub struct Session {
    options: Options,
    phase: Phase,
    link: LinkReady,
    /// Links that were lost, whose backends may still be at work.
    zombies: Vec<Zombie>,
    /// The session had been on the present link's server before.
    returned: bool,
    ledger_access: LedgerAccess,
    /// The highest timeline that this session has been on.
    timeline_floor: u32,
    output: BytesMut,
    /// The last unit in `output` still lacks its Sync: it may share one with what follows.
    sync_owed: bool,
    /// The in-flight transactions: the bytes of `units`.
    journal: BytesMut,
    /// The position in the stream of all recorded bytes at which `journal` begins.
    journal_base: usize,
    units: VecDeque<Unit>,
    /// The first unit that is not answered in full on the present link.
    front: usize,
    /// A link was lost, or replies were passed over, under the units that are there.
    disturbed: bool,
    transaction: Transaction,
    settings: Settings,
    seals: Seals,
    /// Why the server has refused the ledger.
    ledger_refusal: Option<ServerError>,
    reapply: Reapply,
    files: Files,
    events: Queue,
    counters: Arc<Counters>,
    /// The error of the unit in front, told once its transaction's status is known.
    unit_error: Option<Box<ServerError>>,
    seal_missing: bool,
    /// The seal of the unit in front has written its number.
    sealed: bool,
    /// The unit in front is committed on its server, and waits until the backup has it.
    awaiting: Option<Awaiting>,
    /// COMMIT was answered with ROLLBACK.
    rolled_back: bool,
    /// So many ReadyForQuery are to be passed over.
    discards: usize,
    prepared: Prepared,
    /// Whether BEGIN, COMMIT, ROLLBACK and the seals are prepared on the link.
    internals_ready: bool,
    pending_param_oids: Vec<u32>,
    status: Status,
    parameters: HashMap<String, String>,
    /// What the server said last, when it said that it was about to end the link.
    last_words: Option<ServerError>,
    give_up_link: bool,
    /// Why the session's state cannot be carried to another server.
    unrestorable: Option<&'static str>,
    /// An error that belongs to no request so far: the next one is answered with it.
    pending_error: Option<Error>,
    conflict_retries: u32,
    replay_attempts: u32,
}

impl Session {
    /// A session without a link. `seed` must be random: the session's secret names in the ledger
    /// are made of it.
    pub fn new(options: Options, seed: u128) -> Self {
        let seals = Seals::new(seed, options.rotate_commits);
        // What is not meant to write has no seals, and nothing to keep.
        let files = Files::new(options.files && options.writes);
        Self {
            options,
            phase: Phase::Lost,
            link: LinkReady::default(),
            zombies: Vec::new(),
            returned: false,
            ledger_access: LedgerAccess::None,
            timeline_floor: 0,
            output: BytesMut::new(),
            sync_owed: false,
            journal: BytesMut::new(),
            journal_base: 0,
            units: VecDeque::new(),
            front: 0,
            disturbed: false,
            transaction: Transaction::None,
            settings: Settings::default(),
            seals,
            ledger_refusal: None,
            reapply: Reapply::default(),
            files,
            events: Queue::default(),
            counters: Arc::default(),
            unit_error: None,
            seal_missing: false,
            sealed: false,
            awaiting: None,
            rolled_back: false,
            discards: 0,
            prepared: Prepared::default(),
            internals_ready: false,
            pending_param_oids: Vec::new(),
            status: Status::Idle,
            parameters: HashMap::new(),
            last_words: None,
            give_up_link: false,
            unrestorable: None,
            pending_error: None,
            conflict_retries: 0,
            replay_attempts: 0,
        }
    }

    /// Whether there is something to tell the application.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next thing to tell the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// The rows that have to be told next, all that have arrived together; `None` if it is not a row
    /// that comes next. For drivers that want no event for each of them.
    pub fn poll_rows(&mut self) -> Option<Rows> {
        self.events.pop_rows()
    }

    /// What to send next.
    pub fn output(&mut self) -> &[u8] {
        self.end_batch();
        &self.output
    }

    /// Whether there is something to send, now or once the journal on disk has it.
    pub fn has_output(&mut self) -> bool {
        self.awaits_journal() || !self.output().is_empty()
    }

    /// What can be sent while more requests are about to be made. A Sync that the last one may share with
    /// them is not among it: [`output`](Self::output) has it when nothing else is left.
    pub fn output_so_far(&self) -> &[u8] {
        &self.output
    }

    /// The length of what has gathered for sending, short of a Sync at most, and of what will once the
    /// journal on disk has it.
    pub fn output_len(&self) -> usize {
        self.output.len() + self.held_len()
    }

    /// All of [`output`](Self::output), or of [`output_so_far`](Self::output_so_far), has been sent.
    pub fn handle_sent(&mut self) {
        self.output.clear();
    }

    /// Whether there is no link, and one must be found before anything else can happen.
    pub fn wants_link(&self) -> bool {
        matches!(self.phase, Phase::Lost)
    }

    /// Whether the link works and must be given up all the same, because its server cannot be
    /// written to any more. The driver then calls [`handle_link_lost`](Self::handle_link_lost).
    pub fn gives_up_link(&self) -> bool {
        self.give_up_link
    }

    /// Whether requests can be made: there is a link, and nothing is being restored on it.
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live) && !self.reapply.is_running()
    }

    /// Whether everything that was requested has been answered.
    pub fn is_quiet(&self) -> bool {
        self.is_live() && self.front == self.units.len()
    }

    /// Whether no request is unanswered, with a link or without.
    pub fn is_settled(&self) -> bool {
        self.front == self.units.len()
    }

    /// So many bytes are kept of what is in flight.
    pub fn journal_len(&self) -> usize {
        self.journal.len()
    }

    /// The transaction's status as the application sees it.
    pub fn status(&self) -> Status {
        match &self.transaction {
            Transaction::None => Status::Idle,
            Transaction::Pending(_) => Status::Open,
            Transaction::Doomed(_) => Status::Failed,
            Transaction::Open(_) if self.status == Status::Failed => Status::Failed,
            Transaction::Open(_) => Status::Open,
        }
    }

    /// Whether a COMMIT or a sealed statement is on its way, so that its outcome is the ledger's to
    /// tell if the link is lost now.
    pub fn commit_in_flight(&self) -> bool {
        self.units.range(self.front..).any(|unit| {
            unit.purpose == unit::Purpose::Commit
                || (matches!(self.transaction, Transaction::None)
                    && unit.effect > classify::Effect::Reads)
        })
    }

    /// A setting that the server reports, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server that the session is on, or was on last.
    pub fn server(&self) -> usize {
        self.link.server
    }

    /// Below this timeline the session never goes again.
    pub fn timeline_floor(&self) -> u32 {
        self.timeline_floor
    }

    /// The session's present name in the ledger.
    pub fn ledger_row(&self) -> Uuid {
        self.seals.row()
    }

    /// Why the open transaction, or the session's state, is not protected; `None` if it is.
    pub fn protection_lost(&self) -> Option<String> {
        if let Transaction::Open(open) = &self.transaction {
            if let Some(reason) = open.unprotected {
                return Some(reason.to_owned());
            }
        }
        if let Some(reason) = self.unrestorable {
            return Some(reason.to_owned());
        }
        if let Some(problem) = self.files.problem() {
            return Some(problem.to_owned());
        }
        (self.options.writes && !self.seals.enabled).then(|| {
            "the ledger is not in use: a commit in flight at a failure ends unknown".into()
        })
    }

    /// How commits are sealed on the present server.
    pub fn ledger_access(&self) -> LedgerAccess {
        self.ledger_access
    }

    /// Whether commits are sealed.
    pub fn ledger_in_use(&self) -> bool {
        self.seals.enabled
    }

    /// What the server said last, if it announced the end of the link.
    pub fn last_words(&self) -> Option<&ServerError> {
        self.last_words.as_ref()
    }

    /// What the session counts of its doings.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn emit(&mut self, event: Event) {
        if let Event::Error(error) = &event {
            if error.outcome() == Outcome::Unknown {
                self.counters.outcomes_unknown.add(1);
            }
        }
        self.events.push(event);
    }

    fn check_live(&self) -> Result<()> {
        if self.is_live() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Usage,
            "the session has no link: recover it before making requests",
        ))
    }
}

#[cfg(test)]
mod tests;
