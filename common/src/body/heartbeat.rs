//! Statements of clients about themselves, and questions about them.

use serde::{Deserialize, Serialize};

use super::bounds::{Each, answers, bounded};
use super::json;
use super::wire_enum::wire_enum;
use crate::limits::{
    CLIENT_ID_BYTES_MAX, ENTRIES_MAX, EXPRESSION_BYTES_MAX, HEARTBEAT_GROUPS_MAX, NAMED_GROUP_BYTES_MAX,
    NAMED_TOPIC_BYTES_MAX, SUBSCRIPTIONS_MAX, WORD_BYTES_MAX,
};

/// Subscription by tags; also what a missing expression type means.
pub const EXPRESSION_TAG: &str = "TAG";
/// Subscription by an SQL92 expression over properties.
pub const EXPRESSION_SQL92: &str = "SQL92";

wire_enum! {
    /// How a consumer gets its messages. Unknown names read as passive.
    ConsumeType {
        /// It pulls when it wants to.
        Actively = "CONSUME_ACTIVELY",
        /// Its listener is called.
        #[default]
        Passively = "CONSUME_PASSIVELY",
        /// It pops.
        Pop = "CONSUME_POP",
    }
}

wire_enum! {
    /// Whether the members of a group share the messages. Unknown names read as clustering.
    MessageModel {
        /// Each member gets all messages and keeps its offsets itself.
        Broadcasting = "BROADCASTING",
        /// Each message goes to one member.
        #[default]
        Clustering = "CLUSTERING",
    }
}

wire_enum! {
    /// Where a group without stored offsets begins. Unknown names read as the last offset.
    ConsumeFromWhere {
        /// At the end.
        #[default]
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        /// Deprecated, like the last offset.
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        /// Deprecated.
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        /// Deprecated.
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        /// At the beginning.
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        /// At the consumer's time stamp.
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}

/// Body of `HEART_BEAT`: all groups of one client instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// Client id.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Its consumer groups.
    pub consumer_data_set: Vec<ConsumerData>,
    /// Hash over the data of a client that sends subscriptions only on change; 0 of others.
    #[serde(deserialize_with = "json::number")]
    pub heartbeat_fingerprint: i32,
    /// Its producer groups.
    pub producer_data_set: Vec<ProducerData>,
    /// Subscriptions are left out because nothing changed.
    pub without_sub: bool,
}

/// One producer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    /// Group.
    pub group_name: String,
}

/// One consumer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    /// Where it begins without stored offsets.
    pub consume_from_where: ConsumeFromWhere,
    /// How it gets its messages.
    pub consume_type: ConsumeType,
    /// Group.
    pub group_name: String,
    /// Whether the members share the messages.
    pub message_model: MessageModel,
    /// Its subscriptions.
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Unit deployments; unused.
    pub unit_mode: bool,
}

/// A group's subscription to one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// Filtering by uploaded classes; gone.
    pub class_filter_mode: bool,
    /// Hashes of the tags; empty for everything and for SQL.
    #[serde(deserialize_with = "json::numbers")]
    pub code_set: Vec<i32>,
    /// [`EXPRESSION_TAG`], [`EXPRESSION_SQL92`] or nothing, which means the first.
    pub expression_type: Option<String>,
    /// `*`, tags joined by `||`, or an SQL text.
    pub sub_string: String,
    /// When the subscription was made or changed, in milliseconds since 1970. The higher one wins.
    #[serde(deserialize_with = "json::number")]
    pub sub_version: i64,
    /// The tags; empty for everything and for SQL.
    pub tags_set: Vec<String>,
    /// Topic.
    pub topic: String,
}

impl SubscriptionData {
    /// Whether the expression is about tags.
    pub fn is_tag_type(&self) -> bool {
        self.expression_type.as_deref().is_none_or(|name| name.is_empty() || name == EXPRESSION_TAG)
    }
}

