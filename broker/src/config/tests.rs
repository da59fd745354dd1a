use std::time::Duration;

use super::*;

fn load(text: &str) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    fs::write(&path, text).unwrap();
    BrokerConfig::load(Some(&path), [], [])
}

fn refused(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn nothing_at_all_gives_a_safe_single_broker() {
    let loaded = BrokerConfig::load(None, [], []).unwrap();
    let config = loaded.config;
    assert_eq!(config, BrokerConfig::default());
    assert_eq!((config.listen_port, config.flush_disk_type), (10_911, FlushDisk::Sync));
    assert_eq!(config.max_message_size, 4_194_304);
    assert_eq!(config.transaction_check_interval, Duration::from_secs(30));
    assert!(loaded.meaningless.is_empty());
}

#[test]
fn a_file_of_rocketmq_is_read() {
    let text = "brokerClusterName = DefaultCluster\nbrokerName = broker-a\nbrokerId = 0\ndeleteWhen = 04\n\
                fileReservedTime = 48\nbrokerRole = ASYNC_MASTER\nflushDiskType = ASYNC_FLUSH\n\
                namesrvAddr=10.0.0.1:9876;10.0.0.2:9876\nbrokerIP1=10.0.0.3\n";
    let loaded = load(text).unwrap();
    assert_eq!(loaded.config.broker_name, "broker-a");
    assert_eq!(loaded.config.file_reserved_hours, 48);
    assert_eq!(loaded.config.flush_disk_type, FlushDisk::Async);
    assert_eq!(loaded.config.namesrv_addr, ["10.0.0.1:9876", "10.0.0.2:9876"]);
    let mut meaningless = loaded.meaningless;
    meaningless.sort_unstable();
    assert_eq!(meaningless, ["brokerRole", "deleteWhen"]);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    fs::write(&path, "listenPort=1\nregionId=r\ntransactionTimeOut=1").unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let environment =
        [pair("ESCROWMQ_LISTEN_PORT", "2"), pair("ESCROWMQ_REGION_ID", "s"), pair("ESCROWMQ_LOG", "info")];
    let config = BrokerConfig::load(Some(&path), environment, [pair("listenPort", "3")]).unwrap().config;
    assert_eq!((config.listen_port, config.region_id.as_str()), (3, "s"));
    assert_eq!(config.transaction_time_out, Duration::from_millis(1));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    assert!(refused("transactionTimeout=1").contains("'transactionTimeOut'"));
    assert!(refused("flushDiskTyp=SYNC_FLUSH").contains("'flushDiskType'"));
}

#[test]
fn values_are_checked_with_their_key() {
    for text in [
        "listenPort=70000",
        "flushDiskType=SYNC",
        "autoCreateTopicEnable=yes",
        "messageDelayLevel=1x",
        "brokerIP1=0.0.0.0",
        "brokerId=1",
        "brokerName=a b",
        "namesrvAddr=host",
        "maxMessageSize=16777216",
        "mappedFileSizeCommitLog=4096",
        "transactionCheckMax=0",
        "registerNameServerPeriod=120000",
        "diskMaxUsedSpaceRatio=95",
        "metricsPort=10909",
        "brokerPermission=8",
    ] {
        let key = text.split('=').next().unwrap();
        assert!(refused(text).starts_with(key), "{text}: {}", refused(text));
    }
}

#[test]
fn replication_is_refused_in_clear_words() {
    assert!(load("dLegerGroup=g\ndLegerPeers=n0-127.0.0.1:40911\ndLegerSelfId=n0").is_ok());
    let error = refused("dLegerPeers=n0-a:1;n1-b:2;n2-c:3");
    assert!(error.contains("3 members") && error.contains("does not replicate"), "{error}");
    assert!(refused("dLegerPeers=n1-a:1").starts_with("dLegerSelfId"));
}

#[test]
fn a_running_broker_takes_all_changes_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    fs::write(&path, "# mine\nregionId=r\n").unwrap();
    let config = BrokerConfig::load(Some(&path), [], []).unwrap().config;
    let changes = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let good = changes(&[("regionId", "s"), ("transactionCheckMax", "3")]);
    let new = config.updated(&good).unwrap();
    assert_eq!((new.region_id.as_str(), new.transaction_check_max), ("s", 3));
    assert!(new.keep(&good).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\nregionId=s\ntransactionCheckMax=3\n");
    assert!(config.updated(&changes(&[("regionId", "t"), ("transactionCheckMax", "0")])).is_err());
    assert!(config.updated(&changes(&[("brokerName", "other")])).is_err());
}

#[test]
fn what_is_in_force_is_listed_with_derived_values() {
    let config = BrokerConfig { broker_name: "b".into(), ..BrokerConfig::default() };
    let listed: BTreeMap<_, _> = config.effective().collect();
    assert_eq!(listed["listenPort"], "10911");
    assert_eq!(listed["dLegerGroup"], "b");
    assert!(listed["storePathRootDir"].ends_with(".escrowmq/b"));
    assert_eq!(listed.len(), KEYS.len());
}

#[test]
fn the_configuration_page_names_every_key_with_its_text() {
    let page = include_str!("../../../docs/configuration.md");
    for key in KEYS {
        let change = if key.at_once { "at once" } else { "restart" };
        let row = format!("| `{}` | {} | {change} |", key.name, key.about.trim());
        assert!(page.lines().any(|line| line == row), "docs/configuration.md lacks: {row}");
    }
}
