//! The settings of a consumer group.

use serde::{Deserialize, Serialize};

/// The settings of a consumer group, chosen by an operator or the automatic creation. Replicated. The fields are the
/// protocol's `SubscriptionGroupConfig`, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "the protocol's own switches")]
pub struct GroupSettings {
    /// The name.
    pub name: String,
    /// Whether it may consume at all.
    pub consume_enable: bool,
    /// Whether it may start at the smallest offset.
    pub consume_from_min_enable: bool,
    /// Whether it may consume by broadcasting.
    pub consume_broadcast_enable: bool,
    /// Whether it consumes in order.
    pub consume_message_orderly: bool,
    /// Queues of its retry topic.
    pub retry_queues: u32,
    /// Deliveries after the first one before a message becomes a dead letter.
    pub retry_max_times: i32,
    /// The broker id that it reads from.
    pub broker_id: u64,
    /// The broker id that it is sent to when it is slow.
    pub which_broker_when_consume_slowly: u64,
    /// Whether members hear of changes at once.
    pub notify_consumer_ids_changed_enable: bool,
    /// The protocol's groupSysFlag.
    pub group_sys_flag: u32,
    /// Minutes that one message may take in a consumer.
    pub consume_timeout_minutes: u32,
    /// The protocol's attributes, name and value.
    pub attributes: Vec<(String, String)>,
}

impl GroupSettings {
    /// The attribute of a group that a client's use made, and that no operator has changed since. Tools do not see it.
    pub const MADE_BY_USE: &str = "escrowmq.made.by.use";

    /// The protocol's defaults for a group that comes into being because a client uses it.
    pub fn made_by_use(name: impl Into<String>) -> Self {
        let attributes = vec![(Self::MADE_BY_USE.to_owned(), "true".to_owned())];
        Self { attributes, ..Self::new(name) }
    }

    /// Whether a client's use made it and no operator has changed it since.
    pub fn is_made_by_use(&self) -> bool {
        self.attributes.iter().any(|(name, _)| name == Self::MADE_BY_USE)
    }

    /// The attributes that operators set.
    pub fn shown_attributes(&self) -> impl Iterator<Item = &(String, String)> {
        self.attributes.iter().filter(|(name, _)| name != Self::MADE_BY_USE)
    }

    /// The protocol's defaults for a group of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            consume_message_orderly: false,
            retry_queues: 1,
            retry_max_times: 16,
            broker_id: 0,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            group_sys_flag: 0,
            consume_timeout_minutes: 15,
            attributes: Vec::new(),
        }
    }
}
