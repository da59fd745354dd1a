//! Requests to a nameserver: routes, registrations, KV values, settings.

use escrowmq_common::code::request;
use escrowmq_common::message::CompressionType;
use serde_json::json;

use super::draft::Draft;
use super::scene::Scene;
use super::values::{self, filled};
use super::{Accepts, Generator, Target, valid};

pub(super) const GENERATORS: &[Generator] = &[
    Generator { weight: 4, ..valid(request::PUT_KV_CONFIG, Target::Nameserver, Accepts::ANY, put_kv) },
    Generator {
        weight: 2,
        ..valid(request::GET_KV_CONFIG, Target::Nameserver, &[0, 22], |scene| kv(scene, request::GET_KV_CONFIG))
    },
    Generator {
        weight: 2,
        ..valid(request::DELETE_KV_CONFIG, Target::Nameserver, Accepts::ANY, |scene| {
            kv(scene, request::DELETE_KV_CONFIG)
        })
    },
    valid(request::GET_KVLIST_BY_NAMESPACE, Target::Nameserver, &[0, 22], |scene| {
        Draft::new(request::GET_KVLIST_BY_NAMESPACE).with("namespace", namespace(scene))
    }),
    Generator { weight: 8, ..valid(request::REGISTER_BROKER, Target::Nameserver, Accepts::ANY, register) },
    Generator {
        weight: 2,
        ..valid(request::UNREGISTER_BROKER, Target::Nameserver, Accepts::ANY, |scene| {
            identity(scene, request::UNREGISTER_BROKER)
        })
    },
    Generator { weight: 2, ..valid(request::QUERY_DATA_VERSION, Target::Nameserver, Accepts::ANY, data_version) },
    Generator { weight: 2, ..valid(request::BROKER_HEARTBEAT, Target::Nameserver, Accepts::ANY, heartbeat) },
    Generator { weight: 4, ..valid(request::GET_ROUTEINFO_BY_TOPIC, Target::Nameserver, &[0, 17], route) },
    bare(request::GET_BROKER_CLUSTER_INFO, &[0]),
    valid(request::GET_BROKER_MEMBER_GROUP, Target::Nameserver, Accepts::ANY, |scene| {
        Draft::new(request::GET_BROKER_MEMBER_GROUP)
            .with("clusterName", cluster(scene))
            .with("brokerName", broker(scene))
    }),
    valid(request::WIPE_WRITE_PERM_OF_BROKER, Target::Nameserver, Accepts::ANY, |scene| {
        Draft::new(request::WIPE_WRITE_PERM_OF_BROKER).with("brokerName", broker(scene))
    }),
    valid(request::ADD_WRITE_PERM_OF_BROKER, Target::Nameserver, Accepts::ANY, |scene| {
        Draft::new(request::ADD_WRITE_PERM_OF_BROKER).with("brokerName", broker(scene))
    }),
    bare(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, Accepts::ANY),
    valid(request::DELETE_TOPIC_IN_NAMESRV, Target::Nameserver, Accepts::ANY, |scene| {
        Draft::new(request::DELETE_TOPIC_IN_NAMESRV).with("topic", scene.topic()).with("clusterName", "EvilCluster")
    }),
    Generator {
        weight: 2,
        ..valid(request::REGISTER_TOPIC_IN_NAMESRV, Target::Nameserver, Accepts::ANY, register_topic)
    },
    valid(request::GET_TOPICS_BY_CLUSTER, Target::Nameserver, Accepts::ANY, |scene| {
        Draft::new(request::GET_TOPICS_BY_CLUSTER).with("cluster", cluster(scene))
    }),
    bare(request::GET_SYSTEM_TOPIC_LIST_FROM_NS, Accepts::ANY),
    bare(request::GET_UNIT_TOPIC_LIST, Accepts::ANY),
    bare(request::GET_HAS_UNIT_SUB_TOPIC_LIST, Accepts::ANY),
    bare(request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, Accepts::ANY),
    Generator { weight: 3, ..valid(request::UPDATE_NAMESRV_CONFIG, Target::Nameserver, Accepts::ANY, settings) },
    bare(request::GET_NAMESRV_CONFIG, &[0]),
];

/// A request without fields and body.
macro_rules! bare_of {
    ($($name:ident)*) => {
        const fn bare(code: i32, accepts: &'static [i32]) -> Generator {
            match code {
                $(request::$name => valid(code, Target::Nameserver, accepts, |_| Draft::new(request::$name)),)*
                _ => panic!("not in the list below"),
            }
        }
    };
}

