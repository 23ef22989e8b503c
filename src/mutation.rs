//! Deliberate faults, for the simulation to find (`docs/simulation.md`).
//!
//! Without the feature `mutations`, which nothing but that check asks for, [`on`] is a constant and the
//! compiler takes the faults out. With it one fault at a time can be switched on for a thread.

/// A fault. Its site in the code is found by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A transaction's COMMIT goes out without its seal.
    SealLeftOut,
    /// An autocommit statement that could not be sealed is told to be committed when its link is lost.
    UnsealedToldCommitted,
    /// What the ledger has is run again.
    FoundTakenForAbsent,
    /// What the ledger does not have is told to be committed.
    AbsentTakenForFound,
    /// A replay takes a number of its own, so that the attempt before it is not fenced off.
    ReplayTakesNewNumber,
    /// An attempt that could not be ended is not fenced off.
    FenceLeftOut,
    /// The seal does not raise where its number is taken (in the model, which stands for the SQL).
    #[cfg(feature = "mutations")]
    SealNeverRaises,
    /// The seal of what failed, while something behind it was committed, is told as the server refuses it.
    FenceTold,
    /// What was on its way behind a read that is repeated is repeated as well, and not asked for.
    WritesRepeatedBehindRead,
    /// A backend that is at work is forgotten as soon as eight others were lost.
    ZombieForgotten,
    /// A server under another name is taken for another one.
    NameTakenForServer,
    /// The ledger of a server that was returned to is believed before the standby has it.
    ConfirmationLeftOut,
    /// What one lost server's ledger had is told without asking the next one's.
    FoundNotDoubted,
    /// What is sealed in a row goes out behind the row's opening, which the server may refuse.
    OpeningNotAwaited,
    /// A row is retired while a commit that stands in it is undecided.
    UndecidedRowRetired,
    /// A row is retired although a fence stands in it.
    FencedRowRetired,
    /// Acknowledged commits that are gone are not told of.
    LossNotTold,
    /// Commits in rows before the previous one are not missed.
    OlderRowsForgotten,
    /// The commit is told before the backup has it.
    BackupNotAwaited,
    /// With `autocommit_reply=before_commit` a statement commits together with its execution all the same.
    ReplyNotAwaited,
    /// What has not been told to commit, and must not, is told to.
    EndNotWithheld,
    /// A link to a server of an older timeline is taken.
    TimelineNotChecked,
    /// COMMIT is sent before what is run again ahead of it has matched.
    CommitBeforeComparison,
    /// The replay goes on although it has given something else.
    MismatchIgnored,
    /// A replay that gives fewer messages than were seen has matched.
    FewerRepliesMatch,
    /// The digest leaves out all columns of a row but the first.
    DigestOfFirstColumn,
    /// The digest leaves out SQLSTATEs.
    DigestWithoutErrors,
    /// The last message that was seen is told once more by a replay.
    MessageToldTwice,
    /// What was told of a result is not taken back before it is told again.
    ResultNotTakenBack,
    /// A transaction's requests are forgotten once they are answered.
    RequestsForgotten,
    /// A replayed statement has the parameters of the one before it.
    ParametersMixedUp,
    /// What a COPY is given once it has begun is not kept for the replay.
    CopyDataCut,
    /// Settings are restored in another order than they were made.
    SettingsReordered,
    /// Settings of a transaction that was rolled back are restored.
    SettingsOutliveRollback,
    /// Settings that were made behind a savepoint outlive its rolling back.
    SettingsOutliveSavepoint,
    /// A commit is sent before the journal on disk has its promise.
    PromiseNotAwaited,
    /// The journal on disk lets go of a transaction before its outcome is known.
    EntryEndedEarly,
    /// A statement that was prepared on the lost link is taken for prepared on the new one.
    PreparedOutliveLink,
    /// Sessions are woken from a server that is only suspected.
    SuspicionMovesSessions,
    /// The highest timeline that was seen writable is forgotten once its server is lost.
    FloorForgotten,
    /// A server of another cluster is taken for a member.
    IdentityNotChecked,
    /// An old primary is taken for a member.
    StaleServerTaken,
    /// Sessions stay on a server that has been given up, or that was left.
    LostLinksKept,
    /// A poll that is answered leaves those standing that were missed before it.
    MissesNotCleared,
    /// A server that is silent for good stays suspect.
    SilenceNotGivenUp,
    /// The backup is the standby that lags most.
    LaggingBackupChosen,
    /// Segue promotes the standby that has received least.
    LaggingHeirPromoted,
    /// A session is given a warm link to the server that it has just lost.
    LostServerNotProved,
    /// Each link that is lost while a session seeks one moves its deadline.
    DeadlineSetAnew,
    /// A session without a server waits on behind its deadline.
    DeadlineNotKept,
    /// There are more warm links than sessions, and than are allowed.
    WarmLinksUnlimited,
    /// Recovery takes a number that the ledger does not have for not committed, without a fence.
    RecoveryWithoutFence,
    /// Recovery asks a server of an older timeline than the dead session has been on.
    OlderTimelineAsked,
    /// Recovery tells of a commit whose wait for the standby may have been cut short.
    VerdictNotConfirmed,
    /// A record counts as kept before the disk has it.
    SyncLeftOut,
    /// A segment goes although something in it is alive.
    SegmentReclaimedAlive,
    /// A full segment is cut ahead of what was acknowledged.
    JournalTruncatedEarly,
    /// What stands behind a write that did not arrive in full is read as if it had been acknowledged.
    TornTailNotCut,
    /// A record whose body is not what was written is taken for whole.
    ChecksumNotChecked,
    /// The numbers of what is in flight are handed out again.
    OwnersHandedOutAgain,
    /// A transaction goes on without the journal, which has a part of it.
    HalfKeptGoesOn,
    /// A submission is executed without a claim of its id.
    ClaimLeftOut,
    /// A claim that finds its submission done is taken for the server's refusal.
    FoundDoneTakenForRefused,
    /// What is found done is told before the server has confirmed it.
    FoundDoneToldAtOnce,
    /// A ticket tells of a commit before the backup has it.
    TicketToldBeforeBackup,
    /// A submission behind another one of its lane does not depend on it.
    PredecessorNotNamed,
    /// What follows in a lane does not wait for what is sent again.
    LaneGoesOnBehindFailure,
    /// A dead letter does not stop the lane that it is to stop.
    LaneNotStopped,
    /// A submission commits although it has affected other rows than were expected.
    ExpectationIgnored,
    /// A submission counts as kept before the disk has it.
    SubmissionNotAwaited,
    /// The journal lets go of a submission when it is sent.
    SubmissionEndedWhenSent,
    /// A dead letter is told and not written.
    DeadLetterNotKept,
    /// What the journal has of a submission is run under another id.
    IdForgottenInRecovery,
    /// What was committed and not told is not asked about when its link is lost.
    UntoldForgotten,
    /// A place is taken on a server though another backend holds it.
    FormerBackendLeft,
    /// What was told is not looked for on the next link.
    LossNotLookedFor,
    /// The backup is taken to have whatever was told.
    BackupTakenToHave,
    /// What is told is not remembered in the journal: it is ended there as if nothing could lose it.
    ToldEndedInJournal,
}

