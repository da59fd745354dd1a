//! The settings that packages install are what the programs say of themselves: each key exists, its text is the program's, and a
//! default that is shown is one.

use std::path::{Path, PathBuf};

use escrowmq_broker::config::BrokerConfig;
use escrowmq_common::settings::{Key, Place, Setting};
use escrowmq_nameserver::Config;

/// Keys whose default is none or depends on the machine: the sample shows an example.
const EXAMPLES: [&str; 11] = [
    "brokerName",
    "connectionBytesMax",
    "proxyProtocolTrusted",
    "dLegerPeers",
    "groupSecretFile",
    "groupListenAddress",
    "configBlackList",
    "dLegerSelfId",
    "metricsPort",
    "auditLogFile",
    "traceExportAddress",
];

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/conf").join(name)
}

/// Looks at every key of a sample; answers those that are set, and how many are shown.
fn looked_at<C>(name: &str, keys: &[Key<C>], default: &mut C) -> (Vec<&'static str>, usize) {
    let text = std::fs::read_to_string(sample(name)).unwrap();
    let (mut about, mut set, mut shown) = (Vec::new(), Vec::new(), 0);
    for line in text.lines() {
        assert!(line.len() <= 102, "{name}: a long line: {line}");
        if let Some(words) = line.strip_prefix("# ") {
            about.push(words);
            continue;
        }
        let said = std::mem::take(&mut about).join(" ");
        let Some((key, value)) = line.trim_start_matches('#').split_once('=') else { continue };
        let known = keys.iter().find(|known| known.name == key).unwrap_or_else(|| panic!("{name}: no key {key}"));
        assert_eq!(said, known.about.trim(), "{name}: the text of {key}");
        shown += 1;
        if !line.starts_with('#') {
            set.push(known.name);
        } else if !EXAMPLES.contains(&key) {
            assert_eq!(value, (known.get)(default), "{name}: the default of {key}");
        }
        let setting = Setting { place: Place::Argument, key: key.to_owned(), value: value.to_owned() };
        known.read(default, setting).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    (set, shown)
}

#[test]
fn the_brokers_sample_is_true() {
    let (set, shown) = looked_at("broker.conf", escrowmq_broker::config::KEYS, &mut BrokerConfig::default());
    assert_eq!(set, ["brokerIP1", "bindAddress", "namesrvAddr", "storePathRootDir"]);
    assert!(shown > 40, "{shown}");
    let loaded = BrokerConfig::load(Some(&sample("broker.conf")), [], []).unwrap();
    assert_eq!(loaded.warnings(), [""; 0]);
    // Nobody is asked who he is, so nobody is let in from elsewhere before somebody says so.
    assert_eq!(loaded.config.bind_address, "127.0.0.1");
    assert!(loaded.config.store_path.unwrap().starts_with("/var/lib/escrowmq"));
}

#[test]
fn the_nameservers_sample_is_true() {
    let (set, shown) = looked_at("nameserver.conf", escrowmq_nameserver::KEYS, &mut Config::default());
    assert_eq!(set, ["bindAddress", "kvConfigPath"]);
    assert!(shown > 10, "{shown}");
    let loaded = Config::load(Some(&sample("nameserver.conf")), [], []).unwrap();
    assert!(loaded.meaningless.is_empty());
    assert_eq!(loaded.config.bind_address, "127.0.0.1");
    assert!(loaded.config.kv_config_path.starts_with("/var/lib/escrowmq"));
}
