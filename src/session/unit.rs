//! A unit: what stands between two Syncs, what is expected in reply, and what was seen of it.
//!
//! A unit's steps come in one fixed order, which is also the order of its messages on the wire:
//! BEGIN, Parse, Describe, the user's own execution, the seal, COMMIT, Sync. Statements that an open
//! transaction is given without waiting share the Sync of the last of them.

use std::sync::Arc;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::classify::{Effect, StatementKind};
use super::filing::Filed;
use super::statement::{Description, Statement};
use crate::error::Error;
use crate::mutation::{self, Mutation};
use crate::wire::row::Values;

/// Why a unit exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application asked for it.
    User,
    /// A simple query string: any number of results, ended by ReadyForQuery alone.
    Simple,
    /// The end of the transaction, with or without a seal.
    Commit,
    Rollback,
    /// BEGIN, COMMIT, ROLLBACK and the seals are prepared anew.
    Internals,
    /// A fresh row of the ledger.
    OpenRow,
}

impl Purpose {
    /// Whether the application waits for it.
    pub fn is_users(self) -> bool {
        !matches!(self, Self::Internals | Self::OpenRow)
    }
}

/// The steps of a unit that the server has yet to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps(u8);

impl Steps {
    pub const BEGIN: u8 = 1;
    pub const PARSE: u8 = 1 << 1;
    pub const DESCRIBE: u8 = 1 << 2;
    pub const USER: u8 = 1 << 3;
    pub const SEAL: u8 = 1 << 4;
    pub const COMMIT: u8 = 1 << 5;
    pub const SYNC: u8 = 1 << 6;

    pub fn new(steps: u8) -> Self {
        Self(steps | Self::SYNC)
    }

    /// The step whose reply comes next.
    pub fn current(self) -> u8 {
        self.0 & self.0.wrapping_neg()
    }

    pub fn advance(&mut self) {
        self.0 &= self.0 - 1;
    }

    /// A seal follows the user's part after all.
    pub fn expect_seal(&mut self) {
        if self.current() != Self::SYNC {
            self.0 |= Self::SEAL;
        }
    }

    /// The Sync is a later unit's.
    pub fn share_sync(&mut self) {
        self.0 &= !Self::SYNC;
    }

    /// Whether the Sync that ends the unit is its own, and not that of a unit behind it.
    pub fn has_sync(self) -> bool {
        self.0 & Self::SYNC != 0
    }

    /// Whether all has been answered, which without a Sync of its own ends the unit.
    pub fn is_done(self) -> bool {
        self.0 == 0
    }

    /// An error skips everything up to the Sync.
    pub fn skip_to_sync(&mut self) {
        self.0 &= Self::SYNC;
    }
}

/// The number under which a commit stands in the ledger, and the row that it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    pub row: Uuid,
    pub number: u64,
    /// Written only if the transaction turns out to have written anything itself.
    pub guarded: bool,
}

/// What a journal on disk is told of a commit before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    Sealed(Seal),
    /// No ledger will tell what became of it.
    Unsealed,
}

/// A rolling 128-bit digest of the messages that carry meaning, and their count.
///
/// Rows and tags count whole, errors by their SQLSTATE alone. It guards against accidents of a
/// replay, not against an adversary who can choose the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub count: u64,
    digest: u128,
}

impl Seen {
    pub fn update(&mut self, tag: u8, body: &[u8]) {
        // An odd multiplier makes the order of the messages count.
        const MULTIPLIER: u128 = 0x2d35_8dcc_aa6c_78a5_8bb8_4b93_962e_acc9;
        let body = match tag {
            b'D' if mutation::on(Mutation::DigestOfFirstColumn) => first_column(body),
            b'E' if mutation::on(Mutation::DigestWithoutErrors) => &[],
            _ => body,
        };
        let message = xxh3_128(body) ^ (u128::from(tag) << 64);
        self.digest = (self.digest ^ message).wrapping_mul(MULTIPLIER).rotate_left(47);
        self.count += 1;
    }
}

