//! Request and response codes, by the names that RocketMQ's operators know.

/// What a request asks for.
pub mod request {
    /// Stores a message; header with long names.
    pub const SEND_MESSAGE: i32 = 10;
    /// Reads messages of a queue; may be held until there are some.
    pub const PULL_MESSAGE: i32 = 11;
    /// Finds messages by key or unique id.
    pub const QUERY_MESSAGE: i32 = 12;
    /// Historic, unused.
    pub const QUERY_BROKER_OFFSET: i32 = 13;
    /// Reads a group's offset in a queue.
    pub const QUERY_CONSUMER_OFFSET: i32 = 14;
    /// Stores a group's offset in a queue.
    pub const UPDATE_CONSUMER_OFFSET: i32 = 15;
    /// Creates or changes a topic.
    pub const UPDATE_AND_CREATE_TOPIC: i32 = 17;
    /// Creates or changes several topics.
    pub const UPDATE_AND_CREATE_TOPIC_LIST: i32 = 18;
    /// Lists all topics with their settings.
    pub const GET_ALL_TOPIC_CONFIG: i32 = 21;
    /// Changes settings of a running broker.
    pub const UPDATE_BROKER_CONFIG: i32 = 25;
    /// Reads the settings of a broker.
    pub const GET_BROKER_CONFIG: i32 = 26;
    /// Triggers the deletion of old files.
    pub const TRIGGER_DELETE_FILES: i32 = 27;
    /// Reads running figures of a broker.
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    /// Finds the offset of a point in time.
    pub const SEARCH_OFFSET_BY_TIMESTAMP: i32 = 29;
    /// Reads the next offset to be written.
    pub const GET_MAX_OFFSET: i32 = 30;
    /// Reads the first offset that is still kept.
    pub const GET_MIN_OFFSET: i32 = 31;
    /// Reads the store time of a queue's first message.
    pub const GET_EARLIEST_MSG_STORETIME: i32 = 32;
    /// Reads one message by its position.
    pub const VIEW_MESSAGE_BY_ID: i32 = 33;
    /// Registers producers and consumers of a connection.
    pub const HEART_BEAT: i32 = 34;
    /// Takes a producer or consumer group of a client away.
    pub const UNREGISTER_CLIENT: i32 = 35;
    /// Hands a message back for a later retry.
    pub const CONSUMER_SEND_MSG_BACK: i32 = 36;
    /// Settles a half message.
    pub const END_TRANSACTION: i32 = 37;
    /// Lists the client ids of a consumer group.
    pub const GET_CONSUMER_LIST_BY_GROUP: i32 = 38;
    /// Broker to producer: asks for the decision on a half message.
    pub const CHECK_TRANSACTION_STATE: i32 = 39;
    /// Broker to consumer: the members of a group have changed.
    pub const NOTIFY_CONSUMER_IDS_CHANGED: i32 = 40;
    /// Locks queues for orderly consumption.
    pub const LOCK_BATCH_MQ: i32 = 41;
    /// Gives queue locks back.
    pub const UNLOCK_BATCH_MQ: i32 = 42;
    /// Reads all consumer offsets.
    pub const GET_ALL_CONSUMER_OFFSET: i32 = 43;
    /// Reads the progress of the delay levels.
    pub const GET_ALL_DELAY_OFFSET: i32 = 45;
    /// Checks the filter expression of a consumer before it starts.
    pub const CHECK_CLIENT_CONFIG: i32 = 46;
    /// Historic, unused.
    pub const GET_CLIENT_CONFIG: i32 = 47;
    /// Reads the timer check point.
    pub const GET_TIMER_CHECK_POINT: i32 = 60;
    /// Nameserver: stores a configuration value.
    pub const PUT_KV_CONFIG: i32 = 100;
    /// Nameserver: reads a configuration value.
    pub const GET_KV_CONFIG: i32 = 101;
    /// Nameserver: deletes a configuration value.
    pub const DELETE_KV_CONFIG: i32 = 102;
    /// Broker to nameserver: here I am, these are my topics.
    pub const REGISTER_BROKER: i32 = 103;
    /// Broker to nameserver: I am going.
    pub const UNREGISTER_BROKER: i32 = 104;
    /// Nameserver: where a topic lives.
    pub const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
    /// Nameserver: all clusters and brokers.
    pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
    /// Creates or changes a consumer group.
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: i32 = 200;
    /// Lists all consumer groups with their settings.
    pub const GET_ALL_SUBSCRIPTIONGROUP_CONFIG: i32 = 201;
    /// Reads the offsets of a topic's queues.
    pub const GET_TOPIC_STATS_INFO: i32 = 202;
    /// Lists the connections of a consumer group.
    pub const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
    /// Lists the connections of a producer group.
    pub const GET_PRODUCER_CONNECTION_LIST: i32 = 204;
    /// Nameserver: takes the write permission off a broker's queues.
    pub const WIPE_WRITE_PERM_OF_BROKER: i32 = 205;
    /// Nameserver: all topics.
    pub const GET_ALL_TOPIC_LIST_FROM_NAMESERVER: i32 = 206;
    /// Deletes a consumer group.
    pub const DELETE_SUBSCRIPTIONGROUP: i32 = 207;
    /// Reads how far a group is behind.
    pub const GET_CONSUME_STATS: i32 = 208;
    /// Deletes a topic in a broker.
    pub const DELETE_TOPIC_IN_BROKER: i32 = 215;
    /// Nameserver: forgets a topic.
    pub const DELETE_TOPIC_IN_NAMESRV: i32 = 216;
    /// Nameserver: registers a topic by hand.
    pub const REGISTER_TOPIC_IN_NAMESRV: i32 = 217;
    /// Nameserver: all configuration values of a namespace.
    pub const GET_KVLIST_BY_NAMESPACE: i32 = 219;
    /// Broker to consumer: set your offsets.
    pub const RESET_CONSUMER_CLIENT_OFFSET: i32 = 220;
    /// Broker to consumer: tell your offsets.
    pub const GET_CONSUMER_STATUS_FROM_CLIENT: i32 = 221;
    /// Resets a group's offsets to a point in time.
    pub const INVOKE_BROKER_TO_RESET_OFFSET: i32 = 222;
    /// Reads the offsets that clients hold.
    pub const INVOKE_BROKER_TO_GET_CONSUMER_STATUS: i32 = 223;
    /// Nameserver: topics of a cluster.
    pub const GET_TOPICS_BY_CLUSTER: i32 = 224;
    /// Creates or changes several consumer groups.
    pub const UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST: i32 = 225;
    /// Lists the groups that consume a topic.
    pub const QUERY_TOPIC_CONSUME_BY_WHO: i32 = 300;
    /// Reads the time span of a group's unread messages.
    pub const QUERY_CONSUME_TIME_SPAN: i32 = 303;
    /// Nameserver: names that are no user topics.
    pub const GET_SYSTEM_TOPIC_LIST_FROM_NS: i32 = 304;
    /// Lists a broker's system topics.
    pub const GET_SYSTEM_TOPIC_LIST_FROM_BROKER: i32 = 305;
    /// Cleans expired consume queues.
    pub const CLEAN_EXPIRED_CONSUMEQUEUE: i32 = 306;
    /// Reads running figures of a consumer, relayed by the broker.
    pub const GET_CONSUMER_RUNNING_INFO: i32 = 307;
    /// Compares offsets of groups.
    pub const QUERY_CORRECTION_OFFSET: i32 = 308;
    /// Makes a consumer consume one message now, relayed by the broker.
    pub const CONSUME_MESSAGE_DIRECTLY: i32 = 309;
    /// Stores a message; header with one-letter names.
    pub const SEND_MESSAGE_V2: i32 = 310;
    /// Nameserver: unit topics.
    pub const GET_UNIT_TOPIC_LIST: i32 = 311;
    /// Nameserver: unit topics with subscriptions.
    pub const GET_HAS_UNIT_SUB_TOPIC_LIST: i32 = 312;
    /// Nameserver: other topics with unit subscriptions.
    pub const GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST: i32 = 313;
    /// Copies a group's offsets to another group.
    pub const CLONE_GROUP_OFFSET: i32 = 314;
    /// Reads figures over time.
    pub const VIEW_BROKER_STATS_DATA: i32 = 315;
    /// Cleans unused topics.
    pub const CLEAN_UNUSED_TOPIC: i32 = 316;
    /// Reads how far all groups are behind.
    pub const GET_BROKER_CONSUME_STATS: i32 = 317;
    /// Nameserver: changes settings.
    pub const UPDATE_NAMESRV_CONFIG: i32 = 318;
    /// Nameserver: reads settings.
    pub const GET_NAMESRV_CONFIG: i32 = 319;
    /// Stores several messages of one topic and queue.
    pub const SEND_BATCH_MESSAGE: i32 = 320;
    /// Reads entries of a queue's index.
    pub const QUERY_CONSUME_QUEUE: i32 = 321;
    /// Broker to nameserver: do you know my newest topics?
    pub const QUERY_DATA_VERSION: i32 = 322;
    /// Resumes the checks of a parked half message.
    pub const RESUME_CHECK_HALF_MESSAGE: i32 = 323;
    /// Sends the reply of a request-reply exchange; long names.
    pub const SEND_REPLY_MESSAGE: i32 = 324;
    /// Sends the reply of a request-reply exchange; one-letter names.
    pub const SEND_REPLY_MESSAGE_V2: i32 = 325;
    /// Broker to producer: the reply to your request.
    pub const PUSH_REPLY_MESSAGE_TO_CLIENT: i32 = 326;
    /// Nameserver: gives the write permission back to a broker's queues.
    pub const ADD_WRITE_PERM_OF_BROKER: i32 = 327;
    /// Lists all producers.
    pub const GET_ALL_PRODUCER_INFO: i32 = 328;
    /// Deletes expired log files.
    pub const DELETE_EXPIRED_COMMITLOG: i32 = 329;
    /// Lists the topics that a group consumes.
    pub const QUERY_TOPICS_BY_CONSUMER: i32 = 343;
    /// Reads a group's subscription to a topic.
    pub const QUERY_SUBSCRIPTION_BY_CONSUMER: i32 = 345;
    /// Reads one topic's settings.
    pub const GET_TOPIC_CONFIG: i32 = 351;
    /// Reads one consumer group's settings.
    pub const GET_SUBSCRIPTIONGROUP_CONFIG: i32 = 352;
    /// Forbids a group to read a topic, or allows it.
    pub const UPDATE_AND_GET_GROUP_FORBIDDEN: i32 = 353;
    /// A pull of a lite consumer; same header as [`PULL_MESSAGE`].
    pub const LITE_PULL_MESSAGE: i32 = 361;
    /// Takes a timer message back before it is due.
    pub const RECALL_MESSAGE: i32 = 370;
    /// Asks the broker which queues a client gets.
    pub const QUERY_ASSIGNMENT: i32 = 400;
    /// Switches a group between pull and pop.
    pub const SET_MESSAGE_REQUEST_MODE: i32 = 401;
    /// Reads all pull/pop switches.
    pub const GET_ALL_MESSAGE_REQUEST_MODE: i32 = 402;
    /// Creates or changes a static topic.
    pub const UPDATE_AND_CREATE_STATIC_TOPIC: i32 = 513;
    /// Nameserver: addresses of one broker group.
    pub const GET_BROKER_MEMBER_GROUP: i32 = 901;
    /// Broker to nameserver: still alive, nothing changed.
    pub const BROKER_HEARTBEAT: i32 = 904;
    /// Nameserver to broker: the smallest broker id of your group has changed.
    pub const NOTIFY_MIN_BROKER_ID_CHANGE: i32 = 905;
    /// Broker to broker: master and slave exchange addresses.
    pub const EXCHANGE_BROKER_HA_INFO: i32 = 906;
    /// Reads the state of replication.
    pub const GET_BROKER_HA_STATUS: i32 = 907;
    /// Changes a slave's replication position.
    pub const RESET_MASTER_FLUSH_OFFSET: i32 = 908;
    /// Reads the epochs of a broker.
    pub const GET_BROKER_EPOCH_CACHE: i32 = 1007;
    /// EscrowMQ's own, as all codes from 30,000 to 30,999: makes a running broker prepare a backup.
    pub const PREPARE_BACKUP: i32 = 30_001;
    /// The prepared backup is still being copied.
    pub const RENEW_BACKUP: i32 = 30_002;
    /// The prepared backup is copied, or given up.
    pub const RELEASE_BACKUP: i32 = 30_003;
    /// EscrowMQ's own: lists open and parked transactions.
    pub const LIST_TRANSACTIONS: i32 = 30_010;
    /// EscrowMQ's own: reads all that is known of one transaction.
    pub const GET_TRANSACTION: i32 = 30_011;
    /// EscrowMQ's own: counts open and parked transactions by producer group.
    pub const COUNT_TRANSACTIONS: i32 = 30_012;
    /// EscrowMQ's own: an operator commits, rolls back, resumes or parks a transaction.
    pub const DECIDE_TRANSACTION: i32 = 30_013;
    /// Takes messages and hides them for a while.
    pub const POP_MESSAGE: i32 = 200_050;
    /// Confirms a popped message.
    pub const ACK_MESSAGE: i32 = 200_051;
    /// Reads messages without taking them.
    pub const PEEK_MESSAGE: i32 = 200_052;
    /// Changes how long a popped message stays hidden.
    pub const CHANGE_MESSAGE_INVISIBLETIME: i32 = 200_053;
    /// Waits for messages without taking them.
    pub const NOTIFICATION: i32 = 200_054;
    /// Reads how many pops wait.
    pub const POLLING_INFO: i32 = 200_055;
    /// Pop roll back, between brokers.
    pub const POP_ROLLBACK: i32 = 200_056;
    /// Confirms several popped messages.
    pub const BATCH_ACK_MESSAGE: i32 = 200_151;
}

