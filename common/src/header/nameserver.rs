//! Requests to a nameserver.

headers! {
    /// `GET_ROUTEINFO_BY_TOPIC` 105.
    pub struct GetRouteInfoHeader<'a> {
        /// Topic. Absent is answered like an unknown one.
        topic: Option<&'a str> = "topic",
        /// The client wants quoted integer keys whatever its version.
        accept_standard_json_only: bool = "acceptStandardJsonOnly" or false,
        /// Only brokers of this zone, with the mode below.
        zone_name: Option<&'a str> = "__ZONE_NAME",
        /// Whether the zone counts.
        zone_mode: bool = "__ZONE_MODE" or false,
    }

    /// `REGISTER_BROKER` 103.
    pub struct RegisterBrokerHeader<'a> {
        /// Name of the broker group.
        broker_name: &'a str = "brokerName",
        /// Address for clients.
        broker_addr: &'a str = "brokerAddr",
        /// Cluster.
        cluster_name: &'a str = "clusterName",
        /// Address for replicas.
        ha_server_addr: &'a str = "haServerAddr" or "",
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
        zone_name: Option<&'a str> = "__ZONE_NAME",
    }

    /// Answer to 103.
    pub struct RegisterBrokerResponse<'a> {
        /// Replication address of the master, for others.
        ha_server_addr: Option<&'a str> = "haServerAddr",
        /// Address of the master, for others.
        master_addr: Option<&'a str> = "masterAddr",
    }

    /// `UNREGISTER_BROKER` 104 and `QUERY_DATA_VERSION` 322.
    pub struct BrokerIdentityHeader<'a> {
        /// Name of the broker group.
        broker_name: &'a str = "brokerName",
        /// Address for clients.
        broker_addr: &'a str = "brokerAddr",
        /// Cluster.
        cluster_name: &'a str = "clusterName",
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
        cluster_name: &'a str = "clusterName",
        /// Address for clients.
        broker_addr: &'a str = "brokerAddr",
        /// Name of the broker group.
        broker_name: &'a str = "brokerName",
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
        cluster_name: &'a str = "clusterName",
        /// Name of the broker group.
        broker_name: &'a str = "brokerName",
    }

    /// `NOTIFY_MIN_BROKER_ID_CHANGE` 905, nameserver to broker.
    pub struct NotifyMinBrokerIdChangeHeader<'a> {
        /// The smallest id now.
        min_broker_id: Option<i64> = "minBrokerId",
        /// Name of the broker group.
        broker_name: Option<&'a str> = "brokerName",
        /// Address of the smallest id.
        min_broker_addr: Option<&'a str> = "minBrokerAddr",
        /// Who went.
        offline_broker_addr: Option<&'a str> = "offlineBrokerAddr",
        /// Replication address of the smallest id.
        ha_broker_addr: Option<&'a str> = "haBrokerAddr",
    }

    /// `GET_TOPICS_BY_CLUSTER` 224.
    pub struct GetTopicsByClusterHeader<'a> {
        /// Cluster.
        cluster: &'a str = "cluster",
    }

    /// `PUT_KV_CONFIG` 100.
    pub struct PutKvConfigHeader<'a> {
        /// Namespace.
        namespace: &'a str = "namespace",
        /// Key.
        key: &'a str = "key",
        /// Value.
        value: &'a str = "value",
    }

    /// `GET_KV_CONFIG` 101 and `DELETE_KV_CONFIG` 102.
    pub struct KvKeyHeader<'a> {
        /// Namespace.
        namespace: &'a str = "namespace",
        /// Key.
        key: &'a str = "key",
    }

    /// Answer to 101.
    pub struct GetKvConfigResponse<'a> {
        /// Value.
        value: Option<&'a str> = "value",
    }

    /// `GET_KVLIST_BY_NAMESPACE` 219.
    pub struct GetKvListByNamespaceHeader<'a> {
        /// Namespace.
        namespace: &'a str = "namespace",
    }

    /// `WIPE_WRITE_PERM_OF_BROKER` 205 and `ADD_WRITE_PERM_OF_BROKER` 327.
    pub struct BrokerNameHeader<'a> {
        /// Name of the broker group.
        broker_name: &'a str = "brokerName",
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
        topic: &'a str = "topic",
        /// Only in this cluster.
        cluster_name: Option<&'a str> = "clusterName",
    }
}
