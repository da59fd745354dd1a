//! `Command`: every durable change there is.
//!
//! A handler builds a command from a request, the batcher writes it into a batch, and [`decode`](Command::decode) gives
//! it back to the state machine, on every replica and after every restart. All that `apply` needs is in the command: no
//! local setting, no clock. Its bytes are in `codec`.

use super::message::{Message, MessageList};
use crate::terms::{
    Content, Decision, FIRST_LEVEL, HalfId, ParkReason, PinOwner, Position, QueueId, QueueOffset, SETTINGS_LEVEL,
    Stamp, When,
};

/// Messages for one queue: one, or the members of a batch, which get consecutive queue offsets.
#[derive(Debug, Clone)]
pub struct Publish<'a> {
    /// Where they go.
    pub queue: QueueId,
    /// When they become visible.
    pub when: When,
    /// The messages, at least one.
    pub messages: MessageList<'a>,
    /// How a repeated send of the message is recognised; `None` where the topic does not ask for it.
    pub once: Option<Once<'a>>,
}

/// By what a message that is sent again is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once<'a> {
    /// The message's unique key; not empty.
    pub unique_id: &'a str,
    /// Tells a repeated send from another message under the same unique key.
    pub content: Content,
    /// For how long a repeated send gets the first one's place, in milliseconds.
    pub window: u64,
}

/// A half message.
#[derive(Debug, Clone)]
pub struct Prepare<'a> {
    /// The real queue that the message enters when it is committed.
    pub queue: QueueId,
    /// When the message becomes visible, counted from its commit.
    pub when: When,
    /// Wait before the first check in milliseconds; `None` is the default of the group's leader.
    pub immunity: Option<u64>,
    /// First half of the transaction that this one belongs to; `None` where each half is a transaction of its own.
    pub first_half: Option<HalfId>,
    /// Tells a repeated send from another message under the same unique id.
    pub content: Content,
    /// For how long after the decision a repeated send gets this half's identity back, in milliseconds.
    pub duplicate_window: u64,
    /// The producer group that is asked for the decision.
    pub group: &'a str,
    /// The client id that sent it; it is asked first. May be empty.
    pub client: &'a str,
    /// The message's unique key; may be empty, then repeats are not recognised.
    pub unique_id: &'a str,
    /// The message with its real topic and queue.
    pub message: Message<'a>,
}

/// A decision on a half message. The first one wins.
#[derive(Debug, Clone)]
pub struct Settle<'a> {
    /// The half id that the send's answer named (the log position of the message at Prepare).
    pub half: HalfId,
    /// The dense counter that the send's answer named, if the sender of the decision must know it.
    pub counter: Option<u64>,
    /// Commit or rollback.
    pub decision: Decision,
    /// The producer group that decides; `None` for an operator.
    pub group: Option<&'a str>,
    /// The operator who decided; else empty.
    pub by: &'a str,
    /// The operator's reason; else empty.
    pub reason: &'a str,
    /// The messages once more, with the ids of their halves, where their bytes are too old to stay in the log for long
    /// after the commit.
    pub rewritten: Vec<(HalfId, Message<'a>)>,
}

/// One half for which a check is written to a connection, or whose next check is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedHalf<'a> {
    /// The half.
    pub half: HalfId,
    /// When the next check is due.
    pub next_due: Stamp,
    /// Whether the check counts towards the limit.
    pub counts: bool,
    /// Client id of the instance that is asked; empty if nobody is.
    pub asked: &'a str,
}

/// Checks that are being sent.
#[derive(Debug, Clone)]
pub struct Checked<'a> {
    /// Every half's first check up to this half id has been scheduled or done; `None` leaves the mark where it is.
    pub first_checked_upto: Option<HalfId>,
    /// The halves.
    pub halves: Vec<CheckedHalf<'a>>,
}

/// A producer says that a local transaction still runs: the next check waits.
#[derive(Debug, Clone)]
pub struct Extend<'a> {
    /// Any half of the transaction.
    pub half: HalfId,
    /// The counter of that half.
    pub counter: u64,
    /// The producer group that says so.
    pub group: &'a str,
    /// When the next check is due.
    pub until: Stamp,
    /// Whether this answers a check, which then does not count; the next one is due at `until` exactly. Else it is due
    /// at `until` or later.
    pub is_answer: bool,
}

/// Takes an open half out of the checks, in plain sight.
#[derive(Debug, Clone)]
pub struct Park<'a> {
    /// The half.
    pub half: HalfId,
    /// Why.
    pub reason: ParkReason,
    /// The operator; else empty.
    pub by: &'a str,
    /// The operator's reason; else empty.
    pub why: &'a str,
}

/// Puts a parked half back into the checks, with its count at 0 and due at once.
#[derive(Debug, Clone)]
pub struct Resume<'a> {
    /// The half.
    pub half: HalfId,
    /// The operator; else empty.
    pub by: &'a str,
    /// The operator's reason; else empty.
    pub why: &'a str,
    /// Only if it is parked for this reason.
    pub only_if: Option<ParkReason>,
}

/// One consumer offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetCommit<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The queue.
    pub queue: QueueId,
    /// The next offset to consume.
    pub offset: QueueOffset,
}

