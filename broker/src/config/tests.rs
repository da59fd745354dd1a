use std::os::unix::fs::PermissionsExt as _;
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
    assert_eq!(meaningless, ["deleteWhen"]);
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
        "connectionBytesMax=17039359",
        "slowReaderBytesMax=1048576",
        "brokerId=1",
        "brokerName=a b",
        "namesrvAddr=host",
        "maxMessageSize=16777216",
        "mappedFileSizeCommitLog=4096",
        "transactionCheckMax=0",
        "registerNameServerPeriod=120000",
        "diskMaxUsedSpaceRatio=101",
        "diskSpaceCleanForciblyRatio=1.1",
        "fileReservedTime=48 # hours",
        "defaultTopicQueueNums=2*4",
        "regionId=a\\nb",
        "metricsPort=10909",
        "brokerPermission=8",
    ] {
        let key = text.split('=').next().unwrap();
        let error = refused(text);
        assert!(error.contains(&format!("broker.conf, line 1: {key}=")), "{text}: {error}");
    }
}

#[test]
fn a_running_broker_takes_all_changes_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    // Not all of it is UTF-8.
    fs::write(&path, b"# mine: \xe4\nregionId=r\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let config = BrokerConfig::load(Some(&path), [], []).unwrap().config;
    let changes = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let good = changes(&[("regionId", "s"), ("transactionCheckMax", "16")]);
    let new = config.updated(&good, Asker::Elsewhere).unwrap();
    assert_eq!((new.region_id.as_str(), new.transaction_check_max), ("s", 16));
    let changed = differences(&config, &new);
    assert_eq!(changed["transactionCheckMax"], ("15".to_owned(), "16".to_owned()));
    assert_eq!(changed.len(), 2);
    assert!(new.keep(&config, &good).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"# mine: \xe4\nregionId=s\ntransactionCheckMax=16\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
    // A value that stays gets no line: it may be a default that follows the machine.
    let same = changes(&[("brokerIP1", &new.broker_ip.to_string()), ("transactionCheckMax", "17")]);
    assert!(new.updated(&same, Asker::Elsewhere).unwrap().keep(&new, &same).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"# mine: \xe4\nregionId=s\ntransactionCheckMax=17\n");
    for bad in [("transactionCheckMax", "0"), ("brokerName", "other"), ("noSuchKey", "1")] {
        assert!(config.updated(&changes(&[("regionId", "t"), bad]), Asker::LocalMachine).is_err());
    }
}

#[test]
fn what_would_be_believed_and_not_kept_refuses_the_start() {
    for (text, why) in [
        ("aclEnable=true", "rights are not checked"),
        ("authenticationEnabled = TRUE", "rights are not checked"),
        ("authorizationEnabled=true", "rights are not checked"),
        ("tls.server.mode=enforcing", "not encrypted"),
        ("tlsServerMode=enforcing", "not encrypted"),
        ("useTLS=true", "not encrypted"),
        ("brokerRole=SLAVE\nbrokerId=1", "elect who leads"),
        ("inSyncReplicas=2", "when a majority has it"),
        ("enableControllerMode=true", "no controller"),
        ("relaxedGroup=true", "lost at a failover"),
        ("messageStorePlugIn=org.example.Tiered", "local files alone"),
    ] {
        let key = text.split(['=', ' ']).next().unwrap();
        let error = refused(text);
        assert!(error.contains(&format!("line 1: {key}=")) && error.contains(why), "{error}");
        assert!(error.contains("ignoreUnsupported=true"), "{error}");
        let allowed = load(&format!("{text}\nignoreUnsupported=true")).unwrap();
        assert!(allowed.warnings().iter().any(|line| line.contains(key) && line.contains(why)), "{text}");
    }
    let both = refused("aclEnable=true\nlistenPort=1\nbrokerRole=SLAVE");
    assert!(both.contains("line 1: aclEnable") && both.contains("line 3: brokerRole"), "{both}");
    // An unreadable value is not taken for "no".
    assert!(refused("aclEnable=yes").contains("aclEnable=yes: must be true or false"));
    for text in ["aclEnable=false", "tls.server.mode=permissive", "inSyncReplicas=1", "slaveReadEnable=true"] {
        assert!(load(text).unwrap().ignored.is_empty(), "{text}");
    }
}

#[test]
fn a_master_that_wants_a_second_copy_starts_with_a_warning() {
    let sync = load("brokerRole=SYNC_MASTER").unwrap();
    assert!(sync.warnings().iter().any(|line| line.contains("SYNC_MASTER") && line.contains("keeps one")));
    let asynchronous = load("brokerRole=ASYNC_MASTER\nbrokerId=-1").unwrap();
    assert_eq!((asynchronous.config.broker_id, asynchronous.warnings().len()), (0, 1));
    assert!(load("brokerRole=ASYNC_MASTER").unwrap().warnings().is_empty());
}

#[test]
fn files_that_people_post_start_a_broker() {
    let text = "\u{feff}# 所有的 🚀 C:\\users\nbrokerName : posted\r\nmapedFileSizeCommitLog=1073741824\n\
                mapedFileSizeConsumeQueue=300000\nsendMessageThreadPoolNums: 24\nstorePathConsumerQueue=/x\n\
                storeCheckpoint=/x/checkpoint\nabortFile=/x/abort\nfastListenPort=10909\nhaMasterAddress=\n\
                checkTransactionMessageEnable=false\ndiskMaxUsedSpaceRatio=95\ndiskSpaceWarningLevelRatio=0.90\n\
                diskSpaceCleanForciblyRatio=0.85\nflushDiskType=async_flush\nautoCreateTopicEnable=False \n\
                listenPort=\nbrokerIP1=localhost\nmessageDelayLevel=1s 5s  10s\nmapedFileSizeConsumeQueue=1\n\
                sendMessageTreadPoolNums=128\ncleanFileForciblyEnable=false\n";
    let loaded = load(text).unwrap();
    let config = &loaded.config;
    assert_eq!((config.broker_name.as_str(), config.segment_bytes, config.listen_port), ("posted", 1 << 30, 10_911));
    assert_eq!((config.disk_max_used_percent, config.disk_full_percent, config.disk_clean_percent), (95, 90, 85));
    assert_eq!((config.flush_disk_type, config.auto_create_topic_enable), (FlushDisk::Async, false));
    assert_eq!((config.broker_ip.to_string().as_str(), config.delay_levels.count()), ("localhost", 3));
    assert_eq!(config.clean_above(), None);
    let named = loaded.meaningless.iter().filter(|key| **key == "mapedFileSizeConsumeQueue").count();
    assert_eq!(named, 1);
    assert_eq!(loaded.remarks.len(), 1, "{:?}", loaded.remarks);
    assert!(loaded.remarks[0].contains("line 21: 'sendMessageTreadPoolNums'"), "{:?}", loaded.remarks);
}

#[test]
fn a_misspelt_key_that_would_mean_something_is_refused() {
    for (text, nearest) in [("aclEnabl=true", "aclEnable"), ("brokerRote=SLAVE", "brokerRole"), ("xyz=1", "")] {
        let error = refused(text);
        assert!(error.contains("line 1: unknown key") && error.contains(nearest), "{error}");
    }
}

#[test]
fn errors_name_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    fs::write(&path, "# a\n\nlistenPort=abc\n").unwrap();
    let file = BrokerConfig::load(Some(&path), [], []).unwrap_err().to_string();
    let expected = format!("{}, line 3: listenPort=abc: must be a whole number, in digits alone", path.display());
    assert_eq!(file, expected);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let variable = BrokerConfig::load(None, [pair("ESCROWMQ_LISTEN_PORT", "abc")], []).unwrap_err().to_string();
    assert!(variable.starts_with("ESCROWMQ_LISTEN_PORT: listenPort=abc: "), "{variable}");
    let flag = BrokerConfig::load(None, [], [pair("listenPort", "abc")]).unwrap_err().to_string();
    assert!(flag.starts_with("command line: listenPort=abc: "), "{flag}");
    fs::write(&path, "a=1\nstorePathRootDir=C:\\users\n").unwrap();
    let syntax = BrokerConfig::load(Some(&path), [], []).unwrap_err().to_string();
    assert!(syntax.starts_with(&format!("{}, line 2: ", path.display())), "{syntax}");
    // A rule that no key can check alone names the line of the key that it blames.
    let rule = refused("regionId=a\nregisterNameServerPeriod=120000");
    assert!(rule.contains("line 2: registerNameServerPeriod"), "{rule}");
}

