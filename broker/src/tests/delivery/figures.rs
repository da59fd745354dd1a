//! Figures by topic and group: what went in and out, how far groups are behind, and how many names are told apart.

#![allow(clippy::float_cmp, reason = "figures are compared that count things")]

use std::collections::BTreeMap;
use std::time::Duration;

use escrowmq_common::clock::Clock;
use escrowmq_common::code::request;
use escrowmq_common::frame::Frame;
use escrowmq_common::monitoring::OTHER;
use escrowmq_common::ports::free_port;
use futures_util::future::join_all;

use super::support::{Client, Node, messages, pull, pull_request, until};
use crate::tests::support::{create_topic, get};

/// The samples of a page, by name with labels.
async fn page(port: u16) -> BTreeMap<String, f64> {
    let (status, text) = get(port, "/metrics").await.unwrap();
    assert_eq!(status, 200, "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// A broker with a page, whose time can be skipped.
async fn stage(series_max: usize) -> (Node, u16) {
    let port = free_port().unwrap();
    let node = Node::on(Clock::skipping(), |config| {
        config.metrics_port = Some(port);
        config.metrics_series_max = series_max;
        config.creations_per_minute = 1_000_000;
    });
    (node.await, port)
}

async fn commit(client: &Client, group: &str, topic: &str, queue: i32, offset: i64) {
    let request = Frame::request(request::UPDATE_CONSUMER_OFFSET)
        .with_field("consumerGroup", group)
        .with_field("topic", topic)
        .with_field("queueId", queue)
        .with_field("commitOffset", offset);
    assert_eq!(client.call(request).await.code, 0);
}

fn of(page: &BTreeMap<String, f64>, name: &str, labels: &str) -> f64 {
    let name = if labels.is_empty() { format!("escrowmq_{name}") } else { format!("escrowmq_{name}{{{labels}}}") };
    *page.get(&name).unwrap_or_else(|| panic!("{name} in {page:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_go_in_and_out_and_lag_is_the_age_of_the_oldest_unconsumed_message() {
    let (node, port) = stage(100).await;
    let client = node.client("c");
    client.join("G", "T", "*").await;
    for (queue, body) in [(0, &b"one"[..]), (0, b"another"), (1, b"the third")] {
        client.send("T", queue, body, &[("KEYS", "k")]).await;
    }
    for (queue, count) in [(0, 2), (1, 1)] {
        assert_eq!(messages(&client.call(pull_request(&pull("G", "T", queue, 0))).await).len(), count);
    }
    commit(&client, "G", "T", 0, 1).await;
    commit(&client, "G", "T", 1, 1).await;
    let (gt, minutes) = ("group=\"G\",topic=\"T\"", Duration::from_secs(90));
    node.running().skip_time(minutes).await;
    let before = page(port).await;
    let bytes = of(&before, "message_bytes_in_total", "");
    assert!(bytes > 200.0, "properties are stored, too: {bytes}");
    assert_eq!(bytes, of(&before, "message_bytes_out_total", ""));
    assert_eq!(bytes, of(&before, "topic_bytes_in_total", "topic=\"T\""));
    assert_eq!(bytes, of(&before, "consumer_bytes_out_total", gt));
    for (name, labels) in
        [("messages_in_total", ""), ("messages_out_total", ""), ("topic_messages_in_total", "topic=\"T\"")]
    {
        assert_eq!(of(&before, name, labels), 3.0, "{name}");
    }
    assert_eq!(of(&before, "consumer_messages_out_total", gt), 3.0);
    assert_eq!(of(&before, "consumers", "group=\"G\""), 1.0);
    assert_eq!(of(&before, "consumer_lag_messages", gt), 1.0);
    let age = of(&before, "consumer_lag_seconds", gt);
    assert!((90.0..120.0).contains(&age), "the second message is 90 s old: {age}");
    assert!(of(&before, "consumer_lag_age_seconds", "") < 1.0);

    // A younger message adds to the lag and not to its age; it is the oldest when the first one is consumed.
    client.send("T", 0, b"the fourth", &[]).await;
    let page_of_two = page(port).await;
    assert_eq!(of(&page_of_two, "consumer_lag_messages", gt), 2.0);
    assert!(of(&page_of_two, "consumer_lag_seconds", gt) >= 90.0);
    commit(&client, "G", "T", 0, 2).await;
    let page_of_one = page(port).await;
    assert_eq!(of(&page_of_one, "consumer_lag_messages", gt), 1.0);
    assert!(of(&page_of_one, "consumer_lag_seconds", gt) < 30.0);
    commit(&client, "G", "T", 0, 3).await;
    let done = page(port).await;
    assert_eq!((of(&done, "consumer_lag_messages", gt), of(&done, "consumer_lag_seconds", gt)), (0.0, 0.0));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_dead_letters_and_halves_are_told_by_group() {
    let (node, port) = stage(100).await;
    let client = node.client("c");
    client.join("G", "T", "*").await;
    client.send("%RETRY%G", 0, b"again", &[]).await;
    client.send("%DLQ%G", 0, b"dead", &[]).await;
    client.send("T", 0, b"half", &[("TRAN_MSG", "true"), ("PGROUP", "PG"), ("UNIQ_KEY", "TX")]).await;
    node.running().skip_time(Duration::from_secs(3)).await;
    let page = page(port).await;
    for name in ["consumer_retries_total", "consumer_dead_letters_total", "consumer_dead_letters"] {
        assert_eq!(of(&page, name, "group=\"G\""), 1.0, "{name}");
    }
    assert_eq!(of(&page, "producer_halves", "producer_group=\"PG\",state=\"open\""), 1.0);
    assert_eq!(of(&page, "producer_halves", "producer_group=\"PG\",state=\"parked\""), 0.0);
    let age = of(&page, "producer_halves_oldest_seconds", "producer_group=\"PG\",state=\"open\"");
    assert!((3.0..60.0).contains(&age), "{age}");
    assert_eq!(of(&page, "topic_messages_in_total", "topic=\"T\""), 0.0, "a half has not entered the topic");
    assert!(!page.contains_key("escrowmq_topic_messages_in_total{topic=\"%RETRY%G\"}"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_names_have_a_bounded_number_of_series() {
    const NAMES: usize = 1_500;
    const SERIES: usize = 20;
    let (node, port) = stage(SERIES).await;
    let client = node.client("c");
    let topics = (0..NAMES).map(|n| create_topic(&format!("topic{n}"), 1));
    let groups = (0..NAMES).map(|n| {
        let body = format!(r#"{{"groupName":"group{n}","consumeEnable":true}}"#);
        Frame::request(request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(body)
    });
    for answer in join_all(topics.chain(groups).map(|request| client.call(request))).await {
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
    }
    for n in 0..NAMES {
        let topic = format!("topic{n}");
        client.send(&topic, 0, b"body", &[]).await;
        commit(&client, &format!("group{n}"), &topic, 0, 0).await;
    }
    until("all lags are read", async || {
        let page = page(port).await;
        let of_all =
            |name: &str| page.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, value)| value).sum::<f64>();
        let series = |name: &str| page.keys().filter(|key| key.starts_with(name)).count();
        for name in [
            "topic_messages_in_total",
            "topic_bytes_in_total",
            "consumer_lag_messages",
            "consumer_lag_seconds",
            "consumers",
        ] {
            let name = format!("escrowmq_{name}{{");
            assert!(series(&name) <= SERIES + 1, "{name}: {}", series(&name));
        }
        assert_eq!(of_all("escrowmq_topic_messages_in_total{"), NAMES as f64, "the sum has all");
        let other = of(&page, "topic_messages_in_total", &format!("topic=\"{OTHER}\""));
        assert!(other >= (NAMES - SERIES) as f64, "{other}");
        let summed = of(&page, "metrics_summed", "by=\"topic\"");
        assert!(summed >= (NAMES - SERIES) as f64, "{summed}");
        of_all("escrowmq_consumer_lag_messages{") >= NAMES as f64
    })
    .await;
    node.stop().await;
}
