//! Settings: one properties file in the names that RocketMQ's operators know, overlaid by environment variables and
//! flags.
//!
//! Promises: a key that we do not know is refused, with the nearest one that we do; a key that RocketMQ's broker has and
//! that means nothing here is accepted and named once; what is in force is logged, and tools can read it back. Rules
//! that no key can check alone live in [`BrokerConfig::validate`]. Nothing at all gives a sensible single broker.
//!
//! Left to others: what a setting does. Handlers read the settings anew at each request, so that those marked
//! [`Key::at_once`] need no restart.

mod apache;
mod arguments;
mod machine;
mod nearest;
mod properties;
mod settings;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use escrowmq_common::frame::MAX_FRAME_LEN;
use escrowmq_common::message::UNIT_OVERHEAD_BYTES_MAX;

use crate::server::slow::SEARCHES_MAX;

pub use arguments::{Arguments, command};
pub use properties::{edit, parse};
pub use settings::{BrokerConfig, KEYS, Key};
pub use values::{DelayLevels, FlushDisk};

/// Environment variables are this and the key in capitals: `ESCROWMQ_LISTEN_PORT`.
pub const ENVIRONMENT_PREFIX: &str = "ESCROWMQ_";

/// Keys that no tool may change: who the broker is and where its files are.
const NEVER_BY_TOOLS: [&str; 5] = ["brokerName", "brokerClusterName", "brokerId", "storePathRootDir", "dLegerPeers"];

/// The least budget of all connections, in bytes.
const CONNECTION_BYTES_LEAST: usize = 4 << 20;

/// The least limit of the log's size.
const MAX_STORE_LEAST: u64 = 4 << 20;

/// Why settings were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or, for a change by a tool, written.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is no properties text.
    #[error("not a properties text: {why}")]
    Syntax {
        /// What is wrong, with its line.
        why: String,
    },
    /// Nobody has such a key.
    #[error("unknown key '{key}'; the nearest known one is '{nearest}'")]
    UnknownKey {
        /// As it was written.
        key: String,
        /// What may have been meant.
        nearest: &'static str,
    },
    /// The key is known, the value is not one of its kind, or does not go with the others.
    #[error("{key}={value}: {why}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// As it was written.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// More than one member of a replication group.
    #[error(
        "dLegerPeers names {peers} members: this version does not replicate. Leave dLegerPeers out, or name this broker alone"
    )]
    Replication {
        /// How many were named.
        peers: usize,
    },
    /// A tool may not change this key.
    #[error("{key} cannot be changed in a running broker; change the file and restart")]
    Fixed {
        /// The key.
        key: String,
    },
}

impl ConfigError {
    /// Whether the same settings may be accepted later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// Settings with the remarks that came up on the way.
#[derive(Debug)]
pub struct Loaded {
    /// What is to be in force.
    pub config: BrokerConfig,
    /// Keys that RocketMQ knows and that mean nothing here; to be named once.
    pub meaningless: Vec<&'static str>,
}

impl BrokerConfig {
    /// Defaults, then the file, then the environment, then `overrides` (key and value).
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut loaded = Loaded { config: Self::default(), meaningless: Vec::new() };
        if let Some(path) = file {
            let text =
                fs::read(path).map_err(|source| ConfigError::File { step: "read", path: path.to_owned(), source })?;
            loaded.config.config_file = Some(path.to_owned());
            loaded.set_all(parse(&text)?)?;
        }
        let from_environment = environment.into_iter().filter_map(|(name, value)| {
            let key = KEYS.iter().find(|key| key.environment() == name)?;
            Some((key.name.to_owned(), value))
        });
        loaded.set_all(from_environment)?;
        loaded.set_all(overrides)?;
        loaded.config.validate()?;
        Ok(loaded)
    }

    /// Changes by a tool: all of `changes` or none. Returns the new settings; the caller puts them in force, and
    /// [keeps](Self::keep) them. A change of a key that is not [`Key::at_once`] shows only after the next start.
    pub fn updated(&self, changes: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        if let Some(key) = changes.keys().find(|key| NEVER_BY_TOOLS.contains(&key.as_str())) {
            return Err(ConfigError::Fixed { key: key.clone() });
        }
        let mut loaded = Loaded { config: self.clone(), meaningless: Vec::new() };
        loaded.set_all(changes.clone())?;
        loaded.config.validate()?;
        Ok(loaded.config)
    }