bare_of! {
    GET_BROKER_CLUSTER_INFO GET_ALL_TOPIC_LIST_FROM_NAMESERVER GET_SYSTEM_TOPIC_LIST_FROM_NS GET_UNIT_TOPIC_LIST
    GET_HAS_UNIT_SUB_TOPIC_LIST GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST GET_NAMESRV_CONFIG
}

/// The broker that the good client uses is none of these.
fn broker(scene: &mut Scene<'_>) -> String {
    format!("evil-broker-{}", scene.dice.below(4))
}

fn cluster(scene: &mut Scene<'_>) -> &'static str {
    scene.dice.pick::<&str>(&["EvilCluster", "EvilCluster", "DefaultCluster"])
}

fn namespace(scene: &mut Scene<'_>) -> String {
    match scene.dice.below(4) {
        0 => "ORDER_TOPIC_CONFIG".to_owned(),
        1 => format!("EVIL-{}", scene.dice.below(100)),
        _ => "EVIL".to_owned(),
    }
}

fn kv(scene: &mut Scene<'_>, code: i32) -> Draft {
    Draft::new(code).with("namespace", namespace(scene)).with("key", format!("Evil{}", scene.dice.below(20)))
}

fn put_kv(scene: &mut Scene<'_>) -> Draft {
    let value = match scene.dice.below(8) {
        0 => values::long(&mut scene.dice),
        1 => filled(&mut scene.dice, 1 << 20),
        _ => b"evil-broker-0:4;evil-broker-1:4".to_vec(),
    };
    kv(scene, request::PUT_KV_CONFIG).with("value", value)
}

fn identity(scene: &mut Scene<'_>, code: i32) -> Draft {
    // Mostly each broker has its own address: another one under its name is refused.
    let number = scene.dice.below(4);
    let address = if scene.dice.one_in(4) { scene.dice.below(4) } else { number };
    Draft::new(code)
        .with("brokerName", format!("evil-broker-{number}"))
        .with("brokerAddr", format!("192.0.2.{}:10911", address + 10))
        .with("clusterName", cluster(scene))
        .with_number("brokerId", *scene.dice.pick(&[0, 0, 1, 2]))
}

fn version(scene: &mut Scene<'_>) -> serde_json::Value {
    json!({
        "counter": *scene.dice.pick(&[1, 2, i64::MAX]),
        "stateVersion": *scene.dice.pick(&[0, 1, i64::MAX]),
        "timestamp": scene.now,
    })
}

/// A registration: plain or compressed, with a few topics or with many.
fn register(scene: &mut Scene<'_>) -> Draft {
    let version = version(scene);
    let count = if scene.dice.one_in(30) { 5_000 } else { scene.dice.below(5) };
    let topics: serde_json::Map<_, _> = (0..count)
        .map(|number| {
            let name = format!("Evil{number}");
            let topic = json!({
                "attributes": {}, "order": false, "perm": 6, "readQueueNums": 4, "topicFilterType": "SINGLE_TAG",
                "topicName": name, "topicSysFlag": 0, "writeQueueNums": 4,
            });
            (name, topic)
        })
        .collect();
    let draft = identity(scene, request::REGISTER_BROKER)
        .with("haServerAddr", "192.0.2.1:10912")
        .with_number("heartbeatTimeoutMillis", *scene.dice.pick(&[120_000, 1, 0, -1, i64::MAX]))
        .with("enableActingMaster", *scene.dice.pick(&["false", "true"]))
        .with_number("bodyCrc32", 0);
    if scene.dice.one_in(3) {
        return draft.with("compressed", "true").with_body(packed(scene, &version, count.min(50)));
    }
    draft.with("compressed", "false").with_json(json!({
        "filterServerList": [],
        "topicConfigSerializeWrapper": {
            "dataVersion": version,
            "topicConfigTable": topics,
            "topicQueueMappingDetailMap": {},
            "topicQueueMappingInfoMap": {"EvilStatic": {
                "bname": "evil-broker-0", "currIdMap": {"0": 0}, "dirty": false, "epoch": 1, "scope": "global",
                "topic": "EvilStatic", "totalQueues": 4,
            }},
        },
    }))
}

/// The compressed form of a registration's body, honest or with lengths and counts that lie.
fn packed(scene: &mut Scene<'_>, version: &serde_json::Value, count: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut part = |bytes: &[u8]| {
        plain.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        plain.extend_from_slice(bytes);
    };
    part(version.to_string().as_bytes());
    let told = if scene.dice.one_in(4) { *scene.dice.pick(&[-1, i32::MAX, 1 << 20]) } else { count as i32 };
    plain.extend_from_slice(&told.to_be_bytes());
    let mut part = |bytes: &[u8]| {
        plain.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
        plain.extend_from_slice(bytes);
    };
    for number in 0..count {
        let line = if scene.dice.one_in(8) {
            values::hostile(&mut scene.dice, b"Evil0 4 4 6 SINGLE_TAG {}").bytes()
        } else {
            format!("Evil{number} 4 4 6 SINGLE_TAG {{}}").into_bytes()
        };
        part(&line);
    }
    part(b"[]");
    plain.extend_from_slice(&0_i32.to_be_bytes());
    if scene.dice.one_in(10) {
        // Much that becomes little: 70 MB of nothing.
        plain.resize(70 << 20, 0);
    }
    CompressionType::Zlib.compress(&plain, 1).unwrap_or_default()
}