fn first_column(row: &[u8]) -> &[u8] {
    let first = Values::new(row).ok().and_then(|mut values| values.next());
    first.and_then(Result::ok).flatten().unwrap_or(row)
}

/// One unit: a range of the journal, and how far its replies have come.
#[derive(Debug)]
pub(super) struct Unit {
    pub purpose: Purpose,
    /// What the user's part executes; `None` for COMMIT and the like, and for simple queries.
    pub statement: Option<Arc<Statement>>,
    /// What the statement returns, known before it runs if its link has prepared it.
    pub description: Option<Arc<Description>>,
    /// Where the bytes of BEGIN and of the user's part stand in the journal. Parse of a named
    /// statement, the seal, COMMIT and Sync are not among them: they depend on the link.
    pub start: usize,
    /// So many bytes from `start` are BEGIN's; Parse goes behind them.
    pub begin_len: usize,
    pub end: usize,
    /// The steps it consists of whatever the link, and those still unanswered on this one.
    pub all_steps: u8,
    pub steps: Steps,
    /// So many times the user's part is executed again, with other parameters; and so many of these
    /// are unanswered on this link.
    pub repeats: usize,
    pub repeats_left: usize,
    pub seal: Option<Seal>,
    /// A later number of its row was committed and its own was not: it failed, or wrote nothing, and
    /// its seal can never succeed any more.
    pub passed_over: bool,
    /// Each statement of it is a transaction of its own.
    pub autocommit: bool,
    /// Whether the bytes are on their way on the present link.
    pub sent: bool,
    /// They are, but for the seal and the Sync, which follow once its reply is here.
    pub end_owed: bool,
    /// Whether the application takes the reply piece by piece, so that what it has been given
    /// cannot be taken back.
    pub streamed: bool,
    /// Whether what it returns may have to be compared with a later attempt.
    pub tracked: bool,
    /// Whether any event of the reply has been handed over, and whether its columns have.
    pub told: bool,
    pub columns_told: bool,
    /// Of a simple query: its last result, the seal's own, has begun.
    pub in_seal: bool,
    /// Whether the reply has been handed over in full.
    pub answered: bool,
    /// Whether the user's part has been answered in full, although the unit may not be.
    pub user_done: bool,
    /// Why its outcome cannot be known, or it cannot be run again, once its link is lost.
    pub unprotected: Option<&'static str>,
    pub effect: Effect,
    pub copy: CopyIn,
    /// Whether the journal has all of its bytes, so that it can be sent again.
    pub kept: bool,
    pub seen: Seen,
    /// While the unit is run again: what this attempt has given so far.
    pub replayed: Option<Seen>,
    /// What had been seen before an error that is not told yet.
    pub before_error: Option<Seen>,
    /// It was run again and gave something else; the rest of its reply is passed over.
    pub diverged: Option<Error>,
    /// How many links have been lost under it while it was unanswered.
    pub losses: u32,
    /// How many of them while it was the one that the server was executing.
    pub losses_in_front: u32,
    /// The attempts of which any may be the one that has committed, once it is found to be.
    pub attempts: Vec<Attempt>,
    /// What is to be told of it without running it again.
    pub verdict: Option<Verdict>,
    /// What is to be told of it, in place of running it again, if the ledger is without it.
    pub refused: Option<Error>,
    /// The ledger of a server that is lost had its commit.
    pub found: bool,
    /// It was found, and need not wait for the backup any more; and what is told with it if no backup has
    /// confirmed it.
    pub backed: bool,
    pub unconfirmed: Option<Error>,
    /// Of an autocommit unit: whether the journal on disk has it. Of a transaction, that is the
    /// transaction's.
    pub filed: Filed,
    /// Whether it was looked at for the journal on disk, and so many bytes of its user's part are there.
    pub handed_over: bool,
    pub filed_len: usize,
    /// It, or one ahead of it, waits for the journal on disk.
    pub held: bool,
    /// What that journal has of its commit.
    pub promised: Option<Promise>,
}

