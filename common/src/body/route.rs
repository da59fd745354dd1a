//! Where topics are, as nameservers tell it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounds::{Each, answers, bounded};
use super::json::{self, Form};
use crate::limits::{ADDRESS_BYTES_MAX, BROKER_NAME_BYTES_MAX, ENTRIES_MAX, KV_VALUE_BYTES_MAX};

/// Answer to `GET_ROUTEINFO_BY_TOPIC`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// Brokers that serve the topic.
    pub broker_datas: Vec<BrokerData>,
    /// Always there and always empty.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `broker-a:4;broker-b:4` if the topic is an ordered one with a fixed set of queues.
    pub order_topic_conf: Option<String>,
    /// Queues per broker.
    pub queue_datas: Vec<QueueData>,
    /// Static topics; passed on as it comes.
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, serde_json::Value>>,
}

impl TopicRouteData {
    /// The body. Clients of version 401 and later, and those that ask for it, get the strict form; older ones can only
    /// read bare number keys.
    pub fn encode(&self, form: Form) -> Bytes {
        json::to_bytes(self, form)
    }
}

/// The members of a broker group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Broker id to `host:port`; 0 is the one that takes writes.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name of the group.
    pub broker_name: String,
    /// Cluster it belongs to.
    pub cluster: String,
    /// Whether the member with the smallest id may stand in for a missing master.
    pub enable_acting_master: bool,
    /// Zone, if zones are used.
    pub zone_name: Option<String>,
}

/// The queues of a topic on one broker group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// Name of the broker group.
    pub broker_name: String,
    /// See [`Perm`](crate::name::Perm).
    #[serde(deserialize_with = "json::number")]
    pub perm: i32,
    /// How many queues consumers read.
    #[serde(deserialize_with = "json::number")]
    pub read_queue_nums: i32,
    /// Unit bits; 0.
    #[serde(deserialize_with = "json::number")]
    pub topic_sys_flag: i32,
    /// How many queues producers write.
    #[serde(deserialize_with = "json::number")]
    pub write_queue_nums: i32,
}

/// Answer to `GET_BROKER_CLUSTER_INFO`; always written in the loose form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Broker name to its members.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Cluster to the names of its brokers.
    pub cluster_addr_table: BTreeMap<String, BTreeSet<String>>,
}

/// Answer to `GET_BROKER_MEMBER_GROUP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroupBody {
    /// The members, if the broker is known.
    pub broker_member_group: Option<BrokerMemberGroup>,
}

/// The members of a broker group, as its members see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroup {
    /// Broker id to `host:port`.
    pub broker_addrs: BTreeMap<i64, String>,
    /// Name of the group.
    pub broker_name: String,
    /// Cluster it belongs to.
    pub cluster: String,
}

bounded! {
    TopicRouteData {
        broker_datas: ENTRIES_MAX,
        filter_server_table: Each { entries: ENTRIES_MAX, bytes: ADDRESS_BYTES_MAX },
        order_topic_conf: KV_VALUE_BYTES_MAX,
        queue_datas: ENTRIES_MAX,
        topic_queue_mapping_by_broker: Each { entries: ENTRIES_MAX, bytes: BROKER_NAME_BYTES_MAX },
    }
    BrokerData {
        broker_addrs: Each { entries: ENTRIES_MAX, bytes: ADDRESS_BYTES_MAX },
        broker_name: BROKER_NAME_BYTES_MAX,
        cluster: BROKER_NAME_BYTES_MAX,
        enable_acting_master,
        zone_name: BROKER_NAME_BYTES_MAX,
    }
    QueueData { broker_name: BROKER_NAME_BYTES_MAX, perm, read_queue_nums, topic_sys_flag, write_queue_nums }
}

answers!(ClusterInfo, BrokerMemberGroupBody);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_keys_are_bare_only_in_the_loose_form() {
        let route = TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_addrs: BTreeMap::from([(0, "h:1".into()), (1, "h:2".into())]),
                broker_name: "b".into(),
                cluster: "c".into(),
                ..BrokerData::default()
            }],
            ..TopicRouteData::default()
        };
        let loose = route.encode(Form::Loose);
        let strict = route.encode(Form::Strict);
        assert!(loose.starts_with(br#"{"brokerDatas":[{"brokerAddrs":{0:"h:1",1:"h:2"},"#));
        assert!(strict.starts_with(br#"{"brokerDatas":[{"brokerAddrs":{"0":"h:1","1":"h:2"},"#));
        assert!(serde_json::from_slice::<serde_json::Value>(&strict).is_ok());
        for written in [loose, strict] {
            assert_eq!(json::from_slice::<TopicRouteData>(&written).unwrap(), route);
        }
    }
}
