//! Admin requests of a broker.

use crate::name::{AUTO_CREATE_TOPIC, Perm};

headers! {
    /// `UPDATE_AND_CREATE_TOPIC` 17.
    pub struct CreateTopicHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Topic whose settings are the model; mostly ignored.
        default_topic: Option<&'a str> = "defaultTopic" max NAMED_TOPIC_BYTES_MAX,
        /// Queues that are read.
        read_queue_nums: i32 = "readQueueNums",
        /// Queues that are written.
        write_queue_nums: i32 = "writeQueueNums",
        /// 4 read, 2 write.
        perm: i32 = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: Option<&'a str> = "topicFilterType" max WORD_BYTES_MAX,
        /// Bits of the topic.
        topic_sys_flag: i32 = "topicSysFlag" or 0,
        /// Whether producers must keep their queue.
        order: bool = "order" or false,
        /// Changes of attributes, `+key=value,-key`.
        attributes: Option<&'a str> = "attributes" max ATTRIBUTE_CHANGES_BYTES_MAX,
        /// Create whatever the checks say.
        force: Option<bool> = "force",
    }

    /// Requests about one topic and nothing else: 202, 215, 217, 300.
    pub struct TopicHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
    }

    /// `GET_TOPIC_CONFIG` 351.
    pub struct GetTopicConfigHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Logical queues of a static topic.
        logical: bool = "lo" or false,
    }

    /// `GET_ALL_TOPIC_CONFIG` 21.
    pub struct GetAllTopicConfigHeader<'a> {
        /// First topic of this page.
        topic_seq: Option<i32> = "topicSeq",
        /// Most topics of this page.
        max_topic_num: Option<i32> = "maxTopicNum",
        /// Version that the asker has, JSON.
        data_version: Option<&'a str> = "dataVersion" max VERSION_BYTES_MAX,
    }

    /// `GET_ALL_SUBSCRIPTIONGROUP_CONFIG` 201.
    pub struct GetAllSubscriptionGroupHeader<'a> {
        /// First group of this page.
        group_seq: Option<i32> = "groupSeq",
        /// Most groups of this page.
        max_group_num: Option<i32> = "maxGroupNum",
        /// Version that the asker has, JSON.
        data_version: Option<&'a str> = "dataVersion" max VERSION_BYTES_MAX,
    }

    /// `GET_SUBSCRIPTIONGROUP_CONFIG` 352 and `QUERY_TOPICS_BY_CONSUMER` 343.
    pub struct GroupHeader<'a> {
        /// Group.
        group: &'a str = "group" max NAMED_GROUP_BYTES_MAX,
    }

    /// `DELETE_SUBSCRIPTIONGROUP` 207.
    pub struct DeleteSubscriptionGroupHeader<'a> {
        /// Group.
        group_name: &'a str = "groupName" max NAMED_GROUP_BYTES_MAX,
        /// Delete its offsets as well.
        clean_offset: bool = "cleanOffset" | "removeOffset" or false,
    }

    /// `GET_CONSUMER_CONNECTION_LIST` 203.
    pub struct ConsumerGroupHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
    }

    /// `GET_PRODUCER_CONNECTION_LIST` 204.
    pub struct ProducerGroupHeader<'a> {
        /// Group.
        producer_group: &'a str = "producerGroup" max NAMED_GROUP_BYTES_MAX,
    }

    /// `GET_CONSUME_STATS` 208.
    pub struct GetConsumeStatsHeader<'a> {
        /// Group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Only this topic.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Only these topics, separated by semicolons.
        topic_list: Option<&'a str> = "topicList" max NAME_LIST_BYTES_MAX,
    }

    /// `QUERY_SUBSCRIPTION_BY_CONSUMER` 345 and `QUERY_CONSUME_TIME_SPAN` 303.
    pub struct GroupTopicHeader<'a> {
        /// Group.
        group: &'a str = "group" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
    }

    /// `CLONE_GROUP_OFFSET` 314.
    pub struct CloneGroupOffsetHeader<'a> {
        /// Group to copy from.
        src_group: &'a str = "srcGroup" max NAMED_GROUP_BYTES_MAX,
        /// Group to copy to.
        dest_group: &'a str = "destGroup" max NAMED_GROUP_BYTES_MAX,
        /// Only this topic.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Historic.
        offline: bool = "offline" or false,
    }

    /// `QUERY_CORRECTION_OFFSET` 308.
    pub struct QueryCorrectionOffsetHeader<'a> {
        /// Groups, separated by commas.
        filter_groups: Option<&'a str> = "filterGroups" max NAME_LIST_BYTES_MAX,
        /// Group to compare with.
        compare_group: &'a str = "compareGroup" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
    }

    /// `VIEW_BROKER_STATS_DATA` 315.
    pub struct ViewBrokerStatsHeader<'a> {
        /// Kind of figure.
        stats_name: &'a str = "statsName" max WORD_BYTES_MAX,
        /// Of what.
        stats_key: &'a str = "statsKey" max STATS_KEY_BYTES_MAX,
    }

    /// `GET_BROKER_CONSUME_STATS` 317.
    pub struct GetBrokerConsumeStatsHeader {
        /// Ordered groups or the others.
        is_order: bool = "isOrder" or false,
    }

    /// `UPDATE_AND_GET_GROUP_FORBIDDEN` 353.
    pub struct GroupForbiddenHeader<'a> {
        /// Group.
        group: &'a str = "group" max NAMED_GROUP_BYTES_MAX,
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Absent only reads.
        readable: Option<bool> = "readable",
    }

    /// Answer to `GET_BROKER_CONFIG` 26.
    pub struct BrokerConfigResponse<'a> {
        /// Version of the settings, JSON.
        version: &'a str = "version" max VERSION_BYTES_MAX,
    }
}

impl<'a> CreateTopicHeader<'a> {
    /// An ordinary topic with this many queues, which everybody may read and write.
    pub fn new(topic: &'a str, queues: i32) -> Self {
        Self {
            topic,
            default_topic: Some(AUTO_CREATE_TOPIC),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: Perm::READ_WRITE.0,
            topic_filter_type: Some("SINGLE_TAG"),
            topic_sys_flag: 0,
            order: false,
            attributes: None,
            force: None,
        }
    }
}
