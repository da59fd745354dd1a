//! Locking queues for ordered consumption.

use serde::{Deserialize, Serialize};

use super::bounds::{answers, bounded};
use super::queue::MessageQueue;
use crate::limits::{CLIENT_ID_BYTES_MAX, ENTRIES_MAX, NAMED_GROUP_BYTES_MAX};

/// Body of `LOCK_BATCH_MQ` and `UNLOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatchBody {
    /// The client that locks; the connection does not matter.
    pub client_id: String,
    /// For which group.
    pub consumer_group: String,
    /// Which queues.
    pub mq_set: Vec<MessageQueue>,
    /// Do not ask other members of the broker group.
    pub only_this_broker: bool,
}

/// Answer to `LOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchResponse {
    /// The queues that the client holds now.
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

bounded! {
    LockBatchBody {
        client_id: CLIENT_ID_BYTES_MAX,
        consumer_group: NAMED_GROUP_BYTES_MAX,
        mq_set: ENTRIES_MAX,
        only_this_broker,
    }
}

answers!(LockBatchResponse);
