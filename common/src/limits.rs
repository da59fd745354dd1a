//! The one table of what a peer may send: lengths in bytes, and how many of something one request may name.
//!
//! Each limit is checked where a header or a body is decoded, so that no handler can forget it, and is at most what every
//! encoder behind it can hold. None is tighter than what RocketMQ 5.3 and its clients accept. `docs/limits.md` gives the
//! reason, the error and, where there is one, the setting of each.

/// Longest name of a topic that users create or send to.
pub const TOPIC_BYTES_MAX: usize = 127;
/// Longest name of a topic that is only named: retry and dead-letter topics have a prefix and a group in them.
pub const NAMED_TOPIC_BYTES_MAX: usize = 255;
/// Longest name of a group that is made.
pub const GROUP_BYTES_MAX: usize = 120;
/// Longest name of a group that is only named.
pub const NAMED_GROUP_BYTES_MAX: usize = 255;
/// Longest id of a client: address, process and instance name.
pub const CLIENT_ID_BYTES_MAX: usize = 1024;
/// Most bytes that the attributes of a topic or of a group take together, names and values.
pub const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;
/// Most queues of a topic, for reading and for writing each.
pub const QUEUES_MAX: u32 = 16_384;
/// Most groups of each kind that one heartbeat names.
pub const HEARTBEAT_GROUPS_MAX: usize = 10_000;
/// Most subscriptions of one group in one heartbeat.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Most entries of a list in a body: queues to lock, topics or groups to make, offsets to set.
pub const ENTRIES_MAX: usize = 65_536;
/// Longest expression that filters messages: tags or SQL.
pub const EXPRESSION_BYTES_MAX: usize = 64 * 1024;
/// Longest name of an operator.
pub const OPERATOR_BYTES_MAX: usize = 255;
/// Longest reason that an operator gives.
pub const REASON_BYTES_MAX: usize = 1024;
