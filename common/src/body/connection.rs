//! Lists of the connected clients.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::answers;
use super::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use super::json;

/// One member of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// `host:port` of the client's socket.
    pub client_addr: String,
    /// Client id.
    pub client_id: String,
    /// Language name of its frames.
    pub language: String,
    /// Version number of its frames.
    #[serde(deserialize_with = "json::number")]
    pub version: i32,
}

/// Answer to `GET_CONSUMER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnections {
    /// The members.
    pub connection_set: Vec<ClientConnection>,
    /// Of the group's last heartbeat.
    pub consume_from_where: ConsumeFromWhere,
    /// Of the group's last heartbeat.
    pub consume_type: ConsumeType,
    /// Of the group's last heartbeat.
    pub message_model: MessageModel,
    /// Topic to subscription.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// Answer to `GET_PRODUCER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnections {
    /// The members.
    pub connection_set: Vec<ClientConnection>,
}

/// Answer to `GET_ALL_PRODUCER_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTable {
    /// Group to its members.
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

/// One member of a producer group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    /// Client id.
    pub client_id: String,
    /// Language name of its frames.
    pub language: String,
    /// Its last heartbeat, in milliseconds since 1970.
    #[serde(deserialize_with = "json::number")]
    pub last_update_timestamp: i64,
    /// Its address.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// Version number of its frames.
    #[serde(deserialize_with = "json::number")]
    pub version: i32,
}

answers!(ConsumerConnections, ProducerConnections, ProducerTable);