    /// Writes changes into the file that was given at start, if one was: a copy is written and flushed beside it, and
    /// takes its place in one step. Says whether there was a file.
    pub fn keep(&self, changes: &BTreeMap<String, String>) -> Result<bool, ConfigError> {
        let Some(path) = self.config_file() else { return Ok(false) };
        let failed = |step| move |source| ConfigError::File { step, path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(failed("read"))?;
        let edited = edit(&text, changes)?;
        let beside = path.with_extension("new");
        let write = || {
            use io::Write as _;
            let mut file = fs::File::create(&beside)?;
            file.write_all(edited.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        write().map_err(failed("write"))?;
        Ok(true)
    }

    /// All settings as key and value, as they are in force.
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        KEYS.iter().map(|key| {
            let value = match key.name {
                // What is used although nobody set it.
                "storePathRootDir" => self.data_folder().display().to_string(),
                "dLegerGroup" if self.replication_group.is_empty() => self.broker_name.clone(),
                _ => (key.get)(self),
            };
            (key.name, value)
        })
    }

    /// Rules that no key can check alone.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_identity()?;
        self.validate_store()?;
        self.validate_times()?;
        let body_max = MAX_FRAME_LEN - UNIT_OVERHEAD_BYTES_MAX - 64 * 1024;
        let range = 1..=body_max;
        rule("maxMessageSize", self.max_message_size, range.contains(&self.max_message_size), || {
            format!("must be 1 to {body_max}, so that a message fits into a frame")
        })?;
        rule("brokerPermission", self.broker_permission, self.broker_permission & !6 == 0, || {
            "must be a sum of 2 (write) and 4 (read)".to_owned()
        })?;
        rule("defaultTopicQueueNums", self.default_topic_queue_nums, self.default_topic_queue_nums > 0, positive)?;
        for (key, count) in [
            ("maxTransferCountOnMessageInMemory", self.max_transfer_count),
            ("maxTransferCountOnMessageInDisk", self.max_transfer_count_cold),
            ("maxConnections", self.max_connections),
            ("maxConnectionsPerAddress", self.max_connections_per_address),
            ("slowReaderBytesMax", self.slow_reader_bytes_max),
            ("maxTopics", self.max_topics),
            ("maxGroups", self.max_groups),
            ("maxSearches", self.max_searches),
        ] {
            rule(key, count, count > 0, positive)?;
        }
        rule("maxSearches", self.max_searches, self.max_searches <= SEARCHES_MAX, || {
            format!("must be at most {SEARCHES_MAX}")
        })?;
        let bytes = self.connection_bytes_max;
        rule("connectionBytesMax", bytes, bytes >= CONNECTION_BYTES_LEAST, || {
            format!("must be at least {CONNECTION_BYTES_LEAST}: a few requests of clients that do nothing wrong")
        })?;
        let in_flight = self.requests_in_flight;
        rule("requestsInFlightPerConnection", in_flight, in_flight > 0, positive)?;
        rule("maxQueues", self.max_queues, self.max_queues > 0, positive)?;
        rule("creationsPerMinutePerConnection", self.creations_per_minute, self.creations_per_minute > 0, positive)
    }

    fn validate_identity(&self) -> Result<(), ConfigError> {
        for (key, name) in [("brokerName", &self.broker_name), ("brokerClusterName", &self.broker_cluster_name)] {
            let good = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
            rule(key, name, good && name.len() <= 127, || "must be 1 to 127 characters without blanks".to_owned())?;
        }
        rule("brokerId", self.broker_id, self.broker_id == 0, || {
            "must be 0: this version does not replicate, so there are no others of the group".to_owned()
        })?;
        if self.replication_peers.len() > 1 {
            return Err(ConfigError::Replication { peers: self.replication_peers.len() });
        }
        if let Some(peer) = self.replication_peers.first() {
            let id = peer.split('-').next().unwrap_or_default();
            rule("dLegerSelfId", &self.replication_self, id == self.replication_self, || {
                format!("is not the one of dLegerPeers, '{peer}'")
            })?;
        }
        rule("bindAddress", &self.bind_address, !self.bind_address.is_empty(), || "must name an address".to_owned())?;
        rule("brokerIP1", self.broker_ip, !self.broker_ip.is_unspecified(), || {
            "clients cannot connect to it; give the address that they reach this broker by".to_owned()
        })?;
        for address in &self.namesrv_addr {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            rule("namesrvAddr", address, port.is_some(), || "is not of the form host:port".to_owned())?;
        }
        let metrics = self.metrics_port;
        let taken =
            metrics != 0 && (metrics == self.listen_port || self.listen_port > 2 && metrics == self.listen_port - 2);
        rule("metricsPort", metrics, !taken, || "is taken by listenPort or the fast port two below".to_owned())
    }

    fn validate_store(&self) -> Result<(), ConfigError> {
        let bytes = self.segment_bytes;
        rule("mappedFileSizeCommitLog", bytes, (1 << 20..=4 << 30).contains(&bytes), || {
            "must be 1 MiB to 4 GiB".to_owned()
        })?;
        rule("fileReservedTime", self.file_reserved_hours, self.file_reserved_hours > 0, positive)?;
        let (soft, hard) = (self.disk_max_used_percent, self.disk_full_percent);
        rule("diskSpaceWarningLevelRatio", hard, (1..=100).contains(&hard), || "must be 1 to 100".to_owned())?;
        let clean = self.disk_clean_percent;
        rule("diskSpaceCleanForciblyRatio", clean, (1..=100).contains(&clean), || "must be 1 to 100".to_owned())?;
        rule("maxStoreSize", self.max_store_bytes, matches!(self.max_store_bytes, 0 | MAX_STORE_LEAST..), || {
            "must be 0 for no limit, or at least 4194304: four files of the smallest size".to_owned()
        })?;
        rule("diskMaxUsedSpaceRatio", soft, (1..=hard).contains(&soft), || {
            "must be 1 to diskSpaceWarningLevelRatio: the warning comes before messages are refused".to_owned()
        })
    }

    /// Threads for connections: as set, or half of the machine's cores.
    ///
    /// A request costs least when the thread that reads it carries it out, and with fewer threads more requests share
    /// what a batch costs: measured on two cores, one thread takes a fifth to a third less processor time than two.
    pub fn connection_thread_count(&self) -> usize {
        match self.connection_threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            set => set,
        }
    }

