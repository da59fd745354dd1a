//! Consumer offsets, and offsets of queues.

headers! {
    /// `QUERY_CONSUMER_OFFSET` 14.
    pub struct QueryConsumerOffsetHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// `false`: say 22 rather than 0 if nothing is stored.
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }

    /// Answer to 14, 29, 30 and 31.
    pub struct OffsetResponse {
        /// A queue offset.
        offset: i64 = "offset",
    }

    /// `UPDATE_CONSUMER_OFFSET` 15.
    pub struct UpdateConsumerOffsetHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// Next offset to consume.
        commit_offset: i64 = "commitOffset",
    }

    /// `GET_MAX_OFFSET` 30.
    pub struct GetMaxOffsetHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// Count only what is committed.
        committed: Option<bool> = "committed",
    }

    /// `GET_MIN_OFFSET` 31 and `GET_EARLIEST_MSG_STORETIME` 32.
    pub struct QueueHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
    }

    /// `SEARCH_OFFSET_BY_TIMESTAMP` 29.
    pub struct SearchOffsetHeader<'a> {
        /// Topic; early Go releases spell it with a capital.
        topic: &'a str = "topic" | "Topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId" | "QueueId",
        /// Store time in ms.
        timestamp: i64 = "timestamp" | "Timestamp",
        /// `LOWER` (default) or `UPPER`.
        boundary_type: Option<&'a str> = "boundaryType" max WORD_BYTES_MAX,
    }

    /// Answer to `GET_EARLIEST_MSG_STORETIME` 32.
    pub struct EarliestStoreTimeResponse {
        /// Store time in ms, -1 for an empty queue.
        timestamp: i64 = "timestamp",
    }
}