#[test]
fn nameservers_of_rocketmqs_variable_are_the_last_choice() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let load = |pairs: &[(&str, &str)], flags: &[(&str, &str)]| {
        let environment = pairs.iter().map(|(key, value)| pair(key, value));
        let flags: Vec<_> = flags.iter().map(|(key, value)| pair(key, value)).collect();
        BrokerConfig::load(None, environment, flags).unwrap().config.namesrv_addr
    };
    assert_eq!(load(&[("NAMESRV_ADDR", "a:1")], &[]), ["a:1"]);
    assert_eq!(load(&[("NAMESRV_ADDR", "a:1"), ("ESCROWMQ_NAMESRV_ADDR", "b:2")], &[]), ["b:2"]);
    assert_eq!(load(&[("NAMESRV_ADDR", "a:1"), ("ESCROWMQ_NAMESRV_ADDR", "")], &[]), ["a:1"]);
    assert_eq!(load(&[("NAMESRV_ADDR", "a:1")], &[("namesrvAddr", "")]), [""; 0]);
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
        let scope = Scope::of(key.name).unwrap();
        let row = format!("| `{}` | {} | {change} | {scope} |", key.name, key.about.trim());
        assert!(page.lines().any(|line| line == row), "docs/configuration.md lacks: {row}");
    }
}
