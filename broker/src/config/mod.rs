//! Settings: one properties file in the names that RocketMQ's operators know, overlaid by environment variables and
//! flags.
//!
//! Promises: a key that nobody knows is refused, with the nearest one that somebody does; a key that RocketMQ's broker
//! has and that means nothing here is accepted and named once, unless its value promises protection, copies or a role:
//! that refuses the start. An error names the file, the line and the key. The settings in force are logged, and tools
//! can read them back; the keys that tools may change are a list, in `by_tool`; whose a key is, the group's or a
//! member's, is in the table beside it (`scope`), and the group's count over a member's own (`of_group`). Rules that no key can check alone live in [`BrokerConfig::validate`].
//! Nothing at all gives a sensible single broker.
//!
//! Left to others: the effect of a setting. Handlers read the settings at each request, so that those marked
//! [`at_once`](escrowmq_common::settings::Key::at_once) need no restart.

mod apache;
mod arguments;
mod by_tool;
mod collector;
mod current;
mod error;
mod group;
mod host;
mod load;
mod machine;
mod of_group;
mod promises;
mod scope;
mod table;
mod values;

use std::collections::BTreeMap;
use std::fs;

use escrowmq_common::code::word;
use escrowmq_common::frame::MAX_FRAME_LEN;
use escrowmq_common::message::UNIT_OVERHEAD_BYTES_MAX;
use escrowmq_common::settings::{self, Place, Setting, SettingError};

use crate::limits::SEARCHES_MAX;

pub use arguments::{Arguments, command};
pub use by_tool::{Asker, differences};
pub(crate) use current::CurrentConfig;
pub use error::{ConfigError, Unsupported};
pub use group::{GroupConfig, GroupHost, GroupSecret, ListenAt, Seat, Seats, SecretError};
pub use host::Host;
pub use load::Loaded;
use load::{Known, look_up};
pub use scope::Scope;
pub use table::{BrokerConfig, KEYS, Key};
pub use values::{BrokerRole, DelayLevels, FlushDisk};

/// Environment variables are this and the key in capitals: `ESCROWMQ_LISTEN_PORT`.
pub const ENVIRONMENT_PREFIX: &str = "ESCROWMQ_";

/// The least limit of the log's size.
const MAX_STORE_LEAST: u64 = 4 << 20;
/// Longest text of a setting that clients are told.
const TEXT_MAX: usize = 127;

impl BrokerConfig {
    /// Changes by a tool: all of `changes` or none. Returns the new settings; the caller puts them in force, and
    /// [keeps](Self::keep) them.
    pub fn updated(&self, changes: &BTreeMap<String, String>, asker: Asker) -> Result<Self, ConfigError> {
        let mut new = self.clone();
        let mut keys = Vec::with_capacity(changes.len());
        for (name, value) in changes {
            let (name, value) = (name.clone(), value.trim().to_owned());
            match look_up(&name, &value)? {
                Known::Key(key) => {
                    by_tool::check_key(key, self, &value)?;
                    // A value that stays is not read again: reading may ask a resolver.
                    if (key.get)(self) == value {
                        continue;
                    }
                    key.read(&mut new, Setting { place: Place::Nowhere, key: name, value })?;
                    keys.push(key);
                }
                Known::Promise(why) => {
                    let one = Unsupported { place: Place::Nowhere, key: name, value, why };
                    return Err(ConfigError::Unsupported { all: vec![one] });
                }
                Known::Meaningless(_) => return Err(ConfigError::Meaningless { key: name }),
                Known::Secret => return Err(ConfigError::SecretInTheOpen { place: Place::Nowhere }),
                Known::Unknown { nearest } => {
                    return Err(SettingError::UnknownKey { place: Place::Nowhere, key: name, nearest }.into());
                }
            }
        }
        // Sense comes before permission: a wrong value is wrong from everywhere.
        new.validate()?;
        keys.iter().try_for_each(|key| by_tool::check_value(key, self, &new, asker))?;
        Ok(new)
    }

    /// The same for settings that the log of a group has. Those that count from a start on stay as they were when the log got them.
    pub(crate) fn updated_of_group(
        &self,
        changes: &BTreeMap<String, String>,
        asker: Asker,
    ) -> Result<Self, ConfigError> {
        for (name, value) in changes {
            if let Known::Key(key) = look_up(name, value.trim())?
                && !key.at_once
                && (key.get)(self) != value.trim()
            {
                return Err(ConfigError::Founded { key: name.clone() });
            }
        }
        self.updated(changes, asker)
    }

