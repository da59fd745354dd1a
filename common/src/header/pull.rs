//! Pulls.

headers! {
    /// `PULL_MESSAGE` 11 and `LITE_PULL_MESSAGE` 361.
    pub struct PullMessageHeader<'a> {
        /// Reading group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// First queue offset to read.
        queue_offset: i64 = "queueOffset",
        /// Most messages to return.
        max_msg_nums: i32 = "maxMsgNums",
        /// Bits: [`COMMIT`](PullMessageHeader::COMMIT) and its siblings; 16 is a lite pull.
        sys_flag: i32 = "sysFlag",
        /// Offset to commit, with bit 1.
        commit_offset: i64 = "commitOffset" or 0,
        /// Longest hold in ms, with bit 2.
        suspend_timeout_millis: i64 = "suspendTimeoutMillis" or 0,
        /// Filter expression, with bit 4.
        subscription: Option<&'a str> = "subscription" max EXPRESSION_BYTES_MAX,
        /// Version of the subscription that the client goes by.
        sub_version: i64 = "subVersion" or 0,
        /// `TAG` or `SQL92`; absent means tags.
        expression_type: Option<&'a str> = "expressionType" max WORD_BYTES_MAX,
        /// Most bytes to return.
        max_msg_bytes: Option<i32> = "maxMsgBytes",
        /// Kind of proxy request.
        request_source: Option<i32> = "requestSource",
        /// Client that talks through a proxy (the wire spells it so).
        proxy_forward_client_id: Option<&'a str> = "proxyFrowardClientId" max CLIENT_ID_BYTES_MAX,
        /// Broker that the request is meant for.
        broker_name: Option<&'a str> = "bname" max BROKER_NAME_BYTES_MAX,
    }

    /// Answer to a pull.
    pub struct PullMessageResponse {
        /// Broker id to pull from next.
        suggest_which_broker_id: i64 = "suggestWhichBrokerId" or 0,
        /// Where to go on.
        next_begin_offset: i64 = "nextBeginOffset" or 0,
        /// First offset of the queue.
        min_offset: i64 = "minOffset" or 0,
        /// Next offset to be written to the queue.
        max_offset: i64 = "maxOffset" or 0,
        /// Bits of the topic.
        topic_sys_flag: Option<i32> = "topicSysFlag",
        /// Bits of the group.
        group_sys_flag: Option<i32> = "groupSysFlag",
        /// Static topics: what to add to the units' offsets.
        offset_delta: Option<i64> = "offsetDelta",
        /// With code 16: what is forbidden.
        forbidden_type: Option<i32> = "forbiddenType",
    }
}

impl<'a> PullMessageHeader<'a> {
    /// In `sys_flag`: `commit_offset` is to be stored.
    pub const COMMIT: i32 = 1;
    /// In `sys_flag`: the pull may wait for messages.
    pub const MAY_HOLD: i32 = 2;
    /// In `sys_flag`: the subscription comes with the pull.
    pub const SUBSCRIPTION: i32 = 4;

    /// A pull of up to `max_msg_nums` messages of all tags. It commits nothing and is not held.
    pub fn new(consumer_group: &'a str, topic: &'a str, queue_id: i32, queue_offset: i64, max_msg_nums: i32) -> Self {
        Self {
            consumer_group,
            topic,
            queue_id,
            queue_offset,
            max_msg_nums,
            sys_flag: Self::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some("*"),
            sub_version: 0,
            expression_type: Some("TAG"),
            max_msg_bytes: None,
            request_source: None,
            proxy_forward_client_id: None,
            broker_name: None,
        }
    }
}