fn data_version(scene: &mut Scene<'_>) -> Draft {
    let version = version(scene);
    identity(scene, request::QUERY_DATA_VERSION).with_json(version)
}

fn heartbeat(scene: &mut Scene<'_>) -> Draft {
    identity(scene, request::BROKER_HEARTBEAT)
        .with_number("epoch", 1)
        .with_number("maxOffset", i64::MAX)
        .with_number("confirmOffset", 0)
        .with_number("heartbeatTimeoutMills", *scene.dice.pick(&[1, 10_000, i64::MAX]))
}

fn route(scene: &mut Scene<'_>) -> Draft {
    Draft::new(request::GET_ROUTEINFO_BY_TOPIC)
        .with("topic", scene.topic())
        .with("acceptStandardJsonOnly", *scene.dice.pick(&["true", "false"]))
        .with("__ZONE_MODE", *scene.dice.pick(&["true", "false"]))
        .with("__ZONE_NAME", "evil")
}

fn register_topic(scene: &mut Scene<'_>) -> Draft {
    let name = broker(scene);
    Draft::new(request::REGISTER_TOPIC_IN_NAMESRV).with("topic", scene.topic()).with_json(json!({
        "brokerDatas": [{"brokerAddrs": {"0": "192.0.2.1:10911"}, "brokerName": name, "cluster": "EvilCluster"}],
        "filterServerTable": {},
        "queueDatas": [{"brokerName": name, "perm": 6, "readQueueNums": 4, "topicSysFlag": 0, "writeQueueNums": 4}],
    }))
}

/// Settings that harm nobody, whatever they are set to.
const SWITCHES: &[(&str, &str)] = &[
    ("orderMessageEnable", "true"),
    ("returnOrderTopicConfigToBroker", "true"),
    ("notifyMinBrokerIdChanged", "true"),
    ("enableAllTopicList", "true"),
    ("enableTopicList", "true"),
    ("noSuchSetting", "1"),
];

/// Settings of which a stranger's change must be refused, or does no harm within its range.
const GUARDED: &[(&str, &str)] = &[
    ("supportActingMaster", "true"),
    ("deleteTopicWithBrokerRegistration", "true"),
    ("scanNotActiveBrokerInterval", "5000"),
    ("kvConfigPath", "/nonexistent/kv"),
    ("configStorePath", "/nonexistent/conf"),
    ("configBlackList", ""),
    ("listenPort", "1"),
    ("bindAddress", "192.0.2.1"),
    ("needWaitForService", "true"),
    ("waitSecondsForService", "100000"),
];

fn settings(scene: &mut Scene<'_>) -> Draft {
    let all = if scene.is_far && scene.dice.one_in(2) { GUARDED } else { SWITCHES };
    let (key, usual) = *scene.dice.pick(all);
    let value = match scene.dice.below(3) {
        0 => values::number(&mut scene.dice).as_bytes().to_vec(),
        1 => values::hostile(&mut scene.dice, usual.as_bytes()).bytes(),
        _ => usual.as_bytes().to_vec(),
    };
    let value = value.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r'));
    let text = [key.as_bytes().to_vec(), b"=".to_vec(), value.collect(), b"\n".to_vec()].concat();
    Draft::new(request::UPDATE_NAMESRV_CONFIG).with_body(text)
}
