//! Brokers with very many topics: they are found, and everybody else goes on.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use std::collections::BTreeMap;

use escrowmq_common::body::{DataVersion, RegisterBrokerBody, TopicConfig};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
use escrowmq_common::message::CompressionType;
use escrowmq_nameserver::Refusal;
use support::{PATIENCE, Stage, registration};

const TOPICS: usize = 100_000;

fn large() -> Frame {
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version = DataVersion { counter: 1, ..DataVersion::default() };
    wrapper.topic_config_table = (0..TOPICS)
        .map(|n| format!("orders-of-customer-{n}"))
        .map(|name| (name.clone(), TopicConfig::new(name, 4)))
        .collect::<BTreeMap<_, _>>();
    large_header().with_body(body.encode_compressed())
}

fn large_header() -> Frame {
    Frame::request(request::REGISTER_BROKER)
        .with_field("brokerName", "large")
        .with_field("brokerAddr", "h:9")
        .with_field("clusterName", "c")
        .with_field("haServerAddr", "h:10")
        .with_field("brokerId", 0)
        .with_field("enableActingMaster", false)
        .with_field("compressed", true)
        .with_field("bodyCrc32", 0)
}

#[tokio::test]
async fn lookups_go_on_while_a_hundred_thousand_topics_are_registered() {
    let stage = Stage::start().await;
    stage.call(registration("h:1", 0, 1, &["T", "U"])).await;
    let broker = stage.connect().await;
    let mut registering = Box::pin(broker.call(large()));
    let mut lookups = 0;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut registering => break answer,
            route = stage.route("T") => assert!(route.is_some()),
        }
        lookups += 1;
    };
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    assert!(lookups > 20, "{lookups} lookups while registering");
    let last = stage.route(&format!("orders-of-customer-{}", TOPICS - 1)).await;
    assert!(last.is_some_and(|route| route.contains("\"readQueueNums\":4")));
    // The dead broker disappears from all its topics at once, before they are cleaned one by one.
    drop(registering);
    drop(broker);
    stage.until_route("orders-of-customer-7", |route| route.is_none()).await;
    let cleaned = async {
        while stage.call(Frame::request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER)).await.body.len() > 100 {
            assert_eq!(stage.route("orders-of-customer-99").await, None);
        }
    };
    tokio::time::timeout(PATIENCE, cleaned).await.expect("the topics are cleaned");
    assert!(stage.route("T").await.is_some());
}

/// A packed registration with this many topics, written by hand: as objects they would take most of a gigabyte.
fn packed(topics: usize, counter: u64) -> Frame {
    let mut plain = Vec::new();
    let mut part = |text: &str| {
        plain.extend((text.len() as i32).to_be_bytes());
        plain.extend(text.as_bytes());
    };
    part(&format!(r#"{{"counter":{counter}}}"#));
    plain.extend((topics as i32).to_be_bytes());
    for n in 0..topics {
        let line = format!("orders-of-customer-{n} 4 4 6 SINGLE_TAG {{}}");
        plain.extend((line.len() as i32).to_be_bytes());
        plain.extend(line.as_bytes());
    }
    plain.extend([0, 0, 0, 2, b'[', b']', 0, 0, 0, 0]);
    let body = CompressionType::Zlib.compress(&plain, 1).unwrap();
    large_header().with_body(body)
}

#[tokio::test]
async fn a_million_topics_are_registered_and_one_more_costs_the_broker_nothing() {
    const MILLION: usize = 1_000_000;
    let stage = Stage::start().await;
    let broker = stage.connect().await;
    let answer = broker.call(packed(MILLION, 1)).await;
    assert_eq!(answer.code, response::SUCCESS, "{:?}", answer.remark);
    let last = format!("orders-of-customer-{}", MILLION - 1);
    assert!(stage.route(&last).await.is_some());

    let refused = broker.call(packed(MILLION + 1, 2)).await;
    assert_eq!(refused.code, response::SYSTEM_ERROR);
    let remark = refused.remark.unwrap();
    assert!(remark.contains("1000001 topics") && remark.contains("the limit is 1000000"), "{remark}");
    assert_eq!(stage.nameserver.refused(Refusal::Malformed), 1);
    assert!(stage.route(&last).await.is_some(), "what was registered before stays");
    let next = stage.route(&format!("orders-of-customer-{MILLION}")).await;
    assert_eq!(next, None);

    // In parts, as our own brokers do it, there may be more.
    let more = broker.call(registration("h:9", 0, 3, &["T", "U"]).with_field("brokerName", "large")).await;
    assert_eq!(more.code, response::SUCCESS, "{:?}", more.remark);
    assert!(stage.route("T").await.is_some() && stage.route(&last).await.is_some());
    // The list of all is too long for a frame, and says so.
    let list = stage.call(Frame::request(request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER)).await;
    assert_eq!(list.code, response::SYSTEM_ERROR);
    assert!(list.remark.is_some_and(|remark| remark.contains("the limit is")));
}
