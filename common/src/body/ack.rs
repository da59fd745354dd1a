//! Acknowledging many popped messages at once.

use serde::{Deserialize, Serialize};

use super::bounds::bounded;
use super::json;
use crate::limits::{
    ACK_BITS_BYTES_MAX, BROKER_NAME_BYTES_MAX, ENTRIES_MAX, NAMED_GROUP_BYTES_MAX, NAMED_TOPIC_BYTES_MAX,
    WORD_BYTES_MAX,
};

/// Body of `BATCH_ACK_MESSAGE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckBody {
    /// One entry per receipt's pop.
    pub acks: Vec<BatchAck>,
    /// Broker (group) that handed the messages out.
    pub broker_name: String,
}

/// Messages of one pop of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// Which messages, as distances from the start offset; see
    /// [`parse_ack_bits`](crate::message::pop::parse_ack_bits).
    #[serde(rename = "b")]
    pub bits: String,
    /// Consumer group.
    #[serde(rename = "c")]
    pub consumer_group: String,
    /// How long the messages stay hidden, in milliseconds.
    #[serde(rename = "it", deserialize_with = "json::number")]
    pub invisible_time: i64,
    /// When they were popped, in milliseconds since 1970.
    #[serde(rename = "pt", deserialize_with = "json::number")]
    pub pop_time: i64,
    /// Queue.
    #[serde(rename = "q", deserialize_with = "json::number")]
    pub queue_id: i32,
    /// Mark of the topic's kind; see [`PopTopic`](crate::message::pop::PopTopic).
    #[serde(rename = "r")]
    pub retry: String,
    /// Where the check point is kept.
    #[serde(rename = "rq", deserialize_with = "json::number")]
    pub revive_queue_id: i32,
    /// Queue offset at which the pop began.
    #[serde(rename = "so", deserialize_with = "json::number")]
    pub start_offset: i64,
    /// Topic that was asked for.
    #[serde(rename = "t")]
    pub topic: String,
}

bounded! {
    BatchAckBody { acks: ENTRIES_MAX, broker_name: BROKER_NAME_BYTES_MAX }
    BatchAck {
        bits as "b": ACK_BITS_BYTES_MAX,
        consumer_group as "c": NAMED_GROUP_BYTES_MAX,
        invisible_time as "it",
        pop_time as "pt",
        queue_id as "q",
        retry as "r": WORD_BYTES_MAX,
        revive_queue_id as "rq",
        start_offset as "so",
        topic as "t": NAMED_TOPIC_BYTES_MAX,
    }
}
