//! Brokers come and go: what lookups say meanwhile.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use escrowmq_common::code::{request, response};
use escrowmq_common::frame::{Frame, HeaderEncoding};
use escrowmq_common::remoting::{NoRequests, Remote, RemoteOptions};
use escrowmq_nameserver::{Nameserver, Refusal};
use support::{PATIENCE, Stage, registration, text};

#[tokio::test]
async fn the_end_of_a_connection_takes_its_broker_away() {
    let stage = Stage::start().await;
    let broker = stage.connect().await;
    let answer = broker.call(registration("h:1", 0, 1, &["T", "U"])).await;
    assert_eq!(answer.code, response::SUCCESS);
    assert!(stage.route("T").await.is_some());
    drop(broker);
    stage.until_route("T", |route| route.is_none()).await;
    assert_eq!(stage.route("U").await, None);
}

#[tokio::test]
async fn a_silent_broker_expires_and_loses_its_connection() {
    let stage = Stage::start().await;
    let broker = stage.connect().await;
    let quick = registration("h:1", 0, 1, &["T", "U"]).with_field("heartbeatTimeoutMillis", 10_000);
    broker.call(quick).await;
    let other = stage.connect().await;
    other.call(registration("h:2", 1, 1, &["T", "U"])).await;
    stage.clock.advance(Duration::from_secs(9));
    let heartbeat = Frame::request(request::BROKER_HEARTBEAT)
        .with_field("clusterName", "c")
        .with_field("brokerName", "a")
        .with_field("brokerAddr", "h:1");
    assert_eq!(broker.call(heartbeat).await.code, response::SUCCESS);
    stage.clock.advance(Duration::from_secs(9));
    let members = |route: Option<&str>, address: &str| route.is_some_and(|r| r.contains(address));
    // The scan runs every 2 ms: had the heartbeat not counted, some of these would see it gone.
    for _ in 0..20 {
        assert!(members(stage.route("T").await.as_deref(), "h:1"));
    }
    stage.clock.advance(Duration::from_secs(2));
    stage.until_route("T", |route| !members(route, "h:1")).await;
    assert!(members(stage.route("T").await.as_deref(), "h:2"));
    let closed = async {
        while broker.connection.is_open() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("the connection is closed");
    assert!(other.connection.is_open());
}

#[tokio::test]
async fn a_single_topic_before_a_full_registration_is_refused() {
    let stage = Stage::start().await;
    let answer = stage.call(registration("h:1", 0, 1, &["T"])).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert_eq!(answer.remark.as_deref(), Some("register broker failed"));
    assert_eq!(stage.route("T").await, None);
}

#[tokio::test]
async fn a_slave_hears_of_its_master_and_versions_can_be_asked_for() {
    let stage = Stage::start().await;
    stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
    let answer = stage.call(registration("h:2", 1, 1, &["T", "U"])).await;
    assert_eq!(answer.fields.get("masterAddr"), Some("h:1"));
    assert_eq!(answer.fields.get("haServerAddr"), Some("ha-h:1"));

    let ask = |address: &str, counter: i64| {
        Frame::request(request::QUERY_DATA_VERSION)
            .with_field("clusterName", "c")
            .with_field("brokerName", "a")
            .with_field("brokerAddr", address)
            .with_field("brokerId", 0)
            .with_body(format!(r#"{{"counter":{counter},"stateVersion":1,"timestamp":5}}"#))
    };
    let same = stage.call(ask("h:1", 1)).await;
    assert_eq!(same.fields.get("changed"), Some("false"));
    assert_eq!(text(&same.body), r#"{"counter":1,"stateVersion":1,"timestamp":5}"#);
    assert_eq!(stage.call(ask("h:1", 2)).await.fields.get("changed"), Some("true"));
    let stranger = stage.call(ask("h:9", 1)).await;
    assert_eq!(stranger.fields.get("changed"), Some("true"));
    assert!(stranger.body.is_empty());
}

#[tokio::test]
async fn a_leader_of_an_older_term_is_told_why_and_counted() {
    let stage = Stage::start().await;
    let of_term = |address: &str, term: i64| {
        let request = registration(address, 0, 1, &["T", "U"]);
        let body = text(&request.body).replace(r#""stateVersion":1"#, &format!(r#""stateVersion":{term}"#));
        request.with_body(body)
    };
    let (old, new) = (stage.connect().await, stage.connect().await);
    assert_eq!(old.call(of_term("h:1", 4)).await.code, response::SUCCESS);
    assert_eq!(new.call(of_term("h:2", 5)).await.code, response::SUCCESS);
    let late = old.call(of_term("h:1", 4)).await;
    assert_eq!(late.code, response::SYSTEM_ERROR, "as Apache's nameserver answers what it does not take");
    let remark = late.remark.unwrap();
    assert!(remark.contains("h:2") && remark.contains("a newer leader"), "{remark}");
    let refused = |why| stage.nameserver.refused(why);
    assert_eq!((refused(Refusal::Older), refused(Refusal::Taken)), (1, 0));
    let goodbye = |term: &str| {
        Frame::request(request::UNREGISTER_BROKER)
            .with_field("brokerName", "a")
            .with_field("brokerAddr", "h:2")
            .with_field("clusterName", "c")
            .with_field("brokerId", 0)
            .with_field("escrowmqTerm", term)
    };
    // The same machine, so that only the term speaks against it.
    assert_eq!(old.call(goodbye("4")).await.code, response::SYSTEM_ERROR);
    assert_eq!(old.call(goodbye("four")).await.code, response::SYSTEM_ERROR);
    assert_eq!((refused(Refusal::Stranger), refused(Refusal::Malformed)), (1, 1));
    assert!(stage.route("T").await.is_some_and(|route| route.contains("h:2")));
    assert_eq!(new.call(goodbye("5")).await.code, response::SUCCESS);
    assert_eq!(stage.route("T").await, None);
}

#[tokio::test]
async fn a_binary_request_gets_a_binary_answer() {
    let stage = Stage::start().await;
    stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
    let options = RemoteOptions { encoding: HeaderEncoding::Binary, ..RemoteOptions::default() };
    let remote = Remote::new(options, Arc::new(NoRequests));
    for (topic, code) in [("T", response::SUCCESS), ("X", response::TOPIC_NOT_EXIST)] {
        let asked = Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", topic);
        let answer = remote.call(&stage.address(), asked, PATIENCE).await.unwrap();
        assert_eq!((answer.code, answer.encoding), (code, HeaderEncoding::Binary));
    }
}

#[tokio::test]
async fn a_checksum_that_does_not_match_is_refused() {
    let stage = Stage::start().await;
    let mut wrong = registration("h:1", 0, 1, &["T", "U"]);
    wrong.fields.insert("bodyCrc32", 7);
    let answer = stage.call(wrong).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR);
    assert_eq!(answer.remark.as_deref(), Some("crc32 not match"));
}

#[tokio::test]
async fn members_are_told_of_the_smallest_id() {
    let stage = Stage::start_with(|config| config.notify_min_broker_id_changed = true).await;
    let acting = |address: &str, id: i64| {
        let mut request = registration(address, id, 1, &["T", "U"]);
        request.fields.insert("enableActingMaster", true);
        request
    };
    let (told, line) = support::listening(&stage.address()).await;
    line.call(acting("h:1", 1)).await;
    let master = stage.connect().await;
    master.call(acting("h:0", 0)).await;
    let notice = support::next(&told).await;
    assert_eq!(notice.code, request::NOTIFY_MIN_BROKER_ID_CHANGE);
    assert!(notice.is_oneway());
    assert_eq!(notice.fields.get("minBrokerId"), Some("0"));
    assert_eq!(notice.fields.get("haBrokerAddr"), Some("ha-h:0"));
    drop(master);
    let notice = support::next(&told).await;
    assert_eq!(notice.fields.get("minBrokerId"), Some("1"));
    assert_eq!(notice.fields.get("offlineBrokerAddr"), Some("h:0"));
}

#[tokio::test]
async fn lookups_wait_for_service_if_told_to() {
    let stage = Stage::start_with(|config| config.need_wait_for_service = true).await;
    stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
    let ask = || Frame::request(request::GET_ROUTEINFO_BY_TOPIC).with_field("topic", "T");
    let early = stage.call(ask()).await;
    assert_eq!(early.code, response::SYSTEM_ERROR);
    assert_eq!(early.remark.as_deref(), Some("name server not ready"));
    stage.clock.advance(Duration::from_secs(45));
    assert_eq!(stage.call(ask()).await.code, response::SUCCESS);
}

#[tokio::test]
async fn nothing_is_left_after_stop() {
    let stage = Stage::start().await;
    let broker = stage.connect().await;
    broker.call(registration("h:1", 0, 1, &["T", "U"])).await;
    let stopped = tokio::time::timeout(PATIENCE, stage.nameserver.stop());
    stopped.await.expect("stop ends");
    let address = stage.nameserver.local_addr();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    // The port is free for the next one.
    let again = Stage::start_with(|config| config.listen_port = address.port()).await;
    assert_eq!(again.nameserver.local_addr(), address);
}

#[tokio::test]
async fn two_run_side_by_side_and_share_nothing() {
    let (one, two) = (Stage::start().await, Stage::start().await);
    one.call(registration("h:1", 0, 1, &["T", "U"])).await;
    assert!(one.route("T").await.is_some());
    assert_eq!(two.route("T").await, None);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let stage = Stage::start().await;
    let mut config = escrowmq_nameserver::Config {
        listen_port: stage.nameserver.local_addr().port(),
        bind_address: "127.0.0.1".to_owned(),
        ..escrowmq_nameserver::Config::default()
    };
    config.kv_config_path = stage.folder.path().join("other.json");
    let error = Nameserver::start(config).await.unwrap_err();
    let port = stage.nameserver.local_addr().port().to_string();
    assert!(error.to_string().contains(&port), "{error}");
}
