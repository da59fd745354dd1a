//! The keys, one line each.

use std::path::PathBuf;

use escrowmq_common::settings;
use escrowmq_common::settings::values::{boolean, list, millis, optional, path, plain, seconds};

use super::Config;

/// One key of the properties file.
pub type Key = settings::Key<Config>;

/// Whether a tool may change a key of a running process. Nobody knows whose tool it is, so it may change only keys that
/// harm nobody else within the range that is given.
#[derive(Debug, Clone, Copy)]
pub(super) enum ByTool {
    /// Any value that the key takes.
    Any,
    /// Numbers of this range.
    Within(u64, u64),
    /// From a tool on the same machine only: other values than the present one can take routes away.
    LocalOnly,
    /// The file and a restart change it.
    Never,
}

/// Keys that no tool may change, whatever the configuration says: where files are, and this list itself.
pub(super) const NEVER_BY_TOOLS: [&str; 3] = ["configBlackList", "configStorePath", "kvConfigPath"];

macro_rules! keys {
    ($($name:literal, $at_once:literal, $by_tool:expr, $field:ident as $notation:ident, $about:literal;)+) => {
        /// All keys.
        pub const KEYS: &[Key] = &[$(
            Key {
                name: $name,
                about: $about,
                at_once: $at_once,
                get: |config| $notation::show(&config.$field),
                set: |config, text| {
                    config.$field = $notation::read(text)?;
                    Ok(())
                },
            },
        )+];

        /// Whether tools may change them, in the same order.
        pub(super) const BY_TOOL: &[ByTool] = &[$($by_tool),+];
    };
}

use ByTool::{Any, LocalOnly, Never, Within};

#[rustfmt::skip] // a table
keys! {
    "listenPort", false, Never, listen_port as plain, "TCP port, 0 for any (default 9876)";
    "bindAddress", false, Never, bind_address as plain, "local address to listen at (default 0.0.0.0)";
    "kvConfigPath", false, Never, kv_config_path as file, "file of the KV configuration (default ~/.escrowmq/nameserver/kvConfig.json)";
    "configStorePath", false, Never, config_store_path as path, "file that keeps changes made by tools (default: the one given with -c)";
    "orderMessageEnable", true, Any, order_message_enable as boolean, "route answers carry the queue order of ordered topics (default false)";
    "returnOrderTopicConfigToBroker", true, Any, return_order_topic_config_to_broker as boolean, "registrations are answered with all queue orders (default true)";
    "supportActingMaster", true, Any, support_acting_master as boolean, "a group without master shows its smallest slave, read only (default false)";
    "notifyMinBrokerIdChanged", true, Any, notify_min_broker_id_changed as boolean, "brokers hear when the smallest id of their group changes (default false)";
    "deleteTopicWithBrokerRegistration", true, LocalOnly, delete_topic_with_broker_registration as boolean, "a full registration removes topics it does not name (default false)";
    "enableAllTopicList", true, Any, enable_all_topic_list as boolean, "the list of all topics may be asked for (default true)";
    "enableTopicList", true, Any, enable_topic_list as boolean, "lists of topics by cluster or unit may be asked for (default true)";
    "needWaitForService", true, LocalOnly, need_wait_for_service as boolean, "lookups fail for a while after the start (default false)";
    "waitSecondsForService", true, Within(0, 300), wait_seconds_for_service as seconds, "how long, in seconds (default 45)";
    "scanNotActiveBrokerInterval", true, Within(100, 60_000), scan_not_active_broker_interval as millis, "how often to look for silent brokers, in ms (default 5000)";
    "serverChannelMaxIdleTimeSeconds", false, Within(30, 86_400), server_channel_max_idle_time_seconds as seconds, "a connection without traffic for this long is closed, in seconds (default 120)";
    "maxConnections", false, Never, max_connections as plain, "connections at a time (default 65535)";
    "maxConnectionsPerAddress", false, Never, max_connections_per_address as plain, "connections at a time from one address; a load balancer is one unless proxyProtocolTrusted names it (default 50000)";
    "connectionBytesMax", false, Never, connection_bytes_max as plain, "bytes of unfinished requests and unsent answers of all connections, at least 67108864 (default 1073741824)";
    "routeBytesMax", true, LocalOnly, route_bytes_max as plain, "bytes that all topics may take in memory, by estimate (default 1073741824, some 3 million topics)";
    "brokersMax", true, LocalOnly, brokers_max as plain, "brokers that may be registered (default 10000)";
    "kvBytesMax", false, Never, kv_bytes_max as plain, "bytes that the KV configuration may take (default 16777216)";
    "metricsPort", false, Never, metrics_port as optional, "TCP port of metrics, readiness and liveness over HTTP, 0 for none (default: six above listenPort, so 9882; without it where that is taken, none where listenPort is 0)";
    "metricsBindAddress", false, Never, metrics_bind_address as plain, "local address of that port (default 127.0.0.1)";
    "proxyProtocolTrusted", false, Never, proxy_protocol_trusted as plain, "load balancers whose PROXY header names the client, addresses and networks with ';' between them (default none)";
    "logLevel", true, LocalOnly, log_level as plain, "what is logged: off, error, warn, info, debug, trace, or a filter of levels by module; --log-level and ESCROWMQ_LOG set it too (default info)";
    "auditLogFile", false, Never, audit_log_file as path, "file that gets a line for each act of an administrator, as a JSON object, beside the log (default none)";
    "configBlackList", false, Never, config_black_list as list, "further keys that tools must not change, with ';' between them (default none)";
}

