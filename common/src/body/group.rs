//! Settings of consumer groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::{Altogether, answers, bounded};
use super::json;
use super::topic::DataVersion;
use crate::limits::{ATTRIBUTES_BYTES_MAX, ENTRIES_MAX, NAMED_GROUP_BYTES_MAX};

/// Settings of one consumer group. Body of `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the wire has that many")]
pub struct SubscriptionGroupConfig {
    /// Free settings.
    pub attributes: BTreeMap<String, String>,
    /// Broker id that members read from.
    #[serde(deserialize_with = "json::number")]
    pub broker_id: i64,
    /// Whether members may consume in broadcasting mode.
    pub consume_broadcast_enable: bool,
    /// Whether members may consume at all.
    pub consume_enable: bool,
    /// Whether a new group may begin at the beginning.
    pub consume_from_min_enable: bool,
    /// Whether messages are consumed in order.
    pub consume_message_orderly: bool,
    /// How long a message may be in consumption, in minutes.
    #[serde(deserialize_with = "json::number")]
    pub consume_timeout_minute: i32,
    /// Name.
    pub group_name: String,
    /// Gaps between retries; passed on as it comes.
    pub group_retry_policy: serde_json::Value,
    /// Unit bits; 0.
    #[serde(deserialize_with = "json::number")]
    pub group_sys_flag: i32,
    /// Whether members are told when others come and go.
    pub notify_consumer_ids_changed_enable: bool,
    /// How often a message is retried before it becomes a dead letter.
    #[serde(deserialize_with = "json::number")]
    pub retry_max_times: i32,
    /// Queues of the retry topic.
    #[serde(deserialize_with = "json::number")]
    pub retry_queue_nums: i32,
    /// Subscriptions that an operator fixed; passed on as it comes, usually missing.
    pub subscription_data_set: Option<serde_json::Value>,
    /// Broker id to which a member with a great lag is sent.
    #[serde(deserialize_with = "json::number")]
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroupConfig {
    /// The settings of a group that is created by its first heartbeat.
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: String::new(),
            group_retry_policy: serde_json::json!({"type": "CUSTOMIZED"}),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

impl SubscriptionGroupConfig {
    /// The settings that a group gets by its first heartbeat.
    pub fn new(group_name: impl Into<String>) -> Self {
        Self { group_name: group_name.into(), ..Self::default() }
    }
}

/// Answer to `GET_ALL_SUBSCRIPTIONGROUP_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupTable {
    /// Version of the table.
    pub data_version: DataVersion,
    /// Group to topic to forbidden operations, as bits.
    pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
    /// Group to its settings.
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
}

/// Body of `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupList {
    /// Groups to create or change.
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

bounded! {
    SubscriptionGroupConfig {
        attributes: Altogether(ATTRIBUTES_BYTES_MAX),
        broker_id,
        consume_broadcast_enable,
        consume_enable,
        consume_from_min_enable,
        consume_message_orderly,
        consume_timeout_minute,
        group_name: NAMED_GROUP_BYTES_MAX,
        group_retry_policy,
        group_sys_flag,
        notify_consumer_ids_changed_enable,
        retry_max_times,
        retry_queue_nums,
        subscription_data_set,
        which_broker_when_consume_slowly,
    }
    SubscriptionGroupList { group_config_list: ENTRIES_MAX }
}

answers!(SubscriptionGroupTable);
