//! Known failures of systems like this one, to be switched on one at a time: they show that the tests would find them.
//!
//! Each hook in the product reads `if planted(Bug::...)`. Only a build for tests, or one with the feature `planted`,
//! looks further: there the environment variable `ESCROWMQ_PLANT` names the bug. Everywhere else the hook is a
//! constant, and nothing of the hooks remains in the program.

/// A failure that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Appends are answered before they are flushed.
    AckBeforeFlush,
    /// A new segment's name is not flushed.
    SegmentNameUnsynced,
    /// The bytes that a truncation cut off stay in the file.
    SuffixRevived,
    /// A record's checksum and its link to the record before are not verified at recovery.
    TornRecordTaken,
    /// A failed flush is taken for a success.
    FailedFlushIgnored,
    /// A vote is reported before it is flushed.
    VoteUnsynced,
    /// The index is flushed without the log in front of it.
    IndexAhead,
    /// The applied log id is not in the write that it belongs to.
    AppliedForgotten,
    /// A repeated commit delivers again.
    DoubleSettle,
    /// A commit after a rollback is taken.
    CommitAfterRollback,
    /// The decision is forgotten.
    DecisionLost,
    /// An undecided half is in its queue.
    HalfInQueue,
    /// An undecided half is found by its position, and so by its key.
    HalfById,
    /// A rolled-back half is found by its position, and so by its key.
    RolledBackById,
    /// Of two commits of one consumer offset the older one wins.
    OffsetBack,
    /// After a restart a queue gives the last offset away again.
    QueueOffsetReused,
    /// Messages that wait for their time are forgotten at a restart.
    TimerLost,
    /// A message that waited for its time becomes visible twice.
    TimerTwice,
    /// Deleting a topic deletes its undecided halves.
    HalfDroppedWithTopic,
    /// A message's own checksum is not verified when it is read.
    ChecksumUnread,
    /// A trim takes what an undecided half or a waiting message needs.
    TrimUnpinned,
    /// Files of the log go that the copy of the index has not applied.
    PurgedBeyondBase,
    /// The commit of a half that was moved points at its old place.
    SettledAtOldPlace,
    /// A half that was moved is not kept at its new place.
    MovedUnpinned,
    /// Entries count as stored by another member when they were sent to it.
    AckBeforeMajority,
    /// A member votes right after its start, though it may have promised a leader not to.
    VotesAtOnce,
    /// A follower takes an entry for one of another place in the log.
    PositionOffByOne,
    /// The callers of entries that are cut off stay, and get the answers of those that come in their place.
    AnsweredAfterTruncation,
    /// Entries that are cut off stay counted as on their way.
    LoadLeaked,
    /// A member answers reads as long as it takes itself for the leader.
    ReadWithoutLease,
    /// A new leader stamps with its wall clock, however far that is from what others stamped.
    ClockTaken,
    /// Leases end by the leap that time makes when a member begins to lead.
    LeasesLeap,
    /// A copy of the state brings no vote: what this member voted is forgotten.
    VoteLostInSnapshot,
    /// What another member has passed on is passed on again.
    ForwardingLoop,
    /// A leader that was deposed answers pulls until it hears of it.
    OfficeWithoutLease,
    /// The newest offsets of consumers stay in memory through changes of the leader.
    OffsetsKept,
    /// A leader that was deposed goes on asking producers until it hears of it.
    TwoCheckers,
    /// After a restart a member applies all of its log, committed or not.
    AppliedUncommitted,
    /// A member whose folder is lost comes back under the id that it had.
    IdUsedAgain,
}

#[cfg(test)]
impl Bug {
    /// All of them.
    pub(crate) const ALL: [Bug; 39] = [
        Bug::AckBeforeFlush,
        Bug::SegmentNameUnsynced,
        Bug::SuffixRevived,
        Bug::TornRecordTaken,
        Bug::FailedFlushIgnored,
        Bug::VoteUnsynced,
        Bug::IndexAhead,
        Bug::AppliedForgotten,
        Bug::DoubleSettle,
        Bug::CommitAfterRollback,
        Bug::DecisionLost,
        Bug::HalfInQueue,
        Bug::HalfById,
        Bug::RolledBackById,
        Bug::OffsetBack,
        Bug::QueueOffsetReused,
        Bug::TimerLost,
        Bug::TimerTwice,
        Bug::HalfDroppedWithTopic,
        Bug::ChecksumUnread,
        Bug::TrimUnpinned,
        Bug::PurgedBeyondBase,
        Bug::SettledAtOldPlace,
        Bug::MovedUnpinned,
        Bug::AckBeforeMajority,
        Bug::VotesAtOnce,
        Bug::PositionOffByOne,
        Bug::AnsweredAfterTruncation,
        Bug::LoadLeaked,
        Bug::ReadWithoutLease,
        Bug::ClockTaken,
        Bug::LeasesLeap,
        Bug::VoteLostInSnapshot,
        Bug::ForwardingLoop,
        Bug::OfficeWithoutLease,
        Bug::OffsetsKept,
        Bug::TwoCheckers,
        Bug::AppliedUncommitted,
        Bug::IdUsedAgain,
    ];

    /// The value of `ESCROWMQ_PLANT` that switches it on.
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Whether this failure was asked for.
#[cfg(any(test, feature = "planted"))]
pub(crate) fn planted(bug: Bug) -> bool {
    static ASKED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    let read = || {
        let name = std::env::var("ESCROWMQ_PLANT").ok().filter(|name| !name.is_empty())?;
        let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        Some(bug.unwrap_or_else(|| panic!("ESCROWMQ_PLANT names no known bug: {name}")))
    };
    *ASKED.get_or_init(read) == Some(bug)
}

/// Never: this build has no planted failures.
#[cfg(not(any(test, feature = "planted")))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "nothing of a hook may remain")]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
