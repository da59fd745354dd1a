//! The one table of what a peer may send: lengths in bytes, and how many of something one request may name.
//!
//! Each limit is checked where a header or a body is decoded, so that no handler can forget it, and is at most what every
//! encoder after it can hold, which is asserted beside the encoder. None is tighter than what RocketMQ 5.3 and its clients
//! accept. `docs/limits.md` gives the reason, the error and, where there is one, the setting of each.

use crate::frame::MAX_FRAME_LEN;

/// Most bytes of all fields and the remark of a request. The longest list in a header and the longest properties fit.
pub const HEADER_BYTES_MAX: usize = 512 * 1024;
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
/// Longest name of a broker group, of a cluster or of a zone.
pub const BROKER_NAME_BYTES_MAX: usize = 255;
/// Longest address, host name and port.
pub const ADDRESS_BYTES_MAX: usize = 1024;
/// Most bytes of a message's properties in their encoded form: the length field of a stored message has 16 bits with a sign.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;
/// Longest key or id of a message. Clients make ids, and keep them among the properties.
pub const MESSAGE_ID_BYTES_MAX: usize = PROPERTIES_BYTES_MAX;
/// Longest handle of a timer message: Base64 of its id and some names.
pub const RECALL_HANDLE_BYTES_MAX: usize = 64 * 1024;
/// Longest receipt of a popped message, or token by which a client repeats a pop.
pub const RECEIPT_BYTES_MAX: usize = 1024;
/// Most bytes that the attributes of a topic or of a group take together, names and values.
pub const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a change of attributes. A removal and a new value of each fit.
pub const ATTRIBUTE_CHANGES_BYTES_MAX: usize = 4 * ATTRIBUTES_BYTES_MAX;
/// Most queues of a topic, for reading and for writing each.
pub const QUEUES_MAX: u32 = 16_384;
/// Most groups of each kind that one heartbeat names.
pub const HEARTBEAT_GROUPS_MAX: usize = 10_000;
/// Most subscriptions of one group in one heartbeat.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Most entries of a list in a body: queues to lock, topics or groups to make, offsets to set.
pub const ENTRIES_MAX: usize = 65_536;
/// Most objects and lists in one body, inner ones included: bounds what a body costs before its lists are looked at.
pub const PARTS_MAX: usize = 2 * ENTRIES_MAX + 1024;
/// Most fields and entries of lists in one body, for each object and list that it may have. An empty text in a list takes
/// three bytes of the body and 24 in memory.
pub const MEMBERS_PER_PART_MAX: usize = 16;
/// Most topics that one broker registers.
pub const REGISTRATION_TOPICS_MAX: usize = 1_000_000;
/// Most objects and lists in a registration that is plain JSON: settings, attributes and mapping of each topic.
pub const REGISTRATION_PARTS_MAX: usize = 4 * REGISTRATION_TOPICS_MAX;
/// Most static topics of a registration, and most queues that all of them map. A small packed body can name many millions.
pub const REGISTRATION_MAPPINGS_MAX: usize = ENTRIES_MAX;
/// See [`REGISTRATION_MAPPINGS_MAX`].
pub const REGISTRATION_MAPPED_MAX: usize = 1_000_000;
/// Longest set of acknowledged messages of one pop, Base64 of 65,536 bits.
pub const ACK_BITS_BYTES_MAX: usize = 11 * 1024;
/// Longest expression that filters messages: tags or SQL.
pub const EXPRESSION_BYTES_MAX: usize = 64 * 1024;
/// Longest word out of a known set, such as a kind of expression or of figure.
pub const WORD_BYTES_MAX: usize = 255;
/// Longest list of names in one field.
pub const NAME_LIST_BYTES_MAX: usize = 256 * 1024;
/// Longest key of a figure: a topic, a group and a queue.
pub const STATS_KEY_BYTES_MAX: usize = 1024;
/// Longest version of settings, a small JSON object.
pub const VERSION_BYTES_MAX: usize = 1024;
/// Longest text of settings that a tool changes in a running process.
pub const SETTINGS_BYTES_MAX: usize = 64 * 1024;
/// Longest name of an operator.
pub const OPERATOR_BYTES_MAX: usize = 255;
/// Longest reason that an operator gives.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest namespace of a nameserver's KV configuration.
pub const KV_NAMESPACE_BYTES_MAX: usize = 255;
/// Longest key of a nameserver's KV configuration. Topics are keys.
pub const KV_KEY_BYTES_MAX: usize = 1024;
/// Longest value of a nameserver's KV configuration: `broker:queues` of a few thousand brokers.
pub const KV_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest text of an answer, which comes from a broker that its reader has chosen: whatever fits a frame.
pub const ANSWER_BYTES_MAX: usize = MAX_FRAME_LEN;

const _: () = {
    // A topic or group that can be created can be named, and the names that are made of it can, too.
    assert!(TOPIC_BYTES_MAX <= NAMED_TOPIC_BYTES_MAX && GROUP_BYTES_MAX <= NAMED_GROUP_BYTES_MAX);
    assert!(crate::name::RETRY_PREFIX.len() + GROUP_BYTES_MAX + 1 + TOPIC_BYTES_MAX <= NAMED_TOPIC_BYTES_MAX);
    assert!(crate::name::DLQ_PREFIX.len() + GROUP_BYTES_MAX <= NAMED_TOPIC_BYTES_MAX);
    // A receipt holds the broker's name and seven numbers, a handle all of its names and an id in four thirds of their bytes.
    assert!(BROKER_NAME_BYTES_MAX + 8 * 21 <= RECEIPT_BYTES_MAX);
    assert!(
        (MESSAGE_ID_BYTES_MAX + NAMED_TOPIC_BYTES_MAX + BROKER_NAME_BYTES_MAX + 32) * 4 / 3 + 4
            <= RECALL_HANDLE_BYTES_MAX
    );
    // All of these fit into the frame that brings them.
    assert!(NAME_LIST_BYTES_MAX < MAX_FRAME_LEN && ATTRIBUTE_CHANGES_BYTES_MAX < MAX_FRAME_LEN);
};
