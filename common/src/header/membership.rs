//! The members of groups.

headers! {
    /// Answer to `HEART_BEAT` 34; the request has no fields.
    pub struct HeartbeatResponse {
        /// The broker understands heartbeats without subscriptions.
        supports_v2: Option<bool> = "IS_SUPPORT_HEART_BEAT_V2",
        /// The broker wants the subscriptions next time.
        subscription_changed: Option<bool> = "IS_SUB_CHANGE",
    }

    /// `UNREGISTER_CLIENT` 35.
    pub struct UnregisterClientHeader<'a> {
        /// The client.
        client_id: &'a str = "clientID" max CLIENT_ID_BYTES_MAX,
        /// Producer group that it leaves.
        producer_group: Option<&'a str> = "producerGroup" max NAMED_GROUP_BYTES_MAX,
        /// Consumer group that it leaves.
        consumer_group: Option<&'a str> = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
    }

    /// `GET_CONSUMER_LIST_BY_GROUP` 38.
    pub struct GetConsumerListByGroupHeader<'a> {
        /// The group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
    }

    /// `NOTIFY_CONSUMER_IDS_CHANGED` 40, broker to consumer.
    pub struct NotifyConsumerIdsChangedHeader<'a> {
        /// The group.
        consumer_group: &'a str = "consumerGroup" max NAMED_GROUP_BYTES_MAX,
    }
}
