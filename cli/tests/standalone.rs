//! The binary as a user runs it: one process with nameserver and broker, and the admin commands against it.

mod support;

use std::process::Command;

use escrowmq_client::{Client, Message};
use serde_json::Value;
use support::{BINARY, Standalone};

#[test]
fn one_process_serves_and_the_admin_commands_find_it() {
    let cluster = Standalone::start();
    assert!(cluster.text("admin", &["topic", "create", "Orders", "--queues", "3"]).contains("3 queues on 1 broker"));
    assert_eq!(cluster.json("admin", &["topic", "list"])[0]["topic"], "Orders");
    assert!(cluster.json("admin", &["topic", "list", "--all"]).as_array().unwrap().len() > 1);
    let queues = cluster.json("admin", &["topic", "status", "Orders"]);
    assert_eq!(queues.as_array().unwrap().len(), 3);
    assert_eq!((&queues[0]["max_offset"], &queues[0]["last_message"]), (&0.into(), &Value::Null));
    cluster.text("admin", &["group", "create", "G", "--retries", "2"]);
    let groups = cluster.json("admin", &["group", "list"]);
    let group = groups.as_array().unwrap().iter().find(|group| group["group"] == "G").unwrap();
    assert_eq!((&group["retries"], &group["members"]), (&2.into(), &0.into()));
    let brokers = cluster.json("admin", &["cluster", "list"]);
    assert_eq!((&brokers[0]["broker"], &brokers[0]["id"]), (&"standalone".into(), &0.into()));
    assert!(cluster.text("admin", &["cluster", "list"]).starts_with("CLUSTER"));
    assert!(cluster.text("admin", &["message", "find", "Orders", "none"]).contains("0 messages"));
    assert!(cluster.text("admin", &["offset", "reset", "G", "Orders", "--to", "earliest"]).contains("OFFSET"));
    assert_eq!(cluster.json("admin", &["offset", "show", "G"]).as_array().unwrap().len(), 3);

    let missing = cluster.run("admin", &["topic", "status", "Nowhere"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("Nowhere"));
    assert_eq!(cluster.run("admin", &["message", "view", "zz"]).status.code(), Some(1));
    cluster.text("admin", &["topic", "delete", "Orders"]);
    assert_eq!(cluster.json("admin", &["topic", "list"]), Value::Array(Vec::new()));
    cluster.stop();
}

/// Sends one message through the SDK.
fn send(namesrv: &str, message: Message) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::builder(namesrv).connect().await.unwrap();
        let producer = client.producer("P").start().await.unwrap();
        producer.send(message).await.unwrap();
        client.shutdown().await;
    });
}

#[test]
fn a_message_is_found_and_shown() {
    let cluster = Standalone::start();
    cluster.text("admin", &["topic", "create", "Orders"]);
    send(&cluster.namesrv, Message::new("Orders", "the body").tag("paid").key("order-17"));
    let found = cluster.json("admin", &["message", "find", "Orders", "order-17"]);
    let (id, unique) = (found[0]["offset_message_id"].as_str().unwrap(), found[0]["unique_id"].as_str().unwrap());
    for arguments in [vec!["message", "view", id], vec!["message", "view", unique, "--topic", "Orders"]] {
        let fields = cluster.json("admin", &arguments);
        let field = |name: &str| {
            fields.as_array().unwrap().iter().find(|field| field["field"] == name).unwrap()["value"].clone()
        };
        assert_eq!((field("topic"), field("body")), ("Orders".into(), "the body".into()));
        assert_eq!((field("property KEYS"), field("property TAGS")), ("order-17".into(), "paid".into()));
    }
    assert!(cluster.text("admin", &["topic", "status", "Orders"]).contains("1 messages"));
    cluster.stop();
}

#[test]
fn a_command_without_a_cluster_fails_with_a_reason() {
    let output = Command::new(BINARY).args(["admin", "topic", "list", "-n", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:1"));
    let folder = tempfile::tempdir().unwrap();
    let output =
        Command::new(BINARY).args(["standalone", "--set", "noSuchKey=1", "--dir"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("noSuchKey"));
}
