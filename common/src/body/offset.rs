//! Consumer offsets: resets, positions of clients, tables of brokers.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounds::{Each, answers, bounded};
use super::json::{self, Form};
use super::queue::QueueTable;
use super::topic::DataVersion;
use crate::limits::{CLIENT_ID_BYTES_MAX, ENTRIES_MAX};

/// Body of `RESET_CONSUMER_CLIENT_OFFSET` to a client and of the answer to `INVOKE_BROKER_TO_RESET_OFFSET`. Both the
/// map and the list form are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    /// Queue to the next offset to consume.
    pub offset_table: QueueTable<i64>,
}

impl ResetOffsetBody {
    /// The form that C++ clients read: a list whose elements hold queue and offset.
    pub fn encode_as_list(&self) -> Bytes {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Element<'a> {
            broker_name: &'a str,
            offset: i64,
            queue_id: i32,
            topic: &'a str,
        }

        let elements: Vec<_> = self
            .offset_table
            .iter()
            .map(|(queue, &offset)| Element {
                broker_name: &queue.broker_name,
                offset,
                queue_id: queue.queue_id,
                topic: &queue.topic,
            })
            .collect();
        json::to_bytes(&BTreeMap::from([("offsetTable", elements)]), Form::Loose)
    }
}

/// Answer to `GET_CONSUMER_STATUS_FROM_CLIENT` (second table) and `INVOKE_BROKER_TO_GET_CONSUMER_STATUS` (first table).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatus {
    /// Client id to its queues and offsets.
    pub consumer_table: BTreeMap<String, QueueTable<i64>>,
    /// Queues and offsets of the client that answers.
    pub message_queue_table: QueueTable<i64>,
}

/// Answer to `GET_ALL_CONSUMER_OFFSET`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsetTable {
    /// Version of the table.
    pub data_version: Option<DataVersion>,
    /// `topic@group` to queue to next offset.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Answer to `QUERY_CORRECTION_OFFSET`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorrectionOffsets {
    /// Queue to offset.
    pub correction_offsets: BTreeMap<i32, i64>,
}

bounded! {
    ResetOffsetBody { offset_table }
    ConsumerStatus {
        consumer_table: Each { entries: ENTRIES_MAX, bytes: CLIENT_ID_BYTES_MAX },
        message_queue_table,
    }
}

answers!(ConsumerOffsetTable, CorrectionOffsets);

#[cfg(test)]
mod tests {
    use super::super::MessageQueue;
    use super::*;

    #[test]
    fn the_list_form_says_the_same() {
        let queue = MessageQueue::new("t", "b", 2);
        let body = ResetOffsetBody { offset_table: [(queue, 5)].into_iter().collect() };
        let list = body.encode_as_list();
        assert_eq!(list, br#"{"offsetTable":[{"brokerName":"b","offset":5,"queueId":2,"topic":"t"}]}"#.as_slice());
        assert_eq!(json::from_slice::<ResetOffsetBody>(&list).unwrap(), body);
    }
}
