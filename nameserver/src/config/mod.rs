//! Settings: one properties file in the names that RocketMQ's operators know, overlaid by environment variables
//! and flags.
//!
//! Promises: a key that we do not know is refused, with the nearest one that we do; a key that RocketMQ's
//! nameserver has and that means nothing here is accepted and named once; what is in force is logged, and can be
//! read back by the tools. Cross-field rules live in [`Config::validate`].

mod keys;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use escrowmq_common::frame::MAX_FRAME_LEN;
use escrowmq_common::logging::Filter;
use escrowmq_common::monitoring::Port;
use escrowmq_common::remoting::{BudgetLimits, TrustedProxies};
use escrowmq_common::settings::{self, Place, Setting, SettingError, nearest};
use keys::{BY_TOOL, ByTool};
pub use keys::{KEYS, Key};

use crate::kv;
use crate::routes::RouteLimits;

/// The port that clients try when they are given none.
pub const LISTEN_PORT: u16 = 9876;

/// Environment variables are this and the key in capitals: `ESCROWMQ_NAMESERVER_LISTEN_PORT`.
pub const ENVIRONMENT_PREFIX: &str = "ESCROWMQ_NAMESERVER_";

/// The least budget of all connections, in bytes. Three quarters of it are given out, and a buffer doubles as it grows: so
/// the largest frame, a registration of very many topics, may take two frames for a moment, and there is room for one more,
/// such as a long list on its way out. With less, brokers that do nothing wrong would be refused as busy.
const CONNECTION_BYTES_LEAST: usize = 4 * MAX_FRAME_LEN;

/// Everything that can be set. Flags of the same meaning keep RocketMQ's key names, see [`KEYS`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches that operators know by name")]
pub struct Config {
    /// TCP port; 0 lets the system choose. Default 9876.
    pub listen_port: u16,
    /// Local address to listen at. Default 0.0.0.0, all of IPv4; `::` serves IPv6 as well on most systems.
    pub bind_address: String,
    /// Where the KV configuration is kept. Default `~/.escrowmq/nameserver/kvConfig.json`.
    pub kv_config_path: PathBuf,
    /// Where changes made by tools (`UPDATE_NAMESRV_CONFIG`) are kept: the file given at start, if one was.
    pub config_store_path: Option<PathBuf>,
    /// Route answers carry the queue order of topics that have one. Default false.
    pub order_message_enable: bool,
    /// Registrations are answered with all queue orders. Default true.
    pub return_order_topic_config_to_broker: bool,
    /// A group without master shows its smallest slave as a read-only one, if its brokers agree. Default false.
    pub support_acting_master: bool,
    /// Brokers hear when the smallest id of their group changes. Default false.
    pub notify_min_broker_id_changed: bool,
    /// A full registration also removes topics that it does not name. Default false, because brokers may split
    /// their registration.
    pub delete_topic_with_broker_registration: bool,
    /// The list of all topics may be asked for. Default true.
    pub enable_all_topic_list: bool,
    /// Lists of topics by cluster or unit may be asked for. Default true.
    pub enable_topic_list: bool,
    /// Lookups fail for `wait_seconds_for_service` after the start, so that no client takes a half-filled table
    /// for the truth. Default false.
    pub need_wait_for_service: bool,
    /// How long; longer than brokers need to register. Default 45 s.
    pub wait_seconds_for_service: Duration,
    /// How often to look for brokers that fell silent. Default 5 s.
    pub scan_not_active_broker_interval: Duration,
    /// A connection without any traffic for this long is closed. Default 120 s.
    pub server_channel_max_idle_time_seconds: Duration,
    /// Connections at a time; further ones are accepted and closed. Default 65,535.
    pub max_connections: usize,
    /// Connections at a time from one address; a load balancer is one address unless `proxy_protocol_trusted` names it.
    /// Default 50,000.
    pub max_connections_per_address: usize,
    /// Bytes of unfinished requests, of bodies that wait and of unsent answers that all connections hold together. The
    /// nearer they come to it the stricter the nameserver: slow readers are read no further, then connections that hold
    /// bytes without progress are closed, then requests above 4 KiB are slowed and at last refused as busy. At least 64 MiB.
    /// Default 1 GiB.
    pub connection_bytes_max: usize,
    /// Bytes that all topics may take in memory, by estimate: a registration that needs more is refused, and what was
    /// registered before stays. Default 1 GiB, some 3 million topics.
    pub route_bytes_max: usize,
    /// Brokers that may be registered; a further one is refused. Default 10,000.
    pub brokers_max: usize,
    /// Bytes that the KV configuration may take; what makes it larger is refused. Default 16 MiB.
    pub kv_bytes_max: usize,
    /// TCP port of metrics, readiness and liveness over HTTP; 0 for none. Default: six above `listen_port`, so 9882; without it where
    /// that is taken, and none where `listen_port` is 0.
    pub metrics_port: Option<u16>,
    /// Local address of that port. Default 127.0.0.1: whoever reaches it can read how busy the nameserver is.
    pub metrics_bind_address: String,
    /// Load balancers whose PROXY header names the client; headers of others are passed over. Default: none.
    pub proxy_protocol_trusted: TrustedProxies,
    /// What is logged. Default `info`.
    pub log_level: Filter,
    /// File that gets a line for each act of an administrator, beside the log. Default: none.
    pub audit_log_file: Option<PathBuf>,
    /// Keys that tools must not change, beside those that never may.
    pub config_black_list: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let budget = BudgetLimits::default();
        Config {
            listen_port: LISTEN_PORT,
            bind_address: "0.0.0.0".to_owned(),
            // Without a home folder it is empty, and has to be set.
            kv_config_path: default_folder().map(|folder| folder.join("kvConfig.json")).unwrap_or_default(),
            config_store_path: None,
            order_message_enable: false,
            return_order_topic_config_to_broker: true,
            support_acting_master: false,
            notify_min_broker_id_changed: false,
            delete_topic_with_broker_registration: false,
            enable_all_topic_list: true,
            enable_topic_list: true,
            need_wait_for_service: false,
            wait_seconds_for_service: Duration::from_secs(45),
            scan_not_active_broker_interval: Duration::from_secs(5),
            server_channel_max_idle_time_seconds: Duration::from_secs(120),
            max_connections: budget.connections,
            max_connections_per_address: budget.connections_per_address,
            connection_bytes_max: budget.bytes,
            route_bytes_max: RouteLimits::default().route_bytes,
            brokers_max: RouteLimits::default().brokers,
            kv_bytes_max: kv::BYTES_MAX,
            metrics_port: None,
            metrics_bind_address: "127.0.0.1".to_owned(),
            proxy_protocol_trusted: TrustedProxies::default(),
            log_level: Filter::default(),
            audit_log_file: None,
            config_black_list: Vec::new(),
        }
    }
}