    /// Writes changes into the file that was given at start, if one was: a copy is written and flushed beside it, and
    /// takes its place in one step, with its permissions. Says whether there was a file.
    ///
    /// A value that `old` has too is not written. It may be a default that follows the machine, such as its address, and would
    /// not follow it any more.
    pub fn keep(&self, old: &Self, changes: &BTreeMap<String, String>) -> Result<bool, ConfigError> {
        let Some(path) = self.config_file() else { return Ok(false) };
        let mut changed = BTreeMap::new();
        for (name, value) in changes {
            if let Known::Key(key) = look_up(name, value.trim())?
                && (key.get)(old) != (key.get)(self)
            {
                changed.insert(name.clone(), value.clone());
            }
        }
        if changed.is_empty() {
            return Ok(true);
        }
        let failed = |source| SettingError::File { step: "read", path: path.to_owned(), source };
        settings::keep(path, &fs::read(path).map_err(failed)?, &changed)?;
        Ok(true)
    }

    /// All settings as key and value, as they are in force.
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        KEYS.iter().map(|key| {
            let value = match key.name {
                // The value that is used although nobody set it.
                "storePathRootDir" => self.data_folder().display().to_string(),
                "dLegerGroup" => self.group_name().to_owned(),
                "groupListenAddress" => self.group().map_or_else(String::new, |group| {
                    let (host, port) = group.listen;
                    ListenAt { host, port: Some(port) }.to_string()
                }),
                _ => (key.get)(self),
            };
            (key.name, value)
        })
    }

    /// The settings that somebody gave another value than the default.
    pub fn set_apart(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let default = Self::default();
        let mut all = self.effective();
        std::iter::from_fn(move || {
            all.find(|(name, value)| {
                let key = KEYS.iter().find(|key| key.name == *name).expect("it came out of this list");
                self.named.contains(name) && (key.get)(&default) != *value
            })
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
            ("maxTopics", self.max_topics),
            ("maxGroups", self.max_groups),
            ("maxSearches", self.max_searches),
        ] {
            rule(key, count, count > 0, positive)?;
        }
        rule("maxSearches", self.max_searches, self.max_searches <= SEARCHES_MAX, || {
            format!("must be at most {SEARCHES_MAX}")
        })?;
        let (bytes, least) = (self.connection_bytes_max, 4 * (self.max_message_size + UNIT_OVERHEAD_BYTES_MAX));
        rule("connectionBytesMax", bytes, bytes >= least, || {
            format!("must be at least {least}: four requests with a body of maxMessageSize")
        })?;
        let bytes = self.slow_reader_bytes_max;
        rule("slowReaderBytesMax", bytes, bytes >= MAX_FRAME_LEN, || {
            format!("must be at least {MAX_FRAME_LEN}: one answer may have so many")
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
            "must be 0 for a broker alone; the members of a group (dLegerPeers) get theirs by their role".to_owned()
        })?;
        self.validate_group()?;
        rule("bindAddress", &self.bind_address, !self.bind_address.is_empty(), || "must name an address".to_owned())?;
        rule("brokerIP1", &self.broker_ip, !self.broker_ip.ip().is_unspecified(), || {
            "clients cannot connect to it; give the address that they reach this broker by".to_owned()
        })?;
        for address in &self.namesrv_addr {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            rule("namesrvAddr", address, port.is_some(), || "is not of the form host:port".to_owned())?;
        }
        let region = &self.region_id;
        let is_short = region.len() <= TEXT_MAX && !region.contains(char::is_control);
        rule("regionId", region, is_short, || format!("must be at most {TEXT_MAX} bytes, without control characters"))?;
        let ratio = self.trace_export_ratio;
        rule("traceExportRatio", ratio, (0.0..=1.0).contains(&ratio), || "must be 0 to 1".to_owned())?;
        let metrics = self.metrics_port.unwrap_or_default();
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
        rule("diskMaxUsedSpaceRatio", soft, (1..=100).contains(&soft), || "must be 1 to 100".to_owned())
    }

    /// Threads for connections: as set, or half of the machine's cores.
    ///
    /// A request costs least when the thread that reads it carries it out, and with fewer threads more requests share
    /// the cost of a batch: measured on two cores, one thread takes a fifth to a third less processor time than two.
    pub fn connection_thread_count(&self) -> usize {
        match self.connection_threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            set => set,
        }
    }

    /// The level that an acknowledgement of a broker alone stands for, as answers name it.
    pub fn store_level(&self) -> &'static str {
        match self.flush_disk_type {
            FlushDisk::Sync => word::FLUSHED,
            FlushDisk::Async => word::APPENDED,
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
    if holds {
        return Ok(());
    }
    Err(SettingError::bad_value(key, value, why()).into())
}

#[cfg(test)]
mod tests;