/// Keys of RocketMQ's nameserver that mean nothing here: thread pools, Netty, the embedded controller.
pub(super) const MEANINGLESS: &[&str] = &[
    "rocketmqHome",
    "productEnvName",
    "clusterTest",
    "clientRequestThreadPoolNums",
    "defaultThreadPoolNums",
    "clientRequestThreadPoolQueueCapacity",
    "defaultThreadPoolQueueCapacity",
    "unRegisterBrokerQueueCapacity",
    "enableControllerInNamesrv",
    "serverWorkerThreads",
    "serverCallbackExecutorThreads",
    "serverSelectorThreads",
    "serverOnewaySemaphoreValue",
    "serverAsyncSemaphoreValue",
    "serverSocketSndBufSize",
    "serverSocketRcvBufSize",
    "serverSocketBacklog",
    "serverNettyWorkerGroupEnable",
    "serverPooledByteBufAllocatorEnable",
    "writeBufferHighWaterMark",
    "writeBufferLowWaterMark",
    "useEpollNativeSelector",
    "enableShutdownGracefully",
    "shutdownWaitTimeSeconds",
    "clientWorkerThreads",
    "clientCallbackExecutorThreads",
    "clientOnewaySemaphoreValue",
    "clientAsyncSemaphoreValue",
    "clientSocketSndBufSize",
    "clientSocketRcvBufSize",
    "clientPooledByteBufAllocatorEnable",
    "clientCloseSocketIfTimeout",
    "connectTimeoutMillis",
    "channelNotActiveInterval",
    "clientChannelMaxIdleTimeSeconds",
    "namesrvAddr",
    "controllerType",
    "controllerDLegerGroup",
    "controllerDLegerPeers",
    "controllerDLegerSelfId",
    "controllerStorePath",
    "enableElectUncleanMaster",
    "isProcessReadEvent",
    "notifyBrokerRoleChanged",
    "scanInactiveMasterInterval",
];

/// A path that is checked later; nothing is one too.
mod file {
    use super::PathBuf;

    #[expect(clippy::unnecessary_wraps, reason = "one form for all notations")]
    pub(super) fn read(text: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(text))
    }

    pub(super) fn show(value: &std::path::Path) -> String {
        value.display().to_string()
    }
}
