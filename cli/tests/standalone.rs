//! The binary as a user runs it: one process with nameserver and broker, and the admin commands against it.

mod support;

use std::process::{Command, Output, Stdio};

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
    assert_eq!(cluster.json("admin", &["offset", "show", "G"]).as_array().unwrap().len(), 4, "its retry topic, too");

    let missing = cluster.run("admin", &["topic", "status", "Nowhere"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("Nowhere"));
    assert_eq!(cluster.run("admin", &["message", "view", "zz"]).status.code(), Some(1));
    let unasked = cluster.command("admin", &["topic", "delete", "Orders"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(unasked.status.code(), Some(1), "nobody is there to say yes");
    assert!(stderr(&unasked).contains("--yes") && stderr(&unasked).contains("nothing was done"));
    assert_eq!(cluster.json("admin", &["topic", "list"])[0]["topic"], "Orders");
    let deleted = cluster.text("admin", &["topic", "delete", "Orders", "--yes"]);
    assert_eq!(deleted, "topic Orders is deleted on 1 broker\n");
    assert_eq!(cluster.json("admin", &["topic", "list"]), Value::Array(Vec::new()));
    cluster.stop();
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_not_there_is_an_error_and_not_an_empty_table() {
    let cluster = Standalone::start();
    cluster.text("admin", &["topic", "create", "Orders", "--queues", "1", "-a", "duplicate.window.seconds=60"]);
    cluster.text("admin", &["group", "create", "G"]);
    let no_topic: &[&[&str]] = &[
        &["topic", "status", "Nowhere"],
        &["topic", "delete", "Nowhere", "--yes"],
        &["topic", "delete", "Orders", "--yes", "--cluster", "elsewhere"],
        &["message", "find", "Nowhere", "key"],
        &["offset", "show", "G", "--topic", "Nowhere"],
        &["offset", "reset", "G", "Nowhere", "--to", "latest"],
    ];
    let no_group: &[&[&str]] = &[
        &["offset", "show", "nobody"],
        &["offset", "show", "nobody", "--topic", "Orders"],
        &["offset", "reset", "nobody", "Orders", "--to", "latest"],
    ];
    for (named, lines) in [("there is no topic", no_topic), ("there is no consumer group", no_group)] {
        for line in lines {
            for json in [false, true] {
                let mut arguments = line.to_vec();
                arguments.extend(json.then_some("--json"));
                let output = cluster.run("admin", &arguments);
                let said = stderr(&output);
                assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{arguments:?}: {said}");
                assert!(said.contains(named) || line.contains(&"elsewhere"), "{arguments:?}: {said}");
                assert!(!said.contains("http") && !said.contains("answered"), "{arguments:?}: {said}");
                assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
            }
        }
    }
    assert_eq!(cluster.json("admin", &["topic", "list"])[0]["topic"], "Orders", "nothing was deleted");
    assert!(cluster.text("admin", &["offset", "show", "G"]).contains("0 messages behind"));
    let unknown = cluster.run("admin", &["topic", "create", "Orders", "-a", "no.such.attribute=1"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", stderr(&unknown));
    let malformed = cluster.run("admin", &["topic", "create", "Orders", "-a", "no-value"]);
    assert_eq!(malformed.status.code(), Some(2), "{}", stderr(&malformed));
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
    assert!(cluster.text("admin", &["topic", "status", "Orders"]).contains("1 message\n"));
    cluster.stop();
}

#[test]
fn without_a_broker_every_command_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, namesrv) = lonely_nameserver(folder.path());
    for (command, arguments) in [
        ("admin", vec!["cluster", "list"]),
        ("admin", vec!["topic", "list"]),
        ("admin", vec!["topic", "create", "T"]),
        ("admin", vec!["topic", "status", "T"]),
        ("admin", vec!["topic", "delete", "T", "--yes"]),
        ("admin", vec!["group", "list"]),
        ("admin", vec!["group", "create", "G"]),
        ("admin", vec!["message", "find", "T", "k"]),
        ("admin", vec!["offset", "show", "G"]),
        ("admin", vec!["offset", "reset", "G", "T", "--to", "latest"]),
        ("txn", vec!["list"]),
        ("txn", vec!["count"]),
        ("txn", vec!["show", "b:1"]),
        ("txn", vec!["commit", "b:1", "--reason", "x", "--yes"]),
    ] {
        let output = Command::new(BINARY).arg(command).args(&arguments).args(["-n", &namesrv]).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{arguments:?}");
        assert!(stderr(&output).contains("no broker is registered"), "{arguments:?}: {}", stderr(&output));
    }
    drop(runtime);
}

/// A nameserver that no broker has registered at; it ends with its runtime.
fn lonely_nameserver(folder: &std::path::Path) -> (tokio::runtime::Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = escrowmq_nameserver::Config {
        listen_port: 0,
        bind_address: "127.0.0.1".to_owned(),
        kv_config_path: folder.join("kv.json"),
        ..escrowmq_nameserver::Config::default()
    };
    let nameserver = runtime.block_on(escrowmq_nameserver::Nameserver::start(config)).unwrap();
    let address = nameserver.local_addr().to_string();
    runtime.spawn(async move {
        let _kept = nameserver;
        std::future::pending::<()>().await;
    });
    (runtime, address)
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
    for level in ["--log", "--log-level"] {
        let output = Command::new(BINARY).args(["standalone", level, "loud"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("loud"), "{}", stderr(&output));
    }
}

#[test]
fn an_address_in_use_is_told_once_and_logs_can_be_json() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for ports in [["--port", &port, "--broker-port", "0"], ["--port", "0", "--broker-port", &port]] {
        let folder = tempfile::tempdir().unwrap();
        let arguments = ["standalone", "--flush", "async", "--log", "info", "--log-format", "json", "--dir"];
        let output = Command::new(BINARY).args(arguments).arg(folder.path()).args(ports).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        let last = said.lines().last().unwrap();
        assert_eq!(last.matches("Address already in use").count(), 1, "{said}");
        for line in said.lines().filter(|line| *line != last) {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(event["level"].is_string() && event["message"].is_string(), "{line}");
        }
    }
}
