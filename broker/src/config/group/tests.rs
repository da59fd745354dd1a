use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::super::Loaded;
use super::*;

/// Loads a file of these lines.
fn load(lines: &[&str]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    fs::write(&path, lines.join("\n")).unwrap();
    BrokerConfig::load(Some(&path), [], [])
}

fn group(lines: &[&str]) -> GroupConfig {
    load(lines).unwrap_or_else(|error| panic!("{lines:?}: {error}")).config.group().expect("a group is named")
}

fn refused(lines: &[&str]) -> String {
    load(lines).err().unwrap_or_else(|| panic!("{lines:?} was taken")).to_string()
}

const HERE: &str = "dLegerPeers=n0-127.0.0.1:40911;n1-127.0.0.1:40912;n2-localhost:40913";
const THERE: &str = "dLegerPeers=n0-10.0.0.1:40911;n1-10.0.0.2:40911;n2-b-2.svc:40911";

#[test]
fn a_broker_alone_has_no_group() {
    assert_eq!(load(&[]).unwrap().config.group(), None);
    assert_eq!(load(&["dLegerGroup=g", "dLegerSelfId=n7"]).unwrap().config.group(), None);
    assert_eq!(load(&[]).unwrap().config.copies_kept(), 1);
}

#[test]
fn members_are_named_as_in_rocketmq() {
    let found = group(&["brokerName=b", "enableDLegerCommitLog=true", HERE, "dLegerSelfId=n1"]);
    assert_eq!((found.name.as_str(), found.seats.count(), found.own.name.as_str()), ("b", 3, "n1"));
    assert_eq!(found.own.address(), "127.0.0.1:40912");
    let named = group(&["dLegerGroup=RaftNode00", "brokerName=b", HERE]);
    assert_eq!((named.name.as_str(), named.own.name.as_str()), ("RaftNode00", "n0"));
    // One seat is the beginning of a group.
    let alone = load(&["dLegerPeers=n0-10.0.0.1:40911"]).unwrap().config;
    assert_eq!((alone.group().unwrap().seats.count(), alone.copies_kept()), (1, 1));
    assert_eq!(load(&[HERE]).unwrap().config.copies_kept(), 2);
}

#[test]
fn contradictions_say_what_to_do() {
    let text = refused(&["enableDLegerCommitLog=true"]);
    assert!(text.contains("line 1: enableDLegerCommitLog=true") && text.contains("dLegerPeers=n0-host:port"), "{text}");
    let text = refused(&[HERE, "enableDLegerCommitLog=false"]);
    assert!(text.contains("line 2: enableDLegerCommitLog=false") && text.contains("3 members"), "{text}");
    assert!(load(&["dLegerPeers=n0-a:1", "enableDLegerCommitLog=false"]).is_ok());
    assert!(load(&["enableDLegerCommitLog="]).is_ok() && load(&["enableDLegerCommitLog=false"]).is_ok());
    let text = refused(&[HERE, "dLegerSelfId=n3"]);
    assert!(text.contains("line 2: dLegerSelfId=n3") && text.contains("n0, n1, n2"), "{text}");
    assert!(refused(&["dLegerGroup=a b"]).contains("line 1: dLegerGroup=a b"));
    assert!(refused(&["dLegerPeers=n0-a:1;n1-b:1"]).contains("line 1: dLegerPeers=n0-a:1;n1-b:1: names 2 members"));
}

#[test]
fn members_have_a_port_of_their_own() {
    let text = refused(&["listenPort=40911", HERE]);
    assert!(text.contains("line 2: dLegerPeers=n0-127.0.0.1:40911") && text.contains("listenPort"), "{text}");
    assert!(text.contains("a port of their own, such as"), "{text}");
    // A neighbour's port as well, and the fast port, and metrics.
    assert!(refused(&["listenPort=40912", HERE]).contains("n1-127.0.0.1:40912: has port 40912, which is listenPort"));
    assert!(
        refused(&["listenPort=40915", HERE]).contains("n2-localhost:40913: has port 40913, which is the fast port")
    );
    assert!(refused(&["metricsPort=40911", HERE]).contains("metricsPort"));
    let secret = secret_file();
    let secret = format!("groupSecretFile={}", secret.path().display());
    // Another machine's port is another port.
    assert!(load(&["listenPort=40920", &secret, "dLegerPeers=n0-a:40911;n1-b:40920;n2-c:40920"]).is_ok());
    assert!(load(&["listenPort=0", HERE]).is_ok());
    // A forwarded port: the local one is what counts.
    let forwarded = ["listenPort=40911", &secret, "groupListenAddress=*:50911", THERE];
    assert_eq!(group(&forwarded).listen, (None, 50_911));
    let text = refused(&["listenPort=50911", &secret, "groupListenAddress=*:50911", THERE]);
    assert!(text.contains("line 3: groupListenAddress=*:50911") && text.contains("listenPort"), "{text}");
}

/// A file that is a good secret.
fn secret_file() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "0123456789abcdef\n").unwrap();
    file
}

