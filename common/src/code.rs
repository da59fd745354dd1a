//! Request and response codes, by the names that RocketMQ's operators know.
//!
//! One table each: it makes the constants, and the list of all that tests and tools go through.

/// Makes a module of constants, and `ALL` of them by name.
macro_rules! codes {
    ($(#[$module_doc:meta])* $module:ident { $($(#[$doc:meta])* $name:ident = $code:literal;)* }) => {
        $(#[$module_doc])*
        pub mod $module {
            $($(#[$doc])* pub const $name: i32 = $code;)*

            /// All of them with their names, as they are declared.
            pub const ALL: &[(&str, i32)] = &[$((stringify!($name), $name)),*];

            /// The name of a code, if it is one of these.
            pub fn name(code: i32) -> Option<&'static str> {
                ALL.iter().find(|(_, known)| *known == code).map(|(name, _)| *name)
            }
        }
    };
}

codes! {
    /// Request codes: the work that a request asks for.
    request {
        /// Stores a message; header with long names.
        SEND_MESSAGE = 10;
        /// Reads messages of a queue; may be held until there are some.
        PULL_MESSAGE = 11;
        /// Finds messages by key or unique id.
        QUERY_MESSAGE = 12;
        /// Historic, unused.
        QUERY_BROKER_OFFSET = 13;
        /// Reads a group's offset in a queue.
        QUERY_CONSUMER_OFFSET = 14;
        /// Stores a group's offset in a queue.
        UPDATE_CONSUMER_OFFSET = 15;
        /// Creates or changes a topic.
        UPDATE_AND_CREATE_TOPIC = 17;
        /// Creates or changes several topics.
        UPDATE_AND_CREATE_TOPIC_LIST = 18;
        /// Lists all topics with their settings.
        GET_ALL_TOPIC_CONFIG = 21;
        /// Changes settings of a running broker.
        UPDATE_BROKER_CONFIG = 25;
        /// Reads the settings of a broker.
        GET_BROKER_CONFIG = 26;
        /// Triggers the deletion of old files.
        TRIGGER_DELETE_FILES = 27;
        /// Reads running figures of a broker.
        GET_BROKER_RUNTIME_INFO = 28;
        /// Finds the offset of a point in time.
        SEARCH_OFFSET_BY_TIMESTAMP = 29;
        /// Reads the next offset to be written.
        GET_MAX_OFFSET = 30;
        /// Reads the first offset that is still kept.
        GET_MIN_OFFSET = 31;
        /// Reads the store time of a queue's first message.
        GET_EARLIEST_MSG_STORETIME = 32;
        /// Reads one message by its position.
        VIEW_MESSAGE_BY_ID = 33;
        /// Registers producers and consumers of a connection.
        HEART_BEAT = 34;
        /// Takes a producer or consumer group of a client away.
        UNREGISTER_CLIENT = 35;
        /// Hands a message back for a later retry.
        CONSUMER_SEND_MSG_BACK = 36;
        /// Settles a half message.
        END_TRANSACTION = 37;
        /// Lists the client ids of a consumer group.
        GET_CONSUMER_LIST_BY_GROUP = 38;
        /// Broker to producer: asks for the decision on a half message.
        CHECK_TRANSACTION_STATE = 39;
        /// Broker to consumer: the members of a group have changed.
        NOTIFY_CONSUMER_IDS_CHANGED = 40;
        /// Locks queues for orderly consumption.
        LOCK_BATCH_MQ = 41;
        /// Gives queue locks back.
        UNLOCK_BATCH_MQ = 42;
        /// Reads all consumer offsets.
        GET_ALL_CONSUMER_OFFSET = 43;
        /// Reads the progress of the delay levels.
        GET_ALL_DELAY_OFFSET = 45;
        /// Checks the filter expression of a consumer before it starts.
        CHECK_CLIENT_CONFIG = 46;
        /// Historic, unused.
        GET_CLIENT_CONFIG = 47;
        /// Reads the timer check point.
        GET_TIMER_CHECK_POINT = 60;
        /// Nameserver: stores a configuration value.
        PUT_KV_CONFIG = 100;
        /// Nameserver: reads a configuration value.
        GET_KV_CONFIG = 101;
        /// Nameserver: deletes a configuration value.
        DELETE_KV_CONFIG = 102;
        /// Broker to nameserver: here I am, these are my topics.
        REGISTER_BROKER = 103;
        /// Broker to nameserver: I am going.
        UNREGISTER_BROKER = 104;
        /// Nameserver: where a topic lives.
        GET_ROUTEINFO_BY_TOPIC = 105;
        /// Nameserver: all clusters and brokers.
        GET_BROKER_CLUSTER_INFO = 106;
        /// Creates or changes a consumer group.
        UPDATE_AND_CREATE_SUBSCRIPTIONGROUP = 200;
        /// Lists all consumer groups with their settings.
        GET_ALL_SUBSCRIPTIONGROUP_CONFIG = 201;
        /// Reads the offsets of a topic's queues.
        GET_TOPIC_STATS_INFO = 202;
        /// Lists the connections of a consumer group.
        GET_CONSUMER_CONNECTION_LIST = 203;
        /// Lists the connections of a producer group.
        GET_PRODUCER_CONNECTION_LIST = 204;
        /// Nameserver: takes the write permission off a broker's queues.
        WIPE_WRITE_PERM_OF_BROKER = 205;
        /// Nameserver: all topics.
        GET_ALL_TOPIC_LIST_FROM_NAMESERVER = 206;
        /// Deletes a consumer group.
        DELETE_SUBSCRIPTIONGROUP = 207;
        /// Reads a group's lag.
        GET_CONSUME_STATS = 208;
        /// Deletes a topic in a broker.
        DELETE_TOPIC_IN_BROKER = 215;
        /// Nameserver: forgets a topic.
        DELETE_TOPIC_IN_NAMESRV = 216;
        /// Nameserver: registers a topic by hand.
        REGISTER_TOPIC_IN_NAMESRV = 217;
        /// Nameserver: all configuration values of a namespace.
        GET_KVLIST_BY_NAMESPACE = 219;
        /// Broker to consumer: set your offsets.
        RESET_CONSUMER_CLIENT_OFFSET = 220;
        /// Broker to consumer: tell your offsets.
        GET_CONSUMER_STATUS_FROM_CLIENT = 221;
        /// Resets a group's offsets to a point in time.
        INVOKE_BROKER_TO_RESET_OFFSET = 222;
        /// Reads the offsets that clients hold.
        INVOKE_BROKER_TO_GET_CONSUMER_STATUS = 223;
        /// Nameserver: topics of a cluster.
        GET_TOPICS_BY_CLUSTER = 224;
        /// Creates or changes several consumer groups.
        UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST = 225;
        /// Lists the groups that consume a topic.
        QUERY_TOPIC_CONSUME_BY_WHO = 300;
        /// Reads the time span of a group's unread messages.
        QUERY_CONSUME_TIME_SPAN = 303;
        /// Nameserver: names that are no user topics.
        GET_SYSTEM_TOPIC_LIST_FROM_NS = 304;
        /// Lists a broker's system topics.
        GET_SYSTEM_TOPIC_LIST_FROM_BROKER = 305;
        /// Cleans expired consume queues.
        CLEAN_EXPIRED_CONSUMEQUEUE = 306;
        /// Reads running figures of a consumer, relayed by the broker.
        GET_CONSUMER_RUNNING_INFO = 307;
        /// Compares offsets of groups.
        QUERY_CORRECTION_OFFSET = 308;
        /// Makes a consumer consume one message now, relayed by the broker.
        CONSUME_MESSAGE_DIRECTLY = 309;
        /// Stores a message; header with one-letter names.
        SEND_MESSAGE_V2 = 310;
        /// Nameserver: unit topics.
        GET_UNIT_TOPIC_LIST = 311;
        /// Nameserver: unit topics with subscriptions.
        GET_HAS_UNIT_SUB_TOPIC_LIST = 312;
        /// Nameserver: other topics with unit subscriptions.
        GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST = 313;
        /// Copies a group's offsets to another group.
        CLONE_GROUP_OFFSET = 314;
        /// Reads figures over time.
        VIEW_BROKER_STATS_DATA = 315;
        /// Cleans unused topics.
        CLEAN_UNUSED_TOPIC = 316;
        /// Reads the lag of all groups.
        GET_BROKER_CONSUME_STATS = 317;
        /// Nameserver: changes settings.
        UPDATE_NAMESRV_CONFIG = 318;
        /// Nameserver: reads settings.
        GET_NAMESRV_CONFIG = 319;
        /// Stores several messages of one topic and queue.
        SEND_BATCH_MESSAGE = 320;
        /// Reads entries of a queue's index.
        QUERY_CONSUME_QUEUE = 321;
        /// Broker to nameserver: do you know my newest topics?
        QUERY_DATA_VERSION = 322;
        /// Resumes the checks of a parked half message.
        RESUME_CHECK_HALF_MESSAGE = 323;
        /// Sends the reply of a request-reply exchange; long names.
        SEND_REPLY_MESSAGE = 324;
        /// Sends the reply of a request-reply exchange; one-letter names.
        SEND_REPLY_MESSAGE_V2 = 325;
        /// Broker to producer: the reply to your request.
        PUSH_REPLY_MESSAGE_TO_CLIENT = 326;
        /// Nameserver: gives the write permission back to a broker's queues.
        ADD_WRITE_PERM_OF_BROKER = 327;
        /// Lists all producers.
        GET_ALL_PRODUCER_INFO = 328;
        /// Deletes expired log files.
        DELETE_EXPIRED_COMMITLOG = 329;
        /// Lists the topics that a group consumes.
        QUERY_TOPICS_BY_CONSUMER = 343;
        /// Reads a group's subscription to a topic.
        QUERY_SUBSCRIPTION_BY_CONSUMER = 345;
        /// Reads one topic's settings.
        GET_TOPIC_CONFIG = 351;
        /// Reads one consumer group's settings.
        GET_SUBSCRIPTIONGROUP_CONFIG = 352;
        /// Forbids a group to read a topic, or allows it.
        UPDATE_AND_GET_GROUP_FORBIDDEN = 353;
        /// A pull of a lite consumer; same header as [`PULL_MESSAGE`].
        LITE_PULL_MESSAGE = 361;
        /// Takes a timer message back before it is due.
        RECALL_MESSAGE = 370;
        /// Asks the broker which queues a client gets.
        QUERY_ASSIGNMENT = 400;
        /// Switches a group between pull and pop.
        SET_MESSAGE_REQUEST_MODE = 401;
        /// Reads all pull/pop switches.
        GET_ALL_MESSAGE_REQUEST_MODE = 402;
        /// Creates or changes a static topic.
        UPDATE_AND_CREATE_STATIC_TOPIC = 513;
        /// Nameserver: addresses of one broker group.
        GET_BROKER_MEMBER_GROUP = 901;
        /// Broker to nameserver: still alive, nothing changed.
        BROKER_HEARTBEAT = 904;
        /// Nameserver to broker: the smallest broker id of your group has changed.
        NOTIFY_MIN_BROKER_ID_CHANGE = 905;
        /// Broker to broker: master and slave exchange addresses.
        EXCHANGE_BROKER_HA_INFO = 906;
        /// Reads the state of replication.
        GET_BROKER_HA_STATUS = 907;
        /// Changes a slave's replication position.
        RESET_MASTER_FLUSH_OFFSET = 908;
        /// Reads the epochs of a broker.
        GET_BROKER_EPOCH_CACHE = 1007;
        /// EscrowMQ's own, as all codes from 30,000 to 30,999: makes a running broker prepare a backup.
        PREPARE_BACKUP = 30_001;
        /// The prepared backup is still being copied.
        RENEW_BACKUP = 30_002;
        /// The prepared backup is copied, or given up.
        RELEASE_BACKUP = 30_003;
        /// EscrowMQ's own: lists open and parked transactions.
        LIST_TRANSACTIONS = 30_010;
        /// EscrowMQ's own: reads all that is known of one transaction.
        GET_TRANSACTION = 30_011;
        /// EscrowMQ's own: counts open and parked transactions by producer group.
        COUNT_TRANSACTIONS = 30_012;
        /// EscrowMQ's own: an operator commits, rolls back, resumes or parks a transaction.
        DECIDE_TRANSACTION = 30_013;
        /// EscrowMQ's own: messages that cannot be read are given up, so that their queues go on.
        GIVE_UP_LOG = 30_020;
        /// EscrowMQ's own: reads the members of a broker group.
        GET_MEMBERS = 30_030;
        /// EscrowMQ's own: takes an empty member into the group, without a vote.
        ADD_MEMBER = 30_031;
        /// EscrowMQ's own: gives a member a vote.
        PROMOTE_MEMBER = 30_032;
        /// EscrowMQ's own: lets a member go.
        REMOVE_MEMBER = 30_033;
        /// EscrowMQ's own: hands the leadership to another member.
        TRANSFER_LEADER = 30_034;
        /// Takes messages and hides them for a while.
        POP_MESSAGE = 200_050;
        /// Confirms a popped message.
        ACK_MESSAGE = 200_051;
        /// Reads messages without taking them.
        PEEK_MESSAGE = 200_052;
        /// Changes how long a popped message stays hidden.
        CHANGE_MESSAGE_INVISIBLETIME = 200_053;
        /// Waits for messages without taking them.
        NOTIFICATION = 200_054;
        /// Reads how many pops wait.
        POLLING_INFO = 200_055;
        /// Pop roll back, between brokers.
        POP_ROLLBACK = 200_056;
        /// Confirms several popped messages.
        BATCH_ACK_MESSAGE = 200_151;
    }
}

codes! {
    /// How a request ended.
    response {
        /// Done; for pulls: messages found.
        SUCCESS = 0;
        /// Something failed here.
        SYSTEM_ERROR = 1;
        /// Too much to do; try again later.
        SYSTEM_BUSY = 2;
        /// Nobody here knows this request.
        REQUEST_CODE_NOT_SUPPORTED = 3;
        /// Historic, unused.
        TRANSACTION_FAILED = 4;
        /// Stored, but not yet on disk.
        FLUSH_DISK_TIMEOUT = 10;
        /// Stored, but no replica is there to confirm it.
        SLAVE_NOT_AVAILABLE = 11;
        /// Stored, but no replica confirmed in time.
        FLUSH_SLAVE_TIMEOUT = 12;
        /// The message breaks a rule: size, properties, batch.
        MESSAGE_ILLEGAL = 13;
        /// The store takes no writes.
        SERVICE_NOT_AVAILABLE = 14;
        /// Historic, unused.
        VERSION_NOT_SUPPORTED = 15;
        /// Broker, topic or group does not allow this.
        NO_PERMISSION = 16;
        /// No such topic, and none may be created.
        TOPIC_NOT_EXIST = 17;
        /// Historic, unused.
        TOPIC_EXIST_ALREADY = 18;
        /// No new message yet.
        PULL_NOT_FOUND = 19;
        /// Nothing in this range matched; go on at the next offset.
        PULL_RETRY_IMMEDIATELY = 20;
        /// The offset lies outside the queue.
        PULL_OFFSET_MOVED = 21;
        /// Nothing is stored under this name or key.
        QUERY_NOT_FOUND = 22;
        /// The filter expression does not parse.
        SUBSCRIPTION_PARSE_FAILED = 23;
        /// The group or its subscription is unknown here.
        SUBSCRIPTION_NOT_EXIST = 24;
        /// The subscription known here is older than the client's.
        SUBSCRIPTION_NOT_LATEST = 25;
        /// No such consumer group.
        SUBSCRIPTION_GROUP_NOT_EXIST = 26;
        /// The filter is not known here yet.
        FILTER_DATA_NOT_EXIST = 27;
        /// The filter known here is older than the client's.
        FILTER_DATA_NOT_LATEST = 28;
        /// A value of the request is outside its range.
        INVALID_PARAMETER = 29;
        /// Historic, unused.
        TRANSACTION_SHOULD_COMMIT = 200;
        /// Historic, unused.
        TRANSACTION_SHOULD_ROLLBACK = 201;
        /// Historic, unused.
        TRANSACTION_STATE_UNKNOW = 202;
        /// Historic, unused.
        TRANSACTION_STATE_GROUP_WRONG = 203;
        /// Unit routing: no buyer id.
        NO_BUYER_ID = 204;
        /// Unit routing: another unit.
        NOT_IN_CURRENT_UNIT = 205;
        /// No consumer of the group, or not this client, is connected.
        CONSUMER_NOT_ONLINE = 206;
        /// The consumer did not answer the relayed request in time.
        CONSUME_MSG_TIMEOUT = 207;
        /// The offset of an acknowledgement lies outside the queue.
        NO_MESSAGE = 208;
        /// Too many pops wait already.
        POLLING_FULL = 209;
        /// A pop found nothing in its time.
        POLLING_TIMEOUT = 210;
        /// No such broker.
        BROKER_NOT_EXIST = 211;
        /// The broker has not caught up yet.
        BROKER_DISPATCH_NOT_COMPLETE = 212;
        /// Not for broadcasting groups.
        BROADCAST_CONSUMPTION = 213;
        /// A limit is reached; come back after a moment.
        FLOW_CONTROL = 215;
        /// Static topics: the queue is not here.
        NOT_LEADER_FOR_QUEUE = 501;
        /// Not allowed in this state, such as the opposite of a decision that was made.
        ILLEGAL_OPERATION = 604;
        /// Shutting down; connect again and repeat.
        GO_AWAY = 1500;
        /// Authentication: no such user.
        USER_NOT_EXIST = 3001;
        /// Authorisation: no such policy.
        POLICY_NOT_EXIST = 3002;
        /// Broker-internal call: unknown failure.
        RPC_UNKNOWN = -1000;
        /// Broker-internal call: the address is unknown.
        RPC_ADDR_IS_NULL = -1002;
        /// Broker-internal call: not sent.
        RPC_SEND_TO_CHANNEL_FAILED = -1004;
        /// Broker-internal call: no answer in time.
        RPC_TIME_OUT = -1006;
    }
}

/// Beginnings of remarks by which clients and tools tell what a code leaves open. Those of refused decisions are RocketMQ's, and
/// final.
pub mod remark {
    /// The command may be carried out or not: the store failed, or the leader of the group changed, meanwhile.
    pub const OUTCOME_UNKNOWN: &str = "the outcome is unknown";
    /// There is no such half: it never was, or it was settled so long ago that the broker has forgotten it.
    pub const NO_SUCH_HALF: &str = "Find prepared transaction message failed";
    /// The half is another group's.
    pub const WRONG_GROUP: &str = "The producer group wrong";
    /// The counter is another half's.
    pub const WRONG_COUNTER: &str = "The transaction state table offset wrong";
    /// The position is another half's.
    pub const WRONG_POSITION: &str = "The commit log offset wrong";
}

/// Words in fields of EscrowMQ's own.
pub mod word {
    /// The decision that stands: consumers get the messages.
    pub const COMMIT: &str = "commit";
    /// The decision that stands: nobody gets them.
    pub const ROLLBACK: &str = "rollback";
    /// A transaction that is checked.
    pub const OPEN: &str = "open";
    /// A transaction that is checked no more.
    pub const PARKED: &str = "parked";
    /// An acknowledged message is on the device.
    pub const FLUSHED: &str = "flushed";
    /// An acknowledged message is in the operating system.
    pub const APPENDED: &str = "appended";
    /// An acknowledged message is on the devices of a majority of the group's members.
    pub const REPLICATED: &str = "replicated";
}

#[cfg(test)]
mod tests {
    use super::{request, response};

    #[test]
    fn no_number_is_given_twice_and_each_has_its_name() {
        for all in [request::ALL, response::ALL] {
            let mut numbers: Vec<i32> = all.iter().map(|(_, code)| *code).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), all.len());
        }
        assert!(request::ALL.contains(&("END_TRANSACTION", request::END_TRANSACTION)));
        assert_eq!(request::name(10), Some("SEND_MESSAGE"));
        assert_eq!(response::name(response::MESSAGE_ILLEGAL), Some("MESSAGE_ILLEGAL"));
        assert_eq!(request::name(-1), None);
    }
}
