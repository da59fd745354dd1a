//! A consumer's account of its own insides, when a tool asks through a broker.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bounds::answers;
use super::heartbeat::SubscriptionData;
use super::json;
use super::queue::QueueTable;
use super::wire_enum::wire_enum;

/// Answer to `GET_CONSUMER_RUNNING_INFO`. A broker passes the bytes on unread; only clients and tools use this type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerRunningInfo {
    /// Stack traces, if asked for.
    pub jstack: Option<String>,
    /// Popped queues; passed on as it comes.
    pub mq_pop_table: QueueTable<serde_json::Value>,
    /// Queues in work.
    pub mq_table: QueueTable<ProcessQueueInfo>,
    /// Settings and facts by name.
    pub properties: BTreeMap<String, String>,
    /// Topic to rates.
    pub status_table: BTreeMap<String, ConsumeStatus>,
    /// Subscriptions.
    pub subscription_set: Vec<SubscriptionData>,
    /// Additions of the application.
    pub user_consumer_info: BTreeMap<String, String>,
}

/// State of one queue in a consumer. Times are in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProcessQueueInfo {
    /// Messages held.
    #[serde(deserialize_with = "json::number")]
    pub cached_msg_count: i32,
    /// Last offset held.
    #[serde(deserialize_with = "json::number")]
    pub cached_msg_max_offset: i64,
    /// First offset held.
    #[serde(deserialize_with = "json::number")]
    pub cached_msg_min_offset: i64,
    /// Their bodies, in MiB.
    #[serde(rename = "cachedMsgSizeInMiB", deserialize_with = "json::number")]
    pub cached_msg_size_in_mib: i32,
    /// Next offset to consume.
    #[serde(deserialize_with = "json::number")]
    pub commit_offset: i64,
    /// Given up by a rebalance (spelled so).
    pub droped: bool,
    /// Last consumption.
    #[serde(deserialize_with = "json::number")]
    pub last_consume_timestamp: i64,
    /// Last successful lock.
    #[serde(deserialize_with = "json::number")]
    pub last_lock_timestamp: i64,
    /// Last pull.
    #[serde(deserialize_with = "json::number")]
    pub last_pull_timestamp: i64,
    /// Held for ordered consumption.
    pub locked: bool,
    /// Messages in ordered consumption.
    #[serde(deserialize_with = "json::number")]
    pub transaction_msg_count: i32,
    /// Last offset of these.
    #[serde(deserialize_with = "json::number")]
    pub transaction_msg_max_offset: i64,
    /// First offset of these.
    #[serde(deserialize_with = "json::number")]
    pub transaction_msg_min_offset: i64,
    /// Failed attempts to unlock.
    #[serde(deserialize_with = "json::number")]
    pub try_unlock_times: i64,
}

/// Rates of one topic in a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsumeStatus {
    /// Failures in the last hour.
    #[serde(rename = "consumeFailedMsgs", deserialize_with = "json::number")]
    pub consume_failed_msgs: i64,
    /// Failures per second.
    #[serde(rename = "consumeFailedTPS")]
    pub consume_failed_tps: f64,
    /// Successes per second.
    #[serde(rename = "consumeOKTPS")]
    pub consume_ok_tps: f64,
    /// Average time of the listener, in milliseconds.
    #[serde(rename = "consumeRT")]
    pub consume_rt: f64,
    /// Average time of a pull, in milliseconds.
    #[serde(rename = "pullRT")]
    pub pull_rt: f64,
    /// Messages pulled per second.
    #[serde(rename = "pullTPS")]
    pub pull_tps: f64,
}

impl ConsumerRunningInfo {
    /// Topics it subscribes to.
    pub fn topics(&self) -> BTreeSet<&str> {
        self.subscription_set.iter().map(|subscription| subscription.topic.as_str()).collect()
    }
}

wire_enum! {
    /// A listener's verdict on one message.
    ConsumeResult {
        /// Done.
        #[default]
        Success = "CR_SUCCESS",
        /// Again later.
        Later = "CR_LATER",
        /// Ordered: undone.
        Rollback = "CR_ROLLBACK",
        /// Ordered: done.
        Commit = "CR_COMMIT",
        /// It threw.
        ThrowException = "CR_THROW_EXCEPTION",
        /// It returned nothing.
        ReturnNull = "CR_RETURN_NULL",
    }
}

/// Answer to `CONSUME_MESSAGE_DIRECTLY`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeDirectlyResult {
    /// Ordered listeners commit by themselves.
    pub auto_commit: bool,
    /// The outcome.
    pub consume_result: ConsumeResult,
    /// Whether the listener is an ordered one.
    pub order: bool,
    /// Why it failed.
    pub remark: Option<String>,
    /// Time of the listener, in milliseconds (spelled so).
    #[serde(deserialize_with = "json::number")]
    pub spent_time_mills: i64,
}

answers!(ConsumerRunningInfo, ConsumeDirectlyResult);