/// Why settings were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file, a key or a value, whatever the others are.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A tool may not change this key.
    #[error("Can not update config in black list. ({key})")]
    BlackListed {
        /// The key.
        key: String,
    },
    /// No tool may change this key.
    #[error("{key} is not changed by tools: set it in the configuration file, and start again")]
    NotByTools {
        /// The key.
        key: &'static str,
    },
    /// A tool asked to change a key of RocketMQ's that has no effect here, in the configuration file neither.
    #[error("{key} has no effect in this nameserver; nothing was changed")]
    Meaningless {
        /// The key.
        key: &'static str,
    },
    /// The key is changed from the same machine only.
    #[error("{key} is changed by tools on the nameserver's own machine only, because other values can do harm")]
    LocalOnly {
        /// The key.
        key: &'static str,
    },
    /// A tool asked to change what is logged where somebody else decides on that.
    #[error("logLevel: this nameserver runs within a program that has a log of its own; nothing was changed")]
    LogElsewhere,
    /// There is no place for the KV configuration.
    #[error("no home folder is known (HOME is not set), so there is no place for files: set kvConfigPath")]
    NoHome,
}

impl ConfigError {
    /// Whether the same settings may be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ConfigError::Setting(error) if error.is_retryable())
    }
}

/// Settings with the remarks that came up on the way.
#[derive(Debug)]
pub struct Loaded {
    /// The settings that are to be in force.
    pub config: Config,
    /// Keys that RocketMQ knows and that mean nothing here; to be named once.
    pub meaningless: Vec<&'static str>,
}

