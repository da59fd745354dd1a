//! Progress and rates, as brokers report them to tools.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::answers;
use super::heartbeat::SubscriptionData;
use super::json;
use super::queue::{MessageQueue, QueueTable};

/// Answer to `GET_TOPIC_STATS_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStats {
    /// Queue to its extent.
    pub offset_table: QueueTable<TopicOffset>,
    /// Messages per second written.
    pub topic_put_tps: f64,
}

/// Extent of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// Store time of the last message, in milliseconds since 1970; 0 without one.
    #[serde(deserialize_with = "json::number")]
    pub last_update_timestamp: i64,
    /// Next offset to be written.
    #[serde(deserialize_with = "json::number")]
    pub max_offset: i64,
    /// First offset still there.
    #[serde(deserialize_with = "json::number")]
    pub min_offset: i64,
}

/// Answer to `GET_CONSUME_STATS`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// Messages per second consumed.
    pub consume_tps: f64,
    /// Queue to the group's progress in it.
    pub offset_table: QueueTable<ConsumeOffset>,
}

/// Progress of a group in one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeOffset {
    /// Next offset to be written.
    #[serde(deserialize_with = "json::number")]
    pub broker_offset: i64,
    /// Next offset to be consumed.
    #[serde(deserialize_with = "json::number")]
    pub consumer_offset: i64,
    /// Store time of the last consumed message, in milliseconds since 1970; 0 without one.
    #[serde(deserialize_with = "json::number")]
    pub last_timestamp: i64,
    /// Next offset to be pulled.
    #[serde(deserialize_with = "json::number")]
    pub pull_offset: i64,
}

/// Answer to `GET_BROKER_CONSUME_STATS`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerConsumeStats {
    /// Address of the broker that answers.
    pub broker_addr: Option<String>,
    /// One map per group: its name to its progress in each topic.
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    /// Messages written and not yet consumed, over all groups.
    #[serde(deserialize_with = "json::number")]
    pub total_diff: i64,
    /// Messages pulled and not yet consumed, over all groups.
    #[serde(deserialize_with = "json::number")]
    pub total_inflight_diff: i64,
}

/// Answer to `QUERY_CONSUME_TIME_SPAN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeTimeSpanBody {
    /// One entry per queue.
    pub consume_time_span_set: Vec<ConsumeTimeSpan>,
}

/// Times of a queue and of a group's progress in it, all in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeTimeSpan {
    /// Store time of the last consumed message.
    #[serde(deserialize_with = "json::number")]
    pub consume_time_stamp: i64,
    /// The same as text.
    pub consume_time_stamp_str: Option<String>,
    /// The group's lag, in milliseconds.
    #[serde(deserialize_with = "json::number")]
    pub delay_time: i64,
    /// Store time of the last message.
    #[serde(deserialize_with = "json::number")]
    pub max_time_stamp: i64,
    /// The same as text.
    pub max_time_stamp_str: Option<String>,
    /// The queue.
    pub message_queue: MessageQueue,
    /// Store time of the first message.
    #[serde(deserialize_with = "json::number")]
    pub min_time_stamp: i64,
    /// The same as text.
    pub min_time_stamp_str: Option<String>,
}

/// Answer to `VIEW_BROKER_STATS_DATA`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatsData {
    /// Over the last day.
    pub stats_day: BrokerStatsItem,
    /// Over the last hour.
    pub stats_hour: BrokerStatsItem,
    /// Over the last minute.
    pub stats_minute: BrokerStatsItem,
}

/// One figure over one span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStatsItem {
    /// Average per call.
    pub avgpt: f64,
    /// Sum.
    #[serde(deserialize_with = "json::number")]
    pub sum: i64,
    /// Per second.
    pub tps: f64,
}

/// Answer to `QUERY_CONSUME_QUEUE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueData {
    /// The group's compiled filter, or why there is none.
    pub filter_data: Option<String>,
    /// Next offset to be written.
    #[serde(deserialize_with = "json::number")]
    pub max_queue_index: i64,
    /// First offset still there.
    #[serde(deserialize_with = "json::number")]
    pub min_queue_index: i64,
    /// The entries asked for.
    pub queue_data: Vec<ConsumeQueueEntry>,
    /// The group's subscription, if it is online.
    pub subscription_data: Option<SubscriptionData>,
}

/// One entry of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueEntry {
    /// Filter bits, if there are any.
    pub bit_map: Option<String>,
    /// Whether the group's filter passes the message.
    pub eval: bool,
    /// The message's properties, if its text was readable.
    pub msg: Option<String>,
    /// Position in the log.
    #[serde(deserialize_with = "json::number")]
    pub physic_offset: i64,
    /// Size of the unit in bytes.
    #[serde(deserialize_with = "json::number")]
    pub physic_size: i32,
    /// Hash of the tag.
    #[serde(deserialize_with = "json::number")]
    pub tags_code: i64,
    /// More about the entry, if there is more.
    pub extend_data_json: Option<String>,
}

answers!(TopicStats, ConsumeStats, BrokerConsumeStats, ConsumeTimeSpanBody, BrokerStatsData, ConsumeQueueData,);
