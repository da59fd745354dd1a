//! Settings of topics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::{Altogether, Each, bounded};
use super::json;
use super::wire_enum::wire_enum;
use crate::limits::{
    ATTRIBUTES_BYTES_MAX, ENTRIES_MAX, NAMED_TOPIC_BYTES_MAX, REGISTRATION_PARTS_MAX, REGISTRATION_TOPICS_MAX,
};
use crate::name::Perm;

wire_enum! {
    /// Whether messages of a topic carry one tag or several. Only one has ever been used.
    TopicFilterType {
        /// One.
        #[default]
        SingleTag = "SINGLE_TAG",
        /// Several; historic.
        MultiTag = "MULTI_TAG",
    }
}

/// Settings of one topic on one broker. Also the answer to `GET_TOPIC_CONFIG`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// Free settings, such as `queue.type`.
    pub attributes: BTreeMap<String, String>,
    /// Whether the topic is an ordered one.
    pub order: bool,
    /// See [`Perm`].
    #[serde(deserialize_with = "json::number")]
    pub perm: i32,
    /// How many queues consumers read.
    #[serde(deserialize_with = "json::number")]
    pub read_queue_nums: i32,
    /// One tag or several.
    pub topic_filter_type: TopicFilterType,
    /// Name.
    pub topic_name: String,
    /// Unit bits; 0.
    #[serde(deserialize_with = "json::number")]
    pub topic_sys_flag: i32,
    /// How many queues producers write.
    #[serde(deserialize_with = "json::number")]
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    /// The values that other brokers assume for missing fields: 16 queues, readable and writable.
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: Perm::READ_WRITE.0,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// A readable and writable topic with as many read as write queues.
    pub fn new(topic_name: impl Into<String>, queues: i32) -> Self {
        Self { topic_name: topic_name.into(), read_queue_nums: queues, write_queue_nums: queues, ..Self::default() }
    }

    /// Its permissions.
    pub fn perm(&self) -> Perm {
        Perm(self.perm)
    }
}

/// Tells which of two states of a broker's settings is newer. Also the body of `QUERY_DATA_VERSION`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Changes since the start of the history.
    #[serde(deserialize_with = "json::number")]
    pub counter: i64,
    /// Term of the leader that made the change; 0 without leaders.
    #[serde(deserialize_with = "json::number")]
    pub state_version: i64,
    /// When the change was made, in milliseconds since 1970.
    #[serde(deserialize_with = "json::number")]
    pub timestamp: i64,
}

/// All topics of a broker: part of a registration, and the answer to `GET_ALL_TOPIC_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigTable {
    /// Version of the topics.
    pub data_version: DataVersion,
    /// Version of the static topics.
    pub mapping_data_version: Option<DataVersion>,
    /// Topic to its settings.
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Static topics; passed on as it comes.
    pub topic_queue_mapping_detail_map: BTreeMap<String, serde_json::Value>,
    /// Static topics; passed on as it comes.
    pub topic_queue_mapping_info_map: BTreeMap<String, serde_json::Value>,
}

/// Body of `UPDATE_AND_CREATE_TOPIC_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigList {
    /// Topics to create or change.
    pub topic_config_list: Vec<TopicConfig>,
}

bounded! {
    TopicConfig {
        attributes: Altogether(ATTRIBUTES_BYTES_MAX),
        order,
        perm,
        read_queue_nums,
        topic_filter_type,
        topic_name: NAMED_TOPIC_BYTES_MAX,
        topic_sys_flag,
        write_queue_nums,
    }
    TopicConfigTable parts(REGISTRATION_PARTS_MAX) {
        data_version,
        mapping_data_version,
        topic_config_table: Each { entries: REGISTRATION_TOPICS_MAX, bytes: NAMED_TOPIC_BYTES_MAX },
        topic_queue_mapping_detail_map: Each { entries: REGISTRATION_TOPICS_MAX, bytes: NAMED_TOPIC_BYTES_MAX },
        topic_queue_mapping_info_map: Each { entries: REGISTRATION_TOPICS_MAX, bytes: NAMED_TOPIC_BYTES_MAX },
    }
    DataVersion { counter, state_version, timestamp }
    TopicConfigList { topic_config_list: ENTRIES_MAX }
}