/// How a request ended.
pub mod response {
    /// Done; for pulls: messages found.
    pub const SUCCESS: i32 = 0;
    /// Something failed here.
    pub const SYSTEM_ERROR: i32 = 1;
    /// Too much to do; try again later.
    pub const SYSTEM_BUSY: i32 = 2;
    /// Nobody here knows this request.
    pub const REQUEST_CODE_NOT_SUPPORTED: i32 = 3;
    /// Historic, unused.
    pub const TRANSACTION_FAILED: i32 = 4;
    /// Stored, but not yet on disk.
    pub const FLUSH_DISK_TIMEOUT: i32 = 10;
    /// Stored, but no replica is there to confirm it.
    pub const SLAVE_NOT_AVAILABLE: i32 = 11;
    /// Stored, but no replica confirmed in time.
    pub const FLUSH_SLAVE_TIMEOUT: i32 = 12;
    /// The message breaks a rule: size, properties, batch.
    pub const MESSAGE_ILLEGAL: i32 = 13;
    /// The store takes no writes.
    pub const SERVICE_NOT_AVAILABLE: i32 = 14;
    /// Historic, unused.
    pub const VERSION_NOT_SUPPORTED: i32 = 15;
    /// Broker, topic or group does not allow this.
    pub const NO_PERMISSION: i32 = 16;
    /// No such topic, and none may be created.
    pub const TOPIC_NOT_EXIST: i32 = 17;
    /// Historic, unused.
    pub const TOPIC_EXIST_ALREADY: i32 = 18;
    /// No new message yet.
    pub const PULL_NOT_FOUND: i32 = 19;
    /// Nothing in this range matched; go on at the next offset.
    pub const PULL_RETRY_IMMEDIATELY: i32 = 20;
    /// The offset lies outside the queue.
    pub const PULL_OFFSET_MOVED: i32 = 21;
    /// Nothing is stored under this name or key.
    pub const QUERY_NOT_FOUND: i32 = 22;
    /// The filter expression does not parse.
    pub const SUBSCRIPTION_PARSE_FAILED: i32 = 23;
    /// The group or its subscription is unknown here.
    pub const SUBSCRIPTION_NOT_EXIST: i32 = 24;
    /// The subscription known here is older than the client's.
    pub const SUBSCRIPTION_NOT_LATEST: i32 = 25;
    /// No such consumer group.
    pub const SUBSCRIPTION_GROUP_NOT_EXIST: i32 = 26;
    /// The filter is not known here yet.
    pub const FILTER_DATA_NOT_EXIST: i32 = 27;
    /// The filter known here is older than the client's.
    pub const FILTER_DATA_NOT_LATEST: i32 = 28;
    /// A value of the request is outside its range.
    pub const INVALID_PARAMETER: i32 = 29;
    /// Historic, unused.
    pub const TRANSACTION_SHOULD_COMMIT: i32 = 200;
    /// Historic, unused.
    pub const TRANSACTION_SHOULD_ROLLBACK: i32 = 201;
    /// Historic, unused.
    pub const TRANSACTION_STATE_UNKNOW: i32 = 202;
    /// Historic, unused.
    pub const TRANSACTION_STATE_GROUP_WRONG: i32 = 203;
    /// Unit routing: no buyer id.
    pub const NO_BUYER_ID: i32 = 204;
    /// Unit routing: another unit.
    pub const NOT_IN_CURRENT_UNIT: i32 = 205;
    /// No consumer of the group, or not this client, is connected.
    pub const CONSUMER_NOT_ONLINE: i32 = 206;
    /// The consumer did not answer the relayed request in time.
    pub const CONSUME_MSG_TIMEOUT: i32 = 207;
    /// The offset of an acknowledgement lies outside the queue.
    pub const NO_MESSAGE: i32 = 208;
    /// Too many pops wait already.
    pub const POLLING_FULL: i32 = 209;
    /// A pop found nothing in its time.
    pub const POLLING_TIMEOUT: i32 = 210;
    /// No such broker.
    pub const BROKER_NOT_EXIST: i32 = 211;
    /// The broker has not caught up yet.
    pub const BROKER_DISPATCH_NOT_COMPLETE: i32 = 212;
    /// Not for broadcasting groups.
    pub const BROADCAST_CONSUMPTION: i32 = 213;
    /// A limit is reached; come back after a moment.
    pub const FLOW_CONTROL: i32 = 215;
    /// Static topics: the queue is not here.
    pub const NOT_LEADER_FOR_QUEUE: i32 = 501;
    /// Not allowed in this state, such as the opposite of a decision that was made.
    pub const ILLEGAL_OPERATION: i32 = 604;
    /// Shutting down; connect anew and repeat.
    pub const GO_AWAY: i32 = 1500;
    /// Authentication: no such user.
    pub const USER_NOT_EXIST: i32 = 3001;
    /// Authorisation: no such policy.
    pub const POLICY_NOT_EXIST: i32 = 3002;
    /// Broker-internal call: unknown failure.
    pub const RPC_UNKNOWN: i32 = -1000;
    /// Broker-internal call: the address is unknown.
    pub const RPC_ADDR_IS_NULL: i32 = -1002;
    /// Broker-internal call: not sent.
    pub const RPC_SEND_TO_CHANNEL_FAILED: i32 = -1004;
    /// Broker-internal call: no answer in time.
    pub const RPC_TIME_OUT: i32 = -1006;
}
