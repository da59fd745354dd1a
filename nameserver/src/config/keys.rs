//! The keys, one line each.

use std::fmt::Display;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use escrowmq_common::remoting::TrustedProxies;

use super::{Config, ENVIRONMENT_PREFIX};

/// One key of the properties file.
pub struct Key {
    /// As RocketMQ spells it.
    pub name: &'static str,
    /// Its effect, for `--help`.
    pub about: &'static str,
    /// Whether a change by a tool is in force at once; otherwise at the next start.
    pub at_once: bool,
    /// Whether tools may change it, and to what.
    pub(super) by_tool: ByTool,
    pub(super) get: fn(&Config) -> String,
    /// The error says what kind of value is expected.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

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

impl Key {
    /// The value of this key, as text.
    pub(crate) fn value(&self, config: &Config) -> String {
        (self.get)(config)
    }

    /// The name of the environment variable.
    pub fn environment(&self) -> String {
        let mut name = ENVIRONMENT_PREFIX.to_owned();
        for c in self.name.chars() {
            if c.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Keys that no tool may change, whatever the configuration says: where files are, and this list itself.
pub(super) const NEVER_BY_TOOLS: [&str; 3] = ["configBlackList", "configStorePath", "kvConfigPath"];

macro_rules! key {
    ($name:literal, $at_once:literal, $by_tool:expr, $field:ident, $kind:ty, $about:literal) => {
        Key {
            name: $name,
            about: $about,
            at_once: $at_once,
            by_tool: $by_tool,
            get: |config| <$kind>::show(&config.$field),
            set: |config, text| {
                config.$field = <$kind>::read(text)?;
                Ok(())
            },
        }
    };
}

use ByTool::{Any, LocalOnly, Never, Within};

/// All keys.
#[rustfmt::skip] // a table
pub const KEYS: &[Key] = &[
    key!("listenPort", false, Never, listen_port, Plain<u16>, "TCP port, 0 for any (default 9876)"),
    key!("bindAddress", false, Never, bind_address, Plain<String>, "local address to listen at (default 0.0.0.0)"),
    key!("kvConfigPath", false, Never, kv_config_path, File, "file of the KV configuration (default ~/.escrowmq/nameserver/kvConfig.json)"),
    key!("configStorePath", false, Never, config_store_path, OptionalFile, "file that keeps changes made by tools (default: the one given with -c)"),
    key!("orderMessageEnable", true, Any, order_message_enable, Switch, "route answers carry the queue order of ordered topics (default false)"),
    key!("returnOrderTopicConfigToBroker", true, Any, return_order_topic_config_to_broker, Switch, "registrations are answered with all queue orders (default true)"),
    key!("supportActingMaster", true, Any, support_acting_master, Switch, "a group without master shows its smallest slave, read only (default false)"),
    key!("notifyMinBrokerIdChanged", true, Any, notify_min_broker_id_changed, Switch, "brokers hear when the smallest id of their group changes (default false)"),
    key!("deleteTopicWithBrokerRegistration", true, LocalOnly, delete_topic_with_broker_registration, Switch, "a full registration removes topics it does not name (default false)"),
    key!("enableAllTopicList", true, Any, enable_all_topic_list, Switch, "the list of all topics may be asked for (default true)"),
    key!("enableTopicList", true, Any, enable_topic_list, Switch, "lists of topics by cluster or unit may be asked for (default true)"),
    key!("needWaitForService", true, LocalOnly, need_wait_for_service, Switch, "lookups fail for a while after the start (default false)"),
    key!("waitSecondsForService", true, Within(0, 300), wait_seconds_for_service, Seconds, "how long, in seconds (default 45)"),
    key!("scanNotActiveBrokerInterval", true, Within(100, 60_000), scan_not_active_broker_interval, Millis, "how often to look for silent brokers, in ms (default 5000)"),
    key!("serverChannelMaxIdleTimeSeconds", false, Within(30, 86_400), server_channel_max_idle_time_seconds, Seconds, "a connection without traffic for this long is closed, in seconds (default 120)"),
    key!("maxConnections", false, Never, max_connections, Plain<usize>, "connections at a time (default 65535)"),
    key!("maxConnectionsPerAddress", false, Never, max_connections_per_address, Plain<usize>, "connections at a time from one address; a load balancer is one unless proxyProtocolTrusted names it (default 50000)"),
    key!("connectionBytesMax", false, Never, connection_bytes_max, Plain<usize>, "bytes of unfinished requests and unsent answers of all connections, at least 67108864 (default 1073741824)"),
    key!("routeBytesMax", true, LocalOnly, route_bytes_max, Plain<usize>, "bytes that all topics may take in memory, by estimate (default 1073741824, some 3 million topics)"),
    key!("brokersMax", true, LocalOnly, brokers_max, Plain<usize>, "brokers that may be registered (default 10000)"),
    key!("kvBytesMax", false, Never, kv_bytes_max, Plain<usize>, "bytes that the KV configuration may take (default 16777216)"),
    key!("proxyProtocolTrusted", false, Never, proxy_protocol_trusted, Plain<TrustedProxies>, "load balancers whose PROXY header names the client, addresses and networks with ';' between them (default none)"),
    key!("configBlackList", false, Never, config_black_list, Words, "further keys that tools must not change, with ';' between them (default none)"),
];

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

/// How values of one kind are written and read. The error says what is wrong.
trait Kind {
    type Value;
    fn show(value: &Self::Value) -> String;
    fn read(text: &str) -> Result<Self::Value, String>;
}

/// Numbers and texts.
struct Plain<T>(PhantomData<T>);

impl<T: FromStr<Err: Display> + Display> Kind for Plain<T> {
    type Value = T;

    fn show(value: &T) -> String {
        value.to_string()
    }

    fn read(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

/// Stricter than Java, for which everything but "true" is false: a typing error would turn a switch off.
struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn show(value: &bool) -> String {
        value.to_string()
    }

    fn read(text: &str) -> Result<bool, String> {
        let is = |word| text.eq_ignore_ascii_case(word);
        match (is("true"), is("false")) {
            (true, _) => Ok(true),
            (_, true) => Ok(false),
            (false, false) => Err("neither true nor false".to_owned()),
        }
    }
}

struct Seconds;

impl Kind for Seconds {
    type Value = Duration;

    fn show(value: &Duration) -> String {
        value.as_secs().to_string()
    }

    fn read(text: &str) -> Result<Duration, String> {
        Plain::read(text).map(Duration::from_secs)
    }
}

struct Millis;

impl Kind for Millis {
    type Value = Duration;

    fn show(value: &Duration) -> String {
        value.as_millis().to_string()
    }

    fn read(text: &str) -> Result<Duration, String> {
        Plain::read(text).map(Duration::from_millis)
    }
}

struct File;

impl Kind for File {
    type Value = PathBuf;

    fn show(value: &PathBuf) -> String {
        value.display().to_string()
    }

    fn read(text: &str) -> Result<PathBuf, String> {
        Ok(PathBuf::from(text))
    }
}

/// Empty for none.
struct OptionalFile;

impl Kind for OptionalFile {
    type Value = Option<PathBuf>;

    fn show(value: &Option<PathBuf>) -> String {
        value.as_ref().map_or_else(String::new, File::show)
    }

    fn read(text: &str) -> Result<Option<PathBuf>, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }
}

/// With `;` between them.
struct Words;

impl Kind for Words {
    type Value = Vec<String>;

    fn show(value: &Vec<String>) -> String {
        value.join(";")
    }

    fn read(text: &str) -> Result<Vec<String>, String> {
        let words = text.split(';').map(str::trim);
        Ok(words.filter(|w| !w.is_empty()).map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_are_spelled_in_capitals() {
        let names: Vec<_> = KEYS.iter().map(Key::environment).collect();
        assert_eq!(names[0], "ESCROWMQ_NAMESERVER_LISTEN_PORT");
        assert_eq!(names[2], "ESCROWMQ_NAMESERVER_KV_CONFIG_PATH");
    }
}