impl Config {
    /// Defaults, then the file, then the environment, then `overrides` (key and value).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let all = settings::gather(KEYS, ENVIRONMENT_PREFIX, file, environment, overrides)?;
        let mut loaded = Loaded { config: Config::default(), meaningless: Vec::new() };
        loaded.config.config_store_path = file.map(Path::to_owned);
        let mut places = HashMap::new();
        for setting in all {
            if let Some((key, place)) = loaded.set(setting)? {
                places.insert(key, place);
            }
        }
        let place = |key: &str| places.get(key).cloned().unwrap_or_default();
        loaded.config.validate().map_err(|error| match error {
            ConfigError::Setting(error) => error.at(place).into(),
            other => other,
        })?;
        Ok(loaded)
    }

    /// Changes by a tool: all of `changes` or none. Returns the new settings; the caller puts them in force. `is_local`
    /// says that the tool is on the same machine.
    pub fn updated(&self, changes: &BTreeMap<String, String>, is_local: bool) -> Result<Config, ConfigError> {
        let forbidden = |key: &str| {
            keys::NEVER_BY_TOOLS.contains(&key) || self.config_black_list.iter().any(|listed| listed == key)
        };
        if let Some(key) = changes.keys().find(|key| forbidden(key)) {
            return Err(ConfigError::BlackListed { key: key.clone() });
        }
        let mut loaded = Loaded { config: self.clone(), meaningless: Vec::new() };
        for (key, value) in changes.clone() {
            loaded.set(Setting { place: Place::Nowhere, key, value })?;
        }
        loaded.config.validate()?;
        if let Some(key) = loaded.meaningless.first() {
            return Err(ConfigError::Meaningless { key });
        }
        for (key, by_tool) in KEYS.iter().zip(BY_TOOL).filter(|(key, _)| changes.contains_key(key.name)) {
            let value = (key.get)(&loaded.config);
            match *by_tool {
                ByTool::Any => {}
                ByTool::Within(least, most) => {
                    if !value.parse().is_ok_and(|value: u64| (least..=most).contains(&value)) {
                        let why =
                            format!("tools may set it from {least} to {most}; the configuration file may do more");
                        return Err(SettingError::bad_value(key.name, value, why).into());
                    }
                }
                ByTool::LocalOnly if is_local => {}
                ByTool::LocalOnly => return Err(ConfigError::LocalOnly { key: key.name }),
                ByTool::Never => return Err(ConfigError::NotByTools { key: key.name }),
            }
        }
        Ok(loaded.config)
    }

    /// All settings as key and value.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        KEYS.iter().map(|key| (key.name, (key.get)(self)))
    }

    /// The port of metrics, if there is to be one.
    pub fn pages_port(&self) -> Option<Port> {
        Port::of(self.metrics_port, self.listen_port)
    }

    /// The settings that have another value than the default.
    pub fn set_apart(&self) -> impl Iterator<Item = (&'static str, String)> {
        let default = Self::default();
        let differ = KEYS.iter().filter(|key| (key.get)(self) != (key.get)(&default));
        differ.map(|key| (key.name, (key.get)(self))).collect::<Vec<_>>().into_iter()
    }

    /// Rules that no key can check alone.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = [
            ("scanNotActiveBrokerInterval", self.scan_not_active_broker_interval),
            ("serverChannelMaxIdleTimeSeconds", self.server_channel_max_idle_time_seconds),
        ];
        for (key, value) in positive {
            if value.is_zero() {
                return Err(SettingError::bad_value(key, 0, "must be above 0").into());
            }
        }
        let blank = |key, why: &str| Err(SettingError::bad_value(key, "", why).into());
        if self.bind_address.is_empty() {
            return blank("bindAddress", "must name a local address");
        }
        if self.metrics_bind_address.is_empty() {
            return blank("metricsBindAddress", "must name a local address");
        }
        if self.metrics_port.is_some_and(|port| port != 0 && port == self.listen_port) {
            return Err(SettingError::bad_value("metricsPort", self.listen_port, "is taken by listenPort").into());
        }
        if self.kv_config_path.as_os_str().is_empty() && default_folder().is_none() {
            return Err(ConfigError::NoHome);
        }
        if self.kv_config_path.file_name().is_none() {
            return blank("kvConfigPath", "must name a file");
        }
        for (key, value) in [
            ("routeBytesMax", self.route_bytes_max),
            ("brokersMax", self.brokers_max),
            ("maxConnections", self.max_connections),
            ("maxConnectionsPerAddress", self.max_connections_per_address),
        ] {
            if value == 0 {
                return Err(SettingError::bad_value(key, 0, "must be above 0").into());
            }
        }
        if self.connection_bytes_max < CONNECTION_BYTES_LEAST {
            let why =
                format!("must be at least {CONNECTION_BYTES_LEAST}: the largest registration, and answers beside it");
            return Err(SettingError::bad_value("connectionBytesMax", self.connection_bytes_max, why).into());
        }
        Ok(())
    }
}

