//! Sends, replies, send-backs and recalls.

use super::table::FieldSink as _;
use crate::frame::Fields;
use crate::name::AUTO_CREATE_TOPIC;

/// Requests of clients below this version carry no limit of retries, whatever their `max_reconsume_times` says.
pub const VERSION_WITH_RETRY_LIMIT: i32 = 121;

headers! {
    /// `SEND_MESSAGE` 10 and 324 (long names), `SEND_MESSAGE_V2` 310, 320 and 325 (one-letter names).
    ///
    /// Both spellings are read whatever the code; `encode` writes the short one,
    /// [`encode_long`](SendMessageHeader::encode_long) the long one.
    pub struct SendMessageHeader<'a> {
        /// Group of the producer.
        producer_group: &'a str = "a" | "producerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic of the message.
        topic: &'a str = "b" | "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Topic whose settings a new topic takes over.
        default_topic: &'a str = "c" | "defaultTopic" max NAMED_TOPIC_BYTES_MAX,
        /// Queues of a topic that is created by this send.
        default_topic_queue_nums: i32 = "d" | "defaultTopicQueueNums",
        /// Queue; negative lets the broker choose.
        queue_id: i32 = "e" | "queueId",
        /// Compression and transaction bits.
        sys_flag: i32 = "f" | "sysFlag",
        /// Producer's clock in ms.
        born_timestamp: i64 = "g" | "bornTimestamp",
        /// The user's flag, passed through.
        flag: i32 = "h" | "flag",
        /// Properties in their encoded form.
        properties: Option<&'a str> = "i" | "properties" max PROPERTIES_BYTES_MAX,
        /// How often the message was consumed without success.
        reconsume_times: i32 = "j" | "reconsumeTimes" or 0,
        /// Historic.
        unit_mode: bool = "k" | "unitMode" or false,
        /// When a retried message becomes a dead letter.
        max_reconsume_times: Option<i32> = "l" | "maxReconsumeTimes" | "consumeRetryTimes",
        /// The body holds several messages.
        batch: bool = "m" | "batch" or false,
        /// Broker that the request is meant for.
        broker_name: Option<&'a str> = "n" | "bname" max BROKER_NAME_BYTES_MAX,
    }

    /// Answer to a send that was stored. The last two are there on errors as well; Java producers need them.
    pub struct SendMessageResponse<'a> {
        /// Offset message id; a comma-separated list for a batch.
        msg_id: &'a str = "msgId" max ANSWER_BYTES_MAX,
        /// Queue that was written.
        queue_id: i32 = "queueId",
        /// Offset in that queue, or the dense counter of a half.
        queue_offset: i64 = "queueOffset",
        /// Unique id of the message.
        transaction_id: Option<&'a str> = "transactionId" max ANSWER_BYTES_MAX,
        /// Unique id of an inner batch.
        batch_uniq_id: Option<&'a str> = "batchUniqId" max ANSWER_BYTES_MAX,
        /// Handle by which a timer message can be recalled.
        recall_handle: Option<&'a str> = "recallHandle" max RECALL_HANDLE_BYTES_MAX,
        /// Region of the broker.
        region: Option<&'a str> = "MSG_REGION" max BROKER_NAME_BYTES_MAX,
        /// Whether the message is to be traced.
        trace_on: Option<bool> = "TRACE_ON",
    }

    /// The two fields that every answer to a send has, errors included.
    pub struct SendTraceResponse<'a> {
        /// Region of the broker.
        region: &'a str = "MSG_REGION" max BROKER_NAME_BYTES_MAX,
        /// Whether messages are to be traced.
        trace_on: bool = "TRACE_ON",
    }

    /// `CONSUMER_SEND_MSG_BACK` 36.
    pub struct ConsumerSendMsgBackHeader<'a> {
        /// Position of the message in the log.
        offset: i64 = "offset",
        /// Group that failed to consume it.
        group: &'a str = "group" max NAMED_GROUP_BYTES_MAX,
        /// 0: the broker decides, -1: dead letter at once, else the delay level.
        delay_level: i32 = "delayLevel" or 0,
        /// Id of the message as the consumer knows it.
        origin_msg_id: Option<&'a str> = "originMsgId" max MESSAGE_ID_BYTES_MAX,
        /// Topic of the message as the consumer knows it.
        origin_topic: Option<&'a str> = "originTopic" max NAMED_TOPIC_BYTES_MAX,
        /// Historic.
        unit_mode: bool = "unitMode" or false,
        /// When the message becomes a dead letter.
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        /// Broker that the request is meant for.
        broker_name: Option<&'a str> = "bname" max BROKER_NAME_BYTES_MAX,
    }

    /// `RECALL_MESSAGE` 370.
    pub struct RecallMessageHeader<'a> {
        /// Group of the producer.
        producer_group: Option<&'a str> = "producerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic of the message.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Handle from the send response.
        recall_handle: &'a str = "recallHandle" max RECALL_HANDLE_BYTES_MAX,
    }

    /// Answer to 370.
    pub struct RecallMessageResponse<'a> {
        /// Unique id of the recalled message.
        msg_id: &'a str = "msgId" max MESSAGE_ID_BYTES_MAX,
    }
}

impl<'a> SendMessageHeader<'a> {
    /// One plain message, whose topic is made with four queues if there is none.
    pub fn new(
        producer_group: &'a str,
        topic: &'a str,
        queue_id: i32,
        born_timestamp: i64,
        properties: &'a str,
    ) -> Self {
        Self {
            producer_group,
            topic,
            default_topic: AUTO_CREATE_TOPIC,
            default_topic_queue_nums: 4,
            queue_id,
            sys_flag: 0,
            born_timestamp,
            flag: 0,
            properties: Some(properties),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        }
    }

    /// Appends the fields under their long names, for codes 10 and 324.
    pub fn encode_long(&self, fields: &mut Fields) {
        fields.text("producerGroup", self.producer_group);
        fields.text("topic", self.topic);
        fields.text("defaultTopic", self.default_topic);
        fields.insert("defaultTopicQueueNums", self.default_topic_queue_nums);
        fields.insert("queueId", self.queue_id);
        fields.insert("sysFlag", self.sys_flag);
        fields.insert("bornTimestamp", self.born_timestamp);
        fields.insert("flag", self.flag);
        if let Some(properties) = self.properties {
            fields.text("properties", properties);
        }
        fields.insert("reconsumeTimes", self.reconsume_times);
        fields.insert("unitMode", self.unit_mode);
        if let Some(max) = self.max_reconsume_times {
            fields.insert("maxReconsumeTimes", max);
        }
        fields.insert("batch", self.batch);
        if let Some(name) = self.broker_name {
            fields.text("bname", name);
        }
    }
}