#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub(crate) const fn on(_: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub use switched::*;

#[cfg(feature = "mutations")]
mod switched {
    use std::cell::Cell;

    use super::Mutation;

    pub const ALL: &[Mutation] = &[
        Mutation::SealLeftOut,
        Mutation::UnsealedToldCommitted,
        Mutation::FoundTakenForAbsent,
        Mutation::AbsentTakenForFound,
        Mutation::ReplayTakesNewNumber,
        Mutation::FenceLeftOut,
        Mutation::SealNeverRaises,
        Mutation::FenceTold,
        Mutation::WritesRepeatedBehindRead,
        Mutation::ZombieForgotten,
        Mutation::NameTakenForServer,
        Mutation::ConfirmationLeftOut,
        Mutation::FoundNotDoubted,
        Mutation::OpeningNotAwaited,
        Mutation::UndecidedRowRetired,
        Mutation::FencedRowRetired,
        Mutation::LossNotTold,
        Mutation::OlderRowsForgotten,
        Mutation::BackupNotAwaited,
        Mutation::ReplyNotAwaited,
        Mutation::EndNotWithheld,
        Mutation::TimelineNotChecked,
        Mutation::CommitBeforeComparison,
        Mutation::MismatchIgnored,
        Mutation::FewerRepliesMatch,
        Mutation::DigestOfFirstColumn,
        Mutation::DigestWithoutErrors,
        Mutation::MessageToldTwice,
        Mutation::ResultNotTakenBack,
        Mutation::RequestsForgotten,
        Mutation::ParametersMixedUp,
        Mutation::CopyDataCut,
        Mutation::SettingsReordered,
        Mutation::SettingsOutliveRollback,
        Mutation::SettingsOutliveSavepoint,
        Mutation::PromiseNotAwaited,
        Mutation::EntryEndedEarly,
        Mutation::PreparedOutliveLink,
        Mutation::SuspicionMovesSessions,
        Mutation::FloorForgotten,
        Mutation::IdentityNotChecked,
        Mutation::StaleServerTaken,
        Mutation::LostLinksKept,
        Mutation::MissesNotCleared,
        Mutation::SilenceNotGivenUp,
        Mutation::LaggingBackupChosen,
        Mutation::LaggingHeirPromoted,
        Mutation::LostServerNotProved,
        Mutation::DeadlineSetAnew,
        Mutation::DeadlineNotKept,
        Mutation::WarmLinksUnlimited,
        Mutation::RecoveryWithoutFence,
        Mutation::OlderTimelineAsked,
        Mutation::VerdictNotConfirmed,
        Mutation::SyncLeftOut,
        Mutation::SegmentReclaimedAlive,
        Mutation::JournalTruncatedEarly,
        Mutation::TornTailNotCut,
        Mutation::ChecksumNotChecked,
        Mutation::OwnersHandedOutAgain,
        Mutation::HalfKeptGoesOn,
        Mutation::ClaimLeftOut,
        Mutation::FoundDoneTakenForRefused,
        Mutation::FoundDoneToldAtOnce,
        Mutation::TicketToldBeforeBackup,
        Mutation::PredecessorNotNamed,
        Mutation::LaneGoesOnBehindFailure,
        Mutation::LaneNotStopped,
        Mutation::ExpectationIgnored,
        Mutation::SubmissionNotAwaited,
        Mutation::SubmissionEndedWhenSent,
        Mutation::DeadLetterNotKept,
        Mutation::IdForgottenInRecovery,
        Mutation::UntoldForgotten,
        Mutation::FormerBackendLeft,
        Mutation::LossNotLookedFor,
        Mutation::BackupTakenToHave,
        Mutation::ToldEndedInJournal,
    ];

    thread_local! {
        static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Whether the fault is on in this thread.
    pub fn on(mutation: Mutation) -> bool {
        ON.get() == Some(mutation)
    }

    /// Switches one fault on in this thread, and all others off.
    pub fn switch_on(mutation: Option<Mutation>) {
        ON.set(mutation);
    }
}
