//! Requests of tools: settings, figures, offsets of groups, backups, and replication.

use escrowmq_common::code::request;

use super::draft::Draft;
use super::scene::Scene;
use super::values;
use super::{Accepts, Generator, Target, valid};

pub(super) const GENERATORS: &[Generator] = &[
    Generator { weight: 6, ..valid(request::UPDATE_BROKER_CONFIG, Target::Broker, Accepts::ANY, settings) },
    bare(request::GET_BROKER_CONFIG, &[0]),
    bare(request::GET_BROKER_RUNTIME_INFO, &[0]),
    bare(request::TRIGGER_DELETE_FILES, Accepts::ANY),
    bare(request::GET_ALL_CONSUMER_OFFSET, &[0]),
    bare(request::GET_ALL_DELAY_OFFSET, &[0]),
    bare(request::GET_TIMER_CHECK_POINT, &[0, 3]),
    bare(request::CLEAN_EXPIRED_CONSUMEQUEUE, Accepts::ANY),
    bare(request::CLEAN_UNUSED_TOPIC, Accepts::ANY),
    bare(request::DELETE_EXPIRED_COMMITLOG, Accepts::ANY),
    Generator { weight: 4, ..valid(request::CLONE_GROUP_OFFSET, Target::Broker, Accepts::ANY, clone_offsets) },
    Generator { weight: 2, ..valid(request::QUERY_CORRECTION_OFFSET, Target::Broker, Accepts::ANY, correction) },
    Generator { weight: 2, ..valid(request::VIEW_BROKER_STATS_DATA, Target::Broker, Accepts::ANY, figures) },
    valid(request::GET_BROKER_CONSUME_STATS, Target::Broker, &[0], |scene| {
        Draft::new(request::GET_BROKER_CONSUME_STATS).with("isOrder", *scene.dice.pick(&["true", "false"]))
    }),
    bare(request::EXCHANGE_BROKER_HA_INFO, Accepts::ANY),
    bare(request::GET_BROKER_HA_STATUS, &[0]),
    valid(request::RESET_MASTER_FLUSH_OFFSET, Target::Broker, Accepts::ANY, |_| {
        Draft::new(request::RESET_MASTER_FLUSH_OFFSET).with_number("masterFlushOffset", 0)
    }),
    bare(request::GET_BROKER_EPOCH_CACHE, Accepts::ANY),
    Generator { weight: 3, ..valid(request::GIVE_UP_LOG, Target::Broker, &[604, 16], give_up) },
    bare(request::GET_MEMBERS, &[0, 2]),
    valid(request::ADD_MEMBER, Target::Broker, &[604], |scene| {
        let seat = *scene.dice.pick(&["n1-127.0.0.1:1", "n2-[::1]:40911", "n9999-broker.example.org:40911"]);
        Draft::new(request::ADD_MEMBER).with("seat", seat)
    }),
    valid(request::PROMOTE_MEMBER, Target::Broker, &[604], |scene| member(scene, request::PROMOTE_MEMBER)),
    valid(request::REMOVE_MEMBER, Target::Broker, &[604], |scene| member(scene, request::REMOVE_MEMBER)),
    valid(request::TRANSFER_LEADER, Target::Broker, &[604, 2], |scene| member(scene, request::TRANSFER_LEADER)),
    bare(request::PREPARE_BACKUP, Accepts::ANY),
    Generator {
        weight: 2,
        ..valid(request::RENEW_BACKUP, Target::Broker, Accepts::ANY, |scene| backup(scene, request::RENEW_BACKUP))
    },
    Generator {
        weight: 2,
        ..valid(request::RELEASE_BACKUP, Target::Broker, Accepts::ANY, |scene| backup(scene, request::RELEASE_BACKUP))
    },
];

/// A change of a member: the broker of the attack is alone.
fn member(scene: &mut Scene<'_>, code: i32) -> Draft {
    Draft::new(code).with("seat", *scene.dice.pick(&["n0", "n1", "n2", "a9999"]))
}

/// A request without fields and body.
macro_rules! bare_of {
    ($($name:ident)*) => {
        const fn bare(code: i32, accepts: &'static [i32]) -> Generator {
            match code {
                $(request::$name => valid(code, Target::Broker, accepts, |_| Draft::new(request::$name)),)*
                _ => panic!("not in the list below"),
            }
        }
    };
}

bare_of! {
    GET_BROKER_CONFIG GET_BROKER_RUNTIME_INFO TRIGGER_DELETE_FILES GET_ALL_CONSUMER_OFFSET GET_ALL_DELAY_OFFSET
    GET_TIMER_CHECK_POINT CLEAN_EXPIRED_CONSUMEQUEUE CLEAN_UNUSED_TOPIC DELETE_EXPIRED_COMMITLOG EXCHANGE_BROKER_HA_INFO
    GET_BROKER_HA_STATUS GET_BROKER_EPOCH_CACHE GET_MEMBERS PREPARE_BACKUP
}

/// Settings that harm nobody, whatever they are set to. A tool on the broker's own machine may change everything, and
/// these are all that it changes here.
const SWITCHES: &[(&str, &str)] = &[
    ("traceOn", "true"),
    ("filterSupportRetry", "true"),
    ("notifyConsumerIdsChangedEnable", "true"),
    ("storeReplyMessageEnable", "true"),
    ("autoCreateTopicEnable", "true"),
    ("noSuchSetting", "1"),
];

