//! Pop, its acknowledgements and what proxies ask.

headers! {
    /// `POP_MESSAGE` 200050.
    pub struct PopMessageHeader<'a> {
        /// Reading group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue, -1 for any.
        queue_id: i32 = "queueId",
        /// Most messages to return, at most 32.
        max_msg_nums: i32 = "maxMsgNums",
        /// How long popped messages stay hidden, ms.
        invisible_time: i64 = "invisibleTime",
        /// How long the pop may wait, ms.
        poll_time: i64 = "pollTime",
        /// When the client sent this, ms by its clock; 0 = now.
        born_time: i64 = "bornTime" or 0,
        /// Where a new group begins: 0 first, 1 last.
        init_mode: i32 = "initMode" or 0,
        /// `TAG` or `SQL92`.
        expression_type: Option<&'a str> = "expType" max WORD_BYTES_MAX,
        /// Filter expression.
        expression: Option<&'a str> = "exp" max EXPRESSION_BYTES_MAX,
        /// In order: the queue is blocked until all popped messages are acknowledged.
        order: bool = "order" or false,
        /// Makes a repeated ordered pop return the same messages.
        attempt_id: Option<&'a str> = "attemptId" max RECEIPT_BYTES_MAX,
        /// Broker that the request is meant for.
        broker_name: Option<&'a str> = "bname" max BROKER_NAME_BYTES_MAX,
    }

    /// Answer to 200050.
    pub struct PopMessageResponse<'a> {
        /// When the messages were popped, ms.
        pop_time: i64 = "popTime",
        /// How long they stay hidden, ms.
        invisible_time: i64 = "invisibleTime",
        /// Historic queue of receipts; 999 for ordered pops.
        revive_queue_id: i32 = "reviveQid",
        /// Messages left in the queue.
        rest_num: i64 = "restNum",
        /// Where this pop began, by queue.
        start_offset_info: Option<&'a str> = "startOffsetInfo" max ANSWER_BYTES_MAX,
        /// Queue offsets of the messages, by queue.
        msg_offset_info: Option<&'a str> = "msgOffsetInfo" max ANSWER_BYTES_MAX,
        /// How often ordered messages were popped, by queue.
        order_count_info: Option<&'a str> = "orderCountInfo" max ANSWER_BYTES_MAX,
    }

    /// `ACK_MESSAGE` 200051.
    pub struct AckMessageHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic that was popped from.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// The receipt (`POP_CK`).
        extra_info: &'a str = "extraInfo" max RECEIPT_BYTES_MAX,
        /// Queue offset of the message.
        offset: i64 = "offset",
    }

    /// `CHANGE_MESSAGE_INVISIBLETIME` 200053.
    pub struct ChangeInvisibleTimeHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic that was popped from.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// The receipt (`POP_CK`).
        extra_info: &'a str = "extraInfo" max RECEIPT_BYTES_MAX,
        /// Queue offset of the message.
        offset: i64 = "offset",
        /// New hidden time from now, ms.
        invisible_time: i64 = "invisibleTime",
    }

    /// Answer to 200053: what the new receipt is made of.
    pub struct ChangeInvisibleTimeResponse {
        /// New pop time, ms.
        pop_time: i64 = "popTime",
        /// New hidden time, ms.
        invisible_time: i64 = "invisibleTime",
        /// Historic queue of receipts.
        revive_queue_id: i32 = "reviveQid",
    }

    /// `PEEK_MESSAGE` 200052.
    pub struct PeekMessageHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
        /// Most messages to return.
        max_msg_nums: i32 = "maxMsgNums",
    }

    /// `NOTIFICATION` 200054.
    pub struct NotificationHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue, -1 for any.
        queue_id: i32 = "queueId",
        /// How long to wait, ms.
        poll_time: i64 = "pollTime",
        /// When the client sent this, ms by its clock.
        born_time: i64 = "bornTime" or 0,
        /// In order.
        order: bool = "order" or false,
        /// As in an ordered pop.
        attempt_id: Option<&'a str> = "attemptId" max RECEIPT_BYTES_MAX,
    }

    /// Answer to 200054.
    pub struct NotificationResponse {
        /// There is a message.
        has_msg: bool = "hasMsg",
        /// Too many wait already.
        polling_full: Option<bool> = "pollingFull",
    }

    /// `POLLING_INFO` 200055.
    pub struct PollingInfoHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Queue.
        queue_id: i32 = "queueId",
    }

    /// Answer to 200055.
    pub struct PollingInfoResponse {
        /// Pops that wait.
        polling_num: i32 = "pollingNum",
    }
}