impl Loaded {
    /// Sets one. Returns its key and its place, unless it means nothing.
    fn set(&mut self, setting: Setting) -> Result<Option<(&'static str, Place)>, ConfigError> {
        if let Some(key) = KEYS.iter().find(|key| key.name == setting.key) {
            return Ok(Some((key.name, key.read(&mut self.config, setting)?)));
        }
        let Some(key) = keys::MEANINGLESS.iter().find(|key| **key == setting.key) else {
            let nearest = nearest(&setting.key, KEYS.iter().map(|key| key.name));
            return Err(SettingError::UnknownKey { place: setting.place, key: setting.key, nearest }.into());
        };
        self.meaningless.push(key);
        Ok(None)
    }
}

/// `None` where no home folder is known.
fn default_folder() -> Option<PathBuf> {
    let home = env::home_dir().filter(|home| !home.as_os_str().is_empty())?;
    Some(home.join(".escrowmq").join("nameserver"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(text: &str) -> Result<Loaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("namesrv.conf");
        fs::write(&path, text).unwrap();
        Config::load(Some(&path), [], [])
    }

    #[test]
    fn nothing_at_all_gives_the_defaults() {
        let loaded = Config::load(None, [], []).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.config.listen_port, 9876);
        assert!(loaded.config.kv_config_path.ends_with(".escrowmq/nameserver/kvConfig.json"));
    }

    #[test]
    fn the_file_speaks_rocketmqs_names() {
        let loaded = load(
            "# ours\nlistenPort=9999\nkvConfigPath=/x/ä.json\nsupportActingMaster = TRUE\nwaitSecondsForService=3\n",
        )
        .unwrap();
        let config = loaded.config;
        assert_eq!(config.listen_port, 9999);
        assert_eq!(config.kv_config_path, Path::new("/x/ä.json"));
        assert!(config.support_acting_master);
        assert_eq!(config.wait_seconds_for_service, Duration::from_secs(3));
        assert!(loaded.meaningless.is_empty());
    }

    #[test]
    fn later_sources_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("namesrv.conf");
        fs::write(&path, "listenPort=1\nbindAddress=127.0.0.1\nneedWaitForService=true").unwrap();
        let environment = [
            ("ESCROWMQ_NAMESERVER_LISTEN_PORT".to_owned(), "2".to_owned()),
            ("ESCROWMQ_NAMESERVER_BIND_ADDRESS".to_owned(), "::1".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ];
        let overrides = [("listenPort".to_owned(), "3".to_owned())];
        let config = Config::load(Some(&path), environment, overrides).unwrap().config;
        assert_eq!(config.listen_port, 3);
        assert_eq!(config.bind_address, "::1");
        assert!(config.need_wait_for_service);
        assert_eq!(config.config_store_path.as_deref(), Some(&*path));
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = load("listenport=1").unwrap_err().to_string();
        assert!(error.contains("'listenport'") && error.contains("'listenPort'"), "{error}");
        let error = load("suportActingMater=true").unwrap_err().to_string();
        assert!(error.contains("'supportActingMaster'"), "{error}");
    }

    #[test]
    fn errors_name_the_place() {
        for (text, line, key) in [
            ("# ours\nlistenPort=x", 2, "listenPort"),
            ("nothingLikeThis=1", 1, "nothingLikeThis"),
            ("enableTopicList=yes\n", 1, "enableTopicList"),
            // A rule that no key can check alone blames the line of its key.
            ("\n\nbrokersMax=0", 3, "brokersMax"),
            ("a=\\u00g1", 1, ""),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(&format!("namesrv.conf, line {line}: ")) && error.contains(key), "{error}");
        }
        let variable = [("ESCROWMQ_NAMESERVER_LISTEN_PORT".to_owned(), "x".to_owned())];
        let error = Config::load(None, variable, []).unwrap_err().to_string();
        assert!(error.starts_with("ESCROWMQ_NAMESERVER_LISTEN_PORT: listenPort=x: must be a whole number"), "{error}");
        let error = Config::load(None, [], [("brokersMax".to_owned(), "0".to_owned())]).unwrap_err().to_string();
        assert!(error.starts_with("command line: brokersMax=0: "), "{error}");
    }

    #[test]
    fn keys_without_meaning_here_are_accepted_and_named() {
        let loaded = load("rocketmqHome=/opt\nserverWorkerThreads=8\nlistenPort=5").unwrap();
        let mut meaningless = loaded.meaningless;
        meaningless.sort_unstable();
        assert_eq!(meaningless, ["rocketmqHome", "serverWorkerThreads"]);
    }

    #[test]
    fn bad_values_are_refused_with_their_key() {
        for text in [
            "listenPort=70000",
            "listenPort=x",
            "orderMessageEnable=yes",
            "scanNotActiveBrokerInterval=0",
            "waitSecondsForService=-1",
            "bindAddress=",
            "kvConfigPath=",
            "maxConnections=0",
            "maxConnectionsPerAddress=0",
            "connectionBytesMax=67108863",
            "connectionBytesMax=1G",
            "listenPort=\\u00g1",
        ] {
            let error = load(text).unwrap_err();
            assert!(!error.is_retryable(), "{text}: {error}");
        }
    }

    #[test]
    fn the_budget_of_connections_has_the_brokers_names() {
        let of =
            |config: &Config| (config.connection_bytes_max, config.max_connections, config.max_connections_per_address);
        assert_eq!(of(&Config::default()), (1 << 30, 65_535, 50_000));
        let config = load("connectionBytesMax=67108864\nmaxConnections=3\nmaxConnectionsPerAddress=2").unwrap().config;
        assert_eq!(of(&config), (64 << 20, 3, 2));
        for (key, default) in
            [("connectionBytesMax", "1073741824"), ("maxConnections", "65535"), ("maxConnectionsPerAddress", "50000")]
        {
            let key = KEYS.iter().find(|known| known.name == key).unwrap();
            assert!(key.about.contains(&format!("(default {default}")), "{}: {}", key.name, key.about);
        }
        let error = load("connectionBytesMax=67108863").unwrap_err().to_string();
        assert!(error.contains("connectionBytesMax=67108863") && error.contains("at least 67108864"), "{error}");
    }

    #[test]
    fn every_key_survives_being_read_back() {
        let mut loaded = Loaded { config: Config::default(), meaningless: Vec::new() };
        let before: Vec<_> = loaded.config.entries().collect();
        for (key, value) in before {
            loaded.set(Setting { place: Place::Nowhere, key: key.to_owned(), value }).unwrap();
        }
        assert_eq!(loaded.config, Config::default());
        assert_eq!(KEYS.iter().map(|k| k.name).collect::<std::collections::HashSet<_>>().len(), KEYS.len());
    }

    #[test]
    fn tools_change_all_or_nothing_and_never_what_is_black_listed() {
        let config = Config { config_black_list: vec!["bindAddress".to_owned()], ..Config::default() };
        let changes = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            owned.collect()
        };
        let next = config.updated(&changes(&[("enableTopicList", "false")]), false).unwrap();
        assert!(!next.enable_topic_list);
        for key in ["bindAddress", "kvConfigPath", "configStorePath", "configBlackList"] {
            let error = config.updated(&changes(&[(key, "x")]), true).unwrap_err();
            assert!(matches!(error, ConfigError::BlackListed { .. }), "{error}");
        }
        assert!(config.updated(&changes(&[("enableTopicLst", "false")]), true).is_err());
    }

    #[test]
    fn tools_change_what_is_listed_within_its_range() {
        let config = Config::default();
        let update = |key: &str, value: &str, is_local| {
            config.updated(&[(key.to_owned(), value.to_owned())].into(), is_local).map_err(|error| error.to_string())
        };
        for (key, value) in [
            ("listenPort", "9877"),
            ("bindAddress", "127.0.0.1"),
            ("kvBytesMax", "1"),
            ("scanNotActiveBrokerInterval", "99"),
            ("scanNotActiveBrokerInterval", "60001"),
            ("waitSecondsForService", "301"),
            ("serverChannelMaxIdleTimeSeconds", "1"),
            ("maxConnections", "1"),
            ("maxConnectionsPerAddress", "1"),
            ("connectionBytesMax", "67108864"),
        ] {
            for is_local in [false, true] {
                let error = update(key, value, is_local).unwrap_err();
                assert!(error.contains(key), "{key}={value}: {error}");
            }
        }
        for (key, value) in [("needWaitForService", "true"), ("deleteTopicWithBrokerRegistration", "true")] {
            assert!(update(key, value, false).unwrap_err().contains("own machine"), "{key}");
            assert!(update(key, value, true).is_ok(), "{key}");
        }
        for (key, value) in [("scanNotActiveBrokerInterval", "100"), ("orderMessageEnable", "true")] {
            assert!(update(key, value, false).is_ok(), "{key}");
        }
    }

    #[test]
    fn tools_are_told_of_a_key_without_effect() {
        let changes = [("enableTopicList", "false"), ("serverWorkerThreads", "8")];
        let changes = changes.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for is_local in [false, true] {
            let error = Config::default().updated(&changes, is_local).unwrap_err();
            assert!(matches!(error, ConfigError::Meaningless { key: "serverWorkerThreads" }), "{error}");
            let said = error.to_string();
            // The file would not help either.
            assert!(said.contains("serverWorkerThreads has no effect") && !said.contains("file"), "{said}");
        }
    }
}
