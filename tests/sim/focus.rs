//! Coincidences that hardly any mixture comes to: what has to happen one after the other is known of these,
//! and some runs are made for it. Which runs these are is drawn by a generator of its own, so that all others are what
//! they were.

use segue::session::Options;

use crate::backend::{Backend, Wait};
use crate::data::Reply;
use crate::figures::Fault;
use crate::plan::{For, Plan};
use crate::profile::Profile;
use crate::recovering::Recovery;
use crate::rng::Rng;
use crate::run::{Result, Run};
use crate::submit;
use crate::workload::{Sort, USUAL};

/// The enum, and all there is of it.
macro_rules! foci {
    ($($(#[doc = $is:literal])* $name:ident,)*) => {
        /// What a run is made for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Focus { $($(#[doc = $is])* $name,)* }

        const ALL: &[Focus] = &[$(Focus::$name,)*];
    };
}

foci! {
    /// A pipeline outside transactions: a read of which a part was told is run again, and fails with a
    /// conflict, while a write behind it commits.
    ReadAheadOfWrite,
    /// A commit is found in the ledger of a server that is lost, with it, before that is told.
    FoundAndLost,
    /// More commits are on their way than two rows of the ledger take.
    RowsInHaste,
    /// The server refuses to open the session's row, and commits what comes behind it.
    RowsRefused,
    /// Links are lost one after the other, each before it is known what became of a write on the first.
    LinksLostInARow,
    /// The same server is reached under two names, and a backend that was left under one of them is at work.
    TwoNames,
    /// What a transaction has read has fewer rows when it is run again.
    FewerRows,
    /// An error inside a transaction is caught, and is another one when that is run again.
    CaughtErrors,
    /// A process dies behind a promotion, and its predecessor's ledger can be asked.
    DeposedIsAsked,
    /// A process dies while its commit waits for the standby, its server crashes and comes back with it, is
    /// asked, and crashes for good.
    WaitCutShort,
    /// What was in flight when a process died stays in a journal that fills up.
    JournalFills,
    /// The disk fails with a part of a transaction in the journal, and the process dies later.
    HalfKept,
}

use Focus::*;

/// When a fault is likely, of the client whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The application has been given a part of a reply.
    PartlyTold,
    /// A commit was sent and carried out, and its client has not heard all of the reply; no standby was promoted yet.
    CommitUnheard,
    /// The same, of many at once.
    PipelineUnheard,
    /// The same, and the session has lived through a promotion.
    CommitBehindPromotion,
    /// A commit was sent, and its backend is in the midst of the transaction.
    CommitAtWork,
    /// A backend has committed, and waits for the standby.
    CommitWaits,
    /// The session has asked on a new link what became of a commit, and has not heard it.
    InDoubt,
    /// Several requests are decided or run again on a newer link; no standby was promoted yet.
    Resumed,
    InTransaction,
    /// One that goes on although a statement of it has failed.
    ErrorCaught,
    /// One that has read some rows.
    RowsSeen,
    /// A later process is about to ask the ledger.
    Asking,
    /// It has told what it has found.
    Judged,
}

impl Focus {
    /// Whether this run is looked at: `SEGUE_SIM_FOCUS=JournalFills` leaves out those without that focus.
    pub fn is_asked_for(plan: &Plan) -> bool {
        let Ok(name) = std::env::var("SEGUE_SIM_FOCUS") else { return true };
        let of_submissions = submit::Focus::of(plan).filter(|_| plan.submissions);
        let of_sessions = Self::of(plan).filter(|_| !plan.submissions);
        of_submissions.is_some_and(|focus| format!("{focus:?}") == name)
            || of_sessions.is_some_and(|focus| format!("{focus:?}") == name)
    }

    /// One run in eight has one.
    pub fn of(plan: &Plan) -> Option<Self> {
        let mut rng = plan.rng(For::Focus);
        (rng.below(8) == 0).then(|| *rng.pick(ALL))
    }

    /// Whether replication has to be synchronous, or must not be.
    pub fn sync(self) -> Option<bool> {
        match self {
            WaitCutShort | LinksLostInARow => Some(true),
            FoundAndLost | RowsInHaste | DeposedIsAsked => Some(false),
            _ => None,
        }
    }

    /// Whether each client has a real journal on disk, or none has.
    pub fn disk(self) -> bool {
        matches!(self, DeposedIsAsked | WaitCutShort | JournalFills | HalfKept)
    }

    pub fn options(self, options: &mut Options) {
        options.journal_bytes_max = 1 << 20;
        options.reapply = false;
        options.backup_acknowledges &= self != FoundAndLost;
        options.rotate_commits = if self == RowsInHaste { 1 } else { 100 };
    }

    fn profile(self, profile: &mut Profile, rng: &mut Rng) {
        profile.errors = 0;
        profile.ledger_errors = 0;
        profile.strings = 0;
        profile.faults = [1, 0, 0, 0, 0, 0];
        profile.fault = 5;
        profile.fault_at_commit = 0;
        profile.fault_in_transaction = 0;
        profile.faults_max = 12;
        profile.requests_max = 20;
        profile.begins = 30;
        profile.replication = 100;
        profile.only(&[
            (Sort::InsertLog, 6),
            (Sort::InsertT, 3),
            (Sort::Bump, 3),
            (Sort::UpdateAcct, 2),
        ]);
        match self {
            ReadAheadOfWrite => {
                // With a key that is there once it has committed.
                profile.only(&[(Sort::SelectBig, 6), (Sort::InsertT, 5)]);
                (profile.begins, profile.errors) = (0, 250);
                (profile.streamed, profile.pipelined, profile.pipeline_max) = (100, 100, 30);
                (profile.small_pieces, profile.replies) = (true, 100);
                (profile.second_writer, profile.fault, profile.faults_max) = (0, 0, 60);
                profile.moments = &[(Moment::PartlyTold, 400, Fault::LinkBroken)];
            }
            FoundAndLost => {
                (profile.replication, profile.replies) = (2, *rng.pick(&[15, 40]));
                (profile.begins, profile.pipelined, profile.errors) = (0, 100, 150);
                (profile.zombies, profile.faults_max, profile.fault) = (100, 40, 0);
                profile.moments = &[
                    (Moment::CommitUnheard, 50, Fault::LinkBroken),
                    (Moment::Resumed, 100, Fault::CrashAndPromotion),
                ];
            }
            RowsInHaste => {
                (profile.begins, profile.pipelined, profile.pipeline_max) = (0, 100, 60);
                (profile.small_pieces, profile.replies) = (true, *rng.pick(&[15, 40, 100]));
                (profile.requests_max, profile.faults_max, profile.fault) = (10, 40, 0);
                profile.moments = &[(Moment::PipelineUnheard, 20, Fault::LinkBroken)];
            }
            RowsRefused => {
                profile.openings_refused = 700;
                (profile.begins, profile.pipelined, profile.streamed) = (0, 0, 0);
                (profile.fault, profile.faults_max) = (0, 24);
                (profile.small_pieces, profile.replies) = (false, 15);
                profile.moments = &[(Moment::CommitUnheard, 300, Fault::LinkBroken)];
            }
            LinksLostInARow => {
                profile.only(&[(Sort::InsertT, 1)]);
                (profile.replication, profile.stubborn) = (2, 0);
                (profile.requests_max, profile.fault, profile.faults_max) = (5, 0, 40);
                profile.moments = &[
                    (Moment::CommitWaits, 100, Fault::LinkBroken),
                    (Moment::InDoubt, 900, Fault::LinkBroken),
                ];
            }
            TwoNames => {
                profile.zombies = 5;
                (profile.fault, profile.faults_max) = (0, 24);
                profile.moments = &[(Moment::CommitAtWork, 100, Fault::LinkBroken)];
            }
            FewerRows => {
                profile.only(&[(Sort::SelectBig, 1), (Sort::InsertLog, 3)]);
                profile.begins = 100;
                (profile.savepoints, profile.pipelined) = (0, 0);
                // It writes whenever a link is lost.
                (profile.second_writer, profile.second_writes) = (0, Some(Sort::SelectBig));
                (profile.requests_max, profile.fault, profile.faults_max) = (60, 0, 40);
                profile.moments = &[(Moment::RowsSeen, 20, Fault::LinkBroken)];
            }
            CaughtErrors => {
                profile.only(&[(Sort::Guard, 6), (Sort::InsertLog, 2)]);
                (profile.begins, profile.savepoints, profile.keys) = (100, 50, 1);
                (profile.savepoint_names, profile.pipelined) = (1, 0);
                // It writes whenever a link is lost.
                (profile.second_writer, profile.second_writes) = (0, Some(Sort::UpdateAcct));
                profile.fault = 0;
                profile.requests_max = 100;
                profile.faults_max = 40;
                profile.moments = &[(Moment::ErrorCaught, 20, Fault::LinkBroken)];
            }
            DeposedIsAsked => {
                profile.faults = [0, 0, 0, 0, 1, 0];
                profile.deposed_links = 1;
                (profile.requests_max, profile.fault, profile.faults_max) = (60, 2, 6);
                profile.moments = &[(Moment::CommitBehindPromotion, 300, Fault::ClientCrash)];
            }
            WaitCutShort => {
                (profile.replication, profile.pipelined) = (2, 0);
                profile.replies = *rng.pick(&[15, 100]);
                (profile.fault, profile.faults_max) = (0, 24);
                profile.moments = &[
                    (Moment::CommitWaits, 30, Fault::ClientCrash),
                    (Moment::Asking, 500, Fault::Crash),
                    (Moment::Judged, 500, Fault::CrashAndPromotion),
                ];
            }
            JournalFills => {
                profile.fault = 0;
                profile.requests_max = 100;
                profile.moments = &[(Moment::InTransaction, 3, Fault::ClientCrash)];
            }
            HalfKept => {
                profile.begins = 90;
                profile.moments = &[(Moment::InTransaction, 10, Fault::ClientCrash)];
            }
        }
    }
}

impl Profile {
    pub fn concentrate(&mut self, focus: Focus, mut rng: Rng) {
        self.focus = Some(focus);
        focus.profile(self, &mut rng);
    }

    /// Nothing else is asked for.
    fn only(&mut self, sorts: &[(Sort, usize)]) {
        for ((sort, _), weight) in USUAL.iter().zip(&mut self.statements) {
            let wanted = sorts.iter().find(|(wanted, _)| wanted == sort);
            *weight = wanted.map_or(0, |(_, weight)| *weight);
        }
    }
}

impl Run {
    /// What a session knows a server by.
    pub fn name_of(&mut self, server: usize) -> usize {
        let address = self.world.servers[server].address;
        match self.world.profile.focus {
            Some(TwoNames) => 2 * address + self.world.rng.below(2),
            _ => address,
        }
    }

    /// A moment has come at which a fault is likely, and it happens.
    pub fn seize_moment(&mut self) -> Result<bool> {
        if self.ends {
            return Ok(false);
        }
        for (moment, likely, fault) in self.world.profile.moments {
            if !self.has_come(*moment) || !self.may_befall(*fault) {
                continue;
            }
            if self.world.rng.below(1000) >= *likely {
                continue;
            }
            if *fault == Fault::ClientCrash {
                self.crash_client()?;
            } else if let Some(number) = self.next_fault() {
                self.befall(number, Some(*fault))?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn may_befall(&self, fault: Fault) -> bool {
        let disk = self.client.files.as_ref().and_then(|files| files.disk.as_ref());
        match fault {
            Fault::ClientCrash => disk.is_some_and(|disk| disk.crashes_left > 0),
            _ => self.faults_left > 0,
        }
    }

    fn has_come(&self, moment: Moment) -> bool {
        let client = &self.client;
        let in_flight = client.recovery.is_none() && client.session.commit_in_flight();
        match moment {
            Moment::PartlyTold => {
                client.requests.front().is_some_and(|it| it.streamed && !it.rows.is_empty())
            }
            Moment::CommitUnheard | Moment::PipelineUnheard | Moment::CommitBehindPromotion => {
                let backend = client.link.map(|id| &self.world.backends[id]);
                let unheard = |it: &Backend| it.is_idle() && !it.wire.is_empty();
                let moved = match moment {
                    Moment::PipelineUnheard => client.requests.len() >= 6,
                    Moment::CommitBehindPromotion => client.has_moved,
                    _ => client.highest_timeline <= 1,
                };
                let first = !client.link_is_newer && client.awaiting.is_none();
                moved && in_flight && first && backend.is_some_and(unheard)
            }
            Moment::CommitAtWork => {
                let backend = client.link.map(|id| &self.world.backends[id]);
                let at_work = |it: &Backend| it.tx.as_ref().is_some_and(|tx| tx.has_xid);
                in_flight && !client.link_is_newer && backend.is_some_and(at_work)
            }
            Moment::CommitWaits => {
                let backend = client.link.map(|id| &self.world.backends[id]);
                in_flight && backend.is_some_and(|it| it.wait == Wait::Standby)
            }
            Moment::InDoubt => {
                let asks = client.link.is_some() && client.link_is_newer;
                in_flight && asks && !client.session.is_live()
            }
            Moment::Resumed => {
                let first = client.link_is_newer && client.highest_timeline == 1;
                first && client.session.is_live() && client.requests.len() > 1
            }
            Moment::ErrorCaught | Moment::RowsSeen => {
                let seen = |reply: &Reply| match moment {
                    Moment::RowsSeen => reply.rows.len() > 1,
                    _ => ["22003", "23514"].contains(&reply.end.as_str()),
                };
                let tx = client.app.tx.as_ref().filter(|tx| !tx.failed);
                client.link.is_some()
                    && !client.link_is_newer
                    && tx.is_some_and(|tx| tx.seen.iter().any(seen))
            }
            Moment::InTransaction => client.recovery.is_none() && client.app.tx.is_some(),
            Moment::Asking => {
                matches!(client.recovery, Some(Recovery::Opening | Recovery::Opened))
                    && self.world.servers[self.world.primary].alive
            }
            Moment::Judged => matches!(client.recovery, Some(Recovery::Telling(..))),
        }
    }
}