/// Settings that a stranger may change within a range: whatever is accepted, others go on.
const RANGES: &[(&str, &str)] = &[
    ("regionId", "evil-region"),
    ("longPollingEnable", "true"),
    ("litePullMessageEnable", "true"),
    ("autoCreateSubscriptionGroup", "true"),
    ("defaultTopicQueueNums", "8"),
    ("maxMessageSize", "4194304"),
    ("shortPollingTimeMills", "1000"),
    ("rebalanceLockMaxLiveTime", "60000"),
    ("channelExpiredTimeout", "120000"),
    ("registerNameServerPeriod", "30000"),
    ("maxTransferCountOnMessageInMemory", "32"),
    ("maxTransferBytesOnMessageInMemory", "262144"),
    ("maxTransferCountOnMessageInDisk", "32"),
    ("maxTransferBytesOnMessageInDisk", "262144"),
    ("timerMaxDelaySec", "259200"),
    ("recallMessageEnable", "true"),
    ("enablePropertyFilter", "true"),
    ("transactionDuplicateWindow", "60000"),
    ("transactionParkAfter", "86400000"),
    ("transactionRecordHours", "72"),
    ("diskMaxUsedSpaceRatio", "100"),
];

/// Settings that stop everybody by design, delete data or lead clients elsewhere: a stranger's change must be refused.
const GUARDED: &[(&str, &str)] = &[
    ("brokerPermission", "0"),
    ("rejectTransactionMessage", "true"),
    ("maxMessageSize", "1"),
    ("maxStoreSize", "4194304"),
    ("fileReservedTime", "0"),
    ("cleanFileForciblyEnable", "true"),
    ("diskSpaceCleanForciblyRatio", "1"),
    ("diskSpaceWarningLevelRatio", "1"),
    ("namesrvAddr", "192.0.2.1:9"),
    ("brokerName", "evil"),
    ("brokerIP1", "192.0.2.1"),
    ("listenPort", "1"),
    ("bindAddress", "192.0.2.1"),
    ("storePathRootDir", "/nonexistent"),
    ("flushDiskType", "ASYNC_FLUSH"),
    ("maxConnections", "1"),
    ("serverSelectorThreads", "100000"),
    ("maxTopics", "1"),
    ("maxQueues", "1"),
    ("maxGroups", "1"),
    ("maxHeldPulls", "0"),
    ("creationsPerMinutePerConnection", "1"),
    ("groupExpireHours", "1"),
    ("messageDelayLevel", "1ms"),
    ("timerWheelEnable", "false"),
    ("transactionTimeOut", "1"),
    ("transactionCheckInterval", "1"),
    ("transactionCheckMax", "1"),
    ("transactionOpenMax", "1"),
    ("transactionRecordHours", "0"),
];

fn settings(scene: &mut Scene<'_>) -> Draft {
    let mut text = Vec::new();
    for _ in 0..scene.dice.between(1, 3) {
        let all = match (scene.dice.one_in(2), scene.is_far) {
            (_, false) => SWITCHES,
            (true, true) => GUARDED,
            (false, true) => RANGES,
        };
        let (key, usual) = *scene.dice.pick(all);
        let value = match scene.dice.below(4) {
            0 => values::number(&mut scene.dice).as_bytes().to_vec(),
            1 => values::hostile(&mut scene.dice, usual.as_bytes()).bytes(),
            _ => usual.as_bytes().to_vec(),
        };
        text.extend_from_slice(key.as_bytes());
        text.push(b'=');
        // A value that goes on in the next line would be another setting.
        text.extend(value.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
        text.push(b'\n');
    }
    Draft::new(request::UPDATE_BROKER_CONFIG).with_body(text)
}

fn clone_offsets(scene: &mut Scene<'_>) -> Draft {
    let draft = Draft::new(request::CLONE_GROUP_OFFSET)
        .with("srcGroup", scene.group())
        .with("destGroup", format!("evil-clone-{}", scene.dice.below(4)))
        .with("offline", "false");
    if scene.dice.one_in(2) { draft.with("topic", scene.topic()) } else { draft }
}

fn correction(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::QUERY_CORRECTION_OFFSET)
        .with("filterGroups", "evil-group-0,,evil-group-1")
        .with("compareGroup", scene.group())
        .with("topic", scene.topic())
}

fn figures(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::VIEW_BROKER_STATS_DATA)
        .with(
            "statsName",
            *scene.dice.pick(&["TOPIC_PUT_NUMS", "GROUP_GET_NUMS", "BROKER_PUT_NUMS", "SNDBCK_PUT_NUMS"]),
        )
        .with("statsKey", format!("{}@{}", scene.topic(), scene.group()))
}

/// Nothing is damaged: whatever is named here must stay.
fn give_up(scene: &mut Scene<'_>) -> Draft {
    let position = match scene.dice.below(3) {
        0 => scene.half().position,
        1 => scene.stored().position,
        _ => *scene.dice.pick(&[0, 1, 4_096, i64::MAX]),
    };
    Draft::new(request::GIVE_UP_LOG)
        .with_number("position", position)
        .with("operator", "evil")
        .with("reason", "because")
}

fn backup(scene: &mut Scene<'_>, code: i32) -> Draft {
    let id = scene.known.backups.pick(&mut scene.dice).cloned();
    Draft::new(code).with("backupId", id.unwrap_or_else(|| b"none".to_vec()))
}