/// Where a unit has been run whose reply is not known to be the committed one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub server: usize,
    pub timeline: u32,
}

/// The end of a unit that is known without a reply.
#[derive(Debug)]
pub(super) enum Verdict {
    Committed,
    Failed(Error),
}

impl Unit {
    pub fn new(purpose: Purpose, steps: u8, start: usize) -> Self {
        Self {
            purpose,
            statement: None,
            description: None,
            start,
            begin_len: 0,
            end: start,
            all_steps: steps,
            steps: Steps::new(steps),
            repeats: 0,
            repeats_left: 0,
            seal: None,
            passed_over: false,
            autocommit: false,
            sent: false,
            end_owed: false,
            streamed: false,
            tracked: false,
            told: false,
            columns_told: false,
            in_seal: false,
            answered: false,
            user_done: false,
            unprotected: None,
            effect: Effect::None,
            copy: CopyIn::No,
            kept: true,
            seen: Seen::default(),
            replayed: None,
            before_error: None,
            diverged: None,
            losses: 0,
            losses_in_front: 0,
            attempts: Vec::new(),
            verdict: None,
            refused: None,
            found: false,
            backed: false,
            unconfirmed: None,
            filed: Filed::No,
            handed_over: false,
            filed_len: 0,
            held: false,
            promised: None,
        }
    }

    /// One of Segue's own, which the application does not wait for.
    pub fn own(purpose: Purpose, at: usize) -> Self {
        let mut unit = Self::new(purpose, Steps::USER, at);
        unit.autocommit = true;
        unit
    }

    /// Whether it ends the open transaction, so that what is ahead of it can be taken back no more.
    pub fn may_commit(&self) -> bool {
        let class = self.statement.as_ref().map(|statement| &statement.class.kind);
        let controls = self.purpose == Purpose::Simple
            && class.is_some_and(StatementKind::controls_transaction);
        self.purpose == Purpose::Commit || (controls && !self.autocommit)
    }

    /// Whether it may share a Sync with its like: an ordinary statement of an open transaction, on its
    /// way for the first time. What ends a transaction or mends a failed one must not be passed over
    /// because of an error ahead of it.
    pub fn is_batchable(&self) -> bool {
        self.purpose == Purpose::User
            && self.all_steps & Steps::USER != 0
            && !self.autocommit
            && self.seal.is_none()
            && self.copy == CopyIn::No
            && self.losses == 0
            && self.replayed.is_none()
            && self.statement.as_ref().is_some_and(|s| s.class.kind == StatementKind::Other)
    }

    /// Whether it is not run again, for it has committed, and has made settings that the link does not have.
    pub fn sets_when_found(&self) -> bool {
        let statement = self.statement.as_ref();
        matches!(self.verdict, Some(Verdict::Committed))
            && statement.is_some_and(|statement| statement.class.sets_anything())
    }

    /// The server whose ledger had its commit is lost, and the application has not been told: the next
    /// one may be without it.
    pub fn doubt_what_was_found(&mut self) {
        let doubted = !mutation::on(Mutation::FoundNotDoubted);
        if self.seal.is_some() && matches!(self.verdict, Some(Verdict::Committed)) && doubted {
            self.verdict = None;
            self.found = true;
            self.backed = false;
        }
    }

    /// It was sent with its seal in this attempt, whose reply need not be the committed one's.
    pub fn note_attempt(&mut self, attempt: Attempt) {
        if self.sent && !self.end_owed && self.seal.is_some() {
            self.attempts.push(attempt);
        }
    }

