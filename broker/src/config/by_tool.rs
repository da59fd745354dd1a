//! The keys that tools may change in a running broker, each with the values that may come from anywhere. Anybody who reaches the
//! port is "anywhere". A value that would delete messages, redirect the broker, stop its service or park transactions needs a tool
//! on the broker's own machine; a key that is not in the list needs a restart.

use std::collections::BTreeMap;
use std::fmt;

use super::{BrokerConfig, ConfigError, Key};

/// Where the tool is that asks for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// On the broker's own machine: its TCP connection comes from there.
    LocalMachine,
    /// Anywhere else.
    Elsewhere,
}

/// Which values of a key may come from anywhere. All others that the key takes need the broker's own machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FromAnywhere {
    Any,
    /// From here to there, both included.
    Within(u64, u64),
    /// Not less than what is in force, and at most this.
    Upwards(u64),
    /// This one.
    Only(&'static str),
    None,
}

impl FromAnywhere {
    fn allows(self, old: &str, new: &str) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        match self {
            Self::Any => true,
            Self::Within(least, most) => number(new).is_some_and(|new| (least..=most).contains(&new)),
            Self::Upwards(most) => number(new).zip(number(old)).is_some_and(|(new, old)| new >= old && new <= most),
            Self::Only(value) => value == new,
            Self::None => false,
        }
    }
}

/// For the documentation and for refusals.
impl fmt::Display for FromAnywhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any value"),
            Self::Within(least, most) => write!(f, "{least} to {most}"),
            Self::Upwards(most) => write!(f, "not below what is in force, up to {most}"),
            Self::Only(value) => f.write_str(value),
            Self::None => f.write_str("nothing"),
        }
    }
}

const HOUR_MS: u64 = 60 * 60 * 1000;
const DELETES: &str = "may delete messages";
const DELETES_OR_FILLS: &str = "may delete messages, or keep so many that a full disk refuses new ones";
const SERVICE: &str = "may stop service";
const PARKS: &str = "may park or repeat transactions";
const BUSY: &str = "may make the broker busy for nothing";