    /// What an acknowledgement stands for, as answers name it.
    pub fn store_level(&self) -> &'static str {
        match self.flush_disk_type {
            FlushDisk::Sync => "flushed",
            FlushDisk::Async => "appended",
        }
    }

    fn validate_times(&self) -> Result<(), ConfigError> {
        for (key, time) in [
            ("flushIntervalCommitLog", self.flush_interval),
            ("transactionTimeOut", self.transaction_time_out),
            ("transactionCheckInterval", self.transaction_check_interval),
            ("transactionParkAfter", self.transaction_park_after),
            ("rebalanceLockMaxLiveTime", self.lock_life),
            ("channelExpiredTimeout", self.client_expiry),
            ("shortPollingTimeMills", self.short_polling),
            ("slowReaderTimeSeconds", self.slow_reader_time),
            ("registerNameServerPeriod", self.register_period),
        ] {
            rule(key, time.as_millis(), !time.is_zero(), positive)?;
        }
        let period = self.register_period.as_millis();
        rule("registerNameServerPeriod", period, period <= 60_000, || {
            "must be at most 60000: nameservers forget a broker after 120000".to_owned()
        })?;
        rule("transactionCheckMax", self.transaction_check_max, self.transaction_check_max > 0, positive)?;
        rule("transactionRecordHours", self.transaction_record_hours, self.transaction_record_hours > 0, positive)?;
        let threads = self.connection_threads;
        rule("serverSelectorThreads", threads, threads <= 1024, || "must be at most 1024".to_owned())?;
        let idle = self.idle_time.as_secs();
        rule("serverChannelMaxIdleTimeSeconds", idle, idle >= 40, || {
            "must be at least 40: clients send a heartbeat every 30 seconds".to_owned()
        })
    }
}

fn positive() -> String {
    "must be above 0".to_owned()
}

fn rule(
    key: &'static str,
    value: impl std::fmt::Display,
    holds: bool,
    why: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::BadValue { key, value: value.to_string(), why: why() }) }
}

impl Loaded {
    fn set_all(&mut self, entries: impl IntoIterator<Item = (String, String)>) -> Result<(), ConfigError> {
        for (name, value) in entries {
            if let Some(key) = KEYS.iter().find(|key| key.name == name) {
                let set = (key.set)(&mut self.config, value.trim());
                set.map_err(|why| ConfigError::BadValue { key: key.name, value, why })?;
            } else if let Some(key) = apache::MEANINGLESS.iter().find(|key| **key == name) {
                self.meaningless.push(key);
            } else {
                let nearest = nearest::nearest(&name, KEYS.iter().map(|key| key.name));
                return Err(ConfigError::UnknownKey { key: name, nearest });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
