//! The keys, one line each.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Config, ENVIRONMENT_PREFIX};

/// One key of the properties file.
pub struct Key {
    /// As RocketMQ spells it.
    pub name: &'static str,
    /// What it does, for `--help`.
    pub about: &'static str,
    /// Whether a change by a tool is in force at once; otherwise at the next start.
    pub at_once: bool,
    pub(super) get: fn(&Config) -> String,
    /// The error says what kind of value is expected.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Key {
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
    ($name:literal, $at_once:literal, $field:ident, $show:expr, $read:expr, $about:literal) => {
        Key {
            name: $name,
            about: $about,
            at_once: $at_once,
            get: |config| $show(&config.$field),
            set: |config, text| {
                config.$field = $read(text)?;
                Ok(())
            },
        }
    };
}

/// All keys.
#[rustfmt::skip] // a table
pub const KEYS: &[Key] = &[
    key!("listenPort", false, listen_port, show, number, "TCP port, 0 for any (default 9876)"),
    key!("bindAddress", false, bind_address, show, text, "local address to listen at (default 0.0.0.0)"),
    key!("kvConfigPath", false, kv_config_path, show_path, path, "file of the KV configuration (default ~/.escrowmq/nameserver/kvConfig.json)"),
    key!("configStorePath", false, config_store_path, show_store, store, "file that keeps changes made by tools (default: the one given with -c)"),
    key!("orderMessageEnable", true, order_message_enable, show, boolean, "route answers carry the queue order of ordered topics (default false)"),
    key!("returnOrderTopicConfigToBroker", true, return_order_topic_config_to_broker, show, boolean, "registrations are answered with all queue orders (default true)"),
    key!("supportActingMaster", true, support_acting_master, show, boolean, "a group without master shows its smallest slave, read only (default false)"),
    key!("notifyMinBrokerIdChanged", true, notify_min_broker_id_changed, show, boolean, "brokers hear when the smallest id of their group changes (default false)"),
    key!("deleteTopicWithBrokerRegistration", true, delete_topic_with_broker_registration, show, boolean, "a full registration removes topics it does not name (default false)"),
    key!("enableAllTopicList", true, enable_all_topic_list, show, boolean, "the list of all topics may be asked for (default true)"),
    key!("enableTopicList", true, enable_topic_list, show, boolean, "lists of topics by cluster or unit may be asked for (default true)"),
    key!("needWaitForService", true, need_wait_for_service, show, boolean, "lookups fail for a while after the start (default false)"),
    key!("waitSecondsForService", true, wait_seconds_for_service, show_seconds, seconds, "how long, in seconds (default 45)"),
    key!("scanNotActiveBrokerInterval", true, scan_not_active_broker_interval, show_millis, millis, "how often to look for silent brokers, in ms (default 5000)"),
    key!("serverChannelMaxIdleTimeSeconds", false, server_channel_max_idle_time_seconds, show_seconds, seconds, "a connection without traffic for this long is closed, in seconds (default 120)"),
    key!("configBlackList", false, config_black_list, show_list, list, "further keys that tools must not change, with ';' between them (default none)"),
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

fn show(value: &impl Display) -> String {
    value.to_string()
}

fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn number<N: FromStr<Err: Display>>(text: &str) -> Result<N, String> {
    text.parse().map_err(|error: N::Err| error.to_string())
}

/// Stricter than Java, for which everything but "true" is false: a typing error would turn a switch off.
fn boolean(text: &str) -> Result<bool, String> {
    if text.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if text.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err("neither true nor false".to_owned())
    }
}

fn show_seconds(value: &Duration) -> String {
    value.as_secs().to_string()
}

fn seconds(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_secs)
}

fn show_millis(value: &Duration) -> String {
    value.as_millis().to_string()
}

fn millis(text: &str) -> Result<Duration, String> {
    number(text).map(Duration::from_millis)
}

fn show_path(value: &PathBuf) -> String {
    value.display().to_string()
}

fn path(text: &str) -> Result<PathBuf, String> {
    Ok(PathBuf::from(text))
}

fn show_store(value: &Option<PathBuf>) -> String {
    value.as_ref().map_or_else(String::new, show_path)
}

fn store(text: &str) -> Result<Option<PathBuf>, String> {
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

#[expect(clippy::ptr_arg, reason = "the table passes the field's own type")]
fn show_list(value: &Vec<String>) -> String {
    value.join(";")
}

fn list(text: &str) -> Result<Vec<String>, String> {
    let parts = text
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    Ok(parts.map(str::to_owned).collect())
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