/// Key, values from anywhere, and the harm that other values may do.
const BY_TOOLS: &[(&str, FromAnywhere, &str)] = &[
    ("namesrvAddr", FromAnywhere::None, "redirects the broker"),
    ("fileReservedTime", FromAnywhere::None, DELETES_OR_FILLS),
    ("maxStoreSize", FromAnywhere::None, DELETES),
    ("diskMaxUsedSpaceRatio", FromAnywhere::Any, ""),
    ("cleanFileForciblyEnable", FromAnywhere::None, DELETES),
    ("diskSpaceCleanForciblyRatio", FromAnywhere::None, DELETES_OR_FILLS),
    ("diskSpaceWarningLevelRatio", FromAnywhere::None, SERVICE),
    ("maxMessageSize", FromAnywhere::Within(65_536, 16_777_216), SERVICE),
    ("autoCreateTopicEnable", FromAnywhere::Any, ""),
    ("autoCreateSubscriptionGroup", FromAnywhere::Any, ""),
    ("maxTopics", FromAnywhere::None, SERVICE),
    ("maxQueues", FromAnywhere::None, SERVICE),
    ("maxGroups", FromAnywhere::None, SERVICE),
    ("creationsPerMinutePerConnection", FromAnywhere::None, SERVICE),
    ("groupExpireHours", FromAnywhere::None, "deletes groups"),
    ("maxHeldPulls", FromAnywhere::None, SERVICE),
    ("maxHeldPullsPerConnection", FromAnywhere::None, SERVICE),
    ("defaultTopicQueueNums", FromAnywhere::Within(1, 128), "makes each new topic expensive"),
    ("brokerPermission", FromAnywhere::None, SERVICE),
    ("storeReplyMessageEnable", FromAnywhere::Any, ""),
    ("regionId", FromAnywhere::Any, ""),
    ("traceOn", FromAnywhere::Any, ""),
    ("rejectTransactionMessage", FromAnywhere::None, SERVICE),
    ("transactionTimeOut", FromAnywhere::None, PARKS),
    ("transactionCheckInterval", FromAnywhere::None, PARKS),
    ("transactionCheckMax", FromAnywhere::Upwards(1_000), PARKS),
    ("transactionParkAfter", FromAnywhere::Upwards(30 * 24 * HOUR_MS), PARKS),
    ("transactionRecordHours", FromAnywhere::Upwards(8_760), PARKS),
    ("transactionOpenMax", FromAnywhere::None, SERVICE),
    ("transactionDuplicateWindow", FromAnywhere::Upwards(24 * HOUR_MS), PARKS),
    ("messageDelayLevel", FromAnywhere::None, "moves the time of retries"),
    ("timerWheelEnable", FromAnywhere::Only("true"), SERVICE),
    ("timerMaxDelaySec", FromAnywhere::Within(86_400, 31_536_000), SERVICE),
    ("recallMessageEnable", FromAnywhere::Only("false"), DELETES),
    ("enablePropertyFilter", FromAnywhere::Only("true"), SERVICE),
    ("filterSupportRetry", FromAnywhere::Any, ""),
    ("longPollingEnable", FromAnywhere::Any, ""),
    ("shortPollingTimeMills", FromAnywhere::Within(100, 60_000), BUSY),
    ("litePullMessageEnable", FromAnywhere::Only("true"), SERVICE),
    ("maxTransferCountOnMessageInMemory", FromAnywhere::Within(1, 1_024), BUSY),
    ("maxTransferBytesOnMessageInMemory", FromAnywhere::Within(65_536, 4_194_304), BUSY),
    ("maxTransferCountOnMessageInDisk", FromAnywhere::Within(1, 1_024), BUSY),
    ("maxTransferBytesOnMessageInDisk", FromAnywhere::Within(65_536, 4_194_304), BUSY),
    ("rebalanceLockMaxLiveTime", FromAnywhere::Within(30_000, 600_000), SERVICE),
    ("channelExpiredTimeout", FromAnywhere::Within(60_000, 3_600_000), SERVICE),
    ("notifyConsumerIdsChangedEnable", FromAnywhere::Any, ""),
    ("registerNameServerPeriod", FromAnywhere::Within(10_000, 60_000), BUSY),
    ("logLevel", FromAnywhere::Only("info"), "may fill the disk with lines, or keep lines out of the log"),
];

/// Refuses a key that nobody may change in a running broker, unless it is to stay as it is. Comes before its value is
/// read: reading some takes time.
pub(super) fn check_key(key: &'static Key, old: &BrokerConfig, value: &str) -> Result<(), ConfigError> {
    let is_listed = BY_TOOLS.iter().any(|(name, ..)| *name == key.name);
    let is_forbidden = old.config_black_list.iter().any(|listed| listed == key.name);
    if (is_listed && !is_forbidden) || (key.get)(old) == value {
        return Ok(());
    }
    Err(ConfigError::Fixed { key: key.name.to_owned() })
}

/// Checks a change of one key that passed [`check_key`], from the settings in force to those that are wanted.
pub(super) fn check_value(
    key: &'static Key,
    old: &BrokerConfig,
    new: &BrokerConfig,
    asker: Asker,
) -> Result<(), ConfigError> {
    let (before, after) = ((key.get)(old), (key.get)(new));
    let Some((_, values, harm)) = BY_TOOLS.iter().find(|(name, ..)| *name == key.name) else { return Ok(()) };
    if asker == Asker::LocalMachine || before == after || values.allows(&before, &after) {
        return Ok(());
    }
    let why = match values {
        FromAnywhere::None => (*harm).to_owned(),
        values => format!("{harm} (from anywhere: {values})"),
    };
    Err(ConfigError::Elsewhere { key: key.name, value: after, why })
}

/// The changes from one to the other, by key: old and new value.
pub fn differences(old: &BrokerConfig, new: &BrokerConfig) -> BTreeMap<&'static str, (String, String)> {
    let pairs = super::KEYS.iter().map(|key| (key.name, ((key.get)(old), (key.get)(new))));
    pairs.filter(|(_, (before, after))| before != after).collect()
}

#[cfg(test)]
mod tests {
    use super::super::KEYS;
    use super::*;

