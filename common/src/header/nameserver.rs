//! Requests to a nameserver.

headers! {
    /// `GET_ROUTEINFO_BY_TOPIC` 105.
    pub struct GetRouteInfoHeader<'a> {
        /// Topic. Absent is answered like an unknown one.
        topic: Option<&'a str> = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// The client wants quoted integer keys whatever its version.
        accept_standard_json_only: bool = "acceptStandardJsonOnly" or false,
        /// Only brokers of this zone, with the mode below.
        zone_name: Option<&'a str> = "__ZONE_NAME" max BROKER_NAME_BYTES_MAX,
        /// Whether the zone counts.
        zone_mode: bool = "__ZONE_MODE" or false,
    }

    /// `REGISTER_BROKER` 103.
    pub struct RegisterBrokerHeader<'a> {
        /// Name of the broker group.
        broker_name: &'a str = "brokerName" max BROKER_NAME_BYTES_MAX,
        /// Address for clients.
        broker_addr: &'a str = "brokerAddr" max ADDRESS_BYTES_MAX,
        /// Cluster.
        cluster_name: &'a str = "clusterName" max BROKER_NAME_BYTES_MAX,
        /// Address for replicas.
        ha_server_addr: &'a str = "haServerAddr" max ADDRESS_BYTES_MAX or "",
        /// 0 for the master.
        broker_id: i64 = "brokerId",
        /// How long the registration lasts without another, ms.
        heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMillis",
        /// The smallest replica may stand in for a master.
        enable_acting_master: bool = "enableActingMaster" or false,
        /// The body is a zlib stream.
        compressed: bool = "compressed" or false,
        /// Checksum of the body, 0 for none.
        body_crc32: i32 = "bodyCrc32" or 0,
        /// Zone of the broker.
        zone_name: Option<&'a str> = "__ZONE_NAME" max BROKER_NAME_BYTES_MAX,
    }

    /// Answer to 103.
    pub struct RegisterBrokerResponse<'a> {
        /// Replication address of the master, for others.
        ha_server_addr: Option<&'a str> = "haServerAddr" max ADDRESS_BYTES_MAX,
        /// Address of the master, for others.
        master_addr: Option<&'a str> = "masterAddr" max ADDRESS_BYTES_MAX,
    }

    /// `UNREGISTER_BROKER` 104 and `QUERY_DATA_VERSION` 322.
    pub struct BrokerIdentityHeader<'a> {
        /// Name of the broker group.
        broker_name: &'a str = "brokerName" max BROKER_NAME_BYTES_MAX,
        /// Address for clients.
        broker_addr: &'a str = "brokerAddr" max ADDRESS_BYTES_MAX,
        /// Cluster.
        cluster_name: &'a str = "clusterName" max BROKER_NAME_BYTES_MAX,
        /// 0 for the master.
        broker_id: i64 = "brokerId" or 0,
    }

    /// Answer to 322.
    pub struct QueryDataVersionResponse {
        /// The nameserver knows another version.
        changed: bool = "changed",
    }

    /// `BROKER_HEARTBEAT` 904.
    pub struct BrokerHeartbeatHeader<'a> {
        /// Cluster.
        cluster_name: &'a str = "clusterName" max BROKER_NAME_BYTES_MAX,
        /// Address for clients.
        broker_addr: &'a str = "brokerAddr" max ADDRESS_BYTES_MAX,
        /// Name of the broker group.
        broker_name: &'a str = "brokerName" max BROKER_NAME_BYTES_MAX,
        /// 0 for the master.
        broker_id: Option<i64> = "brokerId",
        /// Controller only.
        epoch: Option<i32> = "epoch",
        /// Controller only.
        max_offset: Option<i64> = "maxOffset",
        /// Controller only.
        confirm_offset: Option<i64> = "confirmOffset",
        /// How long this lasts, ms (the wire spells it so).
        heartbeat_timeout_millis: Option<i64> = "heartbeatTimeoutMills" | "heartbeatTimeoutMillis",
        /// Controller only.
        election_priority: Option<i32> = "electionPriority",
    }

    /// `GET_BROKER_MEMBER_GROUP` 901.
    pub struct GetBrokerMemberGroupHeader<'a> {
        /// Cluster.
        cluster_name: &'a str = "clusterName" max BROKER_NAME_BYTES_MAX,
        /// Name of the broker group.
        broker_name: &'a str = "brokerName" max BROKER_NAME_BYTES_MAX,
    }

    /// `NOTIFY_MIN_BROKER_ID_CHANGE` 905, nameserver to broker.
    pub struct NotifyMinBrokerIdChangeHeader<'a> {
        /// The smallest id now.
        min_broker_id: Option<i64> = "minBrokerId",
        /// Name of the broker group.
        broker_name: Option<&'a str> = "brokerName" max BROKER_NAME_BYTES_MAX,
        /// Address of the smallest id.
        min_broker_addr: Option<&'a str> = "minBrokerAddr" max ADDRESS_BYTES_MAX,
        /// The broker that went.
        offline_broker_addr: Option<&'a str> = "offlineBrokerAddr" max ADDRESS_BYTES_MAX,
        /// Replication address of the smallest id.
        ha_broker_addr: Option<&'a str> = "haBrokerAddr" max ADDRESS_BYTES_MAX,
    }

    /// `GET_TOPICS_BY_CLUSTER` 224.
    pub struct GetTopicsByClusterHeader<'a> {
        /// Cluster.
        cluster: &'a str = "cluster" max BROKER_NAME_BYTES_MAX,
    }

    /// `PUT_KV_CONFIG` 100.
    pub struct PutKvConfigHeader<'a> {
        /// Namespace.
        namespace: &'a str = "namespace" max KV_NAMESPACE_BYTES_MAX,
        /// Key.
        key: &'a str = "key" max KV_KEY_BYTES_MAX,
        /// Value.
        value: &'a str = "value" max KV_VALUE_BYTES_MAX,
    }

    /// `GET_KV_CONFIG` 101 and `DELETE_KV_CONFIG` 102.
    pub struct KvKeyHeader<'a> {
        /// Namespace.
        namespace: &'a str = "namespace" max KV_NAMESPACE_BYTES_MAX,
        /// Key.
        key: &'a str = "key" max KV_KEY_BYTES_MAX,
    }

    /// Answer to 101.
    pub struct GetKvConfigResponse<'a> {
        /// Value.
        value: Option<&'a str> = "value" max ANSWER_BYTES_MAX,
    }

    /// `GET_KVLIST_BY_NAMESPACE` 219.
    pub struct GetKvListByNamespaceHeader<'a> {
        /// Namespace.
        namespace: &'a str = "namespace" max KV_NAMESPACE_BYTES_MAX,
    }

    /// `WIPE_WRITE_PERM_OF_BROKER` 205 and `ADD_WRITE_PERM_OF_BROKER` 327.
    pub struct BrokerNameHeader<'a> {
        /// Name of the broker group.
        broker_name: &'a str = "brokerName" max BROKER_NAME_BYTES_MAX,
    }

    /// Answer to 205.
    pub struct WipeWritePermResponse {
        /// Topics that were changed.
        wipe_topic_count: i32 = "wipeTopicCount",
    }

    /// Answer to 327.
    pub struct AddWritePermResponse {
        /// Topics that were changed.
        add_topic_count: i32 = "addTopicCount",
    }

    /// `DELETE_TOPIC_IN_NAMESRV` 216.
    pub struct DeleteTopicInNamesrvHeader<'a> {
        /// Topic.
        topic: &'a str = "topic" max NAMED_TOPIC_BYTES_MAX,
        /// Only in this cluster.
        cluster_name: Option<&'a str> = "clusterName" max BROKER_NAME_BYTES_MAX,
    }
}