/// A lock request of an ordered consumer.
#[derive(Debug, Clone)]
pub struct Lock<'a> {
    /// The consumer group.
    pub group: &'a str,
    /// The client that wants to own the queues.
    pub client: &'a str,
    /// How long a lock lives without renewal, in milliseconds.
    pub life: u64,
    /// The queues.
    pub queues: Vec<QueueId>,
}

/// The bytes of a message that nobody sees yet, written once more at the log's end.
#[derive(Debug, Clone, Copy)]
pub struct Moved<'a> {
    /// The owner of the bytes.
    pub owner: PinOwner,
    /// Where they were; if they are elsewhere by now, nothing is moved.
    pub from: Position,
    /// The message.
    pub message: Message<'a>,
}

/// Moves bytes that retention must keep away from the log's old end.
#[derive(Debug, Clone)]
pub struct Roll<'a> {
    /// With this command every undecided half with an id below has been moved.
    pub halves_upto: HalfId,
    /// The bytes that are moved.
    pub moved: Vec<Moved<'a>>,
}

/// An operator gives up messages that cannot be read, so that readers pass them.
#[derive(Debug, Clone)]
pub struct GiveUp<'a> {
    /// Log positions of the messages; not empty.
    pub positions: std::ops::Range<Position>,
    /// How many entries of queues point there, as far as the operator's broker saw.
    pub messages: u64,
    /// The operator.
    pub by: &'a str,
    /// The operator's reason.
    pub why: &'a str,
}

/// Settings of the group, all or none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings<'a> {
    /// Leaves those as they are that the group has already.
    pub only_missing: bool,
    /// Keys and values.
    pub values: Vec<(&'a str, &'a str)>,
}

/// A durable change. See the module.
#[derive(Debug, Clone)]
pub enum Command<'a> {
    /// Store messages.
    Publish(Publish<'a>),
    /// Store a half message.
    Prepare(Prepare<'a>),
    /// Decide a transaction.
    Settle(Settle<'a>),
    /// Record checks.
    Checked(Checked<'a>),
    /// Move a check because the local transaction still runs.
    Extend(Extend<'a>),
    /// Park a half.
    Park(Park<'a>),
    /// Resume a half.
    Resume(Resume<'a>),
    /// Move consumer offsets.
    CommitOffsets(Vec<OffsetCommit<'a>>),
    /// Create or change a topic; the bytes are a stored [`TopicSettings`](super::topic::TopicSettings).
    PutTopic(&'a [u8]),
    /// Delete a topic by name.
    DeleteTopic(&'a str),
    /// Create or change a consumer group; the bytes are a stored [`GroupSettings`](super::group::GroupSettings).
    PutGroup(&'a [u8]),
    /// Delete a consumer group by name, with its offsets if asked.
    DeleteGroup {
        /// The group.
        group: &'a str,
        /// Whether its offsets go too.
        offsets: bool,
    },
    /// Make timers that are due visible.
    Fire {
        /// Due at or before this time.
        upto: Stamp,
        /// The number that may fire at most, in order of due time.
        limit: u32,
    },
    /// Forget a message that waits for its time: it is never seen.
    Cancel {
        /// When it would be due.
        due: Stamp,
        /// Log position of its unit.
        position: Position,
    },
    /// Take or renew queue locks.
    Lock(Lock<'a>),
    /// Give up queue locks.
    Unlock(Lock<'a>),
    /// Messages below this log position may go.
    Trim {
        /// The position.
        upto: Position,
    },
    /// Move old bytes that must be kept.
    Roll(Roll<'a>),
    /// Pass what cannot be read.
    GiveUp(GiveUp<'a>),
    /// Forget decisions.
    Expire {
        /// Decisions made before this time.
        decided_before: Stamp,
    },
    /// Change settings of the group.
    Settings(Settings<'a>),
    /// From now on the log may use what this feature level has.
    Feature(u32),
}

impl Command<'_> {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Publish(_) => "publish",
            Self::Prepare(_) => "prepare",
            Self::Settle(_) => "settle",
            Self::Checked(_) => "checked",
            Self::Extend(_) => "extend",
            Self::Park(_) => "park",
            Self::Resume(_) => "resume",
            Self::CommitOffsets(_) => "commit offsets",
            Self::PutTopic(_) => "put topic",
            Self::DeleteTopic(_) => "delete topic",
            Self::PutGroup(_) => "put group",
            Self::DeleteGroup { .. } => "delete group",
            Self::Fire { .. } => "fire",
            Self::Cancel { .. } => "cancel",
            Self::Lock(_) => "lock",
            Self::Unlock(_) => "unlock",
            Self::Trim { .. } => "trim",
            Self::Roll(_) => "roll",
            Self::GiveUp(_) => "give up",
            Self::Expire { .. } => "expire",
            Self::Settings(_) => "settings",
            Self::Feature(_) => "feature level",
        }
    }

    /// The least feature level at which it may be in the log.
    pub fn level(&self) -> u32 {
        match self {
            Self::Settings(_) => SETTINGS_LEVEL,
            // The command itself came with settings.
            Self::Feature(level) => SETTINGS_LEVEL.max(*level),
            _ => FIRST_LEVEL,
        }
    }

    /// Whether it brings a message that was not stored before.
    pub fn brings_messages(&self) -> bool {
        matches!(self, Self::Publish(_) | Self::Prepare(_))
    }
}
