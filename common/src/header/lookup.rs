//! Messages by id and by key.

headers! {
    /// `VIEW_MESSAGE_BY_ID` 33.
    pub struct ViewMessageHeader<'a> {
        /// Position of the message in the log.
        offset: i64 = "offset",
        /// Topic that the client expects (5.x).
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
    }

    /// `QUERY_MESSAGE` 12.
    pub struct QueryMessageHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Key or unique id.
        key: &'a str = "key" max MESSAGE_ID_BYTES_MAX,
        /// Most messages to return.
        max_num: i32 = "maxNum",
        /// Earliest store time in ms.
        begin_timestamp: i64 = "beginTimestamp",
        /// Latest store time in ms.
        end_timestamp: i64 = "endTimestamp",
        /// The key is a unique id.
        unique_key: bool = "_UNIQUE_KEY_QUERY" or false,
        /// `K` or `U`, late 5.x.
        index_type: Option<&'a str> = "indexType" max WORD_BYTES_MAX,
    }

    /// Answer to 12.
    pub struct QueryMessageResponse {
        /// Store time of the newest indexed message.
        index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        /// Position of the newest indexed message (the wire spells it so).
        index_last_update_position: i64 = "indexLastUpdatePhyoffset",
    }

    /// `QUERY_CONSUME_QUEUE` 321.
    pub struct QueryConsumeQueueHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// First queue offset.
        index: i64 = "index",
        /// Number of entries.
        count: i32 = "count",
        /// Group whose filter is shown.
        consumer_group: Option<&'a str> = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
    }
}

impl<'a> QueryMessageHeader<'a> {
    /// At most `max_num` messages with this key, or this unique id, of all times.
    pub fn new(topic: &'a str, key: &'a str, unique_key: bool, max_num: i32) -> Self {
        Self { topic, key, max_num, begin_timestamp: 0, end_timestamp: i64::MAX, unique_key, index_type: None }
    }
}
