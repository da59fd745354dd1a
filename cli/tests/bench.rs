//! `escrowmq bench` against a real broker: each workload for a moment, its counts against what the broker stored.

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;
use support::{BINARY, Standalone};

const SHORT: [&str; 8] = ["--seconds", "0.8", "--warmup", "0.2", "--connections", "4", "--in-flight", "4"];

/// Runs a workload for a moment.
fn bench(cluster: &Standalone, workload: &str, arguments: &[&str]) -> Value {
    let mut all = vec![workload];
    all.extend_from_slice(&SHORT);
    all.extend_from_slice(arguments);
    cluster.json("bench", &all)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// How many messages the broker has in a topic.
fn stored(cluster: &Standalone, topic: &Value) -> u64 {
    let queues = cluster.json("admin", &["topic", "status", topic.as_str().unwrap()]);
    queues.as_array().unwrap().iter().map(|queue| number(&queue["max_offset"])).sum()
}

fn topics(cluster: &Standalone) -> usize {
    cluster.json("admin", &["topic", "list"]).as_array().unwrap().len()
}

/// Conditions that every measurement of a broker that is well must meet.
fn assert_sound(found: &Value) {
    assert!(found["throughput"].as_f64().unwrap() > 0.0, "{found}");
    for key in ["lost", "unanswered", "strays"] {
        assert_eq!(found[key], 0, "{key}: {found}");
    }
    assert_eq!(found["errors"], Value::Object(serde_json::Map::default()), "{found}");
}

#[test]
fn sends_are_counted_and_were_stored() {
    let cluster = Standalone::start();
    let pid = cluster.pid().to_string();
    for header in ["json", "binary"] {
        let found = bench(&cluster, "send", &["--keep-topic", "--header", header, "--pid", &pid, "--threads", "2"]);
        assert_sound(&found);
        let acknowledged = number(&found["acknowledged"]);
        assert_eq!([&found["sent"], &found["stored"]].map(number), [acknowledged, acknowledged]);
        assert_eq!(stored(&cluster, &found["topic"]), acknowledged);
        assert!(number(&found["messages"]) > 0 && number(&found["messages"]) <= acknowledged);
        let latency = ["p50", "p99", "p999", "max"].map(|of| found["latency_ms"][of].as_f64().unwrap());
        assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");
        assert!(found["broker"]["cpu_us"].as_f64().unwrap() > 0.0, "{found}");
        assert!(found["broker"]["resident_mib"].as_f64().unwrap() > 1.0, "{found}");
    }
    // A count is sent exactly; a topic of its own does not stay.
    let before = topics(&cluster);
    let found = bench(&cluster, "send", &["--count", "501", "--size", "10"]);
    assert_eq!([&found["acknowledged"], &found["stored"], &found["messages"]].map(number), [501; 3]);
    assert_eq!(topics(&cluster), before);
    // A rate is kept and not exceeded.
    let found = bench(&cluster, "send", &["--rate", "500"]);
    assert_eq!(number(&found["acknowledged"]), 500);
    assert_sound(&found);
    cluster.stop();
}

#[test]
fn transactions_are_counted_when_they_are_visible() {
    let cluster = Standalone::start();
    for arguments in [&["--keep-topic"][..], &["--keep-topic", "--await", "--header", "binary"]] {
        let found = bench(&cluster, "txn", arguments);
        assert_sound(&found);
        let acknowledged = number(&found["acknowledged"]);
        assert!(number(&found["messages"]) > 0 && number(&found["messages"]) <= acknowledged);
        assert_eq!((number(&found["stored"]), stored(&cluster, &found["topic"])), (acknowledged, acknowledged));
    }
    cluster.stop();
}

#[test]
fn a_topic_is_read_to_its_end() {
    let cluster = Standalone::start();
    let found = cluster.json("bench", &["consume", "--load", "5000", "--topic", "Full", "--connections", "3"]);
    assert_sound(&found);
    assert_eq!([&found["received"], &found["expected"], &found["disordered"]].map(number), [5000, 5000, 0]);
    assert!(found["mb_per_s"].as_f64().unwrap() > 0.0);
    let again = cluster.json("bench", &["consume", "--topic", "Full", "--header", "binary"]);
    assert_eq!((number(&again["received"]), again["reading_connections"].as_u64()), (5000, Some(8)));
    cluster.stop();
}

#[test]
fn every_message_is_received_by_a_waiting_consumer() {
    let cluster = Standalone::start();
    let found = bench(&cluster, "e2e", &["--rate", "400"]);
    assert_sound(&found);
    assert_eq!([&found["acknowledged"], &found["received"], &found["disordered"]].map(number), [400, 400, 0]);
    let (receipt, send) = (&found["latency_ms"], &found["send_latency_ms"]);
    assert!(number(&receipt["count"]) > 300 && receipt["p50"].as_f64().unwrap() > 0.0, "{receipt} {send}");
    cluster.stop();
}

#[test]
fn rates_are_compared_with_and_without_what_is_left_open() {
    let cluster = Standalone::start();
    let before = topics(&cluster);
    for (arguments, backlog) in [(["--halves", "700"], 700), (["--messages", "900"], 900)] {
        let found = bench(&cluster, "backlog", &arguments);
        assert_eq!(number(&found["backlog"]), backlog);
        for part in ["send_before", "send_after", "txn_before", "txn_after"] {
            assert_sound(&found[part]);
        }
        assert!(found["send_ratio"].as_f64().unwrap() > 0.0 && found["txn_ratio"].as_f64().unwrap() > 0.0);
    }
    let pid = cluster.pid().to_string();
    let found = bench(&cluster, "connections", &["--open", "150", "--pid", &pid]);
    assert_eq!([&found["open"], &found["open_ms"]["count"]].map(number), [150, 150]);
    assert!(found["send_ratio"].as_f64().unwrap() > 0.0 && found["kib_per_connection"].is_number(), "{found}");
    assert_eq!(number(&found["closed_meanwhile"]), 0);
    assert_eq!(topics(&cluster), before);
    cluster.stop();
}

#[test]
fn an_interrupt_ends_a_run_with_its_result() {
    let cluster = Standalone::start();
    let arguments = ["send", "--seconds", "600", "--topic", "Endless", "--json"];
    let mut process = cluster.command("bench", &arguments);
    let process = process.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has sent something, and so listens to signals.
    while !cluster.run("admin", &["topic", "status", "Endless"]).status.success()
        || stored(&cluster, &"Endless".into()) == 0
    {}
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((found["interrupted"].as_bool(), number(&found["unanswered"])), (Some(true), 0));
    assert_eq!(number(&found["stored"]), number(&found["acknowledged"]));
    cluster.stop();
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    let cluster = Standalone::start();
    let fails = |arguments: &[&str], reason: &str| {
        let output = cluster.run("bench", arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && errors.contains(reason), "{arguments:?}: {errors}");
    };
    fails(&["send", "--topic", "no topic"], "no topic");
    fails(&["send", "--rate", "0"], "--rate");
    fails(&["send", "--connections", "0"], "--connections");
    fails(&["send", "--broker", "127.0.0.1:1"], "127.0.0.1:1");
    fails(&["send", "--pid", "4294967294"], "4294967294");
    fails(&["consume"], "--load");
    fails(&["e2e", "--size", "3"], "--size");
    cluster.stop();
    let output = Command::new(BINARY).args(["bench", "send", "--namesrv", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("nameserver 127.0.0.1:1"), "{errors}");
}
