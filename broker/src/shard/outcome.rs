//! `Outcome`: what became of a command, as the state machine decided it. The same on every replica.

use escrowmq_common::limits;

use crate::terms::{Decision, Entered, HalfId, ParkReason, Position, QueueId, QueueOffset, Stamp};

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Messages entered a queue, or wait for their time.
    Published(Published),
    /// A half message is kept.
    Prepared(Prepared),
    /// A transaction has this decision.
    Settled(Settled),
    /// Queue locks: the queues that the client holds now.
    Locked(Vec<QueueId>),
    /// This many items were handled (`Fire`, `Checked`).
    Handled(u32),
    /// Done, and there is nothing more to say.
    Done,
    /// Not done.
    Refused(Refusal),
}

/// Messages that were stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where the first message went; the further members of a batch come right after it.
    pub entered: Entered,
    /// Log position of the first message.
    pub position: Position,
    /// Log positions of the further members of a batch.
    pub more_positions: Vec<Position>,
    /// Store time.
    pub stamp: Stamp,
    /// The queue that it went to, if this was a repeated send and the place is the first one's.
    pub repeats: Option<QueueId>,
}

/// A half message that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The half id: its log position, for ever.
    pub half: HalfId,
    /// Its dense counter.
    pub counter: u64,
    /// Store time.
    pub stamp: Stamp,
    /// Whether this was a repeated send and the identity is the first one's.
    pub repeated: bool,
}

/// A decided transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The decision, which is the first one.
    pub decision: Decision,
    /// The real queue.
    pub queue: QueueId,
    /// Queue offset, if it was committed without a delay.
    pub offset: Option<QueueOffset>,
    /// When it was decided.
    pub at: Stamp,
    /// Whether this very command decided; false for a repeat.
    pub first: bool,
    /// The further halves of the transaction; queue and offset above are those of its first half.
    pub members: Vec<SettledMember>,
}

/// A further half of a decided transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledMember {
    /// The half.
    pub half: HalfId,
    /// Its real queue.
    pub queue: QueueId,
    /// Queue offset, if it was committed without a delay.
    pub offset: Option<QueueOffset>,
}

/// Why a command was not done. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue was deleted since the request was checked.
    #[error("the topic of {0} was deleted")]
    NoSuchQueue(QueueId),
    /// No half message has this id, or its decision was forgotten long ago.
    #[error("no half message at {0}")]
    NoSuchHalf(HalfId),
    /// The message could not be read when it was to be kept, and its bytes are gone: there is nothing to deliver.
    #[error(
        "the bytes of half message {0} are lost: it cannot be committed, and a retry ends the same way. Roll it back, and send the \
         message anew if its transaction has taken effect"
    )]
    BytesGone(HalfId),
    /// The producer group is not the one that prepared the half.
    #[error("the half message belongs to producer group {0}")]
    WrongGroup(String),
    /// The counter does not belong to the half id.
    #[error("the half message's counter is {0}")]
    WrongCounter(u64),
    /// The opposite was decided first.
    #[error("the transaction is already decided: {:?} at {}", .0.decision, .0.at)]
    AlreadyDecided(Settled),
    /// The same unique id with another body.
    #[error("the unique id belongs to another message of the same group and topic, half {0}")]
    UniqueIdTaken(HalfId),
    /// The transaction is parked: nothing joins it.
    #[error("the transaction is parked: {}", .0.name())]
    NotOpen(ParkReason),
    /// A half cannot join a transaction that is full.
    #[error("the transaction has {0} half messages already, and takes no more")]
    TransactionFull(usize),
    /// A half cannot join what is no transaction's first half.
    #[error("half {0} belongs to the transaction of half {1}; name that one")]
    NotFirstHalf(HalfId, HalfId),
    /// The half is not in the state that the command needs.
    #[error("the half is {}", .0.map_or("open", ParkReason::name))]
    NotParked(Option<ParkReason>),
    /// No such topic.
    #[error("no topic {0}")]
    NoSuchTopic(String),
    /// No such group.
    #[error("no consumer group {0}")]
    NoSuchGroup(String),
    /// The shard's tables are full: queue ids are used up.
    #[error("no queue id is left")]
    QueueIdsExhausted,
    /// A topic with more queues than a topic may have.
    #[error("{0} queues are more than the {max} that a topic may have", max = limits::QUEUES_MAX)]
    TooManyQueues(u32),
    /// The command's bytes do not decode as what they claim to be.
    #[error("malformed settings")]
    MalformedSettings,
}