/// Body of `CHECK_CLIENT_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientBody {
    /// Client id.
    pub client_id: String,
    /// Consumer group.
    pub group: String,
    /// Namespace of clients that use one.
    pub namespace: Option<String>,
    /// The subscription to check.
    pub subscription_data: SubscriptionData,
}

/// Answer to `GET_CONSUMER_LIST_BY_GROUP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerIdList {
    /// Distinct client ids.
    pub consumer_id_list: Vec<String>,
}

bounded! {
    HeartbeatData {
        client_id as "clientID": CLIENT_ID_BYTES_MAX,
        consumer_data_set: HEARTBEAT_GROUPS_MAX,
        heartbeat_fingerprint,
        producer_data_set: HEARTBEAT_GROUPS_MAX,
        without_sub,
    }
    ProducerData { group_name: NAMED_GROUP_BYTES_MAX }
    ConsumerData {
        consume_from_where,
        consume_type,
        group_name: NAMED_GROUP_BYTES_MAX,
        message_model,
        subscription_data_set: SUBSCRIPTIONS_MAX,
        unit_mode,
    }
    SubscriptionData {
        class_filter_mode,
        code_set: ENTRIES_MAX,
        expression_type: WORD_BYTES_MAX,
        sub_string: EXPRESSION_BYTES_MAX,
        sub_version,
        tags_set: Each { entries: ENTRIES_MAX, bytes: EXPRESSION_BYTES_MAX },
        topic: NAMED_TOPIC_BYTES_MAX,
    }
    CheckClientBody {
        client_id: CLIENT_ID_BYTES_MAX,
        group: NAMED_GROUP_BYTES_MAX,
        namespace: NAMED_TOPIC_BYTES_MAX,
        subscription_data,
    }
}

answers!(ConsumerIdList);

#[cfg(test)]
mod tests {
    use super::super::json::{Form, from_slice, to_bytes};
    use super::*;

    #[test]
    fn heartbeats_of_other_clients_are_understood() {
        let quoted = br#"{"clientID":"c","consumerDataSet":[{"groupName":"G","consumeType":"CONSUME_POP",
            "messageModel":"BROADCASTING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","subscriptionDataSet":
            [{"topic":"T","subString":"a","codeSet":["97"],"tagsSet":["a"],"subVersion":"12","expressionType":null}]}],
            "producerDataSet":null,"futureField":{"x":[1]}}"#;
        let data: HeartbeatData = from_slice(quoted).unwrap();
        let group = &data.consumer_data_set[0];
        assert_eq!(group.consume_type, ConsumeType::Pop);
        assert_eq!(group.message_model, MessageModel::Broadcasting);
        let subscription = &group.subscription_data_set[0];
        assert_eq!((subscription.code_set.as_slice(), subscription.sub_version), (&[97][..], 12));
        assert!(subscription.is_tag_type());

        let ordinals = br#"{"consumeType":0,"messageModel":1,"consumeFromWhere":4}"#;
        let group: ConsumerData = from_slice(ordinals).unwrap();
        assert_eq!(group.consume_type, ConsumeType::Actively);
        assert_eq!(group.message_model, MessageModel::Clustering);
        assert_eq!(group.consume_from_where, ConsumeFromWhere::FirstOffset);

        let unknown = br#"{"consumeType":"CONSUME_SOMEHOW","messageModel":77,"consumeFromWhere":-1}"#;
        assert_eq!(from_slice::<ConsumerData>(unknown).unwrap(), ConsumerData::default());
    }

    #[test]
    fn wrong_shapes_are_errors() {
        for bad in [r#"{"codeSet":["x"]}"#, r#"{"codeSet":[4294967296]}"#, r#"{"tagsSet":5}"#, "[1]"] {
            assert!(from_slice::<SubscriptionData>(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn nulls_are_not_written() {
        let written = to_bytes(&SubscriptionData::default(), Form::Loose);
        assert!(!written.windows(4).any(|four| four == b"null"));
    }
}
