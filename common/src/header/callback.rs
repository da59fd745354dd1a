//! Requests of a broker to its clients, and admin requests that it relays to them.

headers! {
    /// `RESET_CONSUMER_CLIENT_OFFSET` 220, broker to consumer, and `INVOKE_BROKER_TO_RESET_OFFSET` 222.
    pub struct ResetOffsetHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Group.
        group: &'a str = "group" max NAMED_GROUP_BYTES_MAX,
        /// Store time in ms, -1 for the newest.
        timestamp: i64 = "timestamp" or -1,
        /// Go back as well.
        is_force: bool = "isForce" or false,
        /// Only this queue.
        queue_id: Option<i32> = "queueId",
        /// To this offset, whatever the time.
        offset: Option<i64> = "offset",
    }

    /// `GET_CONSUMER_STATUS_FROM_CLIENT` 221, broker to consumer, and `INVOKE_BROKER_TO_GET_CONSUMER_STATUS` 223.
    pub struct GetConsumerStatusHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Group.
        group: &'a str = "group" max NAMED_GROUP_BYTES_MAX,
        /// Only this client.
        client_addr: Option<&'a str> = "clientAddr" max CLIENT_ID_BYTES_MAX,
    }

    /// `GET_CONSUMER_RUNNING_INFO` 307, admin to broker to consumer.
    pub struct GetConsumerRunningInfoHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// The client.
        client_id: &'a str = "clientId" max CLIENT_ID_BYTES_MAX,
        /// With the stacks of its threads.
        jstack_enable: bool = "jstackEnable" or false,
    }

    /// `CONSUME_MESSAGE_DIRECTLY` 309, admin to broker to consumer; on the second hop the body is the message.
    pub struct ConsumeMessageDirectlyHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// The client; admin tools may leave the choice to the broker.
        client_id: Option<&'a str> = "clientId" max CLIENT_ID_BYTES_MAX,
        /// Offset message id.
        msg_id: &'a str = "msgId" max MESSAGE_ID_BYTES_MAX,
        /// Broker of the message.
        broker_name: Option<&'a str> = "brokerName" max BROKER_NAME_BYTES_MAX,
        /// Topic of the message.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Bits of the topic.
        topic_sys_flag: Option<i32> = "topicSysFlag",
        /// Bits of the group.
        group_sys_flag: Option<i32> = "groupSysFlag",
    }

    /// `PUSH_REPLY_MESSAGE_TO_CLIENT` 326, broker to the producer that asked; the body is the reply's.
    pub struct PushReplyMessageHeader<'a> {
        /// Group of the replying producer.
        producer_group: &'a str = "producerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Reply topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// As in a send.
        default_topic: Option<&'a str> = "defaultTopic" max NAMED_TOPIC_BYTES_MAX,
        /// As in a send.
        default_topic_queue_nums: i32 = "defaultTopicQueueNums" or 0,
        /// Queue.
        queue_id: i32 = "queueId",
        /// Compression bits.
        sys_flag: i32 = "sysFlag",
        /// Replying client's clock, ms.
        born_timestamp: i64 = "bornTimestamp",
        /// The user's flag.
        flag: i32 = "flag",
        /// Properties, `CORRELATION_ID` among them.
        properties: Option<&'a str> = "properties" max PROPERTIES_BYTES_MAX,
        /// As in a send.
        reconsume_times: i32 = "reconsumeTimes" or 0,
        /// Historic.
        unit_mode: bool = "unitMode" or false,
        /// Replying client, `ip:port`.
        born_host: &'a str = "bornHost" max ADDRESS_BYTES_MAX,
        /// Broker, `ip:port`.
        store_host: &'a str = "storeHost" max ADDRESS_BYTES_MAX,
        /// Broker's clock, ms.
        store_timestamp: i64 = "storeTimestamp",
    }
}
