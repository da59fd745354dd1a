//! Lists and tables of plain names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::answers;
use super::heartbeat::SubscriptionData;

/// Names and values: a KV namespace, or a broker's runtime figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// Name to value.
    pub table: BTreeMap<String, String>,
}

/// A list of topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// Some broker, so that the asker knows one; only in the list of system topics.
    pub broker_addr: Option<String>,
    /// Names.
    pub topic_list: Vec<String>,
}

/// A list of consumer groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// Names.
    pub group_list: Vec<String>,
}

/// Answer to `QUERY_SUBSCRIPTION_BY_CONSUMER`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionOfGroup {
    /// Group.
    pub group: String,
    /// Its subscription; missing if it has none.
    pub subscription_data: Option<SubscriptionData>,
    /// Topic.
    pub topic: String,
}

/// Answer to `UPDATE_AND_GET_GROUP_FORBIDDEN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupForbidden {
    /// Group.
    pub group: String,
    /// Whether it may read the topic; missing if nothing was ever said.
    pub readable: Option<bool>,
    /// Topic.
    pub topic: String,
}

answers!(KvTable, TopicList, GroupList, SubscriptionOfGroup, GroupForbidden);