#[test]
fn members_that_others_can_reach_need_a_secret() {
    let text = refused(&[THERE]);
    assert!(text.contains("groupSecretFile=: must name the file") && text.contains("loopback"), "{text}");
    assert_eq!(load(&[HERE]).unwrap().config.read_group_secret().unwrap().map(|_| ()), None);
    let file = secret_file();
    let line = format!("groupSecretFile={}", file.path().display());
    let config = load(&[THERE, &line]).unwrap().config;
    assert_eq!(config.read_group_secret().unwrap().unwrap().as_bytes(), b"0123456789abcdef");
    let shown: Vec<_> = config.effective().collect();
    assert!(shown.iter().all(|(_, value)| !value.contains("0123456789")), "{shown:?}");
    // One that could be known already, or is none, refuses the start with its line.
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let text = refused(&[THERE, &line]);
    assert!(text.contains(&format!("line 2: {line}: is open to others")) && text.contains("chmod 600"), "{text}");
    assert!(refused(&[HERE, "groupSecretFile=/none/there"]).contains("cannot be read"));
}

#[test]
fn without_a_secret_nobody_else_is_listened_to() {
    let loopback = |text: &str| (Some(text.parse().unwrap()), 40_911);
    assert_eq!(group(&[HERE]).listen, loopback("127.0.0.1"));
    assert_eq!(group(&["dLegerPeers=n0-10.0.0.1:40911"]).listen, loopback("127.0.0.1"));
    assert_eq!(group(&["dLegerPeers=n0-[::1]:40911"]).listen, loopback("::1"));
    for open in ["10.0.0.1", "*:50911", "a-name"] {
        let text = refused(&[HERE, &format!("groupListenAddress={open}")]);
        assert!(
            text.contains(&format!("line 2: groupListenAddress={open}")) && text.contains("groupSecretFile"),
            "{text}"
        );
    }
    let inside = group(&[HERE, "groupListenAddress=127.0.0.2"]);
    assert_eq!(inside.listen, loopback("127.0.0.2"));
    let secret = secret_file();
    let secret = format!("groupSecretFile={}", secret.path().display());
    assert_eq!(group(&[THERE, &secret]).listen, (None, 40_911));
    assert_eq!(group(&[THERE, &secret, "groupListenAddress=10.0.0.1"]).listen, loopback("10.0.0.1"));
}

#[test]
fn a_secret_is_no_setting() {
    for key in ["groupSecret", "GROUPSECRET"] {
        let text = refused(&["regionId=r", &format!("{key}=0123456789abcdef")]);
        assert!(text.contains("line 2: groupSecret is no key") && text.contains("groupSecretFile"), "{text}");
        assert!(!text.contains("0123"), "{text}");
    }
    let variable = [("ESCROWMQ_GROUP_SECRET".to_owned(), "0123456789abcdef".to_owned())];
    let text = BrokerConfig::load(None, variable, []).unwrap_err().to_string();
    assert!(text.starts_with("ESCROWMQ_GROUP_SECRET: groupSecret is no key") && !text.contains("0123"), "{text}");
    let change = [("groupSecret".to_owned(), "0123456789abcdef".to_owned())].into();
    let by_tool = BrokerConfig::default().updated(&change, super::super::Asker::LocalMachine);
    assert!(matches!(by_tool, Err(ConfigError::SecretInTheOpen { .. })));
}

#[test]
fn the_role_in_the_group_gives_the_broker_id() {
    let loaded = load(&[HERE, "brokerId=2"]).unwrap();
    assert_eq!(loaded.config.broker_id, 0);
    assert!(
        loaded.warnings().iter().any(|line| line.contains("brokerId=2 counts for nothing")),
        "{:?}",
        loaded.warnings()
    );
    assert!(load(&[HERE, "brokerId=0"]).unwrap().warnings().is_empty());
    assert!(load(&["dLegerPeers=n0-a:1", "brokerId=-1"]).unwrap().warnings().len() == 1);
    // A broker alone is as it was.
    assert!(refused(&["brokerId=2"]).contains("brokerId=2"));
}

#[test]
fn a_master_that_wants_a_second_copy_has_it_in_a_group() {
    assert!(load(&[HERE, "brokerRole=SYNC_MASTER"]).unwrap().warnings().is_empty());
    assert_eq!(load(&["brokerRole=SYNC_MASTER"]).unwrap().warnings().len(), 1);
}

#[test]
fn keys_of_dledger_that_mean_nothing_are_named_with_the_reason() {
    let loaded = load(&["slaveReadEnable=true", "preferredLeaderId=n1", "enableBatchPush=true"]).unwrap();
    let warnings = loaded.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("slaveReadEnable (no follower answers reads from its own state)"), "{warnings:?}");
    assert!(warnings[0].contains("preferredLeaderId") && warnings[0].contains("enableBatchPush"), "{warnings:?}");
    let text = refused(&["relaxedGroup=true"]);
    assert!(text.contains("line 1: relaxedGroup=true") && text.contains("lost at a failover"), "{text}");
    assert!(load(&["relaxedGroup=false"]).is_ok());
}

#[test]
fn keys_of_a_group_without_members_are_named() {
    let file = secret_file();
    let line = format!("groupSecretFile={}", file.path().display());
    let warnings = load(&[&line]).unwrap().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("groupSecretFile"), "{warnings:?}");
}
