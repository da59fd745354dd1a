//! Topics and groups by request.

use escrowmq_common::body::json::from_slice;
use escrowmq_common::body::{SubscriptionGroupConfig, TopicConfig, TopicConfigTable};
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;

use super::support::{Stage, create_topic, send};

fn of_topic(code: i32, topic: &str) -> Frame {
    Frame::request(code).with_field("topic", topic)
}

async fn all(stage: &Stage) -> Vec<String> {
    let answer = stage.done(Frame::request(request::GET_ALL_TOPIC_CONFIG)).await;
    let table: TopicConfigTable = from_slice(&answer.body).unwrap();
    table.topic_config_table.into_keys().collect()
}

#[tokio::test]
async fn a_topic_is_created_changed_and_deleted() {
    let stage = Stage::new().await;
    stage.done(create_topic("T", 2)).await;
    stage.done(create_topic("T", 3)).await;
    let answer = stage.done(of_topic(request::GET_TOPIC_CONFIG, "T")).await;
    assert_eq!(from_slice::<TopicConfig>(&answer.body).unwrap(), TopicConfig::new("T", 3));
    assert!(all(&stage).await.contains(&"T".to_owned()));

    stage.done(send("T", &[])).await;
    stage.done(of_topic(request::DELETE_TOPIC_IN_BROKER, "T")).await;
    stage.done(of_topic(request::DELETE_TOPIC_IN_BROKER, "T")).await;
    assert_eq!(stage.call(of_topic(request::GET_TOPIC_CONFIG, "T")).await.code, 17);
    // A new topic of the same name has none of the old messages.
    stage.done(create_topic("T", 2)).await;
    assert!(stage.stored("T", 0).is_empty());
}

#[tokio::test]
async fn system_topics_are_there_and_stay() {
    let stage = Stage::new().await;
    let names = all(&stage).await;
    for name in ["TBW102", "SELF_TEST_TOPIC", "DefaultCluster", "broker-a", "DefaultCluster_REPLY_TOPIC"] {
        assert!(names.contains(&name.to_owned()), "{name}");
        assert_ne!(stage.call(of_topic(request::DELETE_TOPIC_IN_BROKER, name)).await.code, 0, "{name}");
        assert_eq!(stage.call(create_topic(name, 4)).await.code, 29, "{name}");
    }
    assert_eq!(stage.call(create_topic("a b", 4)).await.code, 29);
    assert_eq!(stage.call(create_topic("T", -1)).await.code, 29);
    assert_eq!(all(&stage).await.len(), names.len());
}

#[tokio::test]
async fn a_group_is_created_changed_and_deleted() {
    let stage = Stage::new().await;
    let show = || Frame::request(request::GET_SUBSCRIPTIONGROUP_CONFIG).with_field("group", "CG");
    assert_eq!(stage.call(show()).await.code, 26);
    let body = r#"{"groupName":"CG","retryMaxTimes":3,"consumeEnable":false}"#;
    stage.done(Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body)).await;
    let answer = stage.done(show()).await;
    let config: SubscriptionGroupConfig = from_slice(&answer.body).unwrap();
    assert_eq!((config.retry_max_times, config.consume_enable, config.retry_queue_nums), (3, false, 1));
    let delete = || Frame::request(request::DELETE_SUBSCRIPTIONGROUP).with_field("groupName", "CG");
    stage.done(delete()).await;
    stage.done(delete()).await;
    assert_eq!(stage.call(show()).await.code, 26);
    let bad = Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(r#"{"groupName":"a b"}"#);
    assert_eq!(stage.call(bad).await.code, 29);
    assert_eq!(stage.call(Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body("{")).await.code, 1);
}