    /// The ledger of a server on this timeline is without its commit, and backends that it had on that
    /// server are gone: those attempts can never become this history's.
    pub fn rule_out_attempts(&mut self, server: usize, timeline: u32) {
        self.attempts.retain(|it| it.server != server && it.timeline >= timeline);
    }

    /// What is to be told where no ledger can be asked: what was found once is the best that is known.
    pub fn without_ledger(&self, unknown: Error) -> Verdict {
        if self.found { Verdict::Committed } else { Verdict::Failed(unknown) }
    }

    /// Makes it ready to be sent again. What the application has not been given piece by piece need
    /// not be compared: it is taken back instead.
    pub fn rewind(&mut self) {
        self.sent = false;
        self.end_owed = false;
        self.held = false;
        self.user_done = false;
        self.in_seal = false;
        if let Some(seen) = self.before_error.take().filter(|_| !self.answered) {
            self.seen = seen;
        }
        if self.copy == CopyIn::Failed && !self.answered {
            self.copy = CopyIn::Open;
        }
        let told_for_good = self.streamed && self.told;
        if !self.answered && !told_for_good {
            self.seen = Seen::default();
            self.columns_told = false;
        }
        self.replayed = (self.seen.count > 0 || self.answered).then(Seen::default);
    }

    /// Takes note of a message that carries meaning, and says what is to become of it.
    pub fn track(&mut self, tag: u8, body: &[u8]) -> Track {
        if self.diverged.is_some() {
            return Track::Seen;
        }
        if let Some(replayed) = &mut self.replayed {
            let again = u64::from(mutation::on(Mutation::MessageToldTwice) && !self.answered);
            if replayed.count + again < self.seen.count {
                replayed.update(tag, body);
                let differs = replayed.count == self.seen.count
                    && *replayed != self.seen
                    && !mutation::on(Mutation::MismatchIgnored);
                return if differs { Track::Diverged } else { Track::Seen };
            }
            if self.answered {
                return Track::Diverged;
            }
            replayed.update(tag, body);
        }
        if self.tracked {
            self.seen.update(tag, body);
        }
        Track::New
    }

    /// Whether the present attempt has given all that the application has seen.
    pub fn has_caught_up(&self) -> bool {
        mutation::on(Mutation::FewerRepliesMatch)
            || self.replayed.is_none_or(|replayed| replayed.count >= self.seen.count)
    }
}

/// What a tracked message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Track {
    /// The application has not seen it yet.
    New,
    /// The application has seen it on an earlier link.
    Seen,
    /// The application has seen something else.
    Diverged,
}

/// Where a COPY FROM STDIN stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyIn {
    /// The unit is no COPY FROM STDIN.
    No,
    /// The application still sends data; the unit's end is not yet in the journal.
    Open,
    /// The data is complete.
    Done,
    /// The server has refused it before the data was complete.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_in_the_order_of_the_wire() {
        let mut steps = Steps::new(Steps::COMMIT | Steps::BEGIN | Steps::USER);
        for expected in [Steps::BEGIN, Steps::USER, Steps::COMMIT, Steps::SYNC] {
            assert_eq!(steps.current(), expected);
            steps.advance();
        }
        assert_eq!(steps.current(), 0);
    }

    #[test]
    fn the_digest_tells_order_tag_and_content() {
        let digest = |messages: &[(u8, &[u8])]| {
            let mut seen = Seen::default();
            messages.iter().for_each(|(tag, body)| seen.update(*tag, body));
            seen
        };
        let base = digest(&[(b'D', b"a"), (b'D', b"b")]);
        assert_eq!(base, digest(&[(b'D', b"a"), (b'D', b"b")]));
        assert_ne!(base, digest(&[(b'D', b"b"), (b'D', b"a")]));
        assert_ne!(base, digest(&[(b'D', b"a"), (b'd', b"b")]));
        assert_ne!(base, digest(&[(b'D', b"a"), (b'D', b"c")]));
        assert_ne!(base, digest(&[(b'D', b"a")]));
    }
}