    fn change(pairs: &[(&str, &str)], asker: Asker) -> Result<BrokerConfig, ConfigError> {
        let changes = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        BrokerConfig::default().updated(&changes, asker)
    }

    #[test]
    fn the_list_has_each_key_that_is_in_force_at_once_and_no_other() {
        for key in KEYS {
            let listed = BY_TOOLS.iter().filter(|(name, ..)| *name == key.name).count();
            assert_eq!(listed, usize::from(key.at_once), "{}: say in by_tool.rs who may change it", key.name);
        }
        for (name, values, harm) in BY_TOOLS {
            assert!(KEYS.iter().any(|key| key.name == *name), "{name}");
            assert_eq!(harm.is_empty(), *values == FromAnywhere::Any, "{name}");
        }
    }

    #[test]
    fn what_does_harm_needs_the_brokers_own_machine() {
        for pair in [
            ("fileReservedTime", "71"),
            ("fileReservedTime", "73"),
            ("maxStoreSize", "4194304"),
            ("namesrvAddr", "evil:9876"),
            ("brokerPermission", "4"),
            ("rejectTransactionMessage", "true"),
            ("transactionCheckMax", "1"),
            ("transactionTimeOut", "1"),
            ("transactionParkAfter", "1"),
            ("diskSpaceWarningLevelRatio", "1"),
            ("diskSpaceCleanForciblyRatio", "1"),
            ("messageDelayLevel", "365d"),
            ("recallMessageEnable", "true"),
            ("maxMessageSize", "1"),
            ("litePullMessageEnable", "false"),
        ] {
            let refused = change(&[("traceOn", "false"), pair], Asker::Elsewhere).unwrap_err();
            assert!(refused.is_permission() && refused.to_string().starts_with(pair.0), "{refused}");
            assert!(refused.to_string().contains("127.0.0.1"), "{refused}");
            change(&[pair], Asker::LocalMachine).unwrap();
        }
    }

    #[test]
    fn harmless_values_may_come_from_anywhere() {
        for pair in [
            ("autoCreateTopicEnable", "false"),
            ("traceOn", "false"),
            ("maxMessageSize", "8388608"),
            ("transactionCheckMax", "16"),
            ("enablePropertyFilter", "true"),
            // No change at all.
            ("namesrvAddr", ""),
            ("listenPort", "10911"),
        ] {
            change(&[pair], Asker::Elsewhere).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn what_has_no_effect_before_a_restart_is_refused_for_everybody() {
        for pair in [("listenPort", "1"), ("flushDiskType", "ASYNC_FLUSH"), ("ignoreUnsupported", "true")] {
            let refused = change(&[pair], Asker::LocalMachine).unwrap_err();
            assert!(matches!(refused, ConfigError::Fixed { .. }), "{refused}");
            assert!(refused.to_string().contains("restart"), "{refused}");
        }
        for pair in [("sendMessageThreadPoolNums", "4"), ("aclEnable", "false")] {
            let refused = change(&[pair], Asker::LocalMachine).unwrap_err();
            assert!(matches!(refused, ConfigError::Meaningless { .. }), "{refused}");
        }
        assert!(matches!(change(&[("aclEnable", "true")], Asker::LocalMachine), Err(ConfigError::Unsupported { .. })));
    }

    #[test]
    fn an_operators_list_forbids_keys_to_all_tools() {
        let config = BrokerConfig { config_black_list: vec!["traceOn".into()], ..BrokerConfig::default() };
        let changes = BTreeMap::from([("traceOn".to_owned(), "false".to_owned())]);
        assert!(matches!(config.updated(&changes, Asker::LocalMachine), Err(ConfigError::Fixed { .. })));
    }

    #[test]
    fn the_configuration_page_says_who_may_change_what() {
        let page = include_str!("../../../docs/configuration.md");
        for (name, values, harm) in BY_TOOLS {
            let row = match values {
                FromAnywhere::Any => format!("| `{name}` | {values} | |"),
                values => format!("| `{name}` | {values} | {harm} |"),
            };
            assert!(page.lines().any(|line| line == row), "docs/configuration.md lacks: {row}");
        }
    }
}
