//! Queue assignment by the broker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bounds::{answers, bounded};
use super::heartbeat::MessageModel;
use super::json;
use super::queue::MessageQueue;
use super::wire_enum::wire_enum;
use crate::limits::{CLIENT_ID_BYTES_MAX, NAMED_GROUP_BYTES_MAX, NAMED_TOPIC_BYTES_MAX, WORD_BYTES_MAX};

wire_enum! {
    /// How the messages of a queue are fetched.
    MessageRequestMode {
        /// The client pulls and keeps the offset.
        #[default]
        Pull = "PULL",
        /// The client pops and acknowledges.
        Pop = "POP",
    }
}

/// Body of `QUERY_ASSIGNMENT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentBody {
    /// The asking client.
    pub client_id: String,
    /// Its group.
    pub consumer_group: String,
    /// Whether the members share the messages.
    pub message_model: MessageModel,
    /// Allocation strategy, such as `AVG`.
    pub strategy_name: String,
    /// Topic.
    pub topic: String,
}

/// Answer to `QUERY_ASSIGNMENT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentResponse {
    /// The queues of the client; missing means that the broker assigns nothing.
    pub message_queue_assignments: Option<Vec<MessageQueueAssignment>>,
}

/// One assigned queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueueAssignment {
    /// Free text for strategies; usually missing.
    pub attachments: Option<BTreeMap<String, String>>,
    /// The queue; id -1 stands for all queues of the broker.
    pub message_queue: MessageQueue,
    /// How it is fetched.
    pub mode: MessageRequestMode,
}

/// Body of `SET_MESSAGE_REQUEST_MODE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SetMessageRequestModeBody {
    /// Group.
    pub consumer_group: String,
    /// How it fetches.
    pub mode: MessageRequestMode,
    /// How many members share a queue; 0 or less for all.
    #[serde(deserialize_with = "json::number")]
    pub pop_share_queue_num: i32,
    /// Topic.
    pub topic: String,
}

bounded! {
    QueryAssignmentBody {
        client_id: CLIENT_ID_BYTES_MAX,
        consumer_group: NAMED_GROUP_BYTES_MAX,
        message_model,
        strategy_name: WORD_BYTES_MAX,
        topic: NAMED_TOPIC_BYTES_MAX,
    }
    SetMessageRequestModeBody {
        consumer_group: NAMED_GROUP_BYTES_MAX,
        mode,
        pop_share_queue_num,
        topic: NAMED_TOPIC_BYTES_MAX,
    }
}

answers!(QueryAssignmentResponse);
