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
        /// Bits: 1 commit, 2 may be held, 4 carries its own subscription, 16 lite pull.
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
