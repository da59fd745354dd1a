//! The operator's view: starting, stopping, refusals.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use escrowmq_client::Message;
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::header::GetRouteInfoHeader;
use escrowmq_tests::processes::{Process, binary, free_port};
use escrowmq_tests::{Broker, Cluster, Settings, Wire, until};

/// How long an orderly stop may take.
const STOP: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_folder_is_refused_and_harms_nobody() {
    let mut broker = Broker::start(Settings::default()).await;
    let mut command = Command::new(binary("escrowmq-broker"));
    command.args(["--listenPort", &free_port().to_string(), "--bindAddress", "127.0.0.1", "--brokerName", "broker-b"]);
    command.arg("--storePathRootDir").arg(broker.data_folder());
    let folder = tempfile::tempdir().unwrap();
    let mut second = Process::start("second broker", command, &folder.path().join("log"));
    // It waits for the folder first, in case the other one is just ending.
    assert!(!second.wait(2 * STOP).await.success());
    let log = second.log();
    let folder = broker.data_folder().display().to_string();
    let id = broker.process().id().to_string();
    assert!(log.contains("is used by another broker") && log.contains(&folder) && log.contains(&id), "{log}");
    let wire = broker.wire();
    wire.create_topic("Folder", 1).await;
    assert_eq!(wire.send("Folder", 0, "body", &[]).await.unwrap().code, response::SUCCESS);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_in_good_order_and_loses_nothing() {
    let mut cluster = Cluster::start(Settings::default().without_checks()).await;
    let broker = &mut cluster.broker;
    let wire = broker.wire();
    wire.create_topic("Stop", 1).await;
    for number in 0..100 {
        assert_eq!(wire.send("Stop", 0, format!("{number}"), &[]).await.unwrap().code, response::SUCCESS);
    }
    let half = wire.half("stop-producer", "Stop", "open", "half").await;
    let before = wire.read_queue("Stop", 0).await;
    // The connection stays open: it must not hold the broker up.
    broker.process().terminate();
    let status = broker.process().wait(STOP).await;
    assert!(status.success(), "{status}");
    TcpListener::bind(("127.0.0.1", broker.port())).expect("the port is released");
    broker.start_again().await;
    let wire = broker.wire();
    assert_eq!(wire.read_queue("Stop", 0).await, before);
    assert_eq!(wire.end(&half, escrowmq_tests::End::Commit).await.unwrap().code, response::SUCCESS);
    assert_eq!(wire.read_queue("Stop", 0).await.len(), 101);
    cluster.nameserver.process().terminate();
    assert!(cluster.nameserver.process().wait(STOP).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_pulls_are_held_stops_as_fast() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Held", 4).await;
    let consumer = client.push_consumer("held-consumer").subscribe("Held", "*");
    let consumer = consumer.start(|_| async { Ok::<(), std::convert::Infallible>(()) }).await.unwrap();
    until("assignment", async || (consumer.assignment().len() >= 4).then_some(())).await;
    cluster.broker.process().terminate();
    assert!(cluster.broker.process().wait(STOP).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_a_send_creates_has_a_route_when_the_send_is_answered() {
    let cluster = Cluster::start(Settings::default()).await;
    let (wire, names) = (cluster.broker.wire(), Wire::to(cluster.nameserver.address()));
    for number in 0..50 {
        let topic = format!("Fresh-{number}");
        assert_eq!(wire.send(&topic, 0, "body", &[]).await.unwrap().code, response::SUCCESS);
        let header = GetRouteInfoHeader {
            topic: Some(&topic),
            accept_standard_json_only: false,
            zone_name: None,
            zone_mode: false,
        };
        names.ask(Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_header(&header)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.conf");
    for (written, nearest) in [("transactionTimeout=1000", "transactionTimeOut"), ("listnPort=1", "listenPort")] {
        std::fs::write(&file, format!("storePathRootDir={}\n{written}\n", folder.path().display())).unwrap();
        let mut command = Command::new(binary("escrowmq-broker"));
        command.arg("-c").arg(&file);
        let mut broker = Process::start("broker", command, &folder.path().join("log"));
        assert!(!broker.wait(STOP).await.success());
        let log = broker.log();
        let key = written.split_once('=').unwrap().0;
        assert!(log.contains(key) && log.contains(nearest), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let mut broker = Broker::start(Settings::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary("escrowmq-broker"));
    let port = broker.port().to_string();
    command.args(["--listenPort", &port, "--bindAddress", "127.0.0.1"]);
    command.arg("--storePathRootDir").arg(folder.path().join("data"));
    let mut second = Process::start("second broker", command, &folder.path().join("log"));
    assert!(!second.wait(STOP).await.success());
    assert!(second.log().contains(&format!("cannot listen at 127.0.0.1:{port}")), "{}", second.log());
    assert_eq!(broker.process().ended(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nameserver_that_starts_again_hears_of_the_broker() {
    let mut cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client_with_topic("Known", 1).await;
    cluster.nameserver.crash().await;
    cluster.until_registered().await;
    // Also one who asks only now.
    let newcomer = cluster.client().await;
    until("route", async || (newcomer.admin().queues("Known").await.ok()?.len() == 1).then_some(())).await;
    let producer = client.producer("known-producer").start().await.unwrap();
    producer.send(Message::new("Known", "body")).await.expect("sent");
}
