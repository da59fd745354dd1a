//! A broker with very many topics: everybody else goes on.

#![allow(unreachable_pub, reason = "the support module is shared by several test programs")]

mod support;

use std::collections::BTreeMap;

use escrowmq_common::body::{DataVersion, RegisterBrokerBody, TopicConfig};
use escrowmq_common::code::{request, response};
use escrowmq_common::frame::Frame;
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
    Frame::request(request::REGISTER_BROKER)
        .with_field("brokerName", "large")
        .with_field("brokerAddr", "h:9")
        .with_field("clusterName", "c")
        .with_field("haServerAddr", "h:10")
        .with_field("brokerId", 0)
        .with_field("enableActingMaster", false)
        .with_field("compressed", true)
        .with_field("bodyCrc32", 0)
        .with_body(body.encode_compressed())
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
